"""Scores of a split: complete, aligned, the mean over views."""

import dataclasses

import numpy as np
import pytest
import torch

from egochef.clip import ClipSpec
from egochef.data.annotations import open_data_folder, read_split
from egochef.data.frames import open_frames
from egochef.data.transforms import Augment
from egochef.engines.torch_engine import TorchEngine
from egochef.errors import InputError
from egochef.inference.features import EVALUATION, Features
from egochef.inference.make_features import feature_spec, make_features
from egochef.inference.scoring import score_features, score_segments, score_split, truth_of
from egochef.model.recogniser import ModelConfig, Recogniser
from egochef.scoring.metrics import evaluate
from egochef.taxonomy import Taxonomy


@pytest.fixture(scope="module")
def folder(toy_root):
    return open_data_folder(toy_root)


@pytest.fixture(scope="module")
def engine(folder):
    torch.manual_seed(0)
    recogniser = Recogniser(ModelConfig("efficientnet_lite0", hidden_size=8))
    clip = ClipSpec(num_frames=3, image_size=64, resize_size=64)
    return TorchEngine(recogniser, clip, folder.taxonomy, torch.device("cpu"), torch.float32)


def test_every_segment_is_scored_in_order(engine, folder):
    for split in ("validation", "test"):
        segments = read_split(folder, split)
        table = score_split(engine, folder, split, segments)
        assert table.narration_id.tolist() == [segment.narration_id for segment in segments]
        assert np.allclose(np.exp(table.verb_output).sum(axis=1), 1, atol=1e-4)
        assert np.allclose(np.exp(table.noun_output).sum(axis=1), 1, atol=1e-4)


def test_workers_and_kept_features_change_nothing(engine, folder, tmp_path):
    segments = read_split(folder, "validation")
    frames = open_frames(folder, segments, engine.clip.grid)
    alone = score_segments(engine, segments, frames, num_workers=0)
    helped = score_segments(engine, segments, frames, num_workers=2)
    assert np.array_equal(alone.verb_output, helped.verb_output)
    spec = feature_spec(engine, Augment(), seed=0, initial_weights="imagenet")
    make_features(engine, folder, tmp_path, spec, (segments[:1], frames), (segments, frames), num_views=1)
    kept = score_features(engine, segments, Features(tmp_path, EVALUATION, segments))
    assert np.allclose(alone.noun_output, kept.noun_output, atol=1e-3)


def test_views_are_averaged(engine, folder):
    segments = read_split(folder, "validation")[:3]
    frames = open_frames(folder, segments, engine.clip.grid)
    both = score_segments(engine, segments, frames, num_views=2)
    from egochef.data.dataset import ClipDataset

    dataset = ClipDataset(segments, frames, engine.clip, num_views=2)
    probs = [engine.classify(engine.encode(dataset[(0, 0, 2 + view)].frames[None])).verb.softmax(1) for view in (0, 1)]
    assert np.allclose(np.exp(both.verb_output[1]), (probs[0] + probs[1])[0].numpy() / 2, atol=1e-5)


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda verbs, nouns: (("cut",), ("onion",)), "97 verbs and 300 nouns, but {root} has 1 and 1"),
        (lambda verbs, nouns: (nouns, verbs), "97 verbs and 300 nouns, but {root} has 300 and 97: .* are swapped"),
        (lambda verbs, nouns: (verbs, (*nouns[:7], "x", *nouns[8:])), "its noun 7 is '.*', in {root} it is 'x'"),
    ],
)
def test_other_classes_are_refused(engine, folder, change, fault):
    other = dataclasses.replace(folder, taxonomy=Taxonomy(*change(folder.taxonomy.verbs, folder.taxonomy.nouns)))
    with pytest.raises(
        InputError, match=f"^run16: {fault.format(root=folder.root)}.* Use the data that it was trained"
    ):
        score_split(engine, other, "validation", read_split(folder, "validation"), name="run16")


def test_scores_that_are_not_finite_are_refused(engine, folder):
    torch.manual_seed(0)
    broken = Recogniser(engine.recogniser.config)
    torch.nn.init.constant_(broken.noun_head.bias, float("nan"))
    bad = TorchEngine(broken, engine.clip, folder.taxonomy, torch.device("cpu"), torch.float32)
    segments = read_split(folder, "validation")[:2]
    with pytest.raises(
        InputError, match=f"2 segments have noun scores that are not finite.*{segments[0].narration_id}"
    ):
        score_segments(bad, segments, open_frames(folder, segments, engine.clip.grid))


def test_the_truth_scores_100(folder):
    from egochef.scoring.table import ScoreTable

    segments = read_split(folder, "validation")
    truth = truth_of(folder, "validation", segments)
    verb, noun = np.eye(97, dtype=np.float32)[truth.verb], np.eye(300, dtype=np.float32)[truth.noun]
    metrics = evaluate(ScoreTable(truth.narration_id, 9 * verb, 9 * noun, "logits"), truth)
    assert metrics["all_action_accuracy_at_1"] == 100
    assert truth.unseen.any() and not truth.unseen.all()
    with pytest.raises(InputError, match="the test split has no labels"):
        truth_of(folder, "test", ())
