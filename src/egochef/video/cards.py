"""Title cards and the frame around pictures, for films of several videos. In: pictures and words. Out: RGB pictures."""

from collections.abc import Sequence

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from egochef.video.paint import Colour, drawable, fitted, text_width

TEXT: Colour = (245, 245, 245)
FAINT: Colour = (190, 194, 200)
ACCENT: Colour = (110, 210, 130)
DIM_MEAN, DIM_MOST = 42, 0.6
"""mean value that a picture is brought down to behind words, and the most that is left of a dark one"""
BLUR_CELLS = 40
"""pixels along the longer side of the small picture that a blurred background is enlarged from"""


def fit(picture: np.ndarray, width_px: int, height_px: int) -> np.ndarray:
    """(H, W, 3) -> (height_px, width_px, 3) uint8: as large as it fits, around it its own colours without shapes."""
    height, width = picture.shape[:2]
    scale = min(width_px / width, height_px / height)
    inner = min(width_px, round(width * scale)), min(height_px, round(height * scale))
    scaled = cv2.resize(picture, inner, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    if inner == (width_px, height_px):
        return scaled
    canvas = _backdrop(picture, width_px, height_px)
    left, top = (width_px - inner[0]) // 2, (height_px - inner[1]) // 2
    canvas[top : top + inner[1], left : left + inner[0]] = scaled
    return canvas


def mosaic(pictures: Sequence[np.ndarray], width_px: int, height_px: int) -> np.ndarray:
    """Pictures side by side, as many as fill a grid of the frame's own shape."""
    side = max(1, int(len(pictures) ** 0.5))
    canvas = np.zeros((height_px, width_px, 3), np.uint8)
    for place in range(side * side):
        row, column = divmod(place, side)
        top, bottom = row * height_px // side, (row + 1) * height_px // side
        left, right = column * width_px // side, (column + 1) * width_px // side
        canvas[top:bottom, left:right] = _cover(pictures[place], right - left, bottom - top)
    return canvas


def draw_card(
    title: str, lines: Sequence[tuple[str, Colour]], width_px: int, height_px: int, behind: np.ndarray | None = None
) -> np.ndarray:
    """A title and smaller lines below it, in the middle.

    Args:
        lines: words and their colour; FAINT where they should stand back.
        behind: a picture of any size that is dimly seen behind the words.

    Returns:
        (height_px, width_px, 3) uint8 RGB.
    """
    if behind is None:
        dim = np.full((height_px, width_px, 3), 22, np.uint8)
    else:
        dim = _dim(cv2.GaussianBlur(_cover(behind, width_px, height_px), (0, 0), max(1.0, height_px / 200)))
    image = Image.fromarray(dim)
    draw = ImageDraw.Draw(image)
    unit = height_px / 100
    title, big = _sized(title, 11 * unit, 0.86 * width_px)
    small = [(*_sized(line, 4.4 * unit, 0.86 * width_px), colour) for line, colour in lines]
    gap = 2.2 * unit
    total = big.size + 3 * gap + sum(font.size + gap for _, font, _ in small)
    top = (height_px - total) / 2
    draw.text((width_px / 2, top + big.size / 2), title, TEXT, big, anchor="mm")
    top += big.size + gap
    rule = 7 * unit
    draw.rectangle((width_px / 2 - rule, top, width_px / 2 + rule, top + max(2, 0.5 * unit)), fill=ACCENT)
    top += 2 * gap
    for line, font, colour in small:
        draw.text((width_px / 2, top + font.size / 2), line, colour, font, anchor="mm")
        top += font.size + gap
    return np.asarray(image).copy()


def _backdrop(picture: np.ndarray, width_px: int, height_px: int) -> np.ndarray:
    """A picture's colours without its shapes, dim."""
    cells = _cover(picture, BLUR_CELLS, max(2, round(BLUR_CELLS * height_px / width_px)))
    blurred = cv2.GaussianBlur(cells, (0, 0), 2)
    return _dim(cv2.resize(blurred, (width_px, height_px), interpolation=cv2.INTER_CUBIC))


def _dim(picture: np.ndarray) -> np.ndarray:
    return cv2.convertScaleAbs(picture, alpha=min(DIM_MOST, DIM_MEAN / max(1.0, float(picture.mean()))))


def _cover(picture: np.ndarray, width_px: int, height_px: int) -> np.ndarray:
    """Scaled so that it fills a frame, its middle is seen."""
    height, width = picture.shape[:2]
    scale = max(width_px / width, height_px / height)
    inner = max(width_px, round(width * scale)), max(height_px, round(height * scale))
    scaled = cv2.resize(picture, inner, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    left, top = (inner[0] - width_px) // 2, (inner[1] - height_px) // 2
    return np.ascontiguousarray(scaled[top : top + height_px, left : left + width_px])


def _sized(text: str, size_px: float, width_px: float) -> tuple[str, ImageFont.FreeTypeFont]:
    """A text and Pillow's own font for it: smaller than asked, down to half, and cut where that is not enough."""
    whole = text_width(text, round(size_px))
    size = max(round(size_px / 2), min(round(size_px), int(size_px * width_px / max(1, whole))))
    font = ImageFont.load_default(size)
    assert isinstance(font, ImageFont.FreeTypeFont)
    return drawable(fitted(text, size, int(width_px))), font
