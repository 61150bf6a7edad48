"""What was predicted: runs and files of scores in, one named ScoreTable each out, on the same segments.

A run's scores are those of its best checkpoint. They are kept as RUN/scores/SPLIT-CHECKPOINT-SEGMENTS.npz, the last two
as hashes, so that a second report or a look at it needs no model.
"""

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from egochef.data.annotations import DataFolder, Segment
from egochef.deploy.backends import load_scorer, score_checkpoint, seen_by
from egochef.errors import InputError
from egochef.files import sha256_of
from egochef.inference.scoring import check_taxonomy, fitted
from egochef.model.checkpoint import BEST, read_checkpoint
from egochef.scoring.table import ScoreTable, load_scores, save_scores
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
        table = fitted(table, folder, segments, str(path))
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
    check_taxonomy(read_checkpoint(best).taxonomy, folder, str(run))  # of kept scores too
    kept = run / FOLDER / f"{split}-{sha256_of(best)[:HASH_LETTERS]}-{_hash_of(segments)}.npz"
    if kept.is_file():
        try:  # older ones do not tell what was seen
            return replace(load_scores(kept), seen=seen_by(run, split, segments))
        except InputError as error:
            log.warning("%s They are made anew.", error)
    table = score_checkpoint(run, load_scorer(run, device=device), folder, split, segments)
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
