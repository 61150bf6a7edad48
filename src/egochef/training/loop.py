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

from egochef.data.annotations import SPLIT_FILES, DataFolder, Segment, open_data_folder, read_split
from egochef.data.dataset import ClipDataset
from egochef.data.frames import open_frames
from egochef.engines.torch_engine import TorchEngine
from egochef.errors import InputError
from egochef.inference.features import (
    EVALUATION,
    TRAINING,
    Features,
    FeaturesAbout,
    is_features,
    load_encoder,
    open_about,
    weights_sha256,
)
from egochef.inference.make_features import Source, feature_spec, make_features
from egochef.inference.scoring import ENCODE_FRAMES, score_features, score_segments, truth_of
from egochef.model.checkpoint import BEST, Checkpoint, save_checkpoint
from egochef.model.recogniser import Recogniser, encode_frames
from egochef.model.weights import load_initial_weights
from egochef.runtime import mixed_precision, pick_device, pick_dtype, seed_torch
from egochef.scoring.metrics import Truth, evaluate
from egochef.scoring.table import ScoreTable
from egochef.training.config import TrainConfig, with_features
from egochef.training.objective import lr_at, recognition_loss
from egochef.training.runfiles import Progress, RunLog, load_last, read_progress, save_last, start_run
from egochef.training.sources import FeatureSource, MicroBatch, VideoSource, find_micro_batch

log = logging.getLogger(__name__)

FEATURES = "features"
"""where a run that trains from features of its own keeps them"""
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
        data: a data folder in EK-100's layout, a store, or a features folder; with the latter, encoder, ClipSpec and
            augmentation are those that it was made with.
        out: the run's folder; must be new, or a run's to `resume`.
        device: the best there is if left out.

    Returns:
        Where the run ended.

    Raises:
        InputError: a fault in the data, the weights or the folder, or too many samples that cannot be read.
    """
    where = pick_device(device)
    folder = open_data_folder(data, config.participants)
    kept = open_about(data) if is_features(data) else None
    if kept:
        config = with_features(config, data, kept)
    segments = tuple(segment for split in config.train_on for segment in read_split(folder, split))
    segments = spread(segments, config.max_train_segments)
    held_out = () if "validation" in config.train_on else read_split(folder, "validation")
    held_out = spread(held_out, config.max_validation_segments)
    sources: tuple[Source, Source | None] | None = None
    if not kept:
        to_learn = (segments, open_frames(folder, segments, config.clip.grid))
        to_judge = (held_out, open_frames(folder, held_out, config.clip.grid)) if held_out else None
        sources = (to_learn, to_judge)
        grid = to_learn[1].grid
        if grid != config.clip.grid:
            log.info("%s: candidate times as in the store, %s", data, grid)
            config = replace(config, clip=replace(config.clip, grid=grid))
    recogniser = _build_recogniser(config, folder, kept)
    resuming = start_run(out, config, resume=resume)
    if resuming and (ended := read_progress(out)).finished:
        log.info("%s: finished already", out)
        return ended

    about = _about(config, recogniser, folder, kept)
    engine = _build_engine(config, recogniser, about, where)
    if sources and config.feature_views:
        spec = feature_spec(engine, config.augment, seed=config.seed, initial_weights=about.initial_weights)
        views, workers = config.feature_views, config.num_workers
        make_features(engine, folder, out / FEATURES, spec, *sources, num_views=views, num_workers=workers)
        sources = None
    if sources:
        run = _run_on_pictures(config, out, folder, about, engine, *sources)
    else:
        run = _run_on_features(config, out, folder, about, engine, data if kept else out / FEATURES, segments, held_out)
    progress = load_last(out, recogniser, run.optimiser) if resuming else Progress()
    if progress.epoch:
        if kept and weights_sha256(recogniser.encoder) != kept.spec.encoder_sha256:
            raise InputError(f"{data}: features of another encoder than those that the run in {out} was started with")
        log.info("going on after epoch %d", progress.epoch)
    run_log = RunLog(out, progress.epoch)
    try:
        while not progress.finished:
            progress = _run_epoch(run, progress, run_log)
    finally:
        run_log.close()
    if isinstance(run.source, VideoSource):
        for video_id, count in run.source.failures.by_video.most_common():
            log.warning("%s: %d training samples could not be read and were replaced", video_id, count)
    return progress


def spread(segments: tuple[Segment, ...], most: int | None) -> tuple[Segment, ...]:
    """At most that many segments, evenly spread over all."""
    if most is None or len(segments) <= most:
        return segments
    return tuple(segments[int(place)] for place in np.linspace(0, len(segments) - 1, most))


def _build_recogniser(config: TrainConfig, folder: DataFolder, kept: FeaturesAbout | None) -> Recogniser:
    """Random weights from the seed, the encoder's from what the config starts from, or as kept features have it."""
    taxonomy = folder.taxonomy
    seed_torch(config.seed)
    recogniser = Recogniser(replace(config.model, num_verbs=taxonomy.num_verbs, num_nouns=taxonomy.num_nouns))
    if kept:
        load_encoder(folder.root, recogniser.encoder, kept.spec)
        log.info("encoder %s, clips and augmentation as in %s", config.model.encoder, folder.root)
    else:
        report = load_initial_weights(recogniser.encoder, config.model.encoder, config.init)
        log.info("encoder %s starts from %s", config.model.encoder, report.source)
    return recogniser


def _about(config: TrainConfig, recogniser: Recogniser, folder: DataFolder, kept: FeaturesAbout | None) -> Checkpoint:
    """What the run's checkpoints say; whatever the encoder of kept features has seen counts too."""
    start = config.init if config.init in ("imagenet", "none") else Path(config.init).name
    seen = set(config.train_on)
    if kept:
        start = kept.spec.initial_weights
        seen |= set(kept.spec.encoder_trained_on)
    train_on = tuple(split for split in SPLIT_FILES if split in seen)
    return Checkpoint(recogniser.config, config.clip, folder.taxonomy, config.recipe, start, train_on)


def _build_engine(config: TrainConfig, recogniser: Recogniser, about: Checkpoint, device: torch.device) -> TorchEngine:
    if config.encoder_is_fixed:
        recogniser.encoder.requires_grad_(False)
    dtype = pick_dtype(device, config.precision)
    return TorchEngine(recogniser, config.clip, about.taxonomy, device, dtype, encoder_is_final=config.encoder_is_fixed)


def _run_on_pictures(
    config: TrainConfig,
    out: Path,
    folder: DataFolder,
    about: Checkpoint,
    engine: TorchEngine,
    to_learn: Source,
    to_judge: Source | None,
) -> Run:
    dataset = ClipDataset(*to_learn, config.clip, augment=config.augment, seed=config.seed)
    source = VideoSource(dataset, config, engine.device, find_micro_batch(config, engine.device, engine.dtype))
    validation = None
    if to_judge:
        validation = Validation(
            truth_of(folder, "validation", to_judge[0]),
            lambda: score_segments(engine, *to_judge, num_workers=config.num_workers),
        )
    return _run(config, out, about, engine, source, validation)


def _run_on_features(
    config: TrainConfig,
    out: Path,
    folder: DataFolder,
    about: Checkpoint,
    engine: TorchEngine,
    root: Path,
    segments: tuple[Segment, ...],
    held_out: tuple[Segment, ...],
) -> Run:
    features = Features(root, TRAINING, segments, num_views=config.feature_views)
    if features.num_replaced:
        total = features.num_views * features.num_segments
        log.warning("%s: %d of %d clips stand for some that could not be read", root, features.num_replaced, total)
    validation = None
    if held_out and "validation" in features.about.spec.encoder_trained_on:
        log.warning("%s: the encoder was trained on validation, whose scores will be too good", root)
    if held_out:
        judged = Features(root, EVALUATION, held_out)
        validation = Validation(
            truth_of(folder, "validation", held_out), lambda: score_features(engine, held_out, judged)
        )
    return _run(config, out, about, engine, FeatureSource(features, config, engine.device), validation)


def _run(
    config: TrainConfig,
    out: Path,
    about: Checkpoint,
    engine: TorchEngine,
    source: VideoSource | FeatureSource,
    validation: Validation | None,
) -> Run:
    scaler = torch.amp.GradScaler(engine.device.type, enabled=engine.dtype == torch.float16)
    return Run(config, out, about, engine, source, make_optimiser(engine.recogniser, config), scaler, validation)


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
    elif run.config.encoder_is_fixed:
        logits = recogniser.classify(_encode_fixed(run.engine, micro.inputs))
    else:
        with mixed_precision(run.engine.device, run.engine.dtype):
            logits = recogniser(micro.inputs)
    verb_loss, noun_loss = recognition_loss(
        logits, micro.verb, micro.noun, micro.partner, micro.own_share, run.config.label_smoothing
    )
    run.scaler.scale((verb_loss + noun_loss) * micro.step_share).backward()
    return torch.stack([verb_loss + noun_loss, verb_loss, noun_loss]).detach().float() * micro.step_share


@torch.no_grad()
def _encode_fixed(engine: TorchEngine, inputs: torch.Tensor) -> torch.Tensor:
    """Normalised frames (B, T, 3, H, W) -> features (B, T, D) float32 of an encoder that no gradient goes through."""
    group = max(1, ENCODE_FRAMES[engine.device.type] // inputs.shape[1])
    with mixed_precision(engine.device, engine.dtype):
        return torch.cat([encode_frames(engine.encoder, part) for part in inputs.split(group)]).float()


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
