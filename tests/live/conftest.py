"""A screen to test on: an X server of our own, real key presses, and what the pixels are."""

import ctypes
import ctypes.util
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from conftest import need
from streams import DEADLINE_S

WIDTH_PX, HEIGHT_PX = 1280, 800


class _ClientMessage(ctypes.Structure):
    """Xlib's XClientMessageEvent with room for the largest event."""

    _fields_ = (
        ("type", ctypes.c_int),
        ("serial", ctypes.c_ulong),
        ("send_event", ctypes.c_int),
        ("display", ctypes.c_void_p),
        ("window", ctypes.c_ulong),
        ("message_type", ctypes.c_ulong),
        ("format", ctypes.c_int),
        ("data", ctypes.c_long * 20),
    )


class Screen:
    """An X server without anything to look at it with."""

    def __init__(self, display: str) -> None:
        self.display = display
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("SDL_", "WAYLAND_"))},
            "DISPLAY": display,
        }

    def _xdotool(self, *words: str) -> str:
        done = subprocess.run(
            ["xdotool", *words], env=self.environment, capture_output=True, text=True, timeout=DEADLINE_S, check=False
        )
        assert done.returncode == 0, f"xdotool {words}: {done.stdout} {done.stderr}"
        return done.stdout

    def window(self, process: subprocess.Popen[str], deadline_s: float = DEADLINE_S) -> str:
        """The id of a program's window, when it can be seen and has the keyboard."""
        end_s = time.monotonic() + deadline_s
        search = ["xdotool", "search", "--onlyvisible", "--pid", str(process.pid)]
        while time.monotonic() < end_s:
            found = subprocess.run(
                search, env=self.environment, capture_output=True, text=True, timeout=DEADLINE_S, check=False
            ).stdout.split()
            if found:
                self._xdotool("windowfocus", "--sync", found[0])  # there is no window manager that would
                assert self._xdotool("getwindowfocus", "-f").strip() == found[0]
                return found[0]
            assert process.poll() is None, "it ended without a window"
            time.sleep(0.05)
        raise AssertionError("no window")

    def title(self, window: str) -> str:
        return self._xdotool("getwindowname", window).strip()

    def press(self, *keys: str) -> None:
        """Keys go down and up, one after the other, as from the keyboard."""
        self._xdotool("key", *keys)

    def resize(self, window: str, width_px: int, height_px: int) -> None:
        """Give a window another size, and move it to the corner so that all of it can be seen."""
        self._xdotool("windowmove", window, "0", "0")
        self._xdotool("windowsize", window, str(width_px), str(height_px))

    def place(self, window: str) -> tuple[int, int, int, int]:
        """Left, top, width and height."""
        words = dict(line.split("=") for line in self._xdotool("getwindowgeometry", "--shell", window).split())
        return int(words["X"]), int(words["Y"]), int(words["WIDTH"]), int(words["HEIGHT"])

    def ask_to_close(self, window: str) -> None:
        """What a window manager does when the cross is clicked."""
        x11 = ctypes.CDLL(ctypes.util.find_library("X11"))
        x11.XOpenDisplay.restype = ctypes.c_void_p
        x11.XInternAtom.restype = ctypes.c_ulong
        x11.XInternAtom.argtypes = (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int)
        x11.XSendEvent.argtypes = (ctypes.c_void_p, ctypes.c_ulong, ctypes.c_int, ctypes.c_long, ctypes.c_void_p)
        x11.XCloseDisplay.argtypes = (ctypes.c_void_p,)
        display = x11.XOpenDisplay(self.display.encode())
        assert display
        protocols, delete = (x11.XInternAtom(display, name, 0) for name in (b"WM_PROTOCOLS", b"WM_DELETE_WINDOW"))
        event = _ClientMessage(type=33, window=int(window), message_type=protocols, format=32)  # 33: ClientMessage
        event.data[0] = delete
        assert x11.XSendEvent(display, int(window), 0, 0, ctypes.byref(event))
        x11.XCloseDisplay(display)  # sends what waits

    def picture(self) -> np.ndarray:
        """What is on the screen now, (HEIGHT_PX, WIDTH_PX, 3) RGB."""
        grab = ["-f", "x11grab", "-draw_mouse", "0", "-video_size", f"{WIDTH_PX}x{HEIGHT_PX}", "-i", self.display]
        raw = ["-frames:v", "1", "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
        done = subprocess.run(
            ["ffmpeg", "-loglevel", "error", *grab, *raw], capture_output=True, timeout=DEADLINE_S, check=True
        )
        return np.frombuffer(done.stdout, np.uint8).reshape(HEIGHT_PX, WIDTH_PX, 3)

    def wait_for(self, right: Callable[[np.ndarray], bool], deadline_s: float = DEADLINE_S) -> np.ndarray:
        """The first picture of the screen that is as it should be."""
        end_s = time.monotonic() + deadline_s
        while not right(picture := self.picture()):
            assert time.monotonic() < end_s, "the screen never showed it"
            time.sleep(0.05)
        return picture


@pytest.fixture(scope="session")
def screen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Screen]:
    """A screen of 1280 x 800 on a display number that is free."""
    for program in ("Xvfb", "xdotool", "ffmpeg"):
        need(shutil.which(program) is not None, program)
    need(ctypes.util.find_library("X11") is not None, "libX11")
    log = tmp_path_factory.mktemp("screen") / "xvfb.log"
    server = _start_server(log)
    try:
        assert server.stdout is not None
        number = server.stdout.readline().strip()
        assert number.isdigit(), log.read_text()
        yield Screen(f":{number}")
    finally:
        server.terminate()
        server.wait(60)


def _start_server(log: Path) -> subprocess.Popen[str]:
    size = f"{WIDTH_PX}x{HEIGHT_PX}x24"
    with log.open("w") as file:
        return subprocess.Popen(
            ["Xvfb", "-displayfd", "1", "-screen", "0", size, "-nolisten", "tcp", "-noreset"],
            stdout=subprocess.PIPE,
            stderr=file,
            text=True,
        )
