"""A store of EK-100's size, dry: all rows of the official annotations over videos of tiny pictures.

    python benchmarks/store_scale.py --annotations EPIC-KITCHENS/epic-kitchens-100-annotations [--workers N]

1. Draws all 700 videos, of their real length, with 32x32 pictures at --fps frames a second, and prepares them.
2. Makes an index as large as EK-100's own would be, each candidate time with a picture of its own, over the same rows.
Of both it measures, each in a fresh process: opening the store with the annotations of all splits, the resident memory
after reading clips with it, and an epoch's shuffled order. Prints one JSON object.
"""

import argparse
import csv
import json
import multiprocessing
import os
import shutil
import tempfile
import time
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from egochef.clip import ClipSpec
from egochef.data.annotations import ANNOTATION_FOLDERS, SPLIT_FILES, open_data_folder, read_split
from egochef.data.dataset import ClipDataset
from egochef.data.frames import open_frames
from egochef.data.prepare import prepare
from egochef.data.store import INDEX_FILE, STORE_FILE, StoreSpec, read_about
from egochef.data.transforms import Augment
from egochef.files import crc32_of, write_json
from egochef.records import to_dict
from egochef.runtime import describe_machine, num_cpus
from egochef.training.sources import plan_epoch
from egochef.video.encode import EncodeSpec, write_video

SIZE_PX = 32
NUM_CLIPS = 200


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--annotations", type=Path, required=True, help="folder of the official CSV files")
    parser.add_argument("--fps", type=int, default=2, help="of the stand-in videos")
    parser.add_argument("--workers", type=int, default=num_cpus())
    args = parser.parse_args()
    result: dict[str, object] = {"machine": describe_machine()}
    with tempfile.TemporaryDirectory() as temporary:
        root, out = Path(temporary, "data"), Path(temporary, "store")
        shutil.copytree(args.annotations, root / ANNOTATION_FOLDERS[0])
        started = time.perf_counter()
        draw_videos(root, args.fps, args.workers)
        drawn = time.perf_counter()
        about = prepare(root, out, StoreSpec(), num_workers=args.workers).about
        result["prepare"] = {
            "videos": about.num_videos,
            "segments": about.num_segments,
            "candidates": about.num_candidates,
            "pictures": about.num_frames,
            "store_bytes": about.num_bytes,
            "draw_s": round(drawn - started, 1),
            "prepare_s": round(time.perf_counter() - drawn, 1),
            "workers": args.workers,
        }
        result["as_prepared"] = in_own_process(out, read_clips=True)
        enlarge_index(out)
        result["as_large_as_ek100"] = in_own_process(out, read_clips=False)
    print(json.dumps(result, indent=1))


def draw_videos(root: Path, fps: int, num_workers: int) -> None:
    with (root / ANNOTATION_FOLDERS[0] / "EPIC_100_video_info.csv").open() as file:
        rows = [(root, row["video_id"], float(row["duration"]), fps) for row in csv.DictReader(file)]
    with multiprocessing.get_context("spawn").Pool(num_workers) as pool:
        for _ in pool.imap_unordered(draw_video, sorted(rows, key=lambda row: -row[2])):
            pass


def draw_video(job: tuple[Path, str, float, int]) -> None:
    root, video_id, duration_s, fps = job
    path = root / "videos_640x360" / video_id.split("_")[0] / f"{video_id}.MP4"
    frame = np.zeros((SIZE_PX, SIZE_PX, 3), np.uint8)
    with write_video(path, rate=Fraction(fps), spec=EncodeSpec("ultrafast", gop=60, num_threads=1)) as writer:
        for number in range(int(np.ceil(duration_s * fps)) + 1):
            frame[:] = number % 256
            writer.add(frame)


def enlarge_index(store: Path) -> None:
    """A picture of its own for every candidate time."""
    arrays = load_file(store / INDEX_FILE)
    num = len(arrays["candidates"])
    per_segment = np.diff(arrays["segment_candidates"])
    per_video = np.bincount(arrays["segment_video"], per_segment, len(arrays["shard_bytes"])).astype(np.int64)
    arrays["video_frames"] = np.concatenate([[0], np.cumsum(per_video)])
    arrays["candidates"] = np.concatenate([np.arange(count) for count in per_video]).astype(np.int32)
    arrays["frame_offset"] = np.arange(num) * 21_000
    arrays["frame_bytes"] = np.full(num, 20_000, np.int32)
    arrays["frame_crc32"] = np.random.default_rng(0).integers(0, 2**32, num)
    arrays["frame_time_s"] = np.arange(num) / 20.0
    save_file(arrays, store / INDEX_FILE)
    about = replace(read_about(store), index_crc32=crc32_of(store / INDEX_FILE), num_frames=num)
    write_json(store / STORE_FILE, to_dict(about))


def in_own_process(store: Path, *, read_clips: bool) -> dict[str, float]:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(measure, (store, read_clips))


def measure(store: Path, read_clips: bool) -> dict[str, float]:
    """Seconds and MiB of a process that opens a store."""
    imported_mib = resident_mib()
    mark = time.perf_counter()
    folder = open_data_folder(store)
    segments = tuple(segment for split in SPLIT_FILES for segment in read_split(folder, split))
    annotations_s = time.perf_counter() - mark
    mark = time.perf_counter()
    frames = open_frames(folder, segments, ClipSpec().grid)
    index_s = time.perf_counter() - mark
    dataset = ClipDataset(segments, frames, ClipSpec(), augment=Augment())
    del segments  # a training run keeps the arrays, not the records
    mark = time.perf_counter()
    plan_epoch(67_217, 100, 50, seed=0, epoch=1)
    order_s = time.perf_counter() - mark
    rng = np.random.default_rng(0)
    for position in range(NUM_CLIPS):
        index = int(rng.integers(len(dataset)))
        if read_clips:
            assert not dataset[(0, position, index)].failures
        else:
            frames.num_candidates(index)
    return {
        "read_annotations_s": round(annotations_s, 2),
        "open_index_s": round(index_s, 2),
        "order_of_an_epoch_s": round(order_s, 3),
        "index_bytes": (store / INDEX_FILE).stat().st_size,
        "resident_after_imports_mib": round(imported_mib),
        "resident_mib": round(resident_mib()),
    }


def resident_mib() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


if __name__ == "__main__":
    main()
