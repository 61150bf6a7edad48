"""The annotation files: the official columns, ids and formats."""

import ast
import csv
from collections import Counter
from pathlib import Path

import pytest

from egochef.toykitchen import ToyConfig
from egochef.toykitchen.annotations import FOLDER, tail_classes, timestamp, write_annotations
from egochef.toykitchen.classes import NOUNS, VERBS
from egochef.toykitchen.script import plan_kitchen

FILES = (
    "train",
    "validation",
    "test_timestamps",
    "verb_classes",
    "noun_classes",
    "tail_verbs",
    "tail_nouns",
    "unseen_participant_ids_validation",
    "unseen_participant_ids_test",
    "video_info",
)


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The annotations of a whole default kitchen, without its videos."""
    root = tmp_path_factory.mktemp("annotations")
    config = ToyConfig()
    write_annotations(root, plan_kitchen(config), config)
    return root / FOLDER


@pytest.mark.parametrize("name", FILES)
def test_columns_are_the_official_ones(written: Path, ek100_annotations: Path, name: str):
    ours, theirs = (folder / f"EPIC_100_{name}.csv" for folder in (written, ek100_annotations))
    assert ours.read_text().splitlines()[0] == theirs.read_text().splitlines()[0]
    assert len(rows(ours)) > 0


def test_there_are_no_other_files(written: Path):
    assert sorted(path.name for path in written.iterdir()) == sorted(f"EPIC_100_{name}.csv" for name in FILES)


@pytest.mark.parametrize(("name", "drawn", "number"), [("verb", VERBS, 97), ("noun", NOUNS, 300)])
def test_drawn_classes_have_official_ids_and_keys(
    written: Path, ek100_annotations: Path, name: str, drawn: dict[str, int], number: int
):
    ours = rows(written / f"EPIC_100_{name}_classes.csv")
    theirs = rows(ek100_annotations / f"EPIC_100_{name}_classes.csv")
    assert [row["id"] for row in ours] == [str(i) for i in range(number)] == [row["id"] for row in theirs]
    for key, class_id in drawn.items():
        assert ours[class_id]["key"] == key == theirs[class_id]["key"]
        assert key in ast.literal_eval(ours[class_id]["instances"])
    placeholders = [row for row in ours if row["key"] not in drawn]
    assert all(row["key"] == f"{name}{row['id']}" for row in placeholders)
    assert len({row["key"] for row in ours}) == number


def test_rows_agree_with_themselves(written: Path):
    fps = {row["video_id"]: float(row["fps"]) for row in rows(written / "EPIC_100_video_info.csv")}
    duration = {row["video_id"]: float(row["duration"]) for row in rows(written / "EPIC_100_video_info.csv")}
    for name in ("train", "validation", "test_timestamps"):
        for row in rows(written / f"EPIC_100_{name}.csv"):
            assert row["narration_id"].startswith(row["video_id"] + "_")
            assert row["video_id"].startswith(row["participant_id"] + "_")
            start_s, stop_s = (to_seconds(row[f"{end}_timestamp"]) for end in ("start", "stop"))
            assert 0 <= start_s < stop_s <= duration[row["video_id"]]
            rate = 50 if fps[row["video_id"]] == 50 else 60
            assert int(row["start_frame"]) == max(1, int(start_s * rate + 1e-6))
            assert int(row["stop_frame"]) == int(stop_s * rate + 1e-6)
            if name != "test_timestamps":
                assert VERBS[row["verb"]] == int(row["verb_class"])
                assert NOUNS[row["noun"]] == int(row["noun_class"])
                nouns = ast.literal_eval(row["all_nouns"])
                assert nouns[0] == row["noun"]
                assert [NOUNS[noun] for noun in nouns] == ast.literal_eval(row["all_noun_classes"])


def to_seconds(text: str) -> float:
    hours, minutes, seconds = text.split(":")
    return int(hours) * 3600 + int(minutes) * 60 + float(seconds)


def test_frame_numbers_are_made_as_the_official_ones(ek100_annotations: Path):
    """What `write_annotations` computes from times is what the official files hold (but for rounded rows of theirs)."""
    official = rows(ek100_annotations / "EPIC_100_validation.csv")
    same = 0
    for row in official:
        start_s, stop_s = (round(to_seconds(row[f"{end}_timestamp"]), 2) for end in ("start", "stop"))
        ours = max(1, round(start_s * 100) * 60 // 100), round(stop_s * 100) * 60 // 100
        same += ours == (int(row["start_frame"]), int(row["stop_frame"]))
        assert timestamp(start_s) == row["start_timestamp"]
    assert same > 0.98 * len(official)


@pytest.mark.parametrize("name", ["verb", "noun"])
def test_tail_rule_gives_the_official_lists(ek100_annotations: Path, name: str):
    counts = Counter(int(row[f"{name}_class"]) for row in rows(ek100_annotations / "EPIC_100_train.csv"))
    official = sorted(int(row[name]) for row in rows(ek100_annotations / f"EPIC_100_tail_{name}s.csv"))
    assert tail_classes(counts) == official


@pytest.mark.parametrize("name", ["verb", "noun"])
def test_tail_is_the_rarest_fifth(written: Path, name: str):
    counts = Counter(int(row[f"{name}_class"]) for row in rows(written / "EPIC_100_train.csv"))
    tail = {int(row[name]) for row in rows(written / f"EPIC_100_tail_{name}s.csv")}
    head = set(counts) - tail
    assert tail and head
    assert max(counts[c] for c in tail) <= min(counts[c] for c in head)
    assert sum(counts[c] for c in tail) <= 0.2 * counts.total()
    assert max(counts.values()) > 8 * min(counts.values()), "a long tail"
