"""What the system does not grant is told in one line before work begins, not by a library's thread in its middle."""

import logging
import resource
import subprocess
import sys

import pytest
import torch
from conftest import need

from egochef.clip import ClipSpec
from egochef.data.annotations import Segment
from egochef.data.dataset import Batches, ClipDataset, make_loader
from egochef.errors import InputError
from egochef.limits import MIN_FILES, allow_files

SEGMENT = Segment("P01_01_0", "P01", "P01_01", 0.0, 1.0, 0, 0, "", 1)
CLIP = ClipSpec(num_frames=16, image_size=224, resize_size=224)


class Grey:
    """Frames of nothing."""

    def num_candidates(self, segment):
        return 48

    def read(self, segment, places, cut=None):
        return torch.zeros(len(places), 224, 224, 3, dtype=torch.uint8).numpy()

    def where(self, segment):
        return "nowhere"


class Cramped(Grey):
    """Read in a worker that gets no further shared memory, as where others fill it up meanwhile."""

    def read(self, segment, places, cut=None):
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        return super().read(segment, places, cut)


def limited(num_files, code, *words):
    """A process that may open so many files."""
    return subprocess.run(
        [sys.executable, *code, *words],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (num_files, num_files)),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_a_command_names_the_limit_of_open_files(tmp_path):
    done = limited(20, ["-m", "egochef"], "toy", "--out", str(tmp_path / "toy"), "--segments", "4")
    assert done.returncode == 1, done.stderr
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("egochef: only 20 files may be open at once (ulimit -n)")
    assert not (tmp_path / "toy").exists()


def test_the_limit_is_raised_as_far_as_it_may_be():
    code = (
        "import resource; from egochef.limits import allow_files; "
        "resource.setrlimit(resource.RLIMIT_NOFILE, (50, 300)); allow_files(200); "
        "print(resource.getrlimit(resource.RLIMIT_NOFILE)); allow_files(100); "
        "print(resource.getrlimit(resource.RLIMIT_NOFILE)); allow_files(301)"
    )
    done = limited(300, ["-c", code])
    assert done.stdout.splitlines() == ["(200, 300)", "(200, 300)"]
    assert "InputError: only 300 files may be open at once (ulimit -n), 301 may be needed." in done.stderr
    allow_files(MIN_FILES)  # nothing to say here


def test_more_workers_than_the_system_has_files_for_are_refused():
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    need(hard != resource.RLIM_INFINITY, "a limit of open files")
    loader = make_loader(ClipDataset([SEGMENT], Grey(), CLIP), Batches([[(0, 0, 0)]]), num_workers=hard)
    with pytest.raises(InputError, match=rf"only {hard} files may be open at once \(ulimit -n\)"):
        next(iter(loader))


def test_batches_that_shared_memory_cannot_hold_are_refused(caplog):
    """By their size, before a worker dies of it: 100,000 clips of 2.4 MB."""
    need(sys.platform == "linux", "/dev/shm")
    dataset = ClipDataset([SEGMENT], Grey(), CLIP)
    plan = Batches([[(0, 0, 0)], [(0, 1, 0)] * 100_000])
    loader = make_loader(dataset, plan, num_workers=2)
    with pytest.raises(
        InputError, match=r"/dev/shm: .* MB are free, 2 workers may need .* MB.*--shm-size=8g.*--workers 0"
    ):
        next(iter(loader))
    loader.close()
    with caplog.at_level(logging.WARNING):
        loader = make_loader(dataset, plan, num_workers=2, fewer_will_do=True)
        assert next(iter(loader)).frames.shape == (1, 16, 224, 224, 3)
    assert "2 workers may need" in caplog.text
    assert "0 are taken" in caplog.text
    assert "--shm-size=8g" in caplog.text


def test_shared_memory_that_fills_up_meanwhile_is_named():
    need(sys.platform == "linux", "/dev/shm")
    loader = make_loader(ClipDataset([SEGMENT], Cramped(), CLIP), Batches([[(0, 0, 0)]]), num_workers=1)
    with pytest.raises(
        InputError, match=r"^/dev/shm: data workers have no room there, .*--shm-size=8g.*fewer --workers"
    ):
        list(loader)
