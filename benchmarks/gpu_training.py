"""Checks of training for `gpu.py`: steps, resuming and memory on a device beside the processor's.

In: a `Place` with a drawn kitchen's store. Out: `Found`: numbers, and faults where they are too far apart. A run that
several checks need is trained by the first one that asks for it. From one seed a device's dropout draws other masks
than the processor's, so runs that are compared over the two have none.
"""

import dataclasses
import math
import os
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from gpu_runner import Found, Place

from egochef.bench.kitchens import Kitchen, set_up
from egochef.bench.process import in_fresh_process
from egochef.bench.steps import MIB, Effort, measure_resident
from egochef.bench.train import CONTENDERS, TrainBench, quick_bench
from egochef.clip import ClipSpec
from egochef.data.annotations import DataFolder, Segment, open_data_folder, read_split
from egochef.data.store import StoreSpec
from egochef.data.transforms import Augment
from egochef.errors import Stopped
from egochef.model.checkpoint import BEST, read_tensors
from egochef.model.recogniser import ModelConfig
from egochef.runtime import pick_device, pick_dtype
from egochef.toykitchen import ToyConfig
from egochef.training.config import Speed, TrainConfig, with_encoder
from egochef.training.loop import train
from egochef.training.runfiles import read_log
from egochef.training.sources import find_micro_batch
from egochef.training.state import Progress, newest_whole, state_path

FIRST_LOSS = 1e-4
"""between losses of the first step, relative: float32 sums in another order"""
LATER_LOSS = 0.02
"""between losses of later steps: AdamW's first steps are as long for a tiny gradient as for a large one, which turns
rounding into other weights"""
GRAD_NORM = 1e-2
"""between the norms of the first step's gradients, relative"""
CAP_MIB = 512
"""of the device's memory in the check that runs out of it"""
LIGHT = "efficientnet_lite0"


def bench_of(place: Place) -> TrainBench:
    """The benchmark whose kitchen all checks read."""
    if place.tiny:
        kitchen = Kitchen(ToyConfig(preset="small", num_segments=16, width_px=96, height_px=64))
        return dataclasses.replace(quick_bench(), kitchen=kitchen, store=StoreSpec(size_px=64))
    return TrainBench(kitchen=Kitchen(ToyConfig(num_segments=40, segment_s=2.5, validation_share=0.3)))


def store_of(place: Place) -> Path:
    return place.work / "train" / "store"  # where `bench_train` looks for it too


def segments_of(place: Place, split: str) -> tuple[DataFolder, tuple[Segment, ...]]:
    folder = open_data_folder(store_of(place))
    return folder, read_split(folder, split)


def draw_the_kitchen(place: Place) -> Found:
    """The kitchen and its store, which all others read."""
    bench = bench_of(place)
    set_up(place.work / "train", bench.kitchen, bench.store)
    return Found({split: len(segments_of(place, split)[1]) for split in ("train", "validation")})


# Runs, and what is compared


def light(place: Place) -> TrainConfig:
    """A few steps of the light model from its ImageNet weights, in float32 and without dropout."""
    size, num_frames, batch_size = (32, 2, 4) if place.tiny else (96, 4, 8)
    config = TrainConfig(
        recipe="gpu",
        model=ModelConfig(hidden_size=8 if place.tiny else 64, temporal_dropout=0.0, head_dropout=0.0),
        clip=ClipSpec(num_frames=num_frames, image_size=size, resize_size=size),
        epochs=2,
        warmup_epochs=0.5,
        batch_size=batch_size,
        micro_batch=batch_size // 2,
        lr=3e-4,
        frozen_stages=7 if place.tiny else 0,  # of 9: processors are slow at going back in fp16
        precision="fp32",
        num_workers=0 if place.tiny else 2,
        max_train_segments=8 if place.tiny else 24,
    )
    return with_encoder(config, LIGHT)


def resnet(place: Place) -> TrainConfig:
    """Two steps of a ResNet-50 from random weights."""
    size, num_frames, batch_size = (32, 2, 2) if place.tiny else (96, 4, 4)
    base = with_encoder(light(place), "resnet50")
    return dataclasses.replace(
        base,
        model=dataclasses.replace(base.model, frozen_batchnorm=False),
        clip=dataclasses.replace(base.clip, num_frames=num_frames, image_size=size, resize_size=size),
        init="none",
        frozen_stages=0,
        epochs=1,
        batch_size=batch_size,
        micro_batch=batch_size,
        max_train_segments=2 * batch_size,
        max_validation_segments=2,
    )


def with_switches(place: Place) -> TrainConfig:
    """What the recipes `light`, `strong` and `fast` are made of, with most other switches of training."""
    base = with_encoder(light(place), f"{LIGHT}_tsm")
    return dataclasses.replace(
        base,
        model=dataclasses.replace(base.model, temporal="bigru", joint=True),
        augment=Augment(mixup_alpha=0.2, min_span=0.5, drop_frames=0.2),
        balance=0.5,
        logit_adjustment=0.5,
        layer_decay=0.8,
        ema_decay=0.9,
        num_views=2,
        speed=Speed(recompute=True),
    )


def run(place: Place, config: TrainConfig, name: str, device: str | None = None) -> Path:
    """A run's folder; trained on the device, or another one, unless it is there already."""
    out = place.work / name
    train(config, store_of(place), out, resume=True, device=device or place.device)
    return out


def run_twice(place: Place, config: TrainConfig, name: str) -> tuple[Path, Path]:
    """The run on the device, and the same on the processor."""
    return run(place, config, name), run(place, config, f"{name}-cpu", "cpu")


def steps_of(folder: Path) -> dict[str, np.ndarray]:
    """What the log says of a run's steps; a number that was not finite is NaN."""
    lines = [line for line in read_log(folder) if line["kind"] == "step"]
    return {
        name: np.array([math.nan if line[name] is None else line[name] for line in lines])
        for name in ("loss", "grad_norm", "skipped")
    }


def relative(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """Differences over what they differ from."""
    return abs(ours - theirs) / abs(theirs)


def compare_steps(found: Found, here: Path, there: Path, *, first: float, later: float) -> None:
    """Losses and gradients of two runs of the same steps."""
    ours, theirs = steps_of(here), steps_of(there)
    found.expect(len(ours["loss"]) == len(theirs["loss"]), "as many steps in both runs")
    apart = relative(ours["loss"], theirs["loss"])
    found.detail |= {"num_steps": len(apart), "bit_for_bit": bool((ours["loss"] == theirs["loss"]).all())}
    found.at_most("first_loss_apart", float(apart[0]), first)
    found.at_most("losses_apart", float(apart.max()), later)


def training(place: Place, make_config: Callable[[Place], TrainConfig]) -> Found:
    """The same steps on the processor and on the device."""
    found = Found()
    here, there = run_twice(place, make_config(place), make_config.__name__)
    compare_steps(found, here, there, first=FIRST_LOSS, later=LATER_LOSS)
    norms = relative(steps_of(here)["grad_norm"], steps_of(there)["grad_norm"])
    found.at_most("first_grad_norm_apart", float(norms[0]), GRAD_NORM)
    return found


def scaler_of(folder: Path) -> dict[str, float]:
    """The gradient scaler in a run's newest state; {} where there is none."""
    name = newest_whole(folder)
    return {} if name is None else read_tensors(state_path(folder, name))[1]["scaler"]


def resuming(place: Place, precision: str) -> Found:
    """A run that was stopped after a step and gone on with is the run that was not."""
    found = Found()
    config = dataclasses.replace(light(place), precision=precision, ema_decay=0.9)
    model = dataclasses.replace(config.model, temporal_dropout=0.3, head_dropout=0.5)
    config = dataclasses.replace(config, model=model)
    straight = run(place, config, f"straight-{precision}")
    stopped = place.work / f"stopped-{precision}"

    def stop(progress: Progress) -> None:
        if (progress.epoch, progress.epoch_step) == (1, 1):
            found.detail["stopped_after_step"] = progress.step
            os.kill(os.getpid(), signal.SIGTERM)

    try:
        train(config, store_of(place), stopped, device=place.device, on_step=stop)
        found.expect(False, "the signal stops the run")
    except Stopped:
        num_steps = len(steps_of(stopped)["loss"])
        found.expect(num_steps == found.detail["stopped_after_step"], f"no step after the signal, not {num_steps}")
    train(config, store_of(place), stopped, resume=True, device=place.device)
    compare_steps(found, stopped, straight, first=FIRST_LOSS, later=LATER_LOSS)
    ours, theirs = (read_tensors(folder / BEST)[0] for folder in (stopped, straight))
    found.detail["weights_bit_for_bit"] = all(torch.equal(ours[name], theirs[name]) for name in theirs)
    if precision == "fp16":
        found.detail["scaler"] = scaler_of(stopped)
        found.expect(scaler_of(stopped) == scaler_of(straight), f"the scaler ends as {scaler_of(straight)}")
    return found


# Memory


def micro_batch(place: Place) -> Found:
    """The clips at once that training finds for itself fit: steps of the recipe `frames16`, or tiny ones."""
    found = Found()
    name = "light16" if place.tiny else "ours16"
    device = pick_device(place.device)
    planned = find_micro_batch(CONTENDERS[name].config(place.tiny), device, pick_dtype(device))
    taken = measure_resident(name, Effort(place.device, seconds=0.0, tiny=place.tiny))
    found.detail |= {"planned": planned, "taken": taken.micro_batch, "peak_mib": round(taken.peak_mib, 1)}
    found.expect(device.type != "cuda" or taken.micro_batch == planned, "the planned number fits")
    return found


def no_room(place: Place) -> Found:
    """A run that does not find the memory it asks for goes on with fewer clips at once, to the same losses. CUDA only.

    CutMix is off: which clips it mixes depends on the micro-batch that they are in.
    """
    found = Found()
    base = light(place)
    config = dataclasses.replace(
        base,
        augment=dataclasses.replace(base.augment, cutmix_alpha=0.0),
        batch_size=base.max_train_segments or base.batch_size,
        micro_batch=base.max_train_segments,
        max_validation_segments=4,
    )
    cramped = place.work / "cramped"
    ended = in_fresh_process(train_in, CAP_MIB, config, store_of(place), cramped, place.device, as_worker=False)
    found.detail |= {"asked": config.micro_batch, "ended_with": ended}
    found.expect(0 < ended < (config.micro_batch or 0), f"fewer clips at once in {CAP_MIB} MiB")
    roomy = run(place, dataclasses.replace(config, micro_batch=ended or None), "roomy")
    compare_steps(found, cramped, roomy, first=FIRST_LOSS, later=LATER_LOSS)
    return found


def train_in(cap_mib: int, config: TrainConfig, data: Path, out: Path, device_name: str) -> int:
    """Train in so much memory of a GPU; gives the clips at once that it ended with."""
    device = pick_device(device_name)
    total = torch.cuda.get_device_properties(device).total_memory
    torch.cuda.set_per_process_memory_fraction(min(1.0, cap_mib * MIB / total), device)
    return train(config, data, out, device=device_name).micro_batch
