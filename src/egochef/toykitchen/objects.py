"""Things that hands hold: crockery, cutlery, pans, packages. In: a `Look`. Out: a sprite with the anchor in its middle.

Food is in `food.py`, what is built into the kitchen in `fixtures.py`.
"""

import numpy as np

from egochef.toykitchen.looks import GLASS, STEEL, Look
from egochef.toykitchen.sprites import Canvas, Sprite, darker, lighter, mix

RIM_HEIGHT = 16
"""half the height of a bowl's or pot's opening, world px"""


def spoon(look: Look) -> Sprite:
    canvas = Canvas(-24, -66, 24, 66)
    canvas.limb((0, -16), (0, 58), 3.4, 5.6, look.color)
    canvas.ellipse(0, -38, 17, 25, look.color)
    canvas.ellipse(0, -38, 12, 19.5, darker(look.color, 0.22))
    canvas.ellipse(-3.5, -43, 4, 10, lighter(look.color, 0.6), 8)
    canvas.line([(0, 20), (0, 54)], lighter(look.color, 0.5), 1.5)
    return canvas.finish()


def fork(look: Look) -> Sprite:
    canvas = Canvas(-24, -66, 24, 66)
    canvas.limb((0, -12), (0, 58), 3.4, 5.6, look.color)
    canvas.polygon([(-16, -34), (16, -34), (14, -20), (4, -8), (-4, -8), (-14, -20)], look.color)
    for x in (-13.5, -4.5, 4.5, 13.5):
        canvas.limb((x, -60), (x, -30), 2.1, 2.6, look.color)
    canvas.line([(0, 20), (0, 54)], lighter(look.color, 0.5), 1.5)
    return canvas.finish()


def knife(look: Look) -> Sprite:
    canvas = Canvas(-24, -72, 24, 72)
    canvas.polygon([(-9, 14), (-10, -30), (-7, -52), (3, -68), (8, -50), (8, 14)], STEEL)
    canvas.polygon([(-9, 14), (-10, -30), (-7, -52), (3, -68), (-3, -48), (-4, 14)], lighter(STEEL, 0.6))
    canvas.box(-9, 12, 10, 66, look.accent, 6)
    for y in (24, 39, 54):
        canvas.ellipse(0.5, y, 2.2, 2.2, lighter(STEEL, 0.5))
    return canvas.finish()


def spatula(look: Look) -> Sprite:
    canvas = Canvas(-28, -72, 28, 76)
    canvas.limb((0, -18), (0, 66), 3.5, 5.5, look.accent)
    canvas.polygon([(-19, -66), (19, -66), (16, -22), (5, -12), (-5, -12), (-16, -22)], darker(look.color, 0.45))
    for x in (-9, 0, 9):
        canvas.limb((x, -56), (x, -32), 2, 2, darker(look.color, 0.85))
    return canvas.finish()


def plate(look: Look) -> Sprite:
    canvas = Canvas(-68, -44, 68, 46)
    canvas.ellipse(0, 4, 62, 37, darker(look.color, 0.35))
    canvas.ellipse(0, 0, 62, 37, look.color)
    canvas.ellipse(0, 0, 56, 32.5, look.accent)
    canvas.ellipse(0, 0, 52, 30, look.color)
    canvas.ellipse(0, 1, 39, 22, darker(look.color, 0.14))
    canvas.ellipse(0, 3, 38, 21, lighter(look.color, 0.25))
    return canvas.finish()


def bowl(look: Look) -> Sprite:
    canvas = Canvas(-60, -46, 60, 46)
    turn = np.linspace(0, np.pi, 24)
    canvas.polygon([(52 * np.cos(a), -18 + 56 * np.sin(a) ** 0.8) for a in turn], look.color)
    canvas.polygon([(49 * np.cos(a), -4 + 20 * np.sin(a)) for a in turn] + [(-47, 4), (0, 27), (47, 4)], look.accent)
    canvas.ellipse(0, -18, 53, RIM_HEIGHT + 3, lighter(look.color, 0.4))
    canvas.ellipse(0, -17, 48, RIM_HEIGHT, darker(look.color, 0.4))
    canvas.ellipse(0, -13, 41, RIM_HEIGHT - 5, darker(look.color, 0.25))
    return canvas.finish()


def cup(look: Look) -> Sprite:
    canvas = Canvas(-42, -44, 58, 44)
    canvas.line([(28, -18), (43, -18), (49, -4), (42, 12), (26, 16)], darker(look.color, 0.12), 8)
    canvas.polygon([(-31, -28), (31, -28), (27, 28), (17, 37), (-17, 37), (-27, 28)], look.color)
    canvas.polygon([(-29.5, -6), (29.5, -6), (28, 12), (-28, 12)], look.accent)
    canvas.ellipse(0, -28, 31.5, 11.5, lighter(look.color, 0.45))
    canvas.ellipse(0, -27, 27, 8.5, (84, 58, 44))
    return canvas.finish()


def glass(look: Look) -> Sprite:
    canvas = Canvas(-36, -52, 36, 52)
    canvas.polygon([(-28, -42), (28, -42), (21, 42), (-21, 42)], GLASS)
    canvas.polygon([(-24, 0), (24, 0), (19.5, 36), (-19.5, 36)], mix(GLASS, (120, 185, 225), 0.7))
    canvas.ellipse(0, 0, 24, 6, mix(GLASS, (150, 205, 235), 0.6))
    canvas.ellipse(0, -42, 28.5, 8, lighter(GLASS, 0.8))
    canvas.ellipse(0, -41.5, 25, 5.6, darker(GLASS, 0.15))
    canvas.limb((-19, -28), (-15, 28), 2.4, 1.6, (255, 255, 255))
    return canvas.finish(outline=0.7, opacity=0.8)


def pan(look: Look) -> Sprite:
    canvas = Canvas(-62, -44, 124, 50)
    canvas.limb((46, 6), (114, 22), 6, 8, look.accent)
    canvas.limb((76, 12), (108, 20), 2, 2.5, lighter(look.accent, 0.3))
    canvas.ellipse(0, 8, 54, 34, darker(look.color, 0.5))
    canvas.ellipse(0, 0, 56, 34, look.color)
    canvas.ellipse(0, 1, 50, 29, darker(look.color, 0.4))
    canvas.ellipse(0, 5, 45, 24.5, darker(look.color, 0.25))
    return canvas.finish()


def pot(look: Look) -> Sprite:
    canvas = Canvas(-78, -52, 78, 54)
    for side in (-1, 1):
        canvas.line([(52 * side, -14), (69 * side, -14), (69 * side, 4), (52 * side, 4)], look.accent, 7)
    turn = np.linspace(0, np.pi, 16)
    canvas.polygon([(-55, -26), (55, -26)] + [(55 * np.cos(a), 30 + 16 * np.sin(a)) for a in turn], look.color)
    canvas.polygon([(-50, -10), (-38, -6), (-38, 40), (-50, 34)], lighter(look.color, 0.55))
    canvas.ellipse(0, -26, 56, RIM_HEIGHT + 2, lighter(look.color, 0.5))
    canvas.ellipse(0, -25, 50, RIM_HEIGHT - 1, darker(look.color, 0.5))
    return canvas.finish()


def board(look: Look) -> Sprite:
    canvas = Canvas(-98, -46, 98, 52)
    canvas.polygon([(-76, -38), (76, -38), (92, 38), (-92, 38)], look.color)
    canvas.polygon([(-92, 38), (92, 38), (92, 47), (-92, 47)], darker(look.color, 0.35))
    rng = look.rng()
    for y in np.linspace(-31, 33, 9):
        wave = [(x, y + rng.uniform(-1.5, 1.5)) for x in np.linspace(-78, 78, 7)]
        canvas.line(wave, darker(look.color, rng.uniform(0.08, 0.22)), 0.8)
    canvas.ellipse(68, -26, 7, 4, darker(look.color, 0.7))
    return canvas.finish()


def bottle(look: Look, *, with_cap: bool = True) -> Sprite:
    canvas = Canvas(-30, -66, 30, 62)
    canvas.polygon(
        [(-7, -48), (7, -48), (9, -32), (23, -14), (23, 50), (16, 56), (-16, 56), (-23, 50), (-23, -14), (-9, -32)],
        look.color,
    )
    canvas.box(-23, 2, 23, 34, lighter(look.accent, 0.75))
    canvas.box(-23, 8, 23, 15, look.accent)
    canvas.ellipse(0, 24, 9, 6, look.accent)
    canvas.limb((-16, -8), (-16, 46), 2.2, 2.2, lighter(look.color, 0.6))
    canvas.ellipse(0, -48, 7.5, 3, darker(look.color, 0.6))
    if with_cap:
        canvas.box(-10, -60, 10, -45, look.accent, 3)
    return canvas.finish()


def bottle_cap(look: Look) -> Sprite:
    canvas = Canvas(-14, -12, 14, 12)
    canvas.box(-10, -7.5, 10, 7.5, look.accent, 3)
    canvas.line([(-5, -5), (-5, 5)], darker(look.accent), 1.2)
    canvas.line([(3, -5), (3, 5)], darker(look.accent), 1.2)
    return canvas.finish()


def jar(look: Look, *, with_lid: bool = True) -> Sprite:
    canvas = Canvas(-42, -58, 42, 54)
    canvas.box(-34, -38, 34, 46, mix(GLASS, look.color, 0.25), 12)
    canvas.box(-30, -20, 30, 42, look.color, 9)
    canvas.speckle(look.rng(), darker(look.color, 0.4), 16, 3.2, (0, 10, 26, 26))
    canvas.box(-24, -6, 24, 24, (246, 240, 222), 3)
    canvas.box(-18, 0, 18, 5, look.accent)
    canvas.box(-18, 11, 10, 14, mix(look.accent, (246, 240, 222), 0.4))
    canvas.ellipse(0, -38, 29, 8, darker(look.color, 0.55))
    if with_lid:
        canvas.box(-31, -52, 31, -34, look.accent, 5)
        canvas.ellipse(0, -51, 29, 5.5, lighter(look.accent, 0.3))
    return canvas.finish()


def jar_lid(look: Look) -> Sprite:
    canvas = Canvas(-36, -16, 36, 16)
    canvas.box(-31, -9, 31, 10, look.accent, 5)
    canvas.ellipse(0, -8, 29, 5.5, lighter(look.accent, 0.3))
    return canvas.finish()


def milk(look: Look) -> Sprite:
    canvas = Canvas(-38, -68, 38, 60)
    canvas.polygon([(-28, -30), (28, -30), (28, 52), (-28, 52)], (245, 246, 248))
    canvas.polygon([(-28, -30), (28, -30), (20, -52), (-20, -52)], (226, 230, 236))
    canvas.box(-21, -62, 21, -50, (240, 242, 246), 1)
    wave = [(x, 16 + 6 * np.sin(x / 7)) for x in np.linspace(-28, 28, 16)]
    canvas.polygon([*wave, (28, 52), (-28, 52)], look.accent)
    canvas.ellipse(0, -8, 15, 12, look.accent)
    canvas.ellipse(0, -6, 9, 8, (250, 250, 252))
    return canvas.finish()


def sponge(look: Look) -> Sprite:
    canvas = Canvas(-46, -32, 46, 36)
    canvas.box(-38, -14, 38, 28, look.color, 8)
    canvas.speckle(look.rng(), darker(look.color, 0.3), 26, 2.2, (0, 10, 33, 15))
    canvas.box(-38, -24, 38, -2, look.accent, 8)
    return canvas.finish()


def cloth(look: Look) -> Sprite:
    canvas = Canvas(-60, -46, 60, 46)
    edge = [(-50, -32), (-18, -38), (12, -30), (48, -36), (52, -4), (46, 34), (16, 30), (-14, 38), (-50, 30), (-54, 0)]
    canvas.polygon(edge, look.color)
    for share in (-0.6, -0.2, 0.2, 0.6):
        canvas.line([(x, 32 * share + 4 * np.sin(x / 12)) for x in np.linspace(-48, 47, 12)], look.accent, 3.4)
        canvas.line([(48 * share + 3 * np.sin(y / 9), y) for y in np.linspace(-29, 28, 10)], look.accent, 3.4)
    return canvas.finish()


def kettle(look: Look, *, level_glow: float = 0.0) -> Sprite:
    """An electric kettle; `level_glow` 0..1 lights its window and lamp."""
    canvas = Canvas(-74, -72, 84, 66)
    canvas.line([(38, -42), (64, -40), (70, -6), (58, 28), (40, 32)], look.accent, 11)
    canvas.polygon([(-42, -40), (-66, -32), (-62, -24), (-44, -12)], look.color)
    canvas.polygon([(-36, -46), (36, -46), (48, 44), (-48, 44)], look.color)
    canvas.ellipse(0, -46, 36, 10, lighter(look.color, 0.4))
    canvas.ellipse(0, -55, 9, 7, look.accent)
    canvas.box(-52, 42, 52, 56, look.accent, 6)
    window = mix((70, 96, 120), (80, 205, 255), level_glow)
    canvas.box(-14, -28, 14, 30, window, 8)
    canvas.polygon([(-14, 2), (14, 2), (14, 22), (8, 30), (-8, 30), (-14, 22)], mix(window, (225, 245, 255), 0.45))
    canvas.ellipse(33, 49, 7, 5, mix((70, 40, 40), (255, 120, 40), level_glow))
    return canvas.finish()


def box(look: Look) -> Sprite:
    canvas = Canvas(-44, -56, 50, 56)
    canvas.polygon([(-34, -42), (24, -42), (38, -50), (-20, -50)], lighter(look.color, 0.4))
    canvas.polygon([(24, -42), (38, -50), (38, 40), (24, 48)], darker(look.color, 0.35))
    canvas.box(-34, -42, 24, 48, look.color)
    canvas.ellipse(-5, -6, 21, 21, look.accent)
    canvas.ellipse(-5, -6, 14, 14, lighter(look.accent, 0.5))
    canvas.box(-28, 24, 18, 36, lighter(look.color, 0.6))
    return canvas.finish()


def paper(look: Look) -> Sprite:
    canvas = Canvas(-38, -36, 38, 38)
    rng = look.rng()
    turns = np.linspace(0, 2 * np.pi, 13, endpoint=False)
    edge = [(r * np.cos(a), 0.9 * r * np.sin(a)) for a, r in zip(turns, rng.uniform(23, 33, 13), strict=True)]
    canvas.polygon(edge, (238, 238, 234))
    for _ in range(9):
        a, b, c = rng.uniform(-19, 19, (3, 2))
        canvas.polygon([tuple(a), tuple(b), tuple(c)], mix((250, 250, 248), (186, 188, 194), rng.uniform(0, 1)))
    return canvas.finish()


def peeler(look: Look) -> Sprite:
    canvas = Canvas(-26, -50, 26, 66)
    canvas.limb((0, 0), (0, 58), 8, 9, look.accent)
    canvas.line([(0, 0), (-17, -16), (-17, -40)], STEEL, 6)
    canvas.line([(0, 0), (17, -16), (17, -40)], STEEL, 6)
    canvas.limb((-17, -40), (17, -40), 5, 5, lighter(STEEL, 0.4))
    return canvas.finish()
