"""Writes a recogniser as Core ML packages: whole clips, or frame encoder and head, in float16 or eight-bit weights.

In: a `Source`. Out: ML Programs for iOS 17 and later with `ExportAbout` in their metadata. Pixels go in as they are:
scaling and normalisation are inside. `deploy.agreement` checks what was written.
"""

import io
import shutil
import tempfile
import warnings
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from egochef import __version__
from egochef.deploy.source import Encoder, Head, Source, traceable
from egochef.engines.exported import (
    FEATURES,
    FRAMES,
    IMAGE,
    METADATA_KEY,
    NOUN,
    NOUN_PROBS,
    VERB,
    VERB_PROBS,
    ExportAbout,
)
from egochef.engines.mil import import_coremltools
from egochef.errors import InputError

LONGEST_WINDOW = 64
"""frames that a head takes at most: Core ML wants a bound"""
QUANTISED_FROM = 512
"""numbers in a weight from which it gets eight bits; smaller ones are not worth it"""


class _Clip(nn.Module):
    """One clip (1, T, 3, S, S) of pixel values 0..255 -> probabilities (1, V), (1, N)."""

    def __init__(self, source: Source):
        super().__init__()
        self.encoder, self.head = Encoder(source.engine), Head(source.engine)
        self.num_frames = source.engine.clip.num_frames

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        features = self.encoder(frames.squeeze(0), self.num_frames)  # (T, D)
        verb, noun = self.head(features.unsqueeze(0))
        return verb.softmax(1), noun.softmax(1)


def write_coreml(source: Source, part: str, path: Path) -> None:
    """Write one part, `clip`, `encoder` or `head`, in float16.

    Raises:
        InputError: coremltools is not installed, or it cannot convert the model.
    """
    ct = import_coremltools()
    if source.checkpoint.model.temporal == "bigru":
        raise InputError("Core ML has no GRU: it would become a loop. Train bilstm or tcn, or export as ONNX.")
    clip, about = source.engine.clip, source.about(part, "fp16")
    size, num_frames, num_features = clip.image_size, clip.num_frames, about.num_features
    module: nn.Module
    if part == "clip":
        module, example = _Clip(source), torch.zeros(1, num_frames, 3, size, size)
        given = ct.TensorType(FRAMES, example.shape, dtype=np.float32)
        outputs: tuple[str, ...] = (VERB_PROBS, NOUN_PROBS)
    elif part == "encoder":
        module, example = Encoder(source.engine), torch.zeros(1, 3, size, size)
        given = ct.ImageType(IMAGE, example.shape, color_layout=ct.colorlayout.RGB)
        outputs = (FEATURES,)
    else:
        if num_frames > LONGEST_WINDOW:
            raise InputError(
                f"a head for windows of {num_frames} frames: Core ML heads take at most {LONGEST_WINDOW}. "
                "Use --parts clip, or train with fewer."
            )
        module, example = Head(source.engine), torch.zeros(1, num_frames, num_features)
        length = ct.RangeDim(1, LONGEST_WINDOW, default=num_frames)
        given = ct.TensorType(FEATURES, ct.Shape((1, length, num_features)), dtype=np.float32)
        outputs = (VERB, NOUN)
    try:
        with warnings.catch_warnings(), redirect_stderr(io.StringIO()):  # progress bars that know no terminal
            warnings.simplefilter("ignore")
            with torch.no_grad():
                traced = torch.jit.trace(traceable(module), example, check_trace=False)
            model = ct.convert(
                traced,
                inputs=[given],
                outputs=[ct.TensorType(name, dtype=np.float32) for name in outputs],
                minimum_deployment_target=ct.target.iOS17,
                # Probabilities that are small in float16 would all be 0.
                compute_precision=ct.transform.FP16ComputePrecision(lambda op: op.op_type != "softmax"),
                skip_model_load=True,
            )
        _save(model, about, path)
    except NotImplementedError as error:  # an operation that the converter does not know
        raise InputError(f"Core ML cannot hold this model ({error}). Export it as ONNX.") from None
    except RuntimeError as error:
        if "FileWriter" not in str(error):
            raise
        where = tempfile.gettempdir()
        raise InputError(
            f"{where}: weights cannot be written ({error}). Free space, or set TMPDIR to another place."
        ) from None


def shrink(path: Path, about: ExportAbout) -> None:
    """Give a written package weights of eight bits, in place; all else stays float16.

    Args:
        about: what it says of itself from now on.
    """
    ct = import_coremltools()
    from coremltools.optimize.coreml import OpLinearQuantizerConfig, OptimizationConfig, linear_quantize_weights

    config = OpLinearQuantizerConfig(mode="linear_symmetric", weight_threshold=QUANTISED_FROM)
    with redirect_stderr(io.StringIO()):
        model = ct.models.MLModel(str(path), skip_model_load=True)
        model = linear_quantize_weights(model, OptimizationConfig(global_config=config))
    shutil.rmtree(path)
    _save(model, about, path)


def _save(model: Any, about: ExportAbout, path: Path) -> None:
    _describe(model, about)
    try:
        model.save(str(path))
    except shutil.Error as error:  # a list of (from, to, reason)
        reason = error.args[0][0][2]
        raise InputError(f"{path}: cannot be written ({reason}). Free space or choose another place.") from None


def _describe(model: Any, about: ExportAbout) -> None:
    """What Xcode and Finder show of a package, and what our own code reads."""
    size, num_frames = about.clip.image_size, about.clip.num_frames
    model.author = "EgoChef"
    model.license = about.license
    model.version = __version__
    model.short_description = {
        "clip": f"Verb and noun of a clip of {num_frames} frames",
        "encoder": "Features of a frame, for a head over a window of them",
        "head": f"Verb and noun of a window of frame features, {num_frames} as in training",
    }[about.part] + f". {about.encoder} and {about.temporal}, {about.precision}."
    texts = {
        IMAGE: f"RGB picture of {size} x {size} pixels: the upright frame's centre",
        FRAMES: f"{num_frames} RGB frames of {size} x {size} pixels, values 0 to 255, in the order of time",
        FEATURES: f"{about.num_features} numbers a frame",
        VERB: f"Logits of {len(about.verbs)} verbs",
        NOUN: f"Logits of {len(about.nouns)} nouns",
        VERB_PROBS: f"Probabilities of {len(about.verbs)} verbs",
        NOUN_PROBS: f"Probabilities of {len(about.nouns)} nouns",
    }
    for field in (model.input_description, model.output_description):
        for name in field:
            field[name] = texts[name]
    model.user_defined_metadata[METADATA_KEY] = about.to_json()
