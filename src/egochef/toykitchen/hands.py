"""A hand with its forearm, seen from above as its owner sees it. In: a `HandLook`, a pose. Out: a sprite.

The anchor is the grip: where a held thing is, just before the finger tips. The right hand is drawn; the left one is its
mirror image. The forearm runs down from the hand, long enough to leave the frame wherever the hand is.
"""

from functools import lru_cache

import numpy as np

from egochef.toykitchen.looks import HandLook
from egochef.toykitchen.sprites import Canvas, Placement, Sprite, darker, lighter, mix, place

ARM_LENGTH = 400.0
"""world px from the grip to the end of the forearm"""
NUM_POSES = 6
"""drawn steps between an open and a closed hand"""
ELBOW = (96.0, 400.0)
"""where the right forearm comes from, world px from the middle of the scene; the left one's x is negative"""
HAND_SCALE = 1.12

_FINGERS = (  # knuckle x, knuckle y, length, radius, lean of the open hand (degrees)
    (-17.0, 26.0, 46.0, 7.2, -9.0),
    (-3.0, 21.0, 52.0, 7.5, -2.0),
    (11.0, 23.0, 48.0, 7.2, 6.0),
    (23.5, 29.0, 38.0, 6.4, 15.0),
)


@lru_cache(maxsize=64)
def hand(look: HandLook, step: int) -> Sprite:
    """The right hand, from open (`step` 0) to closed (NUM_POSES - 1)."""
    curl = step / (NUM_POSES - 1)
    canvas = Canvas(-66, -44, 74, ARM_LENGTH)
    _forearm(canvas, look)
    edge = darker(look.skin, 0.42)
    palm = [
        (-25, 34),
        (-19, 20),
        (0, 15),
        (18, 19),
        (31, 30),
        (33, 54),
        (27, 82),
        (22, 96),
        (-14, 96),
        (-20, 80),
        (-29, 56),
    ]
    canvas.polygon(palm, look.skin)
    for finger in reversed(_FINGERS):
        _finger(canvas, look, finger, curl)
    base, joint = (-22.0, 66.0), (-40.0 + 4 * curl, 40.0 - 4 * curl)
    tip = (-45.0 + 29 * curl, 13.0 - 2 * curl)
    for extra, color in ((1.0, edge), (0.0, look.skin)):
        canvas.limb(base, joint, 11.5 + extra, 8.6 + extra, color)
        canvas.limb(joint, tip, 8.6 + extra, 6.8 + extra, color)
    canvas.ellipse(-14, 68, 12, 20, look.skin, -12)
    if not look.gloved:
        _nail(canvas, look, joint, tip, 4.0)
    return canvas.finish(relief=0.3)


def _finger(canvas: Canvas, look: HandLook, finger: tuple[float, ...], curl: float) -> None:
    x, y, length, radius, lean = finger
    angle = np.radians(lean * (1 - curl) - 7 * curl)
    first = length * (0.52 - 0.10 * curl)
    second = length * (0.48 - 0.26 * curl)
    middle = (x + first * np.sin(angle), y - first * np.cos(angle))
    bend = angle - 0.75 * curl
    tip = (middle[0] + second * np.sin(bend), middle[1] - second * np.cos(bend))
    for extra, color in ((1.0, darker(look.skin, 0.42)), (0.0, look.skin)):
        canvas.limb((x, y + 8), middle, radius + 0.6 + extra, radius + extra, color)
        canvas.limb(middle, tip, radius + extra, radius * 0.86 + extra, color)
    for joint_y in (y + 1, middle[1] + 1):
        joint_x = x if joint_y > y else middle[0]
        canvas.line(
            [(joint_x - 4, joint_y), (joint_x, joint_y - 1.4), (joint_x + 4, joint_y)], darker(look.skin, 0.2), 1.0
        )
    canvas.ellipse(x - 1.5, y + 2, 3.5, 3, lighter(look.skin, 0.12 + 0.12 * curl))
    if not look.gloved and curl < 0.75:
        _nail(canvas, look, middle, tip, radius * 0.6)


def _nail(canvas: Canvas, look: HandLook, joint: tuple[float, float], tip: tuple[float, float], size: float) -> None:
    along = np.degrees(np.arctan2(tip[1] - joint[1], tip[0] - joint[0]))
    canvas.ellipse(*tip, size * 1.15, size * 0.9, mix(look.skin, (255, 214, 208), 0.6), along)


def _forearm(canvas: Canvas, look: HandLook) -> None:
    canvas.limb((5, 84), (8, ARM_LENGTH + 40), 22, 40, look.skin)
    if look.gloved:
        canvas.limb((4, 134), (6, 140), 29, 30, darker(look.skin, 0.15))
        canvas.limb((4, 128), (6, 134), 27, 29, look.skin)
    if look.pattern == "bare":
        return
    start = 150.0 if look.gloved else 128.0
    canvas.polygon([(-27, start), (37, start), (58, ARM_LENGTH + 20), (-44, ARM_LENGTH + 20)], look.sleeve)
    if look.pattern == "striped":
        for y in np.arange(start + 30, ARM_LENGTH, 30):
            half = 32 + (y - start) * 0.07
            canvas.polygon([(5 - half, y), (5 + half, y), (6 + half, y + 12), (4 - half, y + 12)], look.stripe)
    canvas.box(-31, start - 4, 41, start + 16, look.stripe, 6)
    for fold in (44, 92, 150):
        canvas.line([(-18, start + fold), (0, start + fold + 8), (16, start + fold + 3)], darker(look.sleeve, 0.25), 2)


def place_hand(
    look: HandLook, x: float, y: float, *, right: bool, curl: float, turn_deg: float = 0.0, name: str = ""
) -> Placement:
    """Put the grip of a hand at (x, y) in scene coordinates; the forearm points to its elbow.

    Args:
        curl: 0 open to 1 closed.
        turn_deg: how much more the hand is turned, clockwise.
    """
    elbow_x = ELBOW[0] if right else -ELBOW[0]
    angle = np.degrees(np.arctan2(x - elbow_x, ELBOW[1] - y))
    sprite = hand(look, round(float(np.clip(curl, 0, 1)) * (NUM_POSES - 1)))
    side = "right hand" if right else "left hand"
    return place(sprite, x, y, angle + turn_deg, scale=HAND_SCALE, flip=not right, name=name or side)
