"""The order of training samples, and the size of what the device takes at once."""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from egochef.errors import InputError
from egochef.recipes import frames16, frames32, toy
from egochef.training.sources import find_micro_batch, plan_epoch, shares_of

CPU = torch.device("cpu")
UNHURRIED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
"""on a machine that is busy"""


@UNHURRIED
@given(st.integers(1, 300), st.integers(1, 64), st.integers(1, 64), st.integers(0, 5))
def test_an_epoch_sees_every_segment_once_but_for_the_last_step(num_segments, batch_size, micro_batch, epoch):
    steps = plan_epoch(num_segments, batch_size, micro_batch, seed=3, epoch=epoch)
    seen = [index for step in steps for micro in step for _, _, index in micro.keys]
    assert len(seen) == len(set(seen))
    assert len(seen) == (num_segments // batch_size * batch_size or num_segments)
    assert all(0 < len(micro.keys) <= micro_batch for step in steps for micro in step)
    positions = [position for step in steps for micro in step for _, position, _ in micro.keys]
    assert positions == list(range(len(seen)))
    for step in steps:
        assert [micro.ends_step for micro in step] == [False] * (len(step) - 1) + [True]
        assert sum(micro.step_share for micro in step) == pytest.approx(1)


@UNHURRIED
@given(st.integers(1, 60), st.integers(1, 20), st.integers(1, 8), st.integers(0, 5))
def test_a_plan_from_a_step_on_is_the_rest_of_the_whole(num_segments, batch_size, micro_batch, first_step):
    whole = plan_epoch(num_segments, batch_size, micro_batch, seed=3, epoch=1)
    assert plan_epoch(num_segments, batch_size, micro_batch, 3, 1, first_step=first_step) == whole[first_step:]


def test_epochs_differ_and_repeat():
    assert plan_epoch(50, 10, 5, 0, 1) == plan_epoch(50, 10, 5, 0, 1)
    assert plan_epoch(50, 10, 5, 0, 1) != plan_epoch(50, 10, 5, 0, 2)
    assert plan_epoch(50, 10, 5, 0, 1) != plan_epoch(50, 10, 5, 1, 1)


@UNHURRIED
@given(st.integers(4, 200), st.integers(4, 40), st.integers(1, 8), st.integers(1, 4))
def test_ranks_share_out_each_step(num_segments, batch_size, micro_batch, num_ranks):
    """The same clips in the same order, equally many passes, and the same micro-batches where their number allows."""

    def plan(rank, num_ranks):
        return plan_epoch(num_segments, batch_size, micro_batch, seed=1, epoch=2, rank=rank, num_ranks=num_ranks)

    num_clips = min(batch_size, num_segments)
    if micro_batch == 1 and num_clips % num_ranks:
        with pytest.raises(InputError, match="that the ranks divide"):
            plan(0, num_ranks)
        return
    alone, ranks = plan(0, 1), [plan(rank, num_ranks) for rank in range(num_ranks)]
    for number, step in enumerate(alone):
        shares = [rank[number] for rank in ranks]
        together = sorted((micro for share in shares for micro in share), key=lambda micro: micro.number)
        assert [micro.number for micro in together] == list(range(len(together)))
        assert [key for micro in together for key in micro.keys] == [key for micro in step for key in micro.keys]
        assert len({len(share) for share in shares}) == 1
        assert all(share[-1].ends_step for share in shares)
        assert all(micro.keys for micro in together)
        if len(step) % num_ranks == 0:
            assert [micro.keys for micro in together] == [micro.keys for micro in step]


def test_more_ranks_than_clips():
    with pytest.raises(InputError, match="3 clips a step for 4 ranks"):
        plan_epoch(3, 8, 4, seed=0, epoch=1, num_ranks=4)


def test_micro_batches_divide_the_batch_evenly():
    for config in (frames16(), frames32(), toy()):
        micro = find_micro_batch(config, CPU, torch.float32)
        passes = -(-config.batch_size // micro)
        assert 1 <= micro <= config.batch_size
        assert passes * micro - config.batch_size < passes
    assert find_micro_batch(frames16(), CPU, torch.float32) >= find_micro_batch(frames32(), CPU, torch.float32)
    fixed = dataclasses.replace(frames16(), frozen_encoder=True)
    assert find_micro_batch(fixed, CPU, torch.float32) >= find_micro_batch(frames16(), CPU, torch.float32)
    given_micro = dataclasses.replace(frames16(), micro_batch=7)
    assert find_micro_batch(given_micro, CPU, torch.float32) == 7


def test_balance_draws_rare_classes_as_often():
    verb, noun = np.array([0] * 90 + [1] * 10), np.array([0] * 90 + [1] * 10)
    assert shares_of(verb, noun, 0.0) is None
    for balance, share in ((1.0, 0.5), (0.5, 10 * 10**-0.5 / (90 * 90**-0.5 + 10 * 10**-0.5))):
        shares = shares_of(verb, noun, balance)
        assert shares.sum() == pytest.approx(1) and shares[90:].sum() == pytest.approx(share)
        drawn = np.concatenate(
            [
                [
                    index
                    for step in plan_epoch(100, 10, 5, 0, epoch, shares=shares)
                    for m in step
                    for *_, index in m.keys
                ]
                for epoch in range(1, 40)
            ]
        )
        assert (drawn >= 90).mean() == pytest.approx(share, abs=0.03)
    mixed = shares_of(np.array([0, 0, 0, 0, 1]), np.array([0, 0, 0, 1, 1]), 1.0)
    assert mixed[0] < mixed[3] < mixed[4], "a common verb with a rare noun lies between"
    plans = [plan_epoch(100, 10, 5, 0, 3, shares=shares, rank=rank, num_ranks=2) for rank in (0, 1)]
    alone = plan_epoch(100, 10, 5, 0, 3, shares=shares)
    assert [m.keys for step in alone for m in step] == [
        m.keys for steps in zip(*plans, strict=True) for step in steps for m in step
    ]
