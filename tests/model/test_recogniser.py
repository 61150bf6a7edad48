"""The whole model: its size, its seam, its config."""

import pytest
import torch

from egochef.errors import InputError
from egochef.model.recogniser import ModelConfig, Recogniser, count_parameters


@pytest.mark.parametrize(("hidden_size", "millions"), [(512, 40.71), (1024, 74.69)])
def test_size_of_the_baseline(hidden_size, millions):
    model = Recogniser(ModelConfig(hidden_size=hidden_size))
    assert count_parameters(model) / 1e6 == pytest.approx(millions, abs=0.005)


def light(**changes):
    torch.manual_seed(0)
    return Recogniser(ModelConfig(encoder="efficientnet_lite0", hidden_size=8, **changes)).eval()


def test_shapes_and_the_seam():
    model = light()
    frames = torch.randn(2, 3, 3, 64, 64)
    with torch.inference_mode():
        features = model.encode(frames)
        logits = model.classify(features)
        whole = model(frames)
    assert features.shape == (2, 3, 1280)
    assert logits.verb.shape == (2, 97) and logits.noun.shape == (2, 300)
    assert torch.equal(whole.verb, logits.verb) and torch.equal(whole.noun, logits.noun)


def test_frames_are_encoded_each_on_its_own():
    """What live video relies on: a frame's features do not depend on the clip it stands in."""
    model = light()
    frames = torch.randn(1, 4, 3, 64, 64)
    with torch.inference_mode():
        together = model.encode(frames)[0]
        alone = torch.cat([model.encode(frames[:, [t]])[0] for t in range(4)])
    assert torch.allclose(together, alone, atol=1e-5)


def test_forward_returns_the_same_kind_in_training():
    logits = light(frozen_batchnorm=False).train()(torch.randn(2, 2, 3, 64, 64))
    assert logits.verb.shape == (2, 97) and logits.verb.requires_grad


def test_what_follows_the_encoder_is_exact_under_autocast():
    """As in prediction, so that a model is trained as what it is used as."""
    model = light(joint=True, action_ids=(0, 1001, 2002))
    frames = torch.randn(2, 3, 3, 64, 64)
    with torch.inference_mode():
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits, action = model.recognise(frames)
            features = model.encode(frames)
        exact, exact_action = model.classify_actions(features.float())
    assert features.dtype == torch.bfloat16
    for ours, theirs in zip((*logits, action), (*exact, exact_action), strict=True):
        assert ours.dtype == torch.float32
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)  # bfloat16 would be off by thousandths


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"encoder": "vgg"}, "model.encoder is 'vgg', expected one of resnet50, resnet50_tsm"),
        ({"temporal": "gru"}, "model.temporal is 'gru'"),
        ({"pooling": "max"}, "model.pooling is 'max'"),
        ({"hidden_size": 0}, "model.hidden_size is 0"),
        ({"head_dropout": 1.0}, "model.head_dropout is 1.0"),
    ],
)
def test_wrong_configs(change, message):
    with pytest.raises(InputError, match=message):
        ModelConfig(**change)
