"""Several ranks as real processes: what they share, and what becomes of the others when one is lost."""

import dataclasses
import os
import re
import signal
import sys
import threading
import time

import pytest
from tiny_runs import TINY, command, ends, free_port, log_of, start, start_ranks, steps

from egochef.errors import InputError
from egochef.launch import Launch, read_launch
from egochef.ranks import Ranks

TWO = dataclasses.replace(TINY, epochs=10, patience=10, batch_size=8, micro_batch=4, max_train_segments=16)
"""20 steps of 2 micro-batches, with dropout and CutMix"""
HEADS_OF_TWO = dataclasses.replace(TWO, frozen_encoder=True, micro_batch=2)
"""The same with 4 micro-batches, so that each of two ranks accumulates. Gradients are then summed in another order, and
a whole encoder under Adam makes 1e-2 of that rounding within 20 steps; the heads alone do not."""
LONG = dataclasses.replace(TWO, epochs=500, patience=500, max_validation_segments=1)
IMPATIENT = """
import sys
from egochef import ranks
from egochef.cli.main import main
ranks.SILENT_S, ranks.ASK_S = 12.0, 4.0
sys.exit(main(sys.argv[1:]))
"""
"""`egochef`, where a rank counts as dead sooner"""


@pytest.fixture(scope="module")
def alone(toy_root, tmp_path_factory):
    run = tmp_path_factory.mktemp("alone") / "run"
    ends(start(command(TWO, toy_root, run)), 0)
    return run


@pytest.mark.slow
@pytest.mark.parametrize("config", [TWO, HEADS_OF_TWO], ids=["all", "heads accumulated"])
def test_two_ranks_are_the_same_run_as_one(config, alone, toy_root, tmp_path):
    if config is not TWO:
        alone = tmp_path / "alone"
        ends(start(command(config, toy_root, alone)), 0)
    for process in start_ranks(command(config, toy_root, tmp_path / "run"), 2):
        ends(process, 0)
    one, two = steps(alone), steps(tmp_path / "run")
    assert len(one) == len(two) == 20
    for a, b in zip(one, two, strict=True):
        assert a["loss"] == pytest.approx(b["loss"], abs=1e-5)
        assert a["grad_norm"] == pytest.approx(b["grad_norm"], rel=1e-4)
        assert a["num_clips"] == b["num_clips"] == 8
    judged = [[line for line in log_of(run) if line["kind"] == "evaluation"] for run in (alone, tmp_path / "run")]
    assert judged[0] == judged[1]


@pytest.mark.slow
def test_torchrun_and_going_on_with_another_number_of_ranks(alone, toy_root, tmp_path):
    """Stopped on one process, gone on with on two under torchrun: still the same losses."""
    run = tmp_path / "run"
    process = start(command(TWO, toy_root, run))
    while process.poll() is None and not (run / "log.jsonl").is_file():
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    ends(process, 75)
    words = command(TWO, toy_root, run, "--resume")[2:]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", f"--master-port={free_port()}"]
    ends(start([*torchrun, "-m", *words]), 0, timeout=180)
    assert len(steps(run)) == 20
    for a, b in zip(steps(alone), steps(run), strict=True):
        assert a["loss"] == pytest.approx(b["loss"], abs=1e-5)


def wait_for_steps(processes, run):
    while not ((run / "log.jsonl").is_file() and '"step": 3' in (run / "log.jsonl").read_text()):
        assert all(process.poll() is None for process in processes), [p.communicate() for p in processes]
        time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.parametrize("lost", [0, 1])
def test_a_rank_that_dies_ends_the_job_and_is_named(lost, toy_root, tmp_path):
    processes = start_ranks(command(LONG, toy_root, tmp_path / "run"), 2)
    wait_for_steps(processes, tmp_path / "run")
    processes[lost].kill()
    began = time.monotonic()
    said = ends(processes[1 - lost], 1, timeout=60)
    assert time.monotonic() - began < 60
    pid = processes[lost].pid
    assert re.search(rf"egochef: rank 1 \(process {pid} on \S+\) died" if lost else "egochef: rank 0 died", said), said
    processes[lost].communicate()


@pytest.mark.slow
def test_a_rank_that_hangs_ends_the_job_and_is_named(toy_root, tmp_path):
    """Two jobs side by side, as it is mostly waiting: in one rank 0 hangs, in the other rank 1."""
    jobs = []
    for stuck in (0, 1):
        words = command(LONG, toy_root, tmp_path / f"run{stuck}")
        jobs.append(start_ranks([sys.executable, "-c", IMPATIENT, *words[3:]], 2))
    for stuck, processes in enumerate(jobs):
        wait_for_steps(processes, tmp_path / f"run{stuck}")
        processes[stuck].send_signal(signal.SIGSTOP)
    for stuck, processes in enumerate(jobs):
        said = ends(processes[1 - stuck], 1, timeout=70)
        named = f"rank 1 (process {processes[1].pid}" in said and "no sign of life" in said
        assert named if stuck else "rank 0 died or hangs" in said, said
        processes[stuck].kill()
        processes[stuck].communicate()


@pytest.mark.slow
def test_a_rank_that_ends_by_a_fault_says_it_to_all(toy_root, tmp_path):
    """Rank 1 looks at other data."""
    words = command(LONG, toy_root, tmp_path / "run")
    port, common = str(free_port()), {"MASTER_ADDR": "127.0.0.1", "WORLD_SIZE": "2"}
    first = start(words, RANK="0", MASTER_PORT=port, **common)
    wrong = [tmp_path / "nothing" if word == toy_root else word for word in words]
    second = start(wrong, RANK="1", MASTER_PORT=port, **common)
    assert "nothing" in ends(second, 1)
    said = ends(first, 1, timeout=60)
    assert re.search(r"rank 1 .*ended: .*nothing", said), said


@pytest.mark.slow
def test_a_signal_to_one_rank_stops_all_in_the_same_state(alone, toy_root, tmp_path):
    run = tmp_path / "run"
    processes = start_ranks(command(TWO, toy_root, run), 2)
    wait_for_steps(processes, run)
    processes[1].send_signal(signal.SIGUSR1)
    said = [ends(process, 75, timeout=60) for process in processes]
    assert all(re.search(r"stopped by .* after step \d+", text) for text in said), said
    for process in start_ranks(command(TWO, toy_root, run, "--resume"), 2):
        ends(process, 0)
    for a, b in zip(steps(alone), steps(run), strict=True):
        assert a["loss"] == pytest.approx(b["loss"], abs=1e-5)


def test_more_ranks_than_clips_in_a_step(toy_root, tmp_path):
    config = dataclasses.replace(TINY, batch_size=1, micro_batch=1)
    for process in start_ranks(command(config, toy_root, tmp_path / "run"), 2):
        assert "1 clips a step for 2 ranks" in ends(process, 1, timeout=60)


# What the launcher says


def test_one_process_alone():
    assert read_launch({}) == Launch()
    ranks = Ranks()
    assert ranks.is_first and ranks.num_ranks == 1
    assert ranks.gather({"a": 1}) == [{"a": 1}] and ranks.from_first(3) == 3
    assert ranks.any(True) and not ranks.any(False)


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
    monkeypatch.setattr("egochef.ranks.JOIN_S", 1.0)
    from egochef.ranks import join_ranks

    for name, value in {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}.items():
        monkeypatch.setitem(os.environ, name, value)
    monkeypatch.setitem(os.environ, "MASTER_PORT", str(free_port()))
    with pytest.raises(InputError, match=r"rank 1 cannot reach rank 0 at 127\.0\.0\.1"), join_ranks("cpu"):
        pass


def test_a_heartbeat_from_before_its_death_is_no_sign_of_life(monkeypatch):
    """The collective fails at once; the last heartbeat is read only then."""
    from egochef import ranks

    monkeypatch.setattr(ranks, "ASK_S", 3.0)
    launch = Launch(rank=0, num_ranks=3, host="127.0.0.1", port=free_port())
    store = ranks._open_store(launch, is_server=True)
    beats = ranks.dist.PrefixStore(launch.attempt, store)
    watch = ranks._Watch(launch)
    watch.start()
    ended = threading.Event()

    def live():
        count = 0
        while not ended.wait(0.3):
            count += 1
            beats.set("beat/2", f'{{"host": "there", "pid": 2, "count": {count}}}')

    other = threading.Thread(target=live)
    other.start()
    try:
        beats.set("beat/1", '{"host": "here", "pid": 1, "count": 1}')
        assert watch.who_is_lost() == "rank 1 (process 1 on here) died"
    finally:
        ended.set()
        other.join()
        watch._left = {1: ranks.IN_ORDER, 2: ranks.IN_ORDER}
        watch.store_is_gone = True
        watch.stop()


AT_ONCE = """
from egochef import ranks
ranks.BEAT_S = 1e-4
with ranks.join_ranks("cpu") as here:
    assert here.gather(here.rank) == [0, 1]
"""


@pytest.mark.slow
def test_the_end_never_meets_a_heartbeat_on_its_way():
    """A thread that comes back from the store into a Python that shuts down would abort the process, now and then."""
    for _ in range(4):
        for process in start_ranks([sys.executable, "-c", AT_ONCE], 2):
            ends(process, 0, timeout=60)
