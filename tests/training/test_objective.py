"""CutMix, the loss and the learning rate."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from egochef.model.recogniser import Logits
from egochef.training.objective import cutmix, lr_at, recognition_loss


@given(st.integers(0, 10_000), st.integers(2, 6), st.sampled_from([8, 9, 31]))
@settings(max_examples=60)
def test_cutmix_pastes_one_box_and_tells_its_true_area(seed, num_clips, size):
    clips = torch.arange(num_clips, dtype=torch.float32).view(-1, 1, 1, 1, 1).expand(-1, 2, 3, size, size).clone()
    partner, own_share = cutmix(clips, 1.0, np.random.default_rng(seed))
    assert sorted(partner.tolist()) == list(range(num_clips))
    for place in range(num_clips):
        pasted = clips[place] != place
        if partner[place] == place:
            assert not pasted.any()
            continue
        assert (clips[place][pasted] == float(partner[place])).all()
        assert 1 - pasted.float().mean().item() == pytest.approx(own_share, abs=1e-6)
        assert (pasted == pasted[:1, :1]).all()  # the same box in all frames and channels


def test_cutmix_off_and_alone():
    clips = torch.randn(3, 2, 3, 8, 8)
    before = clips.clone()
    assert cutmix(clips, 0.0, np.random.default_rng(0))[1] == 1.0
    assert cutmix(clips[:1], 1.0, np.random.default_rng(0))[1] == 1.0
    assert torch.equal(clips, before)


def test_cutmix_area_is_spread_evenly_for_alpha_1():
    rng = np.random.default_rng(0)
    shares = [cutmix(torch.zeros(2, 1, 3, 64, 64), 1.0, rng)[1] for _ in range(500)]
    assert 0.45 < np.mean(shares) < 0.75  # 0.5 but for boxes that the edge clips


def test_loss_by_hand():
    """Smoothed cross-entropy: (1 - s) * -log p[target] + s * mean of -log p."""
    logits = Logits(torch.randn(4, 5), torch.randn(4, 6))
    verb, noun = torch.tensor([0, 1, 2, 3]), torch.tensor([5, 4, 3, 2])
    partner, own, smoothing = torch.tensor([1, 2, 3, 0]), 0.7, 0.1
    losses = recognition_loss(logits, verb, noun, partner, own, smoothing)
    for loss, scores, target in zip(losses, logits, (verb, noun), strict=True):
        log_probs = scores.numpy() - np.log(np.exp(scores.numpy()).sum(1, keepdims=True))
        expected = 0.0
        for row, line in enumerate(log_probs):
            for share, label in ((own, target[row]), (1 - own, target[partner[row]])):
                expected += share * (-(1 - smoothing) * line[label] - smoothing * line.mean()) / len(log_probs)
        assert loss.item() == pytest.approx(expected, abs=1e-5)


def test_learning_rate_goes_up_and_down():
    def at(epochs_done):
        return lr_at(epochs_done, lr=1.5e-4, warmup_epochs=3, epochs=50)

    assert at(0) == 0
    assert at(1.5) == pytest.approx(0.75e-4)
    assert at(3) == pytest.approx(1.5e-4)
    assert at(26.5) == pytest.approx(0.75e-4)
    assert at(50) == pytest.approx(0, abs=1e-12)
    assert lr_at(0.5, lr=1.0, warmup_epochs=0, epochs=1) == pytest.approx(0.5)
