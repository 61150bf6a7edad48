"""Small files of scores and small submissions that would take gigabytes or hours."""

import io
import resource
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scoring_helpers import random_table

from egochef.errors import InputError
from egochef.scoring.submission import SLS, check_submission, write_submission
from egochef.scoring.table import load_scores, save_scores

IDS = ["P01_01_0", "P01_01_1"]


def nested(depth: int) -> list[Any]:
    """A list of 10 to the power of `depth` numbers, of which `depth` times 10 are stored."""
    found: list[Any] = [1.0] * 10
    for _ in range(depth - 1):
        found = [found] * 10
    return found


def results(**changes: Any) -> dict[str, Any]:
    return {"verb_output": torch.zeros(2, 4), "noun_output": torch.zeros(2, 5), "narration_id": IDS} | changes


ROW = torch.zeros(1 << 18)
CONTENTS: dict[str, tuple[Any, str]] = {
    "lists in lists": (results(verb_output=nested(8)), "more than 8,388,608 values"),
    "one number many times": (results(verb_output=torch.zeros(1).expand(2, 1 << 29)), "its tensors take 4.0 GiB"),
    "one row many times": (
        [{"verb_output": ROW, "noun_output": ROW, "narration_id": str(place)} for place in range(600)],
        "its arrays take 2.3 GiB, expected 1 at most",
    ),
    "one long id": (
        results(narration_id=["x" * 60_000, *map(str, range(10_000))]),
        "its arrays take 2.2 GiB, expected 1 at most",
    ),
}


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("name", CONTENTS)
def test_results_that_unfold_are_refused(tmp_path: Path, name: str, zipped: bool) -> None:
    content, reason = CONTENTS[name]
    path = tmp_path / "results.pt"
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(InputError, match=reason) as caught:
        load_scores(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < before + 200_000  # KiB


def lie(archive: bytes, said: int, crc: int) -> bytes:
    """A zip of one member with another size and checksum than what is in it."""
    content = bytearray(archive)
    for start, crc_at, size_at in ((b"PK\x03\x04", 14, 22), (b"PK\x01\x02", 16, 24)):
        place = content.index(start)
        content[place + crc_at : place + crc_at + 4] = crc.to_bytes(4, "little")
        content[place + size_at : place + size_at + 4] = said.to_bytes(4, "little")
    return bytes(content)


def deflated(name: str, content: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, content)
    return file.getvalue()


@pytest.fixture(scope="module")
def large() -> bytes:
    """256 MiB of a member that claims 9 bytes, in 260 kB; the checksum is that of the 9."""
    head = b'{"a": 1} '
    return lie(deflated("test.json", head + bytes(1 << 28)), len(head), zlib.crc32(head))


def test_a_submission_that_lies_of_its_size(tmp_path: Path, large: bytes) -> None:
    path = tmp_path / "x.zip"
    path.write_bytes(large)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(InputError, match="not a valid submission"):
        check_submission(path, IDS, 4, 5)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < before + 50_000, "KiB: all of it was unpacked"


def test_scores_that_lie_of_their_size(tmp_path: Path, large: bytes) -> None:
    path = tmp_path / "scores.npz"
    path.write_bytes(large)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(InputError, match="not a readable scores.npz"):
        load_scores(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < before + 50_000, "KiB: all of it was unpacked"


def test_a_submission_of_more_values_than_its_segments_can_need(tmp_path: Path) -> None:
    table = random_table(np.random.default_rng(0), num_segments=2, num_verbs=40, num_nouns=50)
    path = tmp_path / "x.zip"
    write_submission(path, table, SLS(1, 3, 4), table.narration_id)
    assert check_submission(path, table.narration_id, 40, 50).num_segments == 2
    path.write_bytes(deflated("test.json", b"[" + b"{}," * 300_000 + b"{}]"))
    with pytest.raises(InputError, match=r"holds 300,000 values, more than these segments can need"):
        check_submission(path, table.narration_id, 40, 50)


def array(header: str) -> bytes:
    """The first bytes of an .npy file."""
    text = header.encode().ljust(118) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (array("{'descr': '<f4', 'fortran_order': False, 'shape': (100000, 100000), }"), "EOF|Unable to allocate"),
        (array("{'descr': '<U0', 'fortran_order': False, 'shape': (4000000000,), }"), "4,000,000,000 values in 129 b"),
        (array("{'descr': '|O', 'fortran_order': False, 'shape': (1,), }"), "allow_pickle"),
        (b"no array", "magic string"),
    ],
)
def test_arrays_that_claim_more_than_there_is(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "scores.npz"
    path.write_bytes(deflated("narration_id.npy", content))
    with pytest.raises(InputError, match=reason):
        load_scores(path)


@pytest.mark.parametrize("method", [zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2])
def test_scores_packed_by_other_methods(tmp_path: Path, method: int) -> None:
    """Of these Python unpacks as much at once as they hold."""
    path = tmp_path / "scores.npz"
    save_scores(path, random_table(np.random.default_rng(0)))
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    with pytest.raises(InputError, match="packed by another method than deflate"):
        load_scores(path)
