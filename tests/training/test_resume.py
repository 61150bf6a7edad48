"""A run that was stopped in any way and gone on with is the run that was never stopped, bit for bit."""

import dataclasses
import os
import random
import signal
import subprocess
import time

import pytest
from conftest import need
from tiny_runs import HEADS, TINY, TWENTY, assert_same_run, command, ends, last_state, start

from egochef.errors import InputError, Stopped
from egochef.training import loop
from egochef.training.loop import train
from egochef.training.runfiles import read_log
from egochef.training.state import newest_whole, state_path

NUM_KILLS = int(os.environ.get("EGOCHEF_KILLS", "5"))
"""`make soak` asks for 50"""
LAST_STATE = "step-00000020-judged"
"""after the last step and the evaluation behind it"""
WITH_WORKERS = dataclasses.replace(TINY, epochs=3, num_workers=2)


@pytest.fixture(scope="module")
def straight(toy_root, tmp_path_factory):
    """The run that nothing stops."""
    run = tmp_path_factory.mktemp("straight") / "run"
    train(TWENTY, toy_root, run)
    assert len([line for line in read_log(run) if line["kind"] == "step"]) == 20
    return run


@pytest.mark.slow
def test_interrupted_after_every_single_step(straight, toy_root, tmp_path, monkeypatch):
    run, real = tmp_path / "run", loop._one_step
    sent = iter([signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGINT] * 6)

    def step_with_a_signal(*arguments):
        number = next(sent)
        os.kill(os.getpid(), number)
        os.kill(os.getpid(), number)  # a second one does no harm
        return real(*arguments)

    monkeypatch.setattr(loop, "_one_step", step_with_a_signal)
    for step in range(1, 21):
        with pytest.raises(Stopped, match=f"after step {step}, in epoch {(step - 1) // 4 + 1}.*--resume"):
            train(TWENTY, toy_root, run, resume=True)
        assert newest_whole(run) == f"step-{step:08d}"
    assert train(TWENTY, toy_root, run, resume=True).finished
    assert_same_run(run, straight)


@pytest.mark.slow
def test_killed_at_random_moments(toy_root, tmp_path):
    """SIGKILL at any moment: while it starts, reads, steps, evaluates or saves, which it does at every step here."""
    config = dataclasses.replace(TWENTY, save_minutes=1e-6)
    straight, run, rng = tmp_path / "straight", tmp_path / "run", random.Random(0)
    words = command(config, toy_root, run, "--resume")
    ends(start(command(config, toy_root, straight)), 0)
    killed, began = 0, False
    while killed < NUM_KILLS:
        process = start(words)
        if killed % 2:  # half of them once it takes steps, as starting takes longer than all steps
            wait_for_a_step(process, run)
        time.sleep(rng.uniform(0, 1.5))
        began = began or (run / "log.jsonl").is_file()
        process.kill()
        process.communicate()
        if process.returncode == 0:  # it was done: once more from the start
            assert_same_run(run, straight)
            run = tmp_path / f"run{killed}"
            words = command(config, toy_root, run, "--resume")
        killed += process.returncode != 0
    assert began
    ends(start(words), 0)
    assert_same_run(run, straight)


def wait_for_a_step(process, run):
    def size():
        return (run / "log.jsonl").stat().st_size if (run / "log.jsonl").is_file() else 0

    before = size()
    while process.poll() is None and size() <= before:
        time.sleep(0.01)


@pytest.fixture(scope="module")
def straight_with_workers(toy_root, tmp_path_factory):
    run = tmp_path_factory.mktemp("workers") / "run"
    ends(start(command(WITH_WORKERS, toy_root, run)), 0)
    return run


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT])
def test_a_signal_to_all_processes_of_a_run(number, straight_with_workers, toy_root, tmp_path):
    """As a terminal's Ctrl-C or a scheduler sends it: also the data workers get it."""
    run = tmp_path / "run"
    process = start(command(WITH_WORKERS, toy_root, run, "--resume"))
    wait_for_a_step(process, run)
    os.killpg(process.pid, number)
    said = ends(process, 75)
    assert f"stopped by {number.name} after step" in said and "Traceback" not in said
    ends(start(command(WITH_WORKERS, toy_root, run, "--resume")), 0)
    assert_same_run(run, straight_with_workers)


def test_stopped_before_the_first_step(toy_root, tmp_path):
    process = start(command(TINY, toy_root, tmp_path / "run"))
    while not (tmp_path / "run" / "lock").is_file():
        assert process.poll() is None
        time.sleep(0.005)
    process.send_signal(signal.SIGTERM)
    assert "stopped by SIGTERM" in ends(process, 75)
    assert train(TINY, toy_root, tmp_path / "run", resume=True).finished


def test_stopped_while_it_evaluates(toy_root, tmp_path, monkeypatch):
    """The signal ends the evaluation at once; the epoch's steps are not done again, and it ends the same."""
    straight, run, real = tmp_path / "straight", tmp_path / "run", loop.evaluate
    train(TINY, toy_root, straight)

    def evaluate_with_a_signal(*arguments):
        os.kill(os.getpid(), signal.SIGUSR1)
        return real(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "evaluate", evaluate_with_a_signal)
        with pytest.raises(Stopped, match="stopped by SIGUSR1 after step 2, in epoch 1"):
            train(TINY, toy_root, run)
    assert [line["kind"] for line in read_log(run)] == ["step", "step"]
    train(TINY, toy_root, run, resume=True)
    assert_same_run(run, straight)


def test_features_of_its_own_are_gone_on_with(toy_root, tmp_path, monkeypatch):
    straight, run, real = tmp_path / "straight", tmp_path / "run", loop._one_step
    train(HEADS, toy_root, straight)

    def step_with_a_signal(*arguments):
        os.kill(os.getpid(), signal.SIGTERM)
        return real(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "_one_step", step_with_a_signal)
        with pytest.raises(Stopped):
            train(HEADS, toy_root, run)
    train(HEADS, toy_root, run, resume=True)
    assert_same_run(run, straight)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_other_precisions_go_on_the_same_way(precision, toy_root, tmp_path, monkeypatch):
    """With fp16 the gradient scaler's state counts too."""
    clip = dataclasses.replace(TINY.clip, num_frames=1, image_size=32, resize_size=32)  # a CPU takes its time
    config = dataclasses.replace(TINY, clip=clip, precision=precision)
    straight, run, real = tmp_path / "straight", tmp_path / "run", loop._one_step
    train(config, toy_root, straight)
    assert bool(last_state(straight)[1]["scaler"]) == (precision == "fp16")

    def step_with_a_signal(*arguments):
        os.kill(os.getpid(), signal.SIGTERM)
        return real(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "_one_step", step_with_a_signal)
        for _ in range(3):
            with pytest.raises(Stopped):
                train(config, toy_root, run, resume=True)
    train(config, toy_root, run, resume=True)
    assert_same_run(run, straight)


# States that are damaged, and disks that are full


def cut_off(path):
    path.write_bytes(path.read_bytes()[:-100])


def flip_a_byte(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def flip_a_digit_of_the_step(path):
    data = path.read_bytes()
    at = data.index(b'\\"step\\": 20') + len(b'\\"step\\": ')
    path.write_bytes(data[:at] + b"9" + data[at + 1 :])


def empty(path):
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [cut_off, flip_a_byte, flip_a_digit_of_the_step, empty, os.unlink])
def test_a_damaged_state_falls_back_to_an_older_one(damage, straight, toy_root, tmp_path, caplog):
    caplog.set_level("INFO")
    run = tmp_path / "run"
    subprocess.run(["cp", "-r", straight, run], check=True)
    assert sorted(path.name for path in (run / "checkpoints/last").iterdir()) == [
        "step-00000016-judged.safetensors",
        "step-00000016-judged.sha256",
        "step-00000020-judged.safetensors",
        "step-00000020-judged.sha256",
    ]
    damage(state_path(run, LAST_STATE))
    train(TWENTY, toy_root, run, resume=True)
    assert sum(f"{LAST_STATE}.safetensors" in said and "older state" in said for said in caplog.messages) == 1
    assert any("going on after step 16" in said for said in caplog.messages)
    assert_same_run(run, straight)


def test_no_whole_state_is_no_reason_to_start_over(straight, toy_root, tmp_path):
    run = tmp_path / "run"
    subprocess.run(["cp", "-r", straight, run], check=True)
    names = ["step-00000016-judged", LAST_STATE]
    for name in names:
        flip_a_byte(state_path(run, name))
    with pytest.raises(InputError, match="none of its 2 states is whole"):
        train(TWENTY, toy_root, run, resume=True)
    assert sorted(path.stem for path in (run / "checkpoints/last").glob("*.sha256")) == names


def test_checksums_are_what_sha256sum_reads(straight):
    last = straight / "checkpoints" / "last"
    need(subprocess.run(["which", "sha256sum"], capture_output=True, check=False).returncode == 0, "sha256sum")
    names = sorted(path.name for path in last.glob("*.sha256"))
    assert subprocess.run(["sha256sum", "--check", "--quiet", *names], cwd=last, check=False).returncode == 0


def test_what_a_save_left_that_was_cut_off_is_cleared(straight, toy_root, tmp_path):
    run = tmp_path / "run"
    subprocess.run(["cp", "-r", straight, run], check=True)
    last = run / "checkpoints" / "last"
    state_path(run, LAST_STATE).with_suffix(".sha256").unlink()
    (last / ".step-00000024-abc.part.safetensors").write_bytes(b"half")
    train(TWENTY, toy_root, run, resume=True)
    assert sorted(path.name for path in last.iterdir()) == [
        f"step-{n:08d}-judged.{s}" for n in (16, 20) for s in ("safetensors", "sha256")
    ]
    assert_same_run(run, straight)


@pytest.fixture
def small_disk(tmp_path):
    """A disk of its own that a few states fill."""
    place = tmp_path / "disk"
    place.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=230m", "none", place], capture_output=True, check=False)
    need(done.returncode == 0, "the right to mount a tmpfs")
    yield place
    subprocess.run(["umount", place], check=True)


def test_a_full_disk_falls_back_to_an_older_state(small_disk, straight, toy_root, caplog, monkeypatch):
    """States do not fit any more in the middle of a run: it goes on, says so, and is gone on with from an older one."""
    run, real, config = small_disk / "run", loop._one_step, dataclasses.replace(TWENTY, save_minutes=1e-6)
    filler = small_disk / "filler"

    def fill_the_disk(run, progress, micros):
        if progress.step == 10:
            free = os.statvfs(small_disk)
            filler.write_bytes(bytes(free.f_bavail * free.f_bsize - 5 * 2**20))
        if progress.step == 13:
            os.kill(os.getpid(), signal.SIGTERM)
        return real(run, progress, micros)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "_one_step", fill_the_disk)
        with pytest.raises(InputError, match=r"stopped by SIGTERM.*could not be saved.*MB free"):
            train(config, toy_root, run)
    assert any("could not be saved" in said and "MB free" in said for said in caplog.messages)
    assert newest_whole(run) == "step-00000010"
    filler.unlink()
    train(config, toy_root, run, resume=True)
    assert_same_run(run, straight)
