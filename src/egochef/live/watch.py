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

import torch

from egochef.engines.engine import Engine
from egochef.inference.prediction import Prediction
from egochef.inference.rolling import RollingRecogniser
from egochef.inference.smoothing import Smoother, Smoothing
from egochef.live.capture import Capture, Frame
from egochef.live.stats import Rate

log = logging.getLogger(__name__)

GAP_WINDOWS = 1.5
"""shortest windows without a frame, after which what was seen before says nothing about what comes"""
WAIT_S = 0.1
"""a frame is waited for so long before looking whether to stop"""
MOST_WAITING = 1000
"""results that nobody fetched; older ones are let go and counted"""


@dataclass(frozen=True)
class Seen:
    """What was seen with a frame."""

    frame: Frame
    prediction: Prediction | None
    """None until the shortest window is full"""
    done_at: float
    """`time.perf_counter()` when it was known"""
    encode_ms: float
    """crop and encoder"""
    head_ms: float
    """windows, temporal model and smoothing"""


class Recognition:
    """A rolling recogniser and its smoothing, fed with frames one by one."""

    def __init__(self, engine: Engine, windows_s: Sequence[float], smoothing: Smoothing):
        self.rolling = RollingRecogniser(engine, windows_s)
        self.smoother = Smoother(engine.taxonomy, smoothing)
        self._session, self._last_s = -1, 0.0

    def see(self, frame: Frame) -> Seen:
        """Encode a frame and say what the windows that end with it show."""
        if frame.session != self._session or frame.time_s - self._last_s > GAP_WINDOWS * self.rolling.windows_s[0]:
            self.forget()
        self._session, self._last_s = frame.session, frame.time_s
        began_at = time.perf_counter()
        self.rolling.see(frame.time_s, frame.picture)
        encoded_at = time.perf_counter()
        probs = self.rolling.probs()
        prediction = None if probs is None else self.smoother.update(frame.time_s, *probs)
        done_at = time.perf_counter()
        return Seen(frame, prediction, done_at, 1000 * (encoded_at - began_at), 1000 * (done_at - encoded_at))

    def forget(self) -> None:
        """What comes next does not follow what was."""
        self.rolling.forget()
        self.smoother.forget()

    def warm_up(self) -> None:
        """The first calls of a runtime take long: make them before the first picture is there."""
        engine = self.rolling.engine
        size = engine.clip.image_size
        features = engine.encode(torch.zeros(1, 1, size, size, 3, dtype=torch.uint8))
        for num_windows in range(1, len(self.rolling.windows_s) + 1):
            engine.classify(features.expand(num_windows, engine.clip.num_frames, -1))

    def change_threshold(self, step: float) -> float:
        """Raise or lower the probability from which an action is named; returns it."""
        settings = self.smoother.settings
        threshold = min(0.95, max(0.0, round(settings.threshold + step, 2)))
        self.smoother.settings = replace(settings, threshold=threshold)
        return threshold


class Watcher:
    """Recognition in a thread of its own, on the newest frame of a capture."""

    def __init__(self, recognition: Recognition, capture: Capture, *, skip_frames: int, wake: Callable[[], None]):
        """
        Args:
            recognition: what sees.
            capture: where frames come from.
            skip_frames: only every (skip_frames + 1)-th captured frame is encoded.
            wake: called when something was seen, from the thread.
        """
        self.recognition = recognition
        self.capture = capture
        self.skip_frames = skip_frames
        self.rate = Rate()
        self._wake = wake
        self._seen: deque[Seen] = deque()
        self._lock = threading.Lock()
        self._stopping, self._paused, self._forget = threading.Event(), threading.Event(), threading.Event()
        self._crash: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="recognition", daemon=True)

    def __enter__(self) -> "Watcher":
        self._thread.start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stopping.set()
        self._thread.join()

    def fetch(self) -> list[Seen]:
        """What was seen since the last call, in order; a fault of the thread is raised here."""
        if self._crash is not None:
            raise self._crash
        with self._lock:
            seen = list(self._seen)
            self._seen.clear()
        return seen

    def pause(self, paused: bool) -> None:
        """Stop looking, or look again; what comes after a pause does not follow what was before it."""
        if paused:
            self._paused.set()
        else:
            self._forget.set()
            self._paused.clear()

    def _run(self) -> None:
        try:
            number = -self.skip_frames
            while not self._stopping.is_set():
                if self._paused.is_set():
                    self._stopping.wait(WAIT_S)
                    continue
                frame = self.capture.newest(number + self.skip_frames, WAIT_S)
                if frame is None:
                    continue
                if self._forget.is_set():
                    self._forget.clear()
                    self.recognition.forget()
                number = frame.number
                seen = self.recognition.see(frame)
                self.rate.tick()
                with self._lock:
                    self._seen.append(seen)
                    if len(self._seen) > MOST_WAITING:
                        self._seen.popleft()
                self._wake()
        except BaseException as error:
            self._crash = error
            self._wake()
