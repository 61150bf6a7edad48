"""What training minimises: smoothed cross-entropy of verb and noun, CutMix, and the learning rate over time."""

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from egochef.model.recogniser import Logits


def cutmix(inputs: Tensor, alpha: float, rng: np.random.Generator) -> tuple[Tensor, float]:
    """Paste one box of another clip of the batch into every clip, in place; the same box in all frames.

    Source: Yun et al. 2019, CutMix.

    Args:
        inputs: (B, T, 3, H, W).
        alpha: of the Beta distribution of the area that is kept; 0 changes nothing.

    Returns:
        The partner of every clip (B,) int64, and the share of the picture's area that is the clip's own.
    """
    num_clips, height, width = inputs.shape[0], inputs.shape[-2], inputs.shape[-1]
    partner = torch.from_numpy(rng.permutation(num_clips))
    if alpha == 0 or num_clips == 1:
        return torch.arange(num_clips), 1.0
    side = math.sqrt(1 - rng.beta(alpha, alpha))
    y, x = int(rng.integers(height)), int(rng.integers(width))
    half_height, half_width = int(height * side) // 2, int(width * side) // 2
    top, bottom = max(y - half_height, 0), min(y + half_height, height)
    left, right = max(x - half_width, 0), min(x + half_width, width)
    box = inputs[..., top:bottom, left:right]
    box.copy_(box[partner.to(inputs.device)])  # indexing copies the box before it is written
    return partner, 1 - (bottom - top) * (right - left) / (height * width)


def recognition_loss(
    logits: Logits, verb: Tensor, noun: Tensor, partner: Tensor, own_share: float, label_smoothing: float
) -> tuple[Tensor, Tensor]:
    """Mean verb loss and mean noun loss of a batch whose clip i is `own_share` itself and the rest clip `partner[i]`.

    Args:
        verb, noun, partner: (B,) int64.
    """

    def loss(scores: Tensor, target: Tensor) -> Tensor:
        own = F.cross_entropy(scores, target, label_smoothing=label_smoothing)
        if own_share == 1:
            return own
        other = F.cross_entropy(scores, target[partner], label_smoothing=label_smoothing)
        return own_share * own + (1 - own_share) * other

    return loss(logits.verb, verb), loss(logits.noun, noun)


def lr_at(progress_epochs: float, *, lr: float, warmup_epochs: float, epochs: int) -> float:
    """Learning rate `progress_epochs` (with fractions) into the run: linear up, then a cosine to 0."""
    if progress_epochs < warmup_epochs:
        return lr * progress_epochs / warmup_epochs
    share = (progress_epochs - warmup_epochs) / max(epochs - warmup_epochs, 1e-9)
    return lr * 0.5 * (1 + math.cos(math.pi * min(share, 1.0)))
