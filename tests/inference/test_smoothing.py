"""What is named: after smoothing, with hysteresis, or nothing where it is uncertain."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from egochef.errors import InputError
from egochef.inference.prediction import as_line
from egochef.inference.smoothing import Smoother, Smoothing
from egochef.taxonomy import Taxonomy

TAXONOMY = Taxonomy(("open", "close", "take"), ("drawer", "pan"))
ALONE = np.array([1.0, 0.0])


def said(smoother, probs_of_open, step_s=0.1):
    """What is shown as `open drawer` becomes so probable, and `close drawer` takes the rest."""
    return [
        smoother.update(place * step_s, np.array([prob, 1 - prob, 0.0]), ALONE).shown
        for place, prob in enumerate(probs_of_open)
    ]


def test_a_flicker_does_not_show():
    raw = Smoother(TAXONOMY, Smoothing(tau_s=0.0, margin=0.0))
    assert said(raw, [0.9, 0.4, 0.9]) == ["open drawer", "close drawer", "open drawer"]
    calm = Smoother(TAXONOMY, Smoothing(tau_s=0.3))
    assert said(calm, [0.9, 0.4, 0.9]) == ["open drawer"] * 3


def test_another_action_needs_a_margin():
    smoother = Smoother(TAXONOMY, Smoothing(tau_s=0.0, margin=0.2))
    assert said(smoother, [0.9, 0.45, 0.41, 0.39]) == ["open drawer"] * 3 + ["close drawer"]


def test_uncertain_below_the_threshold_and_held_above_its_share():
    smoother = Smoother(TAXONOMY, Smoothing(tau_s=0.0, threshold=0.5, margin=0.1, hold=0.6))
    shown = []
    for place, prob in enumerate([0.45, 0.55, 0.4, 0.31, 0.29, 0.45, 0.6]):
        verb = np.array([prob, 0.05, 0.05])
        told = smoother.update(float(place), verb, ALONE)
        shown.append(told.shown)
        assert told.shown_prob == pytest.approx(0.0 if told.shown is None else prob)
    assert shown == [None, "open drawer", "open drawer", "open drawer", None, None, "open drawer"]


def test_smoothing_is_an_exponential_mean_of_irregular_steps():
    smoother = Smoother(TAXONOMY, Smoothing(tau_s=0.5))
    times, values = [0.0, 0.2, 0.9], [0.2, 0.8, 0.5]
    expected = values[0]
    for place, (time_s, value) in enumerate(zip(times, values, strict=True)):
        if place:
            keep = np.exp(-(time_s - times[place - 1]) / 0.5)
            expected = keep * expected + (1 - keep) * value
        told = smoother.update(time_s, np.array([value, 1 - value, 0.0]), ALONE)
        assert dict(told.verb)["open"] == pytest.approx(expected)


def test_forgetting_begins_anew():
    smoother = Smoother(TAXONOMY, Smoothing(tau_s=10.0))
    said(smoother, [1.0, 1.0])
    smoother.forget()
    assert said(smoother, [0.0]) == ["close drawer"]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=40), st.floats(0, 1), st.floats(0, 2))
def test_what_is_shown_is_never_improbable(moments, threshold, tau_s):
    smoother = Smoother(TAXONOMY, Smoothing(tau_s=tau_s, threshold=threshold))
    for place, (open_prob, drawer_prob) in enumerate(moments):
        verb = np.array([open_prob, 1 - open_prob, 0.0])
        told = smoother.update(place * 0.1, verb, np.array([drawer_prob, 1 - drawer_prob]))
        assert sum(prob for _, prob in told.verb) == pytest.approx(1)
        if told.shown is None:
            assert told.shown_ids is None and told.action[0][1] < threshold + 1e-9
        else:
            assert told.shown_prob >= 0.6 * threshold - 1e-9
            assert told.action[0][1] - told.shown_prob < 0.1 + 1e-9
            assert TAXONOMY.action_name(*told.shown_ids) == told.shown


def test_a_log_line():
    told = Smoother(TAXONOMY).update(1.23456, np.array([0.7, 0.2, 0.1]), np.array([0.9, 0.1]))
    line = as_line(told, video="x.mp4")
    assert list(line)[:2] == ["video", "time_s"]
    assert (line["time_s"], line["verb"], line["verb_prob"], line["shown"]) == (1.235, "open", 0.7, "open drawer")
    assert line["action_top5"][:2] == [["open drawer", 0.63], ["close drawer", 0.18]]


def test_settings_are_checked():
    for wrong in ({"threshold": 1.5}, {"margin": -0.1}, {"hold": 2.0}, {"tau_s": -1.0}):
        with pytest.raises(InputError, match="expected 0 to"):
            Smoothing(**wrong)
