"""Whole frames: difficulty, light, spots, and that frames do not depend on the order in which they are asked for."""

from dataclasses import replace

import numpy as np
import pytest

from egochef.toykitchen import ToyConfig
from egochef.toykitchen.render import Renderer, frames_of
from egochef.toykitchen.script import VideoPlan, plan_kitchen

CONFIG = ToyConfig(seed=9, num_segments=12, preset="small")


@pytest.fixture(scope="module")
def plan() -> VideoPlan:
    return plan_kitchen(CONFIG)[0]


def test_frames_are_rgb_of_the_asked_size(plan: VideoPlan):
    for width, height in ((456, 256), (128, 96)):
        frame = Renderer(plan, replace(CONFIG, width_px=width, height_px=height)).frame(10)
        assert frame.shape == (height, width, 3) and frame.dtype == np.uint8
        assert frame.std() > 15


def test_the_same_plan_gives_the_same_frames(plan: VideoPlan):
    short = replace(plan, num_frames=5)
    for a, b in zip(frames_of(short, CONFIG), frames_of(short, CONFIG), strict=True):
        np.testing.assert_array_equal(a, b)


def test_what_is_seen_in_an_act_is_at_its_spot(plan: VideoPlan):
    """While an act lasts, the camera stays within its shake of the act's spot."""
    renderer = Renderer(plan, CONFIG)
    for act in plan.acts:
        for time_s in (act.start_s, act.stop_s):
            camera = renderer.cameras[round(time_s * plan.fps)]
            middle = camera @ (300.0 + 540.0 * act.spot, 190.0, 1.0)
            assert np.abs(middle - (228, 143)).max() < 8


def test_difficulty_changes_the_pixels(plan: VideoPlan):
    number = round((plan.acts[0].start_s + plan.acts[0].stop_s) / 2 * plan.fps)
    frames = [Renderer(plan, replace(CONFIG, difficulty=name)).frame(number) for name in ("easy", "normal", "hard")]
    for a, b in ((0, 1), (1, 2), (0, 2)):
        assert np.abs(frames[a].astype(int) - frames[b]).mean() > 3


def test_a_harder_kitchen_shakes_and_flickers_more(plan: VideoPlan):
    easy, hard = (Renderer(plan, replace(CONFIG, difficulty=name)) for name in ("easy", "hard"))
    start, stop = (round(t * plan.fps) for t in (plan.acts[0].start_s, plan.acts[0].stop_s))
    for way in ((0, 2), (1, 2)):
        assert np.ptp(hard.cameras[start:stop, *way]) > 2 * np.ptp(easy.cameras[start:stop, *way])
    assert np.ptp(hard.light.brightness) > 2 * np.ptp(easy.light.brightness)


def test_turning_on_the_light_brightens_the_picture():
    base = plan_kitchen(CONFIG)[0]
    act = replace(base.acts[0], verb="turn-on", noun="light", start_s=0.5, stop_s=1.7)
    plan = replace(base, acts=(act,), num_frames=120)
    renderer = Renderer(plan, replace(CONFIG, difficulty="easy"))
    dark, bright = (renderer.frame(number).mean() for number in (31, 110))
    assert bright > 1.5 * dark


def test_a_participant_has_one_kitchen():
    plans = plan_kitchen(ToyConfig(seed=9))
    by_participant: dict[str, set[int]] = {}
    for plan in plans:
        by_participant.setdefault(plan.participant_id, set()).add(plan.participant_seed)
    assert all(len(seeds) == 1 for seeds in by_participant.values())
    kitchens = {
        id_: Renderer(next(p for p in plans if p.participant_id == id_), CONFIG).kitchen for id_ in by_participant
    }
    assert len(set(kitchens.values())) == len(kitchens)
