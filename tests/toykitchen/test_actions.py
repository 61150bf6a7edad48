"""The motions: each can be drawn, moves where it is looked at, and reverses are exact."""

from dataclasses import replace

import numpy as np
import pytest

from egochef.toykitchen.actions import MOTIONS, build_scene
from egochef.toykitchen.classes import NOUNS, REVERSED, USES, VERBS
from egochef.toykitchen.config import DIFFICULTIES
from egochef.toykitchen.looks import hands_of, kitchen_of
from egochef.toykitchen.props import CONTENTS, PROPS
from egochef.toykitchen.render import compose
from egochef.toykitchen.script import Act
from egochef.toykitchen.sprites import draw
from egochef.toykitchen.stage import Moment, Scene

KITCHEN = kitchen_of(11)
HANDS = hands_of(11, np.random.default_rng(0))
CAMERA = np.array([[1.0, 0, 228], [0, 1.0, 143]])
DURATION_S = 1.6
ACTIONS = sorted({(verb, noun) for uses in USES.values() for verb, use in uses.items() for noun in use.nouns})


def an_act(verb: str, noun: str, seed: int = 5) -> Act:
    into = next((use.into for uses in USES.values() for v, use in uses.items() if v == verb and use.into), ())
    return Act(
        verb=verb,
        noun=noun,
        other_nouns=into[:1],
        start_s=2.0,
        stop_s=2.0 + DURATION_S,
        lead_in_s=0.1,
        lead_out_s=0.3,
        begin=0.22,
        end=0.7,
        spot=1,
        mirrored=bool(seed % 2),
        x=0.4,
        y=-0.3,
        zoom=0.5,
        tilt=0.6,
        speed_hz=2.0,
        seed=seed,
    )


def action_layer(scene: Scene, phase: float, flicker: float = 0.3) -> np.ndarray:
    """(256, 456, 4) uint8: the scene alone on a grey ground."""
    frame = np.full((256, 456, 4), 128, np.uint8)
    matrix = compose(CAMERA, scene.matrix)
    draw(frame, scene.still, matrix)
    draw(frame, scene.moving(Moment(phase, phase * DURATION_S, flicker)), matrix)
    return frame


def test_every_verb_has_a_motion_and_every_noun_a_use():
    assert set(MOTIONS) == set(USES["full"]) and set(MOTIONS) | set(REVERSED.values()) == set(VERBS)
    assert {noun for use in USES["full"].values() for noun in use.nouns} == set(NOUNS)
    assert (set(PROPS) | set(CONTENTS)) <= set(NOUNS)


@pytest.mark.parametrize(("verb", "noun"), ACTIONS)
def test_every_action_moves_in_the_middle_of_the_frame(verb: str, noun: str):
    scene = build_scene(an_act(verb, noun), KITCHEN, HANDS, DIFFICULTIES["normal"])
    frames = [action_layer(scene, phase)[:, 100:356, :3].astype(int) for phase in (0.2, 0.45, 0.62)]
    changed = [(np.abs(frames[0] - later).max(-1) > 30).mean() for later in frames[1:]]
    assert max(changed) > 0.02, "a fiftieth of the centre crop changes"
    assert scene.gain(Moment(0.5, 0.8)) > 0.4


@pytest.mark.parametrize(("verb", "noun"), [(v, n) for v, n in ACTIONS if v in REVERSED])
def test_a_reverse_is_the_same_pixels_backwards(verb: str, noun: str):
    act = an_act(verb, noun)
    other = replace(act, verb=REVERSED[verb], lead_in_s=act.lead_out_s, lead_out_s=act.lead_in_s)
    forward, backward = (build_scene(a, KITCHEN, HANDS, DIFFICULTIES["normal"]) for a in (act, other))
    frames = [action_layer(forward, phase) for phase in np.linspace(-0.1, 1.1, 9)]
    mirrored = [action_layer(backward, 1 - phase) for phase in np.linspace(-0.1, 1.1, 9)]
    for frame, same in zip(frames, mirrored, strict=True):
        np.testing.assert_array_equal(frame, same)
    assert (frames[0] != frames[-1]).any(), "the end looks different from the beginning"
    for phase in (0.1, 0.5):
        moments = Moment(phase, phase * DURATION_S), Moment(1 - phase, (1 - phase) * DURATION_S)
        assert forward.gain(moments[0]) == backward.gain(moments[1])


@pytest.mark.parametrize(("verb", "noun"), ACTIONS)
def test_nothing_jumps(verb: str, noun: str):
    """From one frame to the next, 60 a second, nothing moves farther than a quick hand does."""
    scene = build_scene(an_act(verb, noun), KITCHEN, HANDS, DIFFICULTIES["normal"])
    before: dict[str, np.ndarray] = {}
    for phase in np.arange(-0.2, 1.3, 1 / 60 / DURATION_S):
        items = scene.moving(Moment(float(phase), float(phase) * DURATION_S, 0.0))
        now = {item.name: item.corners.mean(0) for item in items if item.name}
        for name in now.keys() & before.keys():
            assert np.abs(now[name] - before[name]).max() < 40, (name, phase)
        before = now


def test_hands_are_away_before_and_after():
    scene = build_scene(an_act("open", "drawer"), KITCHEN, HANDS, DIFFICULTIES["normal"])
    for phase in (-0.15, 1.35):
        (arm,) = (item for item in scene.moving(Moment(phase, phase * DURATION_S)) if item.name == "right hand")
        assert arm.corners[:, 1].min() > 150, "below the frame"


def test_a_left_handed_act_is_mirrored():
    act = replace(an_act("take", "cup"), x=0.0)
    left, right = (
        build_scene(replace(act, mirrored=mirrored), KITCHEN, HANDS, DIFFICULTIES["normal"])
        for mirrored in (True, False)
    )
    a, b = action_layer(left, 0.3)[:, ::-1].astype(int), action_layer(right, 0.3).astype(int)
    assert np.abs(a - b).mean() < 0.5
    assert np.abs(a[:, ::-1] - b).mean() > 2


def test_likeness_pulls_colours_to_the_counter():
    act = an_act("take", "tomato")
    means = []
    for name in ("easy", "hard"):
        scene = build_scene(act, KITCHEN, HANDS, DIFFICULTIES[name])
        (thing,) = (item for item in scene.moving(Moment(-0.5, 0)) if item.name == "thing")
        opaque = thing.sprite.pixels[thing.sprite.pixels[..., 3] == 255]
        means.append(np.abs(opaque[:, :3].mean(0) - KITCHEN.counter).sum())
    assert means[1] < 0.9 * means[0]
