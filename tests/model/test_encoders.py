"""The encoders' table, frozen BatchNorm under training, folded BatchNorm, and tracing."""

import copy

import pytest
import torch
from torch import Tensor, nn

from egochef.errors import InputError
from egochef.model.encoders import ENCODERS, FrozenBatchNorm2d, build_encoder, fold_batchnorm, freeze_batchnorm

NAMES = tuple(ENCODERS)
EACH_ONCE = ("resnet50", "resnet50_tsm", "efficientnet_lite0", "efficientnet_lite0_tsm_online")
"""both architectures, with and without each shift"""


def lively(name: str) -> nn.Module:
    """An encoder whose BatchNorm tensors are all different, as trained ones are."""
    torch.manual_seed(0)
    encoder = build_encoder(name)
    with torch.no_grad():
        for module in encoder.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.uniform_(0.4, 0.8)
                module.bias.normal_(0, 0.1)
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.5, 1.5)
    return encoder


def batchnorm_state(encoder: nn.Module) -> dict[str, Tensor]:
    return {
        f"{name}.{key}": tensor.clone()
        for name, module in encoder.named_modules()
        if isinstance(module, nn.BatchNorm2d)
        for key, tensor in module.state_dict().items()
    }


def train_two_steps(encoder: nn.Module) -> None:
    optimiser = torch.optim.AdamW(encoder.parameters(), lr=1e-2, weight_decay=0.1)
    for _ in range(2):
        encoder.train()
        optimiser.zero_grad()
        encoder(torch.randn(2, 3, 64, 64), 2).square().mean().backward()
        optimiser.step()


def test_table() -> None:
    assert (
        tuple(
            f"{architecture}{shift}"
            for architecture in ("resnet50", "efficientnet_lite0")
            for shift in ("", "_tsm", "_tsm_online")
        )
        == NAMES
    )
    for name, info in ENCODERS.items():
        assert info.name == name
        encoder = build_encoder(name).eval()
        with torch.no_grad():
            assert encoder(torch.randn(3, 3, 64, 96), 3).shape == (3, info.num_features)


def test_unknown_name_is_told() -> None:
    with pytest.raises(InputError, match="'resnet18', expected one of resnet50, resnet50_tsm, .*, efficientnet_lite0"):
        build_encoder("resnet18")


@pytest.mark.parametrize("name", EACH_ONCE)
def test_frozen_batchnorm_stays_bit_for_bit_under_training(name: str) -> None:
    encoder = lively(name)
    freeze_batchnorm(encoder)
    before, convs = batchnorm_state(encoder), {n: t.clone() for n, t in encoder.state_dict().items()}
    train_two_steps(encoder)
    after = batchnorm_state(encoder)
    assert len(before) == 5 * sum(isinstance(module, nn.BatchNorm2d) for module in encoder.modules()) > 200
    assert all(torch.equal(before[key], after[key]) for key in before)
    changed = [key for key, tensor in encoder.state_dict().items() if not torch.equal(tensor, convs[key])]
    assert set(changed) == set(convs) - set(before)  # everything else learns


def test_batchnorm_that_is_not_frozen_moves() -> None:
    encoder = lively("efficientnet_lite0")
    before = batchnorm_state(encoder)
    train_two_steps(encoder)
    after = batchnorm_state(encoder)
    assert not any(torch.equal(before[key], after[key]) for key in before)


def test_frozen_batchnorm_survives_requires_grad_on_its_parent() -> None:
    encoder = lively("efficientnet_lite0")
    freeze_batchnorm(encoder)
    before = batchnorm_state(encoder)
    nn.Sequential(encoder).requires_grad_(True)
    train_two_steps(encoder)
    after = batchnorm_state(encoder)
    assert all(torch.equal(before[key], after[key]) for key in before)


@pytest.mark.parametrize("name", EACH_ONCE)
def test_freezing_keeps_names_and_checkpoints_load_either_way(name: str) -> None:
    free, frozen = lively(name), build_encoder(name)
    freeze_batchnorm(frozen)
    freeze_batchnorm(frozen)  # twice changes nothing
    assert list(free.state_dict()) == list(frozen.state_dict())
    assert [n for n, _ in free.named_parameters()] == [n for n, _ in frozen.named_parameters()]
    assert sum(type(module) is nn.BatchNorm2d for module in frozen.modules()) == 0
    frozen_names = {name for name, parameter in frozen.named_parameters() if not parameter.requires_grad}
    assert frozen_names == set(batchnorm_state(frozen)) & {name for name, _ in frozen.named_parameters()}
    frozen.load_state_dict(free.state_dict())
    again = build_encoder(name)
    again.load_state_dict(frozen.state_dict())
    frames = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        expected = free.eval()(frames, 2)
        close = {"rtol": 1e-4, "atol": 1e-4 * expected.abs().max().item()}  # another kernel may do it
        torch.testing.assert_close(frozen.train()(frames, 2), expected, **close)  # train mode is no different
        torch.testing.assert_close(again.eval()(frames, 2), expected, **close)


def test_frozen_batchnorm_values_and_gradients_are_those_of_eval_mode() -> None:
    torch.manual_seed(0)
    free = nn.BatchNorm2d(5, eps=1e-3).double()
    for tensor in (free.weight, free.bias, free.running_mean, free.running_var):
        tensor.data.uniform_(0.5, 1.5)
    frozen = nn.Sequential(copy.deepcopy(free))
    freeze_batchnorm(frozen)
    assert isinstance(frozen[0], FrozenBatchNorm2d)
    frames, weights = torch.randn(2, 5, 4, 3, dtype=torch.float64), torch.randn(2, 5, 4, 3, dtype=torch.float64)
    gradients, outputs = [], []
    for module in (free.eval(), frozen.train()):
        x = frames.clone().requires_grad_()
        y = module(x)
        (y * weights).sum().backward()
        outputs.append(y.detach())
        gradients.append(x.grad)
    torch.testing.assert_close(*outputs)
    torch.testing.assert_close(*gradients)


def test_frozen_batchnorm_keeps_half_precision() -> None:
    module = nn.Sequential(nn.BatchNorm2d(4))
    freeze_batchnorm(module)
    assert module(torch.randn(1, 4, 2, 2, dtype=torch.bfloat16)).dtype == torch.bfloat16


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("is_frozen", [False, True])
def test_training_bytes_per_frame_is_what_autograd_keeps(name: str, is_frozen: bool) -> None:
    encoder = build_encoder(name)
    if is_frozen:
        freeze_batchnorm(encoder)
    own = {tensor.untyped_storage().data_ptr() for tensor in encoder.state_dict().values()}
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        features = encoder.train()(torch.randn(2, 3, 224, 224), 2)  # kept alive, and with it all that is kept
    assert features.requires_grad
    info = ENCODERS[name]
    expected = info.frozen_training_bytes_per_frame if is_frozen else info.training_bytes_per_frame
    assert sum(kept.values()) / 2 == pytest.approx(expected, rel=0.03)


@pytest.mark.parametrize("name", EACH_ONCE)
@pytest.mark.parametrize("is_frozen", [False, True])
def test_folding_keeps_the_features_and_leaves_the_original_alone(name: str, is_frozen: bool) -> None:
    encoder = lively(name)
    if is_frozen:
        freeze_batchnorm(encoder)
    before = copy.deepcopy(encoder.state_dict())
    folded = fold_batchnorm(encoder)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    assert all(torch.equal(before[key], tensor) for key, tensor in encoder.state_dict().items())
    frames = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        expected = encoder.eval()(frames, 2)
        features = folded(frames, 2)
    torch.testing.assert_close(features, expected, rtol=1e-4, atol=1e-4 * expected.abs().max().item())


@pytest.mark.parametrize("name", [name for name in NAMES if ENCODERS[name].shift == "none"])
def test_a_trace_knows_no_sizes(name: str) -> None:
    encoder = lively(name).eval()
    freeze_batchnorm(encoder)
    with torch.no_grad():
        traced = torch.jit.trace(encoder, torch.randn(1, 3, 64, 64))
        frames = torch.randn(3, 3, 96, 80)
        expected = encoder(frames)
        torch.testing.assert_close(traced(frames), expected, rtol=1e-4, atol=1e-5 * expected.abs().max().item())
    assert "aten::size" not in {node.kind() for node in traced.inlined_graph.nodes()}


@pytest.mark.parametrize("name", EACH_ONCE)
def test_channels_last_and_bfloat16_give_the_same_features(name: str) -> None:
    encoder = lively(name).eval()
    frames = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        expected = encoder(frames, 2)
        encoder.to(memory_format=torch.channels_last)
        scale = expected.abs().max().item()
        torch.testing.assert_close(encoder(frames, 2), expected, rtol=1e-4, atol=1e-5 * scale)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            features = encoder(frames, 2)
    assert torch.nn.functional.cosine_similarity(features.float(), expected).min() > 0.999
