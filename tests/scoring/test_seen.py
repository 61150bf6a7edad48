"""Labels that a model has learned from: what scores them says so, or refuses."""

import json

import numpy as np
import pytest
from in_process import egochef, fails
from score_commands import save_for, table_of

from egochef.data.annotations import open_data_folder, read_split
from egochef.model.checkpoint import BEST
from egochef.report.explorer.server import read_index
from egochef.scoring.table import load_scores, save_scores
from egochef.training.runfiles import CONFIG

SAID = "has learned from the labels of"


@pytest.fixture(scope="module")
def runs(toy_root, tmp_path_factory):
    """Runs by what they were trained on."""
    folder = tmp_path_factory.mktemp("runs")
    taxonomy = open_data_folder(toy_root).taxonomy
    abouts = {
        "train": {},
        "both": {"train_on": ("train", "validation")},
        "held": {"held_out": ("P01",)},
    }
    for name, about in abouts.items():
        save_for(folder / name / BEST, taxonomy, **about)
        (folder / name / CONFIG).write_text("{}")
    return {name: folder / name for name in abouts}


def evaluated(*words):
    return json.loads(egochef("evaluate", *words, "--json"))


def test_seen_labels_are_scored_only_on_request_and_told(runs, toy_root, tmp_path):
    data, out = ("--data", toy_root), tmp_path / "e"
    num = len(read_split(open_data_folder(toy_root), "validation"))
    words = ("evaluate", "--checkpoint", runs["train"], runs["both"], *data, "--out", out)
    fails(*words, message=f"{runs['both']}: {SAID} {num} of these {num} validation segments, so its score would be too")
    assert not out.exists()
    done = egochef(*words, "--seen")
    assert f"too good: {runs['both']} learned from labels that are scored here" in done
    told = json.loads((out / "metrics.json").read_text())
    assert told["labels_seen_by"] == [str(runs["both"])] and told["labels_seen_not_told_by"] == []
    assert told["num_segments"] == num

    scores = out / "scores.npz"  # they carry it along
    fails("evaluate", "--scores", scores, *data, message=f"{scores}: {SAID} {num} of these {num}")
    again = evaluated("--scores", scores, *data, "--seen")
    assert again["labels_seen_by"] == [str(scores)]
    assert {name: each for name, each in again.items() if "labels" not in name}.items() <= told.items()

    clean = evaluated("--checkpoint", runs["train"], *data, "--out", out)
    assert (clean["labels_seen_by"], clean["labels_seen_not_told_by"]) == ([], [])
    assert evaluated("--scores", scores, *data) == clean


def test_people_held_out_are_not_seen(runs, toy_root, tmp_path):
    data, out = ("--data", toy_root, "--split", "train"), tmp_path / "e"
    segments = read_split(open_data_folder(toy_root), "train")
    num_seen = sum(segment.participant_id != "P01" for segment in segments)
    assert 0 < num_seen < len(segments)
    words = ("evaluate", "--checkpoint", runs["held"], *data)
    fails(*words, message=f"{SAID} {num_seen} of these {len(segments)} train segments")
    fails(*words[:2], runs["train"], *data, message=f"{SAID} {len(segments)} of these {len(segments)} train")
    alone = evaluated(*words[1:], "--participants", "P01", "--out", out)
    assert alone["labels_seen_by"] == [] and alone["num_segments"] == len(segments) - num_seen
    egochef(*words, "--seen", "--out", out)
    table = load_scores(out / "scores.npz")
    assert (table.seen == [segment.participant_id != "P01" for segment in segments]).all()
    assert evaluated("--scores", out / "scores.npz", *data, "--participants", "P01") == alone, "of everybody's scores"


def test_scores_from_elsewhere_do_not_tell(toy_root, tmp_path):
    """Nor do those of earlier versions, which have no such key: unknown is not unseen, and no reason to refuse."""
    scores = tmp_path / "old.npz"
    save_scores(scores, table_of(toy_root, "validation"))
    with np.load(scores) as file:
        assert "seen" not in file.files
    told = evaluated("--scores", scores, "--data", toy_root)
    assert (told["labels_seen_by"], told["labels_seen_not_told_by"]) == ([], [str(scores)])
    done = egochef("evaluate", "--scores", scores, "--data", toy_root)
    assert f"not told: whether {scores} learned from labels that are scored here" in done


def test_a_tuning_has_seen_the_people_it_was_tuned_on(runs, toy_root, tmp_path):
    tuned, data = tmp_path / "tuned.json", ("--data", toy_root)
    egochef("tune", "--checkpoint", runs["held"], *data, "--out", tuned)
    kept = json.loads(tuned.read_text()) | {"prior_strength": 0.0}
    tuned.write_text(json.dumps(kept))
    words = ("--checkpoint", runs["held"], *data, "--tuned", tuned)
    assert evaluated(*words)["labels_seen_by"] == []
    held_out = (*words, "--split", "train", "--participants", "P01")
    fails("evaluate", *held_out, message=f"{tuned}: {SAID}")
    assert evaluated(*held_out, "--seen")["labels_seen_by"] == [str(tuned)]
    kept["prior_strength"] = 0.5
    tuned.write_text(json.dumps(kept))
    assert evaluated(*words)["labels_seen_by"] == []
    tuned.write_text(json.dumps(kept | {"prior_splits": ["train", "validation"]}))
    fails("evaluate", *words, message=f"{tuned}: {SAID}")
    assert evaluated(*words, "--seen")["labels_seen_by"] == [str(tuned)]
    done = egochef("submit", *words, "--sls-pt", 0, "--out", tmp_path / "z.zip")
    assert "valid" in done, "a submission is no score"


def test_a_run_trained_on_validation_too_submits_as_ever(runs, toy_root, tmp_path):
    assert "SLS 0 3 4" in egochef(
        "submit", "--checkpoint", runs["both"], "--data", toy_root, "--out", tmp_path / "z.zip"
    )


def test_the_explorer_marks_seen_labels(runs, toy_root):
    index = read_index(toy_root, [runs["train"], runs["both"]], device="cpu")
    assert [run.name for run in index.predictions] == ["train", "both (labels seen)"]
    index = read_index(toy_root, [runs["train"]], ["train"], device="cpu")
    assert [run.name for run in index.predictions] == ["train (labels seen)"]
