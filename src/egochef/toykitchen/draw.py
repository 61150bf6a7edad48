"""Draws a whole kitchen: plans it, draws its videos in several processes, writes its annotations.

In: a `ToyConfig`. Out: a folder in EK-100's layout, which appears under its name when it is whole.
"""

import multiprocessing
import secrets
import shutil
import signal
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from multiprocessing.synchronize import Event
from pathlib import Path

import cv2
from tqdm import tqdm

from egochef.errors import InputError
from egochef.toykitchen.annotations import write_annotations
from egochef.toykitchen.config import ToyConfig
from egochef.toykitchen.render import frames_of
from egochef.toykitchen.script import VideoPlan, plan_kitchen
from egochef.video.encode import EncodeSpec, write_video

VIDEO_FOLDER = "videos_640x360"
"""named as in EK-100, whatever the size"""
ENCODING = EncodeSpec(preset="ultrafast", crf=26, gop=30, num_threads=1)
"""one thread: the pixels are then the same on any number of processors"""

_stop: Event | None = None
"""in a worker: set when the others are to stop"""


class _Stopped(Exception):
    """A worker was told to stop."""


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
    if num_workers < 1:
        raise InputError(f"num_workers is {num_workers}, expected at least 1")
    plans = plan_kitchen(config)
    with _new_folder(Path(root)) as folder:
        _draw_videos(folder, plans, config, min(num_workers, len(plans)))
        write_annotations(folder, plans, config)
    return Path(root)


@contextmanager
def _new_folder(root: Path) -> Iterator[Path]:
    """A temporary folder beside `root` that takes its name at the end, or goes away."""
    root = root.absolute()
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise InputError(f"{root}: holds something already. Give a new or empty folder, or remove this one.")
    temporary = root.parent / f".{root.name}-{secrets.token_hex(4)}.part"
    try:
        temporary.mkdir(parents=True)
        yield temporary
        temporary.replace(root)
    except InputError as error:  # name the folder that the user knows
        raise InputError(str(error).replace(str(temporary), str(root))) from error
    except OSError as error:
        raise InputError(f"{root}: cannot be written ({error.strerror or error}). Choose another place.") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _draw_videos(folder: Path, plans: tuple[VideoPlan, ...], config: ToyConfig, num_workers: int) -> None:
    bar = tqdm(
        total=sum(plan.num_frames for plan in plans), desc="drawing", unit="frame", unit_scale=True, disable=None
    )
    with bar:
        if num_workers == 1:
            for plan in plans:
                bar.update(_draw_video(folder, plan, config))
            return
        longest_first = sorted(plans, key=lambda plan: -plan.num_frames)
        context = multiprocessing.get_context("spawn")
        stop = context.Event()
        with ProcessPoolExecutor(num_workers, context, initializer=_start_worker, initargs=(stop,)) as pool:
            jobs: list[Future[int]] = []
            try:
                with _no_interrupts():
                    jobs += [pool.submit(_draw_video, folder, plan, config) for plan in longest_first]
                for job in as_completed(jobs):
                    bar.update(job.result())
            except BaseException as error:
                stop.set()
                pool.shutdown(cancel_futures=True)
                raise _first_fault(jobs) or error from None


def _first_fault(jobs: list[Future[int]]) -> InputError | None:
    """What a user can mend, if that is why a worker failed."""
    errors = (job.exception() for job in jobs if job.done() and not job.cancelled())
    return next((error for error in errors if isinstance(error, InputError)), None)


@contextmanager
def _no_interrupts() -> Iterator[None]:
    """Hold Ctrl-C back. Processes that start meanwhile never see it, not even while they import."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _start_worker(stop: Event) -> None:
    global _stop
    _stop = stop
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent hears Ctrl-C and sets `stop`
    cv2.setNumThreads(1)


def _draw_video(folder: Path, plan: VideoPlan, config: ToyConfig) -> int:
    """Draw one video and return how many frames it has."""
    path = folder / VIDEO_FOLDER / plan.participant_id / f"{plan.video_id}.MP4"
    with write_video(path, rate=plan.fps, spec=ENCODING) as writer:
        for frame in frames_of(plan, config):
            if _stop is not None and _stop.is_set():
                raise _Stopped
            writer.add(frame)
    return plan.num_frames
