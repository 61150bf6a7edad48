"""Encoder features of whole splits, kept: heads then train on them in seconds an epoch."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from egochef.data.annotations import Segment
from egochef.data.dataset import Batches, ClipDataset, FailureCount, Key, make_loader, split_evenly
from egochef.data.transforms import Augment
from egochef.engines.torch_engine import TorchEngine
from egochef.inference.scoring import ENCODE_FRAMES, default_workers, encode_segments


@dataclass(frozen=True)
class Features:
    """What an encoder saw of segments."""

    features: Tensor
    """(W, S, T, D) float32, W jittered views of S segments"""
    verb: Tensor
    """(W, S) int64: per view, as an unreadable segment's place is taken by another"""
    noun: Tensor
    """(W, S) int64"""


def train_features(
    engine: TorchEngine,
    segments: tuple[Segment, ...],
    videos: dict[str, Path],
    augment: Augment,
    *,
    num_views: int,
    seed: int,
    num_workers: int | None = None,
) -> tuple[Features, FailureCount]:
    """Features of `num_views` clips a segment, each with times and pictures of its own.

    Raises:
        InputError: too many samples that cannot be read.
    """
    dataset = ClipDataset(segments, videos, engine.clip, augment=augment, seed=seed)
    keys: list[Key] = [(view, index, index) for view in range(num_views) for index in range(len(segments))]
    plan = split_evenly(keys, max(1, ENCODE_FRAMES[engine.device.type] // engine.clip.num_frames))
    workers = default_workers(engine.device, len(plan)) if num_workers is None else num_workers
    loader = make_loader(dataset, Batches(plan), num_workers=workers, pin_memory=engine.device.type == "cuda")
    failures = FailureCount()
    features, verb, noun = [], [], []
    with tqdm(total=len(keys), desc="features of train", unit="clip", disable=None, leave=False) as bar:
        for batch in loader:
            failures.add(batch)
            features.append(engine.encode(batch.frames, batch.colour).cpu())
            verb.append(batch.verb)
            noun.append(batch.noun)
            bar.update(len(batch.segment))
    shape = (num_views, len(segments))
    return (
        Features(torch.cat(features).unflatten(0, shape), torch.cat(verb).view(shape), torch.cat(noun).view(shape)),
        failures,
    )


def eval_features(engine: TorchEngine, segments: tuple[Segment, ...], videos: dict[str, Path]) -> Tensor:
    """Features (S, T, D) of each segment's evaluation clip, on the CPU."""
    parts = [part.cpu() for _, part in encode_segments(engine, segments, videos, title="features of validation")]
    return torch.cat(parts)
