"""Recipes: named functions that return a whole training config. 16 or 32 frames is one field."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

from egochef.clip import ClipSpec
from egochef.data.transforms import Augment
from egochef.errors import InputError
from egochef.model.checkpoint import Checkpoint
from egochef.model.recogniser import ModelConfig
from egochef.training.config import TrainConfig, load_config, with_encoder, with_num_frames


def frames16() -> TrainConfig:
    """The baseline: ResNet-50 on 16 frames, 2-layer BiLSTM, one night on one GPU."""
    return TrainConfig(recipe="frames16")


def frames32() -> TrainConfig:
    """The baseline on 32 frames."""
    return dataclasses.replace(frames16(), recipe="frames32", clip=ClipSpec(num_frames=32))


def toy() -> TrainConfig:
    """The light model for ToyKitchen on a CPU: the encoder is frozen, heads train on its kept features."""
    config = TrainConfig(
        recipe="toy",
        model=ModelConfig(hidden_size=256),
        clip=ClipSpec(num_frames=16, image_size=160, resize_size=160),
        augment=Augment(crop_scale=(0.85, 1.0), crop_ratio=(0.9, 1.1), flip=0.0, greyscale=0.0, cutmix_alpha=0.0),
        epochs=30,
        batch_size=32,
        lr=1e-3,
        weight_decay=1e-2,
        warmup_epochs=2.0,
        patience=10,
        feature_views=2,
    )
    return with_encoder(config, "efficientnet_lite0")


def light() -> TrainConfig:
    """Under 7 GFLOPs a clip, frame by frame: EfficientNet-Lite0 with online shift on 16 frames, GRU, joint head."""
    return _switched(dataclasses.replace(frames16(), recipe="light"), "efficientnet_lite0_tsm_online")


def strong() -> TrainConfig:
    """Under 40 GFLOPs a clip: ResNet-50 with temporal shift on 8 frames, GRU, joint head."""
    return _switched(with_num_frames(dataclasses.replace(frames16(), recipe="strong"), 8), "resnet50_tsm")


def fast() -> TrainConfig:
    """One hour on one GPU, by count: EfficientNet-Lite0 with temporal shift on 8 frames of 192 pixels, GRU, joint head.

    It sees 15 x 67,217 x 8 = 8.1 million images. An A100 trains EfficientNet-B0, which costs a little more, at 2,489
    images of 224 pixels a second with AMP (README of PyTorch/Classification/ConvNets/efficientnet in NVIDIA's
    DeepLearningExamples): 9.0 million an hour.
    """
    config = with_num_frames(dataclasses.replace(frames16(), recipe="fast"), 8)
    clip = dataclasses.replace(config.clip, image_size=192, resize_size=219)
    config = dataclasses.replace(config, clip=clip, epochs=15, warmup_epochs=1.0)
    return _switched(config, "efficientnet_lite0_tsm")


def _switched(config: TrainConfig, encoder: str) -> TrainConfig:
    """With GRU, joint head and learning rates by layer: the best set of `benchmarks/accuracy.py`."""
    model = dataclasses.replace(config.model, temporal="bigru", joint=True)
    return with_encoder(dataclasses.replace(config, model=model, layer_decay=0.8), encoder)


RECIPES: dict[str, Callable[[], TrainConfig]] = {
    "frames16": frames16,
    "frames32": frames32,
    "light": light,
    "strong": strong,
    "fast": fast,
    "toy": toy,
}


def find_recipe(name: str) -> TrainConfig:
    """The config of a recipe.

    Raises:
        InputError: there is no such recipe; names those there are.
    """
    if name not in RECIPES:
        raise InputError(f"unknown recipe {name!r}, expected one of {', '.join(RECIPES)}")
    return RECIPES[name]()


def augment_of(checkpoint: Path, about: Checkpoint) -> Augment:
    """How clips were changed when a checkpoint was trained: by its run's config, else by its recipe, else the default.

    Args:
        checkpoint: what a `--checkpoint` names: a run's folder, or a file.
    """
    if (checkpoint / "config.json").is_file():
        return load_config(checkpoint / "config.json").augment
    return RECIPES[about.recipe]().augment if about.recipe in RECIPES else Augment()
