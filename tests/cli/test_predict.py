"""`egochef predict` from outside: what it writes, and what it refuses in one line."""

import csv
import json

import pytest
import torch

from egochef.cli.main import main
from egochef.clip import ClipSpec
from egochef.data.annotations import find_videos, open_data_folder, read_split
from egochef.model.checkpoint import Checkpoint, save_checkpoint
from egochef.model.recogniser import ModelConfig, Recogniser
from egochef.video.decode import iter_frames, probe
from egochef.video.encode import write_video


@pytest.fixture
def egochef(capsys):
    """Runs the command within this process: (exit code, lines of standard output, lines of standard error)."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)

    def run(*words):
        code = main([str(word) for word in words])
        printed = capsys.readouterr()
        return code, printed.out.splitlines(), printed.err.splitlines()

    yield run
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def folder(toy_root):
    return open_data_folder(toy_root)


@pytest.fixture(scope="module")
def videos(folder, tmp_path_factory):
    """The first seconds of a training and a validation video, under their names."""
    short = []
    for split in ("train", "validation"):
        _, whole = max(find_videos(folder, read_split(folder, split)).items())
        short.append(tmp_path_factory.mktemp(split) / whole.name)
        with write_video(short[-1]) as writer:
            for time_s, frame in iter_frames(whole, stop_s=2.0):
                writer.add(frame, time_s)
    return short


@pytest.fixture(scope="module")
def checkpoint(folder, tmp_path_factory):
    """Of a recogniser that has learnt nothing."""
    torch.manual_seed(0)
    model = ModelConfig("efficientnet_lite0", hidden_size=8)
    clip = ClipSpec(num_frames=4, image_size=64, resize_size=64)
    path = tmp_path_factory.mktemp("checkpoint") / "model.safetensors"
    save_checkpoint(path, Recogniser(model), Checkpoint(model, clip, folder.taxonomy, "toy", "none"))
    return path


def test_everything_at_once(egochef, checkpoint, videos, toy_root, tmp_path):
    """Two videos: log, segments, annotated copies with what really happens, and a reel."""
    code, printed, errors = egochef(
        *("predict", *videos, "--checkpoint", checkpoint, "--backend", "torch", "--device", "cpu"),
        *("--hop", 1, "--window", 1, "--window", 2, "--threshold", 0),
        *(
            "--log",
            tmp_path / "p.csv",
            "--segments",
            tmp_path / "s.csv",
            "--reel",
            tmp_path / "reel.mp4",
            "--reel-moments",
            1,
        ),
        *("--render", tmp_path / "copies", "--data", toy_root, "--split", "train", "validation"),
    )
    assert code == 0, errors
    assert printed[-1].startswith("written: ") and str(videos[1]) in printed
    written = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.*")}
    assert written == {"p.csv", "s.csv", "reel.mp4", *(f"copies/{video.stem}.mp4" for video in videos)}
    with (tmp_path / "p.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert {line["video"] for line in lines} == set(map(str, videos))
    assert len(lines) == sum(round(probe(video).duration_s) for video in videos)
    for video in videos:
        copy, own = probe(tmp_path / "copies" / f"{video.stem}.mp4"), probe(video)
        assert copy.duration_s == pytest.approx(own.duration_s, abs=0.1)
        assert copy.average_fps == pytest.approx(own.average_fps, rel=0.01)
    reel = probe(tmp_path / "reel.mp4")
    assert (reel.width_px, reel.height_px, reel.average_fps) == (1280, 720, 30)


def test_json_is_the_log(egochef, checkpoint, videos, tmp_path):
    words = ("predict", videos[0], "--checkpoint", checkpoint, "--backend", "torch", "--hop", 2)
    code, printed, errors = egochef(*words, "--json", "--log", tmp_path / "p.jsonl")
    assert code == 0, errors
    lines = [json.loads(line) for line in (tmp_path / "p.jsonl").read_text().splitlines()]
    assert json.loads("\n".join(printed))["predictions"] == lines and lines


def test_wrong_wishes_are_one_line_before_the_work(egochef, checkpoint, videos, toy_root, tmp_path):
    twin = tmp_path / videos[0].name
    twin.symlink_to(videos[0])
    predict = ("predict", videos[0], "--checkpoint", checkpoint, "--backend", "torch", "--device", "cpu")
    for words, message in (
        ((*predict, "--log", tmp_path / "p.txt"), "p.txt"),
        ((*predict, "--segments", tmp_path / "s.jsonl"), "s.jsonl"),
        ((*predict, "--render", tmp_path / "r.gif"), "r.gif"),
        ((*predict, "--reel", tmp_path / "reel"), "no video format"),
        ((*predict, "--reel", tmp_path / "reel.mp4", "--reel-moments", 0), "0 moments"),
        ((*predict, "--render", videos[0]), "is read"),
        (("predict", twin, *predict[2:], "--render", videos[0]), "is read"),
        (("predict", *videos, *predict[2:], "--render", tmp_path / "r.mp4"), "one file for 2 videos"),
        (
            ("predict", videos[0], twin, *predict[2:], "--segments", tmp_path / "s.csv"),
            "two videos of one name",
        ),
        ((*predict, "--data", toy_root), "--render"),
        ((*predict, "--render", tmp_path / "r.mp4", "--data", toy_root, "--split", "test"), "labels are not public"),
        ((*predict, "--render", tmp_path / "r.mp4", "--data", tmp_path), "no annotations"),
        ((*predict, "--threshold", 2), "threshold is 2.0"),
        ((*predict, "--hop", 0), "hop of 0.0 s"),
        ((*predict, "--window", -1), "windows of (-1.0,) s"),
        ((*predict, "--precision", "int8"), "int8"),
    ):
        code, printed, errors = egochef(*words)
        assert (code, printed) == (1, []), (words, errors)
        assert errors[-1].startswith("egochef: ") and message in errors[-1], (words, errors)
    assert list(tmp_path.iterdir()) == [twin]
    assert videos[0].stat().st_size > 1000
