"""Writes a recogniser as ONNX: whole clips, or frame encoder and head, in float32, float16 or eight bits.

In: a `Source`. Out: files with `ExportAbout` in their metadata, whose numbers of clips, frames and pictures are free.
Pixels go in as they are: scaling and normalisation are inside. `deploy.agreement` checks what was written.
"""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from egochef.deploy.source import Encoder, Head, Source, traceable
from egochef.engines.exported import (
    FEATURES,
    FRAMES,
    METADATA_KEY,
    NOUN,
    NOUN_PROBS,
    PIXELS,
    VERB,
    VERB_PROBS,
    ExportAbout,
)

if TYPE_CHECKING:
    import onnx

OPSET = 17
QUANTISED_OPS = {"Conv", "Add", "MatMul"}
"""the verb and noun heads (Gemm) stay exact: they are small, and nothing follows that would forgive"""
NUM_EXACT_CONVS = 3
"""convolutions next to the pixels that stay exact: they are small, and rounding in the light encoder's, whose weights
nearly cancel each other, does twice the harm of all the rest"""


class _Encoder(nn.Module):
    """Pictures (N, S, S, 3) uint8 -> features (N, D)."""

    def __init__(self, source: Source):
        super().__init__()
        self.encoder = Encoder(source.engine)

    def forward(self, pixels: Tensor, num_frames: int = 1) -> Tensor:
        return self.encoder(pixels.float().permute(0, 3, 1, 2), num_frames)


class _Clip(nn.Module):
    """Clips (B, T, S, S, 3) uint8 -> probabilities (B, V), (B, N)."""

    def __init__(self, source: Source):
        super().__init__()
        self.encoder, self.head = _Encoder(source), Head(source.engine)

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        features = self.encoder(frames.flatten(0, 1), frames.shape[1])  # (B*T, D)
        # Not by `unflatten`: tracing would take its sizes for constants.
        verb, noun = self.head(features.reshape(frames.shape[0], frames.shape[1], features.shape[1]))  # (B, T, D)
        return verb.softmax(1), noun.softmax(1)


def write_onnx(source: Source, part: str, path: Path) -> None:
    """Write one part, `clip`, `encoder` or `head`, in float32."""
    clip = source.engine.clip
    about = source.about(part, "fp32")
    picture = (clip.image_size, clip.image_size, 3)
    modules: dict[str, tuple[nn.Module, Tensor, str, tuple[str, ...]]] = {
        "clip": (
            _Clip(source),
            torch.zeros(2, clip.num_frames, *picture, dtype=torch.uint8),
            FRAMES,
            (VERB_PROBS, NOUN_PROBS),
        ),
        "encoder": (_Encoder(source), torch.zeros(1, *picture, dtype=torch.uint8), PIXELS, (FEATURES,)),
        "head": (Head(source.engine), torch.zeros(1, clip.num_frames, about.num_features), FEATURES, (VERB, NOUN)),
    }
    module, example, name, outputs = modules[part]
    axes = {name: {0: "N"} if part == "encoder" else {0: "B", 1: "T"}} | {each: {0: "B"} for each in outputs}
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")  # the exporter warns of its own age, and of batches, which the check tries
        torch.onnx.export(
            traceable(module),
            (example,),
            str(path),
            dynamo=False,  # the newer one fixes T in silence for a BiLSTM
            input_names=[name],
            output_names=list(outputs),
            dynamic_axes=axes,
            opset_version=OPSET,
        )
    import onnx

    _save(onnx.load(path), about, path)


def halve(path: Path, about: ExportAbout) -> None:
    """Make a written file's weights and sums float16, in place; its inputs and outputs stay as they are.

    Args:
        about: what it says of itself from now on.
    """
    import onnx
    from onnxruntime.transformers.float16 import convert_float_to_float16

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of weights that become 0 in float16, one by one; the check tells of all
        model = convert_float_to_float16(onnx.load(path), keep_io_types=True)
    _save(model, about, path)


def quantise(path: Path, about: ExportAbout, samples: Iterator[Tensor]) -> None:
    """Make a written file's weights and activations eight bits wide, in place (static, per channel).

    An LSTM's weights get eight bits as well, its activations as they come: onnxruntime has no other, OpenVINO none.

    Args:
        about: what it says of itself from now on.
        samples: inputs of the file, one at a time, which the ranges of activations are measured on: like those to come.
    """
    import onnx
    from onnxruntime.quantization import (
        CalibrationDataReader,
        CalibrationMethod,
        QuantFormat,
        QuantType,
        quantize_dynamic,
        quantize_static,
    )

    model = onnx.load(path)
    name = model.graph.input[0].name

    class Reader(CalibrationDataReader):
        def get_next(self) -> dict[str, np.ndarray] | None:
            sample = next(samples, None)
            return None if sample is None else {name: np.ascontiguousarray(sample.numpy())}

    nodes = model.graph.node
    kinds = {node.op_type for node in nodes}
    # In what takes pixels, all that stands before the first quantised convolution stays exact.
    convs = [place for place, node in enumerate(nodes) if node.op_type == "Conv"]
    first = 0 if name == FEATURES else convs[NUM_EXACT_CONVS]
    with _quiet_root():
        if kinds & {"Conv", "MatMul"}:
            quantize_static(
                path,
                path,
                Reader(),
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=sorted(QUANTISED_OPS),
                nodes_to_exclude=[node.name for node in nodes[:first]],
                per_channel=True,
                reduce_range=True,  # without VNNI, sums of two products of full range overflow sixteen bits
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                calibrate_method=CalibrationMethod.MinMax,
            )
        if "LSTM" in kinds:
            quantize_dynamic(path, path, op_types_to_quantize=["LSTM"], per_channel=True, weight_type=QuantType.QInt8)
    _save(onnx.load(path), about, path)


@contextmanager
def _quiet_root() -> Iterator[None]:
    """The quantiser tells the root logger of every channel that it widens; the check tells what comes of it all."""

    def drop(record: logging.LogRecord) -> bool:
        return False

    logging.root.addFilter(drop)
    try:
        yield
    finally:
        logging.root.removeFilter(drop)


def _save(model: "onnx.ModelProto", about: ExportAbout, path: Path) -> None:
    """Write a model with its metadata."""
    import onnx

    del model.metadata_props[:]
    model.metadata_props.add(key=METADATA_KEY, value=about.to_json())
    onnx.save(model, path)
