"""Motions that take, open, turn on and move things. In: a `Cast`. Out: a `Scene`.

Putting, closing and turning off are not here: they are these played backwards (see `actions.py`).
"""

from collections.abc import Callable

import numpy as np

from egochef.toykitchen import fixtures, switches
from egochef.toykitchen.fixtures import Mechanism
from egochef.toykitchen.props import PROPS
from egochef.toykitchen.sprites import Placement, place
from egochef.toykitchen.stage import (
    AWAY,
    OBJECT_SCALE,
    Cast,
    Moment,
    Scene,
    arm,
    between,
    closed,
    lifted,
    progress,
    reach,
    smooth,
    spot_on,
    wave,
)


def take(cast: Cast) -> Scene:
    """A thing lies on the counter; a hand grasps it, lifts it and carries it out of sight."""
    act, prop = cast.act, PROPS[cast.act.noun]
    sprite = prop.paint(cast.look)
    shadow = sprite.shadow()
    angle = prop.tilt_deg * act.tilt
    start, stop = (0.0, -8.0), (112.0, 262.0)

    def moving(moment: Moment) -> list[Placement]:
        share = progress(act, moment)
        x, y = between(start, stop, share**1.4)
        height = 58 * (smooth(share, 0.0, 0.35) - smooth(share, 0.55, 1.0))
        scale = OBJECT_SCALE * (1 + 0.22 * share)
        turned = angle * (1 - share)
        placed = lifted(sprite, shadow, x, y, height, turned, scale=scale)
        # The hand comes; from then on it goes where the thing goes.
        near, curl = (reach(act, moment), closed(act, moment)) if moment.phase < act.begin else (1.0, 1.0)
        if prop.second_grip:
            held = spot_on(prop.second_grip, x, y - height, turned, scale)
            placed.append(arm(cast, held, near, right=False, curl=curl))
        return [*placed, arm(cast, spot_on(prop.grip, x, y - height, turned, scale), near, curl=curl)]

    return Scene((), moving)


def operate(cast: Cast, mechanism: Mechanism, *, left_hand_at: tuple[float, float] | None = None) -> Scene:
    """A hand takes hold of what opens or turns on, moves it and lets go."""
    act = cast.act

    def moving(moment: Moment) -> list[Placement]:
        state, near = progress(act, moment), reach(act, moment)
        placed = mechanism.parts(state, moment.flicker)
        if left_hand_at:
            placed.append(arm(cast, left_hand_at, near, right=False, curl=0.8))
        return [*placed, arm(cast, mechanism.grip(state), near, curl=0.25 + 0.75 * closed(act, moment))]

    return Scene(mechanism.still, moving, lambda moment: mechanism.gain(progress(act, moment)))


def open_up(cast: Cast) -> Scene:
    noun, kitchen = cast.act.noun, cast.kitchen
    if noun in ("jar", "bottle"):
        return operate(cast, switches.screw_top(cast.look, wide=noun == "jar"), left_hand_at=(-46.0, 6.0))
    makers: dict[str, Callable[[], Mechanism]] = {
        "cupboard": lambda: fixtures.cupboard(kitchen, cast.rng),
        "fridge": lambda: fixtures.fridge(kitchen, cast.rng),
        "drawer": lambda: fixtures.drawer(kitchen, cast.rng),
        "oven": lambda: fixtures.oven(kitchen, cast.rng),
        "bin": lambda: fixtures.waste_bin(cast.look),
    }
    return operate(cast, makers[noun]())


def turn_on(cast: Cast) -> Scene:
    makers: dict[str, Callable[[], Mechanism]] = {
        "tap": lambda: switches.tap(cast.kitchen),
        "hob": lambda: switches.hob(cast.rng),
        "kettle": lambda: switches.kettle(cast.look, cast.kitchen),
        "light": lambda: switches.light(cast.kitchen),
    }
    return operate(cast, makers[cast.act.noun]())


def move(cast: Cast) -> Scene:
    """A thing is pushed along the counter from one side to the other."""
    act, prop = cast.act, PROPS[cast.act.noun]
    sprite = prop.paint(cast.look)
    shadow = sprite.shadow()
    way = 78.0 if act.tilt > 0 else -78.0

    def moving(moment: Moment) -> list[Placement]:
        share, near = progress(act, moment), reach(act, moment)
        x, y = -way + 2 * way * share, -6 + 6 * np.sin(np.pi * share)
        placed = lifted(sprite, shadow, x, y, 5 * np.sin(np.pi * share))
        if prop.second_grip:
            placed.append(arm(cast, spot_on(prop.second_grip, x, y), near, right=False, curl=closed(act, moment)))
        return [*placed, arm(cast, spot_on(prop.grip, x, y), near, curl=closed(act, moment))]

    return Scene((), moving)


def shake(cast: Cast) -> Scene:
    """A thing held in the air goes quickly up and down."""
    act, prop = cast.act, PROPS[cast.act.noun]
    sprite = prop.paint(cast.look)
    shadow = sprite.shadow()

    def moving(moment: Moment) -> list[Placement]:
        near, angle = reach(act, moment), wave(act, moment, 1.6)
        x, y = between((AWAY[0], AWAY[1] + 40), (-14.0, 24.0), near)
        height, turned = 34 + 26 * np.sin(angle) * near, 14 + 12 * np.sin(angle)
        placed = lifted(sprite, shadow, x, y, height, turned, scale=1.2)
        return [*placed, arm(cast, spot_on(prop.grip, x, y - height, turned, 1.2), 1.0, turn_deg=0.5 * turned)]

    return Scene((), moving)


def throw(cast: Cast) -> Scene:
    """A hand swings and lets a thing fly into the bin."""
    act, prop = cast.act, PROPS[cast.act.noun]
    sprite = prop.paint(cast.look)
    body, _, opening = fixtures.bin_sprites(cast.other("bin"))
    bin_x, bin_y = -58.0, 26.0
    front = body.cropped(top=50)
    still = (place(body, bin_x, bin_y), place(opening, bin_x, bin_y))

    def moving(moment: Moment) -> list[Placement]:
        flight, near = progress(act, moment), reach(act, moment)
        hand_at = between(AWAY, (78.0 - 26 * smooth(moment.phase, act.begin - 0.12, act.begin), 0.0), near)
        start = spot_on((-prop.grip[0], -prop.grip[1]), *hand_at, scale=0.9)
        x = start[0] + (bin_x - start[0]) * flight
        y = start[1] + (bin_y + 60 - start[1]) * flight * flight - 170 * flight * (1 - flight)
        placed = []
        if flight < 0.99:
            placed.append(place(sprite, x, y, -200 * flight, scale=0.9 * (1 - 0.3 * flight), name="thing"))
        placed.append(place(front, bin_x, bin_y))
        return [*placed, arm(cast, hand_at, 1.0, curl=1.0 - smooth(moment.phase, act.begin - 0.05, act.begin))]

    return Scene(still, moving)
