"""The store that `egochef prepare` writes: pictures of every segment, made for reading any T of them at random.

    STORE/store.json                         what it was made from, with which settings, and what is in it
    STORE/epic-kitchens-100-annotations/     the annotation files, as they were
    STORE/index.safetensors                  where every picture lies (the arrays of `INDEX`)
    STORE/frames/P01/P01_01.tar              a video's pictures: JPEG files named by time: P01_01/000123.450000.jpg
    STORE/frames/P01/P01_01.safetensors      the same arrays for this video alone; the index is all of them joined

A candidate time of a segment (`sampling`) points to a picture; overlapping segments share pictures. Every picture is
checked against its CRC-32 when it is read.
"""

import os
import zlib
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg
from safetensors import SafetensorError, safe_open

from egochef import records
from egochef.clip import Grid
from egochef.data.annotations import Segment, check_annotations_kept
from egochef.data.transforms import Cut
from egochef.errors import FrameError, InputError
from egochef.files import check_is_file, crc32_of
from egochef.texts import id_fault, quoted

FORMAT = "egochef-store"
VERSION = 1
STORE_FILE = "store.json"
INDEX_FILE = "index.safetensors"
FRAMES_FOLDER = "frames"
MAX_OPEN_FILES = 32
MEND = "Remove the file and run egochef prepare again: it makes only what is missing."

INDEX = {
    "video_id": "(N, W) uint8, UTF-8, filled with zeros",
    "shard_bytes": "(N,) int64, size of each video's tar",
    "video_frames": "(N + 1,) int64, a video's pictures are those from its number to before the next one's",
    "frame_offset": "(F,) int64, first byte of a picture in its tar",
    "frame_bytes": "(F,) int32",
    "frame_crc32": "(F,) int64",
    "frame_time_s": "(F,) float64, when the picture's frame begins, seconds from its video's start",
    "narration_id": "(S, W) uint8",
    "segment_video": "(S,) int32",
    "segment_start_s": "(S,) float64",
    "segment_stop_s": "(S,) float64",
    "segment_lost": "(S,) int32, candidates whose frame is damaged; the nearest sound one stands for each",
    "segment_candidates": "(S + 1,) int64, a segment's candidates are those from its number to before the next one's",
    "candidates": "(K,) int32, the picture of each candidate time, numbered within its video",
}


@dataclass(frozen=True)
class StoreSpec:
    """What decides every byte of a store."""

    size_px: int = 256
    """shorter side of the pictures; smaller videos keep theirs"""
    quality: int = 85
    """of JPEG, 1 to 100"""
    grid: Grid = field(default_factory=Grid)
    """candidate times of a segment"""

    def __post_init__(self) -> None:
        if not isinstance(self.size_px, int) or not 16 <= self.size_px <= 4320:
            raise InputError(f"StoreSpec.size_px is {self.size_px!r}, expected a whole number from 16 to 4320")
        if not isinstance(self.quality, int) or not 1 <= self.quality <= 100:
            raise InputError(f"StoreSpec.quality is {self.quality!r}, expected a whole number from 1 to 100")


@dataclass(frozen=True)
class StoreAbout:
    """`store.json`."""

    spec: StoreSpec
    source: str
    """videos, or frames: the officially extracted pictures"""
    annotations: tuple[tuple[str, str], ...]
    """(file, SHA-256) of the annotations it was made from"""
    participants: tuple[str, ...]
    """whose videos are in it; empty: everybody's"""
    splits: tuple[str, ...] = ()
    """that are in it"""
    finished: bool = False
    """whether the index is written, and of the tars that are there"""
    num_videos: int = 0
    num_segments: int = 0
    num_frames: int = 0
    num_candidates: int = 0
    num_lost: int = 0
    """candidates whose frame is damaged in the video"""
    num_bytes: int = 0
    """of the tars"""
    index_crc32: int = 0
    format: str = FORMAT
    version: int = VERSION


class StoreError(FrameError):
    """Something in a store is not as it was written; the message names the file, and the segment where there is one."""


def is_store(root: Path) -> bool:
    return (Path(root) / STORE_FILE).is_file()


def read_about(root: Path) -> StoreAbout:
    """What a store says of itself.

    Raises:
        InputError: not a store, or one of another version.
    """
    return records.read_about(Path(root) / STORE_FILE, StoreAbout, "egochef prepare")


def shard_file(root: Path, video_id: str) -> Path:
    return Path(root) / FRAMES_FOLDER / video_id.split("_")[0] / f"{video_id}.tar"


def encode_jpeg(picture: np.ndarray, quality: int) -> bytes:
    """(H, W, 3) uint8 RGB to a baseline JPEG file, colours at half resolution."""
    return simplejpeg.encode_jpeg(np.ascontiguousarray(picture), quality, "RGB", "420")


def decode_jpeg(data: bytes, out: np.ndarray | None = None) -> np.ndarray:
    """A JPEG file to (H, W, 3) uint8 RGB, into `out` where it is given and of that size.

    Colours are doubled in both directions without smoothing, which saves an eighth of the time and costs 1.5 dB of PSNR
    where the store shrank the video's pictures; where it did not, they come out 1 dB nearer to the video's.

    Raises:
        ValueError: not a whole JPEG file, or larger than `out`.
    """
    return simplejpeg.decode_jpeg(data, "RGB", fastupsample=True, buffer=out)


def as_bytes(names: Sequence[str]) -> np.ndarray:
    """(S,) names as (S, W) uint8 for a file."""
    fixed = np.array([name.encode() for name in names])
    return fixed.view(np.uint8).reshape(len(fixed), fixed.dtype.itemsize)


def as_names(letters: np.ndarray) -> list[str]:
    """(S, W) uint8 as names."""
    return [name.decode() for name in np.ascontiguousarray(letters).view(f"S{letters.shape[1]}")[:, 0]]


class Store:
    """An open store: its index, mapped into memory, and a few open tars."""

    def __init__(self, root: Path):
        self.root = root
        self.about = read_about(root)
        path = root / INDEX_FILE
        if not self.about.finished:
            raise InputError(f"{root}: the store is not finished. Run egochef prepare again: it goes on from there.")
        try:
            if crc32_of(path) != self.about.index_crc32:
                raise StoreError(f"{path}: damaged (its checksum is not the one in {STORE_FILE}). {MEND}")
            with safe_open(path, "pt") as file:  # torch maps the file, numpy would copy it
                self.index = {name: file.get_tensor(name).numpy() for name in INDEX}
        except (OSError, SafetensorError) as error:
            raise StoreError(f"{path}: cannot be read ({error}). {MEND}") from None
        self.video_ids = as_names(self.index["video_id"])
        for video_id in self.video_ids:
            if fault := id_fault(video_id):
                raise StoreError(f"{path}: video_id {quoted(video_id)} {fault}. {MEND}")
        self._files: OrderedDict[int, int] = OrderedDict()  # video -> file descriptor, least recently used first

    def __reduce__(self) -> tuple[Any, ...]:
        return Store, (self.root,)  # a worker that is spawned opens the store itself

    def shard(self, video: int) -> Path:
        return shard_file(self.root, self.video_ids[video])

    def read(self, row: int, places: np.ndarray, cut: Cut | None = None) -> np.ndarray:
        """Pictures (T, H, W, 3) uint8 at (T,) rising places among the candidates of the segment in a row of the index.

        Args:
            cut: from a picture's (height, width) the part that is wanted; None: all of it.

        Raises:
            StoreError: a tar is missing or cut off, or a picture is damaged; names tar and segment.
        """
        index, video = self.index, int(self.index["segment_video"][row])
        numbers = index["candidates"][index["segment_candidates"][row] + places] + index["video_frames"][video]
        whole: np.ndarray | None = None  # each picture in turn: one place in memory is fast, and only the cut is copied
        wanted = np.empty(0, np.uint8)
        for place, number in enumerate(numbers.tolist()):
            if place and number == numbers[place - 1]:
                wanted[place] = wanted[place - 1]
                continue
            data = self._jpeg(video, row, number)
            try:
                if whole is None:
                    whole = decode_jpeg(data)
                    top, left, height, width = cut(*whole.shape[:2]) if cut else (0, 0, *whole.shape[:2])
                    wanted = np.empty((len(numbers), height, width, 3), np.uint8)
                elif decode_jpeg(data, whole).shape != whole.shape:
                    raise ValueError("it is smaller than the one before")
            except ValueError as error:
                time_s = index["frame_time_s"][number]
                raise self._error(video, row, f"its picture of {time_s:.3f} s cannot be decoded ({error})") from None
            wanted[place] = whole[top : top + height, left : left + width]
        return wanted

    def _jpeg(self, video: int, row: int, number: int) -> bytes:
        offset, size = int(self.index["frame_offset"][number]), int(self.index["frame_bytes"][number])
        try:
            data = os.pread(self._file(video), size, offset)
        except OSError as error:
            raise self._error(video, row, f"cannot be read ({error.strerror or error})") from None
        if len(data) < size:
            raise self._error(video, row, f"is cut off at byte {offset + len(data)}")
        if zlib.crc32(data) != self.index["frame_crc32"][number]:
            time_s = self.index["frame_time_s"][number]
            raise self._error(
                video, row, f"is damaged: its picture at byte {offset} ({time_s:.3f} s) has another CRC-32"
            )
        return data

    def damaged(self, video: int) -> list[str]:
        """Ids of the video's segments with a picture that cannot be read as it was written; all its bytes are read."""
        index = self.index
        bad: set[int] = set()
        first, stop = (int(number) for number in index["video_frames"][video : video + 2])
        rows = np.flatnonzero(index["segment_video"] == video)
        for number in range(first, stop):
            try:
                self._jpeg(video, int(rows[0]), number)
            except StoreError:
                bad.add(number - first)
        places = zip(index["segment_candidates"][rows], index["segment_candidates"][rows + 1], strict=True)
        hit = [bool(bad.intersection(index["candidates"][begin:end].tolist())) for begin, end in places]
        return as_names(index["narration_id"][rows[hit]]) if any(hit) else []

    def _file(self, video: int) -> int:
        if video in self._files:
            self._files.move_to_end(video)
        else:
            while len(self._files) >= MAX_OPEN_FILES:
                os.close(self._files.popitem(last=False)[1])
            check_is_file(self.shard(video))
            self._files[video] = os.open(self.shard(video), os.O_RDONLY)
        return self._files[video]

    def _error(self, video: int, row: int, what: str) -> StoreError:
        (narration_id,) = as_names(self.index["narration_id"][row : row + 1])
        return StoreError(f"{self.shard(video)}: {what}, segment {narration_id} needs it. {MEND}")

    def close(self) -> None:
        while self._files:
            os.close(self._files.popitem()[1])

    def __del__(self) -> None:
        if hasattr(self, "_files"):
            self.close()


def open_store(root: Path) -> Store:
    """Open a finished store.

    Raises:
        InputError: not a store, not finished, of another version, made from other annotations, or its index is damaged.
    """
    store = Store(Path(root))
    check_annotations_kept(store.root, store.about.annotations)
    return store


class StoreFrames:
    """Frames of segments, read from a store (a `frames.Frames`)."""

    def __init__(self, store: Store, segments: Sequence[Segment]):
        """
        Raises:
            InputError: a segment is not in the store, or has another interval there.
        """
        self.store, self.grid = store, store.about.spec.grid
        index = store.index
        row_of = {name: row for row, name in enumerate(as_names(index["narration_id"]))}
        missing = [segment.narration_id for segment in segments if segment.narration_id not in row_of]
        if missing:
            raise InputError(
                f"{store.root}: {len(missing)} of {len(segments)} segments are not in the store, the first is "
                f"{missing[0]}; it holds {', '.join(store.about.splits)}. Run egochef prepare with the splits and "
                "participants that are needed."
            )
        self.rows = np.array([row_of[segment.narration_id] for segment in segments])
        start_s = np.array([segment.start_s for segment in segments])
        stop_s = np.array([segment.stop_s for segment in segments])
        other = (index["segment_start_s"][self.rows] != start_s) | (index["segment_stop_s"][self.rows] != stop_s)
        if other.any():
            place = int(other.argmax())
            raise InputError(
                f"{store.root}: the store was made from other annotations: segment {segments[place].narration_id} goes "
                f"from {index['segment_start_s'][self.rows[place]]} to {index['segment_stop_s'][self.rows[place]]} s "
                f"there, from {start_s[place]} to {stop_s[place]} s in the annotations. Prepare the store anew."
            )

    def num_candidates(self, segment: int) -> int:
        first, stop = self.store.index["segment_candidates"][self.rows[segment] : self.rows[segment] + 2]
        return int(stop - first)

    def read(self, segment: int, places: np.ndarray, cut: Cut | None = None) -> np.ndarray:
        return self.store.read(self.rows[segment], places, cut)

    def where(self, segment: int) -> str:
        return str(self.store.shard(self.store.index["segment_video"][self.rows[segment]]))
