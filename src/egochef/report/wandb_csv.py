"""Reads CSV files of Weights & Biases.

In: a chart's export from the web page, or a run's history as a table. Out: `Curves` of the runs in it.

    chart      "Step", then "RUN - METRIC", "RUN - METRIC__MIN", "RUN - METRIC__MAX" of each run; the first column may
               be another axis ("epoch", "Relative Time (Process)", "Wall Time"), and "RUN - _step" may tell the steps
    history    what `wandb.Api().run(...).history().to_csv(...)` writes: an index, "_step", "_runtime", "_timestamp",
               "epoch", and a column a metric; "step" or "epoch" alone serve too

A blank cell is no value at that place; NaN and Infinity are values that were not finite.
"""

import csv
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from egochef.errors import InputError
from egochef.report.series import EPOCH, RUNTIME, STEP, TIME, Curves, Series
from egochef.texts import escaped

AXES = {
    "_step": STEP,
    "step": STEP,
    "global_step": STEP,
    "trainer/global_step": STEP,
    "epoch": EPOCH,
    "relative time (process)": RUNTIME,
    "relative time (wall)": RUNTIME,
    "_runtime": RUNTIME,
    "wall time": TIME,
    "_timestamp": TIME,
}
"""names of columns, in lower case, by which rows are placed"""
INDEX_NAMES = ("", "Unnamed: 0")
"""of a column that only counts rows"""
BETWEEN = " - "
"""run and metric in a chart's columns"""
LOWEST, HIGHEST = "__MIN", "__MAX"
"""ends of the columns with the extremes: of a group of runs, or of the steps behind one row"""


def read_csv(path: Path, name: str) -> list[Curves]:
    """The runs in one CSV file, in either form.

    Args:
        name: of the run, where the file does not tell it.

    Raises:
        InputError: the file is in neither form, or a cell is not what it should be, naming row and column.
    """
    header, rows = _read_rows(path)
    if header[0] in INDEX_NAMES and len(header) > 1:
        header, rows = header[1:], [(number, cells[1:]) for number, cells in rows]
    others = header[1:]
    is_chart = BETWEEN not in header[0] and any(BETWEEN in column for column in others)
    if is_chart and all(BETWEEN in column or column.endswith((LOWEST, HIGHEST)) for column in others):
        return _read_chart(path, header, rows)
    if not any(AXES.get(column.lower()) in (STEP, EPOCH) for column in header) or len(header) < 2:
        shown = ", ".join(header)[:200]
        raise InputError(
            f"{path}, row 1: columns are {shown}; expected a chart exported from Weights & Biases (Step, then "
            "'RUN - METRIC' for each run) or a run's history (_step, step or epoch, and a column a metric)"
        )
    return [_read_history(path, name, header, rows)]


def _read_rows(path: Path) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """Header, and (row number, cells) of each row that is not empty; the header is row 1.

    Raises:
        InputError: not a CSV file, no rows, or a row of another length.
    """
    rows = []
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file, strict=True)
            header = [escaped(column.strip()) for column in next(reader, [])]
            for cells in reader:
                if cells and len(cells) != len(header):
                    raise InputError(f"{path}, row {reader.line_num}: {len(cells)} values, expected {len(header)}")
                if cells:
                    rows.append((reader.line_num, [cell.strip() for cell in cells]))
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: not a readable CSV file ({error}), expected UTF-8 with commas") from None
    if not header or not rows:
        raise InputError(f"{path}: {'no rows below the header' if header else 'empty'}, expected curves")
    return header, rows


def _number(cell: str, where: str) -> float | None:
    """A cell's value: None where it is blank, NaN where it is not finite."""
    if not cell:
        return None
    try:
        value = float(cell.replace("_", "?"))  # Python takes 1_000 for a number
    except ValueError:
        raise InputError(f"{where} is {cell!r:.60}, expected a number or nothing") from None
    return value if math.isfinite(value) else math.nan


def _column(path: Path, title: str, place: int, rows: list[tuple[int, list[str]]]) -> list[float | None]:
    return [_number(cells[place], f"{path}, row {number}: {title}") for number, cells in rows]


def _axis_column(path: Path, title: str, place: int, rows: list[tuple[int, list[str]]]) -> np.ndarray:
    """(R,) float64; of a wall time also where it is written as a date.

    Raises:
        InputError: a cell is blank or not finite, or not a number.
    """
    values = []
    for number, cells in rows:
        where = f"{path}, row {number}: {title}"
        value = _date(cells[place]) if AXES.get(title.lower()) == TIME and ":" in cells[place] else None
        if value is None:
            value = _number(cells[place], where)
        if value is None or math.isnan(value):
            raise InputError(f"{where} is {cells[place]!r:.60}, expected a finite number")
        values.append(value)
    return np.array(values, dtype=np.float64)


def _date(cell: str) -> float | None:
    """Seconds since 1970 of a date and time, such as 2026-11-26T14:03:20Z."""
    try:
        date = datetime.fromisoformat(cell)
    except ValueError:
        return None
    return date.replace(tzinfo=date.tzinfo or UTC).timestamp()


def _read_chart(path: Path, header: list[str], rows: list[tuple[int, list[str]]]) -> list[Curves]:
    """A chart's export: the axis, then columns of runs."""
    title = header[0]
    axis = AXES.get(title.lower(), title)
    x = _axis_column(path, title, 0, rows)  # (R,)
    seen: Counter[str] = Counter()
    columns: dict[str, dict[str, list[float | None]]] = {}  # run -> metric, with its end if it has one -> values
    for place, column in enumerate(header[1:], 1):
        if BETWEEN not in column:
            continue  # extremes of a column whose name was edited away
        run, metric = column.rsplit(BETWEEN, 1)
        seen[column] += 1
        if seen[column] > 1:  # names of runs need not differ there
            run = f"{run} ({seen[column]})"
        columns.setdefault(run, {})[metric] = _column(path, column, place, rows)
    found = []
    for run, metrics in columns.items():
        helpers = {metric: AXES[metric] for metric in metrics if AXES.get(metric) in (STEP, EPOCH)}
        series: dict[str, Series] = {}
        for metric, values in metrics.items():
            if metric in helpers or metric.endswith((LOWEST, HIGHEST)) or metric.startswith("_"):
                continue
            low, high = metrics.get(metric + LOWEST), metrics.get(metric + HIGHEST)
            own = {axis: x} | {kind: _floats(metrics[other]) for other, kind in helpers.items() if kind != axis}
            series |= _place({metric: values}, own, axis, {metric: (low, high)})
        if series:
            found.append(Curves(run, (path,), series))
    if not found:
        raise InputError(f"{path}: no values below the header, expected curves")
    return found


def _read_history(path: Path, name: str, header: list[str], rows: list[tuple[int, list[str]]]) -> Curves:
    """A run's history: a column a metric, rows in the order of time."""
    if twice := [column for column, count in Counter(header).items() if count > 1]:
        raise InputError(f"{path}, row 1: two columns are called {twice[0]!r}, expected each once")
    kinds = {column: AXES.get(column.lower()) for column in header}
    title = next((column for column in AXES if column in map(str.lower, header) and AXES[column] == STEP), EPOCH)
    place = [column.lower() for column in header].index(title)
    axis = AXES[title]
    x = _axis_column(path, header[place], place, rows)  # (R,)
    if (np.diff(x) < 0).any():
        row = int((np.diff(x) < 0).argmax()) + 1
        raise InputError(
            f"{path}, row {rows[row][0]}: {header[place]} is {x[row]:g} after {x[row - 1]:g}, expected rows in the "
            "order of time, of one run"
        )
    metrics: dict[str, list[float | None]] = {}
    texts = []
    own = {axis: x}
    for at, column in enumerate(header):
        if kinds[column] == EPOCH and axis == STEP:
            own[EPOCH] = _carried(_floats(_column(path, column, at, rows)))
        if kinds[column] is not None or column.startswith("_") or column in INDEX_NAMES:
            continue
        cells = [cells[at] for _, cells in rows]
        if any(cells) and not any(_is_number(cell) for cell in cells):
            texts.append(column)  # media, tables, words
        else:
            metrics[column] = _column(path, column, at, rows)
    series = _place(metrics, own, axis, {})
    if not series:
        raise InputError(f"{path}: no column of numbers beside {header[place]}, expected metrics")
    notes = (f"{path.name}: left out what is no number: {', '.join(texts)}",) if texts else ()
    return Curves(name, (path,), series, notes=notes)


def _is_number(cell: str) -> bool:
    try:
        return _number(cell, "") is not None
    except InputError:
        return False


def _floats(values: Iterable[float | None]) -> np.ndarray:
    return np.array([math.nan if value is None else value for value in values], dtype=np.float64)


def _carried(values: np.ndarray) -> np.ndarray:
    """Where there is no value, the last one before."""
    last = np.maximum.accumulate(np.where(np.isnan(values), 0, np.arange(len(values))))  # (R,)
    return values[last]


def _place(
    metrics: Mapping[str, list[float | None]],
    own: Mapping[str, np.ndarray],
    axis: str,
    extremes: Mapping[str, tuple[list[float | None] | None, list[float | None] | None]],
) -> dict[str, Series]:
    """Series from columns (R,), a point for each row that has a value, placed by steps where these are known.

    Args:
        own: (R,) by axis, what is known of the rows' places.
    """
    series = {}
    for metric, values in metrics.items():
        there = np.array([value is not None for value in values])  # (R,)
        if not there.any():
            continue
        used = STEP if STEP in own and not np.isnan(own[STEP][there]).any() else axis
        order = np.argsort(own[used][there], kind="stable")
        x, y = own[used][there][order], _floats(values)[there][order]
        low, high = (None if end is None else _floats(end)[there][order] for end in extremes.get(metric, (None, None)))
        if low is None or high is None or (np.array_equal(low, y, True) and np.array_equal(high, y, True)):
            low = high = None
        else:
            low, high = np.fmin(low, y), np.fmax(high, y)
        epoch = own[EPOCH][there][order] if EPOCH in own and used != EPOCH else None
        series[metric] = Series(x, y, used, x if used == EPOCH else epoch, low, high)
    return series
