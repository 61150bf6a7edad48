"""One segment with all that the runs say of it, for the page's panel.

In: an index and a row. Out: names and probabilities, best first, with the truth's rank.
"""

from typing import Any

import numpy as np

from egochef.report.explorer.index import NO_CLASS, Index, Predictions
from egochef.scoring.actions import action_log_probs, ranked_classes, top_actions
from egochef.scoring.metrics import TASKS, TOP_K
from egochef.scoring.table import ScoreTable, log_probs, take_rows
from egochef.taxonomy import ACTION_BASE


def segment_detail(index: Index, row: int) -> dict[str, Any]:
    """What the panel shows of a segment."""
    segment = index.segments[row]
    return {
        "id": segment.narration_id,
        "narration": segment.narration,
        "split": index.splits[index.split[row]],
        "participant": segment.participant_id,
        "video": segment.video_id,
        "start_s": round(segment.start_s, 3),
        "stop_s": round(segment.stop_s, 3),
        "truth": {task: index.name_of(task, int(index.truth(task)[row])) for task in TASKS},
        "runs": [_said(index, run, row) for run in index.predictions],
    }


def _said(index: Index, run: Predictions, row: int) -> dict[str, Any]:
    if run.row[row] < 0:
        return {"name": run.name, "tasks": None}
    place = int(run.row[row])
    table = take_rows(run.scores.table, slice(place, place + 1))
    return {"name": run.name, "tasks": {task: _ranked(index, table, task, row) for task in TASKS}}


def _ranked(index: Index, table: ScoreTable, task: str, row: int) -> dict[str, Any]:
    """The best of a task and where the truth stands; its rank is None where the table does not list it."""
    truth = int(index.truth(task)[row])
    ids, logs = _ordered(table, task)
    best = [
        {"name": index.name_of(task, int(each)), "prob": _prob(log), "true": int(each) == truth}
        for each, log in zip(ids[:TOP_K], logs[:TOP_K], strict=True)
    ]
    if truth == NO_CLASS:
        return {"best": best, "truth": None}
    places = np.flatnonzero(ids == truth)
    rank = int(places[0]) if len(places) else None
    prob = None if rank is None else _prob(logs[rank])
    found = {"name": index.name_of(task, truth), "rank": None if rank is None else rank + 1, "prob": prob}
    return {"best": best, "truth": found}


def _ordered(table: ScoreTable, task: str) -> tuple[np.ndarray, np.ndarray]:
    """All classes or actions of a table of one row, (classes,) ids and log-probabilities, best first."""
    verb_logs, noun_logs = log_probs(table)
    if task != "action":
        ids = ranked_classes(getattr(table, f"{task}_output"))[0]
        return ids, (verb_logs if task == "verb" else noun_logs)[0][ids]
    if table.action_output is not None:
        ids = top_actions(table, table.action_output.shape[1])[0]
        return ids[0], action_log_probs(table, ids)[0]
    num_actions = table.num_verbs * table.num_nouns
    best = top_actions(table)[0][0]
    grid = (verb_logs[0][:, None] + noun_logs[0][None]).ravel()  # (V * N,)
    order = np.argsort(-grid, kind="stable")
    verbs, nouns = np.divmod(order, table.num_nouns)
    ids = verbs * ACTION_BASE + nouns  # (V * N,)
    rest = ids[~np.isin(ids, best)]  # the official rule says who of equals comes first among the best
    assert len(best) + len(rest) == num_actions
    ids = np.concatenate([best, rest])
    return ids, grid[ids // ACTION_BASE * table.num_nouns + ids % ACTION_BASE]


def _prob(log: float) -> float:
    return round(float(np.exp(log)), 5)
