"""Filters, orders and counts of the explorer against plain loops over the same segments and scores."""

import csv
import math
from collections import Counter
from itertools import pairwise
from pathlib import Path
from urllib.parse import urlencode

import numpy as np
import pytest
from explorer_process import ANNOTATIONS, made_up
from hypothesis import given, settings
from hypothesis import strategies as st

from egochef.data.annotations import open_data_folder, timestamp
from egochef.errors import InputError
from egochef.report.explorer import query as ask
from egochef.report.explorer.detail import segment_detail
from egochef.report.explorer.index import Index, build_index, splits_there
from egochef.report.explorer.server import read_index
from egochef.scoring.table import ScoreTable, save_scores

VERBS = ("take", "put", "Wash", "open", "close")
NOUNS = ("cup", "Plate", "liquid:washing:up", "tap")
WORDS = ("take", "Cup", "STRASSE", "straße", "of", "tap,", '"tea"', "naïve")
SPLITS = {"train": 70, "validation": 50, "test": 20}
FILES = {"train": "EPIC_100_train.csv", "validation": "EPIC_100_validation.csv", "test": "EPIC_100_test_timestamps.csv"}


def write_folder(root: Path) -> Path:
    """Segments of four people in all splits; ids do not sort as text does."""
    rng = np.random.default_rng(5)
    folder = root / ANNOTATIONS
    folder.mkdir(parents=True)
    for name, names in (("verb", VERBS), ("noun", NOUNS)):
        with (folder / f"EPIC_100_{name}_classes.csv").open("w", newline="") as file:
            csv.writer(file).writerows([("id", "key"), *enumerate(names)])
    for place, (split, num) in enumerate(SPLITS.items()):
        header = ["narration_id", "participant_id", "video_id", "start_timestamp", "stop_timestamp", "start_frame",
                  "stop_frame", "narration", "verb_class", "noun_class"]  # fmt: skip
        rows, numbers = [], Counter()
        for _ in range(num):
            person = f"P{rng.integers(1, 5):02d}"
            video = f"{person}_{rng.choice([2, 11, 101]) + 1000 * place}"
            start_s = float(rng.integers(0, 4000)) / 4
            stop_s = start_s + float(rng.integers(1, 60)) / 4
            words = " ".join(rng.choice(WORDS, size=rng.integers(1, 4)))
            rows.append([f"{video}_{numbers[video]}", person, video, timestamp(start_s), timestamp(stop_s), "1", "2",
                         words, rng.integers(len(VERBS)), rng.integers(len(NOUNS))])  # fmt: skip
            numbers[video] += 1
        rng.shuffle(rows)
        with (folder / FILES[split]).open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerows([header, *rows] if split != "test" else [row[:7] for row in (header, *rows)])
    return root


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    return write_folder(tmp_path_factory.mktemp("explorer") / "data")


@pytest.fixture(scope="module")
def tables(root) -> list[ScoreTable]:
    """Logits; probabilities; and a model that scores actions itself."""
    segments = [each for each in build_index(open_data_folder(root)).segments if _split(each) == "validation"]
    first, second, third = (made_up(segments, len(VERBS), len(NOUNS), seed, lift=2.0) for seed in range(3))
    probs = [np.exp(x) / np.exp(x).sum(axis=1, keepdims=True) for x in (second.verb_output, second.noun_output)]
    rng = np.random.default_rng(9)
    pairs = np.array([verb * 1000 + noun for verb in range(len(VERBS)) for noun in range(len(NOUNS))])
    own = np.array([rng.permutation(pairs)[:7] for _ in segments])
    scores = rng.normal(size=own.shape)
    return [
        first,
        ScoreTable(second.narration_id, *probs, "probs"),
        ScoreTable(third.narration_id, third.verb_output, third.noun_output, "logits", own, scores),
    ]


@pytest.fixture(scope="module")
def index(root, tables, tmp_path_factory) -> Index:
    folder = tmp_path_factory.mktemp("scores")
    paths = [folder / f"{name}.npz" for name in "abc"]
    for path, table in zip(paths, tables, strict=True):
        save_scores(path, table)
    return read_index(root, paths)


def _split(segment) -> str:
    return list(SPLITS)[int(segment.video_id.split("_")[1]) // 1000]


# ---- the same in plain loops


def plain_rows(index: Index, tables: list[ScoreTable]) -> list[dict]:
    """Every segment with what every model says of it, by loops and `math` alone."""
    rows = []
    for segment in index.segments:
        row = {"segment": segment, "split": _split(segment), "said": []}
        for table in tables:
            places = [at for at, name in enumerate(table.narration_id.tolist()) if name == segment.narration_id]
            row["said"].append(plain_said(table, places[0], segment) if places else None)
        rows.append(row)
    return rows


def plain_said(table: ScoreTable, at: int, segment) -> dict:
    best, confidence, probs = {}, {}, {}
    for task in ("verb", "noun"):
        scores = getattr(table, f"{task}_output")[at].tolist()
        chances = [score if table.kind == "probs" else math.exp(score) for score in scores]
        best[task] = max(range(len(scores)), key=lambda each: (scores[each], each))
        probs[task] = [chance / sum(chances) for chance in chances]
        confidence[task] = probs[task][best[task]]
    best["action"] = best["verb"] * 1000 + best["noun"]
    confidence["action"] = confidence["verb"] * confidence["noun"]
    if table.action_output is not None:
        scores = table.action_output[at].tolist()
        top = scores.index(max(scores))
        best["action"] = int(table.action_id[at, top])
        listed = [divmod(action, 1000) for action in table.action_id[at].tolist()]  # logits only compare these
        together = sum(probs["verb"][verb] * probs["noun"][noun] for verb, noun in listed)
        confidence["action"] = together * math.exp(scores[top]) / sum(map(math.exp, scores))
    truth = {"verb": segment.verb, "noun": segment.noun, "action": segment.verb * 1000 + segment.noun}
    return {"best": best, "confidence": confidence, "right": {task: best[task] == truth[task] for task in truth}}


def plain_match(row: dict, asked: dict) -> bool:
    segment, task = row["segment"], asked.get("task", "action")
    said = row["said"][int(asked.get("run", 0))]
    other = row["said"][int(asked["other"])] if "other" in asked else None
    text = (segment.narration + "\n" + segment.narration_id).casefold()
    checks = [word in text for word in asked.get("search", "").casefold().split()]
    checks += [row["split"] == asked["split"]] if "split" in asked else []
    for name, own in (("participant", segment.participant_id), ("video", segment.video_id)):
        checks += [own == asked[name]] if name in asked else []
    for name in ("verb", "noun"):
        checks += [getattr(segment, name) == int(asked[name])] if name in asked else []
        if f"predicted_{name}" in asked:
            checks.append(said is not None and said["best"][name] == int(asked[f"predicted_{name}"]))
    for name in ("verb", "noun", "action"):
        if f"{name}_is" in asked:
            checks.append(said is not None and said["right"][name] == (asked[f"{name}_is"] == "right"))
    if "at_least" in asked:
        checks.append(said is not None and 100 * said["confidence"][task] >= float(asked["at_least"]))
    if "at_most" in asked:
        checks.append(said is not None and 100 * said["confidence"][task] <= float(asked["at_most"]))
    if "pair" in asked:
        wanted = {"both_right": (True, True), "only_first": (True, False), "only_second": (False, True),
                  "both_wrong": (False, False)}[asked["pair"]]  # fmt: skip
        checks.append(said is not None and (said["right"][task], other["right"][task]) == wanted)
    return all(checks)


def plain_key(row: dict, asked: dict, column: str):
    """What a row sorts by; None: it has no such value."""
    segment, task = row["segment"], asked.get("task", "action")
    said = row["said"][int(asked.get("run", 0))]
    names = {"verb": VERBS, "noun": NOUNS}
    if column in names:
        number = getattr(segment, column)
        return None if number is None else names[column][number]
    if column.startswith("predicted_"):
        kind = column.removeprefix("predicted_")
        return None if said is None else names[kind][said["best"][kind]]
    if column.endswith("confidence"):
        told = said if column == "confidence" else row["said"][int(asked["other"])]
        return None if told is None else round(told["confidence"][task], 9)
    plain = {"segment": natural(segment), "narration": segment.narration.casefold(), "start": segment.start_s,
             "length": segment.stop_s - segment.start_s, "split": list(SPLITS).index(row["split"])}  # fmt: skip
    return plain[column]


def natural(segment) -> tuple[int, ...]:
    person, video, number = segment.narration_id.split("_")
    return int(person[1:]), int(video), int(number)


def maybe(values):
    return st.none() | values


SEARCHED = ("take", "CUP", "strasse", "ss", "p01", "_11_", '"', "zz", "ï")
QUERIES = st.fixed_dictionaries(
    {},
    optional={
        "search": st.lists(st.sampled_from(SEARCHED), max_size=2).map(" ".join),
        "split": st.sampled_from(list(SPLITS)),
        "participant": st.sampled_from(["P01", "P02", "P03", "P04"]),
        "verb": st.integers(0, len(VERBS) - 1),
        "noun": st.integers(0, len(NOUNS) - 1),
        "predicted_verb": st.integers(0, len(VERBS) - 1),
        "predicted_noun": st.integers(0, len(NOUNS) - 1),
        "run": st.integers(0, 2),
        "task": st.sampled_from(["verb", "noun", "action"]),
        "verb_is": st.sampled_from(["right", "wrong"]),
        "noun_is": st.sampled_from(["right", "wrong"]),
        "action_is": st.sampled_from(["right", "wrong"]),
        "at_least": st.sampled_from(["0", "12.5", "30"]),
        "at_most": st.sampled_from(["100", "45.5", "20"]),
        "other": st.integers(0, 2),
    },
)  # fmt: skip


def taken(index: Index, asked: dict) -> ask.Query:
    found = ask.Parameters(ask.parameters(urlencode(asked).encode()))
    query = ask.take_query(found, index)
    found.end()
    return query


@settings(max_examples=100, deadline=None)
@given(
    asked=QUERIES,
    pair=maybe(st.sampled_from(list(ask.PAIRS))),
    column=st.sampled_from(ask.COLUMNS),
    falling=st.booleans(),
)
def test_rows_are_those_of_plain_loops(index, tables, asked, pair, column, falling):
    if pair and "other" in asked:
        asked = {**asked, "pair": pair}
    if column == "other_confidence" and "other" not in asked:
        column = "confidence"
    query = taken(index, asked)
    kept = ask.matching(index, query)
    everything = plain_rows(index, tables)
    rows = [row for row in everything if plain_match(row, asked)]
    assert kept.sum() == len(rows)

    found = ask.sorted_rows(index, query, kept, column, falling=falling).tolist()
    ids = [index.segments[row].narration_id for row in found]
    assert sorted(ids) == sorted(row["segment"].narration_id for row in rows)
    keys = {row["segment"].narration_id: (plain_key(row, asked, column), natural(row["segment"])) for row in rows}
    valued = [keys[each] for each in ids if keys[each][0] is not None]
    assert [keys[each][0] for each in ids] == [key for key, _ in valued] + [None] * (len(ids) - len(valued))
    assert [key for key, _ in valued] == sorted((key for key, _ in valued), reverse=falling)
    for (before, place), (after, next_place) in pairwise(valued):
        assert before != after or place < next_place  # equal ones in the order of videos

    counts = ask.summary(index, query, kept)
    assert (counts["total"], counts["matched"]) == (len(index), len(rows))
    said = [row["said"][query.run] for row in rows if row["said"][query.run]]
    assert counts["runs"][0]["judged"] == counts["runs"][0]["predicted"] == len(said)
    for task in ("verb", "noun", "action"):
        assert counts["runs"][0]["right"][task] == sum(each["right"][task] for each in said)
    if "other" in asked:
        without = {name: value for name, value in asked.items() if name != "pair"}
        for name in ask.PAIRS:
            assert counts["pairs"][name] == sum(plain_match(row, {**without, "pair": name}) for row in everything)


@settings(max_examples=60, deadline=None)
@given(asked=QUERIES, task=st.sampled_from(["verb", "noun"]), order=st.sampled_from(ask.CLASS_ORDERS))
def test_plots_count_as_plain_loops_do(index, tables, asked, task, order):
    query = taken(index, asked)
    numbers = ask.plots(index, query, ask.matching(index, query), task, order)
    rows = [row for row in plain_rows(index, tables) if plain_match(row, asked)]
    assert sum(each["num"] for each in numbers["lengths"]) == len(rows)
    said = [(row["segment"], row["said"][query.run]) for row in rows if row["said"][query.run]]
    bins = Counter()
    for _, each in said:
        low = min(19, int(each["confidence"][query.task] * 20 + 1e-12)) * 5
        bins[low, "right" if each["right"][query.task] else "wrong"] += 1
    assert {(each["from"], each["outcome"]): each["num"] for each in numbers["confidence"]} == bins
    truth = Counter(getattr(row["segment"], task) for row in rows if row["segment"].verb is not None)
    right = Counter(getattr(segment, task) for segment, each in said if each["right"][task])
    wrong = Counter(getattr(segment, task) for segment, each in said if not each["right"][task])
    for each in numbers["classes"]:
        key = each["id"]
        assert (each["num"], each["right"], each["wrong"]) == (truth[key], right[key], wrong[key])
        assert each["name"] == (VERBS if task == "verb" else NOUNS)[key]
    if order == "most":
        assert [each["num"] for each in numbers["classes"]] == sorted(truth.values(), reverse=True)
    else:
        shares = [each["accuracy"] for each in numbers["classes"]]
        assert shares == sorted(shares, reverse=order == "best")


def test_a_segment_with_its_scores(index, tables):
    rows = {row["segment"].narration_id: row for row in plain_rows(index, tables)}
    for place, segment in enumerate(index.segments):
        found = segment_detail(index, place)
        row = rows[segment.narration_id]
        assert (found["id"], found["split"], found["narration"]) == (
            segment.narration_id,
            row["split"],
            segment.narration,
        )
        if segment.verb is None:
            assert found["truth"] == {"verb": None, "noun": None, "action": None}
            assert found["narration"] == ""
        else:
            assert found["truth"]["action"] == f"{VERBS[segment.verb]} {NOUNS[segment.noun]}"
        for run, said in zip(found["runs"], row["said"], strict=True):
            assert (run["tasks"] is None) == (said is None)
            for task in ("verb", "noun", "action") if said else ():
                best = run["tasks"][task]["best"]
                assert best[0]["prob"] == pytest.approx(said["confidence"][task], abs=1e-5)
                assert best[0]["true"] == said["right"][task]
                assert [each["prob"] for each in best] == sorted((each["prob"] for each in best), reverse=True)
                truth = run["tasks"][task]["truth"]
                assert (truth["rank"] == 1) == said["right"][task]
                assert sum(each["true"] for each in best) == (truth["rank"] is not None and truth["rank"] <= 5)


def test_ranks_and_probabilities_of_all_actions(index, tables):
    """A rank is one more than the number of actions that are more probable."""
    for place, segment in enumerate(index.segments):
        if _split(segment) != "validation":
            continue
        at = tables[0].narration_id.tolist().index(segment.narration_id)
        verbs, nouns = (np.exp(x[at].astype(float)) for x in (tables[0].verb_output, tables[0].noun_output))
        grid = np.outer(verbs / verbs.sum(), nouns / nouns.sum())
        truth = segment_detail(index, place)["runs"][0]["tasks"]["action"]["truth"]
        own = grid[segment.verb, segment.noun]
        assert truth == {"name": truth["name"], "rank": 1 + int((grid > own).sum()), "prob": round(float(own), 5)}


def test_an_action_that_a_model_does_not_list_has_no_rank(index):
    ranks = [
        segment_detail(index, place)["runs"][2]["tasks"]["action"]["truth"]
        for place, segment in enumerate(index.segments)
        if _split(segment) == "validation"
    ]
    unlisted = [each for each in ranks if each["rank"] is None]
    assert 0 < len(unlisted) < len(ranks)
    assert all(each["prob"] is None for each in unlisted)
    assert max(each["rank"] for each in ranks if each["rank"]) <= 7


def test_splits(root):
    folder = open_data_folder(root)
    assert build_index(folder).splits == ("train", "validation", "test")
    assert build_index(folder, ["test", "validation"]).splits == ("validation", "test")  # never shuffled
    with pytest.raises(InputError, match="unknown split 'dev', expected some of train, validation, test"):
        splits_there(folder, ["dev"])


def test_only_some_participants(root):
    index = build_index(open_data_folder(root, ["P03"]))
    assert set(index.participants) == {"P03"}
    with pytest.raises(InputError, match="no segment of P77"):
        build_index(open_data_folder(root, ["P77"]))


def test_a_narration_id_in_two_splits_is_refused(tmp_path):
    root = write_folder(tmp_path / "data")
    train, validation = (root / ANNOTATIONS / FILES[split] for split in ("train", "validation"))
    validation.write_text(validation.read_text() + train.read_text().splitlines()[1] + "\n")
    for splits in ((), ["validation"]):
        with pytest.raises(InputError, match="a segment belongs to one split"):
            build_index(open_data_folder(root), splits)


def test_scores_of_the_test_split_have_no_verdict(root, tmp_path):
    segments = build_index(open_data_folder(root), ["test"]).segments
    save_scores(tmp_path / "model.npz", made_up(segments, len(VERBS), len(NOUNS), 0))
    for index in (
        read_index(root, [tmp_path / "model.npz"], ["test"]),
        read_index(root, [tmp_path / "model.npz"], (), "test"),
    ):
        assert index.scored_split == "test"
        counts = ask.summary(index, ask.Query(), ask.matching(index, ask.Query(split=index.splits.index("test"))))
        assert counts["runs"][0] == {
            "name": "model",
            "predicted": 20,
            "judged": 0,
            "right": {"verb": 0, "noun": 0, "action": 0},
        }
        assert not ask.matching(index, ask.Query(action_is="wrong")).any()
        assert not ask.matching(index, ask.Query(verb_is="right")).any()
        assert ask.matching(index, ask.Query(at_least=0.0)).sum() == 20


def test_scores_of_a_split_that_is_not_browsed(root, index):
    paths = [run.scores.path for run in index.predictions]
    with pytest.raises(InputError, match="the scores are of the validation split, but only train, test is browsed"):
        read_index(root, paths, ["train", "test"])
    with pytest.raises(InputError, match="unknown split 'dev'"):
        read_index(root, paths, (), "dev")
    with pytest.raises(InputError, match="does not fit the 70 segments"):
        read_index(root, paths, ["train"])


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        ("search=%", "hexadecimal"),
        ("search=%zz", "hexadecimal"),
        ("search=%ff%fe", "UTF-8"),
        ("verb=1&verb=2", "'verb' is given twice"),
        ("&".join(f"a{n}=1" for n in range(60)), "more than 40 parameters"),
        ("search=" + "x" * 201, "201 letters"),
        ("verb=-1", "whole number from 0 to 4"),
        ("verb=5", "whole number from 0 to 4"),
        ("verb=1.0", "whole number"),
        ("verb=1e0", "whole number"),
        ("verb=%D9%A1", "whole number"),
        ("verb=" + "9" * 400, "whole number"),
        ("run=3", "whole number from 0 to 2"),
        ("split=dev", "expected one of train, validation, test"),
        ("participant=P99", "expected one of P01"),
        ("video=../../etc/passwd", "video is '../../etc/passwd'"),
        ("task=both", "expected one of verb, noun, action"),
        ("action_is=maybe", "expected one of right, wrong"),
        ("at_least=nan", "percentage"),
        ("at_most=101", "percentage"),
        ("at_least=-1", "percentage"),
        ("at_least=1e1", "percentage"),
        ("pair=both_right", "needs other"),
        ("pair=neither&other=1", "expected one of both_right"),
        ("no_such=1", "unknown parameter 'no_such'"),
    ],
)
def test_what_is_asked_wrongly(index, raw, reason):
    with pytest.raises(InputError, match=reason):
        given = ask.Parameters(ask.parameters(raw.encode()))
        ask.take_query(given, index)
        given.end()


@pytest.mark.parametrize("raw", ["action_is=right", "other=0", "at_least=5", "predicted_verb=1"])
def test_questions_about_predictions_without_a_run(root, raw):
    index = build_index(open_data_folder(root))
    with pytest.raises(InputError, match="asks about predictions, but no run was given"):
        ask.take_query(ask.Parameters(ask.parameters(raw.encode())), index)
    with pytest.raises(InputError, match="no run was given"):
        ask.sorted_rows(index, ask.Query(), ask.matching(index, ask.Query()), "confidence", falling=True)


@given(raw=st.binary(max_size=60))
@settings(max_examples=150, deadline=None)
def test_any_bytes_are_parameters_or_an_input_error(index, raw):
    try:
        given_ = ask.Parameters(ask.parameters(raw))
        ask.take_query(given_, index)
    except InputError as error:
        assert len(str(error)) < 400


def test_all_of_ek100(ek100_annotations, tmp_path):
    """The official annotations, 89,977 rows, against loops."""
    (tmp_path / ANNOTATIONS).symlink_to(ek100_annotations)
    segments = build_index(open_data_folder(tmp_path), ["validation"]).segments
    for seed in range(2):
        save_scores(tmp_path / f"run{seed}.npz", made_up(segments, 97, 300, seed, lift=8.0))
    index = read_index(tmp_path, [tmp_path / "run0.npz", tmp_path / "run1.npz"])
    assert len(index) == 67_217 + 9_668 + 13_092
    assert (len(index.participants), len(index.videos)) == (37, 700)
    ids = [segment.narration_id for segment in index.segments]
    ordered = [
        ids[row] for row in ask.sorted_rows(index, ask.Query(), np.ones(len(ids), dtype=bool), "segment", falling=False)
    ]
    assert ordered[0] == "P01_01_0"
    assert ordered == sorted(ids, key=lambda each: [int(part.strip("P")) for part in each.split("_")])

    kept = ask.matching(index, taken(index, {"search": "open drawer", "verb": 3}))
    loop = [s for s in index.segments if s.verb == 3 and "open" in s.narration and "drawer" in s.narration]
    assert kept.sum() == len(loop) > 1000
    counts = ask.summary(index, ask.Query(other=1), np.ones(len(index), dtype=bool))
    assert sum(counts["pairs"].values()) == counts["runs"][0]["judged"] == 9_668
    first, second = (run["right"]["action"] for run in counts["runs"])
    assert counts["pairs"]["both_right"] + counts["pairs"]["only_first"] == first > 0
    assert counts["pairs"]["both_right"] + counts["pairs"]["only_second"] == second > 0
    worst = ask.Query(action_is="wrong", verb_is="right", split=1)
    rows = ask.sorted_rows(index, worst, ask.matching(index, worst), "confidence", falling=True)
    assert (np.diff(index.predictions[0].confidence["action"][rows]) <= 0).all()
    assert all(index.predictions[0].best["verb"][row] == index.segments[row].verb for row in rows.tolist())
