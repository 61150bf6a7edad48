"""The ablation's arithmetic, on made-up results."""

import dataclasses
import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest

from egochef.errors import InputError
from egochef.recipes import find_recipe
from egochef.scoring.metrics import Truth
from egochef.scoring.table import ScoreTable

REPOSITORY = Path(__file__).resolve().parents[1]
NUM = 1000


@pytest.fixture(scope="module")
def accuracy():
    spec = importlib.util.spec_from_file_location("accuracy", REPOSITORY / "benchmarks" / "accuracy.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["accuracy"] = module
    spec.loader.exec_module(module)
    return module


def row(right, train_s):
    """A run that is right on the same segments' verbs and actions, and on no noun."""
    rights = {"verb": right, "noun": np.zeros(NUM, bool), "action": right}
    bits = {task: np.packbits(each).tobytes().hex() for task, each in rights.items()}
    return bits | {"train_s": train_s, "machine": "one"}


def made_up(accuracy, gain, num_seeds=5):
    """The base is right on a random half; a variant also on `gain` of the rest."""
    rng = np.random.default_rng(0)
    kept = {"bilstm": {}, "tcn": {}}
    for seed in range(num_seeds):
        base = rng.random(NUM) < 0.5
        kept["bilstm"][str(seed)] = row(base, 10.0)
        kept["tcn"][str(seed)] = row(base | (rng.random(NUM) < gain), 15.0)
    del kept["tcn"]["4"]  # a study that was stopped
    return {"heads": kept}


def test_gains_are_paired_and_their_intervals_hold_them(accuracy):
    rows = {each["name"]: each for each in accuracy.summarise(made_up(accuracy, 0.1), NUM)["heads"]}
    assert list(rows) == ["bilstm", "tcn"] and rows["tcn"]["num_seeds"] == 4
    gain = rows["tcn"]["action_gain"]
    assert 2 < gain["low"] < gain["mean"] < gain["high"] < 8 and gain["mean"] == pytest.approx(5, abs=0.6)
    assert rows["tcn"]["action"] - rows["bilstm"]["action"] == pytest.approx(gain["mean"], abs=1.5)
    assert rows["tcn"]["training_time"] == 1.5 and rows["bilstm"]["training_time"] == 1
    assert rows["bilstm"]["gflops"] == pytest.approx(3.21, abs=0.01)


def test_table_says_what_does_not_help(accuracy):
    rows = accuracy.summarise(made_up(accuracy, 0.0), NUM)["heads"]
    lines = accuracy.markdown(rows).splitlines()
    assert len(lines) == 4 and lines[2].startswith("| BiLSTM (the base) | ") and "| - | 5 | 3.21 |" in lines[2]
    assert "| +0.0 (+0.0 to +0.0) | 4 |" in lines[3] and "| 1.50 times | - | - |" in lines[3]


def test_no_gain_has_zero_in_its_interval(accuracy):
    rng = np.random.default_rng(1)
    differences = rng.choice((-1.0, 0.0, 1.0), size=(5, NUM))
    found = accuracy.interval(100 * differences)
    assert found["low"] < 0 < found["high"]


def test_what_is_kept_of_scores(accuracy):
    """Which verbs, nouns and actions are named; an action by a table's own scores where it has them."""
    ids = np.array(["a", "b", "c"])
    verb, noun = (np.eye(3, dtype=np.float32)[places] for places in ([0, 1, 2], [0, 0, 2]))
    truth = Truth(ids, np.array([0, 1, 1]), np.array([0, 1, 2]), frozenset(), frozenset(), np.zeros(3, bool))
    kept = accuracy.packed(ScoreTable(ids, verb, noun, "logits"), truth)
    assert {task: accuracy.bits(kept, task, 3).tolist() for task in ("verb", "noun", "action")} == {
        "verb": [1, 1, 0],
        "noun": [1, 0, 1],
        "action": [1, 0, 0],
    }
    assert kept["action_top1"] == 33.33
    actions = np.array([[1001], [1000], [1002]])
    joint = ScoreTable(ids, verb, noun, "logits", actions, np.ones((3, 1), np.float32))
    assert accuracy.bits(accuracy.packed(joint, truth), "action", 3).tolist() == [0, 0, 1]


def test_rows_of_other_settings_are_refused(accuracy, tmp_path, monkeypatch):
    bench = object.__new__(accuracy.Bench)
    bench.results = tmp_path / "accuracy.json"
    bench.kept = {"heads": {"tcn": {"0": {"settings": accuracy.settings_of("heads", "tcn")}}}}
    assert bench.row("heads", "tcn", 0) and bench.row("heads", "tcn", 1) is None
    longer = dataclasses.replace(accuracy.HEADS.base, epochs=31)
    monkeypatch.setitem(accuracy.STUDIES, "heads", dataclasses.replace(accuracy.HEADS, base=longer))
    with pytest.raises(InputError, match="tcn of heads, seed 0, was made by other settings"):
        bench.row("heads", "tcn", 0)


def test_variants_differ_in_what_decides_them(accuracy):
    for study, about in accuracy.STUDIES.items():
        assert len({accuracy.settings_of(study, name) for name in about.variants}) == len(about.variants)


@pytest.mark.parametrize("name", ["light", "strong", "fast"])
def test_recipes_have_the_switches_that_were_measured(accuracy, name):
    assert accuracy.SWITCHED(find_recipe(name)) == find_recipe(name)
    assert accuracy.SWITCHED(find_recipe("frames16")) != find_recipe("frames16")


def test_other_variants_to_compare_with(accuracy):
    """Gains over each have a column of their own, from the seeds that both have."""
    rng = np.random.default_rng(3)
    base, other, best = rng.random(NUM) < 0.5, rng.random(NUM) < 0.2, rng.random(NUM) < 0.7
    kept = {
        "lite0": {"0": row(base, 1.0), "1": row(base, 1.0)},
        "resnet50": {"0": row(other, 3.0)},
        "best_layers": {"0": row(best, 1.0)},
    }
    rows = {each["name"]: each for each in accuracy.summarise({"encoders": kept}, NUM)["encoders"]}
    over_best, over_resnet = "GRU, joint head, rates by layer", "ResNet-50 + BiLSTM, from random weights"
    gains = rows["lite0"]["gains_beside"]
    assert gains[over_resnet]["mean"] == pytest.approx(100 * (base.mean() - other.mean()), abs=0.01)
    assert gains[over_best]["mean"] == pytest.approx(100 * (base.mean() - best.mean()), abs=0.01)
    assert list(rows["resnet50"]["gains_beside"]) == [over_best] and rows["resnet50"]["training_time"] == 3
    table = accuracy.markdown(list(rows.values())).splitlines()
    assert f"| over {over_best} | over {over_resnet} |" in table[0]
    assert {line.count("|") for line in table} == {11}


def test_readme_has_the_kept_tables(accuracy):
    """Those of the studies that it shows, whole, and of the settings that the script has."""
    kept = json.loads(accuracy.RESULTS.read_text())
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    shown = [study for study in accuracy.STUDIES if f"<!-- {study} -->" in readme]
    assert "heads" in shown
    summary = accuracy.summarise(kept, accuracy.NUM_VALIDATION)
    for study in shown:
        about = accuracy.STUDIES[study]
        for name in about.variants:
            assert sorted(kept[study][name]) == [str(seed) for seed in range(about.num_seeds)], (study, name)
            assert {row["settings"] for row in kept[study][name].values()} == {accuracy.settings_of(study, name)}
        assert accuracy.markdown(summary[study]) in readme


def test_readme_has_the_kept_ratios_of_fast():
    told = []
    for file, precision in (("fast.json", "float32"), ("fast_bf16.json", "bfloat16")):
        kept = json.loads((REPOSITORY / "benchmarks" / "results" / file).read_text())
        assert kept["machine"]["precision"] == precision
        told += [kept["ratios"][f"training_speed_{name}_over_timesformer"] for name in ("fast", "ours16")]
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    cell = "{:.1f}; {:.1f} ({:.1f}; {:.1f})".format(*told)
    assert f"| {cell} | `egochef bench train --models ours16 fast timesformer" in readme
