"""Kitchens to measure on: drawn, their videos encoded as asked, with a store and a folder of pictures of each."""

import tarfile
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from tqdm import tqdm

from egochef.data.prepare import prepare
from egochef.data.store import StoreSpec
from egochef.errors import InputError
from egochef.files import atomic_folder, write_json
from egochef.parallel import advance, run_parallel
from egochef.records import read_json, to_dict
from egochef.runtime import num_cpus
from egochef.toykitchen import ToyConfig, draw_kitchen
from egochef.video.decode import iter_frames, probe
from egochef.video.encode import EncodeSpec, write_video


@dataclass(frozen=True)
class Kitchen:
    """Videos to draw."""

    config: ToyConfig
    encoding: EncodeSpec | None = None
    """how the drawn videos are encoded again; None leaves them as they are drawn, which decodes fast"""


USUAL = EncodeSpec(gop=250, num_threads=1)
"""x264's veryfast at crf 23: what docs/data.md tells to make 640x360 videos with"""
LONG = Kitchen(ToyConfig(num_segments=40, width_px=640, height_px=360, gop=250, segment_s=2.5), USUAL)
SHORT = Kitchen(ToyConfig(num_segments=40, width_px=640, height_px=360, gop=250), USUAL)
EASY = Kitchen(ToyConfig(num_segments=40))


@dataclass(frozen=True)
class Place:
    """Where a kitchen and what was made of it lie."""

    kitchen: Path
    store: Path
    pictures: Path
    """the store's pictures, one file each"""


def set_up(root: Path, kitchen: Kitchen, spec: StoreSpec, *, num_workers: int | None = None) -> Place:
    """Draw a kitchen, make its store, and put the store's pictures into a folder; whatever is there stays.

    Args:
        num_workers: processes that do it, by default one for each processor; 1: this one.

    Raises:
        InputError: another kitchen lies there, or the folder cannot be written.
    """
    place = Place(root / "kitchen", root / "store", root / "pictures")
    settings, wanted = root / "kitchen.json", to_dict(kitchen)
    if place.kitchen.exists():
        try:
            found = read_json(settings)
        except (OSError, ValueError):
            found = None
        if found != wanted:
            raise InputError(f"{root}: holds another kitchen than this run's. Choose another --keep, or remove it.")
    else:
        write_json(settings, wanted)
        draw(place.kitchen, kitchen, num_workers or num_cpus())
    prepare(place.kitchen, place.store, spec, num_workers=num_workers or num_cpus())
    if not place.pictures.exists():
        with atomic_folder(place.pictures) as half:
            for tar in sorted(place.store.rglob("*.tar")):
                with tarfile.open(tar) as archive:
                    archive.extractall(half, filter="data")
    return place


def draw(out: Path, kitchen: Kitchen, num_workers: int) -> None:
    """Draw a kitchen, and encode its videos again if it says how; it appears under its name when it is whole."""
    with atomic_folder(out) as half:
        draw_kitchen(half, kitchen.config, num_workers=num_workers)
        if kitchen.encoding is not None:
            videos = sorted(half.rglob("*.MP4"), key=lambda path: -path.stat().st_size)
            jobs = [(path, kitchen.encoding) for path in videos]
            with tqdm(total=len(jobs), desc="encoding", unit="video", disable=None) as bar:
                for _ in run_parallel(encode_again, jobs, num_workers, name=_video_name):
                    bar.update()


def encode_again(job: tuple[Path, EncodeSpec]) -> None:
    """Encode a video's frames in another way, under the same name."""
    path, spec = job
    rate = Fraction(probe(path).average_fps or 0).limit_denominator(1001)
    with write_video(path, rate=rate, spec=spec) as writer:
        for _, frame in iter_frames(path):
            advance(0)
            writer.add(frame)


def _video_name(job: tuple[Path, EncodeSpec]) -> str:
    return job[0].stem
