"""Temporal models: frame features (B, T, D) in, one vector a clip (B, E) out."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from egochef.errors import InputError

TEMPORAL_MODELS = ("bilstm", "bigru", "tcn", "mean")
POOLINGS = ("mean", "last", "attention")
MAX_LAYERS = 12
"""so many blocks of a TCN see 32,761 frames, and pad each clip by as many"""


class BiRNN(nn.Module):
    """Bidirectional recurrence over the frames, then pooling. (B, T, D) -> (B, 2 * hidden_size).

    Each layer is a network of its own with a plain Dropout between: cuDNN's own dropout keeps a random state that no
    seed reaches, so that no run could be repeated.
    """

    def __init__(
        self,
        cell: type[nn.LSTM] | type[nn.GRU],
        num_features: int,
        hidden_size: int,
        num_layers: int,
        dropout: float,
        pooling: str,
    ):
        super().__init__()
        sizes = [num_features] + [2 * hidden_size] * (num_layers - 1)
        layers = nn.ModuleList(cell(size, hidden_size, batch_first=True, bidirectional=True) for size in sizes)
        self.cell = cell.__name__.lower()
        """lstm or gru; the layers' tensors are named so"""
        self.add_module(self.cell, layers)
        self.dropout = nn.Dropout(dropout)  # between layers
        self.num_outputs = 2 * hidden_size
        self.hidden_size = hidden_size
        self.pooling = pooling
        self.attention = nn.Linear(self.num_outputs, 1) if pooling == "attention" else None

    def forward(self, features: Tensor) -> Tensor:
        states = features
        for number, layer in enumerate(self.layers):
            states, _ = layer(self.dropout(states) if number else states)  # (B, T, 2 * hidden_size)
        if self.pooling == "last":  # each direction where it has seen the whole clip
            forward, backward = states[:, -1, : self.hidden_size], states[:, 0, self.hidden_size :]
            return torch.cat([forward, backward], dim=1)  # (B, 2 * hidden_size)
        return pool(states, self.attention)  # (B, 2 * hidden_size)

    @property
    def layers(self) -> nn.ModuleList:
        layers = self.get_submodule(self.cell)
        assert isinstance(layers, nn.ModuleList)
        return layers


class TCN(nn.Module):
    """Temporal convolutional network over the frames, then pooling: no recurrence. (B, T, D) -> (B, hidden_size).

    After Bai et al. 2018 (arXiv:1803.01271): residual blocks of two dilated convolutions, the dilation doubling from
    block to block. LayerNorm stands where they have weight normalisation. For phones, whose Neural Engine
    has no LSTM (docs/ios.md).
    """

    def __init__(
        self, num_features: int, hidden_size: int, num_layers: int, dropout: float, pooling: str, causal: bool
    ):
        """
        Args:
            hidden_size: channels.
            num_layers: blocks; they see 1 + 8 * (2 ** num_layers - 1) frames.
            causal: a frame's state depends on no later frame.
        """
        super().__init__()
        self.project = nn.Linear(num_features, hidden_size)
        self.blocks = nn.ModuleList(_TCNBlock(hidden_size, 2**number, dropout, causal) for number in range(num_layers))
        self.norm = nn.LayerNorm(hidden_size)
        self.num_outputs = hidden_size
        self.pooling = pooling
        self.attention = nn.Linear(hidden_size, 1) if pooling == "attention" else None

    def forward(self, features: Tensor) -> Tensor:
        states = self.states(features)
        if self.pooling == "last":
            return states[:, -1]  # (B, hidden_size)
        return pool(states, self.attention)  # (B, hidden_size)

    def states(self, features: Tensor) -> Tensor:
        """(B, T, D) -> (B, T, hidden_size), before the pooling."""
        states = self.project(features)
        for block in self.blocks:
            states = block(states)
        return self.norm(states)


class _TCNBlock(nn.Module):
    """Two dilated convolutions of five frames beside a shortcut. (B, T, E) -> (B, T, E)."""

    def __init__(self, num_channels: int, dilation: int, dropout: float, causal: bool):
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(num_channels) for _ in range(2))
        self.convs = nn.ModuleList(nn.Conv1d(num_channels, num_channels, 5, dilation=dilation) for _ in range(2))
        self.dropout = nn.Dropout(dropout)
        self.padding = (4 * dilation, 0) if causal else (2 * dilation, 2 * dilation)

    def forward(self, states: Tensor) -> Tensor:
        x = states
        for norm, conv in zip(self.norms, self.convs, strict=True):
            x = F.pad(norm(x).transpose(1, 2), self.padding)  # (B, E, T + 4 * dilation)
            x = self.dropout(F.relu(conv(x)).transpose(1, 2))  # (B, T, E)
        return states + x


class MeanPool(nn.Module):
    """No temporal model: the mean (or last frame, or attention) of the frame features. (B, T, D) -> (B, D).

    It cannot tell the order of the frames (but for `last`); it is the baseline that a temporal model has to beat.
    """

    def __init__(self, num_features: int, pooling: str):
        super().__init__()
        self.num_outputs = num_features
        self.pooling = pooling
        self.attention = nn.Linear(num_features, 1) if pooling == "attention" else None

    def forward(self, features: Tensor) -> Tensor:
        if self.pooling == "last":
            return features[:, -1]  # (B, D)
        return pool(features, self.attention)  # (B, D)


def pool(states: Tensor, attention: nn.Linear | None) -> Tensor:
    """(B, T, E) -> (B, E): the mean over time, weighted by a softmax of `attention`'s scores where there is one."""
    if attention is None:
        return states.mean(dim=1)
    weights = attention(states).softmax(dim=1)  # (B, T, 1)
    return (weights * states).sum(dim=1)


def build_temporal(
    name: str,
    num_features: int,
    *,
    hidden_size: int,
    num_layers: int,
    dropout: float,
    pooling: str,
    causal: bool = False,
) -> BiRNN | TCN | MeanPool:
    """A temporal model by name; its output size is `.num_outputs`."""
    if pooling not in POOLINGS:
        raise InputError(f"pooling is {pooling!r}, expected one of {', '.join(POOLINGS)}")
    if name in ("bilstm", "bigru"):
        cell = nn.LSTM if name == "bilstm" else nn.GRU
        return BiRNN(cell, num_features, hidden_size, num_layers, dropout, pooling)
    if name == "tcn":
        return TCN(num_features, hidden_size, num_layers, dropout, pooling, causal)
    if name == "mean":
        return MeanPool(num_features, pooling)
    raise InputError(f"temporal model is {name!r}, expected one of {', '.join(TEMPORAL_MODELS)}")
