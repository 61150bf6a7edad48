"""A run that is ready for its next step: everything that a TrainConfig and data come to, and where the run stands.

In: config, data, the run's folder. Out: a `Run` and its `Progress`, new or as it was saved.
"""

import hashlib
import json
import logging
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from egochef.data.annotations import SPLIT_FILES, DataFolder, Segment, open_data_folder, read_split
from egochef.data.dataset import ClipDataset
from egochef.data.frames import open_frames
from egochef.data.known import UNKNOWN, known_dataset
from egochef.engines.torch_engine import TorchEngine
from egochef.errors import InputError
from egochef.files import sha256_of
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
from egochef.inference.make_features import PRECISION_NAMES, Source, feature_spec, make_features
from egochef.inference.scoring import score_features, score_segments, truth_of
from egochef.model.checkpoint import Checkpoint
from egochef.model.recogniser import Recogniser
from egochef.model.weights import load_initial_weights
from egochef.model.weights_files import read_weights
from egochef.ranks import Ranks
from egochef.records import to_flat_dict
from egochef.runtime import num_cpus, pick_device, pick_dtype, seed_torch
from egochef.scoring.metrics import Truth
from egochef.scoring.table import ScoreTable
from egochef.stopping import StopSignals
from egochef.taxonomy import ACTION_BASE
from egochef.training.card import CARD, describe_start
from egochef.training.config import TrainConfig, with_features
from egochef.training.guide import make_guide, pairs_of
from egochef.training.runfiles import RunLog, add_session, keep_config, keep_end, locked, refuse_others, start_run
from egochef.training.sources import FeatureSource, VideoSource, find_micro_batch, num_steps
from egochef.training.state import (
    DataHashes,
    Progress,
    is_done,
    load_state,
    load_weights,
    newest_whole,
    read_progress,
    save_state,
)
from egochef.training.step import Learner
from egochef.training.trackers import Trackers, open_trackers

log = logging.getLogger(__name__)

OnStep = Callable[[Progress], bool | None]
"""gets where the run stands after a step; True stops it"""
FEATURES = "features"
"""where a run that trains from features of its own keeps them"""


@dataclass(frozen=True)
class Validation:
    """How a run's progress is judged."""

    truth: Truth
    score: Callable[[TorchEngine], ScoreTable]


@dataclass
class Run:
    """The parts of a run that stay the same over its steps, and when its state was last saved."""

    config: TrainConfig
    folder: Path
    about: Checkpoint
    data: DataHashes
    learner: Learner
    judged: TorchEngine
    """runs the weights that are evaluated and kept"""
    source: VideoSource | FeatureSource
    validation: Validation | None
    """None: validation is trained on"""
    stop: StopSignals
    ranks: Ranks
    log: RunLog | None = None
    """rank 0's"""
    trackers: Trackers | None = None
    """rank 0's"""
    saved: Progress | None = None
    """of the last state that was saved"""
    saved_at_s: float = field(default_factory=time.monotonic)
    not_finite: list[dict[str, Any]] = field(default_factory=list)
    """the last steps that were skipped because their loss or gradients were not finite"""
    on_step: OnStep | None = None
    """called after each step"""

    @property
    def steps_an_epoch(self) -> int:
        return num_steps(self.source.num_segments, self.config.batch_size)

    def write(self, **fields: Any) -> dict[str, Any]:
        """A line into the log, and on to who watches."""
        line = fields
        if self.log:
            line = self.log.write(**fields)
        if self.trackers:
            self.trackers.write(line)
        return line

    def close(self) -> None:
        """End worker processes, trackers and log."""
        self.source.close()
        if self.trackers:
            self.trackers.close()
        if self.log:
            self.log.close()

    def save(self, progress: Progress) -> None:
        """Save the state, on rank 0.

        Raises:
            InputError: the disk has no room for it.
        """
        if self.log and progress != self.saved:
            self.log.flush()
            save_state(self.folder, self.learner.parts, progress, self.about, self.data, keep=self.config.keep)
        self.saved, self.saved_at_s = progress, time.monotonic()

    def try_to_save(self, progress: Progress) -> None:
        """As `save`; a full disk is told, and the run goes on: what was saved before is still there."""
        try:
            self.save(progress)
        except InputError as error:
            log.warning("the state after step %d could not be saved: %s", progress.step, error)
            self.saved_at_s = time.monotonic()


def begin_run(
    config: TrainConfig,
    data: Path,
    out: Path,
    resume: bool,
    accept_changes: bool,
    device_name: str | None,
    stop: StopSignals,
    ranks: Ranks,
    held: ExitStack,
) -> tuple[Run | None, Progress]:
    """Everything up to the first step that is still to be done; None for a run that is finished.

    Args:
        held: gets the lock of the run's folder, which is taken once data and settings are seen to be right.
    """
    device = pick_device(device_name)
    if device.type == "cuda":
        device = ranks.device if ranks.num_ranks > 1 else device
        torch.cuda.set_device(device)
    if config.num_workers is None and ranks.launch.local_ranks > 1:
        config = replace(config, num_workers=max(1, num_cpus() // ranks.launch.local_ranks))
    folder = open_data_folder(data, config.participants)
    config, kept, segments, held_out, sources = _open_data(config, folder)
    recogniser = _build_recogniser(config, folder, kept, segments)
    config = replace(config, model=replace(recogniser.config, action_ids=()))  # the actions are in the checkpoint
    guide = make_guide(config, recogniser.config, segments, device)
    name: str | None = None
    if ranks.is_first:
        refuse_others(out)
        held.enter_context(locked(out))
    if ranks.is_first and start_run(out, config, resume=resume, accept_changes=accept_changes):
        name = newest_whole(out, set_aside=True)
    name = ranks.from_first(name)
    if name is not None and is_done(ended := read_progress(out, name), config):
        if ranks.is_first:
            keep_end(out, replace(config, epochs=max(config.epochs, ended.epoch)))
        return None, replace(ended, finished=True)

    dataset = known_dataset(folder)
    about = _about(config, recogniser, folder, kept, dataset)
    hashes = _hash_data(config, segments, held_out)
    if name is not None:  # before the engine folds an encoder that is not trained, or makes features with it
        about = load_weights(out, recogniser, about, hashes, name, accept_changes=accept_changes)
        if kept and weights_sha256(recogniser.encoder) != kept.spec.encoder_sha256:
            raise InputError(f"{data}: features of another encoder than those that the run in {out} was started with")
    engine = _build_engine(config, recogniser, about, device)
    if sources and config.feature_views:
        if ranks.is_first:
            begun = _start_of(config)
            spec = feature_spec(
                engine,
                config.augment,
                seed=config.seed,
                initial_weights=about.initial_weights,
                encoder_trained_on=begun.train_on if begun else (),
            )
            views, workers = config.feature_views, config.num_workers
            make_features(engine, folder, out / FEATURES, spec, *sources, num_views=views, num_workers=workers)
        ranks.from_first(True)  # the others wait here
        sources = None
    learner = Learner(engine, config, ranks, guide)
    source: VideoSource | FeatureSource
    if sources:
        source, validation = _from_pictures(config, folder, device, ranks, *sources)
    else:
        source, validation = _from_features(
            config, folder, device, ranks, data if kept else out / FEATURES, segments, held_out
        )
    judged = engine
    if learner.ema is not None:
        judged = TorchEngine(
            learner.ema, config.clip, about.taxonomy, device, engine.dtype, encoder_is_final=config.encoder_is_fixed
        )
    progress = load_state(out, learner.parts, name)
    saved = progress if name is not None else None
    progress = replace(progress, finished=False)  # it may have been, and more epochs are asked for now
    if name is not None:
        log.info("going on after step %d, in epoch %d", progress.step, progress.epoch + 1)
    if not progress.micro_batch or accept_changes:
        micro_batch = ranks.least(find_micro_batch(config, device, engine.dtype, ranks.num_ranks))
        progress = replace(progress, micro_batch=micro_batch)
    run = Run(config, out, about, hashes, learner, judged, source, validation, stop, ranks, saved=saved)
    if ranks.is_first:
        start = describe_start(
            data=data,
            device=device,
            num_ranks=ranks.num_ranks,
            precision=PRECISION_NAMES[engine.dtype],
            resumed_step=progress.step,
            dataset=dataset,
            num_segments={"train": len(segments), "validation": len(held_out)},
        )
        keep_config(out, config)
        (out / CARD).unlink(missing_ok=True)  # of a finished run; it gets another
        add_session(out, start)
        run.log = RunLog(out, progress)
        run.trackers = open_trackers(config.trackers, out, to_flat_dict(config), progress.step)
        _count_again(run)
    return run, progress


def spread(segments: tuple[Segment, ...], most: int | None) -> tuple[Segment, ...]:
    """At most that many segments, evenly spread over all."""
    if most is None or len(segments) <= most:
        return segments
    return tuple(segments[int(place)] for place in np.linspace(0, len(segments) - 1, most))


# What a run is made of


def _open_data(
    config: TrainConfig, folder: DataFolder
) -> tuple[
    TrainConfig, FeaturesAbout | None, tuple[Segment, ...], tuple[Segment, ...], tuple[Source, Source | None] | None
]:
    """What there is to learn from and to judge by.

    Returns:
        The config as the data wants it; what a features folder says of itself, else None; the segments to learn from,
        those to judge by; and where the pictures of both come from, None for a features folder.
    """
    kept = open_about(folder.root) if is_features(folder.root) else None
    if kept:
        config = with_features(config, folder.root, kept)
        if config.held_out and "train" in kept.spec.encoder_trained_on:
            raise InputError(
                f"{folder.root}: the encoder of these features has learned from everybody's training segments, also "
                f"from those of {', '.join(config.held_out)}, who are to be held out. Make others."
            )
    segments = tuple(segment for split in config.train_on for segment in read_split(folder, split))
    segments = spread(_without(segments, config.held_out), config.max_train_segments)
    held_out = () if "validation" in config.train_on else read_split(folder, "validation")
    held_out = spread(held_out, config.max_validation_segments)
    sources: tuple[Source, Source | None] | None = None
    if not kept:
        to_learn = (segments, open_frames(folder, segments, config.clip.grid))
        to_judge = (held_out, open_frames(folder, held_out, config.clip.grid)) if held_out else None
        sources = (to_learn, to_judge)
        grid = to_learn[1].grid
        if grid != config.clip.grid:
            log.info("%s: candidate times as in the store, %s", folder.root, grid)
            config = replace(config, clip=replace(config.clip, grid=grid))
    return config, kept, segments, held_out, sources


def _without(segments: tuple[Segment, ...], participants: tuple[str, ...]) -> tuple[Segment, ...]:
    """The segments of all others."""
    there = {segment.participant_id for segment in segments}
    if missing := sorted(set(participants) - there):
        raise InputError(
            f"held_out: {', '.join(missing)} have no segments to learn from, expected some of "
            f"{', '.join(sorted(there))}"
        )
    if there and there <= set(participants):
        raise InputError("held_out: all participants are held out, and nobody's segments are left to learn from")
    return tuple(segment for segment in segments if segment.participant_id not in participants)


def _build_recogniser(
    config: TrainConfig, folder: DataFolder, kept: FeaturesAbout | None, segments: tuple[Segment, ...]
) -> Recogniser:
    """Random weights from the seed, the encoder's from what the config starts from, or as kept features have it."""
    taxonomy = folder.taxonomy
    model = replace(config.model, num_verbs=taxonomy.num_verbs, num_nouns=taxonomy.num_nouns)
    if model.joint:
        model = replace(
            model, action_ids=tuple(sorted({verb * ACTION_BASE + noun for verb, noun in pairs_of(segments)}))
        )
    seed_torch(config.seed)
    recogniser = Recogniser(model)
    if kept:
        load_encoder(folder.root, recogniser.encoder, kept.spec)
        log.info("encoder %s, clips and augmentation as in %s", config.model.encoder, folder.root)
    else:
        _check_unseen(config)
        report = load_initial_weights(
            recogniser.encoder, config.model.encoder, config.init, partial=config.init_partial
        )
        log.info("encoder %s starts from %s", config.model.encoder, report.source)
    return recogniser


def _start_of(config: TrainConfig) -> Checkpoint | None:
    """The checkpoint of ours that a run starts from; None where it is something else."""
    return None if config.init in ("imagenet", "none") else read_weights(Path(config.init)).about


def _check_unseen(config: TrainConfig) -> None:
    """
    Raises:
        InputError: the run starts from a checkpoint that has learned from those who are to be held out.
    """
    start = _start_of(config)
    if config.held_out and start and "train" in start.train_on and not set(config.held_out) <= set(start.held_out):
        raise InputError(
            f"{config.init}: has learned from the training segments of {', '.join(config.held_out)}, who are to be "
            "held out. Start from another file, or from imagenet."
        )


def _about(
    config: TrainConfig, recogniser: Recogniser, folder: DataFolder, kept: FeaturesAbout | None, dataset: str
) -> Checkpoint:
    """What the run's checkpoints say; whatever the encoder of kept features has seen counts too.

    Args:
        dataset: what the folder's is called, of `data.known`.
    """
    start = config.init if config.init in ("imagenet", "none") else Path(config.init).name
    seen, datasets = set(config.train_on), {dataset}
    if not kept and (begun := _start_of(config)):
        seen |= set(begun.train_on)
        datasets |= set(begun.datasets or (UNKNOWN,))
    if kept:
        start = kept.spec.initial_weights
        seen |= set(kept.spec.encoder_trained_on)
        datasets |= {UNKNOWN} if kept.spec.encoder_trained_on else set()  # most often it was this one
    train_on = tuple(split for split in SPLIT_FILES if split in seen)
    return Checkpoint(
        recogniser.config,
        config.clip,
        folder.taxonomy,
        config.recipe,
        start,
        train_on,
        config.held_out,
        config.num_views,
        datasets=tuple(sorted(datasets)),
    )


def _hash_data(config: TrainConfig, segments: Sequence[Segment], held_out: Sequence[Segment]) -> DataHashes:
    fields = [
        [(each.narration_id, each.video_id, each.start_s, each.stop_s, each.verb, each.noun) for each in part]
        for part in (segments, held_out)
    ]
    return DataHashes(
        num_segments=len(segments),
        segments_sha256=hashlib.sha256(json.dumps(fields).encode()).hexdigest(),
        teacher_sha256=sha256_of(Path(config.teacher)) if config.teacher else None,
    )


def _build_engine(config: TrainConfig, recogniser: Recogniser, about: Checkpoint, device: torch.device) -> TorchEngine:
    dtype = pick_dtype(device, config.precision)
    return TorchEngine(recogniser, config.clip, about.taxonomy, device, dtype, encoder_is_final=config.encoder_is_fixed)


def _from_pictures(
    config: TrainConfig,
    folder: DataFolder,
    device: torch.device,
    ranks: Ranks,
    to_learn: Source,
    to_judge: Source | None,
) -> tuple[VideoSource, Validation | None]:
    clip_of = config.clip_of if config.progressive else None
    dataset = ClipDataset(*to_learn, config.clip, augment=config.augment, seed=config.seed, clip_of=clip_of)
    source = VideoSource(dataset, config, device, rank=ranks.rank, num_ranks=ranks.num_ranks)
    if not to_judge:
        return source, None

    def score(engine: TorchEngine) -> ScoreTable:
        return score_segments(
            engine, *to_judge, num_views=config.num_views, num_workers=config.num_workers, ranks=ranks
        )

    return source, Validation(truth_of(folder, "validation", to_judge[0]), score)


def _from_features(
    config: TrainConfig,
    folder: DataFolder,
    device: torch.device,
    ranks: Ranks,
    root: Path,
    segments: tuple[Segment, ...],
    held_out: tuple[Segment, ...],
) -> tuple[FeatureSource, Validation | None]:
    features = Features(root, TRAINING, segments, num_views=config.feature_views)
    if features.num_replaced:
        total = features.num_views * features.num_segments
        log.warning("%s: %d of %d clips stand for some that could not be read", root, features.num_replaced, total)
    narration_id = np.array([segment.narration_id for segment in segments])
    source = FeatureSource(features, narration_id, config, device, rank=ranks.rank, num_ranks=ranks.num_ranks)
    if not held_out:
        return source, None
    if "validation" in features.about.spec.encoder_trained_on:
        log.warning("%s: the encoder was trained on validation, whose scores will be too good", root)
    kept = Features(root, EVALUATION, held_out)

    def score(engine: TorchEngine) -> ScoreTable:
        return score_features(engine, held_out, kept, ranks=ranks)

    return source, Validation(truth_of(folder, "validation", held_out), score)


def _count_again(run: Run) -> None:
    """What could not be read before a run was gone on with still counts."""
    if run.log and isinstance(run.source, VideoSource):
        for line in run.log.lines:
            if line["kind"] == "step":
                run.source.failures.num_samples += line["num_clips"]
                run.source.failures.by_video.update(line.get("unreadable", {}))
