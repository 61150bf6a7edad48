"""Three real EK-100 segments, each as a video of its own, go the whole way through the command line."""

import csv
import json

import pytest
from tiny_runs import one_thread

from egochef.cli.main import main

CLIPS = {
    "P01_01_10": ("train", "P01_201"),
    "P01_06_90": ("train", "P01_202"),
    "P01_06_92": ("validation", "P01_203"),
}
FILES = {"train": "EPIC_100_train.csv", "validation": "EPIC_100_validation.csv"}


def seconds(timestamp):
    hours, minutes, rest = timestamp.split(":")
    return int(hours) * 3600 + int(minutes) * 60 + float(rest)


@pytest.fixture(scope="module")
def root(tmp_path_factory, ek100_annotations, ek100_clips):
    """A data folder in EK-100's layout whose rows are the three clips', shifted to start at 0."""
    root = tmp_path_factory.mktemp("ek100")
    target = root / "epic-kitchens-100-annotations-master"
    target.mkdir()
    for path in ek100_annotations.glob("*.csv"):
        if path.name not in FILES.values() and "timestamps" not in path.name:
            (target / path.name).write_bytes(path.read_bytes())
    with (ek100_annotations / "EPIC_100_train.csv").open(newline="") as file:
        reader = csv.DictReader(file)
        official = {row["narration_id"]: row for row in reader if row["narration_id"] in CLIPS}
        columns = list(reader.fieldnames)
    rows = {"train": [], "validation": []}
    for narration_id, (split, video_id) in CLIPS.items():
        row = official[narration_id]
        length = seconds(row["stop_timestamp"]) - seconds(row["start_timestamp"])
        row |= {"narration_id": f"{video_id}_0", "video_id": video_id}
        row |= {
            "start_timestamp": "00:00:00.00",
            "stop_timestamp": f"00:00:{length:05.2f}",
            "narration_timestamp": "",
        }
        row |= {"start_frame": "1", "stop_frame": str(int(length * 60))}
        rows[split].append(row)
        place = root / "videos_640x360" / "P01" / f"{video_id}.MP4"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes((ek100_clips / f"{narration_id}.mp4").read_bytes())
    test_columns = columns[: columns.index("narration")]
    test_rows = [row | {"narration_id": f"{row['video_id']}_1"} for row in rows["validation"]]
    for name, names, lines in (
        (FILES["train"], columns, rows["train"]),
        (FILES["validation"], columns, rows["validation"]),
        ("EPIC_100_test_timestamps.csv", test_columns, test_rows),
    ):
        with (target / name).open("w", newline="") as file:
            writer = csv.DictWriter(file, names, extrasaction="ignore")
            writer.writeheader()
            writer.writerows(lines)
    return root


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["toy", "frames16"])
def test_the_whole_way(root, tmp_path, capsys, recipe):
    def egochef(*words):
        with one_thread():
            code = main(list(map(str, words)))
        out, err = capsys.readouterr()
        assert code == 0, err
        return out

    run = tmp_path / "run"
    more = (
        ["--init", "none", "--num-frames", "2", "--set", "clip.image_size=96", "clip.resize_size=96"]
        if recipe == "frames16"
        else []
    )
    egochef("train", "--recipe", recipe, "--debug", "--data", root, "--out", run, *more)
    metrics = json.loads(egochef("evaluate", "--checkpoint", run, "--data", root, "--json"))
    assert metrics["num_segments"] == 1
    out = tmp_path / "submission.zip"
    assert "valid" in egochef("submit", "--checkpoint", run, "--data", root, "--out", out)
    egochef("submit", "--check", out, "--data", root)
    video = next(root.glob("videos_640x360/P01/*.MP4"))
    told = json.loads(egochef("predict", video, "--checkpoint", run, "--window", "1", "--json"))
    assert told["predictions"][0]["time_s"] > 0
