"""Segments of videos as batches of clips.

In: segments and their video files. Out: `Batch`es. What a clip looks like depends on (seed, epoch, position) alone,
whatever the number of workers.

    frames  (B, T, S, S, 3) uint8   cropped, not normalised
    verb    (B,) int64              0..V-1, or -1 without labels
    noun    (B,) int64              0..N-1, or -1 without labels
    colour  (B, 5) float32          of `transforms.draw_colour`, None in evaluation
    segment (B,) int64              place of the segment among the dataset's segments
    failures  ((video_id, reason), ...)  training samples that could not be read and were replaced
"""

import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from egochef.clip import ClipSpec
from egochef.data.annotations import Segment
from egochef.data.sampling import jittered_times, view_times
from egochef.data.transforms import Augment, draw_colour, eval_crop, train_crop
from egochef.errors import InputError
from egochef.video.decode import VideoError, decode_at

log = logging.getLogger(__name__)

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
    (told in `failures`). Without, times are the bins' centres and a segment that cannot be read raises.
    `num_views` > 1 asks for several evaluation clips a segment: item (e, p, s * num_views + v) is view v of segment s.
    """

    def __init__(
        self,
        segments: Sequence[Segment],
        videos: dict[str, Path],
        clip: ClipSpec,
        *,
        augment: Augment | None = None,
        seed: int = 0,
        num_views: int = 1,
    ):
        self.clip, self.augment, self.seed, self.num_views = clip, augment, seed, num_views
        # Arrays, not 67,217 objects: forked workers then share their pages for good.
        self.narration_id = np.array([segment.narration_id for segment in segments])
        self.start_s = np.array([segment.start_s for segment in segments])
        self.stop_s = np.array([segment.stop_s for segment in segments])
        self.verb = np.array([-1 if segment.verb is None else segment.verb for segment in segments])
        self.noun = np.array([-1 if segment.noun is None else segment.noun for segment in segments])
        self.video_id, self.video = np.unique([segment.video_id for segment in segments], return_inverse=True)
        self.paths = [videos[str(video_id)] for video_id in self.video_id]

    def __len__(self) -> int:
        return len(self.narration_id) * self.num_views

    def __getitem__(self, key: Key) -> Sample:
        epoch, position, index = key
        if self.augment is None:
            segment, view = divmod(index, self.num_views)
            times = view_times(self.start_s[segment], self.stop_s[segment], self.clip.num_frames, self.num_views)[view]
            try:
                frames = decode_at(self.paths[self.video[segment]], times).frames
            except VideoError as error:
                raise VideoError(f"segment {self.narration_id[segment]}: {error}") from None
            return self._sample(eval_crop(frames, self.clip), segment, None, ())

        rng = np.random.default_rng([self.seed, epoch, position])
        failures: list[tuple[str, str]] = []
        for _ in range(MAX_REPLACEMENTS):
            times = jittered_times(self.start_s[index], self.stop_s[index], self.clip.num_frames, rng)
            try:
                frames = decode_at(self.paths[self.video[index]], times).frames
            except VideoError as error:
                failures.append((str(self.video_id[self.video[index]]), str(error)))
                index = int(rng.integers(len(self.narration_id)))
                continue
            clip = train_crop(frames, self.clip, self.augment, rng)
            colour = torch.from_numpy(draw_colour(self.augment, rng))
            return self._sample(clip, index, colour, tuple(failures))
        raise VideoError(f"{MAX_REPLACEMENTS} samples in a row could not be read, the last: {failures[-1][1]}")

    def _sample(
        self, frames: Tensor, segment: int, colour: Tensor | None, failures: tuple[tuple[str, str], ...]
    ) -> Sample:
        return Sample(frames, int(self.verb[segment]), int(self.noun[segment]), colour, segment, failures)


def collate(samples: list[Sample]) -> Batch:
    """Samples stacked; in a worker, torch does it straight into shared memory, so that no further copy is made."""
    colours = [sample.colour for sample in samples if sample.colour is not None]
    return Batch(
        frames=default_collate([sample.frames for sample in samples]),
        verb=torch.tensor([sample.verb for sample in samples]),
        noun=torch.tensor([sample.noun for sample in samples]),
        colour=torch.stack(colours) if colours else None,
        segment=torch.tensor([sample.segment for sample in samples]),
        failures=tuple(failure for sample in samples for failure in sample.failures),
    )


def epoch_order(num_segments: int, seed: int, epoch: int) -> np.ndarray:
    """A permutation of 0..num_segments-1 from (seed, epoch) alone."""
    return np.random.default_rng([seed, epoch]).permutation(num_segments)


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


def make_loader(dataset: ClipDataset, batches: Batches, *, num_workers: int, pin_memory: bool = False) -> DataLoader:
    """Batches in the plan's order, read by `num_workers` processes of one thread each (0: by this process)."""
    return DataLoader(
        dataset,
        batch_sampler=batches,
        num_workers=num_workers,
        collate_fn=collate,
        pin_memory=pin_memory,
        persistent_workers=num_workers > 0,
        worker_init_fn=_one_thread if num_workers else None,
    )


def _one_thread(_worker: int) -> None:
    torch.set_num_threads(1)


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
