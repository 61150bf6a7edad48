import csv
import json
from dataclasses import replace

import numpy as np
import pytest
from conftest import SHARED, need
from hypothesis import given, settings
from hypothesis import strategies as st
from scoring_helpers import random_table, random_truth, slow_metrics

from egochef.errors import InputError
from egochef.scoring.metrics import Truth, evaluate, format_metrics
from egochef.scoring.table import ScoreTable, take_rows


def read_rows(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_the_official_numbers_come_out(ek100_annotations):
    golden_path = SHARED / "ek100" / "official_metrics.json"
    need(golden_path.is_file(), f"the official evaluator's numbers in {golden_path}")
    rows = read_rows(ek100_annotations / "EPIC_100_validation.csv")
    verb, noun = (np.array([int(row[f"{name}_class"]) for row in rows]) for name in ("verb", "noun"))
    unseen = {
        row["participant_id"] for row in read_rows(ek100_annotations / "EPIC_100_unseen_participant_ids_validation.csv")
    }
    truth = Truth(
        narration_id=np.array([row["narration_id"] for row in rows]),
        verb=verb,
        noun=noun,
        tail_verbs=frozenset(int(r["verb"]) for r in read_rows(ek100_annotations / "EPIC_100_tail_verbs.csv")),
        tail_nouns=frozenset(int(r["noun"]) for r in read_rows(ek100_annotations / "EPIC_100_tail_nouns.csv")),
        unseen=np.array([row["participant_id"] in unseen for row in rows]),
    )
    # the recipe is in the file's `how`
    rng = np.random.default_rng(100)
    verb_scores, noun_scores = rng.standard_normal((9668, 97)), rng.standard_normal((9668, 300))
    verb_scores[np.arange(9668), verb] += 2.0
    noun_scores[np.arange(9668), noun] += 2.5
    table = ScoreTable(truth.narration_id, verb_scores, noun_scores, "logits")
    shuffled = take_rows(table, rng.permutation(9668))

    metrics = evaluate(shuffled, truth)

    golden = json.loads(golden_path.read_text())["metrics"]
    assert metrics.keys() == golden.keys() | {"num_segments"}
    assert metrics["num_segments"] == 9668
    for name, value in golden.items():
        assert metrics[name] == pytest.approx(value, abs=1e-6), name


@pytest.mark.parametrize("kind", ["logits", "probs"])
@pytest.mark.parametrize("num_actions", [0, 7])
def test_metrics_agree_with_a_slow_count(kind, num_actions):
    for seed in range(10):
        rng = np.random.default_rng(seed)
        table = random_table(rng, 40, 6, 7, kind, num_actions)
        truth = random_truth(rng, table)
        metrics = evaluate(table, truth)
        assert metrics.pop("num_segments") == 40
        assert metrics == pytest.approx(slow_metrics(table, truth))


@settings(deadline=None)
@given(st.integers(0, 10_000))
def test_order_and_row_offsets_change_nothing(seed):
    rng = np.random.default_rng(seed)
    table = random_table(rng, 12)
    # whole numbers, so that an offset is exact in float32
    table = replace(table, verb_output=np.rint(table.verb_output), noun_output=np.rint(table.noun_output))
    truth = random_truth(rng, table)
    offsets = rng.integers(-1000, 1000, size=(12, 1))
    moved = replace(table, verb_output=table.verb_output + offsets, noun_output=table.noun_output - offsets)
    moved = take_rows(moved, rng.permutation(12))
    assert evaluate(moved, truth) == evaluate(table, truth)


def test_perfect_and_hopeless_scores():
    ids, verb, noun = np.array(["a", "b", "c"]), np.array([0, 1, 2]), np.array([2, 0, 1])
    truth = Truth(ids, verb, noun, frozenset({0}), frozenset({0}), np.array([True, False, False]))
    verbs, nouns = np.eye(3)[verb], np.eye(3)[noun]
    perfect = evaluate(ScoreTable(ids, 1000 * verbs, 1000 * nouns, "logits"), truth)
    assert perfect.pop("num_segments") == 3
    assert len(perfect) == 12
    assert set(perfect.values()) == {100.0}
    hopeless = evaluate(ScoreTable(ids, -verbs, -nouns, "logits"), truth)
    assert hopeless["all_action_accuracy_at_1"] == hopeless["tail_verb_accuracy_at_1"] == 0


def test_scores_that_say_nothing_earn_little():
    """Ties go to one class, not to whichever happens to be right."""
    ids = np.array([str(i) for i in range(30)])
    truth = Truth(ids, np.arange(30) % 10, np.arange(30) % 3, frozenset(), frozenset(), np.zeros(30, bool))
    metrics = evaluate(ScoreTable(ids, np.zeros((30, 10)), np.zeros((30, 3)), "logits"), truth)
    assert metrics["all_verb_accuracy_at_1"] == pytest.approx(10)
    assert metrics["all_verb_accuracy_at_5"] == pytest.approx(50)
    assert metrics["all_noun_accuracy_at_1"] == pytest.approx(100 / 3)


def test_empty_subsets_are_left_out():
    table = random_table(np.random.default_rng(0))
    truth = replace(random_truth(np.random.default_rng(0), table), tail_verbs=frozenset(), unseen=np.zeros(6, bool))
    metrics = evaluate(table, replace(truth, tail_nouns=frozenset()))
    assert {key.split("_")[0] for key in metrics} == {"all", "num"}
    only_noun = evaluate(table, replace(truth, tail_nouns=frozenset(range(5))))
    assert "tail_verb_accuracy_at_1" not in only_noun
    assert {"tail_noun_accuracy_at_1", "tail_action_accuracy_at_1"} <= only_noun.keys()
    json.dumps(metrics, allow_nan=False)


def test_mismatches_are_refused():
    rng = np.random.default_rng(0)
    table = random_table(rng)
    truth = random_truth(rng, table)
    with pytest.raises(InputError, match="1 too many"):
        evaluate(
            table,
            Truth(
                *(getattr(truth, name)[1:] for name in ("narration_id", "verb", "noun")),
                frozenset(),
                frozenset(),
                truth.unseen[1:],
            ),
        )
    with pytest.raises(InputError, match="is noun 5, but the scores know 5"):
        evaluate(table, replace(truth, noun=np.full(6, 5)))
    with pytest.raises(InputError, match="is verb -1"):
        evaluate(table, replace(truth, verb=np.array([0, 0, 0, 0, 0, -1])))
    with pytest.raises(InputError, match=r"Truth.unseen is .* expected one value per segment \(6\)"):
        replace(truth, unseen=truth.unseen[1:])
    with pytest.raises(InputError, match=r"Truth.verb is float64"):
        replace(truth, verb=truth.verb.astype(float))


def test_format_metrics():
    table = random_table(np.random.default_rng(0), 1200)
    truth = replace(random_truth(np.random.default_rng(1), table), unseen=np.zeros(1200, bool))
    metrics = evaluate(table, truth)
    lines = format_metrics(metrics).splitlines()
    assert lines[0].split()[-6:] == ["verb@1", "noun@1", "action@1", "verb@5", "noun@5", "action@5"]
    assert lines[1].split() == [
        "all",
        *(f"{metrics[f'all_{task}_accuracy_at_{k}']:.2f}" for k in (1, 5) for task in ("verb", "noun", "action")),
    ]
    assert lines[2].split()[4:] == ["-"] * 3
    assert lines[3].split() == ["unseen"] + ["-"] * 6
    assert lines[4] == "1,200 segments"
    assert len({len(line) for line in lines[:4]}) == 1
