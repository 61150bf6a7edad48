"""Looks into one video file.

In: a `Look`: the file and the rows that need it. Out: a `Seen`: its size and everything that is wrong with it. By
default only the container is read, a few milliseconds a video; on request every byte (MD5) or every frame that a row
needs.
"""

import contextlib
import hashlib
import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from egochef.data.annotations import Segment
from egochef.data.doctor.damage import lost_frames
from egochef.data.doctor.faults import Fault, error, number, some, warning
from egochef.data.doctor.tables import Row, VideoInfo
from egochef.parallel import advance
from egochef.video.decode import MAX_PIXELS
from egochef.video.source import (
    CONVERT,
    NoStreamError,
    TooLargeError,
    UnsupportedError,
    VideoError,
    declared_end_s,
    open_video,
)

log = logging.getLogger(__name__)

AGAIN = "Fetch it again."
EDGE_BYTES = 1 << 20
"""from either end of a file: compared to find the same video under two names; also the least hole that is told"""
LENGTH_TOLERANCE_S = 0.5
"""by which a video's length may differ from the official list's: the last frame and the sound's end"""
CUT_S = 1.0
"""a row may stop this much after its video's end: what is left of it is what the annotator saw"""
ROUNDING_S = 1e-3

_BOXES = {b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"styp", b"pnot", b"moof", b"uuid"}
_ARCHIVES = {b"PK\x03\x04": "ZIP", b"\x1f\x8b": "gzip", b"7z\xbc\xaf": "7z", b"Rar!": "RAR"}


@dataclass(frozen=True)
class Look:
    """What to look at."""

    video_id: str
    path: Path
    rows: tuple[Row, ...]
    """that need it"""
    info: VideoInfo | None
    """what the official list says"""
    md5s: frozenset[str]
    """one of them is the file's; empty: not asked"""
    decode: bool
    """whether frames are decoded"""


@dataclass(frozen=True)
class Seen:
    """What was found."""

    num_bytes: int = 0
    edges: str = ""
    """hash of both ends; empty where they were not read"""
    faults: list[Fault] = field(default_factory=list)


def look(task: Look) -> Seen:
    """Look into one video; whatever it is, the fault is told and not raised."""
    try:
        return _look(task)
    except OSError as reason:
        what = f"{task.path} cannot be read ({reason.strerror or reason})"
        todo = "Give yourself the right to read it, or look after the disk it lies on."
        return Seen(faults=[error("video-unreadable", task.video_id, what, todo)])
    except Exception as reason:  # the doctor goes on, whatever a library trips over in a broken file
        log.debug("looking into %s", task.path, exc_info=True)
        what = f"{task.path} cannot be looked into ({type(reason).__name__}: {reason})"
        return Seen(faults=[error("video-not-video", task.video_id, what, AGAIN)])
    finally:
        advance(1)


def _look(task: Look) -> Seen:
    video, path = task.video_id, task.path
    num_bytes = path.stat().st_size
    if not num_bytes:
        return Seen(faults=[error("video-empty", video, f"{path} is empty (0 bytes)", AGAIN)])
    with path.open("rb") as file:
        start = file.read(EDGE_BYTES)
        file.seek(max(0, num_bytes - EDGE_BYTES))
        edges = hashlib.md5(start + file.read(EDGE_BYTES), usedforsecurity=False).hexdigest()
    fault = _not_a_video(video, path, start) or _incomplete(video, path, start, num_bytes)
    if fault:
        return Seen(num_bytes, edges, [fault])
    try:
        container, stream = open_video(path, MAX_PIXELS)
    except VideoError as reason:
        return Seen(num_bytes, edges, [_refused(video, reason)])
    with container:
        ends = declared_end_s(container, stream)
        end_s = ends[0] - float((stream.start_time or 0) * (stream.time_base or 0)) if ends else None
        width_px = stream.codec_context.width
    faults = []
    if end_s is not None:
        faults += list(check_ends(video, task.rows, end_s))
        if task.info and abs(end_s - task.info.duration_s) > LENGTH_TOLERANCE_S:
            what = f"{path} is {end_s:.2f} s long, EPIC_100_video_info.csv says {task.info.duration_s:.2f} s"
            faults.append(warning("video-length", video, what, f"If it is not meant to be another cut: {AGAIN}"))
    if task.md5s:
        faults += _check_md5(task, width_px)
    if task.decode:
        faults += _check_frames(task, end_s)
    return Seen(num_bytes, edges, faults)


def check_ends(video: str, rows: Sequence[Row], end_s: float) -> Iterator[Fault]:
    """Rows that reach beyond their video's end."""
    ends = f"the video ends at {end_s:.3f} s"
    after = [row for row in rows if row.segment.start_s >= end_s + ROUNDING_S]
    past = [row for row in rows if row.segment.start_s < end_s + ROUNDING_S < row.segment.stop_s]
    cut = [row for row in past if row.segment.stop_s > end_s + CUT_S]
    todo = "If the video is shorter than the official one, fetch it again; else correct the rows or remove them."
    for kind, its, verb in (("rows-after-end", after, "begin"), ("rows-cut", cut, f"stop more than {CUT_S:.0f} s")):
        if its:
            names = some([f"{row.segment.narration_id} ({row.where})" for row in its])
            yield error(kind, video, f"{ends}: {number(len(its), 'row')} {verb} after that: {names}", todo)
    for row in past:
        if row.segment.stop_s <= end_s + CUT_S:
            what = f"{row.where}: stops at {row.segment.stop_s:.3f} s, but {ends}"
            yield warning("row-past-end", row.segment.narration_id, what, "Nothing: what is there of it is used.")


def _not_a_video(video: str, path: Path, start: bytes) -> Fault | None:
    """What is often found under a video's name."""
    text = start[:512].lstrip().lower()
    if text.startswith(b"version https://git-lfs"):
        return error("video-lfs-pointer", video, f"{path} is a Git LFS pointer", "Run `git lfs pull`.")
    if text.startswith((b"<", b"{")):
        what = f"{path} is a web page, what a failed download leaves: {text[:40].decode(errors='replace')!r}"
        return error("video-web-page", video, what, AGAIN)
    for mark, name in _ARCHIVES.items():
        if start.startswith(mark):
            what = f"{path} is an archive ({name}), not a video"
            return error("video-archive", video, what, "Unpack it and put the video in its place.")
    if not start.strip(b"\0"):
        what = f"{path} begins with zeros: its place was reserved and nothing was written there"
        return error("video-holes", video, what, "Let the download end, or fetch it again.")
    return None


def _incomplete(video: str, path: Path, start: bytes, num_bytes: int) -> Fault | None:
    """An MP4 file of which a part is not there, by its outermost boxes (ISO/IEC 14496-12, 4.2)."""
    hole = _find_hole(path, num_bytes)
    if hole is not None:
        what = f"{path} has a hole from byte {hole:,} on: its place was reserved and not all of it written"
        return error("video-holes", video, what, "Let the download end, or fetch it again.")
    if start[4:8] not in _BOXES:
        return None
    names = set()
    for name, begin, size in _boxes(path, num_bytes):
        names.add(name)
        if begin + size > num_bytes:
            what = f"{path} is cut off: its {name} box goes on to byte {begin + size:,}, the file ends at {num_bytes:,}"
            return error("video-cut-off", video, what, AGAIN)
    if missing := [name for name in ("moov", "mdat") if name not in names]:
        what = f"{path} has no {' and no '.join(missing)} box: a download or a recording that was broken off"
        return error("video-cut-off", video, what, AGAIN)
    return None


def _boxes(path: Path, num_bytes: int) -> Iterator[tuple[str, int, int]]:
    """Name, first byte and size of each outermost box, up to the first thing that is none."""
    begin = 0
    with path.open("rb") as file:
        while begin + 8 <= num_bytes:
            file.seek(begin)
            head = file.read(16)
            size, name = int.from_bytes(head[:4]), head[4:8]
            if size == 1:  # a large one: its size follows
                size = int.from_bytes(head[8:16])
            elif size == 0:  # to the end of the file
                size = num_bytes - begin
            if size < 8 or not name.isalnum():
                return
            yield name.decode("ascii", errors="replace"), begin, size
            begin += size


def _find_hole(path: Path, num_bytes: int) -> int | None:
    """Where a part of the file begins that was never written, by the file system (a torrent's missing pieces)."""
    if not hasattr(os, "SEEK_HOLE"):
        return None
    with path.open("rb") as file, contextlib.suppress(OSError):  # a file system that cannot tell, no data after a hole
        data = 0
        while data < num_bytes:
            hole = file.seek(data, os.SEEK_HOLE)
            if num_bytes - hole < EDGE_BYTES:
                return None
            try:
                data = file.seek(hole, os.SEEK_DATA)
            except OSError:
                return hole
            if data - hole >= EDGE_BYTES:
                return hole
    return None


def _refused(video: str, reason: VideoError) -> Fault:
    if isinstance(reason, NoStreamError):
        return error("video-no-stream", video, _told(reason), AGAIN)
    if isinstance(reason, TooLargeError):
        return error("video-too-large", video, _told(reason), "Scale it down: ffmpeg -i IN -vf scale=640:-2 OUT.mp4")
    if isinstance(reason, UnsupportedError):
        return error("video-codec", video, _told(reason), CONVERT)
    return error("video-not-video", video, _told(reason), AGAIN)


def _told(reason: VideoError | str) -> str:
    """Without its last sentence, which says what to do."""
    return str(reason).rsplit(". ", 1)[0]


def _check_md5(task: Look, width_px: int) -> Iterator[Fault]:
    if task.info and task.info.width_px and width_px != task.info.width_px:
        what = f"{task.path} is {width_px} pixels wide, the listed original {task.info.width_px}: no MD5 to compare"
        yield warning("md5-not-original", task.video_id, what, "Nothing: a scaled copy has other bytes.")
        return
    digest = hashlib.md5(usedforsecurity=False)
    with task.path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
            advance(0)
    if digest.hexdigest() not in task.md5s:
        what = f"{task.path} has the MD5 {digest.hexdigest()}, the list says {' or '.join(sorted(task.md5s))}"
        yield error("video-md5", task.video_id, what, AGAIN)


def _check_frames(task: Look, end_s: float | None) -> Iterator[Fault]:
    segments: list[Segment] = [row.segment for row in task.rows if end_s is None or row.segment.start_s < end_s]
    spans = [(segment.start_s, segment.stop_s) for segment in segments]
    damage = lost_frames(task.path, spans)
    if damage is None:
        return
    for segment, (num_lost, num_frames) in zip(segments, damage.lost, strict=True):
        if num_lost:
            what = f"{num_lost} of its {number(num_frames, 'frame')} cannot be decoded: {_told(damage.reason)}"
            yield error("frames-damaged", segment.narration_id, what, "Fetch the video again.")
    if not any(num_lost for num_lost, _ in damage.lost):
        yield error("video-damaged", task.video_id, _told(damage.reason), AGAIN)
