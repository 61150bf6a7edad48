"""Splits to test the report on: tiny random ones, and the whole official validation set with made-up scores."""

import io
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from conftest import need
from PIL import Image
from plain import Plain, Row, Said, best_five, read_plain, read_rows, said_of, softmax

from egochef.data.annotations import DataFolder, Segment, open_data_folder
from egochef.inference.scoring import truth_of
from egochef.report.analysis import Outcome, Split, open_split, outcome_of
from egochef.report.scores import read_scores
from egochef.scoring.ensemble import ensemble
from egochef.scoring.table import ScoreTable, save_scores
from egochef.taxonomy import Taxonomy

if TYPE_CHECKING:
    from playwright.sync_api import Browser

ANNOTATIONS = "epic-kitchens-100-annotations"
WAIT_MS = 300_000
"""for a browser on a busy machine"""


@dataclass(frozen=True, eq=False)
class Case:
    """The same segments and scores for the report's code and for plain loops."""

    split: Split
    tables: dict[str, ScoreTable]
    """by model, rows as the split's segments"""
    outcomes: dict[str, Outcome]
    plain: Plain


@dataclass(frozen=True)
class Real:
    """The official validation set with scores of two models in files, whose rows are in other orders."""

    root: Path
    files: tuple[Path, ...]
    plain: Plain
    """models early, late, and ensemble"""


@pytest.fixture(scope="module")
def chromium() -> Iterator["Browser"]:
    """A browser without a window, once a file: while it runs, nothing else in this process can use asyncio."""
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    need(path is not None, "Chromium")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        need(False, "playwright")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"], timeout=WAIT_MS)
        yield browser
        browser.close()


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Vega, which takes seconds a report, draws nothing: for tests that look at other things than figures."""
    import vl_convert

    file = io.BytesIO()
    Image.new("RGB", (2, 2)).save(file, "PNG")
    monkeypatch.setattr(vl_convert, "vegalite_to_png", lambda spec, scale: file.getvalue())
    monkeypatch.setattr(vl_convert, "vegalite_to_svg", lambda spec: "<svg/>")
    monkeypatch.setattr(vl_convert, "javascript_bundle", lambda snippet: "")
    monkeypatch.setattr("altair.utils.schemapi.validate_jsonschema", lambda *_, **__: None)


@pytest.fixture(scope="session")
def make_case() -> Callable[..., Case]:
    return small_case


def small_case(
    seed: int,
    num_rows: int = 20,
    num_verbs: int = 4,
    num_nouns: int = 5,
    num_videos: int = 12,
    kind: str = "logits",
    with_actions: bool = False,
    has_train: bool = True,
    num_models: int = 2,
) -> Case:
    """Everything is random. Lengths are often exactly at the ends of bins."""
    rng = np.random.default_rng(seed)
    rows = []
    for place in range(num_rows):
        video = int(rng.integers(num_videos))
        start = Decimal(int(rng.integers(4_000_00))) / 100
        edge = rng.random() < 0.4
        length = Decimal(str(rng.choice([0.5, 1, 2, 4, 8]))) if edge else Decimal(int(rng.integers(1, 12_00))) / 100
        participant = f"P{video % 4:02d}"
        rows.append(
            Row(
                f"{participant}_{video:02d}_{place}",
                participant,
                f"{participant}_{video:02d}",
                start,
                start + length,
                int(rng.integers(num_verbs)),
                int(rng.integers(num_nouns)),
            )
        )
    segments = tuple(
        Segment(row.narration_id, row.participant, row.video, float(row.start), float(row.stop), row.verb, row.noun,
                "cut the cake", 1) for row in rows
    )  # fmt: skip
    unseen = {"P00", "P03"} if rng.random() < 0.8 else set()
    tail_verbs, tail_nouns = ({int(each) for each in rng.integers(num, size=2)} for num in (num_verbs, num_nouns))
    verbs, nouns = [f"verb {each}" for each in range(num_verbs)], [f"noun {each}" for each in range(num_nouns)]
    train: Counter[tuple[int, int]] = Counter()
    for _ in range(int(rng.integers(1, num_verbs * num_nouns + 1))):
        train[int(rng.integers(num_verbs)), int(rng.integers(num_nouns))] += int(rng.choice([1, 8, 9, 10, 95, 1000]))
    folder = DataFolder(
        Path("drawn"), Path("drawn"), Taxonomy(tuple(verbs), tuple(nouns)), frozenset(tail_verbs),
        frozenset(tail_nouns), {"validation": frozenset(unseen)}, frozenset(),
    )  # fmt: skip
    split = Split(
        folder=folder,
        name="validation",
        segments=segments,
        truth=truth_of(folder, "validation", segments),
        video=np.array([row.video for row in rows]),
        train=_counted(train, num_verbs, num_nouns) if has_train else None,
    )
    tables, said = {}, {}
    for model in [f"model {number}" for number in range(num_models)]:
        tables[model], said[model] = _random_scores(rng, rows, num_verbs, num_nouns, kind, with_actions)
    plain = Plain(rows, said, train if has_train else None, tail_verbs, tail_nouns, unseen, verbs, nouns)
    return Case(split, tables, {name: outcome_of(name, table, split) for name, table in tables.items()}, plain)


def _counted(train, num_verbs, num_nouns):
    counts = {
        "verb": np.zeros(num_verbs, dtype=np.int64),
        "noun": np.zeros(num_nouns, dtype=np.int64),
        "action": np.zeros(num_verbs * num_nouns, dtype=np.int64),
    }
    for (verb, noun), count in train.items():
        counts["verb"][verb] += count
        counts["noun"][noun] += count
        counts["action"][verb * num_nouns + noun] += count
    return counts


def _random_scores(rng, rows, num_verbs, num_nouns, kind, with_actions):
    """A table, and what it says row by row. Listed actions have scores of their own."""
    verb, noun = (2 * rng.standard_normal((len(rows), num)) for num in (num_verbs, num_nouns))
    pairs = np.array([1000 * v + n for v in range(num_verbs) for n in range(num_nouns)])
    listed = int(rng.integers(1, len(pairs) + 1))
    action_id = np.array([rng.permutation(pairs)[:listed] for _ in rows])
    action = 2 * rng.standard_normal(action_id.shape)
    if kind == "probs":
        verb, noun, action = (np.array([softmax(row) for row in scores.tolist()]) for scores in (verb, noun, action))
    given = (action_id, action) if with_actions else (None, None)
    table = ScoreTable(np.array([row.narration_id for row in rows]), verb, noun, kind, *given)
    said = []
    for place in range(len(rows)):
        v, n, a = (scores[place].astype(np.float32).tolist() for scores in (verb, noun, action))
        if kind == "logits":
            v, n, a = softmax(v), softmax(n), softmax(a)
            together = sum(v[action // 1000] * n[action % 1000] for action in action_id[place].tolist())
            a = [prob * together for prob in a]  # they only compare the listed
        else:  # float32 sums to 1 within 1e-7
            v, n, a = ([prob / sum(probs) for prob in probs] for probs in (v, n, a))
        actions = dict(zip(action_id[place].tolist(), a, strict=True)) if with_actions else None
        said.append(said_of(v, n, actions))
    return table, said


def _said_of_all(verb: np.ndarray, noun: np.ndarray) -> list[Said]:
    """`said_of` of each row, by the classes that can be among its five best."""
    said = []
    best = [np.argsort(-probs, axis=1, kind="stable")[:, :5] for probs in (verb, noun)]
    for place in range(len(verb)):
        few = [{int(each): float(probs[place, each]) for each in order[place]}
               for probs, order in zip((verb, noun), best, strict=True)]  # fmt: skip
        actions = {1000 * v + n: p * q for v, p in few[0].items() for n, q in few[1].items()}
        said.append(Said(*(best_five(each, each) for each in (*few, actions))))
    return said


@pytest.fixture(scope="session")
def real(ek100_annotations, tmp_path_factory) -> Real:
    """Model early has logits, late has probabilities and is better; videos differ in how hard they are."""
    folder = tmp_path_factory.mktemp("real")
    root = folder / "EPIC-KITCHENS"
    root.mkdir()
    (root / ANNOTATIONS).symlink_to(ek100_annotations)
    rows = read_rows(ek100_annotations, "validation")
    rng = np.random.default_rng(100)
    videos = {video: rng.normal(0, 0.7) for video in sorted({row.video for row in rows})}
    hard = np.array([videos[row.video] for row in rows])
    probs = {}
    for model, skill in (("early", 4.0), ("late", 5.0)):
        both = []
        for task, num_classes in (("verb", 97), ("noun", 300)):
            scores = 1.5 * rng.standard_normal((len(rows), num_classes))
            scores[np.arange(len(rows)), [getattr(row, task) for row in rows]] += rng.normal(skill + hard, 2.0)
            both.append(scores.astype(np.float32))
        order = rng.permutation(len(rows))
        kind = "logits" if model == "early" else "probs"
        if kind == "probs":
            both = [np.exp(x.astype(float)) / np.exp(x.astype(float)).sum(axis=1, keepdims=True) for x in both]
            both = [x.astype(np.float32) for x in both]
        ids = np.array([row.narration_id for row in rows])
        save_scores(folder / f"{model}.npz", ScoreTable(ids[order], both[0][order], both[1][order], kind))
        probs[model] = (kind, *both)
    found = {}
    for model, (kind, *both) in probs.items():  # as plain.softmax, a row at a time, but quicker
        both = [scores.astype(float) for scores in both]
        if kind == "logits":
            both = [np.exp(scores - scores.max(axis=1, keepdims=True)) for scores in both]
            both = [powers / powers.sum(axis=1, keepdims=True) for powers in both]
        found[model] = both
    found["ensemble"] = [(early + late) / 2 for early, late in zip(found["early"], found["late"], strict=True)]
    said = {model: _said_of_all(*both) for model, both in found.items()}
    return Real(root, (folder / "early.npz", folder / "late.npz"), read_plain(ek100_annotations, said))


@pytest.fixture(scope="session")
def real_case(real) -> Case:
    """The official validation set as the report's code reads it."""
    folder = open_data_folder(real.root)
    split = open_split(folder, "validation")
    scores = read_scores(real.files, folder, "validation", split.segments)
    tables = {each.name: each.table for each in scores}
    tables["ensemble"] = ensemble(list(tables.values()))
    return Case(split, tables, {name: outcome_of(name, table, split) for name, table in tables.items()}, real.plain)
