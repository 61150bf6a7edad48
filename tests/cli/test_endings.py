"""How commands end that are asked to, killed, or no longer listened to: real processes, at work when it comes."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tiny_runs import TINY, command

from egochef.bench.live import random_checkpoint
from egochef.training.runfiles import read_log

LIBRARIES = {".ses"}
"""what onnxruntime leaves in TMPDIR whenever it is imported"""


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """Of random weights."""
    return random_checkpoint("light16", tmp_path_factory.mktemp("checkpoint"), tiny=True)


@pytest.fixture
def begin(tmp_path):
    """Starts `egochef`, in a session and with a TMPDIR of its own."""
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    begun = []

    def begin(*words):
        process = subprocess.Popen(
            [sys.executable, "-m", "egochef", *map(str, words)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),  # nohup takes it away
            env=os.environ | {"OMP_NUM_THREADS": "1", "TMPDIR": str(temporary)},
        )
        begun.append(process)
        return process

    yield begin
    for process in begun:
        for pid in in_session(process.pid):
            os.kill(pid, signal.SIGKILL)


def wait_for(process, folder, pattern):
    """Until something of that name is there."""
    while not list(folder.glob(pattern)):
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.02)


def in_session(session):
    """The living processes of a session."""
    pids = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, of_session, *_ = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(of_session) == session and state not in "ZX":
            pids.append(int(stat.parent.name))
    return pids


WORK = {
    "toy": ("toy --out {out}/k --segments 3000 --workers 2", "out/.k-*/videos_*/*/.*", "SIGHUP", 1),
    "demo": ("demo --out {out}/d --segments 3000", "out/d/.data-*/videos_*/*/.*", "SIGINT", 75),
    "prepare": ("prepare --data {toy} --out {out}/s --workers 1", "out/s/frames/*/.*", "SIGTERM", 75),
    "render": ("predict {video} --checkpoint {c} --backend torch --render {out}/r.mp4", "out/.r-*", "SIGTERM", 1),
    "export": ("export --checkpoint {c} --format onnx --output {out}/e.onnx", "tmp/egochef-export-*/.k*", "SIGHUP", 75),
    "bench": ("bench live --quick --models light16 --ways torch", "tmp/egochef-bench-*/light16*", "SIGTERM", 1),
}
"""words, what shows that it is at work, the signal, and the exit code"""


@pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")
@pytest.mark.parametrize("name", WORK)
def test_a_signal_ends_it_in_order(name, begin, tmp_path, toy_root, checkpoint):
    """It goes to all processes of the session, as a terminal and a scheduler send it."""
    words, sign, number, code = WORK[name]
    out, video = tmp_path / "out", next(toy_root.glob("videos_640x360/*/*.MP4"))
    out.mkdir()
    process = begin(*words.format(out=out, toy=toy_root, c=checkpoint, video=video).split())
    wait_for(process, tmp_path, sign)
    os.killpg(process.pid, getattr(signal, number))
    _, errors = process.communicate()
    assert process.returncode == code, errors
    assert errors.splitlines()[-1].startswith(f"egochef: stopped by {number}") and "Traceback" not in errors
    assert list(tmp_path.rglob("*.part*")) == []
    assert {path.name for path in (tmp_path / "tmp").iterdir()} <= LIBRARIES
    while in_session(process.pid):  # the last ones end when they see that it is gone
        time.sleep(0.02)
    assert code == 75 or list(out.iterdir()) == []


def test_the_next_run_removes_what_a_killed_one_left(begin, tmp_path):
    words = ("toy", "--preset", "small", "--segments", 12, "--workers", 1, "--out", tmp_path / "kitchen")
    killed = begin(*words)
    wait_for(killed, tmp_path, ".kitchen-*/videos_*/*/.*")
    killed.kill()
    killed.communicate()
    assert list(tmp_path.rglob("*.part*"))
    again = begin(*words)
    _, errors = again.communicate()
    assert again.returncode == 0 and "removed 1 files or folders that killed runs left" in errors, errors
    assert list(tmp_path.rglob("*.part*")) == [] and (tmp_path / "kitchen").is_dir()


def egochef(words, shell):
    """In a shell, whose words say where its output goes."""
    line = f'"$0" -m egochef "$@" {shell}'
    return subprocess.run(
        ["bash", "-c", line, sys.executable, *map(str, words)], capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(
    ("shell", "code", "told"),
    [
        ("| head -c 0; exit ${PIPESTATUS[0]}", 141, ""),
        ("> /dev/full", 1, "egochef: standard output: cannot be written (No space left on device)"),
        (">&-", 0, ""),
        ("2> /dev/full 2>&-", 0, ""),
    ],
)
def test_output_that_nobody_takes(shell, code, told, toy_root):
    done = egochef(("stats", "--data", toy_root), shell)
    assert done.returncode == code
    assert done.stderr.startswith(told) and done.stderr.count("\n") == bool(told), done.stderr


def test_training_goes_on_when_nobody_listens(tmp_path, toy_root):
    """Standard error is closed as well, and nothing else gets its number."""
    run = tmp_path / "run"
    done = egochef(command(TINY, toy_root, run)[3:], "2>&- | head -n 1; exit ${PIPESTATUS[0]}")
    assert done.returncode == 0
    assert done.stdout.split()[:2] == ["epoch", "step"] and done.stdout.count("\n") == 1
    lines = list(read_log(run))
    assert [line["epoch"] for line in lines if line["kind"] == "epoch"] == [1, 2]
    assert (run / "checkpoints" / "best.safetensors").is_file()
