"""Does the temporal model see the order of time? BiLSTM against mean pooling on ToyKitchen's time-reversed verbs.

Draws the default kitchen (kept between calls), trains the `toy` recipe with both temporal models and prints JSON:
official metrics, verb top-1 on the segments of the pairs (open and close, take and put, turn-on and turn-off), and the
choice between the two verbs of a pair (chance is 50 %).

    python benchmarks/temporal.py > benchmarks/results/temporal.json
"""

import argparse
import dataclasses
import json
import logging
import time
from pathlib import Path

import numpy as np

from egochef.data.annotations import open_data_folder, read_split
from egochef.demo import majority_action
from egochef.engines.torch_engine import load
from egochef.inference.scoring import score_split, truth_of
from egochef.recipes import toy
from egochef.runtime import describe_machine
from egochef.scoring.metrics import Truth, evaluate
from egochef.scoring.table import ScoreTable
from egochef.toykitchen import ToyConfig, draw_kitchen
from egochef.toykitchen.classes import REVERSED
from egochef.training.loop import train

TEMPORAL_MODELS = ("mean", "bilstm")


def pair_metrics(table: ScoreTable, truth: Truth, pairs: list[tuple[int, int]]) -> dict[str, float]:
    """Percent right on the segments whose verb belongs to a time-reversed pair."""
    partner = {a: b for pair in pairs for a, b in (pair, pair[::-1])}
    rows = np.flatnonzero(np.isin(truth.verb, list(partner)))
    verb = truth.verb[rows]
    other = np.array([partner[v] for v in verb])
    scores = table.verb_output[rows]
    place = np.arange(len(rows))
    return {
        "pairs_num_segments": len(rows),
        "pairs_verb_accuracy_at_1": 100 * float((scores.argmax(axis=1) == verb).mean()),
        "pairs_choice_of_two": 100 * float((scores[place, verb] > scores[place, other]).mean()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("outputs", "temporal"))
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")

    data = args.work / "data"
    started = time.perf_counter()
    if not data.exists():
        draw_kitchen(data, ToyConfig(seed=args.seed))
    seconds = {"draw": round(time.perf_counter() - started, 1)}
    folder = open_data_folder(data)
    verbs = folder.taxonomy.verbs
    pairs = [(verbs.index(a), verbs.index(b)) for a, b in REVERSED.items()]
    segments = read_split(folder, "validation")
    truth = truth_of(folder, "validation", segments)

    rows, tables = {}, {}
    for name in TEMPORAL_MODELS:
        model = dataclasses.replace(toy().model, temporal=name)
        config = dataclasses.replace(toy(), seed=args.seed, model=model)
        started = time.perf_counter()
        train(config, data, args.work / name, resume=True)
        seconds[name] = round(time.perf_counter() - started, 1)
        tables[name] = score_split(load(args.work / name), folder, "validation", segments)
    for name, table in tables.items():
        rows[name] = evaluate(table, truth) | pair_metrics(table, truth, pairs)
    result = {
        "machine": describe_machine(),
        "seed": args.seed,
        "seconds": seconds,
        "majority_action": majority_action(folder),
        "rows": rows,
        "bilstm_over_mean_on_pairs": rows["bilstm"]["pairs_verb_accuracy_at_1"]
        - rows["mean"]["pairs_verb_accuracy_at_1"],
    }
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
