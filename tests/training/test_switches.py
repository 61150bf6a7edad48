"""The switches of training, each and all together: what they change, and that a run with them goes on bit for bit."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from tiny_runs import HEADS, TINY, assert_same_run, steps

from egochef.cli.main import main
from egochef.data.annotations import open_data_folder, read_split
from egochef.data.transforms import Augment
from egochef.engines.torch_engine import load
from egochef.errors import InputError, Stopped
from egochef.files import crc32_of
from egochef.inference.features import TRAINING, Features, read_index
from egochef.inference.scoring import score_split, truth_of
from egochef.model.checkpoint import load_checkpoint
from egochef.model.recogniser import ModelConfig, Recogniser
from egochef.scoring.actions import top_actions
from egochef.scoring.metrics import evaluate
from egochef.scoring.table import ScoreTable, save_scores, take_rows
from egochef.training.config import TrainConfig, load_config, set_fields
from egochef.training.loop import train
from egochef.training.sources import FeatureSource
from egochef.training.step import make_optimiser

ALL = dataclasses.replace(
    TINY,
    model=ModelConfig("efficientnet_lite0_tsm", temporal="bigru", hidden_size=8, joint=True),
    augment=Augment(mixup_alpha=0.2, min_span=0.5, drop_frames=0.2),
    balance=0.5,
    logit_adjustment=0.5,
    layer_decay=0.8,
    ema_decay=0.9,
    num_views=2,
)


@pytest.fixture(scope="module")
def folder(toy_root):
    return open_data_folder(toy_root)


@pytest.fixture(scope="module")
def teacher(folder, tmp_path_factory):
    """Scores of all training segments that are sure of the first class."""
    ids = np.array([segment.narration_id for segment in read_split(folder, "train")])
    verb, noun = np.zeros((len(ids), 97), np.float32), np.zeros((len(ids), 300), np.float32)
    verb[:, 0] = noun[:, 0] = 20
    path = tmp_path_factory.mktemp("teacher") / "scores.npz"
    save_scores(path, ScoreTable(ids, verb, noun, "logits"))
    return path


@pytest.fixture(scope="module")
def straight(toy_root, teacher, tmp_path_factory):
    run = tmp_path_factory.mktemp("all") / "run"
    train(dataclasses.replace(ALL, teacher=str(teacher)), toy_root, run)
    return run


def test_all_together_go_on_bit_for_bit(straight, toy_root, teacher, tmp_path):
    run, config = tmp_path / "run", dataclasses.replace(ALL, teacher=str(teacher))
    with pytest.raises(Stopped, match="after step 3"):
        train(config, toy_root, run, on_step=lambda progress: progress.step == 3)
    assert train(config, toy_root, run, resume=True).finished
    assert_same_run(run, straight)


def test_what_a_run_with_all_of_them_leaves(straight, folder):
    recogniser, about = load_checkpoint(straight)
    learned = read_split(folder, "train")
    pairs = {segment.verb * 1000 + segment.noun for segment in learned}
    assert set(about.model.action_ids) <= pairs and len(about.model.action_ids) > 3
    assert load_config(straight / "config.json").model.action_ids == (), "the config asks, the data answers"
    assert about.num_views == 2
    lines = steps(straight)
    for line in lines:
        assert line["loss"] == pytest.approx(line["verb_loss"] + line["noun_loss"] + line["action_loss"], abs=1e-4)
    assert recogniser.joint_head.own.weight.abs().max() > 0


def test_a_joint_heads_actions_are_scored_as_given(straight, folder):
    engine, segments = load(straight, device="cpu", precision="fp32"), read_split(folder, "validation")
    table = score_split(engine, folder, "validation", segments, num_views=2)
    known = len(engine.action_ids)
    assert table.action_id.shape == (len(segments), 100)
    assert set(table.action_id[:, :known].ravel()) == set(engine.action_ids), "the known ones come first"
    assert (np.diff(table.action_output, axis=1) <= 1e-6).all()
    probs = np.exp(table.action_output[:, :known].astype(np.float64))
    assert probs.sum(1) == pytest.approx(np.ones(len(segments)), abs=1e-4)
    verbs = np.exp(table.verb_output.astype(np.float64))
    for row in range(len(segments)):
        sums = np.bincount(table.action_id[row, :known] // 1000, probs[row], minlength=97)
        assert np.abs(sums - verbs[row]).max() < 1e-5
    metrics = evaluate(table, truth_of(folder, "validation", segments))
    right = top_actions(table, 1)[0][:, 0] == [each.verb * 1000 + each.noun for each in segments]
    assert metrics["all_action_accuracy_at_1"] == pytest.approx(100 * right.mean())


def test_heads_learn_jointly_from_kept_features_with_mixup(toy_root, tmp_path):
    model = dataclasses.replace(HEADS.model, joint=True)
    config = dataclasses.replace(HEADS, model=model, epochs=1, augment=Augment(cutmix_alpha=0.0, mixup_alpha=0.5))
    run = tmp_path / "run"
    assert train(config, toy_root, run).finished
    plain = tmp_path / "plain"
    train(dataclasses.replace(config, augment=Augment(cutmix_alpha=0.0)), toy_root, plain)
    losses = [[line["loss"] for line in steps(each)] for each in (run, plain)]
    assert losses[0] != losses[1]


def test_a_teacher_pulls_towards_what_it_says(toy_root, teacher, tmp_path):
    """It is sure of the same class everywhere, which heads can learn to be as sure of. Of labels they cannot: these are
    smoothed, so that no loss is below their entropy."""
    config = dataclasses.replace(
        HEADS, epochs=6, patience=6, lr=2e-2, warmup_epochs=0.1, batch_size=1, micro_batch=1, label_smoothing=0.1
    )
    train(dataclasses.replace(config, teacher=str(teacher), teacher_weight=1.0), toy_root, tmp_path / "run")
    lowest = sum(smoothed_entropy(num_classes, 0.1) for num_classes in (97, 300))
    assert steps(tmp_path / "run")[-1]["loss"] < lowest / 2


def smoothed_entropy(num_classes, smoothing):
    probs = np.full(num_classes, smoothing / num_classes)
    probs[0] += 1 - smoothing
    return -(probs * np.log(probs)).sum()


def test_a_teacher_that_lacks_segments_or_knows_other_classes(toy_root, teacher, tmp_path):
    from egochef.scoring.table import load_scores

    whole = load_scores(teacher)
    save_scores(tmp_path / "few.npz", take_rows(whole, slice(0, 5)))
    few = dataclasses.replace(HEADS, teacher=str(tmp_path / "few.npz"), max_train_segments=None)
    with pytest.raises(InputError, match=r"few\.npz: the teacher lacks \d+ of \d+ training segments, the first is P"):
        train(few, toy_root, tmp_path / "run")
    other = ScoreTable(whole.narration_id, whole.verb_output[:, :90], whole.noun_output, "logits")
    save_scores(tmp_path / "other.npz", other)
    with pytest.raises(InputError, match="other.npz: 90 verbs and 300 nouns, but the student has 97 and 300"):
        train(dataclasses.replace(HEADS, teacher=str(tmp_path / "other.npz")), toy_root, tmp_path / "run")
    with pytest.raises(InputError, match="no such file"):
        train(dataclasses.replace(HEADS, teacher="nowhere.npz"), toy_root, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_participants_held_out_are_not_learned_from(toy_root, tmp_path, folder):
    there = sorted({segment.participant_id for segment in read_split(folder, "train")})
    config = dataclasses.replace(HEADS, held_out=(there[0],), max_train_segments=None, epochs=1)
    train(config, toy_root, tmp_path / "run")
    about = load_checkpoint(tmp_path / "run")[1]
    assert about.held_out == (there[0],)
    num_others = sum(segment.participant_id != there[0] for segment in read_split(folder, "train"))
    assert sum(line["num_clips"] for line in steps(tmp_path / "run")) == num_others // 4 * 4
    with pytest.raises(InputError, match="P99 have no segments to learn from, expected some of P"):
        train(dataclasses.replace(config, held_out=("P99",)), toy_root, tmp_path / "other")
    with pytest.raises(InputError, match="nobody's segments are left"):
        train(dataclasses.replace(config, held_out=tuple(there)), toy_root, tmp_path / "other")


def test_who_was_learned_from_cannot_be_held_out(tiny_run, toy_root, tmp_path, folder):
    first = sorted({segment.participant_id for segment in read_split(folder, "train")})[0]
    best = str(tiny_run / "checkpoints" / "best.safetensors")
    with pytest.raises(InputError, match=f"has learned from the training segments of {first}"):
        train(dataclasses.replace(TINY, init=best, held_out=(first,)), toy_root, tmp_path / "other")
    features = tmp_path / "features"
    words = ["features", "--checkpoint", best, "--data", str(toy_root), "--out", str(features), "--views", "1"]
    assert main(words) == 0
    with pytest.raises(InputError, match="has learned from everybody's training segments"):
        train(dataclasses.replace(HEADS, held_out=(first,)), features, tmp_path / "other")


def test_a_clip_that_stands_for_another_is_learned_as_what_it_shows(toy_root, tmp_path, folder):
    """Kept features in which a segment's own clip could not be read: all that is learned is the shown one's."""
    config = dataclasses.replace(HEADS, max_train_segments=None, epochs=1)
    train(config, toy_root, tmp_path / "run")
    root = tmp_path / "run" / "features"
    path = root / "training" / "view-00.safetensors"
    index = read_index(path)
    index["shown"] = index["shown"].copy()
    index["shown"][0] = 5
    save_file(index, path)
    about = json.loads((root / "features.json").read_text())
    view = next(view for view in about["views"] if view["name"] == "training/view-00")
    view["index_crc32"] = crc32_of(path)
    (root / "features.json").write_text(json.dumps(about))
    segments = read_split(folder, "train")
    features = Features(root, TRAINING, segments, num_views=2)
    assert features.shown_place[0, 0] == 5 and (features.shown_place[:, 1:] == np.arange(1, len(segments))).all()
    fewer = tuple(each for number, each in enumerate(segments) if number != 5)
    ids = np.array([each.narration_id for each in fewer])
    source = FeatureSource(Features(root, TRAINING, fewer, num_views=2), ids, config, torch.device("cpu"))
    assert not source.is_ours[0, 0] and source.is_ours[1, 0], "the other view serves"
    for epoch in range(1, 6):
        for micro in source.epoch(epoch, 0, 4):
            assert (micro.segment >= 0).all()
    with pytest.raises(InputError, match="1 segments could not be read when the features were made"):
        FeatureSource(Features(root, TRAINING, fewer, num_views=1), ids, config, torch.device("cpu"))


def test_layers_have_learning_rates_of_their_own():
    recogniser = Recogniser(dataclasses.replace(TINY.model, num_verbs=5, num_nouns=7))
    config = dataclasses.replace(TINY, layer_decay=0.5)
    optimiser = make_optimiser(recogniser, config, torch.device("cpu"))
    scale_of = {id(p): group["lr_scale"] for group in optimiser.param_groups for p in group["params"]}
    assert set(scale_of) == {id(p) for p in recogniser.parameters() if p.requires_grad}
    stages = recogniser.encoder.stages()
    for number, stage in enumerate(stages):
        found = {scale_of[id(p)] for part in stage for p in part.parameters() if p.requires_grad}
        assert found <= {0.5 ** (len(stages) - number)}
    assert {scale_of[id(p)] for p in recogniser.temporal.parameters()} == {1.0}
    decays = {(p.ndim > 1, group["weight_decay"] > 0) for group in optimiser.param_groups for p in group["params"]}
    assert decays == {(True, True), (False, False)}
    plain = make_optimiser(recogniser, TINY, torch.device("cpu"))
    assert [group["lr_scale"] for group in plain.param_groups] == [1.0, 1.0]


def test_any_field_is_set_by_name():
    config = set_fields(
        TrainConfig(),
        ["model.joint=true", "augment.mixup_alpha=0.2", "held_out=P01,P02", "teacher=a/b.npz", "epochs=3", "balance=1"],
    )
    assert config.model.joint and config.augment.mixup_alpha == 0.2 and config.held_out == ("P01", "P02")
    assert (config.teacher, config.epochs, config.balance) == ("a/b.npz", 3, 1.0)
    assert set_fields(config, ["held_out="]).held_out == () and set_fields(config, []) == config
    shifted = set_fields(TrainConfig(), ["epochs=4", "model.encoder=efficientnet_lite0_tsm", "clip.num_frames=64"])
    assert shifted.clip.mean == (0.498,) * 3 and shifted.clip.grid.min_frames == 64 and shifted.epochs == 4
    assert not set_fields(TrainConfig(), ["init=none"]).model.frozen_batchnorm
    assert set_fields(config, ["clip.mean=[0.5,0.5,0.5]"]).clip.mean == (0.5, 0.5, 0.5)
    for setting, message in (
        ("model.joit=true", "--set model.joit=true: expected NAME=VALUE with a field of the config: encoder, temporal"),
        ("joint", "expected NAME=VALUE"),
        ("model=3", "expected NAME=VALUE with a field of the config: recipe, model"),
        ("a.b.c=3", "expected NAME=VALUE"),
        ("epochs=many", "--set: epochs is 'many', expected int"),
        ("balance=2", "balance is 2.0, expected 0 to 1"),
    ):
        with pytest.raises(InputError, match=message):
            set_fields(TrainConfig(), [setting])


@pytest.mark.parametrize(
    "change",
    [
        {"balance": -0.1},
        {"logit_adjustment": -1.0},
        {"logit_adjustment": float("nan")},
        {"teacher_weight": 0.0},
        {"layer_decay": 0.0},
        {"num_views": 0},
        {"num_views": 2, "feature_views": 1, "augment": Augment(cutmix_alpha=0.0)},
    ],
)
def test_wrong_settings(change):
    with pytest.raises(InputError):
        dataclasses.replace(TINY, **change)


@pytest.mark.parametrize("change", [{"mixup_alpha": -1.0}, {"min_span": 0.0}, {"drop_frames": 1.0}])
def test_wrong_augmentation(change):
    with pytest.raises(InputError, match=next(iter(change))):
        Augment(**change)
