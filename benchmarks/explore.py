"""Measures `egochef explore` at EK-100's size: its start, its first page and its filters, over HTTP and in Chromium.

Run as `python benchmarks/explore.py ANNOTATIONS`, the folder of the official CSV files: prints one JSON object with the
machine it was measured on, and leaves nothing behind. Two models' scores of the validation split are made up; no videos
are needed. Without Chromium or playwright its part is left out.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

REPEATS = 15
FIRST_PAGE = ("/", "/static/theme.css", "/static/app.css", "/static/app.js", "/static/dom.js", "/static/panel.js",
              "/static/player.js", "/static/plots.js", "/static/datatables.js", "/api/about", "/api/rows")  # fmt: skip
RUNS = "run=0&other=1"
FILTERS = {
    "verb and noun": "verb=3&noun=3",
    "split and participant": "split=train&participant=P22",
    "one word": "search=drawer",
    "four words": "search=put+the+big+p01",
    "a letter": "search=a",
    "wrong, surest first": f"{RUNS}&action_is=wrong&verb_is=right&sort=confidence&order=desc",
    "only the second right": f"{RUNS}&pair=only_second&at_least=10",
    "all by narration": "sort=narration&order=desc",
    "all, the last page": "start=89950",
}
IN_CHROMIUM = {"split": "train", "participant": "P22", "verb": "3", "action_is": "wrong", "task": "verb"}
"""choices in the page, one after the other from all rows"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("annotations", type=Path, help="folder of the EPIC_100_*.csv files")
    annotations = parser.parse_args().annotations.resolve()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "data"
        root.mkdir()
        (root / "epic-kitchens-100-annotations").symlink_to(annotations)
        scores = made_up_scores(root, Path(folder))
        with server(root) as (url, start_s):
            found: dict[str, Any] = {"without_runs": {"start_s": round(start_s, 2)} | over_http(url, with_runs=False)}
        with server(root, *scores) as (url, start_s):
            found["with_two_runs"] = {"start_s": round(start_s, 2)} | over_http(url, with_runs=True)
            chromium = in_chromium(url)
    from egochef.runtime import describe_machine  # brings torch

    machine = describe_machine() | {"load_average": round(os.getloadavg()[0], 2)}
    print(json.dumps({"machine": machine, **found, "chromium": chromium}, indent=1))


def made_up_scores(root: Path, folder: Path) -> list[Path]:
    """Scores of two models of the validation split."""
    from egochef.data.annotations import open_data_folder, read_split
    from egochef.scoring.table import ScoreTable, save_scores

    segments = read_split(open_data_folder(root), "validation")
    ids = np.array([segment.narration_id for segment in segments])
    paths = [folder / "early.npz", folder / "late.npz"]
    for seed, path in enumerate(paths):
        rng = np.random.default_rng(seed)
        verbs, nouns = (rng.normal(size=(len(ids), num)) for num in (97, 300))
        for place, segment in enumerate(segments):
            verbs[place, segment.verb] += 6 * rng.random()
            nouns[place, segment.noun] += 6 * rng.random()
        save_scores(path, ScoreTable(ids, verbs, nouns, "logits"))
    return paths


@contextmanager
def server(root: Path, *scores: Path) -> Iterator[tuple[str, float]]:
    """The page's address, and the seconds from the command to it."""
    command = [sys.executable, "-m", "egochef", "explore", "--data", str(root), "--port", "0", "--no-browser"]
    command += ["--run", *map(str, scores)] if scores else []
    start_s = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        seconds = time.perf_counter() - start_s
        found = re.fullmatch(r"(http://\S+)/\n", line)
        if found is None:
            raise SystemExit(f"egochef explore did not start: {' '.join(command)}")
        yield found[1], seconds
    finally:
        process.terminate()
        process.wait()


def over_http(url: str, *, with_runs: bool) -> dict[str, Any]:
    """Milliseconds: everything of the first page one after the other, then each filter's first and median answer."""
    first = sum(get(url + path) for path in FIRST_PAGE)
    filters, figures = {}, []
    for name, query in FILTERS.items():
        if RUNS in query and not with_runs:
            continue
        times = [get(f"{url}/api/rows?{query}") for _ in range(REPEATS)]
        filters[name] = {"first_ms": round(times[0], 1), "median_ms": round(median(times), 1)}
        plain = re.sub(r"&?(sort|order|start)=\w+", "", query).strip("&")
        figures.append(median(get(f"{url}/api/plots?{plain}") for _ in range(REPEATS)))
    worst = max(value for each in filters.values() for value in each.values())
    return {"first_page_ms": round(first, 1), "filters": filters, "worst_filter_ms": worst,
            "worst_plots_median_ms": round(max(figures), 1)}  # fmt: skip


def get(url: str) -> float:
    """Milliseconds to the last byte of an answer."""
    start_s = time.perf_counter()
    with urllib.request.urlopen(url) as answer:
        answer.read()
    return 1000 * (time.perf_counter() - start_s)


def in_chromium(url: str) -> dict[str, Any] | None:
    """Milliseconds as a person sees them: from a choice to rows on the page."""
    path = shutil.which("chromium")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        return None
    if path is None:
        return None
    choose = """([name, value]) => new Promise((done) => {
        const field = document.forms.filters.elements[name], box = document.querySelector('#segments');
        const before = box.dataset.draw, start = performance.now();
        new MutationObserver((_, seen) => { if (box.dataset.draw !== before) { seen.disconnect();
            requestAnimationFrame(() => done(performance.now() - start)); } }).observe(box, { attributes: true });
        field.value = value;
        field.dispatchEvent(new Event(name === 'search' ? 'input' : 'change', { bubbles: true }));
    })"""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        pages, choices = [], {}
        for _ in range(5):
            page = browser.new_page()
            page.goto(f"{url}/?split=")
            page.wait_for_selector("#segments[data-draw]")
            pages.append(page.evaluate("performance.now()"))
            page.close()
        page = browser.new_page()
        page.goto(f"{url}/?split=")
        page.wait_for_selector("#segments[data-draw]")
        for name, value in (*IN_CHROMIUM.items(), ("search", "drawer")):
            times = []
            for _ in range(7):
                times.append(page.evaluate(choose, [name, value]))
                page.evaluate(choose, [name, ""])
            choices[name] = round(median(times), 1)
        start_s = time.perf_counter()
        page.click("#plots-button")
        page.wait_for_selector("#plots[data-state=ready]")
        plots_ms = 1000 * (time.perf_counter() - start_s)
        version = browser.version
        browser.close()
    return {"version": version, "first_page_ms": {"first": round(pages[0], 1), "median": round(median(pages), 1)},
            "filters_median_ms": choices, "first_plots_ms": round(plots_ms, 1)}  # fmt: skip


if __name__ == "__main__":
    main()
