"""The plan: splits, shares, times, pairs."""

from collections import Counter
from fractions import Fraction

import numpy as np
import pytest

from egochef.errors import InputError
from egochef.toykitchen import ToyConfig
from egochef.toykitchen.classes import NOUNS, REVERSE_OF, REVERSED, USES, VERBS
from egochef.toykitchen.config import MIN_SEGMENTS
from egochef.toykitchen.script import Act, VideoPlan, plan_kitchen


def acts_of(plans: tuple[VideoPlan, ...], split: str) -> list[Act]:
    return [act for plan in plans if plan.split == split for act in plan.acts]


def test_the_default_kitchen_is_as_promised():
    plans = plan_kitchen(ToyConfig())
    sizes = {split: len(acts_of(plans, split)) for split in ("train", "validation", "test")}
    assert sizes == {"train": 450, "validation": 105, "test": 45}
    train = acts_of(plans, "train")
    assert {act.verb for act in train} == set(VERBS)
    assert {act.noun for act in train} == set(NOUNS)
    lengths = np.array([round(act.stop_s - act.start_s, 2) for plan in plans for act in plan.acts])
    assert lengths.min() >= 0.3 and lengths.max() <= 10
    assert np.mean((lengths > 0.8) & (lengths < 3)) > 0.7
    assert np.quantile(lengths, 0.99) > 4


def test_small_has_fewer_classes():
    plans = plan_kitchen(ToyConfig(preset="small"))
    sizes = [len(acts_of(plans, split)) for split in ("train", "validation", "test")]
    assert sizes == [252, 79, 29]
    acts = [act for plan in plans for act in plan.acts]
    assert len({act.verb for act in acts}) == 8 and len({act.noun for act in acts}) == 8


@pytest.mark.parametrize("preset", ["full", "small"])
@pytest.mark.parametrize("num_segments", [MIN_SEGMENTS, 13, 24, 61])
def test_any_size_has_all_splits_and_unseen_participants(num_segments: int, preset: str):
    plans = plan_kitchen(ToyConfig(seed=5, num_segments=num_segments, preset=preset))
    assert sum(len(plan.acts) for plan in plans) == num_segments
    assert all(plan.acts for plan in plans)
    people = {split: {p.participant_id for p in plans if p.split == split} for split in ("train", "validation", "test")}
    assert len(people["train"]) >= 2
    for split in ("validation", "test"):
        assert people[split] - people["train"], f"unseen participants in {split}"
        assert people[split] & people["train"], f"seen participants in {split}"
    assert not (people["validation"] - people["train"]) & people["test"]


def test_videos_are_named_and_timed_as_in_ek100():
    plans = plan_kitchen(ToyConfig())
    assert len({plan.video_id for plan in plans}) == len(plans)
    rates = {split: {plan.fps for plan in plans if plan.split == split} for split in ("train", "validation", "test")}
    assert rates["validation"] == {Fraction(60000, 1001)} and rates["test"] == {Fraction(50)}
    assert rates["train"] == {Fraction(60000, 1001), Fraction(50)}
    for plan in plans:
        number = int(plan.video_id.removeprefix(plan.participant_id + "_"))
        assert (number > 100) == (plan.fps == 50)


def test_acts_fit_into_their_videos_with_gaps():
    for plan in plan_kitchen(ToyConfig(seed=2)):
        edges = [0.0] + [t for act in plan.acts for t in (act.start_s, act.stop_s)] + [plan.duration_s]
        gaps = np.diff(edges)[::2]
        assert (gaps >= 0.199).all()
        assert (np.diff(edges) > 0).all()
        for act, before, after in zip(plan.acts, gaps[:-1], gaps[1:], strict=True):
            assert 0 < act.lead_in_s < 0.5 * before and 0 < act.lead_out_s < 0.5 * after
            assert act.start_s == round(act.start_s, 2) and act.stop_s == round(act.stop_s, 2)
            assert 0 < act.begin < act.end < 1


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_a_verb_and_its_reverse_are_equally_frequent_with_each_noun(split: str):
    counts = Counter((act.verb, act.noun) for act in acts_of(plan_kitchen(ToyConfig(seed=1)), split))
    pairs = [(verb, noun) for verb, noun in counts if verb in REVERSED]
    assert pairs
    for verb, noun in pairs:
        assert counts[verb, noun] == counts[REVERSED[verb], noun]


def test_the_random_numbers_of_a_verb_and_its_reverse_are_alike():
    """No parameter of the motion tells `put` from `take`: z tests of the means over several kitchens."""
    acts = [act for seed in range(6) for plan in plan_kitchen(ToyConfig(seed=seed)) for act in plan.acts]

    def numbers(act: Act) -> tuple[float, ...]:
        leads = (act.lead_in_s, act.lead_out_s) if act.verb == "take" else (act.lead_out_s, act.lead_in_s)
        rest = (act.begin, act.end, act.x, act.y, act.zoom, act.tilt, act.mirrored, act.speed_hz)
        return act.stop_s - act.start_s, *leads, *rest

    take, put = (np.array([numbers(act) for act in acts if act.verb == verb]) for verb in ("take", "put"))
    assert len(take) == len(put) > 500
    error = np.sqrt(take.var(0) / len(take) + put.var(0) / len(put))
    assert (np.abs(take.mean(0) - put.mean(0)) < 4 * error).all()


def test_verbs_and_nouns_occur_together_as_in_a_kitchen():
    acts = [act for plan in plan_kitchen(ToyConfig()) for act in plan.acts]
    for act in acts:
        assert act.noun in USES["full"][REVERSE_OF.get(act.verb, act.verb)].nouns
    assert len({(act.verb, act.noun) for act in acts}) < 0.25 * len(VERBS) * len(NOUNS)


def test_the_plan_depends_on_the_seed_alone():
    assert plan_kitchen(ToyConfig(seed=4)) == plan_kitchen(ToyConfig(seed=4))
    assert plan_kitchen(ToyConfig(seed=4)) != plan_kitchen(ToyConfig(seed=5))
    easy, hard = (plan_kitchen(ToyConfig(seed=4, difficulty=name)) for name in ("easy", "hard"))
    assert easy == hard, "the difficulty changes the pictures, not the plan"


@pytest.mark.parametrize("preset", ["full", "small"])
def test_the_length_of_segments_can_be_set(preset: str):
    plans = plan_kitchen(ToyConfig(seed=6, preset=preset, segment_s=2.5))
    lengths = np.array([act.stop_s - act.start_s for plan in plans for act in plan.acts])
    assert abs(np.median(lengths) - 2.5) < 0.05
    assert np.mean((lengths >= 2) & (lengths <= 3)) > 0.97
    usual = plan_kitchen(ToyConfig(seed=6, preset=preset))
    assert [(act.verb, act.noun, act.seed) for plan in plans for act in plan.acts] == [
        (act.verb, act.noun, act.seed) for plan in usual for act in plan.acts
    ], "the same things are done"


def test_the_share_of_the_validation_split_can_be_set():
    plans = plan_kitchen(ToyConfig(seed=6, num_segments=100, validation_share=0.6))
    assert sum(len(plan.acts) for plan in plans if plan.split == "validation") == 60
    assert sum(len(plan.acts) for plan in plans) == 100


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"seed": -1}, "seed is -1"),
        ({"num_segments": 3}, "num_segments is 3.*from 12 to 100000"),
        ({"num_segments": True}, "num_segments is True"),
        ({"difficulty": "mild"}, "'mild', expected one of easy, normal, hard"),
        ({"preset": "huge"}, "'huge', expected one of full, small"),
        ({"width_px": 101}, "width_px is 101"),
        ({"gop": 0}, "gop is 0, expected a whole number from 1"),
        ({"gop": 2.5}, "gop is 2.5, expected a whole number from 1"),
        ({"segment_s": 0.1}, "segment_s is 0.1, expected 0.3 to 10"),
        ({"segment_s": float("nan")}, "segment_s is nan, expected"),
        ({"validation_share": 0.9}, "validation_share is 0.9, expected above 0 and at most 0.8"),
    ],
)
def test_wrong_configurations_are_refused(wrong: dict, message: str):
    with pytest.raises(InputError, match=message):
        ToyConfig(**wrong)
