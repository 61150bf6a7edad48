"""Ensembles: several ScoreTables of the same segments become one. No model is needed.

The verb and the noun probabilities are each averaged and written as log-probabilities (which are logits too),
so that the result scores and submits like any other table.
"""

from collections.abc import Sequence

import numpy as np

from egochef.errors import InputError
from egochef.scoring.actions import with_actions
from egochef.scoring.table import ScoreTable, align, log_probs, to_log_probs


def ensemble(
    tables: Sequence[ScoreTable], weights: Sequence[float] | None = None, names: Sequence[str] | None = None
) -> ScoreTable:
    """The weighted mean of the tables' probabilities, aligned by narration id, in the first table's order.

    Action fields are averaged too where a table has one; one without gets that of the official rule. An action that a
    table does not list counts as 0 there, and as many of the best are kept as the longest list has.

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
    if any(table.action_id is not None for table in tables):
        tables = [with_actions(table) for table in tables]
    verbs, nouns = zip(*(log_probs(table) for table in tables), strict=True)
    action_id, action_output = _mean_actions(tables, log_weights) if tables[0].action_id is not None else (None, None)
    return ScoreTable(
        narration_id=tables[0].narration_id,
        verb_output=_log_mean(verbs, log_weights),
        noun_output=_log_mean(nouns, log_weights),
        kind="logits",
        action_id=action_id,
        action_output=action_output,
    )


def _log_weights(weights: Sequence[float] | None, num_tables: int) -> np.ndarray:
    values = np.ones(num_tables) if weights is None else np.asarray(weights, dtype=np.float64)
    if values.shape != (num_tables,) or not np.isfinite(values).all() or not (values > 0).all():
        raise InputError(f"the ensemble's weights are {weights}, expected {num_tables} positive numbers, one per table")
    return np.log(values / values.sum())


def _fitted(table: ScoreTable, first: ScoreTable, name: str, first_name: str) -> ScoreTable:
    sizes, expected = (table.num_verbs, table.num_nouns), (first.num_verbs, first.num_nouns)
    if sizes != expected:
        raise InputError(
            f"{name} has {sizes[0]} verbs and {sizes[1]} nouns, {first_name} {expected[0]} and {expected[1]}:"
            " an ensemble's members must know the same classes"
        )
    return align(table, first.narration_id, name=f"{name} (against {first_name})")


def _log_mean(log_members: Sequence[np.ndarray], log_weights: np.ndarray) -> np.ndarray:
    """Logarithm of the weighted mean of probabilities given as logarithms, each (S, classes)."""
    return np.logaddexp.reduce([member + weight for member, weight in zip(log_members, log_weights, strict=True)])


def _mean_actions(tables: Sequence[ScoreTable], log_weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The best actions (S, A) of the mean, best first, and their log-probabilities; A is the longest
    member's."""
    ids = np.concatenate([table.action_id for table in tables], axis=1)
    members = [to_log_probs(table.action_output, table.kind) for table in tables]  # type: ignore[arg-type]
    scores = np.concatenate([m + w for m, w in zip(members, log_weights, strict=True)], axis=1)
    order = np.argsort(ids, axis=1, kind="stable")
    ids, scores = np.take_along_axis(ids, order, axis=1), np.take_along_axis(scores, order, axis=1)
    is_first = np.ones(ids.shape, dtype=bool)  # of a run of equal ids, which now stand side by side
    is_first[:, 1:] = ids[:, 1:] != ids[:, :-1]
    sums = np.full(ids.shape, -np.inf)
    sums[is_first] = np.logaddexp.reduceat(scores.ravel(), np.flatnonzero(is_first))
    best = np.argsort(-sums, axis=1, kind="stable")[:, : max(member.shape[1] for member in members)]
    return np.take_along_axis(ids, best, axis=1), np.take_along_axis(sums, best, axis=1)
