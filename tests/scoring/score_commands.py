"""Commands within this process, and score files and checkpoints for them, for the tests of this folder."""

import contextlib
import io

import numpy as np
import torch

from egochef.cli.main import main
from egochef.clip import ClipSpec
from egochef.data.annotations import open_data_folder, read_split
from egochef.model.checkpoint import Checkpoint, save_checkpoint
from egochef.model.recogniser import ModelConfig, Recogniser
from egochef.scoring.table import ScoreTable


def egochef(*words):
    """What the command prints."""
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as errors:
        assert main(list(map(str, words))) == 0, errors.getvalue()
    return out.getvalue()


def fails(*words, message):
    """The command gives 1 and ends with one line that says `message`."""
    with contextlib.redirect_stderr(io.StringIO()) as errors:
        assert main(list(map(str, words))) == 1, errors.getvalue()
    last = errors.getvalue().strip().splitlines()[-1]
    assert last.startswith("egochef: ") and message in last, errors.getvalue()


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
