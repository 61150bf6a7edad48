"""Measures training from kept features against training the same head end to end under a frozen encoder.

    python benchmarks/features.py > benchmarks/results/features.json

Draws a small toy kitchen and prepares its store. Then, with the `toy` recipe's encoder (EfficientNet-Lite0, 160 px,
fp32) and its augmentation (no CutMix, which features cannot have):

- end_to_end: `--frozen-encoder` from the store, each epoch with newly jittered clips;
- features: the same config from `--views` kept views of the same store, with a few seeds to show how far seeds alone
  move the score.

Seconds an epoch are of training alone (`train_s`) and with validation and the saving of checkpoints (`epoch_s`),
medians over the epochs. Last, `ek100`: the head of the baseline (BiLSTM of 512 units on 16 x 2048 features, batch 100)
on a features folder of EK-100's size, 67,217 segments of random numbers as fp16 in a temporary folder. Reading is
measured over a whole epoch, checksums included; training over `--steps` steps and multiplied. Prints one JSON object.
"""

import argparse
import dataclasses
import json
import logging
import os
import statistics
import sys
import tempfile
import time
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import save_file

from egochef.clip import ClipSpec
from egochef.data.annotations import Segment, open_data_folder, read_split
from egochef.data.prepare import prepare
from egochef.data.store import StoreSpec, as_bytes
from egochef.data.transforms import Augment
from egochef.engines.torch_engine import TorchEngine
from egochef.files import crc32_of, write_json
from egochef.inference.features import (
    FEATURES_FILE,
    TRAINING,
    Features,
    FeaturesAbout,
    FeatureSpec,
    ViewAbout,
    view_name,
)
from egochef.model.recogniser import ModelConfig, Recogniser
from egochef.recipes import toy
from egochef.records import to_dict
from egochef.runtime import describe_machine, pick_device, seed_torch
from egochef.taxonomy import Taxonomy
from egochef.toykitchen import ToyConfig, draw_kitchen
from egochef.training.config import TrainConfig
from egochef.training.loop import train
from egochef.training.run import FEATURES
from egochef.training.runfiles import read_log
from egochef.training.sources import FeatureSource
from egochef.training.step import Learner, StepTimer

SCORES = ("all_verb_accuracy_at_1", "all_noun_accuracy_at_1", "all_action_accuracy_at_1")
EK100_SEGMENTS, EK100_FEATURES, POOL, WARM_UP_STEPS = 67_217, 2048, 512, 3


def main() -> None:
    """Print the numbers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--segments", type=int, default=360, help="of the toy kitchen, in all splits")
    parser.add_argument("--num-frames", type=int, default=8, help="frames a clip")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--views", type=int, default=4, help="kept views of a segment")
    parser.add_argument("--seeds", type=int, default=4, help="of the runs from features")
    parser.add_argument("--steps", type=int, default=20, help="measured at EK-100's size (a GPU: all)")
    parser.add_argument("--ek100-segments", type=int, default=EK100_SEGMENTS)
    parser.add_argument("--device")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    device = pick_device(args.device)
    with tempfile.TemporaryDirectory() as folder:
        compared = compare(Path(folder), args, device)
    with tempfile.TemporaryDirectory() as folder:
        large = at_full_size(Path(folder), args, device)
    machine = describe_machine() | {"device": str(device), "load_average": round(os.getloadavg()[0], 2)}
    print(json.dumps({"machine": machine, "toy": compared, "ek100": large}, indent=1))


def compare(work: Path, args: argparse.Namespace, device: torch.device) -> dict[str, Any]:
    """The same head end to end and from features, on one store."""
    data, store = work / "data", work / "store"
    draw_kitchen(data, ToyConfig(preset="small", num_segments=args.segments))
    prepare(data, store, StoreSpec(), splits=("train", "validation"))
    folder = open_data_folder(store)
    recipe = toy()
    recipe = dataclasses.replace(
        recipe,
        clip=dataclasses.replace(recipe.clip, num_frames=args.num_frames),
        epochs=args.epochs,
        patience=args.epochs,
        batch_size=args.batch_size,
        precision="fp32",
    )
    on_pictures = dataclasses.replace(recipe, feature_views=0, frozen_encoder=True)
    on_features = dataclasses.replace(recipe, feature_views=args.views)

    end_to_end = measure_run(on_pictures, store, work / "end_to_end", device)
    started = time.perf_counter()
    train(dataclasses.replace(on_features, epochs=1), store, work / "first", device=str(device))
    kept = work / "first" / FEATURES
    one_epoch = sum(run_seconds(work / "first").values())
    making_s = time.perf_counter() - started - one_epoch
    runs = [
        measure_run(dataclasses.replace(on_features, seed=seed), kept, work / f"features{seed}", device)
        for seed in range(args.seeds)
    ]
    saved_s = end_to_end["epoch_s"] - runs[0]["epoch_s"]
    return {
        "encoder": recipe.model.encoder,
        "image_size_px": recipe.clip.image_size,
        "precision": recipe.precision,
        "num_frames": args.num_frames,
        "num_train": len(read_split(folder, "train")),
        "num_validation": len(read_split(folder, "validation")),
        "epochs": args.epochs,
        "batch_size": args.batch_size,
        "views": args.views,
        "end_to_end": end_to_end,
        "features": runs,
        "features_mean": {name: statistics.mean(run["best"][name] for run in runs) for name in SCORES},
        "ratios": {
            "train_speed": round(end_to_end["train_s"] / runs[0]["train_s"], 1),
            "epoch_speed": round(end_to_end["epoch_s"] / runs[0]["epoch_s"], 1),
        },
        "making_features_s": round(making_s, 1),
        "pays_off_after_epochs": round(making_s / saved_s, 1),
    }


def measure_run(config: TrainConfig, data: Path, out: Path, device: torch.device) -> dict[str, Any]:
    """Scores and seconds of a run."""
    started = time.perf_counter()
    progress = train(config, data, out, device=str(device))
    wall_s = time.perf_counter() - started
    evaluations = [line for line in read_log(out) if line["kind"] == "evaluation"]
    scores = [{name: line[name] for name in SCORES} for line in evaluations]
    seconds = run_seconds(out)
    return {
        "seed": config.seed,
        "best_epoch": progress.best_epoch,
        "best": scores[progress.best_epoch - 1],
        "last": scores[-1],
        "train_s": round(seconds["train_s"], 3),
        "epoch_s": round(seconds["train_s"] + seconds["evaluation_s"], 3),
        "run_s": round(wall_s, 1),
    }


def run_seconds(run: Path) -> dict[str, float]:
    """Median seconds of an epoch's training and of its evaluation, from the run's log."""
    lines = list(read_log(run))
    epochs = sorted({line["epoch"] for line in lines})
    train_ms = [
        sum(line["step_ms"] for line in lines if line["kind"] == "step" and line["epoch"] == epoch) for epoch in epochs
    ]
    evaluation_ms = [line["eval_ms"] for line in lines if line["kind"] == "evaluation"]
    return {
        "train_s": statistics.median(train_ms) / 1000,
        "evaluation_s": statistics.median(evaluation_ms) / 1000,
    }


def at_full_size(work: Path, args: argparse.Namespace, device: torch.device) -> dict[str, Any]:
    """Seconds of an epoch of head-only training at EK-100's size."""
    config = dataclasses.replace(TrainConfig(), augment=Augment(cutmix_alpha=0.0), feature_views=1)
    segments = write_features(work / "F", args.ek100_segments, config.clip)
    features = Features(work / "F", TRAINING, segments)
    read_s = [seconds_to_read(features, config.batch_size) for _ in range(2)]

    seed_torch(0)
    taxonomy = Taxonomy(tuple(f"verb {i}" for i in range(97)), tuple(f"noun {i}" for i in range(300)))
    recogniser = Recogniser(ModelConfig())
    recogniser.encoder.requires_grad_(False)
    engine = TorchEngine(recogniser, config.clip, taxonomy, device, torch.float32, encoder_is_final=True)
    learner = Learner(engine, config)
    micros = FeatureSource(features, np.array([s.narration_id for s in segments]), config, device).epoch(
        1, 0, config.batch_size
    )
    all_steps = len(segments) // config.batch_size
    num_steps = all_steps if device.type == "cuda" else min(all_steps, WARM_UP_STEPS + args.steps)
    steps_ms = []
    for step in range(1, num_steps + 1):
        timer = StepTimer(device)
        learner.take_step(micros, step, config.lr, timer)
        steps_ms.append(timer.read_ms()["step_ms"])
    micros.close()
    steps_ms = steps_ms[WARM_UP_STEPS:]
    return {
        "num_segments": len(segments),
        "features": [config.clip.num_frames, EK100_FEATURES],
        "kept_as": "fp16",
        "computed_in": "fp32",
        "hidden_size": recogniser.config.hidden_size,
        "batch_size": config.batch_size,
        "view_bytes": features.about.views[0].num_bytes,
        "read_epoch_first_s": round(read_s[0], 2),
        "read_epoch_again_s": round(read_s[1], 2),
        "steps_measured": len(steps_ms),
        "steps_of_an_epoch": all_steps,
        "step_ms": round(statistics.median(steps_ms), 1),
        "epoch_s": round(statistics.mean(steps_ms) * all_steps / 1000, 1),
        "epoch_is_extrapolated": len(steps_ms) < all_steps - WARM_UP_STEPS,
    }


def write_features(root: Path, num_segments: int, clip: ClipSpec) -> tuple[Segment, ...]:
    """A features folder of one training view of random numbers, from a pool of rows; its segments."""
    rng = np.random.default_rng(0)
    pool = rng.gamma(0.5, 0.8, (POOL, clip.num_frames, EK100_FEATURES)).astype("<f2")
    pool_crc32 = np.array([zlib.crc32(row) for row in pool])
    segments = tuple(
        Segment(f"P01_01_{i}", "P01", "P01_01", i, i + 1, int(rng.integers(97)), int(rng.integers(300)), "", i)
        for i in range(num_segments)
    )
    choice = rng.integers(POOL, size=num_segments)
    path = root / f"{view_name(TRAINING, 0)}.npy"
    path.parent.mkdir(parents=True)
    with path.open("wb") as file:
        shape = (num_segments, *pool.shape[1:])
        np.lib.format.write_array_header_1_0(file, {"descr": "<f2", "fortran_order": False, "shape": shape})
        for number in choice:
            file.write(pool[number].data)
    index = {
        "narration_id": as_bytes([segment.narration_id for segment in segments]),
        "shown": np.arange(num_segments, dtype=np.int32),
        "verb": np.array([segment.verb for segment in segments], np.int32),
        "noun": np.array([segment.noun for segment in segments], np.int32),
        "crc32": pool_crc32[choice],
    }
    save_file(index, path.with_suffix(".safetensors"))
    view = ViewAbout(
        view_name(TRAINING, 0), num_segments, path.stat().st_size, crc32_of(path.with_suffix(".safetensors"))
    )
    spec = FeatureSpec("resnet50", "", "imagenet", (), clip, Augment(cutmix_alpha=0.0), 0, "fp32")
    about = FeaturesAbout(spec, EK100_FEATURES, (), (), "", (view,))
    write_json(root / FEATURES_FILE, to_dict(about))
    return segments


def seconds_to_read(features: Features, batch_size: int) -> float:
    """Every segment once in random order, by one thread."""
    order = np.random.default_rng(0).permutation(features.num_segments)
    started = time.perf_counter()
    for places in np.array_split(order, -(-len(order) // batch_size)):
        features.read(np.zeros_like(places), places)
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
