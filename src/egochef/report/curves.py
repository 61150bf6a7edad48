"""Training curves: runs of ours and CSV files from Weights & Biases in, one `Curves` a run out, and panels to plot.

A run's log gives series under the names that our trackers send (`step/loss`, `evaluation/all_action_accuracy_at_1`,
`epoch/wait_share`) and `step/wait_share`, the share of a step spent waiting for clips. `wandb_csv` says which CSV files
are read.

Other people's metrics keep their names. `find_metric` finds what they measure, by the words in the name:

    panel    words that it needs                                 such as
    loss     loss                                                train/loss, val_loss, loss
    verb     verb, and acc, accuracy or top (top-1 only)         val_verb_acc, val/verb_top1
    noun     noun, the same                                      noun_accuracy
    action   action, the same                                    val/action_accuracy, val_action_acc@1
    lr       lr, or learning and rate                            lr, learning_rate, lr-AdamW
    wait     wait and share                                      epoch/wait_share

Which split it is of is told by train, training / val, valid, validation, eval, evaluation / test. A name with any other
word (`ema_val_loss`, `val_verb_acc_top5`, `verb_loss`) is taken for something else.
"""

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from egochef.errors import InputError
from egochef.report.scores import is_run, short_names
from egochef.report.series import EPOCH, STEP, Curves, Series
from egochef.report.wandb_csv import read_csv
from egochef.training.runfiles import LOG, read_log

MAX_POINTS = 2000
"""of a line to plot; longer series are binned"""
PANELS = {
    "loss": ("loss", ""),
    "verb": ("verb top-1", "%"),
    "noun": ("noun top-1", "%"),
    "action": ("action top-1", "%"),
    "lr": ("learning rate", ""),
    "wait": ("waiting for data", "% of the time"),
}
"""what is plotted: title and unit"""
ACCURACIES = ("verb", "noun", "action")
OURS = {
    "step/loss": ("loss", "train"),
    "epoch/loss": ("loss", "train"),
    "evaluation/all_verb_accuracy_at_1": ("verb", "validation"),
    "evaluation/all_noun_accuracy_at_1": ("noun", "validation"),
    "evaluation/all_action_accuracy_at_1": ("action", "validation"),
    "step/lr": ("lr", ""),
    "step/wait_share": ("wait", "step by step"),
    "epoch/wait_share": ("wait", "means of epochs"),
}
"""our own names, whose units are known: accuracies are percent, shares fractions"""
NO_SERIES = ("kind", "step", "epoch", "split")
"""fields of a log's line that are no series"""
UNNAMED = "split not named"

SPLIT_WORDS = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "eval": "validation",
    "evaluation": "validation",
    "test": "test",
}
ACCURACY_WORDS = {"acc", "accuracy", "top"}
PERCENT_WORDS = {"percent", "pct"}
FILLERS = {"all", "at", "avg", "batch", "epoch", "mean", "step", "total", "1"}
"""words that change nothing"""
LR_FILLERS = {"adam", "adamw", "w", "sgd", "group", "pg", "optim", "optimizer", "scheduler", "0"}


@dataclass(frozen=True, eq=False)
class Line:
    """A line to plot."""

    run: str
    label: str
    """the split, or what tells it from the run's other line in the panel; may be empty"""
    metric: str
    """its name in the source"""
    x: np.ndarray
    """(K,) in the panel's axis, at most MAX_POINTS"""
    y: np.ndarray
    """(K,) in the panel's unit, means of the values behind a point; NaN is a gap"""
    low: np.ndarray
    """(K,) least of them"""
    high: np.ndarray
    """(K,) greatest of them"""
    num_values: int
    """behind the line"""
    num_gaps: int
    """of them not finite"""


@dataclass(frozen=True, eq=False)
class Panel:
    """What is plotted together."""

    title: str
    unit: str
    """empty: none"""
    axis: str
    """of x, the same for all panels"""
    lines: tuple[Line, ...]
    """may be none"""
    notes: tuple[str, ...]
    """what a reader has to know, for people"""


@dataclass(frozen=True, eq=False)
class Binned:
    """A series in fewer points."""

    x: np.ndarray
    """(K,) means of the bins"""
    y: np.ndarray
    """(K,) means of what is finite in a bin, NaN where nothing is"""
    low: np.ndarray
    high: np.ndarray
    count: np.ndarray
    """(K,) int, finite values in a bin"""


def read_curves(sources: Sequence[Path]) -> list[Curves]:
    """The curves of runs' folders, of CSV files and of folders with CSV files, in the order given.

    What several CSV files have of a run with the same name is put together.

    Raises:
        InputError: a source is none of these, is given twice, or has a fault, naming file, row or line, and column.
    """
    runs: list[Path] = []
    tables: list[Path] = []
    for source in map(Path, sources):
        path = source.parent if source.name == LOG else source
        if _is_run_folder(path):
            runs.append(path)
        else:
            tables += _csv_files(path)
    names = dict(zip(runs, short_names(runs), strict=True))
    found = [read_run(path, name) for path, name in names.items()]
    parts = [part for path, name in zip(tables, _table_names(tables), strict=True) for part in read_csv(path, name)]
    for curves in _merge(parts):
        taken = curves.name in names.values()
        found.append(replace(curves, name=f"{curves.name} (CSV)") if taken else curves)
    return found


def _is_run_folder(path: Path) -> bool:
    return is_run(path) or (path / LOG).is_file()


def _csv_files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise InputError(f"{path}: no such file or folder. Give a run's folder, or CSV files from Weights & Biases.")
    files = sorted(file for file in path.iterdir() if file.suffix.lower() == ".csv" and file.is_file())
    if not files:
        raise InputError(f"{path}: neither a run (no {LOG} or config.json) nor a folder with .csv files")
    return files


def _table_names(paths: Sequence[Path]) -> list[str]:
    """What to call the run of a file that does not say: the file's name, with folders where that is not enough."""
    twice = [path for path, count in Counter(path.resolve() for path in paths).items() if count > 1]
    if twice:
        raise InputError(f"{twice[0]}: given twice")
    counts = Counter(path.stem for path in paths)
    longer = dict(zip(paths, short_names(paths), strict=True))
    return [path.stem if counts[path.stem] == 1 else longer[path] for path in paths]


def read_run(run: Path, name: str) -> Curves:
    """The curves of a run's log, also while it is being written.

    Raises:
        InputError: a line that is not as docs/training.md says, by its number.
    """
    lines = list(read_log(run)) if (run / LOG).is_file() else []
    counts = Counter(line["epoch"] for line in lines if line["kind"] == "step")  # steps of an epoch
    values: dict[str, list[tuple[float, float, float]]] = {}  # metric -> (step, epochs done, value)
    done: Counter[int] = Counter()  # the same, so far
    under_way = lines[-1]["epoch"] if lines and lines[-1]["kind"] != "epoch" else None
    for number, line in enumerate(lines, 1):
        where = f"{run / LOG}, line {number}"
        step, epoch = (_whole(line.get(field), field, where) for field in ("step", "epoch"))
        if line["kind"] == "step":
            done[epoch] += 1
            length = counts[epoch] if epoch != under_way else max(counts[epoch], counts[epoch - 1])
            place = epoch - 1 + done[epoch] / length
        else:
            place = float(epoch)
        for metric, value in _numbers(line, where).items():
            values.setdefault(metric, []).append((step, place, value))
    series = {metric: _series_of(rows, run / LOG, metric) for metric, rows in values.items()}
    kinds = Counter(line["kind"] for line in lines)
    missing = [f"no {what} yet" for what in ("step", "evaluation", "epoch") if not kinds[what]]
    notes = []
    if "step/loss" in series and (num_gaps := series["step/loss"].num_gaps):
        notes.append(f"the loss of {num_gaps:,} of {kinds['step']:,} steps was not finite")
    return Curves(name, (run,), series, tuple(missing if lines else ["nothing in its log yet"]), tuple(notes))


def _numbers(line: Mapping[str, Any], where: str) -> dict[str, float]:
    """A line's numbers under our trackers' names; NaN for those that were not finite."""
    numbers = {}
    for field, value in line.items():
        if field in NO_SERIES:
            continue
        if isinstance(value, dict) and field == "unreadable":
            value = sum(value.values())
        if value is None:
            value = math.nan
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise InputError(f"{where}: {field} is {value!r:.60}, expected a number")
        numbers[f"{line['kind']}/{field}"] = float(value) if math.isfinite(value) else math.nan
    if line["kind"] == "step" and {"step/data_ms", "step/step_ms"} <= numbers.keys():
        whole_ms = numbers["step/step_ms"]
        numbers["step/wait_share"] = numbers["step/data_ms"] / whole_ms if whole_ms > 0 else math.nan
    return numbers


def _whole(value: Any, field: str, where: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise InputError(f"{where}: {field} is {value!r:.60}, expected a whole number")
    return value


def _series_of(rows: list[tuple[float, float, float]], path: Path, metric: str) -> Series:
    x, epoch, y = np.array(rows, dtype=np.float64).T  # (K, 3) -> three of (K,)
    if (np.diff(x) < 0).any():
        place = int((np.diff(x) < 0).argmax())
        raise InputError(f"{path}: {metric} goes from step {x[place]:.0f} back to {x[place + 1]:.0f}")
    return Series(x, y, STEP, epoch)


def _merge(parts: Iterable[Curves]) -> list[Curves]:
    """One Curves for each name, with what is missing in it."""
    merged: dict[str, Curves] = {}
    for part in parts:
        before = merged.get(part.name)
        if before is None:
            merged[part.name] = part
            continue
        series, notes = dict(before.series), list(before.notes + part.notes)
        for metric, one in part.series.items():
            other = series.get(metric)
            if other is None or _is_better(one, other):
                series[metric] = one
            if other is not None and not (one.axis == other.axis and np.array_equal(one.y, other.y, True)):
                kept = series[metric]
                notes.append(f"{metric} is in two files: the one with {len(kept.y):,} values by {kept.axis} counts")
        sources = tuple(dict.fromkeys(before.sources + part.sources))
        merged[part.name] = Curves(part.name, sources, series, notes=tuple(notes))
    return [replace(curves, missing=_missing_panels(curves)) for curves in merged.values()]


def _is_better(one: Series, other: Series) -> bool:
    return (one.axis == STEP, len(one.y)) > (other.axis == STEP, len(other.y))


def _missing_panels(curves: Curves) -> tuple[str, ...]:
    there = {found[0] for metric in curves.series if (found := find_metric(metric)) is not None}
    return tuple(f"no {title} found by name" for panel, (title, _) in PANELS.items() if panel not in there)


def find_metric(metric: str) -> tuple[str, str] | None:
    """Panel and split that a metric's name tells; None if it is none of them (the module says how names are read).

    >>> find_metric("val/action_accuracy")
    ('action', 'validation')
    """
    if metric in OURS:
        return OURS[metric]
    words = _words(metric)
    splits = {SPLIT_WORDS[word] for word in words & SPLIT_WORDS.keys()}
    words -= SPLIT_WORDS.keys()
    if len(splits) > 1:
        return None
    split = splits.pop() if splits else UNNAMED
    if "loss" in words and words <= {"loss"} | FILLERS:
        return "loss", split
    for panel in ACCURACIES:
        if panel in words and words & ACCURACY_WORDS and words <= {panel} | ACCURACY_WORDS | PERCENT_WORDS | FILLERS:
            return panel, split
    if ("lr" in words or {"learning", "rate"} <= words) and words <= {"lr", "learning", "rate"} | FILLERS | LR_FILLERS:
        return "lr", ""
    if {"wait", "share"} <= words <= {"data", "wait", "share"} | FILLERS:
        return "wait", "means of epochs" if "epoch" in words else "step by step"
    return None


def _words(metric: str) -> set[str]:
    """Words and numbers in a name: `valVerb_acc@1` -> val, verb, acc, 1."""
    apart = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", metric)
    return set(re.findall(r"[a-z]+|\d+", apart.lower()))


def canonical(curves: Sequence[Curves], *, max_points: int = MAX_POINTS) -> dict[str, Panel]:
    """The panels of PANELS, each with the lines of all runs, by one axis and in one unit.

    The axis is steps if all that is found has them, else epochs, else what most of it has. Accuracies of names that
    are not ours are fractions if all accuracies of their run are 1 or less, else percent.
    """
    picked = [_pick(each) for each in curves]
    everything = [
        each.series[metrics[0]]
        for each, panels in zip(curves, picked, strict=True)
        for labels in panels.values()
        for metrics in labels.values()
    ]
    axis = _common_axis(everything)
    found = {}
    for panel, (title, unit) in PANELS.items():
        lines: list[Line] = []
        notes: list[str] = []
        for each, panels in zip(curves, picked, strict=True):
            for label, metrics in panels.get(panel, {}).items():
                line = _line(each, panel, label, metrics[0], axis, max_points, notes)
                lines += [] if line is None else [line]
                if others := [metric for metric in metrics[1:] if metric not in OURS]:
                    notes.append(f"{each.name}: {metrics[0]} is shown, not {', '.join(others)}")
        found[panel] = Panel(title, unit, axis, tuple(lines), tuple(notes))
    return found


def _pick(curves: Curves) -> dict[str, dict[str, list[str]]]:
    """Panel -> label -> metrics that say the same, the one with the shortest name first: it is plotted."""
    picked: dict[str, dict[str, list[str]]] = {}
    for metric in sorted(curves.series, key=len):
        if (found := find_metric(metric)) is not None:
            picked.setdefault(found[0], {}).setdefault(found[1], []).append(metric)
    return picked


def _common_axis(series: Sequence[Series]) -> str:
    counts = Counter(axis for each in series for axis in _axes_of(each))
    for axis in (STEP, EPOCH):
        if counts[axis] == len(series):  # also where there is nothing
            return axis
    return max(counts, key=lambda axis: (counts[axis], axis == STEP, axis == EPOCH))


def _axes_of(series: Series) -> set[str]:
    return {series.axis} | (set() if series.epoch is None else {EPOCH})


def _line(
    curves: Curves, panel: str, label: str, metric: str, axis: str, max_points: int, notes: list[str]
) -> Line | None:
    """A run's line in a panel, or None, and why, where it cannot be shown there."""
    series = curves.series[metric]
    what = f"{curves.name}: {metric}"
    if axis not in _axes_of(series):
        notes.append(f"{what} is known by {series.axis} only, not by {axis}: left out")
        return None
    x = series.x if axis == series.axis else series.epoch
    assert x is not None
    factor = 1.0
    if panel == "wait":
        factor = 100.0 if metric in OURS or np.nanmax(series.y, initial=0.0) <= 1 else 1.0
    elif panel in ACCURACIES:
        factor = _percent_factor(curves, metric, what, notes)
        if np.nanmin(series.y, initial=0.0) < 0 or factor * np.nanmax(series.y, initial=0.0) > 100 + 1e-6:
            notes.append(f"{what} has values outside 0 to 100 %: left out")
            return None
    known = ~np.isnan(x)
    order = np.argsort(x[known], kind="stable")
    ends = (series.y if end is None else end for end in (series.low, series.high))
    y, low, high = (factor * array[known][order] for array in (series.y, *ends))
    binned = downsample(x[known][order], y, low, high, max_points=max_points)
    if series.num_gaps:
        notes.append(f"{what}: {series.num_gaps:,} of {len(series.y):,} values were not finite")
    return Line(curves.name, label, metric, binned.x, binned.y, binned.low, binned.high, len(series.y), series.num_gaps)


def _percent_factor(curves: Curves, metric: str, what: str, notes: list[str]) -> float:
    """100 for an accuracy that is a fraction, 1 for percent."""
    if metric in OURS or _words(metric) & PERCENT_WORDS:
        return 1.0
    if np.nanmax(curves.series[metric].y, initial=0.0) > 1:
        return 1.0
    theirs = [name for name in curves.series if (found := find_metric(name)) is not None and found[0] in ACCURACIES]
    if any(np.nanmax(curves.series[name].y, initial=0.0) > 1 for name in theirs):
        notes.append(f"{what} never exceeds 1 but other accuracies of the run do: shown as percent, as they are")
        return 1.0
    notes.append(f"{what} never exceeds 1: taken for a fraction, shown as percent")
    return 100.0


def downsample(
    x: np.ndarray,
    y: np.ndarray,
    low: np.ndarray | None = None,
    high: np.ndarray | None = None,
    *,
    max_points: int = MAX_POINTS,
) -> Binned:
    """At most `max_points` of K points: means of runs of points of one length (the last may be shorter).

    The extremes are kept, and weighted by `count` the means are those of the whole. Not-finite values do not count.

    Args:
        low: (K,) least of the values behind a point; the point's own if not given.
        high: (K,) greatest of them.
    """
    assert max_points > 0
    low, high = y if low is None else low, y if high is None else high
    starts = np.arange(0, len(y), max(1, -(-len(y) // max_points)))  # (K',) first point of each bin
    if len(starts) == len(y):
        return Binned(x, y, low, high, (~np.isnan(y)).astype(np.int64))
    finite = ~np.isnan(y)  # (K,)
    count = np.add.reduceat(finite.astype(np.int64), starts)  # (K',)
    sizes = np.diff(np.append(starts, len(y)))  # (K',)
    least = np.fmin.reduceat(low, starts)
    greatest = np.fmax.reduceat(high, starts)
    means = np.add.reduceat(np.where(finite, y, 0.0), starts) / np.where(count, count, np.nan)
    means = np.clip(means, np.fmin.reduceat(y, starts), np.fmax.reduceat(y, starts))  # rounding
    return Binned(np.add.reduceat(x, starts) / sizes, means, least, greatest, count)
