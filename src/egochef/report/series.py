"""Numbers over a run's time: what curves are read into, from logs (`curves`) and CSV files (`wandb_csv`)."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

STEP, EPOCH, RUNTIME, TIME = "step", "epoch", "runtime, s", "time, s"
"""what x counts: optimiser steps, epochs, seconds of the run, seconds since 1970"""


@dataclass(frozen=True, eq=False)
class Series:
    """A metric over a run's time, K points."""

    x: np.ndarray
    """(K,) float64, never falling"""
    y: np.ndarray
    """(K,) float64; NaN where the value was not finite"""
    axis: str = STEP
    """what x counts: STEP, EPOCH, RUNTIME, TIME, or a column's name"""
    epoch: np.ndarray | None = None
    """(K,) float64, epochs done; NaN where not known"""
    low: np.ndarray | None = None
    """(K,) float64, least of the values behind a point, where there is more than one"""
    high: np.ndarray | None = None
    """(K,) float64, greatest of them"""

    def __post_init__(self) -> None:
        arrays = [array for array in (self.x, self.y, self.epoch, self.low, self.high) if array is not None]
        assert all(array.shape == self.x.shape and array.ndim == 1 for array in arrays)
        assert not (np.diff(self.x) < 0).any()

    @property
    def num_gaps(self) -> int:
        """Values that were not finite."""
        return int(np.isnan(self.y).sum())


@dataclass(frozen=True, eq=False)
class Curves:
    """All series of one run."""

    name: str
    sources: tuple[Path, ...]
    """its folder, or the CSV files that it is in"""
    series: dict[str, Series]
    """by the metric's name"""
    missing: tuple[str, ...] = ()
    """what one would look for and is not there, for people: `no evaluation yet`"""
    notes: tuple[str, ...] = ()
    """what was seen or decided on reading, for people"""
