import json
import struct
import zipfile

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scoring_helpers import random_table

from egochef.errors import InputError
from egochef.scoring.submission import SLS, check_submission, write_submission

LEVELS = SLS(pt=1, tl=3, td=4)


def read_json(path):
    with zipfile.ZipFile(path) as archive:
        assert archive.namelist() == ["test.json"]
        return json.loads(archive.read("test.json"), parse_constant=pytest.fail)


# Zips that are no submission. IDS is the split, with 4 verbs and 5 nouns.
IDS = [f"P{row:02d}_01_{row}" for row in range(6)]


@pytest.fixture
def whole(tmp_path):
    table = random_table(np.random.default_rng(0))
    write_submission(tmp_path / "whole.zip", table, LEVELS, IDS)
    return tmp_path / "whole.zip"


def refused(path, message):
    with pytest.raises(InputError, match=message) as caught:
        check_submission(path, IDS, 4, 5)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)
    return str(caught.value)


def zip_of(path, members: dict, method=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def test_files_that_are_no_zip(tmp_path, whole):
    refused(tmp_path / "absent.zip", "no such file")
    refused(tmp_path, "no such file")
    (tmp_path / "empty.zip").write_bytes(b"")
    refused(tmp_path / "empty.zip", "not a readable zip")
    (tmp_path / "plain.zip").write_text(json.dumps(read_json(whole)))
    refused(tmp_path / "plain.zip", "not a readable zip")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "holds 0 members"),
        (
            ["submission/test.json"],
            r"holds 1 members \('submission/test.json'\), expected only 'test.json'.*not its folder",
        ),
        (["test.json", "__MACOSX/._test.json"], "holds 2 members"),
        (["validation.json"], "holds 1 members"),
        (["test.json/"], "holds 1 members"),
        (["../test.json"], "holds 1 members"),
        ([f"{i}.json" for i in range(9)], "holds 9 members .*4.json', ..."),
    ],
)
def test_members_other_than_test_json(tmp_path, whole, names, message):
    content = json.dumps(read_json(whole))
    refused(zip_of(tmp_path / "a.zip", dict.fromkeys(names, content)), message)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_members_of_the_same_name(tmp_path, whole):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("test.json", json.dumps(read_json(whole)))
        archive.writestr("test.json", "{}")
    refused(tmp_path / "a.zip", "holds 2 members")


def test_odd_packing(tmp_path, whole):
    content = json.dumps(read_json(whole))
    for method in (zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        refused(zip_of(tmp_path / "a.zip", {"test.json": content}, method), "packed by a rare method")
    check_submission(zip_of(tmp_path / "a.zip", {"test.json": content}, zipfile.ZIP_STORED), IDS, 4, 5)
    data = bytearray((tmp_path / "a.zip").read_bytes())
    data[data.index(b"PK\x01\x02") + 8] |= 1
    (tmp_path / "a.zip").write_bytes(data)
    refused(tmp_path / "a.zip", "encrypted")


def test_bombs_are_not_unpacked(tmp_path, whole):
    zip_of(tmp_path / "bomb.zip", {"test.json": b" " * (8 << 20)})
    refused(tmp_path / "bomb.zip", r"unpacks to 8,388,608 bytes, more than these segments can need \(1,")
    # one that claims to be small
    data = bytearray((tmp_path / "bomb.zip").read_bytes())
    at = data.index(b"PK\x01\x02") + 24
    data[at : at + 4] = struct.pack("<I", 1000)
    (tmp_path / "bomb.zip").write_bytes(data)
    refused(tmp_path / "bomb.zip", "not a readable zip")


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_damaged_zips_are_refused_or_unharmed(whole, data):
    content = bytearray(whole.read_bytes())
    if data.draw(st.booleans()):
        del content[data.draw(st.integers(0, len(content) - 1)) :]
    else:
        content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    damaged = whole.with_name("damaged.zip")
    damaged.write_bytes(content)
    try:
        summary = check_submission(damaged, IDS, 4, 5)
        assert (summary.num_segments, summary.sls) == (6, LEVELS)
        assert read_json(damaged) == read_json(whole)
    except InputError as error:
        assert str(damaged) in str(error)


def changed(whole, change) -> dict:
    """The whole submission with `change(content, first segment)` applied; the zip is a.zip."""
    content = read_json(whole)
    change(content, content["results"][IDS[0]])
    return zip_of(whole.with_name("a.zip"), {"test.json": json.dumps(content)})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c, s: c.pop("version"), r"a field is missing \(version\)"),
        (lambda c, s: c.pop("results"), r"a field is missing \(results\)"),
        (lambda c, s: c.update(version=0.2), r"version is not '0.2' \(0.2\)"),
        (lambda c, s: c.update(version="0.1"), r"version is not '0.2' \('0.1'\)"),
        (lambda c, s: c.update(challenge="action_anticipation"), "challenge is not 'action_recognition'"),
        (lambda c, s: c.update(sls_pt=6), r"an SLS level is no whole number from 0 to 5 \(sls_pt 6\)"),
        (lambda c, s: c.update(sls_tl=True), r"SLS level .*\(sls_tl True\)"),
        (lambda c, s: c.update(sls_td=3.0), r"SLS level .*\(sls_td 3.0\)"),
        (lambda c, s: c.update(sls_td="3"), r"SLS level .*\(sls_td '3'\)"),
        (lambda c, s: c.update(team="us"), r"unknown field \('team'\)"),
        (lambda c, s: c.update(results=[]), r"results is no object of segments \(\[\]\)"),
        (lambda c, s: c.update(results=s), r"results is no object of segments \(an object with verb"),
        (lambda c, s: c["results"].pop(IDS[2]), rf"a segment of the split is missing \({IDS[2]}\)"),
        (lambda c, s: c["results"].clear(), rf"missing \(6 times, first {IDS[0]}\)"),
        (lambda c, s: c["results"].update(P99=s), r"a segment is not in the split \('P99'\)"),
        (lambda c, s: c["results"].update({IDS[1]: {}}), rf"no object with verb and noun \({IDS[1]}: {{}}\)"),
        (lambda c, s: c["results"].update({IDS[1]: 3}), rf"no object with verb and noun \({IDS[1]}: 3\)"),
        (lambda c, s: c["results"].update(verb=s), "results is no object of segments"),
        (lambda c, s: s.pop("verb"), rf"verb is missing \({IDS[0]} verb\)"),
        (lambda c, s: s.pop("noun"), rf"noun is missing \({IDS[0]} noun\)"),
        (lambda c, s: s.update(verb=[0.0] * 4), rf"verb is no object of scores \({IDS[0]} verb: \[0.0"),
        (lambda c, s: s.update(noun={"verb": 1}), r"noun is no object of scores .*an object with verb"),
        (lambda c, s: s.update(extra=1), rf"unknown field of a segment \({IDS[0]} 'extra'\)"),
        (lambda c, s: s["verb"].pop("3"), rf'a verb key is missing \({IDS[0]} verb "3"\)'),
        (lambda c, s: s["noun"].update({"5": 1.0}), rf"""a noun key is none of "0" to "4" \({IDS[0]} noun '5'\)"""),
        (
            lambda c, s: s["noun"].update({"01": s["noun"].pop("1")}),
            r"""noun key is none of .*'01'.*noun key is missing""",
        ),
        (lambda c, s: s["verb"].update({"-1": 0.0}), "verb key is none of"),
        (
            lambda c, s: s["verb"].update({"1": float("nan")}),
            rf"a score is no finite number \({IDS[0]} verb '1': nan\)",
        ),
        (lambda c, s: s["verb"].update({"1": float("inf")}), "a score is no finite number .*inf"),
        (lambda c, s: s["verb"].update({"1": True}), "a score is no finite number .*True"),
        (lambda c, s: s["verb"].update({"1": None}), "a score is no finite number .*None"),
        (lambda c, s: s["noun"].update({"1": "0.5"}), "a score is no finite number .*'0.5'"),
        (lambda c, s: s["noun"].update({"1": {"verb": 2}}), "a score is no finite number .*an object"),
        (lambda c, s: s["noun"].update({"1": 10**400}), "a score is no finite number .*noun '1': 1000"),
        (lambda c, s: s["action"].update({"0,0": None}), "a score is no finite number .*action '0,0': None"),
        (lambda c, s: s["action"].popitem(), rf"action has not 20 entries \({IDS[0]} action: 19\)"),
        (lambda c, s: s["action"].update({"4,0": 1.0}), r"""action key is none of "verb,noun" .*'4,0'.*has not 20"""),
        (lambda c, s: s["action"].update({"0, 0": s["action"].pop("0,0")}), r"""none of "verb,noun" .*'0, 0'"""),
        (lambda c, s: s.update(action=[]), "action is no object of scores"),
        (lambda c, s: s.pop("action"), rf"action is given for some segments and not for all \(not for {IDS[0]}\)"),
    ],
)
def test_contents_that_break_a_rule(whole, change, message):
    refused(changed(whole, change), message)


def test_whole_numbers_are_scores(whole):
    check_submission(changed(whole, lambda c, s: s["verb"].update({"1": -3})), IDS, 4, 5)


def test_overflowing_sums_are_no_fault(whole):
    check_submission(changed(whole, lambda c, s: s["verb"].update({"1": 1e308, "2": 1e308})), IDS, 4, 5)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"sls_pt": 1', '"sls_pt": 1, "sls_pt": 1', r"a key appears more than once \(at its top 'sls_pt'\)"),
        ('"results"', '"results": {}, "results"', r"more than once \(at its top 'results'\)"),
        ('{"P00_01_0"', '{"P01_01_1": {}, "P00_01_0"', r"more than once \(in results 'P01_01_1'\)"),
        ('{"verb": {"0"', '{"verb": {}, "verb": {"0"', r"more than once \(P00_01_0 among its fields 'verb'\)"),
        ('{"verb": {"0"', '{"verb": {"0": 0, "0"', r"more than once \(P00_01_0 in verb '0'\)"),
        ('"version"', '"version', "test.json is not JSON text"),
        ('{"version"', '\ufeff{"version"', "test.json is not JSON text .*BOM"),
        ('"0.2"', '"\ud800"', "test.json is not JSON text in UTF-8"),
        ('"sls_pt": 1', '"sls_pt": NaN', "SLS level .*sls_pt nan"),
        ('"sls_pt": 1', '"sls_pt": ' + "9" * 5000, "test.json is not JSON text"),
        ('"sls_pt": 1', '"sls_pt": ' + "[" * 100_000, "test.json is not JSON text"),
        ('"sls_pt": 1', '"a\\nb": 1', r"unknown field \('a\\nb'\)"),
    ],
)
def test_texts_that_break_a_rule(whole, old, new, message):
    text = json.dumps(read_json(whole))
    assert old in text
    content = text.replace(old, new, 1).encode("utf-8", "surrogatepass")
    refused(zip_of(whole.with_name("a.zip"), {"test.json": content}), message)


@pytest.mark.parametrize("text", ["", "null", "[]", "3", '"a"', "{}", '{"verb": {}}', '{"results": {"verb": {}}}'])
def test_other_json(tmp_path, text):
    refused(zip_of(tmp_path / "a.zip", {"test.json": text}), "not a valid submission|is not JSON")


def test_many_faults_are_counted_and_cut_short(whole):
    def change(content, _):
        content.update(version=1, challenge=2, sls_pt=-1, extra=0)
        for name in IDS[:4]:
            content["results"][name]["verb"]["0"] = None
        for name in IDS[1:]:
            content["results"][name].pop("action")
        content["results"][IDS[4]]["noun"] = 0
        content["results"][IDS[5]] = 0
        content["results"]["new"] = {}
        content["results"][IDS[0]].update(verb={"x": 0}, noun={"y": 0}, action={})

    message = refused(changed(whole, change), "not a valid submission")
    assert message.count(";") == 10
    assert message.endswith("; and 4 more reasons")
    fewer = refused(
        changed(whole, lambda c, s: [x["verb"].update({"0": None}) for x in c["results"].values()]), "6 times"
    )
    assert fewer.endswith("a score is no finite number (6 times, first P00_01_0 verb '0': None)")


def test_another_taxonomy_or_split_is_refused(whole):
    with pytest.raises(InputError, match=r'verb key is missing \(6 times, first P00_01_0 verb "4"\)'):
        check_submission(whole, IDS, 5, 5)
    with pytest.raises(InputError, match="a segment of the split is missing .*a segment is not in the split"):
        check_submission(whole, ["P00_01_0", "x"], 4, 5)
    with pytest.raises(InputError, match="at least one"):
        check_submission(whole, [], 4, 5)
