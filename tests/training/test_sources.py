"""The order of training samples, and the size of what the device takes at once."""

import dataclasses

import torch
from hypothesis import given
from hypothesis import strategies as st

from egochef.recipes import frames16, frames32, toy
from egochef.training.sources import find_micro_batch, plan_epoch

CPU = torch.device("cpu")


@given(st.integers(1, 300), st.integers(1, 64), st.integers(1, 64), st.integers(0, 5))
def test_an_epoch_sees_every_segment_once_but_for_the_last_step(num_segments, batch_size, micro_batch, epoch):
    steps = plan_epoch(num_segments, batch_size, micro_batch, seed=3, epoch=epoch)
    seen = [index for step in steps for micro in step for _, _, index in micro]
    assert len(seen) == len(set(seen))
    assert len(seen) == (num_segments // batch_size * batch_size or num_segments)
    assert all(len(micro) <= micro_batch for step in steps for micro in step)
    positions = [position for step in steps for micro in step for _, position, _ in micro]
    assert positions == list(range(len(seen)))


def test_epochs_differ_and_repeat():
    assert plan_epoch(50, 10, 5, 0, 1) == plan_epoch(50, 10, 5, 0, 1)
    assert plan_epoch(50, 10, 5, 0, 1) != plan_epoch(50, 10, 5, 0, 2)
    assert plan_epoch(50, 10, 5, 0, 1) != plan_epoch(50, 10, 5, 1, 1)


@given(st.integers(1, 200), st.integers(1, 40), st.integers(1, 4))
def test_ranks_share_out_each_step(num_segments, batch_size, num_ranks):
    alone = plan_epoch(num_segments, batch_size, 8, seed=1, epoch=2)
    ranks = [
        plan_epoch(num_segments, batch_size, 8, seed=1, epoch=2, rank=r, num_ranks=num_ranks) for r in range(num_ranks)
    ]
    for number, step in enumerate(alone):
        shares = [[key for micro in rank[number] for key in micro] for rank in ranks]
        assert sorted(key for share in shares for key in share) == sorted(key for micro in step for key in micro)
        assert max(map(len, shares)) - min(map(len, shares)) <= 1


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
