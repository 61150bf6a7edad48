"""Sources that wait for nobody: network streams and fifos, as they start, stall, break and come back."""

import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
from conftest import need
from numbered import read_number, write_numbered
from streams import DEADLINE_S, MjpegServer, RtspRelay, ffmpeg, reply, wait_for, web

from egochef.errors import InputError
from egochef.live import capture as capture_module
from egochef.live import streams as streams_module
from egochef.live.capture import Capture, State
from egochef.live.sources import open_source
from egochef.live.streams import MAX_BACKLOG_S, Backlog

LIVE_TEST_PICTURE = ("-re", "-f", "lavfi", "-i", "testsrc=size=128x96:rate=25")


@pytest.fixture(autouse=True)
def on_its_own(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No proxy between us and loopback, quick attempts, and no thread left behind."""
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setattr(capture_module, "BACKOFF_S", (0.05, 0.1))
    yield
    wait_for(lambda: not any(t.name.startswith("capture ") for t in threading.enumerate()), "the threads to end")


@pytest.fixture
def server() -> Iterator[MjpegServer]:
    with MjpegServer(fps=25) as server:
        yield server


@pytest.fixture
def fifo(tmp_path: Path) -> Path:
    need(hasattr(os, "mkfifo"), "fifos")
    need(shutil.which("ffmpeg") is not None, "ffmpeg")
    os.mkfifo(tmp_path / "camera.fifo")
    return tmp_path / "camera.fifo"


def wait_state(capture: Capture, state: State) -> None:
    wait_for(lambda: capture.state is state, f"{state}, still {capture.state}: {capture.reason}")


def wait_fresh(capture: Capture, server: MjpegServer) -> None:
    """Until the picture that is handed out is the one that the server sends just then, or the one before."""
    wait_for(
        lambda: (
            (frame := capture.newest(capture.num_captured, 1.0)) is not None
            and server.number - read_number(frame.picture) in (0, 1)
        ),
        "a fresh picture",
    )


def states(capture: Capture) -> list[State]:
    return [state for _, state, _ in capture.changes]


def stop(capture: Capture) -> None:
    """Pytest's own limit ends a stop that hangs."""
    capture.stop()
    assert capture.state is State.STOPPED and capture.newest(capture.num_captured, 60.0) is None


# HTTP MJPEG


def test_http_stalls_and_flows_again(server: MjpegServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams_module, "READ_S", DEADLINE_S)  # it is not given up
    with Capture(open_source(server.url), no_signal_s=0.3) as capture:
        wait_fresh(capture, server)
        server.stall()
        wait_state(capture, State.NO_SIGNAL)
        number = capture.num_captured
        assert capture.newest(number, 0.05) is None, "no frozen picture is given again"
        server.flow()
        wait_state(capture, State.LIVE)
        wait_fresh(capture, server)
        assert State.RECONNECTING not in states(capture)
        frame = capture.newest(0, 0)
        assert frame is not None and frame.session == 0 and server.num_connections == 1
        assert [at_s for at_s, _, _ in capture.changes] == sorted(at_s for at_s, _, _ in capture.changes)


def test_http_stalls_for_too_long(server: MjpegServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams_module, "READ_S", 1.5)
    monkeypatch.setattr(streams_module, "OPEN_S", 1.5)
    with Capture(open_source(server.url), no_signal_s=0.5) as capture:
        server.stall()
        wait_state(capture, State.RECONNECTING)
        lost = states(capture).index(State.RECONNECTING)
        assert "no answer for 2 s" in capture.changes[lost][2] and states(capture)[lost - 1] is State.NO_SIGNAL
        wait_for(lambda: "cannot be opened (no answer" in capture.reason, "a second attempt to fail")
        server.flow()
        wait_state(capture, State.LIVE)
        wait_fresh(capture, server)
        frame = capture.newest(0, 0)
        assert frame is not None and frame.session >= 1


def test_http_closes_and_returns(server: MjpegServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams_module, "READ_S", DEADLINE_S)
    with Capture(open_source(server.url), no_signal_s=DEADLINE_S) as capture:
        server.cut()  # ends the connection, takes new ones
        wait_for(lambda: server.num_connections == 2, "a new connection")
        wait_fresh(capture, server)
        frame = capture.newest(0, 0)
        assert frame is not None and frame.session == 1
        server.close()
        wait_for(lambda: "Connection refused" in capture.reason, "attempts that are refused")
        assert capture.state is State.RECONNECTING
        assert capture.newest(capture.num_captured, 0.05) is None
        server.open()
        wait_state(capture, State.LIVE)
        wait_fresh(capture, server)
        frame = capture.newest(0, 0)
        assert frame is not None and frame.session == 2
        assert states(capture) == [State.STARTING, State.LIVE, *2 * [State.RECONNECTING, State.LIVE]]


def test_stop_in_every_state(server: MjpegServer) -> None:
    live, stalled, lost = (Capture(open_source(server.url), no_signal_s=0.2) for _ in range(3))
    for capture in (stalled, lost):
        capture.start()
    server.stall()
    wait_for(lambda: State.NO_SIGNAL in states(stalled), "the stall to be seen")
    stop(stalled)  # while its read hangs
    server.close()
    wait_state(lost, State.RECONNECTING)
    stop(lost)
    stop(lost)
    server.open()
    live.start()
    stop(live)


# What cannot be opened, or is not live


def test_nobody_there() -> None:
    with MjpegServer() as server:
        url = server.url
    with pytest.raises(
        InputError, match=r"/video: cannot be opened \(Connection refused\)\. Check the address"
    ) as caught:
        Capture(open_source(url)).start()
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match=r"cannot be opened \(no such host, or the connection failed\)"):
        Capture(open_source("http://camera.invalid/video")).start()


def test_nobody_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams_module, "OPEN_S", 1.0)
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        pytest.raises(InputError, match=r"cannot be opened \(no answer for 1 s\)\. Check the address"),
    ):
        Capture(open_source(f"http://127.0.0.1:{server.getsockname()[1]}/video")).start()


def test_nothing_to_see(tmp_path: Path) -> None:
    video = write_numbered(tmp_path / "whole.mp4", 30, container_options={"movflags": "faststart"}).read_bytes()
    secret = write_numbered(tmp_path / "secret.ts", 30)

    def serve(request: BaseHTTPRequestHandler) -> None:
        if request.path == "/text":
            reply(request, 200, b"Welcome to your camera. " * 400, Content_Type="text/plain")
        elif request.path == "/finished":
            reply(request, 200, video, Content_Type="video/mp4")
        elif request.path == "/redirected":
            reply(request, 302, Location=f"file://{secret}")
        elif request.path == "/playlist":
            body = f"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:6,\nfile://{secret}\n#EXT-X-ENDLIST\n"
            reply(request, 200, body.encode(), Content_Type="application/vnd.apple.mpegurl")
        elif request.path == "/locked":
            reply(request, 401, WWW_Authenticate='Basic realm="camera"')
        else:
            reply(request, 404)

    with web(serve) as url:
        for path, reason in {
            "/text": r"cannot be opened \(no video format that is read here\)",
            "/finished": "is a finished video of 1 s, expected a stream that goes on. Download it",
            "/redirected": "cannot be opened",
            "/playlist": r"cannot be opened \(a kind of video or address that is not read here\)",
            "/locked": "user name or password is missing or wrong",
            "/missing": r"cannot be opened \(Server returned 404 Not Found\)",
        }.items():
            with pytest.raises(InputError, match=f"^{url}{path}: .*{reason}") as caught:
                Capture(open_source(url + path)).start()
            assert "\n" not in str(caught.value)


@pytest.mark.parametrize("limit", ["ours", "FFmpeg's"])
def test_pictures_that_are_too_large(server: MjpegServer, monkeypatch: pytest.MonkeyPatch, limit: str) -> None:
    monkeypatch.setattr(streams_module, "NO_PICTURE_S", 0.5)
    if limit == "ours":
        monkeypatch.setattr(streams_module, "MAX_PIXELS", 64 * 64 - 1)
        reason = "sends pictures of 64x64, expected 4,095 pixels at most"
    else:  # the header says 16384x8192, and memory for it is never taken
        size = server.pictures[0].index(b"\xff\xc0") + 5
        server.pictures = [jpeg[:size] + bytes.fromhex("20004000") + jpeg[size + 4 :] for jpeg in server.pictures]
        reason = "sends data, but no mjpeg picture that can be decoded"
    with pytest.raises(InputError, match=reason):
        Capture(open_source(server.url)).start()


# Secrets


def test_no_secret_is_ever_told(
    server: MjpegServer, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    url = server.url.replace("://", "://cook:sesame@") + "?token=sesame"
    with Capture(open_source(url)) as capture:
        assert server.requests == ["/video?token=sesame"], "and yet it is sent"
        server.close()
        wait_for(lambda: "refused" in capture.reason, "an attempt to fail")
        told = f"{capture.changes} {capture.reason} {capture.source.name}"
        told += " ".join(thread.name for thread in threading.enumerate())
    for act in (lambda: Capture(open_source(url)).start(), lambda: open_source(url, fast=True)):
        with pytest.raises(InputError) as caught:
            act()
        told += str(caught.value)
    assert "sesame" not in told + caplog.text + "".join(capfd.readouterr())


# Fifos

WRITERS = {
    "mpegts": ("-c:v", "libx264", "-tune", "zerolatency", "-g", "25", "-f", "mpegts"),
    "mjpeg": ("-c:v", "mjpeg", "-f", "mjpeg"),
    "matroska": ("-c:v", "mjpeg", "-f", "matroska", "-flush_packets", "1"),
}


@pytest.mark.parametrize("container", WRITERS)
def test_fifo_has_one_writer_after_another(fifo: Path, container: str) -> None:
    with Capture(open_source(str(fifo)), no_signal_s=DEADLINE_S) as capture:
        assert capture.state is State.STARTING, "nobody waits for a writer"
        assert capture.newest(0, 0.05) is None
        for session in range(2):
            with ffmpeg(*LIVE_TEST_PICTURE, *WRITERS[container], fifo):
                frame = wait_for(lambda: capture.newest(capture.num_captured, 1.0), "a picture")
                assert frame.picture.shape == (96, 128, 3) and frame.session == session
                wait_state(capture, State.LIVE)
            wait_state(capture, State.RECONNECTING)
        assert capture.reason in ("the stream ended", "broke off (Input/output error)") and capture.fault is None
        assert states(capture) == [State.STARTING, *2 * [State.LIVE, State.RECONNECTING]]


def test_fifo_with_a_writer_that_falls_silent(fifo: Path) -> None:
    capture = Capture(open_source(str(fifo)), no_signal_s=0.3)
    capture.start()
    with ffmpeg(*LIVE_TEST_PICTURE, *WRITERS["mpegts"], fifo) as writer:
        wait_state(capture, State.LIVE)
        writer.send_signal(signal.SIGSTOP)
        wait_state(capture, State.NO_SIGNAL)
        number = capture.num_captured
        writer.send_signal(signal.SIGCONT)  # it has not been hung up on
        frame = wait_for(lambda: capture.newest(number + 1, 1.0), "pictures again")
        assert frame.session == 0
        writer.send_signal(signal.SIGSTOP)
        wait_state(capture, State.NO_SIGNAL)
        stop(capture)


def test_fifo_that_is_given_no_video(fifo: Path) -> None:
    capture = Capture(open_source(str(fifo)))
    capture.start()
    fifo.write_bytes(b"no video at all\n" * 5000)
    wait_state(capture, State.STOPPED)
    assert capture.fault == (
        f"{fifo}: cannot be opened (no video format that is read here). Check what is written into it."
    )
    capture.stop()
    assert capture.reason == capture.fault


def test_fifo_without_a_writer_stops(fifo: Path) -> None:
    capture = Capture(open_source(str(fifo)))
    capture.start()
    stop(capture)
    assert states(capture) == [State.STARTING, State.STOPPED]


# RTSP


def test_rtsp(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams_module, "READ_S", DEADLINE_S)  # it is not given up
    need(shutil.which("ffmpeg") is not None, "ffmpeg")
    with RtspRelay() as relay:
        send = ("-f", "rtsp", "-rtsp_transport", "tcp", relay.url)
        capture = Capture(open_source(relay.url.replace("://", "://cook:sesame@")), no_signal_s=0.5)
        with ffmpeg(*LIVE_TEST_PICTURE, *WRITERS["mpegts"][:-2], *send), capture:
            frame = capture.newest(0, 0)
            assert frame is not None and frame.picture.shape == (96, 128, 3)
            relay.flows = False
            wait_state(capture, State.NO_SIGNAL)
            relay.flows = True
            wait_state(capture, State.LIVE)
            assert State.RECONNECTING not in states(capture)


# How old a picture can get


def test_backlog_is_noticed_and_forgotten() -> None:
    backlog = Backlog()
    for number in range(50):  # keeps up: every read waits
        assert not backlog.is_late(number / 25, 100 + number / 25, 0.04)
    late = [
        backlog.is_late(2 + number / 25, 102 + number / 10, 0.0) for number in range(20)
    ]  # decodes 10 of 25 a second
    assert late == [number * (1 / 10 - 1 / 25) > MAX_BACKLOG_S for number in range(20)] and late[-1]
    assert not backlog.is_late(10.0, 115.0, 0.04), "reading waited, so nothing had piled up, whatever the clocks say"
    assert not backlog.is_late(10.04, 115.04, 0.0)


def test_backlog_of_what_comes_faster_than_real_time() -> None:
    backlog = Backlog()
    assert not any(backlog.is_late(number / 25, 100 + number / 1000, 0.0) for number in range(1000))


def test_program_ends_while_a_read_hangs(server: MjpegServer) -> None:
    code = (
        "import sys\n"
        "from egochef.live.capture import Capture, State\n"
        "from egochef.live.sources import open_source\n"
        "with Capture(open_source(sys.argv[1])) as capture:\n"
        "    print('live', flush=True)\n"
        "    sys.stdin.readline()\n"
    )
    command = [sys.executable, "-c", code, server.url]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"live\n"
        server.stall()
        _, told = process.communicate(b"end\n", timeout=DEADLINE_S)
        assert process.returncode == 0 and told == b""
