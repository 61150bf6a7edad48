"""How sure an accuracy is: bootstrap intervals.

In: which segments were right, and the video of each. Out: 95 % intervals, percent. Segments of one video resemble each
other, so whole videos are drawn again (a cluster bootstrap: Davison and Hinkley, 1997, section 3.8); of fewer than
MIN_VIDEOS, too few to draw from, single segments are.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

NUM_DRAWS = 2000
LEVEL = 0.95
MIN_VIDEOS = 10
SEED = 0
"""draws are the same in every report, so that the same scores give the same intervals"""


@dataclass(frozen=True)
class Estimate:
    """A mean in percent, and how sure it is."""

    value: float
    low: float
    """lower end of the 95 % interval"""
    high: float
    num: int
    """segments"""
    unit: str
    """what was drawn again: videos or segments"""

    def __str__(self) -> str:
        return f"{self.value:.1f} ({self.low:.1f} to {self.high:.1f})"


def estimate(right: np.ndarray, videos: Sequence[str] | np.ndarray) -> Estimate | None:
    """The accuracy of segments (S,) that are right or not; None of none.

    Where all are right, or none is, what is drawn again is all the same: then the far end is the exact one for as many
    videos or segments (Clopper and Pearson, 1934).

    Args:
        videos: (S,) the video of each.
    """
    if not len(right):
        return None
    found, num_units = _bootstrap(np.asarray(right, dtype=np.float64), videos)
    edge = 100 * ((1 - LEVEL) / 2) ** (1 / num_units)
    if found.value == 100.0:
        return replace(found, low=edge)
    return replace(found, high=100.0 - edge) if found.value == 0.0 else found


def estimate_difference(right: np.ndarray, other: np.ndarray, videos: Sequence[str] | np.ndarray) -> Estimate:
    """How much more often one model is right than another on the same segments (S,), in points.

    Where one is right everywhere and the other nowhere, what is drawn again is all the same: then the near end is the
    exact one for as many videos or segments, so that few of them are not taken for proof.
    """
    values = np.asarray(right, dtype=np.float64) - np.asarray(other, dtype=np.float64)
    found, num_units = _bootstrap(values, videos)
    near = 2 * 100 * ((1 - LEVEL) / 2) ** (1 / num_units) - 100
    if found.value == 100.0:
        return replace(found, low=near)
    return replace(found, high=-near) if found.value == -100.0 else found


def _bootstrap(values: np.ndarray, videos: Sequence[str] | np.ndarray) -> tuple[Estimate, int]:
    """The mean of values (S,), and how many units were drawn from."""
    _, video = np.unique(np.asarray(videos), return_inverse=True)  # (S,) 0..K-1
    unit = "videos" if video.max() + 1 >= MIN_VIDEOS else "segments"
    cluster = video if unit == "videos" else np.arange(len(values))
    sums, sizes = np.bincount(cluster, values), np.bincount(cluster)  # (K,)
    means = _redrawn_means(sums, sizes)
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    found = Estimate(100 * float(values.mean()), 100 * float(low), 100 * float(high), len(values), unit)
    return found, len(sizes)


def _redrawn_means(sums: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """(NUM_DRAWS,) means over as many clusters as there are, each drawn with replacement."""
    rng = np.random.default_rng(SEED)
    kinds, counts = np.unique(np.stack([sums, sizes]), axis=1, return_counts=True)  # equal clusters are drawn as one
    drawn = rng.multinomial(len(sums), counts / len(sums), size=NUM_DRAWS)  # (NUM_DRAWS, kinds)
    return (drawn @ kinds[0]) / (drawn @ kinds[1])
