"""Where a run's training batches come from: pictures, or kept features. Both yield `MicroBatch`es in a fixed order.

A step's clips are cut into micro-batches that together are the same whatever the number of ranks: rank r of W takes
every W-th of them. All ranks have equally many, so that none waits for another.
"""

import math
import os
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from egochef.data.dataset import (
    Batches,
    ClipDataset,
    FailureCount,
    Key,
    epoch_order,
    make_loader,
    on_device,
    split_evenly,
)
from egochef.errors import InputError
from egochef.inference.features import Features
from egochef.inference.scoring import default_workers
from egochef.model.encoders import ENCODERS
from egochef.training.config import TrainConfig

FIXED_ENCODER_BYTES_PER_FRAME = 3e6
"""of a frame of 224 x 224 where no gradient goes through the encoder: the picture as float32 a few times over"""


@dataclass(frozen=True)
class MicroBatch:
    """What the device takes at once, still without colour, normalisation and CutMix."""

    inputs: Tensor
    """frames (B, T, S, S, 3) uint8, or features (B, T, D) float32, on the device"""
    colour: Tensor | None
    """(B, 5) of `transforms.draw_colour` where there are frames"""
    verb: Tensor
    """(B,) int64, on the device"""
    noun: Tensor
    """(B,) int64, on the device"""
    segment: np.ndarray
    """(B,) places of the segments among those to learn from"""
    number: int
    """of the micro-batch in its step, over all ranks"""
    step_share: float
    """its share of the clips of its optimiser step"""
    ends_step: bool
    """whether it is this rank's last one of its step"""
    failures: tuple[tuple[str, str], ...] = ()
    """(video_id, reason) of samples that could not be read and were replaced"""


@dataclass(frozen=True)
class Planned:
    """A micro-batch before it is read; the fields are those of `MicroBatch`."""

    keys: list[Key]
    number: int
    step_share: float
    ends_step: bool


def num_steps(num_segments: int, batch_size: int) -> int:
    """Optimiser steps of an epoch; a last one that were smaller than the others is left out."""
    return max(1, num_segments // batch_size)


def plan_epoch(
    num_segments: int,
    batch_size: int,
    micro_batch: int,
    seed: int,
    epoch: int,
    *,
    first_step: int = 0,
    rank: int = 0,
    num_ranks: int = 1,
    shares: np.ndarray | None = None,
) -> list[list[Planned]]:
    """An epoch's steps of this rank's micro-batches, from `first_step` (counted from 0) on.

    A set smaller than one batch is one step. A step's clips are cut into the fewest micro-batches of at most
    `micro_batch` clips, as equal as can be, whose number the ranks divide among them.

    Args:
        shares: (S,) chances by which segments are drawn; None: each comes once.

    Raises:
        InputError: the ranks cannot share the clips of a step out.
    """
    order = epoch_order(num_segments, seed, epoch, shares)
    keys: list[Key] = [(epoch, position, int(index)) for position, index in enumerate(order)]
    plan = []
    for step in split_evenly(keys, batch_size)[first_step : num_steps(num_segments, batch_size)]:
        if len(step) < num_ranks:
            raise InputError(
                f"{len(step)} clips a step for {num_ranks} ranks: expected at least one each. Use a larger "
                "--batch-size, or fewer ranks."
            )
        passes = math.ceil(len(step) / (micro_batch * num_ranks))
        if passes * num_ranks > len(step):  # some would be empty
            raise InputError(
                f"{len(step)} clips a step, one at once, on {num_ranks} ranks: expected a --batch-size that the ranks "
                "divide, or a larger --micro-batch"
            )
        edges = np.linspace(0, len(step), passes * num_ranks + 1).round().astype(int).tolist()
        pieces = [step[start:stop] for start, stop in pairwise(edges)]
        mine = range(rank, len(pieces), num_ranks)
        plan.append(
            [Planned(pieces[number], number, len(pieces[number]) / len(step), number == mine[-1]) for number in mine]
        )
    return plan


def shares_of(verb: np.ndarray, noun: np.ndarray, balance: float) -> np.ndarray | None:
    """Each segment's chance (S,) to be drawn, by its classes (S,): the mean rarity of the two to the `balance`.

    None where each is to come once. The geometric mean is taken, so that a rare verb with a common noun lies between.
    """
    if balance == 0:
        return None
    counts = [np.bincount(each)[each] for each in (verb, noun)]  # (S,) of each segment's class
    weights = (counts[0] * counts[1]) ** (-balance / 2)
    return weights / weights.sum()


class VideoSource:
    """Clips from pictures, read by worker processes."""

    def __init__(
        self,
        dataset: ClipDataset,
        config: TrainConfig,
        device: torch.device,
        *,
        rank: int = 0,
        num_ranks: int = 1,
    ):
        self.config, self.device, self.rank, self.num_ranks = config, device, rank, num_ranks
        self.num_segments = len(dataset)
        self.narration_id = dataset.narration_id
        self.shares = shares_of(dataset.verb, dataset.noun, config.balance)
        self.failures = FailureCount()
        self.batches = Batches([])
        workers = config.num_workers
        if workers is None:
            workers = default_workers(device, math.ceil(len(dataset) / config.batch_size) * 4)
        self.loader = make_loader(
            dataset,
            self.batches,
            num_workers=workers,
            pin_memory=device.type == "cuda",
            fewer_will_do=config.num_workers is None,
        )

    def epoch(self, epoch: int, first_step: int, micro_batch: int) -> Generator[MicroBatch]:
        """The epoch's micro-batches from a step on.

        Raises:
            InputError: too many samples that cannot be read.
        """
        plan = _plan_of(self, epoch, first_step, micro_batch)
        self.batches.plan = [planned.keys for planned in plan]
        for planned, batch in zip(plan, on_device(self.loader, self.device), strict=True):
            self.failures.add(batch)
            yield MicroBatch(
                batch.frames,
                batch.colour,
                batch.verb.to(self.device),
                batch.noun.to(self.device),
                batch.segment.numpy(),
                planned.number,
                planned.step_share,
                planned.ends_step,
                batch.failures,
            )

    def close(self) -> None:
        """End the worker processes."""
        self.loader.close()


class FeatureSource:
    """Kept features; each epoch sees one view of every segment."""

    def __init__(
        self,
        features: Features,
        narration_id: np.ndarray,
        config: TrainConfig,
        device: torch.device,
        *,
        rank: int = 0,
        num_ranks: int = 1,
    ):
        self.features, self.config, self.device, self.rank, self.num_ranks = features, config, device, rank, num_ranks
        self.num_segments = features.num_segments
        self.narration_id = narration_id
        self.is_ours = features.shown_place >= 0  # (W, S): not the clip of a segment that is not to be learned from
        if not self.is_ours.any(axis=0).all():
            names = narration_id[~self.is_ours.any(axis=0)]
            raise InputError(
                f"{features.root}: {len(names)} segments could not be read when the features were made, and only clips "
                f"of others that are not learned from stand for them; the first is {names[0]}. Make more views, or "
                "mend the video and make the features anew."
            )
        self.shares = shares_of(features.verb[0].numpy(), features.noun[0].numpy(), config.balance)

    def epoch(self, epoch: int, first_step: int, micro_batch: int) -> Generator[MicroBatch]:
        """The epoch's micro-batches from a step on. The next one is read while the device works.

        Raises:
            InputError: features are damaged.
        """
        config = self.config
        rng = np.random.default_rng([config.seed, epoch, 2])
        views = rng.integers(self.features.num_views, size=self.num_segments)
        rows = np.arange(self.num_segments)
        views = np.where(self.is_ours[views, rows], views, self.is_ours.argmax(axis=0))
        plan = _plan_of(self, epoch, first_step, micro_batch)
        places = [np.array([index for _, _, index in planned.keys]) for planned in plan]
        pin_memory = self.device.type == "cuda"
        with ThreadPoolExecutor(max_workers=1) as reader:
            coming = [reader.submit(self.features.read, views[at], at, pin_memory=pin_memory) for at in places[:1]]
            for number, (planned, place) in enumerate(zip(plan, places, strict=True)):
                kept = coming.pop().result()
                for then in places[number + 1 : number + 2]:
                    coming.append(reader.submit(self.features.read, views[then], then, pin_memory=pin_memory))
                view = views[place]
                yield MicroBatch(
                    kept.to(self.device, non_blocking=pin_memory).float(),  # (B, T, D)
                    None,
                    self.features.verb[view, place].to(self.device),
                    self.features.noun[view, place].to(self.device),
                    self.features.shown_place[view, place],
                    planned.number,
                    planned.step_share,
                    planned.ends_step,
                )

    def close(self) -> None:
        """There is nothing to end."""


def _plan_of(source: VideoSource | FeatureSource, epoch: int, first_step: int, micro_batch: int) -> list[Planned]:
    """What a source's rank reads of an epoch, one micro-batch after the other."""
    steps = plan_epoch(
        source.num_segments,
        source.config.batch_size,
        micro_batch,
        source.config.seed,
        epoch,
        first_step=first_step,
        rank=source.rank,
        num_ranks=source.num_ranks,
        shares=source.shares,
    )
    return [planned for step in steps for planned in step]


def find_micro_batch(config: TrainConfig, device: torch.device, dtype: torch.dtype, num_ranks: int = 1) -> int:
    """Clips that one pass fits into the device's free memory, by what a frame's activations take in training."""
    share = math.ceil(config.batch_size / num_ranks)
    if config.micro_batch is not None:
        return min(config.micro_batch, share)
    if config.feature_views:
        return share
    info = ENCODERS[config.model.encoder]
    frozen = config.model.frozen_batchnorm
    frame_bytes = info.frozen_training_bytes_per_frame if frozen else info.training_bytes_per_frame
    if config.frozen_encoder:
        frame_bytes = FIXED_ENCODER_BYTES_PER_FRAME
    frame_bytes *= (config.clip.image_size / 224) ** 2
    if dtype != torch.float32:
        frame_bytes *= 0.6  # activations are halved, what stays in float32 is not
    if device.type == "cuda":
        budget = 0.7 * torch.cuda.mem_get_info(device)[0]
    else:
        budget = min(0.4 * os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"), 8 * 2**30)
    fits = max(1, int(budget / (frame_bytes * config.clip.num_frames)))
    num_passes = math.ceil(share / fits)
    return math.ceil(share / num_passes)
