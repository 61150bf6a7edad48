"""A report on two models and their ensemble over the whole official validation set, whose scores are made up.

    python benchmarks/report.py --data EPIC-KITCHENS

Only the annotations are needed. Each round is a fresh process, from its start to its end. Prints one JSON object: the
seconds, the size of the page and of the figures, and the most memory that a round took. What the page says is not told:
the scores are random, pulled towards the truth.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from egochef.data.annotations import open_data_folder
from egochef.report.analysis import Split, open_split
from egochef.runtime import describe_machine
from egochef.scoring.table import ScoreTable, save_scores


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="data folder; its annotations are enough")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    split = open_split(open_data_folder(args.data), "validation")
    seconds = []
    with tempfile.TemporaryDirectory() as temporary:
        files = [Path(temporary, f"model{seed}.npz") for seed in (1, 2)]
        for seed, path in enumerate(files):
            save_scores(path, made_up(split, seed))
        out = Path(temporary, "report")
        for _ in range(args.rounds):
            started = time.perf_counter()
            command = [sys.executable, "-m", "egochef", "report", *files, "--data", args.data, "--out", out, "--json"]
            subprocess.run([str(word) for word in command], check=True, stdout=subprocess.DEVNULL)
            seconds.append(time.perf_counter() - started)
        result = {
            "machine": describe_machine(),
            "num_segments": len(split),
            "seconds": [round(each, 1) for each in seconds],
            "median_s": round(statistics.median(seconds), 1),
            "page_mb": round((out / "report.html").stat().st_size / 1e6, 2),
            "num_figures": len(list((out / "figures").glob("*.svg"))),
            "figures_mb": round(sum(path.stat().st_size for path in (out / "figures").iterdir()) / 1e6, 2),
            "memory_mib": round(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024),
        }
    print(json.dumps(result, indent=1))


def made_up(split: Split, seed: int) -> ScoreTable:
    """Random logits, pulled towards the truth and towards classes that training has often."""
    rng = np.random.default_rng(seed)
    logits = {}
    for task, own, pull in (("verb", split.truth.verb, 5.5), ("noun", split.truth.noun, 4.5)):
        values = rng.normal(size=(len(split), len(split.names(task)))) * 2  # (S, classes)
        if split.train is not None:
            values += np.log1p(split.train[task]) / 3
        values[np.arange(len(split)), own] += pull * rng.random(len(split))
        logits[task] = values
    ids = np.array([segment.narration_id for segment in split.segments])
    return ScoreTable(ids, logits["verb"], logits["noun"], "logits")


if __name__ == "__main__":
    main()
