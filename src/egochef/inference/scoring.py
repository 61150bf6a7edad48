"""Scores of a whole split: segments in, a ScoreTable out. Nothing is ever skipped.

Also what joins annotations and metrics: the truth of a split.
"""

import logging
from collections.abc import Iterator
from contextlib import closing

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from egochef.data.annotations import DataFolder, Segment
from egochef.data.dataset import Batch, Batches, ClipDataset, Key, make_loader, split_evenly
from egochef.data.frames import Frames, open_frames
from egochef.engines.engine import ClipEngine, Engine
from egochef.engines.torch_engine import TorchEngine
from egochef.errors import InputError
from egochef.inference.features import Features, is_features
from egochef.ranks import Ranks
from egochef.runtime import num_cpus
from egochef.scoring.metrics import Truth
from egochef.scoring.table import ScoreTable

log = logging.getLogger(__name__)

ENCODE_FRAMES = {"cpu": 16, "mps": 128, "cuda": 1024}
"""frames in one encoder call, by device; on a CPU more of them fall out of its caches, a quarter slower at 64"""
CLASSIFY_CLIPS = 256
"""clips whose kept features are classified at once"""


def truth_of(folder: DataFolder, split: str, segments: tuple[Segment, ...]) -> Truth:
    """What the official metrics need to know of a split.

    Raises:
        InputError: the split has no labels.
    """
    if not folder.labelled(split):
        raise InputError(f"the {split} split has no labels: its scores come from the competition (egochef submit)")
    unseen = folder.unseen_participants.get(split, frozenset())
    return Truth(
        narration_id=np.array([segment.narration_id for segment in segments]),
        verb=np.array([segment.verb for segment in segments]),
        noun=np.array([segment.noun for segment in segments]),
        tail_verbs=folder.tail_verbs,
        tail_nouns=folder.tail_nouns,
        unseen=np.array([segment.participant_id in unseen for segment in segments]),
    )


def read_batches(
    engine: ClipEngine, dataset: ClipDataset, keys: list[Key], *, num_workers: int | None = None, title: str
) -> Iterator[Batch]:
    """Clips in the keys' order, as many at once as suit the engine's device.

    Raises:
        FrameError: a sample that cannot be read, by its narration id.
    """
    plan = split_evenly(keys, max(1, ENCODE_FRAMES[engine.device.type] // engine.clip.num_frames))
    workers = default_workers(engine.device, len(plan)) if num_workers is None else num_workers
    loader = make_loader(dataset, Batches(plan), num_workers=workers, pin_memory=engine.device.type == "cuda")
    with tqdm(total=len(keys), desc=title, unit="clip", disable=None, leave=False) as bar, closing(loader):
        for batch in loader:
            yield batch
            bar.update(len(batch.segment))


def encode_batches(
    engine: Engine, dataset: ClipDataset, keys: list[Key], *, num_workers: int | None = None, title: str
) -> Iterator[tuple[Batch, Tensor]]:
    """Clips in the keys' order with their features (B, T, D) on the engine's device.

    Raises:
        FrameError: a sample that cannot be read, by its narration id.
    """
    for batch in read_batches(engine, dataset, keys, num_workers=num_workers, title=title):
        if batch.colour is None:
            yield batch, engine.encode(batch.frames)
        else:  # features for training: torch alone changes colours
            assert isinstance(engine, TorchEngine)
            yield batch, engine.encode(batch.frames, batch.colour)


def score_segments(
    engine: ClipEngine,
    segments: tuple[Segment, ...],
    frames: Frames,
    *,
    num_views: int = 1,
    num_workers: int | None = None,
    title: str = "scoring",
    ranks: Ranks | None = None,
) -> ScoreTable:
    """Log-probabilities of every segment, the mean over its views.

    Args:
        ranks: they share the segments out among them, and each gets the whole table.

    Raises:
        FrameError: a segment that cannot be read, by its narration id.
        InputError: a score that is not finite.
    """
    taxonomy = engine.taxonomy
    verb = np.zeros((len(segments), taxonomy.num_verbs))
    noun = np.zeros((len(segments), taxonomy.num_nouns))
    dataset = ClipDataset(segments, frames, engine.clip, num_views=num_views)
    ranks = ranks or Ranks()
    keys: list[Key] = [(0, position, position) for position in range(ranks.rank, len(dataset), ranks.num_ranks)]
    for batch in read_batches(engine, dataset, keys, num_workers=num_workers, title=title):
        logits = engine.clip_logits(batch.frames)
        places = batch.segment.numpy()
        np.add.at(verb, places, logits.verb.softmax(1).double().cpu().numpy() / num_views)
        np.add.at(noun, places, logits.noun.softmax(1).double().cpu().numpy() / num_views)
    verb, noun = (ranks.sum(torch.from_numpy(probs)).numpy() for probs in (verb, noun))  # 0 where another rank's
    return _table(segments, verb, noun)


def score_features(
    engine: Engine, segments: tuple[Segment, ...], features: Features, *, ranks: Ranks | None = None
) -> ScoreTable:
    """As `score_segments`, from the kept features of the segments' evaluation clips.

    Raises:
        InputError: features are damaged, or a score is not finite.
    """
    ranks = ranks or Ranks()
    verb = np.zeros((len(segments), engine.taxonomy.num_verbs))
    noun = np.zeros((len(segments), engine.taxonomy.num_nouns))
    groups = np.array_split(np.arange(len(segments)), -(-len(segments) // CLASSIFY_CLIPS))
    for places in groups[ranks.rank :: ranks.num_ranks]:
        logits = engine.classify(features.read(np.zeros_like(places), places))
        verb[places] = logits.verb.softmax(1).double().cpu().numpy()
        noun[places] = logits.noun.softmax(1).double().cpu().numpy()
    verb, noun = (ranks.sum(torch.from_numpy(probs)).numpy() for probs in (verb, noun))  # 0 where another rank's
    return _table(segments, verb, noun)


def score_split(
    engine: ClipEngine, folder: DataFolder, split: str, segments: tuple[Segment, ...], *, num_views: int = 1
) -> ScoreTable:
    """Score a data folder's split with a checkpoint of the same taxonomy.

    Raises:
        InputError: the checkpoint's classes are not the folder's, or a video is missing or cannot be read.
    """
    if engine.taxonomy != folder.taxonomy:
        ours, theirs = engine.taxonomy, folder.taxonomy
        raise InputError(
            f"{folder.root}: its classes ({theirs.num_verbs} verbs, {theirs.num_nouns} nouns) are not the checkpoint's "
            f"({ours.num_verbs}, {ours.num_nouns}), or are named otherwise. Use the data that it was trained for."
        )
    if num_views < 1:
        raise InputError(f"{num_views} views of a segment: expected at least 1")
    if is_features(folder.root):
        raise InputError(f"{folder.root}: holds features, not pictures. Give the data folder or store they are of.")
    frames = open_frames(folder, segments, engine.clip.grid)
    if frames.grid != engine.clip.grid:
        log.warning(
            "%s: its candidate times (%s) are not those that the checkpoint was trained with (%s)",
            folder.root,
            frames.grid,
            engine.clip.grid,
        )
    return score_segments(engine, segments, frames, num_views=num_views, title=f"scoring {split}")


def default_workers(device: torch.device, num_batches: int) -> int:
    """Decoding processes: the processors there are, but few enough to be worth starting."""
    cpus = num_cpus()
    wanted = cpus if device.type != "cpu" else max(1, cpus // 2)  # the CPU has the model to compute too
    return min(wanted, 16, num_batches) if num_batches > 4 else 0


def _table(segments: tuple[Segment, ...], verb: np.ndarray, noun: np.ndarray) -> ScoreTable:
    for kind, probs in (("verb", verb), ("noun", noun)):
        bad = np.flatnonzero(~np.isfinite(probs).all(axis=1))
        if len(bad):
            name = segments[bad[0]].narration_id
            raise InputError(
                f"{len(bad)} segments have {kind} scores that are not finite, the first is {name}; try --precision fp32"
            )
    tiny = np.finfo(np.float32).tiny
    return ScoreTable(
        narration_id=np.array([segment.narration_id for segment in segments]),
        verb_output=np.log(np.maximum(verb, tiny)).astype(np.float32),
        noun_output=np.log(np.maximum(noun, tiny)).astype(np.float32),
        kind="logits",
    )
