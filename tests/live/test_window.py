"""The window on a real screen: pixels that are there, keys that are pressed, displays that are not."""

import contextlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import need
from streams import DEADLINE_S

from egochef.errors import InputError
from egochef.live.window import room_for

TITLE = "EgoChef test window"
SHOW = f"""
import json, signal, sys, time
import numpy as np
from egochef.live.window import Window
width, height = int(sys.argv[1]), int(sys.argv[2])
picture = np.zeros((height, width, 3), np.uint8)
picture[: height // 2, : width // 2] = (250, 0, 0)
picture[: height // 2, width // 2 :] = (0, 250, 0)
picture[height // 2 :, : width // 2] = (0, 0, 250)
picture[height // 2 :, width // 2 :] = (250, 250, 0)
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs begin with none
try:
    with Window("{TITLE}", width, height) as window:
        window.show(picture)
        print(json.dumps("open"), flush=True)
        while True:
            for key in window.keys():
                print(json.dumps(key), flush=True)
            time.sleep(0.01)
except KeyboardInterrupt:
    print(json.dumps("interrupted"), flush=True)
"""
COLOURS = [(250, 0, 0), (0, 250, 0), (0, 0, 250), (250, 250, 0)]
"""of the quarters: top left, top right, bottom left, bottom right"""


@contextlib.contextmanager
def shown(screen: Any, width: int = 640, height: int = 360) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A program that shows four coloured quarters once and tells the keys; its window's id."""
    need(importlib.util.find_spec("pygame") is not None, "pygame-ce")
    words = [sys.executable, "-c", SHOW, str(width), str(height)]
    process = subprocess.Popen(words, env=screen.environment, stdout=subprocess.PIPE, text=True)
    watchdog = threading.Timer(DEADLINE_S, process.kill)  # else `told` would wait for ever
    watchdog.start()
    try:
        assert told(process) == "open"
        yield process, screen.window(process)
    finally:
        watchdog.cancel()
        process.kill()
        process.communicate()


def told(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line, f"it told nothing more in {DEADLINE_S:g} s, or ended"
    return json.loads(line)


def quarters(place: tuple[int, int, int, int], picture: np.ndarray) -> list[tuple[int, ...]]:
    """The colours amid the four quarters of a part of the screen."""
    left, top, width, height = place
    points = [(top + height * y // 4, left + width * x // 4) for y in (1, 3) for x in (1, 3)]
    return [tuple(int(value) for value in picture[point]) for point in points]


def test_pixels_on_the_screen(screen: Any):
    with shown(screen) as (_, window):
        place = screen.place(window)
        assert place[2:] == (640, 360) and screen.title(window) == TITLE
        screen.wait_for(lambda picture: quarters(place, picture) == COLOURS)


@pytest.mark.parametrize(
    ("size", "inside"),
    [((500, 700), (0, 209, 500, 281)), ((1000, 300), (233, 0, 533, 300)), ((64, 36), (0, 0, 64, 36))],
)
def test_keeps_its_shape_when_resized(screen: Any, size: tuple[int, int], inside: tuple[int, int, int, int]):
    with shown(screen) as (_, window):
        screen.resize(window, *size)

        def right(picture: np.ndarray) -> bool:
            part = picture[: size[1], : size[0]]
            edges = (part[: max(0, inside[1] - 2)], part[:, : max(0, inside[0] - 2)])
            black = not any(edge.any() for edge in edges)
            return screen.place(window) == (0, 0, *size) and quarters(inside, part) == COLOURS and black

        screen.wait_for(right)


def test_keys(screen: Any):
    asked = {
        "space": "pause",
        "r": "record",
        "s": "screenshot",
        "m": "mirror",
        "plus": "raise",
        "equal": "raise",
        "KP_Add": "raise",
        "minus": "lower",
        "KP_Subtract": "lower",
        "h": "help",
        "R": "record",  # with shift, or caps lock
        "q": "quit",
    }
    with shown(screen) as (process, _):
        screen.press(*(word for key in asked for word in ("ctrl+q", "x", key)))  # Ctrl and q is not q, x is nothing
        assert [told(process) for _ in asked] == list(asked.values())


def test_the_cross_of_the_window_quits(screen: Any):
    with shown(screen) as (process, window):
        screen.ask_to_close(window)
        assert told(process) == "quit"


def test_control_c_stays_python_s(screen: Any):
    with shown(screen) as (process, _):
        process.send_signal(signal.SIGINT)
        assert told(process) == "interrupted"
        assert process.wait() == 0


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have their display in other places")
@pytest.mark.parametrize("display", [None, ":987", "nonsense"])
def test_no_display(display: str | None):
    need(importlib.util.find_spec("pygame") is not None, "pygame-ce")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("SDL_", "WAYLAND_"))}
    environment.pop("DISPLAY", None)
    if display is not None:
        environment["DISPLAY"] = display
    program = "from egochef.live.window import Window\nWindow('x', 64, 64)"
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and not done.stdout
    last = done.stderr.splitlines()[-1]
    assert "InputError: no display (" in last and last.endswith("use --headless")
    assert "XDG" not in done.stderr  # nothing of what libraries grumble


def test_without_pygame(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from egochef.live.window import Window

    monkeypatch.setitem(sys.modules, "pygame", None)
    with pytest.raises(InputError, match=r'--headless .*: pygame is not installed: pip install "egochef\[live\]"'):
        Window("x", 64, 64)


def test_a_window_leaves_some_of_the_screen():
    assert room_for(640, 360, (1920, 1080)) == (640, 360)
    assert room_for(1920, 1080, (1280, 800)) == (1152, 648)
    assert room_for(360, 640, (1280, 600)) == (304, 540)
