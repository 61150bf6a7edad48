"""All segments as columns, and what models say of them, so that 90,000 rows filter and sort in milliseconds.

In: segments of one or several splits, and the scores of one of them. Out: an `Index` of numpy arrays. S segments.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from egochef.data.annotations import SPLIT_FILES, DataFolder, Segment, read_split
from egochef.errors import InputError
from egochef.scoring.actions import best_of
from egochef.scoring.metrics import TASKS
from egochef.scoring.table import SEEN, seen_of
from egochef.taxonomy import ACTION_BASE

if TYPE_CHECKING:  # it brings torch, which an index without predictions does not need
    from egochef.report.scores import Scores

NO_CLASS = -1
"""of a segment without labels, or without a prediction"""
RIGHT, WRONG, UNKNOWN = 1, 0, -1


@dataclass(frozen=True, eq=False)
class Predictions:
    """What one model says of each segment of an index."""

    scores: "Scores"
    row: np.ndarray
    """(S,) int, the segment's row in the scores; -1: they have none"""
    best: dict[str, np.ndarray]
    """by task (S,) int, class or action id; NO_CLASS where there is no prediction"""
    confidence: dict[str, np.ndarray]
    """by task (S,) float64, probability of the best; NaN where there is no prediction"""
    verdict: dict[str, np.ndarray]
    """by task (S,) int8: RIGHT, WRONG, or UNKNOWN without a prediction or a label"""

    @property
    def name(self) -> str:
        """For people; says where labels were learned from."""
        return f"{self.scores.name} (labels seen)" if (seen_of(self.scores.table) == SEEN).any() else self.scores.name


@dataclass(frozen=True, eq=False)
class Index:
    """Segments as columns; codes are places in the lists of names beside them."""

    folder: DataFolder
    segments: tuple[Segment, ...]
    splits: tuple[str, ...]
    participants: tuple[str, ...]
    videos: tuple[str, ...]
    split: np.ndarray
    """(S,) int, code"""
    participant: np.ndarray
    """(S,) int, code"""
    video: np.ndarray
    """(S,) int, code"""
    verb: np.ndarray
    """(S,) int, class id; NO_CLASS in the test split"""
    noun: np.ndarray
    """(S,) int, class id; NO_CLASS in the test split"""
    start_s: np.ndarray
    """(S,) float64"""
    length_s: np.ndarray
    """(S,) float64"""
    text: tuple[str, ...]
    """what is searched: narration and narration id, casefolded"""
    place: np.ndarray
    """(S,) int, rank in the order of videos and of narrations within them"""
    by_narration: np.ndarray
    """(S,) int, rank of the narration in the alphabet"""
    predictions: tuple[Predictions, ...] = ()

    def __len__(self) -> int:
        return len(self.segments)

    @property
    def scored_split(self) -> str | None:
        """The split that predictions are of."""
        return self.splits[self.split[self.predictions[0].row.argmax()]] if self.predictions else None

    @cached_property
    def row_of(self) -> dict[str, int]:
        """Row by narration id."""
        return {segment.narration_id: row for row, segment in enumerate(self.segments)}

    @cached_property
    def by_name(self) -> dict[str, np.ndarray]:
        """Rank of each verb's and noun's name in the alphabet, by class id; at NO_CLASS, the last place, one more."""
        taxonomy, ranks = self.folder.taxonomy, {}
        for task, names in (("verb", taxonomy.verbs), ("noun", taxonomy.nouns)):
            order = np.argsort(np.array(names), kind="stable")
            ranks[task] = np.empty(len(names) + 1, np.int64)
            ranks[task][order] = np.arange(len(names))
            ranks[task][NO_CLASS] = len(names)
        return ranks

    def truth(self, task: str) -> np.ndarray:
        """(S,) int, class or action id; NO_CLASS without labels."""
        if task == "action":
            return np.where(self.verb == NO_CLASS, NO_CLASS, self.verb * ACTION_BASE + self.noun)
        return self.verb if task == "verb" else self.noun

    def name_of(self, task: str, class_id: int) -> str | None:
        """For people; None of NO_CLASS."""
        if class_id == NO_CLASS:
            return None
        taxonomy = self.folder.taxonomy
        if task == "action":
            return taxonomy.action_name(*divmod(class_id, ACTION_BASE))
        return (taxonomy.verbs if task == "verb" else taxonomy.nouns)[class_id]


def splits_there(folder: DataFolder, asked: Sequence[str] = ()) -> tuple[str, ...]:
    """The splits to browse: those asked for, else all whose files the folder has.

    Raises:
        InputError: an unknown split, or the folder has none.
    """
    if unknown := [split for split in asked if split not in SPLIT_FILES]:
        raise InputError(f"unknown split {unknown[0]!r}, expected some of {', '.join(SPLIT_FILES)}")
    found = [split for split in SPLIT_FILES if (folder.annotations / SPLIT_FILES[split]).is_file()]
    if not asked and not found:
        raise InputError(f"{folder.annotations}: none of {', '.join(SPLIT_FILES.values())} in it")
    return tuple(split for split in SPLIT_FILES if split in (asked or found))


def build_index(folder: DataFolder, asked: Sequence[str] = ()) -> Index:
    """Read splits into columns.

    Args:
        asked: splits; none: all that the folder has. Those without a segment of its participants are left out.

    Raises:
        InputError: a fault in an annotation file, or an unknown split.
    """
    everybody = replace(folder, participants=frozenset())  # somebody may be in one split and not in another
    parts = {}
    for split in splits_there(folder, asked):
        part = read_split(everybody, split)
        if folder.participants:
            part = tuple(segment for segment in part if segment.participant_id in folder.participants)
        if part:
            parts[split] = part
    if not parts:
        raise InputError(f"{folder.annotations}: no segment of {', '.join(sorted(folder.participants))} in it")
    segments = tuple(segment for part in parts.values() for segment in part)
    participants, participant = _codes([segment.participant_id for segment in segments], _numbers)
    videos, video = _codes([segment.video_id for segment in segments], _numbers)
    numbers = [_numbers(segment.narration_id.removeprefix(segment.video_id)) for segment in segments]
    order = sorted(range(len(segments)), key=lambda row: (video[row], numbers[row]))
    place = np.empty(len(segments), np.int64)
    place[order] = np.arange(len(segments))
    start_s = np.array([segment.start_s for segment in segments])
    return Index(
        folder=folder,
        segments=segments,
        splits=tuple(parts),
        participants=participants,
        videos=videos,
        split=np.repeat(np.arange(len(parts)), [len(part) for part in parts.values()]),
        participant=participant,
        video=video,
        verb=np.array([NO_CLASS if segment.verb is None else segment.verb for segment in segments]),
        noun=np.array([NO_CLASS if segment.noun is None else segment.noun for segment in segments]),
        start_s=start_s,
        length_s=np.array([segment.stop_s for segment in segments]) - start_s,
        text=tuple(f"{segment.narration}\n{segment.narration_id}".casefold() for segment in segments),
        place=place,
        by_narration=_codes([segment.narration.casefold() for segment in segments], key=None)[1],
    )


def predictions_of(index: Index, split: str, scores: "Scores") -> Predictions:
    """A model's word as columns of an index; its table has the rows of the index's `split`, in their order."""
    table = scores.table
    rows = np.flatnonzero(index.split == index.splits.index(split))
    assert len(rows) == len(table)
    ids, probs = best_of(table, 1)
    row = np.full(len(index), -1)
    row[rows] = np.arange(len(rows))
    columns = {task: np.full(len(index), NO_CLASS) for task in TASKS}
    chances = {task: np.full(len(index), np.nan) for task in TASKS}
    verdict = {}
    for task in TASKS:
        columns[task][rows], chances[task][rows] = ids[task][:, 0], probs[task][:, 0]
        truth = index.truth(task)
        known = (truth != NO_CLASS) & (row >= 0)
        verdict[task] = np.where(known, (columns[task] == truth).astype(np.int8), np.int8(UNKNOWN))
    return Predictions(scores, row, columns, chances, verdict)


def _codes(names: Sequence[str], key: Callable[[str], Any] | None) -> tuple[tuple[str, ...], np.ndarray]:
    """The names that there are, in the order of a key, and each row's place among them."""
    there = tuple(sorted(set(names), key=key))
    place = {name: code for code, name in enumerate(there)}
    return there, np.array([place[name] for name in names])


def _numbers(name: str) -> tuple[tuple[int, int, str], ...]:
    """A key that sorts numbers in names as numbers."""
    parts = re.findall(r"[0-9]+|[^0-9]+", name)
    return tuple((0, int(part), part) if part.isascii() and part.isdigit() else (1, 0, part) for part in parts)
