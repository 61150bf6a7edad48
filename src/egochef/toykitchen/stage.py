"""What motions are written with: a moment of an act, the scene it gives, and the timeline that all motions share.

Coordinates are scene coordinates, with the acting hand on the right: world px from the middle of the scene, of which
x -228..228 and y -143..113 are seen.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from egochef.toykitchen.hands import place_hand
from egochef.toykitchen.looks import HandLook, KitchenLook, Look, look_of
from egochef.toykitchen.script import Act
from egochef.toykitchen.sprites import Placement, Point, Sprite, place

AWAY = (128.0, 285.0)
"""where the right hand is while it is not seen"""
OBJECT_SCALE = 1.15
"""carried things are drawn this much larger than their sprites"""
_GRASP = 0.05
"""part of the segment that closing the hand takes"""


@dataclass(frozen=True)
class Moment:
    """A point in time of an act."""

    phase: float
    """0 at the segment's start, 1 at its stop; below 0 and above 1 in the gaps beside it"""
    time_s: float
    """seconds from the segment's start"""
    flicker: float = 0.0
    """-1..1, for flames and water"""


@dataclass(frozen=True)
class Scene:
    """What an act looks like at each moment."""

    still: tuple[Placement, ...]
    """what does not move, lowest first"""
    moving: Callable[[Moment], list[Placement]]
    """what moves, lowest first"""
    gain: Callable[[Moment], float] = lambda moment: 1.0
    """brightness of the whole picture"""
    matrix: np.ndarray = field(default_factory=lambda: np.eye(2, 3))
    """(2, 3) float, scene coordinates to world px around the spot's middle"""


@dataclass(frozen=True)
class Cast:
    """Whom and what an act is drawn with."""

    act: Act
    kitchen: KitchenLook
    hands: HandLook
    look: Look
    """of the act's noun"""
    rng: np.random.Generator
    """for what else is in the scene"""

    def other(self, noun: str) -> Look:
        """A look for a second thing in the scene."""
        return look_of(noun, self.kitchen, self.rng, likeness=0.0)


def smooth(x: float, begin: float, end: float) -> float:
    """0 up to `begin`, 1 from `end` on, an S-curve between; the same curve backwards."""
    share = min(1.0, max(0.0, (x - begin) / (end - begin)))
    return share * share * (3 - 2 * share)


def progress(act: Act, moment: Moment) -> float:
    """How far the deed itself is done, 0..1."""
    return smooth(moment.phase, act.begin, act.end)


def reach(act: Act, moment: Moment) -> float:
    """0 while the hand is out of sight, 1 while it is at work."""
    duration_s = act.stop_s - act.start_s
    into = smooth(moment.phase, -act.lead_in_s / duration_s, act.begin - _GRASP)
    return into - smooth(moment.phase, act.end + _GRASP, 1 + act.lead_out_s / duration_s)


def closed(act: Act, moment: Moment) -> float:
    """How far the hand is closed, 0..1: it closes just before the deed and opens just after."""
    into = smooth(moment.phase, act.begin - 2 * _GRASP, act.begin)
    return into - smooth(moment.phase, act.end, act.end + 2 * _GRASP)


def wave(act: Act, moment: Moment, speed: float = 1.0) -> float:
    """The angle (radians) of what goes round and round or to and fro."""
    return 2 * np.pi * act.speed_hz * speed * moment.time_s


def between(a: Point, b: Point, share: float) -> Point:
    return a[0] + (b[0] - a[0]) * share, a[1] + (b[1] - a[1]) * share


def arm(
    cast: Cast, at: Point, near: float, *, right: bool = True, curl: float = 1.0, turn_deg: float = 0.0
) -> Placement:
    """A hand that has come the share `near` of its way to `at`."""
    away = AWAY if right else (-AWAY[0], AWAY[1])
    x, y = between(away, at, near)
    return place_hand(cast.hands, x, y, right=right, curl=curl, turn_deg=turn_deg)


def spot_on(point: Point, x: float, y: float, angle_deg: float = 0.0, scale: float = OBJECT_SCALE) -> Point:
    """Where a sprite's point lies once the sprite is placed at (x, y)."""
    c, s = np.cos(np.radians(angle_deg)), np.sin(np.radians(angle_deg))
    return x + scale * (point[0] * c - point[1] * s), y + scale * (point[0] * s + point[1] * c)


def standing(
    sprite: Sprite, x: float, y: float, angle_deg: float = 0.0, *, scale: float = OBJECT_SCALE, name: str = "thing"
) -> list[Placement]:
    """A thing with its shadow, on the counter."""
    return lifted(sprite, sprite.shadow(), x, y, 0.0, angle_deg, scale=scale, name=name)


def lifted(
    sprite: Sprite,
    shadow: Sprite,
    x: float,
    y: float,
    height: float,
    angle_deg: float = 0.0,
    *,
    scale: float = OBJECT_SCALE,
    name: str = "thing",
) -> list[Placement]:
    """A thing `height` world px above its shadow, which lies on the counter at (x, y)."""
    under = place(shadow, x + 3 + 0.25 * height, y + 6, angle_deg, scale=scale, name=f"shadow of {name}")
    return [under, place(sprite, x, y - height, angle_deg, scale=scale, name=name)]
