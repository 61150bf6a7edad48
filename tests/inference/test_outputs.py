"""Outputs that would do harm, or cannot be, are refused before the work."""

from pathlib import Path

import pytest

from egochef.errors import InputError
from egochef.inference.outputs import check_film, check_outputs, film_paths


def test_an_output_is_no_input_no_folder_and_no_other_output(tmp_path):
    video = tmp_path / "video.mp4"
    video.write_bytes(b"")
    (tmp_path / "link.mp4").symlink_to(video)
    check_outputs([tmp_path / "new" / "deep" / "p.jsonl", tmp_path / "r.mp4"], [video])
    assert not (tmp_path / "new").exists()
    for outputs, message in (
        ([tmp_path / "x" / ".." / "video.mp4"], r"video\.mp4 is read"),
        ([tmp_path / "link.mp4"], r"video\.mp4 is read"),
        ([tmp_path / "a.csv", tmp_path / "a.csv"], "another output"),
        ([tmp_path], "is a folder"),
        ([video / "p.jsonl"], "cannot be written"),
    ):
        with pytest.raises(InputError, match=message):
            check_outputs(outputs, [video])


def test_where_films_go(tmp_path):
    one, two = Path("d/P01_01.MP4"), Path("d/P01_02.MP4")
    assert film_paths(Path("r.mp4"), [one]) == {one: Path("r.mp4")}
    assert film_paths(Path("renders"), [one, two]) == {
        one: Path("renders/P01_01.mp4"),
        two: Path("renders/P01_02.mp4"),
    }
    (tmp_path / "v1.2").mkdir()
    assert film_paths(tmp_path / "v1.2", [one]) == {one: tmp_path / "v1.2" / "P01_01.mp4"}
    with pytest.raises(InputError, match=r"r\.mp4: one file for 2 videos"):
        film_paths(Path("r.mp4"), [one, two])
    with pytest.raises(InputError, match="two videos of one name"):
        film_paths(Path("renders"), [one, Path("e/P01_01.mkv")])
    with pytest.raises(InputError, match=r"r\.png: no video format"):
        film_paths(Path("r.png"), [one])
    with pytest.raises(InputError, match="no video format"):
        check_film(Path("reel"))
