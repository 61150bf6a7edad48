"""The arithmetic that tells which frames are wanted, on its own."""

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from egochef.video.times import LOOKAHEAD_PACKETS, EveryFrame, ListedTimes, TimeGrid, Wanted, clock, with_next_pts


@dataclass(frozen=True)
class FakePacket:
    pts: int | None
    dts: int | None
    is_discard: bool = False


@st.composite
def reordered(draw: st.DrawFn) -> list[FakePacket]:
    """Packets in decoding order: display times shuffled within groups, decoding times rising and never later."""
    gaps = draw(st.lists(st.integers(1, 50), min_size=1, max_size=40))
    pts = np.cumsum(gaps).tolist()
    order: list[int] = []
    while pts:
        size = draw(st.integers(1, 6))
        order += draw(st.permutations(pts[:size]))
        pts = pts[size:]
    rising = [min(order[k:]) for k in range(len(order))]  # the latest decoding times that are allowed
    delay = draw(st.integers(0, 30))
    discards = draw(st.lists(st.booleans(), min_size=len(order), max_size=len(order)))
    return [
        FakePacket(p, d - delay, x and k < 3) for k, (p, d, x) in enumerate(zip(order, rising, discards, strict=True))
    ]


@given(packets=reordered())
def test_the_frame_shown_next_is_found_by_looking_ahead(packets: list[FakePacket]) -> None:
    shown = sorted(p.pts for p in packets if p.pts is not None and not p.is_discard)
    result = list(with_next_pts(packets))
    assert [packet for packet, _, _ in result] == packets
    for packet, following, dts in result:
        assert following == next((pts for pts in shown if pts > (packet.pts or 0)), None) and dts == packet.dts


@pytest.mark.parametrize("bad", [FakePacket(None, 5), FakePacket(9, None), FakePacket(3, 4), FakePacket(9, 1)])
def test_nothing_is_concluded_from_times_that_contradict_each_other(bad: FakePacket) -> None:
    good = [FakePacket(k, k) for k in range(4)]
    result = list(with_next_pts([*good, bad, FakePacket(20, 20)]))
    assert [packet for packet, _, _ in result] == [*good, bad, FakePacket(20, 20)]
    assert [(following, dts) for _, following, dts in result[4:]] == [(None, None)] * 2


def test_a_packet_from_the_far_future_does_not_hold_back_the_file() -> None:
    packets = [FakePacket(10**9, 0), *(FakePacket(k, k) for k in range(1, 2000))]
    num_read = 0

    def count() -> object:
        nonlocal num_read
        for packet in packets:
            num_read += 1
            yield packet

    first = next(with_next_pts(count()))  # type: ignore[arg-type]
    assert first == (packets[0], None, 0) and num_read <= LOOKAHEAD_PACKETS + 1


TIMES = st.floats(0, 10)


@st.composite
def wanted(draw: st.DrawFn) -> tuple[Wanted, list[float]]:
    """Single times or a grid, and the times that it stands for."""
    if draw(st.booleans()):
        times_s = sorted(draw(st.lists(TIMES, min_size=1, max_size=10)))
        return ListedTimes(times_s, 0.001), times_s
    start_s, every_s, num = draw(TIMES), draw(st.floats(0.01, 2)), draw(st.integers(1, 20))
    times_s = [start_s + k * every_s for k in range(num)]
    return TimeGrid(start_s, start_s + num * every_s, every_s, 0.001), times_s


@given(asked=wanted(), cuts=st.lists(st.floats(-1, 60), max_size=8))
def test_each_wanted_time_belongs_to_one_frame(asked: tuple[Wanted, list[float]], cuts: list[float]) -> None:
    rule, times_s = asked
    edges = [-math.inf, *sorted(cuts), math.inf]
    assert sum(rule.count(a, b) for a, b in pairwise(edges)) == len(times_s)
    assert rule.next(-math.inf) == pytest.approx(times_s[0])
    for edge in edges[1:-1]:
        answered = rule.count(-math.inf, edge)
        assert answered == pytest.approx(sum(t + 0.001 < edge for t in times_s), abs=1)  # rounding at the edge
        following = rule.next(edge)
        assert (following is None) == (answered == len(times_s))
        assert following is None or following == pytest.approx(times_s[answered])


@pytest.mark.parametrize(("stop_s", "every_s", "num"), [(1.0, 0.1, 10), (0.6, 0.2, 3), (0.7, 0.1, 7), (1.05, 0.5, 3)])
def test_rounding_adds_no_step_to_a_grid(stop_s: float, every_s: float, num: int) -> None:
    assert TimeGrid(0.0, stop_s, every_s, 1e-4).count(-math.inf, math.inf) == num


def test_an_endless_grid() -> None:
    grid = TimeGrid(0.0, math.inf, 0.5, 1e-4)
    assert grid.count(-math.inf, 2.0) == 4 and grid.next(2.0) == 2.0 and grid.count(0.0, math.inf) > 10**9


def test_every_frame_begins_with_the_one_on_screen() -> None:
    rule = EveryFrame(1.0, 2.0, 0.001)
    spans = [(-math.inf, 0.5), (0.5, 0.99), (0.99, 1.01), (1.01, 1.9), (1.9, 2.5), (2.0, 2.5)]
    assert [rule.count(a, b) for a, b in spans] == [0, 0, 1, 1, 1, 0]
    assert [rule.next(t) for t in (-math.inf, 0.9, 1.0005, 1.5, 2.0)] == [1.0, 1.0, 1.0, 1.5, None]


@pytest.mark.parametrize(
    ("time_s", "text"),
    [
        (0.0, "0:00"),
        (7.5, "0:07"),
        (7.999, "0:07"),
        (8.0 - 1e-9, "0:08"),
        (59.6, "0:59"),
        (3599.9, "59:59"),
        (3725.9, "1:02:05"),
    ],
)
def test_a_clock_shows_the_second_that_is_going_on(time_s, text):
    assert clock(time_s) == text
