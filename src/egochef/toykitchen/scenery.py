"""What is behind and around the actions: the panorama of a kitchen, and clutter. In: a `KitchenLook`. Out: pictures.

The panorama is drawn once per video, wider than the frame; the camera looks at one of its spots and turns to the next.
"""

import cv2
import numpy as np

from egochef.toykitchen import food
from egochef.toykitchen.classes import NOUNS
from egochef.toykitchen.looks import KitchenLook, look_of
from egochef.toykitchen.props import PROPS
from egochef.toykitchen.script import NUM_SPOTS
from egochef.toykitchen.sprites import Canvas, Color, Placement, Sprite, darker, draw, lighter, mix, oval, place

SPOT_DISTANCE = 540.0
"""world px from one spot's middle to the next"""
SPOT_X = 300.0
"""world px from the panorama's left edge to the middle of the first spot"""
SPOT_Y = 190.0
"""world px from the panorama's top to the middle of a scene"""
PANORAMA_SIZE = (round(SPOT_DISTANCE * (NUM_SPOTS - 1) + 600), 360)
"""width and height, world px"""
_COUNTER_Y = 118
"""where wall and counter meet, world px"""
_IDENTITY = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
_STANDING = (
    "bottle",
    "jar",
    "milk",
    "kettle",
    "box",
    "cup",
    "bowl",
    "pot",
    "onion",
    "tomato",
    "lemon",
    "bread",
    "glass",
)
"""what may stand at the wall"""


def at_spot(spot: int, matrix: np.ndarray) -> np.ndarray:
    """(2, 3): scene coordinates to world px."""
    return matrix + np.array([[0, 0, SPOT_X + SPOT_DISTANCE * spot], [0, 0, SPOT_Y]])


class Stock:
    """What stands about in a kitchen: a few things of each noun, painted when first wanted."""

    PER_NOUN = 2

    def __init__(self, kitchen: KitchenLook, rng: np.random.Generator) -> None:
        self.kitchen, self.seed = kitchen, int(rng.integers(1 << 30))
        self.painted: dict[tuple[str, int], tuple[Sprite, Sprite]] = {}

    def thing(self, noun: str, rng: np.random.Generator) -> tuple[Sprite, Sprite]:
        """A thing and its shadow."""
        number = int(rng.integers(self.PER_NOUN))
        if (noun, number) not in self.painted:
            own = np.random.default_rng((self.seed, NOUNS[noun], number))  # whatever was painted before
            sprite = PROPS[noun].paint(look_of(noun, self.kitchen, own, likeness=0.0))
            self.painted[noun, number] = sprite, sprite.shadow()
        return self.painted[noun, number]

    def standing(self, noun: str, x: float, y: float, scale: float, rng: np.random.Generator) -> list[Placement]:
        """A thing with its shadow, its foot at (x, y)."""
        sprite, shadow = self.thing(noun, rng)
        angle = float(rng.uniform(-1, 1)) * PROPS[noun].tilt_deg
        middle = y - sprite.bottom * scale * 0.7
        return [place(shadow, x + 3, middle + 4, angle, scale=scale), place(sprite, x, middle, angle, scale=scale)]


def panorama(kitchen: KitchenLook, stock: Stock, clutter: int, rng: np.random.Generator) -> np.ndarray:
    """(H, W, 4) uint8: wall, counter and what stands at the wall."""
    width, height = PANORAMA_SIZE
    canvas = np.full((height, width, 4), 255, np.uint8)
    canvas[:_COUNTER_Y, :, :3] = _tiles(kitchen, width, _COUNTER_Y)
    canvas[_COUNTER_Y:, :, :3] = _counter(kitchen, width, height - _COUNTER_Y)
    canvas[_COUNTER_Y - 4 : _COUNTER_Y, :, :3] = darker(kitchen.counter, 0.35)
    canvas[_COUNTER_Y : _COUNTER_Y + 3, :, :3] = lighter(kitchen.counter, 0.4)
    shade = np.linspace(0.80, 1.0, 26)[:, None, None]  # the wall's shadow on the counter
    canvas[_COUNTER_Y + 3 : _COUNTER_Y + 29, :, :3] = canvas[_COUNTER_Y + 3 : _COUNTER_Y + 29, :, :3] * shade
    things = _decoration(kitchen, stock, rng)
    for x in np.arange(60, width, 75.0):
        if rng.uniform() < 0.08 + 0.06 * clutter:
            noun = str(rng.choice(_STANDING))
            things += stock.standing(noun, float(x + rng.uniform(-25, 25)), _COUNTER_Y + 6, 0.62, rng)
    draw(canvas, things, _IDENTITY)
    return canvas


def clutter_around(stock: Stock, number: int, rng: np.random.Generator) -> list[Placement]:
    """Things lying beside an action, in scene coordinates."""
    placed: list[Placement] = []
    for index in range(number):
        noun = str(rng.choice(sorted(set(PROPS) - {"oil", "water", "board:chopping"})))
        side = -1 if index % 2 else 1
        nearest = 112 if number <= 4 else 92  # many things come nearer
        x, y = side * rng.uniform(nearest, 215), -50 + 130 * (index + rng.uniform()) / number  # the nearest last
        placed += stock.standing(noun, float(x), float(y), 0.85, rng)
    return placed


def clear_spot(world: np.ndarray, clean: np.ndarray, spot: int) -> None:
    """Take away what an earlier scene left in the panorama."""
    left = round(SPOT_X + SPOT_DISTANCE * (spot - 0.5))
    right = left + round(SPOT_DISTANCE)
    world[:, left:right] = clean[:, left:right]


def occluder(rng: np.random.Generator) -> list[Placement]:
    """Something dark and out of focus in the foreground, in scene coordinates."""
    color: Color = tuple(int(c) for c in rng.integers(40, 110, 3))  # type: ignore[assignment]
    canvas = Canvas(-100, -120, 100, 120)
    if rng.uniform() < 0.5:
        canvas.limb((0, -40), (0, 110), 30, 34, color)
        canvas.limb((0, -84), (0, -40), 11, 14, color)
    else:
        for angle in np.radians(np.linspace(-55, 55, 5)):
            canvas.limb(
                (0, 90), (80 * np.sin(angle), 90 - 150 * np.cos(angle) * 0.9), 5, 9, mix(color, (60, 120, 60), 0.6)
            )
        canvas.box(-26, 70, 26, 118, color, 5)
    canvas.soften(3.0)
    sprite = canvas.finish(outline=0, relief=0.1)
    x = float(rng.uniform(40, 105) * rng.choice((-1, 1)))
    return [place(sprite, x, 78, float(rng.uniform(-8, 8)), scale=1.1, name="foreground")]


def _tiles(kitchen: KitchenLook, width: int, height: int) -> np.ndarray:
    rng = np.random.default_rng((kitchen.texture_seed, 1))
    tile_h, tile_w = kitchen.tile_px, kitchen.tile_px * kitchen.tile_ratio
    rows, columns = int(height / tile_h) + 2, int(width / tile_w) + 2
    shades = 1 + rng.uniform(-0.05, 0.03, (rows, columns, 1))
    ys, xs = np.arange(height) / tile_h, np.arange(width) / tile_w
    wall = np.array(kitchen.wall) * shades[ys.astype(int)][:, xs.astype(int)]
    joint = ((ys % 1) < 2.0 / tile_h)[:, None] | ((xs % 1) < 2.0 / tile_w)[None, :]
    wall[joint] = darker(kitchen.wall, 0.22)
    gloss = ((ys % 1) - 2.0 / tile_h < 1.6 / tile_h)[:, None] & ~joint
    wall[gloss] = wall[gloss] * 0.6 + 102
    return np.clip(wall, 0, 255).astype(np.uint8)


def _counter(kitchen: KitchenLook, width: int, height: int) -> np.ndarray:
    rng = np.random.default_rng((kitchen.texture_seed, 2))
    if kitchen.counter_kind == "wood":
        grain = cv2.resize(
            rng.normal(0, 1, (height // 2, 24)).astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC
        )
        texture = 0.055 * cv2.GaussianBlur(grain, (0, 0), 1.0)
        texture[:: max(1, height // 3)] -= 0.14
    elif kitchen.counter_kind == "speckled":
        texture = 0.22 * cv2.GaussianBlur(rng.normal(0, 1, (height, width)).astype(np.float32), (0, 0), 1.3)
    else:
        texture = 0.5 * cv2.GaussianBlur(rng.normal(0, 1, (height, width)).astype(np.float32), (0, 0), 9)
    depth = np.linspace(0.96, 1.05, height)[:, None]
    return np.clip(np.array(kitchen.counter) * (depth * (1 + texture))[..., None], 0, 255).astype(np.uint8)


def _decoration(kitchen: KitchenLook, stock: Stock, rng: np.random.Generator) -> list[Placement]:
    """A rail with tools, a window, a power outlet, a basket of fruit on the wall."""
    rail = Canvas(-120, -12, 120, 12)
    rail.limb((-112, 0), (112, 0), 3, 3, kitchen.metal)
    placed = [place(rail.finish(), float(rng.uniform(480, 640)), 34)]
    x = float(placed[0].corners[:, 0].mean())
    for offset, noun in zip((-80, -30, 20, 75), rng.permutation(["spoon", "spatula", "fork", "knife"]), strict=True):
        placed.append(place(stock.thing(str(noun), rng)[0], x + offset, 72, 180, scale=0.62))
    frame = Canvas(-70, -100, 70, 70)
    frame.box(-62, -92, 62, 56, (180, 214, 240))
    for left, right in ((-58, 6), (-12, 58)):  # bushes outside
        frame.polygon([(left, 56), *oval((left + right) / 2, 44, (right - left) / 2, 20)[20:], (right, 56)], food.LEAF)
    for x in (-62, 0, 62):
        frame.line([(x, -92), (x, 56)], lighter(kitchen.cabinet, 0.3), 7)
    frame.box(-70, 52, 70, 62, lighter(kitchen.cabinet, 0.3), 2)
    placed.append(place(frame.finish(), float(rng.uniform(90, 220)), 40))
    outlet = Canvas(-16, -16, 16, 16)
    outlet.box(-13, -13, 13, 13, (246, 246, 242), 3)
    for side in (-4.5, 4.5):
        outlet.ellipse(side, 0, 1.8, 2.6, (60, 60, 60))
    return [*placed, place(outlet.finish(), float(rng.uniform(860, 1300)), 84)]
