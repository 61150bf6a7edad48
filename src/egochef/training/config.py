"""Everything that decides how a training run goes; saved as the run's `config.json`."""

import dataclasses
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from egochef.clip import ClipSpec
from egochef.data.annotations import SPLIT_FILES
from egochef.data.transforms import Augment
from egochef.errors import InputError
from egochef.inference.features import ENCODER_FILE, FeaturesAbout
from egochef.model.encoders import ENCODERS
from egochef.model.recogniser import ModelConfig
from egochef.model.weights_files import read_weights
from egochef.records import from_dict, to_dict
from egochef.runtime import PRECISIONS


@dataclass(frozen=True)
class Speed:
    """How a step is computed. Results are the same but for rounding."""

    channels_last: bool | None = None
    """the encoder's memory layout; None: on, but for MPS"""
    compile: bool = False
    """torch.compile of the encoder: a minute at the start, less time a step"""
    fused: bool | None = None
    """the optimiser's update in one kernel; None: on CUDA and CPUs"""
    recompute: bool = False
    """gradient checkpointing: keep only what goes into each block of the encoder; less memory, more time"""


@dataclass(frozen=True)
class Phase:
    """The first part of a progressive run: smaller pictures or fewer frames, which cost less."""

    until: float
    """share of the run's epochs at which it ends, above 0 and below 1"""
    image_size: int
    """height and width of the crop, pixels"""
    num_frames: int
    """T"""

    def __post_init__(self) -> None:
        if not 0 < self.until < 1:
            raise InputError(f"progressive: a phase until {self.until} of the epochs, expected above 0 and below 1")
        if self.image_size < 32 or self.num_frames < 1:
            raise InputError(
                f"progressive: {self.num_frames} frames of {self.image_size} px, expected at least 1 of 32 px"
            )


@dataclass(frozen=True)
class TrainConfig:
    """A training run; the defaults are the 16-frame baseline's. Recipes are named values of this."""

    recipe: str = "frames16"
    """where the values came from; a label only"""
    model: ModelConfig = field(default_factory=ModelConfig)
    clip: ClipSpec = field(default_factory=ClipSpec)
    augment: Augment = field(default_factory=Augment)
    init: str = "imagenet"
    """what the encoder starts from: imagenet, none, or a weights file"""
    init_partial: bool = False
    """take what fits of a weights file that lacks some of the encoder; the rest starts at random"""
    train_on: tuple[str, ...] = ("train",)
    """splits to learn from; with validation among them, nothing is left to stop early by"""
    seed: int = 0
    epochs: int = 50
    """at most; `patience` may stop the run before"""
    batch_size: int = 100
    """clips an optimiser step, over all devices and accumulation"""
    micro_batch: int | None = None
    """clips the device takes at once; None: found from its free memory"""
    lr: float = 1.5e-4
    """peak learning rate of AdamW"""
    weight_decay: float = 1e-4
    """on matrices and kernels, not on biases and norms"""
    label_smoothing: float = 0.1
    balance: float = 0.0
    """segments are drawn with chances by this power of how rare their verb and noun are: 0 takes each once an epoch, 1
    draws all classes about equally often"""
    logit_adjustment: float = 0.0
    """so many times the logarithm of a class's share of the training set is added to its logit in the loss (Menon et
    al. 2021, arXiv:2007.07314), so that rare classes need not overcome it; 1 aims at balanced accuracy"""
    teacher: str = ""
    """file of scores of the training segments (`egochef evaluate --split train`) that the model learns from too"""
    teacher_weight: float = 0.5
    """share of the teacher's probabilities in the loss, the rest is the labels' (Hinton et al. 2015, 1503.02531)"""
    layer_decay: float = 1.0
    """learning rate of each stage of the encoder over that of the stage behind it; what follows has the whole"""
    held_out: tuple[str, ...] = ()
    """participants whose training segments are not learned from, to tune by them (`egochef tune`)"""
    num_views: int = 1
    """clips a segment whose scores are averaged when it is judged; kept in the checkpoint"""
    warmup_epochs: float = 3.0
    """linear from 0 to `lr`; then a cosine to 0 at the last epoch"""
    max_grad_norm: float = 10.0
    """gradients are scaled down to this norm"""
    patience: int = 10
    """epochs without a better validation action accuracy before the run stops"""
    feature_views: int = 0
    """0: train from pictures. N: freeze the encoder, keep its features of N jittered views a segment, and train what
    follows from these"""
    frozen_encoder: bool = False
    """train from pictures, but only what follows the encoder"""
    frozen_stages: int = 0
    """so many of the encoder's first stages stay as loaded; ResNet-50 has 5, EfficientNet-Lite0 9"""
    progressive: tuple[Phase, ...] = ()
    """phases before the one with the clips of `clip`, in their order; evaluation always sees those of `clip`"""
    ema_decay: float = 0.0
    """above 0: an exponential moving average of the weights is what gets evaluated and kept as best"""
    precision: str = "auto"
    """auto, fp32, bf16 or fp16"""
    speed: Speed = field(default_factory=Speed)
    save_minutes: float = 10.0
    """the state is saved as often, and at the end of each epoch"""
    keep: int = 2
    """states on disk; more of them survive more damage"""
    trackers: tuple[str, ...] = ()
    """who gets the log's lines as well: tensorboard, wandb"""
    num_workers: int | None = None
    """decoding processes; None: found from the processors there are"""
    participants: tuple[str, ...] = ()
    """whose segments there are, for who has only some videos; empty: everybody's"""
    max_train_segments: int | None = None
    """None: all; otherwise that many, evenly spread"""
    max_validation_segments: int | None = None
    """None: all; otherwise that many, evenly spread"""

    def __post_init__(self) -> None:
        for name in (
            "epochs",
            "batch_size",
            "patience",
            "micro_batch",
            "max_train_segments",
            "max_validation_segments",
            "keep",
            "num_views",
        ):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"{name} is {value}, expected at least 1")
        for name in ("weight_decay", "warmup_epochs", "feature_views", "seed", "num_workers", "frozen_stages"):
            value = getattr(self, name)
            if value is not None and not value >= 0:
                raise InputError(f"{name} is {value}, expected 0 or more")
        if not 0 < self.lr < 1:
            raise InputError(f"lr is {self.lr}, expected more than 0 and less than 1")
        if not 0 <= self.label_smoothing < 1:
            raise InputError(f"label_smoothing is {self.label_smoothing}, expected 0 to below 1")
        if not 0 <= self.balance <= 1 or not self.logit_adjustment >= 0:
            raise InputError(
                f"balance {self.balance}, expected 0 to 1; logit_adjustment {self.logit_adjustment}, expected 0 or more"
            )
        if not 0 < self.teacher_weight <= 1:
            raise InputError(f"teacher_weight is {self.teacher_weight}, expected more than 0 and at most 1")
        if not 0 < self.layer_decay <= 1:
            raise InputError(f"layer_decay is {self.layer_decay}, expected more than 0 and at most 1")
        if not self.max_grad_norm > 0:
            raise InputError(f"max_grad_norm is {self.max_grad_norm}, expected more than 0")
        if not 0 <= self.ema_decay < 1:
            raise InputError(f"ema_decay is {self.ema_decay}, expected 0 to below 1")
        if not self.save_minutes > 0:
            raise InputError(f"save_minutes is {self.save_minutes}, expected more than 0")
        if self.precision not in PRECISIONS:
            raise InputError(f"precision is {self.precision!r}, expected one of {', '.join(PRECISIONS)}")
        wrong = [split for split in self.train_on if split not in SPLIT_FILES or split == "test"]
        if wrong or not self.train_on or len(set(self.train_on)) != len(self.train_on):
            raise InputError(f"train_on is {', '.join(self.train_on)!r}, expected train, or train validation")
        if self.feature_views and self.frozen_encoder:
            raise InputError(
                f"feature_views is {self.feature_views} and frozen_encoder is true: kept features have the encoder "
                "frozen already, frozen_encoder is for training from pictures"
            )
        if self.feature_views and self.num_views > 1:
            raise InputError(f"num_views is {self.num_views}, but features are kept of one evaluation clip a segment")
        if self.feature_views and self.augment.cutmix_alpha:
            raise InputError(
                f"feature_views is {self.feature_views} and augment.cutmix_alpha is {self.augment.cutmix_alpha}, "
                "expected 0: CutMix mixes pictures, kept features have none"
            )
        if self.init == "none" and self.encoder_is_fixed:
            raise InputError(
                "an encoder that starts at random has to be trained: --init none needs feature_views 0 and "
                "frozen_encoder false"
            )
        self._check_phases()
        if self.frozen_stages and (self.encoder_is_fixed or self.init == "none"):
            raise InputError(
                f"frozen_stages is {self.frozen_stages}: it needs pretrained weights, and an encoder that is trained "
                "behind them (not --init none, --frozen-encoder or kept features)"
            )
        if self.speed.recompute and not self.model.frozen_batchnorm:
            raise InputError("speed.recompute would move BatchNorm's statistics twice, it needs frozen_batchnorm")
        if self.init == "none" and self.model.frozen_batchnorm:
            raise InputError("an encoder that starts at random needs model.frozen_batchnorm false")

    def _check_phases(self) -> None:
        if self.progressive and self.feature_views:
            raise InputError("progressive is for training from pictures, feature_views keeps features of one size")
        ends = [phase.until for phase in self.progressive]
        if ends != sorted(set(ends)):
            raise InputError(f"progressive: phases end at {ends} of the epochs, expected each after the one before")
        for phase in self.progressive:
            if phase.num_frames > self.clip.grid.min_frames:
                raise InputError(
                    f"progressive: {phase.num_frames} frames, but a segment has only {self.clip.grid.min_frames} "
                    "candidate times for sure"
                )

    def clip_of(self, epoch: int) -> ClipSpec:
        """The clips that an epoch (from 1) learns from."""
        for phase in self.progressive:
            if epoch <= round(phase.until * self.epochs):
                size = phase.image_size
                resize_size = max(self.clip.resize_size, size)
                return dataclasses.replace(
                    self.clip, image_size=size, resize_size=resize_size, num_frames=phase.num_frames
                )
        return self.clip

    @property
    def encoder_is_fixed(self) -> bool:
        """Whether only what follows the encoder is trained."""
        return self.feature_views > 0 or self.frozen_encoder


def with_init(config: TrainConfig, init: str) -> TrainConfig:
    """Start from other weights: BatchNorm is frozen under pretrained weights and free at random.

    Frames are normalised as they were when a file's weights were trained; their number and size stay the config's.

    Raises:
        InputError: a file that cannot be read.
    """
    model = dataclasses.replace(config.model, frozen_batchnorm=init != "none")
    info = ENCODERS[model.encoder]
    clip = dataclasses.replace(config.clip, mean=info.mean, std=info.std)
    if init not in ("imagenet", "none") and (preprocessing := read_weights(Path(init)).preprocessing):
        clip = preprocessing.of_clips(clip)
    return dataclasses.replace(config, init=init, model=model, clip=clip)


def with_encoder(config: TrainConfig, encoder: str) -> TrainConfig:
    """Use another encoder, with the normalisation that the weights it starts from want.

    Raises:
        InputError: there is no such encoder; names those there are.
    """
    if encoder not in ENCODERS:
        raise InputError(f"unknown encoder {encoder!r}, expected one of {', '.join(ENCODERS)}")
    info = ENCODERS[encoder]
    clip = dataclasses.replace(config.clip, mean=info.mean, std=info.std)
    config = dataclasses.replace(config, model=dataclasses.replace(config.model, encoder=encoder), clip=clip)
    return config if config.init in ("imagenet", "none") else with_init(config, config.init)


def with_num_frames(config: TrainConfig, num_frames: int) -> TrainConfig:
    """Clips of so many frames; segments get as many candidate times if they had fewer."""
    grid = dataclasses.replace(config.clip.grid, min_frames=max(num_frames, config.clip.grid.min_frames))
    return dataclasses.replace(config, clip=dataclasses.replace(config.clip, num_frames=num_frames, grid=grid))


def with_features(config: TrainConfig, root: Path, about: FeaturesAbout) -> TrainConfig:
    """Train from a features folder: what was decided when it was made is as it was."""
    spec = about.spec
    untouched = spec.initial_weights == "imagenet" and not spec.encoder_trained_on
    return dataclasses.replace(
        config,
        model=dataclasses.replace(config.model, encoder=spec.encoder, frozen_batchnorm=True),
        clip=spec.clip,
        augment=dataclasses.replace(spec.augment, mixup_alpha=config.augment.mixup_alpha),
        init="imagenet" if untouched else str(root / ENCODER_FILE),
        feature_views=about.num_views,
        frozen_encoder=False,
    )


def debug(config: TrainConfig) -> TrainConfig:
    """The same run cut down to minutes: few segments, two epochs, small batches. Its scores mean nothing."""
    return dataclasses.replace(
        config,
        epochs=min(config.epochs, 2),
        warmup_epochs=min(config.warmup_epochs, 0.5),
        batch_size=min(config.batch_size, 8),
        feature_views=min(config.feature_views, 1),
        max_train_segments=min(config.max_train_segments or 32, 32),
        max_validation_segments=min(config.max_validation_segments or 16, 16),
    )


def load_config(path: Path) -> TrainConfig:
    """Read a saved `config.json`.

    Raises:
        InputError: no such file, not JSON, or a field that is unknown or wrong.
    """
    try:
        value = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: not a readable config.json ({error})") from None
    return from_dict(TrainConfig, value, str(path))


def set_fields(config: TrainConfig, settings: Sequence[str]) -> TrainConfig:
    """Change fields by name.

    Args:
        settings: such as `model.joint=true`, `augment.mixup_alpha=0.2`, `held_out=P01,P02`: values as in config.json,
            texts without quotes, several of them with commas.

    Raises:
        InputError: a field that does not exist, or a value that is not one of its; names both.
    """
    whole: dict[str, Callable[[TrainConfig, str], TrainConfig]] = {  # other fields hang on these
        "model.encoder": with_encoder,
        "init": with_init,
        "clip.num_frames": lambda before, text: with_num_frames(before, int(text)),
    }
    others = []
    for setting in settings:
        name, _, text = setting.partition("=")
        if name not in whole:
            others.append(setting)
        elif name == "clip.num_frames" and not text.isdecimal():
            raise InputError(f"--set {setting}: expected a whole number")
        else:
            config = whole[name](config, text)
    values = to_dict(config)
    for setting in others:
        name, equals, text = setting.partition("=")
        *path, last = name.split(".")
        where: Any = values
        for part in path:
            where = where.get(part) if isinstance(where, dict) else None
        if not equals or not isinstance(where, dict) or last not in where or isinstance(where[last], dict):
            fields = ", ".join(where) if isinstance(where, dict) else ", ".join(values)
            raise InputError(f"--set {setting}: expected NAME=VALUE with a field of the config: {fields}")
        if isinstance(where[last], tuple) and not text.startswith("["):
            where[last] = [_parsed(each) for each in text.split(",") if each]
        else:
            where[last] = _parsed(text)
    return from_dict(TrainConfig, values, "--set")


def _parsed(text: str) -> Any:
    """A JSON value; what is none is a text."""
    try:
        return json.loads(text)
    except ValueError:
        return text
