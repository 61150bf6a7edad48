"""The explorer's page in a real Chromium: filters, keys, pictures, comparison, light, dark, phone."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from explorer_process import ANNOTATIONS, DAMAGED_VIDEO, explorer, spoiled_copy, write_scores

DESKTOP, PHONE = (1440, 900), (390, 844)
ROWS = "#table tbody tr[data-id]"
WAIT_MS = 300_000
"""for a browser on a busy machine"""
LIGHT, DARK = "rgb(255, 255, 255)", "rgb(20, 23, 27)"


@pytest.fixture(scope="module")
def server(toy_root, tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    root = spoiled_copy(toy_root, folder / "kitchen")
    runs = [write_scores(folder / f"{name}.npz", root, seed) for seed, name in enumerate(("first", "second"))]
    with explorer("--data", root, "--run", *runs) as running:
        yield running


@pytest.fixture(scope="module")
def official(ek100_annotations, tmp_path_factory):
    """All of EK-100, without videos or runs."""
    root = tmp_path_factory.mktemp("official")
    (root / ANNOTATIONS).symlink_to(ek100_annotations)
    with explorer("--data", root) as running:
        yield running


@contextmanager
def opened(chromium, server, target: str = "", size=DESKTOP, **options) -> Iterator:
    """A page with its rows; in the end nothing may have been said on its console, and nothing sticks out."""
    width, height = size
    page = chromium.new_page(viewport={"width": width, "height": height}, **options)
    page.set_default_timeout(WAIT_MS)
    said, foreign = [], []
    page.on("console", lambda message: said.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: said.append(f"error: {error}"))
    page.on("request", lambda request: foreign.append(request.url) if not ours(request.url, server) else None)
    try:
        page.goto(server.url + target)
        page.wait_for_selector("#segments[aria-busy=false]")
        yield page
        assert not [line for line in said if "severe" not in line], said
        assert foreign == []
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.title() != "owned"
    finally:
        page.close()


def ours(url: str, server) -> bool:
    return url.startswith((server.url, "data:", "blob:"))


def after(page, act) -> None:
    """Do something that asks for rows, and wait for them."""
    draw = int(page.get_attribute("#segments", "data-draw"))
    act()
    page.wait_for_function("draw => Number(document.querySelector('#segments').dataset.draw) > draw", arg=draw)


def ids(page) -> list[str]:
    return page.eval_on_selector_all(ROWS, "rows => rows.map(row => row.dataset.id)")


def current(page) -> str | None:
    return page.evaluate("document.querySelector('#table tr[aria-current]')?.dataset.id ?? null")


def matched(page) -> int:
    return int(page.inner_text("#summary strong").replace(",", ""))


def ready(page) -> None:
    page.wait_for_selector(".player[data-state=ready]")


def settled(page) -> None:
    page.wait_for_selector(".player[data-state=ready], .player[data-state=fault]")


def choose(page, name: str, value: str) -> None:
    after(page, lambda: page.select_option(f"[name={name}]", value))


def test_filters(chromium, server):
    with opened(chromium, server) as page:
        assert page.input_value("[name=split]") == "validation"  # what the runs were scored on
        assert len(ids(page)) == matched(page) == 8
        right, wrong = [], []
        for value, found in (("right", right), ("wrong", wrong)):
            choose(page, "action_is", value)
            found += ids(page)
            marks = page.eval_on_selector_all(f"{ROWS} .c-confidence .mark", "all => all.map(each => each.textContent)")
            assert marks == ["✓right: " if value == "right" else "✗wrong: "] * len(found)
        choose(page, "action_is", "")
        assert sorted(right + wrong) == sorted(ids(page))
        after(page, lambda: page.fill("#search", "carrot"))
        assert matched(page) == page.locator(ROWS).filter(has_text="carrot").count() > 0
        after(page, lambda: page.click("text=Clear filters"))
        assert (page.input_value("#search"), matched(page)) == ("", 8)
        choose(page, "split", "")
        assert matched(page) == 36
        choose(page, "participant", "P02")
        videos = page.eval_on_selector_all("[name=video] option", "all => all.map(each => each.value).slice(1)")
        assert videos
        assert all(video.startswith("P02_") for video in videos)
        choose(page, "video", videos[0])
        assert all(each.startswith(videos[0]) for each in ids(page))


def test_the_address_keeps_filters_order_and_segment(chromium, server):
    with opened(chromium, server) as page:
        choose(page, "verb_is", "right")
        after(page, lambda: page.click("th.c-confidence"))
        page.click(f"{ROWS} >> nth=0")
        settled(page)
        before, address = ids(page), page.url
    with opened(chromium, server, address.removeprefix(server.url)) as page:
        assert ids(page) == before
        assert page.get_attribute("th.c-confidence", "aria-sort") == "descending"
        assert page.input_value("[name=verb_is]") == "right"
        settled(page)
        assert page.get_attribute("#panel", "data-id") == before[0] == current(page)


def test_a_confidence_that_is_no_number_is_told(chromium, server):
    with opened(chromium, server) as page:
        answers = []
        page.on("response", lambda response: answers.append(response.status))
        after(page, lambda: page.fill("[name=at_least]", "30"))
        few = matched(page)
        after(page, lambda: page.fill("[name=at_least]", "0"))
        assert few < matched(page) == 8
        assert page.is_hidden("#fault")
        assert set(answers) == {200}


def test_keys(chromium, server):
    with opened(chromium, server) as page:
        order = ids(page)
        page.keyboard.press("/")
        assert page.evaluate("document.activeElement.id") == "search"
        after(page, lambda: page.keyboard.type("jk?"))  # letters in a field are letters
        assert page.input_value("#search") == "jk?"
        assert page.is_hidden("#help")
        page.wait_for_selector(".dt-empty")
        page.fill("#search", "")
        page.keyboard.press("Enter")
        page.wait_for_selector(f"{ROWS}[aria-current]")
        assert current(page) == order[0]
        for key, place in (("j", 1), ("ArrowDown", 2), ("j", 3), ("k", 2), ("ArrowUp", 1)):
            page.keyboard.press(key)
            assert current(page) == order[place] == page.evaluate("document.activeElement.dataset.id")
        assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
        page.keyboard.press("Enter")
        ready(page)
        assert page.get_attribute("#panel", "data-id") == order[1]
        assert page.get_attribute(".player", "data-playing") == "true"
        page.keyboard.press("Space")
        assert page.get_attribute(".player", "data-playing") == "false"
        at = int(page.input_value(".player input"))
        page.keyboard.press("ArrowRight")
        assert int(page.input_value(".player input")) == (at + 1) % 32
        page.keyboard.press("ArrowLeft")
        page.keyboard.press("ArrowLeft")
        assert int(page.input_value(".player input")) == (at - 1) % 32
        page.keyboard.press("j")
        page.wait_for_selector(f"#panel[data-id={order[2]}]")
        page.keyboard.press("?")
        assert page.is_visible("#help")
        page.keyboard.press("Escape")  # closes the help, not the segment behind it
        assert page.is_hidden("#help")
        assert page.is_visible("#panel")
        page.keyboard.press("Escape")
        assert page.is_hidden("#panel")
        assert page.evaluate("document.activeElement.dataset.id") == order[2]
        page.keyboard.press("k")
        page.keyboard.press("k")
        page.keyboard.press("k")  # beyond the first
        assert current(page) == order[0]


def test_pictures_play(chromium, server):
    """The canvas shows what changes over time; scrubbing shows one picture and stays."""
    image = "document.querySelector('.player canvas').toDataURL()"
    with opened(chromium, server) as page:
        page.click(f"{ROWS} >> nth=1")
        ready(page)
        seen = []
        for _ in range(3):
            page.wait_for_function(f"seen => !seen.includes({image})", arg=seen)
            seen.append(page.evaluate(image))
        page.fill(".player input", "5")
        first = page.evaluate("document.querySelector('.player canvas').toDataURL()")
        page.wait_for_timeout(300)
        assert page.evaluate("document.querySelector('.player canvas').toDataURL()") == first
        assert page.get_attribute(".player canvas", "aria-label") == "Picture 6 of 32"
        page.fill(".player input", "20")
        assert page.evaluate("document.querySelector('.player canvas').toDataURL()") != first
        page.click(".player button")
        assert page.get_attribute(".player", "data-playing") == "true"


def test_nothing_moves_for_who_wants_no_motion(chromium, server):
    with opened(chromium, server, reduced_motion="reduce") as page:
        page.click(f"{ROWS} >> nth=1")
        ready(page)
        assert page.get_attribute(".player", "data-playing") == "false"
        page.keyboard.press("Space")
        assert page.get_attribute(".player", "data-playing") == "true"


def test_a_damaged_video_is_told_in_the_page(chromium, server):
    with opened(chromium, server, f"?video={DAMAGED_VIDEO}&split=") as page:
        page.click(f"{ROWS} >> nth=0")
        page.wait_for_selector(".player[data-state=fault]")
        assert f"{DAMAGED_VIDEO}.MP4" in page.inner_text(".note")
        assert "first" in page.inner_text(".scores")  # what is known is shown all the same


def test_a_hostile_narration_is_text(chromium, server):
    with opened(chromium, server) as page:
        row = page.locator(ROWS).filter(has_text="<script>")
        assert row.count() == 1
        row.click()
        ready(page)
        assert "<img src=x" in page.inner_text("#panel-title")
        assert page.locator("#table img, #panel img, #table script, #panel script").count() == 0


def test_scores_of_a_segment(chromium, server):
    with opened(chromium, server) as page:
        page.click(f"{ROWS} >> nth=2")
        settled(page)
        id_ = page.get_attribute("#panel", "data-id")
        segment = server.get("/api/segment", id=id_).json()
        lists = page.locator("#panel ol")
        assert lists.count() == 6  # three tasks, two runs
        for task_place, task in enumerate(("verb", "noun", "action")):
            for run_place, run in enumerate(segment["runs"]):
                shown = lists.nth(2 * task_place + run_place)
                assert shown.get_attribute("aria-label") == f"{run['name']}, {task}"
                best = run["tasks"][task]["best"]
                texts = shown.locator("li").all_inner_texts()
                assert len(texts) == 5 + (not any(each["true"] for each in best))
                for each, text in zip(best, texts, strict=False):
                    assert each["name"] in text
                    assert f"{100 * each['prob']:.1f} %" in text
                    assert ("truth" in text) == each["true"]
                assert sum("truth" in text for text in texts) == 1


def test_two_runs(chromium, server):
    with opened(chromium, server) as page:
        counts = server.get("/api/rows", other=1).json()["pairs"]
        total = 0
        for name, words in (("both_right", "Both right"), ("only_first", "Only first right"),
                            ("only_second", "Only second right"), ("both_wrong", "Both wrong")):  # fmt: skip
            after(page, lambda name=name: page.check(f"[name=pair][value={name}]"))
            label = page.locator(f"#pairs label:has([value={name}])").inner_text()
            assert [part.strip() for part in label.split("\n") if part.strip()] == [words, str(counts[name])]
            assert matched(page) == counts[name]
            total += matched(page)
        assert total == 8
        after(page, lambda: page.check("[name=pair][value='']"))
        first, second = page.locator("#summary .accuracy").all_inner_texts()
        choose(page, "run", "1")
        choose(page, "other", "0")
        swapped = page.locator("#summary .accuracy").all_inner_texts()
        assert swapped[0].split("second")[1] == second.split("second")[1]
        assert swapped[1].split("first")[1] == first.split("first")[1]
        choose(page, "other", "")
        assert page.is_hidden("th.c-predicted-other")
        assert page.is_hidden("#pairs")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_plots_in_light_and_dark(chromium, server, scheme):
    with opened(chromium, server, "?split=", color_scheme=scheme) as page:
        background = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert background == (LIGHT if scheme == "light" else DARK)
        page.click("#plots-button")
        page.wait_for_selector("#plots[data-state=ready]")
        assert page.locator(".chart canvas").count() == 2
        assert page.get_attribute(".chart >> nth=0", "data-theme") == scheme
        label = page.get_attribute(".chart >> nth=0", "aria-label")
        assert re.match(r"[a-z-]+ \d+, \d+(\.\d)? % right; ", label)
        pixels = page.evaluate(
            """() => { const canvas = document.querySelector('.chart canvas');
            const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
            const found = new Set(); for (let i = 0; i < data.length; i += 4) if (data[i + 3] === 255)
            found.add([data[i], data[i + 1], data[i + 2]].join()); return [...found]; }"""
        )
        assert {"42,134,200", "213,94,0"} <= set(pixels)  # right and wrong
        other = "dark" if scheme == "light" else "light"
        page.emulate_media(color_scheme=other)
        page.wait_for_selector(f".chart[data-theme={other}]")
        page.wait_for_selector("#plots[data-state=ready]")


def test_a_bar_filters_by_its_class(chromium, server):
    with opened(chromium, server, "?split=&plots=1") as page:
        page.wait_for_selector("#plots[data-state=ready]")
        box = page.locator(".chart >> nth=0 >> canvas").bounding_box()
        after(page, lambda: page.mouse.click(box["x"] + 100, box["y"] + 40))  # the first bar
        chosen = page.eval_on_selector("[name=verb]", "each => each.selectedOptions[0].textContent")
        assert chosen != "all"
        assert set(page.locator(f"{ROWS} .c-verb").all_inner_texts()) == {chosen}


def test_a_phone(chromium, server):
    with opened(chromium, server, size=PHONE, has_touch=True, is_mobile=True) as page:
        assert page.is_hidden("[name=verb]")
        page.tap("summary")
        choose(page, "verb_is", "right")
        for field in page.locator("select:visible, input:visible:not([type=radio])").all():
            box = field.bounding_box()
            assert box["x"] >= 0
            assert box["x"] + box["width"] <= PHONE[0]
            assert box["height"] >= 34
        page.tap("summary")
        page.tap("#plots-button")
        page.wait_for_selector("#plots[data-state=ready]")
        page.tap(f"{ROWS} >> nth=0")
        ready(page)
        box = page.locator("#panel").bounding_box()
        assert (box["x"], box["y"], box["width"]) == (0, 0, PHONE[0])
        assert page.evaluate("document.querySelector('main').inert")
        assert page.evaluate("document.querySelector('#panel').scrollWidth") <= PHONE[0]
        page.tap("#panel >> [aria-label='Next segment']")
        page.wait_for_selector(f"#panel[data-id={ids(page)[1]}]")
        page.tap("#panel >> [aria-label='Close the segment']")
        assert page.is_hidden("#panel")
        assert not page.evaluate("document.querySelector('main').inert")


@pytest.mark.parametrize("target", ["", "#P02_01_1"])
def test_nothing_sticks_out_at_any_width(chromium, server, target):
    with opened(chromium, server, target, size=(1920, 800)) as page:
        if target:
            ready(page)
        for width in (320, 600, 768, 1024, 1280, 1920):
            page.set_viewport_size({"width": width, "height": 800})
            page.evaluate("new Promise(then => requestAnimationFrame(() => requestAnimationFrame(then)))")  # laid out
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            inside = page.evaluate(
                "['main', '#segments', '#panel', '#filters-box'].map(name => document.querySelector(name))"
                ".every(each => each.hidden || each.scrollWidth <= each.clientWidth)"
            )
            assert inside, width


def test_every_control_has_a_name(chromium, server):
    with opened(chromium, server, "?plots=1#P02_01_1") as page:
        ready(page)
        page.wait_for_selector("#plots[data-state=ready]")
        nameless = page.evaluate(
            """() => [...document.querySelectorAll('button, select, input, [role=img], dialog, table')].filter((each) =>
            !(each.getAttribute('aria-label') || each.getAttribute('aria-labelledby') || each.labels?.length ||
            each.caption?.textContent || (each.tagName === 'BUTTON' && each.textContent.trim())))
            .map((each) => each.outerHTML.slice(0, 90))"""
        )
        assert nameless == []


def test_all_of_ek100_without_runs_and_videos(chromium, official):
    with opened(chromium, official) as page:
        assert matched(page) == 89_977
        assert page.is_hidden("[name=action_is]")
        assert len(ids(page)) == 50
        for _ in range(50):
            page.keyboard.press("j")
        assert current(page) == ids(page)[49]
        after(page, lambda: page.keyboard.press("j"))  # over to the second page
        page.wait_for_function(
            "() => document.activeElement.dataset.id === document.querySelector('#table tr[data-id]').dataset.id"
        )
        assert "page=2" in page.url
        after(page, lambda: page.keyboard.press("k"))
        assert current(page) == ids(page)[49]
        after(page, lambda: page.fill("#search", "open drawer"))
        assert matched(page) > 1000
        choose(page, "split", "test")
        assert matched(page) == 0
        assert page.inner_text(".dt-empty") == "No segment passes the filters."
        after(page, lambda: page.fill("#search", ""))
        assert matched(page) == 13_092
        page.click(f"{ROWS} >> nth=0")
        page.wait_for_selector(".player[data-state=fault]")
        assert "no such video" in page.inner_text(".note")
        assert "not public for this split" in page.inner_text(".scores")
        page.click("#plots-button")
        page.wait_for_selector("#plots[data-state=ready]")


def test_a_server_that_is_gone_is_told(chromium, toy_root):
    with explorer("--data", toy_root) as server:
        page = chromium.new_page()
        page.set_default_timeout(WAIT_MS)
        page.goto(server.url)
        page.wait_for_selector("#segments[aria-busy=false]")
    page.fill("#search", "cup")
    page.wait_for_selector("#fault:visible")
    assert page.inner_text("#fault") == "The server does not answer. Is egochef explore still running?"
    page.close()
