"""Which verbs and nouns go together: what training segments tell, brought into scores at test time.

In: labels of segments, and a ScoreTable. Out: the ScoreTable with an action field, and with verbs and nouns that are
its sums. An action's log-probability is its verb's plus its noun's plus `strength` times how much oftener the two came
together than by chance (pointwise mutual information).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from egochef.errors import InputError
from egochef.scoring.actions import NUM_ACTIONS
from egochef.scoring.table import ScoreTable, check_classes, log_probs, take_rows
from egochef.taxonomy import ACTION_BASE

CHANCE_SHARE = 0.1
"""of the prior's mass that knows nothing of pairs: one that was never seen has this much of its chance probability"""
ROWS_AT_ONCE = 256


@dataclass(frozen=True, eq=False)
class Prior:
    """What pairs of verb and noun are worth."""

    information: np.ndarray
    """(V, N) float32, log P(verb, noun) - log P(verb) P(noun)"""
    splits: tuple[str, ...]
    """whose labels were counted"""

    @classmethod
    def count(
        cls, verb: Sequence[int], noun: Sequence[int], num_verbs: int, num_nouns: int, splits: tuple[str, ...]
    ) -> "Prior":
        """From labels (S,) of segments of `splits`."""
        pairs = np.zeros((num_verbs, num_nouns))
        np.add.at(pairs, (np.asarray(verb), np.asarray(noun)), 1)
        verbs, nouns = (np.maximum(pairs.sum(axis), 1) for axis in (1, 0))
        chance = np.outer(verbs / verbs.sum(), nouns / nouns.sum())  # (V, N)
        together = (1 - CHANCE_SHARE) * pairs / pairs.sum() + CHANCE_SHARE * chance
        return cls(np.log(together / chance).astype(np.float32), splits)


def joint_log_probs(table: ScoreTable, prior: Prior, strength: float) -> np.ndarray:
    """Log-probabilities of all actions (S, V, N) float32 of a table of few segments."""
    verb, noun = (each.astype(np.float32) for each in log_probs(table))
    joint = verb[:, :, None] + noun[:, None, :] + np.float32(strength) * prior.information  # (S, V, N)
    return joint - _log_sum(joint, (1, 2))


def apply_prior(table: ScoreTable, prior: Prior, strength: float, num_actions: int = NUM_ACTIONS) -> ScoreTable:
    """The table under a prior; with strength 0 as it was.

    Raises:
        InputError: it has action scores of its own, or other classes than the prior.
    """
    if strength == 0:
        return table
    if table.action_id is not None:
        raise InputError("the scores have an action field: a joint head knows what goes together, and takes no prior")
    check_classes(table, *prior.information.shape, name="the table", whose="the prior")
    num_actions = min(num_actions, table.num_verbs * table.num_nouns)
    verbs, nouns, ids, scores = [], [], [], []
    for start in range(0, len(table), ROWS_AT_ONCE):
        joint = joint_log_probs(take_rows(table, slice(start, start + ROWS_AT_ONCE)), prior, strength)
        verbs.append(_log_sum(joint, 2)[..., 0])
        nouns.append(_log_sum(joint, 1)[:, 0])
        flat = joint.reshape(len(joint), -1)
        best = np.argpartition(-flat, num_actions - 1, axis=1)[:, :num_actions]
        best = np.take_along_axis(best, np.argsort(-np.take_along_axis(flat, best, 1), axis=1, kind="stable"), 1)
        verb, noun = np.divmod(best, table.num_nouns)
        ids.append(verb * ACTION_BASE + noun)
        scores.append(np.take_along_axis(flat, best, 1))
    return replace(
        table,
        verb_output=np.concatenate(verbs),
        noun_output=np.concatenate(nouns),
        kind="logits",
        action_id=np.concatenate(ids),
        action_output=np.concatenate(scores),
    )


def _log_sum(values: np.ndarray, axis: int | tuple[int, int]) -> np.ndarray:
    """log of the sum of exp over axes, which stay with size 1."""
    largest = values.max(axis=axis, keepdims=True)
    return largest + np.log(np.exp(values - largest).sum(axis=axis, keepdims=True))
