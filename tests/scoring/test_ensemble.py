from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scoring_helpers import random_table, random_truth, slow_probs

from egochef.errors import InputError
from egochef.scoring.actions import top_actions, with_actions
from egochef.scoring.ensemble import ensemble
from egochef.scoring.metrics import evaluate
from egochef.scoring.table import log_probs, take_rows


@pytest.mark.parametrize("kind", ["logits", "probs"])
@settings(deadline=None)
@given(seed=st.integers(0, 1000), num_tables=st.integers(1, 4))
def test_an_ensemble_of_one_model_is_that_model(kind, seed, num_tables):
    table = random_table(np.random.default_rng(seed), kind=kind, num_actions=4)
    mean = ensemble([table] * num_tables)
    assert mean.kind == "logits"
    for ours, theirs in zip(log_probs(mean), log_probs(table), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)
    truth = random_truth(np.random.default_rng(seed), table)
    assert evaluate(mean, truth) == evaluate(table, truth)


def test_probabilities_are_averaged_by_segment():
    rng = np.random.default_rng(0)
    first, second = random_table(rng), random_table(rng, kind="probs")
    weights = (1.0, 3.0)
    mean = ensemble([first, take_rows(second, rng.permutation(6))], weights)
    np.testing.assert_array_equal(mean.narration_id, first.narration_id)
    for row in range(6):
        for name in ("verb_output", "noun_output"):
            members = [slow_probs(getattr(table, name)[row], table.kind) for table in (first, second)]
            expected = [(p + 3 * q) / 4 for p, q in zip(*members, strict=True)]
            np.testing.assert_allclose(np.exp(getattr(mean, name)[row]), expected, rtol=1e-5)


@settings(deadline=None)
@given(st.integers(0, 1000), st.floats(0.01, 100))
def test_only_the_weights_ratios_matter(seed, factor):
    rng = np.random.default_rng(seed)
    tables = [random_table(rng), random_table(rng), random_table(rng)]
    plain, scaled = ensemble(tables, [1, 2, 3]), ensemble(tables, [factor, 2 * factor, 3 * factor])
    np.testing.assert_allclose(plain.verb_output, scaled.verb_output, atol=1e-5)
    swapped = ensemble(tables[::-1], [3, 2, 1])
    np.testing.assert_allclose(plain.noun_output, swapped.noun_output, atol=1e-5)


def test_far_apart_logits_stay_finite():
    table = random_table(np.random.default_rng(0))
    sure = replace(table, verb_output=1e30 * np.eye(6, 4))
    mean = ensemble([sure, sure])
    assert np.isfinite(mean.verb_output).all()
    assert mean.verb_output[:4].argmax(axis=1).tolist() == [0, 1, 2, 3]


def test_actions_are_averaged_over_all_that_any_lists():
    rng = np.random.default_rng(4)
    tables = [random_table(rng, num_actions=n, kind=kind) for n, kind in ((6, "logits"), (9, "probs"), (2, "logits"))]
    mean = ensemble(tables, [1, 1, 2])
    assert mean.action_id.shape == (6, 9)
    for row in range(6):
        totals: dict[int, float] = {}
        for table, weight in zip(tables, (0.25, 0.25, 0.5), strict=True):
            probs = slow_probs(table.action_output[row], table.kind)
            for action, prob in zip(table.action_id[row].tolist(), probs, strict=True):
                totals[action] = totals.get(action, 0) + weight * prob
        best = sorted(totals, key=totals.__getitem__, reverse=True)[:9]
        assert mean.action_id[row].tolist() == best
        np.testing.assert_allclose(np.exp(mean.action_output[row]), [totals[a] for a in best], rtol=1e-5)


def test_what_cannot_be_averaged_is_refused():
    rng = np.random.default_rng(0)
    table = random_table(rng)
    names = ["a.npz", "b.npz"]
    with pytest.raises(InputError, match="at least one"):
        ensemble([])
    with pytest.raises(InputError, match=r"b.npz has 3 verbs and 5 nouns, a.npz 4 and 5"):
        ensemble([table, random_table(rng, num_verbs=3)], names=names)
    with pytest.raises(InputError, match=r"b.npz \(against a.npz\) does not fit .*1 missing \(P05_01_5\)"):
        ensemble([table, take_rows(table, slice(0, 5))], names=names)
    with pytest.raises(InputError, match=r"table 2 .*1 too many \(P05_01_5\)"):
        ensemble([take_rows(table, slice(0, 5)), table])
    with pytest.raises(InputError, match="1 names for 2 tables"):
        ensemble([table, table], names=["a"])


def test_a_member_without_actions_gets_those_of_the_official_rule():
    rng = np.random.default_rng(0)
    plain, jointly = random_table(rng), random_table(rng, num_actions=20)
    ids, scores = top_actions(plain)
    both = ensemble([plain, jointly], [2, 1])
    same = ensemble([replace(plain, action_id=ids, action_output=scores), jointly], [2, 1])
    assert np.array_equal(both.action_id, same.action_id) and np.array_equal(both.action_output, same.action_output)
    assert np.array_equal(both.verb_output, same.verb_output)
    assert with_actions(jointly) is jointly


@pytest.mark.parametrize("weights", [[1], [1, 2, 3], [1, 0], [1, -1], [1, np.nan], [np.inf, 1]])
def test_wrong_weights_are_refused(weights):
    table = random_table(np.random.default_rng(0))
    with pytest.raises(InputError, match="expected 2 positive numbers"):
        ensemble([table, table], weights)
