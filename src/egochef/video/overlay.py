"""What live video and rendered copies show on the picture: the action, how sure, the last minute, the state of things.

In: a picture (H, W, 3) uint8 RGB and an `Overlay`. Out: a new picture of the same size. All sizes follow from the
picture's, from about 320 pixels up; what has no room is shortened or left out, and nothing covers anything else.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np

from egochef.video.draw import TEXT
from egochef.video.paint import (
    FAINT,
    GREY,
    ORANGE,
    RED,
    WHITE,
    Box,
    Colour,
    Sizes,
    fill,
    fitted,
    label_colour,
    panel,
    sizes_for,
    text_width,
    write,
)
from egochef.video.strip import StripPart, draw_strips

__all__ = ["Overlay", "Ranked", "StripPart", "at_least", "draw_overlay"]

Ranked = tuple[tuple[str, float], ...]
"""(class name, probability), best first"""

MOST_BARS, MOST_OF_HEIGHT = 5, 0.65
"""of the bars: how many of a kind, and how much of the picture's height they may take"""
STEEL: Colour = (96, 138, 190)
"""of the bars that are no label of the strip"""


@dataclass(frozen=True)
class Overlay:
    """What is to be shown. Every part can be left out."""

    title: str = ""
    """large: the action, or what is the matter"""
    tone: Literal["sure", "uncertain", "warning"] = "uncertain"
    """white with the label's colour, grey, or orange"""
    title_prob: float | None = None
    """beside the title, 0 to 1"""
    verb: Ranked = ()
    """bars; as many as there is room for, five at most"""
    noun: Ranked = ()
    """bars"""
    action: Ranked = ()
    """bars in the labels' colours"""
    threshold: float | None = None
    """a mark on the action bars, 0 to 1"""
    strip: Sequence[StripPart] = ()
    """along the lower edge; without parts it is there if `now_s` is"""
    truth: Sequence[StripPart] = ()
    """a second row below it"""
    strip_start_s: float = 0.0
    """the time at the strip's left end"""
    strip_stop_s: float = 60.0
    """the time at its right end"""
    now_s: float | None = None
    """a mark on the strip"""
    status: Sequence[str] = ()
    """small lines, top right"""
    badges: Sequence[str] = ()
    """top right: REC gets a red dot"""
    help: Sequence[tuple[str, str]] = ()
    """key and what it does: a panel in the middle"""
    message: str = ""
    """a line that stands for a moment"""
    dimmed: bool = False
    """the picture is old: it goes dark and grey"""


def at_least(picture: np.ndarray, shorter_side_px: int = 360) -> np.ndarray:
    """A picture large enough to draw on and of even sides (video needs them): scaled up if it is smaller."""
    height, width = picture.shape[:2]
    scale = max(1.0, shorter_side_px / min(height, width))
    if scale == 1.0:
        return np.ascontiguousarray(picture[: max(2, height // 2 * 2), : max(2, width // 2 * 2)])
    size = 2 * round(width * scale / 2), 2 * round(height * scale / 2)
    return cv2.resize(picture, size, interpolation=cv2.INTER_CUBIC)


def draw_overlay(picture: np.ndarray, overlay: Overlay) -> np.ndarray:
    """Draw on a copy of a picture.

    Args:
        picture: (H, W, 3) uint8 RGB.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
        raise ValueError(f"a picture is {picture.dtype} of shape {picture.shape}, expected uint8 of (H, W, 3)")
    canvas = _dimmed(picture) if overlay.dimmed else picture.copy()
    height, width = canvas.shape[:2]
    sizes = sizes_for(height, width)
    gap = sizes.gap
    rows = [("model" if overlay.truth else "", overlay.strip)] if overlay.strip or overlay.now_s is not None else []
    rows += [("truth", overlay.truth)] if overlay.truth else []
    span_s = overlay.strip_start_s, overlay.strip_stop_s
    floor = draw_strips(canvas, sizes, rows, span_s, overlay.now_s) - gap
    right_half = Box((width + gap) // 2, gap, width - gap, floor)
    if width > height:  # states beside the title, else below it
        corner = _draw_corner(canvas, sizes, overlay, right_half)
        title = _draw_title(canvas, sizes, overlay, corner.left - gap)
    else:
        title = _draw_title(canvas, sizes, overlay, width - gap)
        corner = _draw_corner(canvas, sizes, overlay, right_half._replace(top=title.bottom + gap))
    helped = _help_box(sizes, overlay, Box(gap, title.bottom + gap, width - gap, floor), corner)
    bars = _draw_bars(canvas, sizes, overlay, Box(gap, title.bottom + gap, (width - gap) // 2, floor), helped)
    _draw_message(canvas, sizes, overlay, Box(gap, max(corner.bottom, helped.bottom) + gap, width - gap, floor), bars)
    if overlay.help:
        _draw_help(canvas, sizes, overlay, helped)
    return canvas


def _dimmed(picture: np.ndarray) -> np.ndarray:
    """Dark, and nearly without colour."""
    grey = cv2.cvtColor(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    return cv2.addWeighted(grey, 0.4, picture, 0.1, 0)


def _percent(prob: float) -> str:
    return f"{100 * prob:.0f} %"


def _draw_title(canvas: np.ndarray, sizes: Sizes, overlay: Overlay, limit: int) -> Box:
    """The title at the top left, ending before the column `limit`."""
    gap, pad, size = sizes.gap, sizes.pad, sizes.title
    if not overlay.title:
        return Box(gap, 0, gap, 0)
    colour, chip = {
        "sure": (WHITE, label_colour(overlay.title)),
        "uncertain": (FAINT, GREY),
        "warning": (ORANGE, ORANGE),
    }[overlay.tone]
    prob = "" if overlay.title_prob is None else _percent(overlay.title_prob)
    prob_size = round(0.62 * size)
    prob_width = text_width("100 %", prob_size) + pad if prob else 0
    chip_width = max(3, size // 6)
    text = fitted(overlay.title, size, limit - gap - 3 * pad - chip_width - prob_width)
    left, top, tall = gap, gap, round(1.7 * size)
    box = Box(left, top, left + 3 * pad + chip_width + text_width(text, size) + prob_width, top + tall)
    panel(canvas, sizes, box)
    middle = top + tall // 2
    half = round(0.42 * size)
    fill(canvas, Box(left + pad, middle - half, left + pad + chip_width, middle + half), chip, 1.0, chip_width // 2)
    write(canvas, text, left + 2 * pad + chip_width, middle, size, colour)
    write(canvas, prob, box.right - pad - text_width(prob, prob_size), middle, prob_size, FAINT)
    return box


def _draw_corner(canvas: np.ndarray, sizes: Sizes, overlay: Overlay, room: Box) -> Box:
    """Badges and states at the right end of a part of the picture."""
    pad, size = sizes.pad, sizes.small
    right, top, left = room.right, room.top, room.right
    tall = round(1.8 * size)
    for badge in reversed(overlay.badges):
        dot = round(0.4 * size) if badge == "REC" else 0
        wide = text_width(badge, size) + 2 * pad + (3 * dot if dot else 0)
        if left - wide < room.left or top + tall > room.bottom:
            break
        box = Box(left - wide, top, left, top + tall)
        panel(canvas, sizes, box)
        middle = top + tall // 2
        if dot:
            fill(canvas, Box(box.left + pad, middle - dot, box.left + pad + 2 * dot, middle + dot), RED, 1.0, dot)
        colour = ORANGE if badge == "PAUSED" else WHITE
        write(canvas, badge, box.right - pad - text_width(badge, size), middle, size, colour)
        left = box.left - sizes.gap // 2
    bottom = top
    if left < right:
        left, bottom = left + sizes.gap // 2, top + tall
        top = bottom + sizes.gap // 2
    line = round(1.45 * size)
    lines = list(overlay.status)[: max(0, (room.bottom - top - pad) // line)]
    if lines:
        lines = [fitted(text, size, room.width - 2 * pad) for text in lines]
        wide = max(text_width(text, size) for text in lines)
        wide = min(-(-wide // (2 * size)) * 2 * size, room.width - 2 * pad)  # in steps, so that it stands still
        box = Box(right - wide - 2 * pad, top, right, top + len(lines) * line + pad)
        panel(canvas, sizes, box)
        for number, text in enumerate(lines):
            write(canvas, text, box.left + pad, top + pad // 2 + number * line + line // 2, size, TEXT)
        left, bottom = min(left, box.left), box.bottom
    return Box(left, room.top, right, bottom)


def _draw_bars(canvas: np.ndarray, sizes: Sizes, overlay: Overlay, room: Box, keep_off: Box) -> Box:
    """Verbs, nouns and actions with their probabilities, as many of each as the room allows."""
    pad = sizes.pad
    groups = [
        (name, ranked, is_action)
        for name, ranked, is_action in (
            ("VERB", overlay.verb, False),
            ("NOUN", overlay.noun, False),
            ("ACTION", overlay.action, True),
        )
        if ranked
    ]
    head, between = round(1.6 * sizes.small), pad // 2
    most_tall = min(room.height, round(MOST_OF_HEIGHT * canvas.shape[0]))
    counts, tall = [0], 0
    for most in range(MOST_BARS, 0, -1):
        counts = [min(most, len(ranked)) for _, ranked, _ in groups]
        tall = 2 * pad - between + sum(head + between + count * sizes.row for count in counts)
        if tall <= most_tall:
            break
    wide = min(room.width, max(17 * sizes.body, round(0.24 * canvas.shape[1])))
    box = Box(room.left, room.top, room.left + wide, room.top + tall)
    beside = box.right + sizes.gap <= keep_off.left or box.bottom + sizes.gap <= keep_off.top
    if not groups or tall > most_tall or wide < 8 * sizes.body or (keep_off.width and not beside):
        return Box(0, room.top, 0, room.top)
    panel(canvas, sizes, box)
    top = box.top + pad
    for (name, ranked, is_action), count in zip(groups, counts, strict=True):
        write(canvas, name, box.left + pad, top + head // 2 - between // 2, sizes.small, FAINT)
        inside = Box(box.left + pad, top + head, box.right - pad, top + head + count * sizes.row)
        _draw_group(canvas, sizes, ranked[:count], inside, is_action, overlay.threshold if is_action else None)
        top = inside.bottom + between
    return box


def _draw_group(
    canvas: np.ndarray, sizes: Sizes, ranked: Ranked, inside: Box, is_action: bool, threshold: float | None
) -> None:
    """One bar a row, its name on it and its percentage at the end; a line at the threshold."""
    size, side = sizes.body, round(0.45 * sizes.body)
    number_width = text_width("100 %", size)
    space = max(1, sizes.row // 10)
    tops = range(inside.top, inside.bottom, sizes.row)

    def column(prob: float) -> int:
        return inside.left + round(min(1.0, max(0.0, prob)) * inside.width)

    for top, (name, prob) in zip(tops, ranked, strict=True):
        bar = Box(inside.left, top, inside.right, top + sizes.row - space)
        fill(canvas, bar, WHITE, 0.07, space + 1)
        fill(canvas, bar._replace(right=column(prob)), label_colour(name) if is_action else STEEL, 0.6, space + 1)
    if threshold is not None:
        line, knob = max(1, size // 12), max(2, size // 5)
        left = column(threshold) - line // 2
        fill(canvas, Box(left, inside.top, left + line, inside.bottom - space), WHITE, 0.45)
        middle = left + line // 2
        fill(canvas, Box(middle - knob, inside.top - 2 * knob, middle + knob, inside.top), WHITE, 0.85, knob)
    for top, (name, prob) in zip(tops, ranked, strict=True):
        middle, colour = top + (sizes.row - space) // 2, WHITE if top == inside.top else TEXT
        text = fitted(name, size, inside.width - number_width - 3 * side)
        write(canvas, text, inside.left + side, middle, size, colour)
        percent = _percent(prob)
        write(canvas, percent, inside.right - side - text_width(percent, size), middle, size, colour)


def _draw_message(canvas: np.ndarray, sizes: Sizes, overlay: Overlay, room: Box, bars: Box) -> None:
    """A line at the lower end of a part of the picture, amid it, or beside the bars where they reach down to it."""
    pad, tall = sizes.pad, round(2.1 * sizes.body)
    if bars.bottom + sizes.gap > room.bottom - tall:
        room = room._replace(left=bars.right + sizes.gap)
    text = fitted(overlay.message, sizes.body, room.width - 2 * pad)
    if not text or room.height < tall:
        return
    wide = text_width(text, sizes.body) + 2 * pad
    left = room.left + (room.width - wide) // 2
    box = Box(left, room.bottom - tall, left + wide, room.bottom)
    panel(canvas, sizes, box)
    write(canvas, text, left + pad, box.top + tall // 2, sizes.body, WHITE)


def _help_line(sizes: Sizes) -> int:
    return round(1.9 * sizes.body)


def _help_box(sizes: Sizes, overlay: Overlay, room: Box, corner: Box) -> Box:
    """Where the help stands, in the middle if it can; nothing where there is none."""
    if not overlay.help:
        return Box(0, 0, 0, 0)
    keys = max(text_width(key, sizes.body) for key, _ in overlay.help)
    what = max(text_width(text, sizes.body) for _, text in overlay.help)
    wide = min(keys + what + 5 * sizes.pad, room.width)
    left = room.left + (room.width - wide) // 2
    if left + wide + sizes.gap > corner.left:
        room = room._replace(top=max(room.top, corner.bottom + sizes.gap))
    tall = max(0, min(len(overlay.help) * _help_line(sizes) + 2 * sizes.pad, room.height))
    top = room.top + (room.height - tall) // 2
    return Box(left, top, left + wide, top + tall)


def _draw_help(canvas: np.ndarray, sizes: Sizes, overlay: Overlay, box: Box) -> None:
    """Keys, drawn as keys, and what they do."""
    pad, line = sizes.pad, _help_line(sizes)
    panel(canvas, sizes, box)
    panel(canvas, sizes, box)
    keys = max(text_width(key, sizes.body) for key, _ in overlay.help)
    for number, (key, what) in enumerate(overlay.help):
        middle = box.top + pad + number * line + line // 2
        if middle + line // 2 > box.bottom:
            break
        half = round(0.4 * line)
        left = box.left + pad
        fill(canvas, Box(left, middle - half, left + keys + 2 * pad, middle + half), WHITE, 0.16, sizes.radius // 2)
        write(canvas, key, left + pad + (keys - text_width(key, sizes.body)) // 2, middle, sizes.body, WHITE)
        text = fitted(what, sizes.body, box.right - pad - (left + keys + 3 * pad))
        write(canvas, text, left + keys + 3 * pad, middle, sizes.body, TEXT)
