"""The temporal models against plain arithmetic."""

import numpy as np
import pytest
import torch

from egochef.errors import InputError
from egochef.model.temporal import build_temporal


def build(name, pooling, num_features=5, hidden_size=4):
    torch.manual_seed(0)
    return build_temporal(
        name, num_features, hidden_size=hidden_size, num_layers=2, dropout=0.3, pooling=pooling
    ).eval()


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


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
    parameters = {name: value.detach().double().numpy() for name, value in model.lstm.named_parameters()}
    for layer in range(2):
        directions = []
        for suffix, order in (("", slice(None)), ("_reverse", slice(None, None, -1))):
            names = [f"{layer}.{kind}_l0{suffix}" for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
            states = one_direction(x[order], [parameters[name] for name in names], model.hidden_size)
            directions.append(states[order])
        x = np.concatenate(directions, axis=1)
    return x


def test_bilstm_equals_a_loop():
    model = build("bilstm", "mean")
    x = torch.randn(2, 7, 5)
    expected = np.stack([reference_states(model, clip.double().numpy()).mean(axis=0) for clip in x])
    assert np.abs(model(x).detach().numpy() - expected).max() < 1e-5


def test_last_is_where_each_direction_has_seen_all():
    model = build("bilstm", "last")
    x = torch.randn(1, 7, 5)
    states = reference_states(model, x[0].double().numpy())
    expected = np.concatenate([states[-1, :4], states[0, 4:]])
    assert np.abs(model(x)[0].detach().numpy() - expected).max() < 1e-5


def test_attention_is_a_weighted_mean():
    model = build("mean", "attention")
    x = torch.randn(3, 7, 5)
    scores = x @ model.attention.weight[0] + model.attention.bias
    weights = torch.exp(scores) / torch.exp(scores).sum(1, keepdim=True)
    assert torch.allclose(model(x), torch.einsum("bt,btd->bd", weights, x), atol=1e-6)


@pytest.mark.parametrize("pooling", ["mean", "attention"])
def test_mean_pooling_cannot_tell_the_order_and_bilstm_can(pooling):
    x = torch.randn(2, 7, 5)
    mean, bilstm = build("mean", pooling), build("bilstm", pooling)
    assert torch.allclose(mean(x), mean(x.flip(1)), atol=1e-6)
    assert not torch.allclose(bilstm(x), bilstm(x.flip(1)), atol=1e-3)


@pytest.mark.parametrize("name", ["bilstm", "mean"])
@pytest.mark.parametrize("pooling", ["mean", "last", "attention"])
@pytest.mark.parametrize("num_frames", [1, 16, 32])
def test_any_number_of_frames(name, pooling, num_frames):
    model = build(name, pooling)
    assert model(torch.randn(2, num_frames, 5)).shape == (2, model.num_outputs)


def test_unknown_names():
    with pytest.raises(InputError, match="expected one of bilstm, mean"):
        build("gru", "mean")
    with pytest.raises(InputError, match="expected one of mean, last, attention"):
        build("bilstm", "max")
