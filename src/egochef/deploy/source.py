"""A checkpoint that is to be written in another form, and what the files say of it."""

import functools
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from egochef.data.known import EK100, TOY
from egochef.engines.exported import ExportAbout
from egochef.engines.torch_engine import TorchEngine
from egochef.errors import InputError
from egochef.files import sha256_of
from egochef.model.checkpoint import Checkpoint, checkpoint_file, load_checkpoint
from egochef.model.recogniser import count_parameters

TOY_LICENCE = "Weights trained on ToyKitchen, which is drawn by a program: no licence comes with the data. Code: MIT."
EK100_LICENCE = "Weights trained on EPIC-KITCHENS-100 (CC BY-NC 4.0): non-commercial research. Code: MIT."
OTHER_LICENCE = "Weights: the licence of the data that they were trained on. Code: MIT."


@dataclass(frozen=True)
class Source:
    """A checkpoint, ready to be exported."""

    engine: TorchEngine
    """on the processor, in float32: what an export is compared with"""
    checkpoint: Checkpoint
    sha256: str
    """of the checkpoint's file"""

    @functools.cached_property
    def num_features(self) -> int:
        """D"""
        size = self.engine.clip.image_size
        return self.engine.encode(torch.zeros(1, 1, size, size, 3, dtype=torch.uint8)).shape[-1]

    def about(self, part: str, precision: str) -> ExportAbout:
        """What a file of this part and precision says of itself."""
        checkpoint = self.checkpoint
        return ExportAbout(
            part=part,
            precision=precision,
            checkpoint=self.sha256,
            recipe=checkpoint.recipe,
            encoder=checkpoint.model.encoder,
            temporal=checkpoint.model.temporal,
            num_features=self.num_features,
            num_parameters=count_parameters(self.engine.recogniser),
            license=licence_of(checkpoint),
            initial_weights=checkpoint.initial_weights,
            train_on=checkpoint.train_on,
            clip=checkpoint.clip,
            verbs=checkpoint.taxonomy.verbs,
            nouns=checkpoint.taxonomy.nouns,
            held_out=checkpoint.held_out,
        )


def open_source(checkpoint: Path) -> Source:
    """A checkpoint file or a run's best.

    Raises:
        InputError: no such file, cut off, not one of ours, or of a model that this version does not know.
    """
    path = checkpoint_file(checkpoint)
    recogniser, about = load_checkpoint(path)
    engine = TorchEngine(
        recogniser, about.clip, about.taxonomy, torch.device("cpu"), torch.float32, encoder_is_final=True
    )
    return Source(engine, about, sha256_of(path))


def check_alone(source: Source) -> None:
    """
    Raises:
        InputError: the encoder looks at more than one frame, so that encoder and head cannot be files of their own.
    """
    if source.engine.shift != "none":
        raise InputError(
            f"{source.checkpoint.model.encoder} takes channels from other frames: it cannot be written as an encoder "
            "of single frames. Export whole clips (--parts clip), and run streams with --backend torch."
        )


def licence_of(checkpoint: Checkpoint) -> str:
    """For people: what may be done with the weights, by what they are known to have learned from."""
    if EK100 in checkpoint.datasets:
        return EK100_LICENCE
    return TOY_LICENCE if checkpoint.datasets == (TOY,) else OTHER_LICENCE


class Encoder(nn.Module):
    """(N, 3, S, S) pixel values 0..255 -> features (N, D): an encoder with scaling and normalisation inside.

    `num_frames` of the N are a clip.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, engine: TorchEngine):
        super().__init__()
        self.encoder = engine.encoder
        mean, std = torch.tensor(engine.clip.mean), torch.tensor(engine.clip.std)
        self.register_buffer("scale", (1 / (255 * std))[:, None, None])  # (3, 1, 1)
        self.register_buffer("shift", (-mean / std)[:, None, None])

    def forward(self, pixels: Tensor, num_frames: int = 1) -> Tensor:
        return self.encoder(pixels * self.scale + self.shift, num_frames)  # (N, D)


class Head(nn.Module):
    """Features (B, T, D) -> logits (B, V), (B, N): what follows the encoder."""

    def __init__(self, engine: TorchEngine):
        super().__init__()
        self.recogniser = engine.recogniser

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        logits = self.recogniser.classify(features)
        return logits.verb, logits.noun


def traceable(module: nn.Module) -> nn.Module:
    """The module in eval mode, without gradients: what both exporters want."""
    return module.eval().requires_grad_(False)
