"""What the person sees: the newest picture with what was recognised, how the source does, and how fast it all goes."""

from dataclasses import dataclass, field

import numpy as np

from egochef.inference.prediction import Prediction
from egochef.live.capture import State
from egochef.live.stats import Spread, Timeline
from egochef.video.overlay import Overlay, at_least, draw_overlay

STRIP_S = 60.0
"""seconds of actions along the lower edge"""
MESSAGE_S = 3.0
"""a message stands for so long"""
HELP = (
    ("space", "pause"),
    ("r", "record"),
    ("s", "screenshot"),
    ("m", "mirror"),
    ("+ / -", "threshold"),
    ("h", "this help"),
    ("q", "quit"),
)


@dataclass
class View:
    """All that one picture on the screen is made of; the live loop keeps it up to date."""

    engine: str
    """what runs the model"""
    threshold: float
    """probability from which an action is named"""
    picture: np.ndarray | None = None
    """(H, W, 3) uint8 RGB, the newest; None before the first"""
    now_s: float = 0.0
    """its time on the source's clock"""
    prediction: Prediction | None = None
    """None while the windows fill, or without a signal"""
    state: State = State.STARTING
    reason: str = ""
    timeline: Timeline = field(default_factory=lambda: Timeline(STRIP_S))
    rates: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """captured, recognised and shown a second"""
    latency: Spread | None = None
    """from capture to screen"""
    num_dropped: int = 0
    """captured frames that were not looked at for want of time"""
    is_recording: bool = False
    is_paused: bool = False
    is_mirrored: bool = False
    shows_help: bool = False
    message: str = ""
    message_until: float = 0.0
    """on `time.perf_counter()`'s clock"""

    def say(self, message: str, now: float) -> None:
        """Show a line for a moment."""
        self.message, self.message_until = message, now + MESSAGE_S


def compose(view: View, now: float) -> np.ndarray:
    """The picture to show: (H, W, 3) uint8 RGB, its shorter side at least 360 pixels."""
    picture = np.zeros((360, 640, 3), np.uint8) if view.picture is None else view.picture
    picture = at_least(picture)
    if view.is_mirrored:
        picture = picture[:, ::-1]
    return draw_overlay(np.ascontiguousarray(picture), overlay_of(view, now))


def overlay_of(view: View, now: float) -> Overlay:
    """What is drawn over the picture."""
    told = view.prediction if view.state is State.LIVE else None
    title, tone, prob = _title(view, told)
    strip_start_s = max(0.0, view.now_s - STRIP_S)
    return Overlay(
        title=title,
        tone=tone,  # type: ignore[arg-type]  # one of three words
        title_prob=prob,
        verb=told.verb if told else (),
        noun=told.noun if told else (),
        action=told.action if told else (),
        threshold=view.threshold if told else None,
        strip=tuple(view.timeline.parts),
        strip_start_s=strip_start_s,
        strip_stop_s=strip_start_s + STRIP_S,
        now_s=view.now_s,
        status=_status(view),
        badges=tuple(
            badge
            for badge, is_on in (("REC", view.is_recording), ("PAUSED", view.is_paused), ("MIRROR", view.is_mirrored))
            if is_on
        ),
        help=HELP if view.shows_help else (),
        message=view.message if now < view.message_until else "",
        dimmed=view.state not in (State.LIVE, State.STOPPED) or view.picture is None,
    )


def _title(view: View, told: Prediction | None) -> tuple[str, str, float | None]:
    if view.state is not State.LIVE:
        return str(view.state), "warning", None
    if told is None:
        return "looking", "uncertain", None
    if told.shown is None:
        return "uncertain", "uncertain", None
    return told.shown, "sure", told.shown_prob


def _status(view: View) -> tuple[str, ...]:
    camera, model, screen = view.rates
    lines = [f"camera {camera:.0f}/s   model {model:.0f}/s   screen {screen:.0f}/s"]
    if view.latency is not None:
        lines.append(f"to screen {view.latency.median_ms:.0f} ms   95 % below {view.latency.p95_ms:.0f} ms")
    lines.append(f"dropped {view.num_dropped:,}   threshold {view.threshold:.2f}")
    lines.append(view.engine)
    if view.state is not State.LIVE and view.reason:
        lines.append(view.reason)
    return tuple(lines)
