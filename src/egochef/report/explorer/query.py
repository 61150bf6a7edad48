"""What a page asks of the index: a request's parameters in, rows and counts out.

Every parameter is checked here; what is wrong is an InputError that the page shows.
"""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl

import numpy as np

from egochef.errors import InputError
from egochef.report.explorer.index import NO_CLASS, RIGHT, UNKNOWN, WRONG, Index
from egochef.scoring.metrics import TASKS

MAX_PARAMETERS = 40
MAX_SEARCH_LETTERS = 200
MAX_COUNT = 200
"""rows a request"""
MAX_START = 10_000_000
VERDICTS = {"right": RIGHT, "wrong": WRONG}
PAIRS = {"both_right": (RIGHT, RIGHT), "only_first": (RIGHT, WRONG), "only_second": (WRONG, RIGHT),
         "both_wrong": (WRONG, WRONG)}  # fmt: skip
"""verdicts of the shown run and of the one it is compared with"""
COLUMNS = ("segment", "narration", "verb", "noun", "predicted_verb", "predicted_noun", "confidence", "other_confidence",
           "start", "length", "split")  # fmt: skip
"""that rows can be sorted by"""
CLASS_ORDERS = ("most", "worst", "best")
NUM_CLASSES = 20
"""in the plot"""
MIN_JUDGED = 5
"""segments of a class that its accuracy says something of"""
NUM_BINS = 20
LENGTHS_S = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 20.0, 40.0, math.inf)

_BAD_PERCENT = re.compile(rb"%(?![0-9a-fA-F]{2})")


@dataclass(frozen=True)
class Query:
    """Which rows, judged how."""

    search: str = ""
    """words that all stand in the narration or the narration id"""
    split: int | None = None
    """code, as the next two"""
    participant: int | None = None
    video: int | None = None
    verb: int | None = None
    noun: int | None = None
    run: int = 0
    """the shown run's place"""
    other: int | None = None
    """place of the run that it is compared with"""
    task: str = "action"
    """that confidence and comparison are of"""
    predicted_verb: int | None = None
    predicted_noun: int | None = None
    verb_is: str | None = None
    """right or wrong, of the shown run; so the next two"""
    noun_is: str | None = None
    action_is: str | None = None
    at_least: float | None = None
    """confidence, percent, inclusive"""
    at_most: float | None = None
    """confidence, percent, inclusive"""
    pair: str | None = None
    """of PAIRS"""


def parameters(raw: bytes) -> dict[str, str]:
    """Names and values of a query string.

    Raises:
        InputError: it is not properly encoded, or names something twice.
    """
    if _BAD_PERCENT.search(raw):
        raise InputError("the address has a '%' that is not followed by two hexadecimal digits")
    try:
        pairs = parse_qsl(
            raw.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=MAX_PARAMETERS, separator="&"
        )
    except UnicodeDecodeError:
        raise InputError("the address is not UTF-8") from None
    except ValueError:
        raise InputError(f"the address has more than {MAX_PARAMETERS} parameters") from None
    found: dict[str, str] = {}
    for name, value in pairs:
        if name in found:
            raise InputError(f"the parameter {name[:40]!r} is given twice")
        if value:
            found[name] = value
    return found


class Parameters:
    """A request's parameters, taken out one by one; what is left over is unknown."""

    def __init__(self, values: Mapping[str, str]):
        self.left = dict(values)

    def text(self, name: str, max_letters: int) -> str:
        value = self.left.pop(name, "")
        if len(value) > max_letters:
            raise InputError(f"{name} has {len(value)} letters, expected at most {max_letters}")
        return value

    def whole(self, name: str, stop: int) -> int | None:
        """A number from 0 to before `stop`."""
        value = self.left.pop(name, None)
        if value is None:
            return None
        if not (value.isascii() and value.isdigit() and len(value) <= 9 and int(value) < stop):
            raise InputError(f"{name} is {value[:40]!r}, expected a whole number from 0 to {stop - 1}")
        return int(value)

    def percent(self, name: str) -> float | None:
        value = self.left.pop(name, None)
        if value is None:
            return None
        if not re.fullmatch(r"[0-9]{1,3}(\.[0-9]{0,9})?", value) or float(value) > 100:
            raise InputError(f"{name} is {value[:40]!r}, expected a percentage from 0 to 100")
        return float(value)

    def choice(self, name: str, choices: tuple[str, ...]) -> str | None:
        value = self.left.pop(name, None)
        if value is not None and value not in choices:
            shown = ", ".join(choices[:6]) + (", ..." if len(choices) > 6 else "")
            raise InputError(f"{name} is {value[:40]!r}, expected one of {shown or 'nothing: there is none'}")
        return value

    def code(self, name: str, names: tuple[str, ...]) -> int | None:
        value = self.choice(name, names)
        return None if value is None else names.index(value)

    def end(self) -> None:
        if self.left:
            raise InputError(f"unknown parameter {next(iter(self.left))[:40]!r}")


def take_query(given: Parameters, index: Index) -> Query:
    """The filters among a request's parameters.

    Raises:
        InputError: a value is not of its kind, or asks about runs that were not given.
    """
    taxonomy, num_runs = index.folder.taxonomy, len(index.predictions)
    query = Query(
        search=given.text("search", MAX_SEARCH_LETTERS),
        split=given.code("split", index.splits),
        participant=given.code("participant", index.participants),
        video=given.code("video", index.videos),
        verb=given.whole("verb", taxonomy.num_verbs),
        noun=given.whole("noun", taxonomy.num_nouns),
        run=given.whole("run", max(num_runs, 1)) or 0,
        other=given.whole("other", max(num_runs, 1)),
        task=given.choice("task", TASKS) or "action",
        predicted_verb=given.whole("predicted_verb", taxonomy.num_verbs),
        predicted_noun=given.whole("predicted_noun", taxonomy.num_nouns),
        verb_is=given.choice("verb_is", tuple(VERDICTS)),
        noun_is=given.choice("noun_is", tuple(VERDICTS)),
        action_is=given.choice("action_is", tuple(VERDICTS)),
        at_least=given.percent("at_least"),
        at_most=given.percent("at_most"),
        pair=given.choice("pair", tuple(PAIRS)),
    )
    of_runs = ("other", "predicted_verb", "predicted_noun", "verb_is", "noun_is", "action_is", "at_least", "at_most")
    if not num_runs and (asked := [name for name in of_runs if getattr(query, name) is not None]):
        raise InputError(f"{asked[0]} asks about predictions, but no run was given")
    if query.pair and query.other is None:
        raise InputError("pair compares two runs: it needs other")
    return query


def matching(index: Index, query: Query, *, with_pair: bool = True) -> np.ndarray:
    """(S,) bool, the rows that pass every filter.

    Args:
        with_pair: False leaves out the comparison's, to count its outcomes.
    """
    kept = np.ones(len(index), dtype=bool)
    for name in ("split", "participant", "video", "verb", "noun"):
        wanted = getattr(query, name)
        if wanted is not None:
            kept &= getattr(index, name) == wanted
    if index.predictions:
        shown = index.predictions[query.run]
        for task in TASKS:
            wanted = getattr(query, f"{task}_is")
            if wanted is not None:
                kept &= shown.verdict[task] == VERDICTS[wanted]
        for task in ("verb", "noun"):
            wanted = getattr(query, f"predicted_{task}")
            if wanted is not None:
                kept &= shown.best[task] == wanted
        percent = 100 * shown.confidence[query.task]  # comparisons with NaN are False
        if query.at_least is not None:
            kept &= percent >= query.at_least
        if query.at_most is not None:
            kept &= percent <= query.at_most
        if query.pair and with_pair:
            kept &= _pair(index, query, query.pair)
    for word in query.search.casefold().split():
        kept &= np.fromiter((word in text for text in index.text), dtype=bool, count=len(index))
    return kept


def _pair(index: Index, query: Query, name: str) -> np.ndarray:
    """(S,) bool, the rows of one of PAIRS."""
    assert query.other is not None
    first, second = PAIRS[name]
    shown, other = (index.predictions[place].verdict[query.task] for place in (query.run, query.other))
    return (shown == first) & (other == second)


def sorted_rows(index: Index, query: Query, kept: np.ndarray, column: str, *, falling: bool) -> np.ndarray:
    """(matched,) int, rows in the order of a column; equal ones in the order of videos, rows without a value last."""
    rows = np.flatnonzero(kept)
    keys = _key(index, query, column)[rows].astype(np.float64)
    missing = np.isnan(keys)
    return rows[np.lexsort((index.place[rows], -keys if falling else keys, missing))]


def _key(index: Index, query: Query, column: str) -> np.ndarray:
    """(S,) numbers that sort as a column does; NaN where it is empty."""
    runs = index.predictions
    plain: dict[str, Callable[[], np.ndarray]] = {
        "segment": lambda: index.place,
        "narration": lambda: index.by_narration,
        "start": lambda: index.start_s,
        "length": lambda: index.length_s,
        "split": lambda: index.split,
        "verb": lambda: _by_name(index, "verb", index.verb),
        "noun": lambda: _by_name(index, "noun", index.noun),
    }
    if column in plain:
        return plain[column]()
    if not runs:
        raise InputError(f"sort is {column!r}, but no run was given")
    if column == "confidence":
        return runs[query.run].confidence[query.task]
    if column == "other_confidence":
        if query.other is None:
            raise InputError(f"sort is {column!r}, but no other run is compared")
        return runs[query.other].confidence[query.task]
    task = column.removeprefix("predicted_")
    return _by_name(index, task, runs[query.run].best[task])


def _by_name(index: Index, task: str, ids: np.ndarray) -> np.ndarray:
    return np.where(ids == NO_CLASS, np.nan, index.by_name[task][ids])


def summary(index: Index, query: Query, kept: np.ndarray) -> dict[str, Any]:
    """Counts of the rows that pass: how many each run gets right, and how two runs agree."""
    found: dict[str, Any] = {"total": len(index), "matched": int(kept.sum())}
    places = [] if not index.predictions else [query.run] if query.other is None else [query.run, query.other]
    found["runs"] = []
    for place in places:
        run = index.predictions[place]
        judged = kept & (run.verdict["verb"] != UNKNOWN)
        right = {task: int((judged & (run.verdict[task] == RIGHT)).sum()) for task in TASKS}
        predicted = int((kept & (run.row >= 0)).sum())
        found["runs"].append({"name": run.name, "predicted": predicted, "judged": int(judged.sum()), "right": right})
    if query.other is not None:
        every = matching(index, query, with_pair=False) if query.pair else kept
        found["pairs"] = {name: int((every & _pair(index, query, name)).sum()) for name in PAIRS}
    return found


def row_of_table(index: Index, query: Query, row: int) -> dict[str, Any]:
    """One line of the page's table."""
    segment = index.segments[row]
    found: dict[str, Any] = {
        "id": segment.narration_id,
        "narration": segment.narration,
        "split": index.splits[index.split[row]],
        "start_s": round(segment.start_s, 2),
        "length_s": round(float(index.length_s[row]), 2),
        "verb": index.name_of("verb", int(index.verb[row])),
        "noun": index.name_of("noun", int(index.noun[row])),
    }
    if index.predictions:
        found["shown"] = _said(index, query, query.run, row)
    if query.other is not None:
        found["other"] = _said(index, query, query.other, row)
    return found


def _said(index: Index, query: Query, place: int, row: int) -> dict[str, Any] | None:
    run = index.predictions[place]
    if run.row[row] < 0:
        return None
    names = {task: index.name_of(task, int(run.best[task][row])) for task in ("verb", "noun")}
    verdicts = {f"{task}_is": _word(run.verdict[task][row]) for task in TASKS}
    return {**names, **verdicts, "confidence": round(float(run.confidence[query.task][row]), 4)}


def _word(verdict: int) -> str | None:
    return {RIGHT: "right", WRONG: "wrong"}.get(int(verdict))


def plots(index: Index, query: Query, kept: np.ndarray, task: str, order: str) -> dict[str, Any]:
    """What the figures show of the rows that pass.

    Args:
        task: verb or noun, whose classes are counted and judged.
        order: of CLASS_ORDERS: classes with most segments, or lowest or highest accuracy, first.
    """
    verdict = index.predictions[query.run].verdict if index.predictions else None
    found: dict[str, Any] = {"classes": _classes(index, kept, task, order, None if verdict is None else verdict[task])}
    if verdict is not None:
        confidence = index.predictions[query.run].confidence[query.task]
        edges = np.linspace(0, 1, NUM_BINS + 1)
        found["confidence"] = [
            {"from": round(100 * edges[place], 6), "to": round(100 * edges[place + 1], 6), "outcome": word, "num": num}
            for word, wanted in (*VERDICTS.items(), ("unknown", UNKNOWN))
            for place, num in enumerate(
                np.histogram(confidence[kept & (verdict[query.task] == wanted) & ~np.isnan(confidence)], edges)[
                    0
                ].tolist()
            )
            if num
        ]
    counts, _ = np.histogram(index.length_s[kept], LENGTHS_S)
    found["lengths"] = [
        {"name": f"{low:g}–{high:g}" if math.isfinite(high) else f"over {low:g}", "num": num}
        for low, high, num in zip(LENGTHS_S, LENGTHS_S[1:], counts.tolist(), strict=False)
    ]
    return found


def _classes(index: Index, kept: np.ndarray, task: str, order: str, verdict: np.ndarray | None) -> list[dict[str, Any]]:
    """The first NUM_CLASSES classes by true label, each with its segments by outcome."""
    truth, num = index.truth(task), index.folder.taxonomy.num_verbs
    num = num if task == "verb" else index.folder.taxonomy.num_nouns
    kept = kept & (truth != NO_CLASS)
    counts = {"all": np.bincount(truth[kept], minlength=num)}
    for word, wanted in VERDICTS.items():
        rows = kept & (verdict == wanted) if verdict is not None else np.zeros(len(index), dtype=bool)
        counts[word] = np.bincount(truth[rows], minlength=num)
    judged = counts["right"] + counts["wrong"]
    accuracy = np.divide(counts["right"], judged, out=np.full(num, np.nan), where=judged > 0)
    if order == "most" or verdict is None:
        chosen = np.flatnonzero(counts["all"])
        chosen = chosen[np.lexsort((chosen, -counts["all"][chosen]))]
    else:
        enough = min(MIN_JUDGED, int(judged.max(initial=0)))
        chosen = np.flatnonzero((judged >= enough) & (judged > 0))
        sign = 1 if order == "worst" else -1
        chosen = chosen[np.lexsort((-judged[chosen], sign * accuracy[chosen]))]
    return [
        {
            "id": each,
            "name": index.name_of(task, each),
            "num": int(counts["all"][each]),
            "right": int(counts["right"][each]),
            "wrong": int(counts["wrong"][each]),
            "accuracy": None if np.isnan(accuracy[each]) else round(100 * float(accuracy[each]), 1),
        }
        for each in chosen[:NUM_CLASSES].tolist()
    ]
