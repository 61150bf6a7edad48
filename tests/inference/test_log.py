"""Prediction logs: what is written is what is read back, in both formats."""

import csv
import io
import json
import resource
from pathlib import Path

import pytest

from egochef.errors import InputError
from egochef.inference.log import LineFile, LineWriter, log_format

LINES = [
    {"time_s": 0.25, "action": 'open "drawer", slowly', "action_top5": [["öffnen, drawer", 0.5]], "shown": None},
    {"time_s": 0.75, "action": "take cup", "action_top5": [], "shown": "take cup"},
]


def written(format, fields=None):
    file = io.StringIO(newline="")
    writer = LineWriter(file, format, fields)
    for line in LINES:
        writer.add(line)
    return file.getvalue()


def test_json_lines_come_back():
    assert [json.loads(line) for line in written("jsonl").splitlines()] == LINES


def test_csv_comes_back():
    text = written("csv")
    assert text.splitlines()[0] == "time_s,action,action_top5,shown"
    rows = list(csv.DictReader(io.StringIO(text, newline="")))
    assert [row["action"] for row in rows] == [line["action"] for line in LINES]
    assert [json.loads(row["action_top5"]) for row in rows] == [line["action_top5"] for line in LINES]
    assert [float(row["time_s"]) for row in rows] == [0.25, 0.75]
    assert [row["shown"] for row in rows] == ["", "take cup"]


def test_csv_has_its_header_before_the_first_line():
    file = io.StringIO(newline="")
    LineWriter(file, "csv", ("time_s", "action"))
    assert file.getvalue() == "time_s,action\n"


@pytest.mark.parametrize("format", ["jsonl", "csv"])
def test_a_line_is_in_the_file_at_once(tmp_path, format):
    path = tmp_path / f"log.{format}"
    with LineFile(path) as file:
        writer = LineWriter(file, format)
        writer.add(LINES[0])
        assert path.read_text(encoding="utf-8").endswith("\n")
        assert "drawer" in path.read_text(encoding="utf-8")


@pytest.mark.parametrize("format", ["jsonl", "csv"])
def test_on_a_full_disk_the_last_line_is_whole(tmp_path, format):
    path = tmp_path / f"log.{format}"
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    with LineFile(path) as file:
        writer = LineWriter(file, format)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
        try:
            with pytest.raises(
                InputError, match=rf"^{path}: cannot be written any further .*its last whole line.*Free"
            ):
                for _ in range(1000):
                    writer.add(LINES[0])
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        writer.add(LINES[1])  # there is space again
    with path.open(newline="", encoding="utf-8") as text:
        rows = list(csv.DictReader(text)) if format == "csv" else [json.loads(line) for line in text]
    assert [row["action"] for row in rows] == [LINES[0]["action"]] * (len(rows) - 1) + [LINES[1]["action"]]
    assert path.read_text(encoding="utf-8").endswith("\n")
    assert len(rows) > 5


def test_names_that_no_encoding_knows_are_written(tmp_path):
    with LineFile(tmp_path / "log.csv") as file:
        LineWriter(file, "csv").add({"video": "a\udcff.mp4"})
    assert (tmp_path / "log.csv").read_text(encoding="utf-8") == "video\na\\udcff.mp4\n"


@pytest.mark.parametrize("format", ["jsonl", "csv"])
def test_lines_of_another_kind_are_refused(format):
    writer = LineWriter(io.StringIO(newline=""), format)
    writer.add({"time_s": 1.0})
    with pytest.raises(ValueError, match="expected time_s"):
        writer.add({"time_s": 1.0, "latency_ms": 3.0})
    with pytest.raises(ValueError, match="expected time_s"):
        writer.add({})
    with pytest.raises(ValueError):
        writer.add({"time_s": float("nan")})


def test_the_suffix_says_the_format():
    assert log_format(Path("a.jsonl")) == "jsonl"
    assert log_format(Path("a.b/c.CSV")) == "csv"
    for name in ("log", "log.json", "log.txt"):
        with pytest.raises(InputError, match=rf"{name}: .*\.jsonl or \.csv"):
            log_format(Path(name))
