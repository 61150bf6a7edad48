"""How fast training clips come: from a store, from videos, from a folder of JPEG files, on the same drawn videos.

In: kitchens to draw. Out: `Row`s and ratios. A clip is what the training loop gets: T frames at jittered candidate
times, read, cropped, collated in batches. All ways read the same clips. Each runs in a fresh process, on one thread,
without workers; they take turns over the rounds, and medians over the rounds count. The files are small enough to
stay in memory: this is processor time, not the disk's. "A core" means a second of processor time, all threads together.
"""

import math
import os
import statistics
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from egochef.bench.kitchens import EASY, LONG, SHORT, USUAL, Kitchen, Place, set_up
from egochef.bench.process import in_fresh_process, peak_mib_so_far, read_bytes_so_far
from egochef.bench.rows import Numbers, Row, value_of, versions_of
from egochef.bench.ways import WAYS, open_segments, open_way
from egochef.clip import ClipSpec, Grid
from egochef.data.annotations import find_videos, open_data_folder
from egochef.data.dataset import (
    Batches,
    ClipDataset,
    Key,
    Sample,
    collate,
    epoch_order,
    make_loader,
    split_evenly,
)
from egochef.data.frames import Frames
from egochef.data.sampling import candidate_times
from egochef.data.store import StoreFrames, StoreSpec, decode_jpeg
from egochef.data.transforms import Augment, Cut, cut_out, finish_crop, random_cut
from egochef.errors import InputError
from egochef.extras import ExtraError
from egochef.files import temporary_folder
from egochef.runtime import describe_machine, num_cpus
from egochef.toykitchen import ToyConfig
from egochef.video.decode import decode_at, probe

BATCH_SIZE = 8
NAIVE = "pyav_seek"
RAW_WAYS = ("raw", "torchcodec", "opencv")
"""ways to read a video that one would choose"""
FAST_WAYS = ("store", "jpeg_folder")
IMAGES_PER_S = {"a100": 2470, "h100_low": 4000, "h100_high": 7000}
"""224x224 pictures a second that GPUs train a ResNet-50 with in mixed precision"""
LIBRARIES = ("av", "numpy", "opencv-python-headless", "simplejpeg", "torchcodec")
CHECK_SIZE_PX = (160, 90)
"""width and height to which frames are shrunk to be compared"""
MARGIN = 0.01
"""grey levels by which another frame must be nearer to count as the one that is shown"""
MAX_DISTANCE = 10.0
"""mean grey levels between a frame and the same one as JPEG, far more than JPEG's losses"""


@dataclass(frozen=True)
class DataBench:
    """What is measured, and how long."""

    long: Kitchen = LONG
    """like EK-100's videos: 640x360, few keyframes, an encoder's usual means"""
    short: Kitchen = SHORT
    """the same with ToyKitchen's own, shorter segments"""
    easy: Kitchen = EASY
    """about the easiest that videos can be: as drawn, 456x256, many keyframes, encoded in the least time"""
    rounds: int = 3
    passes: int = 4
    """how often the fast ways go over all segments in a round; the others do once"""
    naive_clips: int = 8
    """clips a round of the way that is so slow that more would take long"""
    clip: ClipSpec = field(default_factory=ClipSpec)
    store: StoreSpec = field(default_factory=StoreSpec)
    num_workers: int | None = None
    """processes that draw and prepare; None: one for each processor"""
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("rounds", "passes", "naive_clips"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}, expected at least 1")


def quick_bench() -> DataBench:
    """Half a minute in all, to see that everything works; its numbers say little."""
    long = ToyConfig(preset="small", num_segments=12, width_px=192, height_px=108, gop=250, segment_s=0.8)
    short = replace(long, segment_s=None)
    easy = ToyConfig(preset="small", num_segments=12, width_px=144, height_px=80)
    grid = Grid(min_frames=16)
    return DataBench(
        Kitchen(long, USUAL),
        Kitchen(short, USUAL),
        Kitchen(easy),
        rounds=1,
        passes=1,
        naive_clips=2,
        clip=ClipSpec(num_frames=8, image_size=64, resize_size=72, grid=grid),
        store=StoreSpec(size_px=96, grid=grid),
        num_workers=1,
    )


@dataclass(frozen=True)
class Measured:
    """A way, a kitchen, a round."""

    cpu_ms: float
    """a clip"""
    wall_ms: float
    """a clip"""
    read_bytes: float | None
    """a clip, by system calls"""
    peak_mib: float
    """of the process, libraries and all"""
    other_frames: float
    """share of the checked frames that are not those of the times asked for"""


def bench_data(bench: DataBench, *, keep: Path | None = None) -> Numbers:
    """Draw, prepare, measure.

    Args:
        keep: folder for kitchens, stores and pictures; what is there already is used again.

    Raises:
        InputError: `keep` holds something else, or the disk is full.
    """
    machine = describe_machine() | versions_of(LIBRARIES) | {"load_average_before": round(os.getloadavg()[0], 2)}
    with ExitStack() as stack:
        root = keep or stack.enter_context(temporary_folder("bench"))
        kitchens = {"long": bench.long, "short": bench.short, "easy": bench.easy}
        places = {
            name: set_up(root / name, kitchen, bench.store, num_workers=bench.num_workers)
            for name, kitchen in kitchens.items()
        }
        measured, reasons = measure_ways(places, bench)
        rows = [
            row for name in kitchens for row in _rows_of_kitchen(name, places[name], measured[name], reasons, bench)
        ]
        rows += _rows_of_gpus(rows)
        rows += in_fresh_process(_measure_parts, places["long"], bench)
        rows += in_fresh_process(_measure_loader, places["long"], bench)
    machine["load_average_after"] = round(os.getloadavg()[0], 2)
    return Numbers(machine, tuple(rows), ratios_of(rows))


# What is read


def plan(num_segments: int, num_passes: int, seed: int) -> list[Key]:
    """The clips that are read: every segment once in a pass."""
    return [
        (epoch, position, int(segment))
        for epoch in range(num_passes)
        for position, segment in enumerate(epoch_order(num_segments, seed, epoch))
    ]


def open_dataset(way: str, place: Place, bench: DataBench) -> ClipDataset:
    """Training clips, read in one of the `WAYS`."""
    segments, frames = open_way(way, place.kitchen, place.store, place.pictures, bench.store.grid)
    return ClipDataset(segments, frames, bench.clip, augment=Augment(), seed=bench.seed)


# Measuring


def measure_ways(
    places: Mapping[str, Place], bench: DataBench
) -> tuple[dict[str, dict[str, list[Measured]]], dict[str, str]]:
    """Every way on every kitchen, the ways in turn: kitchen -> way -> rounds, and why a way is missing."""
    measured: dict[str, dict[str, list[Measured]]] = {kitchen: {way: [] for way in WAYS} for kitchen in places}
    reasons: dict[str, str] = {}
    wanted = {kitchen: in_fresh_process(wanted_frames, place, bench) for kitchen, place in places.items()}
    jobs = [(kitchen, way) for _ in range(bench.rounds) for kitchen in places for way in WAYS]
    with tqdm(jobs, desc="measuring", unit="run", disable=None) as bar:
        for kitchen, way in bar:
            bar.set_postfix_str(f"{kitchen}/{way}")
            if way in reasons:
                continue
            try:
                result = in_fresh_process(measure_way, way, places[kitchen], bench, wanted[kitchen])
            except ExtraError as error:
                reasons[way] = str(error)
            else:
                measured[kitchen][way].append(result)
    return measured, reasons


def measure_way(way: str, place: Place, bench: DataBench, wanted: np.ndarray) -> Measured:
    """One way on one kitchen, in this process.

    Args:
        wanted: (3, N, h, w, 3) uint8, of `wanted_frames`.

    Raises:
        ExtraError: the way cannot be measured here.
    """
    dataset = open_dataset(way, place, bench)
    keys = plan(len(dataset), bench.passes if way in FAST_WAYS else 1, bench.seed)
    if way == NAIVE:
        keys = keys[: bench.naive_clips]
    seen = dataset.frames = Watched(dataset.frames)  # warms up as well
    _read_batch(dataset, keys[: _num_checked(bench)])
    dataset.frames = seen.frames
    begun_bytes, begun_s, begun_cpu_s = read_bytes_so_far(), time.perf_counter(), time.process_time()
    for batch in split_evenly(keys, BATCH_SIZE):
        _read_batch(dataset, batch)
    cpu_ms, wall_ms = (
        1000 * (now_s - then_s) / len(keys)
        for now_s, then_s in ((time.process_time(), begun_cpu_s), (time.perf_counter(), begun_s))
    )
    read_bytes = (read_bytes_so_far() - begun_bytes) / len(keys)
    return Measured(
        cpu_ms,
        wall_ms,
        None if math.isnan(read_bytes) else read_bytes,
        peak_mib_so_far(),
        share_of_others(np.concatenate(seen.small), wanted),
    )


def _read_batch(dataset: ClipDataset, keys: Sequence[Key]) -> None:
    samples: list[Sample | InputError] = [dataset[key] for key in keys]
    collate(samples)


# Whether all ways show the same frames


class Watched:
    """Frames that keep a small copy of all that is read."""

    def __init__(self, frames: Frames):
        self.frames, self.grid = frames, frames.grid
        self.small: list[np.ndarray] = []

    def num_candidates(self, segment: int) -> int:
        return self.frames.num_candidates(segment)

    def read(self, segment: int, places: np.ndarray, cut: Cut | None = None) -> np.ndarray:
        frames = self.frames.read(segment, places)
        self.small.append(shrink(frames))
        return cut_out(frames, cut) if cut else frames

    def where(self, segment: int) -> str:
        return self.frames.where(segment)


class _Asked(Watched):
    """Frames that note what is asked for."""

    def __init__(self, frames: Frames):
        super().__init__(frames)
        self.asked: list[tuple[int, np.ndarray]] = []

    def read(self, segment: int, places: np.ndarray, cut: Cut | None = None) -> np.ndarray:
        self.asked.append((segment, places))
        return self.frames.read(segment, places, cut)


def shrink(frames: np.ndarray) -> np.ndarray:
    """(T, H, W, 3) -> (T, 90, 160, 3) uint8, the mean of what falls into a pixel."""
    return np.stack([cv2.resize(frame, CHECK_SIZE_PX, interpolation=cv2.INTER_AREA) for frame in frames])


def _num_checked(bench: DataBench) -> int:
    return min(BATCH_SIZE, bench.naive_clips)


def wanted_frames(place: Place, bench: DataBench) -> np.ndarray:
    """The frames that the first clips must show, the ones before them and the ones after: (3, N, h, w, 3) uint8."""
    dataset = open_dataset("raw", place, bench)
    frames = dataset.frames = _Asked(dataset.frames)
    _read_batch(dataset, plan(len(dataset), 1, bench.seed)[: _num_checked(bench)])
    segments = open_segments(place.kitchen)
    videos = find_videos(open_data_folder(place.kitchen), segments)
    clips = []
    for number, places in frames.asked:
        segment = segments[number]
        path = videos[segment.video_id]
        shown = decode_at(path, candidate_times(segment.start_s, segment.stop_s, bench.store.grid)[places])
        frame_s = 1 / (probe(path).average_fps or math.nan)
        around = (decode_at(path, shown.times_s + shift * frame_s).frames for shift in (-0.5, 1.5))
        clips.append(np.stack([shrink(frames) for frames in (shown.frames, *around)]))  # (3, T, h, w, 3)
    return np.concatenate(clips, axis=1)


def share_of_others(small: np.ndarray, wanted: np.ndarray) -> float:
    """Share of frames (N, h, w, 3) that are nearer to a neighbour in time than to the frame wanted, or far from both.

    Neighbours, because two frames in a row may differ by less than a frame and its JPEG.
    """
    own, before, after = (np.abs(small.astype(np.int16) - there).mean(axis=(1, 2, 3)) for there in wanted)  # (N,) each
    return float(((np.minimum(before, after) < own - MARGIN) | (own > MAX_DISTANCE)).mean())


# Where the time goes


def _measure_parts(place: Place, bench: DataBench) -> list[Row]:
    """What a clip from the store is made of, ms of processor time, the median of the rounds."""
    dataset = open_dataset("store", place, bench)
    assert isinstance(dataset.frames, StoreFrames)
    keys = plan(len(dataset), bench.passes, bench.seed)
    rounds = [_parts_of(dataset, dataset.frames, keys) for _ in range(bench.rounds + 1)][1:]
    parts = {name: statistics.median(spent[name] for spent in rounds) for name in rounds[0]}
    rows = [Row(f"long/store part {name}", round(value, 3), "ms a clip") for name, value in parts.items()]
    alone = Row("long/store jpeg_decoder_alone", round(1000 / parts["jpeg_decode"], 1), "clips/s a core")
    return [*rows, alone]


def _parts_of(dataset: ClipDataset, frames: StoreFrames, keys: Sequence[Key]) -> dict[str, float]:
    """One after the other on the same clips; `rest` is what the whole takes beyond them."""
    spent_s = dict.fromkeys(("read_and_crc32", "jpeg_decode", "crop", "collate", "rest"), 0.0)
    assert dataset.augment is not None
    for batch in split_evenly(list(keys), BATCH_SIZE):
        marks = [time.process_time()]
        samples: list[Sample | InputError] = [dataset[key] for key in batch]
        marks.append(time.process_time())
        collate(samples)
        marks.append(time.process_time())
        spent_s["collate"] += marks[2] - marks[1]
        spent_s["rest"] += marks[1] - marks[0]
        del samples
        asked = _Asked(frames)
        dataset.frames = asked
        for key in batch:
            dataset[key]
        dataset.frames = frames
        for segment, places in asked.asked:
            rng = np.random.default_rng([segment, *places.tolist()])
            marks = [time.process_time()]
            files = list(_checked_files(frames, segment, places))
            marks.append(time.process_time())
            whole = decode_jpeg(files[0])
            for data in files[1:]:
                decode_jpeg(data, whole)
            marks.append(time.process_time())
            top, left, height, width = random_cut(dataset.augment, rng)(*whole.shape[:2])
            clip = np.empty((len(files), height, width, 3), np.uint8)
            for place in range(len(files)):
                clip[place] = whole[top : top + height, left : left + width]
            finish_crop(clip, dataset.clip, dataset.augment, rng)
            marks.append(time.process_time())
            for name, begun_s, ended_s in zip(spent_s, marks[:-1], marks[1:], strict=False):
                spent_s[name] += ended_s - begun_s
    spent_s["rest"] -= spent_s["read_and_crc32"] + spent_s["jpeg_decode"] + spent_s["crop"]
    return {name: 1000 * seconds / len(keys) for name, seconds in spent_s.items()}


def _checked_files(frames: StoreFrames, segment: int, places: np.ndarray) -> Iterator[bytes]:
    """The pictures' files, read and checked as the store does."""
    index, row = frames.store.index, frames.rows[segment]
    video = int(index["segment_video"][row])
    numbers = index["candidates"][index["segment_candidates"][row] + places] + index["video_frames"][video]
    handle = os.open(frames.store.shard(video), os.O_RDONLY)
    try:
        for number in numbers:
            data = os.pread(handle, int(index["frame_bytes"][number]), int(index["frame_offset"][number]))
            assert zlib.crc32(data) == index["frame_crc32"][number]
            yield data
    finally:
        os.close(handle)


def _measure_loader(place: Place, bench: DataBench) -> list[Row]:
    """Clips a second through the training loop's loader, from the store, on all processors."""
    dataset = open_dataset("store", place, bench)
    keys = plan(len(dataset), bench.passes, bench.seed)
    num_workers = num_cpus()
    loader = make_loader(dataset, Batches(split_evenly(keys, BATCH_SIZE)), num_workers=num_workers)
    speeds = []
    for number in range(bench.rounds + 1):
        begun_s = time.perf_counter()
        num_clips = sum(len(batch.segment) for batch in loader)
        if number:  # the first starts the workers
            speeds.append(num_clips / (time.perf_counter() - begun_s))
    return [
        Row("long/store loader_clips_per_s", round(statistics.median(speeds), 1), "clips/s"),
        Row("long/store loader_workers", num_workers, "processes"),
    ]


# From measurements to rows


def _rows_of_kitchen(
    kitchen: str, place: Place, measured: Mapping[str, list[Measured]], reasons: Mapping[str, str], bench: DataBench
) -> list[Row]:
    segments = open_segments(place.kitchen)
    lengths_s = [segment.stop_s - segment.start_s for segment in segments]
    videos, tars = list(place.kitchen.rglob("*.MP4")), list(place.store.rglob("*.tar"))
    rows = [
        Row(f"{kitchen}/videos num_segments", len(segments), "segments"),
        Row(f"{kitchen}/videos median_segment", round(statistics.median(lengths_s), 2), "s"),
        Row(f"{kitchen}/videos num_files", len(videos), "files"),
        Row(f"{kitchen}/videos size", _gigabytes(videos), "GB"),
        Row(f"{kitchen}/store num_files", len(tars), "files", "tars; an index beside each"),
        Row(f"{kitchen}/store size", _gigabytes(place.store.rglob("*")), "GB"),
        Row(f"{kitchen}/jpeg_folder num_files", sum(1 for _ in place.pictures.rglob("*.jpg")), "files"),
    ]
    for way, rounds in measured.items():
        if rounds:
            rows += _rows_of_way(f"{kitchen}/{way}", rounds, bench.clip.num_frames)
        else:
            rows.append(Row(f"{kitchen}/{way} clips_per_core_s", None, "clips/s a core", reasons[way]))
    return rows


def _gigabytes(paths: "Iterator[Path] | Sequence[Path]") -> float:
    return round(sum(path.stat().st_size for path in paths if path.is_file()) / 1e9, 4)


def _rows_of_way(name: str, rounds: Sequence[Measured], num_frames: int) -> list[Row]:
    cpu_ms = statistics.median(one.cpu_ms for one in rounds)
    spread = (max(one.cpu_ms for one in rounds) - min(one.cpu_ms for one in rounds)) / cpu_ms
    read_bytes = [one.read_bytes for one in rounds if one.read_bytes is not None]
    return [
        Row(f"{name} clips_per_core_s", round(1000 / cpu_ms, 2), "clips/s a core"),
        Row(f"{name} images_per_core_s", round(1000 / cpu_ms * num_frames, 1), "images/s a core"),
        Row(f"{name} cpu_ms_per_clip", round(cpu_ms, 2), "ms"),
        Row(f"{name} cpu_spread", round(spread, 3), "share", "largest less smallest of the rounds, over the median"),
        Row(f"{name} wall_ms_per_clip", round(statistics.median(one.wall_ms for one in rounds), 2), "ms"),
        Row(
            f"{name} bytes_per_clip",
            round(statistics.median(read_bytes)) if read_bytes else None,
            "bytes",
            "" if read_bytes else "the system does not tell",
        ),
        Row(f"{name} peak_rss", round(statistics.median(one.peak_mib for one in rounds), 1), "MiB"),
        Row(f"{name} other_frames", round(max(one.other_frames for one in rounds), 4), "share"),
    ]


def _rows_of_gpus(rows: Sequence[Row]) -> list[Row]:
    """How many cores feed a GPU."""
    return [
        Row(f"long/{way} cores_for_{gpu}", round(images_per_s / speed, 1), "cores", f"{images_per_s} images/s")
        for way in ("store", "raw")
        for gpu, images_per_s in IMAGES_PER_S.items()
        if (speed := value_of(rows, f"long/{way} images_per_core_s"))
    ]


def ratios_of(rows: Sequence[Row]) -> dict[str, float | None]:
    """How many times faster the store is; over raw video means over the fastest of `RAW_WAYS`."""

    def speed(way: str) -> float | None:
        return value_of(rows, f"{way} clips_per_core_s")

    def fastest_raw(kitchen: str) -> float | None:
        return max((found for way in RAW_WAYS if (found := speed(f"{kitchen}/{way}"))), default=None)

    pairs = {
        "store_over_raw": (speed("long/store"), fastest_raw("long")),
        "store_over_jpeg_folder": (speed("long/store"), speed("long/jpeg_folder")),
        "store_over_raw_short": (speed("short/store"), fastest_raw("short")),
        "store_over_raw_easy": (speed("easy/store"), fastest_raw("easy")),
        "store_over_pyav_seek": (speed("long/store"), speed(f"long/{NAIVE}")),
        "files_jpeg_folder_over_store": (
            value_of(rows, "long/jpeg_folder num_files"),
            value_of(rows, "long/store num_files"),
        ),
    }
    return {name: round(above / below, 2) if above and below else None for name, (above, below) in pairs.items()}


def with_sizes(bench: DataBench, *, num_segments: int | None, rounds: int | None) -> DataBench:
    """The same with other numbers of segments (of each kitchen) and rounds, where they are given."""
    if num_segments is not None:
        long, short, easy = (
            replace(kitchen, config=replace(kitchen.config, num_segments=num_segments))
            for kitchen in (bench.long, bench.short, bench.easy)
        )
        bench = replace(bench, long=long, short=short, easy=easy)
    return bench if rounds is None else replace(bench, rounds=rounds)
