"""What a live run measures of itself: rates, latencies, and the actions of the last minute."""

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from egochef.video.overlay import StripPart

RATE_S = 2.0
"""rates are taken over so much time"""
RECENT = 300
"""latencies that the shown median and percentile are of"""
MOST_LATENCIES = 1_000_000
"""kept for the report at the end: nine hours at 30 a second, 40 MB"""


class Rate:
    """How often something happens."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter):
        self._clock = clock
        self._times: deque[float] = deque(maxlen=1000)
        self.count = 0

    def tick(self) -> None:
        self.count += 1
        self._times.append(self._clock())

    @property
    def per_s(self) -> float:
        """Over the last two seconds."""
        now = self._clock()
        recent = [at for at in list(self._times) if at >= now - RATE_S]
        return (len(recent) - 1) / (recent[-1] - recent[0]) if len(recent) > 1 and recent[-1] > recent[0] else 0.0


@dataclass(frozen=True)
class Spread:
    """Of latencies, milliseconds."""

    median_ms: float
    p95_ms: float


class Latency:
    """Latencies in milliseconds: the recent ones for the screen, all for the report."""

    def __init__(self) -> None:
        self.values_ms: deque[float] = deque(maxlen=MOST_LATENCIES)

    def add(self, seconds: float) -> None:
        self.values_ms.append(1000 * seconds)

    def recent(self) -> Spread | None:
        return _spread([self.values_ms[-place] for place in range(1, min(RECENT, len(self.values_ms)) + 1)])

    def over_all(self) -> Spread | None:
        return _spread(list(self.values_ms))


def _spread(values: list[float]) -> Spread | None:
    if not values:
        return None
    median, p95 = np.percentile(values, (50, 95))
    return Spread(round(float(median), 2), round(float(p95), 2))


class Timeline:
    """What was shown over the last `keep_s` seconds, as parts of one label each."""

    def __init__(self, keep_s: float):
        self.keep_s = keep_s
        self.parts: list[StripPart] = []

    def add(self, time_s: float, label: str | None) -> None:
        """At `time_s` this label (None: nothing known) is shown, until told otherwise."""
        if self.parts:
            last = self.parts[-1]
            self.parts[-1] = StripPart(last.start_s, max(last.start_s, time_s), last.label)
        if not self.parts or self.parts[-1].label != label:
            self.parts.append(StripPart(time_s, time_s, label))
        while self.parts and self.parts[0].stop_s < time_s - self.keep_s:
            del self.parts[0]
