"""Which frames of a video are wanted: arithmetic on times, apart from decoding.

Times are seconds from the first displayed frame. A frame is on screen from its own time until the next frame's; the
first one also stands for all times before it. A time `t` is answered by the last frame that begins at or before
`t + tolerance`.
"""

import math
import sys
from bisect import bisect_left, bisect_right, insort
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol, TypeVar

LOOKAHEAD_PACKETS = 256
"""packets held back at most while the frame shown after one of them is not known yet"""


class Wanted(Protocol):
    """What a reader asks while it decodes forward."""

    def count(self, start_s: float, stop_s: float) -> int:
        """How many times the frame on screen in [start_s, stop_s) is wanted."""

    def next(self, time_s: float) -> float | None:
        """The first wanted time that no frame before `time_s` answers, None if there is none left."""


@dataclass(frozen=True)
class ListedTimes:
    """Single times, sorted."""

    times_s: list[float]
    """(T,) rising, repeats allowed"""
    tolerance_s: float
    """a frame that begins this much after a time still answers it"""

    def _num_before(self, time_s: float) -> int:
        return bisect_left(self.times_s, time_s - self.tolerance_s)

    def count(self, start_s: float, stop_s: float) -> int:
        return self._num_before(stop_s) - self._num_before(start_s)

    def next(self, time_s: float) -> float | None:
        index = self._num_before(time_s)
        return self.times_s[index] if index < len(self.times_s) else None


@dataclass(frozen=True)
class TimeGrid:
    """The times `start_s + k * every_s` for k = 0, 1, 2, ... below `stop_s`."""

    start_s: float
    """the first time"""
    stop_s: float
    """no time reaches it; may be infinite"""
    every_s: float
    """step, positive"""
    tolerance_s: float
    """a frame that begins this much after a time still answers it"""

    def _num_before(self, time_s: float) -> int:
        num_steps = (min(time_s - self.tolerance_s, self.stop_s) - self.start_s) / self.every_s
        if math.isinf(num_steps):
            return sys.maxsize if num_steps > 0 else 0
        return max(0, math.ceil(num_steps - 1e-6))  # rounding must not make ten steps of 0.1 s eleven

    def count(self, start_s: float, stop_s: float) -> int:
        return self._num_before(stop_s) - self._num_before(start_s)

    def next(self, time_s: float) -> float | None:
        index = self._num_before(time_s)
        return self.start_s + index * self.every_s if index < self._num_before(math.inf) else None


@dataclass(frozen=True)
class EveryFrame:
    """Each frame that is on screen in [start_s, stop_s), once."""

    start_s: float
    """begins with the frame on screen then"""
    stop_s: float
    """no frame that begins here or later; may be infinite"""
    tolerance_s: float
    """a frame that begins this much after `start_s` is on screen at `start_s`"""

    def count(self, start_s: float, stop_s: float) -> int:
        return int(stop_s > self.start_s + self.tolerance_s and start_s < self.stop_s)

    def next(self, time_s: float) -> float | None:
        if time_s <= self.start_s + self.tolerance_s:
            return self.start_s if self.start_s < self.stop_s else None
        return time_s if time_s < self.stop_s else None


class TimedPacket(Protocol):
    """The part of a PyAV packet that the look-ahead reads; `pts` and `dts` in ticks of the stream."""

    @property
    def pts(self) -> int | None: ...
    @property
    def dts(self) -> int | None: ...
    @property
    def is_discard(self) -> bool: ...


P = TypeVar("P", bound=TimedPacket)


def with_next_pts(packets: Iterable[P]) -> Iterator[tuple[P, int | None, int | None]]:
    """Pairs packets in decoding order with the display time of the frame shown after theirs, by looking a little ahead.

    Every packet still to come is displayed at its own decoding time or later, so once decoding times have passed the
    candidate no other frame can come in between.

    Yields:
        The packet; the next display time in ticks, or None where it is not known; its decoding time in ticks, or None
        once the file's times contradict each other (from there on nothing may be concluded from them).
    """
    packets = iter(packets)
    displayed: list[int] = []  # display times read lately, sorted
    held: deque[P] = deque()
    last_dts = -math.inf
    for packet in packets:
        if packet.pts is None or packet.dts is None or not last_dts <= packet.dts <= packet.pts:
            yield from ((early, None, None) for early in (*held, packet))
            yield from ((later, None, None) for later in packets)
            return
        last_dts = packet.dts
        held.append(packet)
        if not packet.is_discard:  # what an edit list cuts is decoded and never displayed
            insort(displayed, packet.pts)
            del displayed[: -2 * LOOKAHEAD_PACKETS]
        while held:
            following = _first_after(displayed, held[0].pts)
            settled = following is not None and following <= packet.dts
            if not settled and len(held) <= LOOKAHEAD_PACKETS:
                break
            ready = held.popleft()
            yield ready, following if settled else None, ready.dts
    for packet in held:
        yield packet, _first_after(displayed, packet.pts), packet.dts


def _first_after(rising: list[int], value: int | None) -> int | None:
    """The first entry above `value`."""
    assert value is not None
    place = bisect_right(rising, value)
    return rising[place] if place < len(rising) else None


def clock(time_s: float) -> str:
    """`0:07`, `12:30`, `1:02:03`: the second that is going on, as players show it. To the millisecond, as in logs."""
    minutes, seconds = divmod(round(1000 * time_s) // 1000, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
