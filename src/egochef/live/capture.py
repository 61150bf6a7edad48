"""Pictures from a source while it runs, apart from everything else: the newest one wins, and states tell how it goes.

In: a `Source`. Out: `Frame`s, numbered and timed, and the source's state. One thread reads; it keeps one frame, so that
memory is bounded and nobody is given an old picture. A source that hangs stalls that thread only.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass, replace
from enum import StrEnum
from types import TracebackType

import numpy as np

from egochef.errors import InputError
from egochef.live.sources import Grab, Source
from egochef.live.streams import SourceError

BACKOFF_S = (0.5, 1.0, 2.0, 4.0, 5.0)
"""waiting times before the first, second, ... attempt to reconnect; the last one for all further ones"""
RATE_S = 2.0
"""the rate is taken over so much time"""
MAX_LATE_S = 0.5
"""a file that cannot be decoded at its own rate is played slower, instead of hurrying after its clock"""
USUAL_FRAME_S = 0.04
"""on screen, where a file has one frame only"""
MAX_CHANGES = 1000
"""changes of state that are remembered"""

log = logging.getLogger(__name__)


class State(StrEnum):
    """How a source is doing."""

    STARTING = "starting"
    """no picture yet"""
    LIVE = "live"
    NO_SIGNAL = "no signal"
    """connected, but no new picture has come for a while"""
    RECONNECTING = "reconnecting"
    """the connection is lost, a new one is being tried"""
    STOPPED = "stopped"
    """no more pictures will come"""


@dataclass(frozen=True)
class Frame:
    """A picture and when it is from."""

    picture: np.ndarray
    """(H, W, 3) uint8 RGB, contiguous"""
    time_s: float
    """a file's own time, counted on over loops; of a live source the seconds since the start at which it arrived"""
    captured_at: float
    """`time.perf_counter()` when it arrived; when it was its turn, of a file"""
    number: int
    """1, 2, ... over the whole run; a gap is frames that nobody took"""
    session: int
    """one more after every reconnection or loop: what came before is not what happened just before"""


class Capture:
    """Reads a source in a thread of its own.

    Frames of a `fast` source wait until `in_order` has given the one before; of any other source the newest frame
    replaces the one before.
    """

    def __init__(self, source: Source, *, no_signal_s: float = 1.0) -> None:
        """
        Args:
            source: what to read.
            no_signal_s: a live source that gives no picture for so long has no signal.
        """
        self.source = source
        self.no_signal_s = no_signal_s
        self.fault: str | None = None
        """what is wrong with the source, where that has ended the capture: one line"""
        self._crash: BaseException | None = None  # our own fault, raised where frames are taken
        self._condition = threading.Condition()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"capture {source.name}", daemon=True)
        self._frame: Frame | None = None
        self._taken = 0  # number of the last frame that `in_order` gave
        self._is_paused = False
        self._session = 0
        self._arrivals: deque[float] = deque(maxlen=1000)
        self._began_at = time.perf_counter()
        self._state, self._state_since, self._reason = State.STARTING, self._began_at, ""
        self._changes: deque[tuple[float, State, str]] = deque([(0.0, State.STARTING, "")], MAX_CHANGES)

    # For who takes frames

    def start(self) -> None:
        """Begin to read, and wait for the first picture (of a fifo nobody waits: its writer may come later).

        Raises:
            InputError: the source cannot be opened or read; nothing runs on.
        """
        self._thread.start()
        if self.source.may_wait:
            return
        try:
            with self._condition:
                while self._state is State.STARTING:
                    self._condition.wait(0.5)
                if self._crash is not None:
                    raise self._crash
                if self._frame is None:
                    raise InputError(self.fault or f"{self.source.name}: stopped before its first picture.")
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End reading. A read that hangs and cannot be interrupted is left behind after a few seconds."""
        self._stopping.set()
        with self._condition:
            self._condition.notify_all()
        if self._thread.ident is not None:
            self._thread.join(self.source.hang_s)
            if self._thread.is_alive():
                log.warning("%s: a read hangs and is left behind", self.source.name)
        with self._condition:
            self._enter(State.STOPPED, "stopped")

    def __enter__(self) -> "Capture":
        self.start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    def newest(self, after: int, timeout_s: float) -> Frame | None:
        """The newest frame with a number above `after`; waits for it if there is none.

        A fault of our own that has ended the capture is raised here.

        Returns:
            None if none came in time, or none will come since the capture has stopped.
        """
        end = time.perf_counter() + timeout_s
        with self._condition:
            while True:
                if self._crash is not None:
                    raise self._crash
                if self._frame is not None and self._frame.number > after:
                    return self._frame
                left_s = end - time.perf_counter()
                if self._state is State.STOPPED or left_s <= 0:
                    return None
                self._condition.wait(left_s)

    def in_order(self, goes_on: Callable[[], bool] = lambda: True) -> Generator[Frame]:
        """Frames until the capture stops: all of them from a `fast` source, else the newest ones.

        Args:
            goes_on: asked while no frame comes.
        """
        number = 0
        while True:
            has_stopped = self.state is State.STOPPED
            frame = self.newest(number, timeout_s=0.2)
            if frame is not None:
                number = frame.number
                with self._condition:
                    self._taken = number
                    self._condition.notify_all()
                yield replace(frame, captured_at=time.perf_counter()) if self.source.fast else frame
            elif has_stopped or not goes_on():
                return

    def pause(self, is_paused: bool) -> None:
        """A file that is played at its own rate stands still while paused; a live source goes on, as life does."""
        with self._condition:
            self._is_paused = is_paused
            self._condition.notify_all()

    @property
    def state(self) -> State:
        """How the source is doing now."""
        with self._condition:
            self._watch()
            return self._state

    @property
    def state_since(self) -> float:
        """`time.perf_counter()` when it came into this state."""
        with self._condition:
            self._watch()
            return self._state_since

    @property
    def reason(self) -> str:
        """Why it is in this state, a few words; empty while all is well."""
        with self._condition:
            self._watch()
            return self._reason

    @property
    def changes(self) -> list[tuple[float, State, str]]:
        """Seconds since the start, the new state and the reason of every change of state, the last thousand."""
        with self._condition:
            self._watch()
            return list(self._changes)

    @property
    def num_captured(self) -> int:
        """Frames that came, taken or not."""
        with self._condition:
            return self._number

    @property
    def rate_fps(self) -> float:
        """Frames that come in a second, over the last two."""
        with self._condition:
            oldest = time.perf_counter() - RATE_S
            recent = [at for at in self._arrivals if at >= oldest]
        return (len(recent) - 1) / (recent[-1] - recent[0]) if len(recent) > 1 and recent[-1] > recent[0] else 0.0

    # With the lock held

    @property
    def _number(self) -> int:
        return 0 if self._frame is None else self._frame.number

    def _watch(self) -> None:
        """The thread may hang in a read, so whoever looks at the state sees to it."""
        if self._state is State.LIVE and self.source.is_live:
            lost_at = self._arrivals[-1] + self.no_signal_s
            if time.perf_counter() > lost_at:
                self._enter(State.NO_SIGNAL, f"no picture for {self.no_signal_s:g} s", lost_at)

    def _enter(self, state: State, reason: str, at: float | None = None) -> None:
        if self._state in (state, State.STOPPED):
            self._reason = self._reason if self._state is State.STOPPED else reason
            return
        at = time.perf_counter() if at is None else at
        self._state, self._state_since, self._reason = state, at, reason
        self._changes.append((at - self._began_at, state, reason))
        self._condition.notify_all()

    # The thread

    def _run(self) -> None:
        fault = None
        try:
            reason = self._read_live() if self.source.is_live else self._read_file()
        except InputError as error:
            reason = fault = str(error)
        except BaseException as error:
            reason, self._crash = f"{type(error).__name__}: {error}", error
        with self._condition:
            self.fault = fault
            self._enter(State.STOPPED, reason)

    def _read_live(self) -> str:
        """Connect again and again until told to stop. What never gave a picture is not worth another attempt."""
        num_failed = 0
        while not self._stopping.is_set():
            num_before = self.num_captured
            try:
                with closing(self.source.read(self._stopping)) as grabs:
                    for grab in grabs:
                        self._put(grab.picture, grab.arrived_at - self._began_at, grab.arrived_at)
                what = "the stream ended"
            except SourceError as error:
                if not self.num_captured and not self._stopping.is_set():
                    raise
                what = error.what
            if self._stopping.is_set():
                break
            if not self.num_captured:
                raise SourceError(self.source.name, "ended before its first picture", "Check what it sends.")
            num_failed = 0 if self.num_captured > num_before else num_failed + 1
            with self._condition:
                self._watch()
                self._enter(State.RECONNECTING, what)
            self._stopping.wait(BACKOFF_S[min(num_failed, len(BACKOFF_S) - 1)])
        return "stopped"

    def _read_file(self) -> str:
        """At its own rate, unless `fast`."""
        begin_s, frame_s, last_s = 0.0, USUAL_FRAME_S, 0.0  # where this pass began; a frame's time on screen
        due_at = None  # when it was the turn of the frame before
        while True:
            for grab in self._passing():
                time_s = begin_s + (grab.time_s or 0.0)
                frame_s = time_s - last_s if time_s > last_s else frame_s
                due_at = self._wait(due_at, time_s - last_s)
                last_s = time_s
                self._put(grab.picture, time_s, time.perf_counter())
            self._wait(due_at, frame_s)
            if self._stopping.is_set():
                return "stopped"
            if not self.source.loop:
                return "the file ended"
            begin_s = last_s + frame_s
            self._session += 1

    def _passing(self) -> Generator[Grab]:
        """One pass over a file."""
        with closing(self.source.read(self._stopping)) as grabs:
            for grab in grabs:
                if self._stopping.is_set():
                    return
                yield grab

    def _wait(self, due_at: float | None, frame_s: float) -> float:
        """Until `frame_s` after the frame before was due, unless that is long past; gives when that is."""
        now = time.perf_counter()
        if due_at is None or self.source.fast:
            return now
        due_at += frame_s
        self._stopping.wait(max(0.0, due_at - now))
        with self._condition:
            began_at = time.perf_counter()
            self._condition.wait_for(lambda: not self._is_paused or self._stopping.is_set())
            now = time.perf_counter()
        return max(due_at + now - began_at, now - MAX_LATE_S)

    def _put(self, picture: np.ndarray, time_s: float, captured_at: float) -> None:
        with self._condition:
            if self.source.fast:
                self._condition.wait_for(lambda: self._taken >= self._number or self._stopping.is_set())
            if self._stopping.is_set():
                return
            self._watch()
            if self._state is State.RECONNECTING:
                self._session += 1
            if self._frame is not None:  # of frames out of one packet
                time_s = max(time_s, self._frame.time_s + 1e-6)
            self._frame = Frame(picture, time_s, captured_at, self._number + 1, self._session)
            self._arrivals.append(time.perf_counter())
            self._enter(State.LIVE, "")
            self._condition.notify_all()
