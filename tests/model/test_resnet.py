"""ResNet-50 against torchvision's name scheme, written out anew, and against a forward pass in plain functions."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from egochef.model.resnet import ResNet50


def batchnorm_shapes(name: str, num_channels: int) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {
        f"{name}.{tensor}": (num_channels,) for tensor in ("weight", "bias", "running_mean", "running_var")
    }
    return {**shapes, f"{name}.num_batches_tracked": ()}


def torchvision_shapes() -> dict[str, tuple[int, ...]]:
    """Every tensor of torchvision's resnet50 state dict, in its order."""
    shapes: dict[str, tuple[int, ...]] = {"conv1.weight": (64, 3, 7, 7), **batchnorm_shapes("bn1", 64)}
    inputs = 64
    for layer, blocks in ((1, 3), (2, 4), (3, 6), (4, 3)):
        inner, outputs = 32 * 2**layer, 128 * 2**layer
        for block in range(blocks):
            here = f"layer{layer}.{block}"
            kernels = {1: (inner, inputs, 1, 1), 2: (inner, inner, 3, 3), 3: (outputs, inner, 1, 1)}
            for number, shape in kernels.items():
                shapes[f"{here}.conv{number}.weight"] = shape
                shapes |= batchnorm_shapes(f"{here}.bn{number}", shape[0])
            if block == 0:
                shapes[f"{here}.downsample.0.weight"] = (outputs, inputs, 1, 1)
                shapes |= batchnorm_shapes(f"{here}.downsample.1", outputs)
            inputs = outputs
    return {**shapes, "fc.weight": (1000, 2048), "fc.bias": (1000,)}


def randomise(module: torch.nn.Module, seed: int) -> None:
    """BatchNorm tensors away from 0 and 1, so that a mix-up shows."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in module.state_dict().items():
            if name.endswith("running_var"):
                tensor.uniform_(0.5, 1.5, generator=generator)
            elif tensor.dim() == 1:
                centre = 0.6 if name.endswith("weight") else 0.0
                tensor.normal_(centre, 0.1, generator=generator)


def shifted(x: Tensor, shift: str) -> Tensor:
    """All of (T, C, H, W) are one clip: an eighth of the channels from the next frame, an eighth from the last."""
    eighth = x.shape[1] // 8
    zeros = torch.zeros_like(x[:1])
    after, before = torch.cat([x[1:], zeros]), torch.cat([zeros, x[:-1]])
    if shift == "past":
        return torch.cat([before[:, :eighth], x[:, eighth:]], dim=1)
    return torch.cat([after[:, :eighth], before[:, eighth : 2 * eighth], x[:, 2 * eighth :]], dim=1)


def reference(state: dict[str, Tensor], frames: Tensor, shift: str = "none") -> Tensor:
    """Features by the paper's table 1, v1.5, in float64: convolutions as products of unfolded patches.

    With a `shift` the frames are a clip, and each bottleneck's branch sees what TSM's code (blockres) lets it.
    """
    state = {name: tensor.double() for name, tensor in state.items()}

    def conv_bn(x: Tensor, conv: str, bn: str, stride: int = 1) -> Tensor:
        kernel = state[f"{conv}.weight"]
        size = kernel.shape[-1]
        patches = F.unfold(x, size, padding=size // 2, stride=stride)  # (B, C*k*k, H'*W')
        y = kernel.flatten(1) @ patches
        y = y.unflatten(2, ((x.shape[2] - 1) // stride + 1, -1))
        mean, var, weight, bias = (
            state[f"{bn}.{tensor}"][:, None, None] for tensor in ("running_mean", "running_var", "weight", "bias")
        )
        return (y - mean) / (var + 1e-5).sqrt() * weight + bias

    x = conv_bn(frames.double(), "conv1", "bn1", stride=2).clamp(min=0)
    x = F.max_pool2d(F.pad(x, (1, 1, 1, 1)), 3, 2)  # zeros are as good as -inf behind a ReLU
    for layer, blocks in enumerate((3, 4, 6, 3), start=1):
        for block in range(blocks):
            here, stride = f"layer{layer}.{block}", 2 if layer > 1 and block == 0 else 1
            y = x if shift == "none" else shifted(x, shift)
            y = conv_bn(y, f"{here}.conv1", f"{here}.bn1").clamp(min=0)
            y = conv_bn(y, f"{here}.conv2", f"{here}.bn2", stride).clamp(min=0)
            y = conv_bn(y, f"{here}.conv3", f"{here}.bn3")
            if block == 0:
                x = conv_bn(x, f"{here}.downsample.0", f"{here}.downsample.1", stride)
            x = (x + y).clamp(min=0)
    return x.flatten(2).mean(2)


def test_names_and_shapes_are_torchvisions() -> None:
    state = ResNet50(num_classes=1000).state_dict()
    assert {name: tuple(tensor.shape) for name, tensor in state.items()} == torchvision_shapes()
    assert list(state) == list(torchvision_shapes())


def test_num_parameters() -> None:
    assert sum(parameter.numel() for parameter in ResNet50(num_classes=1000).parameters()) == 25_557_032
    encoder = ResNet50()
    assert sum(parameter.numel() for parameter in encoder.parameters()) == 25_557_032 - 2048 * 1000 - 1000
    assert not [name for name in encoder.state_dict() if name.startswith("fc")]


@pytest.mark.parametrize("size", [(64, 64), (97, 75)])
def test_forward_matches_the_reference(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    encoder = ResNet50().eval()
    randomise(encoder, seed=1)
    frames = torch.randn(2, 3, *size)
    with torch.no_grad():
        features = encoder(frames)
    expected = reference(encoder.state_dict(), frames)
    assert features.shape == (2, 2048)
    assert expected.std() > 0.05
    torch.testing.assert_close(features.double(), expected, rtol=1e-5, atol=1e-5 * expected.abs().max().item())


@pytest.mark.parametrize("shift", ["both", "past"])
def test_shifted_forward_matches_the_reference(shift: str) -> None:
    torch.manual_seed(0)
    encoder = ResNet50(shift=shift).eval()
    randomise(encoder, seed=1)
    frames = torch.randn(5, 3, 64, 64)
    with torch.no_grad():
        features, plain = encoder(frames, 5), encoder(frames, 1)
    expected = reference(encoder.state_dict(), frames, shift)
    scale = expected.abs().max().item()
    torch.testing.assert_close(features.double(), expected, rtol=1e-5, atol=1e-5 * scale)
    assert (plain - features).abs().max() > 0.05 * scale


def test_classifier_is_linear_on_the_features() -> None:
    torch.manual_seed(0)
    whole = ResNet50(num_classes=7).eval()
    encoder = ResNet50().eval()
    encoder.load_state_dict({name: tensor for name, tensor in whole.state_dict().items() if not name.startswith("fc")})
    frames = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(whole(frames), encoder(frames) @ whole.fc.weight.T + whole.fc.bias)


def test_random_weights_are_torchvisions_kind_and_follow_the_seed() -> None:
    torch.manual_seed(3)
    first = ResNet50().state_dict()
    torch.manual_seed(3)
    second = ResNet50().state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert first["layer2.0.conv2.weight"].std().item() == pytest.approx((2 / (9 * 128)) ** 0.5, rel=0.02)
    assert first["layer4.2.conv1.weight"].std().item() == pytest.approx((2 / 512) ** 0.5, rel=0.02)
    assert first["layer4.2.bn3.weight"].eq(1).all()  # zero-init-residual is off
