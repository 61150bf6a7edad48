"""What a store is made from: a video's frames at rising times, as JPEG files, whatever is damaged told apart.

In: a video file, or the officially extracted pictures (a folder or tar of frame_0000000001.jpg, ...), and rising times.
Out: `Piece`s that together answer all times.
"""

import math
import re
import tarfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import simplejpeg

from egochef.data.annotations import DataFolder, Segment
from egochef.data.store import StoreSpec, encode_jpeg
from egochef.data.transforms import shorter_side_to
from egochef.errors import FrameError, InputError
from egochef.parallel import advance
from egochef.video.decode import END_TOLERANCE_S, MAX_PIXELS, VideoError, iter_at

EXTRACTED_PLACES = (
    "rgb_frames/{participant}/{video}",
    "rgb_frames/{participant}/{video}.tar",
    "{participant}/rgb_frames/{video}",
    "{participant}/rgb_frames/{video}.tar",
)
EXTRACTED_RATES = (50, 60)
"""pictures a second: 50 of the videos with 50 frames a second, 60 of all others"""
PROBE_STEP_S = 0.25
"""behind a damaged place, where reading is tried again; after PROBES of them the steps double"""
PROBES = 40

_EXTRACTED_NAME = re.compile(r"(?:.*/)?frame_(\d{10})\.jpg")


@dataclass(frozen=True)
class Piece:
    """The answer to some times in a row."""

    first: int
    """the times from this place"""
    stop: int
    """to before this one"""
    time_s: float
    """when the frame really begins"""
    jpeg: bytes
    """the picture, empty where the frame cannot be had"""
    fault: str = ""
    """why it cannot be had"""


def find_extracted(folder: DataFolder, segments: tuple[Segment, ...]) -> dict[str, Path]:
    """The folder or tar of extracted pictures of every video that the segments need, by video id.

    Raises:
        InputError: some are missing; tells how many and names the first.
    """
    found: dict[str, Path] = {}
    missing: list[str] = []
    for video_id, participant in sorted({segment.video_id: segment.participant_id for segment in segments}.items()):
        places = [folder.root / place.format(participant=participant, video=video_id) for place in EXTRACTED_PLACES]
        place = next((place for place in places if place.exists()), None)
        if place is None:
            missing.append(str(places[0]))
        else:
            found[video_id] = place
    if missing:
        more = f" (and {len(missing) - 1} more of {len(missing) + len(found)})" if len(missing) > 1 else ""
        raise InputError(
            f"{missing[0]}: no such folder, and no tar beside it{more}. Download the extracted frames, or say whose "
            "you have with --participants."
        )
    return found


def extracted_rate(segments: tuple[Segment, ...]) -> int:
    """Pictures a second of a video's extracted pictures, by its rows: their frame numbers are seconds times that."""
    rate = float(np.median([segment.stop_frame / segment.stop_s for segment in segments]))
    return min(EXTRACTED_RATES, key=lambda known: abs(known - rate))


def video_pieces(path: Path, times_s: np.ndarray, spec: StoreSpec) -> Iterator[Piece]:
    """Pieces of a video: each frame is decoded once, going forward. Behind a damaged place reading goes on.

    Raises:
        VideoError: nothing at all of the video can be read.
    """
    done, any_read = 0, False
    while done < len(times_s):
        try:
            first = done
            for shown in iter_at(path, times_s[first:]):
                stop, beyond = first + shown.stop, first + shown.stop
                if shown.end_s is not None:  # a little past the end the last frame stands, far past it is a fault
                    beyond = done + int(np.searchsorted(times_s[done:stop], shown.end_s + END_TOLERANCE_S, "right"))
                if beyond > done:
                    jpeg = encode_jpeg(shorter_side_to(shown.picture, spec.size_px), spec.quality)
                    yield Piece(done, beyond, shown.time_s, jpeg)
                    any_read = True
                if stop > beyond:
                    yield Piece(beyond, stop, math.nan, b"", f"{path}: ends at {shown.end_s:.3f} s")
                done = stop
        except VideoError as error:
            readable = _next_readable(path, times_s, done)
            if readable == len(times_s) and not any_read:
                raise
            yield Piece(done, readable, math.nan, b"", str(error))
            done = readable


def _next_readable(path: Path, times_s: np.ndarray, bad: int) -> int:
    """The first place after a bad one from which the video can be read again; the number of times if there is none.

    What follows a damaged picture leans on it up to the next keyframe, and the decoder does not tell: so a frame counts
    as lost if decoding from the keyframe before it runs into damage.
    """
    low, step_s = bad, PROBE_STEP_S
    for probe in range(len(times_s)):
        high = max(low + 1, int(np.searchsorted(times_s, times_s[low] + step_s)))
        if high >= len(times_s):
            if low == len(times_s) - 1 or not _can_read(path, times_s[-1]):
                return len(times_s)
            high = len(times_s) - 1
        if _can_read(path, times_s[high]):
            while high - low > 1:
                middle = (low + high) // 2
                low, high = (low, middle) if _can_read(path, times_s[middle]) else (middle, high)
            return high
        low, step_s = high, step_s if probe < PROBES else 2 * step_s
    return len(times_s)


def _can_read(path: Path, time_s: float) -> bool:
    advance(0)
    try:
        next(iter(iter_at(path, np.array([time_s]))))
    except VideoError:
        return False
    return True


def extracted_pieces(place: Path, times_s: np.ndarray, spec: StoreSpec, rate: int) -> Iterator[Piece]:
    """Pieces of the officially extracted pictures, a folder or tar; picture n is on screen from (n - 1) / rate on.

    Pictures that are no larger than the store wants keep their bytes.

    Raises:
        FrameError: no pictures there, or a tar that cannot be read.
    """
    with ExitStack() as stack:
        there, read = _open_extracted(place, stack)
        if not there:
            raise FrameError(f"{place}: no pictures named frame_0000000001.jpg and so on in it. Extract or fetch them.")
        last = max(there)
        numbers = np.floor(times_s * rate + 1e-6).astype(np.int64) + 1
        numbers = np.where(times_s > last / rate + END_TOLERANCE_S, numbers, np.clip(numbers, 1, last))
        edges = np.flatnonzero(np.diff(numbers, prepend=-1, append=-1))
        for first, stop in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
            number = int(numbers[first])
            if number not in there:
                fault = f"{place}: no picture frame_{number:010d}.jpg, the last is {last}"
                yield Piece(first, stop, math.nan, b"", fault)
                continue
            try:
                data = read(number)
                height, width, *_ = simplejpeg.decode_jpeg_header(data)
                if height * width > MAX_PIXELS:
                    raise ValueError(f"{width}x{height} pixels, expected {MAX_PIXELS:,} at most")
                picture = simplejpeg.decode_jpeg(data, "RGB")
            except (ValueError, OSError, tarfile.TarError) as error:
                yield Piece(first, stop, math.nan, b"", f"{place}: frame_{number:010d}.jpg is damaged ({error})")
                continue
            if min(picture.shape[:2]) > spec.size_px:
                data = encode_jpeg(shorter_side_to(picture, spec.size_px), spec.quality)
            yield Piece(first, stop, (number - 1) / rate, data)


def _open_extracted(place: Path, stack: ExitStack) -> tuple[set[int], Callable[[int], bytes]]:
    """The numbers of the pictures, and what reads one. What only has the name of a picture fails when it is read."""
    if place.is_dir():
        paths = {_number(path.name): path for path in place.iterdir()}
        return set(paths) - {0}, lambda number: _bytes_of(paths[number])
    if not place.is_file():
        raise FrameError(f"{place}: a device or a pipe, expected a folder or a tar of pictures. Fetch it again.")
    try:
        archive = stack.enter_context(tarfile.open(place, "r:"))  # noqa: SIM115  packed, it might unpack to anything
        members = {_number(member.name): member for member in archive}
    except Exception as error:  # of a damaged archive tarfile raises nearly anything
        raise FrameError(f"{place}: not a readable tar or folder ({error}). Fetch it again.") from None

    def read(number: int) -> bytes:
        member = members[number]
        if not member.isreg() or member.issparse():  # with holes it may be of any size, and a link may lead to itself
            raise ValueError("a link, or a file with holes")
        file = archive.extractfile(member)
        return file.read() if file else b""

    return set(members) - {0}, read


def _bytes_of(path: Path) -> bytes:
    """
    Raises:
        ValueError: it is no file; opening a pipe would wait for somebody to write into it.
    """
    if not path.is_file():
        raise ValueError("no file")
    return path.read_bytes()


def _number(name: str) -> int:
    """Of a picture by its name, 0 for anything else."""
    match = _EXTRACTED_NAME.fullmatch(name)
    return int(match[1]) if match else 0
