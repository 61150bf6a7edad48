"""The training loop: a TrainConfig and a data folder in, a run's folder with its best checkpoint out."""

import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from egochef.data.annotations import DataFolder, Segment, find_videos, open_data_folder, read_split
from egochef.data.dataset import ClipDataset
from egochef.engines.torch_engine import TorchEngine
from egochef.errors import InputError
from egochef.inference.features import eval_features, train_features
from egochef.inference.scoring import score_features, score_segments, truth_of
from egochef.model.checkpoint import BEST, Checkpoint, save_checkpoint
from egochef.model.recogniser import Recogniser
from egochef.model.weights import load_initial_weights
from egochef.runtime import mixed_precision, pick_device, pick_dtype, seed_torch
from egochef.scoring.metrics import Truth, evaluate
from egochef.scoring.table import ScoreTable
from egochef.training.config import TrainConfig
from egochef.training.objective import lr_at, recognition_loss
from egochef.training.runfiles import Progress, RunLog, load_last, read_progress, save_last, start_run
from egochef.training.sources import FeatureSource, MicroBatch, VideoSource, find_micro_batch

log = logging.getLogger(__name__)

MAX_LOSSES_NOT_FINITE = 20
"""optimiser steps in a row"""


@dataclass(frozen=True)
class Validation:
    """How a run's progress is judged."""

    truth: Truth
    score: Callable[[], ScoreTable]


@dataclass(frozen=True)
class Run:
    """The parts of a run that stay the same over its epochs."""

    config: TrainConfig
    folder: Path
    about: Checkpoint
    engine: TorchEngine
    source: VideoSource | FeatureSource
    optimiser: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    validation: Validation | None
    """None: validation is trained on"""


def train(config: TrainConfig, data: Path, out: Path, *, resume: bool = False, device: str | None = None) -> Progress:
    """Train a recogniser and keep the best one (by validation action accuracy) in the run's folder.

    Args:
        data: a data folder in EK-100's layout.
        out: the run's folder; must be new, or a run's to `resume`.
        device: the best there is if left out.

    Returns:
        Where the run ended.

    Raises:
        InputError: a fault in the data, the weights or the folder, or too many samples that cannot be read.
    """
    where = pick_device(device)
    folder = open_data_folder(data)
    segments = tuple(segment for split in config.train_on for segment in read_split(folder, split))
    segments = spread(segments, config.max_train_segments)
    held_out = () if "validation" in config.train_on else read_split(folder, "validation")
    held_out = spread(held_out, config.max_validation_segments)
    videos = find_videos(folder, segments + held_out)
    recogniser = _build_recogniser(config, folder)
    resuming = start_run(out, config, resume=resume)
    if resuming and (ended := read_progress(out)).finished:
        log.info("%s: finished already", out)
        return ended

    run = _build_run(config, out, folder, recogniser, segments, held_out, videos, where)
    progress = load_last(out, recogniser, run.optimiser) if resuming else Progress()
    if progress.epoch:
        log.info("going on after epoch %d", progress.epoch)
    run_log = RunLog(out, progress.epoch)
    try:
        while not progress.finished:
            progress = _run_epoch(run, progress, run_log)
    finally:
        run_log.close()
    for video_id, count in run.source.failures.by_video.most_common():
        log.warning("%s: %d training samples could not be read and were replaced", video_id, count)
    return progress


def spread(segments: tuple[Segment, ...], most: int | None) -> tuple[Segment, ...]:
    """At most that many segments, evenly spread over all."""
    if most is None or len(segments) <= most:
        return segments
    return tuple(segments[int(place)] for place in np.linspace(0, len(segments) - 1, most))


def _build_recogniser(config: TrainConfig, folder: DataFolder) -> Recogniser:
    """Random weights from the seed, the encoder's from what the config starts from."""
    taxonomy = folder.taxonomy
    seed_torch(config.seed)
    recogniser = Recogniser(replace(config.model, num_verbs=taxonomy.num_verbs, num_nouns=taxonomy.num_nouns))
    report = load_initial_weights(recogniser.encoder, config.model.encoder, config.init)
    log.info("encoder %s starts from %s", config.model.encoder, report.source)
    return recogniser


def _build_run(
    config: TrainConfig,
    out: Path,
    folder: DataFolder,
    recogniser: Recogniser,
    segments: tuple[Segment, ...],
    held_out: tuple[Segment, ...],
    videos: dict[str, Path],
    device: torch.device,
) -> Run:
    start = config.init if config.init in ("imagenet", "none") else Path(config.init).name
    about = Checkpoint(recogniser.config, config.clip, folder.taxonomy, config.recipe, start, config.train_on)
    dtype = pick_dtype(device, config.precision)
    heads_only = config.feature_views > 0
    if heads_only:
        recogniser.encoder.requires_grad_(False)
    engine = TorchEngine(recogniser, config.clip, folder.taxonomy, device, dtype, encoder_is_final=heads_only)

    source: VideoSource | FeatureSource
    validation = None
    if heads_only:
        features, failures = train_features(
            engine,
            segments,
            videos,
            config.augment,
            num_views=config.feature_views,
            seed=config.seed,
            num_workers=config.num_workers,
        )
        source = FeatureSource(features, failures, config, device)
        if held_out:
            kept = eval_features(engine, held_out, videos)
            validation = Validation(
                truth_of(folder, "validation", held_out), lambda: score_features(engine, held_out, kept)
            )
    else:
        dataset = ClipDataset(segments, videos, config.clip, augment=config.augment, seed=config.seed)
        source = VideoSource(dataset, config, device, find_micro_batch(config, device, dtype))
        if held_out:
            validation = Validation(
                truth_of(folder, "validation", held_out),
                lambda: score_segments(engine, held_out, videos, num_workers=config.num_workers),
            )
    scaler = torch.amp.GradScaler(device.type, enabled=dtype == torch.float16)
    return Run(config, out, about, engine, source, make_optimiser(recogniser, config), scaler, validation)


def make_optimiser(recogniser: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """AdamW over what is to be trained; weight decay on matrices and kernels only."""
    trained = [parameter for parameter in recogniser.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=config.lr)


def _run_epoch(run: Run, progress: Progress, run_log: RunLog) -> Progress:
    """Train one epoch, validate, save. Returns the new progress."""
    epoch = progress.epoch + 1
    seed_torch(run.config.seed, epoch)  # dropout depends on (seed, epoch), so that a resumed run goes the same way
    step = _train_epoch(run, epoch, progress.step, run_log)
    progress = replace(progress, epoch=epoch, step=step, finished=epoch == run.config.epochs)
    metrics: dict[str, float] = {}
    if run.validation:
        started = time.perf_counter()
        metrics = evaluate(run.validation.score(), run.validation.truth)
        took_ms = round((time.perf_counter() - started) * 1000)
        run_log.write(kind="evaluation", epoch=epoch, step=step, split="validation", eval_ms=took_ms, **metrics)
        score = metrics["all_action_accuracy_at_1"]
        log.info("epoch %d: validation action accuracy %.2f %%", epoch, score)
        if score > progress.best_score:
            progress = replace(progress, best_epoch=epoch, best_score=score)
        elif epoch - progress.best_epoch >= run.config.patience:
            log.info("no better score for %d epochs: stopping", run.config.patience)
            progress = replace(progress, finished=True)
    else:
        progress = replace(progress, best_epoch=epoch)
    if progress.best_epoch == epoch:
        save_checkpoint(run.folder / BEST, run.engine.recogniser, replace(run.about, scores=metrics))
    save_last(run.folder, run.engine.recogniser, run.optimiser, progress)
    return progress


def _train_epoch(run: Run, epoch: int, step: int, run_log: RunLog) -> int:
    """One pass over the training segments. Returns the number of optimiser steps done in the run."""
    config, source = run.config, run.source
    run.engine.recogniser.train()
    num_steps = max(1, source.num_segments // config.batch_size)
    first_step, not_finite = step, 0
    title = f"epoch {epoch}/{config.epochs}"
    with tqdm(total=source.num_segments, desc=title, unit="clip", disable=None, leave=False) as bar:
        losses, num_clips, data_s, step_s = torch.zeros(3, device=run.engine.device), 0, 0.0, 0.0
        mark = time.perf_counter()
        for micro in source.epoch(epoch):
            arrived = time.perf_counter()
            losses += _backward(run, micro)
            num_clips += len(micro.verb)
            data_s += arrived - mark
            if micro.ends_step:
                progress_epochs = (epoch - 1) + (step - first_step + 1) / num_steps
                lr = lr_at(progress_epochs, lr=config.lr, warmup_epochs=config.warmup_epochs, epochs=config.epochs)
                grad_norm = _update(run, lr)
                step += 1
                loss, verb_loss, noun_loss = losses.tolist()
            mark = time.perf_counter()
            step_s += mark - arrived
            bar.update(len(micro.verb))
            if micro.ends_step:
                run_log.write(
                    kind="step",
                    epoch=epoch,
                    step=step,
                    lr=lr,
                    loss=loss,
                    verb_loss=verb_loss,
                    noun_loss=noun_loss,
                    grad_norm=grad_norm,
                    num_clips=num_clips,
                    data_ms=round(data_s * 1000, 2),
                    step_ms=round(step_s * 1000, 2),
                )
                bar.set_postfix(loss=f"{loss:.3f}", refresh=False)
                not_finite = 0 if math.isfinite(loss) else not_finite + 1
                _stop_if_lost(run, not_finite, step)
                losses, num_clips, data_s, step_s = torch.zeros_like(losses), 0, 0.0, 0.0
    return step


def _stop_if_lost(run: Run, not_finite: int, step: int) -> None:
    if not_finite >= MAX_LOSSES_NOT_FINITE:
        raise InputError(
            f"{run.folder}: the loss was not finite for {not_finite} steps up to step {step}. "
            "Lower --lr or use --precision fp32; the best checkpoint so far is kept."
        )


def _backward(run: Run, micro: MicroBatch) -> torch.Tensor:
    """Add a micro-batch's gradients; its (loss, verb loss, noun loss) as shares of its step's, on the device."""
    recogniser = run.engine.recogniser
    if isinstance(run.source, FeatureSource):
        logits = recogniser.classify(micro.inputs)
    else:
        with mixed_precision(run.engine.device, run.engine.dtype):
            logits = recogniser(micro.inputs)
    verb_loss, noun_loss = recognition_loss(
        logits, micro.verb, micro.noun, micro.partner, micro.own_share, run.config.label_smoothing
    )
    run.scaler.scale((verb_loss + noun_loss) * micro.step_share).backward()
    return torch.stack([verb_loss + noun_loss, verb_loss, noun_loss]).detach().float() * micro.step_share


def _update(run: Run, lr: float) -> float:
    """One optimiser step, left out where gradients are not finite. Returns the gradients' norm."""
    for group in run.optimiser.param_groups:
        group["lr"] = lr
    run.scaler.unscale_(run.optimiser)
    trained = [p for group in run.optimiser.param_groups for p in group["params"]]
    norm = nn.utils.clip_grad_norm_(trained, run.config.max_grad_norm).item()
    if run.scaler.is_enabled() or math.isfinite(norm):
        run.scaler.step(run.optimiser)
    run.scaler.update()
    run.optimiser.zero_grad(set_to_none=True)
    return norm
