"""ClipSpec: how a segment of video becomes a model's input.

It is saved inside every checkpoint, and training, evaluation, live and the phone read it from there, so that
preprocessing cannot drift.
"""

from dataclasses import dataclass, replace

from egochef.errors import InputError
from egochef.records import check_bounds, shown

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
FRAMES, SIZES = (1, 1024), (16, 2048)
"""bounds of a clip's frames, and of its height and width in pixels"""
MAX_PIXELS = 2**27
"""of all frames of a clip: 0.4 GB as they are decoded, 1.6 GB as an encoder takes them"""


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
        check_bounds(self, "Grid.", fps=(0.001, 1000.0), min_frames=(1, 10_000))


@dataclass(frozen=True)
class ClipSpec:
    """The input of a recogniser: T RGB frames of H = W = `image_size` pixels."""

    num_frames: int = 16
    """T, frames sampled from a segment"""
    image_size: int = 224
    """height and width of the crop that the encoder sees, pixels; set alone, `resize_size` follows in its ratio"""
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
        check_bounds(self, "ClipSpec.", num_frames=FRAMES, image_size=SIZES, resize_size=(SIZES[0], 2 * SIZES[1]))
        if len(self.mean) != 3 or len(self.std) != 3:
            raise InputError(f"ClipSpec needs three means and three stds, got {shown(self.mean)} and {shown(self.std)}")
        check_bounds(self, "ClipSpec.", mean=(-100.0, 100.0), std=(1e-4, 100.0))
        if self.num_frames * self.image_size**2 > MAX_PIXELS:
            raise InputError(
                f"ClipSpec: {self.num_frames} frames of {self.image_size} x {self.image_size} pixels are more than a "
                "clip may have. Choose fewer or smaller ones."
            )
        if self.resize_size < self.image_size:
            raise InputError(f"ClipSpec.resize_size {self.resize_size} is smaller than image_size {self.image_size}")
        if self.num_frames > self.grid.min_frames:
            raise InputError(
                f"ClipSpec.num_frames is {self.num_frames}, but a segment has only {self.grid.min_frames} candidate "
                "times for sure. Raise Grid.min_frames, for a store by egochef prepare --min-frames."
            )
        if self.sampling != "bins":
            raise InputError(f"ClipSpec.sampling is {shown(self.sampling)}, expected 'bins'")

    def with_image_size(self, image_size: int) -> "ClipSpec":
        """The same clips at another size: `resize_size` keeps its ratio to it, so that the crop shows as much."""
        resize_size = (2 * image_size * self.resize_size + self.image_size) // (2 * self.image_size)  # rounded
        return replace(self, image_size=image_size, resize_size=resize_size)
