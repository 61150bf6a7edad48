"""Everything that decides how a training run goes; saved as the run's `config.json`."""

import dataclasses
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from egochef.clip import FRAMES, SIZES, ClipSpec
from egochef.data.annotations import SPLIT_FILES
from egochef.data.transforms import Augment
from egochef.errors import InputError
from egochef.inference.features import ENCODER_FILE, FeaturesAbout
from egochef.model.checkpoint import MAX_VIEWS
from egochef.model.encoders import ENCODERS
from egochef.model.recogniser import ModelConfig
from egochef.model.weights_files import read_weights
from egochef.records import check_bounds, from_dict, parse_json, read_json, shown, to_dict
from egochef.runtime import PRECISIONS

log = logging.getLogger(__name__)


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
    """height and width of the crop, pixels; the size before it follows in the ratio of the run's clips"""
    num_frames: int
    """T"""

    def __post_init__(self) -> None:
        check_bounds(
            self, "progressive: a phase's ", until=(0.001, 0.999), image_size=(32, SIZES[1]), num_frames=FRAMES
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
    """file of scores of the training segments (`egochef evaluate --split train --seen`) to learn from too"""
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
        check_bounds(
            self,
            seed=(0, 2**32 - 1),
            epochs=(1, 100_000),
            batch_size=(1, 100_000),
            micro_batch=(1, 100_000),
            lr=(1e-12, 1.0),
            weight_decay=(0.0, 100.0),
            label_smoothing=(0.0, 0.99),
            balance=(0.0, 1.0),
            logit_adjustment=(0.0, 100.0),
            teacher_weight=(1e-6, 1.0),
            layer_decay=(1e-3, 1.0),
            num_views=(1, MAX_VIEWS),
            warmup_epochs=(0.0, 100_000.0),
            max_grad_norm=(1e-9, 1e9),
            patience=(1, 1_000_000),
            feature_views=(0, MAX_VIEWS),
            frozen_stages=(0, 100),
            ema_decay=(0.0, 0.999999),
            save_minutes=(1e-9, 1e9),
            keep=(1, 10_000),
            num_workers=(0, 1024),
            max_train_segments=(1, 10**9),
            max_validation_segments=(1, 10**9),
        )
        if self.precision not in PRECISIONS:
            raise InputError(f"precision is {shown(self.precision)}, expected one of {', '.join(PRECISIONS)}")
        wrong = [split for split in self.train_on if split not in SPLIT_FILES or split == "test"]
        if wrong or not self.train_on or len(set(self.train_on)) != len(self.train_on):
            raise InputError(f"train_on is {shown(', '.join(self.train_on))}, expected train, or train validation")
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
        if len(ends) > 100:
            raise InputError(f"progressive: {len(ends)} phases, expected at most 100")
        if ends != sorted(set(ends)):
            raise InputError(
                f"progressive: phases end at {shown(ends)} of the epochs, expected each after the one before"
            )
        for phase in self.progressive:
            if phase.num_frames > self.clip.grid.min_frames:
                raise InputError(
                    f"progressive: {phase.num_frames} frames, but a segment has only {self.clip.grid.min_frames} "
                    "candidate times for sure"
                )
            self._clip_in(phase)  # raises where there are no such clips

    def clip_of(self, epoch: int) -> ClipSpec:
        """The clips that an epoch (from 1) learns from."""
        for phase in self.progressive:
            if epoch <= round(phase.until * self.epochs):
                return self._clip_in(phase)
        return self.clip

    def _clip_in(self, phase: Phase) -> ClipSpec:
        return dataclasses.replace(self.clip, num_frames=phase.num_frames).with_image_size(phase.image_size)

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
        raise InputError(f"unknown encoder {shown(encoder)}, expected one of {', '.join(ENCODERS)}")
    info = ENCODERS[encoder]
    clip = dataclasses.replace(config.clip, mean=info.mean, std=info.std)
    config = dataclasses.replace(config, model=dataclasses.replace(config.model, encoder=encoder), clip=clip)
    return config if config.init in ("imagenet", "none") else with_init(config, config.init)


def with_num_frames(config: TrainConfig, num_frames: int) -> TrainConfig:
    """Clips of so many frames; segments get as many candidate times if they had fewer."""
    grid = dataclasses.replace(config.clip.grid, min_frames=max(num_frames, config.clip.grid.min_frames))
    return dataclasses.replace(config, clip=dataclasses.replace(config.clip, num_frames=num_frames, grid=grid))


def with_image_size(config: TrainConfig, image_size: int) -> TrainConfig:
    """Clips of another size; the size before the centre crop keeps its ratio to it."""
    return dataclasses.replace(config, clip=config.clip.with_image_size(image_size))


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
        value = read_json(path)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: not a readable config.json ({error})") from None
    return from_dict(TrainConfig, value, str(path))


def set_fields(config: TrainConfig, settings: Sequence[str]) -> TrainConfig:
    """Change fields by name.

    Args:
        settings: such as `model.joint=true`, `augment.mixup_alpha=0.2`, `held_out=P01,P02`: values as in config.json,
            texts without quotes, several of them with commas. What hangs on a field follows it unless it is set too:
            `clip.resize_size` keeps its ratio to `clip.image_size`.

    Raises:
        InputError: a field that does not exist, or a value that is not one of its; names both.
    """
    whole: dict[str, Callable[[TrainConfig, str], TrainConfig]] = {  # other fields hang on these
        "model.encoder": with_encoder,
        "init": with_init,
        "clip.num_frames": lambda before, text: with_num_frames(before, _whole("clip.num_frames", text)),
        "clip.image_size": lambda before, text: with_image_size(before, _whole("clip.image_size", text)),
    }
    before, others = config, []
    for setting in settings:
        name, _, text = setting.partition("=")
        if name not in whole:
            others.append(setting)
        else:
            config = whole[name](config, text)
    size = config.clip.resize_size
    if not any(setting.startswith("clip.resize_size=") for setting in others) and size != before.clip.resize_size:
        log.info("clip.resize_size follows clip.image_size: %d px, not %d", size, before.clip.resize_size)
    values = to_dict(config)
    for setting in others:
        name, equals, text = setting.partition("=")
        *path, last = name.split(".")
        where: Any = values
        for part in path:
            where = where.get(part) if isinstance(where, dict) else None
        if not equals or not isinstance(where, dict) or last not in where or isinstance(where[last], dict):
            fields = ", ".join(where) if isinstance(where, dict) else ", ".join(values)
            raise InputError(f"--set {setting:.60}: expected NAME=VALUE with a field of the config: {fields}")
        if isinstance(where[last], tuple) and not text.startswith("["):
            where[last] = [_parsed(each) for each in text.split(",") if each]
        else:
            where[last] = _parsed(text)
    return from_dict(TrainConfig, values, "--set")


def _parsed(text: str) -> Any:
    """A JSON value; what is none is a text."""
    try:
        return parse_json(text)
    except ValueError:
        return text


def _whole(name: str, text: str) -> int:
    number = _parsed(text)
    if type(number) is not int:
        raise InputError(f"--set {name}={text:.60}: expected a whole number")
    return number
