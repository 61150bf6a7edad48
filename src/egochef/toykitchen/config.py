"""What a toy kitchen is drawn from: a seed, a size and a difficulty."""

from dataclasses import dataclass

from egochef.errors import InputError
from egochef.records import check_bounds

MIN_SEGMENTS, MAX_SEGMENTS = 12, 100_000
MIN_LENGTH_S, MAX_LENGTH_S = 0.3, 10.0
"""of a segment"""
MAX_GOP = 10_000
MAX_PX = 4096


@dataclass(frozen=True)
class Difficulty:
    """How hard it is to see what happens."""

    clutter: int
    """other things on the counter around an action"""
    likeness: float
    """0..1, how far things take on the counter's colour"""
    shake_px: float
    """how far the camera wanders, world px"""
    turn_deg: float
    """how far the camera rolls to either side"""
    zoom_spread: float
    """how much nearer or farther the camera may stand, as a fraction"""
    light: float
    """0..1, how much brightness and tint differ and change"""
    blur: float
    """probability that a video is out of focus"""
    shutter: float
    """part of a frame's time that the shutter is open: motion blur"""
    noise: int
    """largest sensor noise, of 255"""
    occlusion: float
    """probability that something in the foreground hides a part of the action"""


DIFFICULTIES = {
    "easy": Difficulty(1, 0.0, 2.0, 0.6, 0.04, 0.06, 0.0, 0.3, 0, 0.0),
    "normal": Difficulty(3, 0.15, 6.0, 1.8, 0.10, 0.16, 0.2, 0.6, 0, 0.1),
    "hard": Difficulty(7, 0.42, 13.0, 4.0, 0.18, 0.34, 0.5, 1.0, 5, 0.4),
}


@dataclass(frozen=True)
class Preset:
    """Size and rhythm of a kitchen."""

    num_segments: int
    """in all splits together, unless the configuration says otherwise"""
    validation_share: float
    """part of the segments in the validation split"""
    test_share: float
    """part of the segments in the test split"""
    median_s: float
    """median length of a segment"""
    length_spread: float
    """standard deviation of the logarithm of the length"""
    gap_s: float
    """median length of the gap between two segments"""
    segments_per_video: int
    """about how many segments a video has"""
    segments_per_participant: int
    """about how many training segments a participant has"""


PRESETS = {
    "full": Preset(600, 0.175, 0.075, 1.55, 0.50, 0.60, 15, 40),
    "small": Preset(360, 0.22, 0.08, 0.9, 0.30, 0.32, 15, 40),
}


@dataclass(frozen=True)
class ToyConfig:
    """A toy kitchen; the same configuration always gives the same kitchen."""

    seed: int = 0
    """anything from 0 on"""
    num_segments: int | None = None
    """in all splits together; None takes the preset's number"""
    difficulty: str = "normal"
    """easy, normal or hard"""
    preset: str = "full"
    """full (17 verbs, 39 nouns) or small (8 verbs, 8 nouns, short segments)"""
    width_px: int = 456
    """of the videos, even"""
    height_px: int = 256
    """of the videos, even"""
    gop: int = 30
    """frames from one key frame to the next"""
    segment_s: float | None = None
    """median length of a segment, whatever is done, and nearly all within a fifth of it; None takes the preset's"""
    validation_share: float | None = None
    """part of the segments in the validation split; None takes the preset's"""

    def __post_init__(self) -> None:
        if self.preset not in PRESETS:
            raise InputError(f"preset is {self.preset!r}, expected one of {', '.join(PRESETS)}")
        if self.difficulty not in DIFFICULTIES:
            raise InputError(f"difficulty is {self.difficulty!r}, expected one of {', '.join(DIFFICULTIES)}")
        if self.num_segments is None:
            object.__setattr__(self, "num_segments", PRESETS[self.preset].num_segments)
        if not _is_whole(self.seed) or self.seed < 0:
            raise InputError(f"seed is {self.seed!r}, expected a whole number from 0 on")
        check_bounds(
            self,
            num_segments=(MIN_SEGMENTS, MAX_SEGMENTS),
            width_px=(64, MAX_PX),
            height_px=(64, MAX_PX),
            gop=(1, MAX_GOP),
            segment_s=(MIN_LENGTH_S, MAX_LENGTH_S),
        )
        for name in ("width_px", "height_px"):
            if getattr(self, name) % 2:
                raise InputError(f"{name} is {getattr(self, name)}, expected an even number")
        if self.validation_share is not None and not 0 < self.validation_share <= 0.8:
            raise InputError(f"validation_share is {self.validation_share!r}, expected above 0 and at most 0.8")


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
