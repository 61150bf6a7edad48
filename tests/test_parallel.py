"""Work over processes: complete, with progress, and none left behind, whatever ends it."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from egochef.errors import InputError
from egochef.parallel import advance, run_parallel

# Functions of the module's top level, as the processes import them


def double(number: int) -> int:
    advance(1)
    return 2 * number


def refuse_three(number: int) -> int:
    if number == 3:
        raise InputError("three is refused")
    for _ in range(36_000):  # the others are told to stop
        time.sleep(0.1)
        advance(0)
    return number


def die_at_three(number: int) -> int:
    if number == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.1)
    return number


def stop_at_three(number: int) -> int:
    advance(1)
    if number == 3:
        os.kill(os.getpid(), signal.SIGSTOP)
    return number


def write_pid_and_wait(folder: str) -> None:
    Path(folder, str(os.getpid())).touch()
    time.sleep(3600)


@pytest.mark.parametrize("num_workers", [1, 2, 5])
def test_every_item_once_with_progress(num_workers):
    told = []
    results = dict(run_parallel(double, [1, 2, 3, 4], num_workers, on_progress=told.append))
    assert results == {0: 2, 1: 4, 2: 6, 3: 8} and sum(told) == 4


class Interrupting(list[int]):
    """Numbers; Ctrl-C comes as the first one is taken, and has been heard when the second one is."""

    def __init__(self, numbers: list[int], heard: socket.socket):
        super().__init__(numbers)
        self.heard, self.taken = heard, 0

    def __iter__(self):
        for number in super().__iter__():
            self.taken += 1
            if self.taken == 1:
                os.kill(os.getpid(), signal.SIGINT)
                self.heard.recv(1)
            yield number


@pytest.fixture
def heard():
    """A socket that has a byte for each signal which this process's own handler, in C, was called for.

    Ctrl-C is Python's again inside: what starts in a shell's background, as tests may, inherits that it is ignored.
    """
    ears, mouth = socket.socketpair()
    mouth.setblocking(False)
    handler, before = signal.signal(signal.SIGINT, signal.default_int_handler), signal.set_wakeup_fd(mouth.fileno())
    yield ears
    signal.set_wakeup_fd(before)
    signal.signal(signal.SIGINT, handler)
    ears.close()
    mouth.close()


def test_ctrl_c_waits_until_the_processes_have_started(heard):
    """Also where another thread gets the signal; then it is as ever."""
    ended = threading.Event()
    other = threading.Thread(target=ended.wait)
    other.start()
    items = Interrupting([1, 2, 3], heard)
    try:
        with pytest.raises(KeyboardInterrupt):
            list(run_parallel(double, items, 2))
    finally:
        ended.set()
        other.join()
    assert items.taken == 3, "all were handed over"
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_nothing_to_do():
    assert list(run_parallel(double, [], 2)) == []


def test_a_fault_ends_the_others_and_is_told():
    """They would work for an hour."""
    with pytest.raises(InputError, match="^three is refused$"):
        list(run_parallel(refuse_three, [1, 3], 2))


def test_a_process_that_is_killed_is_told_with_its_item():
    with pytest.raises(InputError, match=r"a worker process was killed while at .*item 3"):
        list(run_parallel(die_at_three, [3, 3], 2, name=lambda number: f"item {number}"))


def test_a_process_that_hangs_is_told_and_ended():
    with pytest.raises(InputError, match=r"no sign of life for 3 s from the processes at .*item 3"):
        list(run_parallel(stop_at_three, [1, 3], 2, name=lambda number: f"item {number}", stall_s=3))


def test_no_workers():
    with pytest.raises(InputError, match="num_workers is 0"):
        list(run_parallel(double, [1], 0))


def test_processes_end_with_a_command_that_is_killed(tmp_path):
    script = (
        "import sys; sys.path.insert(0, sys.argv[1]); import test_parallel as t\n"
        "from egochef.parallel import run_parallel\n"
        "if __name__ == '__main__': list(run_parallel(t.write_pid_and_wait, [sys.argv[2]] * 2, 2))\n"
    )
    path = tmp_path / "script.py"
    path.write_text(script)
    (tmp_path / "pids").mkdir()
    command = subprocess.Popen([sys.executable, str(path), str(Path(__file__).parent), str(tmp_path / "pids")])
    while len(list((tmp_path / "pids").iterdir())) < 2:
        assert command.poll() is None
        time.sleep(0.1)
    command.kill()
    command.wait()
    pids = [int(file.name) for file in (tmp_path / "pids").iterdir()]
    while any(_is_alive(pid) for pid in pids):  # for an hour
        time.sleep(0.1)


def _is_alive(pid: int) -> bool:
    try:
        return ") Z" not in Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
