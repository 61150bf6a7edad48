"""The demo end to end, on a kitchen even smaller than its own."""

import json
import shutil

import pytest

from egochef.demo import run_demo


@pytest.mark.slow
def test_demo_runs_and_repeats_itself(tmp_path):
    first = run_demo(tmp_path, seed=3, num_segments=24)
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {
        "data",
        "store",
        "run16",
        "run32",
        "evaluation",
        "submission.zip",
        "predictions.jsonl",
        "demo.png",
        "demo.json",
    }
    written = json.loads((tmp_path / "evaluation" / "metrics.json").read_text())
    assert written == first.metrics["ensemble"]
    shutil.rmtree(tmp_path / "run16")  # is trained anew; the rest is gone on with
    again = run_demo(tmp_path, seed=3, num_segments=24)
    assert again.metrics == first.metrics
