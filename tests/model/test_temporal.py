"""The temporal models against plain arithmetic."""

import numpy as np
import pytest
import torch

from egochef.errors import InputError
from egochef.model.temporal import build_temporal


def build(name, pooling, num_features=5, hidden_size=4, **more):
    torch.manual_seed(0)
    sizes = {"hidden_size": hidden_size, "num_layers": 2, "dropout": 0.3}
    return build_temporal(name, num_features, pooling=pooling, **sizes, **more).eval()


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def one_direction_gru(x, weights, hidden_size):
    """A GRU over (T, D), as in Cho et al. 2014 with torch's gate order r, z, n and its bias inside the reset."""
    w_ih, w_hh, b_ih, b_hh = weights
    h, out = np.zeros(hidden_size), []
    for row in x:
        given, kept = np.split(w_ih @ row + b_ih, 3), np.split(w_hh @ h + b_hh, 3)
        r, z = (sigmoid(given[gate] + kept[gate]) for gate in (0, 1))
        n = np.tanh(given[2] + r * kept[2])
        h = (1 - z) * n + z * h
        out.append(h)
    return np.stack(out)


def one_direction(x, weights, hidden_size):
    """An LSTM over (T, D), as in Hochreiter and Schmidhuber 1997 with torch's gate order i, f, g, o."""
    w_ih, w_hh, b_ih, b_hh = weights
    h = c = np.zeros(hidden_size)
    out = []
    for row in x:
        gates = w_ih @ row + b_ih + w_hh @ h + b_hh
        i, f, g, o = np.split(gates, 4)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        out.append(h)
    return np.stack(out)


def reference_states(model, x):
    """(T, D) -> (T, 2 * hidden_size) by loops."""
    parameters = {name: value.detach().double().numpy() for name, value in model.layers.named_parameters()}
    run = {"lstm": one_direction, "gru": one_direction_gru}[model.cell]
    for layer in range(2):
        directions = []
        for suffix, order in (("", slice(None)), ("_reverse", slice(None, None, -1))):
            names = [f"{layer}.{kind}_l0{suffix}" for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
            states = run(x[order], [parameters[name] for name in names], model.hidden_size)
            directions.append(states[order])
        x = np.concatenate(directions, axis=1)
    return x


@pytest.mark.parametrize("name", ["bilstm", "bigru"])
def test_recurrence_equals_a_loop(name):
    model = build(name, "mean")
    x = torch.randn(2, 7, 5)
    expected = np.stack([reference_states(model, clip.double().numpy()).mean(axis=0) for clip in x])
    assert np.abs(model(x).detach().numpy() - expected).max() < 1e-5


@pytest.mark.parametrize("name", ["bilstm", "bigru"])
def test_last_is_where_each_direction_has_seen_all(name):
    model = build(name, "last")
    x = torch.randn(1, 7, 5)
    states = reference_states(model, x[0].double().numpy())
    expected = np.concatenate([states[-1, :4], states[0, 4:]])
    assert np.abs(model(x)[0].detach().numpy() - expected).max() < 1e-5


def reference_tcn(model, x, *, causal):
    """(T, D) -> (T, E) by loops over frames and taps."""
    p = {name: value.detach().double().numpy() for name, value in model.named_parameters()}

    def norm(rows, name):
        centred = rows - rows.mean(1, keepdims=True)
        return centred / np.sqrt((centred**2).mean(1, keepdims=True) + 1e-5) * p[f"{name}.weight"] + p[f"{name}.bias"]

    x = x @ p["project.weight"].T + p["project.bias"]
    for block in range(len(model.blocks)):
        inner, step = x, 2**block
        for conv in range(2):
            rows = norm(inner, f"blocks.{block}.norms.{conv}")
            weight, bias = (p[f"blocks.{block}.convs.{conv}.{kind}"] for kind in ("weight", "bias"))
            inner = np.tile(bias, (len(rows), 1))
            for frame in range(len(rows)):
                for tap in range(5):
                    source = frame + (tap - (4 if causal else 2)) * step
                    if 0 <= source < len(rows):
                        inner[frame] += weight[:, :, tap] @ rows[source]
            inner = np.maximum(inner, 0)
        x = x + inner
    return norm(x, "norm")


@pytest.mark.parametrize("causal", [False, True])
def test_tcn_equals_loops(causal):
    model = build("tcn", "mean", causal=causal)
    x = torch.randn(2, 11, 5)
    expected = np.stack([reference_tcn(model, clip.double().numpy(), causal=causal) for clip in x])
    assert np.abs(model.states(x).detach().numpy() - expected).max() < 1e-5
    assert np.abs(model(x).detach().numpy() - expected.mean(axis=1)).max() < 1e-5
    last = build("tcn", "last", causal=causal)
    assert np.abs(last(x).detach().numpy() - expected[:, -1]).max() < 1e-5


@pytest.mark.parametrize("causal", [False, True])
def test_what_a_tcn_frame_sees(causal):
    """1 + 8 * (2 ** layers - 1) frames around it; none to come where it is causal."""
    model = build("tcn", "mean", hidden_size=32, causal=causal)
    x = torch.randn(1, 40, 5)
    before, seen = model.states(x)[0], []
    for frame in range(40):
        changed = x.clone()
        changed[0, frame] += 1
        if (model.states(changed)[0, 20] - before[20]).abs().max() > 1e-7:
            seen.append(frame)
    assert seen == (list(range(21)) if causal else list(range(8, 33)))


def test_attention_is_a_weighted_mean():
    model = build("mean", "attention")
    x = torch.randn(3, 7, 5)
    scores = x @ model.attention.weight[0] + model.attention.bias
    weights = torch.exp(scores) / torch.exp(scores).sum(1, keepdim=True)
    assert torch.allclose(model(x), torch.einsum("bt,btd->bd", weights, x), atol=1e-6)


@pytest.mark.parametrize("pooling", ["mean", "attention"])
def test_mean_pooling_cannot_tell_the_order_and_the_others_can(pooling):
    x = torch.randn(2, 7, 5)
    mean = build("mean", pooling)
    assert torch.allclose(mean(x), mean(x.flip(1)), atol=1e-6)
    for name in ("bilstm", "bigru", "tcn"):
        model = build(name, pooling)
        assert not torch.allclose(model(x), model(x.flip(1)), atol=1e-3)


@pytest.mark.parametrize("name", ["bilstm", "bigru", "tcn", "mean"])
@pytest.mark.parametrize("pooling", ["mean", "last", "attention"])
@pytest.mark.parametrize("num_frames", [1, 16, 32])
def test_any_number_of_frames(name, pooling, num_frames):
    model = build(name, pooling)
    assert model(torch.randn(2, num_frames, 5)).shape == (2, model.num_outputs)


def test_unknown_names():
    with pytest.raises(InputError, match="expected one of bilstm, bigru, tcn, mean"):
        build("gru", "mean")
    with pytest.raises(InputError, match="expected one of mean, last, attention"):
        build("bilstm", "max")
