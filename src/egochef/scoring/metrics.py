"""The official EK-100 action recognition metrics.

In: a ScoreTable and the Truth of the same segments. Out: percentages under the official names. Source:
`compute_metrics` of the official C1-Action-Recognition repository. Two differences, neither of which changes
a result on real scores: softmax runs over each row (the official one over the whole array), and equal scores
have a fixed order (see `actions`).
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from egochef.errors import InputError
from egochef.scoring.actions import ranked_classes, top_actions
from egochef.scoring.table import ScoreTable, align
from egochef.taxonomy import ACTION_BASE

TASKS = ("verb", "noun", "action")
SUBSETS = ("all", "tail", "unseen")
TOP_K = 5


@dataclass(frozen=True, eq=False)
class Truth:
    """What is in S segments, and which of them belong to the official subsets."""

    narration_id: np.ndarray
    """(S,) str, each once"""
    verb: np.ndarray
    """(S,) int, verb ids"""
    noun: np.ndarray
    """(S,) int, noun ids"""
    tail_verbs: frozenset[int]
    """rare verbs' ids"""
    tail_nouns: frozenset[int]
    """rare nouns' ids; a segment is a tail action if its verb or its noun is rare"""
    unseen: np.ndarray
    """(S,) bool, the segment's participant is not in the training split"""

    def __post_init__(self) -> None:
        for name, kinds in (("narration_id", "U"), ("verb", "iu"), ("noun", "iu"), ("unseen", "b")):
            values = np.asarray(getattr(self, name))
            if values.dtype.kind not in kinds or values.shape != (len(self.narration_id),):
                raise InputError(
                    f"Truth.{name} is {values.dtype} of shape {values.shape}, expected one value per segment"
                    f" ({len(self.narration_id)})"
                )
            object.__setattr__(self, name, values)


def evaluate(table: ScoreTable, truth: Truth) -> dict[str, float | int]:
    """The official metrics of scores.

    Returns:
        `{all,tail,unseen}_{verb,noun,action}_accuracy_at_{1,5}` in percent (at 5 for `all` only) and
        `num_segments`. Where a subset has no segment, its keys are left out.

    Raises:
        InputError: the table's segments are not the truth's, or a class id is beyond the table's classes.
    """
    table = align(table, truth.narration_id)
    for name, classes, num_classes in (
        ("verb", truth.verb, table.num_verbs),
        ("noun", truth.noun, table.num_nouns),
    ):
        if classes.min() < 0 or classes.max() >= num_classes:
            row = int(((classes < 0) | (classes >= num_classes)).argmax())
            raise InputError(f"{truth.narration_id[row]} is {name} {classes[row]}, but the scores know {num_classes}")
    actions = truth.verb * ACTION_BASE + truth.noun  # (S,)
    hits = {  # (S, 5) bool: is the k-th best class the right one?
        "verb": ranked_classes(table.verb_output)[:, :TOP_K] == truth.verb[:, None],
        "noun": ranked_classes(table.noun_output)[:, :TOP_K] == truth.noun[:, None],
        "action": top_actions(table, TOP_K)[0] == actions[:, None],
    }
    subsets = subset_rows(truth)
    metrics: dict[str, float | int] = {}
    for subset in SUBSETS:
        for task in TASKS:
            rows = subsets[subset][task]
            for k in (1, TOP_K) if subset == "all" else (1,):
                if rows.any():
                    metrics[f"{subset}_{task}_accuracy_at_{k}"] = 100 * float(hits[task][rows, :k].any(axis=1).mean())
    return metrics | {"num_segments": len(table)}


def subset_rows(truth: Truth) -> dict[str, dict[str, np.ndarray]]:
    """Rows (S,) bool that count, by subset and task."""
    tail_verb = np.isin(truth.verb, list(truth.tail_verbs))
    tail_noun = np.isin(truth.noun, list(truth.tail_nouns))
    return {
        "all": dict.fromkeys(TASKS, np.ones(len(truth.verb), dtype=bool)),
        "tail": {"verb": tail_verb, "noun": tail_noun, "action": tail_verb | tail_noun},
        "unseen": dict.fromkeys(TASKS, truth.unseen),
    }


def format_metrics(metrics: Mapping[str, float | int]) -> str:
    """A table for the terminal, percent; `-` where there is no number."""
    columns = [(task, k) for k in (1, TOP_K) for task in TASKS]
    lines = [f"{'top-1 and top-5, %':<18}" + "".join(f"{f'{task}@{k}':>10}" for task, k in columns)]
    for subset in SUBSETS:
        values = [metrics.get(f"{subset}_{task}_accuracy_at_{k}") for task, k in columns]
        lines.append(f"{subset:<18}" + "".join(f"{'-' if x is None else f'{x:.2f}':>10}" for x in values))
    lines.append(f"{metrics['num_segments']:,} segments")
    return "\n".join(line.rstrip() for line in lines)
