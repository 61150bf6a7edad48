"""Writes a store (`store`): every segment's candidate frames, decoded once, in plain tars with an index.

In: a data folder. Out: a store's folder. A video at a time is made, under a temporary name that becomes its own at the
end, so that a run can be stopped at any moment and run again; the bytes depend on the data and the settings alone.
"""

import glob
import logging
import shutil
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import load_file
from tqdm import tqdm

from egochef.data.annotations import (
    ANNOTATION_FOLDERS,
    SPLIT_FILES,
    DataFolder,
    Segment,
    annotation_digests,
    copy_annotations,
    find_videos,
    open_data_folder,
    read_split,
)
from egochef.data.pack import Arrays, VideoJob, is_packed, pack_video, pieces, save_arrays, times_of
from egochef.data.sources import extracted_rate, find_extracted
from egochef.data.store import (
    INDEX_FILE,
    STORE_FILE,
    StoreAbout,
    StoreSpec,
    is_store,
    read_about,
)
from egochef.errors import InputError
from egochef.files import check_is_new, crc32_of, sweep, write_json
from egochef.parallel import run_parallel
from egochef.records import to_dict
from egochef.video.decode import probe

log = logging.getLogger(__name__)

SOURCES = ("videos", "frames")
MAX_LOST = 0.001
"""share of candidate frames that may be damaged in a store"""
SAMPLES = 6
"""videos that a picture is made of to tell a store's size in advance"""
USUAL_FPS = 60.0
"""frames a second that a video is taken to have for the size in advance, if none tells"""
MAX_SHOWN = 5


@dataclass(frozen=True)
class Estimate:
    """What a store will take."""

    num_videos: int
    num_segments: int
    num_frames: int
    num_bytes: int


@dataclass(frozen=True)
class Prepared:
    """What a run of `prepare` did."""

    about: StoreAbout
    """of the store"""
    num_made: int
    """videos made by this run"""
    num_missing: int
    """videos that other shards of the work still have to make"""


def prepare(
    data: Path,
    out: Path,
    spec: StoreSpec,
    *,
    splits: Sequence[str] = (),
    participants: Sequence[str] = (),
    source: str = "videos",
    num_workers: int = 1,
    shard: tuple[int, int] = (1, 1),
    max_lost: float = MAX_LOST,
) -> Prepared:
    """Make a store, or go on with one.

    Args:
        splits: those that the folder has if none are named. A finished store keeps what it has and gets these as well.
        participants: whose videos are at hand; everybody's if none are named.
        source: "videos", or "frames" for the officially extracted pictures.
        num_workers: processes; the bytes are the same for any number.
        shard: (I, N): make only the I-th of N parts of the videos, I from 1. Who comes last writes the index.
        max_lost: share of candidate frames that may be damaged.

    Raises:
        InputError: faults in the data, a store of other data or settings, a full disk, or too many damaged frames.
    """
    number, num_shards = shard
    if not 1 <= number <= num_shards:
        raise InputError(f"shard {number}/{num_shards}: expected I/N with I from 1 to N, for example 1/{num_shards}")
    if not 0 <= max_lost <= 1:
        raise InputError(f"max_lost is {max_lost}, expected a share from 0 to 1")
    data, out = Path(data), Path(out)
    about, jobs = _plan(data, out, spec, splits, participants, source)
    mine = _deal(jobs, num_shards)[number - 1]
    _start_store(data, out, about, mine, is_alone=num_shards == 1)
    todo = [job for job in mine if not is_packed(job)]
    _check_space(out, todo, [job for job in jobs if job in todo or not job.arrays.is_file()])
    there = read_about(out)
    if there.finished and any(job.arrays.is_file() for job in todo):  # the index is of the pictures as they were
        write_json(out / STORE_FILE, to_dict(replace(there, finished=False)))
    _make(todo, num_workers)
    own = {job.video_id for job in mine}
    num_missing = sum(job.video_id not in own and not is_packed(job) for job in jobs)
    if not num_missing:
        about = _finish(out, about, jobs, max_lost)
    return Prepared(about, len(todo), num_missing)


def estimate(
    data: Path,
    out: Path,
    spec: StoreSpec,
    *,
    splits: Sequence[str] = (),
    participants: Sequence[str] = (),
    source: str = "videos",
) -> Estimate:
    """What a store will take, by a few pictures made for a try.

    Raises:
        InputError: faults in the data, or pictures of it cannot be had.
    """
    return _estimate(_plan(Path(data), Path(out), spec, splits, participants, source)[1])


def _plan(
    data: Path, out: Path, spec: StoreSpec, splits: Sequence[str], participants: Sequence[str], source: str
) -> tuple[StoreAbout, list[VideoJob]]:
    """What the store is going to be, its splits not yet told, and a job for each of its videos, by id."""
    if source not in SOURCES:
        raise InputError(f"source is {source!r}, expected one of {', '.join(SOURCES)}")
    if is_store(data):
        raise InputError(f"{data}: a store already. Prepare from the data folder with the videos.")
    folder = open_data_folder(data, participants)
    there = _begun(out)
    wanted = set(splits) or {split for split, name in SPLIT_FILES.items() if (folder.annotations / name).is_file()}
    wanted |= set(there.splits) if there else set()
    segments = _read_splits(folder, wanted, named=frozenset(splits))
    everything = tuple(segment for rows in segments.values() for segment in rows)
    paths = find_videos(folder, everything) if source == "videos" else find_extracted(folder, everything)
    jobs = []
    for video_id in sorted(segments):
        rows = tuple(segments[video_id])
        rate = 0 if source == "videos" else extracted_rate(rows)
        jobs.append(VideoJob(out, paths[video_id], rate, rows, spec))
    whose = tuple(sorted(folder.participants))
    about = StoreAbout(spec, source, annotation_digests(folder.annotations), whose)
    if there:
        for name in ("spec", "source", "annotations", "participants"):
            if getattr(there, name) != getattr(about, name):
                what = (
                    "from other annotation files"
                    if name == "annotations"
                    else (f"with {name} {getattr(there, name)!r}, not {getattr(about, name)!r}")
                )
                raise InputError(f"{out / STORE_FILE}: the store was begun {what}. Choose another --out, or remove it.")
    return replace(about, splits=tuple(split for split in SPLIT_FILES if split in wanted)), jobs


def _begun(out: Path) -> StoreAbout | None:
    """What the store says of itself; None where none was begun yet.

    Raises:
        InputError: the folder is something else.
    """
    try:
        if not is_store(out):
            check_is_new(out, "store")
    except InputError:
        if not is_store(out):  # else another part has begun it just now
            raise
    return read_about(out) if is_store(out) else None


def _read_splits(folder: DataFolder, wanted: set[str], named: frozenset[str]) -> dict[str, list[Segment]]:
    """The participants' segments by video. Of the splits that nobody named, those without such segments are left out.

    Raises:
        InputError: faults in the annotations, no split, or a participant without segments.
    """
    everybody = replace(folder, participants=frozenset())
    segments: dict[str, list[Segment]] = defaultdict(list)
    known: set[str] = set()
    for split in [*(split for split in SPLIT_FILES if split in wanted), *sorted(wanted - set(SPLIT_FILES))]:
        rows = read_split(everybody, split)
        known |= {segment.participant_id for segment in rows}
        if folder.participants:
            rows = tuple(segment for segment in rows if segment.participant_id in folder.participants)
        if not rows and split in named:
            raise InputError(f"{folder.annotations}: the {split} split has no segment of {_names(folder.participants)}")
        for segment in rows:
            segments[segment.video_id].append(segment)
    if unknown := folder.participants - known:
        raise InputError(f"{folder.annotations}: no segment of {_names(unknown)}, expected some of {_names(known)}")
    if not segments:
        raise InputError(f"{folder.annotations}: none of {', '.join(SPLIT_FILES.values())} in it")
    return segments


def _names(participants: "frozenset[str] | set[str]") -> str:
    return ", ".join(sorted(participants))


def _deal(jobs: list[VideoJob], num_shards: int) -> list[list[VideoJob]]:
    """The jobs in parts of about the same work: the longest first, each to who has the least."""
    parts: list[list[VideoJob]] = [[] for _ in range(num_shards)]
    work = [0] * num_shards
    for job in sorted(jobs, key=lambda job: (-job.num_times(), job.video_id)):
        part = work.index(min(work))
        parts[part].append(job)
        work[part] += job.num_times()
    return parts


def _start_store(data: Path, out: Path, about: StoreAbout, mine: list[VideoJob], *, is_alone: bool) -> None:
    """The store's folder with what it is made from, and without what a run that was killed left half-written."""
    _sweep(mine)
    if is_alone:
        for place in (out, out / ANNOTATION_FOLDERS[0]):
            sweep(place, pattern=".*.part*", is_ours=True)
    if not is_store(out):  # first: the folder is known as a store from now on
        write_json(out / STORE_FILE, to_dict(replace(about, splits=())))
    copy_annotations(open_data_folder(data).annotations, out, about.participants)


def _estimate(jobs: list[VideoJob]) -> Estimate:
    """By a few pictures of a few videos; of each sample that cannot be had, the run itself tells."""
    sizes: list[int] = []
    rates: list[float] = []
    for job in jobs[:: max(1, len(jobs) // SAMPLES)]:
        for segment in (job.segments[len(job.segments) // 3], job.segments[2 * len(job.segments) // 3]):
            try:
                middle = np.array([(segment.start_s + segment.stop_s) / 2])
                sizes += [len(piece.jpeg) for piece in pieces(job, middle) if piece.jpeg]
                rates.append(job.rate or probe(job.path).average_fps or USUAL_FPS)
            except InputError as error:
                log.warning("%s: not counted in the size told in advance (%s)", job.video_id, error)
    fps = max(rates, default=USUAL_FPS)
    num_frames = sum(len(np.unique(np.floor(times_of(job)[0] * fps))) for job in jobs)
    per_frame = (sum(sizes) / len(sizes) if sizes else 0) + 512 + 256  # a tar's header, and what fills its last block
    num_segments = sum(len(job.segments) for job in jobs)
    return Estimate(len(jobs), num_segments, num_frames, round(num_frames * per_frame))


def _check_space(out: Path, todo: list[VideoJob], open_jobs: list[VideoJob]) -> None:
    """Tell the size of what this run makes; refuse it if the disk has no room for what all parts have still to make."""
    if not todo:
        return
    needs = _estimate(todo)
    all_bytes = needs.num_bytes if len(open_jobs) == len(todo) else _estimate(open_jobs).num_bytes
    free = shutil.disk_usage(out).free
    log.info(
        "to be made: %d videos, %d segments, about %s frames and %.1f GB (free: %.1f GB)",
        needs.num_videos,
        needs.num_segments,
        f"{needs.num_frames:,}",
        needs.num_bytes / 1e9,
        free / 1e9,
    )
    if all_bytes > free:
        raise InputError(
            f"{out}: needs about {all_bytes / 1e9:.1f} GB, the disk has {free / 1e9:.1f} GB free. Free space, "
            "choose another --out, or a lower --quality, --fps or --size."
        )


def _make(todo: list[VideoJob], num_workers: int) -> None:
    """Make videos. One that cannot be read is told at the end; the others are kept."""
    total = sum(job.num_times() for job in todo)
    faults: list[str] = []
    num_bytes = 0
    with tqdm(total=total, desc="preparing", unit="frame", unit_scale=True, disable=None) as bar:
        results = run_parallel(
            pack_video, todo, num_workers, name=_name, on_progress=bar.update, prepare=_use_one_thread
        )
        try:
            for num_done, (_, (size, fault)) in enumerate(results, 1):
                num_bytes += size
                faults += [fault] if fault else []
                bar.set_postfix_str(f"{num_done}/{len(todo)} videos, {num_bytes / 1e9:.2f} GB")
        except InputError:
            _sweep(todo)  # what a process that was killed had begun
            raise
    if faults:
        raise InputError(
            f"{len(faults)} of {len(todo)} videos could not be read: {'; '.join(sorted(faults)[:MAX_SHOWN])}. "
            "Mend them (egochef doctor tells how) and run egochef prepare again: all others are kept."
        )


def _sweep(jobs: list[VideoJob]) -> None:
    """Remove what processes that are gone left of these videos."""
    for job in jobs:
        sweep(job.arrays.parent, pattern=f".{glob.escape(job.video_id)}-*.part*", is_ours=True)


def _name(job: VideoJob) -> str:
    return job.video_id


def _use_one_thread() -> None:
    torch.set_num_threads(1)


def _finish(out: Path, about: StoreAbout, jobs: list[VideoJob], max_lost: float) -> StoreAbout:
    """Join all videos' arrays to the index, and say that the store is whole.

    Raises:
        InputError: too many frames are damaged, or a segment has none.
    """
    parts = [load_file(job.arrays) for job in jobs]
    _check_lost(out, jobs, parts, max_lost)
    arrays = _join(parts)
    save_arrays(out / INDEX_FILE, arrays)
    about = replace(
        about,
        finished=True,
        num_videos=len(jobs),
        num_segments=len(arrays["narration_id"]),
        num_frames=len(arrays["frame_bytes"]),
        num_candidates=len(arrays["candidates"]),
        num_lost=int(arrays["segment_lost"].sum()),
        num_bytes=int(arrays["shard_bytes"].sum()),
        index_crc32=crc32_of(out / INDEX_FILE),
    )
    write_json(out / STORE_FILE, to_dict(about))
    return about


def _join(parts: list[Arrays]) -> Arrays:
    """Arrays of several videos one behind the other; numbers that count frames, candidates or videos go on counting."""
    joined: Arrays = {}
    for name in parts[0]:
        arrays = [part[name] for part in parts]
        if name in ("video_frames", "segment_candidates"):
            ends = np.cumsum([array[-1] for array in arrays])
            starts = np.concatenate([[0], ends[:-1]])
            arrays = [array[:-1] + start for array, start in zip(arrays, starts, strict=True)] + [ends[-1:]]
        elif name == "segment_video":
            arrays = [array + number for number, array in enumerate(arrays)]
        elif name in ("video_id", "narration_id"):
            width = max(array.shape[1] for array in arrays)
            arrays = [np.pad(array, ((0, 0), (0, width - array.shape[1]))) for array in arrays]
        joined[name] = np.concatenate(arrays).astype(arrays[0].dtype)
    return joined


def _check_lost(out: Path, jobs: list[VideoJob], parts: list[Arrays], max_lost: float) -> None:
    num_lost, num_all, empty, worst = 0, 0, [], []
    for job, part in zip(jobs, parts, strict=True):
        counts = np.diff(part["segment_candidates"])
        num_lost += int(part["segment_lost"].sum())
        num_all += int(counts.sum())
        for segment, lost, count in zip(job.segments, part["segment_lost"], counts, strict=True):
            if lost:
                worst.append((int(lost), segment.narration_id))
            if lost == count:
                empty.append(segment.narration_id)
    if not num_lost:
        return
    worst.sort(key=lambda pair: (-pair[0], pair[1]))
    told = ", ".join(f"{name} ({lost})" for lost, name in worst[:MAX_SHOWN])
    log.warning(
        "%d of %d candidate frames are damaged or missing, in %d segments: %s", num_lost, num_all, len(worst), told
    )
    if empty:
        raise InputError(
            f"{out}: not finished: {len(empty)} segments have no frame that can be read, the first is {empty[0]}. "
            "Fetch their videos again (egochef doctor --videos full names them) and run egochef prepare again."
        )
    if num_lost > max_lost * num_all:
        raise InputError(
            f"{out}: not finished: {num_lost} of {num_all} candidate frames ({num_lost / num_all:.2%}) are damaged or "
            f"missing, the limit is {max_lost:.2%}; most in {told}. Fetch these videos again and run egochef prepare "
            "again, or allow more with --max-lost."
        )
