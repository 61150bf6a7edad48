"""The report's page in a real browser."""

import numpy as np
import pytest
from playwright.sync_api import ViewportSize

from egochef.data.annotations import open_data_folder
from egochef.report.analysis import open_split
from egochef.report.report import make_report
from egochef.scoring.table import ScoreTable, save_scores

LABELS = "(chart) => [...chart.querySelectorAll('svg text')].map((text) => text.textContent).sort().join()"
OUTSIDE = """(scheme) => [...document.querySelectorAll('.chart')].filter((chart) => {
    const drawn = chart.querySelector('svg, canvas').getBoundingClientRect(), room = chart.getBoundingClientRect();
    return drawn.width > room.width + 1 || drawn.height > room.height + 1 || chart.dataset.drawn !== scheme;
}).map((chart) => chart.id)"""
"""figures that are larger than their place, or of the other scheme"""
WAIT_MS = 300_000
"""for a browser on a busy machine"""
DESKTOP, PHONE = ViewportSize(width=1280, height=900), ViewportSize(width=390, height=844)


@pytest.fixture(scope="module")
def page_path(toy_root, tmp_path_factory):
    """A report on two models of the toy kitchen, which are mostly right."""
    folder = tmp_path_factory.mktemp("report")
    split = open_split(open_data_folder(toy_root), "validation")
    for seed in (1, 2):
        rng = np.random.default_rng(seed)
        verb, noun = (rng.normal(size=(len(split), len(split.names(task)))) for task in ("verb", "noun"))
        verb[np.arange(len(split)), split.truth.verb] += 2
        noun[np.arange(len(split)), split.truth.noun] += 2
        ids = [segment.narration_id for segment in split.segments]
        save_scores(folder / f"model{seed}.npz", ScoreTable(np.array(ids), verb, noun, "logits"))
    return make_report([folder / "model1.npz", folder / "model2.npz"], folder / "out", data=toy_root).page


@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_figure_is_drawn_and_fits(chromium, page_path, size, scheme):
    context = chromium.new_context(viewport=size, color_scheme=scheme, offline=True)
    page, said = context.new_page(), []
    page.set_default_timeout(WAIT_MS)
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: said.append(request.url) if request.url.startswith("http") else None)
    page.goto(page_path.as_uri())
    charts = page.locator(".chart")
    assert charts.count() >= 15
    for place in range(charts.count()):
        charts.nth(place).scroll_into_view_if_needed()
        page.wait_for_function("place => document.querySelectorAll('.chart')[place].dataset.drawn", arg=place)
    assert not said
    assert page.evaluate("document.documentElement.scrollWidth") == size["width"]
    assert page.evaluate("[...document.images].every((image) => image.decode && image.alt)")
    assert page.evaluate(OUTSIDE, scheme) == []
    light = page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert light == (scheme == "light")
    context.close()


def test_legends_and_labels_do_not_overlap(chromium, page_path):
    context = chromium.new_context(viewport=PHONE)
    page = context.new_page()
    page.set_default_timeout(WAIT_MS)
    page.goto(page_path.as_uri())
    for name in ("metrics", "errors", "differences", "groups-length", "confusion-verb"):
        chart = page.locator(f"#figure-{name}")
        chart.scroll_into_view_if_needed()
        page.wait_for_function("id => document.getElementById(id).dataset.drawn", arg=f"figure-{name}")
        boxes = chart.evaluate("""(chart) => [...chart.querySelectorAll('svg text')].filter((text) =>
            text.textContent.trim() && getComputedStyle(text).opacity !== '0' && text.getAttribute('opacity') !== '0')
            .map((text) => [text.textContent, text.getBoundingClientRect().toJSON()])""")
        assert boxes, name
        for place, (text, box) in enumerate(boxes):
            for other_text, other in boxes[:place]:
                wide = min(box["right"], other["right"]) - max(box["left"], other["left"])
                high = min(box["bottom"], other["bottom"]) - max(box["top"], other["top"])
                turned = box["height"] > 2 * 14 or other["height"] > 2 * 14  # boxes of slanted text are too large
                assert turned or wide < 1.5 or high < 3, (name, text, other_text)
    context.close()


def test_the_page_turns_dark_while_it_is_open(chromium, page_path):
    context = chromium.new_context(viewport=DESKTOP, color_scheme="light")
    page = context.new_page()
    page.set_default_timeout(WAIT_MS)
    page.goto(page_path.as_uri())
    page.wait_for_selector("#figure-metrics[data-drawn=light]")
    page.emulate_media(color_scheme="dark")
    page.wait_for_selector("#figure-metrics[data-drawn=dark]")
    context.close()


def test_zoom_by_keyboard_and_menu_of_videos(chromium, page_path):
    context = chromium.new_context(viewport=DESKTOP)
    page = context.new_page()
    page.set_default_timeout(WAIT_MS)
    page.goto(page_path.as_uri())

    def labels(name):
        return page.locator(f"#figure-{name}").evaluate(LABELS)

    def wait_for(name, sign, texts):
        code = f"([id, texts]) => ({LABELS})(document.getElementById(id)) {sign}== texts"
        page.wait_for_function(code, arg=[f"figure-{name}", texts])

    for name in ("confusion-verb", "timeline"):
        page.locator(f"#figure-{name}").scroll_into_view_if_needed()
        page.wait_for_selector(f"#figure-{name}[data-drawn]")
        whole = labels(name)
        bar = page.locator(f".zoom[data-for=figure-{name}]")
        bar.get_by_role("button", name="zoom in").focus()
        page.keyboard.press("Enter")
        wait_for(name, "!", whole)
        bar.get_by_role("button", name="all").click()
        wait_for(name, "=", whole)
    menu = page.locator("#figure-timeline select")
    videos = menu.locator("option").all_text_contents()
    assert len(videos) > 1 and videos == sorted(videos)
    before = labels("timeline")
    menu.select_option(next(video for video in videos if video != menu.input_value()))
    wait_for("timeline", "!", before)
    context.close()
