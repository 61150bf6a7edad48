"""A reel shows the surest, differing moments of each video, in one size and rate."""

from fractions import Fraction
from itertools import pairwise

import cv2
import numpy as np
import pytest
from numbered import decode_all, write_numbered

from egochef.errors import InputError
from egochef.inference.prediction import Prediction
from egochef.inference.reel import ReelSpec, choose_moments, make_reel
from egochef.video.decode import probe

RANKED = (("open", 0.6), ("close", 0.2), ("take", 0.1))
SMALL = ReelSpec(width_px=320, height_px=180, fps=10, opening_s=0.5, card_s=0.3, fade_s=0.2)


def said(time_s, shown=None, prob=0.0, likeliest=0.2):
    ids = None if shown is None else (len(shown), 0)
    return Prediction(time_s, RANKED, RANKED, (("open door", likeliest),), shown, ids, prob)


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    return write_numbered(tmp_path_factory.mktemp("reel") / "P01_01.mp4", 240, fps=12)  # 20 s


def story(*parts):
    """Predictions every half second of (until_s, shown, prob)."""
    predictions, time_s = [], 0.25
    for until_s, shown, prob in parts:
        while time_s < until_s:
            predictions.append(said(time_s, shown, prob))
            time_s += 0.5
    return predictions


def test_the_surest_moments_are_chosen(video):
    predictions = story(
        (2, "open drawer", 0.5),
        (4, "take cup", 0.9),
        (6, "open drawer", 0.8),
        (8, None, 0.0),
        (16, "wash cup", 0.7),
        (18, "put cup", 0.4),
        (20, None, 0.0),
    )
    item = choose_moments(video, predictions)
    assert [moment.shown for moment in item.moments] == ["take cup", "open drawer", "wash cup"]
    for moment in item.moments:
        assert 0 <= moment.start_s < moment.stop_s <= 20
        assert 2 <= moment.stop_s - moment.start_s <= 4
    for first, second in pairwise(item.moments):
        assert first.stop_s <= second.start_s
    assert choose_moments(video, predictions, ReelSpec(num_moments=1)).moments[0].shown == "take cup"
    # only what the moments need is kept
    assert len(item.predictions) < len(predictions)
    assert choose_moments(video, predictions) == item


def test_a_video_without_anything_certain_is_told(video, caplog):
    predictions = [said(0.25 + 0.5 * place, likeliest=0.3 if place == 20 else 0.1) for place in range(40)]
    item = choose_moments(video, predictions)
    assert [(moment.start_s, moment.stop_s, moment.shown) for moment in item.moments] == [(9.25, 11.25, None)]
    assert "P01_01.mp4: nothing is certain in it" in caplog.text


def test_the_film(video, tmp_path):
    """Cards and moments follow each other; every video's size and rate become the film's."""
    short = write_numbered(tmp_path / "a,long 'name'.mp4", 8, fps=Fraction(30000, 1001), size_px=(96, 160))
    items = [
        choose_moments(video, story((10, "open drawer", 0.5), (20, "take cup", 0.9)), SMALL),
        choose_moments(short, [said(0.13, "put cup", 0.8)], SMALL),
    ]
    assert [len(item.moments) for item in items] == [2, 1]
    out = tmp_path / "reel.mp4"
    expected = 5 + (3 + 40 + 40) + (3 + 20)  # the short video's picture stands until two seconds are over
    assert make_reel(items, out, SMALL) == expected
    info = probe(out)
    assert (info.width_px, info.height_px, info.average_fps) == (320, 180, 10)
    film = decode_all(out)
    assert film.times_s == pytest.approx(np.arange(expected) / 10, abs=1e-3)
    assert film.frames[4].mean() < film.frames[30].mean()  # a card is darker than what is behind it
    again = tmp_path / "again.mp4"
    make_reel(items, again, SMALL)
    # x264's macroblock tree is not the same each time: the films differ a little. Two neighbouring pictures do by more.
    differences = [cv2.absdiff(a, b).mean() for a, b in zip(film.frames, decode_all(again).frames, strict=True)]
    assert max(differences) < 2


def test_wrong_wishes():
    with pytest.raises(InputError, match="0 moments"):
        ReelSpec(num_moments=0)
    with pytest.raises(InputError, match="shortest <= longest"):
        ReelSpec(shortest_s=5)
