"""The training loop: a TrainConfig and a data folder in, a run's folder with its best checkpoint out.

One process, or several ranks that share each step's clips. Rank 0 writes the folder's files; what is decided from step
to step is decided alike on all ranks.
"""

import logging
import math
import time
from collections import Counter
from collections.abc import Callable, Generator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from egochef.errors import InputError, Stopped
from egochef.files import write_json
from egochef.model.checkpoint import BEST, save_checkpoint
from egochef.ranks import join_ranks
from egochef.scoring.metrics import evaluate
from egochef.stopping import StopSignals
from egochef.training.card import CARD, write_card
from egochef.training.config import TrainConfig
from egochef.training.objective import lr_at
from egochef.training.run import OnStep, Run, begin_run
from egochef.training.runfiles import DIVERGED
from egochef.training.sources import MicroBatch
from egochef.training.state import Progress, is_done
from egochef.training.step import OutOfMemoryError, StepResult, StepTimer
from egochef.training.trackers import check_trackers

log = logging.getLogger(__name__)

MAX_NOT_FINITE = 20
"""optimiser steps in a row whose loss or gradients are not finite, after which a run stops; fp16 may begin with 16 such
steps, until its scale has come down from 65,536 to 1"""

OnEpoch = Callable[[dict[str, Any], dict[str, float]], None]
"""gets an epoch's line of the log and its official metrics (none where nothing is judged)"""


def train(
    config: TrainConfig,
    data: Path,
    out: Path,
    *,
    resume: bool = False,
    accept_changes: bool = False,
    device: str | None = None,
    on_epoch: OnEpoch | None = None,
    on_step: OnStep | None = None,
) -> Progress:
    """Train a recogniser and keep the best one (by validation action accuracy) in the run's folder.

    Args:
        data: a data folder in EK-100's layout, a store, or a features folder; with the latter, encoder, ClipSpec and
            augmentation are those that it was made with.
        out: the run's folder; must be new, or a run's to `resume`. Several ranks need it on a disk that all see.
        accept_changes: resume although settings have changed.
        device: the best there is if left out.
        on_step: called after each step, on every rank; the run stops with its state saved where it returns True.

    Returns:
        Where the run ended.

    Raises:
        InputError: a fault in the data, the weights or the folder, too many samples that cannot be read, a loss or
            gradients that stay not finite, a rank that was lost, or the run is in use.
        Stopped: by a signal or `on_step`; the state is saved.
    """
    check_trackers(config.trackers)
    with StopSignals() as stop, join_ranks(device and device.split(":")[0]) as ranks, ExitStack() as held:
        run, progress = begin_run(config, data, out, resume, accept_changes, device, stop, ranks, held)
        with stop.deferred():
            if run is None:
                log.info("%s", _why_done(out, progress, config))
            else:
                run.on_step = on_step
                progress = _run_to_the_end(run, progress, on_epoch)
            if ranks.is_first and (run or not (out / CARD).is_file()):
                write_card(out)
        return progress


def _why_done(out: Path, progress: Progress, config: TrainConfig) -> str:
    """Of a run that is asked to go on and has nothing left to train."""
    if progress.epoch >= config.epochs:
        why = f"{progress.epoch} epochs are done, the settings ask for {config.epochs}"
    else:
        why = (
            f"no better score in {progress.epoch - progress.best_epoch} epochs, after {config.patience} it was to stop"
        )
    return (
        f"{out}: finished already: {why}. Nothing was trained. To train on, ask for more (--epochs, --set patience=) "
        "with --accept-changes."
    )


def _run_to_the_end(run: Run, progress: Progress, on_epoch: OnEpoch | None) -> Progress:
    try:
        while not progress.finished:
            progress = _train_epoch(run, progress)
            progress = _end_epoch(run, progress, on_epoch)
        _tell_unreadable(run)
        return progress
    finally:
        run.close()
        if run.ranks.end_together:
            run.ranks.from_first(True)  # a launcher may end the others when the first one has ended


# From step to step


def _train_epoch(run: Run, progress: Progress) -> Progress:
    """The epoch's steps from where the run stands.

    Raises:
        Stopped: by a signal, or because only a new process can go on; the state is saved.
    """
    epoch, total = progress.epoch + 1, run.steps_an_epoch
    batch_size = min(run.config.batch_size, run.source.num_segments)
    title, done = f"epoch {epoch}/{run.config.epochs}", progress.epoch_step * batch_size
    spent_ms = Counter[str]()
    with tqdm(total=total * batch_size, initial=done, desc=title, unit="clip", disable=None, leave=False) as bar:
        while progress.epoch_step < total:
            micros = run.source.epoch(epoch, progress.epoch_step, progress.micro_batch)
            try:
                while progress.epoch_step < total:
                    progress, times_ms = _one_step(run, progress, micros)
                    spent_ms.update({name: times_ms[name] for name in ("data_ms", "step_ms")})
                    bar.update(batch_size)
                    bar.set_postfix_str(f"waiting {spent_ms['data_ms'] / spent_ms['step_ms']:.0%}", refresh=False)
            except OutOfMemoryError as error:
                progress = _with_less_at_once(run, progress, str(error))
                if error.process_is_lost:
                    _save_and_stop(run, progress, "want of memory, after which oneDNN needs a new process,")
            finally:
                micros.close()
    return progress


def _with_less_at_once(run: Run, progress: Progress, why: str) -> Progress:
    """Half the micro-batch, and so twice the accumulation, from the step on that did not fit."""
    before = progress.micro_batch
    if before == 1:
        raise InputError(
            f"{run.folder}: the device has no room for a single clip of {run.config.clip.num_frames} frames ({why}). "
            "Use --gradient-checkpointing, smaller pictures, --precision bf16, or a device with more memory."
        )
    log.warning(
        "step %d: out of memory with %d clips at once, going on with %d", progress.step + 1, before, (before + 1) // 2
    )
    return replace(progress, micro_batch=(before + 1) // 2)


def _one_step(run: Run, progress: Progress, micros: Generator[MicroBatch]) -> tuple[Progress, dict[str, float]]:
    """Take a step, write its line, save if it is time to. Returns the new progress and the step's times."""
    config, epoch, step = run.config, progress.epoch + 1, progress.step + 1
    timer = StepTimer(run.learner.engine.device)
    at = progress.epoch + (progress.epoch_step + 1) / run.steps_an_epoch
    lr = lr_at(at, lr=config.lr, warmup_epochs=config.warmup_epochs, epochs=config.epochs)
    result = run.learner.take_step(micros, step, lr, timer)
    times_ms = timer.read_ms()
    progress = replace(
        progress,
        step=step,
        epoch_step=progress.epoch_step + 1,
        not_finite=progress.not_finite + 1 if result.skipped else 0,
    )
    asked = bool(run.on_step and run.on_step(progress))
    stopping, num_clips, num_failed = run.ranks.sum(
        torch.tensor([asked or run.stop.received is not None, len(result.segment), len(result.failures)])
    ).tolist()
    line: dict[str, Any] = {
        "kind": "step",
        "epoch": epoch,
        "step": step,
        "lr": lr,
        "loss": result.loss,
        "verb_loss": result.verb_loss,
        "noun_loss": result.noun_loss,
        **({} if result.action_loss is None else {"action_loss": result.action_loss}),
        "grad_norm": result.grad_norm,
        "num_clips": num_clips,
        "skipped": int(result.skipped),
    }
    if num_failed:
        line["unreadable"] = _by_video(run, result)
    run.write(**line, **times_ms)
    if result.skipped:
        _note_not_finite(run, progress, result)
    if stopping:
        _save_and_stop(run, progress, "on_step" if asked else None)
    if time.monotonic() - run.saved_at_s > 60 * config.save_minutes:
        run.try_to_save(progress)
    return progress, times_ms


def _by_video(run: Run, result: StepResult) -> dict[str, int]:
    """A step's samples that could not be read, of all ranks."""
    counted = Counter(video_id for video_id, _ in result.failures)
    total = sum((Counter(of_rank) for of_rank in run.ranks.gather(counted)), Counter[str]())
    return dict(sorted(total.items()))


def _save_and_stop(run: Run, progress: Progress, received: str | None = None) -> None:
    received = received or run.stop.received or "a signal to another rank"
    fault: str | None = None
    try:
        run.save(progress)
    except InputError as error:
        fault = str(error)
    fault = run.ranks.from_first(fault)  # all wait until it is saved
    if fault:
        raise InputError(f"stopped by {received}, and the state could not be saved: {fault}")
    run.ranks.end_together = True
    raise Stopped(
        f"{run.folder}: stopped by {received} after step {progress.step}, in epoch {progress.epoch + 1}. The state is "
        "saved; go on with the same command and --resume."
    )


def _note_not_finite(run: Run, progress: Progress, result: StepResult) -> None:
    """Tell a step that was skipped because its numbers were lost; many in a row end the run.

    Raises:
        InputError: it were MAX_NOT_FINITE in a row; RUN/diverged.json then says which clips they had.
    """
    ids = [str(name) for name in run.source.narration_id[result.segment]]
    of_all = [name for of_rank in run.ranks.gather(ids) for name in of_rank]
    numbers = {"loss": repr(result.loss), "grad_norm": repr(result.grad_norm)}
    run.not_finite.append({"step": progress.step} | numbers | {"narration_ids": of_all})
    del run.not_finite[:-MAX_NOT_FINITE]
    if not (run.learner.scaler.is_enabled() and math.isfinite(result.loss)):  # fp16's scale mends itself most times
        log.warning(
            "step %d: skipped, its loss is %s and its gradients' norm %s", progress.step, result.loss, result.grad_norm
        )
    if progress.not_finite < MAX_NOT_FINITE:
        return
    if run.ranks.is_first:
        write_json(run.folder / DIVERGED, {"steps": run.not_finite})
    raise InputError(
        f"{run.folder}: the loss or its gradients were not finite for {progress.not_finite} steps up to step "
        f"{progress.step}; their clips are in {DIVERGED}. Lower --lr or use --precision fp32. The best checkpoint so "
        "far is kept."
    )


# From epoch to epoch


def _end_epoch(run: Run, progress: Progress, on_epoch: OnEpoch | None) -> Progress:
    """Judge the epoch, keep the best, save. Returns the new progress.

    Raises:
        Stopped: by a signal; the state is saved as it was before.
    """
    epoch = progress.epoch + 1
    metrics: dict[str, float] = {}
    if run.ranks.num_ranks > 1:  # what ranks share out is not broken off, so that a signal may not wait for its end
        run.try_to_save(progress)
        run.ranks.share_buffers(run.learner.engine.recogniser, run.learner.evaluated)
    if run.validation:
        began = time.perf_counter()
        try:
            with run.stop.deferred(run.ranks.num_ranks > 1):
                metrics = evaluate(run.validation.score(run.judged), run.validation.truth)
        except Stopped:
            _save_and_stop(run, progress)
        took_ms = round((time.perf_counter() - began) * 1000)
        run.write(kind="evaluation", epoch=epoch, step=progress.step, split="validation", eval_ms=took_ms, **metrics)
    line = _epoch_line(run, epoch, progress.step)
    progress = replace(progress, epoch=epoch, epoch_step=0)
    if not run.validation:
        progress = replace(progress, best_epoch=epoch, best_score=-1.0)
    elif metrics["all_action_accuracy_at_1"] > progress.best_score:
        progress = replace(progress, best_epoch=epoch, best_score=metrics["all_action_accuracy_at_1"])
    elif epoch - progress.best_epoch >= run.config.patience:
        log.info("no better score for %d epochs: stopping", run.config.patience)
    progress = replace(progress, finished=is_done(progress, run.config))
    if on_epoch and run.ranks.is_first:
        on_epoch(line, metrics)
    if progress.best_epoch == epoch and run.ranks.is_first:
        save_checkpoint(run.folder / BEST, run.learner.evaluated, replace(run.about, scores=metrics))
    if progress.finished:
        run.save(progress)
    else:
        run.try_to_save(progress)
        if run.ranks.any(run.stop.received is not None):
            _save_and_stop(run, progress)
    return progress


def _epoch_line(run: Run, epoch: int, step: int) -> dict[str, Any]:
    """What the epoch's steps come to, from the log; {} on ranks that have none."""
    if run.log is None:
        return {}
    lines = run.log.of_epoch(epoch)
    step_s, data_s = (sum(line[name] for line in lines) / 1000 for name in ("step_ms", "data_ms"))
    num_clips = sum(line["num_clips"] for line in lines)
    losses = [line["loss"] for line in lines if line["loss"] is not None]
    return run.write(
        kind="epoch",
        epoch=epoch,
        step=step,
        loss=sum(losses) / max(1, len(losses)),
        num_clips=num_clips,
        skipped=sum(line["skipped"] for line in lines),
        unreadable=dict(sum((Counter(line.get("unreadable", {})) for line in lines), Counter[str]())),
        epoch_s=round(step_s, 3),
        clips_per_s=round(num_clips / max(step_s, 1e-9), 3),
        wait_share=round(data_s / max(step_s, 1e-9), 4),
    )


def _tell_unreadable(run: Run) -> None:
    lines = run.log.lines if run.log else []
    total = sum((Counter(line.get("unreadable", {})) for line in lines if line["kind"] == "step"), Counter[str]())
    for video_id, count in total.most_common():
        log.warning("%s: %d training samples could not be read and were replaced", video_id, count)
