"""The best actions of each segment, by the official rule.

An action's score is the product of its verb's and its noun's probability (here: the sum of their logarithms,
which has the same order and never underflows). Source: `compute_action_scores` of the official
C1-Action-Recognition repository.

Equal scores: of two classes the one with the higher id comes first, as in a reversed stable sort; of two
actions the one with the better verb. So the best action is always the best verb with the best noun.
"""

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
