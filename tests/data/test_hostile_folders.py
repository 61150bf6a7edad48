"""Data folders in which something only has the name of a file: no command waits for what nobody writes."""

import os
import shutil
from pathlib import Path

import pytest

from egochef.cli.main import main
from egochef.data.annotations import copy_annotations, find_annotations, open_data_folder, read_split
from egochef.errors import InputError
from egochef.files import crc32_of, sha256_of


@pytest.fixture
def kitchen(toy_root: Path, tmp_path: Path) -> Path:
    """A data folder whose table of the validation split is a pipe."""
    annotations = find_annotations(toy_root)
    folder = tmp_path / "kitchen" / annotations.name
    shutil.copytree(annotations, folder)
    (folder / "EPIC_100_validation.csv").unlink()
    os.mkfifo(folder / "EPIC_100_validation.csv")
    return folder.parent


def test_a_table_that_is_a_pipe(kitchen: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = open_data_folder(kitchen)
    with pytest.raises(
        InputError, match=r"EPIC_100_validation\.csv: cannot be read \(a device or a pipe, expected a file"
    ):
        read_split(folder, "validation")
    assert len(read_split(folder, "train")) > 0
    copy_annotations(folder.annotations, tmp_path / "copy")
    assert not list((tmp_path / "copy").rglob("EPIC_100_validation.csv"))
    assert main(["doctor", "--data", str(kitchen)]) == 1
    assert "file-unreadable" in capsys.readouterr().out


def test_links_that_lead_back_end(kitchen: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for place in range(3):
        (kitchen / f"again{place}").symlink_to(kitchen)
    (kitchen / "videos").mkdir()
    (kitchen / "videos" / "P01").symlink_to("P01")
    assert main(["doctor", "--data", str(kitchen)]) == 1
    assert "videos looked into" in capsys.readouterr().out


@pytest.mark.parametrize("read", [sha256_of, crc32_of])
def test_checksums_are_of_files(tmp_path: Path, read: object) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "zeros").symlink_to("/dev/zero")
    for name in ("pipe", "zeros"):
        with pytest.raises(OSError, match="a device or a pipe, expected a file"):
            read(tmp_path / name)  # type: ignore[operator]
