"""What every engine can do: run a recogniser's two halves on this machine."""

from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from egochef.clip import ClipSpec
from egochef.data.transforms import eval_crop
from egochef.model.recogniser import Logits
from egochef.taxonomy import Taxonomy


class Engine(Protocol):
    """A recogniser, ready to run.

    The input is the crop that `data.transforms.eval_crop` gives; normalisation is the engine's own affair.
    """

    clip: ClipSpec
    taxonomy: Taxonomy
    device: torch.device
    """where features are kept"""
    name: str
    """for people: what runs it, where and in which precision"""
    overlaps: bool
    """whether `encode` and `classify` may run at once, in two threads, and gain by it"""

    def encode(self, frames: Tensor) -> Tensor:
        """Cropped frames (B, T, S, S, 3) uint8 -> features (B, T, D) float32."""

    def classify(self, features: Tensor) -> Logits:
        """Features (B, T, D) -> logits (B, V) and (B, N), float32; T need not be the T of training."""


def recognise(engine: Engine, frames: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Verb probabilities (V,) and noun probabilities (N,) of one clip.

    Args:
        frames: (T, H, W, 3) uint8 RGB of any size, evenly spread over the action; T is best the checkpoint's.
    """
    verb, noun = engine.classify(engine.encode(eval_crop(frames, engine.clip)[None]))
    return verb[0].softmax(0).cpu().numpy(), noun[0].softmax(0).cpu().numpy()
