"""Small weights files that would take gigabytes or hours: refused before anything of them is built."""

import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch

from egochef.errors import InputError
from egochef.model.weights_files import read_weights

START, STOP = b"\x80\x02", b"."


def text(value: str) -> bytes:
    return b"X" + len(value).to_bytes(4, "little") + value.encode()


def write_zip(path: Path, pickled: bytes, **members: bytes) -> Path:
    """A file as `torch.save` writes it, around any pickle."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in {"data.pkl": pickled, "version": b"3\n", **members}.items():
            archive.writestr(f"weights/{name}", content)
    return path


def stored(kind: str, count: int) -> bytes:
    """Pickled: that many numbers in the member `data/0`."""
    return b"(" + text("storage") + f"ctorch\n{kind}\n".encode() + text("0") + text("cpu") + number(count) + b"tQ"


def number(value: int) -> bytes:
    return b"\x8a\x08" + value.to_bytes(8, "little")


def shared(depth: int, empty: bytes, close: bytes) -> bytes:
    """Pickled: containers that each hold the one before twice, all in a list."""
    parts = [b"](", b"(", empty, close, b"q\x00"]
    for place in range(depth):
        parts += [b"(h", bytes([place]), b"h", bytes([place]), close, b"q", bytes([place + 1])]
    return b"".join(parts)


TUPLES = shared(40, b"N", b"t") + b"}h(Ns" + b"e"
"""the last of them as a key: its hash visits a million million places"""
BIG = text("x" * 10**6) + b"q\x00" + text("latin1") + b"q\x01c_codecs\nencode\nq\x02"
"""a text, and what makes bytes of it"""

PICKLES: dict[str, tuple[bytes, str]] = {
    "tuples as a key": (TUPLES, "more than 8,388,608 values"),
    "bytes made again and again": (b"](" + BIG + b"h\x02h\x00h\x01\x86R" * 1000 + b"e", "more than 8,388,608 values"),
    "a slow codec": (b"c_codecs\nencode\n" + text("x") + text("punycode") + b"\x86R", "bytes encoded by"),
    "a terabyte of nothing": (b"cbuiltins\nbytearray\n" + number(1 << 40) + b"\x85R", r"refused: .* \(bytearray\)"),
    "a tensor that is not there": (b"ctorch\nFloatTensor\n" + number(1 << 38) + b"\x85R", r"\(torch\.FloatTensor\)"),
    "itself": (b"]q\x00h\x00a", "something in it holds itself"),
    "depth": (b"]" * 200 + b"a" * 199, "more than 100 containers within each other"),
    "numbers that are not there": (stored("FloatStorage", 1 << 38), "not a whole PyTorch weights file"),
    "numbers of no kind": (stored("UntypedStorage", 4), "not a whole PyTorch weights file"),
    "nothing on the stack": (b"a", "not a whole PyTorch weights file"),
    "a mark too many": (b"](", "not a whole PyTorch weights file"),
}


@pytest.mark.parametrize("name", PICKLES)
def test_pickles_that_tell_more_than_they_hold(tmp_path: Path, name: str) -> None:
    pickled, reason = PICKLES[name]
    path = write_zip(tmp_path / "x.pth", START + pickled + STOP)
    with pytest.raises(InputError, match=reason) as caught:
        read_weights(path)
    assert str(caught.value).startswith(f"{path}: ") and len(str(caught.value)) < 400


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ({"conv1.weight": torch.zeros(1).expand(1 << 14, 3, 256, 256)}, "its tensors take 12.0 GiB, in a file of"),
        ({str(place): torch.zeros(1, 1).expand(1 << 14, 1 << 12) for place in range(5)}, "its tensors take 1.2 GiB"),
    ],
    ids=["one number", "one number each"],
)
def test_tensors_that_are_larger_than_what_is_stored(
    tmp_path: Path, content: dict[str, Any], reason: str, zipped: bool
) -> None:
    path = tmp_path / "x.pth"
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    assert path.stat().st_size < 4000
    with pytest.raises(InputError, match=reason):
        read_weights(path)


def test_a_tensor_that_reaches_beyond_its_numbers(tmp_path: Path) -> None:
    """In older files PyTorch makes the numbers more, and leaves in them whatever was in that memory."""
    path = tmp_path / "x.pth"
    torch.save({"a": torch.zeros(77)}, path, _use_new_zipfile_serialization=False)
    content = path.read_bytes()
    shape = content.rindex(b"K\x4d\x85")
    keys = content.rindex(b"\x80\x02]q\x00")
    path.write_bytes(content[:shape] + number(1 << 20) + content[shape + 2 : keys] + START + b"]" + STOP)
    with pytest.raises(InputError, match="refused: its tensors are larger than the file"):
        read_weights(path)


def test_packed_and_lying_members(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(1 << 16)}, tmp_path / "whole.pth")
    with zipfile.ZipFile(tmp_path / "whole.pth") as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(tmp_path / "packed.pth", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    with pytest.raises(InputError, match="refused: packed"):
        read_weights(tmp_path / "packed.pth")
    content = bytearray((tmp_path / "whole.pth").read_bytes())
    place = content.index(b"PK\x01\x02", content.index(b"PK\x01\x02") + 1)
    content[place + 20 : place + 28] = (1 << 30).to_bytes(4, "little") * 2
    (tmp_path / "lying.pth").write_bytes(content)
    with pytest.raises(InputError, match="refused: its members are larger than the file"):
        read_weights(tmp_path / "lying.pth")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ({"module." * 100_000 + "a": torch.zeros(1)}, "a name in it has 700,001 letters"),
        (
            {"a": torch.zeros(1), "hyper_parameters": {"data": {}, "model": {"shift_div": [1] * 10**5}}},
            r"a network with shift_div \[1, 1, 1, [1, ]{,60} and temporal_pool None",
        ),
    ],
    ids=["names", "settings"],
)
def test_messages_stay_short(tmp_path: Path, content: dict[str, Any], reason: str) -> None:
    torch.save(content, tmp_path / "x.pth")
    with pytest.raises(InputError, match=reason) as caught:
        read_weights(tmp_path / "x.pth")
    assert len(str(caught.value)) < 400


def test_honest_files_are_read(tmp_path: Path) -> None:
    """With tied weights, a parameter, half precision, settings of any kind and one list in two places."""
    weight = torch.nn.Parameter(torch.randn(4, 3))
    both = [1, 2.5, None, True, "text", (3, 4), {"a": {5}}]
    content = OrderedDict(a=weight, tied=weight, half=torch.ones(2).half(), meta={"x": both, "y": both})
    content._metadata = {"version": 1}  # type: ignore[attr-defined]
    for zipped in (True, False):
        torch.save(content, tmp_path / "x.pth", _use_new_zipfile_serialization=zipped)
        entries = read_weights(tmp_path / "x.pth").entries
        assert torch.equal(entries["tied"], weight) and entries["meta"] == content["meta"]
