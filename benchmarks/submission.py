"""Measures writing and checking a submission of the test split's size: 13,092 segments, 97 verbs, 300 nouns.

Run as `python benchmarks/submission.py`: prints one JSON object, the seconds and the peak memory of each step
with the machine they were measured on. Scores are random; no data is needed.
"""

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

NUM_SEGMENTS, NUM_VERBS, NUM_NOUNS = 13_092, 97, 300
STEPS = ("save", "load", "write", "write_without_actions", "check", "evaluate")


def main() -> None:
    """Run every step in its own process, started from this still small one, so that each peak is its own."""
    steps = {}
    with tempfile.TemporaryDirectory() as folder:
        for step in STEPS:
            command = [sys.executable, __file__, step, folder]
            steps[step] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        sizes = {path.name: path.stat().st_size for path in sorted(Path(folder).iterdir())}
    from egochef.runtime import describe_machine  # brings torch, 280 MB

    machine = describe_machine() | {"load_average": round(os.getloadavg()[0], 2)}
    size = {"segments": NUM_SEGMENTS, "verbs": NUM_VERBS, "nouns": NUM_NOUNS, "actions": 100}
    print(json.dumps({"machine": machine, "size": size, "steps": steps, "file_bytes": sizes}, indent=1))


def run_step(step: str, folder: Path) -> dict[str, float]:
    """Seconds of one step after imports, and this process's peak memory with all that came before."""
    from egochef.scoring.metrics import Truth, evaluate
    from egochef.scoring.submission import SLS, check_submission, write_submission
    from egochef.scoring.table import ScoreTable, load_scores, save_scores

    rng = np.random.default_rng(0)
    ids = [f"P{row // 1000:02d}_{100 + row // 200}_{row % 200}" for row in range(NUM_SEGMENTS)]
    scores = folder / "scores.npz"
    if step == "save":
        verbs, nouns = (3 * rng.standard_normal((NUM_SEGMENTS, n)) for n in (NUM_VERBS, NUM_NOUNS))
    elif step != "load":
        table = load_scores(scores)
    start_s = time.perf_counter()
    if step == "save":
        save_scores(scores, ScoreTable(np.array(ids), verbs, nouns, "logits"))
    elif step == "load":
        load_scores(scores)
    elif step == "check":
        check_submission(folder / "write.zip", ids, NUM_VERBS, NUM_NOUNS)
    elif step == "evaluate":
        verb, noun = rng.integers(NUM_VERBS, size=NUM_SEGMENTS), rng.integers(NUM_NOUNS, size=NUM_SEGMENTS)
        evaluate(table, Truth(np.array(ids), verb, noun, frozenset({1}), frozenset({2}), verb > 50))
    else:
        sls = SLS(pt=1, tl=3, td=3)
        write_submission(folder / f"{step}.zip", table, sls, ids, with_actions=step == "write")
    return {"seconds": round(time.perf_counter() - start_s, 2), "peak_mb": peak_mb()}


def peak_mb() -> float:
    """This process's highest resident memory so far, MB."""
    bytes_per_unit = 1 if sys.platform == "darwin" else 1024
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * bytes_per_unit / 1e6, 1)


if __name__ == "__main__":
    if len(sys.argv) == 3:
        print(json.dumps(run_step(sys.argv[1], Path(sys.argv[2]))))
    else:
        main()
