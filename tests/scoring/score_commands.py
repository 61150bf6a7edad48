"""Scores and checkpoints that know nothing, for the tests of this folder."""

import numpy as np
import torch

from egochef.clip import ClipSpec
from egochef.data.annotations import open_data_folder, read_split
from egochef.model.checkpoint import Checkpoint, save_checkpoint
from egochef.model.recogniser import ModelConfig, Recogniser
from egochef.scoring.table import ScoreTable


def table_of(root, split, num_verbs=97, num_nouns=300):
    """Scores that know nothing."""
    ids = [segment.narration_id for segment in read_split(open_data_folder(root), split)]
    rng = np.random.default_rng(0)
    return ScoreTable(ids, *(rng.standard_normal((len(ids), num)) for num in (num_verbs, num_nouns)), "logits")


def save_for(path, taxonomy, **about):
    """A checkpoint of random weights."""
    torch.manual_seed(0)
    config = ModelConfig(
        "efficientnet_lite0", hidden_size=8, num_verbs=taxonomy.num_verbs, num_nouns=taxonomy.num_nouns
    )
    clip = ClipSpec(num_frames=2, image_size=64, resize_size=64)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_checkpoint(path, Recogniser(config), Checkpoint(config, clip, taxonomy, "toy", "none", **about))
    return path
