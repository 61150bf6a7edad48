"""Panels, bars and text painted into RGB pictures, fast enough for live video.

In: a picture (H, W, 3) uint8 that is changed in place, boxes in pixels, colours. Text and colour tables are made once
and kept; what goes beyond the picture's edge is left out.
"""

import math
import unicodedata
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from egochef.video.draw import BACKGROUND, WRONG

Colour = tuple[int, int, int]

FAINT: Colour = (170, 174, 182)
GREY: Colour = (112, 116, 124)
WHITE: Colour = (255, 255, 255)
RED: Colour = (240, 66, 56)
ORANGE: Colour = WRONG
PALETTE = tuple(
    (number >> 16, number >> 8 & 255, number & 255)
    for number in (
        *(0xFEA0A0, 0xF3743D, 0xF7AB5D, 0xC39808, 0xC3C55A, 0x74B334, 0x72D699, 0x00B89E),
        *(0x28D6DF, 0x05AFD8, 0x82C5FD, 0x7498FE, 0xBCB2FF, 0xC27BE9, 0xF19DDF, 0xEE6B9F),
        *(0xE18888, 0xFEB89C, 0xD49656, 0xE3C885, 0xA9AB54, 0xB4D89B, 0x68B986, 0x87DECA),
        *(0x35B9C0, 0x86D8F5, 0x66ABE5, 0xB4CAFE, 0xA498E5, 0xDFBAF5, 0xCF8AC0, 0xFBB2CB),
    )
)
"""16 hues, clear and soft, of nearly one lightness (OKLCH 0.7 to 0.84), so that dark text can be read on all"""
_FINE = 4
"""text is drawn this much larger and made smaller: at 10 pixels a font's own grid would space letters unevenly"""
_MISSING = "\N{REPLACEMENT CHARACTER}"


class Box(NamedTuple):
    """A part of a picture: columns [left, right), rows [top, bottom)."""

    left: int
    top: int
    right: int
    bottom: int

    @property
    def width(self) -> int:
        return self.right - self.left

    @property
    def height(self) -> int:
        return self.bottom - self.top


@dataclass(frozen=True)
class Sizes:
    """Every measure on a picture, in pixels: they follow from its size."""

    small: int
    """text of times, headings and states"""
    body: int
    """text of bars and messages"""
    title: int
    """text of the title"""
    gap: int
    """between panels, and from the picture's edge"""
    pad: int
    """from a panel's edge to what is in it"""
    radius: int
    """of a panel's corners"""
    row: int
    """of a bar"""


def sizes_for(height_px: int, width_px: int) -> Sizes:
    """Text keeps a size that can be read on small pictures; on large ones all grows with the picture."""
    unit = min(height_px, 0.75 * width_px) / 100
    body = max(11, round(2.2 * unit))
    return Sizes(
        small=max(10, round(1.8 * unit)),
        body=body,
        title=max(19, round(5 * unit)),
        gap=max(6, round(1.7 * unit)),
        pad=max(6, round(1.4 * unit)),
        radius=max(5, round(1.2 * unit)),
        row=round(1.5 * body),
    )


def label_colour(label: str) -> Colour:
    """The colour of the palette that a label has always and everywhere; others mostly have another. None is grey."""
    return PALETTE[zlib.crc32(label.encode()) % len(PALETTE)]


# Text


@lru_cache(maxsize=32)
def _font(size_px: int) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(size_px)
    assert isinstance(font, ImageFont.FreeTypeFont), "Pillow has no FreeType"
    return font


@lru_cache(maxsize=4096)
def drawable(text: str) -> str:
    """Text in one line and in signs that the font has: `é` becomes `e`, what has no likeness `?`."""
    return "".join(sign if _has_sign(sign) else _likeness(sign) for sign in " ".join(text.splitlines()))


@lru_cache(maxsize=1024)
def _has_sign(sign: str) -> bool:
    font = _font(20)
    return sign.isspace() or bytes(font.getmask(sign)) != bytes(font.getmask(_MISSING))


def _likeness(sign: str) -> str:
    if unicodedata.category(sign) == "Pd":  # some dash
        return "-"
    plain = "".join(part for part in unicodedata.normalize("NFKD", sign) if not unicodedata.combining(part))
    return plain if plain and all(_has_sign(part) for part in plain) else "?"


@lru_cache(maxsize=8192)
def text_width(text: str, size_px: int) -> int:
    """Columns that a text takes."""
    return math.ceil(_font(_FINE * size_px).getlength(drawable(text)) / _FINE)


@lru_cache(maxsize=8192)
def fitted(text: str, size_px: int, width_px: int) -> str:
    """The text, cut and ended with `…` where it would take more columns; empty if not even a letter has room."""
    if text_width(text, size_px) <= width_px:
        return text
    for length in range(len(text) - 1, 0, -1):
        cut = text[:length].rstrip(" :-,") + "…"
        if text_width(cut, size_px) <= width_px:
            return cut
    return ""


@lru_cache(maxsize=768)
def _ink(text: str, size_px: int, colour: Colour) -> tuple[int, np.ndarray, np.ndarray]:
    """How a text is laid on a picture.

    Returns:
        Its first row, seen from the middle of its capital letters; how much of the picture it leaves, 0 to 256
        (h, w, 1) uint16; what it adds (h, w, 3) uint16.
    """
    font = _font(_FINE * size_px)
    rows, columns = -(-sum(font.getmetrics()) // _FINE), text_width(text, size_px) + 1
    image = Image.new("L", (_FINE * columns, _FINE * rows))
    ImageDraw.Draw(image).text((0, 0), drawable(text), 255, font)
    fine = np.asarray(image, np.float32).reshape(rows, _FINE, columns, _FINE)
    cover = np.round(256 * (fine.mean((1, 3)) / 255) ** 0.8).astype(np.uint16)  # thin strokes gain a little
    inked = np.flatnonzero(cover.any(1))
    first, stop = (inked[0], inked[-1] + 1) if inked.size else (0, 0)
    cover = cover[first:stop, :, None]
    _, cap_top, _, cap_bottom = font.getbbox("H")
    above = round((cap_top + cap_bottom) / 2 / _FINE) - int(first)
    return -above, 256 - cover, cover * np.array(colour, np.uint16)


def write(picture: np.ndarray, text: str, left: int, middle: int, size_px: int, colour: Colour) -> None:
    """Write a line of text so that its capital letters stand around the row `middle`."""
    if not text:
        return
    offset, keep, add = _ink(text, size_px, colour)
    top = middle + offset
    part = picture[max(0, top) : max(0, top + keep.shape[0]), max(0, left) : max(0, left + keep.shape[1])]
    if part.shape != add.shape:  # some of it is beyond the picture
        rows, columns = max(0, -top), max(0, -left)
        keep = keep[rows : rows + part.shape[0], columns : columns + part.shape[1]]
        add = add[rows : rows + part.shape[0], columns : columns + part.shape[1]]
    part[:] = (part * keep + add) >> 8


# Boxes


@lru_cache(maxsize=256)
def _table(colour: Colour, opacity: float) -> np.ndarray:
    """(256, 1, 3): what becomes of each value of each channel under a colour."""
    below = np.arange(256)[:, None, None] * (1 - opacity)
    return np.round(below + opacity * np.array(colour)).astype(np.uint8)


@lru_cache(maxsize=64)
def _corners(radius: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows and columns (n,) of the pixels that round corners take from a box, those at its end negative; and how much
    of each remains, 0 to 256, (n, 1) uint16."""
    fine = (np.arange(radius * 8) + 0.5) / 8 - radius
    inside = fine[:, None] ** 2 + fine**2 <= radius**2
    cover = np.round(256 * inside.reshape(radius, 8, radius, 8).mean((1, 3))).astype(np.uint16)
    rows, columns = np.nonzero(cover < 256)  # of the top left corner
    all_rows = np.concatenate([rows, rows, -1 - rows, -1 - rows])
    all_columns = np.concatenate([columns, -1 - columns, columns, -1 - columns])
    return all_rows, all_columns, np.tile(cover[rows, columns], 4)[:, None]


@contextmanager
def _rounded(part: np.ndarray, radius: int) -> Iterator[None]:
    """What is painted inside ends in round corners."""
    radius = min(radius, part.shape[0] // 2, part.shape[1] // 2)
    if radius < 1:
        yield
        return
    rows, columns, cover = _corners(radius)
    before = part[rows, columns]  # (n, 3)
    yield
    part[rows, columns] = (part[rows, columns] * cover + before * (256 - cover)) >> 8


def fill(picture: np.ndarray, box: Box, colour: Colour, opacity: float = 1.0, radius: int = 0) -> None:
    """Lay a colour over a box, with round corners."""
    box = _inside(picture, box)
    if box.width <= 0 or box.height <= 0:
        return
    part = picture[box.top : box.bottom, box.left : box.right]
    with _rounded(part, radius):
        if opacity == 1.0:
            cv2.rectangle(picture, (box.left, box.top), (box.right - 1, box.bottom - 1), colour, cv2.FILLED)
        else:
            cv2.LUT(part, _table(colour, opacity), dst=part)


def panel(picture: np.ndarray, sizes: Sizes, box: Box) -> None:
    """A dark pane of frosted glass, for text to stand on."""
    box = _inside(picture, box)
    if box.width <= 0 or box.height <= 0:
        return
    part = picture[box.top : box.bottom, box.left : box.right]
    coarse, step = sizes.gap, max(1, sizes.gap // 4)
    with _rounded(part, sizes.radius):
        some = np.ascontiguousarray(part[::step, ::step])  # enough for what comes out smeared
        small = cv2.resize(some, (-(-box.width // coarse), -(-box.height // coarse)), interpolation=cv2.INTER_AREA)
        small = cv2.LUT(cv2.blur(small, (3, 3)), _table(BACKGROUND, 0.76))
        cv2.resize(small, (box.width, box.height), dst=part, interpolation=cv2.INTER_LINEAR)


def _inside(picture: np.ndarray, box: Box) -> Box:
    height, width = picture.shape[:2]
    return Box(max(0, box.left), max(0, box.top), min(width, box.right), min(height, box.bottom))
