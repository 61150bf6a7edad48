"""A run's state on disk: everything that the next step depends on, so that a run goes on as if never stopped.

    RUN/checkpoints/last/step-00000020.safetensors          after step 20
    RUN/checkpoints/last/step-00000020-judged.safetensors   after the evaluation that followed it
        model.*          weights and buffers
        ema.*            moving average of the weights, where there is one
        optimiser.NAME.* what AdamW keeps of a weight
        header           format, Progress, the gradient scaler, what the run is of (model, clips, classes, start), and
                         what data it learns from
    RUN/checkpoints/last/step-00000020.sha256               its checksum, as `sha256sum --check` reads it

There are no random generators in it: every random number is drawn from a key such as (seed, step, micro-batch).
A state counts once its checksum is there. On loading the checksum has to fit; otherwise the one before is taken.
"""

import logging
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from egochef.errors import InputError
from egochef.files import sha256_of, write_text
from egochef.model.checkpoint import Checkpoint, read_tensors, write_tensors
from egochef.records import from_dict, to_dict, to_flat_dict
from egochef.training.config import TrainConfig

log = logging.getLogger(__name__)

LAST = Path("checkpoints", "last")
NAME = r"step-(\d{8,})(-judged)?"
"""of a state; `state_order` sorts them"""
FORMAT = 1
SPARE_BYTES = 16 * 2**20
"""that stay free after a save, for the log and what others write"""


@dataclass(frozen=True)
class Progress:
    """Where a run stands after a step."""

    epoch: int = 0
    """whole epochs done, evaluation included"""
    step: int = 0
    """optimiser steps done, skipped ones included"""
    epoch_step: int = 0
    """those of the epoch that is under way"""
    best_epoch: int = 0
    """epoch of the best validation score, counted from 1; 0: none yet"""
    best_score: float = -1.0
    """its action accuracy, percent"""
    finished: bool = False
    """as its own run's settings had it; `is_done` asks others"""
    not_finite: int = 0
    """steps in a row up to now that were skipped because their loss or gradients were not finite"""
    micro_batch: int = 0
    """clips a device takes at once; 0: not known yet"""


def is_done(progress: Progress, config: TrainConfig) -> bool:
    """Whether nothing is left to train: as many epochs are done as are asked for, or too many without a better score.

    A run may be gone on with under other settings than it came so far with: it can have done more than is asked for,
    and one that was done may not be so any more.
    """
    is_judged = "validation" not in config.train_on
    waited = progress.epoch - progress.best_epoch
    return progress.epoch >= config.epochs or (is_judged and waited >= config.patience)


@dataclass(frozen=True)
class Parts:
    """What changes from step to step, besides `Progress`."""

    model: nn.Module
    optimiser: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    ema: nn.Module | None


@dataclass(frozen=True)
class DataHashes:
    """What a run learns from and is judged by, beside its settings."""

    num_segments: int
    """to learn from"""
    segments_sha256: str
    """of those to learn from and to judge by, with their times and classes"""
    teacher_sha256: str | None = None
    """of the file of a teacher's scores; None: there is no teacher"""


def state_name(progress: Progress) -> str:
    """What the state after a step, or after its epoch's evaluation, is called."""
    return f"step-{progress.step:08d}" + ("" if progress.epoch_step else "-judged")


def state_path(run: Path, name: str) -> Path:
    return run / LAST / f"{name}.safetensors"


def save_state(run: Path, parts: Parts, progress: Progress, about: Checkpoint, data: DataHashes, *, keep: int) -> None:
    """Write the state under its final name in one step, then its checksum; then older states than `keep` go.

    States of later steps go too: they are of a future that is done again.

    Raises:
        InputError: there is no room for it; what was saved before is still there.
    """
    tensors = {f"model.{name}": tensor for name, tensor in parts.model.state_dict().items()}
    if parts.ema is not None:
        tensors |= {f"ema.{name}": tensor for name, tensor in parts.ema.state_dict().items()}
    names = _names_of(parts)
    for number, state in parts.optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser.{names[number]}.{key}": value for key, value in state.items()}
    header = {
        "format": FORMAT,
        "progress": to_dict(progress),
        "scaler": parts.scaler.state_dict(),
        "model": to_dict(about.model),
        "clip": to_dict(about.clip),
        "verbs": about.taxonomy.verbs,
        "nouns": about.taxonomy.nouns,
        "initial_weights": about.initial_weights,
        "train_on": about.train_on,
        "held_out": about.held_out,
        "datasets": about.datasets,
        "data": to_dict(data),
    }
    name = state_name(progress)
    path = state_path(run, name)
    _make_room(run, name, sum(tensor.nbytes for tensor in tensors.values()))
    write_tensors(path, {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, header)
    write_text(path.with_suffix(".sha256"), f"{sha256_of(path)}  {path.name}\n")
    names = state_names(run)
    past = [other for other in names if state_order(other) <= state_order(name)]
    for old in set(names) - set(past[-keep:]):
        _remove(run, old)


def load_weights(
    run: Path, model: nn.Module, about: Checkpoint, data: DataHashes, name: str, *, accept_changes: bool
) -> Checkpoint:
    """Put the weights of a saved state into the model, its encoder's with them: what an encoder that is not trained
    started from may be another file by now.

    Returns:
        `about`, with the datasets that the state has learned from.

    Raises:
        InputError: it is the state of another model, of other clips, classes or another start, or has learned from what
            this run is not to learn from; names what differs. Or it learned from other segments or another teacher, and
            changes are not accepted.
    """
    path = state_path(run, name)
    tensors, header = read_tensors(path)
    if header.get("format") != FORMAT:
        raise InputError(f"{path}: state format {header.get('format')!r}, this version of EgoChef reads {FORMAT}")
    _check_same_run(path, header, about)
    if not accept_changes and "data" in header:  # older states have none
        _check_same_data(path, from_dict(DataHashes, header["data"], f"{path}: data"), data)
    _fill(path, model, tensors, "model.")
    return replace(about, datasets=tuple(sorted({*about.datasets, *header.get("datasets", ())})))


def load_state(run: Path, parts: Parts, name: str | None) -> Progress:
    """Put a saved state, which `load_weights` has seen to be this run's, into the parts.

    Args:
        name: of `newest_whole`; None: there is none, and nothing is changed.
    """
    if name is None:
        return Progress()
    path = state_path(run, name)
    tensors, header = read_tensors(path)
    _fill(path, parts.model, tensors, "model.")
    if parts.ema is not None:
        _fill(path, parts.ema, tensors, "ema." if any(name.startswith("ema.") for name in tensors) else "model.")
    names, state = _names_of(parts), parts.optimiser.state_dict()
    state["state"] = {}
    for number, weight_name in enumerate(names):
        start = f"optimiser.{weight_name}."
        if kept := {key.removeprefix(start): value for key, value in tensors.items() if key.startswith(start)}:
            state["state"][number] = kept
    parts.optimiser.load_state_dict(state)
    for weight, kept in parts.optimiser.state.items():  # in the weight's memory layout, as fused kernels take it
        for key, value in kept.items():
            if value.shape == weight.shape:
                kept[key] = torch.empty_like(weight).copy_(value)
    if header["scaler"] and parts.scaler.is_enabled():
        parts.scaler.load_state_dict(header["scaler"])
    return from_dict(Progress, header["progress"], str(path))


def newest_whole(run: Path, *, set_aside: bool = False) -> str | None:
    """Name of the newest state whose checksum fits; older ones are looked at where newer ones are damaged. None: there
    never was one.

    Args:
        set_aside: rename the damaged ones, so that they count no more.

    Raises:
        InputError: there are states, and none of them is whole.
    """
    names = state_names(run)
    damaged: list[str] = []
    for name in reversed(names):
        fault = _fault_of(state_path(run, name))
        if fault is None:
            for other in damaged if set_aside else []:
                path = state_path(run, other)
                path.with_suffix(".sha256").unlink()
                if path.exists():
                    path.replace(path.with_name(f"{path.name}.damaged"))
            return name
        log.warning("%s: %s. Going back to an older state.", state_path(run, name), fault)
        damaged.append(name)
    if names:
        raise InputError(
            f"{run / LAST}: none of its {len(names)} states is whole. Start anew with another --out, or put back a "
            "copy; the best checkpoint so far is not touched."
        )
    return None


def read_progress(run: Path, name: str) -> Progress:
    """What a state says of where the run stands.

    Raises:
        InputError: it cannot be read.
    """
    path = state_path(run, name)
    return from_dict(Progress, read_tensors(path)[1]["progress"], str(path))


def state_names(run: Path) -> list[str]:
    """Names of the states that were written to their end, oldest first."""
    names = [path.stem for path in (run / LAST).glob("step-*.sha256")]
    return sorted((name for name in names if re.fullmatch(NAME, name)), key=state_order)


def state_order(name: str) -> tuple[int, bool]:
    """To sort states by time: by the step that they are after, and the one after its evaluation last."""
    match = re.fullmatch(NAME, name)
    assert match
    return int(match[1]), match[2] is not None


def _remove(run: Path, name: str) -> None:
    """The checksum first: without it the rest does not count."""
    path = state_path(run, name)
    path.with_suffix(".sha256").unlink(missing_ok=True)
    path.unlink(missing_ok=True)


def _fault_of(path: Path) -> str | None:
    """What is wrong with a state, if anything."""
    try:
        words = path.with_suffix(".sha256").read_text(encoding="ascii").split()
        if len(words) != 2 or words[0] != sha256_of(path):
            return "damaged: its SHA-256 is another one than when it was saved"
    except (OSError, ValueError) as error:
        return f"cannot be read ({error})"
    return None


def _make_room(run: Path, name: str, num_bytes: int) -> None:
    """See that the disk takes a state; where it does not, all older ones but the newest whole one go first.

    Raises:
        InputError: it does not even so.
    """
    folder = run / LAST
    folder.mkdir(parents=True, exist_ok=True)
    known = set(state_names(run))
    for left in folder.iterdir():  # by a save that was cut off
        if ".part" in left.name or (left.suffix == ".safetensors" and left.stem not in known):
            left.unlink(missing_ok=True)
    needs = num_bytes + SPARE_BYTES
    if shutil.disk_usage(folder).free < needs:
        for old in [other for other in state_names(run) if state_order(other) <= state_order(name)][:-1]:
            _remove(run, old)
    free = shutil.disk_usage(folder).free
    if free < needs:
        raise InputError(
            f"{folder}: a state needs {needs / 1e6:.0f} MB, the disk has {free / 1e6:.0f} MB free. Free space, and go "
            "on by --resume."
        )


def _names_of(parts: Parts) -> list[str]:
    """Names of the optimiser's weights, in its order."""
    names = {id(parameter): name for name, parameter in parts.model.named_parameters()}
    return [names[id(parameter)] for group in parts.optimiser.param_groups for parameter in group["params"]]


def _fill(path: Path, module: nn.Module, tensors: dict[str, Tensor], prefix: str) -> None:
    weights = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    try:
        module.load_state_dict(weights)
    except RuntimeError as error:
        raise InputError(f"{path}: not a state of this run ({str(error).splitlines()[1].strip()})") from None


def _check_same_run(path: Path, header: dict[str, Any], about: Checkpoint) -> None:
    """
    Raises:
        InputError: the state is of something else; names all that differs.
    """
    differences = list(_differences(header, about))
    if differences:
        raise InputError(
            f"{path}: the state of another run: {'; '.join(differences)}. Use the data and settings that the run was "
            "started with, or start a new one with another --out."
        )


def _check_same_data(path: Path, theirs: DataHashes, ours: DataHashes) -> None:
    """
    Raises:
        InputError: other segments than those that the state has learned from or was judged by, or another teacher.
    """
    if theirs.segments_sha256 != ours.segments_sha256:
        counts = f"{theirs.num_segments:,} to learn from then, {ours.num_segments:,} now"
        what, mend = f"other segments, or with other times or classes ({counts})", "the annotations"
    elif theirs.teacher_sha256 != ours.teacher_sha256:
        what, mend = "other scores of its teacher", "the file"
    else:
        return
    raise InputError(
        f"{path}: the run came so far with {what}. Put back {mend} that it was started with, go on with "
        "--accept-changes, or start a new one with another --out."
    )


def _differences(header: dict[str, Any], about: Checkpoint) -> Iterator[str]:
    for kind, record in (("model", about.model), ("clip", about.clip)):
        there = to_flat_dict(from_dict(type(record), header[kind], kind))
        for name, value in to_flat_dict(record).items():
            if there[name] != value:
                yield f"its {kind}.{name} is {there[name]!r}, this run's {value!r}"
    for kind, names in (("verb", about.taxonomy.verbs), ("noun", about.taxonomy.nouns)):
        saved = header[f"{kind}s"]
        if len(saved) != len(names):
            yield f"it has {len(saved)} {kind} classes, this run {len(names)}"
        else:
            for number, (theirs, ours) in enumerate(zip(saved, names, strict=True)):
                if theirs != ours:
                    yield f"its {kind} class {number} is {theirs!r}, this run's {ours!r}"
                    break
    if "initial_weights" not in header:  # of an older version
        return
    if header["initial_weights"] != about.initial_weights:
        yield f"its encoder started from {header['initial_weights']!r}, this run's from {about.initial_weights!r}"
    if seen := sorted(set(header["train_on"]) - set(about.train_on)):
        yield f"it has learned from {', '.join(seen)}, which this run does not"
    if seen := sorted(set(about.held_out) - set(header["held_out"])):
        yield f"it has learned from {', '.join(seen)}, whom this run holds out"
