"""The demo end to end, on a kitchen even smaller than its own."""

import json

import pytest

from egochef.demo import run_demo


@pytest.mark.slow
def test_demo_runs_and_repeats_itself(tmp_path):
    first = run_demo(tmp_path / "one", seed=3, num_segments=40)
    names = {path.name for path in (tmp_path / "one").iterdir()}
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
    written = json.loads((tmp_path / "one" / "evaluation" / "metrics.json").read_text())
    assert written == first.metrics["ensemble"]
    second = run_demo(tmp_path / "two", seed=3, num_segments=40)
    assert second.metrics == first.metrics
    again = run_demo(tmp_path / "one", seed=3, num_segments=40)
    assert again.metrics == first.metrics
