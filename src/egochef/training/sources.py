"""Where a run's training batches come from: videos, or kept features. Both yield `MicroBatch`es in a fixed order."""

import math
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

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
from egochef.data.transforms import to_input
from egochef.inference.features import Features
from egochef.inference.scoring import default_workers
from egochef.model.encoders import ENCODERS
from egochef.training.config import TrainConfig
from egochef.training.objective import cutmix

FIXED_ENCODER_BYTES_PER_FRAME = 3e6
"""of a frame of 224 x 224 where no gradient goes through the encoder: the picture as float32 a few times over"""


@dataclass(frozen=True)
class MicroBatch:
    """What the device takes at once."""

    inputs: Tensor
    """normalised frames (B, T, 3, H, W), or features (B, T, D)"""
    verb: Tensor
    """(B,) int64"""
    noun: Tensor
    """(B,) int64"""
    partner: Tensor
    """(B,) int64: the clip that CutMix pasted a box of"""
    own_share: float
    """area of each clip that is its own"""
    step_share: float
    """its share of the clips of its optimiser step"""
    ends_step: bool


def plan_epoch(
    num_segments: int,
    batch_size: int,
    micro_batch: int,
    seed: int,
    epoch: int,
    *,
    rank: int = 0,
    num_ranks: int = 1,
) -> list[list[list[Key]]]:
    """Steps of micro-batches of keys; the last step is left out if it were smaller than the others.

    A set smaller than one batch is one step. Of several ranks (processes, each with a device), each gets its share of
    every step; together they get the keys that one alone would get.
    """
    keys: list[Key] = [
        (epoch, position, int(index)) for position, index in enumerate(epoch_order(num_segments, seed, epoch))
    ]
    steps = split_evenly(keys, batch_size)
    if len(steps) > 1 and len(steps[-1]) < batch_size:
        steps.pop()
    return [split_evenly(step[rank::num_ranks], micro_batch) for step in steps]


class VideoSource:
    """Clips decoded from video, augmented on the device."""

    def __init__(self, dataset: ClipDataset, config: TrainConfig, device: torch.device, micro_batch: int):
        self.config, self.device, self.micro_batch = config, device, micro_batch
        self.num_segments = len(dataset)
        self.failures = FailureCount()
        self.batches = Batches([])
        workers = config.num_workers
        if workers is None:
            workers = default_workers(device, math.ceil(len(dataset) / micro_batch))
        self.loader = make_loader(dataset, self.batches, num_workers=workers, pin_memory=device.type == "cuda")

    def epoch(self, epoch: int) -> Iterator[MicroBatch]:
        """The epoch's micro-batches.

        Raises:
            InputError: too many samples that cannot be read.
        """
        config = self.config
        steps = plan_epoch(self.num_segments, config.batch_size, self.micro_batch, config.seed, epoch)
        self.batches.plan = [micro for step in steps for micro in step]
        ends = [micro is step[-1] for step in steps for micro in step]
        sizes = [sum(len(micro) for micro in step) for step in steps for _ in step]
        for number, batch in enumerate(on_device(self.loader, self.device)):
            self.failures.add(batch)
            inputs = to_input(batch.frames, config.clip, batch.colour)
            rng = np.random.default_rng([config.seed, epoch, number, 1])
            partner, own_share = cutmix(inputs, config.augment.cutmix_alpha, rng)
            yield MicroBatch(
                inputs,
                batch.verb.to(self.device),
                batch.noun.to(self.device),
                partner.to(self.device),
                own_share,
                len(batch.segment) / sizes[number],
                ends[number],
            )


class FeatureSource:
    """Kept features; each epoch sees one view of every segment."""

    def __init__(self, features: Features, config: TrainConfig, device: torch.device):
        self.features, self.config, self.device = features, config, device
        self.num_segments = features.num_segments

    def epoch(self, epoch: int) -> Iterator[MicroBatch]:
        """The epoch's batches: one micro-batch a step. The next one is read while the device works.

        Raises:
            InputError: features are damaged.
        """
        config = self.config
        rng = np.random.default_rng([config.seed, epoch, 2])
        views = rng.integers(self.features.num_views, size=self.num_segments)
        steps = plan_epoch(self.num_segments, config.batch_size, config.batch_size, config.seed, epoch)
        places = [np.array([index for _, _, index in keys]) for (keys,) in steps]
        pin_memory = self.device.type == "cuda"
        with ThreadPoolExecutor(max_workers=1) as reader:
            ahead = reader.submit(self.features.read, views[places[0]], places[0], pin_memory=pin_memory)
            for number, place in enumerate(places):
                kept = ahead.result()
                if number + 1 < len(places):
                    then = places[number + 1]
                    ahead = reader.submit(self.features.read, views[then], then, pin_memory=pin_memory)
                view = views[place]
                yield MicroBatch(
                    kept.to(self.device, non_blocking=pin_memory).float(),  # (B, T, D)
                    self.features.verb[view, place].to(self.device),
                    self.features.noun[view, place].to(self.device),
                    torch.arange(len(place), device=self.device),
                    1.0,
                    1.0,
                    True,
                )


def find_micro_batch(config: TrainConfig, device: torch.device, dtype: torch.dtype) -> int:
    """Clips that one pass fits into the device's free memory, by what a frame's activations take in training."""
    if config.micro_batch is not None:
        return min(config.micro_batch, config.batch_size)
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
    num_passes = math.ceil(config.batch_size / fits)
    return math.ceil(config.batch_size / num_passes)
