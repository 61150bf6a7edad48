"""The model card tells what the run's files have, in YAML and Markdown that others can read."""

import dataclasses
import json
import os
import shlex
import shutil
import subprocess
import sys

import pytest
import torch
from conftest import need
from tiny_runs import TINY

from egochef.errors import InputError, Stopped
from egochef.files import write_json
from egochef.model.checkpoint import load_checkpoint, read_tensors, write_tensors
from egochef.records import to_dict
from egochef.training.card import best_evaluation, describe_start, git_commit, read_header, read_sessions, write_card
from egochef.training.config import load_config
from egochef.training.loop import train
from egochef.training.runfiles import read_log


@pytest.fixture
def run(tiny_run, tmp_path):
    return shutil.copytree(tiny_run, tmp_path / tiny_run.name)


def front_matter(path):
    try:
        import yaml
    except ImportError:
        yaml = None
    need(yaml is not None, "PyYAML (comes with the extra `track`)")
    start, head, body = path.read_text().split("---\n", 2)
    assert start == "" and body.startswith("\n# ")
    return yaml.safe_load(head)


def start_of(**changes):
    return describe_start(device=torch.device("cpu"), num_ranks=1, precision="fp32", resumed_step=0) | changes


def change_header(run, **changes):
    """Let the best checkpoint's header have other fields."""
    path = run / "checkpoints" / "best.safetensors"
    tensors, header = read_tensors(path)
    write_tensors(path, tensors, header | changes)


def change_config(run, **changes):
    config = json.loads((run / "config.json").read_text())
    write_json(run / "config.json", config | changes)


def put_session(run, **changes):
    (run / "sessions.jsonl").write_text(json.dumps(start_of(**changes)) + "\n")


def test_the_header_is_read_without_the_weights(run):
    path = run / "checkpoints" / "best.safetensors"
    header = read_header(path)
    recogniser, about = load_checkpoint(run)
    assert header.num_parameters == sum(p.numel() for p in recogniser.parameters())
    assert header.fields["scores"] == about.scores and header.num_bytes == path.stat().st_size
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(InputError, match="not a whole safetensors file"):
        read_header(path)
    path.write_bytes(b"{}")
    with pytest.raises(InputError, match="not a whole safetensors file"):
        read_header(path)


def test_the_card_of_a_toy_run(run, toy_root):
    with (run / "sessions.jsonl").open("w") as file:
        first = start_of(host="one", git_commit="abc-dirty", data=str(toy_root), num_segments={"train": 8})
        first["dataset"] = "ToyKitchen"
        second = start_of(host="two", git_commit="abc", num_ranks=2, dataset="ToyKitchen")
        file.write(json.dumps(first) + "\n")
        file.write(json.dumps(second) + "\n{cut off")
    path = write_card(run)
    assert path == run / "MODEL_CARD.md"
    assert "model-index" not in front_matter(path), "a part of validation was scored: no score of the dataset"
    change_config(run, max_validation_segments=None)
    write_card(run)
    head, text = front_matter(path), path.read_text()
    best = best_evaluation(read_log(run))
    _, about = load_checkpoint(run)
    assert "license" not in head and "toykitchen" in head["tags"]
    assert (head["library_name"], head["pipeline_tag"]) == ("egochef", "video-classification")
    (result,) = head["model-index"][0]["results"]
    assert head["model-index"][0]["name"] == run.name and result["dataset"]["name"] == "ToyKitchen"
    shown = {metric["name"]: metric["value"] for metric in result["metrics"]}
    assert shown["all_action_accuracy_at_1"] == round(about.scores["all_action_accuracy_at_1"], 2)
    for part in (
        f"after epoch {best['epoch']}, the best by action",
        f"| all, top-1 | {about.scores['all_verb_accuracy_at_1']:.2f} |",
        "- Recipe: `tiny`",
        "`efficientnet_lite0` on each frame, which started from weights trained on ImageNet",
        f"{read_header(run / 'checkpoints' / 'best.safetensors').num_parameters:,} parameters",
        "2 RGB frames",
        "centre crop of 64 x 64",
        "- Dataset: ToyKitchen",
        "- Trained on the splits: train",
        f"- Read from: `{toy_root}`",
        "- Segments: train 8",
        "- 2 epochs of at most 2, 4 steps",
        "- Starts: 2, 1 of them after an interruption",
        "- Machines: one, two",
        "- Code: abc-dirty, abc",
        "- Precision: fp32",
        f"torch {torch.__version__}",
        "- Steps skipped because their numbers were not finite: 0",
        "- Training samples that could not be read: none",
        "ToyKitchen is drawn by a program",
        "    clip.num_frames = 2",
        "    lr = 0.001",
    ):
        assert part in text, part
    assert f"egochef evaluate --checkpoint {shlex.quote(str(run))} --data TOY" in text


def test_the_card_of_an_ek100_run(run):
    put_session(run, dataset="EPIC-KITCHENS-100")
    change_config(run, max_validation_segments=None)
    change_header(run, datasets=["EPIC-KITCHENS-100"])
    head = front_matter(write_card(run))
    assert head["model-index"][0]["results"][0]["dataset"]["name"] == "EPIC-KITCHENS-100"
    change_header(run, train_on=["train", "validation"])
    head, text = front_matter(write_card(run)), (run / "MODEL_CARD.md").read_text()
    assert head["license"] == "cc-by-nc-4.0" and "epic-kitchens-100" in head["tags"] and "model-index" not in head
    assert "for non-commercial research" in text.replace("\n", " ")
    assert "None: the validation split was trained on, and scores on it would be of labels that the model" in text
    assert "- Dataset: EPIC-KITCHENS-100\n- Trained on the splits: train, validation" in text


def test_the_card_of_other_data_names_no_dataset_and_no_licence(run):
    change_config(run, max_validation_segments=None)
    put_session(run)
    change_header(run, datasets=["unknown"])
    head, text = front_matter(write_card(run)), (run / "MODEL_CARD.md").read_text()
    assert not {"license", "model-index"} & set(head) and head["tags"] == ["action-recognition", "egocentric-video"]
    assert "EPIC" not in text and "Toy" not in text and "- Dataset: unknown\n" in text
    assert "--data DATA" in text and "does not know this dataset" in text and "| all, top-1 |" in text
    change_header(run, datasets=["EPIC-KITCHENS-100", "unknown"], initial_weights="ek100.safetensors")
    head, text = front_matter(write_card(run)), (run / "MODEL_CARD.md").read_text()
    assert head["license"] == "cc-by-nc-4.0" and "model-index" not in head, "what it started from counts"
    assert "started from have learned from: EPIC-KITCHENS-100" in text and "weights in `ek100.safetensors`" in text


def test_a_run_on_other_classes_tells_its_own(toy_root, tmp_path):
    """In its card and its config.json, which starts a run on other data all the same."""
    root, run = tmp_path / "kitchen", tmp_path / "run"
    shutil.copytree(toy_root, root, copy_function=os.link)
    for kind, number in (("verb", 25), ("noun", 120)):  # the drawn ones are among them
        path = root / "epic-kitchens-100-annotations" / f"EPIC_100_{kind}_classes.csv"
        rows = path.read_text().splitlines(keepends=True)
        path.unlink()
        path.write_text("".join(rows[: number + 1]))
    model = dataclasses.replace(TINY.model, joint=True)
    config = dataclasses.replace(TINY, model=model, frozen_encoder=True, epochs=1, max_train_segments=4)
    train(config, root, run)
    kept = load_config(run / "config.json")
    assert kept == dataclasses.replace(config, model=dataclasses.replace(model, num_verbs=25, num_nouns=120))
    text = (run / "MODEL_CARD.md").read_text()
    assert "a verb (25 classes) and a noun (120)" in text and "    model.num_nouns = 120\n" in text
    assert "EPIC-KITCHENS" not in text and "ToyKitchen" not in text
    write_json(run / "config.json", to_dict(config))  # as older versions wrote it
    assert train(config, root, run, resume=True).finished
    with pytest.raises(Stopped):
        train(kept, toy_root, tmp_path / "other", on_step=lambda progress: True)
    assert load_config(tmp_path / "other" / "config.json").model.num_nouns == 300


def test_what_was_lost_is_counted_once(run):
    lines = list(read_log(run))
    lines[0] |= {"skipped": 1, "unreadable": {"P01_01": 1}}
    for line in lines:
        if line["kind"] == "epoch" and line["epoch"] == 1:
            line["unreadable"] = {"P01_01": 2}
    lines.append({"kind": "step", "epoch": 3, "step": 5, "skipped": 1, "unreadable": {"P01_02": 3}})
    (run / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    text = write_card(run).read_text()
    assert "not finite: 2\n" in text
    assert "could not be read and were replaced: 5\n  - `P01_02`: 3\n  - `P01_01`: 2\n" in text


def test_files_and_fields_may_be_absent(run):
    (run / "log.jsonl").unlink()
    (run / "sessions.jsonl").write_text('{}\n{"host": null, "devices": [1], "versions": 3}\n[]\n\xff\n')
    assert "- Starts: 2, 1 of them" in write_card(run).read_text()
    (run / "sessions.jsonl").unlink()
    text = write_card(run).read_text()
    assert read_sessions(run) == [] and "Starts" not in text and "after the epoch kept, the best by action" in text
    front_matter(run / "MODEL_CARD.md")
    (run / "checkpoints" / "best.safetensors").unlink()
    with pytest.raises(InputError, match=r"best\.safetensors: not a whole safetensors file"):
        write_card(run)


def git(folder, *words):
    identity = ["-c", "user.name=x", "-c", "user.email=x@example.org", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", "-C", folder, *identity, *words], check=True, capture_output=True)


def test_the_commit_is_the_one_that_the_package_lies_in(tmp_path, monkeypatch):
    need(shutil.which("git") is not None, "git")
    package = tmp_path / "src" / "package"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    assert git_commit(package) is None  # no checkout
    git(tmp_path, "init", "-q")
    assert git_commit(package) is None  # installed below somebody's checkout, and no part of it
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "one")
    monkeypatch.setenv("GIT_DIR", "/nowhere")
    commit = git_commit(package)
    assert len(commit) == 40 and set(commit) <= set("0123456789abcdef")
    (package / "new.py").write_text("")
    assert git_commit(package) == f"{commit}-dirty"
    (package / "new.py").unlink()
    (package / "__init__.py").write_text("x = 1\n")
    assert git_commit(package) == f"{commit}-dirty"
    monkeypatch.setenv("PATH", str(tmp_path))
    assert git_commit(package) is None


def test_what_is_noted_of_a_start(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/usr/bin/egochef", "train", "--out", "my run"])
    start = describe_start(data=tmp_path, device=torch.device("cpu"), num_ranks=2, precision="bf16", resumed_step=7)
    assert json.loads(json.dumps(start)) == start
    assert start["command"] == "egochef train --out 'my run'" and start["data"] == str(tmp_path)
    assert (start["ranks"], start["precision"], start["resumed_step"]) == (2, "bf16", 7)
    assert len(start["devices"]) == 2 and start["devices"][0]
    assert set(start["versions"]) == {"egochef", "python", "torch", "cuda"}
    assert start["started"].endswith("+00:00")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert start_of()["git_commit"] is None
