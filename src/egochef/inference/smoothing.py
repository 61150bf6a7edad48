"""From the probabilities of each moment to an action that stays on screen: smoothing, hysteresis, "uncertain"."""

import math
from dataclasses import dataclass

import numpy as np

from egochef.errors import InputError
from egochef.inference.prediction import Prediction, rank
from egochef.taxonomy import Taxonomy


@dataclass(frozen=True)
class Smoothing:
    """How calm the shown action is."""

    tau_s: float = 0.1
    """probabilities are averaged with weights that fall to 1/e over this time"""
    threshold: float = 0.2
    """probability from which an action is named; below it is uncertain"""
    margin: float = 0.1
    """another action takes its place only when it is this much more probable"""
    hold: float = 0.6
    """a named action stays until its probability falls below this share of the threshold"""

    def __post_init__(self) -> None:
        if not 0 <= self.tau_s <= 60:
            raise InputError(f"smoothing over {self.tau_s} s: expected 0 to 60")
        for name in ("threshold", "margin", "hold"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"{name} is {getattr(self, name)}, expected 0 to 1")


class Smoother:
    """The state of the smoothing between moments; `settings` may be changed at any time."""

    def __init__(self, taxonomy: Taxonomy, settings: Smoothing | None = None):
        self.taxonomy = taxonomy
        self.settings = settings or Smoothing()
        self.forget()

    def forget(self) -> None:
        """Begin anew: what comes next does not follow what was."""
        self._time_s: float | None = None
        self._verb = self._noun = np.zeros(0)
        self._shown: tuple[int, int] | None = None

    def update(self, time_s: float, verb: np.ndarray, noun: np.ndarray) -> Prediction:
        """Probabilities (V,) and (N,) of a moment, later than the one before, to what is said of it."""
        keep = 0.0
        if self._time_s is not None and self.settings.tau_s > 0:
            keep = math.exp(-max(0.0, time_s - self._time_s) / self.settings.tau_s)
        self._verb = keep * self._verb + (1 - keep) * verb if keep else verb
        self._noun = keep * self._noun + (1 - keep) * noun if keep else noun
        self._time_s = time_s
        self._shown = self._decide()
        name = None if self._shown is None else self.taxonomy.action_name(*self._shown)
        return Prediction(time_s, *rank(self._verb, self._noun, self.taxonomy), name, self._shown, self._prob())

    def _decide(self) -> tuple[int, int] | None:
        best = int(self._verb.argmax()), int(self._noun.argmax())
        best_prob = float(self._verb[best[0]] * self._noun[best[1]])
        stays = self._shown is not None and self._prob() >= self.settings.hold * self.settings.threshold
        if stays and best_prob < self._prob() + self.settings.margin:
            return self._shown
        if best_prob >= self.settings.threshold:
            return best
        return self._shown if stays else None

    def _prob(self) -> float:
        return 0.0 if self._shown is None else float(self._verb[self._shown[0]] * self._noun[self._shown[1]])
