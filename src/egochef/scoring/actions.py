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

from egochef.scoring.table import ScoreTable, log_probs, to_logs
from egochef.taxonomy import ACTION_BASE

NUM_ACTIONS = 100
"""actions that the official evaluator keeps and a submission gives, per segment"""
SUM_TOLERANCE = 1e-3
"""by which rounding moves a sum of probabilities"""
GAP = 20.0
"""of log-probability between actions that a model scored and those that fill its list: these weigh nothing"""


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


def action_log_probs(table: ScoreTable, ids: np.ndarray) -> np.ndarray:
    """Log-probabilities (S, P) float64 of actions `ids` (S, P), each among all V * N pairs of verb and noun.

    Without an action field they are the products of verb and noun, q. With one:

    - An action of the list has the probability p that the table gives it. It does where its scores are probabilities,
      or logarithms of such: its lists then sum to at most 1, and its verb and noun scores are log-probabilities too,
      as in all tables that EgoChef writes.
    - Other scores (logits from before a softmax over more actions than are listed) tell how the listed actions compare,
      not what all of them together have. They then share what the products give them together: p is a softmax over the
      list, times the list's sum of q.
    - What is left of 1 belongs to the pairs that are not listed, each in proportion to its q.

    So all pairs sum to 1, and one who is unsure is not made sure by leaving out all but its best.
    """
    verb, noun = log_probs(table)
    product = _take(verb, ids // ACTION_BASE) + _take(noun, ids % ACTION_BASE)
    if table.action_id is None or table.action_output is None:
        return product
    own = _take(verb, table.action_id // ACTION_BASE) + _take(noun, table.action_id % ACTION_BASE)
    own_sum = np.minimum(_log_sum(own), 0.0)  # (S, 1), as are all below
    scores = to_logs(table.action_output, table.kind)
    listed_sum = _log_sum(scores)
    is_told = bool((listed_sum <= SUM_TOLERANCE).all())
    if table.kind == "logits":
        is_told &= all(np.abs(_log_sum(each)).max() <= SUM_TOLERANCE for each in (table.verb_output, table.noun_output))
    if not is_told:
        scores, listed_sum = scores - listed_sum + own_sum, own_sum
    if table.action_id.shape[1] == table.num_verbs * table.num_nouns:
        scores, listed_sum = scores - listed_sum, np.zeros_like(listed_sum)  # no other pair can have the rest
    scores, listed_sum = scores - np.maximum(listed_sum, 0.0), np.minimum(listed_sum, 0.0)
    known, is_known = _look_up(table.action_id, scores, ids)
    left = -np.expm1(listed_sum)
    largest = np.where(is_known, 0.0, np.exp(product)).max(axis=1, keepdims=True)
    others = np.maximum(-np.expm1(own_sum), largest)  # rounding may have left less than there is
    with np.errstate(divide="ignore"):  # nothing is left: log(0)
        scale = np.log(left / np.where(others > 0, others, 1.0))
    return np.where(is_known, known, product + np.where(listed_sum == own_sum, 0.0, scale))


def _look_up(listed: np.ndarray, scores: np.ndarray, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Each row's scores (S, A) of the actions `listed` (S, A), at `ids` (S, P), and where there is one (S, P) bool."""
    base = int(max(listed.max(), ids.max())) + 1
    row = np.arange(len(ids))[:, None] * base
    keys, wanted = (row + listed).ravel(), row + ids
    order = np.argsort(keys, kind="stable")
    places = order[np.minimum(np.searchsorted(keys, wanted, sorter=order), len(keys) - 1)]  # (S, P)
    return scores.ravel()[places], keys[places] == wanted


def _log_sum(logs: np.ndarray) -> np.ndarray:
    """Logarithm of each row's sum of exponentials, (S, 1) float64."""
    largest = logs.max(axis=1, keepdims=True).astype(np.float64)
    return largest + np.log(np.exp(logs - largest).sum(axis=1, keepdims=True))


def keep_best(
    table: ScoreTable, action_ids: Sequence[int], action_output: np.ndarray, num_actions: int = NUM_ACTIONS
) -> ScoreTable:
    """The table with an action field: the best of actions that a model scored by themselves.

    Where it scored fewer than `num_actions`, those that follow best from verb and noun fill the list, behind them all
    and with next to no probability.

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
        behind = np.minimum(more - more.max(axis=1, keepdims=True) + least, least) - GAP
        scores = np.concatenate([scores, behind], axis=1)
    return replace(table, action_id=ids, action_output=scores)


def best_of(table: ScoreTable, num: int) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """The best verbs, nouns and actions of each segment.

    Returns:
        by task (verb, noun, action) ids (S, num), best first, and their probabilities (S, num); fewer columns where
        there are not so many. Where the table has action scores of its own, these are best (`action_log_probs`).
    """
    logs = dict(zip(("verb", "noun"), log_probs(table), strict=True))
    ids = {task: ranked_classes(getattr(table, f"{task}_output"))[:, :num] for task in logs}
    probs = {task: np.exp(_take(logs[task], ids[task])) for task in logs}
    ids["action"], _ = top_actions(table, num)
    probs["action"] = np.exp(action_log_probs(table, ids["action"]))
    return ids, probs


def _take(values: np.ndarray, columns: np.ndarray) -> np.ndarray:
    return np.take_along_axis(values, columns, axis=1)
