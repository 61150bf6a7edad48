"""Training on a tiny drawn kitchen: it learns, resumes, leaves frozen parts alone, counts what it cannot read."""

import dataclasses
import json
import math
import multiprocessing
import shutil

import numpy as np
import pytest
import torch
from tiny_runs import HEADS, TINY, last_state, steps

from egochef.clip import ClipSpec
from egochef.data.annotations import find_videos, open_data_folder, read_split
from egochef.data.transforms import Augment
from egochef.engines.torch_engine import load
from egochef.errors import InputError
from egochef.files import write_json
from egochef.inference.features import weights_sha256
from egochef.inference.scoring import score_split, truth_of
from egochef.model.checkpoint import load_checkpoint, write_tensors
from egochef.model.encoders import build_encoder
from egochef.model.recogniser import ModelConfig
from egochef.model.weights import load_initial_weights
from egochef.recipes import find_recipe, toy
from egochef.scoring.metrics import evaluate
from egochef.training.config import debug, load_config, with_init
from egochef.training.loop import train
from egochef.training.run import spread
from egochef.training.runfiles import RunLog, read_log
from egochef.training.state import Progress


def same_weights(a, b):
    first, second = load_checkpoint(a)[0].state_dict(), load_checkpoint(b)[0].state_dict()
    return all(torch.equal(first[name], second[name]) for name in first)


def test_what_a_run_leaves(tiny_run, toy_root):
    run, progress = tiny_run, train(TINY, toy_root, tiny_run, resume=True)
    assert (progress.epoch, progress.step, progress.finished) == (2, 4, True)
    assert sorted(path.relative_to(run).as_posix() for path in run.rglob("*") if path.is_file()) == [
        "MODEL_CARD.md",
        "checkpoints/best.safetensors",
        *[f"checkpoints/last/step-{n:08d}-judged.{s}" for n in (2, 4) for s in ("safetensors", "sha256")],
        "config.json",
        "lock",
        "log.jsonl",
        "sessions.jsonl",
    ]
    lines = list(read_log(run))
    assert [line["kind"] for line in lines] == ["step", "step", "evaluation", "epoch"] * 2
    assert all(line["num_clips"] == 4 and line["loss"] > 0 for line in lines if line["kind"] == "step")
    _, about = load_checkpoint(run)
    assert about.clip == TINY.clip and about.recipe == "tiny" and about.initial_weights == "imagenet"
    assert about.taxonomy.num_nouns == 300
    assert about.scores["all_action_accuracy_at_1"] == progress.best_score


def test_frozen_batchnorm_is_bit_identical_and_the_rest_is_trained(tiny_run):
    encoder = build_encoder("efficientnet_lite0")
    load_initial_weights(encoder, "efficientnet_lite0", "imagenet")
    after = load_checkpoint(tiny_run)[0].encoder
    norms = {name for name, module in encoder.named_modules() if isinstance(module, torch.nn.BatchNorm2d)}
    assert len(norms) > 40
    changed = set()
    for name, tensor in encoder.state_dict().items():
        if not torch.equal(tensor, after.state_dict()[name]):
            changed.add(name.rpartition(".")[0])
    assert changed and not changed & norms


def test_the_same_seed_gives_the_same_run(tiny_run, toy_root, tmp_path):
    again = tmp_path / "again"
    train(TINY, toy_root, again)
    assert steps(again) == steps(tiny_run)
    assert same_weights(again, tiny_run)


def test_accumulation_is_the_same_step(toy_root, tmp_path):
    """Without CutMix and dropout, micro-batches of 1 and of 4 give the same step of 4 clips."""
    model = dataclasses.replace(TINY.model, temporal_dropout=0.0, head_dropout=0.0)
    plain = dataclasses.replace(TINY, model=model, augment=Augment(cutmix_alpha=0.0), epochs=1, max_train_segments=4)
    for size in (1, 4):
        train(dataclasses.replace(plain, micro_batch=size), toy_root, tmp_path / str(size))
    one, four = steps(tmp_path / "1"), steps(tmp_path / "4")
    assert one[0]["loss"] == pytest.approx(four[0]["loss"], rel=1e-4)  # kernels for 4 clips round otherwise
    assert one[0]["grad_norm"] == pytest.approx(four[0]["grad_norm"], rel=5e-3)


@pytest.fixture(scope="module")
def heads(toy_root, tmp_path_factory):
    """A run on features of its own, judged by all of validation."""
    run = tmp_path_factory.mktemp("heads") / "run"
    return run, train(dataclasses.replace(HEADS, max_validation_segments=None), toy_root, run)


def test_a_run_from_a_features_folder_is_the_same_run(heads, toy_root, tmp_path):
    """The features that a run has made serve another: same steps, same weights, and what was decided is taken over."""
    run, progress = heads
    other = dataclasses.replace(
        HEADS,
        clip=ClipSpec(num_frames=8),
        augment=Augment(),
        model=ModelConfig(hidden_size=8),
        feature_views=0,
        max_validation_segments=None,
    )
    again = tmp_path / "again"
    assert train(other, run / "features", again) == progress
    assert steps(again) == steps(run)
    assert same_weights(again, run)
    config, (_, about) = load_config(again / "config.json"), load_checkpoint(again)
    assert config == load_config(run / "config.json")
    assert about == load_checkpoint(run)[1]
    assert not (again / "features").exists()
    assert train(other, run / "features", again, resume=True) == progress


def test_the_validation_score_of_features_is_that_of_the_videos(heads, toy_root):
    run, progress = heads
    folder = open_data_folder(toy_root)
    validation = read_split(folder, "validation")
    table = score_split(load(run, device="cpu", precision="fp32"), folder, "validation", validation)
    near_ties = sum(min(np.diff(np.sort(row)[-2:])) < 1e-3 for row in (*table.verb_output, *table.noun_output))
    within = 100 * near_ties / len(validation) + 1e-6  # features are kept as float16, which decides ties otherwise
    metrics = evaluate(table, truth_of(folder, "validation", validation))
    logged = next(
        line for line in read_log(run) if line["kind"] == "evaluation" and line["epoch"] == progress.best_epoch
    )
    for name in ("all_verb_accuracy_at_1", "all_noun_accuracy_at_1", "all_action_accuracy_at_1"):
        assert metrics[name] == pytest.approx(logged[name], abs=within)


def test_going_on_does_not_make_the_features_again(heads, toy_root, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(heads[0], run)
    shutil.rmtree(run / "checkpoints")
    before = {path: path.stat().st_mtime_ns for path in (run / "features").rglob("*") if path.is_file()}
    train(load_config(run / "config.json"), toy_root, run, resume=True)
    assert {path: path.stat().st_mtime_ns for path in (run / "features").rglob("*") if path.is_file()} == before
    assert steps(run) == steps(heads[0])


def test_what_the_encoder_of_features_has_seen_counts(heads, tmp_path):
    root, run = tmp_path / "F", tmp_path / "run"
    shutil.copytree(heads[0] / "features", root)
    about = json.loads((root / "features.json").read_text())
    about["spec"] |= {"encoder_trained_on": ["train", "validation"], "initial_weights": "mine.pth"}
    write_json(root / "features.json", about)
    train(dataclasses.replace(HEADS, epochs=1), root, run)
    saved = load_checkpoint(run)[1]
    assert (saved.train_on, saved.initial_weights) == (("train", "validation"), "mine.pth")
    assert load_config(run / "config.json").init == str(root / "encoder.safetensors")


def test_features_of_another_encoder_do_not_go_on_with_a_run(heads, tmp_path):
    root, run = tmp_path / "F", tmp_path / "run"
    shutil.copytree(heads[0] / "features", root)
    train(dataclasses.replace(HEADS, epochs=2), root, run)
    for path in (run / "checkpoints" / "last").glob("step-00000004*"):  # as if stopped after the first epoch
        path.unlink()
    encoder = build_encoder("efficientnet_lite0")
    write_tensors(root / "encoder.safetensors", encoder.state_dict(), {})
    about = json.loads((root / "features.json").read_text())
    about["spec"] |= {"encoder_sha256": weights_sha256(encoder)}
    write_json(root / "features.json", about)
    with pytest.raises(InputError, match="features of another encoder"):
        train(dataclasses.replace(HEADS, epochs=2), root, run, resume=True)


def test_a_fixed_encoder_stays_as_it_was_and_the_rest_learns(toy_root, tmp_path):
    """Trained end to end from pictures; even where BatchNorm is not frozen."""
    model = dataclasses.replace(TINY.model, frozen_batchnorm=False)
    config = dataclasses.replace(TINY, model=model, frozen_encoder=True)
    train(config, toy_root, tmp_path / "run")
    encoder = build_encoder("efficientnet_lite0")
    load_initial_weights(encoder, "efficientnet_lite0", "imagenet")
    after = load_checkpoint(tmp_path / "run")[0].encoder.state_dict()
    assert all(torch.equal(tensor, after[name]) for name, tensor in encoder.state_dict().items())
    tensors, _ = last_state(tmp_path / "run")
    trained = {name.split(".")[1] for name in tensors if name.startswith("optimiser.")}
    assert trained == {"temporal", "verb_head", "noun_head"}


def test_heads_on_kept_features_leave_the_encoder_alone_and_learn(toy_root, tmp_path):
    """8 segments by heart: a loss that begins above that of knowing nothing comes far below it."""
    model = dataclasses.replace(HEADS.model, hidden_size=32, temporal_dropout=0.0, head_dropout=0.0)
    config = dataclasses.replace(HEADS, model=model, epochs=6, patience=6, batch_size=1, micro_batch=1, lr=1e-2)
    train(config, toy_root, tmp_path / "run")
    losses = [line["loss"] for line in steps(tmp_path / "run")]
    knows_nothing = math.log(97) + math.log(300)
    assert losses[0] > 0.9 * knows_nothing and np.mean(losses[-8:]) < 0.6 * knows_nothing, losses
    tensors, _ = last_state(tmp_path / "run")
    assert not any(name.startswith("optimiser.encoder") for name in tensors)


def test_early_stopping(toy_root, tmp_path):
    config = dataclasses.replace(HEADS, epochs=50, lr=1e-7, patience=2)
    progress = train(config, toy_root, tmp_path / "run")
    assert progress.epoch == progress.best_epoch + 2 < 50


def test_training_on_validation_too(toy_root, tmp_path):
    config = dataclasses.replace(HEADS, train_on=("train", "validation"), epochs=2)
    progress = train(config, toy_root, tmp_path / "run")
    assert progress.best_epoch == 2
    assert load_checkpoint(tmp_path / "run")[1].train_on == ("train", "validation")
    assert {line["kind"] for line in read_log(tmp_path / "run")} == {"step", "epoch"}


def test_a_run_is_not_overwritten(tiny_run, toy_root):
    with pytest.raises(InputError, match="holds a run already"):
        train(TINY, toy_root, tiny_run)
    with pytest.raises(InputError, match="started with epochs = 2, not 3, lr = 0.001, not 0.002"):
        train(dataclasses.replace(TINY, epochs=3, lr=2e-3), toy_root, tiny_run, resume=True)


def test_resuming_a_finished_run_does_nothing(tiny_run, toy_root):
    def all_files():
        return {path: path.read_bytes() for path in tiny_run.rglob("*") if path.is_file() and path.name != "lock"}

    before = all_files()
    assert train(TINY, toy_root, tiny_run, resume=True).finished
    assert all_files() == before


def test_a_folder_with_something_else_is_left_alone(toy_root, tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(InputError, match="exists and is not a run"):
        train(TINY, toy_root, tmp_path)


def test_a_broken_video_is_replaced_and_counted(toy_root, tmp_path, caplog):
    root = tmp_path / "kitchen"
    shutil.copytree(toy_root, root)
    folder = open_data_folder(root)
    chosen = spread(read_split(folder, "train"), TINY.max_train_segments)
    bad = chosen[0].video_id
    path = find_videos(folder, chosen)[bad]
    path.write_bytes(path.read_bytes()[:500])
    progress = train(TINY, root, tmp_path / "run")
    assert progress.finished
    assert any(bad in message and "training samples could not be read" in message for message in caplog.messages)


def test_too_many_broken_videos_stop_the_run(toy_root, tmp_path):
    root = tmp_path / "kitchen"
    shutil.copytree(toy_root, root)
    folder = open_data_folder(root)
    for path in find_videos(folder, read_split(folder, "train")).values():
        path.write_bytes(b"")
    others = multiprocessing.active_children()
    with pytest.raises(InputError, match="could not be read"):
        train(dataclasses.replace(TINY, num_workers=1), root, tmp_path / "run")
    assert multiprocessing.active_children() == others, "its data worker has ended with it"


def test_random_weights_train_everything(toy_root, tmp_path):
    config = dataclasses.replace(with_init(TINY, "none"), epochs=1)
    train(config, toy_root, tmp_path / "run")
    encoder = load_checkpoint(tmp_path / "run")[0].encoder
    tracked = [module.num_batches_tracked for module in encoder.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    assert all(count > 0 for count in tracked)


def test_recipes_are_the_published_ones():
    for name, num_frames in (("frames16", 16), ("frames32", 32)):
        config = find_recipe(name)
        assert config.recipe == name
        assert config.clip == ClipSpec(num_frames=num_frames)
        assert config.model == ModelConfig()
        assert (config.batch_size, config.lr, config.weight_decay) == (100, 1.5e-4, 1e-4)
        assert (config.label_smoothing, config.augment.cutmix_alpha) == (0.1, 1.0)
        assert (config.epochs, config.warmup_epochs, config.patience) == (50, 3, 10)
    assert toy().clip.image_size >= 160
    with pytest.raises(InputError, match="expected one of frames16, frames32, light, strong, fast, toy"):
        find_recipe("frames64")


def test_debug_is_small(toy_root, tmp_path):
    config = debug(toy())
    assert config.epochs <= 2 and config.max_train_segments <= 32


@pytest.mark.parametrize(
    "change",
    [
        {"epochs": 0},
        {"lr": 0.0},
        {"lr": float("nan")},
        {"train_on": ("test",)},
        {"train_on": ()},
        {"precision": "fp8"},
        {"feature_views": 2},
        {"feature_views": 2, "frozen_encoder": True, "augment": Augment(cutmix_alpha=0.0)},
        {"frozen_encoder": True, "init": "none", "model": ModelConfig(frozen_batchnorm=False)},
    ],
)
def test_wrong_settings(change):
    with pytest.raises(InputError):
        dataclasses.replace(TINY, **change)


def test_a_random_encoder_cannot_be_frozen():
    with pytest.raises(InputError, match="has to be trained"):
        with_init(toy(), "none")


def test_log_is_json_even_when_numbers_are_not_finite(tmp_path):
    run_log = RunLog(tmp_path, Progress())
    run_log.write(kind="step", epoch=1, step=1, loss=float("nan"))
    run_log.close()
    assert json.loads((tmp_path / "log.jsonl").read_text()) == {"kind": "step", "epoch": 1, "step": 1, "loss": None}
