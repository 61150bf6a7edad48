"""Recognition beside a running source: the newest frame is encoded, the windows are looked at, what is seen is kept.

In: `Frame`s of a `Capture`. Out: `Seen`, one a frame that was encoded.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from types import TracebackType

from torch import Tensor

from egochef.engines.engine import Engine
from egochef.inference.prediction import Prediction
from egochef.inference.rolling import GAP_WINDOWS, RollingRecogniser
from egochef.inference.smoothing import Smoother, Smoothing
from egochef.live.capture import Capture, Frame
from egochef.live.stats import Rate

log = logging.getLogger(__name__)

MANY_GAPS = 3
"""in a row, after which it is told that frames come too rarely"""
WAIT_S = 0.1
"""a frame is waited for so long before looking whether to stop"""


@dataclass(frozen=True)
class Encoded:
    """A frame and what the encoder made of it."""

    frame: Frame
    features: Tensor
    """(D,)"""
    encode_ms: float
    """crop and encoder"""


@dataclass(frozen=True)
class Seen:
    """What was seen up to a frame."""

    frame: Frame
    prediction: Prediction | None
    """None until the shortest window is full"""
    done_at: float
    """`time.perf_counter()` when it was known"""
    num_encoded: int
    """frames that were encoded for it: more than one where the windows take longer than the encoder"""
    encode_ms: float
    """crop and encoder, of the last frame"""
    head_ms: float
    """windows, temporal model and smoothing"""


class Recognition:
    """A rolling recogniser and its smoothing, fed with frames."""

    def __init__(self, engine: Engine, windows_s: Sequence[float], smoothing: Smoothing):
        self.rolling = RollingRecogniser(engine, windows_s)
        self.smoother = Smoother(engine.taxonomy, smoothing)
        self._session, self._last_s = -1, 0.0
        self._encoded_session = -1
        self._num_gaps = 0  # in a row; -1 when it has been told

    def encode(self, frame: Frame) -> Encoded:
        """The first half: may run beside the second."""
        began_at = time.perf_counter()
        if frame.session != self._encoded_session:
            self.rolling.begin_stream()
            self._encoded_session = frame.session
        features = self.rolling.encode(frame.time_s, frame.picture)
        return Encoded(frame, features, 1000 * (time.perf_counter() - began_at))

    def see(self, encoded: Sequence[Encoded]) -> Seen:
        """Keep frames, one or more, in order, and say what the windows that end with the last one show."""
        began_at = time.perf_counter()
        for each in encoded:
            frame = each.frame
            gap_s = frame.time_s - self._last_s
            is_gap = gap_s > GAP_WINDOWS * self.rolling.windows_s[0]
            if frame.session != self._session or is_gap:
                self.rolling.forget()  # what comes does not follow what was
                self.smoother.forget()
            self._count_gap(gap_s if is_gap and frame.session == self._session else None)
            self._session, self._last_s = frame.session, frame.time_s
            self.rolling.keep(frame.time_s, each.features)
        probs = self.rolling.probs()
        prediction = None if probs is None else self.smoother.update(self._last_s, *probs)
        done_at = time.perf_counter()
        last = encoded[-1]
        return Seen(last.frame, prediction, done_at, len(encoded), last.encode_ms, 1000 * (done_at - began_at))

    def _count_gap(self, gap_s: float | None) -> None:
        if self._num_gaps < 0:
            return
        self._num_gaps = 0 if gap_s is None else self._num_gaps + 1
        if self._num_gaps == MANY_GAPS:
            self._num_gaps = -1
            log.warning(
                "frames are encoded %.1f s apart, and the shortest window is %g s: nothing is recognised so. Give a "
                "longer --window, a smaller --skip-frames or a higher --fps.",
                gap_s,
                self.rolling.windows_s[0],
            )

    def warm_up(self) -> None:
        """The first calls of a runtime take long: make them before the first picture is there."""
        self.rolling.warm_up()

    def change_threshold(self, step: float) -> float:
        """Raise or lower the probability from which an action is named; returns it."""
        settings = self.smoother.settings
        threshold = min(0.95, max(0.0, round(settings.threshold + step, 2)))
        self.smoother.settings = replace(settings, threshold=threshold)
        return threshold


class Watcher:
    """Recognition beside a capture, on its newest frame.

    One thread encodes and another looks at the windows, so that a frame is encoded while the one before is thought
    about; where an engine's two halves would get into each other's way, one thread does both in turn.
    """

    def __init__(self, recognition: Recognition, capture: Capture, *, skip_frames: int, wake: Callable[[], None]):
        """
        Args:
            recognition: what sees.
            capture: where frames come from.
            skip_frames: only every (skip_frames + 1)-th captured frame is encoded.
            wake: called when something was seen, from a thread.
        """
        self.recognition = recognition
        self.capture = capture
        self.skip_frames = skip_frames
        self.rate = Rate()
        self._wake = wake
        self._encoded: deque[Encoded] = deque()
        self._seen: deque[Seen] = deque()
        self._changed = threading.Condition()
        self._stopping, self._paused = threading.Event(), threading.Event()
        self._crash: BaseException | None = None
        parts = [self._encode_on]
        if recognition.rolling.engine.overlaps:
            parts.append(self._see_on)
        self._threads = [threading.Thread(target=self._guarded, args=(part,), daemon=True) for part in parts]

    def __enter__(self) -> "Watcher":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stop()
        for thread in self._threads:
            thread.join()

    def fetch(self) -> list[Seen]:
        """What was seen since the last call, in order; a fault of a thread is raised here."""
        if self._crash is not None:
            raise self._crash
        with self._changed:
            seen = list(self._seen)
            self._seen.clear()
        return seen

    def pause(self, paused: bool) -> None:
        """Stop looking, or look again."""
        if paused:
            self._paused.set()
        else:
            self._paused.clear()

    # Threads

    def _guarded(self, part: Callable[[], None]) -> None:
        try:
            part()
        except BaseException as error:
            self._crash = error
            self._stop()
            self._wake()

    def _stop(self) -> None:
        self._stopping.set()
        with self._changed:
            self._changed.notify_all()

    def _encode_on(self) -> None:
        number = -self.skip_frames
        while not self._stopping.is_set():
            if self._paused.is_set():
                self._stopping.wait(WAIT_S)
                continue
            frame = self.capture.newest(number + self.skip_frames, WAIT_S)
            if frame is None:
                continue
            number = frame.number
            encoded = self.recognition.encode(frame)
            if len(self._threads) == 1:
                self._see([encoded])
            else:
                with self._changed:
                    self._encoded.append(encoded)
                    self._changed.notify_all()

    def _see_on(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._encoded or self._stopping.is_set())
                encoded = list(self._encoded)
                self._encoded.clear()
            if not encoded:
                return
            self._see(encoded)

    def _see(self, encoded: Sequence[Encoded]) -> None:
        seen = self.recognition.see(encoded)
        self.rate.tick()
        with self._changed:
            self._seen.append(seen)
        self._wake()
