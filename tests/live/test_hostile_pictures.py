"""Folders of pictures from a stranger: what only has the name of a picture, and what would take more than it shows."""

import io
import os
import struct
import tarfile
import threading
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import simplejpeg
from PIL import Image

from egochef.data.sources import extracted_pieces
from egochef.data.store import StoreSpec
from egochef.errors import InputError
from egochef.live.sources import open_source

EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\n%%EndComments\n(%pipe%id) (w) file\nshowpage\n"


def png(width_px: int, height_px: int) -> bytes:
    """A PNG file that says so of its size, with a few bytes of pixels."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width_px, height_px, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(1000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def jpeg(width_px: int = 64, height_px: int = 64) -> bytes:
    """A grey JPEG file that says so of its size, whatever is in it."""
    data = simplejpeg.encode_jpeg(np.full((64, 64, 3), 128, np.uint8))
    place = data.index(b"\xff\xc0") + 5
    return data[:place] + struct.pack(">HH", height_px, width_px) + data[place + 4 :]


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("1.jpg", EPS, r"cannot be read \(no JPEG or PNG picture\)"),
        ("1.png", EPS, r"cannot be read \(no JPEG or PNG picture\)"),
        ("1.jpg", b"GIF89a" + bytes(99), r"cannot be read \(no JPEG or PNG picture\)"),
        ("1.png", png(9000, 9000), "has 9000x9000 pixels, expected 35,389,440 at most"),
        ("1.png", png(13000, 13000), "has 13000x13000 pixels, expected 35,389,440 at most"),
        ("1.png", png(2**31 - 1, 2**31 - 1), r"cannot be read \(Image size \(4611686014132420609 pixels\)"),
        ("1.jpg", jpeg(65500, 65500), r"cannot be read \(Image size \(4290250000 pixels\)"),
    ],
)
def test_what_is_no_picture_ends_in_one_line(tmp_path: Path, name: str, content: bytes, reason: str) -> None:
    (tmp_path / name).write_bytes(content)
    with warnings.catch_warnings(action="error"), pytest.raises(InputError, match=reason) as caught:
        open_source(str(tmp_path))
    assert str(caught.value).startswith(str(tmp_path / name)) and "\n" not in str(caught.value)


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: path.symlink_to("/dev/zero")])
def test_what_is_no_file_is_not_opened(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "1.jpg")
    with pytest.raises(InputError, match="is no file but a folder, a device or a pipe"):
        open_source(str(tmp_path))


def test_a_link_to_itself_is_told(tmp_path: Path) -> None:
    (tmp_path / "1.jpg").symlink_to("1.jpg")
    with pytest.raises(InputError, match=r"1\.jpg: cannot be read"):
        open_source(str(tmp_path))


def test_sixteen_bits_of_grey_keep_their_brightness(tmp_path: Path) -> None:
    grey = np.linspace(0, 65535, 64 * 64).astype(np.uint16).reshape(64, 64)
    Image.fromarray(grey).save(tmp_path / "1.png")
    (grab,) = open_source(str(tmp_path)).read(threading.Event())
    assert np.array_equal(grab.picture, np.repeat((grey >> 8)[..., None], 3, axis=2))


# The officially extracted pictures, as egochef prepare reads them


def faults(place: Path) -> list[str]:
    """Of the one picture that is asked for."""
    return [piece.fault for piece in extracted_pieces(place, np.array([0.0]), StoreSpec(), 50)]


def write_tar(path: Path, data: bytes, mode: str = "w", **fields: object) -> Path:
    info = tarfile.TarInfo("./frame_0000000001.jpg")
    info.size = len(data)
    for name, value in fields.items():
        setattr(info, name, value)
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        archive.addfile(info, io.BytesIO(data))
    return path


def test_extracted_pictures_that_claim_too_much(tmp_path: Path) -> None:
    folder = tmp_path / "P01_01"
    folder.mkdir()
    picture = folder / "frame_0000000001.jpg"
    picture.write_bytes(jpeg(65500, 65500))
    assert "65500x65500 pixels, expected 35,389,440 at most" in faults(folder)[0]
    picture.unlink()
    os.mkfifo(picture)
    assert "is damaged (no file)" in faults(folder)[0]
    os.mkfifo(tmp_path / "P01_02.tar")
    with pytest.raises(InputError, match="a device or a pipe"):
        faults(tmp_path / "P01_02.tar")


def test_tars_that_unpack_to_more_than_they_hold(tmp_path: Path) -> None:
    whole = write_tar(tmp_path / "whole.tar", jpeg())
    assert faults(whole) == [""]
    with pytest.raises(InputError, match="not a readable tar"):
        faults(write_tar(tmp_path / "packed.tar", jpeg(), "w:gz"))
    to_itself = {"type": tarfile.SYMTYPE, "linkname": "frame_0000000001.jpg"}
    assert "a link, or a file with holes" in faults(write_tar(tmp_path / "link.tar", b"", **to_itself))[0]
    content = bytearray(whole.read_bytes())
    content[156:157] = tarfile.GNUTYPE_SPARSE
    content[257:265] = b"ustar  \0"
    content[386:410] = b"00000000000\0" + content[124:136]  # where its one piece begins and how long that is
    content[483:495] = b"77777777777\0"  # all of it: 8 GiB
    content[148:156] = b" " * 8
    content[148:156] = b"%06o\0 " % sum(content[:512])
    (tmp_path / "holes.tar").write_bytes(content)
    assert "a link, or a file with holes" in faults(tmp_path / "holes.tar")[0]
