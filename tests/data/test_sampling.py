"""Frame times of segments: candidates spread evenly, one chosen in each bin, the same for the same seed."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from egochef.clip import ClipSpec, Grid
from egochef.data.sampling import candidate_times, centre_times, jittered_places, num_candidates, view_places
from egochef.errors import InputError

STARTS = st.floats(0, 20_000)
LENGTHS = st.floats(1e-6, 2000)
NUM_FRAMES = st.integers(1, 64)
NUM_CANDIDATES = st.integers(1, 500)


def assert_one_in_each_bin(places: np.ndarray, num_candidates: int) -> None:
    """Each place is a candidate that a moment of its bin falls on."""
    num_frames = places.shape[-1]
    edges = np.arange(num_frames + 1) / num_frames * num_candidates
    assert places.dtype == np.int64
    assert (places >= np.floor(edges[:-1] + 1e-9) - 1e-9).all() and (places < np.ceil(edges[1:] - 1e-9) + 1e-9).all()
    assert (places >= 0).all() and (places < num_candidates).all() and (np.diff(places) >= 0).all()


def test_golden_times() -> None:
    np.testing.assert_allclose(centre_times(10.0, 14.0, 4), [10.5, 11.5, 12.5, 13.5])
    np.testing.assert_allclose(centre_times(2.0, 3.0, 1), [2.5])
    np.testing.assert_allclose(candidate_times(10.0, 14.0, Grid(fps=1.0, min_frames=2)), [10.5, 11.5, 12.5, 13.5])
    np.testing.assert_array_equal(view_places(48, 16, 1)[0], np.arange(16) * 3 + 1)
    np.testing.assert_array_equal(view_places(8, 2, 2), [[1, 5], [3, 7]])


def test_the_number_of_candidates() -> None:
    assert num_candidates(0.0, 0.5, Grid()) == 48
    assert num_candidates(3.0, 10.0, Grid()) == 70
    assert num_candidates(3.0, 10.01, Grid()) == 71
    assert num_candidates(0.1, 0.1 + 30 * 0.1, Grid(fps=10.0, min_frames=1)) == 30  # rounding makes no 31st


@given(STARTS, LENGTHS)
def test_candidates_lie_evenly_in_the_segment(start_s: float, length_s: float) -> None:
    stop_s = start_s + length_s
    times_s = candidate_times(start_s, stop_s, Grid()) if stop_s > start_s else np.array([start_s])
    assert (times_s >= start_s).all() and (stop_s <= start_s or (times_s < stop_s).all())
    np.testing.assert_allclose(np.diff(times_s), length_s / len(times_s), atol=1e-9)


@given(NUM_CANDIDATES, NUM_FRAMES, st.integers(0, 2**32))
def test_a_random_candidate_in_each_bin(num_candidates: int, num_frames: int, seed: int) -> None:
    places = jittered_places(num_candidates, num_frames, np.random.default_rng(seed))
    assert places.shape == (num_frames,)
    assert_one_in_each_bin(places, num_candidates)
    np.testing.assert_array_equal(places, jittered_places(num_candidates, num_frames, np.random.default_rng(seed)))


@given(NUM_CANDIDATES, NUM_FRAMES, st.integers(1, 10))
def test_views_share_out_each_bin(num_candidates: int, num_frames: int, num_views: int) -> None:
    views = view_places(num_candidates, num_frames, num_views)
    assert views.shape == (num_views, num_frames)
    assert (np.diff(views, axis=0) >= 0).all()
    for view in views:
        assert_one_in_each_bin(view, num_candidates)


def test_one_view_looks_at_the_middles() -> None:
    for num_frames in (16, 32):
        times_s = candidate_times(0.0, 2.0, Grid(min_frames=96))[view_places(96, num_frames, 1)[0]]
        assert np.abs(times_s - centre_times(0.0, 2.0, num_frames)).max() <= 2.0 / 96


def test_jitter_is_uniform_over_the_bin() -> None:
    rng = np.random.default_rng(0)
    draws = np.stack([jittered_places(20, 2, rng) for _ in range(4000)])  # (4000, 2)
    counts = np.stack([np.bincount(draws[:, k] - 10 * k, minlength=10) for k in range(2)])
    assert counts.sum() == 8000 and (np.abs(counts - 400) < 100).all()


def test_jitter_reads_the_generator_it_is_given() -> None:
    rng = np.random.default_rng(0)
    first, second = (jittered_places(10_000, 8, rng) for _ in range(2))
    assert (first != second).all()


@pytest.mark.parametrize("length_s", [1e-9, 2e-12, 0.0])
def test_a_segment_of_hardly_any_time_still_has_its_times(length_s: float) -> None:
    start_s = 1234.5
    stop_s = max(start_s + length_s, float(np.nextafter(start_s, np.inf)))  # at least one number long
    times_s = candidate_times(start_s, stop_s, Grid())
    assert (times_s >= start_s).all() and (times_s < stop_s).all() and (np.diff(times_s) >= 0).all()


@pytest.mark.parametrize(("start_s", "stop_s"), [(2.0, 2.0), (3.0, 2.0), (0.0, np.inf), (np.nan, 1.0)])
def test_a_segment_without_time(start_s: float, stop_s: float) -> None:
    with pytest.raises(InputError, match="expected start < stop"):
        centre_times(start_s, stop_s, 16)
    with pytest.raises(InputError, match="expected start < stop"):
        candidate_times(start_s, stop_s, Grid())


@pytest.mark.parametrize("num_frames", [0, -3])
def test_no_frames(num_frames: int) -> None:
    rng = np.random.default_rng(0)
    for sample in (
        lambda t: centre_times(0.0, 1.0, t),
        lambda t: view_places(9, t, 2),
        lambda t: jittered_places(9, t, rng),
    ):
        with pytest.raises(InputError, match=f"num_frames is {num_frames}"):
            sample(num_frames)
    with pytest.raises(InputError, match="num_views is 0"):
        view_places(9, 4, 0)


@pytest.mark.parametrize("wrong", [{"fps": 0.0}, {"fps": -1.0}, {"fps": float("nan")}, {"min_frames": 0}])
def test_wrong_grids_are_refused(wrong: dict) -> None:
    with pytest.raises(InputError, match="Grid"):
        Grid(**wrong)


def test_a_clip_needs_a_candidate_for_each_frame() -> None:
    with pytest.raises(InputError, match="num_frames is 64"):
        ClipSpec(num_frames=64)
    assert ClipSpec(num_frames=64, grid=Grid(min_frames=64)).num_frames == 64


@given(st.integers(1, 60), st.integers(1, 20), st.integers(0, 999), st.floats(0.05, 1.0), st.floats(0.0, 0.9))
def test_random_rates_and_lost_frames(num_candidates, num_frames, seed, min_span, drop):
    rng = np.random.default_rng(seed)
    places = jittered_places(num_candidates, num_frames, rng, min_span=min_span, drop=drop)
    assert places.shape == (num_frames,) and (np.diff(places) >= 0).all()
    assert places[0] >= 0 and places[-1] < num_candidates


def test_spans_are_drawn_between_the_least_and_the_whole():
    rng = np.random.default_rng(0)
    draws = np.stack([jittered_places(10_000, 50, rng, min_span=0.4) for _ in range(500)])
    spans = (draws[:, -1] - draws[:, 0]) / 10_000
    assert 0.35 < spans.min() < 0.45 and 0.66 < spans.mean() < 0.72 and spans.max() > 0.95
    starts = draws[:, 0] / 10_000
    assert starts.min() < 0.05 and starts.max() > 0.45, "and lie anywhere"


def test_a_lost_frame_shows_the_one_before():
    whole = jittered_places(1_000, 200, np.random.default_rng(4))
    lossy = jittered_places(1_000, 200, np.random.default_rng(4), drop=0.3)
    assert lossy[0] == whole[0]
    lost = lossy != whole
    assert 30 < lost.sum() < 90
    assert (lossy[lost] == lossy[np.flatnonzero(lost) - 1]).all()
