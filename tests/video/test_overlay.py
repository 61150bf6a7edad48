"""The overlay: what is drawn stands where it should, fits, covers nothing else, and says the right thing."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from egochef.video import overlay as overlay_module
from egochef.video import paint, strip
from egochef.video.overlay import Overlay, StripPart, at_least, draw_overlay
from egochef.video.paint import PALETTE, Box, drawable, fill, fitted, label_colour, text_width, write

LONG = "take measuring:jug:glass container"
RANKED = ((LONG, 0.5), ("open", 0.25), ("close drawer", 0.04), ("turn-on tap", 0.006), ("wash", 0.0))
PARTS = tuple(StripPart(5.0 * i, 5.0 * i + 5, (LONG, None, "open drawer")[i % 3]) for i in range(12))
FULL = Overlay(
    title=LONG,
    tone="sure",
    title_prob=1.0,
    verb=RANKED,
    noun=RANKED,
    action=RANKED,
    threshold=0.3,
    strip=PARTS,
    truth=PARTS,
    now_s=60.0,
    status=("camera 30.0 fps", "model 52.3 /s, display 30.0 fps", "latency 41 ms, 95 % below 63 ms", "dropped 12"),
    badges=("REC", "PAUSED", "MIRROR"),
    message="saved screenshot egochef-2026-11-24-18-30-12.png",
)
HELP = (("q", "quit"), ("space", "pause"), ("r", "record"), ("+ -", "threshold"), ("h", "help"))
SIZES = [(360, 640), (360, 480), (360, 360), (640, 360), (720, 1280), (1080, 1920), (1920, 1080), (360, 1200)]


def plain(height: int = 720, width: int = 1280, value: int = 128) -> np.ndarray:
    return np.full((height, width, 3), value, np.uint8)


def differs(first: np.ndarray, second: np.ndarray) -> Box:
    """The smallest box of all pixels that are not the same."""
    rows, columns = np.nonzero((first != second).any(2))
    return Box(int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1)


def near(pixels: np.ndarray, colour: tuple[int, int, int], by: int = 12) -> np.ndarray:
    return (np.abs(pixels.astype(int) - colour) <= by).all(-1)


def test_nothing_asked_nothing_drawn():
    picture = np.random.default_rng(0).integers(0, 255, (360, 640, 3), dtype=np.uint8)
    drawn = draw_overlay(picture, Overlay())
    assert drawn is not picture and (drawn == picture).all()


def test_the_picture_given_stays_and_the_size_too():
    picture = plain()
    drawn = draw_overlay(picture, replace(FULL, help=HELP, dimmed=True))
    assert (picture == 128).all() and drawn.shape == picture.shape and drawn.dtype == np.uint8
    with pytest.raises(ValueError, match="expected uint8"):
        draw_overlay(picture.astype(np.float32), FULL)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("asked", [FULL, replace(FULL, truth=(), help=HELP, message=""), replace(FULL, status=())])
def test_panels_stand_apart_and_text_inside_them(size: tuple[int, int], asked: Overlay, monkeypatch):
    panels, texts, drawn_panel, drawn_write = [], [], paint.panel, paint.write

    def watch_panel(canvas, sizes, box):
        panels.append(box)
        drawn_panel(canvas, sizes, box)

    def watch_write(canvas, text, left, middle, size_px, colour):
        if text:
            half = size_px // 3
            texts.append((text, Box(left, middle - half, left + text_width(text, size_px), middle + half)))
        drawn_write(canvas, text, left, middle, size_px, colour)

    for module in (overlay_module, strip):
        monkeypatch.setattr(module, "panel", watch_panel)
        monkeypatch.setattr(module, "write", watch_write)
    draw_overlay(plain(*size), asked)
    panels = list(dict.fromkeys(panels))
    for place, box in enumerate(panels):
        assert box.left > 0 and box.top > 0 and box.right < size[1] and box.bottom < size[0]
        for other in panels[:place]:
            apart = box.left >= other.right or other.left >= box.right
            assert apart or box.top >= other.bottom or other.top >= box.bottom, (box, other)
    for text, line in texts:
        assert any(
            box.left <= line.left and line.right <= box.right and box.top < line.top and line.bottom < box.bottom
            for box in panels
        ), text
    said = [text for text, _ in texts]
    assert any(text.startswith("take meas") for text in said) and "100 %" in said  # the title
    assert "VERB" in said or asked.help  # help may take the place of the bars
    assert {"REC", "PAUSED", "MIRROR"} <= set(said) and ("dropped 12" in said or not asked.status)
    assert any(text.startswith("saved") for text in said) or not asked.message
    assert "0:30" in said and ("truth" in said or not asked.truth)


def test_small_pictures_get_fewer_bars_and_tiny_ones_none(monkeypatch):
    said, drawn = [], overlay_module.write

    def watch(canvas, text, *others):
        said.append(text)
        drawn(canvas, text, *others)

    monkeypatch.setattr(overlay_module, "write", watch)
    counts = []
    for height, width in ((1080, 1920), (720, 1280), (360, 640), (200, 320), (100, 160)):
        said.clear()
        draw_overlay(plain(height, width), FULL)
        counts.append(sum(text.endswith("%") and text != "100 %" for text in said))  # the title's is not counted
    assert counts == [15, 15, 9, 0, 0]  # of three groups of bars


@pytest.mark.parametrize("size", [(1, 1), (2, 500), (500, 2), (16, 16), (37, 61), (90, 160), (120, 2000)])
def test_whatever_the_size_it_can_be_drawn_on(size: tuple[int, int]):
    for asked in (FULL, replace(FULL, help=HELP, dimmed=True)):
        assert draw_overlay(plain(*size), asked).shape == (*size, 3)


def test_bars_are_as_long_as_they_are_probable():
    def lengths(probs: tuple[float, ...]) -> list[int]:
        ranked = tuple((name, prob) for name, prob in zip(("a", "b", "c"), probs, strict=True))
        empty = tuple((name, 0.0) for name in ("a", "b", "c"))
        drawn = draw_overlay(plain(), Overlay(action=ranked)).astype(int)
        bars = (np.abs(drawn - draw_overlay(plain(), Overlay(action=empty))) > 8).any(2)[:, :400]
        return sorted({int(count) for count in bars.sum(1) if count > 20}, reverse=True)

    whole = max(lengths((1.0, 0.0, 0.0)))
    half = lengths((0.5, 0.0, 0.0))
    assert 250 < whole < 330
    assert any(abs(length - whole / 2) <= 2 for length in half) and max(half) < 0.75 * whole


def test_the_threshold_is_marked():
    low, high = (draw_overlay(plain(), Overlay(action=RANKED, threshold=at)) for at in (0.2, 0.8))
    without = draw_overlay(plain(), Overlay(action=RANKED))
    panel = differs(plain(), without)
    for drawn, share in ((low, 0.2), (high, 0.8)):
        mark = differs(drawn, without)
        assert mark.width < 12 and mark.height > 90
        assert abs((mark.left + mark.right) / 2 - (panel.left + share * panel.width)) < 0.06 * panel.width


def test_the_strip_shows_what_was_when():
    parts = (StripPart(0, 15, "open drawer"), StripPart(15, 30, None), StripPart(30, 90, "put fork"))
    drawn = draw_overlay(plain(), Overlay(strip=parts, strip_start_s=0, strip_stop_s=60, now_s=45.0))
    panel = differs(plain(), drawn)
    assert panel.bottom == 720 - panel.left and panel.right == 1280 - panel.left  # along the lower edge
    row = drawn[panel.top + (panel.height * 2) // 5 - 9]  # above the letters
    first, last = (np.flatnonzero(near(row, label_colour(name), 25)) for name in ("open drawer", "put fork"))
    inside = last[-1] + 1 - first[0]
    assert first[-1] - first[0] == pytest.approx(inside / 4, abs=3)
    assert last[-1] - last[0] == pytest.approx(inside / 2, abs=3)
    between = row[first[-1] + 8 : last[0] - 8].astype(int)
    assert np.ptp(between, axis=-1).max() < 12  # grey
    now = np.flatnonzero((row == 255).all(-1))
    assert now.size and abs(now.mean() - (first[0] + 0.75 * inside)) < 3


def test_times_below_the_strip_are_round_and_apart(monkeypatch):
    said = []
    monkeypatch.setattr(strip, "write", lambda canvas, text, left, *others: said.append((text, left)))
    for start_s, stop_s, width, expected in (
        (0.0, 60.0, 1000, ["0:00", "0:05", "0:10", "0:15"]),
        (-52.0, 8.0, 1000, ["0:00", "0:05"]),
        (12.3, 72.3, 400, ["0:20", "0:30", "0:40", "0:50"]),
        (3590.0, 3650.0, 640, ["59:50", "1:00:00", "1:00:10"]),
        (0.0, 3 * 86400.0, 640, ["0:00", "24:00:00", "48:00:00"]),
    ):
        said.clear()
        draw_overlay(plain(360, width), Overlay(strip=PARTS, strip_start_s=start_s, strip_stop_s=stop_s))
        times = [(text, left) for text, left in said if ":" in text and text[0].isdigit()]
        assert [text for text, _ in times][: len(expected)] == expected
        for (text, left), (_, following) in pairwise(times):
            assert left + text_width(text, 10) + 5 < following


def test_an_empty_strip_is_there_once_there_is_a_now():
    assert (draw_overlay(plain(), Overlay(strip_start_s=0, strip_stop_s=60)) == 128).all()
    assert differs(plain(), draw_overlay(plain(), Overlay(now_s=0.0))).width > 1200


def test_badges_tones_and_an_old_picture():
    def red(asked: Overlay) -> int:
        return int(near(draw_overlay(plain(), asked), paint.RED, 20).sum())

    assert red(Overlay(badges=("PAUSED", "MIRROR"))) == 0
    assert 60 < red(Overlay(badges=("REC",))) < 300
    for tone, colour in (("sure", paint.WHITE), ("uncertain", paint.FAINT), ("warning", paint.ORANGE)):
        drawn = draw_overlay(plain(), Overlay(title="open drawer", tone=tone))
        assert near(drawn[:90, 30:300], colour).sum() > 100, tone
    assert near(draw_overlay(plain(), Overlay(title="wash pan", tone="sure")), label_colour("wash pan"), 3).sum() > 60
    colourful = plain() * np.array([1.9, 1.0, 0.3])
    old = draw_overlay(colourful.astype(np.uint8), Overlay(dimmed=True))
    assert old.mean() < 0.6 * colourful.mean() and np.ptp(old[0, 0].astype(int)) < 40


def test_colours_of_labels():
    assert label_colour("open drawer") == (104, 185, 134)  # the same in every run
    assert len(set(PALETTE)) == 32 and len({label_colour(f"label {i}") for i in range(500)}) == 32
    light = [np.array([0.2126, 0.7152, 0.0722]) @ (np.array(colour) / 255) ** 2.2 for colour in PALETTE]
    dark = (24 / 255) ** 2.2
    assert min(light) + 0.05 > 4.5 * (dark + 0.05)  # dark text can be read on each (WCAG's contrast)
    assert min(max(colour) - min(colour) for colour in PALETTE) > 50  # none is grey


def test_text():
    assert drawable("crème brûlée – 5 µm\n✓ …") == "creme brulee - 5 ?m ? …"
    assert fitted("open drawer", 16, 500) == "open drawer" and fitted("open drawer", 16, 3) == ""
    cut = fitted(LONG, 16, 150)
    assert cut.endswith("…") and LONG.startswith(cut[:-1]) and 120 < text_width(cut, 16) <= 150
    assert 2 * text_width(LONG, 10) == pytest.approx(text_width(LONG, 20), abs=2)
    canvas = plain(40, 200, 0)
    write(canvas, "HIH", 10, 20, 20, (255, 200, 0))
    ink = differs(canvas, plain(40, 200, 0))
    assert abs((ink.top + ink.bottom) / 2 - 20) <= 1 and 12 <= ink.height <= 17 and ink.left in (10, 11, 12)
    assert canvas[..., 0].max() >= 250 and canvas[..., 2].max() == 0
    for left, middle in ((-15, 20), (190, 20), (10, 0), (10, 39), (-500, 20), (500, 90)):
        write(canvas, "beyond the edge", left, middle, 20, (255, 255, 255))


def test_boxes():
    canvas = plain(100, 100, 0)
    fill(canvas, Box(10, 20, 50, 40), (200, 100, 50), 0.5, radius=6)
    assert differs(canvas, plain(100, 100, 0)) == Box(10, 20, 50, 40)
    assert tuple(canvas[30, 30]) == (100, 50, 25)
    for row, column in ((20, 10), (20, 49), (39, 10), (39, 49)):
        assert canvas[row, column].max() < 10  # round
    part = canvas[20:40, 10:50]
    assert (part == part[::-1]).all() and (part == part[:, ::-1]).all()  # all four alike
    fill(canvas, Box(-10, -10, 5, 5), (1, 2, 3))
    assert tuple(canvas[0, 0]) == (1, 2, 3) and tuple(canvas[5, 5]) == (0, 0, 0)
    fill(canvas, Box(200, 200, 300, 300), (1, 2, 3), radius=9)


def test_at_least():
    small = np.random.default_rng(0).integers(0, 255, (256, 456, 3), dtype=np.uint8)
    assert at_least(small).shape == (360, 642, 3)
    assert at_least(small, 256).shape == small.shape and (at_least(small, 256) == small).all()
    assert at_least(small[:255, :455], 200).shape == (254, 454, 3)
    assert at_least(small[:, :50], 90).shape == (460, 90, 3)
