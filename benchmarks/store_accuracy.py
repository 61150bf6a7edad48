"""Whether training from a store is as good as from raw video: the toy recipe on one kitchen, several seeds.

    python benchmarks/store_accuracy.py [--segments N] [--seeds N] > benchmarks/results/store_accuracy.json

Draws a small kitchen, prepares a store of it, and trains the same recipe with the same seeds from both. Both paths see
the same moments (the same candidate times); what differs is JPEG. Each model is scored on the source that it learned
from and on the other one. Prints one JSON object with validation top-1 in percent.
"""

import argparse
import dataclasses
import json
import tempfile
import time
from pathlib import Path

import numpy as np

from egochef.data.annotations import open_data_folder, read_split
from egochef.data.prepare import prepare
from egochef.data.store import StoreSpec
from egochef.engines.torch_engine import load
from egochef.inference.scoring import score_split, truth_of
from egochef.recipes import toy
from egochef.runtime import describe_machine, num_cpus
from egochef.scoring.metrics import evaluate
from egochef.toykitchen import ToyConfig, draw_kitchen
from egochef.training.loop import train

TASKS = ("verb", "noun", "action")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--segments", type=int, default=400)
    parser.add_argument("--seeds", type=int, default=3)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary)
        config = ToyConfig(preset="small", difficulty="hard", num_segments=args.segments)
        raw, store = draw_kitchen(place / "raw", config), place / "store"
        prepare(raw, store, StoreSpec(), num_workers=num_cpus())
        print(json.dumps(compare(place, {"raw": raw, "store": store}, args.seeds), indent=1))


def compare(place: Path, sources: dict[str, Path], num_seeds: int) -> dict[str, object]:
    scores: dict[str, list[list[float]]] = {f"{a} scored on {b}": [] for a in sources for b in sources}
    seconds: dict[str, list[float]] = {name: [] for name in sources}
    for seed in range(num_seeds):
        for name, data in sources.items():
            started = time.perf_counter()
            run = place / f"{name}{seed}"
            train(dataclasses.replace(toy(), seed=seed), data, run)
            seconds[name].append(round(time.perf_counter() - started, 1))
            for other, judged_on in sources.items():
                scores[f"{name} scored on {other}"].append(score(run, judged_on))
    folder = open_data_folder(sources["raw"])
    return {
        "machine": describe_machine(),
        "segments": {split: len(read_split(folder, split)) for split in ("train", "validation")},
        "top1": {
            name: {
                task: {"by_seed": [round(row[k], 2) for row in rows], "mean": round(float(np.mean(rows, 0)[k]), 2)}
                for k, task in enumerate(TASKS)
            }
            for name, rows in scores.items()
        },
        "train_s": seconds,
    }


def score(run: Path, data: Path) -> list[float]:
    folder = open_data_folder(data)
    segments = read_split(folder, "validation")
    metrics = evaluate(score_split(load(run), folder, "validation", segments), truth_of(folder, "validation", segments))
    return [float(metrics[f"all_{task}_accuracy_at_1"]) for task in TASKS]


if __name__ == "__main__":
    main()
