"""Which runs there are, and how far each has come.

In: folders. Out: a `RunInfo` for every run below them, also for one that is damaged. Nothing of a run is changed or
held up: its lock is only asked who has it, its weights are not read.
"""

import errno
import os
import struct
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from egochef.errors import InputError
from egochef.model.checkpoint import BEST
from egochef.records import from_dict
from egochef.training.card import best_evaluation, read_header
from egochef.training.config import TrainConfig, load_config
from egochef.training.runfiles import CONFIG, DIVERGED, LOCK, LOG, SESSIONS, read_log
from egochef.training.state import LAST, Progress, is_done, state_names, state_path

SORTS = ("score", "time", "name")
FLOCK = "hhqqi4x"
"""struct flock of 64-bit Linux: type, whence, start, length, process"""
INSIDE = {"checkpoints", "features", "report", "scores", "tensorboard", "wandb"}
"""folders of a run that hold no others"""


@dataclass(frozen=True)
class RunInfo:
    """A run as it stands."""

    path: str
    state: str
    """running, finished, stopped, empty (no step yet), or damaged"""
    fault: str | None = None
    """what is wrong with its files"""
    recipe: str | None = None
    encoder: str | None = None
    num_frames: int | None = None
    epochs_done: int = 0
    epochs: int | None = None
    """at most"""
    steps: int = 0
    """in its log"""
    best_epoch: int | None = None
    verb: float | None = None
    """top-1 on validation in the best epoch by action, percent; as are the next two"""
    noun: float | None = None
    action: float | None = None
    changed: str | None = None
    """when its log last grew, UTC"""


def find_runs(folders: Sequence[Path]) -> list[RunInfo]:
    """Every run in or below the folders, each once, in the order of their paths.

    Raises:
        InputError: a folder is not there.
    """
    found: dict[Path, RunInfo] = {}
    for folder in folders:
        if not folder.is_dir():
            raise InputError(f"{folder}: no such folder. Name one that holds runs, such as outputs.")
        for run in _run_folders(folder):
            found.setdefault(run.resolve(), look_at(run))
    return list(found.values())


def sort_runs(runs: Sequence[RunInfo], by: str) -> list[RunInfo]:
    """By score (the best action accuracy first), time (the last change first) or name."""
    named = sorted(runs, key=lambda run: run.path)
    if by == "score":
        return sorted(named, key=lambda run: -1.0 if run.action is None else run.action, reverse=True)
    if by == "time":
        return sorted(named, key=lambda run: run.changed or "", reverse=True)
    return named


def _run_folders(folder: Path) -> Iterator[Path]:
    """Folders with a config.json and something that only a run has; links are not followed."""
    for root, names, files in os.walk(folder):
        path = Path(root)
        names[:] = sorted(name for name in names if not name.startswith("."))
        if CONFIG in files and ({LOG, SESSIONS, LOCK} & set(files) or (path / LAST).is_dir()):
            names[:] = [name for name in names if name not in INSIDE]
            yield path


def look_at(run: Path) -> RunInfo:
    """How a run stands. A damaged one is told by its `fault`, with whatever else could be read."""
    known: dict[str, Any] = {"changed": _changed(run)}
    fault = None
    progress, finished = Progress(), False
    try:
        config = load_config(run / CONFIG)
        known |= _of_config(config)
        lines = list(read_log(run)) if (run / LOG).is_file() else []
        known |= _of_log(lines)
        progress = _newest_progress(run)
        finished = is_done(progress, config)
        if progress.best_epoch:
            read_header(run / BEST)
    except (InputError, OSError, KeyError, TypeError) as error:
        fault = str(error) if isinstance(error, InputError) else f"{run}: cannot be read ({error!r})"
    known["epochs_done"] = max(known.get("epochs_done", 0), progress.epoch)
    if is_in_use(run):
        state = "running"
    elif fault is not None:
        state = "damaged"
    elif finished:
        state = "finished"
    elif known.get("steps") or progress.step or (run / DIVERGED).exists():
        state = "stopped"
    else:
        state = "empty"
    return RunInfo(path=str(run), state=state, fault=fault, **known)


def _of_config(config: TrainConfig) -> dict[str, Any]:
    return {
        "recipe": config.recipe,
        "encoder": config.model.encoder,
        "num_frames": config.clip.num_frames,
        "epochs": config.epochs,
    }


def _of_log(lines: list[dict[str, Any]]) -> dict[str, Any]:
    done = [line["epoch"] for line in lines if line["kind"] in ("evaluation", "epoch")]
    known: dict[str, Any] = {
        "steps": max((line["step"] for line in lines if line["kind"] == "step"), default=0),
        "epochs_done": max(done, default=0),
    }
    if best := best_evaluation(lines):
        known["best_epoch"] = best["epoch"]
        known |= {task: best.get(f"all_{task}_accuracy_at_1") for task in ("verb", "noun", "action")}
    return known


def _newest_progress(run: Path) -> Progress:
    """By the header of the newest saved state."""
    states = [state_path(run, name) for name in state_names(run)]
    if not states:  # older versions of EgoChef named them after epochs
        states = sorted((run / LAST).glob("epoch-[0-9]*.safetensors"), key=lambda path: (len(path.name), path.name))
    if not states:
        return Progress()
    fields = read_header(states[-1]).fields
    return from_dict(Progress, fields.get("progress"), f"{states[-1]}: progress")


def _changed(run: Path) -> str | None:
    for name in (LOG, CONFIG):
        try:
            seconds = (run / name).stat().st_mtime
        except OSError:
            continue
        return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
    return None


def is_in_use(run: Path) -> bool:
    """Whether another process holds the run's lock. Not to be asked by the one that holds it: it would let go."""
    try:
        import fcntl
    except ImportError:  # Windows
        return False
    try:
        with (run / LOCK).open("rb") as file:
            if sys.platform == "linux" and sys.maxsize > 2**32:
                # Only ask who has it: taking it, even for a moment, could refuse a run that starts in that moment.
                ask = struct.pack(FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
                return struct.unpack(FLOCK, fcntl.fcntl(file, fcntl.F_GETLK, ask))[0] != fcntl.F_UNLCK
            try:
                fcntl.lockf(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except OSError as error:
                return error.errno in (errno.EACCES, errno.EAGAIN)
            return False
    except OSError:  # there is no lock, or a disk that has none
        return False
