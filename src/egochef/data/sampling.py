"""Frame times of a segment. In go its interval [start_s, stop_s) and a number of frames T; out come times in seconds.

The interval is cut into T equal bins and one time is taken in each (the sparse sampling of TSN, Wang et al. 2016,
arXiv:1608.00859), by time and not by frame number. Where the video has fewer frames than bins, frames repeat.
"""

import math

import numpy as np

from egochef.errors import InputError


def centre_times(start_s: float, stop_s: float, num_frames: int) -> np.ndarray:
    """The centre of each bin: what evaluation and prediction look at.

    Returns:
        (T,) float64 seconds, rising, inside [start_s, stop_s).

    Raises:
        InputError: an empty or unbounded interval, or no frames.
    """
    return view_times(start_s, stop_s, num_frames, num_views=1)[0]


def view_times(start_s: float, stop_s: float, num_frames: int, num_views: int) -> np.ndarray:
    """V evaluation views: view v looks at the fraction (v + 0.5) / V of each bin, so one view looks at the centres.

    Returns:
        (V, T) float64 seconds, rising along T, inside [start_s, stop_s).

    Raises:
        InputError: an empty or unbounded interval, no frames or no views.
    """
    if num_views < 1:
        raise InputError(f"num_views is {num_views}, expected at least 1")
    fractions = (np.arange(num_views) + 0.5) / num_views  # (V,)
    return _times_in_bins(start_s, stop_s, num_frames, fractions[:, None])


def jittered_times(start_s: float, stop_s: float, num_frames: int, rng: np.random.Generator) -> np.ndarray:
    """A uniformly random time in each bin: what training looks at.

    Returns:
        (T,) float64 seconds, rising, inside [start_s, stop_s).

    Raises:
        InputError: an empty or unbounded interval, or no frames.
    """
    return _times_in_bins(start_s, stop_s, num_frames, rng.random(max(num_frames, 0)))


def _times_in_bins(start_s: float, stop_s: float, num_frames: int, fractions: np.ndarray) -> np.ndarray:
    """Times at fractions in [0, 1), (T,) or (V, 1), of the T bins: (T,) or (V, T)."""
    if not (math.isfinite(start_s) and math.isfinite(stop_s) and start_s < stop_s):
        raise InputError(f"segment from {start_s} to {stop_s} s, expected start < stop")
    if num_frames < 1:
        raise InputError(f"num_frames is {num_frames}, expected at least 1")
    edges = np.linspace(start_s, stop_s, num_frames + 1)  # (T + 1,)
    times = edges[:-1] + fractions * np.diff(edges)
    last = np.maximum(edges[:-1], np.nextafter(edges[1:], -math.inf))  # bins are half-open, rounding or not
    return np.clip(times, edges[:-1], np.minimum(last, np.nextafter(stop_s, -math.inf)))
