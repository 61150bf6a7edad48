"""What is built into a kitchen and opens or turns on. In: colours. Out: a `Mechanism`.

A mechanism is a function of its state alone (0 closed or off, 1 open or on): closing is opening played backwards.
Coordinates are scene coordinates: world px from the middle of the scene, of which 456 x 256 are seen.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from egochef.toykitchen import food, objects
from egochef.toykitchen.looks import KitchenLook, Look
from egochef.toykitchen.sprites import (
    DETAIL,
    Canvas,
    Color,
    Placement,
    Point,
    Sprite,
    darker,
    hang,
    lighter,
    place,
)

FOCAL = 430.0
"""distance of the eye from the fronts, world px: things that come nearer grow by FOCAL / (FOCAL - distance)"""
_DARK: Color = (52, 46, 50)


@dataclass(frozen=True)
class Mechanism:
    """Something with a state between 0 and 1."""

    still: tuple[Placement, ...]
    """what never moves, lowest first"""
    parts: Callable[[float, float], list[Placement]]
    """(state, flicker) to what moves or glows; flicker is -1..1, new in each frame"""
    grip: Callable[[float], Point]
    """state to where the hand holds it"""
    gain: Callable[[float], float] = lambda state: 1.0
    """state to the brightness of the whole scene"""


def _project(points: Sequence[tuple[float, float, float]], eye: Point) -> list[Point]:
    """Scene points with a distance towards the viewer, as seen from `eye`."""
    grown = [FOCAL / (FOCAL - min(z, 0.7 * FOCAL)) for _, _, z in points]
    return [(eye[0] + (x - eye[0]) * k, eye[1] + (y - eye[1]) * k) for (x, y, _), k in zip(points, grown, strict=True)]


def _panel(width: float, height: float, color: Color, *, framed: bool = True) -> Sprite:
    """A door or drawer front without its handle, its anchor at the left top."""
    canvas = Canvas(0, 0, width, height)
    canvas.box(0, 0, width, height, darker(color, 0.25), 4)
    canvas.box(2, 2, width - 2, height - 2, color, 4)
    if framed:
        canvas.box(16, 16, width - 16, height - 16, darker(color, 0.2), 3)
        canvas.box(18, 18, width - 16, height - 16, lighter(color, 0.18), 3)
        canvas.box(18, 18, width - 18, height - 18, darker(color, 0.05), 3)
    return canvas.finish()


def _bar(length: float, metal: Color, *, upright: bool) -> Sprite:
    """A handle."""
    half = length / 2
    canvas = Canvas(-12, -half - 8, 12, half + 8) if upright else Canvas(-half - 8, -12, half + 8, 12)
    low, high = ((0.0, -half), (0.0, half)) if upright else ((-half, 0.0), (half, 0.0))
    for x, y in (low, high):
        canvas.ellipse(x, y, 7, 7, darker(metal, 0.35))
    canvas.limb(low, high, 5, 5, metal)
    return canvas.finish(relief=0.4)


def _swinging_door(
    box: tuple[float, float, float, float], outside: Sprite, inside: Sprite, handle: Sprite, left: bool
) -> tuple[Callable[[float, float], list[Placement]], Callable[[float], Point]]:
    """`parts` and `grip` of a door that turns about its left or right edge by up to 108 degrees."""
    x0, y0, x1, y1 = box
    width, middle = x1 - x0, (y0 + y1) / 2
    hinge, way = (x0, 1.0) if left else (x1, -1.0)
    eye = ((x0 + x1) / 2, -30.0)

    def edge(state: float, share: float) -> tuple[float, float]:
        angle = np.radians(108) * state
        return hinge + way * share * width * np.cos(angle), share * width * np.sin(angle)

    def parts(state: float, flicker: float) -> list[Placement]:
        x, z = edge(state, 1.0)
        ends = ((hinge, 0.0), (x, z)) if left else ((x, z), (hinge, 0.0))
        (xa, za), (xb, zb) = ends
        corners = _project([(xa, y0, za), (xb, y0, zb), (xb, y1, zb), (xa, y1, za)], eye)
        turned = corners[1][0] < corners[0][0]
        if turned:  # past the line of sight, the inner face is seen
            corners = [corners[1], corners[0], corners[3], corners[2]]
        placed = [hang(inside if turned else outside, corners, "door")]
        if not turned:
            placed.append(place(handle, *grip(state), name="handle"))
        return placed

    def grip(state: float) -> Point:
        x, z = edge(state, 0.88)
        return _project([(x, middle + 14, z)], eye)[0]

    return parts, grip


def _shelves(width: float, height: float, back: Color, shelf: Color, rows: Sequence[Sequence[Sprite]]) -> Sprite:
    """The inside of a cupboard or fridge: a box of shelves, things standing on them."""
    canvas = Canvas(0, 0, width, height)
    canvas.box(0, 0, width, height, darker(back, 0.45))
    canvas.box(8, 8, width - 8, height - 8, back)
    num = len(rows)
    for row, things in enumerate(rows):
        floor = 8 + (height - 16) * (row + 1) / num
        canvas.box(6, floor - 5, width - 6, floor + 1, shelf)
        for place_number, thing in enumerate(things):
            x = width * (place_number + 0.5) / len(things)
            scale = min(0.62, (height / num - 14) / (len(thing.pixels) / DETAIL))
            bottom = thing.top + len(thing.pixels) / DETAIL
            canvas.paste(place(thing, x, floor - 4 - bottom * scale, scale=scale))
    return canvas.finish(outline=0, relief=0.0)


def cupboard(kitchen: KitchenLook, rng: np.random.Generator) -> Mechanism:
    """A wall cupboard of crockery with a swinging door."""
    box = (-88.0, -118.0, 88.0, 62.0)
    width, height = box[2] - box[0], box[3] - box[1]
    dishes = [
        draw(_random_look(rng))
        for draw in rng.permutation(np.array([objects.bowl, objects.cup, objects.glass, objects.plate]))
    ]
    inside = _shelves(width, height, (206, 178, 140), (168, 132, 92), (dishes[:2], dishes[2:]))
    body = Canvas(-112, -142, 112, 86)
    body.box(-110, -140, 110, 82, darker(kitchen.cabinet, 0.12), 3)
    body.box(-112, 78, 112, 86, darker(kitchen.cabinet, 0.4))
    door = _panel(width, height, kitchen.cabinet)
    handle = _bar(38, kitchen.metal, upright=True)
    parts, grip = _swinging_door(
        box, door, _panel(width, height, darker(kitchen.cabinet, 0.15)), handle, bool(rng.integers(2))
    )
    still = (place(body.finish(), 0, 0), place(inside, box[0], box[1]))
    return Mechanism(still, parts, grip)


def fridge(kitchen: KitchenLook, rng: np.random.Generator) -> Mechanism:
    """A tall fridge: white lit inside, milk and vegetables on its shelves."""
    box = (-112.0, -190.0, 112.0, 190.0)
    width, height = box[2] - box[0], box[3] - box[1]
    stock = [draw(_random_look(rng)) for draw in (objects.bottle, objects.jar, objects.box)]
    fixed = [
        food.cheese(Look((248, 196, 62), _DARK, 1)),
        food.tomato(Look((214, 52, 38), _DARK, 1)),
        objects.milk(_random_look(rng)),
    ]
    inside = _shelves(
        width,
        height,
        (226, 240, 248),
        (180, 206, 220),
        ([stock[0]], [fixed[0], fixed[1]], [fixed[2], stock[1]], [stock[2]]),
    )
    body = Canvas(-132, -210, 132, 210)
    body.box(-130, -210, 130, 210, darker(kitchen.appliance, 0.25), 4)
    outside = _panel(width, height, kitchen.appliance, framed=False)
    handle = _bar(90, kitchen.metal, upright=True)
    parts, grip = _swinging_door(box, outside, _panel(width, height, (232, 238, 242)), handle, bool(rng.integers(2)))
    return Mechanism((place(body.finish(), 0, 0), place(inside, box[0], box[1])), parts, grip)


def drawer(kitchen: KitchenLook, rng: np.random.Generator) -> Mechanism:
    """A drawer of cutlery that slides towards the viewer."""
    box = (-100.0, -52.0, 100.0, 6.0)
    eye, depth = (0.0, -190.0), 165.0
    tray = Canvas(0, 0, 200, 120)
    tray.box(0, 0, 200, 120, (150, 112, 76))
    tray.box(8, 6, 192, 116, (196, 160, 116))
    pieces = [
        draw(_random_look(rng)) for draw in (objects.fork, objects.spoon, objects.knife, objects.spoon, objects.fork)
    ]
    for x, piece in zip((28, 64, 100, 136, 172), pieces, strict=True):
        tray.box(x - 16, 10, x + 16, 112, (172, 136, 96), 3)
        tray.paste(place(piece, x, 62, scale=0.78))
    tray_sprite = tray.finish(outline=0, relief=0)
    body = Canvas(-130, -150, 130, 200)
    body.box(-128, -80, 128, 200, kitchen.cabinet)
    body.box(-130, -104, 130, -76, darker(kitchen.counter, 0.2), 4)
    body.box(-104, -56, 104, 10, _DARK)
    below = _panel(200, 130, kitchen.cabinet)
    front = _panel(200, 58, kitchen.cabinet, framed=False)
    handle = _bar(64, kitchen.metal, upright=False)
    rows = len(tray_sprite.pixels)

    def parts(state: float, flicker: float) -> list[Placement]:
        z = depth * state
        corners = _project([(box[0], box[1], z), (box[2], box[1], z), (box[2], box[3], z), (box[0], box[3], z)], eye)
        placed = []
        seen = round(rows * state)  # only the part that has come out of the cabinet
        if seen > 1:
            slide = Sprite(tray_sprite.pixels[rows - seen :], 0, 0)
            placed.append(hang(slide, [(box[0], box[1] + 5), (box[2], box[1] + 5), corners[1], corners[0]], "tray"))
        placed.append(hang(front, corners, "front"))
        placed.append(place(handle, *grip(state), scale=FOCAL / (FOCAL - z), name="handle"))
        return placed

    def grip(state: float) -> Point:
        return _project([(0.0, -24.0, depth * state)], eye)[0]

    return Mechanism((place(body.finish(relief=0.08), 0, 0), place(below, -100, 14)), parts, grip)


def oven(kitchen: KitchenLook, rng: np.random.Generator) -> Mechanism:
    """An oven whose door falls towards the viewer; warm light and a tray inside."""
    box = (-104.0, -74.0, 104.0, 50.0)
    width, height = box[2] - box[0], box[3] - box[1]
    inside = Canvas(0, 0, width, height)
    inside.box(0, 0, width, height, (60, 44, 40))
    inside.box(12, 10, width - 12, height - 8, (150, 84, 40))
    inside.ellipse(width / 2, 24, 70, 20, (250, 180, 80))
    inside.soften(5)
    for y in (52, 92):
        inside.line([(10, y), (width - 10, y)], (170, 170, 172), 3)
    inside.paste(place(food.bread(Look((206, 150, 86), _DARK, 3)), width / 2 - 36, 66, scale=0.62))
    inside.paste(place(food.bread(Look((196, 136, 76), _DARK, 5)), width / 2 + 36, 66, scale=0.62))
    body = Canvas(-130, -150, 130, 200)
    body.box(-128, -134, 128, 200, kitchen.appliance, 4)
    body.box(-122, -126, 122, -84, darker(kitchen.appliance, 0.35), 4)
    body.box(-26, -118, 26, -94, (30, 40, 44), 3)
    for x in (-100, -62, 62, 100):
        body.ellipse(x, -105, 13, 13, lighter(kitchen.metal, 0.3))
        body.line([(x, -105), (x, -116)], _DARK, 2.5)
    door = Canvas(0, 0, width, height)
    door.box(0, 0, width, height, darker(kitchen.appliance, 0.2), 4)
    door.box(22, 34, width - 22, height - 16, (38, 34, 38), 8)
    door.polygon([(60, 34), (96, 34), (66, height - 16), (30, height - 16)], (66, 62, 66))
    face, back = door.finish(), _panel(width, height, (120, 116, 114))
    handle = _bar(120, kitchen.metal, upright=False)
    eye = (0.0, -90.0)

    def edge(state: float, share: float) -> tuple[float, float]:
        angle = np.radians(86) * state
        return box[3] - share * height * np.cos(angle), share * height * np.sin(angle)

    def parts(state: float, flicker: float) -> list[Placement]:
        y, z = edge(state, 1.0)
        corners = _project([(box[0], y, z), (box[2], y, z), (box[2], box[3], 0.0), (box[0], box[3], 0.0)], eye)
        turned = corners[0][1] > corners[3][1]
        if turned:
            corners = [corners[3], corners[2], corners[1], corners[0]]
        placed = [hang(back if turned else face, corners, "door")]
        return placed if turned else [*placed, place(handle, *grip(state), name="handle")]

    def grip(state: float) -> Point:
        y, z = edge(state, 0.86)
        return _project([(0.0, y, z)], eye)[0]

    still = (place(body.finish(relief=0.1), 0, 0), place(inside.finish(outline=0, relief=0), box[0], box[1]))
    return Mechanism(still, parts, grip)


def waste_bin(look: Look) -> Mechanism:
    """A bin with a lid that flips up at its back."""
    body, lid, opening = bin_sprites(look)

    def free_edge(state: float) -> float:
        angle = np.radians(104) * state
        return -26.0 + 58 * np.cos(angle) - 92 * np.sin(angle)

    def parts(state: float, flicker: float) -> list[Placement]:
        near = free_edge(state)
        spread = 66 + 8 * np.sin(np.pi * min(1.0, state))
        corners = [(-66.0, -26.0), (66.0, -26.0), (spread, near), (-spread, near)]
        return [hang(lid, corners, "lid")]

    def grip(state: float) -> Point:
        return 0.0, -26.0 + (free_edge(state) + 26.0) * 0.86

    return Mechanism((place(body, 0, 0), place(opening, 0, 0)), parts, grip)


def bin_sprites(look: Look) -> tuple[Sprite, Sprite, Sprite]:
    """Body, lid (anchor at its back edge) and opening of a bin; the opening's middle is at (0, 3)."""
    body = Canvas(-80, -40, 80, 170)
    body.polygon([(-66, 2), (66, 2), (54, 168), (-54, 168)], look.color)
    body.polygon([(-50, 16), (-34, 20), (-30, 160), (-40, 160)], lighter(look.color, 0.3))
    body.ellipse(0, 3, 67, 30, darker(look.color, 0.25))
    opening = Canvas(-64, -28, 64, 34)
    opening.ellipse(0, 3, 60, 25, (236, 236, 238))
    opening.ellipse(0, 5, 55, 21, (54, 54, 58))
    lid = Canvas(-68, 0, 68, 60)
    lid.ellipse(0, 30, 67, 30, darker(look.color, 0.15))
    lid.ellipse(0, 27, 62, 26, lighter(look.color, 0.2))
    lid.ellipse(0, 46, 18, 5, _DARK)
    return body.finish(), lid.finish(), opening.finish(outline=0)


def _random_look(rng: np.random.Generator) -> Look:
    colors = ((244, 240, 232), (206, 66, 58), (70, 120, 180), (90, 150, 90), (226, 180, 70), (188, 194, 202))
    return Look(colors[rng.integers(6)], colors[rng.integers(6)], int(rng.integers(1 << 30)))
