"""What is in a dataset: counts, class frequencies, segment lengths, verb-noun pairs, participants.

In: a data folder or store. Out: one `Statistics`. Only annotations are read, no videos. A split that the folder lacks,
or that has no rows, is told in `missing`; all else is of the others.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from egochef.data.annotations import SPLIT_FILES, DataFolder, Segment, open_data_folder, read_split
from egochef.errors import InputError
from egochef.taxonomy import ACTION_BASE

SHORT_S = 0.5
"""segments below it are counted apart"""
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
EDGES_S = (0.0, *(0.125 * 2 ** (k / 2) for k in range(24)))
"""of the histogram of lengths: half octaves from 0.125 to 362 s; the last bin has all that is longer"""


@dataclass(frozen=True)
class SplitCounts:
    """A split in numbers. What needs labels or an official list is None where there are none."""

    split: str
    num_segments: int
    num_videos: int
    num_participants: int
    annotated_h: float
    """sum of the segments' lengths, hours"""
    covered_h: float
    """hours of video that lie in at least one segment"""
    num_verbs: int | None
    """different ones that occur; as are the next two"""
    num_nouns: int | None
    num_actions: int | None
    num_tail_verb: int | None
    """segments whose verb is in the official tail list"""
    num_tail_noun: int | None
    """segments whose noun is"""
    num_tail_action: int | None
    """segments of which at least one of the two is"""
    num_unseen: int | None
    """segments of participants who are not in train; None for train"""


@dataclass(frozen=True)
class Totals:
    """All splits together."""

    num_segments: int
    num_videos: int
    num_participants: int
    annotated_h: float
    num_verbs: int
    """in the class file, whether they occur or not"""
    num_nouns: int
    num_actions: int
    """different pairs that occur, where labels are public"""


@dataclass(frozen=True)
class ClassCount:
    """How often a class occurs."""

    id: int
    name: str
    tail: bool
    """in the official tail list"""
    segments: dict[str, int]
    """number by split, where labels are public"""


@dataclass(frozen=True)
class PairCount:
    """How often a verb and a noun occur together."""

    verb: int
    noun: int
    action: str
    """name"""
    segments: dict[str, int]
    """number by split, where labels are public"""


@dataclass(frozen=True)
class Lengths:
    """How long the segments of a split are."""

    split: str
    num_segments: int
    min_s: float
    mean_s: float
    max_s: float
    quantiles_s: dict[str, float]
    """by share of the segments that are not longer: `0.5` is the median"""
    num_short: int
    """segments under SHORT_S"""
    short_share: float
    """fraction of the split's segments"""
    histogram: tuple[int, ...]
    """segments by bin of EDGES_S, from one edge to before the next"""


@dataclass(frozen=True)
class Novelty:
    """What validation has that training never showed."""

    new_actions: int
    """different pairs"""
    new_action_segments: int
    """segments with such a pair"""
    new_verbs: tuple[str, ...]
    """names"""
    new_nouns: tuple[str, ...]


@dataclass(frozen=True)
class ParticipantCount:
    """What a participant has recorded."""

    participant_id: str
    segments: dict[str, int]
    """number by split"""
    videos: dict[str, int]
    unseen: bool
    """in an official list of those who are not in train"""


@dataclass(frozen=True)
class Statistics:
    """Everything, without videos."""

    root: str
    splits: tuple[SplitCounts, ...]
    missing: dict[str, str]
    """splits that are not counted, and why"""
    totals: Totals
    verbs: tuple[ClassCount, ...]
    """all of the class file, the commonest first"""
    nouns: tuple[ClassCount, ...]
    unused_verbs: tuple[str, ...]
    """names of classes that no split has, where labels are public"""
    unused_nouns: tuple[str, ...]
    lengths: tuple[Lengths, ...]
    length_edges_s: tuple[float, ...]
    """of the histograms' bins"""
    pairs: tuple[PairCount, ...]
    """all that occur, the commonest first"""
    novelty: Novelty | None
    """None where train or validation is missing"""
    participants: tuple[ParticipantCount, ...]
    notes: tuple[str, ...]
    """what could not be told, for people"""


def dataset_statistics(root: Path, participants: Sequence[str] = ()) -> Statistics:
    """Count what a data folder or store has.

    Args:
        participants: count only their segments; empty: everybody's, or those that the folder says it has.

    Raises:
        InputError: no annotations, a fault in a row, nobody of the participants in any split, or no split at all.
    """
    folder = open_data_folder(root, participants)
    splits, missing = _read_splits(folder)
    labelled = [split for split in splits if folder.labelled(split)]
    arrays = {split: _Labels(splits[split]) for split in labelled}
    verbs = _class_counts(folder.taxonomy.verbs, folder.tail_verbs, {split: arrays[split].verb for split in labelled})
    nouns = _class_counts(folder.taxonomy.nouns, folder.tail_nouns, {split: arrays[split].noun for split in labelled})
    pairs = _pair_counts(folder, arrays)
    everything = [segment for segments in splits.values() for segment in segments]
    lists = {"tail verbs": len(folder.tail_verbs), "tail nouns": len(folder.tail_nouns)}
    lists |= {f"unseen participants of {split}": len(ids) for split, ids in folder.unseen_participants.items()}
    return Statistics(
        root=str(root),
        splits=tuple(_split_counts(folder, split, splits[split], arrays.get(split)) for split in splits),
        missing=missing,
        totals=Totals(
            num_segments=len(everything),
            num_videos=len({segment.video_id for segment in everything}),
            num_participants=len({segment.participant_id for segment in everything}),
            annotated_h=_round(sum(segment.stop_s - segment.start_s for segment in everything) / 3600),
            num_verbs=folder.taxonomy.num_verbs,
            num_nouns=folder.taxonomy.num_nouns,
            num_actions=len(pairs),
        ),
        verbs=verbs,
        nouns=nouns,
        unused_verbs=_unused(verbs) if labelled else (),
        unused_nouns=_unused(nouns) if labelled else (),
        lengths=tuple(_lengths(split, segments) for split, segments in splits.items()),
        length_edges_s=EDGES_S,
        pairs=pairs,
        novelty=_novelty(folder, arrays),
        participants=_participant_counts(folder, splits),
        notes=tuple(
            f"the list of {name} is missing or empty: none is marked" for name, num in lists.items() if not num
        ),
    )


class _Labels:
    """Verb and noun ids of a split's S segments."""

    def __init__(self, segments: tuple[Segment, ...]):
        self.verb = np.array([segment.verb for segment in segments], dtype=np.int64)  # (S,)
        self.noun = np.array([segment.noun for segment in segments], dtype=np.int64)  # (S,)
        self.action = self.verb * ACTION_BASE + self.noun  # (S,)


def _read_splits(folder: DataFolder) -> tuple[dict[str, tuple[Segment, ...]], dict[str, str]]:
    """Segments of the splits that there are, and why the others are not."""
    splits: dict[str, tuple[Segment, ...]] = {}
    missing: dict[str, str] = {}
    everybody: set[str] = set()
    for split, name in SPLIT_FILES.items():
        path = folder.annotations / name
        if not path.is_file():
            missing[split] = f"{name} is not there"
            continue
        if not _has_rows(path):
            missing[split] = f"{name} has no rows"
            continue
        segments = read_split(replace(folder, participants=frozenset()), split)
        everybody |= {segment.participant_id for segment in segments}
        chosen = tuple(
            each for each in segments if not folder.participants or each.participant_id in folder.participants
        )
        if chosen:
            splits[split] = chosen
        else:
            missing[split] = f"{name} has no row of {', '.join(sorted(folder.participants))}"
    if strangers := sorted(folder.participants - everybody) if everybody else []:
        raise InputError(
            f"{folder.annotations}: no segment of {strangers[0]} in any split, expected some of "
            f"{', '.join(sorted(everybody))}"
        )
    if not splits:
        raise InputError(f"{folder.annotations}: nothing to count: {'; '.join(missing.values())}")
    return splits, missing


def _has_rows(path: Path) -> bool:
    """Whether anything stands below the header; what it is worth is found out on reading."""
    with path.open("rb") as file:
        num_lines = 0
        for line in file:
            num_lines += bool(line.strip())
            if num_lines > 1:
                return True
    return num_lines == 0  # without a header it is no split's file, which reading tells


def _split_counts(folder: DataFolder, split: str, segments: tuple[Segment, ...], labels: _Labels | None) -> SplitCounts:
    tails: tuple[int | None, int | None, int | None] = (None, None, None)
    if labels is not None:
        verb, noun = np.isin(labels.verb, list(folder.tail_verbs)), np.isin(labels.noun, list(folder.tail_nouns))
        has_verbs, has_nouns = bool(folder.tail_verbs), bool(folder.tail_nouns)
        tails = (
            int(verb.sum()) if has_verbs else None,
            int(noun.sum()) if has_nouns else None,
            int((verb | noun).sum()) if has_verbs and has_nouns else None,
        )
    unseen = folder.unseen_participants.get(split) or None
    return SplitCounts(
        split=split,
        num_segments=len(segments),
        num_videos=len({segment.video_id for segment in segments}),
        num_participants=len({segment.participant_id for segment in segments}),
        annotated_h=_round(sum(segment.stop_s - segment.start_s for segment in segments) / 3600),
        covered_h=_round(_covered_s(segments) / 3600),
        num_verbs=None if labels is None else len(np.unique(labels.verb)),
        num_nouns=None if labels is None else len(np.unique(labels.noun)),
        num_actions=None if labels is None else len(np.unique(labels.action)),
        num_tail_verb=tails[0],
        num_tail_noun=tails[1],
        num_tail_action=tails[2],
        num_unseen=None if unseen is None else sum(segment.participant_id in unseen for segment in segments),
    )


def _covered_s(segments: Sequence[Segment]) -> float:
    """Seconds in at least one segment."""
    covered_s, video, until_s = 0.0, "", 0.0
    for segment in sorted(segments, key=lambda each: (each.video_id, each.start_s)):
        if segment.video_id != video:
            video, until_s = segment.video_id, 0.0
        covered_s += max(0.0, segment.stop_s - max(segment.start_s, until_s))
        until_s = max(until_s, segment.stop_s)
    return covered_s


def _class_counts(
    names: tuple[str, ...], tail: frozenset[int], classes: Mapping[str, np.ndarray]
) -> tuple[ClassCount, ...]:
    """From head to tail; classes of one count in the order of their ids.

    Args:
        classes: (S,) ids of each segment, by split.
    """
    counts = {split: np.bincount(ids, minlength=len(names)) for split, ids in classes.items()}  # each (V,)
    total = sum(counts.values(), np.zeros(len(names), dtype=np.int64))  # (V,)
    return tuple(
        ClassCount(int(place), names[place], int(place) in tail, {split: int(c[place]) for split, c in counts.items()})
        for place in np.argsort(-total, kind="stable")
    )


def _unused(classes: tuple[ClassCount, ...]) -> tuple[str, ...]:
    return tuple(each.name for each in classes if not any(each.segments.values()))


def _pair_counts(folder: DataFolder, labels: Mapping[str, _Labels]) -> tuple[PairCount, ...]:
    counts = {split: Counter(each.action.tolist()) for split, each in labels.items()}
    total = sum(counts.values(), Counter[int]())
    found = []
    for action in sorted(total, key=lambda action: (-total[action], action)):
        verb, noun = divmod(action, ACTION_BASE)
        segments = {split: each[action] for split, each in counts.items()}
        found.append(PairCount(verb, noun, folder.taxonomy.action_name(verb, noun), segments))
    return tuple(found)


def _novelty(folder: DataFolder, labels: Mapping[str, _Labels]) -> Novelty | None:
    if not {"train", "validation"} <= labels.keys():
        return None
    train, validation = labels["train"], labels["validation"]
    new = ~np.isin(validation.action, train.action)  # (S,)
    verbs = np.setdiff1d(validation.verb, train.verb)
    nouns = np.setdiff1d(validation.noun, train.noun)
    return Novelty(
        new_actions=len(np.unique(validation.action[new])),
        new_action_segments=int(new.sum()),
        new_verbs=tuple(folder.taxonomy.verbs[verb] for verb in verbs),
        new_nouns=tuple(folder.taxonomy.nouns[noun] for noun in nouns),
    )


def _lengths(split: str, segments: tuple[Segment, ...]) -> Lengths:
    # Times have hundredths of a second: without rounding, 0.5 s may come out below 0.5.
    lengths_s = np.round([segment.stop_s - segment.start_s for segment in segments], 6)  # (S,)
    num_short = int((lengths_s < SHORT_S).sum())
    bins = np.searchsorted(EDGES_S, lengths_s, side="right") - 1  # (S,)
    return Lengths(
        split=split,
        num_segments=len(segments),
        min_s=_round(lengths_s.min()),
        mean_s=_round(lengths_s.mean()),
        max_s=_round(lengths_s.max()),
        quantiles_s={f"{q:g}": _round(np.quantile(lengths_s, q)) for q in QUANTILES},
        num_short=num_short,
        short_share=num_short / len(segments),
        histogram=tuple(np.bincount(bins, minlength=len(EDGES_S)).tolist()),
    )


def _participant_counts(folder: DataFolder, splits: Mapping[str, tuple[Segment, ...]]) -> tuple[ParticipantCount, ...]:
    segments = {split: Counter(each.participant_id for each in found) for split, found in splits.items()}
    videos = {
        split: Counter(participant for participant, _ in {(each.participant_id, each.video_id) for each in found})
        for split, found in splits.items()
    }
    unseen = frozenset[str]().union(*folder.unseen_participants.values())
    return tuple(
        ParticipantCount(
            name,
            {split: counts[name] for split, counts in segments.items()},
            {split: counts[name] for split, counts in videos.items()},
            name in unseen,
        )
        for name in sorted(set().union(*segments.values()))
    )


def _round(value: float) -> float:
    return round(float(value), 4)
