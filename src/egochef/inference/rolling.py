"""Recognition over a stream: each frame is encoded once, and every prediction takes what it needs of the kept features.

In: frames with their times, rising. Out: verb and noun probabilities of windows that end (live) or lie (files) at a
moment. Which features a window takes is decided by time, as for a clip: the T candidate times of the middle view, and
for each the frame on screen then. So a window equals the clip of the same interval, and the frame rate does not matter.

Encoders with a temporal shift know other frames. Online ones (`shift` is `past`) still encode each frame once, beside
what was kept of one a fixed time before it. Those that look both ways cannot: their windows are encoded anew each time,
as whole clips, and what is kept are the pictures.
"""

import logging
from bisect import bisect_right
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from egochef.clip import ClipSpec
from egochef.data.sampling import candidate_times, view_places
from egochef.data.transforms import eval_crop
from egochef.engines.engine import Engine
from egochef.errors import InputError
from egochef.model.recogniser import Logits
from egochef.model.shift import Kept

log = logging.getLogger(__name__)

WINDOWS_S = (1.0, 2.0, 4.0)
"""lengths of the windows that are looked at together: actions are of all lengths"""
REFRESH_S = 0.1
"""of a stream, at the rate of a camera each prediction looks at one window anew, in turn, and no answer gets older"""
GAP_WINDOWS = 1.5
"""shortest windows without a frame, after which what was seen before says nothing about what comes"""
SURENESS_POWER = 3
"""a window weighs by this power of its best action's probability: the one that fits the action is the surest"""
TIME_TOLERANCE_S = 1e-3
"""a frame that begins this much after a wanted time still answers it, as in decoding"""


class Probs(NamedTuple):
    """Probabilities, a weighted mean over the windows."""

    verb: np.ndarray
    """(V,) float32"""
    noun: np.ndarray
    """(N,) float32"""


class _Answer(NamedTuple):
    """What one window showed."""

    end_s: float
    """of the ring, when it was looked at"""
    verb: np.ndarray
    """(V,) probabilities"""
    noun: np.ndarray
    """(N,) probabilities"""


class ShiftMemory:
    """What an online encoder keeps of the frames of the last moments, by time.

    In a clip the frame before lies a T-th of the segment back, in a stream the frame before is the camera's. So a
    frame is encoded beside the one that lies `lag_s` back, as if there were several streams, one between the other.
    """

    def __init__(self, lag_s: float, gap_s: float):
        """`gap_s`: without a frame for longer than this, what comes does not follow what was."""
        self.lag_s, self.gap_s = lag_s, gap_s
        self._kept: deque[tuple[float, Kept]] = deque()

    def before(self, time_s: float) -> Kept | None:
        """Of the frame nearest to `lag_s` before a moment, but not of one less than half of that before.

        Where frames come more slowly that is the newest one. None at the start of a stream and behind a gap.
        """
        if self._kept and not 0 < time_s - self._kept[-1][0] <= self.gap_s:
            self._kept.clear()
        while len(self._kept) > 1 and self._kept[1][0] <= time_s - 1.5 * self.lag_s:
            self._kept.popleft()
        early = [each for each in self._kept if time_s - each[0] >= 0.5 * self.lag_s]
        return min(early, key=lambda each: abs(time_s - self.lag_s - each[0]))[1] if early else None

    def keep(self, time_s: float, kept: Kept) -> None:
        self._kept.append((time_s, kept))

    def clear(self) -> None:
        self._kept.clear()


class FeatureRing:
    """The features of the last `keep_s` seconds, by time."""

    def __init__(self, keep_s: float):
        self.keep_s = keep_s
        self._times_s: list[float] = []
        self._features: list[Tensor] = []

    def add(self, time_s: float, features: Tensor) -> None:
        """Keep a frame's features (D,).

        Raises:
            ValueError: it does not come after the frame before it.
        """
        if self._times_s and not time_s > self._times_s[-1]:
            raise ValueError(f"a frame at {time_s} s after one at {self._times_s[-1]} s: times must rise")
        self._times_s.append(time_s)
        self._features.append(features)
        # One frame stays from before the kept span: it is on screen where the span begins.
        num_old = bisect_right(self._times_s, time_s - self.keep_s) - 1
        if num_old > 0:
            del self._times_s[:num_old], self._features[:num_old]

    def at(self, times_s: Sequence[float] | np.ndarray) -> list[Tensor]:
        """The features (D,) of the frames on screen at given times; the oldest kept one stands for all before it."""
        places = (bisect_right(self._times_s, time_s + TIME_TOLERANCE_S) - 1 for time_s in times_s)
        return [self._features[max(0, place)] for place in places]

    def clear(self) -> None:
        self._times_s.clear()
        self._features.clear()

    def __len__(self) -> int:
        return len(self._times_s)

    @property
    def start_s(self) -> float:
        """When the oldest kept frame begins."""
        return self._times_s[0]

    @property
    def end_s(self) -> float:
        """When the newest frame leaves the screen, as far as the frames before it tell."""
        gap_s = self._times_s[-1] - self._times_s[-2] if len(self) > 1 else 0.0
        return self._times_s[-1] + gap_s


class RollingRecogniser:
    """An engine and the features of what it saw last.

    >>> rolling = RollingRecogniser(egochef.load("outputs/run"))
    >>> for time_s, picture in stream:
    ...     rolling.see(time_s, picture)
    ...     probs = rolling.probs()  # None until the shortest window is full
    """

    def __init__(
        self,
        engine: Engine,
        windows_s: Sequence[float] = WINDOWS_S,
        *,
        keep_s: float | None = None,
        refresh_s: float = REFRESH_S,
    ):
        """
        Args:
            engine: what encodes and classifies.
            windows_s: seconds that a prediction sees.
            keep_s: seconds of features to keep; the longest window unless windows lie further back.
            refresh_s: how old a window's answer may get before it is looked at again; with each prediction at least the
                oldest is. 0 looks at all of them every time.

        Raises:
            InputError: no windows, or one that is not positive.
        """
        if not windows_s or not all(0.01 <= window_s <= 3600 for window_s in windows_s):
            raise InputError(f"windows of {tuple(windows_s)} s: expected one or more, each from 0.01 to 3600 s")
        self.engine = engine
        self.windows_s = tuple(sorted(windows_s))
        # The newest frame's own time on screen comes on top of the longest window.
        self.ring = FeatureRing((keep_s or self.windows_s[-1]) + 1.0)
        self.refresh_s = refresh_s
        self._answers: dict[int, _Answer] = {}  # by place in windows_s
        self._offsets_s = [window_times(window_s, engine.clip) for window_s in self.windows_s]
        self._whole_clips = engine.shift == "both"
        # Clips of the middle window are what an online encoder sees the frames of.
        lag_s = self.windows_s[len(self.windows_s) // 2] / engine.clip.num_frames
        self._memory = ShiftMemory(lag_s, max(GAP_WINDOWS * self.windows_s[0], 2 * lag_s))
        if self._whole_clips:
            log.warning(
                "this model's encoder looks at later frames too: each window is encoded anew, %d frames at a time. For "
                "streams train one whose name ends in _online.",
                engine.clip.num_frames,
            )

    def see(self, time_s: float, picture: np.ndarray) -> None:
        """Encode a frame, (H, W, 3) uint8 RGB of any size, and keep its features."""
        self.keep(time_s, self.encode(time_s, picture))

    def encode(self, time_s: float, picture: np.ndarray) -> Tensor:
        """Features (D,) of a frame, (H, W, 3) uint8 RGB of any size, which `keep` takes. Times must rise."""
        return self.encode_crops([time_s], eval_crop(picture[None], self.engine.clip))[0]

    def encode_crops(self, times_s: Sequence[float], crops: Tensor) -> Sequence[Tensor]:
        """Features (D,) of each of some frames that follow each other, cropped (N, S, S, 3) uint8, for `keep`."""
        if self._whole_clips:
            return list(crops)
        if self.engine.shift == "past":
            return [self._encode_next(time_s, crop) for time_s, crop in zip(times_s, crops, strict=True)]
        return list(self.engine.encode(crops[None])[0])

    def _encode_next(self, time_s: float, crop: Tensor) -> Tensor:
        features, kept = self.engine.encode_next(crop[None], self._memory.before(time_s))
        self._memory.keep(time_s, kept)
        return features[0]

    def _classify(self, windows: Tensor) -> Logits:
        """(W, T, D), or crops (W, T, S, S, 3) where whole clips are looked at."""
        return (self.engine.clip_logits if self._whole_clips else self.engine.classify)(windows)

    def warm_up(self) -> None:
        """The first calls of a runtime take long: make them before the first picture is there."""
        size = self.engine.clip.image_size
        kept = self.encode_crops([0.0], torch.zeros(1, size, size, 3, dtype=torch.uint8))[0]
        for num_windows in range(1, len(self.windows_s) + 1):
            self._classify(kept.expand(num_windows, self.engine.clip.num_frames, *kept.shape))
        self.begin_stream()

    def keep(self, time_s: float, features: Tensor) -> None:
        """Keep what `encode` made of a frame."""
        self.ring.add(time_s, features)

    def begin_stream(self) -> None:
        """What is encoded next follows nothing that was encoded before."""
        self._memory.clear()

    def forget(self) -> None:
        """Begin anew: what is kept next does not follow what was."""
        self.ring.clear()
        self._answers.clear()

    def probs(self, middle_s: float | None = None) -> Probs | None:
        """What the windows see.

        Args:
            middle_s: None for windows that end with the newest frame, else all lie around this moment.

        Returns:
            The mean over the windows that are filled, each weighed by how sure it is; None where not even the shortest
            is filled.
        """
        windows = dict(self.filled(middle_s))  # place -> start, seconds
        if not windows:
            return None
        due = self._due(list(windows)) if middle_s is None else list(windows)
        times = [windows[place] + self._offsets_s[place] for place in due]
        features = torch.stack([torch.stack(self.ring.at(each)) for each in times])  # (W, T, D), or of crops
        logits = self._classify(features)
        verbs, nouns = (each.softmax(1).cpu().numpy() for each in logits)  # (W, V), (W, N)
        for place, verb, noun in zip(due, verbs, nouns, strict=True):
            self._answers[place] = _Answer(self.ring.end_s, verb, noun)
        return _weighed([self._answers[place] for place in windows])

    def _due(self, places: list[int]) -> list[int]:
        """The windows without an answer or with one that is too old; at least the one with the oldest."""
        seen_s = {place: self._answers[place].end_s if place in self._answers else -np.inf for place in places}
        latest_s = self.ring.end_s - self.refresh_s
        return [place for place in places if seen_s[place] <= latest_s] or [min(places, key=lambda at: seen_s[at])]

    def filled(self, middle_s: float | None = None) -> list[tuple[int, float]]:
        """The windows that the kept frames fill: (place in `windows_s`, start in seconds)."""
        if not len(self.ring):
            return []
        end_s, slack_s = self.ring.end_s, 0.5 / self.engine.clip.num_frames
        found = []
        for place, window_s in enumerate(self.windows_s):
            start_s = end_s - window_s if middle_s is None else middle_s - window_s / 2
            if start_s >= self.ring.start_s - slack_s * window_s and start_s + window_s <= end_s + slack_s * window_s:
                found.append((place, start_s))
        return found


def window_times(window_s: float, clip: ClipSpec) -> np.ndarray:
    """Times (T,) in [0, window_s) that evaluation would take of a segment of this length."""
    candidates_s = candidate_times(0.0, window_s, clip.grid)  # (K,)
    return candidates_s[view_places(len(candidates_s), clip.num_frames, 1)[0]]  # (T,)


def _weighed(answers: Sequence[_Answer]) -> Probs:
    """The mean of the windows' probabilities, each weighed by how sure it is."""
    verb, noun = np.stack([each.verb for each in answers]), np.stack([each.noun for each in answers])  # (W, V), (W, N)
    weights = (verb.max(1) * noun.max(1)) ** SURENESS_POWER  # (W,)
    weights /= weights.sum()
    return Probs(weights @ verb, weights @ noun)
