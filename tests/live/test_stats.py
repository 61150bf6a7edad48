"""Rates, latencies and the strip of actions that a live run keeps."""

import numpy as np
import pytest

from egochef.live.stats import Latency, Rate, Spread, Timeline
from egochef.video.overlay import StripPart


def test_a_rate_is_over_the_last_two_seconds():
    now = 0.0
    rate = Rate(clock=lambda: now)
    assert rate.per_s == 0.0
    for _ in range(100):
        now += 0.1
        rate.tick()
    assert rate.per_s == pytest.approx(10.0) and rate.count == 100
    for _ in range(100):
        now += 0.02
        rate.tick()
    assert rate.per_s == pytest.approx(50.0, rel=0.01)
    now += 5.0
    assert rate.per_s == 0.0


def test_latencies_recent_and_over_all():
    latency = Latency()
    assert latency.recent() is None and latency.over_all() is None
    for _ in range(1000):
        latency.add(0.010)
    for value in np.linspace(0.1, 0.2, 300):
        latency.add(float(value))
    assert latency.recent() == Spread(150.0, 195.0)
    assert latency.over_all().median_ms == 10.0


def test_the_timeline_joins_what_is_alike_and_forgets_what_is_old():
    timeline = Timeline(10.0)
    for time_s, label in [(0.0, None), (1.0, "a"), (2.0, "a"), (3.0, "b"), (4.0, None), (5.0, "b")]:
        timeline.add(time_s, label)
    assert timeline.parts == [
        StripPart(0.0, 1.0, None),
        StripPart(1.0, 3.0, "a"),
        StripPart(3.0, 4.0, "b"),
        StripPart(4.0, 5.0, None),
        StripPart(5.0, 5.0, "b"),
    ]
    timeline.add(13.5, "b")
    assert [part.label for part in timeline.parts] == ["b", None, "b"], "what ended 10 s ago is gone"
    for step in range(100_000):
        timeline.add(14.0 + step, str(step % 2))
    assert len(timeline.parts) <= 13
