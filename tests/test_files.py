"""Final names never hold half a file."""

import errno
import json
import logging
import os
import signal
import subprocess
import sys
import tempfile
import time

import pytest

from egochef.errors import InputError
from egochef.files import (
    STRANGE_S,
    atomic_folder,
    atomic_path,
    check_is_new,
    staging,
    sweep,
    temporary_folder,
    write_json,
    write_text,
)

KILLED = """
import os, signal, sys
from pathlib import Path
from egochef.files import atomic_folder, atomic_path, staging, temporary_folder
out = Path(sys.argv[1])
with (
    atomic_path(out / "a.mp4"),
    staging(out / "b.onnx") as b,
    atomic_folder(out / "c") as c,
    temporary_folder("d") as d,
):
    for folder in (b, c, d):
        (folder / "half").write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_nothing_is_left_after_a_fault(tmp_path):
    target = tmp_path / "out.txt"
    target.write_text("old")
    with pytest.raises(RuntimeError), atomic_path(target) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert [path.name for path in tmp_path.iterdir()] == ["out.txt"]
    assert target.read_text() == "old"


def test_parents_are_made_and_suffix_is_kept(tmp_path):
    with atomic_path(tmp_path / "a" / "b.mp4") as temporary:
        assert temporary.suffix == ".mp4"
        temporary.write_bytes(b"x")
    assert (tmp_path / "a" / "b.mp4").read_bytes() == b"x"


def test_full_disk_is_one_clear_error(tmp_path):
    """A real limit on file size, in a process of its own, stands in for a full disk."""
    code = (
        "import resource, signal, sys; from pathlib import Path; from egochef.files import write_text\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "from egochef.errors import InputError\n"
        "try: write_text(Path(sys.argv[1]), 'x' * 5000)\n"
        "except InputError as error: print(error)\n"
    )
    target = tmp_path / "out.txt"
    done = subprocess.run([sys.executable, "-c", code, str(target)], capture_output=True, text=True, check=True)
    assert str(target) in done.stdout and "Free space" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_a_file_in_the_way_of_a_folder(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"), atomic_path(tmp_path / "file" / "out.txt"):
        pass


def test_other_faults_of_the_system_are_not_swallowed(tmp_path):
    with pytest.raises(OSError) as caught, atomic_path(tmp_path / "out.txt"):
        raise OSError(errno.EIO, os.strerror(errno.EIO))
    assert not isinstance(caught.value, InputError)


def test_json_refuses_nan(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "x.json", {"a": float("nan")})
    write_json(tmp_path / "x.json", {"a": 1})
    assert json.loads((tmp_path / "x.json").read_text()) == {"a": 1}


@pytest.fixture
def killed(tmp_path, monkeypatch):
    """A folder with a file and two folders that a killed process was writing, and its TMPDIR with a third one."""
    out, temporary = tmp_path / "out", tmp_path / "tmp"
    out.mkdir()
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    done = subprocess.run([sys.executable, "-c", KILLED, out], check=False, env=os.environ | {"TMPDIR": str(temporary)})
    assert done.returncode == -signal.SIGKILL
    assert len(list(out.iterdir())) == 3 and len(list(temporary.iterdir())) == 1
    return out, temporary


def test_the_next_one_removes_what_a_killed_one_left(killed, caplog):
    """Whatever it writes there; and such a folder counts as new."""
    out, temporary = killed
    check_is_new(out, "store")
    with caplog.at_level(logging.INFO):
        write_text(out / "other.txt", "whole")
    assert f"{out}: removed 3 files or folders" in caplog.text
    assert [path.name for path in out.iterdir()] == ["other.txt"]
    with temporary_folder("e") as folder:
        assert list(temporary.iterdir()) == [folder]
    assert list(temporary.iterdir()) == []


def test_what_a_living_one_writes_stays(tmp_path):
    """Of two that write the same name the later one wins."""
    target = tmp_path / "out.txt"
    with atomic_path(target) as ours, staging(tmp_path / "x.onnx") as folder:
        (folder / "x.onnx").write_text("staged")
        ours.write_text("first")
        write_text(target, "second")
        assert sweep(tmp_path, is_ours=True) == 0
        assert target.read_text() == "second" and ours.exists() and folder.exists()
    assert target.read_text() == "first" and (tmp_path / "x.onnx").read_text() == "staged"
    assert len(list(tmp_path.iterdir())) == 2


def test_what_is_not_known_to_be_dead_stays_for_a_day(killed):
    """Another machine's or container's, and what version 0.1 wrote under this name."""
    out, _ = killed
    (dead,) = out.glob(".a-*")
    _, machine, pid, start, rest = dead.name.split("-")
    others = [
        f".a-00000000-{pid}-{start}-{rest}",
        ".out-abc_1234.part.txt",
        ".other-abc_1234.part.txt",
        "x.part",
        ".a.part",
    ]
    for name in others:
        (out / name).touch()
    (out / f".z-{machine}-{os.getpid()}-{start}-{rest}").touch()  # of one that had our number before us
    write_text(out / "out.txt", "whole")
    assert {path.name for path in out.iterdir()} == {*others, "out.txt"}
    long_ago = time.time() - STRANGE_S - 1
    for name in others:
        os.utime(out / name, (long_ago, long_ago))
    write_text(out / "out.txt", "whole")
    assert {path.name for path in out.iterdir()} == {*others[2:], "out.txt"}, "others' names are left alone"
    assert sweep(out, pattern=".*.part*", is_ours=True) == 2
    assert {path.name for path in out.iterdir()} == {"x.part", "out.txt"}


def test_a_folder_appears_whole_or_not_at_all(tmp_path):
    with pytest.raises(RuntimeError), atomic_folder(tmp_path / "new" / "deep" / "folder") as half:
        (half / "file").write_text("half")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "folder").mkdir()  # an empty one is taken
    with atomic_folder(tmp_path / "folder") as half:
        (half / "file").write_text("whole")
    assert (tmp_path / "folder" / "file").read_text() == "whole" and len(list(tmp_path.iterdir())) == 1
    with pytest.raises(InputError, match="folder: cannot be written"), atomic_folder(tmp_path / "folder"):
        pass


def test_a_name_may_be_as_long_as_the_system_takes(tmp_path):
    write_text(tmp_path / ("é" * 120 + ".txt"), "whole")
    assert len(list(tmp_path.iterdir())) == 1
