"""Ensembles: several ScoreTables of the same segments become one. No model is needed.

The verb and the noun probabilities are each averaged and written as log-probabilities (which are logits too),
so that the result scores and submits like any other table.
"""

from collections.abc import Sequence

import numpy as np

from egochef.errors import InputError
from egochef.scoring.actions import action_log_probs, top_actions
from egochef.scoring.table import ScoreTable, align, any_seen, check_classes, log_probs, seen_of


def ensemble(
    tables: Sequence[ScoreTable], weights: Sequence[float] | None = None, names: Sequence[str] | None = None
) -> ScoreTable:
    """The weighted mean of the tables' probabilities, aligned by narration id, in the first table's order.

    Where a table has an action field, actions are averaged too: all that any member lists, or would by the official
    rule, by the probability that each member gives them (`action_log_probs`). As many of the best are kept as the
    longest list has.

    Args:
        weights: one positive number per table, equal if not given; only their ratios matter.
        names: what to call the tables in errors, such as their files.

    Raises:
        InputError: no table, other segments or classes than the first's, wrong weights.
    """
    if not tables:
        raise InputError("an ensemble needs at least one table of scores")
    names = names or [f"table {number}" for number in range(1, len(tables) + 1)]
    if len(names) != len(tables):
        raise InputError(f"{len(names)} names for {len(tables)} tables of scores, expected one each")
    log_weights = _log_weights(weights, len(tables))
    tables = [_fitted(table, tables[0], name, names[0]) for table, name in zip(tables, names, strict=True)]
    has_actions = any(table.action_id is not None for table in tables)
    verbs, nouns = zip(*(log_probs(table) for table in tables), strict=True)
    action_id, action_output = _mean_actions(tables, log_weights) if has_actions else (None, None)
    return ScoreTable(
        narration_id=tables[0].narration_id,
        verb_output=_log_mean(verbs, log_weights),
        noun_output=_log_mean(nouns, log_weights),
        kind="logits",
        action_id=action_id,
        action_output=action_output,
        seen=any_seen([seen_of(table) for table in tables]),
    )


def _log_weights(weights: Sequence[float] | None, num_tables: int) -> np.ndarray:
    values = np.ones(num_tables) if weights is None else np.asarray(weights, dtype=np.float64)
    if values.shape != (num_tables,) or not np.isfinite(values).all() or not (values > 0).all():
        raise InputError(f"the ensemble's weights are {weights}, expected {num_tables} positive numbers, one per table")
    return np.log(values / values.sum())


def _fitted(table: ScoreTable, first: ScoreTable, name: str, first_name: str) -> ScoreTable:
    check_classes(table, first.num_verbs, first.num_nouns, name=name, whose=first_name)
    return align(table, first.narration_id, name=f"{name} (against {first_name})")


def _log_mean(log_members: Sequence[np.ndarray], log_weights: np.ndarray) -> np.ndarray:
    """Logarithm of the weighted mean of probabilities given as logarithms, each (S, classes)."""
    return np.logaddexp.reduce([member + weight for member, weight in zip(log_members, log_weights, strict=True)])


def _mean_actions(tables: Sequence[ScoreTable], log_weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The best actions (S, A) of the mean, best first, and their log-probabilities; A is the longest list's."""
    listed = [top_actions(table)[0] if table.action_id is None else table.action_id for table in tables]
    ids = np.concatenate(listed, axis=1)  # (S, P), some of them twice
    scores = _log_mean([action_log_probs(table, ids) for table in tables], log_weights)
    order = np.argsort(ids, axis=1, kind="stable")
    ordered = np.take_along_axis(ids, order, axis=1)
    is_again = np.zeros(ids.shape, dtype=bool)
    np.put_along_axis(is_again, order[:, 1:], ordered[:, 1:] == ordered[:, :-1], axis=1)
    scores[is_again] = -np.inf
    best = np.argsort(-scores, axis=1, kind="stable")[:, : max(each.shape[1] for each in listed)]
    return np.take_along_axis(ids, best, axis=1), np.take_along_axis(scores, best, axis=1)
