"""CutMix, the loss and the learning rate."""

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from egochef.data.transforms import Augment
from egochef.model.recogniser import Logits
from egochef.training.guide import log_shares
from egochef.training.objective import Guide, Mix, cutmix, lr_at, mix_clips, mixup, recognition_loss


@given(st.integers(0, 10_000), st.integers(2, 6), st.sampled_from([8, 9, 31]))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])  # busy machines are slow
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


def cross_entropy(scores, target, smoothing=0.0):
    """(1 - s) * -log p[target] + s * mean of -log p, over rows, of `target` (B,) or probabilities (B, classes)."""
    scores = np.asarray(scores, dtype=np.float64)
    log_probs = scores - np.log(np.exp(scores).sum(1, keepdims=True))
    probs = np.eye(scores.shape[1])[target] if np.asarray(target).ndim == 1 else np.asarray(target)
    probs = (1 - smoothing) * probs + smoothing / scores.shape[1]
    return -(probs * log_probs).sum(1).mean()


def batch(seed=0):
    torch.manual_seed(seed)
    logits, action = Logits(torch.randn(4, 5), torch.randn(4, 6)), torch.randn(4, 9)
    targets = {
        "verb": torch.tensor([0, 1, 2, 3]),
        "noun": torch.tensor([5, 4, 3, 2]),
        "action": torch.tensor([8, 0, 4, 4]),
    }
    return logits, action, targets, Mix(torch.tensor([1, 2, 3, 0]), 0.7)


def test_loss_by_hand():
    logits, action, targets, mix = batch()
    losses = recognition_loss(logits, action, targets, mix, label_smoothing=0.1)
    for loss, scores, target in zip(losses, (*logits, action), targets.values(), strict=True):
        own, other = (cross_entropy(scores, each, 0.1) for each in (target, target[mix.partner]))
        assert loss.item() == pytest.approx(0.7 * own + 0.3 * other, abs=1e-5)
    assert losses.total.item() == pytest.approx(sum(each.item() for each in losses), abs=1e-6)
    without = recognition_loss(logits, None, targets, mix, label_smoothing=0.1)
    assert without.action is None and without.total.item() == pytest.approx((losses.verb + losses.noun).item())


def test_loss_of_short_logits_is_not_rounded():
    """bfloat16 has steps of 0.03 between 4 and 8, where a loss over 300 nouns starts."""
    logits, action, targets, mix = batch()
    short = [scores.bfloat16() for scores in (*logits, action)]
    losses = recognition_loss(Logits(*short[:2]), short[2], targets, mix, label_smoothing=0.0)
    for loss, scores, target in zip(losses, short, targets.values(), strict=True):
        own, other = (cross_entropy(scores.float(), each) for each in (target, target[mix.partner]))
        assert loss.dtype == torch.float32 and loss.item() == pytest.approx(0.7 * own + 0.3 * other, abs=1e-5)


def test_logit_adjustment_by_hand():
    logits, action, targets, _ = batch()
    shares = {"verb": np.array([2, 1, 1, 4, 8]) / 16, "noun": np.full(6, 1 / 6), "action": np.full(9, 1 / 9)}
    guide = Guide(log_prior={task: 0.5 * torch.tensor(np.log(each)).float() for task, each in shares.items()})
    plain = Mix(torch.arange(4), 1.0)
    losses = recognition_loss(logits, action, targets, plain, label_smoothing=0.0, guide=guide)
    expected = cross_entropy(logits.verb.numpy() + 0.5 * np.log(shares["verb"]), targets["verb"])
    assert losses.verb.item() == pytest.approx(expected, abs=1e-5)
    same = recognition_loss(logits, action, targets, plain, label_smoothing=0.0)
    assert losses.noun.item() == pytest.approx(same.noun.item(), abs=1e-5), "equal shares change nothing"
    assert losses.verb.item() != pytest.approx(same.verb.item(), abs=1e-3)


def test_a_teacher_by_hand():
    logits, action, targets, mix = batch()
    teacher = {"verb": torch.rand(20, 5).softmax(1), "noun": torch.rand(20, 6).softmax(1)}
    segment = np.array([3, 19, 0, 7])
    losses = recognition_loss(
        logits,
        action,
        targets,
        mix,
        label_smoothing=0.1,
        guide=Guide(teacher=teacher),
        teacher_weight=0.4,
        segment=segment,
    )
    plain = recognition_loss(logits, action, targets, mix, label_smoothing=0.1)
    for task in ("verb", "noun"):
        probs = teacher[task][segment]
        soft = cross_entropy(getattr(logits, task), 0.7 * probs + 0.3 * probs[mix.partner])
        expected = 0.6 * getattr(plain, task).item() + 0.4 * soft
        assert getattr(losses, task).item() == pytest.approx(expected, abs=1e-5)
    assert losses.action.item() == plain.action.item(), "it says nothing of actions"


@pytest.mark.parametrize("shape", [(5, 2, 3, 8, 8), (5, 4, 7)])
def test_mixup_blends_and_tells_the_share(shape):
    clips = torch.randn(shape)
    before = clips.clone()
    partner, own_share = mixup(clips, 0.4, np.random.default_rng(1))
    assert sorted(partner.tolist()) == list(range(5)) and 0 < own_share < 1
    assert torch.allclose(clips, own_share * before + (1 - own_share) * before[partner])
    assert mixup(clips[:1], 0.4, np.random.default_rng(1))[1] == 1.0


def test_one_of_cutmix_and_mixup_is_drawn():
    both = Augment(cutmix_alpha=1.0, mixup_alpha=1.0)
    kinds = []
    for seed in range(60):
        frames = torch.arange(6.0).view(6, 1, 1, 1, 1).expand(6, 1, 3, 16, 16).clone()
        mix_clips(frames, both, np.random.default_rng(seed))
        kinds.append(torch.equal(frames, frames.round()))  # pasted, not blended
    assert 15 < sum(kinds) < 45
    features = torch.randn(3, 4, 5)
    before = features.clone()
    assert mix_clips(features, Augment(), np.random.default_rng(0)).own_share == 1, "CutMix has no pictures there"
    assert torch.equal(features, before)
    assert mix_clips(features, both, np.random.default_rng(0)).own_share < 1


def test_shares_of_classes():
    assert np.exp(log_shares(np.array([0, 0, 2, 2, 2, 2]), 4)) == pytest.approx(np.array([2, 1, 4, 1]) / 8)


def test_learning_rate_goes_up_and_down():
    def at(epochs_done):
        return lr_at(epochs_done, lr=1.5e-4, warmup_epochs=3, epochs=50)

    assert at(0) == 0
    assert at(1.5) == pytest.approx(0.75e-4)
    assert at(3) == pytest.approx(1.5e-4)
    assert at(26.5) == pytest.approx(0.75e-4)
    assert at(50) == pytest.approx(0, abs=1e-12)
    assert lr_at(0.5, lr=1.0, warmup_epochs=0, epochs=1) == pytest.approx(0.5)
