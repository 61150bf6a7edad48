"""What each way to train faster buys in time and costs in accuracy: the light model on a small toy kitchen.

    python benchmarks/levers.py > benchmarks/results/levers.json

Draws a small kitchen and prepares its store. One run is the base: EfficientNet-Lite0 from its ImageNet weights, the
whole model trained end to end. Each lever is the same run with one thing changed, and all levers learn from the same
store with the same seeds:

- frames: half the frames a clip;
- progressive: half of the epochs on smaller pictures with half the frames, then the base's clips;
- stages: the first 5 of the encoder's 9 stages stay as loaded;
- encoder: only what follows the encoder is trained, from pictures;
- features: the same from kept features, `--views` of each segment.

Seconds are of training alone (`train_s`, the steps of all epochs) and of the whole run (`run_s`) with validation,
checkpoints and, for features, their making. Accuracy is validation top-1 in percent, (verb, noun, action), at the last
epoch and at the best one. There are few validation segments, so differences of a few points say little:
`segment_points` is what one segment is worth, `spread` how far seeds alone move the last action accuracy. Seeds are in
turn, so that a busy machine hits all levers alike. Prints one JSON object.
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
from pathlib import Path
from typing import Any

from egochef.data.annotations import open_data_folder, read_split
from egochef.data.prepare import prepare
from egochef.data.store import StoreSpec
from egochef.recipes import toy
from egochef.runtime import describe_machine, num_cpus, pick_device, pick_dtype
from egochef.toykitchen import ToyConfig, draw_kitchen
from egochef.training.config import Phase, TrainConfig
from egochef.training.loop import train
from egochef.training.runfiles import read_log

SCORES = ("all_verb_accuracy_at_1", "all_noun_accuracy_at_1", "all_action_accuracy_at_1")
SMALLEST_PX = 32


def main() -> None:
    """Print the numbers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--segments", type=int, default=140, help="of the toy kitchen, in all splits")
    parser.add_argument("--num-frames", type=int, default=16, help="frames a clip of the base")
    parser.add_argument("--image-size", type=int, default=96, help="of the base's clips, pixels")
    parser.add_argument("--hidden-size", type=int, default=256, help="LSTM units per direction")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--views", type=int, default=4, help="kept views of a segment")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--levers", nargs="+", metavar="L", help="only some of them; the base is always run")
    parser.add_argument("--device")
    args = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(compare(Path(folder), args), indent=1))


def compare(work: Path, args: argparse.Namespace) -> dict[str, Any]:
    """The base and each lever, with every seed."""
    device = pick_device(args.device)
    data, store = work / "data", work / "store"
    draw_kitchen(data, ToyConfig(preset="small", num_segments=args.segments))
    prepare(data, store, StoreSpec(), splits=("train", "validation"), num_workers=num_cpus())
    base = base_config(args)
    configs = {name: config for name, config in levers_of(base, args.views).items() if wanted(name, args.levers)}
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in configs}
    began_load = round(os.getloadavg()[0], 2)
    for seed in range(args.seeds):
        for name, config in configs.items():
            out = work / f"{name}{seed}"
            runs[name].append(measure_run(dataclasses.replace(config, seed=seed), store, out, str(device)))
            print(f"{name}, seed {seed}: {json.dumps(runs[name][-1])}", file=sys.stderr)
    folder = open_data_folder(store)
    num_validation = len(read_split(folder, "validation"))
    return {
        "machine": describe_machine()
        | {
            "device": str(device),
            "precision": str(pick_dtype(device, base.precision)).split(".")[-1],
            "load_average_before": began_load,
            "load_average_after": round(os.getloadavg()[0], 2),
        },
        "segments": {"train": len(read_split(folder, "train")), "validation": num_validation},
        "segment_points": round(100 / num_validation, 2),
        "base": {
            "encoder": base.model.encoder,
            "hidden_size": base.model.hidden_size,
            "num_frames": base.clip.num_frames,
            "image_size_px": base.clip.image_size,
            "epochs": base.epochs,
            "batch_size": base.batch_size,
        },
        "changed": {name: changes(base, config) for name, config in configs.items()},
        "levers": {name: summarise(found, runs["base"]) for name, found in runs.items()},
    }


def base_config(args: argparse.Namespace) -> TrainConfig:
    """The toy recipe trained end to end, without its kept features."""
    recipe = toy()
    return dataclasses.replace(
        recipe,
        model=dataclasses.replace(recipe.model, hidden_size=args.hidden_size),
        clip=dataclasses.replace(
            recipe.clip, num_frames=args.num_frames, image_size=args.image_size, resize_size=args.image_size
        ),
        feature_views=0,
        epochs=args.epochs,
        patience=args.epochs,
        warmup_epochs=min(1.0, args.epochs / 4),
        batch_size=args.batch_size,
    )


def levers_of(base: TrainConfig, num_views: int) -> dict[str, TrainConfig]:
    """The base under its name, then one change each."""
    half = max(1, base.clip.num_frames // 2)
    smaller = max(SMALLEST_PX, base.clip.image_size * 2 // 3)
    return {
        "base": base,
        "frames": dataclasses.replace(base, clip=dataclasses.replace(base.clip, num_frames=half)),
        "progressive": dataclasses.replace(base, progressive=(Phase(0.5, smaller, half),)),
        "stages": dataclasses.replace(base, frozen_stages=5),
        "encoder": dataclasses.replace(base, frozen_encoder=True),
        "features": dataclasses.replace(base, feature_views=num_views),
    }


def wanted(name: str, chosen: list[str] | None) -> bool:
    return chosen is None or name == "base" or name in chosen


def changes(base: TrainConfig, config: TrainConfig) -> dict[str, Any]:
    """The fields in which a lever's run differs from the base."""
    there, here = dataclasses.asdict(base), dataclasses.asdict(config)
    found = {name: here[name] for name in here if here[name] != there[name]}
    if "clip" in found:
        found["clip"] = {name: value for name, value in here["clip"].items() if value != there["clip"][name]}
    return found


def measure_run(config: TrainConfig, data: Path, out: Path, device: str) -> dict[str, Any]:
    """Scores and seconds of a run."""
    began_s = time.perf_counter()
    progress = train(config, data, out, device=device)
    run_s = time.perf_counter() - began_s
    lines = list(read_log(out))
    scores = [[line[name] for name in SCORES] for line in lines if line["kind"] == "evaluation"]
    train_s = sum(line["step_ms"] for line in lines if line["kind"] == "step") / 1000
    return {
        "seed": config.seed,
        "best_epoch": progress.best_epoch,
        "best": [round(score, 2) for score in scores[progress.best_epoch - 1]],
        "last": [round(score, 2) for score in scores[-1]],
        "train_s": round(train_s, 2),
        "run_s": round(run_s, 2),
    }


def summarise(runs: list[dict[str, Any]], base: list[dict[str, Any]]) -> dict[str, Any]:
    """Means over the seeds, and what they are beside the base's; scores are (verb, noun, action)."""

    def mean(of: list[dict[str, Any]], name: str) -> float:
        return statistics.mean(run[name] for run in of)

    def scores(of: list[dict[str, Any]], name: str) -> list[float]:
        return [statistics.mean(run[name][task] for run in of) for task in range(len(SCORES))]

    best, last = scores(runs, "best"), scores(runs, "last")
    actions = [run["last"][2] for run in runs]
    return {
        "runs": runs,
        "train_s": round(mean(runs, "train_s"), 2),
        "run_s": round(mean(runs, "run_s"), 2),
        "best": [round(score, 2) for score in best],
        "last": [round(score, 2) for score in last],
        "spread": round(max(actions) - min(actions), 2),
        "train_speed": round(mean(base, "train_s") / mean(runs, "train_s"), 2),
        "run_speed": round(mean(base, "run_s") / mean(runs, "run_s"), 2),
        "last_minus_base": [round(here - there, 2) for here, there in zip(last, scores(base, "last"), strict=True)],
    }


if __name__ == "__main__":
    main()
