"""Counted costs against torch's own counter, a loop over an LSTM's products, published figures, and real memory."""

import dataclasses

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from egochef.clip import ClipSpec
from egochef.model.cost import cost_of, count_flops, count_kept_bytes
from egochef.model.encoders import ENCODERS, build_encoder, freeze_batchnorm
from egochef.model.recogniser import ModelConfig, Recogniser


@pytest.mark.parametrize(("name", "published"), [("resnet50", 4.09), ("efficientnet_lite0", 0.385)])
def test_encoders_have_the_published_cost(name: str, published: float) -> None:
    """Torchvision's table; 407 M with the classifier in tensorflow/tpu's, which counts other things too."""
    for suffix in ("", "_tsm", "_tsm_online"):
        cost = cost_of(ModelConfig(encoder=name + suffix, temporal="mean"), ClipSpec(num_frames=8))
        assert cost.encoder_flops / 1e9 == pytest.approx(published, abs=0.005)
        assert cost.flops == pytest.approx(8 * cost.encoder_flops, rel=1e-3)


@pytest.mark.parametrize("temporal", ["mean", "tcn"])
def test_count_equals_torchs_own(temporal: str) -> None:
    model = ModelConfig(encoder="efficientnet_lite0_tsm", temporal=temporal, hidden_size=32)
    recogniser, frames = Recogniser(model).eval(), torch.randn(1, 3, 3, 64, 96)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        recogniser(frames)
    assert count_flops(recogniser, frames) == counter.get_total_flops() / 2


@pytest.mark.parametrize(("temporal", "gates"), [("bilstm", 4), ("bigru", 3)])
def test_recurrences_are_counted(temporal: str, gates: int) -> None:
    model = ModelConfig(encoder="efficientnet_lite0", temporal=temporal, hidden_size=8, num_layers=2)
    clip = ClipSpec(num_frames=5, image_size=64)
    cost = cost_of(model, clip)
    by_hand = sum(5 * 2 * gates * 8 * (given + 8) for given in (1280, 16)) + 16 * (97 + 300)
    assert cost.flops - 5 * cost.encoder_flops == by_hand


@pytest.mark.parametrize("name", ["efficientnet_lite0_tsm", "resnet50_tsm"])
@pytest.mark.parametrize("is_frozen", [False, True])
def test_kept_bytes_are_those_of_real_tensors(name: str, is_frozen: bool) -> None:
    clip = ClipSpec(num_frames=2)
    config = ModelConfig(encoder=name, temporal="mean", frozen_batchnorm=is_frozen, head_dropout=0.0)
    counted = cost_of(config, clip).training_bytes
    assert counted == pytest.approx(count_kept_bytes(Recogniser(config).train(), torch.randn(1, 2, 3, 224, 224)), 0.01)
    info = ENCODERS[name]
    estimate = info.frozen_training_bytes_per_frame if is_frozen else info.training_bytes_per_frame
    assert counted / 2 == pytest.approx(estimate, rel=0.03)


def test_counting_leaves_the_module_as_it_was() -> None:
    encoder = build_encoder("efficientnet_lite0")
    freeze_batchnorm(encoder)
    frames = torch.randn(1, 3, 64, 64)
    assert count_flops(encoder, frames) == count_flops(encoder, frames) > 0
    assert not any(module._forward_hooks for module in encoder.modules())


def test_more_frames_cost_more() -> None:
    model, clip = ModelConfig(encoder="efficientnet_lite0"), ClipSpec(num_frames=4, image_size=64)
    small, large = cost_of(model, clip), cost_of(model, dataclasses.replace(clip, num_frames=8))
    assert large.flops > 1.9 * small.flops and large.training_bytes > 1.9 * small.training_bytes
    assert large.num_parameters == small.num_parameters


def test_a_joint_head_counts_as_many_actions_as_there_are() -> None:
    model, clip = ModelConfig(encoder="efficientnet_lite0", temporal="mean"), ClipSpec(num_frames=2, image_size=64)
    plain, unknown, known = (
        cost_of(dataclasses.replace(model, **changes), clip)
        for changes in ({}, {"joint": True}, {"joint": True, "action_ids": (3, 1000, 2001)})
    )
    assert unknown.num_parameters - plain.num_parameters == 3568 * 1281, "EK-100's"
    assert known.num_parameters - plain.num_parameters == 3 * 1281
    assert known.flops - plain.flops == 3 * 1280
