"""The coloured strip of what went on when. In: parts of time with labels. Out: rows painted along the lower edge."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from egochef.video.paint import (
    BACKGROUND,
    FAINT,
    GREY,
    WHITE,
    Box,
    Sizes,
    fill,
    fitted,
    label_colour,
    panel,
    text_width,
    write,
)
from egochef.video.times import clock

TICK_STEPS_S = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400)


@dataclass(frozen=True)
class StripPart:
    """A time in which one thing goes on."""

    start_s: float
    """on the clock of the strip"""
    stop_s: float
    """it lasts to before this"""
    label: str | None
    """what it is called; None: uncertain"""


@dataclass(frozen=True)
class _Axis:
    """Where a time lies."""

    start_s: float
    stop_s: float
    box: Box
    """rows of the strip"""

    def column(self, time_s: float) -> int:
        share = (time_s - self.start_s) / (self.stop_s - self.start_s)
        return self.box.left + round(min(1.0, max(0.0, share)) * self.box.width)


def draw_strips(
    canvas: np.ndarray,
    sizes: Sizes,
    rows: Sequence[tuple[str, Sequence[StripPart]]],
    span_s: tuple[float, float],
    now_s: float | None,
) -> int:
    """Paint a panel along the lower edge with a row of parts for each (name, parts), times below, and a mark at now.

    Args:
        rows: from top to bottom; a name may be empty.
        span_s: times at the left and right end.

    Returns:
        The first row of pixels that is taken.
    """
    height, width = canvas.shape[:2]
    pad, tall = sizes.pad, round(1.75 * sizes.small)
    between = max(2, tall // 8)
    inside = len(rows) * tall + (len(rows) - 1) * between
    box = Box(
        sizes.gap,
        height - sizes.gap - inside - 2 * pad - round(1.2 * sizes.small),
        width - sizes.gap,
        height - sizes.gap,
    )
    if not rows or not span_s[0] < span_s[1] or box.top < sizes.gap or box.width < 12 * sizes.small:
        return height
    panel(canvas, sizes, box)
    left = box.left + pad
    if any(name for name, _ in rows):
        left += max(text_width(name, sizes.small) for name, _ in rows) + pad
    axis = _Axis(*span_s, Box(left, box.top + pad, box.right - pad, box.top + pad + inside))
    for number, (name, parts) in enumerate(rows):
        top = axis.box.top + number * (tall + between)
        write(canvas, name, box.left + pad, top + tall // 2, sizes.small, FAINT)
        fill(canvas, Box(axis.box.left, top, axis.box.right, top + tall), WHITE, 0.07, between)
        for part in parts:
            if part.stop_s > axis.start_s and part.start_s < axis.stop_s:
                _draw_part(canvas, sizes, axis, part, top, top + tall)
    _draw_ticks(canvas, sizes, axis)
    if now_s is not None and span_s[0] <= now_s <= span_s[1]:
        _draw_now(canvas, sizes, axis, now_s)
    return box.top


def _draw_part(canvas: np.ndarray, sizes: Sizes, axis: _Axis, part: StripPart, top: int, bottom: int) -> None:
    left = axis.column(part.start_s)
    right = max(axis.column(part.stop_s) - 1, left + 1)  # a line of background between parts
    radius = max(2, (bottom - top) // 8)
    if part.label is None:
        fill(canvas, Box(left, top, right, bottom), GREY, 0.55, radius)
        return
    fill(canvas, Box(left, top, right, bottom), label_colour(part.label), 0.95, radius)
    side = max(2, round(0.35 * sizes.small))
    if right - left >= 3.5 * sizes.small:  # less would hold two letters
        text = fitted(part.label, sizes.small, right - left - 2 * side)
        write(canvas, text, left + side, (top + bottom) // 2, sizes.small, BACKGROUND)


def _draw_ticks(canvas: np.ndarray, sizes: Sizes, axis: _Axis) -> None:
    """Times at round numbers below the strip, as close as they can be read."""
    length_s = axis.stop_s - axis.start_s
    widest = text_width(clock(axis.stop_s), sizes.small) + 3 * sizes.small
    least_s = widest * length_s / axis.box.width
    step_s = next((step for step in TICK_STEPS_S if step >= least_s), 86400 * math.ceil(least_s / 86400))
    line = max(1, sizes.small // 10)
    for number in range(max(0, math.ceil(axis.start_s / step_s)), math.floor(axis.stop_s / step_s) + 1):
        column = axis.column(number * step_s)
        text = clock(number * step_s)
        wide = text_width(text, sizes.small)
        left = min(max(column - wide // 2, axis.box.left), axis.box.right - wide)  # shifted at the ends
        below = axis.box.bottom + round(0.25 * sizes.small)
        fill(canvas, Box(column - line // 2, axis.box.bottom + 1, column - line // 2 + line, below + line), FAINT, 0.8)
        write(canvas, text, left, axis.box.bottom + round(1.05 * sizes.small), sizes.small, FAINT)


def _draw_now(canvas: np.ndarray, sizes: Sizes, axis: _Axis, now_s: float) -> None:
    """A white line through the rows with a knob on top."""
    line = max(2, round(0.16 * sizes.small))
    knob = max(2, round(0.3 * sizes.small))
    left = min(axis.column(now_s) - line // 2, axis.box.right - line)
    middle = left + line // 2
    fill(canvas, Box(left, axis.box.top - 2, left + line, axis.box.bottom + 2), WHITE)
    fill(canvas, Box(middle - knob, axis.box.top - 2 * knob, middle + knob, axis.box.top), WHITE, 1.0, knob)
