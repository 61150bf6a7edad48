"""Recordings play to their end: after close, after the program was killed, after the disk was full."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest

from egochef.errors import InputError
from egochef.live.recording import Recording
from egochef.video.decode import iter_frames, probe

RECORD_NOISE = """
import sys, time
import numpy as np
from egochef.live.recording import Recording
rng = np.random.default_rng(0)
recording = Recording(sys.argv[1], crf=1, queue_length=4)
time_s = 0.0
while recording.fault is None:
    while recording.num_frames + recording.num_dropped < round(time_s * 20) - 2:  # no faster than it can encode
        time.sleep(0.002)
        if recording.fault is not None:
            break
    recording.add(rng.integers(0, 255, (120, 160, 3), dtype=np.uint8), time_s)
    time_s += 0.05
recording.close()
print(recording.fault, flush=True)
"""
"""a program that records pictures that do not compress until something ends it"""
FULL_DISK = """
import resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (MOST_BYTES, resource.RLIM_INFINITY))
"""
"""no file of this process may become longer, as on a disk that is full"""


def picture(number: int, height: int = 96, width: int = 128) -> np.ndarray:
    """Grey of 40 + 5 * number, with a red square."""
    made = np.full((height, width, 3), 40 + 5 * number, np.uint8)
    made[8:40, 8:40] = (200, 30, 30)
    return made


def played(path: Path) -> tuple[list[float], list[np.ndarray]]:
    shown = list(iter_frames(path))
    return [time_s for time_s, _ in shown], [frame for _, frame in shown]


def wait_until(true: Callable[[], bool], deadline_s: float = 300.0) -> None:
    end_s = time.monotonic() + deadline_s
    while not true():
        assert time.monotonic() < end_s, "waited in vain"
        time.sleep(0.005)


def record(path: Path, times_s: list[float], shapes: list[tuple[int, int]] | None = None) -> Recording:
    """All pictures recorded, none dropped."""
    recording = Recording(path)
    for number, time_s in enumerate(times_s):
        height, width = shapes[number] if shapes else (96, 128)
        recording.add(picture(number, height, width), time_s)
        wait_until(lambda number=number: recording.num_frames > number or recording.fault is not None)
    recording.close()
    assert recording.fault is None and recording.num_frames == len(times_s) and recording.num_dropped == 0
    return recording


def test_plays_with_the_times_that_were_given(tmp_path: Path):
    times_s = [
        100.0,
        100.03,
        100.1,
        100.5,
        101.2,
        101.21,
        101.21,
        103.5,
    ]  # its own clock; one time twice
    path = tmp_path / "new folder" / "out.mp4"
    record(path, times_s)
    back_s, frames = played(path)
    np.testing.assert_allclose(back_s, np.array(times_s) - 100, atol=1e-3)
    for number, frame in enumerate(frames):
        assert abs(int(frame[80, 100].mean()) - (40 + 5 * number)) <= 3
        assert frame[20, 20, 0] > frame[20, 20, 2] + 120  # red stays red
    info = probe(path)
    assert info.codec == "h264" and info.duration_s == pytest.approx(3.5, abs=0.1)
    with av.open(str(path)) as container:
        assert container.streams.video[0].frames == len(times_s)  # an ordinary file: a whole index, no fragments


def test_every_second_begins_with_a_key_frame(tmp_path: Path):
    record(tmp_path / "out.mp4", [i * 0.25 for i in range(13)])
    with av.open(str(tmp_path / "out.mp4")) as container:
        keys = [float(packet.pts * packet.time_base) for packet in container.demux(video=0) if packet.is_keyframe]
    np.testing.assert_allclose(keys, [0, 1, 2, 3], atol=1e-3)


def test_odd_and_changed_sizes(tmp_path: Path):
    path = tmp_path / "out.mp4"
    record(path, [0.0, 0.1, 0.2, 0.3], [(97, 129), (97, 129), (48, 128), (400, 64)])
    _, frames = played(path)
    assert {frame.shape for frame in frames} == {(96, 128, 3)}
    wide, tall = frames[2], frames[3]
    assert wide[:20].mean() < 20 and wide[76:].mean() < 20 and abs(wide[60, 100].mean() - 50) < 4
    assert tall[:, :50].mean() < 20 and tall[:, 78:].mean() < 20 and abs(tall[90, 64].mean() - 55) < 4


def test_what_the_encoder_has_no_room_for_is_dropped_and_counted(tmp_path: Path):
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 255, (720, 1280, 3), dtype=np.uint8)
    with Recording(tmp_path / "out.mp4", queue_length=2) as recording:
        for i in range(200):
            recording.add(noise, i / 1000)
    assert recording.num_dropped > 0, "nobody waited for the encoder"
    assert recording.num_frames + recording.num_dropped == 200
    assert len(played(tmp_path / "out.mp4")[0]) == recording.num_frames


def test_who_waits_for_the_encoder_loses_nothing(tmp_path: Path):
    noise = np.random.default_rng(0).integers(0, 255, (360, 640, 3), dtype=np.uint8)
    with Recording(tmp_path / "out.mp4", queue_length=2) as recording:
        for i in range(60):
            recording.add(noise, i / 1000, wait=True)
    assert (recording.num_dropped, recording.num_frames) == (0, 60)
    assert len(played(tmp_path / "out.mp4")[0]) == 60


def test_no_picture_no_file_and_no_thread_left(tmp_path: Path):
    before = threading.active_count()
    with Recording(tmp_path / "out.mp4") as recording:
        assert (tmp_path / "out.mp4").exists()
    recording.close()
    assert not (tmp_path / "out.mp4").exists() and recording.fault is None
    assert threading.active_count() == before


def test_wrong_use_is_told(tmp_path: Path):
    with Recording(tmp_path / "out.mp4") as recording:
        with pytest.raises(ValueError, match="float64 of shape"):
            recording.add(np.zeros((4, 4, 3)), 0.0)
        recording.add(picture(0), 5.0)
        for time_s in (4.9, float("nan")):
            with pytest.raises(ValueError, match="comes after one at 5.0 s"):
                recording.add(picture(1), time_s)
    with pytest.raises(ValueError, match="is closed"):
        recording.add(picture(1), 6.0)


def test_places_that_cannot_be_recorded_to(tmp_path: Path):
    kept = tmp_path / "kept.mp4"
    kept.write_bytes(b"mine")
    (tmp_path / "folder.mp4").mkdir()
    for path, reason in (
        (kept, "exists already"),
        (tmp_path / "folder.mp4", "exists already"),
        (kept / "out.mp4", "no folder"),
        (kept / "deep" / "out.mp4", "cannot be recorded to"),
        (tmp_path / ("x" * 300 + ".mp4"), "cannot be recorded to"),
        (tmp_path / "out.avi", "ends in .mp4"),
    ):
        with pytest.raises(InputError, match=reason) as told:
            Recording(path)
        assert str(path) in str(told.value) and "\n" not in str(told.value)
    assert kept.read_bytes() == b"mine" and len(list(tmp_path.iterdir())) == 2


def test_after_kill_it_plays_to_its_last_fragment(tmp_path: Path):
    path = tmp_path / "out.mp4"
    with subprocess.Popen([sys.executable, "-c", RECORD_NOISE, str(path)], stdout=subprocess.PIPE) as process:
        try:
            wait_until(lambda: (path.exists() and path.stat().st_size > 2_500_000) or process.poll() is not None)
        finally:
            os.kill(process.pid, signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    times_s = []
    try:
        for time_s, frame in iter_frames(path):
            assert frame.std() > 20  # noise, not grey
            times_s.append(time_s)
    except InputError as error:  # killed amid a fragment: all before it was there
        assert "cut off" in str(error)
    np.testing.assert_allclose(np.diff(times_s), 0.05, atol=1e-3)
    assert times_s[-1] > 2


@pytest.mark.skipif(not hasattr(signal, "SIGXFSZ"), reason="limits of file sizes are a thing of Unix")
@pytest.mark.parametrize("limit", [20_000, 1_000_000])
def test_a_full_disk_stops_it_and_what_is_there_plays(tmp_path: Path, limit: int):
    path = tmp_path / "out.mp4"
    program = FULL_DISK.replace("MOST_BYTES", str(limit)) + RECORD_NOISE
    done = subprocess.run([sys.executable, "-c", program, str(path)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert str(path) in done.stdout and "has stopped (File too large)" in done.stdout
    if limit < 100_000:  # not even the first fragment
        assert "Nothing was written" in done.stdout and not path.exists()
    else:
        assert "plays" in done.stdout
        times_s, _ = played(path)  # without an error
        np.testing.assert_allclose(np.diff(times_s), 0.05, atol=1e-3)
        assert path.stat().st_size > limit // 3
