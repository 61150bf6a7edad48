"""The best actions of each segment, by the official rule.

An action's score is the product of its verb's and its noun's probability (here: the sum of their logarithms,
which has the same order and never underflows). Source: `compute_action_scores` of the official
C1-Action-Recognition repository.

Equal scores: of two classes the one with the higher id comes first, as in a reversed stable sort; of two
actions the one with the better verb. So the best action is always the best verb with the best noun.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from egochef.scoring.table import ScoreTable, log_probs, to_log_probs
from egochef.taxonomy import ACTION_BASE

NUM_ACTIONS = 100
"""actions that the official evaluator keeps and a submission gives, per segment"""


def ranked_classes(scores: np.ndarray) -> np.ndarray:
    """Class ids (S, classes), best first."""
    return np.argsort(scores, axis=1, kind="stable")[:, ::-1]


def top_actions(table: ScoreTable, num_actions: int = NUM_ACTIONS) -> tuple[np.ndarray, np.ndarray]:
    """The best actions of each segment, best first.

    Returns:
        action ids (S, A) int64, and scores (S, A) float64: log-probabilities, or the table's own
        `action_output` where it has one. A is `num_actions`, or fewer where there are not so many.
    """
    if table.action_id is not None and table.action_output is not None:
        order = np.argsort(-table.action_output, axis=1, kind="stable")[:, :num_actions]
        return _take(table.action_id, order), _take(table.action_output, order).astype(np.float64)
    verb_log_probs, noun_log_probs = log_probs(table)
    verbs = ranked_classes(table.verb_output)[:, :num_actions]
    nouns = ranked_classes(table.noun_output)[:, :num_actions]
    # (i + 1) * (j + 1) - 1 pairs come before that of verb rank i and noun rank j: few can be among the best
    i, j = np.divmod(np.arange(verbs.shape[1] * nouns.shape[1]), nouns.shape[1])
    within = (i + 1) * (j + 1) <= num_actions
    i, j = i[within], j[within]
    pairs = _take(verb_log_probs, verbs)[:, i] + _take(noun_log_probs, nouns)[:, j]  # (S, pairs)
    order = np.argsort(-pairs, axis=1, kind="stable")[:, :num_actions]
    ids = verbs[:, i] * ACTION_BASE + nouns[:, j]  # (S, pairs)
    return _take(ids, order), _take(pairs, order)


def with_actions(table: ScoreTable) -> ScoreTable:
    """The table with an action field: its own, or that of the official rule."""
    if table.action_id is not None:
        return table
    ids, scores = top_actions(table)
    return replace(table, action_id=ids, action_output=np.exp(scores) if table.kind == "probs" else scores)


def keep_best(
    table: ScoreTable, action_ids: Sequence[int], action_output: np.ndarray, num_actions: int = NUM_ACTIONS
) -> ScoreTable:
    """The table with an action field: the best of actions that a model scored by themselves.

    Where it scored fewer than `num_actions`, those that follow best from verb and noun fill the list, behind them all.

    Args:
        action_ids: (A,) verb * 1000 + noun.
        action_output: (S, A) scores of the table's kind.
    """
    order = np.argsort(-action_output, axis=1, kind="stable")[:, :num_actions]
    ids, scores = np.asarray(action_ids)[order], _take(action_output, order)
    if (lacking := num_actions - ids.shape[1]) > 0 and lacking <= table.num_verbs * table.num_nouns - ids.shape[1]:
        others, other_scores = top_actions(table, min(num_actions, table.num_verbs * table.num_nouns))
        is_known = np.isin(others, action_ids)
        other_scores = np.where(is_known, -np.inf, other_scores)
        order = np.argsort(-other_scores, axis=1, kind="stable")[:, :lacking]
        more_ids, more = _take(others, order), _take(other_scores, order)
        least = scores.min(axis=1, keepdims=True)
        ids = np.concatenate([ids, more_ids], axis=1)
        scores = np.concatenate([scores, np.minimum(more - more.max(axis=1, keepdims=True) + least, least) - 1], axis=1)
    return replace(table, action_id=ids, action_output=scores)


def best_of(table: ScoreTable, num: int) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """The best verbs, nouns and actions of each segment.

    Returns:
        by task (verb, noun, action) ids (S, num), best first, and their probabilities (S, num); fewer columns where
        there are not so many. Where the table has action scores of its own, the listed actions are all there are.
    """
    logs = dict(zip(("verb", "noun"), log_probs(table), strict=True))
    ids = {task: ranked_classes(getattr(table, f"{task}_output"))[:, :num] for task in logs}
    probs = {task: np.exp(_take(logs[task], ids[task])) for task in logs}
    ids["action"], scores = top_actions(table, num)
    if table.action_output is not None:
        scores = -np.sort(-to_log_probs(table.action_output, table.kind), axis=1)[:, :num]
    probs["action"] = np.exp(scores)
    return ids, probs


def _take(values: np.ndarray, columns: np.ndarray) -> np.ndarray:
    return np.take_along_axis(values, columns, axis=1)
