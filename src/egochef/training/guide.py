"""What a run's loss is told of the training set beside labels: how common its classes are, and what a teacher says."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from egochef.data.annotations import Segment
from egochef.errors import InputError
from egochef.model.recogniser import ModelConfig
from egochef.scoring.table import check_classes, load_scores, log_probs
from egochef.taxonomy import ACTION_BASE
from egochef.training.config import TrainConfig
from egochef.training.objective import Guide
from egochef.training.sources import shares_of


def make_guide(config: TrainConfig, model: ModelConfig, segments: Sequence[Segment], device: torch.device) -> Guide:
    """What the config asks for.

    Args:
        model: with the classes that there are.
        segments: those to learn from, in the order that batches count them in.

    Raises:
        InputError: the teacher's scores cannot be read, lack segments or are of other classes.
    """
    log_prior = teacher = None
    if config.logit_adjustment:
        verb, noun = np.array(pairs_of(segments)).T  # (S,)
        shares = shares_of(verb, noun, config.balance)
        classes = {"verb": (verb, model.num_verbs), "noun": (noun, model.num_nouns)}
        if model.action_ids:
            places = np.searchsorted(model.action_ids, verb * ACTION_BASE + noun)
            classes["action"] = (places, len(model.action_ids))
        log_prior = {
            task: config.logit_adjustment * torch.from_numpy(log_shares(of_segments, num, shares)).float().to(device)
            for task, (of_segments, num) in classes.items()
        }
    if config.teacher:
        teacher = read_teacher(Path(config.teacher), model, segments)
    return Guide(log_prior, teacher)


def pairs_of(segments: Sequence[Segment]) -> list[tuple[int, int]]:
    """(verb, noun) of labelled segments."""
    return [(each.verb, each.noun) for each in segments if each.verb is not None and each.noun is not None]


def log_shares(classes: np.ndarray, num_classes: int, shares: np.ndarray | None = None) -> np.ndarray:
    """Logarithm of how often each class (classes,) comes among segments' classes (S,); one that never does, as if once.

    Args:
        shares: (S,) chances that the segments are drawn by; None: each comes once.
    """
    weights = None if shares is None else shares * len(classes)
    counts = np.bincount(classes, weights, minlength=num_classes)
    counts = np.where(counts == 0, 1, counts)
    return np.log(counts / counts.sum())


def read_teacher(path: Path, model: ModelConfig, segments: Sequence[Segment]) -> dict[str, Tensor]:
    """A teacher's probabilities of segments, by task (S, classes).

    Raises:
        InputError: scores that cannot be read, that lack segments, or of other classes.
    """
    table = load_scores(path)
    check_classes(table, model.num_verbs, model.num_nouns, name=str(path), whose="the student")
    row_of = {name: row for row, name in enumerate(table.narration_id.tolist())}
    missing = [segment.narration_id for segment in segments if segment.narration_id not in row_of]
    if missing:
        raise InputError(
            f"{path}: the teacher lacks {len(missing)} of {len(segments)} training segments, the first is "
            f"{missing[0]}. Score them: egochef evaluate --checkpoint TEACHER --split train --seen --out DIR"
        )
    rows = np.array([row_of[segment.narration_id] for segment in segments])
    return {
        task: torch.from_numpy(np.exp(each[rows])).float()
        for task, each in zip(("verb", "noun"), log_probs(table), strict=True)
    }
