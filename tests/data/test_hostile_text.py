"""Names, ids and narrations may be anything: what could drive a terminal or lead out of a folder is refused by name."""

import json
import logging
from dataclasses import replace

import numpy as np
import pytest
import torch

from egochef.clip import ClipSpec
from egochef.data.annotations import find_annotations, open_data_folder, read_class_names, read_split
from egochef.data.doctor import check_annotations
from egochef.data.pack import save_arrays
from egochef.data.prepare import prepare
from egochef.data.store import INDEX, INDEX_FILE, STORE_FILE, StoreAbout, StoreSpec, as_bytes, open_store
from egochef.engines.exported import ExportAbout, read_metadata
from egochef.errors import InputError
from egochef.files import crc32_of, write_json
from egochef.model.checkpoint import FORMAT, load_checkpoint, write_tensors
from egochef.model.recogniser import ModelConfig
from egochef.records import to_dict
from egochef.taxonomy import Taxonomy
from egochef.texts import has_controls

HOSTILE = [
    "a\x1b[2Jb",
    "a\nb",
    "a\x00b",
    "a\x07b",
    "a\x7fb",
    "a\x9bb",
    "a\u202eb",
    "a\u2028b",
    "a\u2067b",
    "x" * 100_000,
]
COLUMNS = (
    "narration_id,participant_id,video_id,narration_timestamp,start_timestamp,stop_timestamp,start_frame,stop_frame,"
    "narration,verb,verb_class,noun,noun_class"
)


def row(number, *, participant="P01", video="P01_01", narration="take cup"):
    quoted = '"' + narration.replace('"', '""') + '"'
    times = f"00:00:0{number}.00,00:00:0{number}.00,00:00:0{number + 1}.00,1,2"
    return f'"{video}_{number}","{participant}","{video}",{times},{quoted},take,0,cup,0'


@pytest.fixture
def root(tmp_path):
    """A data folder of three splits of a segment each, without videos."""
    root = tmp_path / "kitchen"
    folder = root / "epic-kitchens-100-annotations"
    folder.mkdir(parents=True)
    for kind, name in (("verb", "take"), ("noun", "cup")):
        (folder / f"EPIC_100_{kind}_classes.csv").write_text(f"id,key\n0,{name}\n")
        (folder / f"EPIC_100_tail_{kind}s.csv").write_text(f"{kind}\n0\n")
    for split in ("validation", "test"):
        (folder / f"EPIC_100_unseen_participant_ids_{split}.csv").write_text("participant_id\n")
    for number, name in enumerate(("train", "validation", "test_timestamps")):
        write_rows(root, name, row(number))
    return root


def write_rows(root, name, *rows):
    path = root / "epic-kitchens-100-annotations" / f"EPIC_100_{name}.csv"
    path.write_text("\n".join([COLUMNS, *rows]) + "\n", encoding="utf-8")
    return path


def faults_of(root):
    return {(fault.kind, fault.level) for fault in check_annotations(find_annotations(root))[1]}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_class_name_is_plain(tmp_path, root, name):
    path = root / "epic-kitchens-100-annotations" / "EPIC_100_verb_classes.csv"
    path.write_text(f'id,key\n0,take\n1,"{name}"\n', encoding="utf-8")
    with pytest.raises(
        InputError, match=r"EPIC_100_verb_classes.csv, row \d: key 'a?.* (holds control|is longer)"
    ) as told:
        open_data_folder(root)
    assert not has_controls(str(told.value))
    assert len(str(told.value)) < 500
    assert ("class-names", "error") in faults_of(root)
    with pytest.raises(InputError, match="noun 1: the name 'a?.* (holds control|is longer)"):
        Taxonomy(("take",), ("cup", name))


def test_thousands_of_classes_are_read(tmp_path):
    path = tmp_path / "EPIC_100_verb_classes.csv"
    path.write_text("id,key\n" + "".join(f"{k},verb {k}\n" for k in range(50_000)))
    assert len(read_class_names(path)) == 50_000


@pytest.mark.parametrize("name", ["\ud800", "take\x1b[2J"])
def test_a_checkpoint_is_plain(tmp_path, name):
    path = tmp_path / "best.safetensors"
    write_tensors(path, {"a": torch.zeros(1)}, {"format": FORMAT, "verbs": ["take", name], "nouns": ["cup"]})
    with pytest.raises(InputError, match=r"best.safetensors: its header holds control characters: '.*\\(ud800|x1b)"):
        load_checkpoint(path)
    header = {"format": FORMAT, "model": to_dict(ModelConfig()), "clip": {}, "verbs": ["x" * 300], "nouns": ["cup"]}
    header |= {"recipe": "toy", "initial_weights": "none", "train_on": ["train"], "scores": {}}
    write_tensors(path, {"a": torch.zeros(1)}, header)
    with pytest.raises(InputError, match=r"best.safetensors: .*verb 0: the name .* is longer than 200 characters"):
        load_checkpoint(path)


def test_an_exported_model_is_plain(tmp_path):
    about = ExportAbout(
        part="clip",
        precision="fp32",
        checkpoint="0" * 64,
        recipe="toy",
        encoder="resnet50",
        temporal="mean",
        num_features=8,
        num_parameters=8,
        license="",
        initial_weights="none",
        train_on=("train",),
        clip=ClipSpec(),
        verbs=("take",),
        nouns=("cup",),
    )
    assert read_metadata(about.to_json(), tmp_path / "a.onnx") == about
    for name, what in (("take\x1b[2J", "control characters"), ("x" * 300, "longer than 200")):
        text = json.dumps(to_dict(about) | {"verbs": [name]})
        with pytest.raises(InputError, match=rf"a.onnx: .*{what}") as told:
            read_metadata(text, tmp_path / "a.onnx")
        assert not has_controls(str(told.value))


def test_narrations_are_written_out_and_counted(root, caplog):
    write_rows(root, "train", row(3), row(4, narration="take\x1b[2J\ncup"), row(5, narration='a "b" \u202eü'))
    with caplog.at_level(logging.WARNING):
        segments = read_split(open_data_folder(root), "train")
    assert [segment.narration for segment in segments] == ["take cup", "take\\x1b[2J\\ncup", 'a "b" \\u202eü']
    assert "EPIC_100_train.csv: 2 narrations hold control characters" in caplog.text
    assert "the first in row" in caplog.text
    assert faults_of(root) >= {("row-narration", "warning")}


@pytest.mark.parametrize(
    ("participant", "video", "what"),
    [
        ("../../etc", "../../etc_passwd", "holds '/'"),
        ("..", ".._01", "begins with '.'"),
        ("P01", "P01_/../../x", "holds '/'"),
        ("P01", "P01_\\x", r"holds '\\\\'"),
        ("P01", "P01_a*", r"holds '\*'"),
        ("P01", "P01_\x1b[2J", "holds control characters"),
        ("P01", "P01_\nx", "holds control characters"),
        ("P01", "P01_" + "x" * 300, "is longer than 200 characters"),
    ],
)
def test_ids_lead_nowhere(root, participant, video, what):
    write_rows(root, "train", row(0), row(1, participant=participant, video=video))
    with pytest.raises(InputError, match=rf"EPIC_100_train.csv: row \d: narration_id .* {what}, and files are named"):
        read_split(open_data_folder(root), "train")
    assert ("row-value", "error") in faults_of(root)


def test_the_lists_of_participants_are_plain(root):
    path = root / "epic-kitchens-100-annotations" / "EPIC_100_unseen_participant_ids_validation.csv"
    path.write_text("participant_id\nP01\x1b[2J\n")
    with pytest.raises(InputError, match=r"row 2: participant_id 'P01\\x1b\[2J' holds control characters"):
        open_data_folder(root)
    assert ("list-value", "error") in faults_of(root)


def test_a_store_leads_nowhere(tmp_path):
    root = tmp_path / "store"
    about = StoreAbout(StoreSpec(), "videos", (), (), finished=True)
    arrays = {name: np.zeros((1, 4), np.uint8) for name in INDEX} | {"video_id": as_bytes(["../x_1"])}
    save_arrays(root / INDEX_FILE, arrays)
    write_json(root / STORE_FILE, to_dict(replace(about, index_crc32=crc32_of(root / INDEX_FILE))))
    with pytest.raises(InputError, match=r"index.safetensors: video_id '../x_1' holds '/'"):
        open_store(root)


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_an_id_in_two_splits_is_refused(root, split):
    folder = open_data_folder(root)
    assert read_split(folder, split)
    for name in ("train", "validation", "test_timestamps"):
        write_rows(root, name, row(1), row(7))
    name = {"test": "test_timestamps"}.get(split, split)
    where = rf"EPIC_100_{name}.csv: row 2: narration_id 'P01_01_1' stands in EPIC_100_\w+.csv, row 2 too"
    with pytest.raises(InputError, match=where) as told:
        read_split(folder, split)
    assert "row 3" in str(told.value)
    assert "one split" in str(told.value)
    with pytest.raises(InputError, match="narration_id 'P01_01_1' stands in"):
        prepare(root, root.parent / "store", StoreSpec(), splits=[split])
    assert ("id-in-two-splits", "error") in faults_of(root)


def test_another_split_that_cannot_be_read_is_another_matter(root):
    write_rows(root, "train", '"')
    assert read_split(open_data_folder(root), "validation")
    with pytest.raises(InputError, match=r"EPIC_100_train.csv"):
        read_split(open_data_folder(root), "train")
