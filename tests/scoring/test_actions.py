import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as nps
from scoring_helpers import random_table, slow_probs, slow_top_actions

from egochef.scoring.actions import ranked_classes, top_actions
from egochef.scoring.table import ScoreTable


@pytest.mark.parametrize("kind", ["logits", "probs"])
@pytest.mark.parametrize(("num_verbs", "num_nouns"), [(1, 1), (1, 9), (2, 3), (12, 5), (20, 31)])
def test_top_actions_are_those_of_all_pairs(num_verbs, num_nouns, kind):
    for seed in range(5):
        table = random_table(np.random.default_rng(seed), 4, num_verbs, num_nouns, kind)
        for num_actions in (1, 5, 100):
            ids, scores = top_actions(table, num_actions)
            assert ids.shape == scores.shape == (4, min(num_actions, num_verbs * num_nouns))
            for row in range(4):
                assert ids[row].tolist() == slow_top_actions(table, row)[:num_actions]


def test_scores_are_log_probabilities():
    table = random_table(np.random.default_rng(0))
    ids, scores = top_actions(table, 100)
    for row in range(len(table)):
        verbs, nouns = (slow_probs(x[row], "logits") for x in (table.verb_output, table.noun_output))
        expected = [np.log(verbs[action // 1000] * nouns[action % 1000]) for action in ids[row].tolist()]
        np.testing.assert_allclose(scores[row], expected)


def tables(elements):
    outputs = st.tuples(
        nps.arrays(np.float32, (3, 6), elements=elements), nps.arrays(np.float32, (3, 8), elements=elements)
    )
    return outputs.map(lambda pair: ScoreTable(np.array(["a", "b", "c"]), *pair, "logits"))


@settings(deadline=None)
@given(tables(st.floats(-(2.0**99), 2.0**99, width=32)))
def test_the_best_action_is_the_best_verb_with_the_best_noun(table):
    ids, scores = top_actions(table, 7)
    best = ranked_classes(table.verb_output)[:, 0] * 1000 + ranked_classes(table.noun_output)[:, 0]
    np.testing.assert_array_equal(ids[:, 0], best)
    assert np.isfinite(scores).all()
    assert (np.diff(scores, axis=1) <= 0).all()


@settings(deadline=None)
@given(tables(st.sampled_from([0.0, 1.0])), st.integers(1, 48))
def test_ties_keep_one_order_whatever_the_number_kept(table, num_actions):
    everything, _ = top_actions(table, 48)
    np.testing.assert_array_equal(top_actions(table, num_actions)[0], everything[:, :num_actions])
    for row in everything:
        assert len(set(row.tolist())) == 48


def test_the_higher_id_wins_a_tie():
    assert ranked_classes(np.array([[1.0, 2.0, 2.0, 0.0]])).tolist() == [[2, 1, 0, 3]]


def test_given_actions_count_as_given():
    table = ScoreTable(
        np.array(["a"]), [[9.0, 0.0]], [[9.0, 0.0]], "logits", np.array([[1, 1001, 0]]), [[0.5, 2.5, 1.5]]
    )
    ids, scores = top_actions(table, 2)
    assert ids.tolist() == [[1001, 0]]
    assert scores.tolist() == [[2.5, 1.5]]
