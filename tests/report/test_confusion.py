"""Confusion matrices against counting, and orders that put confused classes side by side."""

from collections import Counter
from itertools import pairwise

import numpy as np
import plain as by_hand
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from egochef.report.confusion import Confusion, clustered, confusion, mistakes

SMALL = settings(max_examples=30, deadline=None)
seeds = st.integers(0, 10**6)


def check(case, model, task):
    plain, matrix = case.plain, confusion(case.outcomes[model], case.split, task)
    own, best = plain.own(task), plain.best(model, task)
    pairs, sizes = Counter(zip(own, best, strict=True)), Counter(own)
    ids = matrix.ids.tolist()
    assert sorted(ids) == sorted({*own, *best})
    assert list(matrix.names) == [plain.names(task)[each] for each in ids]
    assert matrix.counts.shape == matrix.shares.shape == (len(ids), len(ids))
    assert matrix.counts.tolist() == [[pairs[true, predicted] for predicted in ids] for true in ids]
    shares = [[100 * pairs[true, predicted] / max(sizes[true], 1) for predicted in ids] for true in ids]
    assert np.allclose(matrix.shares, shares)

    wrong = by_hand.mistakes(plain, model, task)
    names = plain.names(task)
    for num in (1, 15, 10**6):
        found = mistakes(matrix, num)
        assert [each.num for each in found] == sorted(wrong.values(), reverse=True)[:num]
        assert len({(each.true, each.predicted) for each in found}) == len(found)
        for each in found:
            pair = names.index(each.true), names.index(each.predicted)
            assert (each.num, each.of) == (wrong[pair], sizes[pair[0]])
            assert each.share == pytest.approx(100 * wrong[pair] / sizes[pair[0]])


@given(seeds, st.integers(1, 60), st.integers(1, 9), st.integers(1, 9), st.booleans())
@SMALL
def test_small(make_case, seed, num_rows, num_verbs, num_nouns, with_actions):
    case = make_case(seed, num_rows, num_verbs, num_nouns, with_actions=with_actions)
    for task in ("verb", "noun"):
        check(case, "model 0", task)


@pytest.mark.parametrize("task", ["verb", "noun"])
@pytest.mark.parametrize("model", ["early", "late", "ensemble"])
def test_the_validation_set(real_case, model, task):
    check(real_case, model, task)


@given(arrays(np.int64, st.integers(1, 12).map(lambda n: (n, n)), elements=st.integers(0, 9)))
def test_an_order_has_every_class_once(counts):
    before = counts.copy()
    assert sorted(clustered(counts).tolist()) == list(range(len(counts)))
    assert (counts == before).all()


@st.composite
def blocks(draw):
    """A matrix whose classes are confused within their own block alone, in any order, and the block of each."""
    sizes = draw(st.lists(st.integers(1, 5), min_size=1, max_size=5))
    block = np.repeat(np.arange(len(sizes)), sizes)
    rng = np.random.default_rng(draw(seeds))
    counts = np.where(block[:, None] == block, rng.integers(1, 50, (len(block), len(block))), 0)
    order = rng.permutation(len(block))
    return counts[np.ix_(order, order)], block[order]


@given(blocks())
def test_blocks_come_out_whole_whatever_the_order(given_blocks):
    counts, block = given_blocks
    along = block[clustered(counts)].tolist()
    runs = [each for place, each in enumerate(along) if place == 0 or along[place - 1] != each]
    assert sorted(runs) == sorted(set(along)), along  # every block once
    sizes = [along.count(each) for each in runs]
    assert sizes == sorted(sizes, reverse=True)  # larger ones first


def test_a_chain_is_laid_out_along_itself():
    """Each class is taken for its neighbours; the order given is random."""
    chain = 20 * np.eye(8, dtype=int) + 5 * (np.abs(np.subtract.outer(range(8), range(8))) == 1)
    for seed in range(20):
        order = np.random.default_rng(seed).permutation(8)
        found = order[clustered(chain[np.ix_(order, order)])]
        neighbours = sum(abs(a - b) == 1 for a, b in pairwise(found))
        assert neighbours >= 5, found


def test_the_strongest_pair_stands_together():
    counts = np.array([[50, 0, 1, 9], [0, 60, 0, 0], [1, 0, 60, 1], [30, 0, 1, 40]])
    order = clustered(counts).tolist()
    assert abs(order.index(0) - order.index(3)) == 1 and order[-1] == 1


def test_all_right_has_no_mistakes():
    matrix = Confusion(np.arange(3), ("a", "b", "c"), np.diag([3, 1, 0]))
    assert mistakes(matrix, 15) == []
    assert matrix.shares.tolist() == [[100, 0, 0], [0, 100, 0], [0, 0, 0]]
