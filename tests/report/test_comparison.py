"""Differences and patterns of several models against counting."""

import math
from collections import Counter
from itertools import combinations

import plain as by_hand
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from egochef.report.comparison import Difference, differences, patterns
from egochef.report.intervals import Estimate

TASKS = ("verb", "noun", "action")
SMALL = settings(max_examples=30, deadline=None)


def check(case):
    plain, models = case.plain, list(case.plain.said)
    outcomes = [case.outcomes[model] for model in models]
    right = {(model, task): plain.right(model, task) for model in models for task in TASKS}

    found = differences(outcomes, case.split)
    assert {(each.other, each.model) for each in found} == set(combinations(models, 2))  # a later less an earlier
    assert len(found) == len(models) * (len(models) - 1) // 2
    for each in found:
        for task in TASKS:
            points = each.points[task]
            sums = [sum(right[model, task]) for model in (each.model, each.other)]
            assert points.value == pytest.approx(100 * (sums[0] - sums[1]) / len(plain.rows))
            assert points.num == len(plain.rows)
            assert -100 <= points.low <= points.value + 1e-9 and points.value - 1e-9 <= points.high <= 100
        both = list(zip(right[each.model, "action"], right[each.other, "action"], strict=True))
        assert each.num_gained == sum(a and not b for a, b in both)
        assert each.num_lost == sum(b and not a for a, b in both)

    kinds = by_hand.patterns(plain)
    found = patterns(outcomes, case.split)
    assert Counter({each.models: each.num for each in found}) == kinds and len(found) == len(kinds)
    assert sum(each.num for each in found) == len(plain.rows)
    assert [each.num for each in found] == sorted(kinds.values(), reverse=True)
    for each in found:
        rows = [
            row
            for place, row in enumerate(plain.rows)
            if tuple(model for model in models if right[model, "action"][place]) == each.models
        ]
        lengths = Counter(row.length_bin for row in rows)
        assert list(each.by_length) == [lengths[place] for place in range(6)] and sum(each.by_length) == each.num
        verbs = Counter(row.verb for row in rows)
        best = sorted(verbs, key=lambda verb: (-verbs[verb], verb))[:3]
        assert list(each.verbs) == [(plain.verbs[verb], verbs[verb]) for verb in best]


@given(st.integers(0, 10**6), st.integers(1, 40), st.integers(1, 20), st.integers(1, 4), st.booleans())
@SMALL
def test_small(make_case, seed, num_rows, num_videos, num_models, with_actions):
    check(make_case(seed, num_rows, 3, 3, num_videos, num_models=num_models, with_actions=with_actions))


def test_the_validation_set(real_case):
    check(real_case)


def test_a_model_and_itself(make_case):
    case = make_case(2, num_models=1)
    outcome = case.outcomes["model 0"]
    (found,) = differences([outcome, outcome], case.split)
    assert (found.num_gained, found.num_lost) == (0, 0)
    assert {(each.value, each.low, each.high) for each in found.points.values()} == {(0.0, 0.0, 0.0)}


@pytest.mark.parametrize(
    ("gained", "lost", "sure"),
    [(4, 0, False), (5, 0, False), (6, 0, True), (12, 5, False), (14, 4, True), (900, 700, True)],
)
def test_a_difference_is_sure_only_if_a_sign_test_says_so_too(gained, lost, sure):
    points = dict.fromkeys(TASKS, Estimate(1.0, 0.1, 2.0, 5000, "videos"))
    assert Difference("a", "b", points, gained, lost).is_sure == sure
    assert binomtest_two_sided(gained, gained + lost) <= 0.05 or not sure
    unsure = dict.fromkeys(TASKS, Estimate(1.0, -0.1, 2.0, 5000, "videos"))
    assert not Difference("a", "b", unsure, gained, lost).is_sure


def binomtest_two_sided(successes, trials):
    """By logarithms of factorials."""
    logs = [
        math.lgamma(trials + 1) - math.lgamma(k + 1) - math.lgamma(trials - k + 1) - trials * math.log(2)
        for k in range(min(successes, trials - successes) + 1)
    ]
    return 2 * sum(map(math.exp, logs))
