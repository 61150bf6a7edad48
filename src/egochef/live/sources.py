"""Where live pictures come from: a camera, a video file, a network stream, a fifo, a folder of pictures.

In: what a person names as the camera. Out: a `Source`, checked as far as that goes without reading it; its `read` gives
`Grab`s. Threads, states and pacing are `live.capture`'s.
"""

import re
import sys
import threading
import time
import warnings
from collections.abc import Callable, Generator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from egochef.errors import InputError
from egochef.live.streams import PROTOCOLS, Grab, SourceError, read_fifo, read_url
from egochef.texts import escaped, redacted
from egochef.video.decode import MAX_PIXELS, iter_frames, probe

__all__ = ["Grab", "Source", "SourceError", "list_cameras", "open_source"]

Kind = Literal["camera", "file", "stream", "fifo", "pictures"]
DEVICES, DRIVERS = Path("/dev"), Path("/sys/class/video4linux")
"""where Linux keeps cameras, and their names"""
PICTURES = (".jpg", ".jpeg", ".png")
TAKE_OUT = "Replace it, or take it out."
CAMERA_TIMEOUT_MS = 3000
"""asked of OpenCV's camera drivers, of which few listen"""
FORMATS = ("JPEG", "PNG")
"""that Pillow may read, whatever a file's name says: of those that it knows, some start other programs"""
MOST_CAMERAS = 4
"""tried where the system cannot list them"""


@dataclass(frozen=True)
class Source:
    """Where pictures come from, not yet read."""

    name: str
    """for messages, titles and reports: as given, without passwords, control characters written out"""
    kind: Kind
    read: Callable[[threading.Event], Generator[Grab]]
    """one connection, or one pass over a file; ends soon after the event is set, unless its read hangs"""
    fast: bool = False
    """every picture as quickly as they are taken, instead of at their own rate; files and folders only"""
    loop: bool = False
    """begins again at its end; files and folders only"""
    duration_s: float | None = None
    """of a file or a folder, where it is known"""
    hang_s: float = 2.0
    """how long a read may hang that nobody can interrupt"""

    @property
    def is_live(self) -> bool:
        """It goes on by itself, whether anybody reads it or not."""
        return self.kind in ("camera", "stream", "fifo")

    @property
    def may_wait(self) -> bool:
        """Nothing may come for any length of time before its first picture, and that is no fault."""
        return self.kind == "fifo"


def open_source(
    where: str,
    *,
    fast: bool = False,
    loop: bool = False,
    size: tuple[int, int] | None = None,
    fps: float = 10.0,
) -> Source:
    """Find out what `where` is, and check what can be checked.

    Args:
        where: a camera's number, a video file, a folder of JPEG or PNG pictures, a fifo, a camera's device file, or an
            address beginning with one of `PROTOCOLS`.
        fast: see `Source`.
        loop: see `Source`.
        size: width and height in pixels to ask of a camera; it may give another one.
        fps: rate of a folder's pictures, which are taken in the order of their names (`2.jpg` before `10.jpg`).

    Raises:
        InputError: no such thing, it cannot be opened, or the options do not fit to it.
    """
    source = _find(where, size, fps, fast, loop)
    if source.is_live and (fast or loop):
        raise InputError(f"{source.name}: {'fast' if fast else 'loop'} is for a video file or a folder of pictures.")
    if size is not None and source.kind != "camera":
        raise InputError(f"{source.name}: a picture size can be asked of a camera only. Leave it out.")
    return source


def _find(where: str, size: tuple[int, int] | None, fps: float, fast: bool, loop: bool) -> Source:
    if re.fullmatch("[0-9]{1,4}", where):
        return _camera_source(int(where), size)
    if "://" in where:
        if where.partition("://")[0].lower() not in PROTOCOLS:
            schemes = " ".join(f"{scheme}://" for scheme in PROTOCOLS)
            raise InputError(f"{redacted(where)}: this kind of address is not read, expected one of {schemes}")
        return Source(escaped(redacted(where)), "stream", partial(read_url, where), hang_s=6.0)
    path = Path(where)
    if not where or not path.exists():
        expected = "expected a camera's number, a video file, a folder of pictures, a fifo or an address like rtsp://"
        raise InputError(f"{redacted(where) or 'no name'}: no such file, {expected}. Cameras found: {list_cameras()}.")
    if path.is_dir():
        return _pictures_source(path, fps, fast, loop)
    if path.is_fifo():
        return Source(escaped(str(path)), "fifo", partial(read_fifo, path))
    if device := re.fullmatch("/dev/video([0-9]+)", str(path.resolve())):  # a name in /dev/v4l points there too
        return _camera_source(int(device[1]), size)
    return Source(escaped(str(path)), "file", partial(_read_file, path), fast, loop, duration_s=probe(path).duration_s)


def _read_file(path: Path, stopped: threading.Event) -> Generator[Grab]:
    for time_s, picture in iter_frames(path):
        if stopped.is_set():
            return
        yield Grab(time_s, time.perf_counter(), picture)


# A folder of pictures


def _pictures_source(folder: Path, fps: float, fast: bool, loop: bool) -> Source:
    if not 0.001 <= fps <= 1000:
        raise InputError(f"{folder}: {fps} pictures a second, expected 0.001 to 1000.")
    paths = sorted((path for path in folder.iterdir() if path.suffix.lower() in PICTURES), key=_natural)
    if not paths:
        raise InputError(f"{folder}: no picture in it, expected files named {' '.join(PICTURES)}. Name another folder.")
    _read_picture(paths[0])
    read = partial(_read_pictures, paths, fps)
    return Source(escaped(str(folder)), "pictures", read, fast, loop, duration_s=len(paths) / fps)


def _natural(path: Path) -> list[tuple[str, int]]:
    """Sorts by name, numbers by their value."""
    return [(text, int(number or 0)) for text, number in re.findall("([^0-9]*)([0-9]*)", path.name)]


def _read_pictures(paths: list[Path], fps: float, stopped: threading.Event) -> Generator[Grab]:
    for number, path in enumerate(paths):
        if stopped.is_set():
            return
        yield Grab(number / fps, time.perf_counter(), _read_picture(path))


def _read_picture(path: Path) -> np.ndarray:
    """(H, W, 3) uint8 RGB, upright.

    Raises:
        SourceError: no JPEG or PNG file, cut off, or too large.
    """
    if path.exists() and not path.is_file():
        raise SourceError(str(path), "is no file but a folder, a device or a pipe", TAKE_OUT)
    try:
        with warnings.catch_warnings(action="ignore"), Image.open(path, formats=FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                what = f"has {image.width}x{image.height} pixels, expected {MAX_PIXELS:,} at most"
                raise SourceError(str(path), what, "Scale it down.")
            return np.array(_eight_bits(ImageOps.exif_transpose(image)).convert("RGB"))
    except SourceError:
        raise
    except Exception as error:  # of a damaged file Pillow raises nearly anything
        is_other = isinstance(error, UnidentifiedImageError)
        reason = "no JPEG or PNG picture" if is_other else str(error) or type(error).__name__
        raise SourceError(str(path), f"cannot be read ({reason:.200})", TAKE_OUT) from error


def _eight_bits(image: Image.Image) -> Image.Image:
    """Pictures of 16 bits a pixel (grey PNG) with their upper eight, where Pillow would make white of all above 255."""
    if not image.mode.startswith("I"):
        return image
    return Image.fromarray((np.asarray(image) >> 8).clip(0, 255).astype(np.uint8))


# Cameras


def list_cameras() -> str:
    """The cameras there are, for people: `0 (HD Webcam), 2`, or `none`."""
    if sys.platform != "linux":
        return ", ".join(str(index) for index in range(MOST_CAMERAS) if _open_camera(index) is not None) or "none"
    found = []
    for path in sorted(DEVICES.glob("video[0-9]*"), key=_natural):
        label = DRIVERS / path.name / "name"
        number = path.name.removeprefix("video")
        found.append(f"{number} ({label.read_text().strip()})" if label.is_file() else number)
    return ", ".join(found) or "none"


def _camera_source(index: int, size: tuple[int, int] | None) -> Source:
    """Opens it, so that what is wrong is told at once (and since macOS asks for leave in the main thread only)."""
    name = f"camera {index}"
    opened = _open_camera(index, size)
    if opened is None:
        device = DEVICES / f"video{index}"
        if sys.platform == "linux" and device.exists():
            what = f"{device} is there, but cannot be opened as a camera"
            todo = f"End the program that uses it (fuser -v {device} names it), or get leave to use it (group video)."
            raise SourceError(name, what, f"{todo} Cameras found: {list_cameras()}.")
        todo = "Plug one in, or name a video file, a folder of pictures or an address like rtsp://."
        raise SourceError(name, f"not found, there are: {list_cameras()}", todo)
    return Source(name, "camera", partial(_read_camera, index, size, [opened]))


def _open_camera(index: int, size: tuple[int, int] | None = None) -> cv2.VideoCapture | None:
    if sys.platform == "linux" and not (DEVICES / f"video{index}").exists():
        return None  # OpenCV would complain on the terminal
    level = cv2.utils.logging.getLogLevel()
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        camera = cv2.VideoCapture(index, cv2.CAP_V4L2 if sys.platform == "linux" else cv2.CAP_ANY)
    finally:
        cv2.utils.logging.setLogLevel(level)
    if not camera.isOpened():
        return None
    wishes = [(cv2.CAP_PROP_BUFFERSIZE, 1), (cv2.CAP_PROP_READ_TIMEOUT_MSEC, CAMERA_TIMEOUT_MS)]
    if size is not None:
        wishes += [(cv2.CAP_PROP_FRAME_WIDTH, size[0]), (cv2.CAP_PROP_FRAME_HEIGHT, size[1])]
    for what, value in wishes:
        camera.set(what, value)  # a driver that does not know it says no, and works all the same
    return camera


def _read_camera(
    index: int, size: tuple[int, int] | None, opened: list[cv2.VideoCapture], stopped: threading.Event
) -> Generator[Grab]:
    """
    Args:
        index: the camera's number.
        size: to ask for.
        opened: the camera for the first connection, taken out of the list; later ones open it again.
    """
    name = f"camera {index}"
    camera = opened.pop() if opened else _open_camera(index, size)
    if camera is None:
        raise SourceError(name, "cannot be opened", "Plug it in again.")
    try:
        while not stopped.is_set():
            is_read, picture = camera.read()
            if not is_read:
                raise SourceError(
                    name, "gives no picture", "Plug it in again, and end other programs that may be using it."
                )
            yield Grab(None, time.perf_counter(), cv2.cvtColor(picture, cv2.COLOR_BGR2RGB))
    finally:
        camera.release()
