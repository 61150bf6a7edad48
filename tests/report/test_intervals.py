"""Intervals hold the truth as often as they say, in simulations whose truth is known."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from egochef.report.analysis import by_length, by_seen, official
from egochef.report.comparison import differences
from egochef.report.intervals import MIN_VIDEOS, estimate, estimate_difference

NUM_SETS = 150
HARD = (0.4 * 6, 0.6 * 6)
"""of the beta distribution of videos' accuracies: mean 0.4, standard deviation 0.19"""


def videos_of(rng, num_videos=140):
    """The video of each segment: videos of about 10 to 150 segments."""
    sizes = np.clip(rng.lognormal(3.4, 0.9, num_videos), 3, 500).astype(int)
    return np.repeat(np.arange(num_videos), sizes)


def apart(right):
    """A video for each segment, so that single segments are drawn."""
    return np.arange(len(right))


def holds(found, truth):
    return found.low <= truth <= found.high


def binomial_tail(k, n, p):
    """Probability of k or more of n."""
    return math.fsum(math.comb(n, i) * p**i * (1 - p) ** (n - i) for i in range(k, n + 1))


def lower_end(k, n):
    """The p, percent, at which k or more of n have a probability of 2.5 %, by halving (Clopper and Pearson, 1934)."""
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if binomial_tail(k, n, middle) < 0.025 else (low, middle)
    return 100 * low


def test_independent_segments():
    rng = np.random.default_rng(1)
    held = [holds(estimate(right, ["P01_01"] * 300), 30) for right in rng.random((NUM_SETS, 300)) < 0.3]
    assert 0.92 <= np.mean(held) <= 0.98


def test_segments_of_videos():
    """Whole videos hold the truth; single segments, as if they did not resemble each other, would not."""
    rng = np.random.default_rng(2)
    held, would_hold, unit = [], [], set()
    for _ in range(NUM_SETS):
        video = videos_of(rng)
        right = rng.random(len(video)) < rng.beta(*HARD, size=140)[video]
        found = estimate(right, video)
        unit.add(found.unit)
        held.append(holds(found, 40))
        would_hold.append(holds(estimate(right, apart(right)), 40))
    assert unit == {"videos"}
    assert 0.90 <= np.mean(held) <= 0.98
    assert np.mean(would_hold) < 0.75


def test_paired_differences():
    """Two models that agree on most: the interval of their difference holds it, and is narrower than both together."""
    rng = np.random.default_rng(3)
    held, narrower = [], []
    for place in range(NUM_SETS):
        video = videos_of(rng)
        hard = rng.beta(*HARD, size=140)[video]
        luck = rng.random(len(video))
        first, second = luck < hard, luck < 0.9 * hard + 0.1 * (rng.random(len(video)) < 0.5)
        found = estimate_difference(second, first, video)
        held.append(holds(found, 100 * (0.9 * 0.4 + 0.05 - 0.4)))
        if place >= 20:
            continue
        widths = [each.high - each.low for each in (estimate(first, video), estimate(second, video))]
        narrower.append(found.high - found.low < math.hypot(*widths))
    assert 0.90 <= np.mean(held) <= 0.98
    assert len(narrower) == 20 and all(narrower)


def plain_interval(values, names):
    """Mean plus and minus 1.96 standard errors of a ratio of sums over clusters, percent."""
    sums, sizes = {}, {}
    for value, name in zip(values, names, strict=True):
        sums[name] = sums.get(name, 0) + value
        sizes[name] = sizes.get(name, 0) + 1
    mean = sum(sums.values()) / len(values)
    error = math.sqrt(sum((sums[name] - mean * sizes[name]) ** 2 for name in sums)) / len(values)
    return 100 * (mean - 1.96 * error), 100 * (mean + 1.96 * error)


def check_width(found, values, names):
    low, high = plain_interval(values, names)
    assert found.high - found.low == pytest.approx(high - low, rel=0.2)
    assert found.low == pytest.approx(low, abs=0.2 * (high - low))


def test_the_validation_set(real_case):
    """Where there are many videos, the formula for standard errors of clusters says about the same."""
    plain = real_case.plain
    names = [row.video for row in plain.rows]
    for model, outcome in real_case.outcomes.items():
        for task in ("verb", "noun", "action"):
            found = official(outcome, real_case.split)[f"all_{task}_accuracy_at_1"]
            check_width(found, plain.right(model, task), names)
        for groups, kinds in (
            (by_length(outcome, real_case.split)[1:], [row.length_bin - 1 for row in plain.rows]),
            (by_seen(outcome, real_case.split), [int(row.participant in plain.unseen) for row in plain.rows]),
        ):
            for place, group in enumerate(groups):
                within = [at for at, kind in enumerate(kinds) if kind == place]
                right = plain.right(model, "verb")
                assert group.verb.unit == "videos"
                check_width(group.verb, [right[at] for at in within], [names[at] for at in within])
    for each in differences(list(real_case.outcomes.values()), real_case.split):
        pairs = zip(plain.right(each.model, "noun"), plain.right(each.other, "noun"), strict=True)
        check_width(each.points["noun"], [a - b for a, b in pairs], names)


@pytest.mark.parametrize("num", [1, 2, 5, 9, 40])
def test_all_right_or_none_has_the_exact_end(num):
    edge = lower_end(num, num)
    every, none = (estimate(np.full(num, value), ["P01_01"] * num) for value in (True, False))
    assert (every.value, every.high, none.value, none.low) == (100, 100, 0, 0)
    assert (every.low, none.high) == (pytest.approx(edge, abs=1e-6), pytest.approx(100 - edge, abs=1e-6))


@pytest.mark.parametrize("num", [1, 3, 5, 6, 20])
def test_a_few_segments_that_one_model_alone_has_right_prove_nothing(num):
    """As a sign test says: 5 of 5 may be chance, 6 of 6 are not."""
    yes, no = np.ones(num, dtype=bool), np.zeros(num, dtype=bool)
    more, less = (estimate_difference(a, b, ["P01_01"] * num) for a, b in ((yes, no), (no, yes)))
    assert (more.value, more.high, less.value, less.low) == (100, 100, -100, -100)
    assert more.low == -less.high == pytest.approx(2 * lower_end(num, num) - 100, abs=1e-6)
    assert (more.low > 0) == (2 * 0.5**num < 0.05)


def test_all_right_in_many_videos_counts_videos():
    found = estimate(np.ones(60, dtype=bool), np.repeat(np.arange(12), 5))
    assert (found.unit, found.num) == ("videos", 60)
    assert found.low == pytest.approx(lower_end(12, 12), abs=1e-6)


def test_few_videos_draw_segments():
    right = np.arange(90) % 3 == 0
    for num_videos, unit in ((1, "segments"), (MIN_VIDEOS - 1, "segments"), (MIN_VIDEOS, "videos")):
        video = np.arange(90) % num_videos
        assert estimate(right, video).unit == unit
        assert estimate_difference(right, ~right, video).unit == unit


@given(st.integers(0, 10**6), st.integers(1, 200), st.integers(1, 30))
@settings(max_examples=50, deadline=None)
def test_rows_have_no_order_and_chance_no_say(seed, num_rows, num_videos):
    rng = np.random.default_rng(seed)
    right, other = rng.random((2, num_rows)) < 0.6
    video = rng.integers(num_videos, size=num_rows).astype(str)
    order = rng.permutation(num_rows)
    found, points = estimate(right, video), estimate_difference(right, other, video)
    assert found == estimate(right, video) == estimate(right[order], video[order])
    assert points == estimate_difference(right[order], other[order], video[order])
    assert 0 <= found.low <= found.value + 1e-9 and found.value - 1e-9 <= found.high <= 100
    assert points.value == pytest.approx(100 * (int(right.sum()) - int(other.sum())) / num_rows)
    assert (found.num, points.num) == (num_rows, num_rows)


def test_nothing_is_none():
    assert estimate(np.array([], dtype=bool), []) is None


def test_as_text():
    right = np.arange(1000) < 500
    found = estimate(right, ["P01_01"] * 1000)
    assert str(found) == f"50.0 ({found.low:.1f} to {found.high:.1f})"
    assert (found.low, found.high) == (pytest.approx(46.9, abs=0.3), pytest.approx(53.1, abs=0.3))
