"""The demo end to end, on a kitchen even smaller than its own."""

import dataclasses
import json
import shutil
import sys
from pathlib import Path

import pytest

from egochef.demo import run_demo
from egochef.recipes import toy

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.mark.slow
def test_demo_runs_and_repeats_itself(tmp_path, monkeypatch):
    """With a recipe that takes seconds. The second time two extras are missing; CI runs the whole of it without any."""
    clip = dataclasses.replace(toy().clip, image_size=64, resize_size=64)
    recipe = dataclasses.replace(toy(), clip=clip, epochs=2, feature_views=1)
    first = run_demo(tmp_path, seed=3, num_segments=24, recipe=recipe)
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
    assert written == first.metrics["ensemble"] | {"labels_seen_by": [], "labels_seen_not_told_by": []}
    names = {"kitchen-encoder.mlpackage", "kitchen-head.mlpackage", "kitchen.mlpackage.json", "class_mappings.json"}
    assert {path.name for path in (tmp_path / "export").iterdir()} == names
    assert first.export is not None and first.export.agreement.difference < 2e-3
    assert first.report is not None and first.left_out == ()
    page = (tmp_path / "report" / "report.html").read_text()
    assert "Report on run16, run32" in page and "data:image/jpeg" in page and "What is missing" not in page
    shutil.rmtree(tmp_path / "run16")  # is trained anew; the rest is gone on with
    for module in ("altair", "coremltools"):
        monkeypatch.setitem(sys.modules, module, None)
    again = run_demo(tmp_path, seed=3, num_segments=24, recipe=recipe)
    assert again.metrics == first.metrics
    assert again.export is None and again.report is None
    coreml, report = again.left_out
    assert 'pip install "egochef[coreml]"' in coreml and 'pip install "egochef[report]"' in report


def test_readme_has_the_kept_result():
    kept = json.loads((REPOSITORY / "benchmarks" / "results" / "demo.json").read_text())
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    scores = [f"{kept['metrics'][name]['all_action_accuracy_at_1']:.1f} %" for name in ("run16", "run32", "ensemble")]
    num = kept["metrics"]["ensemble"]["num_segments"]
    assert f"| {', '.join(scores)} ({kept['majority_action']:.1f} %; {num} segments) |" in readme
    assert f"| {sum(kept['seconds'].values()) / 60:.1f} minutes, " in readme
