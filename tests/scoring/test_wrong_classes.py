"""Scores and checkpoints of other classes than the data's: each command that takes them refuses them, by one check."""

import dataclasses
import json
import zipfile

import pytest
from in_process import egochef, fails
from score_commands import save_for, table_of

from egochef.data.annotations import open_data_folder, read_split
from egochef.model.checkpoint import BEST
from egochef.report.scores import read_scores
from egochef.scoring.submission import SLS, write_submission
from egochef.scoring.table import save_scores
from egochef.taxonomy import Taxonomy
from egochef.training.runfiles import CONFIG

LEVELS = ("--sls-pt", 0, "--sls-tl", 3, "--sls-td", 3)
WRONG = {"few": (94, 300), "many": (102, 300), "nouns": (97, 299), "both": (3, 5), "swapped": (300, 97)}


@pytest.fixture(scope="module")
def files(toy_root, tmp_path_factory):
    """Files of scores by split and name, `right` among them."""
    folder = tmp_path_factory.mktemp("scores")
    found = {}
    for split in ("validation", "test"):
        for name, counts in {"right": (97, 300), **WRONG}.items():
            found[split, name] = folder / f"{split}-{name}.npz"
            save_scores(found[split, name], table_of(toy_root, split, *counts))
    return found


def fault_of(path, name, root):
    """What is said of a file."""
    swapped = ": verb and noun are swapped" if name == "swapped" else ""
    counts = "{} verbs and {} nouns".format(*WRONG[name])
    return f"{path}: {counts}, but {root} has 97 and 300{swapped}. Give scores of the same classes."


@pytest.mark.parametrize("name", WRONG)
def test_scores_of_other_classes_are_refused(files, toy_root, tmp_path, name):
    right, wrong = files["validation", "right"], files["validation", name]
    data, said = ("--data", toy_root), fault_of(wrong, name, toy_root)
    fails("evaluate", "--scores", wrong, *data, "--out", tmp_path / "e", message=said)
    fails("evaluate", "--scores", right, wrong, *data, "--out", tmp_path / "e", message=said)
    fails("report", wrong, *data, "--out", tmp_path / "r", message=said)
    fails("explore", "--run", wrong, *data, "--port", 0, "--no-browser", message=said)
    wrong = files["test", name]
    words = ("submit", "--scores", wrong, *data, "--out", tmp_path / "z.zip", *LEVELS)
    fails(*words, message=fault_of(wrong, name, toy_root))
    assert list(tmp_path.iterdir()) == []


def test_a_valid_zip_outlives_wrong_scores(files, toy_root, tmp_path):
    out = tmp_path / "z.zip"
    words = ("submit", "--data", toy_root, "--out", out, *LEVELS, "--scores")
    assert "valid" in egochef(*words, files["test", "right"])
    before = out.read_bytes()
    fails(*words, files["test", "swapped"], message="verb and noun are swapped")
    fails(*words, files["validation", "right"], message="validation-right.npz does not fit")
    assert out.read_bytes() == before and list(tmp_path.iterdir()) == [out]
    egochef("submit", "--check", out, "--data", toy_root)


@pytest.mark.parametrize("name", WRONG)
def test_a_zip_of_other_classes_is_refused(toy_root, tmp_path, name):
    table, out = table_of(toy_root, "test", *WRONG[name]), tmp_path / "z.zip"
    write_submission(out, table, SLS(0, 3, 3), table.narration_id)
    said = fault_of("", name, "the data").removeprefix(": ").removesuffix(". Give scores of the same classes.")
    fails("submit", "--check", out, "--data", toy_root, message=f"z.zip: not a valid submission. {said} (in each")


def test_a_zip_whose_segments_differ_names_keys_as_before(toy_root, tmp_path):
    table, out = table_of(toy_root, "test"), tmp_path / "z.zip"
    write_submission(out, table, SLS(0, 3, 3), table.narration_id)
    with zipfile.ZipFile(out) as archive:
        content = json.loads(archive.read("test.json"))
    del content["results"][table.narration_id[0]]["verb"]["96"]
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("test.json", json.dumps(content))
    fails("submit", "--check", out, "--data", toy_root, message="not a valid submission. a verb key is missing (P")


# ---- checkpoints


@pytest.mark.parametrize("kind", ["fewer", "swapped", "renamed"])
def test_checkpoints_of_other_classes_are_refused(files, toy_root, tmp_path, kind):
    ours = open_data_folder(toy_root).taxonomy
    taxonomy, fault = {
        "fewer": (Taxonomy(ours.verbs[:90], ours.nouns), f"90 verbs and 300 nouns, but {toy_root} has 97 and 300."),
        "swapped": (Taxonomy(ours.nouns, ours.verbs), "has 97 and 300: verb and noun are swapped."),
        "renamed": (
            Taxonomy((*ours.verbs[:3], "defenestrate", *ours.verbs[4:]), ours.nouns),
            f"its verb 3 is 'defenestrate', in {toy_root} it is '{ours.verbs[3]}'.",
        ),
    }[kind]
    run = tmp_path / "run"
    save_for(run / BEST, taxonomy, held_out=("P01",))
    (run / CONFIG).write_text("{}")
    data = ("--data", toy_root)
    said = f"{run}: {fault if kind != 'swapped' else ''}"
    for words in (
        ("evaluate", "--checkpoint", run, *data),
        ("submit", "--checkpoint", run, *data, "--out", tmp_path / "z.zip"),
        ("tune", "--checkpoint", run, *data, "--out", tmp_path / "tuned.json"),
        ("explore", "--run", run, *data, "--port", 0, "--no-browser"),
    ):
        fails(*words, message=said)
        fails(*words, message=fault)
    # scores that were kept when the data had the checkpoint's classes do not get around it
    folder, right = open_data_folder(toy_root), table_of(toy_root, "validation")
    other = dataclasses.replace(folder, taxonomy=taxonomy)
    segments = read_split(folder, "validation")
    read_scores([run], other, "validation", segments, device="cpu")
    (kept,) = (run / "scores").iterdir()
    save_scores(kept, right)
    fails("explore", "--run", run, *data, "--port", 0, "--no-browser", message=fault)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]
