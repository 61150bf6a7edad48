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

from egochef.data.annotations import DataFolder, Segment, read_split
from egochef.data.dataset import Batch, Batches, ClipDataset, Key, make_loader, split_evenly
from egochef.data.frames import Frames, open_frames
from egochef.engines.engine import ClipEngine, Engine
from egochef.engines.torch_engine import TorchEngine
from egochef.errors import InputError
from egochef.inference.features import Features, is_features
from egochef.model.checkpoint import MAX_VIEWS
from egochef.model.recogniser import Logits
from egochef.ranks import Ranks
from egochef.runtime import num_cpus
from egochef.scoring.actions import keep_best
from egochef.scoring.metrics import Truth
from egochef.scoring.prior import Prior
from egochef.scoring.table import (
    SEEN,
    UNSEEN,
    ScoreTable,
    align,
    check_classes,
    take_rows,
    wrong_classes,
)
from egochef.scoring.tuning import Tuned
from egochef.taxonomy import Taxonomy

log = logging.getLogger(__name__)

ENCODE_FRAMES = {"cpu": 16, "mps": 128, "cuda": 1024}
"""frames in one encoder call, by device; on a CPU more of them fall out of its caches, a quarter slower at 64"""
ROWS_AT_ONCE = 4096
"""segments whose scores are made ready at once: those of actions are thousands each"""
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


def prior_of(folder: DataFolder, splits: tuple[str, ...], *, without: tuple[str, ...] = ()) -> Prior:
    """What goes together in labelled splits.

    Args:
        without: participants whose segments are left out.

    Raises:
        InputError: a split has no labels.
    """
    verbs: list[int] = []
    nouns: list[int] = []
    for split in splits:
        if not folder.labelled(split):
            raise InputError(f"the {split} split has no labels, so no prior can be counted on it: expected train")
        for segment in read_split(folder, split):
            if segment.participant_id not in without:
                assert segment.verb is not None and segment.noun is not None
                verbs.append(segment.verb)
                nouns.append(segment.noun)
    if not verbs:
        raise InputError(f"{folder.root}: no segments of {' and '.join(splits)} are left to count a prior on")
    return Prior.count(verbs, nouns, folder.taxonomy.num_verbs, folder.taxonomy.num_nouns, splits)


def check_taxonomy(taxonomy: Taxonomy, folder: DataFolder, name: str) -> None:
    """Whether a model knows a data folder's classes.

    Args:
        name: what to call the model in errors, such as its file.

    Raises:
        InputError: it knows other numbers of verbs and nouns, or others by name.
    """
    if taxonomy == folder.taxonomy:
        return
    fault = wrong_classes(taxonomy.counts, folder.taxonomy.counts, str(folder.root))
    if fault is None:
        task, number, own, other = next(
            (task, number, own, other)
            for task, ours, theirs in (
                ("verb", taxonomy.verbs, folder.taxonomy.verbs),
                ("noun", taxonomy.nouns, folder.taxonomy.nouns),
            )
            for number, (own, other) in enumerate(zip(ours, theirs, strict=True))
            if own != other
        )
        fault = f"its {task} {number} is {own!r}, in {folder.root} it is {other!r}"
    raise InputError(f"{name}: {fault}. Use the data that it was trained for.")


def fitted(table: ScoreTable, folder: DataFolder, segments: tuple[Segment, ...], name: str) -> ScoreTable:
    """A file's scores in the order of a data folder's segments; of everybody's those that are asked for.

    Args:
        name: what to call the table in errors, such as its file.

    Raises:
        InputError: the scores are of other classes or segments.
    """
    check_classes(table, *folder.taxonomy.counts, name=name, whose=str(folder.root))
    ids = [segment.narration_id for segment in segments]
    if folder.participants and len(rows := np.flatnonzero(np.isin(table.narration_id, ids))) == len(ids):
        table = take_rows(table, rows)
    return align(table, ids, name=name)


def seen_labels(
    train_on: tuple[str, ...], held_out: tuple[str, ...], split: str, segments: tuple[Segment, ...]
) -> np.ndarray:
    """(S,) int8 for `ScoreTable.seen`: whether a model has learned from the labels of a split's segments.

    Args:
        train_on: splits that it was trained on.
        held_out: participants of these whose segments it was not trained on.
    """
    seen = [split in train_on and segment.participant_id not in held_out for segment in segments]
    return np.where(seen, SEEN, UNSEEN).astype(np.int8)


def labels_tuned_on(tuned: Tuned, split: str, segments: tuple[Segment, ...]) -> np.ndarray:
    """(S,) int8 for `ScoreTable.seen`: whether a split's labels had a part in a tuning, by its prior or by the
    participants of train that it was chosen on."""
    people = tuned.tuning.participants if split == "train" else ()
    is_counted = tuned.prior is not None and split in tuned.prior.splits
    return np.where([is_counted or each.participant_id in people for each in segments], SEEN, UNSEEN).astype(np.int8)


def check_unseen(seen: np.ndarray, name: str, split: str) -> None:
    """Whether a score would say how a model does on what is new to it; what is not told passes.

    Args:
        seen: (S,) as in a ScoreTable.
        name: whose scores they are.

    Raises:
        InputError: its labels were learned from.
    """
    if num := int((seen == SEEN).sum()):
        raise InputError(
            f"{name}: has learned from the labels of {num:,} of these {len(seen):,} {split} segments, so its score "
            "would be too good. Choose a split or --participants that it has not seen, or score them all the same by "
            "--seen."
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
    loader = make_loader(
        dataset,
        Batches(plan),
        num_workers=workers,
        pin_memory=engine.device.type == "cuda",
        fewer_will_do=num_workers is None,
    )
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
    sums = Sums(len(segments), taxonomy, engine.action_ids)
    dataset = ClipDataset(segments, frames, engine.clip, num_views=num_views)
    ranks = ranks or Ranks()
    keys: list[Key] = [(0, position, position) for position in range(ranks.rank, len(dataset), ranks.num_ranks)]
    for batch in read_batches(engine, dataset, keys, num_workers=num_workers, title=title):
        sums.add(batch.segment.numpy(), *engine.clip_actions(batch.frames), share=1 / num_views)
    return sums.table(segments, ranks)


def score_features(
    engine: Engine, segments: tuple[Segment, ...], features: Features, *, ranks: Ranks | None = None
) -> ScoreTable:
    """As `score_segments`, from the kept features of the segments' evaluation clips.

    Raises:
        InputError: features are damaged, or a score is not finite.
    """
    ranks = ranks or Ranks()
    sums = Sums(len(segments), engine.taxonomy, engine.action_ids)
    groups = np.array_split(np.arange(len(segments)), -(-len(segments) // CLASSIFY_CLIPS))
    for places in groups[ranks.rank :: ranks.num_ranks]:
        sums.add(places, *engine.classify_actions(features.read(np.zeros_like(places), places)))
    return sums.table(segments, ranks)


def score_split(
    engine: ClipEngine,
    folder: DataFolder,
    split: str,
    segments: tuple[Segment, ...],
    *,
    num_views: int = 1,
    name: str = "the checkpoint",
) -> ScoreTable:
    """Score a data folder's split with a checkpoint of the same taxonomy.

    Args:
        name: what to call the checkpoint in errors, such as its file.

    Raises:
        InputError: the checkpoint's classes are not the folder's, or a video is missing or cannot be read.
    """
    check_taxonomy(engine.taxonomy, folder, name)
    if not 1 <= num_views <= MAX_VIEWS:
        raise InputError(f"{num_views} views of a segment: expected 1 to {MAX_VIEWS}")
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


class Sums:
    """Probabilities of segments, summed over their views, of verbs, nouns and a joint head's actions."""

    def __init__(self, num_segments: int, taxonomy: Taxonomy, action_ids: tuple[int, ...]):
        self.action_ids = action_ids
        sizes = {"verb": taxonomy.num_verbs, "noun": taxonomy.num_nouns, "action": len(action_ids)}
        self.probs = {
            kind: np.zeros((num_segments, size), np.float32 if kind == "action" else np.float64)  # these are many
            for kind, size in sizes.items()
            if size
        }

    def add(self, places: np.ndarray, logits: Logits, action: Tensor | None, *, share: float = 1.0) -> None:
        """Add clips' probabilities, of the segments at places (B,), times `share`."""
        scores = {"verb": logits.verb, "noun": logits.noun}
        if action is not None:
            scores["action"] = action
        for kind, each in scores.items():
            probs = each.softmax(1).double().cpu().numpy() * share
            np.add.at(self.probs[kind], places, probs.astype(self.probs[kind].dtype))

    def table(self, segments: tuple[Segment, ...], ranks: Ranks) -> ScoreTable:
        """Log-probabilities of all segments; each rank has summed some of them, and gets the whole table.

        Raises:
            InputError: a score that is not finite.
        """
        ids = np.array([segment.narration_id for segment in segments])
        parts = []
        for start in range(0, len(segments), ROWS_AT_ONCE):
            rows = slice(start, start + ROWS_AT_ONCE)
            logs = {kind: _log_of_all(kind, summed[rows], ids[rows], ranks) for kind, summed in self.probs.items()}
            part = ScoreTable(ids[rows], logs["verb"], logs["noun"], "logits")
            parts.append(keep_best(part, self.action_ids, logs["action"]) if "action" in logs else part)
        arrays = [
            None if getattr(parts[0], name) is None else np.concatenate([getattr(part, name) for part in parts])
            for name in ("verb_output", "noun_output", "action_id", "action_output")
        ]
        return ScoreTable(ids, arrays[0], arrays[1], "logits", arrays[2], arrays[3])  # type: ignore[arg-type]


def _log_of_all(kind: str, probs: np.ndarray, ids: np.ndarray, ranks: Ranks) -> np.ndarray:
    """Logarithms (S, classes) float32 of the ranks' summed probabilities, which are 0 where another rank's."""
    summed = ranks.sum(torch.from_numpy(probs)).numpy()
    bad = np.flatnonzero(~np.isfinite(summed).all(axis=1))
    if len(bad):
        raise InputError(
            f"{len(bad)} segments have {kind} scores that are not finite, the first is {ids[bad[0]]}; "
            "try --precision fp32"
        )
    return np.log(np.maximum(summed, np.finfo(np.float32).tiny)).astype(np.float32)
