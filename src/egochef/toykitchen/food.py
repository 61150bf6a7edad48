"""Food: whole pieces, slices, what lies in bowls and pans. In: a `Look`. Out: a sprite, its anchor in the middle."""

import numpy as np

from egochef.toykitchen.looks import Look
from egochef.toykitchen.sprites import Canvas, Color, Sprite, darker, lighter, mix

LEAF: Color = (88, 150, 62)


def onion(look: Look) -> Sprite:
    canvas = Canvas(-44, -48, 44, 44)
    canvas.polygon([(-6, -30), (-3, -44), (2, -38), (6, -45), (7, -28)], darker(look.color, 0.25))
    turns = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    canvas.polygon(
        [(37 * np.cos(a), 3 + 34 * np.sin(a) - 5 * np.exp(-(((a - 4.71) / 0.4) ** 2))) for a in turns], look.color
    )
    for bend in (-25, -13, 0, 13, 25):
        arc = [(bend * np.sin(s) + 0.4, -30 + 65 * s / np.pi) for s in np.linspace(0, np.pi, 14)]
        canvas.line(arc, darker(look.color, 0.3), 1.3)
    canvas.ellipse(-14, -10, 6, 11, lighter(look.color, 0.5), 20)
    return canvas.finish()


def tomato(look: Look) -> Sprite:
    canvas = Canvas(-44, -44, 44, 42)
    canvas.ellipse(-10, 2, 27, 32, look.color)
    canvas.ellipse(10, 2, 27, 32, look.color)
    canvas.ellipse(0, 5, 34, 30, look.color)
    canvas.ellipse(-15, -8, 6, 9, lighter(look.color, 0.65), 30)
    for angle in np.radians([200, 245, 290, 335, 20]):
        canvas.limb((0, -26), (17 * np.cos(angle), -26 + 9 * np.sin(angle)), 4, 1.2, LEAF)
    canvas.limb((0, -26), (3, -38), 2.6, 2.2, darker(LEAF))
    return canvas.finish()


def carrot(look: Look) -> Sprite:
    canvas = Canvas(-86, -32, 74, 32)
    for dy in (-14, -5, 5, 14):
        canvas.limb((-46, dy * 0.3), (-76, dy * 1.5), 3.5, 5, mix(LEAF, (60, 120, 50), abs(dy) / 20))
    canvas.limb((-38, 0), (62, 0), 18, 3.5, look.color)
    for x, top in ((-30, 1), (-14, -1), (4, 1), (22, -1), (38, 1)):
        canvas.line([(x, top * 5), (x + 1.5, top * (13 - x / 7))], darker(look.color, 0.3), 1.6)
    return canvas.finish()


def potato(look: Look) -> Sprite:
    canvas = Canvas(-50, -36, 50, 38)
    canvas.ellipse(-10, 2, 32, 27, look.color, -12)
    canvas.ellipse(14, 0, 28, 23, look.color, 14)
    canvas.ellipse(0, 4, 40, 25, look.color)
    canvas.speckle(look.rng(), darker(look.color, 0.4), 11, 1.9, (0, 2, 33, 18))
    return canvas.finish()


def bread(look: Look) -> Sprite:
    canvas = Canvas(-50, -46, 50, 46)
    canvas.box(-34, -12, 34, 38, darker(look.color, 0.3), 7)
    canvas.ellipse(-14, -14, 30, 23, darker(look.color, 0.3))
    canvas.ellipse(14, -14, 30, 23, darker(look.color, 0.3))
    canvas.box(-28, -14, 28, 32, lighter(look.color, 0.5), 6)
    canvas.ellipse(-12, -14, 24, 17, lighter(look.color, 0.5))
    canvas.ellipse(12, -14, 24, 17, lighter(look.color, 0.5))
    canvas.speckle(look.rng(), mix(look.color, (255, 245, 220), 0.3), 24, 1.7, (0, 4, 23, 23))
    return canvas.finish()


def cheese(look: Look) -> Sprite:
    canvas = Canvas(-54, -40, 54, 42)
    canvas.polygon([(-44, 0), (34, -30), (46, -6), (-44, 4)], lighter(look.color, 0.35))
    canvas.polygon([(-44, 0), (46, -8), (46, 26), (-44, 34)], look.color)
    for x, y, r in ((-22, 16, 6), (4, 6, 4.5), (20, 16, 7), (-4, 23, 4), (36, 3, 3.5)):
        canvas.ellipse(x, y, r, r * 0.9, darker(look.color, 0.28))
    return canvas.finish()


def egg(look: Look) -> Sprite:
    canvas = Canvas(-34, -42, 34, 40)
    turns = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    canvas.polygon([((25 - 4 * np.sin(-a)) * np.cos(a), 33 * np.sin(a)) for a in turns], look.color)
    canvas.ellipse(-8, -10, 6, 10, lighter(look.color, 0.8), 15)
    return canvas.finish()


def fried_egg(look: Look) -> Sprite:
    canvas = Canvas(-48, -44, 48, 44)
    turns = np.linspace(0, 2 * np.pi, 44, endpoint=False)
    canvas.polygon(
        [((36 + 4 * np.sin(3 * a + 1)) * np.cos(a), (34 + 4 * np.sin(4 * a)) * np.sin(a)) for a in turns],
        (250, 248, 240),
    )
    canvas.ellipse(-3, 2, 16, 16, (250, 186, 44))
    canvas.ellipse(-8, -3, 5, 4, (255, 228, 140))
    return canvas.finish()


def lemon(look: Look) -> Sprite:
    canvas = Canvas(-50, -34, 50, 34)
    canvas.limb((-36, 0), (36, 0), 5.5, 5.5, look.color)
    canvas.ellipse(0, 0, 36, 26, look.color)
    canvas.speckle(look.rng(), darker(look.color, 0.16), 26, 1.2, (0, 0, 30, 21))
    canvas.ellipse(-12, -9, 9, 5, lighter(look.color, 0.7), -20)
    return canvas.finish()


def slice_of(look: Look) -> Sprite:
    """A cut disc, whatever it was cut from."""
    canvas = Canvas(-24, -20, 24, 20)
    canvas.ellipse(0, 0, 19, 14, look.color)
    canvas.ellipse(0, -1.5, 16, 11, lighter(look.color, 0.55))
    canvas.ellipse(0, -1.5, 8, 5.5, lighter(look.color, 0.3))
    return canvas.finish(relief=0.0)


def strip_of(look: Look) -> Sprite:
    """A strip of peel."""
    canvas = Canvas(-30, -12, 30, 14)
    canvas.line([(-22, 3), (-10, -4), (4, 2), (20, -3)], look.color, 8)
    canvas.line([(-20, 5), (-9, -1), (4, 5), (18, 0)], lighter(look.color, 0.5), 2.5)
    return canvas.finish(relief=0.0)


def pasta(look: Look) -> Sprite:
    """A round of contents seen from above; the motions turn and flatten it."""
    canvas = _round_of((226, 170, 70))
    rng = look.rng()
    for _ in range(46):
        x, y, angle = _in_round(rng)
        dx, dy = 7 * np.cos(angle), 7 * np.sin(angle)
        canvas.limb((x - dx, y - dy), (x + dx, y + dy), 3, 3, mix((252, 216, 124), (222, 158, 58), rng.uniform(0, 1)))
    return canvas.finish(outline=0.0, relief=0.1)


def rice(look: Look) -> Sprite:
    canvas = _round_of((236, 232, 220))
    rng = look.rng()
    for _ in range(120):
        x, y, angle = _in_round(rng)
        canvas.ellipse(x, y, 3.2, 1.5, mix((255, 255, 252), (196, 190, 170), rng.uniform(0, 1)), np.degrees(angle))
    return canvas.finish(outline=0.0, relief=0.1)


def sauce(look: Look) -> Sprite:
    canvas = _round_of((186, 44, 28))
    rng = look.rng()
    for radius in (12, 22, 32):
        turns = np.linspace(0, 4.4, 24) + rng.uniform(0, 6)
        canvas.line([(radius * np.cos(a), radius * np.sin(a)) for a in turns], (224, 96, 52), 3.4)
    canvas.speckle(rng, LEAF, 12, 2.4, (0, 0, 36, 36))
    return canvas.finish(outline=0.0, relief=0.1)


def batter(look: Look) -> Sprite:
    """Beaten egg."""
    canvas = _round_of((246, 196, 70))
    rng = look.rng()
    for radius in (10, 20, 30):
        turns = np.linspace(0, 3.6, 24) + rng.uniform(0, 6)
        canvas.line([(radius * np.cos(a), radius * np.sin(a)) for a in turns], (255, 236, 170), 4)
    return canvas.finish(outline=0.0, relief=0.1)


def _round_of(color: Color) -> Canvas:
    canvas = Canvas(-46, -46, 46, 46)
    canvas.ellipse(0, 0, 42, 42, color)
    return canvas


def _in_round(rng: np.random.Generator) -> tuple[float, float, float]:
    """x, y and an angle, evenly over the round of contents."""
    turn, radius = rng.uniform(0, 2 * np.pi), 38 * np.sqrt(rng.uniform(0, 1))
    return radius * np.cos(turn), radius * np.sin(turn), rng.uniform(0, np.pi)
