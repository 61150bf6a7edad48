"""Gradient checkpointing: less memory for more time (Chen et al. 2016, arXiv:1604.06174)."""

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from egochef.model.shift import Shift


def run_block(block: nn.Module, x: Tensor, shift: Shift | None, recompute: bool) -> Tensor:
    """`block(x, shift)`; with `recompute`, what happens inside is computed again in the backward pass instead of kept.

    Only for blocks without randomness and with frozen BatchNorm: they run twice.
    """
    if recompute and torch.is_grad_enabled():
        return checkpoint(block, x, shift, use_reentrant=False, preserve_rng_state=False)
    return block(x, shift)
