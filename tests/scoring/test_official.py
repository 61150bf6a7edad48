import logging
import os

import numpy as np
import pytest
import torch
from scoring_helpers import random_table

from egochef.errors import InputError
from egochef.scoring.table import ScoreTable, load_scores


def as_list(table: ScoreTable, convert) -> list[dict]:
    rows = zip(table.narration_id, table.verb_output, table.noun_output, strict=True)
    return [
        {"verb_output": convert(verb), "noun_output": convert(noun), "narration_id": str(name)}
        for name, verb, noun in rows
    ]


def as_dict(table: ScoreTable, convert, names) -> dict:
    return {
        "verb_output": convert(table.verb_output),
        "noun_output": convert(table.noun_output),
        "narration_id": names,
    }


TABLE = random_table(np.random.default_rng(0), num_segments=3)
NAMES = TABLE.narration_id
CONTENTS = {
    "list of arrays": as_list(TABLE, np.array),
    "list of tensors": as_list(TABLE, torch.tensor),
    "list of lists": as_list(TABLE, np.ndarray.tolist),
    "list of numpy's text": [
        item | {"narration_id": np.str_(item["narration_id"])} for item in as_list(TABLE, np.array)
    ],
    "list of lists of numpy's numbers": as_list(TABLE, list),
    "dict of arrays": as_dict(TABLE, np.array, NAMES),
    "dict of float64 in Fortran's order": as_dict(TABLE, lambda x: np.asfortranarray(x, dtype=np.float64), NAMES),
    "dict of big-endian numbers": as_dict(TABLE, lambda x: x.astype(">f4"), NAMES),
    "dict with text as objects": as_dict(TABLE, np.array, NAMES.astype(object)),
    "dict of tensors and a list": as_dict(TABLE, torch.tensor, NAMES.tolist()),
    "dict of lists of arrays": as_dict(TABLE, list, NAMES.tolist()),
    "dict with more in it": as_dict(TABLE, np.array, NAMES) | {"epoch": 3},
}


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("name", CONTENTS)
def test_official_results_are_read(tmp_path, name, zipped):
    path = tmp_path / "results.pt"
    torch.save(CONTENTS[name], path, _use_new_zipfile_serialization=zipped)
    table = load_scores(path)
    assert table.kind == "logits"
    np.testing.assert_array_equal(table.narration_id, NAMES)
    np.testing.assert_array_equal(table.verb_output, TABLE.verb_output)
    np.testing.assert_array_equal(table.noun_output, TABLE.noun_output)


@pytest.mark.parametrize("convert", [np.array, torch.from_numpy])
def test_numbers_far_from_zero_keep_their_order(tmp_path, convert):
    for rows in (np.array([[3, 1, 2]]) + 2**60, np.array([[3.0, 1.0, 2.0]]) / 1000 + 1e9):
        content = {"verb_output": convert(rows), "noun_output": convert(rows), "narration_id": ["a"]}
        torch.save(content, tmp_path / "results.pt")
        table = load_scores(tmp_path / "results.pt")
        assert table.verb_output.argsort(axis=1).tolist() == table.noun_output.argsort(axis=1).tolist() == [[1, 2, 0]]


def test_what_numpy_1_wrote_is_read(tmp_path):
    path = tmp_path / "results.pt"
    torch.save(CONTENTS["dict of arrays"], path, _use_new_zipfile_serialization=False)
    content = path.read_bytes()
    assert b"numpy._core.multiarray" in content
    path.write_bytes(content.replace(b"numpy._core.multiarray", b"numpy.core.multiarray"))
    np.testing.assert_array_equal(load_scores(path).verb_output, TABLE.verb_output)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "holds list, expected a list of dicts"),
        ([1, 2], "holds list"),
        (torch.zeros(3), "holds Tensor"),
        ({"verb_output": [], "narration_id": []}, "noun_output missing"),
        ([*as_list(TABLE, np.array), {"verb_output": [1.0]}], "narration_id, noun_output missing"),
        (as_list(TABLE, np.array) * 2, "appear more than once"),
        (as_dict(TABLE, lambda x: x[:1], NAMES), r"verb_output has shape \(1, 4\)"),
        (as_dict(TABLE, lambda x: x + np.nan, NAMES), "verb_output of P00_01_0, column 0, is nan"),
        (as_dict(TABLE, lambda x: [[1.0], [1.0, 2.0], [1.0]], NAMES), "rows of different lengths or odd kinds"),
        (as_dict(TABLE, lambda x: x.astype(complex), NAMES), "an array of 'c16', expected numbers or text"),
        (as_dict(TABLE, lambda x: np.zeros(3, dtype="f4,f4"), NAMES), "expected numbers or text"),
        (as_dict(TABLE, lambda x: x, NAMES) | {"narration_id": [1, 2, 3]}, "expected one text per segment"),
    ],
)
def test_other_contents_are_refused(tmp_path, content, message):
    torch.save(content, tmp_path / "results.pt")
    with pytest.raises(InputError, match=message) as caught:
        load_scores(tmp_path / "results.pt")
    assert str(tmp_path / "results.pt") in str(caught.value)


class Trap:
    """Unpickled, it leaves a folder behind."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_code_in_a_file_is_refused_and_never_run(tmp_path, zipped):
    objects = np.empty(1, dtype=object)
    objects[0] = Trap(tmp_path / "sprung")
    for content in ([*as_list(TABLE, np.array), Trap(tmp_path / "sprung")], as_dict(TABLE, np.array, objects)):
        torch.save(content, tmp_path / "results.pt", _use_new_zipfile_serialization=zipped)
        with pytest.raises(InputError, match=r"without running code from it .*numpy.savez"):
            load_scores(tmp_path / "results.pt")
    assert not (tmp_path / "sprung").exists()


def test_numpys_own_unpickling_stays_forbidden_elsewhere(tmp_path):
    torch.save(CONTENTS["dict of arrays"], tmp_path / "results.pt")
    load_scores(tmp_path / "results.pt")
    with pytest.raises(Exception, match="Weights only load failed"):
        torch.load(tmp_path / "results.pt", weights_only=True)


def test_files_cut_off_are_refused(tmp_path):
    torch.save(CONTENTS["list of arrays"], tmp_path / "whole.pt")
    content = (tmp_path / "whole.pt").read_bytes()
    for size in (0, 1, 100, len(content) // 2, len(content) - 1):
        (tmp_path / "cut.pt").write_bytes(content[:size])
        with pytest.raises(InputError, match=r"cut.pt"):
            load_scores(tmp_path / "cut.pt")


def test_probabilities_in_the_official_format_are_pointed_out(tmp_path, caplog):
    probs = random_table(np.random.default_rng(1), kind="probs")
    for table, warns in ((TABLE, False), (probs, True)):
        caplog.clear()
        torch.save(as_list(table, np.array), tmp_path / "results.pt")
        with caplog.at_level(logging.WARNING):
            assert load_scores(tmp_path / "results.pt").kind == "logits"
        assert ("looks like probabilities" in caplog.text) is warns
