"""A reel: the best moments of several videos in one film, with titles.

In: videos with their predictions. Out: one H.264 file of one size and a constant rate, without sound.
"""

import dataclasses
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from egochef.data.transforms import shorter_side_to
from egochef.errors import InputError
from egochef.inference.prediction import Prediction
from egochef.inference.render import nearest, overlay_of
from egochef.inference.segments import join_runs
from egochef.texts import escaped
from egochef.video.cards import FAINT, draw_card, fit, mosaic
from egochef.video.decode import decode_at, iter_at, probe
from egochef.video.encode import EncodeSpec, write_video
from egochef.video.overlay import draw_overlay
from egochef.video.paint import label_colour
from egochef.video.times import clock

log = logging.getLogger(__name__)

STILL_PX = 360
"""shorter side of the pictures behind the cards"""
NUM_BARS = 3
"""of verbs, nouns and actions: a film is for the picture"""


@dataclass(frozen=True)
class ReelSpec:
    """What a reel looks like."""

    width_px: int = 1280
    height_px: int = 720
    fps: int = 30
    num_moments: int = 3
    """at most, of a video"""
    shortest_s: float = 2.0
    """of a moment on screen"""
    longest_s: float = 4.0
    """of a moment on screen"""
    opening_s: float = 2.0
    """the first card's time on screen"""
    card_s: float = 1.2
    """a video's card's time on screen"""
    fade_s: float = 0.25
    """from one picture to the next"""

    def __post_init__(self) -> None:
        for name, lowest, highest in (("width_px", 64, 8192), ("height_px", 64, 8192), ("fps", 1, 240)):
            if not lowest <= getattr(self, name) <= highest:
                raise InputError(f"ReelSpec.{name} is {getattr(self, name)}, expected {lowest} to {highest}")
        if self.num_moments < 1:
            raise InputError(f"{self.num_moments} moments a video: expected at least 1")
        if not 0 < self.shortest_s <= self.longest_s <= 600:
            raise InputError(f"moments of {self.shortest_s} to {self.longest_s} s: expected 0 < shortest <= longest")


@dataclass(frozen=True)
class Moment:
    """A part of a video that is worth seeing."""

    start_s: float
    stop_s: float
    shown: str | None
    """the action it was chosen for; None where nothing in the video is certain"""
    prob: float
    """mean over the part of the action's smoothed probability, while it is shown"""


@dataclass(frozen=True)
class ReelItem:
    """A video's part in a reel."""

    path: Path
    end_s: float
    """the video's end"""
    moments: tuple[Moment, ...]
    """in the order of time"""
    predictions: tuple[Prediction, ...]
    """those around the moments: no more is kept, however long the video"""


def choose_moments(path: Path, predictions: Sequence[Prediction], spec: ReelSpec | None = None) -> ReelItem:
    """The most confident, differing actions of a video that do not overlap; earlier ones win a tie.

    A video without any shown action gives the one moment whose best action is the most probable, marked uncertain, and
    a warning is logged.

    Raises:
        VideoError: the video cannot be read.
    """
    spec = spec or ReelSpec()
    end_s = max(probe(path).duration_s or 0.0, predictions[-1].time_s)
    moments: list[Moment] = []
    for moment in sorted(_candidates(predictions, end_s, spec), key=lambda each: -each.prob):
        apart = all(moment.stop_s <= other.start_s or moment.start_s >= other.stop_s for other in moments)
        if apart and all(moment.shown != other.shown for other in moments):
            moments.append(moment)
        if len(moments) == spec.num_moments:
            break
    if not moments:
        log.warning("%s: nothing is certain in it; the reel shows its likeliest moment as uncertain", path)
        best = max(predictions, key=lambda each: each.action[0][1])
        moments = [Moment(*_span(best.time_s, 0.0, end_s, spec), None, 0.0)]
    moments.sort(key=lambda moment: moment.start_s)
    near = [each for each in predictions if any(m.start_s - 1 <= each.time_s <= m.stop_s + 1 for m in moments)]
    return ReelItem(path, end_s, tuple(moments), tuple(near or predictions[-1:]))


def _candidates(predictions: Sequence[Prediction], end_s: float, spec: ReelSpec) -> Iterator[Moment]:
    """A moment for each run of a shown action, around its most confident prediction."""
    for run in join_runs(predictions, end_s):
        if run.shown is None:
            continue
        inside = [each for each in predictions if run.start_s <= each.time_s <= run.stop_s]
        peak = max(inside, key=lambda each: each.shown_prob)
        half_s = min(run.stop_s - run.start_s, spec.longest_s) / 2
        middle_s = min(max(peak.time_s, run.start_s + half_s), run.stop_s - half_s)
        start_s, stop_s = _span(middle_s, 2 * half_s, end_s, spec)
        seen = [each for each in predictions if start_s <= each.time_s <= stop_s] or [peak]
        mean = sum(each.shown_prob for each in seen if each.shown == run.shown) / len(seen)
        yield Moment(start_s, stop_s, run.shown, mean)


def _span(middle_s: float, length_s: float, end_s: float, spec: ReelSpec) -> tuple[float, float]:
    """A part of an allowed length around a moment, inside the video where it is long enough."""
    length_s = min(max(length_s, spec.shortest_s), spec.longest_s)
    start_s = max(0.0, min(middle_s - length_s / 2, end_s - length_s))
    return start_s, start_s + length_s


def make_reel(items: Sequence[ReelItem], out: Path, spec: ReelSpec | None = None) -> int:
    """Write the film: an opening card, then for each video a card with its name and its moments.

    The same items give the same pictures. It appears under its name when it is whole.

    Returns:
        Number of frames.

    Raises:
        VideoError: a video cannot be read.
        InputError: the film cannot be written.
    """
    spec = spec or ReelSpec()
    total = _num_frames(spec.opening_s, spec) + sum(
        _num_frames(spec.card_s, spec) + sum(_num_frames(m.stop_s - m.start_s, spec) for m in item.moments)
        for item in items
    )
    with (
        write_video(out, rate=Fraction(spec.fps), spec=EncodeSpec(crf=20)) as writer,
        tqdm(total=total, desc=escaped(out.name), unit="frame", disable=None, leave=False) as bar,
    ):
        last: np.ndarray = np.zeros((spec.height_px, spec.width_px, 3), np.uint8)
        for shot in _shots(items, spec):
            held, num_fade = last, round(spec.fade_s * spec.fps)
            for place, picture in enumerate(shot):
                share = (place + 1) / (num_fade + 1)
                last = picture if share >= 1 else cv2.addWeighted(picture, share, held, 1 - share, 0)
                writer.add(last)
                bar.update()
        return writer.num_frames


def _shots(items: Sequence[ReelItem], spec: ReelSpec) -> Iterator[Iterator[np.ndarray]]:
    """The film's parts, each a stream of pictures of its size."""
    size = spec.width_px, spec.height_px
    stills = [[_middle_frame(item.path, moment) for moment in item.moments] for item in items]
    num_moments = sum(len(item.moments) for item in items)
    line = f"{_counted(len(items), 'video')}, {_counted(num_moments, 'moment')}"
    opening = draw_card("EgoChef", [(line, FAINT)], *size, mosaic([each for row in stills for each in row], *size))
    yield _still(opening, spec.opening_s, spec)
    for item, row in zip(items, stills, strict=True):
        shown = [(m.shown, label_colour(m.shown)) if m.shown else ("uncertain", FAINT) for m in item.moments]
        yield _still(draw_card(item.path.stem, shown, *size, row[0]), spec.card_s, spec)
        for moment in item.moments:
            yield _moving(item, moment, spec)


def _moving(item: ReelItem, moment: Moment, spec: ReelSpec) -> Iterator[np.ndarray]:
    """A moment's pictures, with what is recognised on them; a video that ends too soon stands still."""
    times_s = moment.start_s + np.arange(_num_frames(moment.stop_s - moment.start_s, spec)) / spec.fps
    for frame in iter_at(item.path, times_s):
        picture = fit(frame.picture, spec.width_px, spec.height_px)
        for time_s in times_s[frame.first : frame.stop]:
            said = overlay_of(nearest(item.predictions, float(time_s)))
            best = {kind: getattr(said, kind)[:NUM_BARS] for kind in ("verb", "noun", "action")}
            status = (item.path.stem, clock(min(float(time_s), item.end_s)))
            yield draw_overlay(picture, dataclasses.replace(said, **best, status=status))


def _still(picture: np.ndarray, length_s: float, spec: ReelSpec) -> Iterator[np.ndarray]:
    return iter([picture] * _num_frames(length_s, spec))


def _middle_frame(path: Path, moment: Moment) -> np.ndarray:
    (frame,) = decode_at(path, [(moment.start_s + moment.stop_s) / 2]).frames
    return shorter_side_to(frame, STILL_PX)


def _num_frames(length_s: float, spec: ReelSpec) -> int:
    return max(1, round(length_s * spec.fps))


def _counted(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
