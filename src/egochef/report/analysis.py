"""What the scores of a split say, in numbers: every table and figure of the report is one of these records.

In: a ScoreTable and the annotations of its segments. Out: records whose accuracies are percentages. S segments, V
verbs, N nouns. No model is needed, and nothing is drawn here.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from egochef.data.annotations import SPLIT_FILES, DataFolder, Segment, read_split
from egochef.inference.scoring import truth_of
from egochef.report.intervals import Estimate, estimate
from egochef.scoring.actions import best_of
from egochef.scoring.metrics import SUBSETS, TASKS, TOP_K, Truth, subset_rows
from egochef.scoring.table import ScoreTable, seen_of
from egochef.taxonomy import ACTION_BASE

LENGTHS_S = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0, np.inf)
"""bounds of the bins of segment lengths"""
FREQUENCIES = (0, 1, 10, 100, 1000, 10_000)
"""lower bounds of the bins of a class's training segments"""
NUM_CALIBRATION_BINS = 10


@dataclass(frozen=True, eq=False)
class Split:
    """A labelled split, and what training had to learn it from."""

    folder: DataFolder
    name: str
    segments: tuple[Segment, ...]
    truth: Truth
    video: np.ndarray
    """(S,) str"""
    train: dict[str, np.ndarray] | None
    """training segments of every class, verb (V,) and noun (N,), and of every action (V * N,); None: the folder has no
    training split"""

    def __len__(self) -> int:
        return len(self.segments)

    @property
    def length_s(self) -> np.ndarray:
        """(S,) to the microsecond, so that 3.01 - 1.01 is 2."""
        return np.round([segment.stop_s - segment.start_s for segment in self.segments], 6)

    @property
    def action(self) -> np.ndarray:
        """(S,) action ids, verb * 1000 + noun."""
        return self.truth.verb * ACTION_BASE + self.truth.noun

    def names(self, task: str) -> tuple[str, ...]:
        """Class names, of verbs or nouns."""
        return self.folder.taxonomy.verbs if task == "verb" else self.folder.taxonomy.nouns

    def action_name(self, action: int) -> str:
        """For people."""
        return self.folder.taxonomy.action_name(*divmod(int(action), ACTION_BASE))

    def train_count(self, task: str) -> np.ndarray | None:
        """(S,) training segments of each segment's own class or action."""
        if self.train is None:
            return None
        own = {"verb": self.truth.verb, "noun": self.truth.noun}
        own["action"] = self.truth.verb * self.folder.taxonomy.num_nouns + self.truth.noun
        return self.train[task][own[task]]


@dataclass(frozen=True, eq=False)
class Outcome:
    """What one model said of each segment."""

    name: str
    ids: dict[str, np.ndarray]
    """by task (S, 5): the best classes or actions, best first"""
    probs: dict[str, np.ndarray]
    """by task (S, 5): their probabilities"""
    hits: dict[str, np.ndarray]
    """by task (S, 5) bool: is the k-th best the right one?"""
    seen: np.ndarray
    """(S,) int8: whether it has learned from the segment's label, as in a ScoreTable"""

    def best(self, task: str) -> np.ndarray:
        """(S,) ids."""
        return self.ids[task][:, 0]

    def confidence(self, task: str) -> np.ndarray:
        """(S,) probability of the best."""
        return self.probs[task][:, 0]

    def right(self, task: str) -> np.ndarray:
        """(S,) bool: is the best the right one?"""
        return self.hits[task][:, 0]


@dataclass(frozen=True)
class Group:
    """Accuracies on some of the segments."""

    name: str
    num: int
    verb: Estimate | None
    """top-1; None where there is no segment, as are the next two"""
    noun: Estimate | None
    action: Estimate | None
    mark: str = ""
    """something to tell of it, such as "unseen" """


@dataclass(frozen=True)
class ClassResult:
    """One verb or noun."""

    id: int
    name: str
    num: int
    """segments of the split"""
    num_train: int | None
    """segments of train; None: not known"""
    tail: bool
    """on the official list of rare classes"""
    recall: float
    """of its segments those that are recognised, percent"""
    num_predicted: int
    """segments that are said to be of it"""
    precision: float | None
    """of those the right ones, percent; None of none"""


@dataclass(frozen=True)
class CalibrationBin:
    """Segments whose best class is about as probable."""

    low: float
    high: float
    num: int
    confidence: float
    """their mean, percent"""
    accuracy: float
    """percent"""


@dataclass(frozen=True)
class Calibration:
    """Whether a probability says how often the model is right."""

    bins: tuple[CalibrationBin, ...]
    """those with segments"""
    error: float
    """expected calibration error (Naeini et al., 2015): mean distance of confidence and accuracy, points"""
    confidence: float
    """mean over all segments, percent"""


@dataclass(frozen=True)
class ActionErrors:
    """Of the actions that are wrong, which half is."""

    num: int
    """segments"""
    num_right: int
    num_verb: int
    """only the verb is wrong"""
    num_noun: int
    """only the noun is wrong"""
    num_both: int


def open_split(folder: DataFolder, split: str) -> Split:
    """A split with its labels and the training counts.

    Raises:
        InputError: the split has no labels, or a fault in its file.
    """
    if not folder.labelled(split):
        truth_of(folder, split, ())
    segments = read_split(folder, split)
    return Split(
        folder=folder,
        name=split,
        segments=segments,
        truth=truth_of(folder, split, segments),
        video=np.array([segment.video_id for segment in segments]),
        train=_train_counts(folder),
    )


def _train_counts(folder: DataFolder) -> dict[str, np.ndarray] | None:
    if not (folder.annotations / SPLIT_FILES["train"]).is_file():
        return None
    segments = read_split(replace(folder, participants=frozenset()), "train")
    if folder.participants:
        segments = tuple(segment for segment in segments if segment.participant_id in folder.participants)
    if not segments:  # none of them is in train
        return None
    num_verbs, num_nouns = folder.taxonomy.num_verbs, folder.taxonomy.num_nouns
    verb, noun = (np.array([getattr(segment, task) for segment in segments]) for task in ("verb", "noun"))
    return {
        "verb": np.bincount(verb, minlength=num_verbs),
        "noun": np.bincount(noun, minlength=num_nouns),
        "action": np.bincount(verb * num_nouns + noun, minlength=num_verbs * num_nouns),
    }


def outcome_of(name: str, table: ScoreTable, split: Split) -> Outcome:
    """What a table, whose rows are the split's segments, says of each."""
    ids, probs = best_of(table, TOP_K)
    own = {"verb": split.truth.verb, "noun": split.truth.noun, "action": split.action}
    return Outcome(name, ids, probs, {task: ids[task] == own[task][:, None] for task in TASKS}, seen_of(table))


def official(outcome: Outcome, split: Split) -> dict[str, Estimate]:
    """The official metrics with their intervals, under their official names; those of empty subsets are left out."""
    rows = subset_rows(split.truth)
    found: dict[str, Estimate] = {}
    for subset in SUBSETS:
        for task in TASKS:
            for k in (1, TOP_K) if subset == "all" else (1,):
                within = rows[subset][task]
                hits = np.asarray(outcome.hits[task][within, :k].any(axis=1))
                value = estimate(hits, split.video[within])
                if value is not None:
                    found[f"{subset}_{task}_accuracy_at_{k}"] = value
    return found


def group(name: str, rows: np.ndarray, outcome: Outcome, split: Split, mark: str = "") -> Group:
    """Accuracies on rows (S,) bool."""
    values = {task: estimate(outcome.right(task)[rows], split.video[rows]) for task in TASKS}
    return Group(name, int(rows.sum()), values["verb"], values["noun"], values["action"], mark)


def by_length(outcome: Outcome, split: Split) -> list[Group]:
    """Bins of segment length, seconds; empty ones too."""
    length_s = split.length_s
    groups = []
    for low, high in pairwise(LENGTHS_S):
        name = f"{low:g} to {high:g} s" if np.isfinite(high) else f"{low:g} s or more"
        groups.append(group(name, (length_s >= low) & (length_s < high), outcome, split))
    return groups


def by_participant(outcome: Outcome, split: Split) -> list[Group]:
    """In the order of their names; those who are not in train are marked unseen."""
    participant = np.array([segment.participant_id for segment in split.segments])
    unseen = set(participant[split.truth.unseen].tolist())
    return [
        group(name, participant == name, outcome, split, "unseen" if name in unseen else "")
        for name in sorted(set(participant.tolist()))
    ]


def by_seen(outcome: Outcome, split: Split) -> list[Group]:
    """Segments of participants who are in train, and of those who are not; [] where nothing says who is which."""
    if not split.folder.unseen_participants.get(split.name):
        return []
    unseen = split.truth.unseen
    return [group("seen participants", ~unseen, outcome, split), group("unseen participants", unseen, outcome, split)]


def by_video(outcome: Outcome, split: Split) -> list[Group]:
    """In the order of their names."""
    return [group(name, split.video == name, outcome, split) for name in sorted(set(split.video.tolist()))]


def by_pair(outcome: Outcome, split: Split) -> list[Group]:
    """Segments whose verb and noun train has together, has apart only, or has not at all; [] without train."""
    counts = {task: split.train_count(task) for task in TASKS}
    if counts["verb"] is None or counts["noun"] is None or counts["action"] is None:
        return []
    together = counts["action"] > 0
    apart = ~together & (counts["verb"] > 0) & (counts["noun"] > 0)
    return [
        group("pair seen", together, outcome, split),
        group("both seen, never paired", apart, outcome, split),
        group("verb or noun new", ~together & ~apart, outcome, split),
    ]


def by_frequency(outcome: Outcome, split: Split, task: str) -> list[tuple[str, Estimate | None]]:
    """The task's top-1 by how often training has the segment's own class or action; [] without train."""
    counts = split.train_count(task)
    if counts is None:
        return []
    found = []
    for low, high in zip(FREQUENCIES, (*FREQUENCIES[1:], None), strict=True):
        rows = (counts >= low) & (counts < (np.inf if high is None else high))
        name = f"{low:,} or more" if high is None else f"{low:,}" if high == low + 1 else f"{low:,} to {high - 1:,}"
        found.append((name, estimate(outcome.right(task)[rows], split.video[rows])))
    return found


def by_class(outcome: Outcome, split: Split, task: str) -> list[ClassResult]:
    """Every verb or noun that the split has, from the most frequent in train (else in the split) to the rarest."""
    own, best, names = getattr(split.truth, task), outcome.best(task), split.names(task)
    tail = split.truth.tail_verbs if task == "verb" else split.truth.tail_nouns
    num = np.bincount(own, minlength=len(names))
    num_predicted = np.bincount(best, minlength=len(names))
    num_right = np.bincount(own[own == best], minlength=len(names))
    train = None if split.train is None else split.train[task]
    order = np.argsort(-(num if train is None else train), kind="stable")
    return [
        ClassResult(
            id=int(each),
            name=names[each],
            num=int(num[each]),
            num_train=None if train is None else int(train[each]),
            tail=int(each) in tail,
            recall=100 * float(num_right[each] / num[each]),
            num_predicted=int(num_predicted[each]),
            precision=100 * float(num_right[each] / num_predicted[each]) if num_predicted[each] else None,
        )
        for each in order
        if num[each]
    ]


def calibration(outcome: Outcome, task: str) -> Calibration:
    """Bins of equal width over the probability of the best class or action."""
    confidence, right = outcome.confidence(task), outcome.right(task)
    place = np.minimum((confidence * NUM_CALIBRATION_BINS).astype(int), NUM_CALIBRATION_BINS - 1)
    bins = []
    for each in range(NUM_CALIBRATION_BINS):
        rows = place == each
        if rows.any():
            bins.append(
                CalibrationBin(
                    low=each / NUM_CALIBRATION_BINS,
                    high=(each + 1) / NUM_CALIBRATION_BINS,
                    num=int(rows.sum()),
                    confidence=100 * float(confidence[rows].mean()),
                    accuracy=100 * float(right[rows].mean()),
                )
            )
    error = sum(each.num * abs(each.confidence - each.accuracy) for each in bins) / len(right)
    return Calibration(tuple(bins), error, 100 * float(confidence.mean()))


def action_errors(outcome: Outcome, split: Split) -> ActionErrors:
    """By the best action's own verb and noun."""
    verb, noun = np.divmod(outcome.best("action"), ACTION_BASE)
    verb_wrong, noun_wrong = verb != split.truth.verb, noun != split.truth.noun
    return ActionErrors(
        num=len(split),
        num_right=int((~verb_wrong & ~noun_wrong).sum()),
        num_verb=int((verb_wrong & ~noun_wrong).sum()),
        num_noun=int((~verb_wrong & noun_wrong).sum()),
        num_both=int((verb_wrong & noun_wrong).sum()),
    )


def named_top(outcome: Outcome, split: Split, row: int, task: str) -> list[tuple[str, float]]:
    """The five best of a segment with their probabilities, best first."""
    name = split.action_name if task == "action" else split.names(task).__getitem__
    return [
        (name(each), float(prob)) for each, prob in zip(outcome.ids[task][row], outcome.probs[task][row], strict=True)
    ]


def extremes(outcome: Outcome, split: Split, num: int) -> tuple[list[int], list[int]]:
    """Rows of the worst clips (wrong, and surest of it) and the best (right, and surest), each of another action."""
    order = np.argsort(-outcome.confidence("action"), kind="stable")
    right = outcome.right("action")
    return _of_different_actions(order[~right[order]], split, num), _of_different_actions(
        order[right[order]], split, num
    )


def _of_different_actions(rows: Sequence[int] | np.ndarray, split: Split, num: int) -> list[int]:
    chosen: dict[int, int] = {}
    for row in rows:
        chosen.setdefault(int(split.action[row]), int(row))
        if len(chosen) == num:
            break
    return list(chosen.values())
