"""Several ranks as real processes: what they share, and what becomes of the others when one is lost."""

import contextlib
import dataclasses
import os
import re
import signal
import sys
import threading
import time
from pathlib import Path

import pytest
from tiny_runs import TINY, command, ends, free_port, one_thread, start, start_ranks, steps
from torch.distributed import PrefixStore

from egochef import ranks
from egochef.errors import InputError, Stopped
from egochef.launch import Launch, read_launch
from egochef.ranks import Ranks, Watch, join_ranks, open_store
from egochef.training.loop import train

ALL = dataclasses.replace(TINY, epochs=1, lr=1e-5, batch_size=8, micro_batch=4, max_train_segments=16)
"""2 steps of 2 micro-batches, with dropout and CutMix, of all weights. Gradients may be summed in another order, and
Adam makes much of that rounding: after a first step that is short the second one is comparable."""
HEADS = dataclasses.replace(ALL, epochs=3, lr=1e-3, frozen_encoder=True, micro_batch=2, max_validation_segments=1)
"""6 steps of 4 micro-batches, so that each of two ranks accumulates. Heads alone make little of rounding."""
LONG = dataclasses.replace(HEADS, epochs=500, patience=500, batch_size=2, micro_batch=1, max_train_segments=4)


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    with one_thread():
        yield


def assert_same_steps(a, b):
    assert len(steps(a)) == len(steps(b)) > 1
    for one, two in zip(steps(a), steps(b), strict=True):
        assert one["loss"] == pytest.approx(two["loss"], rel=1e-5)
        assert one["grad_norm"] == pytest.approx(two["grad_norm"], rel=1e-3)
        assert one["num_clips"] == two["num_clips"] == 8


@pytest.mark.slow
def test_two_ranks_are_the_same_run_as_one(toy_root, tmp_path):
    processes = start_ranks(command(ALL, toy_root, tmp_path / "run"), 2)
    train(ALL, toy_root, tmp_path / "alone")
    for process in processes:
        ends(process, 0)
    assert_same_steps(tmp_path / "alone", tmp_path / "run")


A_SIGNAL_TO_ONE = """
import os, signal, sys
from pathlib import Path
from egochef.errors import Stopped
from egochef.training.config import load_config
from egochef.training.loop import train

def hook(progress):
    if os.environ["RANK"] == "1" and progress.step == 2:
        os.kill(os.getpid(), signal.SIGUSR1)

config, data, run = map(Path, sys.argv[1:])
try:
    train(load_config(config), data, run, on_step=hook)
except Stopped as stopped:
    print(stopped)
    sys.exit(stopped.EXIT_CODE)
"""


@pytest.mark.slow
def test_a_signal_to_one_rank_stops_all_and_another_number_goes_on(toy_root, tmp_path):
    """Two ranks, of which one gets a signal, then one process, then two under torchrun: the same losses as by one."""
    run = tmp_path / "run"
    words = command(HEADS, toy_root, run, "--resume")
    config = words[words.index("--config") + 1]
    said = [
        ends(process, 75) for process in start_ranks([sys.executable, "-c", A_SIGNAL_TO_ONE, config, toy_root, run], 2)
    ]
    assert all("after step 2, in epoch 1" in text for text in said), said
    assert "stopped by a signal to another rank" in said[0] and "stopped by SIGUSR1" in said[1]
    with pytest.raises(Stopped):
        train(HEADS, toy_root, run, resume=True, on_step=lambda progress: progress.step == 4)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", f"--master-port={free_port()}"]
    process = start([*torchrun, "-m", *words[2:]])
    train(HEADS, toy_root, tmp_path / "alone")
    ends(process, 0)
    assert_same_steps(tmp_path / "alone", run)


TWO_RANKS = """
import os, sys
import egochef.training.loop
from egochef import ranks
from egochef.cli.main import main

if sys.argv.pop(1) == "impatient":
    ranks.SILENT_S, ranks.ASK_S = 12.0, 4.0
pids = []
for rank in (0, 1):
    pids.append(os.fork())
    if not pids[rank]:
        os.environ["RANK"] = os.environ["LOCAL_RANK"] = str(rank)
        sys.exit(main(sys.argv[1:]))
print(*pids, flush=True)
for rank, pid in enumerate(pids):
    print(f"rank {rank} ended with {os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])}", flush=True)
"""
"""`egochef` on two ranks, which this process starts, names and waits for. They share what it has imported. If it is
impatient, a rank counts as dead sooner."""


def start_two(words, patience="patient"):
    """The process and the ids of its ranks, which have taken some steps."""
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": "2"}
    process = start([sys.executable, "-c", TWO_RANKS, patience, *words[3:]], **address)
    return process, [int(word) for word in process.stdout.readline().split()]


def wait_for_steps(process, run):
    while not ((run / "log.jsonl").is_file() and '"step": 3' in (run / "log.jsonl").read_text()):
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.parametrize("lost", [0, 1])
def test_a_rank_that_dies_ends_the_job_and_is_named(lost, toy_root, tmp_path):
    process, pids = start_two(command(LONG, toy_root, tmp_path / "run"), "impatient")
    wait_for_steps(process, tmp_path / "run")
    os.kill(pids[lost], signal.SIGKILL)
    said = ends(process, 0)
    assert f"rank {lost} ended with -9" in said and f"rank {1 - lost} ended with 1" in said, said
    name = rf"egochef: rank 1 \(process {pids[1]} on \S+\) died" if lost else "egochef: rank 0 died"
    assert re.search(name, said), said


@pytest.mark.slow
def test_a_rank_that_hangs_ends_the_job_and_is_named(toy_root, tmp_path):
    """Two jobs side by side, as it is mostly waiting: in one rank 0 hangs, in the other rank 1."""
    jobs = [start_two(command(LONG, toy_root, tmp_path / f"run{stuck}"), "impatient") for stuck in (0, 1)]
    for stuck, (process, pids) in enumerate(jobs):
        wait_for_steps(process, tmp_path / f"run{stuck}")
        os.kill(pids[stuck], signal.SIGSTOP)
    for stuck, (process, pids) in enumerate(jobs):
        wait_for_the_end_of(pids[1 - stuck])
        os.kill(pids[stuck], signal.SIGKILL)
        said = ends(process, 0)
        assert f"rank {1 - stuck} ended with 1" in said, said
        named = f"rank 1 (process {pids[1]}" in said and "no sign of life" in said
        assert named if stuck else "rank 0 died or hangs" in said, said


def wait_for_the_end_of(pid):
    """Also where its parent looks later."""
    with contextlib.suppress(OSError):
        while ") Z" not in Path(f"/proc/{pid}/stat").read_text():
            time.sleep(0.1)


@pytest.mark.slow
def test_a_rank_that_ends_by_a_fault_says_it_to_all(toy_root, tmp_path):
    """Rank 1 looks at other data."""
    words = command(LONG, toy_root, tmp_path / "run")
    port, common = str(free_port()), {"MASTER_ADDR": "127.0.0.1", "WORLD_SIZE": "2"}
    first = start(words, RANK="0", MASTER_PORT=port, **common)
    wrong = [tmp_path / "nothing" if word == toy_root else word for word in words]
    second = start(wrong, RANK="1", MASTER_PORT=port, **common)
    assert "nothing" in ends(second, 1)
    said = ends(first, 1)
    assert re.search(r"rank 1 .*ended: .*nothing", said), said


@pytest.mark.slow
def test_more_ranks_than_clips_in_a_step(toy_root, tmp_path):
    process, _ = start_two(command(dataclasses.replace(TINY, batch_size=1, micro_batch=1), toy_root, tmp_path / "run"))
    said = ends(process, 0)
    assert said.count("1 clips a step for 2 ranks") >= 2
    assert "rank 0 ended with 1\nrank 1 ended with 1" in said


# What the launcher says


def test_one_process_alone():
    assert read_launch({}) == Launch()
    alone = Ranks()
    assert alone.is_first and alone.num_ranks == 1
    assert alone.gather({"a": 1}) == [{"a": 1}] and alone.from_first(3) == 3
    assert alone.any(True) and not alone.any(False)


def test_srun_says_ranks_and_a_batch_script_does_not():
    there = {"MASTER_ADDR": "node1", "MASTER_PORT": "29500"}
    inside = {"SLURM_PROCID": "3", "SLURM_STEP_NUM_TASKS": "8", "SLURM_LOCALID": "1"} | there
    assert read_launch(inside) == Launch(rank=3, num_ranks=8, local_rank=1, host="node1", port=29500)
    assert read_launch({"SLURM_PROCID": "0", "SLURM_NTASKS": "8"}) == Launch()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"RANK": "2", "WORLD_SIZE": "2"}, "RANK is 2"),
        ({"RANK": "x", "WORLD_SIZE": "2"}, "RANK 'x'"),
        ({"RANK": "0", "WORLD_SIZE": "2"}, "MASTER_ADDR is ''"),
        ({"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "a", "MASTER_PORT": "0"}, "MASTER_PORT 0"),
    ],
)
def test_a_launcher_that_says_nonsense(wrong, message):
    with pytest.raises(InputError, match=message):
        read_launch(wrong)


def test_nobody_at_the_address(toy_root, tmp_path, monkeypatch):
    monkeypatch.setattr(ranks, "JOIN_S", 1.0)
    for name, value in {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}.items():
        monkeypatch.setitem(os.environ, name, value)
    monkeypatch.setitem(os.environ, "MASTER_PORT", str(free_port()))
    with pytest.raises(InputError, match=r"rank 1 cannot reach rank 0 at 127\.0\.0\.1"), join_ranks("cpu"):
        pass


def test_a_heartbeat_from_before_its_death_is_no_sign_of_life(monkeypatch):
    """The collective fails at once; the last heartbeat is read only then."""
    monkeypatch.setattr(ranks, "ASK_S", 3.0)
    monkeypatch.setattr(ranks, "BEAT_S", 0.1)
    launch = Launch(rank=0, num_ranks=3, host="127.0.0.1", port=free_port())
    store = open_store(launch, is_server=True)
    beats = PrefixStore(launch.attempt, store)
    watch = Watch(launch)
    watch.start()
    ended = threading.Event()

    def live():
        count = 0
        while not ended.wait(0.1):
            count += 1
            beats.set("beat/2", f'{{"host": "there", "pid": 2, "count": {count}}}')

    other = threading.Thread(target=live)
    other.start()
    try:
        beats.set("beat/1", '{"host": "here", "pid": 1, "count": 1}')
        said = watch.who_is_lost()
        while "rank 2" in said:  # on a machine so busy that it had not shown three in that time
            said = watch.who_is_lost()
        assert said == "rank 1 (process 1 on here) died"
    finally:
        ended.set()
        other.join()
        for rank in (1, 2):
            beats.set(f"left/{rank}", ranks.IN_ORDER)
        watch.stop()


AT_ONCE = """
import os, sys
from egochef import ranks

ranks.BEAT_S = 1e-4
for port in sys.argv[1:]:
    pids = []
    for rank in (0, 1):
        pids.append(os.fork())
        if not pids[rank]:
            os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "MASTER_PORT": port}
            with ranks.join_ranks("cpu") as here:
                assert here.gather(here.rank) == [0, 1]
            sys.exit()
    for pid in pids:
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""


@pytest.mark.slow
def test_the_end_never_meets_a_heartbeat_on_its_way():
    """A thread that comes back from the store into a Python that shuts down would abort the process, now and then."""
    ports = [str(free_port()) for _ in range(3)]
    process = start([sys.executable, "-c", AT_ONCE, *ports], MASTER_ADDR="127.0.0.1", WORLD_SIZE="2")
    assert ends(process, 0).split() == ["0"] * 6
