"""The recogniser: frame encoder + temporal model + verb and noun heads.

In: normalised frames (B, T, 3, H, W). Out: `Logits`. The seam in the middle is public: `encode` gives features
(B, T, D), `classify` takes them, so that streams encode each frame once and heads train on kept features.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

from torch import Tensor, nn

from egochef.errors import InputError
from egochef.model.encoders import ENCODERS, build_encoder, freeze_batchnorm
from egochef.model.joint import JointHead
from egochef.model.temporal import MAX_LAYERS, POOLINGS, TEMPORAL_MODELS, build_temporal
from egochef.records import check_bounds, shown
from egochef.runtime import full_precision
from egochef.taxonomy import ACTION_BASE, MAX_NOUNS, MAX_VERBS

MAX_ACTIONS = 50_000
"""of a joint head"""


@dataclass(frozen=True)
class ModelConfig:
    """What a recogniser is made of; the defaults are the 16- and 32-frame baseline."""

    encoder: str = "resnet50"
    """resnet50 (2048 features) or efficientnet_lite0 (1280); with _tsm behind it frames exchange channels with those
    before and after, with _tsm_online with the one before alone"""
    temporal: str = "bilstm"
    """bilstm, bigru, tcn (temporal convolutions: no recurrence), or mean: no temporal model"""
    hidden_size: int = 512
    """units per direction of the recurrence (1024 is the 74.69 M model), or channels of the TCN"""
    num_layers: int = 2
    """layers of the recurrence, or blocks of the TCN"""
    temporal_dropout: float = 0.3
    """between layers of the recurrence, in TCN blocks"""
    causal: bool = False
    """the TCN looks at no later frame"""
    pooling: str = "mean"
    """over time, after the temporal model: mean, last or attention"""
    head_dropout: float = 0.5
    """before the verb and noun heads"""
    num_verbs: int = 97
    num_nouns: int = 300
    joint: bool = False
    """a third head tells actions apart, pairs of verb and noun; verb and noun scores are its sums"""
    action_ids: tuple[int, ...] = ()
    """verb * 1000 + noun of the actions that a joint head knows, rising: those to learn from; found by training"""
    frozen_batchnorm: bool = True
    """statistics and affine of the encoder's BatchNorm stay as loaded; only right under pretrained weights"""

    def __post_init__(self) -> None:
        for name, options in (
            ("encoder", tuple(ENCODERS)),
            ("temporal", TEMPORAL_MODELS),
            ("pooling", POOLINGS),
        ):
            if getattr(self, name) not in options:
                raise InputError(f"model.{name} is {shown(getattr(self, name))}, expected one of {', '.join(options)}")
        check_bounds(
            self,
            "model.",
            hidden_size=(1, 4096),
            num_layers=(1, MAX_LAYERS),
            temporal_dropout=(0.0, 0.99),
            head_dropout=(0.0, 0.99),
            num_verbs=(1, MAX_VERBS),
            num_nouns=(1, MAX_NOUNS),
            action_ids=(0, MAX_VERBS * ACTION_BASE - 1),
        )
        if len(self.action_ids) > MAX_ACTIONS:
            raise InputError(f"model.action_ids are {len(self.action_ids)}, expected at most {MAX_ACTIONS}")
        if self.action_ids and not self.joint:
            raise InputError("model.action_ids are a joint head's, and model.joint is false")
        if any(b <= a for a, b in pairwise(self.action_ids)):
            raise InputError("model.action_ids must rise")
        for action_id in self.action_ids:
            verb, noun = divmod(action_id, ACTION_BASE)
            if not (0 <= verb < self.num_verbs and noun < self.num_nouns):
                raise InputError(
                    f"model.action_ids holds {action_id}, expected verb * {ACTION_BASE} + noun of {self.num_verbs} "
                    f"verbs and {self.num_nouns} nouns"
                )
        if self.causal and self.temporal != "tcn":
            raise InputError(f"model.causal with temporal model {self.temporal!r}: only tcn can be causal")

    @property
    def shift(self) -> str:
        """What the encoder sees of other frames, of `model.shift.SHIFTS`."""
        return ENCODERS[self.encoder].shift


class Logits(NamedTuple):
    """Unnormalised scores of a batch of clips."""

    verb: Tensor
    """(B, V)"""
    noun: Tensor
    """(B, N)"""


class Recogniser(nn.Module):
    """Verb and noun logits of clips. Weights start at random, under the seed of `torch.manual_seed`."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.config = config
        num_features = ENCODERS[config.encoder].num_features
        self.encoder = build_encoder(config.encoder)
        if config.frozen_batchnorm:
            freeze_batchnorm(self.encoder)
        self.temporal = build_temporal(
            config.temporal,
            num_features,
            hidden_size=config.hidden_size,
            num_layers=config.num_layers,
            dropout=config.temporal_dropout,
            pooling=config.pooling,
            causal=config.causal,
        )
        self.dropout = nn.Dropout(config.head_dropout)
        self.verb_head = nn.Linear(self.temporal.num_outputs, config.num_verbs)
        self.noun_head = nn.Linear(self.temporal.num_outputs, config.num_nouns)
        self.joint_head = JointHead(self.temporal.num_outputs, config) if config.joint else None

    def encode(self, frames: Tensor) -> Tensor:
        """Normalised frames (B, T, 3, H, W) -> features (B, T, D)."""
        return encode_frames(self.encoder, frames)

    def classify(self, features: Tensor) -> Logits:
        """Features (B, T, D) -> logits; T need not be the T of training."""
        return self.classify_actions(features)[0]

    def classify_actions(self, features: Tensor) -> tuple[Logits, Tensor | None]:
        """Features (B, T, D) -> logits, and those of the joint head's actions (B, A), None without one."""
        clip = self.dropout(self.temporal(features))  # (B, E)
        verb, noun = self.verb_head(clip), self.noun_head(clip)
        if self.joint_head is None:
            return Logits(verb, noun), None
        action = self.joint_head(clip, verb, noun)  # (B, A)
        return Logits(*self.joint_head.marginals(action)), action

    def forward(self, frames: Tensor) -> Logits:
        """Normalised frames (B, T, 3, H, W) -> logits."""
        return self.classify(self.encode(frames))

    def recognise(self, frames: Tensor) -> tuple[Logits, Tensor | None]:
        """As `forward`, and the joint head's logits (B, A), None without one.

        Under autocast the encoder alone runs in a shorter type; what follows, the small part, is in float32.
        """
        features = self.encode(frames)
        with full_precision(features.device):
            return self.classify_actions(features.float())


def encode_frames(encoder: nn.Module, frames: Tensor) -> Tensor:
    """Normalised frames (B, T, 3, H, W) -> features (B, T, D); only a temporal shift mixes the frames of a clip."""
    features = encoder(frames.flatten(0, 1), frames.shape[1])  # (B*T, D)
    return features.unflatten(0, frames.shape[:2])  # (B, T, D)


def count_parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
