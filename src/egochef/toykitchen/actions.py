"""From an act of the plan to its scene: the motion, its reverse where the verb is one, and its place in the kitchen."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from egochef.toykitchen import cooking, handling
from egochef.toykitchen.classes import REVERSE_OF
from egochef.toykitchen.config import Difficulty
from egochef.toykitchen.looks import HandLook, KitchenLook, look_of
from egochef.toykitchen.script import Act
from egochef.toykitchen.stage import Cast, Moment, Scene

MOTIONS: dict[str, Callable[[Cast], Scene]] = {
    "take": handling.take,
    "open": handling.open_up,
    "turn-on": handling.turn_on,
    "move": handling.move,
    "shake": handling.shake,
    "throw": handling.throw,
    "wash": cooking.wash,
    "dry": cooking.dry,
    "cut": cooking.cut,
    "peel": cooking.peel,
    "mix": cooking.mix,
    "pour": cooking.pour,
    "flip": cooking.flip,
    "squeeze": cooking.squeeze,
}
"""by forward verb"""


def build_scene(act: Act, kitchen: KitchenLook, hands: HandLook, difficulty: Difficulty) -> Scene:
    """Draw an act's sprites and bind them to its motion, in scene coordinates."""
    look = look_of(act.noun, kitchen, np.random.default_rng((act.seed, 1)), likeness=difficulty.likeness)
    rng = np.random.default_rng((act.seed, 2))
    forward = REVERSE_OF.get(act.verb, act.verb)
    if forward == act.verb:
        scene = MOTIONS[forward](Cast(act, kitchen, hands, look, rng))
    else:
        turned = replace(act, lead_in_s=act.lead_out_s, lead_out_s=act.lead_in_s)
        scene = _backwards(MOTIONS[forward](Cast(turned, kitchen, hands, look, rng)), act.stop_s - act.start_s)
    return replace(scene, matrix=_matrix(act, difficulty))


def _backwards(scene: Scene, duration_s: float) -> Scene:
    def turned(moment: Moment) -> Moment:
        return replace(moment, phase=1 - moment.phase, time_s=duration_s - moment.time_s)

    return replace(
        scene,
        moving=lambda moment: scene.moving(turned(moment)),
        gain=lambda moment: scene.gain(turned(moment)),
    )


def _matrix(act: Act, difficulty: Difficulty) -> np.ndarray:
    """Mirrors the scene of a left-handed act and shifts it a little; see `Scene.matrix`."""
    size = 1 + difficulty.zoom_spread * act.zoom
    return np.array([[-size if act.mirrored else size, 0, 16 * act.x], [0, size, 7 * act.y]])
