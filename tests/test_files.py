"""Final names never hold half a file."""

import errno
import json
import os
import subprocess
import sys

import pytest

from egochef.errors import InputError
from egochef.files import atomic_path, write_json


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
