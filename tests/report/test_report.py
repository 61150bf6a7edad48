"""`egochef report` as a person runs it: what it writes is right, and what it cannot read it says in one line."""

import contextlib
import csv
import dataclasses
import io
import json
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree
from collections import Counter
from html.parser import HTMLParser

import numpy as np
import plain as by_hand
import pytest
from PIL import Image
from table_edits import change, set_value
from tiny_runs import TINY

from egochef.cli.main import main
from egochef.data.annotations import open_data_folder, read_split
from egochef.files import write_json
from egochef.model.checkpoint import BEST, load_checkpoint, save_checkpoint
from egochef.records import to_dict
from egochef.report.scores import read_scores, short_names
from egochef.scoring.table import take_rows
from egochef.training.loop import train

ANNOTATIONS = "epic-kitchens-100-annotations"
MODELS = ("early", "late", "ensemble")
TASKS = ("verb", "noun", "action")
MAX_BYTES = 15e6
pytestmark = pytest.mark.usefixtures("undrawn")  # of this process; the whole validation set's report is another's


class Page(HTMLParser):
    """A page's tables (caption, cells), what its elements point to, and its scripts."""

    def __init__(self, path):
        super().__init__()
        self.tables, self.links, self.scripts, self.styles, self.elements = [], [], [], [], Counter()
        self.figures, self.text = [], ""
        self._inside = None
        self.feed(path.read_text(encoding="utf-8"))
        self.close()

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.elements[tag] += 1
        self.links += [found[name] for name in ("src", "href", "data", "poster", "srcset") if name in found]
        if "data-figure" in found:
            self.figures.append(found["data-figure"])
        if tag == "table":
            self.tables.append(["", []])
        elif tag == "tr":
            self.tables[-1][1].append([])
        elif tag in ("th", "td"):
            self.tables[-1][1][-1].append("")
        elif tag in ("script", "style"):
            getattr(self, f"{tag}s").append("")
        self._inside = tag if tag in ("caption", "th", "td", "script", "style") else self._inside

    def handle_endtag(self, tag):
        self._inside = None if tag == self._inside else self._inside

    def handle_data(self, data):
        if self._inside == "caption":
            self.tables[-1][0] += data
        elif self._inside in ("th", "td"):
            self.tables[-1][1][-1][-1] += data
        elif self._inside in ("script", "style"):
            getattr(self, f"{self._inside}s")[-1] += data
        if self._inside not in ("script", "style"):
            self.text += data

    @property
    def specs(self):
        """Vega-Lite, by figure."""
        return json.loads(self.scripts[0])


def egochef(*words):
    """A process of its own; its output."""
    done = subprocess.run(
        [sys.executable, "-m", "egochef", *map(str, words)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def report(*words):
    """In this process; what it prints."""
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as errors:
        code = main(["report", *map(str, words)])
    assert code == 0, errors.getvalue()
    return out.getvalue()


def fails(*words, message):
    """Exit code 1, and one line that says `message`."""
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as errors:
        code = main(["report", *map(str, words)])
    lines = [line for line in errors.getvalue().strip().splitlines() if line.startswith("egochef: ")]
    assert code == 1 and len(lines) == 1, errors.getvalue()
    assert re.search(message, lines[0]), lines[0]
    assert out.getvalue() == "" and "Traceback" not in errors.getvalue()


def numbers_of(out):
    return json.loads((out / "numbers.json").read_text(encoding="utf-8"))


# ---- the official validation set


@dataclasses.dataclass(frozen=True)
class Written:
    """A report of two models and their ensemble over the official validation set."""

    out: object
    results: object
    printed: str
    numbers: dict
    page: Page

    def tables(self, section):
        return {table["title"]: table for table in self.numbers["sections"][section]["tables"]}

    def words(self, section):
        return self.numbers["sections"][section]["words"]


@pytest.fixture(scope="module")
def written(real, tmp_path_factory) -> Written:
    folder = tmp_path_factory.mktemp("written")
    out, results = folder / "report", folder / "docs" / "results.md"
    words = ["report", *real.files, "--data", real.root, "--out", out, "--results", results, "--json"]
    printed = egochef(*words)
    return Written(out, results, printed, numbers_of(out), Page(out / "report.html"))


def value_of(cell):
    """`29.1 (28.0 to 30.2)` -> 29.1, 28.0, 30.2"""
    return tuple(float(each) for each in re.fullmatch(r"(\S+) \((\S+) to (\S+)\)", cell).groups())


@pytest.mark.slow
def test_every_metric_in_numbers_json(written, real):
    assert list(written.numbers["metrics"]) == list(MODELS)
    assert (written.numbers["split"], written.numbers["num_segments"]) == ("validation", 9668)
    for model in MODELS:
        expected, found = by_hand.metrics(real.plain, model), written.numbers["metrics"][model]
        assert found.keys() == expected.keys() and len(found) == 12
        for name, (value, num) in expected.items():
            assert found[name]["value"] == pytest.approx(value) and found[name]["num"] == num
            assert 0 <= found[name]["low"] < found[name]["value"] < found[name]["high"] <= 100
            assert found[name]["unit"] == "videos"


@pytest.mark.slow
def test_json_is_one_object_with_the_same_metrics(written):
    said = json.loads(written.printed)
    assert said["metrics"] == written.numbers["metrics"]
    assert said["page"] == str(written.out / "report.html")
    assert said["missing"] == written.numbers["missing"] != []


@pytest.mark.slow
def test_the_table_of_official_metrics(written, real):
    (table,) = written.tables("scores").values()
    assert table["columns"] == ["", *MODELS, "segments"]
    metrics = {model: by_hand.metrics(real.plain, model) for model in MODELS}
    names = [f"all {task} top-{k}" for k in (1, 5) for task in TASKS]
    names += [f"{subset} {task} top-1" for subset in ("tail", "unseen") for task in TASKS]
    assert [row[0] for row in table["rows"]] == names
    for name, *cells, num in table["rows"]:
        subset, task, k = re.fullmatch(r"(\w+) (\w+) top-(\d)", name).groups()
        for model, cell in zip(MODELS, cells, strict=True):
            value, expected = metrics[model][f"{subset}_{task}_accuracy_at_{k}"]
            assert cell.startswith(f"{value:.1f} (") and num == f"{expected:,}"
            assert value_of(cell)[1] <= value_of(cell)[0] <= value_of(cell)[2]


@pytest.mark.slow
def test_the_table_of_who_is_right(written, real):
    table = written.tables("comparison")["Segments by who has their action right"]
    assert table["columns"] == ["right", "segments", *by_hand.LENGTHS, "most frequent verbs"]
    right = {model: real.plain.right(model, "action") for model in MODELS}
    expected = {}
    for models, num in by_hand.patterns(real.plain).items():
        who = "all" if len(models) == 3 else ", ".join(models) or "none"
        rows = [
            row
            for place, row in enumerate(real.plain.rows)
            if tuple(model for model in MODELS if right[model][place]) == models
        ]
        lengths, verbs = Counter(row.length_bin for row in rows), Counter(row.verb for row in rows)
        best = sorted(verbs, key=lambda verb: (-verbs[verb], verb))[:3]
        frequent = ", ".join(f"{real.plain.verbs[verb]} ({verbs[verb]:,})" for verb in best)
        expected[who] = [who, f"{num:,}", *(f"{lengths[place]:,}" for place in range(6)), frequent]
    assert {row[0]: row for row in table["rows"]} == expected
    assert sum(int(row[1].replace(",", "")) for row in table["rows"]) == 9668


@pytest.mark.slow
def test_sentences_of_differences_and_errors(written, real):
    plain, num = real.plain, 9668
    right = {model: plain.right(model, "action") for model in MODELS}
    differences = written.words("comparison")
    for place, (model, other) in enumerate([("late", "early"), ("ensemble", "early"), ("ensemble", "late")]):
        (sentence,) = [words for words in differences if words.startswith(f"{model} less {other}: ")]
        assert differences.index(sentence) == place
        points = 100 * (sum(right[model]) - sum(right[other])) / num
        gained = sum(a and not b for a, b in zip(right[model], right[other], strict=True))
        lost = sum(b and not a for a, b in zip(right[model], right[other], strict=True))
        assert f"{points:+.1f} points" in sentence
        assert f"{gained:,}" in sentence and f"{lost:,}" in sentence
    for model, words in zip(MODELS, written.words("errors"), strict=True):
        halves = [
            (best // 1000 == row.verb, best % 1000 == row.noun)
            for row, best in zip(plain.rows, plain.best(model, "action"), strict=True)
        ]
        kinds = Counter(halves)
        wrong = num - kinds[True, True]
        assert model in words and f"{wrong:,}" in words
        shares = [kinds[False, True], kinds[True, False], kinds[False, False]]
        found = re.findall(r"[\d.]+(?= %)", words)
        assert found[:3] == [f"{100 * each / wrong:.1f}" for each in shares]
        with_right_nouns, with_right_verbs = (sum(half[at] for half in halves) for at in (0, 1))
        assert found[3:] == [f"{100 * each / num:.1f}" for each in (with_right_nouns, with_right_verbs)]


@pytest.mark.slow
@pytest.mark.parametrize("task", ["verb", "noun"])
def test_tables_of_confusions(written, real, task):
    plain = real.plain
    wrong, sizes = by_hand.mistakes(plain, "ensemble", task), Counter(plain.own(task))
    table = written.tables("confusions")[f"Largest {task} confusions"]
    most = sorted(wrong.values(), reverse=True)[:15]
    assert [row[1] for row in table["rows"]] == [f"{num:,}" for num in most]
    lines = {
        (f"{plain.name(task, own)} → {plain.name(task, best)}", f"{num:,}", f"{sizes[own]:,}",
         f"{100 * num / sizes[own]:.1f}")
        for (own, best), num in wrong.items()
    }  # fmt: skip
    assert {tuple(row) for row in table["rows"]} <= lines and len(table["rows"]) == 15


@pytest.mark.slow
@pytest.mark.parametrize(("title", "field"), [("Participants", "participant"), ("Videos", "video")])
def test_tables_of_groups(written, real, title, field):
    names = [getattr(row, field) for row in real.plain.rows]
    order = sorted(set(names))
    groups = dict(zip(order, by_hand.groups(real.plain, "ensemble", names, order), strict=True))
    ranked = sorted(order, key=lambda name: (groups[name][1][2], name))
    (table,) = [table for name, table in written.tables("groups").items() if name.startswith(title)]
    assert [row[0] for row in table["rows"]] == [*ranked[:5], *ranked[-5:]]
    for name, *cells, num in table["rows"]:
        assert num == f"{groups[name][0]:,}"
        for cell, value in zip(cells, groups[name][1], strict=True):
            assert cell.startswith(f"{value:.1f} (")


@pytest.mark.slow
def test_sentences_of_calibration_and_the_video_shown(written, real):
    for task, words in zip(TASKS, written.words("calibration"), strict=True):
        sure = [getattr(said, task)[0][1] for said in real.plain.said["ensemble"]]
        right = real.plain.right("ensemble", task)
        bins = {}
        for each, hit in zip(sure, right, strict=True):
            bins.setdefault(int(10 * each), []).append(each - hit)
        error = 100 * sum(abs(sum(gaps)) for gaps in bins.values()) / 9668
        expected = [f"{100 * sum(sure) / 9668:.1f}", f"{100 * sum(right) / 9668:.1f}", f"{error:.1f}"]
        assert re.findall(r"\d+\.\d", words) == expected
    (words,) = written.words("timeline")
    video = words.split()[0]
    own = [hit for row, hit in zip(real.plain.rows, real.plain.right("ensemble", "action"), strict=True)
           if row.video == video]  # fmt: skip
    assert f"{sum(own)} of {len(own)} actions ({100 * sum(own) / len(own):.1f} %)" in words


@pytest.mark.slow
def test_the_page_shows_the_tables_of_numbers_json(written):
    shown = [(caption, tuple(map(tuple, rows))) for caption, rows in written.page.tables]
    tables = [table for section in written.numbers["sections"].values() for table in section["tables"]]
    assert len(tables) >= 6
    for table in tables:
        assert (table["title"], tuple(map(tuple, [table["columns"], *table["rows"]]))) in shown
    for section in written.numbers["sections"].values():
        assert all(words in written.page.text for words in section["words"])


@pytest.mark.slow
def test_figures_in_the_page_hold_the_numbers(written, real):
    plain, specs = real.plain, written.page.specs
    assert specs.keys() == set(written.page.figures)

    def rows(figure):
        spec = specs[figure]
        found = [spec["data"]] if "data" in spec else []
        found += [layer["data"] for layer in spec.get("layer", []) if "data" in layer]
        lists = [data["values"] if "values" in data else spec["datasets"][data["name"]] for data in found]
        return max(lists, key=len)

    for task in ("verb", "noun"):
        cells = rows(f"confusion-{task}")
        pairs = Counter(zip(plain.own(task), plain.best("ensemble", task), strict=True))
        names = plain.names(task)
        found = {(names.index(cell["true"]), names.index(cell["predicted"])): cell["num"] for cell in cells}
        assert found == pairs and len(cells) == len(pairs)
        sizes = Counter(plain.own(task))
        for cell in cells:
            assert cell["share"] == pytest.approx(100 * cell["num"] / sizes[names.index(cell["true"])], abs=0.006)
        classes = {row["class"]: row for row in rows(f"classes-{task}")}
        right = Counter(own for own, hit in zip(plain.own(task), plain.right("ensemble", task), strict=True) if hit)
        assert {name: row["num"] for name, row in classes.items()} == {names[each]: num for each, num in sizes.items()}
        for each, num in sizes.items():
            assert classes[names[each]]["recall"] == pytest.approx(100 * right[each] / num, abs=0.006)
    bars = rows("timeline")
    best = dict(zip([row.narration_id for row in plain.rows], plain.best("ensemble", "action"), strict=True))
    assert len(bars) == 9668 and {bar["i"]: bar["p"] for bar in bars} == {
        name: plain.name("action", each) for name, each in best.items()
    }
    for row in rows("metrics"):
        value, num = by_hand.metrics(plain, row["model"])[f"{row['subset']}_{row['task']}_accuracy_at_1"]
        assert (row["value"], row["num"]) == (pytest.approx(value, abs=0.006), num)
    for row in rows("errors"):
        assert row["share"] == pytest.approx(100 * row["num"] / 9668, abs=0.006)
    for figure, field, names in (
        ("groups-length", "length_bin", by_hand.LENGTHS),
        ("groups-videos", "video", sorted({row.video for row in plain.rows})),
    ):
        kinds = [getattr(row, field) for row in plain.rows]
        order = range(6) if field == "length_bin" else names
        groups = dict(zip(names, by_hand.groups(plain, "ensemble", kinds, order), strict=True))
        for row in rows(figure):
            num, values = groups[re.sub(r" \([\d,]+\)$", "", row["group"])]
            assert row["num"] == num
            assert row["value"] == pytest.approx(values[TASKS.index(row.get("model", "action"))], abs=0.006)


@pytest.mark.slow
def test_the_page_needs_no_network(written):
    page = written.page
    assert (written.out / "report.html").stat().st_size < MAX_BYTES
    assert all(link.startswith(("#", "data:")) for link in page.links), page.links
    assert len(page.links) > 5 and page.elements["script"] == len(page.scripts) == 4
    assert not any(re.search(r"@import|url\(", style) for style in page.styles)
    assert '"url"' not in page.scripts[0]  # data of figures is in them
    assert not page.elements["iframe"] + page.elements["object"] + page.elements["embed"]


@pytest.mark.slow
def test_every_figure_is_written_in_both_kinds(written):
    names = written.page.figures
    assert len(names) == len(set(names)) == 17
    files = {path.name for path in (written.out / "figures").iterdir()}
    assert files == {f"{name}.{kind}" for name in names for kind in ("png", "svg")}
    for name in names:
        with Image.open(written.out / "figures" / f"{name}.png") as picture:
            picture.load()
            assert picture.width > 600 and len(picture.convert("L").resize((64, 64)).getcolors(4096)) > 5
        root = xml.etree.ElementTree.parse(written.out / "figures" / f"{name}.svg").getroot()
        assert root.tag.endswith("svg") and len(list(root.iter())) > 20


@pytest.mark.slow
def test_markdown_has_the_same_and_its_pictures(written):
    text = written.results.read_text(encoding="utf-8")
    pictures = re.findall(r"!\[[^\]]*\]\(([^)]+)\)", text)
    assert len(pictures) == 17 == len(set(pictures))
    for picture in pictures:
        assert (written.results.parent / picture).is_file(), picture
    assert {path.name for path in (written.results.parent / "images" / "results").iterdir()} == {
        picture.rsplit("/", 1)[1] for picture in pictures
    }
    rows = {line for line in text.splitlines() if line.startswith("| ")}
    for section in written.numbers["sections"].values():
        for table in section["tables"]:
            for row in table["rows"]:
                assert "| " + " | ".join(escaped(cell) for cell in row) + " |" in rows


def escaped(text):
    return re.sub(r"([\\`*_\[\]<>|#])", r"\\\1", text)


# ---- a drawn-up data folder without videos


VERBS, NOUNS = ("cut", "wash", "take"), ("cake", "pan", "knife", "cup")
SEGMENTS = (  # video, start and length in seconds, verb, noun
    ("P01_01", 0, 1, 0, 0),
    ("P01_01", 1, 2, 1, 1),
    ("P01_02", 0, 9, 2, 2),
    ("P02_01", 3, 4, 2, 3),
    ("P02_01", 5, 1, 0, 1),
)


def write_lines(path, header, lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *lines])


def write_kitchen(root, segments=SEGMENTS, *, train=SEGMENTS[:3], tail=((1,), (1, 2)), unseen=("P02",)):
    """A data folder in the official layout, without videos; `train=None` leaves the training split out."""
    folder = root / ANNOTATIONS
    header = ["narration_id", "participant_id", "video_id", "start_timestamp", "stop_timestamp", "start_frame",
              "stop_frame", "narration", "verb_class", "noun_class"]  # fmt: skip
    for split, rows, first in (("train", train, 1000), ("validation", segments, 0)):
        if rows is not None:
            lines = [
                (f"{video}_{place}", video[:3], video, f"00:00:{start:02d}.00", f"00:00:{start + length:02d}.00", 1, 2,
                 "a narration", verb, noun)
                for place, (video, start, length, verb, noun) in enumerate(rows, first)
            ]  # fmt: skip
            write_lines(folder / f"EPIC_100_{split}.csv", header, lines)
    write_lines(folder / "EPIC_100_test_timestamps.csv", header[:7], [])
    write_lines(folder / "EPIC_100_verb_classes.csv", ["id", "key"], enumerate(VERBS))
    write_lines(folder / "EPIC_100_noun_classes.csv", ["id", "key"], enumerate(NOUNS))
    for kind, ids in zip(("verb", "noun"), tail, strict=True):
        write_lines(folder / f"EPIC_100_tail_{kind}s.csv", [kind], [[each] for each in ids])
    for split in ("validation", "test"):
        write_lines(folder / f"EPIC_100_unseen_participant_ids_{split}.csv", ["participant_id"],
                    [[name] for name in unseen])  # fmt: skip
    return root


def write_scores(path, segments=SEGMENTS, seed=0, num_verbs=3, num_nouns=4, **changes):
    rng = np.random.default_rng(seed)
    arrays = {
        "narration_id": np.array([f"{video}_{place}" for place, (video, *_) in enumerate(segments)]),
        "verb_output": rng.standard_normal((len(segments), num_verbs)).astype(np.float32),
        "noun_output": rng.standard_normal((len(segments), num_nouns)).astype(np.float32),
        "kind": np.array("logits"),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, **arrays | changes)
    return path


@pytest.fixture
def kitchen(tmp_path):
    return write_kitchen(tmp_path / "kitchen")


@pytest.fixture
def scores(tmp_path):
    return write_scores(tmp_path / "scores.npz")


def test_texts_of_the_data_are_only_text(kitchen, tmp_path):
    evil, verb = "</script><script>alert(1)</script>", 'cut <b>|"quoted" & \\'
    folder = kitchen / ANNOTATIONS
    change(folder / "EPIC_100_validation.csv", set_value(2, "narration", evil))
    change(folder / "EPIC_100_verb_classes.csv", set_value(2, "key", verb))
    change(folder / "EPIC_100_noun_classes.csv", set_value(2, "key", evil))
    files = [write_scores(tmp_path / name / "scores.npz", seed=seed) for seed, name in enumerate(["<b>x", "y|_z_"])]
    out, results = tmp_path / "out", tmp_path / "docs" / "results.md"
    report(*files, "--data", kitchen, "--out", out, "--results", results)
    page = Page(out / "report.html")
    assert page.elements["script"] == 4 and page.elements["b"] == 0
    assert "alert(1)" not in page.scripts[-1] + page.scripts[-2]
    assert page.text.count(evil) > 2 and verb in page.text and "Report on <b>x, y|_z_" in page.text
    assert any(evil in json.dumps(spec, ensure_ascii=False) for spec in page.specs.values())
    text = results.read_text(encoding="utf-8")
    assert evil not in text and escaped(evil) in text and escaped(verb) in text and "# Report on \\<b\\>x" in text
    tables = [line for line in text.splitlines() if line.startswith("|")]
    heads = [place for place, line in enumerate(tables) if set(line) <= set("|-:")]
    for start, stop in zip(heads, [*(head - 1 for head in heads[1:]), len(tables)], strict=True):
        columns = {len(re.findall(r"(?<!\\)(?:\\\\)*\|", line)) for line in tables[start - 1 : stop]}
        assert len(columns) == 1, tables[start - 1 : stop]


@pytest.mark.parametrize(
    ("segments", "changes", "lacks", "says"),
    [
        (SEGMENTS, {"tail": ((), ())}, {"tail"}, "tail"),
        (SEGMENTS, {"unseen": ()}, {"unseen"}, "unseen"),
        (SEGMENTS[:1], {}, {"tail", "unseen"}, "tail or unseen"),
        (SEGMENTS[:3], {"train": None, "unseen": ()}, {"unseen"}, "no training split"),
    ],
    ids=["no tail", "nobody unseen", "one segment", "one participant without train"],
)
def test_what_is_empty_is_said(tmp_path, segments, changes, lacks, says):
    kitchen = write_kitchen(tmp_path / "kitchen", segments, **changes)
    out = tmp_path / "out"
    report(write_scores(tmp_path / "ensemble" / "scores.npz", segments), "--data", kitchen, "--out", out)
    numbers = numbers_of(out)
    assert numbers["num_segments"] == len(segments)
    subsets = {name.split("_")[0] for name in numbers["metrics"]["ensemble"]}
    assert subsets == {"all", "tail", "unseen"} - lacks
    everything = [*numbers["missing"], *(line for each in numbers["sections"].values() for line in each["words"])]
    assert any(says in line for line in everything), everything
    (table,) = numbers["sections"]["scores"]["tables"]
    for name, cell, num in table["rows"]:
        assert ((cell, num) == ("-", "0")) == (name.split()[0] in lacks or num == "0")
    page = Page(out / "report.html")
    assert "nan" not in page.text.lower().split() and "Report on ensemble" in page.text


def test_some_participants(kitchen, tmp_path):
    file = write_scores(tmp_path / "mine.npz", SEGMENTS[:3])
    report(file, "--data", kitchen, "--participants", "P01", "--out", tmp_path / "out", "--json")
    assert numbers_of(tmp_path / "out")["num_segments"] == 3
    fails(file, "--data", kitchen, "--participants", "P77", message="no segment of P77")


def test_an_ensemble_of_scores_with_and_without_actions(kitchen, tmp_path):
    plain = write_scores(tmp_path / "plain.npz")
    actions = {"action_id": np.full((5, 1), 1002), "action_output": np.ones((5, 1), dtype=np.float32)}
    listed = write_scores(tmp_path / "listed.npz", seed=1, **actions)
    printed = report(plain, listed, "--data", kitchen, "--out", tmp_path / "out")
    assert "missing: The ensemble" not in printed
    metrics = numbers_of(tmp_path / "out")["metrics"]
    assert list(metrics) == ["plain", "listed", "ensemble"]
    assert metrics["listed"]["all_action_accuracy_at_1"]["value"] == 0  # nobody takes a knife there: wash knife, 1002


def test_labels_that_were_learned_from_are_told(kitchen, tmp_path):
    """In the words, below the title, in numbers.json and on the terminal; unknown is not unseen."""
    seen = write_scores(tmp_path / "seen.npz", seed=1, seen=np.array([1, 1, 0, 0, 1]))
    clean = write_scores(tmp_path / "clean.npz", seed=2, seen=np.zeros(5, np.int64))
    old = write_scores(tmp_path / "old.npz")
    printed = report(seen, clean, old, "--data", kitchen, "--out", tmp_path / "out")
    numbers = numbers_of(tmp_path / "out")
    assert numbers["labels_seen_by"] == ["seen", "ensemble"]
    assert numbers["labels_seen_not_told_by"] == ["old", "ensemble"]
    first, second, third, *_ = numbers["sections"]["scores"]["words"]
    assert first.startswith("Too good: seen has learned from the labels of 3 of these 5 segments.")
    assert second == "The scores of old do not tell whether it has learned from these labels."
    assert third.startswith("Too good: ensemble has learned from the labels of 3 of these 5 segments.")
    assert "Too good, for labels were learned from: seen, ensemble." in Page(tmp_path / "out" / "report.html").text
    assert "too good: seen, ensemble learned from labels that are scored here" in printed
    report(clean, "--data", kitchen, "--out", tmp_path / "clean")
    numbers = numbers_of(tmp_path / "clean")
    assert numbers["labels_seen_by"] == numbers["labels_seen_not_told_by"] == []
    assert not any("learned from" in word for word in numbers["sections"]["scores"]["words"])


def test_names_that_tell_sources_apart(kitchen, tmp_path):
    one, other, third = tmp_path / "a" / "one.npz", tmp_path / "a" / "one" / "scores.npz", tmp_path / "b" / "one.npz"
    for path in (one, other, third):
        write_scores(path)
    assert short_names([one, tmp_path / "two"]) == ["one", "two"]
    assert short_names([one, third]) == ["a/one", "b/one"]
    assert short_names([other, third]) == ["a/one", "b/one"]
    assert short_names([one, other]) == ["one.npz", "scores.npz"]
    again = tmp_path / "a" / ".." / "a" / "one.npz"
    fails(one, again, "--data", kitchen, "--out", tmp_path / "out", message="given twice")


def test_faults_of_scores(kitchen, scores, tmp_path):
    out = ("--data", kitchen, "--out", tmp_path / "out")
    fails(scores, "--out", tmp_path / "out", message="scores need the data that they are of: give --data ROOT")
    fails(scores, scores, *out, message=r"scores\.npz: given twice")
    fails(tmp_path / "lost.npz", *out, message=r"lost\.npz: no such file")
    fails(tmp_path / "lost", *out, message="lost: no such file or folder")
    (tmp_path / "empty").mkdir()
    fails(tmp_path / "empty", *out, message="empty: neither a run")
    fails(scores, *out, "--data", tmp_path / "lost", message="lost: no such folder")
    fails(scores, *out, "--data", tmp_path / "empty", message="empty: no annotations")
    fails(scores, *out, "--split", "test", message="the test split has no labels")
    fails(scores, *out, "--split", "lunch", message="unknown split 'lunch'")
    fails(scores, *out, "--split", "train", message="does not fit the 3 segments")

    wide = write_scores(tmp_path / "wide.npz", num_verbs=97, num_nouns=300)
    fails(wide, *out, message=r"wide\.npz: 97 verbs and 300 nouns, but .* has 3 and 4")
    swapped = write_scores(tmp_path / "swapped.npz", num_verbs=4, num_nouns=3)
    fails(swapped, *out, message=r"swapped\.npz: 4 verbs and 3 nouns, .* has 3 and 4: verb and noun are swapped")
    fails(scores, wide, *out, message=r"wide\.npz: 97 verbs")
    few = write_scores(tmp_path / "few.npz", SEGMENTS[:4])
    fails(few, *out, message=r"few\.npz does not fit the 5 segments asked for: 1 missing \(P02_01_4\)")
    other = write_scores(tmp_path / "other.npz", narration_id=np.array([f"P09_01_{place}" for place in range(5)]))
    fails(other, *out, message=r"other\.npz does not fit the 5 segments asked for: 5 missing")
    verb = np.zeros((5, 3), dtype=np.float32)
    verb[2, 1] = np.nan
    nan = write_scores(tmp_path / "nan.npz", verb_output=verb)
    fails(nan, *out, message=r"nan\.npz: verb_output of P01_02_2, column 1, is nan, expected finite numbers")
    cut = tmp_path / "cut.npz"
    cut.write_bytes(scores.read_bytes()[:300])
    fails(cut, *out, message=r"cut\.npz: not a readable scores\.npz")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("file", "row"), [("train", 3), ("validation", 2)])
def test_faults_of_annotations(kitchen, scores, file, row):
    change(kitchen / ANNOTATIONS / f"EPIC_100_{file}.csv", set_value(row, "verb_class", "99"))
    out = ("--data", kitchen, "--out", scores.parent / "out")
    fails(scores, *out, message=rf"EPIC_100_{file}\.csv: row {row}: verb_class is '99'")
    if file == "train":  # also where some are asked for
        mine = write_scores(scores.parent / "mine.npz", SEGMENTS[:3])
        fails(mine, *out, "--participants", "P01", message=rf"row {row}: verb_class is '99'")


def test_a_place_that_cannot_be_written(kitchen, scores, tmp_path):
    file = tmp_path / "file"
    file.write_text("in the way")
    fails(scores, "--data", kitchen, "--out", file, message="file.*cannot be written")
    fails(scores, "--data", kitchen, "--out", file / "below", message="file/below.*cannot be written")
    assert file.read_text() == "in the way"


# ---- curves without scores


def write_log(run, lines, cut_off=""):
    write_json(run / "config.json", to_dict(TINY))
    (run / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + cut_off)
    return run


STEPS = [
    {"kind": "step", "epoch": 1, "step": step, "loss": 8.0 - step, "lr": 0.001, "data_ms": 1.0, "step_ms": 10.0}
    for step in (1, 2, 3)
]


def test_a_run_that_is_being_written(kitchen, tmp_path, monkeypatch):
    run = write_log(tmp_path / "run", STEPS, cut_off='{"kind": "step", "epoch": 1, "st')
    hold = "import fcntl, sys; f = open(sys.argv[1], 'a'); fcntl.lockf(f, fcntl.LOCK_EX); print(1, flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", hold, run / "lock"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout.readline() == "1\n"
        printed = report(run, "--data", kitchen)
        holder.communicate("\n")
    out = run / "report"
    numbers = numbers_of(out)
    assert list(numbers["sections"]) == ["curves"] and numbers["metrics"] == {}
    assert any("still running, 0 of at most 2 epochs" in line for line in numbers["missing"])
    assert any("no checkpoint yet" in line for line in numbers["missing"])
    assert all(f"missing: {line}" in printed for line in numbers["missing"])
    page = Page(out / "report.html")
    rows = page.specs["curve-loss"]["layer"][-1]["data"]["values"] if "data" not in page.specs["curve-loss"] else (
        page.specs["curve-loss"]["data"]["values"]
    )  # fmt: skip
    assert [(row["x"], row["y"]) for row in rows] == [(step["step"], step["loss"]) for step in STEPS]
    assert all(line in page.text for line in numbers["missing"])

    monkeypatch.chdir(run)
    printed = report(".", "--out", tmp_path / "later")  # without --data too
    assert "missing: run: not finished" in printed and "missing: run: no checkpoint yet" in printed


def test_a_run_without_a_line(tmp_path):
    fails(write_log(tmp_path / "run", []), message="nothing to report on: .*run: nothing in its log yet")
    fails(write_log(tmp_path / "cut", [], cut_off='{"kind"'), message="cut: nothing in its log yet")
    fails(write_log(tmp_path / "bad", STEPS, cut_off="oops\n{}\n"), message=r"log\.jsonl, line 4: not JSON")
    fails(tmp_path / "run", tmp_path / "run", message="run: given twice")


def test_curves_of_weights_and_biases_alone(tmp_path):
    path = tmp_path / "theirs.csv"
    lines = [(step, 5.0 - step, 0.1 * step if step % 2 else "") for step in range(4)]
    write_lines(path, ["_step", "train/loss", "val/action_acc"], lines)
    report(path, "--out", tmp_path / "out")
    numbers = numbers_of(tmp_path / "out")
    assert list(numbers["sections"]) == ["curves"] and numbers["split"] is None
    words = " ".join(numbers["sections"]["curves"]["words"])
    assert "best at step 3 with 30.0 % action top-1" in words
    assert (tmp_path / "out" / "figures" / "curve-action.svg").is_file()
    fails(path, path, message="given twice")
    write_lines(tmp_path / "odd.csv", ["when", "what"], [(1, 2)])
    fails(tmp_path / "odd.csv", message=r"odd\.csv, row 1: columns are when, what")


@pytest.mark.parametrize("cells", [["NaN", "NaN"], ["0.5", "NaN"]])
def test_accuracies_that_are_not_finite(tmp_path, cells):
    path = tmp_path / "theirs.csv"
    write_lines(path, ["_step", "train/loss", "val/action_acc"], [(step, 1.0, cell) for step, cell in enumerate(cells)])
    report(path, "--out", tmp_path / "out")
    assert " nan " not in json.dumps(numbers_of(tmp_path / "out")["sections"])


# ---- a run with a checkpoint


@pytest.fixture(scope="module")
def trained(toy_root, tmp_path_factory):
    run = tmp_path_factory.mktemp("trained") / "run"
    train(TINY, toy_root, run)
    return run


@pytest.mark.slow
def test_a_run_and_its_kept_scores(trained, toy_root, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    report(run, "--out", tmp_path / "first")  # the data is what it was trained on
    first = numbers_of(tmp_path / "first")
    assert list(first["sections"])[:2] == ["scores", "curves"] and list(first["metrics"]) == ["run"]
    (kept,) = (run / "scores").iterdir()
    arrays = np.load(kept)
    rows = by_hand.read_rows(toy_root / ANNOTATIONS, "validation")
    assert arrays["narration_id"].tolist() == [row.narration_id for row in rows]
    said = [
        by_hand.said_of(by_hand.softmax(verb), by_hand.softmax(noun))
        for verb, noun in zip(arrays["verb_output"].tolist(), arrays["noun_output"].tolist(), strict=True)
    ]
    expected = by_hand.metrics(by_hand.read_plain(toy_root / ANNOTATIONS, {"run": said}), "run")
    found = first["metrics"]["run"]
    assert {name: each["num"] for name, each in found.items()} == {name: num for name, (_, num) in expected.items()}
    assert {name: each["value"] for name, each in found.items()} == pytest.approx(
        {name: value for name, (value, _) in expected.items()}
    )
    clips = [element for element in Page(tmp_path / "first" / "report.html").links if element.startswith("data:image")]
    assert len(clips) > 2  # frames

    # What is kept serves: mark it, and see the mark in the report.
    marked = dict(arrays) | {"verb_output": np.eye(arrays["verb_output"].shape[1])[[row.verb for row in rows]] * 9}
    np.savez(kept, **marked)
    report(run, "--data", toy_root, "--out", tmp_path / "second")
    assert numbers_of(tmp_path / "second")["metrics"]["run"]["all_verb_accuracy_at_1"]["value"] == 100


@pytest.mark.slow
def test_kept_scores_are_those_of_the_checkpoint_and_the_segments(trained, toy_root, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(trained, run)

    def scores(*participants):
        folder = open_data_folder(toy_root, participants)
        (found,) = read_scores([run], folder, "validation", read_split(folder, "validation"), device="cpu")
        return found.table

    def same(one, other):
        return np.array_equal(one.verb_output, other.verb_output) and np.array_equal(one.noun_output, other.noun_output)

    first = scores()
    (kept,) = (run / "scores").iterdir()
    recogniser, about = load_checkpoint(run)
    for parameter in recogniser.parameters():
        parameter.data.mul_(1.1)
    save_checkpoint(run / BEST, recogniser, about)
    second = scores()
    (now,) = (run / "scores").iterdir()
    assert now.name != kept.name and not same(first, second)

    now.write_bytes(now.read_bytes()[:200])  # cannot be read: made anew
    assert same(second, scores())

    people = sorted({name.split("_")[0] for name in second.narration_id.tolist()})
    rows = np.char.startswith(second.narration_id, people[0])
    assert len(people) > 1 and same(scores(people[0]), take_rows(second, rows))  # of everybody's
    now.unlink()
    assert len(scores(people[0])) == rows.sum() < len(second)
    assert same(second, scores())  # those of one are not enough for everybody


@pytest.mark.slow
def test_a_run_of_other_classes_or_lost_data(trained, kitchen, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    fails(run, "--data", kitchen, "--out", tmp_path / "out", message="run: 97 verbs and 300 nouns, but .* has 3 and 4")
    lines = [json.loads(line) for line in (run / "sessions.jsonl").read_text().splitlines()]
    (run / "sessions.jsonl").write_text("".join(json.dumps(line | {"data": "/lost"}) + "\n" for line in lines))
    printed = report(run, "--out", tmp_path / "out")
    assert "missing: Everything about scores" in printed and "--data ROOT" in printed
    assert list(numbers_of(tmp_path / "out")["sections"]) == ["curves"]
    (run / BEST).write_bytes(b"cut off")
    fails(run, "--data", kitchen, "--out", tmp_path / "out", message=r"best\.safetensors")
