"""ClipSpec: how a segment of video becomes a model's input.

It is saved inside every checkpoint, and training, evaluation, live and the phone read it from there, so that
preprocessing cannot drift.
"""

import math
from dataclasses import dataclass

from egochef.errors import InputError

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Grid:
    """The candidate times of a segment, evenly spread: every clip chooses its T frames among them.

    Videos and stores have the same ones, so that a clip shows the same moments wherever it comes from.
    """

    fps: float = 10.0
    """candidates a second"""
    min_frames: int = 48
    """candidates at least, in short segments"""

    def __post_init__(self) -> None:
        if not 0 < self.fps <= 1000:
            raise InputError(f"Grid.fps is {self.fps}, expected more than 0 and at most 1000 candidates a second")
        if not isinstance(self.min_frames, int) or not 1 <= self.min_frames <= 10_000:
            raise InputError(f"Grid.min_frames is {self.min_frames!r}, expected a whole number from 1 to 10000")


@dataclass(frozen=True)
class ClipSpec:
    """The input of a recogniser: T RGB frames of H = W = `image_size` pixels."""

    num_frames: int = 16
    """T, frames sampled from a segment"""
    image_size: int = 224
    """height and width of the crop that the encoder sees, pixels"""
    resize_size: int = 256
    """the frame's shorter side before the centre crop, pixels"""
    mean: tuple[float, float, float] = IMAGENET_MEAN
    """per channel (R, G, B), of pixel values in 0..1"""
    std: tuple[float, float, float] = IMAGENET_STD
    """per channel (R, G, B), of pixel values in 0..1"""
    sampling: str = "bins"
    """how times are chosen: T equal bins of the segment, a random candidate of each in training, else the middle"""
    grid: Grid = Grid()
    """the candidates"""

    def __post_init__(self) -> None:
        object.__setattr__(self, "mean", tuple(float(x) for x in self.mean))
        object.__setattr__(self, "std", tuple(float(x) for x in self.std))
        for name in ("num_frames", "image_size", "resize_size"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise InputError(f"ClipSpec.{name} is {value!r}, expected a whole number of at least 1")
        if self.resize_size < self.image_size:
            raise InputError(f"ClipSpec.resize_size {self.resize_size} is smaller than image_size {self.image_size}")
        if len(self.mean) != 3 or len(self.std) != 3 or not all(math.isfinite(x) and x > 0 for x in self.std):
            raise InputError(f"ClipSpec needs three means and three positive stds, got {self.mean} and {self.std}")
        if self.num_frames > self.grid.min_frames:
            raise InputError(
                f"ClipSpec.num_frames is {self.num_frames}, but a segment has only {self.grid.min_frames} candidate "
                "times for sure. Raise Grid.min_frames, for a store by egochef prepare --min-frames."
            )
        if self.sampling != "bins":
            raise InputError(f"ClipSpec.sampling is {self.sampling!r}, expected 'bins'")
