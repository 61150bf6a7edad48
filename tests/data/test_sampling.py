"""Frame times of segments: one in each bin, inside the segment, the same for the same seed."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from egochef.data.sampling import centre_times, jittered_times, view_times
from egochef.errors import InputError

STARTS = st.floats(0, 20_000)
LENGTHS = st.floats(1e-6, 2000)
NUM_FRAMES = st.integers(1, 64)


def assert_one_in_each_bin(times_s: np.ndarray, start_s: float, stop_s: float) -> None:
    edges = np.linspace(start_s, stop_s, times_s.shape[-1] + 1)
    assert times_s.dtype == np.float64
    assert (edges[:-1] <= times_s).all() and (times_s < edges[1:]).all()


def test_golden_times() -> None:
    np.testing.assert_allclose(centre_times(10.0, 14.0, 4), [10.5, 11.5, 12.5, 13.5])
    np.testing.assert_allclose(view_times(10.0, 14.0, 2, 2), [[10.5, 12.5], [11.5, 13.5]])
    np.testing.assert_allclose(centre_times(2.0, 3.0, 1), [2.5])


@given(STARTS, LENGTHS, NUM_FRAMES, st.integers(0, 2**32))
def test_a_random_time_in_each_bin(start_s: float, length_s: float, num_frames: int, seed: int) -> None:
    stop_s = start_s + length_s
    times_s = jittered_times(start_s, stop_s, num_frames, np.random.default_rng(seed))
    assert times_s.shape == (num_frames,)
    assert_one_in_each_bin(times_s, start_s, stop_s)
    np.testing.assert_array_equal(times_s, jittered_times(start_s, stop_s, num_frames, np.random.default_rng(seed)))


@given(STARTS, LENGTHS, NUM_FRAMES, st.integers(1, 10))
def test_views_share_out_each_bin(start_s: float, length_s: float, num_frames: int, num_views: int) -> None:
    stop_s = start_s + length_s
    views_s = view_times(start_s, stop_s, num_frames, num_views)
    assert views_s.shape == (num_views, num_frames)
    assert_one_in_each_bin(views_s, start_s, stop_s)
    assert (np.diff(views_s, axis=0) >= 0).all()
    np.testing.assert_allclose(views_s.mean(axis=0), centre_times(start_s, stop_s, num_frames), atol=1e-9)
    np.testing.assert_array_equal(
        view_times(start_s, stop_s, num_frames, 1)[0], centre_times(start_s, stop_s, num_frames)
    )


def test_jitter_is_uniform_over_the_bin() -> None:
    rng = np.random.default_rng(0)
    draws = np.stack([jittered_times(0.0, 2.0, 2, rng) for _ in range(4000)])  # (4000, 2)
    counts = np.stack([np.histogram(draws[:, k] - k, bins=10, range=(0, 1))[0] for k in range(2)])
    assert counts.sum() == 8000 and (np.abs(counts - 400) < 100).all()


def test_jitter_reads_the_generator_it_is_given() -> None:
    rng = np.random.default_rng(0)
    first, second = (jittered_times(0.0, 1.0, 8, rng) for _ in range(2))
    assert (first != second).all()


@pytest.mark.parametrize("length_s", [1e-9, 2e-12, 0.0])
def test_a_segment_of_hardly_any_time_still_has_its_times(length_s: float) -> None:
    start_s = 1234.5
    stop_s = max(start_s + length_s, float(np.nextafter(start_s, np.inf)))  # at least one number long
    for times_s in (centre_times(start_s, stop_s, 16), view_times(start_s, stop_s, 16, 3)):
        assert (times_s >= start_s).all() and (times_s < stop_s).all() and (np.diff(times_s) >= 0).all()


@pytest.mark.parametrize(("start_s", "stop_s"), [(2.0, 2.0), (3.0, 2.0), (0.0, np.inf), (np.nan, 1.0)])
def test_a_segment_without_time(start_s: float, stop_s: float) -> None:
    for sample in (centre_times, lambda *a: view_times(*a, 2), lambda *a: jittered_times(*a, np.random.default_rng(0))):
        with pytest.raises(InputError, match="expected start < stop"):
            sample(start_s, stop_s, 16)


@pytest.mark.parametrize("num_frames", [0, -3])
def test_no_frames(num_frames: int) -> None:
    for sample in (centre_times, lambda *a: view_times(*a, 2), lambda *a: jittered_times(*a, np.random.default_rng(0))):
        with pytest.raises(InputError, match=f"num_frames is {num_frames}"):
            sample(0.0, 1.0, num_frames)
    with pytest.raises(InputError, match="num_views is 0"):
        view_times(0.0, 1.0, 4, 0)
