"""The golden vectors that the Swift tests read are what the Python code says today, and are worth comparing with."""

import json
import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from ios import golden

from egochef.inference.smoothing import Smoother, Smoothing
from egochef.taxonomy import Taxonomy


@pytest.fixture(scope="module")
def stored() -> dict[str, Any]:
    return {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in golden.FOLDER.glob("*.json")}


def differences(one: Any, other: Any, where: str = "") -> list[str]:
    """Numbers may differ by 1e-6, nothing else may."""
    both = isinstance(one, int | float) and isinstance(other, int | float)
    if both and not isinstance(one, bool) and not isinstance(other, bool):
        return [] if math.isclose(one, other, rel_tol=0, abs_tol=1e-6) else [f"{where}: {one} and {other}"]
    if type(one) is not type(other):
        return [f"{where}: {one!r} and {other!r}"]
    if isinstance(one, dict | list):
        keys = (one.keys(), other.keys()) if isinstance(one, dict) else (range(len(one)), range(len(other)))
        if set(keys[0]) != set(keys[1]):
            return [f"{where}: {list(keys[0])} and {list(keys[1])}"]
        return [line for key in keys[0] for line in differences(one[key], other[key], f"{where}/{key}")]
    return [] if one == other else [f"{where}: {one!r} and {other!r}"]


def test_the_files_say_what_the_code_says(stored):
    made = json.loads(json.dumps(golden.vectors(), allow_nan=False))
    found = differences(stored, made)
    assert not found, "python tests/ios/golden.py writes them again: " + "; ".join(found[:5])


def test_a_difference_is_found():
    one = {"a": [1.0, {"b": None}], "c": True}
    assert differences(one, {"a": [1.0 + 1e-7, {"b": None}], "c": True}) == []
    for other in (
        {"a": [1.00001, {"b": None}], "c": True},
        {"a": [1.0, {"b": 0}], "c": True},
        {"a": [1.0], "c": True},
        {"a": [1.0, {"b": None}], "c": 1},
        {"a": [1.0, {"b": None}]},
    ):
        assert differences(one, other)


def test_the_files_are_small():
    for path in golden.FOLDER.glob("*.json"):
        assert path.stat().st_size < 300_000, path.name
        json.loads(path.read_text(encoding="utf-8"), parse_constant=pytest.fail)


def test_windows_are_short_and_long(stored):
    windows = stored["sampling"]["windows"]
    assert {(each["windowS"], each["clip"]["num_frames"]) for each in windows} >= {
        (window_s, frames) for window_s in (0.3, 8.0) for frames in (16, 32)
    }
    for each in windows:
        assert len(each["timesS"]) == each["clip"]["num_frames"]
        assert all(0 <= time_s < each["windowS"] for time_s in each["timesS"])
    numbers = {len(each["timesS"]) for each in stored["sampling"]["segments"]}
    assert len(numbers) > 3, "the grid's least and its rate both decide"
    assert any(len(set(each["places"])) < len(each["places"]) for each in stored["sampling"]["views"]), "some repeat"


def test_the_ring_drops_and_is_asked_beyond_its_ends(stored):
    for run in stored["ring"]["runs"]:
        steps = run["steps"]
        assert steps[-1]["startS"] > steps[0]["timeS"], "frames were dropped"
        assert any(min(step["askedS"]) < step["startS"] for step in steps)
        assert any(max(step["askedS"]) > step["timeS"] for step in steps)
        # 0.9 ms before a frame it is on screen, 1.1 ms before it the one before it is.
        late = [step["found"][-3:] for step in steps if step["count"] > 1]
        assert late and all(just == here == before + 1 for just, before, here in late)


def test_the_runs_of_windows_show_what_they_are_for(stored):
    runs = {run["name"]: run for run in stored["rolling"]["runs"]}
    for run in runs.values():
        said = [step for step in run["steps"] if step["verb"] is not None]
        assert len(said) > 15 and any(step["verb"] is None for step in run["steps"])
        for step in said:
            assert math.isclose(sum(step["verb"]), 1, abs_tol=1e-4)
            assert math.isclose(sum(step["noun"]), 1, abs_tol=1e-4)
        assert len({step["verb"].index(max(step["verb"])) for step in said}) > 1, "the best verb changes"
        assert len({step["noun"].index(max(step["noun"])) for step in said}) > 1, "the best noun changes"
        most = [max(step["verb"]) for step in said]
        assert 0.3 < np.median(most) < 0.95, "neither all alike nor saturated"
    camera, slow = runs["a camera's rate"]["steps"], runs["slow, and the ring drops"]["steps"]
    assert max(len(step["filled"]) for step in camera) == 3 == max(len(step["filled"]) for step in slow)
    full = [step["numClassified"] for step in camera if len(step["filled"]) == 3]
    assert 1 in full and max(full) <= 3 and sum(full) < 2 * len(full), "windows take turns"
    assert any(later["count"] <= sooner["count"] for sooner, later in pairwise(slow)), "it drops"
    every, end_s = runs["every window every time"]["steps"], 0.0
    for sooner, step in pairwise(every):
        # The end falls back where a short gap follows a long one; only then are answers as new as can be.
        now_s = 2 * step["timeS"] - sooner["timeS"]
        assert step["numClassified"] == len(step["filled"]) or now_s < end_s
        end_s = max(end_s, now_s)
    assert any(step["numClassified"] == 2 for step in every)
    around = [len(step["filled"]) for step in runs["around a moment"]["steps"]]
    assert {0, 1, 2} == set(around)
    limit = [step["numClassified"] for step in runs["at the limit"]["steps"]]
    assert set(limit[-9:]) == {1, 2}, "of three windows, those that are an eighth of a second old"
    anew = runs["begun anew"]["steps"]
    at = next(place for place, step in enumerate(anew) if step["forget"])
    assert anew[at - 1]["filled"] and not anew[at]["filled"] and anew[at]["count"] == 1 and anew[-1]["filled"]


def test_the_order_of_the_frames_counts(stored):
    """Else a window that reads the ring wrongly could still agree."""
    run = stored["rolling"]["runs"][2]
    engine = golden.TinyEngine(golden.LONG_CLIP, seed=len(run["name"]))
    frames = torch.tensor([step["features"] for step in run["steps"]])[:32]
    straight, back = (engine.classify(each[None])[0].softmax(1) for each in (frames, frames.flip(0)))
    assert (straight - back).abs().max() > 0.1
    shifted = engine.classify(torch.cat([frames[1:2], frames[1:]])[None])[0].softmax(1)
    assert (straight - shifted).abs().max() > 1e-4, "one other frame is seen, at the tolerance of 1e-5"


def test_smoothing_holds_lets_go_and_doubts(stored):
    vectors = stored["smoothing"]
    held = let_go = switched = uncertain = after_gap = outdone = 0
    for run in vectors["runs"]:
        smoother, shown, before_s = Smoother(Taxonomy(vectors["verbs"], vectors["nouns"])), None, None
        verb = noun = np.zeros(1)
        for step in run["steps"]:
            if step["forget"]:
                smoother.forget()
                shown = before_s = None
            values = dict(step["settings"])
            smoother.settings = settings = Smoothing(tau_s=values.pop("tauS"), **values)
            gap_s = math.inf if before_s is None else step["timeS"] - before_s
            before_s = step["timeS"]
            keep = math.exp(-gap_s / settings.tau_s) if settings.tau_s else 0.0
            verb, noun = (
                keep * old + (1 - keep) * np.array(step[kind]) for old, kind in ((verb, "verb"), (noun, "noun"))
            )
            said = smoother.update(step["timeS"], np.float32(step["verb"]), np.float32(step["noun"]))
            assert said.shown == step["shown"]
            best_prob = step["bestActions"][0]["prob"]
            kept_prob = 0.0 if shown is None else verb[shown[0]] * noun[shown[1]]
            # No choice hangs on the last digits of a float32.
            limits = [best_prob - settings.threshold, best_prob - kept_prob - settings.margin]
            limits.append(kept_prob - settings.hold * settings.threshold)
            assert min(abs(limit) for limit in limits) > 1e-5
            stayed = shown is not None and said.shown_ids == shown
            uncertain += said.shown is None
            held += stayed and kept_prob < settings.threshold
            let_go += shown is not None and said.shown is None
            outdone += stayed and best_prob > kept_prob + settings.margin
            switched += shown is not None and said.shown_ids not in (None, shown)
            after_gap += 1 < gap_s < math.inf
            shown = said.shown_ids
            for kind in ("bestVerbs", "bestNouns", "bestActions"):
                probs = [each["prob"] for each in step[kind]]
                assert len(probs) == 5 and min(-np.diff(probs)) > 3e-7, "no order hangs on them either"
    assert min(held, let_go, switched, uncertain, after_gap, outdone) > 0
    assert len(vectors["verbs"]) > 5 and len(vectors["nouns"]) > 5, "the five best are not all there are"
    changed = [step["settings"]["tauS"] for step in vectors["runs"][-1]["steps"]]
    assert len(set(changed)) == 2


def test_ranking_has_equal_pairs(stored):
    best = stored["ranking"]["cases"][0]["bestActions"]
    equal = [(one, other) for one, other in pairwise(best) if one["prob"] == other["prob"]]
    assert equal
    for one, other in equal:
        verbs = [golden.VERBS.index(each["name"].split()[0]) for each in (one, other)]
        assert verbs[0] > verbs[1]
    assert any(max(case["logits"]) > 1000 for case in stored["ranking"]["softmax"])


def test_the_statistics_show_what_they_are_for(stored):
    latencies = stored["stats"]["latencies"]
    assert any(len(case["valuesMs"]) > 300 and case["recent"] != case["overAll"] for case in latencies)
    # Naive scaling by 100 would round these two otherwise.
    assert {2.67, 0.12} <= {case["overAll"]["median_ms"] for case in latencies}
    rates = [step["perS"] for run in stored["stats"]["rates"] for step in run["steps"]]
    assert rates.count(0.0) > 2 and max(rates) > 20
    for case in stored["stats"]["timelines"]:
        last = case["steps"][-1]
        assert last["parts"][0]["startS"] > case["steps"][0]["timeS"], "old parts were dropped"
        assert any(part["label"] is None for step in case["steps"] for part in step["parts"])
        assert len(case["steps"][0]["parts"]) == len(case["steps"][1]["parts"]) == 1, "the same label goes on"


def test_pictures_shrink_grow_and_stay(stored):
    crops = stored["cropping"]["crops"]
    shorter = [min(each["width"], each["height"]) for each in crops]
    sizes = [each["resizeSize"] for each in crops]
    assert any(a > b for a, b in zip(shorter, sizes, strict=True))
    assert any(a < b for a, b in zip(shorter, sizes, strict=True))
    assert any(each["picture"] == each["crop"] for each in crops)
    for each in crops:
        assert len(each["picture"]) == each["width"] * each["height"] and len(each["crop"]) == each["imageSize"] ** 2
