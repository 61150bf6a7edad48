"""Writes a recogniser as a pair of ONNX files for streams, and checks what was written.

In: a `TorchEngine` in float32. Out: the frame encoder (pixels in: scaling and normalisation are inside) and the head
over features of any number of frames, each with ClipSpec and class names in its metadata.
"""

import json
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from egochef.engines.onnx_engine import METADATA_KEY, OnnxEngine, OnnxPair
from egochef.engines.torch_engine import TorchEngine
from egochef.errors import InputError
from egochef.files import atomic_path
from egochef.model.recogniser import Recogniser
from egochef.records import to_dict

OPSET = 17
MAX_DIFFERENCE = 1e-4
"""between a written file and the checkpoint, relative to the largest value, in float32"""
QUANTISED_OPS = ["Conv", "Add", "Gemm", "MatMul"]


class _PixelEncoder(nn.Module):
    """(N, S, S, 3) uint8 -> (N, D): an encoder with scaling and normalisation inside."""

    def __init__(self, engine: TorchEngine):
        super().__init__()
        self.encoder = engine.encoder
        mean, std = torch.tensor(engine.clip.mean), torch.tensor(engine.clip.std)
        self.scale, self.shift = 1 / (255 * std), -mean / std

    def forward(self, pixels: Tensor) -> Tensor:
        frames = pixels.float() * self.scale + self.shift  # (N, S, S, 3)
        return self.encoder(frames.permute(0, 3, 1, 2))  # (N, D)


class _Head(nn.Module):
    """(B, T, D) -> (B, V), (B, N): what follows the encoder."""

    def __init__(self, recogniser: Recogniser):
        super().__init__()
        self.recogniser = recogniser

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        logits = self.recogniser.classify(features)
        return logits.verb, logits.noun


def pair_at(output: Path) -> OnnxPair:
    """The two files that belong to `OUT.onnx`: `OUT-encoder.onnx` and `OUT-head.onnx`."""
    return OnnxPair(*(output.with_name(f"{output.stem}-{part}{output.suffix}") for part in ("encoder", "head")))


def write_onnx_pair(engine: TorchEngine, output: Path, *, checkpoint: str) -> OnnxPair:
    """Write both parts, run the written files and compare them with the engine; they stay only if they agree.

    Args:
        engine: on the processor, in float32.
        output: `OUT.onnx`; see `pair_at`.
        checkpoint: what the files say they come from, a hash for example.

    Raises:
        InputError: `onnx` or `onnxruntime` is missing, the place cannot be written, or a written file disagrees.
    """
    if engine.device.type != "cpu" or engine.dtype != torch.float32:
        raise InputError(f"an export starts from float32 on the cpu, not from {engine.name}")
    size, num_frames = engine.clip.image_size, engine.clip.num_frames
    pixels = torch.zeros(1, size, size, 3, dtype=torch.uint8)
    features = engine.encode(pixels[None])  # (1, 1, D)
    pair = pair_at(output)
    with atomic_path(pair.encoder) as encoder, atomic_path(pair.head) as head:
        for path, part, module, example, outputs in (
            (encoder, "encoder", _PixelEncoder(engine), pixels, ["features"]),
            (head, "head", _Head(engine.recogniser), features.expand(1, num_frames, -1), ["verb", "noun"]),
        ):
            about = {"part": part, "precision": "fp32", "checkpoint": checkpoint}
            _write(path, module.eval(), example, outputs, _metadata(engine, about))
        check_pair(engine, OnnxPair(encoder, head))
    return pair


def check_pair(engine: TorchEngine, pair: OnnxPair) -> float:
    """The largest difference between a written pair and the engine, relative to the largest value.

    Noise goes through both, at one and at two frames, and at two lengths: an exporter may fix either in silence.

    Raises:
        InputError: it is more than MAX_DIFFERENCE.
    """
    written = OnnxEngine(pair)
    if (written.clip, written.taxonomy) != (engine.clip, engine.taxonomy):
        raise InputError(f"{pair.encoder}: names other classes or another input than its checkpoint")
    random = np.random.default_rng(0)
    size, worst = engine.clip.image_size, 0.0
    for num_clips, num_frames in ((1, 1), (2, engine.clip.num_frames + 1)):
        shape = (num_clips, num_frames, size, size, 3)
        crops = torch.from_numpy(random.integers(0, 256, shape, dtype=np.uint8))
        features, logits = engine.encode(crops), engine.classify(engine.encode(crops))
        here = written.classify(features)
        for ours, theirs in ((features, written.encode(crops)), (logits.verb, here.verb), (logits.noun, here.noun)):
            worst = max(worst, float((ours - theirs).abs().max() / ours.abs().max().clamp_min(1e-6)))
    if not worst <= MAX_DIFFERENCE:
        raise InputError(
            f"{pair.encoder}: the written model differs from its checkpoint by {worst:.1e}, expected at most "
            f"{MAX_DIFFERENCE:.0e}. Use the torch backend, and tell us."
        )
    return worst


def quantise_encoder(pair: OnnxPair, crops: Tensor, output: Path) -> OnnxPair:
    """The same pair with an encoder of eight-bit weights and activations (static, per channel).

    Args:
        pair: in float32.
        crops: (N, S, S, 3) uint8, what the ranges of activations are measured on: pictures like those to come.
        output: the quantised encoder.

    Raises:
        InputError: the place cannot be written.
    """
    import onnx
    from onnxruntime.quantization import (
        CalibrationDataReader,
        CalibrationMethod,
        QuantFormat,
        QuantType,
        quantize_static,
    )

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.crops: Iterator[Tensor] = iter(crops)

        def get_next(self) -> dict[str, np.ndarray] | None:
            crop = next(self.crops, None)
            return None if crop is None else {"pixels": crop[None].numpy()}

    with atomic_path(output) as temporary:
        nodes = onnx.load(pair.encoder).graph.node
        first_conv = next(place for place, node in enumerate(nodes) if node.op_type == "Conv")
        quantize_static(
            pair.encoder,
            temporary,
            Reader(),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=QUANTISED_OPS,
            nodes_to_exclude=[node.name for node in nodes[:first_conv]],  # scaling and normalisation stay exact
            per_channel=True,
            reduce_range=True,  # without VNNI, sums of two products of full range overflow sixteen bits
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
        )
        model = onnx.load(temporary)
        for entry in model.metadata_props:
            if entry.key == METADATA_KEY:
                entry.value = json.dumps(json.loads(entry.value) | {"precision": "int8"})
        onnx.save(model, temporary)
    return OnnxPair(output, pair.head)


def quantise_head(pair: OnnxPair, output: Path) -> OnnxPair:
    """The same pair with a head whose LSTM has eight-bit weights (dynamic: activations are quantised as they come).

    Only onnxruntime runs it.

    Raises:
        InputError: the place cannot be written.
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with atomic_path(output) as temporary:
        quantize_dynamic(
            pair.head, temporary, op_types_to_quantize=["LSTM"], per_channel=True, weight_type=QuantType.QInt8
        )
    return OnnxPair(pair.encoder, output)


def _metadata(engine: TorchEngine, about: dict[str, str]) -> str:
    taxonomy = engine.taxonomy
    return json.dumps({**about, "clip": to_dict(engine.clip), "verbs": taxonomy.verbs, "nouns": taxonomy.nouns})


def _write(path: Path, module: nn.Module, example: Tensor, outputs: list[str], metadata: str) -> None:
    """Trace a module whose input's first dimension, and for features the second, may be of any size."""
    import onnx

    name = "pixels" if example.dtype == torch.uint8 else "features"
    axes = {name: {0: "N"} if name == "pixels" else {0: "B", 1: "T"}} | {each: {0: "N"} for each in outputs}
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")  # the exporter warns of its own age, and of batches, which `check_pair` tries
        torch.onnx.export(
            module,
            (example,),
            str(path),
            dynamo=False,  # the newer one fixes T in silence for a BiLSTM
            input_names=[name],
            output_names=outputs,
            dynamic_axes=axes,
            opset_version=OPSET,
        )
    model = onnx.load(path)
    model.metadata_props.add(key=METADATA_KEY, value=metadata)
    onnx.save(model, path)
