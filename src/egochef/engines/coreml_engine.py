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
        self.name = _name(self.about)

    def encode(self, frames: Tensor) -> Tensor:
        """Cropped frames (B, T, S, S, 3) uint8 -> features (B, T, D) float32."""
        features = [self._encoder({IMAGE: self._as_image(frame)})[FEATURES][0] for frame in frames.flatten(0, 1)]
        return torch.stack(features).unflatten(0, frames.shape[:2])  # (B, T, D)

    def classify(self, features: Tensor) -> Logits:
        """Features (B, T, D) -> logits (B, V) and (B, N), float32."""
        found = [self._head({FEATURES: clip[None].float()}) for clip in features]
        return Logits(torch.cat([each[VERB] for each in found]), torch.cat([each[NOUN] for each in found]))

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
        self._run = _open(package)
        self.name = _name(self.about)

    def clip_logits(self, frames: Tensor) -> Logits:
        """Cropped frames (B, T, S, S, 3) uint8 -> log-probabilities (B, V) and (B, N), float32."""
        found = [self._run({FRAMES: clip.permute(0, 3, 1, 2)[None].float()}) for clip in frames]
        verb, noun = (torch.cat([each[name] for each in found]) for name in (VERB_PROBS, NOUN_PROBS))
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
