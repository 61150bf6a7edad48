"""A run's folder on disk.

RUN/config.json                      the TrainConfig
RUN/log.jsonl                        a line per step and per evaluation (docs/training.md names the fields)
RUN/checkpoints/best.safetensors     the best model so far
RUN/checkpoints/last/epoch-0003.safetensors   everything needed to go on after that epoch
RUN/features/                        kept features, where the run trains from features of its own (inference/features)
"""

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import torch
from torch import nn

from egochef.errors import InputError
from egochef.files import write_json, write_text
from egochef.model.checkpoint import read_tensors, write_tensors
from egochef.records import from_dict, to_dict, to_flat_dict
from egochef.training.config import TrainConfig, load_config

LAST = Path("checkpoints", "last")


@dataclass(frozen=True)
class Progress:
    """Where a run stands after a whole epoch."""

    epoch: int = 0
    """epochs done"""
    step: int = 0
    """optimiser steps done"""
    best_epoch: int = 0
    """epoch of the best validation score, counted from 1; 0: none yet"""
    best_score: float = -1.0
    """its action accuracy, percent"""
    finished: bool = False


def start_run(run: Path, config: TrainConfig, *, resume: bool) -> bool:
    """Make a run's folder, or find the run to go on with. Returns whether there is one to go on with.

    Raises:
        InputError: the folder holds a run and `resume` is off; or it holds a run of another config, or something else.
    """
    path = run / "config.json"
    if path.is_file():
        if not resume:
            raise InputError(f"{run}: holds a run already. Go on with it by --resume, or choose another --out.")
        saved = load_config(path)
        if saved != config:
            ours, theirs = to_flat_dict(config), to_flat_dict(saved)
            name = next(name for name in ours if ours[name] != theirs[name])
            raise InputError(
                f"{path}: the run was started with {name} = {theirs[name]!r}, not {ours[name]!r}. "
                "Resume with the same settings, or choose another --out."
            )
        return True
    if run.exists() and (not run.is_dir() or any(run.iterdir())):
        raise InputError(f"{run}: exists and is not a run. Choose another --out.")
    write_json(path, to_dict(config))
    return False


def save_last(run: Path, model: nn.Module, optimiser: torch.optim.Optimizer, progress: Progress) -> None:
    """Everything needed to go on after an epoch; then older states are removed."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    tensors = {f"model.{name}": tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    for parameter, state in optimiser.state.items():
        for key, value in state.items():
            tensors[f"optimiser.{names[id(parameter)]}.{key}"] = value.detach().cpu().contiguous()
    path = run / LAST / f"epoch-{progress.epoch:04d}.safetensors"
    write_tensors(path, tensors, {"progress": to_dict(progress)})
    for old in (run / LAST).glob("epoch-*.safetensors"):
        if old != path:
            old.unlink()


def load_last(run: Path, model: nn.Module, optimiser: torch.optim.Optimizer) -> Progress:
    """Put the newest saved state into model and optimiser; a run stopped in its first epoch starts over.

    Raises:
        InputError: the saved state is not whole, or not of this model.
    """
    path = _newest_state(run)
    if path is None:
        return Progress()
    tensors, header = read_tensors(path)
    prefix = "model."
    weights = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise InputError(f"{path}: not a state of this run ({str(error).splitlines()[0]})") from None
    for group in optimiser.param_groups:
        for parameter in group["params"]:
            optimiser.state[parameter] = {}
    for name, parameter in model.named_parameters():
        for key in ("step", "exp_avg", "exp_avg_sq"):
            saved = tensors.get(f"optimiser.{name}.{key}")
            if saved is not None:
                optimiser.state[parameter][key] = saved if key == "step" else saved.to(parameter.device)
    return from_dict(Progress, header["progress"], str(path))


def read_progress(run: Path) -> Progress:
    """Where a run stands by its newest saved state; at its start if there is none.

    Raises:
        InputError: the saved state is not whole.
    """
    path = _newest_state(run)
    return from_dict(Progress, read_tensors(path)[1]["progress"], str(path)) if path else Progress()


def _newest_state(run: Path) -> Path | None:
    return max((run / LAST).glob("epoch-*.safetensors"), default=None)


class RunLog:
    """Appends to RUN/log.jsonl; going on after an epoch drops the lines that came later."""

    def __init__(self, run: Path, epochs_done: int):
        path = run / "log.jsonl"
        kept = [line for line in read_log(run) if line["epoch"] <= epochs_done] if path.is_file() else []
        write_text(path, "".join(json.dumps(line) + "\n" for line in kept))
        self._file: TextIO = path.open("a", encoding="utf-8")

    def write(self, **fields: Any) -> None:
        """One line; a number that is not finite becomes null, as JSON has no word for it."""
        for name, value in fields.items():
            if isinstance(value, float) and not math.isfinite(value):
                fields[name] = None
        self._file.write(json.dumps(fields) + "\n")
        self._file.flush()

    def close(self) -> None:
        self._file.close()


def read_log(run: Path) -> Iterator[dict[str, Any]]:
    """The lines of a run's log; a last line that a crash cut off is left out."""
    lines = (run / "log.jsonl").read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines, 1):
        try:
            yield json.loads(line)
        except ValueError:
            if number < len(lines):
                raise InputError(f"{run / 'log.jsonl'}, line {number}: not JSON") from None
