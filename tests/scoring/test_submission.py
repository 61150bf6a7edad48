import csv
import json
import zipfile
from dataclasses import replace

import numpy as np
import pytest
from scoring_helpers import random_table, random_truth

from egochef.errors import InputError
from egochef.scoring.metrics import Truth, evaluate
from egochef.scoring.submission import SLS, SubmissionSummary, check_submission, make_submission, write_submission
from egochef.scoring.table import ScoreTable, align, take_rows

LEVELS = SLS(pt=1, tl=3, td=4)


def read_json(path):
    with zipfile.ZipFile(path) as archive:
        assert archive.namelist() == ["test.json"]
        return json.loads(archive.read("test.json"), parse_constant=pytest.fail)


def scored_officially(submission: dict, truth: Truth) -> dict[str, float]:
    """What the official evaluator makes of a submission: it softmaxes the whole array of the 100 best at once."""
    results = submission["results"]
    names = truth.narration_id.tolist()
    ranks, probs = {}, {}
    for field in ("verb", "noun"):
        scores = np.array([[results[name][field][str(i)] for i in range(len(results[name][field]))] for name in names])
        ranks[field] = scores.argsort(axis=1)[:, ::-1][:, :100]
        best = np.take_along_axis(scores, ranks[field], axis=1)
        probs[field] = np.exp(best - best.max()) / np.exp(best - best.max()).sum()
    hits = {}
    for field, classes in (("verb", truth.verb), ("noun", truth.noun)):
        hits[field] = ranks[field] == classes[:, None]
    matrix = (probs["verb"][:, :, None] * probs["noun"][:, None, :]).reshape(len(names), -1)
    order = matrix.argsort(axis=1)[:, ::-1][:, :100]
    verb_rank, noun_rank = np.divmod(order, ranks["noun"].shape[1])
    if "action" in results[names[0]]:
        actions = [sorted(results[name]["action"].items(), key=lambda item: -item[1]) for name in names]
        pairs = [[tuple(map(int, key.split(","))) for key, _ in row] for row in actions]
        hits["action"] = np.array(
            [
                [pair == right for pair in row]
                for row, right in zip(pairs, zip(truth.verb, truth.noun, strict=True), strict=True)
            ]
        )
    else:
        verbs, nouns = (np.take_along_axis(ranks[f], r, axis=1) for f, r in (("verb", verb_rank), ("noun", noun_rank)))
        hits["action"] = (verbs == truth.verb[:, None]) & (nouns == truth.noun[:, None])
    return {
        f"all_{field}_accuracy_at_{k}": 100 * hits[field][:, :k].any(axis=1).mean()
        for field in ("verb", "noun", "action")
        for k in (1, 5)
    }


@pytest.mark.parametrize("kind", ["logits", "probs"])
@pytest.mark.parametrize("with_actions", [True, False])
def test_a_submission_scores_as_its_table(tmp_path, kind, with_actions):
    rng = np.random.default_rng(7)
    table = random_table(rng, 400, 97, 300, kind)
    truth = random_truth(rng, table)
    # classes that the scores rank among the first, so that accuracies are far from 0
    table = align(table, truth.narration_id)
    verb, noun = (
        scores.argsort(axis=1)[np.arange(400), -1 - rng.integers(4, size=400)]
        for scores in (table.verb_output, table.noun_output)
    )
    truth = replace(truth, verb=verb, noun=noun)
    path = tmp_path / "new" / "submission.zip"
    write_submission(path, take_rows(table, rng.permutation(400)), LEVELS, truth.narration_id, with_actions)

    content = read_json(path)
    scored, expected = scored_officially(content, truth), evaluate(table, truth)
    assert {key: expected[key] for key in scored} == pytest.approx(scored)
    assert scored["all_action_accuracy_at_5"] > 10
    assert list(content["results"]) == truth.narration_id.tolist()
    summary = check_submission(path, table.narration_id, 97, 300)
    with zipfile.ZipFile(path) as archive:
        json_bytes = archive.infolist()[0].file_size
    actions = 100 if with_actions else 0
    assert summary == SubmissionSummary(400, actions, LEVELS, path.stat().st_size, json_bytes)


def test_the_format(tmp_path):
    table = random_table(np.random.default_rng(0), 5, 97, 300)
    write_submission(tmp_path / "a.zip", table, LEVELS, table.narration_id)
    content = read_json(tmp_path / "a.zip")
    results = content.pop("results")
    assert content == {"version": "0.2", "challenge": "action_recognition", "sls_pt": 1, "sls_tl": 3, "sls_td": 4}
    assert list(results) == table.narration_id.tolist()
    for segment in results.values():
        assert list(segment) == ["verb", "noun", "action"]
        assert list(segment["verb"]) == [str(i) for i in range(97)]
        assert list(segment["noun"]) == [str(i) for i in range(300)]
        assert len(segment["action"]) == 100
        values = list(segment["action"].values())
        assert values == sorted(values, reverse=True)
        best = max(segment["verb"], key=segment["verb"].get), max(segment["noun"], key=segment["noun"].get)
        assert next(iter(segment["action"])) == ",".join(best)
        np.testing.assert_allclose(np.exp(list(segment["noun"].values())).sum(), 1, atol=1e-4)


def test_the_same_scores_give_the_same_bytes(tmp_path):
    table = random_table(np.random.default_rng(0))
    for name in ("a.zip", "b.zip"):
        write_submission(tmp_path / name, table, LEVELS, table.narration_id)
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()


@pytest.mark.parametrize("offset", [0, 1e6, -1e6])
def test_large_offsets_and_sure_rows_survive(tmp_path, offset):
    table = random_table(np.random.default_rng(1), 20)
    sure = np.rint(table.verb_output) + offset
    sure[3] = [1e30, 0, 0, 0]
    table = replace(table, verb_output=sure)
    write_submission(tmp_path / "a.zip", table, LEVELS, table.narration_id)
    check_submission(tmp_path / "a.zip", table.narration_id, 4, 5)
    for row, segment in enumerate(read_json(tmp_path / "a.zip")["results"].values()):
        scores = list(segment["verb"].values())
        best = np.flatnonzero(table.verb_output[row] == table.verb_output[row].max())
        assert np.flatnonzero(np.array(scores) == max(scores)).tolist() == best.tolist()


def test_given_actions_are_submitted_as_given(tmp_path):
    rng = np.random.default_rng(0)
    table = random_table(rng, 3, 20, 10, num_actions=150)
    write_submission(tmp_path / "a.zip", table, LEVELS, table.narration_id)
    check_submission(tmp_path / "a.zip", table.narration_id, 20, 10)
    for row, segment in enumerate(read_json(tmp_path / "a.zip")["results"].values()):
        best = table.action_output[row].argsort()[::-1][:100]
        expected = {
            f"{a // 1000},{a % 1000}": s
            for a, s in zip(table.action_id[row][best], table.action_output[row][best], strict=True)
        }
        assert list(segment["action"]) == list(expected)
        assert [np.float32(x) for x in segment["action"].values()] == list(expected.values())
    few = replace(table, action_id=table.action_id[:, :99], action_output=table.action_output[:, :99])
    with pytest.raises(InputError, match="list 99 actions per segment, a submission needs 100"):
        write_submission(tmp_path / "b.zip", few, LEVELS, table.narration_id)
    write_submission(tmp_path / "b.zip", few, LEVELS, table.narration_id, with_actions=False)
    assert check_submission(tmp_path / "b.zip", table.narration_id, 20, 10).num_actions == 0


def test_a_small_taxonomy_gives_all_its_actions(tmp_path):
    table = random_table(np.random.default_rng(0))
    write_submission(tmp_path / "a.zip", table, LEVELS, table.narration_id)
    assert check_submission(tmp_path / "a.zip", table.narration_id, 4, 5).num_actions == 20


def test_odd_narration_ids_are_quoted(tmp_path):
    ids = ['a"b', "c\\d\n", "é%d"]
    table = ScoreTable(ids, np.zeros((3, 2)), np.zeros((3, 2)), "logits")
    write_submission(tmp_path / "a.zip", table, LEVELS, ids)
    assert list(read_json(tmp_path / "a.zip")["results"]) == ids
    assert check_submission(tmp_path / "a.zip", ids, 2, 2).num_segments == 3


def test_what_cannot_be_submitted_is_refused(tmp_path):
    table = random_table(np.random.default_rng(0))
    with pytest.raises(InputError, match="1 missing \\(x\\)"):
        write_submission(tmp_path / "a.zip", table, LEVELS, [*table.narration_id, "x"])
    with pytest.raises(InputError, match=r"a.json: a submission is a .zip"):
        write_submission(tmp_path / "a.json", table, LEVELS, table.narration_id)
    assert list(tmp_path.iterdir()) == []


def test_only_a_valid_zip_gets_its_name(tmp_path):
    """1,001 nouns: action ids, verb * 1000 + noun, then mean two things, which only the check of the zip finds."""
    path = tmp_path / "a.zip"
    table = random_table(np.random.default_rng(0), 3)
    summary = make_submission(path, table, LEVELS, table.narration_id, 4, 5)
    assert summary == check_submission(path, table.narration_id, 4, 5)
    before = path.read_bytes()
    nouns = np.zeros((3, 1001))
    nouns[:, [0, 1000]] = 9.0
    wide = replace(table, noun_output=nouns)
    with pytest.raises(InputError, match=r"a\.zip: not a valid submission\. ") as caught:
        make_submission(path, wide, LEVELS, table.narration_id, 4, 1001)
    assert ".part" not in str(caught.value)
    for num_verbs, num_nouns, fault in ((5, 4, "4 verbs and 5 nouns, .* 5 and 4: .*swapped"), (4, 6, "has 4 and 6")):
        with pytest.raises(InputError, match=fault):
            make_submission(path, table, LEVELS, table.narration_id, num_verbs, num_nouns)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]
    with pytest.raises(InputError, match=r"b\.json: a submission is a \.zip"):
        make_submission(tmp_path / "b.json", table, LEVELS, table.narration_id, 4, 5)


@pytest.mark.parametrize("level", [-1, 6, 2.0, True, "3", None])
@pytest.mark.parametrize("name", ["pt", "tl", "td"])
def test_levels_are_whole_numbers_from_0_to_5(name, level):
    with pytest.raises(InputError, match=f"SLS level {name} is .* from 0 to 5"):
        SLS(**({"pt": 0, "tl": 3, "td": 5} | {name: level}))


@pytest.mark.slow
def test_the_real_test_split(tmp_path, ek100_annotations):
    with (ek100_annotations / "EPIC_100_test_timestamps.csv").open(newline="", encoding="utf-8") as file:
        ids = [row["narration_id"] for row in csv.DictReader(file)]
    rng = np.random.default_rng(0)
    table = ScoreTable(ids, rng.standard_normal((13092, 97)), rng.standard_normal((13092, 300)), "logits")
    write_submission(tmp_path / "a.zip", table, LEVELS, ids)
    summary = check_submission(tmp_path / "a.zip", ids, 97, 300)
    assert (summary.num_segments, summary.num_actions) == (13092, 100)
