"""The ablation's arithmetic, on made-up results."""

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest

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
    return {task: np.packbits(right).tobytes().hex() for task in ("verb", "noun", "action")} | {"train_s": train_s}


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


def test_bits_come_back(accuracy):
    right = np.random.default_rng(2).random(NUM) < 0.3
    assert np.array_equal(accuracy.bits(row(right, 1.0), "verb", NUM), right)


def test_a_second_variant_to_compare_with(accuracy):
    """Gains over it have a column of their own, from the seeds that both have."""
    rng = np.random.default_rng(3)
    base, other = rng.random(NUM) < 0.5, rng.random(NUM) < 0.2
    kept = {"lite0": {"0": row(base, 1.0), "1": row(base, 1.0)}, "resnet50": {"0": row(other, 3.0)}}
    rows = {each["name"]: each for each in accuracy.summarise({"encoders": kept}, NUM)["encoders"]}
    assert rows["lite0"]["action_gain_beside"]["mean"] == pytest.approx(100 * (base.mean() - other.mean()), abs=0.01)
    assert "action_gain_beside" not in rows["resnet50"] and rows["resnet50"]["training_time"] == 3
    table = accuracy.markdown(list(rows.values())).splitlines()
    assert "| over ResNet-50 + BiLSTM |" in table[0] and {line.count("|") for line in table} == {10}


def test_readme_has_the_kept_tables(accuracy):
    kept = json.loads(accuracy.RESULTS.read_text())
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    tables = accuracy.summarise(kept, accuracy.NUM_VALIDATION)
    assert set(tables) == {"heads", "encoders"}
    for rows in tables.values():
        assert accuracy.markdown(rows) in readme
