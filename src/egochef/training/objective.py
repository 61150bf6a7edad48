"""What training minimises: smoothed cross-entropy of verbs, nouns and actions under labels, mixed clips and a teacher;
and the learning rate over time.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from egochef.data.transforms import Augment
from egochef.model.recogniser import Logits

TASKS = ("verb", "noun", "action")


class Mix(NamedTuple):
    """How the clips of a batch were mixed: clip i is `own_share` itself and the rest clip `partner[i]`."""

    partner: Tensor
    """(B,) int64"""
    own_share: float


class Losses(NamedTuple):
    """Means over a batch, scalars."""

    verb: Tensor
    noun: Tensor
    action: Tensor | None = None
    """None without a joint head"""

    @property
    def total(self) -> Tensor:
        return self.verb + self.noun if self.action is None else self.verb + self.noun + self.action


@dataclass(frozen=True, eq=False)
class Guide:
    """What the loss knows of the training set beside a batch's labels; None: nothing, and it is not asked."""

    log_prior: dict[str, Tensor] | None = None
    """by task the logarithm of each class's share of the training segments (classes,), times the adjustment"""
    teacher: dict[str, Tensor] | None = None
    """by task, verb and noun, a teacher's probabilities (S, classes) of the training segments, on the CPU"""


def mix_clips(inputs: Tensor, augment: Augment, rng: np.random.Generator) -> Mix:
    """CutMix, Mixup, one of the two by chance, or neither, in place.

    Args:
        inputs: frames (B, T, 3, H, W), or features (B, T, D), which only Mixup can mix.
    """
    may_cut = augment.cutmix_alpha > 0 and inputs.dim() == 5
    if augment.mixup_alpha > 0 and not (may_cut and rng.random() < 0.5):
        return mixup(inputs, augment.mixup_alpha, rng)
    return cutmix(inputs, augment.cutmix_alpha if may_cut else 0.0, rng)


def cutmix(inputs: Tensor, alpha: float, rng: np.random.Generator) -> Mix:
    """Paste one box of another clip of the batch into every clip, in place; the same box in all frames.

    Source: Yun et al. 2019, CutMix. A clip's own share is that of the picture's area.

    Args:
        inputs: (B, T, 3, H, W).
        alpha: of the Beta distribution of the area that is kept; 0 changes nothing.
    """
    num_clips, height, width = inputs.shape[0], inputs.shape[-2], inputs.shape[-1]
    partner = torch.from_numpy(rng.permutation(num_clips))
    if alpha == 0 or num_clips == 1:
        return Mix(torch.arange(num_clips), 1.0)
    side = math.sqrt(1 - rng.beta(alpha, alpha))
    y, x = int(rng.integers(height)), int(rng.integers(width))
    half_height, half_width = int(height * side) // 2, int(width * side) // 2
    top, bottom = max(y - half_height, 0), min(y + half_height, height)
    left, right = max(x - half_width, 0), min(x + half_width, width)
    box = inputs[..., top:bottom, left:right]
    box.copy_(box[partner.to(inputs.device)])  # indexing copies the box before it is written
    return Mix(partner, 1 - (bottom - top) * (right - left) / (height * width))


def mixup(inputs: Tensor, alpha: float, rng: np.random.Generator) -> Mix:
    """Blend every clip with another of the batch, in place.

    Source: Zhang et al. 2018, mixup.

    Args:
        inputs: (B, ...).
        alpha: of the Beta distribution of a clip's own share.
    """
    num_clips = inputs.shape[0]
    if num_clips == 1:
        return Mix(torch.arange(1), 1.0)
    partner, own_share = torch.from_numpy(rng.permutation(num_clips)), float(rng.beta(alpha, alpha))
    inputs.lerp_(inputs[partner.to(inputs.device)], 1 - own_share)
    return Mix(partner, own_share)


def recognition_loss(
    logits: Logits,
    action: Tensor | None,
    targets: dict[str, Tensor],
    mix: Mix,
    *,
    label_smoothing: float,
    guide: Guide | None = None,
    teacher_weight: float = 0.0,
    segment: np.ndarray | None = None,
) -> Losses:
    """Mean losses of a batch, in float32 whatever type the logits have.

    Args:
        action: a joint head's logits (B, A), or None.
        targets: by task the labels (B,) int64; of actions their places among the joint head's.
        segment: (B,) places among the training segments, for the guide's teacher.
    """
    guide = guide or Guide()
    losses = {}
    for task, scores in zip(TASKS, (*logits, action), strict=True):
        if scores is None:
            continue
        scores = scores.float()
        if guide.log_prior:
            scores = scores + guide.log_prior[task]
        target, partner, own_share = targets[task], mix.partner, mix.own_share
        loss = F.cross_entropy(scores, target, label_smoothing=label_smoothing)
        if own_share < 1:
            other = F.cross_entropy(scores, target[partner], label_smoothing=label_smoothing)
            loss = own_share * loss + (1 - own_share) * other
        if guide.teacher and task in guide.teacher:
            assert segment is not None
            probs = guide.teacher[task][torch.from_numpy(segment)].to(scores.device).float()  # (B, classes)
            probs = own_share * probs + (1 - own_share) * probs[partner]
            loss = (1 - teacher_weight) * loss + teacher_weight * F.cross_entropy(scores, probs)
        losses[task] = loss
    return Losses(**losses)


def lr_at(progress_epochs: float, *, lr: float, warmup_epochs: float, epochs: int) -> float:
    """Learning rate `progress_epochs` (with fractions) into the run: linear up, then a cosine to 0."""
    if progress_epochs < warmup_epochs:
        return lr * progress_epochs / warmup_epochs
    share = (progress_epochs - warmup_epochs) / max(epochs - warmup_epochs, 1e-9)
    return lr * 0.5 * (1 + math.cos(math.pi * min(share, 1.0)))
