import os
import pickle
import subprocess
import sys
import zipfile
from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as nps
from scoring_helpers import random_table

from egochef.errors import InputError
from egochef.scoring.table import (
    ScoreTable,
    align,
    load_scores,
    log_probs,
    save_scores,
    take_rows,
    to_log_probs,
)


def same(a: ScoreTable, b: ScoreTable) -> bool:
    pairs = [(getattr(a, field.name), getattr(b, field.name)) for field in fields(ScoreTable)]
    return all(np.array_equal(x, y) and np.asarray(x).dtype == np.asarray(y).dtype for x, y in pairs)


def table_with(**changes) -> ScoreTable:
    """Two segments, three verbs, two nouns."""
    arguments = {
        "narration_id": np.array(["a", "b"]),
        "verb_output": np.array([[1.0, 2.0, 0.0], [0.5, -1.0, 3.0]]),
        "noun_output": np.array([[1.0, 2.0], [0.5, -1.0]]),
        "kind": "logits",
    }
    return ScoreTable(**(arguments | changes))


def test_types_are_fixed():
    table = table_with(
        narration_id=["a", "b"],
        verb_output=[[1, 2, 3], [4, 5, 6]],
        action_id=np.array([[1, 2001]] * 2, dtype=np.uint16),
        action_output=np.ones((2, 2)),
    )
    assert table.narration_id.dtype.kind == "U"
    assert table.verb_output.dtype == table.noun_output.dtype == table.action_output.dtype == np.float32
    assert table.action_id.dtype == np.int64
    assert (len(table), table.num_verbs, table.num_nouns) == (2, 3, 2)


PROBS = {"kind": "probs", "verb_output": [[1, 0, 0], [0.2, 0.3, 0.5]], "noun_output": [[1, 0], [0.5, 0.5]]}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "scores"}, "'scores', expected one of logits, probs"),
        ({"narration_id": ["a", "a"]}, "1 narration ids appear more than once \\(a\\)"),
        ({"narration_id": [1, 2]}, "expected one text per segment"),
        ({"narration_id": []}, "at least one"),
        ({"verb_output": np.zeros((3, 3))}, r"verb_output has shape \(3, 3\), expected \(2, classes\)"),
        ({"noun_output": np.zeros((2, 0))}, "noun_output has shape"),
        ({"noun_output": np.zeros(2)}, "noun_output has shape"),
        ({"noun_output": np.array([["x", "y"]] * 2)}, "noun_output holds .*, expected numbers"),
        ({"noun_output": [[1, 2], [3, np.nan]]}, "noun_output of b, column 1, is nan"),
        ({"verb_output": [[1, 2, 3], [1e39, 0, 0]]}, "verb_output of b, column 0, is 1e\\+39"),
        (PROBS | {"verb_output": [[1, 0, 0], [1.2, -0.2, 0]]}, "verb_output of b, column 0, is 1.2"),
        (PROBS | {"verb_output": [[1, 0, 0], [0.9, 0.3, -0.2]]}, "verb_output of b, column 2, is -0.2"),
        (PROBS | {"noun_output": [[1, 0], [0.3, 0.5]]}, "noun_output of b sums to 0.8, expected 1"),
        ({"action_id": np.zeros((2, 1), int)}, "action_id and action_output come together"),
        ({"action_id": [[0], [3000]], "action_output": [[0.0], [0.0]]}, "action_id of b holds 3000"),
        ({"action_id": [[0], [2]], "action_output": [[0.0], [0.0]]}, "action_id of b holds 2"),
        ({"action_id": [[-1], [1]], "action_output": [[0.0], [0.0]]}, "action_id of a holds -1"),
        ({"action_id": [[1, 0], [1, 1]], "action_output": np.ones((2, 2))}, "action_id of b holds 1 more"),
        ({"action_id": [[0.0], [1.0]], "action_output": [[0.0], [0.0]]}, "expected whole numbers"),
        ({"action_id": [[0], [1]], "action_output": [[0.0, 1], [0, 1]]}, "of action_output's shape \\(2, 2\\)"),
    ],
)
def test_faults_are_named(changes, message):
    with pytest.raises(InputError, match=message):
        table_with(**changes)


def test_valid_probabilities_are_taken():
    assert table_with(**PROBS).kind == "probs"


@settings(deadline=None)
@given(nps.arrays(np.float32, (3, 7), elements=st.floats(-(2.0**99), 2.0**99, width=32)))
def test_log_probs_sum_to_one_and_keep_the_order(scores):
    result = to_log_probs(scores, "logits")
    np.testing.assert_allclose(np.exp(result).sum(axis=1), 1, atol=1e-12)
    assert (np.diff(np.take_along_axis(result, scores.argsort(axis=1), axis=1), axis=1) >= 0).all()


@settings(deadline=None)
@given(nps.arrays(np.int16, (3, 7), elements=st.integers(-500, 500)), st.integers(-100_000, 100_000))
def test_a_constant_added_to_a_row_changes_nothing(scores, offset):
    plain, shifted = (to_log_probs((scores.astype(np.float32) + x), "logits") for x in (0, offset))
    np.testing.assert_array_equal(plain, shifted)


@pytest.mark.parametrize("offset", [0.0, 20.0, 1e6, -1e6, 1e9, 2.0**52])
def test_rows_far_from_zero_keep_their_order(offset):
    """float32 has steps of 64 at 1e9; float64 of 1 at 2**52."""
    step = 1.0 if offset == 2.0**52 else 0.001
    rows = np.array([[3.0, 1, 2], [2, 3, 1]]) * step + offset
    table = table_with(verb_output=rows, action_id=[[0, 1, 1000]] * 2, action_output=rows)
    for scores in (table.verb_output, table.action_output):
        assert scores.argsort(axis=1).tolist() == [[1, 2, 0], [2, 0, 1]]
        differences = scores[:, :1] - scores
        np.testing.assert_allclose(differences, rows[:, :1] - rows, atol=1e-6 * step)
    small = table_with(verb_output=np.array([[3.0, 1, 2], [2, 3, 1]]) * step)
    np.testing.assert_allclose(log_probs(table)[0], log_probs(small)[0], atol=1e-6)


@pytest.mark.parametrize("kind", [np.int64, np.uint64, np.int32])
def test_whole_numbers_of_any_size_keep_their_order(kind):
    large, small = np.iinfo(kind).max, np.iinfo(kind).min
    rows = np.array([[large, large - 1, large - 2], [large - 1, small, large]], dtype=kind)
    scores = table_with(verb_output=rows).verb_output
    assert scores[0].tolist() == [0, -1, -2] and scores[1, [0, 2]].tolist() == [-1, 0]
    assert scores[1, 1] == -np.float32(float(large) - float(small)) and np.isfinite(scores).all()


@pytest.mark.parametrize("offset", [0, 1e6, 1e30])
def test_float32_is_kept_byte_for_byte(tmp_path, offset):
    rows = (np.random.default_rng(0).standard_normal((2, 3)) + offset).astype(np.float32)
    table = table_with(verb_output=rows)
    assert table.verb_output.tobytes() == rows.tobytes()
    save_scores(tmp_path / "a.npz", table)
    assert load_scores(tmp_path / "a.npz").verb_output.tobytes() == rows.tobytes()


def test_log_probabilities_are_kept_as_given():
    """What tells how much of all mass listed actions have is not taken off."""
    logs = np.array([[-1.5, -15.9, -3.0]] * 2)
    table = table_with(action_id=[[0, 1, 1000]] * 2, action_output=logs)
    assert np.array_equal(table.action_output, logs.astype(np.float32))


@pytest.mark.parametrize("seen", [[1], [1, 2], [0.0, 1.0], [[0, 1]], ["a", "b"]])
def test_seen_is_a_number_for_each_segment(seen):
    with pytest.raises(InputError, match="seen is .*, expected 1, 0 or -1 per segment"):
        table_with(seen=np.array(seen))


def test_seen_comes_back_and_goes_with_its_rows(tmp_path):
    table = table_with(seen=np.array([1, 0]))
    save_scores(tmp_path / "a.npz", table)
    assert same(load_scores(tmp_path / "a.npz"), table)
    assert align(table, ["b", "a"]).seen.tolist() == [0, 1]
    assert table_with().seen.tolist() == [-1, -1]


def test_log_probs_of_probabilities():
    verbs, nouns = log_probs(table_with(**PROBS))
    np.testing.assert_allclose(verbs[1], np.log([0.2, 0.3, 0.5]), atol=1e-6)
    np.testing.assert_allclose(nouns[0], [0, np.log(1e-45)])
    assert verbs.dtype == np.float64


@settings(deadline=None)
@given(st.integers(0, 1000))
def test_align_undoes_any_shuffle(seed):
    rng = np.random.default_rng(seed)
    table = random_table(rng, num_actions=3)
    shuffled = take_rows(table, rng.permutation(len(table)))
    assert same(align(shuffled, table.narration_id.tolist()), table)


def test_align_names_what_does_not_fit():
    table = random_table(np.random.default_rng(0))
    wanted = [*table.narration_id[1:], *(f"new{i}" for i in range(7))]
    with pytest.raises(InputError) as caught:
        align(table, wanted, name="a.npz")
    assert str(caught.value).startswith("a.npz does not fit the 12 segments asked for")
    assert "7 missing (new0, new1, new2, new3, new4, ...) and 1 too many (P00_01_0)" in str(caught.value)
    with pytest.raises(InputError, match="more than once"):
        align(table, [*table.narration_id, table.narration_id[0]])


@pytest.mark.parametrize("kind", ["logits", "probs"])
@pytest.mark.parametrize("num_actions", [0, 3])
def test_saved_scores_come_back(tmp_path, kind, num_actions):
    table = random_table(np.random.default_rng(1), kind=kind, num_actions=num_actions)
    save_scores(tmp_path / "new" / "scores.npz", table)
    assert same(load_scores(tmp_path / "new" / "scores.npz"), table)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["scores.npz"]
    with np.load(tmp_path / "new" / "scores.npz", allow_pickle=False) as file:
        assert file["verb_output"].dtype == np.float32
        assert str(file["kind"]) == kind


def test_scores_are_saved_as_npz_only(tmp_path):
    with pytest.raises(InputError, match="written as .npz"):
        save_scores(tmp_path / "scores.pt", random_table(np.random.default_rng(1)))


def test_missing_keys_are_named(tmp_path):
    path = tmp_path / "scores.npz"
    np.savez(path, verb_output=np.zeros((1, 3)), narration_id=np.array(["a"]))
    with pytest.raises(InputError, match=r"scores.npz: noun_output, kind missing, expected .* found"):
        load_scores(path)
    np.savez(path, verb_output=[[0.0]], noun_output=[[np.inf]], narration_id=np.array(["a"]), kind="logits")
    with pytest.raises(InputError, match=r"scores.npz: noun_output of a, column 0, is inf"):
        load_scores(path)


def test_files_of_other_kinds_are_refused(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        load_scores(tmp_path / "scores.npz")
    (tmp_path / "scores.csv").write_text("1,2")
    with pytest.raises(InputError, match="expected scores as .npz"):
        load_scores(tmp_path / "scores.csv")
    np.save(tmp_path / "scores.npy", np.zeros(3))
    (tmp_path / "scores.npy").rename(tmp_path / "array.npz")
    with pytest.raises(InputError, match="array.npz: not a readable"):
        load_scores(tmp_path / "array.npz")


class Trap:
    """Unpickled, it leaves a file behind."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_pickles_are_never_opened(tmp_path):
    for name in ("scores.pkl", "scores.pickle", "scores.npz"):
        (tmp_path / name).write_bytes(pickle.dumps(Trap(tmp_path / "sprung")))
        with pytest.raises(InputError, match=name):
            load_scores(tmp_path / name)
    trapped = np.empty(1, dtype=object)
    trapped[0] = Trap(tmp_path / "sprung")
    np.savez(tmp_path / "scores.npz", narration_id=trapped)
    with pytest.raises(InputError, match=r"scores.npz: not a readable.*allow_pickle"):
        load_scores(tmp_path / "scores.npz")
    with pytest.raises(InputError, match="numpy.savez"):
        load_scores(tmp_path / "scores.pkl")
    assert not (tmp_path / "sprung").exists()


def test_an_archive_that_claims_too_much_is_refused_before_reading(tmp_path):
    path = tmp_path / "scores.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("narration_id.npy", b"x")
    data = bytearray(path.read_bytes())
    at = data.index(b"PK\x01\x02") + 24  # uncompressed size in the central directory
    data[at : at + 4] = (0xFFFFFFF0).to_bytes(4, "little")
    path.write_bytes(data)
    with zipfile.ZipFile(path) as archive:
        assert archive.infolist()[0].file_size == 0xFFFFFFF0
    with pytest.raises(InputError, match=r"unpacks to 4.0 GiB, more than 1"):
        load_scores(path)


@settings(deadline=None)
@given(st.data())
def test_damaged_files_are_refused_or_read_the_same(tmp_path_factory, data):
    folder = tmp_path_factory.getbasetemp()
    table = random_table(np.random.default_rng(2), num_segments=2)
    save_scores(folder / "whole.npz", table)
    content = bytearray((folder / "whole.npz").read_bytes())
    if data.draw(st.booleans()):
        del content[data.draw(st.integers(0, len(content) - 1)) :]
    else:
        content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    (folder / "damaged.npz").write_bytes(content)
    try:
        assert same(load_scores(folder / "damaged.npz"), table)
    except InputError as error:
        assert str(folder / "damaged.npz") in str(error)


def test_torch_is_not_needed():
    code = "import sys, egochef.scoring.ensemble, egochef.scoring.metrics, egochef.scoring.submission as s; "
    code += "assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_tables_are_frozen_and_can_lose_their_actions():
    table = random_table(np.random.default_rng(3), num_actions=2)
    with pytest.raises(AttributeError):
        table.kind = "probs"
    assert replace(table, action_id=None, action_output=None).action_id is None
