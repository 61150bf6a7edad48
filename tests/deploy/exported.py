"""What the tests of exports share: a small checkpoint, clips, and ways to spoil a saved file."""

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from egochef.clip import ClipSpec
from egochef.model.checkpoint import Checkpoint, save_checkpoint
from egochef.model.recogniser import ModelConfig, Recogniser
from egochef.taxonomy import Taxonomy

CLIP = ClipSpec(num_frames=4, image_size=64, resize_size=72, mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3))
TAXONOMY = Taxonomy(("a", "b", "c"), ("w", "x", "y", "z"))
BLOB = struct.Struct("<IIQQ")
"""what stands at a tensor's offset in weight.bin: a mark, its type, its bytes, and where they begin"""


def save(path: Path, seed: int = 0, taxonomy: Taxonomy = TAXONOMY, clip: ClipSpec = CLIP, **model) -> Path:
    """A checkpoint of a small recogniser whose statistics and heads are as after training."""
    torch.manual_seed(seed)
    recogniser = Recogniser(
        ModelConfig(**{"hidden_size": 8, "num_verbs": 3, "num_nouns": 4, "frozen_batchnorm": False} | model)
    )
    for module in recogniser.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 1.5)
    for head in (recogniser.verb_head, recogniser.noun_head):
        head.weight.data *= 4
    save_checkpoint(path, recogniser.eval(), Checkpoint(recogniser.config, clip, taxonomy, "toy", "none"))
    return path


def pictures(num_clips: int, num_frames: int, seed: int = 1) -> torch.Tensor:
    """Clips (B, T, S, S, 3) uint8 of noise that is brighter in one colour than in another."""
    shape = (num_clips, num_frames, 64, 64, 3)
    return torch.from_numpy(np.random.default_rng(seed).integers(0, (256, 160, 90), shape, dtype=np.uint8))


def change_constant(package: Path, name: str, change: Callable[[np.ndarray], np.ndarray]) -> None:
    """Rewrite the first float16 constant of a package whose name has `name` in it, in weight.bin or in the program."""
    import coremltools

    spec = coremltools.utils.load_spec(str(package))
    block = next(iter(spec.mlProgram.functions["main"].block_specializations.values()))
    op = next(op for op in block.operations if op.type == "const" and name in op.outputs[0].name)
    shape = [each.constant.size for each in op.outputs[0].type.tensorType.dimensions]
    value = op.attributes["val"]
    if not value.HasField("blobFileValue"):
        held = value.immediateValue.tensor.bytes
        held.values = change(np.frombuffer(held.values, np.float16).reshape(shape)).astype(np.float16).tobytes()
        next(package.rglob("*.mlmodel")).write_bytes(spec.SerializeToString())
        return
    path = next(package.rglob("weight.bin"))
    data = bytearray(path.read_bytes())
    mark, _, size, start = BLOB.unpack_from(data, value.blobFileValue.offset)
    assert mark == 0xDEADBEEF
    array = np.frombuffer(bytes(data[start : start + size]), np.float16).reshape(shape)
    data[start : start + size] = change(array).astype(np.float16).tobytes()
    path.write_bytes(data)


def change_spec(package: Path, change: Callable[[Any], None]) -> None:
    """Rewrite a package's description."""
    import coremltools

    spec = coremltools.utils.load_spec(str(package))
    change(spec)
    next(package.rglob("*.mlmodel")).write_bytes(spec.SerializeToString())


def change_initializer(path: Path, name: str, change: Callable[[np.ndarray], np.ndarray]) -> None:
    """Rewrite the first weight of an ONNX file whose name has `name` in it."""
    import onnx
    from onnx import numpy_helper

    model = onnx.load(path)
    tensor = next(each for each in model.graph.initializer if name in each.name)
    changed = np.ascontiguousarray(change(numpy_helper.to_array(tensor)))
    tensor.CopyFrom(numpy_helper.from_array(changed, tensor.name))
    onnx.save(model, path)
