"""Motions that work on food and dishes. In: a `Cast`. Out: a `Scene`."""

from collections.abc import Callable

import numpy as np

from egochef.toykitchen import food, objects, switches
from egochef.toykitchen.props import CONTENTS, PROPS
from egochef.toykitchen.sprites import Canvas, Placement, Point, Sprite, place
from egochef.toykitchen.stage import (
    AWAY,
    OBJECT_SCALE,
    Cast,
    Moment,
    Scene,
    arm,
    between,
    progress,
    reach,
    smooth,
    spot_on,
    standing,
    wave,
)


def wash(cast: Cast) -> Scene:
    """Under running water the left hand holds the thing, the right one rubs it with a sponge."""
    sprite = PROPS[cast.act.noun].paint(cast.look)
    tool = objects.sponge(cast.other("sponge"))
    stream, splash = switches.water_sprite(), switches.splash_sprite()
    foam = _foam(cast)

    rubbing = _rub(cast, sprite, tool, (30.0, 17.0), foam)

    def moving(moment: Moment) -> list[Placement]:
        return switches.running_water(stream, splash, 1.0, moment.flicker) + rubbing(moment)

    return Scene(switches.sink(cast.kitchen), moving)


def dry(cast: Cast) -> Scene:
    """The left hand holds the thing, the right one wipes it with a cloth."""
    sprite = PROPS[cast.act.noun].paint(cast.look)
    return Scene((), _rub(cast, sprite, objects.cloth(cast.other("cloth")), (44.0, 10.0), []))


def _rub(
    cast: Cast, sprite: Sprite, tool: Sprite, swing: Point, foam: list[Placement]
) -> Callable[[Moment], list[Placement]]:
    """What moves when one hand holds a thing and the other rubs it with a tool."""
    act, middle = cast.act, (-8.0, -8.0)

    def moving(moment: Moment) -> list[Placement]:
        near, angle = reach(act, moment), wave(act, moment)
        x, y = between((-70.0, AWAY[1] + 20), middle, near)
        x, y = x + 3 * np.sin(angle), y + 2 * np.cos(angle)
        rub = (x + 24 + swing[0] * np.cos(angle), y + 16 + swing[1] * np.sin(angle))
        placed = [place(sprite, x, y, 8 * np.sin(0.5 * angle), scale=1.3, name="thing")]
        bubbles = smooth(moment.phase, act.begin, 0.5)
        placed += [Placement(b.sprite, b.corners * bubbles + (x, y), "foam") for b in foam if bubbles > 0.05]
        placed.append(arm(cast, (x - 56, y + 40), 1.0, right=False, curl=0.9))
        placed.append(place(tool, *rub, 12 * np.sin(angle), scale=0.8, name="tool"))
        return [*placed, arm(cast, (rub[0] + 14, rub[1] + 12), 1.0, curl=0.6)]

    return moving


def _foam(cast: Cast) -> list[Placement]:
    canvas = Canvas(-14, -14, 14, 14)
    canvas.ellipse(0, 0, 11, 11, (236, 246, 252))
    canvas.ellipse(-3, -4, 4, 3, (255, 255, 255))
    bubble = canvas.finish(outline=0.4, opacity=0.85)
    spots = cast.rng.uniform((-44, -26), (44, 30), (9, 2))
    return [place(bubble, float(x), float(y), scale=float(cast.rng.uniform(0.5, 1.1))) for x, y in spots]


def cut(cast: Cast) -> Scene:
    """The knife goes up and down along the food, slices pile up beside it."""
    act, prop = cast.act, PROPS[cast.act.noun]
    board, whole = objects.board(cast.other("board:chopping")), prop.paint(cast.look)
    knife, piece = objects.knife(cast.other("knife")), food.slice_of(cast.look)
    scale = 1.25
    left, right = (whole.left + 8) * scale, -(whole.left + 8) * scale
    heap = cast.rng.uniform((56, -14), (92, 26), (7, 2))

    def moving(moment: Moment) -> list[Placement]:
        done, near = progress(act, moment), reach(act, moment)
        edge = right + (0.3 * left - right) * done  # the cut moves from right to left
        rest = whole.cropped(right=max(0.0, whole.right - edge / scale))
        placed = [place(rest, -14, -2, scale=scale, name="thing")]
        placed += [place(piece, x - 14, y, scale=1.1) for x, y in heap[: round(7 * done)]]
        up = 0.5 + 0.5 * np.cos(wave(act, moment))
        blade = between(AWAY, (edge + 2, -8 - 40 * up), near)
        held = spot_on((0, 44), *blade, -14 - 10 * up, 1.2)
        placed.append(arm(cast, (left - 14, 22), near, right=False, curl=0.75))
        placed.append(place(knife, *blade, -14 - 10 * up, scale=1.2, name="tool"))
        return [*placed, arm(cast, held, 1.0, curl=1.0)]

    return Scene(tuple(standing(board, 0, 14, scale=1.25)), moving)


def peel(cast: Cast) -> Scene:
    """The left hand holds the food, the right one draws a peeler along it; strips fall."""
    act = cast.act
    sprite = PROPS[act.noun].paint(cast.look)
    blade = objects.peeler(cast.other("spatula"))
    strip = food.strip_of(cast.look)
    heap = cast.rng.uniform((-70, 62), (50, 88), (8, 2))
    turns = cast.rng.uniform(0, 180, 8)

    def moving(moment: Moment) -> list[Placement]:
        near, angle = reach(act, moment), wave(act, moment, 0.8)
        share = 0.5 - 0.5 * np.cos(angle)
        x, y = between((-70.0, AWAY[1]), (-16.0, -6.0), near)
        stroke = (x - 30 + 66 * share, y - 10 - 12 * np.sin(angle))
        num = round(8 * progress(act, moment))
        placed = [place(strip, x, y, turn) for (x, y), turn in zip(heap[:num], turns, strict=False)]
        placed.append(arm(cast, (x - 46, y + 20), 1.0, right=False, curl=0.9))
        placed.append(place(sprite, x, y, -6, scale=1.35, name="thing"))
        placed.append(place(blade, *stroke, -38, scale=1.1, name="tool"))
        return [*placed, arm(cast, spot_on((0, 40), *stroke, -38, 1.1), 1.0)]

    return Scene((), moving)


def mix(cast: Cast) -> Scene:
    """A spoon goes round in a bowl, pan or pot, whose contents turn with it."""
    act = cast.act
    vessel_noun = ("bowl", "pan", "pot")[int(cast.rng.integers(3))] if act.noun != "egg" else "bowl"
    vessel, inside = PROPS[vessel_noun].paint(cast.other(vessel_noun)), CONTENTS[act.noun](cast.look)
    tool = objects.spoon(cast.other("spoon"))
    middle, size, squash = {
        "bowl": ((0.0, -42.0), 1.06, 0.33),
        "pan": ((0.0, -24.0), 1.10, 0.56),
        "pot": ((0.0, -52.0), 1.12, 0.30),
    }[vessel_noun]
    scale = 1.3
    rim = (middle[0] - 60, middle[1] + 22)

    def moving(moment: Moment) -> list[Placement]:
        near, angle = reach(act, moment), wave(act, moment)
        stirred = place(inside, *middle, np.degrees(angle) * 0.8, scale=size * scale, squash=squash)
        lean = 22 + 10 * np.cos(angle)  # degrees, of the spoon
        dip = (middle[0] + 27 * scale * np.cos(angle), middle[1] + 27 * scale * squash * np.sin(angle))
        x, y = spot_on((0, 35), *between(AWAY, dip, near), -lean, 1.15)  # the spoon's middle, its head where it dips
        placed = [stirred, place(tool, x, y, -lean, scale=1.15, name="tool")]
        placed.append(arm(cast, rim, near, right=False, curl=0.85))
        return [*placed, arm(cast, spot_on((0, 44), x, y, -lean, 1.15), 1.0, curl=1.0)]

    return Scene(tuple(standing(vessel, 0, -22, scale=scale)), moving)


def pour(cast: Cast) -> Scene:
    """A full vessel tips over an empty one; a stream runs, the level rises."""
    act, prop = cast.act, PROPS[cast.act.noun]
    sprite = prop.paint(cast.look)
    (target_noun,) = act.other_nouns
    target = PROPS[target_noun].paint(cast.other(target_noun))
    liquid = {"milk": (250, 250, 250), "oil": (232, 190, 40)}.get(act.noun, (150, 200, 235))
    canvas = Canvas(-9, 0, 9, 100)
    canvas.limb((0, 4), (0, 96), 4.5, 6.5, liquid)
    stream = canvas.finish(outline=0.5)
    pool = Canvas(-46, -46, 46, 46)
    pool.ellipse(0, 0, 42, 42, liquid)
    level = pool.finish(outline=0)
    top, size = {"bowl": ((-62.0, 14.0), 1.2), "cup": ((-62.0, 9.0), 0.72)}[target_noun]
    tipped = -62.0 if act.noun == "water" else -112.0

    def moving(moment: Moment) -> list[Placement]:
        near, done = reach(act, moment), progress(act, moment)
        tip = smooth(done, 0.0, 0.3) - smooth(done, 0.7, 1.0)
        angle = tipped * tip
        # The mouth stays over the target while the vessel tips around it.
        mouth = between(AWAY, (top[0] + 2 + 40 * (1 - tip), top[1] - 62 - 10 * (1 - tip)), near)
        offset = spot_on(prop.mouth, 0, 0, angle)
        x, y = mouth[0] - offset[0], mouth[1] - offset[1]
        placed = []
        full = smooth(done, 0.25, 0.75)
        if full > 0.03:
            placed.append(place(level, *top, scale=size * (0.35 + 0.65 * full), squash=0.33))
        if tip > 0.6:
            fall = place(stream, mouth[0], mouth[1], name="stream")
            fall.corners[2:, 1] = top[1] + 5
            fall.corners[:, 0] += 0.7 * moment.flicker
            placed.append(fall)
        placed.append(place(sprite, x, y, angle, scale=OBJECT_SCALE, name="thing"))
        return [*placed, arm(cast, spot_on(prop.grip, x, y, angle), 1.0, curl=1.0, turn_deg=0.35 * angle)]

    return Scene(tuple(standing(target, -62, 34 if target_noun == "bowl" else 40, scale=1.2)), moving)


def flip(cast: Cast) -> Scene:
    """A spatula lifts what lies in a pan and turns it over."""
    act = cast.act
    top = food.fried_egg(cast.look) if act.noun == "egg" else PROPS[act.noun].paint(cast.look)
    under = top.darkened(0.7)
    pan, tool = objects.pan(cast.other("pan")), objects.spatula(cast.other("spatula"))
    still = (switches.hob_top(), place(pan, -30, -22, scale=1.45))

    def moving(moment: Moment) -> list[Placement]:
        done, near = progress(act, moment), reach(act, moment)
        height, turn = 66 * np.sin(np.pi * done), np.cos(np.pi * done)
        side = top if turn > 0 else under
        squash = 0.62 * max(0.12, abs(turn))
        head = between(AWAY, (-24.0, -10 - 0.75 * height), near)
        x, y = head[0] + 46 * np.sin(0.6), head[1] + 46 * np.cos(0.6)
        placed = [place(tool, x, y, -34, scale=1.1, name="tool")]
        placed.append(place(side, -30, -22 - height, scale=1.1, squash=squash, name="thing" if turn > 0 else "under"))
        return [*placed, arm(cast, spot_on((0, 50), x, y, -34, 1.1), 1.0)]

    return Scene(still, moving)


def squeeze(cast: Cast) -> Scene:
    """A hand presses a thing over a bowl; drops fall."""
    act = cast.act
    sprite = PROPS[act.noun].paint(cast.look)
    bowl = objects.bowl(cast.other("bowl"))
    canvas = Canvas(-8, -10, 8, 10)
    canvas.ellipse(0, 1, 5, 7, (250, 230, 90) if act.noun == "lemon" else (150, 200, 235))
    drop = canvas.finish(outline=0.6)

    def moving(moment: Moment) -> list[Placement]:
        near, angle = reach(act, moment), wave(act, moment, 0.8)
        press = 0.5 - 0.5 * np.cos(angle)
        x, y = between(AWAY, (-8.0, -46.0), near)
        fallen = (angle / (2 * np.pi)) % 1.0
        placed = []
        if near > 0.95:
            placed += [
                place(drop, x + dx, y + 26 + 52 * ((fallen + shift) % 1.0))
                for dx, shift in ((-8, 0.0), (4, 0.4), (12, 0.75))
            ]
        thing = place(sprite, x, y, scale=1.25, name="thing")
        thing.corners[:] = (thing.corners - (x, y)) * (1 - 0.32 * press, 1 + 0.12 * press) + (x, y)
        grip = arm(cast, (x + 34 - 9 * press, y + 18), 1.0, curl=0.5 + 0.5 * press)
        return [*placed, thing, grip]

    return Scene(tuple(standing(bowl, -8, 50, scale=1.2)), moving)
