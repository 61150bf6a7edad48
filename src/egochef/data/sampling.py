"""Frame times of a segment. In go its interval [start_s, stop_s) and a number of frames T; out come times in seconds.

A segment has K candidate times (`Grid`), the same for a video and for a store. The interval is cut into T equal bins
and one candidate is taken in each (the sparse sampling of TSN, Wang et al. 2016, arXiv:1608.00859), by time and not by
frame number. Places are indices 0..K-1 of candidates. Where the video has fewer frames than bins, frames repeat.
"""

import math

import numpy as np

from egochef.clip import Grid
from egochef.errors import InputError


def num_candidates(start_s: float, stop_s: float, grid: Grid) -> int:
    """K, how many candidate times a segment has.

    Raises:
        InputError: an empty or unbounded interval.
    """
    if not (math.isfinite(start_s) and math.isfinite(stop_s) and start_s < stop_s):
        raise InputError(f"segment from {start_s} to {stop_s} s, expected start < stop")
    return max(grid.min_frames, math.ceil(round((stop_s - start_s) * grid.fps, 6)))


def candidate_times(start_s: float, stop_s: float, grid: Grid) -> np.ndarray:
    """The candidate times: the middles of K equal parts of the segment.

    Returns:
        (K,) float64 seconds, rising, inside [start_s, stop_s).

    Raises:
        InputError: an empty or unbounded interval.
    """
    return centre_times(start_s, stop_s, num_candidates(start_s, stop_s, grid))


def centre_times(start_s: float, stop_s: float, num_frames: int) -> np.ndarray:
    """The middles of `num_frames` equal parts of an interval.

    Returns:
        (T,) float64 seconds, rising, inside [start_s, stop_s).

    Raises:
        InputError: an empty or unbounded interval, or no frames.
    """
    if not (math.isfinite(start_s) and math.isfinite(stop_s) and start_s < stop_s):
        raise InputError(f"segment from {start_s} to {stop_s} s, expected start < stop")
    if num_frames < 1:
        raise InputError(f"num_frames is {num_frames}, expected at least 1")
    times = start_s + (np.arange(num_frames) + 0.5) / num_frames * (stop_s - start_s)
    return np.clip(times, start_s, np.nextafter(stop_s, -math.inf))


def view_places(num_candidates: int, num_frames: int, num_views: int) -> np.ndarray:
    """V evaluation views: view v looks at the fraction (v + 0.5) / V of each bin, so one view looks at the middles.

    Returns:
        (V, T) int64 places among the candidates, rising along T.

    Raises:
        InputError: no candidates, frames or views.
    """
    if num_views < 1:
        raise InputError(f"num_views is {num_views}, expected at least 1")
    fractions = (np.arange(num_views) + 0.5) / num_views  # (V,)
    return _places_in_bins(num_candidates, num_frames, fractions[:, None])


def jittered_places(
    num_candidates: int, num_frames: int, rng: np.random.Generator, *, min_span: float = 1.0, drop: float = 0.0
) -> np.ndarray:
    """A random candidate in each bin, uniform over the bin: what training looks at.

    Args:
        min_span: the bins lie in a random part of the segment, whose share of it is drawn from this to 1: frames follow
            each other at a random rate.
        drop: probability that a frame is lost, and the one before it stands in its place, as with a camera.

    Returns:
        (T,) int64 places among the candidates, rising.

    Raises:
        InputError: no candidates or frames.
    """
    fractions = rng.random(max(num_frames, 0))
    start, span = 0.0, 1.0
    if min_span < 1:
        span = rng.uniform(min_span, 1)
        start = rng.uniform(0, 1 - span)
    places = _places_in_bins(num_candidates, num_frames, fractions, start, span)
    if drop:
        is_lost = rng.random(num_frames) < drop
        is_lost[0] = False
        places = places[np.maximum.accumulate(np.where(is_lost, 0, np.arange(num_frames)))]
    return places


def _places_in_bins(
    num_candidates: int, num_frames: int, fractions: np.ndarray, start: float = 0.0, span: float = 1.0
) -> np.ndarray:
    """Places at fractions in [0, 1), (T,) or (V, 1), of T bins in a part of the segment: (T,) or (V, T)."""
    if num_candidates < 1:
        raise InputError(f"num_candidates is {num_candidates}, expected at least 1")
    if num_frames < 1:
        raise InputError(f"num_frames is {num_frames}, expected at least 1")
    moments = start + span * (np.arange(num_frames) + fractions) / num_frames  # in [0, 1) of the segment
    return np.minimum((moments * num_candidates).astype(np.int64), num_candidates - 1)
