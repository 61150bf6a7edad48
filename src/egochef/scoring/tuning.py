"""What is chosen on participants held out of training: weights of an ensemble, a prior's strength, a threshold.

In: ScoreTables of held-out training segments and their labels. Out: a `Tuning`, kept as JSON, which other splits'
scores are then combined by. The validation split has no part in it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from egochef.errors import InputError
from egochef.scoring.actions import top_actions
from egochef.scoring.ensemble import ensemble
from egochef.scoring.metrics import Truth
from egochef.scoring.prior import ROWS_AT_ONCE, Prior, apply_prior, joint_log_probs
from egochef.scoring.table import ScoreTable, align, log_probs, take_rows
from egochef.taxonomy import ACTION_BASE

FORMAT = "egochef-tuning"
VERSION = 1
MAX_STRENGTH = 3.0
NUM_STEPS = 500
"""of expectation maximisation; the weights move by less than 1e-6 then"""
MAX_ROWS = 2_000
"""segments that a prior's strength is fitted on, evenly spread"""
LEAST_WEIGHT = 1e-3
PRECISION = 0.8


@dataclass(frozen=True)
class Tuning:
    """How scores are to be combined."""

    members: tuple[str, ...]
    """what was tuned, for people; others of the same number are combined in the same order"""
    weights: tuple[float, ...]
    """of the members in the ensemble; their sum is 1"""
    prior_strength: float
    """0: no prior"""
    prior_splits: tuple[str, ...]
    """whose labels the prior is counted on when it is used"""
    threshold: float | None
    """of a single member alone: least product of its best verb's and best noun's probability from which 80 % of such
    answers were right, of whole segments (`egochef live --threshold`); None: never so many, or several members"""
    participants: tuple[str, ...]
    """that it was tuned on, held out of the members' training"""
    num_segments: int
    plain_accuracy: float
    """action top-1 on them of the members with equal weights and no prior, percent"""
    tuned_accuracy: float
    """the same as tuned: a little too good, for it was chosen by them"""
    format: str = FORMAT
    version: int = VERSION

    def __post_init__(self) -> None:
        if len(self.weights) != len(self.members) or not all(weight > 0 for weight in self.weights):
            raise InputError(f"weights {self.weights} of {len(self.members)} members, expected a positive one for each")
        if not 0 <= self.prior_strength <= MAX_STRENGTH:
            raise InputError(f"prior_strength is {self.prior_strength}, expected 0 to {MAX_STRENGTH:g}")


@dataclass(frozen=True)
class Tuned:
    """A tuning, ready to be used."""

    tuning: Tuning
    prior: Prior | None
    """None where it has no strength"""


def tune(
    tables: Sequence[ScoreTable], names: Sequence[str], truth: Truth, prior: Prior, participants: tuple[str, ...]
) -> Tuning:
    """Choose weights, then strength, then threshold, by the likelihood of the labels.

    Args:
        tables: scores of the held-out segments, by models that have not seen their labels.
        prior: counted without them. Where scores have an action field, a joint head's, no prior is used.

    Raises:
        InputError: the tables are of other segments than the labels.
    """
    tables = [align(table, truth.narration_id, name) for table, name in zip(tables, names, strict=True)]
    weights = fit_weights(tables, truth)
    together = ensemble(tables, weights, names)
    strength = fit_strength(together, truth, prior) if together.action_id is None else 0.0
    tuned = apply_prior(together, prior, strength)
    return Tuning(
        members=tuple(names),
        weights=tuple(weights),
        prior_strength=strength,
        prior_splits=prior.splits,
        threshold=fit_threshold(tables[0], truth) if len(tables) == 1 else None,
        participants=participants,
        num_segments=len(truth.verb),
        plain_accuracy=round(100 * float(is_right(ensemble(tables, names=names), truth).mean()), 2),
        tuned_accuracy=round(100 * float(is_right(tuned, truth).mean()), 2),
    )


def combine(tables: Sequence[ScoreTable], names: Sequence[str], tuned: Tuned | None) -> ScoreTable:
    """One table of several: as tuned, or the mean of them.

    Raises:
        InputError: another number of members than was tuned, or members that do not fit each other.
    """
    if tuned is None:
        return ensemble(tables, names=names) if len(tables) > 1 else tables[0]
    tuning = tuned.tuning
    if len(tables) != len(tuning.weights):
        raise InputError(
            f"{len(tables)} members ({', '.join(names)}) and a tuning of {len(tuning.weights)} "
            f"({', '.join(tuning.members)}): expected as many, in the same order"
        )
    together = ensemble(tables, tuning.weights, names)
    return together if tuned.prior is None else apply_prior(together, tuned.prior, tuning.prior_strength)


def fit_weights(tables: Sequence[ScoreTable], truth: Truth) -> list[float]:
    """Weights, of sum 1, under which the mean of the tables' probabilities gives the labels the highest likelihood.

    By expectation maximisation, from equal weights; the likelihood has one maximum. Tables are aligned to the labels.
    """
    rows = np.arange(len(truth.verb))
    likelihoods = []  # (2 * S,) of each table: its verbs', then its nouns'
    for table in tables:
        verb, noun = log_probs(table)
        likelihoods.append(np.exp(np.concatenate([verb[rows, truth.verb], noun[rows, truth.noun]])))
    given = np.maximum(np.stack(likelihoods), 1e-30)  # (M, 2 * S)
    weights = np.full(len(tables), 1 / len(tables))
    for _ in range(NUM_STEPS):
        shares = weights[:, None] * given
        weights = (shares / shares.sum(axis=0)).mean(axis=1)
    weights = np.maximum(weights, LEAST_WEIGHT)
    return [round(float(weight), 4) for weight in weights / weights.sum()]


def fit_strength(table: ScoreTable, truth: Truth, prior: Prior) -> float:
    """The strength under which the labels' actions have the highest likelihood, 0 to 3; it is concave in it."""
    rows = np.unique(np.linspace(0, len(truth.verb) - 1, MAX_ROWS).round().astype(int))
    few, verb, noun = take_rows(table, rows), truth.verb[rows], truth.noun[rows]

    def loss(strength: float) -> float:
        total = 0.0
        for start in range(0, len(few), ROWS_AT_ONCE):
            part = slice(start, start + ROWS_AT_ONCE)
            joint = joint_log_probs(take_rows(few, part), prior, strength)
            total -= float(joint[np.arange(len(joint)), verb[part], noun[part]].sum())
        return total / len(few)

    low, high = 0.0, MAX_STRENGTH
    while high - low > 0.01:  # thirds: the one with the higher loss is not where the least is
        left, right = low + (high - low) / 3, high - (high - low) / 3
        low, high = (low, right) if loss(left) <= loss(right) else (left, high)
    best = round((low + high) / 2, 2)
    return best if loss(best) < loss(0.0) else 0.0


def fit_threshold(table: ScoreTable, truth: Truth, precision: float = PRECISION) -> float | None:
    """The least product of the best verb's and noun's probability from which that share of answers was right."""
    verb, noun = log_probs(table)
    probs = np.exp(verb.max(axis=1) + noun.max(axis=1))
    right = (verb.argmax(axis=1) == truth.verb) & (noun.argmax(axis=1) == truth.noun)
    order = np.argsort(-probs, kind="stable")
    share = np.cumsum(right[order]) / np.arange(1, len(order) + 1)
    enough = np.flatnonzero(share >= precision)
    return round(float(probs[order][enough[-1]]), 3) if len(enough) else None


def is_right(table: ScoreTable, truth: Truth) -> np.ndarray:
    """(S,) bool: is the best action the label's?"""
    ids, _ = top_actions(table)
    return ids[:, 0] == truth.verb * ACTION_BASE + truth.noun
