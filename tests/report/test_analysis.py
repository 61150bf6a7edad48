"""Every number of the analysis against plain loops, on random splits and on the official validation set."""

import dataclasses
import math
from collections import Counter

import numpy as np
import plain as by_hand
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from egochef.data.annotations import open_data_folder
from egochef.errors import InputError
from egochef.report.analysis import (
    Calibration,
    action_errors,
    by_class,
    by_frequency,
    by_length,
    by_pair,
    by_participant,
    by_seen,
    by_video,
    calibration,
    extremes,
    named_top,
    official,
    open_split,
    outcome_of,
)
from egochef.report.comparison import patterns
from egochef.scoring.metrics import evaluate
from egochef.scoring.table import ScoreTable

TASKS = ("verb", "noun", "action")
MODELS = ("early", "late", "ensemble")
REAL = pytest.mark.parametrize("model", MODELS)
SMALL = settings(max_examples=30, deadline=None)
sizes = st.fixed_dictionaries(
    {
        "seed": st.integers(0, 10**6),
        "num_rows": st.integers(1, 40),
        "num_verbs": st.integers(1, 7),
        "num_nouns": st.integers(1, 7),
        "num_videos": st.integers(1, 20),
        "kind": st.sampled_from(["logits", "probs"]),
        "with_actions": st.booleans(),
    }
)


def is_about(found, expected):
    """A value, its number of segments and an interval around it, or nothing of nothing."""
    if expected is None:
        return found is None
    return found is not None and found.value == pytest.approx(expected) and 0 <= found.low <= found.high <= 100


def same_groups(found, expected):
    assert len(found) == len(expected)
    for group, (num, values) in zip(found, expected, strict=True):
        assert group.num == num
        for task, value in zip(TASKS, values, strict=True):
            each = getattr(group, task)
            assert is_about(each, value), (group, task, value)
            assert each is None or each.num == num


def check_official(case, model):
    found, expected = official(case.outcomes[model], case.split), by_hand.metrics(case.plain, model)
    assert found.keys() == expected.keys()
    for name, (value, num) in expected.items():
        assert is_about(found[name], value) and found[name].num == num
        assert found[name].low <= found[name].value <= found[name].high
    theirs = evaluate(case.tables[model], case.split.truth)
    assert {name: each.value for name, each in found.items()} | {"num_segments": len(case.split)} == theirs


@given(sizes)
@SMALL
def test_official_metrics(make_case, size):
    check_official(make_case(**size), "model 0")


@REAL
def test_official_metrics_of_the_validation_set(real_case, model):
    check_official(real_case, model)


def check_groups(case, model):
    outcome, split, plain = case.outcomes[model], case.split, case.plain

    lengths = by_length(outcome, split)
    assert [group.name for group in lengths] == list(by_hand.LENGTHS)
    same_groups(lengths, by_hand.groups(plain, model, [row.length_bin for row in plain.rows], range(6)))

    participants = by_participant(outcome, split)
    names = sorted({row.participant for row in plain.rows})
    assert [group.name for group in participants] == names
    assert {group.name for group in participants if group.mark == "unseen"} == plain.unseen & set(names)
    assert all(group.mark in ("", "unseen") for group in participants)
    same_groups(participants, by_hand.groups(plain, model, [row.participant for row in plain.rows], names))

    seen = by_seen(outcome, split)
    kinds = ["unseen participants" if row.participant in plain.unseen else "seen participants" for row in plain.rows]
    listed = split.folder.unseen_participants["validation"]
    assert [group.name for group in seen] == (["seen participants", "unseen participants"] if listed else [])
    same_groups(seen, by_hand.groups(plain, model, kinds, [group.name for group in seen]))

    videos = by_video(outcome, split)
    names = sorted({row.video for row in plain.rows})
    assert [group.name for group in videos] == names
    same_groups(videos, by_hand.groups(plain, model, [row.video for row in plain.rows], names))

    pairs = by_pair(outcome, split)
    order = ["pair seen", "both seen, never paired", "verb or noun new"]
    assert [group.name for group in pairs] == order
    same_groups(pairs, by_hand.groups(plain, model, [by_hand.pair_kind(plain, row) for row in plain.rows], order))
    for groups in (lengths, participants, seen or participants, videos, pairs):
        assert sum(group.num for group in groups) == len(plain.rows)


def check_frequency(case, model):
    plain = case.plain
    for task in TASKS:
        found = by_frequency(case.outcomes[model], case.split, task)
        names = [by_hand.frequency_bin(plain.trained_on(row, task)) for row in plain.rows]
        right = plain.right(model, task)
        order = ["0", "1 to 9", "10 to 99", "100 to 999", "1,000 to 9,999", "10,000 or more"]
        assert [name for name, _ in found] == order
        for name, value in found:
            hits = [hit for hit, own in zip(right, names, strict=True) if own == name]
            assert is_about(value, by_hand.percent(hits)), (task, name)
            assert value is None or value.num == len(hits)


@given(sizes)
@SMALL
def test_groups(make_case, size):
    case = make_case(**size)
    check_groups(case, "model 0")
    check_frequency(case, "model 1")


@REAL
def test_groups_of_the_validation_set(real_case, model):
    check_groups(real_case, model)
    check_frequency(real_case, model)


def test_without_train(make_case):
    case = make_case(3, has_train=False)
    outcome = case.outcomes["model 0"]
    assert by_pair(outcome, case.split) == []
    assert all(by_frequency(outcome, case.split, task) == [] for task in TASKS)
    assert all(case.split.train_count(task) is None for task in TASKS)
    results = by_class(outcome, case.split, "verb")
    assert [each.num_train for each in results] == [None] * len(results)
    assert [each.num for each in results] == sorted((each.num for each in results), reverse=True)
    check_classes(case, "model 0")


def test_a_length_at_the_end_of_a_bin_is_in_the_next(make_case):
    """Also where the difference of the times is less in floating point."""
    starts = [hundredths / 100 for hundredths in range(100, 2000)]
    less = [(start, round(start + 2, 2)) for start in starts if round(start + 2, 2) - start < 2][:20]
    assert less
    case = make_case(1, num_rows=len(less))
    segments = tuple(
        dataclasses.replace(segment, start_s=start, stop_s=stop)
        for segment, (start, stop) in zip(case.split.segments, less, strict=True)
    )
    split = dataclasses.replace(case.split, segments=segments)
    groups = by_length(case.outcomes["model 0"], split)
    assert {group.name: group.num for group in groups if group.num} == {"2 to 4 s": len(less)}
    assert {pattern.by_length for pattern in patterns(list(case.outcomes.values())[:1], split)} <= {
        (0, 0, 0, num, 0, 0) for num in range(len(less) + 1)
    }


def check_classes(case, model):
    plain = case.plain
    for task in ("verb", "noun"):
        own, best = plain.own(task), plain.best(model, task)
        num, num_predicted = Counter(own), Counter(best)
        num_right = Counter(a for a, b in zip(own, best, strict=True) if a == b)
        places = {"verb": 0, "noun": 1}
        num_train = Counter()
        for pair, count in (plain.train or Counter()).items():
            num_train[pair[places[task]]] += count
        frequency = num if plain.train is None else num_train
        tail = plain.tail_verbs if task == "verb" else plain.tail_nouns
        results = by_class(case.outcomes[model], case.split, task)
        assert [each.id for each in results] == sorted(num, key=lambda each: (-frequency[each], each))
        for each in results:
            assert each.name == plain.names(task)[each.id]
            assert (each.num, each.num_predicted) == (num[each.id], num_predicted[each.id])
            assert each.num_train == (None if plain.train is None else num_train[each.id])
            assert each.tail == (each.id in tail)
            assert each.recall == pytest.approx(100 * num_right[each.id] / num[each.id])
            if num_predicted[each.id]:
                assert each.precision == pytest.approx(100 * num_right[each.id] / num_predicted[each.id])
            else:
                assert each.precision is None


@given(sizes)
@SMALL
def test_classes(make_case, size):
    check_classes(make_case(**size), "model 0")


@REAL
def test_classes_of_the_validation_set(real_case, model):
    check_classes(real_case, model)


def plain_calibration(plain, model, task):
    """By bin: number, mean probability and accuracy in percent; the error; the mean of all."""
    bins = {}
    for said, hit in zip(plain.said[model], plain.right(model, task), strict=True):
        sure = getattr(said, task)[0][1]
        bins.setdefault(min(math.floor(10 * sure), 9), []).append((100 * sure, 100 * hit))
    found, error, whole = {}, 0.0, 0.0
    for place, values in sorted(bins.items()):
        sure = math.fsum(a for a, _ in values) / len(values)
        right = math.fsum(b for _, b in values) / len(values)
        found[place] = (len(values), sure, right)
        error += abs(sure - right) * len(values) / len(plain.rows)
        whole += sure * len(values) / len(plain.rows)
    return found, error, whole


def check_calibration(case, model):
    for task in TASKS:
        found = calibration(case.outcomes[model], task)
        bins, error, whole = plain_calibration(case.plain, model, task)
        assert isinstance(found, Calibration) and len(found.bins) == len(bins)
        for each, (place, (num, sure, right)) in zip(found.bins, bins.items(), strict=True):
            assert (each.low, each.high, each.num) == (place / 10, (place + 1) / 10, num)
            assert (each.confidence, each.accuracy) == (pytest.approx(sure), pytest.approx(right))
        assert (found.error, found.confidence) == (pytest.approx(error), pytest.approx(whole))


@given(sizes)
@SMALL
def test_calibration(make_case, size):
    check_calibration(make_case(**size), "model 1")


@REAL
def test_calibration_of_the_validation_set(real_case, model):
    check_calibration(real_case, model)


def test_who_says_how_often_he_is_right_is_calibrated(make_case):
    """10,000 segments of two verbs, right as often as said."""
    rng = np.random.default_rng(4)
    case = make_case(0, num_rows=10_000, num_verbs=2, num_nouns=1)
    sure = rng.uniform(0.5, 1, 10_000)
    said = np.where(rng.random(10_000) < sure, case.split.truth.verb, 1 - case.split.truth.verb)
    verb = np.where(np.arange(2) == said[:, None], sure[:, None], 1 - sure[:, None])
    table = ScoreTable(case.split.truth.narration_id, verb, np.ones((10_000, 1)), "probs")
    found = calibration(outcome_of("calibrated", table, case.split), "verb")
    assert found.error < 1.5 and [each.low for each in found.bins] == [0.5, 0.6, 0.7, 0.8, 0.9]


def check_errors(case, model):
    plain, found = case.plain, action_errors(case.outcomes[model], case.split)
    kinds = Counter(
        (best // 1000 == row.verb, best % 1000 == row.noun)
        for row, best in zip(plain.rows, plain.best(model, "action"), strict=True)
    )
    assert found.num == len(plain.rows) == sum(kinds.values())
    assert found.num_right == kinds[True, True]
    assert found.num_verb == kinds[False, True]
    assert found.num_noun == kinds[True, False]
    assert found.num_both == kinds[False, False]


@given(sizes)
@SMALL
def test_action_errors(make_case, size):
    check_errors(make_case(**size), "model 0")


@REAL
def test_action_errors_of_the_validation_set(real_case, model):
    check_errors(real_case, model)


def test_errors_of_listed_actions_are_those_of_the_action_not_of_the_verb(make_case):
    case = make_case(8, num_rows=200, with_actions=True)
    outcome = case.outcomes["model 0"]
    assert (outcome.best("action") // 1000 != outcome.best("verb")).any()
    check_errors(case, "model 0")


def check_top(case, model, rows):
    for row in rows:
        for task in TASKS:
            expected = getattr(case.plain.said[model][row], task)
            found = named_top(case.outcomes[model], case.split, row, task)
            assert [name for name, _ in found] == [case.plain.name(task, each) for each, _ in expected]
            assert [prob for _, prob in found] == pytest.approx([prob for _, prob in expected], abs=1e-6)
            assert [prob for _, prob in found] == sorted((prob for _, prob in found), reverse=True)


def check_extremes(case, model, num):
    plain = case.plain
    right, own = plain.right(model, "action"), plain.own("action")
    sure = [said.action[0][1] for said in plain.said[model]]
    found = extremes(case.outcomes[model], case.split, num)
    for rows, wanted in zip(found, (False, True), strict=True):
        expected = []
        for row in sorted(range(len(own)), key=lambda row: -sure[row]):
            if right[row] is wanted and all(own[row] != own[other] for other in expected):
                expected.append(row)
        assert rows == expected[:num]
    return found


@given(sizes, st.integers(1, 6))
@SMALL
def test_best_and_worst_clips(make_case, size, num):
    case = make_case(**size)
    if size["num_verbs"] > 1 and size["num_nouns"] > 1:  # of one class everything is certain
        check_extremes(case, "model 0", num)
    check_top(case, "model 0", range(len(case.split)))


@REAL
def test_best_and_worst_clips_of_the_validation_set(real_case, model):
    worst, best = check_extremes(real_case, model, 6)
    assert len(worst) == len(best) == 6
    check_top(real_case, model, [*worst, *best, *range(0, len(real_case.split), 50)])


def test_a_split_is_read_with_its_training_counts(real_case):
    split, plain = real_case.split, real_case.plain
    assert len(split) == 9668 and split.name == "validation"
    assert split.action.tolist() == plain.own("action")
    assert split.video.tolist() == [row.video for row in plain.rows]
    assert split.truth.unseen.tolist() == [row.participant in plain.unseen for row in plain.rows]
    for task, places in (("verb", [0]), ("noun", [1]), ("action", [0, 1])):
        counts = Counter()
        for pair, count in plain.train.items():
            counts[tuple(pair[place] for place in places)] += count
        own = [tuple((row.verb, row.noun)[place] for place in places) for row in plain.rows]
        assert split.train_count(task).tolist() == [counts[each] for each in own]
        assert split.train[task].sum() == sum(plain.train.values()) == 67217


def test_other_splits(real):
    train = open_split(open_data_folder(real.root), "train")
    assert len(train) == 67217 and not train.truth.unseen.any()
    with pytest.raises(InputError, match="the test split has no labels"):
        open_split(open_data_folder(real.root), "test")
    with pytest.raises(InputError, match="unknown split 'lunch'"):
        open_split(open_data_folder(real.root), "lunch")


def test_participants_who_are_not_in_train_have_no_training_counts(real):
    unseen = open_split(open_data_folder(real.root, ["P18", "P32"]), "validation")
    assert unseen.train is None and set(unseen.video.tolist()) == {
        row.video for row in real.plain.rows if row.participant in ("P18", "P32")
    }
