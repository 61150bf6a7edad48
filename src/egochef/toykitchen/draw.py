"""Draws a whole kitchen: plans it, draws its videos in several processes, writes its annotations.

In: a `ToyConfig`. Out: a folder in EK-100's layout, which appears under its name when it is whole.
"""

from dataclasses import replace
from pathlib import Path

import cv2
from tqdm import tqdm

from egochef.errors import InputError
from egochef.files import atomic_folder
from egochef.parallel import advance, run_parallel
from egochef.toykitchen.annotations import write_annotations
from egochef.toykitchen.config import ToyConfig
from egochef.toykitchen.render import frames_of
from egochef.toykitchen.script import VideoPlan, plan_kitchen
from egochef.video.encode import EncodeSpec, write_video

VIDEO_FOLDER = "videos_640x360"
"""named as in EK-100, whatever the size"""
ENCODING = EncodeSpec(preset="ultrafast", crf=26, num_threads=1)
"""one thread: the pixels are then the same on any number of processors; the configuration has the gop"""


def draw_kitchen(root: Path, config: ToyConfig, *, num_workers: int | None = None) -> Path:
    """Draw a kitchen and return its folder.

    Args:
        num_workers: processes that draw, by default one for each processor. The result is the same for any number.

    Raises:
        InputError: `root` holds something, cannot be written, or the disk is full. Nothing is left behind then.
    """
    if num_workers is None:
        from egochef.runtime import num_cpus  # brings torch, which the workers do without

        num_workers = num_cpus()
    plans = plan_kitchen(config)
    root = Path(root).absolute()
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise InputError(f"{root}: holds something already. Give a new or empty folder, or remove this one.")
    with atomic_folder(root) as folder:
        _draw_videos(folder, plans, config, num_workers)
        write_annotations(folder, plans, config)
    return Path(root)


def _draw_videos(folder: Path, plans: tuple[VideoPlan, ...], config: ToyConfig, num_workers: int) -> None:
    longest_first = sorted(plans, key=lambda plan: -plan.num_frames)
    total = sum(plan.num_frames for plan in plans)
    with tqdm(total=total, desc="drawing", unit="frame", unit_scale=True, disable=None) as bar:
        jobs = [(folder, plan, config) for plan in longest_first]
        drawn = run_parallel(
            _draw_video, jobs, num_workers, name=_video_id, on_progress=bar.update, prepare=_one_thread
        )
        for _ in drawn:
            pass


def _one_thread() -> None:
    cv2.setNumThreads(1)


def _video_id(job: tuple[Path, VideoPlan, ToyConfig]) -> str:
    return job[1].video_id


def _draw_video(job: tuple[Path, VideoPlan, ToyConfig]) -> None:
    folder, plan, config = job
    path = folder / VIDEO_FOLDER / plan.participant_id / f"{plan.video_id}.MP4"
    with write_video(path, rate=plan.fps, spec=replace(ENCODING, gop=config.gop)) as writer:
        for frame in frames_of(plan, config):
            advance(1)
            writer.add(frame)
