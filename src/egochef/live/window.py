"""The window that live video is shown in. In: RGB pictures. Out: what the person pressed."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType, TracebackType

import cv2
import numpy as np

from egochef.errors import InputError
from egochef.extras import need_extra

KEYS = {
    "q": "quit",
    "space": "pause",
    "r": "record",
    "s": "screenshot",
    "m": "mirror",
    "+": "raise",
    "=": "raise",
    "-": "lower",
    "h": "help",
}
"""key -> what it asks for"""
_DISPLAYS = {"x11": "DISPLAY", "wayland": "WAYLAND_DISPLAY"}
"""SDL's driver -> the variable that says where its display is"""
_BLIND_DRIVERS = {"dummy", "offscreen", "evdev"}
"""SDL's, which show nothing: it falls back to them where there is no display"""
_MOST_OF_THE_SCREEN = 0.9


class Window:
    """A window that can be resized; pictures keep their shape in it. Used in the main thread, and one at a time."""

    def __init__(self, title: str, width_px: int, height_px: int) -> None:
        """Open it, smaller than asked where the screen has less room.

        Raises:
            InputError: no display, or no pygame-ce.
        """
        os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
        need_extra("live", "the window (--headless does without)")
        import pygame

        self._pygame = pygame
        _open_display(pygame)
        try:
            width, height = room_for(width_px, height_px, pygame.display.get_desktop_sizes()[0])
            pygame.display.set_caption(title)
            pygame.display.set_mode((width, height), pygame.RESIZABLE)
        except pygame.error as error:
            pygame.display.quit()
            raise InputError(f"no window can be opened ({error}): use --headless") from error
        self._shown: np.ndarray | None = None

    def __enter__(self) -> "Window":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Take the window away. Twice is fine."""
        self._pygame.display.quit()

    def show(self, picture: np.ndarray) -> None:
        """Put a picture on the screen, as large as the window allows, with black edges where its shape differs.

        Args:
            picture: (H, W, 3) uint8 RGB, not changed afterwards: it is drawn again when the window was covered.
        """
        self._shown = picture
        surface = self._pygame.display.get_surface()
        assert surface is not None, "the window is closed"
        room_width, room_height = surface.get_size()
        height, width = picture.shape[:2]
        scale = min(room_width / width, room_height / height)
        size = max(1, round(width * scale)), max(1, round(height * scale))
        if size != (width, height):
            smooth = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
            picture = cv2.resize(picture, size, interpolation=smooth)
        if size != (room_width, room_height):
            surface.fill((0, 0, 0))
        image = self._pygame.image.frombuffer(np.ascontiguousarray(picture).data, size, "RGB")
        surface.blit(image, ((room_width - size[0]) // 2, (room_height - size[1]) // 2))
        self._pygame.display.flip()

    def keys(self) -> list[str]:
        """What was asked for since the last call, in order: values of `KEYS`. Call it often, or it seems dead."""
        pygame = self._pygame
        with_others = pygame.KMOD_CTRL | pygame.KMOD_ALT | pygame.KMOD_META
        asked, again = [], False
        for event in pygame.event.get():
            if event.type == pygame.QUIT:
                asked.append("quit")
            elif event.type == pygame.KEYDOWN and not event.mod & with_others:
                # By the sign first: + lies on different keys in different countries. Keypad and space by name.
                name = pygame.key.name(event.key).strip("[]")
                asked += [KEYS[sign] for sign in (event.unicode.lower(), name) if sign in KEYS][:1]
            elif event.type in (pygame.VIDEORESIZE, pygame.WINDOWEXPOSED):
                again = True
        if again and self._shown is not None:
            self.show(self._shown)
        return asked


def _open_display(pygame: ModuleType) -> None:
    """Connect to the display with SDL's habits that do us harm turned off.

    Raises:
        InputError: there is none.
    """
    os.environ.setdefault("SDL_NO_SIGNAL_HANDLERS", "1")  # Ctrl-C stays ours
    os.environ.setdefault("SDL_VIDEO_X11_NET_WM_BYPASS_COMPOSITOR", "0")  # or some desktops flicker when we open
    wanted = os.environ.get("SDL_VIDEODRIVER")
    try:
        with _video_driver(wanted or _drivers()):
            pygame.display.init()
    except pygame.error as error:
        raise InputError(f"no display ({error}): use --headless") from error
    driver = pygame.display.get_driver()
    if driver in _BLIND_DRIVERS and not wanted:
        pygame.display.quit()
        raise InputError("no display was found: use --headless")
    if driver == "x11":
        os.environ.setdefault("SDL_FRAMEBUFFER_ACCELERATION", "0")  # shared memory: 0.2 ms, by OpenGL without a GPU 9


def _drivers() -> str:
    """SDL's drivers to try, with commas; nothing where SDL knows best. Only those, so that it invents no display."""
    if os.name != "posix" or sys.platform == "darwin":
        return ""
    drivers = [driver for driver, name in _DISPLAYS.items() if os.environ.get(name)]
    if not drivers:
        raise InputError(f"no display ({' and '.join(_DISPLAYS.values())} are not set): use --headless")
    return ",".join(drivers)


@contextmanager
def _video_driver(drivers: str) -> Iterator[None]:
    """SDL takes this choice from the environment; what this program starts is not to inherit it."""
    before = os.environ.get("SDL_VIDEODRIVER")
    if drivers:
        os.environ["SDL_VIDEODRIVER"] = drivers
    try:
        yield
    finally:
        if before is None and drivers:
            del os.environ["SDL_VIDEODRIVER"]


def room_for(width_px: int, height_px: int, screen: tuple[int, int]) -> tuple[int, int]:
    """The largest size of this shape, at most the one asked for, that leaves some of the screen free."""
    scale = min(1.0, _MOST_OF_THE_SCREEN * screen[0] / width_px, _MOST_OF_THE_SCREEN * screen[1] / height_px)
    return max(1, round(width_px * scale)), max(1, round(height_px * scale))
