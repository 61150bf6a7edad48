"""The temporal shift against loops over frames, and streams of single frames against whole clips."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from egochef.model.encoders import ENCODERS, build_encoder, fold_batchnorm, freeze_batchnorm
from egochef.model.shift import StreamShift, shift_clips
from egochef.model.weights import load_initial_weights

ONLINE = [name for name, info in ENCODERS.items() if info.shift == "past"]
SHIFTED = [name for name, info in ENCODERS.items() if info.shift != "none"]


def loop(x: np.ndarray, past_only: bool) -> np.ndarray:
    """(B, T, C, H, W), one frame and channel at a time, by the paper's figure 1."""
    shifted, (num_clips, num_frames, num_channels) = np.zeros_like(x), x.shape[:3]
    for clip in range(num_clips):
        for frame in range(num_frames):
            for channel in range(num_channels):
                eighth = channel // (num_channels // 8)
                step = {0: -1 if past_only else 1, 1: 0 if past_only else -1}.get(eighth, 0)
                if 0 <= frame + step < num_frames:
                    shifted[clip, frame, channel] = x[clip, frame + step, channel]
    return shifted


@given(
    num_clips=st.integers(1, 3),
    num_frames=st.integers(1, 5),
    num_channels=st.sampled_from([8, 16, 24, 40]),
    past_only=st.booleans(),
    channels_last=st.booleans(),
)
@settings(max_examples=40, deadline=None)
def test_shift_equals_a_loop(
    num_clips: int, num_frames: int, num_channels: int, past_only: bool, channels_last: bool
) -> None:
    x = torch.randn(num_clips, num_frames, num_channels, 2, 3)
    flat = x.flatten(0, 1)
    if channels_last:
        flat = flat.to(memory_format=torch.channels_last)
    before = flat.clone()
    shifted = shift_clips(flat, num_frames=num_frames, past_only=past_only)
    assert np.array_equal(shifted.unflatten(0, (num_clips, num_frames)).numpy(), loop(x.numpy(), past_only))
    assert torch.equal(flat, before)
    assert shifted.stride() == flat.stride()


@pytest.mark.parametrize("past_only", [False, True])
def test_what_is_traced_is_the_same(past_only: bool) -> None:
    def shift(x: Tensor) -> Tensor:
        return shift_clips(x, num_frames=4, past_only=past_only)

    x = torch.randn(8, 16, 2, 3)
    assert torch.equal(torch.jit.trace(shift, x)(x), shift(x))


@pytest.mark.parametrize("past_only", [False, True])
def test_gradients_come_back_to_where_they_belong(past_only: bool) -> None:
    x = torch.randn(6, 8, 2, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda y: shift_clips(y, num_frames=3, past_only=past_only), (x,))


def test_what_a_stream_keeps_is_no_view_of_the_whole() -> None:
    shift = StreamShift(None)
    shift(torch.randn(1, 16, 4, 4))
    assert shift.kept[0].untyped_storage().nbytes() == 4 * 2 * 4 * 4


def lively(name: str) -> torch.nn.Module:
    torch.manual_seed(0)
    encoder = build_encoder(name).eval()
    if ENCODERS[name].architecture == "efficientnet_lite0":
        load_initial_weights(encoder, name, "imagenet")
        return encoder
    for module in encoder.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.weight.data.uniform_(0.4, 0.8)
            module.bias.data.normal_(0, 0.1)
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    return encoder


def smooth(num_frames: int) -> Tensor:
    """Frames (N, 3, 64, 96) that are more like pictures than noise is."""
    torch.manual_seed(1)
    return F.interpolate(torch.randn(num_frames, 3, 8, 12), (64, 96), mode="bicubic")


@pytest.mark.parametrize("name", ONLINE)
@pytest.mark.parametrize("is_folded", [False, True])
def test_a_stream_of_single_frames_equals_the_clip(name: str, is_folded: bool) -> None:
    encoder = fold_batchnorm(lively(name)) if is_folded else lively(name)
    frames = smooth(12).unflatten(0, (2, 6))  # two streams at once
    features, kept = [], None
    with torch.no_grad():
        clips = encoder(frames.flatten(0, 1), 6).unflatten(0, (2, 6))
        for frame in frames.unbind(1):
            feature, kept = encoder.step(frame, kept)
            features.append(feature)
    scale = clips.abs().max().item()
    assert (torch.stack(features, dim=1) - clips).abs().max().item() <= 1e-5 * scale
    assert (clips[:, 1:] - clips[:, :1]).abs().max() > 0.1 * scale  # and not because all is alike


@pytest.mark.parametrize("name", SHIFTED)
def test_which_frames_a_frame_depends_on(name: str) -> None:
    encoder, is_online = lively(name), ENCODERS[name].shift == "past"
    frames = smooth(6)
    changed = frames.clone()
    changed[2] = frames[2].flip(1)
    with torch.no_grad():
        before = encoder(frames, 6)
        moved = (before - encoder(changed, 6)).abs().amax(1) > 1e-5 * before.abs().max()  # (T,)
        alone = encoder(frames, 1)
        parts = torch.cat([encoder(half, 3) for half in frames.split(3)])
    assert moved.tolist() == [not is_online, not is_online, True, True, True, True]
    # Clips know nothing of each other, and a clip of one frame is neither this frame's nor the plain encoder's.
    with torch.no_grad():
        assert torch.allclose(parts, encoder(frames, 3), atol=1e-4 * parts.abs().max().item())
    assert (alone - parts).abs().max() > 0.01 * parts.abs().max()


@pytest.mark.parametrize("name", SHIFTED)
def test_recomputed_gradients_are_the_same(name: str) -> None:
    encoder = lively(name)
    freeze_batchnorm(encoder)
    frames, gradients = torch.randn(6, 3, 64, 64), []
    for recompute in (False, True):
        encoder.recompute = recompute
        encoder.zero_grad()
        encoder(frames, 3).square().mean().backward()
        gradients.append([p.grad.clone() for p in encoder.parameters() if p.grad is not None])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other)
