"""The command line: help, flags, faults, exit codes. A training runs in a process of its own, as a person runs it."""

import json
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from in_process import egochef, fails

from egochef.cli.main import COMMANDS, build_parser, main

TRAIN = ("train", "--recipe", "toy", "--debug", "--num_frames=2", "--set", "clip.image_size=64", "clip.resize_size=64")
"""A run of minutes cut to seconds."""


def process(*words):
    """`egochef` as a person runs it, in a process of its own."""
    command = [sys.executable, "-m", "egochef", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def run(toy_root, tmp_path_factory):
    """Trained through the command line."""
    out = tmp_path_factory.mktemp("cli") / "run"
    done = process(*TRAIN, "--data", toy_root, "--out", out)
    assert done.returncode == 0, done.stderr
    assert "best validation action accuracy" in done.stdout and "next: egochef evaluate" in done.stdout
    titles, first, second, *_ = done.stdout.splitlines()
    assert titles.split()[:3] == ["epoch", "step", "loss"] and "action %" in titles and "waiting" in titles
    assert first.split()[0] == "1/2" and second.split()[0] == "2/2"
    assert (out / "MODEL_CARD.md").is_file()
    return out


def test_help_is_quick_because_nothing_heavy_is_imported():
    code = (
        "import sys; from egochef.cli.main import build_parser; build_parser().format_help();"
        "print([name for name in ('torch', 'numpy', 'av', 'cv2', 'PIL') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(command, capsys):
    with pytest.raises(SystemExit) as stop:
        build_parser().parse_args([command, "--help"])
    assert stop.value.code == 0
    assert f"example: egochef {command}" in capsys.readouterr().out


def test_wrong_usage_is_2():
    assert process("train").returncode == 2
    for words in (["train"], ["cook"], ["train", "--recip", "toy", "--data", "x", "--out", "y"]):
        with pytest.raises(SystemExit) as stop:
            main(words)
        assert stop.value.code == 2


def test_evaluate_an_ensemble_both_ways_of_repeating_flags(run, toy_root, tmp_path):
    done = egochef("evaluate", "--checkpoint", run, "--checkpoint", run, "--data", toy_root, "--out", tmp_path)
    assert "ensemble of 2" in done
    scores = tmp_path / "scores.npz"
    metrics = json.loads(egochef("evaluate", "--scores", scores, scores, "--data", toy_root, "--json"))
    assert metrics == json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["num_segments"] > 0 and "tail_action_accuracy_at_1" in metrics


def test_submit_and_check(run, toy_root, tmp_path):
    out = tmp_path / "s.zip"
    egochef("submit", "--checkpoint", run, "--data", toy_root, "--out", out)
    with zipfile.ZipFile(out) as file:
        assert file.namelist() == ["test.json"]
        content = json.loads(file.read("test.json"))
    assert [content[name] for name in ("version", "challenge", "sls_pt", "sls_tl", "sls_td")] == [
        "0.2",
        "action_recognition",
        1,
        3,
        3,
    ]
    assert all(len(result["action"]) == 100 for result in content["results"].values())
    egochef("submit", "--check", out, "--data", toy_root)
    fails("submit", "--check", out, "--data", toy_root, "--split", "validation", message="s.zip")
    content["results"].popitem()
    with zipfile.ZipFile(out, "w") as file:
        file.writestr("test.json", json.dumps(content))
    fails("submit", "--check", out, "--data", toy_root, message="missing")


def test_scores_need_their_supervision_levels(run, toy_root, tmp_path):
    egochef("evaluate", "--checkpoint", run, "--data", toy_root, "--out", tmp_path)
    scores = tmp_path / "scores.npz"
    words = (
        "submit",
        "--scores",
        scores,
        "--split",
        "validation",
        "--data",
        toy_root,
        "--out",
        tmp_path / "z.zip",
    )
    fails(*words, message="--sls-pt")
    egochef(*words, "--sls_pt", 1, "--sls-tl", 3, "--sls-td", 3)


def test_predict(run, toy_root, tmp_path):
    video = next(toy_root.glob("videos_640x360/*/*.MP4"))
    log = tmp_path / "p.jsonl"
    told = json.loads(egochef("predict", video, "--checkpoint", run, "--hop", 1, "--log", log, "--json"))
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert lines and all(0 < line["action_prob"] <= 1 for line in lines)
    assert told["predictions"] == lines


def test_features_and_training_from_them(run, toy_root, tmp_path):
    kept, heads = tmp_path / "F", tmp_path / "heads"
    words = ("features", "--checkpoint", run, "--data", toy_root, "--out", kept, "--views", 1)
    told = json.loads(egochef(*words, "--json"))
    assert (told["num_views"], told["num_made"]) == (1, 2)
    assert told["spec"]["clip"] == json.loads((run / "config.json").read_text())["clip"]
    assert told["spec"]["augment"] == json.loads((run / "config.json").read_text())["augment"]
    assert "0 views made now" in egochef(*words)
    fails(*words, "--num-frames", 8, message="the checkpoint tells it")
    fails(*words, "--train-on", "test", message="train_on")
    train = ("train", "--recipe", "frames16", "--hidden-size", 16, "--epochs", 2, "--data", kept, "--out", heads)
    for flag, value in (("--num-frames", 8), ("--encoder", "resnet50"), ("--init", "none")):
        fails(*train, flag, value, message=f"made with {flag}")
    egochef(*train)
    egochef("evaluate", "--checkpoint", heads, "--data", toy_root)
    fails("evaluate", "--checkpoint", heads, "--data", kept, message="holds features, not pictures")
    fails("features", "--recipe", "toy", "--data", kept, "--out", tmp_path / "G", message="holds features already")
    fails("features", "--recipe", "toy", "--init", "none", "--data", toy_root, "--out", tmp_path, message="--init none")


def test_missing_things_are_one_line(run, toy_root, tmp_path):
    train = ("train", "--recipe", "toy", "--out", tmp_path / "run")
    fails(*train, "--data", tmp_path / "nowhere", message="no such folder")
    fails(*train, "--data", tmp_path, message="no annotations")
    fails(
        "train",
        "--recipe",
        "frames64",
        "--data",
        toy_root,
        "--out",
        tmp_path / "r",
        message="expected one of frames16",
    )
    fails("evaluate", "--data", toy_root, message="--checkpoint")
    fails("evaluate", "--checkpoint", tmp_path / "x", "--data", toy_root, message="no such checkpoint")
    fails("evaluate", "--checkpoint", run, "--data", toy_root, "--split", "test", message="no labels")
    fails("predict", tmp_path / "x.mp4", "--checkpoint", run, message="x.mp4")
    fails("submit", "--check", tmp_path / "x.zip", "--data", toy_root, message="x.zip")
    assert list(tmp_path.iterdir()) == []


def test_bad_files_are_one_line(run, toy_root, tmp_path):
    best = run / "checkpoints" / "best.safetensors"
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(best.read_bytes()[:5000])
    fails("evaluate", "--checkpoint", cut, "--data", toy_root, message="cut.safetensors")
    root = tmp_path / "kitchen"
    shutil.copytree(toy_root, root)
    video = next(root.glob("videos_640x360/*/*.MP4"))
    video.write_bytes(b"")
    fails("predict", video, "--checkpoint", run, message=video.name)
    for path in root.glob("videos_640x360/*/*.MP4"):
        path.write_bytes(b"")
    fails("evaluate", "--checkpoint", run, "--data", root, "--out", tmp_path / "e", message="segment ")
    assert not (tmp_path / "e").exists()
    fails("submit", "--checkpoint", run, "--data", root, "--out", tmp_path / "z.zip", message="segment ")
    assert not (tmp_path / "z.zip").exists()


def test_the_baseline_needs_weights_or_a_clear_wish(toy_root, tmp_path, monkeypatch):
    """Without a network (here: a proxy that nobody listens on) the reason and the way out are told."""
    words = ("train", "--recipe", "frames16", "--data", toy_root, "--out", tmp_path / "run", "--debug")
    for name, value in (
        ("EGOCHEF_CACHE", str(tmp_path / "cache")),
        ("https_proxy", "http://127.0.0.1:9"),
        ("no_proxy", ""),
    ):
        monkeypatch.setenv(name, value)
    fails(*words, message="--init none")
    assert not (tmp_path / "run").exists()


def test_output_that_cannot_be_written(run, toy_root, tmp_path):
    (tmp_path / "file").write_text("")
    fails(
        "evaluate",
        "--checkpoint",
        run,
        "--data",
        toy_root,
        "--out",
        tmp_path / "file",
        message="cannot be written",
    )


def test_traceback_on_request(tmp_path):
    done = process("toy", "--out", Path(__file__).parent, "--traceback")
    assert done.returncode == 1 and "Traceback" in done.stderr


def test_models_is_a_table_and_json(capsys):
    from egochef.model.encoders import ENCODERS
    from egochef.recipes import RECIPES

    assert main(["models", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["models"]
    assert [row["recipe"] for row in rows if row["recipe"] != "-"] == list(RECIPES)
    assert [row["encoder"] for row in rows if row["recipe"] == "-"] == list(ENCODERS)
    by_encoder = {row["encoder"]: row for row in rows if row["recipe"] == "-"}
    assert by_encoder["resnet50_tsm"]["gflops"] == pytest.approx(32.7, abs=0.05)
    assert by_encoder["resnet50_tsm"]["stream"] == "whole clips"
    assert main(["models", "--num-frames", "2", "--image-size", "64", "--temporal", "tcn"]) == 0
    text = capsys.readouterr().out
    assert "efficientnet_lite0_tsm_online" in text and "2 x 64 px" in text
    fails("models", "--temporal", "gru", message="model.temporal is 'gru'")


def test_convert_makes_a_checkpoint_that_evaluates(toy_root, tmp_path):
    """Half of the classes' rows of an official baseline's last layer would do harm: the order is verbs, then nouns."""
    import torch

    from egochef.model.resnet import ResNet50

    torch.manual_seed(0)
    state = ResNet50(num_classes=397).state_dict()
    state["fc.bias"][:97] = 100 * (torch.arange(97) == 3).float()
    state["fc.bias"][97:] = 100 * (torch.arange(300) == 1).float()
    state["fc.weight"].zero_()
    names = {name: name.replace("fc.", "new_fc.") if "fc." in name else f"base_model.{name}" for name in state}
    torch.save({"state_dict": {f"model.{names[name]}": each for name, each in state.items()}}, tmp_path / "tsn.ckpt")
    out = tmp_path / "tsn.safetensors"
    words = ("convert", tmp_path / "tsn.ckpt", "--data", toy_root, "--out", out)
    done = egochef(*words, "--std", 0.485, 0.456, 0.406, "--num-frames", 1)
    assert "resnet50, 1 frames of 224 px out of 256 px, mean 0.485, 0.456, 0.406, std 0.485, 0.456, 0.406" in done
    fails(*words, message="exists. Remove it")
    fails(*words[:-1], tmp_path / "x.pt", message="a checkpoint's name ends in .safetensors")
    egochef("evaluate", "--checkpoint", out, "--data", toy_root, "--out", tmp_path / "scores")
    from egochef.scoring.table import load_scores

    table = load_scores(tmp_path / "scores" / "scores.npz")
    assert set(table.verb_output.argmax(1)) == {3} and set(table.noun_output.argmax(1)) == {1}


def test_tune_on_people_held_out_and_score_with_it(toy_root, tmp_path):
    runs = []
    for seed in (0, 1):
        out = tmp_path / f"run{seed}"
        egochef(*TRAIN, "held_out=P01", "max_train_segments=4", "--seed", seed, "--data", toy_root, "--out", out)
        runs.append(out)
    tuned = tmp_path / "tuned.json"
    done = egochef("tune", "--checkpoint", *runs, "--data", toy_root, "--out", tuned)
    assert "prior strength" in done and "held-out segments" in done
    assert re.search(r"run1: weight [01]\.", done)  # all or nothing, or between, as it comes
    kept = json.loads(tuned.read_text())
    assert kept["participants"] == ["P01"] and sum(kept["weights"]) == pytest.approx(1, abs=1e-3)
    kept["prior_strength"] = 0.5
    tuned.write_text(json.dumps(kept))
    done = egochef("evaluate", "--checkpoint", *runs, "--data", toy_root, "--tuned", tuned, "--out", tmp_path / "e")
    assert "tuned ensemble of 2" in done
    from egochef.scoring.table import load_scores

    assert load_scores(tmp_path / "e" / "scores.npz").action_id.shape[1] == 100
    done = egochef("submit", "--checkpoint", *runs, "--data", toy_root, "--tuned", tuned, "--out", tmp_path / "z.zip")
    assert "100 actions each" in done
    scored = ("evaluate", "--checkpoint", *runs, "--data", toy_root, "--tuned", tuned)
    fails(*scored, "--split", "train", message="tuned.json: has learned from the labels of")
    fails(*scored[:2], runs[0], *scored[4:], message="1 members")
    tuned.write_text(json.dumps(kept | {"prior_splits": ["train", "validation"]}))
    fails(*scored, message="validation segments, so its score would be too good")
    tuned.write_text("{}")
    fails(*scored, message="not made by egochef tune")


def test_tune_needs_people_held_out(run, toy_root, tmp_path):
    words = ("tune", "--checkpoint", run, "--data", toy_root, "--out", tmp_path / "tuned.json")
    fails(*words, message="nobody): expected some, and the same ones, to tune on. Train with --set held_out=P01,P02.")
