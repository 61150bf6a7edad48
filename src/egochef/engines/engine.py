"""What every engine can do: run a recogniser's two halves on this machine."""

from typing import Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from egochef.clip import ClipSpec
from egochef.data.transforms import eval_crop
from egochef.model.recogniser import Logits
from egochef.model.shift import Kept
from egochef.taxonomy import Taxonomy


class ClipEngine(Protocol):
    """A recogniser that takes whole clips.

    The input is the crop that `data.transforms.eval_crop` gives; normalisation is the engine's own affair.
    """

    clip: ClipSpec
    taxonomy: Taxonomy
    device: torch.device
    """where features are kept"""
    name: str
    """for people: what runs it, where and in which precision"""

    action_ids: tuple[int, ...] = ()
    """verb * 1000 + noun of the actions that it scores by themselves; none without a joint head"""

    def clip_logits(self, frames: Tensor) -> Logits:
        """Cropped frames (B, T, S, S, 3) uint8 -> logits (B, V) and (B, N), float32."""
        raise NotImplementedError

    def clip_actions(self, frames: Tensor) -> tuple[Logits, Tensor | None]:
        """As `clip_logits`, and action logits (B, A), float32; None without `action_ids`."""
        return self.clip_logits(frames), None


@runtime_checkable
class Engine(ClipEngine, Protocol):
    """A recogniser in its two halves."""

    overlaps: bool
    """whether `encode` and `classify` may run at once, in two threads, and gain by it"""
    shift: str = "none"
    """what features show of other frames of the clip, of `model.shift.SHIFTS`; with `past`, streams `encode_next`"""

    def encode(self, frames: Tensor) -> Tensor:
        """Cropped frames (B, T, S, S, 3) uint8 -> features (B, T, D) float32."""
        raise NotImplementedError

    def encode_next(self, frames: Tensor, before: Kept | None) -> tuple[Tensor, Kept]:
        """The next frame of each of B streams, where `shift` is `past`.

        Args:
            frames: (B, S, S, 3) uint8, cropped.
            before: what the call for the frame before kept; None at the start of the streams.

        Returns:
            Features (B, D) float32, those that `encode` gives of all frames up to this one; and what to keep.
        """
        raise AssertionError(f"{self.name}: an encoder with shift {self.shift}")

    def classify(self, features: Tensor) -> Logits:
        """Features (B, T, D) -> logits (B, V) and (B, N), float32; T need not be the T of training."""
        raise NotImplementedError

    def clip_logits(self, frames: Tensor) -> Logits:
        """Cropped frames (B, T, S, S, 3) uint8 -> logits (B, V) and (B, N), float32."""
        return self.classify(self.encode(frames))

    def classify_actions(self, features: Tensor) -> tuple[Logits, Tensor | None]:
        """As `classify`, and action logits (B, A), float32; None without `action_ids`."""
        return self.classify(features), None

    def clip_actions(self, frames: Tensor) -> tuple[Logits, Tensor | None]:
        """As `clip_logits`, and action logits (B, A), float32; None without `action_ids`."""
        return self.classify_actions(self.encode(frames))


def as_logits(probs: Tensor) -> Tensor:
    """Log-probabilities, which are logits too; a probability that was rounded to 0 counts as the smallest number."""
    return probs.clamp_min(torch.finfo(torch.float32).tiny).log()


def recognise(engine: ClipEngine, frames: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Verb probabilities (V,) and noun probabilities (N,) of one clip.

    Args:
        frames: (T, H, W, 3) uint8 RGB of any size, evenly spread over the action; T is best the checkpoint's.
    """
    verb, noun = engine.clip_logits(eval_crop(frames, engine.clip)[None])
    return verb[0].softmax(0).cpu().numpy(), noun[0].softmax(0).cpu().numpy()
