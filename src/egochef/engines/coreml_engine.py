"""Runs a recogniser that was exported to Core ML: with Core ML on a Mac, elsewhere with the interpreter of `mil`.

In: one package for whole clips, or a pair for streams, as `deploy.coreml_files` writes them.
"""

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from egochef.engines.engine import ClipEngine, Engine, as_logits
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
    check_digest,
    check_outputs,
    check_pair,
    read_metadata,
)
from egochef.engines.mil import MilProgram, import_coremltools, read_spec
from egochef.errors import InputError
from egochef.model.recogniser import Logits

Run = Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]]


class CoreMLEngine(Engine):
    """A pair of packages, frame encoder and head; see `engines.engine.Engine`."""

    overlaps = False

    def __init__(self, encoder: Path, head: Path):
        """
        Raises:
            InputError: coremltools is not installed, a package is missing, damaged, or the two do not belong together.
        """
        self.about = read_about(encoder)
        check_pair(self.about, read_about(head), f"{encoder} and {head}")
        self.clip, self.taxonomy = self.about.clip, self.about.taxonomy
        self.device = torch.device("cpu")
        self._is_bgr = _is_bgr(encoder)
        self._encoder, self._head = _open(encoder), _open(head)
        self._encoder_path, self._head_path = encoder, head
        self.name = _name(self.about)

    def encode(self, frames: Tensor) -> Tensor:
        """Cropped frames (B, T, S, S, 3) uint8 -> features (B, T, D) float32."""
        pictures = [{IMAGE: self._as_image(frame)} for frame in frames.flatten(0, 1)]
        lengths = (self.about.num_features,)
        features = [_outputs(self._encoder, each, (FEATURES,), lengths, self._encoder_path)[0][0] for each in pictures]
        return torch.stack(features).unflatten(0, frames.shape[:2])  # (B, T, D)

    def classify(self, features: Tensor) -> Logits:
        """Features (B, T, D) -> logits (B, V) and (B, N), float32."""
        clips = [{FEATURES: clip[None].float()} for clip in features]
        lengths = (len(self.about.verbs), len(self.about.nouns))
        found = [_outputs(self._head, each, (VERB, NOUN), lengths, self._head_path) for each in clips]
        return Logits(*map(torch.cat, zip(*found, strict=True)))

    def _as_image(self, frame: Tensor) -> Tensor:
        """What Core ML makes of a picture (S, S, 3) RGB: (1, 3, S, S) in the order of colours that it was told."""
        return (frame.flip(2) if self._is_bgr else frame).permute(2, 0, 1)[None].float()


class CoreMLClipEngine(ClipEngine):
    """One package that takes whole clips; see `engines.engine.ClipEngine`."""

    def __init__(self, package: Path):
        """
        Raises:
            InputError: coremltools is not installed, or the package is missing, damaged or of a pair.
        """
        self.about = read_about(package)
        if self.about.part != "clip":
            raise InputError(f"{package}: part {self.about.part!r} of a pair, expected one that takes whole clips")
        self.clip, self.taxonomy = self.about.clip, self.about.taxonomy
        self.device = torch.device("cpu")
        self._path = package
        self._run = _open(package)
        self.name = _name(self.about)

    def clip_logits(self, frames: Tensor) -> Logits:
        """Cropped frames (B, T, S, S, 3) uint8 -> log-probabilities (B, V) and (B, N), float32."""
        clips = [{FRAMES: clip.permute(0, 3, 1, 2)[None].float()} for clip in frames]
        lengths = (len(self.about.verbs), len(self.about.nouns))
        found = [_outputs(self._run, each, (VERB_PROBS, NOUN_PROBS), lengths, self._path) for each in clips]
        verb, noun = map(torch.cat, zip(*found, strict=True))
        return Logits(as_logits(verb), as_logits(noun))


def read_about(package: Path) -> ExportAbout:
    """The metadata of a package.

    Raises:
        InputError: no such package, damaged, or not one of ours.
    """
    fields = read_spec(package).description.metadata.userDefined
    return read_metadata(dict(fields).get(METADATA_KEY), package)


def _name(about: ExportAbout) -> str:
    return f"{'Core ML' if sys.platform == 'darwin' else 'Core ML package in torch cpu'} {about.precision}"


def _is_bgr(encoder: Path) -> bool:
    """Whether the package asks for pictures with blue first; ours do not."""
    image = read_spec(encoder).description.input[0].type.imageType
    return image.colorSpace == image.ColorSpace.Value("BGR")


def _outputs(
    run: Run, inputs: Mapping[str, Tensor], names: tuple[str, ...], lengths: tuple[int, ...], package: Path
) -> list[Tensor]:
    """What a package gives under these names: (1, length) each.

    Raises:
        InputError: it cannot be run, or gives something else.
    """
    found = run(inputs)
    if missing := [name for name in names if name not in found]:
        raise InputError(f"{package}: has no output {missing[0]!r}, only {', '.join(found)}. Export it again.")
    return check_outputs([found[name] for name in names], 1, lengths, package)


def _open(package: Path) -> Run:
    check_digest(package)
    if sys.platform != "darwin":
        return MilProgram(package)
    model = import_coremltools().models.MLModel(str(package))

    def run(inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        from PIL import Image

        given: dict[str, Any] = {name: value.numpy() for name, value in inputs.items()}
        if IMAGE in given:
            given[IMAGE] = Image.fromarray(given[IMAGE][0].transpose(1, 2, 0).astype(np.uint8))
        return {name: torch.from_numpy(np.asarray(value)).float() for name, value in model.predict(given).items()}

    return run
