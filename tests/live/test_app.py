"""`egochef live` as a whole: real processes, real streams, real keys on a real screen."""

import dataclasses
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from fractions import Fraction
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import need
from numbered import write_numbered
from streams import MjpegServer, ffmpeg, no_file_longer_than, wait_for

from egochef.cli.main import main
from egochef.clip import ClipSpec
from egochef.deploy.backends import load_engine
from egochef.errors import InputError
from egochef.inference.smoothing import Smoothing
from egochef.live.app import LiveOptions, run_live
from egochef.live.sources import open_source
from egochef.model.checkpoint import Checkpoint, save_checkpoint
from egochef.model.recogniser import ModelConfig, Recogniser
from egochef.taxonomy import Taxonomy
from egochef.video.decode import decode_at, iter_frames
from egochef.video.encode import write_video

CLIP = ClipSpec(num_frames=4, image_size=32, resize_size=36)
TAXONOMY = Taxonomy(("open", "close", "take"), ("drawer", "pan", "cup", "tap"))
CALM = Smoothing(tau_s=0.0, threshold=0.0)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    torch.manual_seed(0)
    recogniser = Recogniser(ModelConfig("efficientnet_lite0", hidden_size=8, num_verbs=3, num_nouns=4)).eval()
    path = tmp_path_factory.mktemp("live") / "x.safetensors"
    save_checkpoint(path, recogniser, Checkpoint(recogniser.config, CLIP, TAXONOMY, "toy", "none"))
    return path


@pytest.fixture(scope="module")
def engine(checkpoint):
    return load_engine(checkpoint, backend="torch", device="cpu", precision="fp32")


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    """Three seconds at 20 frames a second."""
    return write_numbered(tmp_path_factory.mktemp("videos") / "three.mp4", 60, fps=20, size_px=(128, 96))


def lines_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def states_of(report):
    states = report["states"] if isinstance(report, dict) else report.states
    return [state for _, state, _ in states]


def words_for(checkpoint, camera, *words):
    command = ["live", "--checkpoint", checkpoint, "--camera", camera, "--json"]
    command += ["--backend", "torch", "--device", "cpu", "--window", "0.5", "1", *words]
    return [str(word) for word in command]


@contextmanager
def live(checkpoint, camera, *words, environment=None):
    """`egochef live` in a process of its own; killed at the end if it still runs."""
    command = [sys.executable, "-m", "egochef", *words_for(checkpoint, camera, *words)]
    environment = {**(environment or os.environ), "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def ends(process):
    """(exit code, its report or None, what it said on standard error). One that hangs is ended by pytest's limit."""
    out, errors = process.communicate()
    return process.returncode, json.loads(out) if out else None, errors


@pytest.fixture
def live_here(checkpoint, capsys, caplog):
    """`egochef live` in this process, while `act` runs beside it; then a signal ends it.

    Gives its exit code, and its report or None; what it logs is in `caplog`.
    """

    def run(camera, *words, act, number=signal.SIGINT):
        caplog.set_level(logging.INFO)
        over, faults = threading.Event(), []

        def beside():
            try:
                act()
            except BaseException as error:
                faults.append(error)
            while not over.wait(0.2):  # again, if it came before it was listened to
                os.kill(os.getpid(), number)

        before = signal.signal(number, lambda *_: None)  # one that comes too early or late ends nothing
        actor = threading.Thread(target=beside)
        actor.start()
        try:
            code = main(words_for(checkpoint, camera, *words))
        finally:
            over.set()
            actor.join()
            signal.signal(number, before)
        if faults:
            raise faults[0]
        out = capsys.readouterr().out
        return code, json.loads(out) if out else None

    return run


def num_lines(path):
    return len(path.read_text().splitlines()) if path.exists() else 0


# In order


def test_every_frame_of_a_file_in_order(engine, video, tmp_path):
    log = tmp_path / "out" / "log.jsonl"
    options = LiveOptions(windows_s=(1.0,), smoothing=CALM, headless=True, log=log)
    report = run_live(engine, open_source(str(video), fast=True), options)
    assert (report.num_captured, report.num_encoded, report.num_dropped) == (60, 60, 0)
    assert states_of(report) == ["starting", "live", "stopped"] and report.states[-1][2] == "the file ended"
    lines = lines_of(log)
    assert report.num_predictions == len(lines) and 38 <= len(lines) <= 45  # a second to fill the window
    assert report.fault is None and report.log == str(log) and report.recordings == []
    assert np.allclose(np.diff([line["time_s"] for line in lines]), 0.05, atol=0.002)
    for line in lines[5::10]:  # each is what the clip of the same second gives
        stop_s = line["time_s"] + 0.05
        times = stop_s - 1.0 + (np.arange(4) * 12 + 6.5) / 48  # the middle view's places among 48 candidates
        verb, noun = engine.recognise(decode_at(video, times).frames)
        for kind, probs, names in (("verb", verb, TAXONOMY.verbs), ("noun", noun, TAXONOMY.nouns)):
            prob = line[f"{kind}_prob"]  # frame by frame kernels round otherwise than on a clip, so that a tie may turn
            assert [probs[names.index(line[kind])], max(probs)] == pytest.approx([prob, prob], abs=1e-4)
        assert line["shown"] == line["action"] == line["action_top5"][0][0]
        assert line["latency_ms"] > 0 and line["screen_ms"] is None and line["session"] == 0


def test_skipped_frames_are_shown_and_not_encoded(engine, video, tmp_path):
    recorded = tmp_path / "out.mp4"
    options = LiveOptions(windows_s=(0.5,), headless=True, record=recorded, skip_frames=2)
    report = run_live(engine, open_source(str(video), fast=True), options)
    assert (report.num_captured, report.num_encoded, report.num_dropped, report.num_shown) == (60, 20, 0, 60)
    times = [time_s for time_s, _ in iter_frames(recorded)]
    assert len(times) == 60 and times[-1] == pytest.approx(2.95, abs=0.01), "on the file's own clock"


def test_csv_and_what_is_refused(engine, video, tmp_path):
    log = tmp_path / "log.csv"
    run_live(engine, open_source(str(video), fast=True), LiveOptions(windows_s=(1.0,), headless=True, log=log))
    header, *rows = log.read_text().splitlines()
    assert header.startswith("at,time_s,verb,") and header.endswith("latency_ms,screen_ms,session") and len(rows) > 30
    before = log.read_bytes()
    for path, message in (
        (log, "exists already and is kept"),
        (tmp_path / "log.txt", "one that ends in .jsonl or .csv"),
        (log / "x" / "log.jsonl", "cannot be written"),
    ):
        with pytest.raises(InputError, match=message):
            run_live(engine, open_source(str(video), fast=True), LiveOptions(headless=True, log=path))
    assert log.read_bytes() == before
    with pytest.raises(InputError, match="--skip-frames -1"):
        LiveOptions(skip_frames=-1)


def test_nothing_is_left_where_nothing_was_seen(engine, tmp_path):
    log, recorded = tmp_path / "log.jsonl", tmp_path / "out.mp4"
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video at all")
    with pytest.raises(InputError, match=r"broken.mp4"):
        run_live(engine, open_source(str(broken)), LiveOptions(headless=True, log=log, record=recorded))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["broken.mp4"]


# As it comes


def test_a_file_at_its_own_rate(engine, video):
    report = run_live(engine, open_source(str(video)), LiveOptions(windows_s=(0.5,), headless=True))
    assert states_of(report) == ["starting", "live", "stopped"]
    assert report.num_captured == 60 and report.seconds > 2.5
    assert report.num_encoded + report.num_dropped == 60 and report.num_encoded > 1
    assert report.latency.median_ms > 0 and report.screen_latency is None


@pytest.mark.slow
def test_a_stream_that_stalls_closes_and_returns(live_here, caplog, tmp_path):
    log, recorded = tmp_path / "log.jsonl", tmp_path / "out.mp4"

    def act():
        wait_for(lambda: num_lines(log) > 5, "predictions")
        server.stall()
        wait_for(lambda: "no signal (" in caplog.text, "the stall to be told")
        for _ in range(2):  # the first second that is written may be from before the stall
            size = recorded.stat().st_size
            wait_for(lambda size=size: recorded.stat().st_size > size, "the time without a signal to be recorded too")
        stalled = num_lines(log)
        server.flow()
        wait_for(lambda: num_lines(log) > stalled + 5, "predictions after the stall")
        server.close()
        wait_for(lambda: "reconnecting (" in caplog.text, "the lost connection to be told")
        server.open()
        wait_for(lambda: lines_of(log)[-1]["session"] > 0, "predictions after the reconnection")

    with MjpegServer(fps=15.0) as server:
        code, report = live_here(server.url, "--headless", "--log", log, "--record", recorded, act=act)
    assert code == 0
    states = states_of(report)
    assert states[:2] == ["starting", "live"] and states[-1] == "stopped"
    assert states.index("no signal") < len(states) - 1 - states[::-1].index("reconnecting")
    sessions, times_s = zip(*((line["session"], line["time_s"]) for line in lines_of(log)), strict=True)
    assert list(sessions) == sorted(sessions) and sessions[0] == 0
    assert (np.diff(times_s) > 0).all(), "no prediction of a frozen picture"
    assert report["recordings"] == [str(recorded)] and len(list(iter_frames(recorded))) > 5


@pytest.mark.slow
def test_a_fifo_whose_writer_ends_and_comes_back(live_here, video, tmp_path):
    need(os.name == "posix", "fifos")
    fifo, log = tmp_path / "camera", tmp_path / "log.jsonl"
    os.mkfifo(fifo)
    write = ("-re", "-stream_loop", "-1", "-i", video, "-c:v", "mpeg2video", "-q:v", "3", "-f", "mpegts", fifo)

    def act():
        for session in range(2):
            with ffmpeg(*write):
                wait_for(lambda session=session: num_lines(log) and lines_of(log)[-1]["session"] == session, "lines")

    code, report = live_here(fifo, "--headless", "--log", log, act=act, number=signal.SIGTERM)
    assert code == 0
    states = states_of(report)
    assert states[:2] == ["starting", "live"] and states[-1] == "stopped" and "reconnecting" in states
    assert {line["session"] for line in lines_of(log)} == {0, 1}


@pytest.mark.slow
def test_a_recording_of_a_fifo_has_its_size_however_late_it_comes(live_here, tmp_path):
    need(os.name == "posix", "fifos")
    video = write_numbered(tmp_path / "v.mp4", 40, fps=20, size_px=(320, 240))
    fifo, log, recorded = tmp_path / "camera", tmp_path / "log.jsonl", tmp_path / "out.mp4"
    os.mkfifo(fifo)

    def nothing():
        wait_for(recorded.exists, "the recording")

    code, report = live_here(fifo, "--headless", "--record", recorded, act=nothing)
    assert (code, report) == (75, None)
    assert not recorded.exists(), "nothing was seen"

    def late():
        nothing()
        time.sleep(0.3)  # a few pictures without a source are composed meanwhile
        with ffmpeg("-re", "-stream_loop", "-1", "-i", video, "-c:v", "mpeg2video", "-q:v", "3", "-f", "mpegts", fifo):
            wait_for(lambda: num_lines(log) > 0, "predictions")

    code, _ = live_here(fifo, "--headless", "--log", log, "--record", recorded, act=late)
    assert code == 0
    assert {frame.shape for _, frame in iter_frames(recorded)} == {(360, 480, 3)}


@pytest.mark.parametrize("skip_frames", [0, 1000])
def test_a_fault_is_told_in_order_too(engine, tmp_path, skip_frames):
    """Also where recognition is quicker than the decoder."""
    whole = write_numbered(tmp_path / "whole.mp4", 80, fps=20, container_options={"movflags": "faststart"})
    video = tmp_path / "cut.mp4"
    video.write_bytes(whole.read_bytes()[: whole.stat().st_size * 6 // 10])
    report = run_live(engine, open_source(str(video), fast=True), LiveOptions(headless=True, skip_frames=skip_frames))
    assert report.num_captured > 20 and "cut.mp4" in report.fault and report.log is None


def test_frames_too_far_apart_for_any_window_are_told(engine, video, caplog):
    options = LiveOptions(windows_s=(0.1,), headless=True, skip_frames=9)
    report = run_live(engine, open_source(str(video), fast=True), options)
    assert report.num_predictions == 0
    assert caplog.text.count("frames are encoded 0.5 s apart, and the shortest window is 0.1 s") == 1


def test_on_a_full_disk_the_log_ends_with_a_whole_line(checkpoint, video, tmp_path, capsys):
    log = tmp_path / "log.jsonl"
    with no_file_longer_than(5000):
        code = main(words_for(checkpoint, video, "--headless", "--fast", "--log", log))
    out, errors = capsys.readouterr()
    assert code == 1
    assert out == ""
    told = errors.splitlines()[-1]
    assert told.startswith(f"egochef: {log}: cannot be written any further (File too large)")
    assert "Free space" in told
    assert log.read_text().endswith("}\n")
    assert all(row["action_top5"] and "session" in row for row in lines_of(log))
    assert 3000 < log.stat().st_size <= 5000


def test_on_a_full_disk_the_recording_is_named(checkpoint, video, tmp_path, capsys):
    path = tmp_path / "out.mp4"
    with no_file_longer_than(4000):
        code = main(words_for(checkpoint, video, "--headless", "--fast", "--record", path))
    told = capsys.readouterr().err.splitlines()[-1]
    assert code == 1
    assert told.startswith(f"egochef: {path}: the recording has stopped (File too large)")
    assert "Free space" in told
    assert not path.exists() or list(iter_frames(path))


def test_a_file_that_breaks_in_the_middle(checkpoint, tmp_path, capsys):
    """What was seen until then is in the log and in the recording; the exit code says that it was no good end."""
    whole = write_numbered(tmp_path / "whole.mp4", 160, fps=20, container_options={"movflags": "faststart"})
    video = tmp_path / "cut.mp4"
    video.write_bytes(whole.read_bytes()[: whole.stat().st_size * 6 // 10])
    log, recorded = tmp_path / "log.jsonl", tmp_path / "out.mp4"
    code = main(words_for(checkpoint, video, "--headless", "--log", log, "--record", recorded))
    out, errors = capsys.readouterr()
    report = json.loads(out)
    assert code == 1 and errors.splitlines()[-1].startswith("egochef: ") and "cut.mp4" in errors.splitlines()[-1]
    assert states_of(report) == ["starting", "live", "stopped"] and report["fault"]
    assert num_lines(log) > 0 and len(list(iter_frames(recorded))) > 1


def test_ctrl_c_leaves_a_recording_that_plays(checkpoint, video, tmp_path):
    log, recorded = tmp_path / "log.jsonl", tmp_path / "out.mp4"
    with live(checkpoint, video, "--loop", "--headless", "--log", log, "--record", recorded) as process:
        wait_for(lambda: num_lines(log) > 15, "predictions")
        process.send_signal(signal.SIGINT)
        code, report, errors = ends(process)
    assert code == 0, errors
    frames = list(iter_frames(recorded))
    assert len(frames) > 10 and frames[0][1].shape == (360, 480, 3)
    lines = lines_of(log)
    assert report["num_predictions"] == len(lines)
    assert all(line["screen_ms"] is None or line["screen_ms"] >= line["latency_ms"] for line in lines)
    assert report["screen_latency"]["p95_ms"] >= report["screen_latency"]["median_ms"] > 0


# On the screen


@pytest.fixture(scope="module")
def two_colours(tmp_path_factory):
    """Red on the left, blue on the right: which side is which can be seen."""
    path = tmp_path_factory.mktemp("colours") / "two.mp4"
    picture = np.zeros((360, 640, 3), np.uint8)
    picture[:, :320, 0], picture[:, 320:, 2] = 220, 220
    with write_video(path, rate=Fraction(5)) as writer:
        for _ in range(10):
            writer.add(picture)
    return path


@pytest.mark.slow
def test_keys_on_a_screen(checkpoint, two_colours, screen, tmp_path):
    """Every key does what the help says; looked at as pixels, and as files."""
    need(find_spec("pygame") is not None, "pygame-ce")
    environment = {**screen.environment, "PWD": str(tmp_path)}
    command = ["--loop", "--threshold", "0.1", "--out", tmp_path / "keys"]
    with live(checkpoint, two_colours, *command, environment=environment) as process:
        window = screen.window(process)
        assert "two.mp4" in screen.title(window)
        left, top, width, height = screen.place(window)
        probes = [(top + height // 2, left + width * part // 8) for part in (3, 5)]  # where nothing is drawn

        def colours(picture):
            return ["RGB"[int(picture[place].argmax())] if picture[place].max() > 120 else "-" for place in probes]

        screen.wait_for(lambda picture: colours(picture) == ["R", "B"])
        screen.press("m")
        screen.wait_for(lambda picture: colours(picture) == ["B", "R"])
        screen.press("m")
        screen.wait_for(lambda picture: colours(picture) == ["R", "B"])
        middle = (
            slice(top + height // 2 - 20, top + height // 2 + 20),
            slice(left + width // 3, left + 2 * width // 3),
        )
        bare = screen.picture()[middle].astype(int)
        screen.press("h")
        screen.wait_for(lambda picture: np.abs(picture[middle] - bare).mean() > 20)  # the help lies over it
        screen.press("h")
        screen.wait_for(lambda picture: np.abs(picture[middle] - bare).mean() < 5)

        screen.press("s")
        (shot,) = wait_for(lambda: list((tmp_path / "keys").glob("egochef-*.png")), "a screenshot")
        screen.press("r")
        (recorded,) = wait_for(lambda: list((tmp_path / "keys").glob("*.mp4")), "a recording")
        for order in (["B", "R"], ["R", "B"]):  # two pictures at least
            screen.press("m")
            screen.wait_for(lambda picture, order=order: colours(picture) == order)
        screen.press("r")
        wait_for(lambda: is_whole(recorded), "the recording's end")

        screen.press("space", "plus", "plus", "plus", "minus", "space", "q")
        code, report, errors = ends(process)
    assert code == 0, errors
    assert report["recordings"] == [str(recorded)] and len(list(iter_frames(recorded))) > 1
    from PIL import Image

    assert Image.open(shot).size == (640, 360)


def is_whole(path):
    try:
        return list(iter_frames(path))
    except InputError:
        return None


# Bad input


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--camera", "7"], "camera"),
        (["--camera", "http://127.0.0.1:9/video"], "http://127.0.0.1:9/video"),
        (["--camera", "nowhere.mp4"], "nowhere.mp4: no such file"),
        (["--num-frames", "16"], "takes 4 frames"),
        (["--window", "0"], "each from 0.01 to 3600 s"),
        (["--threshold", "2"], "threshold is 2.0"),
        (["--fp16", "--precision", "bf16"], "--fp16 and --precision bf16: give one of them"),
        (["--record", "out.avi"], "ends in .mp4"),
        (["--record", "there.mp4"], "exists already and is kept"),
        (["--log", "there.mp4/log.jsonl"], "cannot be written"),
        (["--camera", "sound.wav"], "sound.wav"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, list) else "",
)
def test_bad_input_is_one_line(checkpoint, video, tmp_path, monkeypatch, capsys, words, message):
    monkeypatch.chdir(tmp_path)
    Path("there.mp4").write_bytes(b"kept")
    Path("sound.wav").write_bytes(
        b"RIFF\x24\0\0\0WAVEfmt \x10\0\0\0\x01\0\x01\0\x40\x1f\0\0\x80\x3e\0\0\x02\0\x10\0data\0\0\0\0"
    )
    camera = [] if "--camera" in words else ["--camera", str(video)]
    code = main(
        [
            "live",
            "--checkpoint",
            str(checkpoint),
            "--backend",
            "torch",
            "--device",
            "cpu",
            "--headless",
            *camera,
            *words,
        ]
    )
    error = capsys.readouterr().err.splitlines()[-1]
    assert code == 1 and error.startswith("egochef: ") and message in error
    assert Path("there.mp4").read_bytes() == b"kept"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["sound.wav", "there.mp4"]


def test_a_display_that_is_not_there(checkpoint, video, monkeypatch, capsys):
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    code = main(["live", "--checkpoint", str(checkpoint), "--backend", "torch", "--camera", str(video)])
    assert code == 1 and "use --headless" in capsys.readouterr().err


def test_a_checkpoint_without_class_names(checkpoint, video, tmp_path, capsys):
    import safetensors.torch

    tensors = safetensors.torch.load_file(checkpoint)
    with safetensors.safe_open(checkpoint, framework="pt") as file:
        header = json.loads(file.metadata()["egochef"])
    del header["verbs"]
    bare = tmp_path / "bare.safetensors"
    safetensors.torch.save_file(tensors, bare, metadata={"egochef": json.dumps(header)})
    assert main(["live", "--checkpoint", str(bare), "--camera", str(video), "--headless"]) == 1
    assert "bare.safetensors: damaged header (no verbs)" in capsys.readouterr().err


def test_the_report_is_plain(engine, video):
    report = run_live(engine, open_source(str(video), fast=True), LiveOptions(headless=True))
    assert json.loads(json.dumps(dataclasses.asdict(report)))["num_captured"] == 60
