"""The official files are read right, and faults are named by file, row and value."""

import shutil

import pytest
from table_edits import change, set_value

from egochef.data.annotations import find_video, find_videos, open_data_folder, read_split
from egochef.errors import InputError


@pytest.fixture
def ek100(tmp_path, ek100_annotations):
    (tmp_path / "epic-kitchens-100-annotations-master").symlink_to(ek100_annotations)
    return open_data_folder(tmp_path)


@pytest.mark.parametrize(
    ("split", "segments", "videos", "participants"),
    [("train", 67217, 495, 32), ("validation", 9668, 138, 32), ("test", 13092, 67, 20)],
)
def test_official_counts(ek100, split, segments, videos, participants):
    rows = read_split(ek100, split)
    assert len(rows) == segments
    assert len({row.video_id for row in rows}) == videos
    assert len({row.participant_id for row in rows}) == participants


def test_official_tables(ek100):
    assert (ek100.taxonomy.num_verbs, ek100.taxonomy.num_nouns) == (97, 300)
    assert ek100.taxonomy.verbs[:4] == ("take", "put", "wash", "open")
    assert (len(ek100.tail_verbs), len(ek100.tail_nouns)) == (86, 228)
    assert ek100.unseen_participants["validation"] == {"P18", "P32"}
    first = read_split(ek100, "validation")[0]
    assert (first.narration_id, first.start_s, first.stop_s, first.verb, first.noun) == (
        "P01_11_0",
        0.0,
        1.89,
        0,
        2,
    )
    assert read_split(ek100, "test")[0].verb is None


def table(root, name):
    return root / "epic-kitchens-100-annotations" / name


@pytest.fixture
def kitchen(toy_root, tmp_path):
    root = tmp_path / "kitchen"
    shutil.copytree(toy_root, root)
    return root


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("start_timestamp", "1:2", "row 3: start_timestamp is '1:2', expected HH:MM:SS.ss"),
        ("stop_timestamp", "00:00:00.00", "row 3: start_timestamp .* is not before stop_timestamp"),
        ("verb_class", "97", "row 3: verb_class is '97', expected a class id from 0 to 96"),
        ("noun_class", "-1", "row 3: noun_class is '-1'"),
        ("noun_class", "", "row 3: noun_class is ''"),
        ("video_id", "P99_01", "row 3: video_id is 'P99_01', expected to begin with the participant_id"),
        ("narration_id", "x", "row 3: narration_id is 'x', expected to begin with the video_id"),
        ("start_frame", "1.5", "row 3: start_frame is '1.5', expected a whole number"),
    ],
)
def test_a_fault_names_file_row_and_value(kitchen, column, value, message):
    change(table(kitchen, "EPIC_100_train.csv"), set_value(3, column, value))
    with pytest.raises(InputError, match=rf"EPIC_100_train.csv: .*{message}"):
        read_split(open_data_folder(kitchen), "train")


def test_a_blank_narration_timestamp_is_legal(kitchen):
    change(table(kitchen, "EPIC_100_train.csv"), set_value(3, "narration_timestamp", ""))
    read_split(open_data_folder(kitchen), "train")


def test_several_faults_are_counted(kitchen):
    def edit(rows):
        for row in rows[1:10]:
            row[rows[0].index("verb_class")] = "x"

    change(table(kitchen, "EPIC_100_train.csv"), edit)
    with pytest.raises(InputError, match="row 2: .* and 4 more faults"):
        read_split(open_data_folder(kitchen), "train")


def test_narration_ids_are_unique(kitchen):
    change(table(kitchen, "EPIC_100_train.csv"), lambda rows: rows.append(rows[1]))
    with pytest.raises(InputError, match="stands in row 2 already"):
        read_split(open_data_folder(kitchen), "train")


def test_columns_and_rows_are_checked(kitchen):
    change(table(kitchen, "EPIC_100_validation.csv"), lambda rows: rows[0].__setitem__(10, "verbs_class"))
    with pytest.raises(InputError, match="row 1: no column 'verb_class'"):
        read_split(open_data_folder(kitchen), "validation")
    change(table(kitchen, "EPIC_100_train.csv"), lambda rows: rows[4].pop())
    with pytest.raises(InputError, match="row 5: 14 values, expected 15"):
        read_split(open_data_folder(kitchen), "train")


def test_empty_split_and_unknown_split(kitchen):
    change(table(kitchen, "EPIC_100_train.csv"), lambda rows: rows.__delitem__(slice(1, None)))
    folder = open_data_folder(kitchen)
    with pytest.raises(InputError, match="the train split is empty"):
        read_split(folder, "train")
    with pytest.raises(InputError, match="unknown split 'val'"):
        read_split(folder, "val")


def test_not_csv_at_all(kitchen):
    (kitchen / "epic-kitchens-100-annotations" / "EPIC_100_train.csv").write_bytes(b"\xff\xfe\x00PK")
    with pytest.raises(InputError, match="not a readable CSV file"):
        read_split(open_data_folder(kitchen), "train")


def test_class_ids_count_up(kitchen):
    change(table(kitchen, "EPIC_100_verb_classes.csv"), set_value(5, "id", "9"))
    with pytest.raises(InputError, match="row 5: id is '9', expected 3"):
        open_data_folder(kitchen)


def test_tail_lists_hold_class_ids(kitchen):
    change(table(kitchen, "EPIC_100_tail_nouns.csv"), lambda rows: rows.append(["300"]))
    with pytest.raises(InputError, match="expected a class id from 0 to 299"):
        open_data_folder(kitchen)


def test_another_taxonomy_in_the_same_layout(kitchen):
    """Fewer classes, no tail or unseen lists: that is fine as long as the rows agree."""
    folder = kitchen / "epic-kitchens-100-annotations"
    for name in (
        "tail_verbs",
        "tail_nouns",
        "unseen_participant_ids_validation",
        "unseen_participant_ids_test",
    ):
        (folder / f"EPIC_100_{name}.csv").unlink()
    change(table(kitchen, "EPIC_100_verb_classes.csv"), lambda rows: rows.__delitem__(slice(1, None)))
    change(table(kitchen, "EPIC_100_verb_classes.csv"), lambda rows: rows.extend([["0", "do", "['do']", "x"]]))

    def only_verb_0(rows):
        for row in rows[1:]:
            row[rows[0].index("verb_class")] = "0"

    change(table(kitchen, "EPIC_100_train.csv"), only_verb_0)
    opened = open_data_folder(kitchen)
    assert opened.taxonomy.verbs == ("do",)
    assert opened.tail_verbs == frozenset()
    assert read_split(opened, "train")


@pytest.mark.parametrize("place", ["videos_640x360/P01", "videos/P01", "P01/videos"])
@pytest.mark.parametrize("suffix", [".MP4", ".mp4"])
def test_video_layouts(tmp_path, place, suffix):
    path = tmp_path / place / f"P01_01{suffix}"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"")
    found = find_video(tmp_path, "P01", "P01_01")
    assert found is not None and found.samefile(path)


def test_missing_folders_and_videos(tmp_path, kitchen):
    with pytest.raises(InputError, match="no such folder"):
        open_data_folder(tmp_path / "nowhere")
    with pytest.raises(InputError, match="no annotations"):
        open_data_folder(tmp_path)
    folder = open_data_folder(kitchen)
    segments = read_split(folder, "train")
    video = find_videos(folder, segments)[segments[0].video_id]
    video.unlink()
    with pytest.raises(InputError, match=rf"{segments[0].video_id}.MP4: no such video"):
        find_videos(folder, segments)
