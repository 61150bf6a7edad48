"""What was predicted: runs and files of scores in, one named ScoreTable each out, on the same segments.

A run's scores are those of its best checkpoint. They are kept as RUN/scores/SPLIT-CHECKPOINT-SEGMENTS.npz, the last two
as hashes, so that a second report or a look at it needs no model.
"""

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from egochef.data.annotations import DataFolder, Segment
from egochef.errors import InputError
from egochef.files import sha256_of
from egochef.model.checkpoint import BEST
from egochef.scoring.table import ScoreTable, align, load_scores, save_scores, take_rows
from egochef.training.runfiles import CONFIG

log = logging.getLogger(__name__)

FOLDER = "scores"
"""in a run: scores that were computed before"""
HASH_LETTERS = 12


@dataclass(frozen=True, eq=False)
class Scores:
    """One model's word on every segment of a split."""

    name: str
    """of the run or file, as short as tells it from the others"""
    path: Path
    table: ScoreTable
    """in the order of the split's segments"""


def is_run(path: Path) -> bool:
    """Whether a folder is a run's."""
    return (path / CONFIG).is_file()


def read_scores(
    sources: Sequence[Path], folder: DataFolder, split: str, segments: tuple[Segment, ...], *, device: str | None = None
) -> list[Scores]:
    """The scores of runs, computed where they are not kept yet, and of files.

    Raises:
        InputError: a source is neither, a run has no checkpoint yet, or the scores are of other segments or classes
            than the folder's; names the source.
    """
    names = short_names(sources)
    found = []
    for name, path in zip(names, sources, strict=True):
        table = _of_run(path, folder, split, segments, device) if is_run(path) else _of_file(path)
        sizes, expected = (table.num_verbs, table.num_nouns), (folder.taxonomy.num_verbs, folder.taxonomy.num_nouns)
        if sizes != expected:
            raise InputError(
                f"{path}: scores of {sizes[0]} verbs and {sizes[1]} nouns, but {folder.root} has {expected[0]} and "
                f"{expected[1]}. Give the data that they are of."
            )
        ids = [segment.narration_id for segment in segments]
        if folder.participants and len(rows := np.flatnonzero(np.isin(table.narration_id, ids))) == len(ids):
            table = take_rows(table, rows)  # of a file with everybody's
        table = align(table, ids, name=str(path))
        found.append(Scores(name, path, table))
    return found


def short_names(paths: Sequence[Path]) -> list[str]:
    """For each path the fewest of its last parts that no other path ends in."""
    resolved = [path.resolve() for path in paths]
    for place, path in enumerate(resolved):
        if path in resolved[:place]:
            raise InputError(f"{paths[place]}: given twice")
    parts = [path.absolute().with_suffix("").parts if path.is_file() else path.absolute().parts for path in paths]
    parts = [part[:-1] if len(part) > 2 and part[-1] == "scores" else part for part in parts]  # evaluation/scores.npz
    alike = [parts.count(part) > 1 for part in parts]  # run and run.npz: they keep their suffixes
    parts = [path.absolute().parts if same else part for path, part, same in zip(paths, parts, alike, strict=True)]
    names = []
    for place, own in enumerate(parts):
        others = [other for at, other in enumerate(parts) if at != place]
        count = next(n for n in range(1, len(own) + 1) if all(other[-n:] != own[-n:] for other in others))
        names.append("/".join(own[-count:]))
    return names


def _of_file(path: Path) -> ScoreTable:
    if path.is_dir():
        raise InputError(f"{path}: holds no run ({CONFIG} is missing). Give a run's folder, or a file of scores.")
    return load_scores(path)


def _of_run(run: Path, folder: DataFolder, split: str, segments: tuple[Segment, ...], device: str | None) -> ScoreTable:
    """Kept scores, or those of the best checkpoint, kept from now on."""
    best = run / BEST
    if not best.is_file():
        raise InputError(f"{run}: has no {BEST} yet, so it has no scores. Wait for its first evaluation.")
    kept = run / FOLDER / f"{split}-{sha256_of(best)[:HASH_LETTERS]}-{_hash_of(segments)}.npz"
    if kept.is_file():
        try:
            return load_scores(kept)
        except InputError as error:
            log.warning("%s They are made anew.", error)
    from egochef.deploy.backends import load_scorer, views_of
    from egochef.inference.scoring import score_split

    engine = load_scorer(run, device=device, precision="auto")
    table = score_split(engine, folder, split, segments, num_views=views_of(run))
    try:
        save_scores(kept, table)
        for older in kept.parent.glob(f"{split}-*.npz"):
            if not older.name.startswith(kept.name[: len(split) + 1 + HASH_LETTERS]):  # of an earlier checkpoint
                older.unlink(missing_ok=True)
    except InputError as error:  # a run that may only be read: the scores serve all the same
        log.warning("%s; the scores are not kept", error)
    return table


def _hash_of(segments: tuple[Segment, ...]) -> str:
    """Of what scores depend on: which segments, and when they are."""
    words = sorted(f"{each.narration_id} {each.video_id} {each.start_s} {each.stop_s}" for each in segments)
    return hashlib.sha256("\n".join(words).encode()).hexdigest()[:HASH_LETTERS]
