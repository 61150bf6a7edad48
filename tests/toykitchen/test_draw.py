"""Drawing to disk: layout, determinism, refusals and what is left behind when something goes wrong."""

import hashlib
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest

from egochef.cli.main import main
from egochef.data.annotations import find_videos, open_data_folder, read_split
from egochef.errors import InputError
from egochef.toykitchen import ToyConfig, draw_kitchen
from egochef.toykitchen.draw import VIDEO_FOLDER
from egochef.toykitchen.render import frames_of
from egochef.toykitchen.script import plan_kitchen

TINY = ToyConfig(seed=3, num_segments=12, preset="small", width_px=128, height_px=72, segment_s=0.4)


@pytest.fixture(scope="module")
def tiny_kitchen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dozen segments, drawn by one process."""
    return draw_kitchen(tmp_path_factory.mktemp("toy") / "kitchen", TINY, num_workers=1)


def digests(root: Path) -> dict[str, str]:
    files = [path for path in sorted(root.rglob("*")) if path.is_file()]
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_videos_are_as_planned(tiny_kitchen: Path):
    for plan in plan_kitchen(TINY):
        path = tiny_kitchen / VIDEO_FOLDER / plan.participant_id / f"{plan.video_id}.MP4"
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            frames = list(container.decode(stream))
            assert stream.codec_context.name == "h264" and stream.average_rate == plan.fps
        assert len(frames) == plan.num_frames
        assert (frames[0].width, frames[0].height) == (128, 72)
        np.testing.assert_allclose([f.time for f in frames], np.arange(plan.num_frames) / float(plan.fps), atol=1e-4)
        assert plan.acts[-1].stop_s < plan.duration_s


def test_what_is_decoded_is_what_was_drawn(tiny_kitchen: Path):
    plan = plan_kitchen(TINY)[0]
    with av.open(str(tiny_kitchen / VIDEO_FOLDER / plan.participant_id / f"{plan.video_id}.MP4")) as container:
        decoded = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    for number, drawn in enumerate(frames_of(plan, TINY)):
        if number % 25 == 0:
            assert np.abs(decoded[number].astype(int) - drawn).mean() < 8


@pytest.mark.parametrize("gop", [12, 40])
def test_key_frames_stand_where_they_are_asked_for(tmp_path: Path, gop: int):
    root = draw_kitchen(tmp_path / "kitchen", replace(TINY, gop=gop), num_workers=1)
    most = 0
    for path in sorted((root / VIDEO_FOLDER).rglob("*.MP4")):
        with av.open(str(path)) as container:
            places = [number for number, frame in enumerate(container.decode(video=0)) if frame.key_frame]
            assert places == list(range(0, container.streams.video[0].frames, gop))
            most = max(most, len(places))
    assert most > 1


def test_our_reader_reads_it(tiny_kitchen: Path):
    folder = open_data_folder(tiny_kitchen)
    assert folder.taxonomy.num_verbs == 97 and folder.taxonomy.num_nouns == 300
    for split in ("train", "validation", "test"):
        segments = read_split(folder, split)
        assert len(find_videos(folder, segments)) == len({segment.video_id for segment in segments})
        if split != "train":
            seen = {segment.participant_id for segment in read_split(folder, "train")}
            unseen = {segment.participant_id for segment in segments} - seen
            assert unseen and unseen == folder.unseen_participants[split]
    assert folder.taxonomy.verbs[3] == "open" and folder.taxonomy.nouns[8] == "drawer"


def test_the_same_bytes_with_two_workers(tiny_kitchen: Path, tmp_path: Path):
    (tmp_path / "empty").mkdir()  # which is taken
    again = draw_kitchen(tmp_path / "empty", TINY, num_workers=2)
    assert digests(again) == digests(tiny_kitchen)
    assert [path.name for path in tmp_path.iterdir()] == ["empty"]


def test_another_seed_is_another_kitchen(tiny_kitchen: Path, tmp_path: Path):
    other = draw_kitchen(tmp_path / "other", ToyConfig(**{**vars(TINY), "seed": 4}), num_workers=1)
    mine, theirs = digests(tiny_kitchen), digests(other)
    assert all(mine[name] != theirs[name] for name in set(mine) & set(theirs) if name.endswith(("train.csv", ".MP4")))


def test_a_folder_that_holds_something_is_refused(tmp_path: Path):
    (tmp_path / "note.txt").write_text("mine")
    with pytest.raises(InputError, match="holds something already"):
        draw_kitchen(tmp_path, TINY, num_workers=1)
    with pytest.raises(InputError, match="holds something already"):
        draw_kitchen(tmp_path / "note.txt", TINY, num_workers=1)
    assert [path.name for path in tmp_path.iterdir()] == ["note.txt"]


def test_wrong_worker_counts_are_refused(tmp_path: Path):
    with pytest.raises(InputError, match="num_workers is 0"):
        draw_kitchen(tmp_path / "x", TINY, num_workers=0)


def test_a_place_that_cannot_be_written_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "file").write_text("")
    assert main(["toy", "--out", str(tmp_path / "file" / "kitchen"), "--segments", "12"]) == 1
    assert str(tmp_path / "file" / "kitchen") in capsys.readouterr().err


COMMAND = [sys.executable, "-m", "egochef", "toy", "--segments", "12", "--preset", "small", "--out"]


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path: Path, workers: str):
    """Files may not grow beyond 200 kB here: the error of a full disk, at the first video."""
    limited = "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000));"
    limited += "from egochef.cli.main import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", limited, *COMMAND[3:], str(tmp_path / "kitchen"), "--workers", workers]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 1, result.stderr
    (line,) = result.stderr.strip().splitlines()
    assert f"{tmp_path / 'kitchen'}" in line and "cannot be written" in line and ".part/" not in line
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("workers", ["1", "2"])
def test_ctrl_c_leaves_nothing(tmp_path: Path, workers: str):
    command = [*COMMAND, str(tmp_path / "kitchen"), "--workers", workers, "--segments", "3000"]  # minutes of work
    process = subprocess.Popen(
        command,
        start_new_session=True,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # shells take it away in the background
    )
    while not list(tmp_path.glob(".kitchen*/videos_640x360/*/.*")):  # until a video is being written
        assert process.poll() is None
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to all of them
    _, errors = process.communicate()
    assert process.returncode == 1
    assert errors.strip().splitlines()[-1].startswith("egochef: stopped")
    assert "Traceback" not in errors
    assert list(tmp_path.iterdir()) == []


def test_the_command_says_what_was_drawn(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["toy", "--out", str(tmp_path / "k"), "--segments", "12", "--preset", "small", "--workers", "1"]) == 0
    text = capsys.readouterr().out
    assert "train" in text and "validation" in text and "test" in text and "MB" in text
    assert f"egochef train --recipe toy --data {tmp_path / 'k'} --out outputs/run" in text
