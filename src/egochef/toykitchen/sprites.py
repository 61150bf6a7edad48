"""Drawing tools: `Canvas` draws one sprite from shapes, `Placement` puts a sprite somewhere, `draw` puts it on a frame.

World pixels (world px) are the unit of everything here: the frame is 456 x 256 of them when the camera stands still.
Sprites are drawn once and then only warped, which is what keeps a frame under a few milliseconds.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np

DETAIL = 1.5
"""sprite pixels per world px"""
_SHIFT = 4
"""fractional bits of the coordinates given to OpenCV"""

Color = tuple[int, int, int]
Point = tuple[float, float]


def mix(a: Color, b: Color, share: float) -> Color:
    """The colour `share` of the way from `a` to `b`."""
    return tuple(round(x + (y - x) * share) for x, y in zip(a, b, strict=True))  # type: ignore[return-value]


def darker(color: Color, share: float = 0.3) -> Color:
    return mix(color, (25, 15, 20), share)


def lighter(color: Color, share: float = 0.35) -> Color:
    return mix(color, (255, 252, 245), share)


@dataclass(frozen=True, eq=False)
class Sprite:
    """A small picture with transparency."""

    pixels: np.ndarray
    """(H, W, 4) uint8, RGB already multiplied by alpha, then alpha"""
    left: float
    """world px from the anchor to the left edge (negative)"""
    top: float
    """world px from the anchor to the top edge (negative)"""

    @property
    def right(self) -> float:
        return self.left + self.pixels.shape[1] / DETAIL

    @property
    def bottom(self) -> float:
        return self.top + self.pixels.shape[0] / DETAIL

    def faded(self, opacity: float) -> "Sprite":
        return replace(self, pixels=cv2.convertScaleAbs(self.pixels, alpha=opacity))

    def darkened(self, brightness: float) -> "Sprite":
        return replace(self, pixels=(self.pixels * np.array([brightness] * 3 + [1])).astype(np.uint8))

    def cropped(self, top: float = 0.0, right: float = 0.0) -> "Sprite":
        """Without the upper `top` and the right-hand `right` world px; the rest stays where it is."""
        rows, columns = round(top * DETAIL), self.pixels.shape[1] - round(right * DETAIL)
        return replace(
            self, pixels=np.ascontiguousarray(self.pixels[rows:, : max(1, columns)]), top=self.top + rows / DETAIL
        )

    def shadow(self) -> "Sprite":
        """Its soft dark shadow, a few world px larger on each side."""
        margin = round(8 * DETAIL)
        alpha = cv2.copyMakeBorder(self.pixels[..., 3], *(margin,) * 4, cv2.BORDER_CONSTANT, value=0)
        alpha = cv2.GaussianBlur(alpha, (0, 0), 3.5 * DETAIL)
        pixels = np.zeros((*alpha.shape, 4), np.uint8)
        pixels[..., 3] = alpha * 0.42
        return Sprite(pixels, self.left - margin / DETAIL, self.top - margin / DETAIL)


class Canvas:
    """Shapes painted over each other, in world px around the anchor (0, 0). `finish` gives the sprite."""

    def __init__(self, left: float, top: float, right: float, bottom: float) -> None:
        self.left, self.top = left, top
        width, height = round((right - left) * DETAIL), round((bottom - top) * DETAIL)
        # Antialiased shapes on a transparent canvas come out multiplied by alpha, as `Sprite` wants them.
        self.pixels: np.ndarray = np.zeros((height, width, 4), np.uint8)

    def _at(self, points: Iterable[Point]) -> np.ndarray:
        grid = (np.array(list(points), float) - (self.left, self.top)) * DETAIL - 0.5
        return np.round(grid * (1 << _SHIFT)).astype(np.int32)

    def polygon(self, points: Iterable[Point], color: Color) -> None:
        cv2.fillPoly(self.pixels, [self._at(points)], (*color, 255), cv2.LINE_AA, _SHIFT)

    def ellipse(self, x: float, y: float, rx: float, ry: float, color: Color, angle_deg: float = 0.0) -> None:
        self.polygon(oval(x, y, rx, ry, angle_deg), color)

    def line(self, points: Iterable[Point], color: Color, width: float) -> None:
        thickness = max(1, round(width * DETAIL))
        cv2.polylines(self.pixels, [self._at(points)], False, (*color, 255), thickness, cv2.LINE_AA, _SHIFT)

    def limb(self, a: Point, b: Point, radius_a: float, radius_b: float, color: Color) -> None:
        """A rounded bar from `a` to `b`, as fingers and handles are."""
        self.polygon(capsule(a, b, radius_a, radius_b), color)

    def box(self, x0: float, y0: float, x1: float, y1: float, color: Color, radius: float = 0.0) -> None:
        self.polygon(rounded_box(x0, y0, x1, y1, radius), color)

    def speckle(
        self, rng: np.random.Generator, color: Color, number: int, size: float, inside: Sequence[float]
    ) -> None:
        """Small dots in the ellipse `inside` (x, y, rx, ry)."""
        x, y, rx, ry = inside
        for _ in range(number):
            turn, radius = rng.uniform(0, 2 * np.pi), np.sqrt(rng.uniform(0, 1))
            spot = (x + rx * radius * np.cos(turn), y + ry * radius * np.sin(turn))
            self.ellipse(*spot, size * rng.uniform(0.6, 1.3), size * rng.uniform(0.5, 1.0), color, rng.uniform(0, 180))

    def paste(self, placement: "Placement") -> None:
        """Draw a finished sprite onto the canvas."""
        camera = np.array([[DETAIL, 0, -self.left * DETAIL], [0, DETAIL, -self.top * DETAIL]])
        draw(self.pixels, [placement], camera)

    def soften(self, sigma: float) -> None:
        """Blur all that is painted so far (glows, steam)."""
        self.pixels = cv2.GaussianBlur(self.pixels, (0, 0), sigma * DETAIL)

    def finish(self, *, outline: float = 0.9, relief: float = 0.22, opacity: float = 1.0) -> Sprite:
        """The sprite, with a dark outline of `outline` world px and light from the upper left of strength `relief`."""
        pixels = self.pixels
        if relief:
            pixels = _lit(pixels, relief)
        if outline:
            pixels = _outlined(pixels, outline)
        sprite = Sprite(pixels, self.left, self.top)
        return sprite if opacity == 1.0 else sprite.faded(opacity)


def _lit(pixels: np.ndarray, relief: float) -> np.ndarray:
    """Lighten edges that look to the upper left and darken those that look to the lower right."""
    alpha = pixels[..., 3]
    half = cv2.resize(alpha, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)  # so soft a shape needs no detail
    height = cv2.GaussianBlur(half, (0, 0), 2.0 * DETAIL).astype(np.float32) / 255
    step = round(1.5 * DETAIL)
    edges = np.roll(height, -step, (0, 1)) - np.roll(height, step, (0, 1))
    slope = cv2.resize(edges, alpha.shape[::-1])[..., None]  # (H, W, 1), within -1..1
    shine = np.maximum(slope - 0.25, 0) * (relief * 60)
    color = np.minimum(pixels[..., :3] * (1 + relief * slope) + shine, alpha[..., None])
    return np.dstack([color.astype(np.uint8), alpha])


def _outlined(pixels: np.ndarray, width: float) -> np.ndarray:
    """Put a dark rim behind the shape."""
    size = 2 * round(width * DETAIL) + 1
    rim = cv2.dilate(pixels[..., 3], cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size, size)))
    rim = cv2.GaussianBlur(rim, (0, 0), 0.5)
    behind = (rim.astype(np.float32) * (255 - pixels[..., 3]) / 255 * 0.85)[..., None]
    dark = np.array([45, 32, 35, 255], np.float32) / 255
    return np.clip(pixels + behind * dark, 0, 255).astype(np.uint8)


def oval(x: float, y: float, rx: float, ry: float, angle_deg: float = 0.0, num: int = 40) -> list[Point]:
    """Points of an ellipse."""
    turn = np.linspace(0, 2 * np.pi, num, endpoint=False)
    c, s = np.cos(np.radians(angle_deg)), np.sin(np.radians(angle_deg))
    px, py = rx * np.cos(turn), ry * np.sin(turn)
    return list(zip(x + px * c - py * s, y + px * s + py * c, strict=True))


def capsule(a: Point, b: Point, radius_a: float, radius_b: float) -> list[Point]:
    """Outline of a bar with round ends of two radii."""
    along = np.arctan2(b[1] - a[1], b[0] - a[0])
    end_b = along + np.linspace(-np.pi / 2, np.pi / 2, 10)
    end_a = along + np.linspace(np.pi / 2, 3 * np.pi / 2, 10)
    xs = np.concatenate([b[0] + radius_b * np.cos(end_b), a[0] + radius_a * np.cos(end_a)])
    ys = np.concatenate([b[1] + radius_b * np.sin(end_b), a[1] + radius_a * np.sin(end_a)])
    return list(zip(xs, ys, strict=True))


def rounded_box(x0: float, y0: float, x1: float, y1: float, radius: float) -> list[Point]:
    """Outline of a rectangle with round corners."""
    if radius <= 0:
        return [(x0, y0), (x1, y0), (x1, y1), (x0, y1)]
    points: list[Point] = []
    middles = (
        (x1 - radius, y0 + radius),
        (x1 - radius, y1 - radius),
        (x0 + radius, y1 - radius),
        (x0 + radius, y0 + radius),
    )
    for quarter, (x, y) in enumerate(middles):
        turn = np.radians(np.linspace(-90, 0, 6) + 90 * quarter)
        points += list(zip(x + radius * np.cos(turn), y + radius * np.sin(turn), strict=True))
    return points


@dataclass(frozen=True, eq=False)
class Placement:
    """A sprite somewhere in the world."""

    sprite: Sprite
    corners: np.ndarray
    """(4, 2) float, where the sprite's corners come to lie (left top first, clockwise), world px"""
    name: str = ""
    """what it is, the same from frame to frame, so that its speed can be known"""


def place(
    sprite: Sprite,
    x: float,
    y: float,
    angle_deg: float = 0.0,
    *,
    scale: float = 1.0,
    squash: float = 1.0,
    flip: bool = False,
    name: str = "",
) -> Placement:
    """Put the sprite's anchor at (x, y): mirrored, turned clockwise, scaled, then its height multiplied by `squash`."""
    c, s = scale * math.cos(math.radians(angle_deg)), scale * math.sin(math.radians(angle_deg))
    c_x, s_x = (-c, -s) if flip else (c, s)
    corners = np.array(
        [
            (x + c_x * px - s * py, y + squash * (s_x * px + c * py))
            for px, py in (
                (sprite.left, sprite.top),
                (sprite.right, sprite.top),
                (sprite.right, sprite.bottom),
                (sprite.left, sprite.bottom),
            )
        ]
    )
    return Placement(sprite, corners, name)


def hang(sprite: Sprite, corners: Sequence[Point], name: str = "") -> Placement:
    """Stretch the sprite over four corners (left top first, clockwise): doors, drawers, lids."""
    return Placement(sprite, np.array(corners, float), name)


def draw(
    frame: np.ndarray, placements: Iterable[Placement], camera: np.ndarray, smears: Sequence[Point] | None = None
) -> None:
    """Blend sprites onto the frame, first one lowest.

    Args:
        frame: (H, W, 4) uint8, changed in place.
        camera: (2, 3) float, world px to frame px.
        smears: for each placement, how far (x, y) in frame px it moves while the shutter is open.
    """
    for index, item in enumerate(placements):
        target = item.corners @ camera[:, :2].T + camera[:, 2]  # (4, 2) frame px
        blur_x, blur_y = smears[index] if smears else (0.0, 0.0)
        (left, top), (right, bottom) = target.min(0).tolist(), target.max(0).tolist()
        x0, y0 = max(0, math.floor(left - blur_x) - 1), max(0, math.floor(top - blur_y) - 1)
        x1 = min(frame.shape[1], math.ceil(right + blur_x) + 1)
        y1 = min(frame.shape[0], math.ceil(bottom + blur_y) + 1)
        if x0 >= x1 or y0 >= y1:
            continue
        layer = _warp(item.sprite.pixels, target - (x0, y0), (x1 - x0, y1 - y0))
        if blur_x >= 1 or blur_y >= 1:
            layer = cv2.blur(layer, (1 + int(blur_x), 1 + int(blur_y)), borderType=cv2.BORDER_CONSTANT)
        blend(frame[y0:y1, x0:x1], layer)


def blend(under: np.ndarray, over: np.ndarray) -> None:
    """Lay `over` (H, W, 4, multiplied by alpha) on `under` (H, W, 4) in place."""
    rest = cv2.bitwise_not(cv2.extractChannel(over, 3))
    kept = cv2.multiply(under, cv2.merge((rest, rest, rest, rest)), scale=1 / 255)
    under[:] = cv2.add(kept, over)


def _warp(pixels: np.ndarray, target: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Stretch pixels so that their corners come to lie on `target` (4, 2), in a picture of `size` (W, H)."""
    height, width = pixels.shape[:2]
    source = np.array([(0, 0), (width, 0), (width, height), (0, height)], np.float32) - 0.5
    target = (target - 0.5).astype(np.float32)
    if np.abs(target[0] - target[1] + target[2] - target[3]).max() < 0.01:  # a parallelogram needs no perspective
        return cv2.warpAffine(pixels, cv2.getAffineTransform(source[:3], target[:3]), size)
    return cv2.warpPerspective(pixels, cv2.getPerspectiveTransform(source, target), size)
