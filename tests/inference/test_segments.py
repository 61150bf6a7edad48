"""Runs of shown actions, and their rows in EK-100's layout, which our own reader takes."""

import csv
from pathlib import Path

import pytest

from egochef.data.annotations import open_data_folder, parse_split
from egochef.errors import InputError
from egochef.inference.prediction import Prediction
from egochef.inference.segments import SegmentWriter, check_ids, ek100_ids, join_runs
from egochef.taxonomy import Taxonomy

TAXONOMY = Taxonomy(("take", "put", "open"), ("cup", "board:chopping", "drawer"))
NOTHING = (("take", 0.1),)


def said(time_s, ids=None, prob=0.0):
    name = None if ids is None else TAXONOMY.action_name(*ids)
    return Prediction(time_s, NOTHING, NOTHING, NOTHING, name, ids, prob)


STORY = [
    said(0.25, (2, 2), 0.5),
    said(0.75, (2, 2), 0.7),
    said(1.25),
    said(1.75, (0, 0), 0.9),
    said(2.75, (0, 1), 0.4),
    said(3.25),
]


def test_runs_meet_halfway_and_cover_the_video():
    runs = join_runs(STORY, 3.6)
    assert [(run.start_s, run.stop_s, run.shown) for run in runs] == [
        (0.0, 1.0, "open drawer"),
        (1.0, 1.5, None),
        (1.5, 2.25, "take cup"),
        (2.25, 3.0, "take board:chopping"),
        (3.0, 3.6, None),
    ]
    assert [run.prob for run in runs] == pytest.approx([0.6, 0.0, 0.9, 0.4, 0.0])
    assert [run.ids for run in runs] == [(2, 2), None, (0, 0), (0, 1), None]


def test_an_unknown_end_is_half_a_gap_after_the_last_prediction():
    assert join_runs(STORY)[-1].stop_s == 3.5
    assert join_runs(STORY, 3.0)[-1].stop_s == 3.25  # a header that is wrong: never before what was seen
    assert join_runs([]) == []
    (only,) = join_runs([said(0.4, (0, 0), 0.5)], 0.8)
    assert (only.start_s, only.stop_s, only.prob) == (0.0, 0.8, 0.5)


def write(path, stories, taxonomy=TAXONOMY, fps=None):
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = SegmentWriter(file, taxonomy)
        for video, story in stories:
            for run in join_runs(story, 3.6):
                writer.add(video, run, fps)
    return path


def test_our_reader_takes_the_rows(tmp_path, toy_root):
    """A file of shown actions stands in for a split of a data folder."""
    taxonomy = open_data_folder(toy_root).taxonomy
    path = write(tmp_path / "s.csv", [(Path("x/P01_11.MP4"), STORY), (Path("kitchen.mp4"), STORY[:2])], taxonomy)
    segments, faults = parse_split(path, taxonomy, labelled=True)
    assert faults == []
    assert [(s.narration_id, s.participant_id, s.video_id, s.start_s, s.stop_s, s.verb, s.noun) for s in segments] == [
        ("P01_11_0", "P01", "P01_11", 0.0, 1.0, 2, 2),
        ("P01_11_1", "P01", "P01_11", 1.5, 2.25, 0, 0),
        ("P01_11_2", "P01", "P01_11", 2.25, 3.0, 0, 1),
        ("kitchen_1_0", "kitchen", "kitchen_1", 0.0, 3.6, 2, 2),
    ]
    assert [s.narration for s in segments] == ["open drawer", "take cup", "take board:chopping", "open drawer"]
    assert segments[1].stop_frame == 135


def test_columns_are_the_official_ones_and_confidence(tmp_path, ek100_annotations):
    with (ek100_annotations / "EPIC_100_validation.csv").open(newline="", encoding="utf-8") as file:
        official = next(csv.reader(file))
    rows = list(csv.DictReader(write(tmp_path / "s.csv", [(Path("P01_11.MP4"), STORY)], fps=50.0).open(newline="")))
    assert list(rows[0]) == [*official, "confidence"]
    assert rows[2] == {
        "narration_id": "P01_11_2",
        "participant_id": "P01",
        "video_id": "P01_11",
        "narration_timestamp": "00:00:02.250",
        "start_timestamp": "00:00:02.250",
        "stop_timestamp": "00:00:03.000",
        "start_frame": "112",
        "stop_frame": "150",
        "narration": "take board:chopping",
        "verb": "take",
        "verb_class": "0",
        "noun": "board:chopping",
        "noun_class": "1",
        "all_nouns": "['board:chopping']",
        "all_noun_classes": "[1]",
        "confidence": "0.4",
    }


def test_ids_come_from_the_file_name():
    assert ek100_ids(Path("/d/P01_101.MP4")) == ("P01", "P01_101")
    assert ek100_ids(Path("my_own_film.mov")) == ("my", "my_own_film")
    for name in ("kitchen", "_kitchen"):
        assert ek100_ids(Path(f"{name}.mp4")) == (name, f"{name}_1")
    check_ids([Path("a/P01_1.mp4"), Path("a/P01_2.mp4"), Path("a/P01_1.mp4")])
    with pytest.raises(InputError, match=r"b/P01_1.mkv and a/P01_1.mp4: two videos of one name"):
        check_ids([Path("a/P01_1.mp4"), Path("b/P01_1.mkv")])
