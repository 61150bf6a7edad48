"""Does a written file do what its checkpoint does? Both see the same clips, and their answers are compared.

In: an engine of the checkpoint and one that runs the saved file. Out: `Agreement`.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from egochef.engines.engine import ClipEngine, Engine
from egochef.engines.exported import ExportAbout
from egochef.engines.torch_engine import TorchEngine
from egochef.errors import InputError


@dataclass(frozen=True)
class Tolerance:
    """What a precision explains."""

    log_probs: float
    """largest difference of log-probabilities, relative to the largest"""
    features: float
    """largest distance of a frame's features, relative to their length"""


TOLERANCES = {
    ("onnx", "fp32"): Tolerance(1e-5, 1e-5),
    ("onnx", "fp16"): Tolerance(5e-3, 0.03),
    ("onnx", "int8"): Tolerance(0.25, 0.8),
    ("coreml", "fp16"): Tolerance(5e-3, 0.03),
    ("coreml", "int8"): Tolerance(0.05, 0.3),
}
"""(format, precision) -> what it explains. Depthwise convolutions whose weights nearly cancel each other, as in the
light encoder's first block, lose most; eight-bit activations more than eight-bit weights. What is written
is checked before it is rounded further, so that a fault of the export cannot hide behind the rounding."""


@dataclass(frozen=True)
class Agreement:
    """How alike a written file and its checkpoint are, over some clips."""

    num_clips: int
    difference: float
    """largest of log-probabilities, relative to the largest"""
    feature_difference: float | None
    """largest distance of a frame's features, relative to their length; None where a file takes whole clips"""
    prob_difference: float
    """largest of probabilities"""
    verb_top1: float
    """share of the clips whose best verb is the checkpoint's"""
    noun_top1: float
    tolerance: Tolerance
    """what the precision explains"""


def compare(
    engine: TorchEngine, written: ClipEngine, clips: Tensor, tolerance: Tolerance, *, any_length: bool
) -> Agreement:
    """Show both the clips (B, T, S, S, 3) uint8.

    Args:
        any_length: the file says that it takes any number of frames, so two clips also go in cut to about half:
            an exporter may fix the number in silence.
    """
    differences, feature_differences = [], []
    verb_same = noun_same = 0
    prob_difference = 0.0
    bar = tqdm(total=len(clips), desc="checking", unit="clip", disable=None, leave=False)
    for batch in clips.split(2):
        if isinstance(written, Engine):
            features, written_features = engine.encode(batch), written.encode(batch)
            feature_differences.append(_distance(features, written_features))
            ours, theirs = engine.classify(features), written.classify(written_features)
        else:
            ours, theirs = engine.clip_logits(batch), written.clip_logits(batch)
        for one, other in zip(ours, theirs, strict=True):
            differences.append(_difference(one.log_softmax(1), other.log_softmax(1)))
            prob_difference = max(prob_difference, float((one.softmax(1) - other.softmax(1)).abs().max()))
        verb_same += int((ours.verb.argmax(1) == theirs.verb.argmax(1)).sum())
        noun_same += int((ours.noun.argmax(1) == theirs.noun.argmax(1)).sum())
        bar.update(len(batch))
    bar.close()
    if any_length:
        short = clips[:2, : clips.shape[1] // 2 + 1]
        for one, other in zip(engine.clip_logits(short), written.clip_logits(short), strict=True):
            differences.append(_difference(one.log_softmax(1), other.log_softmax(1)))
    return Agreement(
        num_clips=len(clips),
        difference=_worst(differences),
        feature_difference=_worst(feature_differences) if feature_differences else None,
        prob_difference=prob_difference,
        verb_top1=verb_same / len(clips),
        noun_top1=noun_same / len(clips),
        tolerance=tolerance,
    )


def check(agreement: Agreement, path: Path) -> None:
    """
    Raises:
        InputError: the file differs from its checkpoint by more than its precision explains; or gives NaN.
    """
    for name, difference, tolerance in (
        ("log-probabilities", agreement.difference, agreement.tolerance.log_probs),
        ("features", agreement.feature_difference or 0.0, agreement.tolerance.features),
    ):
        if not difference <= tolerance:
            raise InputError(
                f"{path}: the written model differs from its checkpoint: {name} by {difference:.1e}, expected at most "
                f"{tolerance:.0e}; best verb the same on {agreement.verb_top1:.0%} and best "
                f"noun on {agreement.noun_top1:.0%} of {agreement.num_clips} clips. Nothing was kept. Try another "
                "--precision, and tell us."
            )


def check_about(expected: ExportAbout, found: ExportAbout, path: Path) -> None:
    """
    Raises:
        InputError: what a written file says of itself is not what it should say; names the field.
    """
    for name in ExportAbout.__dataclass_fields__:
        if getattr(found, name) != getattr(expected, name):
            raise InputError(f"{path}: its metadata names another {name} than its checkpoint. Export it again.")


def _difference(ours: Tensor, theirs: Tensor) -> float:
    if ours.shape != theirs.shape:
        return float("inf")
    return float((ours - theirs).abs().max() / ours.abs().max().clamp_min(1e-6))


def _distance(ours: Tensor, theirs: Tensor) -> float:
    """Of features (B, T, D)."""
    if ours.shape != theirs.shape:
        return float("inf")
    return float(((ours - theirs).norm(dim=-1) / ours.norm(dim=-1).clamp_min(1e-6)).max())


def _worst(differences: list[float]) -> float:
    return float(torch.tensor(differences).max())  # NaN stays NaN
