"""Does a model without recurrence cost accuracy? The TCN against the BiLSTM on ToyKitchen, by the same recipe.

Draws a kitchen with 1,026 validation segments (kept between calls), makes the light encoder's features once, and trains
both heads by the `toy` recipe with five seeds. Prints JSON: accuracy by seed, and the difference TCN minus BiLSTM in
points, paired by seed and segment, with a 95 % interval from resampling both seeds and segments 10,000 times.

    python benchmarks/recurrence.py > benchmarks/results/recurrence.json
"""

import argparse
import dataclasses
import json
import logging
import statistics
import sys
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from egochef.data.annotations import open_data_folder, read_split
from egochef.deploy.source import Head
from egochef.engines.torch_engine import load
from egochef.inference.features import EVALUATION, Features
from egochef.inference.scoring import score_features, truth_of
from egochef.model.recogniser import count_parameters
from egochef.recipes import toy
from egochef.runtime import describe_machine
from egochef.scoring.metrics import evaluate
from egochef.toykitchen import ToyConfig, draw_kitchen
from egochef.training.config import TrainConfig
from egochef.training.loop import train
from egochef.training.run import FEATURES

MODELS: dict[str, dict[str, Any]] = {
    "bilstm": {"temporal": "bilstm"},
    "tcn": {"temporal": "tcn"},
    "tcn_causal": {"temporal": "tcn", "causal": True},
}
NUM_SEGMENTS, VALIDATION_SHARE = 1800, 0.57
NUM_RESAMPLED = 10_000
TASKS = ("verb", "noun", "action")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("outputs", "recurrence"))
    parser.add_argument("--seeds", type=int, default=5)
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)

    data = args.work / "data"
    if not data.exists():
        draw_kitchen(data, ToyConfig(num_segments=NUM_SEGMENTS, validation_share=VALIDATION_SHARE))
    kept = args.work / "first" / FEATURES
    if not kept.exists():
        train(dataclasses.replace(toy(), epochs=1), data, args.work / "first", resume=True)
    folder = open_data_folder(kept)
    segments = read_split(folder, "validation")
    truth = truth_of(folder, "validation", segments)
    rows: dict[str, Any] = {}
    right: dict[str, np.ndarray] = {}
    for name, change in MODELS.items():
        found, rows[name] = [], []
        for seed in range(args.seeds):
            run = args.work / f"{name}{seed}"
            train(config_of(change, seed), kept, run, resume=True)
            table = score_features(load(run, device="cpu"), segments, Features(kept, EVALUATION, segments))
            verb, noun = (table.verb_output.argmax(1) == truth.verb, table.noun_output.argmax(1) == truth.noun)
            found.append(np.stack([verb, noun, verb & noun]))
            rows[name].append({task: evaluate(table, truth)[f"all_{task}_accuracy_at_1"] for task in TASKS})
        right[name] = np.stack(found).astype(float)  # (seeds, tasks, S)
    differences = {
        name: {
            task: interval(100 * (right[name][:, place] - right["bilstm"][:, place]))
            for place, task in enumerate(TASKS)
        }
        for name in MODELS
        if name != "bilstm"
    }
    result = {
        "machine": describe_machine(),
        "num_segments": len(segments),
        "seeds": args.seeds,
        "heads": {name: count_parameters(head_of(args.work / f"{name}0")) for name in MODELS},
        "means": {name: {task: statistics.mean(row[task] for row in rows[name]) for task in TASKS} for name in MODELS},
        "minus_bilstm_points": differences,
        "rows": rows,
    }
    print(json.dumps(result, indent=1))


def config_of(change: dict[str, Any], seed: int) -> TrainConfig:
    return dataclasses.replace(toy(), seed=seed, model=dataclasses.replace(toy().model, **change))


def head_of(run: Path) -> nn.Module:
    """What follows the encoder: its parameters are what the models differ in."""
    recogniser = Head(load(run, device="cpu")).recogniser
    return nn.ModuleList([recogniser.temporal, recogniser.verb_head, recogniser.noun_head])


def interval(differences: np.ndarray) -> dict[str, float]:
    """Mean and 95 % interval of paired differences (seeds, S), resampled over seeds and segments."""
    random = np.random.default_rng(0)
    num_seeds, num_segments = differences.shape
    means = np.empty(NUM_RESAMPLED)
    for place in range(NUM_RESAMPLED):
        seeds = random.integers(0, num_seeds, num_seeds)
        of_segments = differences[seeds].mean(axis=0)
        means[place] = of_segments[random.integers(0, num_segments, num_segments)].mean()
    low, high = np.percentile(means, (2.5, 97.5))
    return {"mean": float(differences.mean()), "low": float(low), "high": float(high)}


if __name__ == "__main__":
    main()
