"""Segments of videos as batches of clips.

In: segments and where their frames come from. Out: `Batch`es. What a clip looks like depends on (seed, epoch, position)
alone, whatever the number of workers.

    frames  (B, T, S, S, 3) uint8   cropped, not normalised
    verb    (B,) int64              0..V-1, or -1 without labels
    noun    (B,) int64              0..N-1, or -1 without labels
    colour  (B, 5) float32          of `transforms.draw_colour`, None in evaluation
    segment (B,) int64              place of the segment among the dataset's segments
    failures  ((video_id, reason), ...)  training samples that could not be read and were replaced
"""

import atexit
import logging
import os
import re
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from multiprocessing.connection import wait as wait_for_processes
from multiprocessing.process import BaseProcess
from types import FrameType
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate, get_worker_info
from torch.utils.data._utils.signal_handling import _error_if_any_worker_fails

from egochef.clip import ClipSpec
from egochef.data.annotations import Segment
from egochef.data.fork import fork_context
from egochef.data.frames import Frames
from egochef.data.sampling import jittered_places, view_places
from egochef.data.transforms import Augment, draw_colour, eval_crop, finish_crop, random_cut
from egochef.errors import FrameError, InputError
from egochef.launch import read_launch
from egochef.limits import (
    MIN_FILES,
    MORE_FILES,
    MORE_SHARED_MEMORY,
    SHARED_MEMORY,
    allow_files,
    free_shared_memory,
    num_open_files,
)
from egochef.runtime import keep_freed_memory
from egochef.stopping import SIGNALS, unheard_by_children

log = logging.getLogger(__name__)

WORKER_TIMEOUT_S = 300.0
READ_AHEAD = 2
"""batches that each worker prepares"""
IN_HAND = 2
"""batches that are with who asked for them: the one at work, and the next"""
FILES_PER_WORKER = 16
"""files that may be open here and in a worker for its sake: pipes, and a piece of shared memory for each tensor"""
DEATH_S = 1.0
"""within which a process is seen to be dead after it let go of its connections"""
MAX_FAILED = 20
MAX_FAILED_SHARE = 0.01
MAX_REPLACEMENTS = 20

Key = tuple[int, int, int]
"""(epoch, position in the epoch, segment or view index)"""


class Batch(NamedTuple):
    """See the module's docstring for shapes."""

    frames: Tensor
    verb: Tensor
    noun: Tensor
    colour: Tensor | None
    segment: Tensor
    failures: tuple[tuple[str, str], ...] = ()


class Sample(NamedTuple):
    """A `Batch`'s fields for one clip, without the first dimension."""

    frames: Tensor
    verb: int
    noun: int
    colour: Tensor | None
    segment: int
    failures: tuple[tuple[str, str], ...]


class ClipDataset(Dataset[Sample]):
    """Clips of segments.

    With `augment`, times are jittered and pictures changed, and a segment that cannot be read is replaced by another
    (told in `failures`). Without, times are the bins' middles and a segment that cannot be read raises.
    `num_views` > 1 asks for several evaluation clips a segment: item (e, p, s * num_views + v) is view v of segment s.
    """

    def __init__(
        self,
        segments: Sequence[Segment],
        frames: Frames,
        clip: ClipSpec,
        *,
        augment: Augment | None = None,
        seed: int = 0,
        num_views: int = 1,
        clip_of: Callable[[int], ClipSpec] | None = None,
    ):
        """`clip_of`: what the clips of an epoch are, where they change over the epochs (picklable)."""
        self.frames, self.clip, self.augment, self.seed, self.num_views = frames, clip, augment, seed, num_views
        self.clip_of = clip_of
        # Arrays, not 67,217 objects: forked workers then share their pages for good.
        self.narration_id = np.array([segment.narration_id for segment in segments])
        self.video_id = np.array([segment.video_id for segment in segments])
        self.verb = np.array([-1 if segment.verb is None else segment.verb for segment in segments])
        self.noun = np.array([-1 if segment.noun is None else segment.noun for segment in segments])

    def __len__(self) -> int:
        return len(self.narration_id) * self.num_views

    def __getitem__(self, key: Key) -> Sample:
        epoch, position, index = key
        spec = self.clip if self.clip_of is None else self.clip_of(epoch)
        if self.augment is None:
            segment, view = divmod(index, self.num_views)
            places = view_places(self.frames.num_candidates(segment), spec.num_frames, self.num_views)[view]
            try:
                frames = self.frames.read(segment, places)
            except FrameError as error:
                raise FrameError(f"segment {self.narration_id[segment]}: {error}") from None
            return self._sample(eval_crop(frames, spec), segment, None, ())

        rng = np.random.default_rng([self.seed, epoch, position])
        failures: list[tuple[str, str]] = []
        for _ in range(MAX_REPLACEMENTS):
            places = jittered_places(
                self.frames.num_candidates(index),
                spec.num_frames,
                rng,
                min_span=self.augment.min_span,
                drop=self.augment.drop_frames,
            )
            try:
                cropped = self.frames.read(index, places, random_cut(self.augment, rng))
            except FrameError as error:
                failures.append((str(self.video_id[index]), f"segment {self.narration_id[index]}: {error}"))
                index = int(rng.integers(len(self.narration_id)))
                continue
            clip = finish_crop(cropped, spec, self.augment, rng)
            colour = torch.from_numpy(draw_colour(self.augment, rng))
            return self._sample(clip, index, colour, tuple(failures))
        raise FrameError(f"{MAX_REPLACEMENTS} samples in a row could not be read, the last: {failures[-1][1]}")

    @property
    def clip_bytes(self) -> int:
        """Of the largest clip's frames."""
        return self.clip.num_frames * self.clip.image_size**2 * 3

    def name(self, key: Key) -> str:
        """What a key stands for, for messages: segment and file."""
        segment = key[2] if self.augment else key[2] // self.num_views
        return f"segment {self.narration_id[segment]} of {self.frames.where(segment)}"

    def _sample(
        self, frames: Tensor, segment: int, colour: Tensor | None, failures: tuple[tuple[str, str], ...]
    ) -> Sample:
        return Sample(frames, int(self.verb[segment]), int(self.noun[segment]), colour, segment, failures)


def collate(samples: "list[Sample | InputError]") -> Batch | InputError:
    """Samples stacked, or the first fault among them; in a worker, torch stacks straight into shared memory."""
    sound = [sample for sample in samples if isinstance(sample, Sample)]
    if len(sound) < len(samples):
        return next(sample for sample in samples if isinstance(sample, InputError))
    colours = [sample.colour for sample in sound if sample.colour is not None]
    return Batch(
        frames=default_collate([sample.frames for sample in sound]),
        verb=torch.tensor([sample.verb for sample in sound]),
        noun=torch.tensor([sample.noun for sample in sound]),
        colour=torch.stack(colours) if colours else None,
        segment=torch.tensor([sample.segment for sample in sound]),
        failures=tuple(failure for sample in sound for failure in sample.failures),
    )


def epoch_order(num_segments: int, seed: int, epoch: int, shares: np.ndarray | None = None) -> np.ndarray:
    """A permutation of 0..num_segments-1 from (seed, epoch) alone, or as many draws by the chances `shares` (S,)."""
    rng = np.random.default_rng([seed, epoch])
    return rng.permutation(num_segments) if shares is None else rng.choice(num_segments, num_segments, p=shares)


def split_evenly(keys: list[Key], size: int) -> list[list[Key]]:
    return [keys[start : start + size] for start in range(0, len(keys), size)]


class Batches:
    """A batch sampler whose plan can change between epochs while the workers stay alive."""

    def __init__(self, plan: list[list[Key]]):
        self.plan = plan

    def __iter__(self) -> Iterator[list[Key]]:
        return iter(self.plan)

    def __len__(self) -> int:
        return len(self.plan)


class _Watched(Dataset["Sample | InputError"]):
    """A dataset whose workers say what they are at. Faults come as values: raised, torch would wrap them in its own."""

    def __init__(self, dataset: ClipDataset, num_workers: int):
        self.dataset = dataset
        self.at_work = torch.full((num_workers, 4), -1).share_memory_()  # pid, and the key while one is read

    def __getitem__(self, key: Key) -> "Sample | InputError":
        worker = get_worker_info()
        if worker is not None:
            self.at_work[worker.id] = torch.tensor([os.getpid(), *key])
        try:
            return self.dataset[key]
        except InputError as error:
            return error
        finally:
            if worker is not None:
                self.at_work[worker.id, 1:] = -1


class Loader:
    """Batches in the plan's order, read by processes that are watched; made by `make_loader`."""

    def __init__(
        self,
        dataset: ClipDataset,
        batches: Batches,
        num_workers: int,
        pin_memory: bool,
        timeout_s: float,
        fewer_will_do: bool,
    ):
        self._dataset, self._batches, self._pin_memory, self._timeout_s = dataset, batches, pin_memory, timeout_s
        self._num_workers, self._fewer_will_do = num_workers, fewer_will_do
        self._ends_at_exit = self._is_stuck = False
        self._loader: DataLoader[Sample | InputError] | None = None

    def _start(self) -> DataLoader[Sample | InputError]:
        """When the plan is there, which says how large batches are."""
        num_workers = self._num_workers = self._workers_that_fit()
        # torch's own time-out is for each batch that arrives, and others of what was read ahead may come before ours.
        self._stuck_s = self._timeout_s * (READ_AHEAD * num_workers + 1)
        self._watched = _Watched(self._dataset, num_workers)
        return DataLoader(
            self._watched,
            batch_sampler=self._batches,
            num_workers=num_workers,
            collate_fn=collate,
            pin_memory=self._pin_memory,
            timeout=self._timeout_s if num_workers else 0,
            multiprocessing_context=fork_context() if num_workers else None,
            prefetch_factor=READ_AHEAD if num_workers else None,
            persistent_workers=num_workers > 0,
            worker_init_fn=_start_loader_worker if num_workers else None,
        )

    def _workers_that_fit(self) -> int:
        """The number of workers that the system has files and shared memory for.

        Raises:
            InputError: it is smaller than the one that was asked for.
        """
        num_workers, free = self._num_workers, free_shared_memory()
        if not num_workers:
            return 0
        allow_files(num_open_files() + MIN_FILES // 4 + FILES_PER_WORKER * num_workers)
        if free is None:
            return num_workers
        num_ranks = read_launch().local_ranks  # they share it
        num_bytes = max(map(len, self._batches.plan), default=0) * self._dataset.clip_bytes * num_ranks
        fitting = min(num_workers, max(0, free // max(1, num_bytes) - IN_HAND) // READ_AHEAD)
        if fitting == num_workers:
            return num_workers
        needed = num_bytes * (READ_AHEAD * num_workers + IN_HAND)
        told = f"{SHARED_MEMORY}: {free / 1e6:.1f} MB are free, {num_workers} workers may need {needed / 1e6:.1f} MB"
        if not self._fewer_will_do:
            raise InputError(f"{told}. {MORE_SHARED_MEMORY}, or use --workers {fitting}.")
        log.warning("%s; %d are taken. %s.", told, fitting, MORE_SHARED_MEMORY)
        return fitting

    def __iter__(self) -> Iterator[Batch]:
        """
        Raises:
            InputError: a sample cannot be read, or a worker was killed or hangs; names the sample.
        """
        if self._loader is None:
            self._loader = self._start()
        with unheard_by_children():
            batches = iter(self._loader)
        if self._num_workers and not self._ends_at_exit:  # now, so that it comes before torch's own end of workers
            self._ends_at_exit = True
            atexit.register(_end_workers, batches._workers)  # type: ignore[attr-defined]
        while True:
            try:
                with self._ending_the_stuck(batches), _hearing_workers():
                    batch = next(batches)
            except StopIteration:
                return
            except (RuntimeError, EOFError, OSError) as error:
                raise self._explained(error) from error
            if isinstance(batch, InputError):
                raise batch
            yield batch

    @contextmanager
    def _ending_the_stuck(self, batches: Iterator[Batch]) -> Iterator[None]:
        """A worker that stops after it has said that a batch is ready never hands that over; nothing times this out."""
        if not self._num_workers:
            yield
            return

        def end() -> None:
            self._is_stuck = True
            for worker in batches._workers:  # type: ignore[attr-defined]
                worker.kill()

        timer = threading.Timer(self._stuck_s, end)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def close(self) -> None:
        """End the workers; they hear no signal that asks for it."""
        iterator = None if self._loader is None else self._loader._iterator  # torch has no public way
        if iterator is None or not hasattr(iterator, "_workers"):
            return
        iterator._shutdown_workers()  # type: ignore[attr-defined]
        for worker in iterator._workers:
            worker.kill()  # one that hangs
        self._loader = None

    def _explained(self, error: Exception) -> Exception:
        """What became of the workers, in words; they are ended."""
        # torch has no public way to end workers now, and one that is stopped does not hear its SIGTERM.
        workers = getattr(getattr(self._loader, "_iterator", None), "_workers", [])
        if not workers:
            return error
        killed = re.search(r"worker \(pid\(?s?\)? ([\d, ]+)\)", str(error))
        pids = {int(pid) for pid in killed[1].split(",")} if killed else set()
        if self._is_stuck:
            pids = set()
        elif isinstance(error, EOFError | OSError):  # a batch that was under way from one that has just died
            dead = wait_for_processes([worker.sentinel for worker in workers], DEATH_S)
            pids = {worker.pid for worker in workers if worker.sentinel in dead}
        said = str(error).lower()
        no_files = "too many open files" in said or "ancdata" in said
        no_memory = not no_files and ("bus error" in said or "shared memory" in said or "</torch_" in said)
        if not (pids or self._is_stuck or no_files or no_memory or "timed out" in said):
            return error
        where = " and ".join(
            f"{self._watched.dataset.name((epoch, position, index))} (process {pid})"
            for pid, epoch, position, index in self._watched.at_work.tolist()
            if epoch >= 0 and (pid in pids or not pids)
        )
        for worker in workers:
            worker.kill()
        self._loader._iterator._shutdown_workers()  # type: ignore[union-attr]
        if no_memory:
            told = f"{SHARED_MEMORY}: data workers have no room there, it is full"
            return InputError(f"{told}. {MORE_SHARED_MEMORY}, or use fewer --workers.")
        if no_files:
            return InputError(f"data workers have too many files open. {MORE_FILES} Or use fewer --workers.")
        if not pids:
            waited_s = self._stuck_s if self._is_stuck else self._timeout_s
            return InputError(
                f"no data for {waited_s:g} s: a worker hangs while reading {where or 'nothing'}. See whether "
                "that file can be read (egochef doctor) and whether its disk answers."
            )
        told = f"a data worker was killed{f' while reading {where}' if where else ''}"
        return InputError(f"{told}. If the system ran out of memory, use fewer --workers.")


def _end_workers(workers: list[BaseProcess]) -> None:
    """At the program's end: a worker that hangs, or was left behind by a fault, would hold it up for ever."""
    for worker in workers:
        worker.kill()


_heard_by: Callable[[int, FrameType | None], object] | None = None
"""torch's own handler of a worker's death"""
_num_hearing = 0


@contextmanager
def _hearing_workers() -> Iterator[None]:
    """torch raises a worker's death wherever the program happens to be: let it, but only in here."""
    global _heard_by, _num_hearing
    if threading.current_thread() is threading.main_thread():
        handler = signal.getsignal(signal.SIGCHLD)
        if callable(handler) and handler is not _hear:
            _heard_by = handler
            signal.signal(signal.SIGCHLD, _hear)
    _num_hearing += 1
    try:
        if _heard_by is not None:
            _error_if_any_worker_fails()  # one that died since
        yield
    finally:
        _num_hearing -= 1


def _hear(number: int, frame: FrameType | None) -> None:
    if _num_hearing and _heard_by is not None:
        _heard_by(number, frame)


def make_loader(
    dataset: ClipDataset,
    batches: Batches,
    *,
    num_workers: int,
    pin_memory: bool = False,
    timeout_s: float = WORKER_TIMEOUT_S,
    fewer_will_do: bool = False,
) -> Loader:
    """Batches in the plan's order, read by `num_workers` processes of one thread each (0: by this process).

    Args:
        timeout_s: a worker that gives nothing for so long is taken to hang.
        fewer_will_do: where shared memory has no room for so many; else that is a fault at the first batch.
    """
    return Loader(dataset, batches, num_workers, pin_memory, timeout_s, fewer_will_do)


def start_worker(_number: int = 0) -> None:
    """What a process that reads clips begins with."""
    torch.set_num_threads(1)
    keep_freed_memory()


def _start_loader_worker(number: int) -> None:
    start_worker(number)
    for each in SIGNALS:  # all processes get them, the main one decides
        signal.signal(each, signal.SIG_IGN)


def on_device(batches: Iterable[Batch], device: torch.device) -> Iterator[Batch]:
    """Batches with their frames on the device. On CUDA each is copied while the one before it is computed on."""
    if device.type != "cuda":
        for batch in batches:
            yield batch._replace(frames=batch.frames.to(device))
        return
    copying = torch.cuda.Stream(device)
    waiting: tuple[Batch, Batch, torch.cuda.Event] | None = None  # on the device, as it came (kept alive), copied
    for coming in chain(batches, [None]):
        ready = waiting
        if coming is not None:
            with torch.cuda.stream(copying):
                moved = coming._replace(frames=coming.frames.to(device, non_blocking=True))
            waiting = moved, coming, copying.record_event()
        if ready is not None:
            now = torch.cuda.current_stream(device)
            now.wait_event(ready[2])
            ready[0].frames.record_stream(now)
            yield ready[0]


class FailureCount:
    """Counts unreadable training samples by video and stops a run that loses too many."""

    def __init__(self) -> None:
        self.by_video: Counter[str] = Counter()
        self.num_samples = 0

    def add(self, batch: Batch) -> None:
        """Count a batch.

        Raises:
            InputError: more than MAX_FAILED samples and more than MAX_FAILED_SHARE of all could not be read.
        """
        self.num_samples += len(batch.segment)
        for video_id, reason in batch.failures:
            if video_id not in self.by_video:
                log.warning("a sample of %s could not be read and was replaced: %s", video_id, reason)
            self.by_video[video_id] += 1
        failed = self.by_video.total()
        if failed > MAX_FAILED and failed > MAX_FAILED_SHARE * self.num_samples:
            worst = ", ".join(f"{video_id} ({count})" for video_id, count in self.by_video.most_common(5))
            raise InputError(
                f"{failed} of {self.num_samples} training samples could not be read, most from {worst}. "
                f"Mend or remove these videos. The last reason: {batch.failures[-1][1]}"
            )
