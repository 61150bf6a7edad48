"""Sources while they run: files, pictures and cameras here; streams and fifos in `test_streams`."""

import re
import sys
import threading
import time
from collections.abc import Generator, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from numbered import decode_all, numbered_picture, read_number, write_numbered
from PIL import Image
from streams import wait_for

from egochef.errors import InputError
from egochef.live import capture as capture_module
from egochef.live import sources
from egochef.live.capture import Capture, Frame, State
from egochef.live.sources import Source, list_cameras, open_source
from egochef.live.streams import Grab, SourceError
from egochef.video.decode import iter_frames


@pytest.fixture(autouse=True)
def no_thread_left() -> Iterator[None]:
    yield
    wait_for(lambda: not any(t.name.startswith("capture ") for t in threading.enumerate()), "the threads to end")


@pytest.fixture(scope="module")
def varied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """12 numbered frames over 0.8 s, at no constant rate."""
    ticks = [0, 30, 60, 90, 300, 310, 320, 330, 500, 540, 700, 800]
    return write_numbered(tmp_path_factory.mktemp("varied") / "varied.mkv", len(ticks), ticks=ticks)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """150 numbered frames at 25 fps."""
    options = {"container_options": {"movflags": "faststart"}, "options": {"g": "25"}}
    return write_numbered(tmp_path_factory.mktemp("whole") / "whole.mp4", 150, **options)


@pytest.fixture
def hole(whole: Path, tmp_path: Path) -> Path:
    """`whole` with damage in the middle."""
    data = whole.read_bytes()
    path = tmp_path / "hole.mp4"
    path.write_bytes(data[: len(data) // 2] + bytes(3000) + data[len(data) // 2 + 3000 :])
    return path


def take(capture: Capture, until_number: int) -> list[Frame]:
    """The newest frames as they come, until one with this number or a later one."""
    taken = [wait_for(lambda: capture.newest(0, 1.0), "a frame")]
    while taken[-1].number < until_number:
        taken.append(wait_for(lambda: capture.newest(taken[-1].number, 1.0), "the next frame"))
    return taken


# Files


def test_file_is_played_at_its_own_rate(varied: Path) -> None:
    reference = decode_all(varied)
    source = open_source(str(varied))
    assert (source.kind, source.name, source.is_live) == ("file", str(varied), False)
    begin = time.perf_counter()
    with Capture(source) as capture:
        frames = take(capture, 12)
        assert frames[-1].number == 12
        for frame in frames:
            assert read_number(frame.picture) == frame.number - 1
            assert frame.time_s == reference.times_s[frame.number - 1]
            assert frame.captured_at - begin >= frame.time_s, "not before it is due"
            assert frame.picture.flags.c_contiguous and frame.session == 0
        wait_for(lambda: capture.state is State.STOPPED, "the end")
        assert (capture.reason, capture.fault) == ("the file ended", None)
        assert capture.newest(11, 0) is frames[-1], "the last frame can still be had"
        assert capture.newest(12, 60.0) is None
        assert [state for _, state, _ in capture.changes] == [State.STARTING, State.LIVE, State.STOPPED]
        assert capture.num_captured == 12
    assert capture.reason == "the file ended"


def test_fast_gives_every_frame_in_order_while_another_looks_on(whole: Path) -> None:
    with Capture(open_source(str(whole), fast=True)) as capture:
        numbers = []
        for frame in capture.in_order():
            numbers.append(read_number(frame.picture))
            assert frame.number == len(numbers) and frame.time_s == pytest.approx(numbers[-1] / 25)
            looked_at = capture.newest(0, 0)  # a screen that looks at the newest one takes none away
            assert looked_at is not None and looked_at.number - frame.number in (0, 1)
        assert numbers == list(range(150))
        assert capture.state is State.STOPPED and capture.fault is None


def test_fast_can_be_left_halfway(whole: Path) -> None:
    with Capture(open_source(str(whole), fast=True)) as capture:
        frame = next(capture.in_order())
        assert frame.number == 1
    assert capture.state is State.STOPPED and capture.num_captured <= 2


@pytest.mark.parametrize("fast", [False, True])
def test_loop_goes_on_with_a_new_session(varied: Path, fast: bool) -> None:
    with Capture(open_source(str(varied), fast=fast, loop=True)) as capture:
        times_s: list[float] = []
        sessions = set()
        for frame in capture.in_order():
            assert read_number(frame.picture) == (frame.number - 1) % 12
            assert frame.session == (frame.number - 1) // 12
            assert not times_s or frame.time_s > times_s[-1]
            times_s.append(frame.time_s)
            sessions.add(frame.session)
            if frame.number > 26:
                break
        assert max(sessions) >= 2
        if fast:
            assert sessions == {0, 1, 2}
            assert times_s[12] == pytest.approx(0.9), "the last frame is on screen for as long as the one before"


def test_pause_holds_a_file(whole: Path) -> None:
    with Capture(open_source(str(whole))) as capture:
        take(capture, 3)
        capture.pause(True)
        number = capture.num_captured
        time.sleep(0.2)  # five frames, if it went on
        assert capture.num_captured <= number + 1, "one was on its way"
        assert capture.state is State.LIVE
        capture.pause(False)
        assert take(capture, number + 2)
        capture.pause(True)
    assert capture.state is State.STOPPED, "stops while paused"


@pytest.mark.parametrize("fast", [False, True])
def test_file_that_breaks_in_the_middle(hole: Path, fast: bool) -> None:
    with Capture(open_source(str(hole), fast=fast)) as capture:
        last = list(capture.in_order())[-1]
        assert read_number(last.picture) == last.number - 1 > 30
        assert capture.state is State.STOPPED
        assert capture.fault == capture.reason
        assert re.fullmatch(rf"{hole}: is damaged or cut off at [234]\.\d+ s\. .*", capture.fault)
        assert "\n" not in capture.fault


def test_odd_videos_are_upright_and_whole(odd_videos: Path) -> None:
    for name in ("torchcodec__test_resources_nasa_13013_rotated.mp4", "decord__tests_test_data_unordered.mov"):
        path = odd_videos / name
        with Capture(open_source(str(path), fast=True)) as capture:
            frames = list(capture.in_order())
        expected = list(iter_frames(path))
        assert [frame.time_s for frame in frames] == [time_s for time_s, _ in expected]
        assert all(np.array_equal(frame.picture, picture) for frame, (_, picture) in zip(frames, expected, strict=True))


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("torchcodec__test_resources_nasa_13013.mp4.audio.mp3", "cannot be opened"),
        ("moviepy__media_doc_medias_result.webm", "is empty"),
        ("lerobot__tests_artifacts_encoded_videos_clip_4frames.mp4", "Git LFS pointer"),
    ],
)
def test_no_video_in_the_file(odd_videos: Path, name: str, reason: str) -> None:
    with pytest.raises(InputError, match=reason) as caught:
        open_source(str(odd_videos / name))
    assert name in str(caught.value) and "\n" not in str(caught.value)


# Folders of pictures


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Nine numbered pictures, in an order that sorting by letters would lose, and a file that is none."""
    for number in range(9):
        name = f"frame_{number + 4}.{'png' if number % 2 else 'JPG'}"
        Image.fromarray(numbered_picture(number)).save(tmp_path / name, quality=95)
    (tmp_path / "notes.txt").write_text("not a picture")
    return tmp_path


def test_pictures_of_two_cameras_follow_their_names(tmp_path: Path) -> None:
    for name in ("right2", "left10", "right1", "left9"):
        Image.fromarray(numbered_picture({"left9": 0, "left10": 1, "right1": 2, "right2": 3}[name])).save(
            tmp_path / f"{name}.png"
        )
    with Capture(open_source(str(tmp_path), fast=True)) as capture:
        assert [read_number(frame.picture) for frame in capture.in_order()] == [0, 1, 2, 3]


def test_folder_of_pictures(folder: Path) -> None:
    source = open_source(str(folder), fast=True, fps=20.0)
    assert source.kind == "pictures" and source.duration_s == pytest.approx(0.45)
    with Capture(source) as capture:
        frames = list(capture.in_order())
    assert [read_number(frame.picture) for frame in frames] == list(range(9))
    assert [frame.time_s for frame in frames] == pytest.approx([number / 20 for number in range(9)])


def test_picture_stored_on_its_side_is_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise to see it upright
    picture = np.rot90(numbered_picture(5, 64, 80))
    Image.fromarray(picture).save(tmp_path / "1.jpg", quality=95, exif=exif)
    with Capture(open_source(str(tmp_path))) as capture:
        frame = capture.newest(0, 0)
    assert frame is not None and frame.picture.shape == (80, 64, 3) and read_number(frame.picture) == 5


def test_folder_without_pictures(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"{tmp_path}: no picture in it, expected files named .jpg .jpeg .png"):
        open_source(str(tmp_path))


@pytest.mark.parametrize("kind", ["text", "cut off", "too large"])
def test_unreadable_picture(folder: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = folder / "frame_8.JPG"
    if kind == "text":
        broken.write_text("no picture")
    elif kind == "cut off":
        broken.write_bytes(broken.read_bytes()[: broken.stat().st_size // 2])
    else:
        monkeypatch.setattr(sources, "MAX_PIXELS", 64 * 64)
        Image.fromarray(numbered_picture(4, 65, 64)).save(broken)
    with Capture(open_source(str(folder), fast=True)) as capture:
        frames = list(capture.in_order())
    assert [read_number(frame.picture) for frame in frames] == [0, 1, 2, 3]
    assert capture.fault is not None and capture.fault.startswith(f"{broken}: ") and "\n" not in capture.fault
    broken.rename(folder / "a.jpg")  # the first one by name
    with pytest.raises(InputError, match=r"a\.jpg: (cannot be read|has 65x64 pixels)"):
        open_source(str(folder))


# Cameras


def as_linux(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, num_cameras: int) -> None:
    """Device files for cameras, with nothing behind them."""
    devices, drivers = tmp_path / "dev", tmp_path / "drivers"
    devices.mkdir()
    for number in range(num_cameras):
        (devices / f"video{number}").touch()
        (drivers / f"video{number}").mkdir(parents=True)
        (drivers / f"video{number}" / "name").write_text(f"Webcam {number}\n")
    monkeypatch.setattr(sources, "DEVICES", devices)
    monkeypatch.setattr(sources, "DRIVERS", drivers)
    monkeypatch.setattr(sys, "platform", "linux")


def test_no_camera_tells_what_there_is(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    as_linux(monkeypatch, tmp_path, 0)
    with pytest.raises(InputError, match=r"camera 0: not found, there are: none\. Plug one in, or name a video file"):
        open_source("0")
    assert capfd.readouterr() == ("", ""), "OpenCV says nothing of its own"


def test_camera_that_cannot_be_opened(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    as_linux(monkeypatch, tmp_path, 2)
    assert list_cameras() == "0 (Webcam 0), 1 (Webcam 1)"
    with pytest.raises(InputError, match=r"camera 5: not found, there are: 0 \(Webcam 0\), 1 \(Webcam 1\)"):
        open_source("5")
    with pytest.raises(InputError, match=r"camera 1: .*video1 is there, but cannot be opened as a camera\. End the"):
        open_source("1")
    assert capfd.readouterr() == ("", "")


def test_camera_that_is_unplugged_and_back(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, whole: Path) -> None:
    """OpenCV reads a video in the camera's place: its end is the unplugging."""
    as_linux(monkeypatch, tmp_path, 1)
    real, asked = cv2.VideoCapture, []
    monkeypatch.setattr(cv2, "VideoCapture", lambda index, _: asked.append(index) or real(str(whole)))
    monkeypatch.setattr(capture_module, "BACKOFF_S", (0.05,))
    source = open_source("0", size=(640, 480))
    assert (source.kind, source.name, source.is_live) == ("camera", "camera 0", True)
    assert asked == [0]
    with Capture(source, no_signal_s=60.0) as capture:
        assert asked == [0], "opened once for the first connection"
        first = take(capture, 1)[0]
        picture = decode_all(whole).frames[first.number - 1].astype(int)
        assert np.abs(first.picture - picture).mean() < 3, "RGB, not BGR"
        wait_for(lambda: capture.newest(0, 1.0).session >= 2, "the third connection")  # type: ignore[union-attr]
        told = [(state, reason) for _, state, reason in capture.changes]
        assert told[:4] == [
            (State.STARTING, ""),
            (State.LIVE, ""),
            (State.RECONNECTING, "gives no picture"),
            (State.LIVE, ""),
        ]
        (tmp_path / "dev" / "video0").unlink()
        wait_for(lambda: capture.reason == "cannot be opened", "the camera to be missed")
        assert capture.state is State.RECONNECTING


class HungCamera:
    """Gives two pictures, then its read hangs until released."""

    def __init__(self) -> None:
        self.num_read = 0
        self.go_on = threading.Event()
        self.released = False

    def isOpened(self) -> bool:
        return True

    def set(self, what: int, value: float) -> bool:
        return False

    def read(self) -> tuple[bool, np.ndarray | None]:
        self.num_read += 1
        if self.num_read > 2:
            self.go_on.wait()
            return False, None
        return True, numbered_picture(self.num_read)

    def release(self) -> None:
        self.released = True


def test_camera_that_hangs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    as_linux(monkeypatch, tmp_path, 1)
    camera = HungCamera()
    monkeypatch.setattr(cv2, "VideoCapture", lambda index, _: camera)
    capture = Capture(open_source("0"), no_signal_s=0.2)
    capture.start()
    wait_for(lambda: capture.state is State.NO_SIGNAL, "no signal")
    assert capture.reason == "no picture for 0.2 s" and capture.rate_fps >= 0
    assert capture.newest(capture.num_captured, 0.05) is None
    capture.stop()
    assert capture.state is State.STOPPED
    assert "camera 0: a read hangs and is left behind" in caplog.text
    assert not camera.released
    camera.go_on.set()
    wait_for(lambda: camera.released, "the camera to be let go")
    assert capture.state is State.STOPPED


# Back-off, and what can go wrong with a source of our own


def test_waits_longer_between_attempts_until_it_succeeds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capture_module, "BACKOFF_S", (0.05, 0.1, 0.2, 0.4))
    begun: list[float] = []

    def read(stopped: threading.Event) -> Generator[Grab]:
        begun.append(time.perf_counter())
        if len(begun) in (1, 7):
            yield Grab(None, time.perf_counter(), numbered_picture(len(begun)))
        raise SourceError("made up", f"attempt {len(begun)} failed", "Nothing.")

    with Capture(Source("made up", "stream", read)) as capture:
        wait_for(lambda: len(begun) >= 9, "nine attempts")
        assert (np.diff(begun)[:8] >= np.array([0.05, 0.1, 0.2, 0.4, 0.4, 0.4, 0.05, 0.1]) - 1e-3).all()
        assert [frame.session for frame in [capture.newest(0, 0)] if frame] == [1]
        assert capture.reason.startswith("attempt ")
        assert [state for _, state, _ in capture.changes].count(State.RECONNECTING) == 2


def test_first_connection_that_fails_is_told_by_start() -> None:
    def read(stopped: threading.Event) -> Generator[Grab]:
        raise SourceError("made up", "is not there", "Build it.")
        yield

    capture = Capture(Source("made up", "stream", read))
    with pytest.raises(InputError, match="made up: is not there. Build it."):
        capture.start()
    assert (capture.state, capture.fault) == (State.STOPPED, "made up: is not there. Build it.")

    empty = Capture(Source("made up", "stream", lambda stopped: (grab for grab in ())))
    with pytest.raises(InputError, match="made up: ended before its first picture"):
        empty.start()


def test_our_own_faults_are_raised_not_told() -> None:
    def read(stopped: threading.Event) -> Generator[Grab]:
        yield Grab(None, time.perf_counter(), numbered_picture(1))
        raise ZeroDivisionError("a bug")

    with pytest.raises(ZeroDivisionError), Capture(Source("made up", "stream", read)) as capture:
        list(capture.in_order())


def test_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    def read(stopped: threading.Event) -> Generator[Grab]:
        while not stopped.wait(0.02):
            yield Grab(None, time.perf_counter(), numbered_picture(1))

    with Capture(Source("made up", "stream", read)) as capture:
        wait_for(lambda: capture.num_captured > 20, "some frames")
        assert wait_for(lambda: capture.rate_fps, "a rate") < 50
        times_s = [frame.time_s for frame in take(capture, 30)]
        assert (np.diff(times_s) > 0).all()


# What is named


@pytest.mark.parametrize(
    ("where", "options", "reason"),
    [
        ("", {}, "no name: no such file, expected a camera's number, a video file"),
        ("-1", {}, "-1: no such file, .* Cameras found: "),
        ("no/such.mp4", {}, "no/such.mp4: no such file, .* Cameras found: "),
        ("gopher://me:secret@host/x", {}, r"gopher://\*\*\*@host/x: this kind of address is not read, expected one of"),
        ("http://host/x", {"fast": True}, "http://host/x: fast is for a video file or a folder"),
        ("http://host/x", {"loop": True}, "http://host/x: loop is for a video file or a folder"),
        ("/dev/null", {}, "/dev/null: is a device or a pipe, expected a video file"),
    ],
)
def test_what_cannot_be_a_source(where: str, options: dict[str, bool], reason: str) -> None:
    with pytest.raises(InputError, match=reason) as caught:
        open_source(where, **options)
    assert "\n" not in str(caught.value)


def test_options_that_do_not_fit(whole: Path, folder: Path) -> None:
    with pytest.raises(InputError, match="a picture size can be asked of a camera only"):
        open_source(str(whole), size=(640, 480))
    with pytest.raises(InputError, match="0.0 pictures a second, expected 0.001 to 1000"):
        open_source(str(folder), fps=0.0)
