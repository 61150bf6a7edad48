"""Bars of a timeline, and which video is shown first."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from egochef.report.timeline import Bar, timeline, typical_video

SMALL = settings(max_examples=30, deadline=None)


def check(case, model):
    plain, bars = case.plain, timeline(case.outcomes[model], case.split)
    best = dict(zip([row.narration_id for row in plain.rows], plain.best(model, "action"), strict=True))
    rows = {row.narration_id: row for row in plain.rows}
    assert sorted(bar.narration_id for bar in bars) == sorted(rows)
    assert [(bar.video, bar.start_s) for bar in bars] == sorted((bar.video, bar.start_s) for bar in bars)
    for bar in bars:
        row, said = rows[bar.narration_id], best[bar.narration_id]
        assert bar.video == row.video
        assert (bar.start_s, bar.stop_s) == pytest.approx((float(row.start), float(row.stop)))
        assert (bar.true, bar.predicted) == (plain.name("action", row.action), plain.name("action", said))
        wrong = [word for word, at in (("verb", 0), ("noun", 1)) if divmod(said, 1000)[at] != (row.verb, row.noun)[at]]
        assert bar.kind == {0: "right", 1: f"{''.join(wrong)} wrong", 2: "both wrong"}[len(wrong)]
    for video in {row.video for row in plain.rows}:
        ends = 0.0  # of the first lane
        for bar in [bar for bar in bars if bar.video == video]:
            assert bar.overlaps == (bar.start_s < ends)
            if not bar.overlaps:
                ends = bar.stop_s
    return bars


@given(st.integers(0, 10**6), st.integers(1, 40), st.integers(1, 6))
@SMALL
def test_small(make_case, seed, num_rows, num_videos):
    case = make_case(seed, num_rows, num_videos=num_videos)
    rng = np.random.default_rng(seed)  # times within a minute, so that many overlap
    starts = rng.integers(0, 60, num_rows).tolist()
    segments = tuple(
        dataclasses.replace(segment, start_s=float(start), stop_s=start + 4.0)
        for segment, start in zip(case.split.segments, starts, strict=True)
    )
    rows = [
        dataclasses.replace(row, start=start, stop=start + 4)
        for row, start in zip(case.plain.rows, starts, strict=True)
    ]
    split, plain = dataclasses.replace(case.split, segments=segments), dataclasses.replace(case.plain, rows=rows)
    case = dataclasses.replace(case, split=split, plain=plain)
    bars = check(case, "model 0")
    check_typical(bars)


def test_the_validation_set(real_case):
    bars = check(real_case, "ensemble")
    assert len({bar.video for bar in bars}) == 138 and 0 < sum(bar.overlaps for bar in bars) < len(bars) / 2
    check_typical(bars)


def check_typical(bars):
    videos = sorted({bar.video for bar in bars})
    right = {video: [bar.kind == "right" for bar in bars if bar.video == video] for video in videos}
    chosen = typical_video(bars)
    longer = sum(len(right[video]) > len(right[chosen]) for video in videos)
    assert longer < max(1, len(videos) // 2)
    longest = sorted(videos, key=lambda video: (-len(right[video]), video))[: max(1, len(videos) // 2)]
    shares = sorted(sum(right[video]) / len(right[video]) for video in longest)
    assert sum(right[chosen]) / len(right[chosen]) == pytest.approx(shares[len(shares) // 2])


def bar(start_s, stop_s, video="P01_01", kind="right", overlaps=0):
    return Bar(video, start_s, stop_s, overlaps, "cut cake", "cut cake", kind, f"{video}_{start_s}")


def test_the_video_shown_first():
    kinds = {"P01_01": [1, 0, 0, 0], "P01_02": [1, 1, 0, 0], "P01_03": [1, 1, 1, 0], "P01_04": [1], "P01_05": [0, 0]}
    bars = [
        bar(place, place + 1, video, "right" if right else "both wrong")
        for video, rights in kinds.items()
        for place, right in enumerate(rights)
    ]
    assert typical_video(bars) == "P01_02"  # of five the longer two are 01 and 02
    assert typical_video(bars[-1:]) == "P01_05"
