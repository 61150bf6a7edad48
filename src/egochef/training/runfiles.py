"""A run's folder on disk.

RUN/config.json                      the TrainConfig
RUN/log.jsonl                        a line per step, evaluation and epoch (docs/training.md names the fields)
RUN/sessions.jsonl                   a line per start: when, where, with what (training/card)
RUN/checkpoints/best.safetensors     the best model so far
RUN/checkpoints/last/                states to go on from (training/state)
RUN/features/                        kept features, where the run trains from features of its own (inference/features)
RUN/lock                             held by the process that works on the run
RUN/diverged.json                    only of a run that stopped because its numbers were not finite: the steps and clips
RUN/MODEL_CARD.md                    of a finished run (training/card)
RUN/scores/                          what its best checkpoint says of a split, once it was asked (report/scores)
"""

import errno
import json
import math
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, TextIO

from egochef.errors import InputError
from egochef.files import sweep, write_json, write_text
from egochef.inference.features import ENCODER_FILE
from egochef.records import parse_json, to_dict, to_flat_dict
from egochef.training.config import TrainConfig, load_config
from egochef.training.state import Progress

CONFIG, LOG, SESSIONS, LOCK, DIVERGED = "config.json", "log.jsonl", "sessions.jsonl", "lock", "diverged.json"
BEFORE_START = {"code", "slurm", "logs", LOCK}
"""what may be in a run's folder before it starts: what a scheduler's job needs"""
HARMLESS = {"num_workers", "save_minutes", "keep", "trackers"}
"""settings that may change without a word: they do not change what comes out"""
FROM_DATA = {"model.num_verbs", "model.num_nouns"}
"""what the data decides; whether a state has the same classes is looked at when it is read"""


def start_run(run: Path, config: TrainConfig, *, resume: bool, accept_changes: bool = False) -> bool:
    """Make a run's folder, or find the run to go on with. Returns whether there is one to go on with.

    Args:
        accept_changes: go on although settings have changed.

    Raises:
        InputError: the folder holds a run and `resume` is off; or it holds a run of another config, or something else.
    """
    path = run / CONFIG
    if path.is_file():
        if not resume:
            raise InputError(f"{run}: holds a run already. Go on with it by --resume, or choose another --out.")
        saved = load_config(path)
        ours, theirs = to_flat_dict(config), to_flat_dict(saved)
        changed = [name for name in ours if ours[name] != theirs[name]]
        silent = HARMLESS | FROM_DATA
        telling = [name for name in changed if name not in silent and not _is_kept_encoder(name, ours, theirs)]
        if telling and not accept_changes:
            listed = ", ".join(f"{name} = {theirs[name]!r}, not {ours[name]!r}" for name in telling)
            raise InputError(
                f"{path}: the run was started with {listed}. Resume with the same settings, with --accept-changes, or "
                "choose another --out."
            )
        return True
    refuse_others(run)
    keep_config(run, config)
    return False


def keep_config(run: Path, config: TrainConfig) -> None:
    """Write RUN/config.json, where it says something else."""
    path = run / CONFIG
    if not path.is_file() or load_config(path) != config:
        write_json(path, to_dict(config))


def keep_end(run: Path, config: TrainConfig) -> None:
    """Write the epochs and patience that end a run into RUN/config.json; all else stays as it was trained."""
    keep_config(run, replace(load_config(run / CONFIG), epochs=config.epochs, patience=config.patience))


def _is_kept_encoder(name: str, ours: dict[str, Any], theirs: dict[str, Any]) -> bool:
    """The encoder of a features folder that has moved; whether it is the same encoder is looked at by its hash."""
    return name == "init" and Path(ours[name]).name == Path(theirs[name]).name == ENCODER_FILE


def refuse_others(run: Path) -> None:
    """
    Raises:
        InputError: the folder is neither a run's, nor new, nor holds only what a scheduler puts there before.
    """
    if (run / CONFIG).is_file() or not run.exists():
        return
    if not run.is_dir() or any(path.name not in BEFORE_START and ".part" not in path.name for path in run.iterdir()):
        raise InputError(f"{run}: exists and is not a run. Choose another --out.")


def add_session(run: Path, fields: dict[str, Any]) -> None:
    """A line into RUN/sessions.jsonl."""
    with (run / SESSIONS).open("a", encoding="utf-8") as file:
        file.write(json.dumps(fields) + "\n")


@contextmanager
def locked(run: Path) -> Iterator[None]:
    """Hold the run against other processes. The system lets go of it when this process ends, however that happens.

    Raises:
        InputError: another process works on it.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    try:
        run.mkdir(parents=True, exist_ok=True)
        file = (run / LOCK).open("a+", encoding="utf-8")
    except OSError as error:
        raise InputError(f"{run}: cannot be written ({error.strerror}). Choose another --out.") from None
    with file:
        try:
            # A record lock, not flock: data workers are forked, and must not hold it on when this process was killed.
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EAGAIN):
                raise InputError(f"{run / LOCK}: cannot be locked ({error.strerror}), choose another disk.") from None
            file.seek(0)
            raise InputError(
                f"{run}: is in use by {file.read().strip() or 'another process'}. Wait for it, or end it first."
            ) from None
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
        if (run / CONFIG).is_file():  # left by those that were killed, and held the lock before
            for place in (run, run / "checkpoints"):
                sweep(place, pattern=".*.part*", is_ours=True)
        yield


class RunLog:
    """Appends to RUN/log.jsonl; going on after a step drops the lines that came later."""

    def __init__(self, run: Path, progress: Progress):
        self.path = run / LOG
        self.lines = [line for line in read_log(run) if _is_past(line, progress)] if self.path.is_file() else []
        """all so far"""
        write_text(self.path, "".join(json.dumps(line) + "\n" for line in self.lines))
        self._file: TextIO = self.path.open("a", encoding="utf-8")

    def write(self, **fields: Any) -> dict[str, Any]:
        """One line, returned as it was written; a number that is not finite becomes null, as JSON has no word for it.

        Raises:
            InputError: the disk is full, or the like.
        """
        for name, value in fields.items():
            if isinstance(value, float) and not math.isfinite(value):
                fields[name] = None
        try:
            self._file.write(json.dumps(fields) + "\n")
            self._file.flush()
        except OSError as error:
            raise InputError(
                f"{self.path}: cannot be written ({error.strerror}). Free space, and go on by --resume."
            ) from None
        self.lines.append(fields)
        return fields

    def flush(self) -> None:
        """Onto the disk, before a state that counts on it."""
        try:
            os.fsync(self._file.fileno())
        except OSError as error:
            raise InputError(f"{self.path}: cannot be written ({error.strerror}). Free space.") from None

    def of_epoch(self, epoch: int) -> list[dict[str, Any]]:
        """The step lines of an epoch."""
        lines = []
        for line in reversed(self.lines):
            if line["epoch"] < epoch:
                break
            lines.append(line)
        return [line for line in reversed(lines) if line["kind"] == "step"]

    def close(self) -> None:
        with suppress(OSError):  # it could not be written, which was told
            self._file.close()


def _is_past(line: dict[str, Any], progress: Progress) -> bool:
    """Whether a line was written before the state was saved."""
    if line["kind"] == "step":
        return line["step"] <= progress.step
    return line["epoch"] <= progress.epoch


def read_log(run: Path) -> Iterator[dict[str, Any]]:
    """The lines of a run's log; a last line that a crash cut off is left out.

    Raises:
        InputError: a line that is no JSON object with a kind and an epoch, by its number.
    """
    lines = (run / LOG).read_text(encoding="utf-8", errors="replace").splitlines()
    for number, line in enumerate(lines, 1):
        try:
            fields = parse_json(line)
        except ValueError:
            if number < len(lines):
                raise InputError(f"{run / LOG}, line {number}: not JSON") from None
            return
        if not isinstance(fields, dict) or not {"kind", "epoch"} <= set(fields):
            raise InputError(f"{run / LOG}, line {number}: not a line of a run's log, it has no kind or no epoch")
        yield fields
