"""Packs one video for a store: its candidate frames into a tar, where they lie into an arrays file beside it.

In: a `VideoJob`. Out: two files under their final names, the arrays last. The bytes depend on the video, its rows and
the settings alone.
"""

import hashlib
import io
import json
import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file, save

from egochef.data.annotations import Segment
from egochef.data.sampling import candidate_times
from egochef.data.sources import Piece, extracted_pieces, video_pieces
from egochef.data.store import StoreSpec, as_bytes, shard_file
from egochef.errors import FrameError
from egochef.files import atomic_path
from egochef.parallel import advance
from egochef.records import parse_json

EDGE_BYTES = 1 << 20
"""read at both ends of a video's file to know it again"""
MAX_FAULTS_KEPT = 100
"""reasons for lost frames kept beside a video's arrays"""

Arrays = dict[str, np.ndarray]
"""the arrays of `store.INDEX`, of one video or of all"""


@dataclass(frozen=True)
class VideoJob:
    """A video to be put into a store."""

    out: Path
    """the store"""
    path: Path
    """the video's file, or the folder or tar of its extracted pictures"""
    rate: int
    """pictures a second of extracted ones, 0 for a video file"""
    segments: tuple[Segment, ...]
    """its segments, in the order of the annotations"""
    spec: StoreSpec

    @property
    def video_id(self) -> str:
        return self.segments[0].video_id

    @property
    def arrays(self) -> Path:
        """The file of the video's arrays; it is written last."""
        return shard_file(self.out, self.video_id).with_suffix(".safetensors")

    def num_times(self) -> int:
        """Candidate times of all its segments."""
        return sum(len(candidate_times(s.start_s, s.stop_s, self.spec.grid)) for s in self.segments)


def pack_video(job: VideoJob) -> tuple[int, str]:
    """Write a video's tar and its arrays. Returns the tar's size, and why nothing of the video can be read."""
    job.arrays.unlink(missing_ok=True)  # from now on the tar may be another one
    times_s, back, first = times_of(job)
    candidates = np.full(len(times_s), -1, np.int32)  # in the order of time
    frames: list[tuple[int, int, int, float]] = []
    faults: list[str] = []
    shape: tuple[int, int] | None = None
    shard = shard_file(job.out, job.video_id)
    try:
        made_from = _made_from(job)
        with atomic_path(shard) as temporary:
            with temporary.open("wb") as file, tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as tar:
                for piece in pieces(job, times_s):
                    fault = piece.fault
                    if piece.jpeg:
                        height, width, *_ = simplejpeg.decode_jpeg_header(piece.jpeg)
                        shape = shape or (height, width)
                        if (height, width) != shape:
                            fault = f"{job.path}: its picture size changes from {shape} to {(height, width)} (H, W)"
                    if fault:
                        faults.append(f"{piece.stop - piece.first} frames: {fault}")
                    else:
                        candidates[piece.first : piece.stop] = len(frames)
                        frames.append(_add(tar, job.video_id, piece))
                    advance(piece.stop - piece.first)
            num_bytes = temporary.stat().st_size
    except FrameError as error:
        return 0, str(error)
    if faults:  # a file that is mended may have the same size and ends
        made_from["source_digest"] = _digest(job.path)
    _save(job.arrays, _arrays(job, num_bytes, candidates[back], first, frames), made_from, faults)
    return num_bytes, ""


def is_packed(job: VideoJob) -> bool:
    """Whether a video's pictures are there, whole, and of the source that is there now."""
    shard = shard_file(job.out, job.video_id)
    try:
        with safe_open(job.arrays, "np") as file:
            about = parse_json(file.metadata()["about"])
        arrays = load_file(job.arrays)
        if about["crc32"] != _crc32(arrays) or shard.stat().st_size != arrays["shard_bytes"][0]:
            return False
        made_from = _made_from(job)
        if "source_digest" in about["made_from"]:
            made_from["source_digest"] = _digest(job.path)
        return about["made_from"] == made_from
    except (OSError, SafetensorError, FrameError, KeyError, TypeError, ValueError):
        return False


def pieces(job: VideoJob, times_s: np.ndarray) -> Iterator[Piece]:
    """What answers rising times of a job's video.

    Raises:
        FrameError: nothing of it can be read.
    """
    if job.rate:
        return extracted_pieces(job.path, times_s, job.spec, job.rate)
    return video_pieces(job.path, times_s, job.spec)


def times_of(job: VideoJob) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All candidate times of a video, rising (T,); the places that put them into the segments' order (T,); and where
    each segment's candidates begin in that order (S + 1,).
    """
    per_segment = [candidate_times(segment.start_s, segment.stop_s, job.spec.grid) for segment in job.segments]
    times_s = np.concatenate(per_segment)
    order = np.argsort(times_s, kind="stable")
    back = np.empty_like(order)
    back[order] = np.arange(len(order))
    first = np.cumsum([0, *(len(times) for times in per_segment)])
    return times_s[order], back, first


def nearest_sound(candidates: np.ndarray) -> np.ndarray:
    """(K,) pictures of a segment's candidates with the nearest sound one in place of each that is lost (-1)."""
    sound = np.flatnonzero(candidates >= 0)
    if not len(sound) or len(sound) == len(candidates):
        return candidates
    places = np.arange(len(candidates))
    after = np.minimum(np.searchsorted(sound, places), len(sound) - 1)
    before = np.maximum(after - 1, 0)
    nearer = np.where(np.abs(places - sound[before]) <= np.abs(sound[after] - places), before, after)
    return candidates[sound[nearer]]


def _add(tar: tarfile.TarFile, video_id: str, piece: Piece) -> tuple[int, int, int, float]:
    """Append a picture; (offset of its bytes, their number, their CRC-32, its time)."""
    info = tarfile.TarInfo(f"{video_id}/{piece.time_s:013.6f}.jpg")
    info.size = len(piece.jpeg)
    offset = tar.offset + tarfile.BLOCKSIZE
    tar.addfile(info, io.BytesIO(piece.jpeg))
    tar.members = []  # type: ignore[attr-defined]  # else it keeps them all
    return offset, len(piece.jpeg), zlib.crc32(piece.jpeg), piece.time_s


def _arrays(
    job: VideoJob, num_bytes: int, candidates: np.ndarray, first: np.ndarray, frames: list[tuple[int, int, int, float]]
) -> Arrays:
    """A video's arrays; `candidates` (K,) in the order of the segments, -1 where the frame is lost."""
    lost = np.add.reduceat(candidates < 0, first[:-1]).astype(np.int32)
    for begin, end in pairwise(first):
        candidates[begin:end] = nearest_sound(candidates[begin:end])
    table = np.array(frames, dtype="i8,i4,i8,f8") if frames else np.empty(0, "i8,i4,i8,f8")
    arrays = {
        "video_id": as_bytes([job.video_id]),
        "shard_bytes": np.array([num_bytes]),
        "video_frames": np.array([0, len(frames)]),
        "frame_offset": table["f0"],
        "frame_bytes": table["f1"],
        "frame_crc32": table["f2"],
        "frame_time_s": table["f3"],
        "narration_id": as_bytes([segment.narration_id for segment in job.segments]),
        "segment_video": np.zeros(len(job.segments), np.int32),
        "segment_start_s": np.array([segment.start_s for segment in job.segments]),
        "segment_stop_s": np.array([segment.stop_s for segment in job.segments]),
        "segment_lost": lost,
        "segment_candidates": first.astype(np.int64),
        "candidates": candidates,
    }
    return {name: np.ascontiguousarray(array) for name, array in arrays.items()}


def _save(path: Path, arrays: Arrays, made_from: dict[str, Any], faults: list[str]) -> None:
    about = {"made_from": made_from, "faults": faults[:MAX_FAULTS_KEPT], "crc32": _crc32(arrays)}
    save_arrays(path, arrays, {"about": json.dumps(about)})


def save_arrays(path: Path, arrays: Arrays, metadata: dict[str, str] | None = None) -> None:
    """Write arrays under their final name.

    Args:
        metadata: one entry at most: the library writes several in any order, and bytes have to be the same each time.
    """
    with atomic_path(path) as temporary:
        temporary.write_bytes(save(arrays, metadata))


def _crc32(arrays: Arrays) -> int:
    value = 0
    for name in sorted(arrays):
        value = zlib.crc32(np.ascontiguousarray(arrays[name]).view(np.uint8).reshape(-1).data, value)
    return value


def _made_from(job: VideoJob) -> dict[str, Any]:
    """What a video's pictures are made from, to know whether they are still right; of a large file only the ends.

    Raises:
        FrameError: the source cannot be read.
    """
    path, ends = job.path, hashlib.blake2b(digest_size=16)
    try:
        if path.is_dir():
            entries = _entries(path)
            ends.update("\n".join(f"{name} {size}" for name, size in entries).encode())
            size = sum(size for _, size in entries)
        else:
            size = path.stat().st_size
            with path.open("rb") as file:
                ends.update(file.read(EDGE_BYTES))
                file.seek(max(0, size - EDGE_BYTES))
                ends.update(file.read(EDGE_BYTES))
    except OSError as error:
        raise FrameError(f"{path}: cannot be read ({error.strerror or error}).") from None
    rows = [(segment.narration_id, segment.start_s, segment.stop_s) for segment in job.segments]
    rows_digest = hashlib.blake2b(json.dumps(rows).encode(), digest_size=16).hexdigest()
    return {"source": path.name, "source_size": size, "source_ends": ends.hexdigest(), "rows": rows_digest}


def _entries(folder: Path) -> list[tuple[str, int]]:
    """Names and sizes, by name."""
    return sorted((path.name, path.stat().st_size if path.exists() else -1) for path in folder.iterdir())


def _digest(path: Path) -> str:
    """Of all bytes of a source."""
    digest = hashlib.blake2b(digest_size=16)
    for file in sorted(path.iterdir()) if path.is_dir() else [path]:
        digest.update(f"{file.name}\n".encode())
        if not file.is_file():
            continue
        with file.open("rb") as opened:
            while block := opened.read(EDGE_BYTES):
                digest.update(block)
                advance(0)
    return digest.hexdigest()
