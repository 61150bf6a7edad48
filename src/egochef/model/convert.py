"""Other people's TSN and TSM baselines as checkpoints of ours, to be scored, compared and trained further.

In: a file whose last layer has a row for each verb and then for each noun, as the official EK-100 baselines have. Out:
a recogniser that averages over the frames (TSN's consensus), and what its checkpoint says.
"""

from pathlib import Path

import torch

from egochef.clip import ClipSpec, Grid
from egochef.errors import InputError
from egochef.model.checkpoint import Checkpoint
from egochef.model.recogniser import ModelConfig, Recogniser
from egochef.model.weights import load_initial_weights
from egochef.model.weights_files import IMAGENET, Preprocessing, read_weights
from egochef.taxonomy import Taxonomy

NUM_FRAMES = 8
"""of the published baselines on validation, where a file does not tell"""


def convert_baseline(
    path: Path,
    taxonomy: Taxonomy,
    *,
    mean: tuple[float, float, float] | None = None,
    std: tuple[float, float, float] | None = None,
    num_frames: int | None = None,
) -> tuple[Recogniser, Checkpoint]:
    """Read a baseline.

    Averaging the frames' features and then classifying is the same as averaging the frames' scores, for the last layer
    is linear.

    Args:
        mean, std: per channel (R, G, B) of pixel values in 0..1, where those that the file tells are not to be used.
        num_frames: T, likewise.

    Raises:
        InputError: the file cannot be read, has no last layer for these classes, or does not fit a ResNet-50.
    """
    file = read_weights(path)
    num_classes = taxonomy.num_verbs + taxonomy.num_nouns
    if file.has_unread_settings and not (mean and std):
        raise InputError(
            f"{path}: its settings are objects of a training library, which are not read. Give --mean and --std as its "
            "preprocessing had them: wrong ones cost points (docs/models.md)."
        )
    if file.classifier is None:
        raise InputError(f"{path}: has no last layer, so there is nothing to score. As a start for training: --init.")
    weight, bias = file.classifier
    if len(weight) != num_classes or bias.shape != (num_classes,):
        raise InputError(
            f"{path}: its last layer knows {len(weight)} classes, expected {num_classes} ({taxonomy.num_verbs} verbs, "
            f"then {taxonomy.num_nouns} nouns). Trained on another dataset it can be a start for training: --init."
        )
    config = ModelConfig(
        encoder="resnet50_tsm" if file.shift == "both" else "resnet50",
        temporal="mean",
        num_verbs=taxonomy.num_verbs,
        num_nouns=taxonomy.num_nouns,
    )
    recogniser = Recogniser(config)
    load_initial_weights(recogniser.encoder, config.encoder, str(path))
    if weight.shape[1] != recogniser.temporal.num_outputs or not (weight.isfinite().all() and bias.isfinite().all()):
        expected = (num_classes, recogniser.temporal.num_outputs)
        raise InputError(f"{path}: its last layer is {tuple(weight.shape)}, expected {expected} and finite numbers")
    split = [taxonomy.num_verbs, taxonomy.num_nouns]
    with torch.no_grad():
        for head, rows, offsets in zip(
            (recogniser.verb_head, recogniser.noun_head), weight.split(split), bias.split(split), strict=True
        ):
            head.weight.copy_(rows)
            head.bias.copy_(offsets)
    clip = clip_of(file.preprocessing or IMAGENET, mean, std, num_frames)
    about = Checkpoint(config, clip, taxonomy, recipe="converted", initial_weights=path.name)
    return recogniser.eval(), about


def clip_of(
    told: Preprocessing,
    mean: tuple[float, float, float] | None,
    std: tuple[float, float, float] | None,
    num_frames: int | None,
) -> ClipSpec:
    """The clips that a baseline was trained with; sizes that its file does not tell are the published ones."""
    if num_frames is None:
        num_frames = NUM_FRAMES if told.num_frames is None else told.num_frames
    return ClipSpec(
        num_frames=num_frames,
        resize_size=256 if told.resize_size is None else told.resize_size,
        image_size=224 if told.image_size is None else told.image_size,
        mean=told.mean if mean is None else mean,
        std=told.std if std is None else std,
        grid=Grid(min_frames=max(num_frames, Grid().min_frames)),
    )
