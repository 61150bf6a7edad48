import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scoring_helpers import random_table, random_truth, slow_pair_probs, slow_probs

from egochef.errors import InputError
from egochef.scoring.actions import action_log_probs, top_actions
from egochef.scoring.ensemble import ensemble
from egochef.scoring.metrics import evaluate
from egochef.scoring.table import ScoreTable, log_probs, take_rows, to_log_probs


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


def told(table: ScoreTable, share: float) -> ScoreTable:
    """The table as EgoChef writes them: log-probabilities, its actions of a sum of `share`."""
    verbs, nouns = log_probs(table)
    actions = to_log_probs(table.action_output, table.kind) + np.log(share)
    return replace(table, verb_output=verbs, noun_output=nouns, kind="logits", action_output=actions)


def test_actions_are_averaged_over_all_that_any_lists():
    rng = np.random.default_rng(4)
    raw, probs, more = (
        random_table(rng, num_actions=n, kind=kind) for n, kind in ((6, "logits"), (9, "probs"), (2, "logits"))
    )
    probs = replace(probs, action_output=0.7 * probs.action_output)
    tables = [raw, probs, told(more, 0.6), random_table(rng)]
    mean = ensemble(tables, [1, 1, 2, 1])
    assert mean.action_id.shape == (6, 20), "all there are, as the one without a list would list them"
    for row in range(6):
        members = [slow_pair_probs(table, row, is_told=table is not raw) for table in tables]
        assert all(math.fsum(member.values()) == pytest.approx(1) for member in members)
        totals = {
            action: sum(weight * member[action] for member, weight in zip(members, (0.2, 0.2, 0.4, 0.2), strict=True))
            for action in members[0]
        }
        best = sorted(totals, key=totals.__getitem__, reverse=True)
        assert mean.action_id[row].tolist() == best
        np.testing.assert_allclose(np.exp(mean.action_output[row]), [totals[a] for a in best], rtol=1e-5)
        own = [action for table in tables[:3] for action in table.action_id[row].tolist()]
        few = ensemble(tables[:3])
        assert few.action_id.shape == (6, 9) and set(few.action_id[row].tolist()) <= set(own)


def test_an_ensemble_of_actions_by_hand():
    """Two verbs, two nouns. The sure one lists 0.8 and 0.1; 0.1 is left, shared 0.2 * 0.9 to 0.2 * 0.1 by its products.

    The unsure one lists two of four alike: 0.25 each, and its 0.5 left are alike too. To take a list's share of itself,
    0.5 instead of 0.25, would put its action before the sure one's second.
    """
    sure = ScoreTable(["a"], [[0.8, 0.2]], [[0.9, 0.1]], "probs", [[0, 1]], [[0.8, 0.1]])
    unsure = ScoreTable(["a"], [[0.5, 0.5]], [[0.5, 0.5]], "probs", [[1000, 1001]], [[0.25, 0.25]])
    mean = ensemble([sure, unsure])
    assert mean.action_id.tolist() == [[0, 1]]
    np.testing.assert_allclose(np.exp(mean.action_output), [[(0.8 + 0.25) / 2, (0.1 + 0.25) / 2]], rtol=1e-6)
    found = action_log_probs(sure, np.array([[1001, 1, 1000, 0]]))
    np.testing.assert_allclose(np.exp(found), [[0.01, 0.1, 0.09, 0.8]], rtol=1e-6)


@settings(deadline=None)
@given(st.integers(0, 1000), st.integers(1, 20), st.sampled_from(["raw", "probs", "told", "none"]))
def test_all_pairs_sum_to_one(seed, num_actions, kind):
    rng = np.random.default_rng(seed)
    share = rng.random()
    table = random_table(rng, kind="probs" if kind == "probs" else "logits", num_actions=num_actions)
    if kind == "told":
        table = told(table, share)
    elif kind == "probs":
        table = replace(table, action_output=share * table.action_output)
    elif kind == "none":
        table = replace(table, action_id=None, action_output=None)
    pairs = np.array([[1000 * verb + noun for verb in range(4) for noun in range(5)]] * 6)
    found = np.exp(action_log_probs(table, pairs))
    np.testing.assert_allclose(found.sum(axis=1), 1, rtol=1e-6)
    for row in range(6):
        expected = slow_pair_probs(table, row, is_told=kind != "raw")
        np.testing.assert_allclose(found[row], [expected[action] for action in pairs[row].tolist()], atol=1e-5)


@pytest.mark.parametrize("kind", ["logits", "probs"])
def test_an_ensemble_of_one_keeps_the_order_of_its_actions(kind):
    rng = np.random.default_rng(1)
    table = random_table(rng, 20, 9, 9, kind, num_actions=30)
    table = replace(table, action_output=np.round(table.action_output, 2))  # some are equal
    assert np.array_equal(ensemble([table]).action_id, top_actions(table)[0])
    assert np.array_equal(ensemble([table, table]).action_id, top_actions(table)[0])


def test_a_flat_list_does_not_outvote_a_sure_one():
    """Of 2,500 actions one says 'this', the other lists a hundred that it finds no better than all others."""
    ids = np.array([[1000 * place + place for place in range(50)] + [1000 * place for place in range(1, 51)]])
    flat, verbs = np.full((1, 51), -np.log(51.0)), np.full((1, 51), -20.0)
    verbs[0, 0] = 0.0
    sure = ScoreTable(["a"], verbs - log_sum(verbs), verbs - log_sum(verbs), "logits")
    unsure = ScoreTable(["a"], flat, flat, "logits", ids, np.full((1, 100), -2 * np.log(51.0)))
    for kind in ("logits", "probs"):
        scores = unsure.action_output if kind == "logits" else np.exp(unsure.action_output)
        outputs = (np.exp(flat), np.exp(flat)) if kind == "probs" else (flat, flat)
        mean = ensemble([sure, ScoreTable(["a"], *outputs, kind, ids, scores)])
        assert np.exp(mean.action_output[0, :2]) == pytest.approx([0.5 + 0.5 / 51**2, 0.5 / 51**2], rel=1e-3)
    raw = replace(unsure, verb_output=flat + 9, noun_output=flat - 3, action_output=np.full((1, 100), 4.0))
    mean = ensemble([sure, raw])
    assert np.exp(mean.action_output[0, :2]) == pytest.approx([0.5 + 0.5 / 51**2, 0.5 / 51**2], rel=1e-3)


def log_sum(values: np.ndarray) -> float:
    return float(np.log(np.exp(values).sum()))


def test_a_label_is_unseen_only_where_all_members_tell_so():
    table = random_table(np.random.default_rng(0))
    seen = [[1, 0, -1, 1, 0, -1], [1, 0, -1, -1, -1, 1]]
    first, second = (replace(table, seen=np.array(each)) for each in seen)
    assert ensemble([first, second]).seen.tolist() == [1, 0, -1, 1, -1, 1]
    assert ensemble([first, take_rows(second, np.arange(6)[::-1])]).seen.tolist() == [1, 0, -1, 1, -1, 1]


def test_what_cannot_be_averaged_is_refused():
    rng = np.random.default_rng(0)
    table = random_table(rng)
    names = ["a.npz", "b.npz"]
    with pytest.raises(InputError, match="at least one"):
        ensemble([])
    with pytest.raises(InputError, match=r"b.npz: 3 verbs and 5 nouns, but a.npz has 4 and 5"):
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
    assert np.array_equal(both.action_id, same.action_id)
    np.testing.assert_allclose(both.action_output, same.action_output, rtol=1e-5)
    assert np.array_equal(both.verb_output, same.verb_output)


@pytest.mark.parametrize("weights", [[1], [1, 2, 3], [1, 0], [1, -1], [1, np.nan], [np.inf, 1]])
def test_wrong_weights_are_refused(weights):
    table = random_table(np.random.default_rng(0))
    with pytest.raises(InputError, match="expected 2 positive numbers"):
        ensemble([table, table], weights)
