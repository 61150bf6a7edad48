"""Live recognition: capture, recognition and screen run apart, and the newest frame wins.

In: an engine, a source and options. Out: a window or nothing to look at, a recording, a log, and a `LiveReport`.
Three threads: the capture's, the recognition's, and this one, which draws, shows, records and writes the log.
"""

import logging
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from PIL import Image

from egochef.engines.engine import Engine
from egochef.errors import InputError
from egochef.files import atomic_path
from egochef.inference.prediction import as_line
from egochef.inference.rolling import WINDOWS_S
from egochef.inference.smoothing import Smoothing
from egochef.live.capture import Capture, Frame, State
from egochef.live.outputs import Outputs, Screen, open_log
from egochef.live.screen import View, compose
from egochef.live.sources import Source
from egochef.live.stats import Latency, Rate, Spread
from egochef.live.watch import Recognition, Seen, Watcher
from egochef.live.window import Window
from egochef.stopping import StopSignals

log = logging.getLogger(__name__)

SHOW_EVERY_S = 0.045
"""a picture that nothing was seen with yet is shown after so long, where recognition keeps up with the camera"""
KEEPS_UP = 0.7
"""predictions a frame from which on it does"""
MOST_SHOWN_PER_S = 40
"""pictures; a camera at 30 a second is shown whole"""
IDLE_S = 0.1
"""the screen is drawn again after so long where nothing comes"""
WINDOW_PX = 960, 540
"""width and height it opens with"""
THRESHOLD_STEP = 0.05
"""of + and -"""


@dataclass(frozen=True)
class LiveOptions:
    """How to run."""

    windows_s: tuple[float, ...] = WINDOWS_S
    """seconds that a prediction sees"""
    smoothing: Smoothing = field(default_factory=Smoothing)
    skip_frames: int = 0
    """only every (skip_frames + 1)-th captured frame is encoded; all are shown"""
    headless: bool = False
    """no window"""
    record: Path | None = None
    """an .mp4 to be written from the start"""
    log: Path | None = None
    """a line per prediction, .jsonl or .csv"""
    folder: Path = Path("outputs", "live")
    """where the keys put recordings and screenshots"""
    seconds: float | None = None
    """stop after so long; None: until told to"""

    def __post_init__(self) -> None:
        if not isinstance(self.skip_frames, int) or self.skip_frames < 0:
            raise InputError(f"--skip-frames {self.skip_frames}: expected a whole number from 0 on")
        if self.seconds is not None and not self.seconds > 0:
            raise InputError(f"--seconds {self.seconds}: expected more than 0")


@dataclass(frozen=True)
class LiveReport:
    """What a run did."""

    source: str
    engine: str
    seconds: float
    """from the first picture to the end"""
    num_captured: int
    num_encoded: int
    num_predictions: int
    num_shown: int
    """pictures composed for screen or recording"""
    num_dropped: int
    """captured frames that were not encoded for want of time; not those while paused"""
    predictions_per_s: float
    """from the first to the last"""
    latency: Spread | None
    """from capture to prediction"""
    screen_latency: Spread | None
    """from capture to screen (or, without a window, into the recording); None with neither"""
    states: list[tuple[float, str, str]]
    """seconds since the start, state, reason"""
    recordings: list[str]
    log: str | None
    fault: str | None
    """why it ended, where that was none of the person's doing"""


def run_live(engine: Engine, source: Source, options: LiveOptions, screen: Screen | None = None) -> LiveReport:
    """Recognise until the source ends, the person quits, or a signal comes.

    Args:
        screen: another one than a window of our own.

    Raises:
        Stopped: by a signal before the first picture.
        InputError: the source, the display, the recording or the log cannot be had; nothing is left half done.
    """
    recognition = Recognition(engine, options.windows_s, options.smoothing)
    with ExitStack() as stack:
        stop = stack.enter_context(StopSignals())
        recognition.warm_up()
        stack.enter_context(stop.deferred())
        lines = stack.enter_context(open_log(options.log)) if options.log else None
        window = screen
        if window is None and not options.headless:
            window = stack.enter_context(Window(f"EgoChef: {source.name}", *WINDOW_PX))
        outputs = stack.enter_context(Outputs(window, lines))
        if options.record:
            outputs.begin_recording(options.record)
        with stop.deferred(False):  # a silent address takes long to answer
            capture = stack.enter_context(Capture(source))
        run = _Run(recognition, capture, outputs, options, stop)
        if source.fast:
            run.in_order()
        else:
            run.newest()
        capture.stop()
        if not capture.num_captured:
            stop.raise_if_received()
        outputs.end_recording()
        if stop.received is not None:
            stop.answer()
        return run.report()


class _Run:
    """The state of a run, in the main thread."""

    def __init__(
        self,
        recognition: Recognition,
        capture: Capture,
        outputs: Outputs,
        options: LiveOptions,
        stop: StopSignals,
    ):
        self.recognition, self.capture, self.outputs = recognition, capture, outputs
        self.options, self.stop = options, stop
        self.view = View(recognition.rolling.engine.name, options.smoothing.threshold)
        self.began_at = time.perf_counter()
        self.num_encoded = self.num_predictions = 0
        self.shown, self.watched = Rate(), Rate()
        self.latency, self.screen_latency = Latency(), Latency()
        self.fault: str | None = None
        self._watcher: Watcher | None = None
        self._predicted_at = (0.0, 0.0)
        self._shown_at, self._shown_number = 0.0, 0
        self._paused_at, self._num_while_paused = 0, 0  # numbers of frames

    # Two ways to go through a source

    def newest(self) -> None:
        """As it comes: recognition takes the newest frame when it is free, the screen follows."""
        wake = threading.Event()
        watcher = Watcher(self.recognition, self.capture, skip_frames=self.options.skip_frames, wake=wake.set)
        with watcher:
            self._watcher = watcher
            while self._goes_on():
                wake.wait(self._patience_s())
                wake.clear()
                self._hold_back()
                seen, frame = watcher.fetch(), self.capture.newest(0, 0)
                if seen or self._is_news(frame):
                    self._show(seen, frame)
        self._show(watcher.fetch(), self.capture.newest(0, 0))  # what was under way is seen to its end

    def in_order(self) -> None:
        """Every frame of a file, as fast as it goes, none left out."""
        for frame in self.capture.in_order(self._goes_on):
            while self.view.is_paused and self._goes_on():
                time.sleep(IDLE_S)
                self._show([], frame)
            if not self._goes_on():
                return
            seen = []
            if (frame.number - 1) % (self.options.skip_frames + 1) == 0:
                seen = [self.recognition.see([self.recognition.encode(frame)])]
                self.watched.tick()
            self._show(seen, frame)
        self.fault = self.capture.fault

    def _goes_on(self) -> bool:
        """Keys, signals and the end of the source."""
        if self.outputs.window is not None:
            for key in self.outputs.window.keys():  # noqa: SIM118  not a dict
                if key == "quit":
                    return False
                self._obey(key)
        if self.stop.received is not None:
            return False
        if self.options.seconds is not None and time.perf_counter() - self.began_at > self.options.seconds:
            return False
        if self.capture.state is State.STOPPED:
            self.fault = self.capture.fault
            return self.capture.source.fast  # in order: until the last frame is taken
        return True

    def _hold_back(self) -> None:
        """No screen shows more pictures than this, and drawing them would take time from recognition."""
        time.sleep(max(0.0, self._shown_at + 1 / MOST_SHOWN_PER_S - time.perf_counter()))

    def _patience_s(self) -> float:
        if self.capture.state is not State.LIVE or self.view.is_paused or self._watcher is None:
            return IDLE_S
        # Where most frames get no prediction, they are not worth waiting for.
        keeps_up = not self.options.skip_frames and self._watcher.rate.per_s > KEEPS_UP * self.capture.rate_fps
        return SHOW_EVERY_S if keeps_up else 1 / (2 * MOST_SHOWN_PER_S)

    def _is_news(self, frame: Frame | None) -> bool:
        """Whether there is something to show besides what is there: another picture, or words that have changed."""
        number = 0 if frame is None else frame.number
        is_news = number != self._shown_number or time.perf_counter() - self._shown_at > IDLE_S
        self._shown_number = number
        return is_news

    # Keys

    def _obey(self, key: str) -> None:
        view, now = self.view, time.perf_counter()
        if key == "pause":
            view.is_paused = not view.is_paused
            if view.is_paused:
                self._paused_at = self.capture.num_captured
            else:
                self._num_while_paused += self.capture.num_captured - self._paused_at
            self.capture.pause(view.is_paused)
            if self._watcher is not None:
                self._watcher.pause(view.is_paused)
        elif key == "mirror":
            view.is_mirrored = not view.is_mirrored
        elif key == "help":
            view.shows_help = not view.shows_help
        elif key in ("raise", "lower"):
            step = THRESHOLD_STEP if key == "raise" else -THRESHOLD_STEP
            view.threshold = self.recognition.change_threshold(step)
            view.say(f"threshold {view.threshold:.2f}", now)
        elif key == "screenshot":
            self._tell(self._screenshot, "saved", now)
        elif key == "record":
            if not self.outputs.is_recording:
                self._tell(lambda: self.outputs.begin_recording(self._new_file(".mp4")), "recording", now)
            elif path := self.outputs.end_recording():
                view.say(f"saved {path.name}", now)

    def _tell(self, act: Callable[[], Path], done: str, now: float) -> None:
        """Do something that may fail without ending the run, and say on screen how it went."""
        try:
            path = act()
        except InputError as error:
            log.warning("%s", error)
            self.view.say(str(error), now)
        else:
            log.info("%s %s", done, path)
            self.view.say(f"{done} {path.name}", now)

    def _new_file(self, suffix: str) -> Path:
        return self.options.folder / f"egochef-{datetime.now():%Y%m%d-%H%M%S-%f}{suffix}"

    def _screenshot(self) -> Path:
        path = self._new_file(".png")
        with atomic_path(path) as temporary:
            Image.fromarray(compose(self.view, time.perf_counter())).save(temporary)
        return path

    # A picture

    def _show(self, seen: list[Seen], frame: Frame | None) -> None:
        """Take in what was seen, draw, show and record it over a frame, and write it down."""
        view, outputs = self.view, self.outputs
        self._take_in(seen, frame)
        shown_at = None
        if outputs.wants_pictures:
            picture = compose(view, time.perf_counter())
            if outputs.window is not None:
                outputs.window.show(picture)
            shown_at = self._shown_at = time.perf_counter()
            self.shown.tick()
            in_order = self.capture.source.fast
            if view.picture is not None:  # the first one gives the recording's size
                fault = outputs.record(picture, view.now_s if in_order else shown_at, wait=in_order)
                if fault is not None:
                    view.say(fault, shown_at)
        for place, each in enumerate(seen):
            on_screen = shown_at is not None and place == len(seen) - 1  # the others were overtaken
            self._write_down(each, shown_at if on_screen else None)

    def _take_in(self, seen: list[Seen], frame: Frame | None) -> None:
        view, capture = self.view, self.capture
        if frame is not None and not view.is_paused:
            view.picture, view.now_s = frame.picture, frame.time_s
        state = capture.state
        if state is not view.state:
            log.info("%s: %s%s", capture.source.name, state, f" ({capture.reason})" if capture.reason else "")
        view.state, view.reason = state, capture.reason
        if state is not State.LIVE:
            view.prediction = None
        for each in seen:
            self.num_encoded += each.num_encoded
            self.latency.add(each.done_at - each.frame.captured_at)
            view.prediction = each.prediction
            view.timeline.add(each.frame.time_s, each.prediction.shown if each.prediction else None)
        if state not in (State.LIVE, State.STOPPED):
            view.prediction = None
            view.timeline.add(view.now_s, None)
        watched = self.watched if self._watcher is None else self._watcher.rate
        view.rates = (capture.rate_fps, watched.per_s, self.shown.per_s)
        view.latency = self.screen_latency.recent()
        view.num_dropped = self.num_dropped
        view.is_recording = self.outputs.is_recording

    @property
    def num_dropped(self) -> int:
        if self.capture.source.fast:
            return 0
        num_captured = self._paused_at if self.view.is_paused else self.capture.num_captured
        num_wanted = (num_captured - self._num_while_paused) // (self.options.skip_frames + 1)
        return max(0, num_wanted - self.num_encoded)

    def _write_down(self, seen: Seen, shown_at: float | None) -> None:
        captured_at = seen.frame.captured_at
        if shown_at is not None:
            self.screen_latency.add(shown_at - captured_at)
        if seen.prediction is None:
            return
        self.num_predictions += 1
        self._predicted_at = (self._predicted_at[0] or seen.done_at, seen.done_at)
        line = as_line(seen.prediction, at=datetime.now().astimezone().isoformat(timespec="milliseconds"))
        line["latency_ms"] = round(1000 * (seen.done_at - captured_at), 2)
        line["screen_ms"] = None if shown_at is None else round(1000 * (shown_at - captured_at), 2)
        line["session"] = seen.frame.session
        self.outputs.write_line(line)

    def _predictions_per_s(self) -> float:
        """From the first to the last: until the first, the windows fill."""
        first_at, last_at = self._predicted_at
        return (self.num_predictions - 1) / (last_at - first_at) if last_at > first_at else 0.0

    def report(self) -> LiveReport:
        """What was done until now."""
        seconds = time.perf_counter() - self.began_at
        return LiveReport(
            source=self.capture.source.name,
            engine=self.recognition.rolling.engine.name,
            seconds=round(seconds, 2),
            num_captured=self.capture.num_captured,
            num_encoded=self.num_encoded,
            num_predictions=self.num_predictions,
            num_shown=self.shown.count,
            num_dropped=self.num_dropped,
            predictions_per_s=round(self._predictions_per_s(), 2),
            latency=self.latency.over_all(),
            screen_latency=self.screen_latency.over_all(),
            states=[(round(at_s, 2), str(state), reason) for at_s, state, reason in self.capture.changes],
            recordings=[str(path) for path in self.outputs.recordings],
            log=str(self.options.log) if self.options.log and self.num_predictions else None,
            fault=self.fault or self.outputs.fault,
        )
