"""Temporal shift (TSM): a frame's residual branches see some channels of the frames beside it, at no cost in products.

Lin et al. 2019 (arXiv:1811.08383), in the residual form: in front of a block's branch an eighth of the channels comes
from the next frame and another eighth from the one before; its shortcut keeps the frame's own. Online, for streams,
only the first eighth moves, and from the past: what a frame needs of the one before is then kept from when that was
encoded. Beyond a clip's ends all is zero.
"""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn

SHARE = 8
"""one of so many channels goes each way"""
SHIFTS = ("none", "both", "past")
"""where a frame's channels come from beside itself"""

Shift = Callable[[Tensor], Tensor]
"""what a block does to its input (N, C, H, W) before its residual branch"""
Kept = tuple[Tensor, ...]
"""what a stream keeps of a frame for the next: (B, C/8, H, W) for each block that shifts"""


def shift_clips(x: Tensor, *, num_frames: int, past_only: bool) -> Tensor:
    """Exchange channels between the neighbouring frames of each clip. (B*T, C, H, W) -> (B*T, C, H, W)."""
    if torch.jit.is_tracing():  # slices that are written to make bad graphs; this is slower and the same
        return _shift_by_cat(x, num_frames, past_only)
    fold = x.shape[1] // SHARE
    shifted = x.clone()  # in its memory layout
    source, target = (each.unflatten(0, (-1, num_frames)) for each in (x, shifted))  # (B, T, C, H, W)
    past = slice(0, fold) if past_only else slice(fold, 2 * fold)
    target[:, 1:, past] = source[:, :-1, past]
    target[:, 0, past] = 0
    if not past_only:
        target[:, :-1, :fold] = source[:, 1:, :fold]
        target[:, -1, :fold] = 0
    return shifted


def _shift_by_cat(x: Tensor, num_frames: int, past_only: bool) -> Tensor:
    sizes = [int(size) for size in x.shape[1:]]  # constants of a trace, unlike the number of frames
    fold = sizes[0] // SHARE
    clips = x.reshape(-1, num_frames, *sizes)  # (B, T, C, H, W)
    zeros = torch.zeros_like(clips[:, :1, :fold])
    if past_only:
        parts = [torch.cat([zeros, clips[:, :-1, :fold]], dim=1), clips[:, :, fold:]]
    else:
        future = torch.cat([clips[:, 1:, :fold], zeros], dim=1)
        past = torch.cat([zeros, clips[:, :-1, fold : 2 * fold]], dim=1)
        parts = [future, past, clips[:, :, 2 * fold :]]
    return torch.cat(parts, dim=2).reshape(-1, *sizes)  # (B*T, C, H, W)


class StreamShift:
    """The shift of one frame of a stream: takes from what was kept of the frame before, and keeps for the next."""

    def __init__(self, before: Kept | None):
        """`before`: what was kept of the frame before, None at the start of a stream."""
        self._before = before
        self.kept: Kept = ()

    def __call__(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W); the calls of a frame come in the blocks' order."""
        fold = x.shape[1] // SHARE
        own = x[:, :fold]
        past = torch.zeros_like(own) if self._before is None else self._before[len(self.kept)]
        self.kept = (*self.kept, own.clone())  # not a view: it would hold on to all of x
        return torch.cat([past, x[:, fold:]], dim=1)


class Encoder(nn.Module):
    """A frame encoder that may shift: frames (B*T, 3, H, W) of clips -> features (B*T, D)."""

    def __init__(self, shift: str):
        super().__init__()
        assert shift in SHIFTS, shift
        self.shift = shift
        """none: each frame on its own. both: the frames before and after. past: the frame before (online)"""

    def forward(self, frames: Tensor, num_frames: int | None = None) -> Tensor:
        """
        Args:
            frames: (B*T, 3, H, W) normalised, those of a clip one after the other.
            num_frames: T; may be left out where each frame is on its own.
        """
        if self.shift == "none":
            return self.run(frames, None)
        assert num_frames is not None, "a shift has to know where clips end"
        return self.run(frames, partial(shift_clips, num_frames=num_frames, past_only=self.shift == "past"))

    def step(self, frames: Tensor, before: Kept | None) -> tuple[Tensor, Kept]:
        """The next frame of each of B streams, online: the same as `forward` of all frames up to it.

        Args:
            frames: (B, 3, H, W) normalised.
            before: what the last call kept; None at the start.

        Returns:
            Features (B, D), and what to keep for the next call.
        """
        assert self.shift == "past", self.shift
        shift = StreamShift(before)
        return self.run(frames, shift), shift.kept

    @abstractmethod
    def run(self, frames: Tensor, shift: Shift | None) -> Tensor:
        """(N, 3, H, W) -> (N, D), with `shift` before the residual branches."""

    @abstractmethod
    def stages(self) -> Sequence[Sequence[nn.Module]]:
        """The modules with weights from input to output, in parts that may be frozen from the front."""
