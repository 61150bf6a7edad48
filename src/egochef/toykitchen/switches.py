"""What turns on and off, and lids of jars and bottles. In: colours. Out: a `Mechanism`, as in `fixtures.py`."""

import numpy as np

from egochef.toykitchen import objects
from egochef.toykitchen.fixtures import Mechanism
from egochef.toykitchen.looks import KitchenLook, Look
from egochef.toykitchen.sprites import Canvas, Color, Placement, Point, Sprite, darker, lighter, mix, place

_STAINLESS: Color = (206, 210, 214)
_NUM_GLOWS = 8
"""drawn steps between dark and glowing"""
TAP_MOUTH = (-14.0, -52.0)
"""where the water leaves the tap, scene coordinates"""
RINGS = ((-58.0, -30.0), (58.0, -30.0))
"""middles of the hob's rings, scene coordinates"""


def sink(kitchen: KitchenLook) -> tuple[Placement, ...]:
    """Basin and tap without lever and water."""
    basin = Canvas(-160, -30, 160, 150)
    basin.box(-150, -12, 150, 146, _STAINLESS, 26)
    basin.box(-138, 0, 138, 138, darker(_STAINLESS, 0.35), 22)
    basin.box(-128, 22, 128, 132, darker(_STAINLESS, 0.18), 20)
    basin.ellipse(0, 84, 17, 9, darker(_STAINLESS, 0.6))
    tap = Canvas(-50, -140, 90, 10)
    tap.box(24, -26, 62, -14, kitchen.metal, 5)
    arc = [(42 - 27 + 27 * np.cos(a), -92 - 34 * np.sin(a)) for a in np.linspace(0, np.pi, 16)]
    path = [(42, -20), (42, -92), *arc, (-12, -70)]
    tap.line(path, darker(kitchen.metal, 0.2), 15)
    tap.line(path, kitchen.metal, 12)
    tap.line([(x - 2, y) for x, y in path], lighter(kitchen.metal, 0.55), 3)
    tap.limb((-12, -72), (-13, -58), 9, 8, darker(kitchen.metal, 0.1))
    return place(basin.finish(), 0, 0), place(tap.finish(), 0, 0)


def water_sprite() -> Sprite:
    """A stream of water, 100 world px long, its anchor at the top."""
    canvas = Canvas(-16, 0, 16, 100)
    canvas.limb((0, 2), (0, 98), 6, 9, (176, 214, 236))
    canvas.limb((-3, 2), (-3, 96), 1.6, 2, (240, 250, 255))
    canvas.limb((3, 6), (4, 96), 1.4, 2, (120, 176, 214))
    return canvas.finish(outline=0, relief=0.1, opacity=0.85)


def splash_sprite() -> Sprite:
    canvas = Canvas(-44, -22, 44, 22)
    for rx, ry, color in ((40, 17, (196, 226, 240)), (28, 11, (160, 200, 224)), (15, 6, (236, 248, 255))):
        canvas.ellipse(0, 0, rx, ry, color)
    return canvas.finish(outline=0, relief=0, opacity=0.7)


def running_water(stream: Sprite, splash: Sprite, flow: float, flicker: float) -> list[Placement]:
    """Water from the tap; `flow` 0..1. It shimmers, the same forwards and backwards in time."""
    if flow <= 0.02:
        return []
    x, y = TAP_MOUTH
    fall = 118 + 4 * flicker
    water = place(stream, x + 0.8 * flicker, y, scale=1.0)
    water.corners[:, 0] = x + (water.corners[:, 0] - x) * (0.35 + 0.85 * flow)
    water.corners[2:, 1] = y + fall * min(1.0, flow * 3)
    pool = place(splash, x, y + 120, scale=(0.5 + 0.5 * flow) * (1 + 0.09 * flicker))
    return [Placement(pool.sprite, pool.corners, "splash"), Placement(water.sprite, water.corners, "water")]


def tap(kitchen: KitchenLook) -> Mechanism:
    """A tap with a lever on its right that turns down."""
    lever = Canvas(-14, -14, 66, 14)
    lever.limb((0, 0), (52, 0), 9, 6.5, lighter(kitchen.metal, 0.25))
    lever.ellipse(54, 0, 8, 8, (206, 60, 50))
    knob, stream, splash = lever.finish(relief=0.35), water_sprite(), splash_sprite()

    def parts(state: float, flicker: float) -> list[Placement]:
        return [*running_water(stream, splash, state, flicker), place(knob, 50, -46, _lever_angle(state), name="lever")]

    def grip(state: float) -> Point:
        angle = np.radians(_lever_angle(state))
        return 50 + 52 * np.cos(angle), -46 + 52 * np.sin(angle)

    return Mechanism(sink(kitchen), parts, grip)


def _lever_angle(state: float) -> float:
    return -68 + 96 * state


def hob_top() -> Placement:
    """A black hob with two rings and a panel of knobs in front."""
    top = Canvas(-150, -96, 150, 96)
    top.polygon([(-116, -84), (116, -84), (142, 28), (-142, 28)], (46, 46, 52))
    top.polygon([(-142, 28), (142, 28), (142, 82), (-142, 82)], (196, 200, 204))
    for x, y in RINGS:
        for radius, color in ((50, (70, 70, 76)), (46, (40, 40, 46)), (32, (64, 64, 70)), (29, (42, 42, 48))):
            top.ellipse(x, y, radius, radius * 0.62, color)
    for x in (-104, 104):
        top.ellipse(x, 55, 16, 16, (60, 60, 66))
        top.line([(x, 55), (x, 43)], (235, 235, 235), 3)
    return place(top.finish(relief=0.15), 0, 0)


def hob(rng: np.random.Generator) -> Mechanism:
    """A hob whose knob lights one of its rings."""
    ring = RINGS[int(rng.integers(2))]
    knob = Canvas(-28, -28, 28, 28)
    knob.ellipse(0, 0, 25, 25, (62, 62, 70))
    knob.limb((0, -4), (0, -19), 4.5, 3.5, (240, 240, 240))
    dial = knob.finish(relief=0.4)
    fire = Canvas(-64, -60, 64, 44)
    for turn in np.linspace(0, 2 * np.pi, 22, endpoint=False):
        x, y = 44 * np.cos(turn), 27 * np.sin(turn)
        fire.limb((x, y), (x * 1.08, y - 18), 5.5, 1.5, (70, 140, 250))
        fire.limb((x, y), (x, y - 9), 3.0, 1.0, (205, 232, 255))
    fire.ellipse(0, 0, 33, 20, (250, 110, 40))
    fire.ellipse(0, 0, 26, 15, (255, 176, 70))
    flames = fire.finish(outline=0, relief=0)
    glows = [flames.faded(step / (_NUM_GLOWS - 1)) for step in range(_NUM_GLOWS)]
    x = 34.0 if ring[0] > 0 else -34.0

    def parts(state: float, flicker: float) -> list[Placement]:
        placed = [place(dial, x, 54, 120 * state, name="knob")]
        if state > 0.02:
            lit = place(_step(glows, min(1.0, state * 1.6)), *ring, scale=0.96 + 0.04 * flicker)
            placed.insert(0, lit)
        return placed

    return Mechanism((hob_top(),), parts, lambda state: (x + 8, 48.0))


def kettle(look: Look, kitchen: KitchenLook) -> Mechanism:
    """An electric kettle: a lever at its foot, a window that lights up, steam."""
    glows = [objects.kettle(look, level_glow=step / (_NUM_GLOWS - 1)) for step in range(_NUM_GLOWS)]
    lever = Canvas(-24, -12, 24, 12)
    lever.box(-20, -6, 20, 7, (230, 70, 50), 5)
    switch, shadow = lever.finish(), glows[0].shadow()
    cloud = Canvas(-50, -60, 50, 40)
    for x, y, radius in ((-14, 16, 16), (8, -4, 20), (-6, -28, 15)):
        cloud.ellipse(x, y, radius, radius, (250, 252, 255))
    cloud.soften(5)
    steam = [cloud.finish(outline=0, relief=0, opacity=0.85 * step / (_NUM_GLOWS - 1)) for step in range(_NUM_GLOWS)]

    def parts(state: float, flicker: float) -> list[Placement]:
        placed = [
            place(_step(glows, state), 0, -22, scale=1.18),
            place(switch, 76, 26 + 18 * state, 12 * state, name="lever"),
        ]
        if state > 0.3:
            puff = _step(steam, (state - 0.3) / 0.7)
            placed.append(place(puff, -62 + 3 * flicker, -88, 6 * flicker, scale=1 + 0.06 * flicker))
        return placed

    return Mechanism((place(shadow, 4, -14, scale=1.18),), parts, lambda state: (80.0, 24.0 + 18 * state))


def light(kitchen: KitchenLook) -> Mechanism:
    """A hanging lamp and its wall switch; the whole scene brightens."""
    lamp = Canvas(-70, -150, 70, 20)
    lamp.line([(0, -150), (0, -60)], (50, 46, 50), 3)
    lamp.polygon([(-16, -62), (16, -62), (58, -8), (-58, -8)], darker(kitchen.cabinet, 0.2))
    shade = lamp.finish()
    bulbs, beams = [], []
    for step in range(_NUM_GLOWS):
        glow = step / (_NUM_GLOWS - 1)
        bulb = Canvas(-34, -16, 34, 32)
        bulb.ellipse(0, 2, 27, 18, mix((120, 116, 112), (255, 246, 190), glow))
        bulbs.append(bulb.finish())
        beam = Canvas(-110, -40, 110, 110)
        beam.ellipse(0, 26, 78, 56, (255, 240, 170))
        beam.soften(15)
        beams.append(beam.finish(outline=0, relief=0, opacity=0.6 * glow))
    plate = Canvas(-36, -44, 36, 44)
    plate.box(-32, -40, 32, 40, (246, 246, 242), 7)
    rocker = Canvas(-22, -30, 22, 30)
    rocker.box(-18, -26, 18, 26, (222, 222, 216), 5)
    rocker.box(-18, -26, 18, -2, (255, 255, 252), 5)
    button = rocker.finish(relief=0.35)

    def parts(state: float, flicker: float) -> list[Placement]:
        up = 1 - 2 * state  # the rocker tips over
        key = place(
            button, 62, -14, squash=1.0 if abs(up) < 0.05 else float(np.sign(up)) * (0.8 + 0.2 * abs(up)), name="switch"
        )
        return [place(_step(beams, state), -58, -38), place(_step(bulbs, state), -58, -38), key]

    still = (place(plate.finish(), 62, -14, scale=1.1), place(shade, -58, -38))
    return Mechanism(still, parts, lambda state: (62.0, -24.0 + 22 * state), gain=lambda state: 0.5 + 0.5 * state)


def screw_top(look: Look, *, wide: bool) -> Mechanism:
    """A jar (wide) or a bottle whose top lifts off and lies down beside it."""
    draw, draw_top = (objects.jar, objects.jar_lid) if wide else (objects.bottle, objects.bottle_cap)
    vessel = draw(look, with_lid=False) if wide else draw(look, with_cap=False)  # type: ignore[call-arg]
    top, scale = draw_top(look), 1.3
    closed = (0.0, -20 + (-44 if wide else -52) * scale)

    def at(state: float) -> tuple[float, float, float]:
        """x, y and angle of the top."""
        if state < 0.3:  # it turns on its thread before it comes off
            return closed[0] + 3 * np.sin(state / 0.3 * 4 * np.pi), closed[1], 0.0
        share = (state - 0.3) / 0.7
        return 104 * share, closed[1] + (30 - closed[1]) * share - 60 * np.sin(np.pi * share), 0.0

    def parts(state: float, flicker: float) -> list[Placement]:
        x, y, angle = at(state)
        return [place(top, x, y, angle, scale=scale, name="top")]

    still = (place(vessel.shadow(), 4, -12, scale=scale), place(vessel, 0, -20, scale=scale))
    return Mechanism(still, parts, lambda state: (at(state)[0] + 6, at(state)[1] + 4))


def _step(sprites: list[Sprite], share: float) -> Sprite:
    return sprites[round(float(np.clip(share, 0, 1)) * (len(sprites) - 1))]
