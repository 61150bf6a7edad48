"""Title cards are of the size asked for, dim behind their words, and keep the words inside."""

import numpy as np
import pytest

from egochef.video.cards import FAINT, draw_card, fit, mosaic


@pytest.fixture
def picture():
    return np.random.default_rng(0).integers(0, 256, (90, 160, 3), dtype=np.uint8)


def test_pictures_keep_their_shape(picture):
    assert np.array_equal(fit(picture, 160, 90), picture)
    upright = np.full((160, 90, 3), 200, np.uint8)
    fitted = fit(upright, 320, 180)
    assert fitted.shape == (180, 320, 3) and fitted.dtype == np.uint8
    bright = (fitted == 200).all(axis=(0, 2))
    assert bright.sum() == round(180 * 90 / 160) and bright[160] and not bright[0] and not bright[-1]
    assert 0 < fitted[:, 0].mean() < 100


@pytest.mark.parametrize("number", [1, 3, 4, 10])
def test_a_mosaic_fills_its_grid(number):
    pictures = [np.full((9, 16, 3), 20 * place + 20, np.uint8) for place in range(number)]
    filled = mosaic(pictures, 101, 67)
    assert filled.shape == (67, 101, 3)
    assert set(np.unique(filled)) == {20 * place + 20 for place in range(int(number**0.5) ** 2)}


def test_words_stand_on_a_dim_picture(picture):
    lines = [("open drawer", (255, 0, 0)), ("a very long line " * 20, FAINT)]
    card = draw_card("P01_01 \N{SNOWMAN} " * 9, lines, 320, 180, picture)
    assert card.shape == (180, 320, 3) and card.dtype == np.uint8
    assert card.mean() < 60 < picture.mean()
    edges = np.concatenate([card[:, :16], card[:, 304:]], axis=1)
    assert edges.max() < 120  # no words there
    assert card[60:120, 16:304].max() > 200
    assert ((card[..., 0] > 200) & (card[..., 1] < 90)).any()
    assert draw_card("EgoChef", [], 320, 180).mean() < 60
