"""The demo end to end, on a kitchen even smaller than its own."""

import json
import shutil
from pathlib import Path

import pytest

from egochef.demo import run_demo

REPOSITORY = Path(__file__).resolve().parents[1]


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
        "export",
        "report",
        "demo.png",
        "demo.json",
    }
    written = json.loads((tmp_path / "evaluation" / "metrics.json").read_text())
    assert written == first.metrics["ensemble"]
    names = {"kitchen-encoder.mlpackage", "kitchen-head.mlpackage", "kitchen.mlpackage.json", "class_mappings.json"}
    assert {path.name for path in (tmp_path / "export").iterdir()} == names
    assert first.export is not None and first.export.agreement.difference < 2e-3
    assert first.report is not None
    page = (tmp_path / "report" / "report.html").read_text()
    assert "Report on run16, run32" in page and "data:image/jpeg" in page and "What is missing" not in page
    shutil.rmtree(tmp_path / "run16")  # is trained anew; the rest is gone on with
    again = run_demo(tmp_path, seed=3, num_segments=24)
    assert again.metrics == first.metrics


def test_readme_has_the_kept_result():
    kept = json.loads((REPOSITORY / "benchmarks" / "results" / "demo.json").read_text())
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    scores = [f"{kept['metrics'][name]['all_action_accuracy_at_1']:.1f} %" for name in ("run16", "run32", "ensemble")]
    num = kept["metrics"]["ensemble"]["num_segments"]
    assert f"| {', '.join(scores)} ({kept['majority_action']:.1f} %; {num} segments) |" in readme
    assert f"| {sum(kept['seconds'].values()) / 60:.1f} minutes, " in readme
