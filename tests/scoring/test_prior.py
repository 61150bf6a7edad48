"""A prior of what goes together, against loops; and what is tuned on held-out segments."""

import dataclasses

import numpy as np
import pytest

from egochef.errors import InputError
from egochef.records import from_dict, to_dict
from egochef.scoring.actions import top_actions
from egochef.scoring.ensemble import ensemble
from egochef.scoring.metrics import Truth, evaluate
from egochef.scoring.prior import Prior, apply_prior
from egochef.scoring.table import ScoreTable, log_softmax
from egochef.scoring.tuning import Tuned, Tuning, combine, fit_strength, fit_threshold, fit_weights, is_right, tune

V, N = 4, 5
PAIRS = {(0, 1): 30, (1, 1): 30, (2, 3): 30, (3, 4): 10}


def labels():
    verb, noun = zip(*(pair for pair, count in PAIRS.items() for _ in range(count)), strict=True)
    return np.array(verb), np.array(noun)


def prior():
    return Prior.count(*labels(), V, N, ("train",))


def made_up(num, seed, sharpness):
    """Segments of the pairs above, and scores that know their verbs and nouns a little, apart."""
    rng = np.random.default_rng(seed)
    verb, noun = (each[rng.permutation(100)[rng.integers(100, size=num)]] for each in labels())
    pick = rng.integers(100, size=num)
    verb, noun = labels()[0][pick], labels()[1][pick]
    scores = [rng.normal(size=(num, classes)) for classes in (V, N)]
    for each, label in zip(scores, (verb, noun), strict=True):
        each[np.arange(num), label] += sharpness
    ids = np.array([f"P01_01_{row}" for row in range(num)])
    truth = Truth(ids, verb, noun, frozenset(), frozenset(), np.zeros(num, bool))
    return ScoreTable(ids, *(each.astype(np.float32) for each in scores), "logits"), truth


def test_information_by_hand():
    info, total = prior().information, 100
    for verb in range(V):
        for noun in range(N):
            p_verb = sum(count for pair, count in PAIRS.items() if pair[0] == verb) / total
            count_noun = sum(count for pair, count in PAIRS.items() if pair[1] == noun)
            p_noun = max(count_noun, 1) / sum(max(sum(c for p, c in PAIRS.items() if p[1] == n), 1) for n in range(N))
            together = 0.9 * PAIRS.get((verb, noun), 0) / total + 0.1 * p_verb * p_noun
            assert info[verb, noun] == pytest.approx(np.log(together / (p_verb * p_noun)), abs=1e-5)
    assert info[0, 3] == pytest.approx(np.log(0.1)) and info[2, 3] > 0.5, "never and often together"


def test_a_prior_against_loops():
    table, _ = made_up(7, 0, 1.0)
    found = apply_prior(table, prior(), 0.7, num_actions=6)
    verbs, nouns = log_softmax(table.verb_output), log_softmax(table.noun_output)
    for row in range(len(table)):
        joint = np.array(
            [[verbs[row, v] + nouns[row, n] + 0.7 * prior().information[v, n] for n in range(N)] for v in range(V)]
        )
        probs = np.exp(joint) / np.exp(joint).sum()
        assert np.exp(found.verb_output[row]) == pytest.approx(probs.sum(1), abs=1e-5)
        assert np.exp(found.noun_output[row]) == pytest.approx(probs.sum(0), abs=1e-5)
        best = np.argsort(-probs.ravel())[:6]
        assert found.action_id[row].tolist() == [place // N * 1000 + place % N for place in best]
        assert np.exp(found.action_output[row]) == pytest.approx(probs.ravel()[best], abs=1e-5)
    assert apply_prior(table, prior(), 0.0) is table


def test_a_prior_helps_where_scores_know_the_two_apart_only():
    table, truth = made_up(600, 1, 1.5)
    strength = fit_strength(table, truth, prior())
    assert 0.5 < strength < 1.6, "the scores are independent given the pair: about 1"
    before, after = (evaluate(each, truth) for each in (table, apply_prior(table, prior(), strength)))
    assert after["all_action_accuracy_at_1"] > before["all_action_accuracy_at_1"] + 5
    assert after["all_noun_accuracy_at_1"] > before["all_noun_accuracy_at_1"]
    no_information = dataclasses.replace(prior(), information=np.zeros((V, N), np.float32))
    assert fit_strength(table, truth, no_information) == 0.0


def test_weights_go_to_who_knows_more():
    good, truth = made_up(500, 2, 3.0)
    noise = dataclasses.replace(good, verb_output=np.zeros((500, V)), noun_output=np.zeros((500, N)))
    weights = fit_weights([good, noise], truth)
    assert weights[0] > 0.8 and sum(weights) == pytest.approx(1)
    assert fit_weights([good, good], truth) == [0.5, 0.5]
    assert fit_weights([noise, good], truth) == weights[::-1]
    worst = dataclasses.replace(good, verb_output=-20 * good.verb_output, noun_output=-20 * good.noun_output)
    assert 0 < fit_weights([good, worst], truth)[1] < 0.1, "nobody's weight is 0"


def test_threshold_is_where_four_of_five_are_right():
    table, truth = made_up(800, 3, 2.0)
    threshold = fit_threshold(table, truth)
    probs, right = np.exp(top_actions(table)[1][:, 0]), is_right(table, truth)  # the official rule's
    assert right[probs >= threshold - 1e-3].mean() == pytest.approx(0.8, abs=0.02)
    assert fit_threshold(table, dataclasses.replace(truth, verb=(truth.verb + 1) % V)) is None


def test_tuning_is_kept_and_used():
    one, truth = made_up(400, 4, 1.5)
    other = dataclasses.replace(one, verb_output=np.zeros((400, V), np.float32))
    tuning = tune([one, other], ["a", "b"], truth, prior(), ("P01",))
    assert tuning.tuned_accuracy > tuning.plain_accuracy and tuning.prior_splits == ("train",)
    assert tuning.threshold is None and tune([one], ["a"], truth, prior(), ("P01",)).threshold is not None
    assert from_dict(Tuning, to_dict(tuning), "x") == tuning
    combined = combine([one, other], ["a", "b"], Tuned(tuning, prior()))
    assert 100 * is_right(combined, truth).mean() == pytest.approx(tuning.tuned_accuracy, abs=0.01)
    plain = combine([one, other], ["a", "b"], None)
    assert np.array_equal(plain.verb_output, ensemble([one, other]).verb_output)
    assert combine([one], ["a"], None) is one
    with pytest.raises(InputError, match=r"1 members \(a\) and a tuning of 2 \(a, b\)"):
        combine([one], ["a"], Tuned(tuning, prior()))


def test_a_joint_heads_scores_take_no_prior():
    table, truth = made_up(50, 5, 1.5)
    ids, scores = top_actions(table, 3)
    joint = dataclasses.replace(table, action_id=ids, action_output=scores)
    assert tune([joint], ["a"], truth, prior(), ("P01",)).prior_strength == 0
    with pytest.raises(InputError, match="takes no prior"):
        apply_prior(joint, prior(), 1.0)


def test_a_prior_of_other_classes():
    table, _ = made_up(5, 0, 1.0)
    with pytest.raises(InputError, match="4 verbs and 5 nouns, but the prior has 4 and 6"):
        apply_prior(table, Prior.count([0], [0], V, 6, ("train",)), 1.0)


@pytest.mark.parametrize("change", [{"weights": (0.5,)}, {"weights": (1.0, 0.0)}, {"prior_strength": 9.0}])
def test_tunings_that_make_no_sense(change):
    whole = Tuning(("a", "b"), (0.5, 0.5), 0.5, ("train",), None, ("P01",), 10, 50.0, 51.0)
    with pytest.raises(InputError):
        dataclasses.replace(whole, **change)
