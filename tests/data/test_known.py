"""A dataset is called by name only where its classes and its segments are all there."""

import shutil

import pytest

from egochef.data.annotations import ANNOTATION_FOLDERS, open_data_folder
from egochef.data.known import EK100, TOY, UNKNOWN, known_dataset


@pytest.fixture
def ek100(ek100_annotations, tmp_path):
    """A folder with a copy of the official annotation files."""
    shutil.copytree(ek100_annotations, tmp_path / "EK" / ANNOTATION_FOLDERS[0])
    return tmp_path / "EK"


def test_a_drawn_kitchen(toy_root):
    assert known_dataset(open_data_folder(toy_root)) == TOY


def test_ek100_is_known_also_with_few_participants_and_not_with_other_classes_or_rows(ek100):
    assert known_dataset(open_data_folder(ek100, ["P01"])) == EK100
    for name, change in (
        ("EPIC_100_noun_classes.csv", lambda text: text.replace("\n1,spoon", "\n1,dessertspoon")),
        ("EPIC_100_validation.csv", lambda text: text.rpartition("\n")[0].rpartition("\n")[0]),
        ("EPIC_100_train.csv", lambda text: text.replace("\nP01_01_0,", "\nP01_01_00,")),
    ):
        path = ek100 / ANNOTATION_FOLDERS[0] / name
        before = path.read_text()
        assert change(before) != before
        path.write_text(change(before))
        assert known_dataset(open_data_folder(ek100)) == UNKNOWN
        path.write_text(before)
    assert known_dataset(open_data_folder(ek100)) == EK100
