"""The report's numbers once more, slow and plain: loops over rows, nothing of the report's own code."""

import csv
import heapq
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property
from pathlib import Path
from typing import Any

TASKS = ("verb", "noun", "action")
LENGTHS = ("0 to 0.5 s", "0.5 to 1 s", "1 to 2 s", "2 to 4 s", "4 to 8 s", "8 s or more")
LENGTH_ENDS = (Decimal("0.5"), Decimal(1), Decimal(2), Decimal(4), Decimal(8))


@dataclass(frozen=True)
class Row:
    """A line of an annotation file."""

    narration_id: str
    participant: str
    video: str
    start: Decimal
    """seconds, as are the next"""
    stop: Decimal
    verb: int
    noun: int

    @property
    def action(self) -> int:
        return 1000 * self.verb + self.noun

    @property
    def length_bin(self) -> int:
        """Into LENGTHS."""
        return sum(self.stop - self.start >= end for end in LENGTH_ENDS)


@dataclass(frozen=True)
class Said:
    """What a model says of a segment: by task the five best with their probabilities, best first."""

    verb: list[tuple[int, float]]
    noun: list[tuple[int, float]]
    action: list[tuple[int, float]]


@dataclass(frozen=True)
class Plain:
    """A split and the models' word on it, row by row."""

    rows: list[Row]
    said: dict[str, list[Said]]
    """by model"""
    train: Counter[tuple[int, int]] | None
    """training segments by verb and noun"""
    tail_verbs: set[int]
    tail_nouns: set[int]
    unseen: set[str]
    verbs: list[str]
    nouns: list[str]

    def own(self, task: str) -> list[int]:
        return [getattr(row, task) for row in self.rows]

    def best(self, model: str, task: str) -> list[int]:
        return [getattr(said, task)[0][0] for said in self.said[model]]

    def right(self, model: str, task: str) -> list[bool]:
        return [a == b for a, b in zip(self.own(task), self.best(model, task), strict=True)]

    def names(self, task: str) -> list[str]:
        return self.verbs if task == "verb" else self.nouns

    def name(self, task: str, each: int) -> str:
        if task == "action":
            return f"{self.verbs[each // 1000]} {self.nouns[each % 1000]}"
        return self.names(task)[each]

    @cached_property
    def train_counts(self) -> Counter[tuple[int | None, int | None]]:
        """Training segments by verb (verb, None), noun (None, noun), and action (verb, noun)."""
        assert self.train is not None
        counts: Counter[tuple[int | None, int | None]] = Counter()
        for (verb, noun), count in self.train.items():
            for name in ((verb, None), (None, noun), (verb, noun)):
                counts[name] += count
        return counts

    def trained_on(self, row: Row, task: str) -> int:
        """Training segments of the row's own class or action."""
        own = {"verb": (row.verb, None), "noun": (None, row.noun), "action": (row.verb, row.noun)}[task]
        return self.train_counts[own]


def seconds(timestamp: str) -> Decimal:
    hours, minutes, rest = timestamp.split(":")
    return 3600 * int(hours) + 60 * int(minutes) + Decimal(rest)


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def read_rows(annotations: Path, split: str) -> list[Row]:
    return [
        Row(
            line["narration_id"],
            line["participant_id"],
            line["video_id"],
            seconds(line["start_timestamp"]),
            seconds(line["stop_timestamp"]),
            int(line["verb_class"]),
            int(line["noun_class"]),
        )
        for line in table(annotations / f"EPIC_100_{split}.csv")
    ]


def read_plain(annotations: Path, said: dict[str, list[Said]]) -> Plain:
    """The validation split of a folder of annotation files."""
    return Plain(
        rows=read_rows(annotations, "validation"),
        said=said,
        train=Counter((row.verb, row.noun) for row in read_rows(annotations, "train")),
        tail_verbs={int(line["verb"]) for line in table(annotations / "EPIC_100_tail_verbs.csv")},
        tail_nouns={int(line["noun"]) for line in table(annotations / "EPIC_100_tail_nouns.csv")},
        unseen={
            line["participant_id"]
            for line in table(annotations / "EPIC_100_unseen_participant_ids_validation.csv")
        },
        verbs=[line["key"] for line in table(annotations / "EPIC_100_verb_classes.csv")],
        nouns=[line["key"] for line in table(annotations / "EPIC_100_noun_classes.csv")],
    )  # fmt: skip


def softmax(scores: Sequence[float]) -> list[float]:
    most = max(scores)
    powers = [math.exp(score - most) for score in scores]
    whole = sum(powers)
    return [power / whole for power in powers]


def said_of(verb: Sequence[float], noun: Sequence[float], actions: dict[int, float] | None = None) -> Said:
    """The five best of each by probabilities; actions are pairs' products where they are not given."""
    verbs, nouns = (best_five(probs, range(len(probs))) for probs in (verb, noun))
    if actions is None:  # the five best pairs are among the five best of both
        actions = {1000 * v + n: p * q for v, p in verbs for n, q in nouns}
    return Said(verbs, nouns, best_five(actions, actions))


def best_five(probs: Any, names: Iterable[int]) -> list[tuple[int, float]]:
    return [(name, probs[name]) for name in heapq.nlargest(5, names, key=probs.__getitem__)]


def percent(hits: Iterable[bool]) -> float | None:
    found = list(hits)
    return 100 * sum(found) / len(found) if found else None


def metrics(plain: Plain, model: str) -> dict[str, tuple[float, int]]:
    """The official ones: percent and segments."""
    hits: dict[str, list[bool]] = {}
    for row, said in zip(plain.rows, plain.said[model], strict=True):
        tail = {"verb": row.verb in plain.tail_verbs, "noun": row.noun in plain.tail_nouns}
        tail["action"] = tail["verb"] or tail["noun"]
        for task in TASKS:
            five = [each for each, _ in getattr(said, task)]
            own = getattr(row, task)
            hits.setdefault(f"all_{task}_accuracy_at_1", []).append(five[0] == own)
            hits.setdefault(f"all_{task}_accuracy_at_5", []).append(own in five)
            if tail[task]:
                hits.setdefault(f"tail_{task}_accuracy_at_1", []).append(five[0] == own)
            if row.participant in plain.unseen:
                hits.setdefault(f"unseen_{task}_accuracy_at_1", []).append(five[0] == own)
    return {name: (100 * sum(values) / len(values), len(values)) for name, values in hits.items()}


def groups(
    plain: Plain, model: str, names: Sequence[Any], order: Sequence[Any]
) -> list[tuple[int, list[float | None]]]:
    """For each of `order`: how many rows have that name, and their verb, noun and action top-1.

    Args:
        names: the group of each row.
    """
    right = {task: plain.right(model, task) for task in TASKS}
    found = []
    for group in order:
        within = [place for place, name in enumerate(names) if name == group]
        found.append((len(within), [percent(right[task][place] for place in within) for task in TASKS]))
    return found


def pair_kind(plain: Plain, row: Row) -> str:
    if plain.trained_on(row, "action"):
        return "pair seen"
    if plain.trained_on(row, "verb") and plain.trained_on(row, "noun"):
        return "both seen, never paired"
    return "verb or noun new"


def frequency_bin(count: int) -> str:
    if count == 0:
        return "0"
    for end, name in ((10, "1 to 9"), (100, "10 to 99"), (1000, "100 to 999"), (10_000, "1,000 to 9,999")):
        if count < end:
            return name
    return "10,000 or more"


def mistakes(plain: Plain, model: str, task: str) -> Counter[tuple[int, int]]:
    """Segments by true and predicted class, where they differ."""
    pairs = zip(plain.own(task), plain.best(model, task), strict=True)
    return Counter((own, best) for own, best in pairs if own != best)


def patterns(plain: Plain) -> Counter[tuple[str, ...]]:
    """Segments by the models that have their action right."""
    right = {model: plain.right(model, "action") for model in plain.said}
    return Counter(tuple(model for model in right if right[model][place]) for place in range(len(plain.rows)))
