"""Measuring one model in this process: training steps, its encoder alone, inference, and the loader alone.

In: a contender's name and where a store lies. Out: times and the memory that it took. The training step is the one that
`egochef train` takes (`training.step.Learner`), and clips from the store come as they do there (`VideoSource`).
"""

import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import cycle, repeat
from pathlib import Path

import numpy as np
import torch

from egochef.bench.peers import CONTENDERS, Contender, as_recogniser, classes, known_actions
from egochef.bench.process import peak_mib_so_far
from egochef.data.annotations import Segment, open_data_folder, read_split
from egochef.data.dataset import ClipDataset, Sample, collate
from egochef.data.frames import open_frames
from egochef.data.transforms import draw_colour, to_input
from egochef.engines.torch_engine import TorchEngine
from egochef.errors import InputError
from egochef.model.recogniser import encode_frames
from egochef.runtime import mixed_precision, num_cpus, pick_device, pick_dtype, seed_torch
from egochef.taxonomy import ACTION_BASE
from egochef.training.config import TrainConfig
from egochef.training.sources import MicroBatch, VideoSource, find_micro_batch, plan_epoch
from egochef.training.step import TIMED, Learner, OutOfMemoryError, StepTimer

MIB = 2**20
LR = 1e-6
"""so small that random weights stay what they are"""
BATCHES_AN_EPOCH = 32
"""batches of different clips that a pass over the store has at least, its segments repeated as needed"""
WARM_UP_STEPS = {"cpu": 1, "cuda": 5, "mps": 3}


@dataclass(frozen=True)
class Effort:
    """How one measurement goes."""

    device: str | None = None
    """None: the best there is"""
    precision: str = "auto"
    seconds: float = 5.0
    """to measure for, at least"""
    least_steps: int = 1
    """to measure, at least"""
    tiny: bool = False
    """models and clips so small that nothing takes time; the numbers then say nothing"""


@dataclass(frozen=True)
class Taken:
    """What one measurement found; times are medians over its steps."""

    ms: float
    """a step, or a pass where nothing is trained"""
    parts_ms: dict[str, float]
    """of a training step, by `training.step.TIMED`; the mean over its steps, so that they add up"""
    wait_share: float
    """of the time of all training steps, spent waiting for clips"""
    num_clips: int
    """a step"""
    micro_batch: int
    """clips at once"""
    num_frames: int
    """a clip"""
    num_steps: int
    """measured"""
    peak_mib: float
    """of the process, libraries and all; on CUDA what tensors took on the device"""


# Training


def measure_resident(name: str, effort: Effort) -> Taken:
    """Training steps on clips that lie on the device already.

    Raises:
        ExtraError: the model's library is missing.
        InputError: the device has no room for one clip.
    """
    return _measure_training(name, effort, None)


def measure_store(name: str, effort: Effort, store: Path) -> Taken:
    """Training steps on clips from a store, as `egochef train` takes them.

    Raises:
        InputError: the device has no room for one clip.
    """
    return _measure_training(name, effort, store)


def _measure_training(name: str, effort: Effort, store: Path | None) -> Taken:
    contender = CONTENDERS[name]
    engine, config = _build(contender, effort)
    config, micro_batch = _with_batches(contender, config, engine)
    learner = Learner(engine, config)
    while True:
        try:
            return _take_steps(learner, config, micro_batch, effort, store)
        except OutOfMemoryError as error:
            if micro_batch == 1:
                raise InputError(
                    f"{name}: the device has no room for one clip ({error}). Leave it out by --models."
                ) from None
            micro_batch = (micro_batch + 1) // 2
            if not contender.is_ours:
                config = replace(config, batch_size=micro_batch)


def _take_steps(learner: Learner, config: TrainConfig, micro_batch: int, effort: Effort, store: Path | None) -> Taken:
    device = learner.engine.device
    source = None
    if store is None:
        micros = resident_clips(config, micro_batch, device)
    else:
        source = VideoSource(store_clips(store, config, BATCHES_AN_EPOCH * config.batch_size), config, device)
        micros = _passes(source, micro_batch)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    times: list[dict[str, float]] = []
    number = 0
    try:
        while number < WARM_UP_STEPS[device.type] or not _enough([one["step_ms"] for one in times], effort):
            timer, number = StepTimer(device), number + 1
            learner.take_step(micros, number, LR, timer)
            found = timer.read_ms()
            if number > WARM_UP_STEPS[device.type]:
                times.append(found)
    finally:
        if source:
            source.loader.close()
    return Taken(
        statistics.median(one["step_ms"] for one in times),
        {part: statistics.mean(one[f"{part}_ms"] for one in times) for part in TIMED},
        sum(one["data_ms"] for one in times) / sum(one["step_ms"] for one in times),
        config.batch_size,
        micro_batch,
        config.clip.num_frames,
        len(times),
        _peak_mib(device),
    )


def _enough(times_ms: list[float], effort: Effort) -> bool:
    return len(times_ms) >= effort.least_steps and sum(times_ms) >= 1000 * effort.seconds


def _build(contender: Contender, effort: Effort, *, final: bool = False) -> tuple[TorchEngine, TrainConfig]:
    """The model on the device, and its training run."""
    device = pick_device(effort.device)
    config = replace(contender.config(effort.tiny), precision=effort.precision)
    seed_torch(config.seed)
    model = as_recogniser(contender.build(config, effort.tiny))
    dtype = pick_dtype(device, effort.precision)
    return TorchEngine(model, config.clip, classes(), device, dtype, encoder_is_final=final), config


def _with_batches(contender: Contender, config: TrainConfig, engine: TorchEngine) -> tuple[TrainConfig, int]:
    """Clips a step, and at once. A GPU takes the recipe's steps; on a CPU these would last minutes."""
    if engine.device.type != "cuda":
        return replace(config, batch_size=contender.cpu_batch), contender.cpu_batch
    if contender.cuda_batch is None:
        return config, find_micro_batch(config, engine.device, engine.dtype)
    return replace(config, batch_size=contender.cuda_batch), contender.cuda_batch


def resident_clips(config: TrainConfig, micro_batch: int, device: torch.device) -> Iterator[MicroBatch]:
    """Steps of random pictures that lie on the device, without end; every micro-batch is a part of the same clips."""
    rng = np.random.default_rng(config.seed)
    (plan,) = plan_epoch(config.batch_size, config.batch_size, micro_batch, config.seed, 0)
    most, clip = max(len(planned.keys) for planned in plan), config.clip
    shape = (most, clip.num_frames, clip.image_size, clip.image_size, 3)
    frames = torch.from_numpy(rng.integers(0, 256, shape, dtype=np.uint8)).to(device)
    colour = torch.from_numpy(np.stack([draw_colour(config.augment, rng) for _ in range(most)]))
    action = torch.from_numpy(rng.choice(known_actions(), most)).to(device)
    verb, noun = action // ACTION_BASE, action % ACTION_BASE
    micros = []
    for planned in plan:
        num = len(planned.keys)
        micros.append(
            MicroBatch(
                frames[:num],
                colour[:num],
                verb[:num],
                noun[:num],
                np.arange(num),
                planned.number,
                planned.step_share,
                planned.ends_step,
            )
        )
    yield from cycle(micros)


def store_clips(store: Path, config: TrainConfig, least: int) -> ClipDataset:
    """Training clips of all labelled segments of a store, repeated until there are enough."""
    folder = open_data_folder(store)
    labelled = [segment for split in ("train", "validation") for segment in read_split(folder, split)]
    segments: list[Segment] = [one for _ in range(-(-least // len(labelled))) for one in labelled]
    return ClipDataset(
        segments, open_frames(folder, segments, config.clip.grid), config.clip, augment=config.augment, seed=config.seed
    )


def _passes(source: VideoSource, micro_batch: int) -> Iterator[MicroBatch]:
    """Passes over the store without end."""
    for epoch, _ in enumerate(repeat(None), start=1):
        yield from source.epoch(epoch, 0, micro_batch)


# The encoder alone, inference


def measure_bare(name: str, effort: Effort) -> Taken:
    """Forward and backward pass of the encoder, and nothing else, on the frames of a step's micro-batch."""
    contender = CONTENDERS[name]
    engine, config = _build(contender, effort)
    _, micro_batch = _with_batches(contender, config, engine)
    engine.recogniser.train()

    def prepare(num_clips: int) -> Callable[[], None]:
        inputs = to_input(_random_frames(config, num_clips, engine.device), config.clip)  # (B, T, 3, S, S)

        def forward_and_backward() -> None:
            with mixed_precision(engine.device, engine.dtype):
                features = encode_frames(engine.encoder, inputs)
            features.sum().backward()
            engine.recogniser.zero_grad(set_to_none=True)

        return forward_and_backward

    return measure_passes(name, prepare, config, micro_batch, engine.device, effort)


def measure_inference(name: str, effort: Effort) -> Taken:
    """Logits of clips whose cropped frames lie on the device, as prediction computes them.

    Raises:
        ExtraError: the model's library is missing.
    """
    contender = CONTENDERS[name]
    engine, config = _build(contender, effort, final=contender.is_ours)
    num_clips = contender.cuda_batch or 32 if engine.device.type == "cuda" else contender.cpu_batch
    engine.recogniser.eval()

    def prepare(num_clips: int) -> Callable[[], None]:
        frames = _random_frames(config, num_clips, engine.device)

        @torch.inference_mode()
        def predict() -> None:
            if contender.is_ours:
                engine.classify(engine.encode(frames))
                return
            inputs = to_input(frames, config.clip)  # (B, T, 3, S, S)
            with mixed_precision(engine.device, engine.dtype):
                engine.recogniser(inputs)

        return predict

    return measure_passes(name, prepare, config, num_clips, engine.device, effort)


def _random_frames(config: TrainConfig, num_clips: int, device: torch.device) -> torch.Tensor:
    """Cropped frames (B, T, S, S, 3) uint8 on the device."""
    shape = (num_clips, config.clip.num_frames, config.clip.image_size, config.clip.image_size, 3)
    pictures = np.random.default_rng(config.seed).integers(0, 256, shape, dtype=np.uint8)
    return torch.from_numpy(pictures).to(device)


def measure_passes(
    name: str,
    prepare: Callable[[int], Callable[[], None]],
    config: TrainConfig,
    num_clips: int,
    device: torch.device,
    effort: Effort,
) -> Taken:
    """Time what `prepare` makes for a number of clips, with half as many where the device has no room."""
    while True:
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        try:
            times_ms = _time_passes(prepare(num_clips), device, effort)
            break
        except torch.OutOfMemoryError:
            if num_clips == 1:
                raise InputError(f"{name}: the device has no room for one clip. Leave it out by --models.") from None
        num_clips = (num_clips + 1) // 2
        torch.cuda.empty_cache()
    frames = config.clip.num_frames
    return Taken(statistics.median(times_ms), {}, 0.0, num_clips, num_clips, frames, len(times_ms), _peak_mib(device))


def _time_passes(run: Callable[[], None], device: torch.device, effort: Effort) -> list[float]:
    for _ in range(WARM_UP_STEPS[device.type]):
        run()
    times_ms: list[float] = []
    while not _enough(times_ms, effort):
        _wait_for(device)
        began_s = time.perf_counter()
        run()
        _wait_for(device)
        times_ms.append(1000 * (time.perf_counter() - began_s))
    return times_ms


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def _peak_mib(device: torch.device) -> float:
    return torch.cuda.max_memory_allocated(device) / MIB if device.type == "cuda" else peak_mib_so_far()


# The data alone


def measure_one_process(store: Path, config: TrainConfig, num_clips: int) -> float:
    """Clips a second of processor time from a store, read and put into batches by this process alone."""
    dataset = store_clips(store, config, num_clips)
    size = 8
    for start in range(-size, num_clips, size):  # the first is for warming up
        if start == 0:
            began_s = time.process_time()
        samples: list[Sample | InputError] = [
            dataset[(1, place, place % len(dataset))] for place in range(max(0, start), max(0, start) + size)
        ]
        collate(samples)
    return -(-num_clips // size) * size / (time.process_time() - began_s)


def measure_loader(store: Path, config: TrainConfig, num_clips: int, device: str | None) -> float:
    """Clips a second that training's own source gives on all processors to a step that costs nothing."""
    config = replace(config, batch_size=8, num_workers=num_cpus())
    source = VideoSource(store_clips(store, config, num_clips), config, pick_device(device))
    speeds = []
    try:
        for epoch in (1, 2):  # the first starts the workers
            began_s = time.perf_counter()
            taken = sum(len(micro.verb) for micro in source.epoch(epoch, 0, config.batch_size))
            speeds.append(taken / (time.perf_counter() - began_s))
    finally:
        source.loader.close()
    return speeds[-1]
