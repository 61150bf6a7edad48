"""From predictions to segments: runs of one shown action, also as rows in the layout of EK-100's annotation files.

In: the predictions of a video in their order. Out: `Run`s, and CSV rows that `data.annotations` reads back.
"""

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from egochef.data.annotations import timestamp
from egochef.errors import InputError
from egochef.inference.prediction import Prediction
from egochef.taxonomy import Taxonomy
from egochef.texts import id_fault

COLUMNS = (
    "narration_id",
    "participant_id",
    "video_id",
    "narration_timestamp",
    "start_timestamp",
    "stop_timestamp",
    "start_frame",
    "stop_frame",
    "narration",
    "verb",
    "verb_class",
    "noun",
    "noun_class",
    "all_nouns",
    "all_noun_classes",
    "confidence",
)
"""those of EPIC_100_validation.csv, and one of our own"""


@dataclass(frozen=True)
class Run:
    """Consecutive predictions that show the same."""

    start_s: float
    """halfway from the prediction before it; 0 for the first run"""
    stop_s: float
    """halfway to the next prediction; the video's end for the last run"""
    shown: str | None
    """the action's name; None: uncertain"""
    ids: tuple[int, int] | None
    """its verb and noun ids"""
    prob: float
    """mean of its smoothed probability, 0 where uncertain"""


class RunJoiner:
    """Joins predictions as they come, in constant memory."""

    def __init__(self) -> None:
        self._start_s = 0.0
        self._last: Prediction | None = None
        self._gap_s = 0.0  # between the last two
        self._sum, self._num = 0.0, 0

    def add(self, prediction: Prediction) -> Run | None:
        """Take the next prediction; returns the run that it ends, if it does."""
        last, ended = self._last, None
        if last is not None:
            self._gap_s = prediction.time_s - last.time_s
            if prediction.shown_ids != last.shown_ids:
                boundary_s = (last.time_s + prediction.time_s) / 2
                ended = self._run(last, boundary_s)
                self._start_s, self._sum, self._num = boundary_s, 0.0, 0
        self._last = prediction
        self._sum, self._num = self._sum + prediction.shown_prob, self._num + 1
        return ended

    def finish(self, end_s: float | None = None) -> Run | None:
        """The last run, None if there was no prediction.

        Args:
            end_s: the video's end; None if it is not known: half a gap after the last prediction.
        """
        if self._last is None:
            return None
        last_s = self._last.time_s
        return self._run(self._last, last_s + self._gap_s / 2 if end_s is None else max(end_s, last_s))

    def _run(self, last: Prediction, stop_s: float) -> Run:
        return Run(self._start_s, stop_s, last.shown, last.shown_ids, self._sum / self._num)


def join_runs(predictions: Iterable[Prediction], end_s: float | None = None) -> list[Run]:
    """The runs of a whole video, which together cover it."""
    joiner = RunJoiner()
    runs = [joiner.add(prediction) for prediction in predictions] + [joiner.finish(end_s)]
    return [run for run in runs if run is not None]


def ek100_ids(video: Path) -> tuple[str, str]:
    """Participant and video id after the file's name: `P01_11.MP4` gives P01 and P01_11.

    EK-100's video ids begin with a participant and "_": a name without that, `kitchen.mp4`, becomes kitchen_1 of the
    participant kitchen.
    """
    participant, underscore, _ = video.stem.partition("_")
    return (participant, video.stem) if participant and underscore else (video.stem, f"{video.stem}_1")


def check_ids(videos: Sequence[Path]) -> None:
    """Whether segments of all these videos can stand in one file.

    Raises:
        InputError: two of them have the same name, or one has a name that is no id.
    """
    seen: dict[str, Path] = {}
    for path in videos:
        if fault := id_fault(ek100_ids(path)[1]):
            raise InputError(f"{path}: its name {fault}, so its segments can have no id. Rename it.")
        other = seen.setdefault(ek100_ids(path)[1], path)
        if other != path:
            raise InputError(f"{path} and {other}: two videos of one name. Rename one, or do them one at a time.")


class SegmentWriter:
    """Writes shown actions as rows of an EK-100 annotation file with a `confidence`; uncertain runs are no rows."""

    def __init__(self, file: TextIO, taxonomy: Taxonomy) -> None:
        """
        Args:
            file: open for text with newline="".
        """
        self.taxonomy = taxonomy
        self._csv = csv.writer(file, lineterminator="\n")
        self._csv.writerow(COLUMNS)
        self._counts: dict[str, int] = {}

    def add(self, video: Path, run: Run | None, average_fps: float | None = None) -> None:
        """Append a run of a video, of its average rate."""
        if run is None or run.ids is None:
            return
        participant_id, video_id = ek100_ids(video)
        number = self._counts.get(video_id, 0)
        self._counts[video_id] = number + 1
        verb, noun = run.ids
        # The official files count 50 frames a second in videos of 50 fps, and 60 in all others.
        rate = 50 if average_fps is not None and round(average_fps, 2) == 50 else 60
        start, stop = timestamp(run.start_s, decimals=3), timestamp(run.stop_s, decimals=3)
        frames = max(1, round(run.start_s * rate)), max(2, round(run.stop_s * rate))
        verb_name, noun_name = self.taxonomy.verbs[verb], self.taxonomy.nouns[noun]
        ids = (f"{video_id}_{number}", participant_id, video_id)
        labels = (run.shown, verb_name, verb, noun_name, noun, [noun_name], [noun])
        self._csv.writerow((*ids, start, start, stop, *frames, *labels, round(run.prob, 4)))
