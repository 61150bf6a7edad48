"""`egochef stats`: the official counts of EK-100, what plain counting finds too, and folders that lack something."""

import csv
import json
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from conftest import need
from PIL import Image
from table_edits import change, set_value

from egochef.cli.main import main
from egochef.data.annotations import SPLIT_FILES, copy_annotations
from egochef.data.prepare import prepare
from egochef.data.store import StoreSpec
from egochef.errors import InputError
from egochef.records import to_dict
from egochef.report.stats import EDGES_S, dataset_statistics
from egochef.report.stats_tables import readme_table, to_markdown

ANNOTATIONS = "epic-kitchens-100-annotations"
REPOSITORY = Path(__file__).resolve().parents[2]
FIGURES = ("verbs", "nouns", "cooccurrence", "lengths", "participants")


@pytest.fixture(scope="module")
def ek100_root(ek100_annotations, tmp_path_factory):
    root = tmp_path_factory.mktemp("ek100")
    (root / ANNOTATIONS).symlink_to(ek100_annotations)
    return root


@pytest.fixture(scope="module")
def ek100(ek100_root):
    return dataset_statistics(ek100_root)


@pytest.fixture
def kitchen(toy_root, tmp_path):
    """The annotations of a drawn kitchen, for a test to change."""
    root = tmp_path / "kitchen"
    shutil.copytree(toy_root / ANNOTATIONS, root / ANNOTATIONS)
    return root


def rows_of(root, split):
    with (root / ANNOTATIONS / SPLIT_FILES[split]).open(newline="") as file:
        return list(csv.DictReader(file))


def seconds(timestamp):
    hours, minutes, rest = timestamp.split(":")
    return int(hours) * 3600 + int(minutes) * 60 + float(rest)


@pytest.mark.parametrize(
    ("split", "segments", "videos", "participants", "verbs", "nouns", "actions"),
    [
        ("train", 67217, 495, 32, 97, 289, 3568),
        ("validation", 9668, 138, 32, 78, 211, 1352),
        ("test", 13092, 67, 20, None, None, None),
    ],
)
def test_official_counts(ek100, split, segments, videos, participants, verbs, nouns, actions):
    (counts,) = (each for each in ek100.splits if each.split == split)
    assert (counts.num_segments, counts.num_videos, counts.num_participants) == (segments, videos, participants)
    assert (counts.num_verbs, counts.num_nouns, counts.num_actions) == (verbs, nouns, actions)


def test_official_totals_and_subsets(ek100):
    totals = ek100.totals
    assert (totals.num_segments, totals.num_videos, totals.num_participants) == (89_977, 700, 37)
    assert (totals.num_verbs, totals.num_nouns, totals.num_actions, len(ek100.pairs)) == (97, 300, 3806, 3806)
    assert (sum(each.tail for each in ek100.verbs), sum(each.tail for each in ek100.nouns)) == (86, 228)
    _, validation, test = ek100.splits
    assert (validation.num_tail_verb, validation.num_tail_noun, validation.num_tail_action) == (1760, 1900, 3105)
    assert (validation.num_unseen, test.num_unseen) == (1065, 4110)
    unseen = [each.participant_id for each in ek100.participants if each.unseen]
    assert unseen == ["P18", "P32", "P33", "P34", "P36"]
    assert ek100.novelty.new_action_segments == 372 and ek100.novelty.new_actions == 3806 - 3568
    assert ek100.novelty.new_verbs == () and len(ek100.novelty.new_nouns) == 4
    assert {each.split: each.num_short for each in ek100.lengths}["test"] == 557
    assert ek100.missing == {} and ek100.notes == ()


def test_readme_has_this_table(ek100):
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    _, _, section = readme.partition("## On EK-100")
    assert f"\n\n{readme_table(ek100)}\n" in section.partition("\n## ")[0]


def test_dataset_page_has_these_tables(ek100):
    page = (REPOSITORY / "docs" / "dataset.md").read_text(encoding="utf-8")
    tables = to_markdown(ek100)
    for title in ("Splits", "Segments of the official subsets", "Segment lengths, s"):
        lines = tables.partition(f"## {title}\n\n")[2].partition("\n\n")[0]
        assert lines.startswith("| split |") and lines in page
    words, new = " ".join(page.split()), ek100.novelty
    assert f"{ek100.totals.num_actions:,} different actions occur in train and validation, of 29,100" in words
    assert f"{new.new_action_segments} validation segments have one of {new.new_actions} actions" in words
    assert f"nouns {', '.join(new.new_nouns[:-1])} and {new.new_nouns[-1]} are never in train" in words


def test_every_field_is_documented(toy_root):
    page = (REPOSITORY / "docs" / "dataset.md").read_text(encoding="utf-8")
    for name, value in to_dict(dataset_statistics(toy_root)).items():
        inner = value[0] if isinstance(value, tuple) and value else value
        inner = inner if isinstance(inner, dict) and name != "missing" else {}
        assert not [field for field in (name, *inner) if f"`{field}`" not in page]


def recount(root, stats):
    """Everything again, with csv and Counter."""
    names = {}
    for task in ("verb", "noun"):
        with (root / ANNOTATIONS / f"EPIC_100_{task}_classes.csv").open(newline="") as file:
            names[task] = [row["key"] for row in csv.DictReader(file)]
    rows = {split: rows_of(root, split) for split in SPLIT_FILES}
    labelled = {split: rows[split] for split in ("train", "validation")}
    for counts in stats.splits:
        ours = rows[counts.split]
        assert counts.num_segments == len(ours)
        assert counts.num_videos == len({row["video_id"] for row in ours})
        lengths_s = [round(seconds(row["stop_timestamp"]) - seconds(row["start_timestamp"]), 3) for row in ours]
        assert counts.annotated_h == pytest.approx(sum(lengths_s) / 3600, abs=1e-4)
        assert counts.covered_h <= counts.annotated_h
        (lengths,) = (each for each in stats.lengths if each.split == counts.split)
        assert (lengths.min_s, lengths.max_s) == (min(lengths_s), max(lengths_s))
        assert lengths.num_short == sum(length < 0.5 for length in lengths_s)
        assert lengths.short_share == lengths.num_short / len(ours)
        assert lengths.quantiles_s["0.5"] == pytest.approx(np.median(lengths_s), abs=1e-4)
        assert lengths.histogram == tuple(np.histogram(lengths_s, [*EDGES_S, np.inf])[0])
    for task, classes in (("verb", stats.verbs), ("noun", stats.nouns)):
        found = {split: Counter(int(row[f"{task}_class"]) for row in each) for split, each in labelled.items()}
        assert sorted(each.id for each in classes) == list(range(len(names[task])))
        for each in classes:
            assert each.name == names[task][each.id]
            assert each.segments == {split: found[split][each.id] for split in labelled}
        totals = [sum(each.segments.values()) for each in classes]
        assert totals == sorted(totals, reverse=True)
    pairs = {
        split: Counter((int(r["verb_class"]), int(r["noun_class"])) for r in each) for split, each in labelled.items()
    }
    assert {(each.verb, each.noun): each.segments for each in stats.pairs} == {
        pair: {split: pairs[split][pair] for split in labelled} for pair in pairs["train"] + pairs["validation"]
    }
    new = pairs["validation"].keys() - pairs["train"].keys()
    assert stats.novelty.new_actions == len(new)
    assert stats.novelty.new_action_segments == sum(pairs["validation"][pair] for pair in new)
    for each in stats.participants:
        for split in SPLIT_FILES:
            theirs = [row for row in rows[split] if row["participant_id"] == each.participant_id]
            assert each.segments[split] == len(theirs)
            assert each.videos[split] == len({row["video_id"] for row in theirs})


def test_plain_counting_finds_the_same(ek100_root, ek100, toy_root):
    recount(ek100_root, ek100)
    recount(toy_root, dataset_statistics(toy_root))


def test_a_store(toy_root, tmp_path):
    prepare(toy_root, tmp_path / "store", StoreSpec(size_px=32), splits=("validation",))
    stats, folder = dataset_statistics(tmp_path / "store"), dataset_statistics(toy_root)
    assert to_dict(stats) | {"root": ""} == to_dict(folder) | {"root": ""}


def test_participants(toy_root, tmp_path):
    stats = dataset_statistics(toy_root, ["P01"])
    assert [each.participant_id for each in stats.participants] == ["P01"]
    assert stats.totals.num_segments == sum(stats.participants[0].segments.values())
    absent = [split for split in SPLIT_FILES if not any(r["participant_id"] == "P01" for r in rows_of(toy_root, split))]
    assert absent and stats.missing == {split: f"{SPLIT_FILES[split]} has no row of P01" for split in absent}
    copy_annotations(toy_root / ANNOTATIONS, tmp_path, ["P01"])  # a folder that says whose videos it has
    assert dataset_statistics(tmp_path).participants == stats.participants
    with pytest.raises(InputError, match="no segment of P99 in any split, expected some of P01"):
        dataset_statistics(toy_root, ["P01", "P99"])


@pytest.mark.parametrize("lacking", list(SPLIT_FILES))
@pytest.mark.parametrize("how", ["not there", "no rows"])
def test_a_split_that_is_missing(kitchen, lacking, how, capsys, request):
    path = kitchen / ANNOTATIONS / SPLIT_FILES[lacking]
    if how == "not there":
        path.unlink()
    else:
        request.getfixturevalue("undrawn")  # its figures are those of a split that is not there
        path.write_text(path.read_text().splitlines()[0] + "\n\n")
    stats = dataset_statistics(kitchen)
    assert [each.split for each in stats.splits] == [split for split in SPLIT_FILES if split != lacking]
    assert stats.missing[lacking].startswith(path.name) and how in stats.missing[lacking]
    assert (stats.novelty is None) == (lacking != "test")
    assert lacking not in stats.verbs[0].segments and lacking not in stats.participants[0].videos
    assert main(["stats", "--data", str(kitchen), "--out", str(kitchen / "out")]) == 0
    assert f"Not counted: {lacking} ({stats.missing[lacking]})." in capsys.readouterr().out
    assert all((kitchen / "out" / f"{name}.png").is_file() for name in FIGURES)


@pytest.mark.usefixtures("undrawn")
def test_only_a_test_split(kitchen, capsys):
    for split in ("train", "validation"):
        (kitchen / ANNOTATIONS / SPLIT_FILES[split]).unlink()
    stats = dataset_statistics(kitchen)
    assert stats.pairs == stats.unused_verbs == () and stats.novelty is None
    assert main(["stats", "--data", str(kitchen), "--out", str(kitchen / "out")]) == 0
    capsys.readouterr()
    made = {path.stem for path in (kitchen / "out").glob("*.svg")}
    assert made == {"lengths", "participants"}
    (kitchen / ANNOTATIONS / SPLIT_FILES["test"]).unlink()
    with pytest.raises(InputError, match=r"nothing to count: EPIC_100_train.csv is not there; .*"):
        dataset_statistics(kitchen)


def test_lists_that_are_missing(kitchen):
    for name in ("EPIC_100_tail_verbs.csv", "EPIC_100_unseen_participant_ids_validation.csv"):
        (kitchen / ANNOTATIONS / name).unlink()
    stats = dataset_statistics(kitchen)
    _, validation, _ = stats.splits
    assert validation.num_tail_verb is validation.num_tail_action is validation.num_unseen is None
    assert validation.num_tail_noun is not None
    assert [note.partition(" is missing")[0] for note in stats.notes] == [
        "the list of tail verbs",
        "the list of unseen participants of validation",
    ]


@pytest.mark.usefixtures("undrawn")
def test_faults_are_told(kitchen, tmp_path, capsys):
    assert main(["stats", "--data", str(tmp_path)]) == 1
    assert "no annotations" in capsys.readouterr().err
    assert main(["stats", "--data", str(kitchen), "--top", "0"]) == 1
    assert "--top is 0, expected at least 1" in capsys.readouterr().err
    path = kitchen / ANNOTATIONS / SPLIT_FILES["validation"]
    change(path, set_value(3, "verb_class", "97"))
    assert main(["stats", "--data", str(kitchen)]) == 1
    told = capsys.readouterr().err.strip().splitlines()[-1]
    assert path.name in told and "row 3: verb_class is '97', expected a class id from 0 to 96" in told
    path.write_text("")
    assert main(["stats", "--data", str(kitchen)]) == 1
    assert "row 1: no column 'narration_id', found nothing" in capsys.readouterr().err


def test_lengths_at_the_edges(kitchen):
    """0.5 s is not short, whatever binary numbers make of 7.82 - 7.32; time in two segments is covered once."""
    path = kitchen / ANNOTATIONS / SPLIT_FILES["test"]
    rows = rows_of(kitchen, "test")[:3]
    times = [("00:00:07.32", "00:00:07.82"), ("00:00:07.50", "00:00:07.99"), ("01:00:00.00", "01:10:00.00")]
    for row, (start, stop) in zip(rows, times, strict=True):
        row |= {"video_id": rows[0]["video_id"], "participant_id": rows[0]["participant_id"]}
        row |= {"start_timestamp": start, "stop_timestamp": stop}
    for number, row in enumerate(rows):
        row["narration_id"] = f"{row['video_id']}_{number}"
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    stats = dataset_statistics(kitchen)
    (lengths,) = (each for each in stats.lengths if each.split == "test")
    assert (lengths.num_short, lengths.min_s, lengths.max_s) == (1, 0.49, 600)
    assert lengths.histogram[EDGES_S.index(0.5)] == 1 and lengths.histogram[-1] == 1
    (counts,) = (each for each in stats.splits if each.split == "test")
    assert counts.annotated_h == pytest.approx(600.99 / 3600, abs=1e-4)
    assert counts.covered_h == pytest.approx(600.67 / 3600, abs=1e-4)


def test_what_is_written(toy_root, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["stats", "--data", str(toy_root), "--out", str(out), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    stats = dataset_statistics(toy_root)
    assert told == json.loads((out / "stats.json").read_text()) == json.loads(json.dumps(to_dict(stats)))
    page = (out / "stats.md").read_text()
    assert page == to_markdown(stats) and "| split | segments |" in page
    widths = [line.count("|") for line in page.splitlines() if line.startswith("|")]
    assert len(widths) > 60 and all(width > 3 for width in widths)
    for name in FIGURES:
        with Image.open(out / f"{name}.png") as picture:
            assert picture.width > 1000 and len(picture.convert("RGB").getcolors(1 << 24)) > 3
        assert "segments" in (out / f"{name}.svg").read_text()
    assert {path.name for path in out.iterdir()} == {"stats.json", "stats.md"} | {
        f"{name}.{suffix}" for name in FIGURES for suffix in ("png", "svg")
    }


def test_the_table_for_people(toy_root, capsys):
    assert main(["stats", "--data", str(toy_root), "--top", "2"]) == 0
    told = capsys.readouterr().out
    stats = dataset_statistics(toy_root)
    train = next(line.split() for line in told.splitlines() if line.split()[:1] == ["train"])
    counts = stats.splits[0]
    assert train[1:4] == list(map(str, (counts.num_segments, counts.num_videos, counts.num_participants)))
    assert f"The 2 commonest of {len(stats.verbs)} verbs." in told
    assert "unseen" in told and "Train has every verb of validation." in told


def test_numbers_need_no_figures(toy_root):
    code = (
        "import sys; from egochef.cli.main import main; "
        "sys.modules |= dict.fromkeys(('altair', 'vl_convert'));"  # as if they were not installed
        "print(main(['stats', '--data', sys.argv[1]])); print(main(['stats', '--data', sys.argv[1], '--out', 'x']))"
    )
    done = subprocess.run([sys.executable, "-c", code, toy_root], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-2:] == ["0", "1"] and "Commonest verbs" in done.stdout
    assert 'pip install "egochef[report]"' in done.stderr


def test_published_figures_are_small():
    figures = sorted((REPOSITORY / "docs" / "images").glob("dataset-*.png"))
    need(bool(figures), "the figures of docs/dataset.md")
    page = (REPOSITORY / "docs" / "dataset.md").read_text(encoding="utf-8")
    for path in figures:
        assert path.stat().st_size < 150_000 and f"images/{path.name}" in page
