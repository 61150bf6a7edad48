"""A run that was stopped in any way and gone on with is the run that was never stopped, bit for bit."""

import dataclasses
import os
import random
import shutil
import signal
import subprocess
import time
from contextlib import suppress
from itertools import count, cycle

import pytest
import torch
from conftest import need
from tiny_runs import (
    HEADS,
    SIX,
    TINY,
    assert_same_run,
    before_forward,
    command,
    last_state,
    log_of,
    put_state,
    start,
    steps,
)

from egochef.errors import InputError, Stopped
from egochef.files import write_json
from egochef.inference.features import read_about
from egochef.model.checkpoint import read_tensors, write_tensors
from egochef.records import to_dict
from egochef.training.config import load_config
from egochef.training.loop import train
from egochef.training.objective import lr_at
from egochef.training.runfiles import read_log
from egochef.training.runs import look_at
from egochef.training.state import newest_whole, state_path

NUM_KILLS = int(os.environ.get("EGOCHEF_KILLS", "3"))
"""`make soak` asks for 50"""
LAST_STATE = "step-00000006-judged"
"""after the last step and the evaluation behind it"""


@pytest.fixture(scope="module")
def straight(toy_root, tmp_path_factory):
    """The run that nothing stops."""
    run = tmp_path_factory.mktemp("straight") / "run"
    train(SIX, toy_root, run)
    assert len(steps(run)) == 6
    return run


def stop_after(*wanted):
    """For `on_step`: stop after these steps."""
    return lambda progress: progress.step in wanted


# Stopped from within


def test_the_hook_of_a_step_is_told_each_and_stops_where_it_says_so(straight, toy_root, tmp_path):
    """It hears where the run stands; what is not True lets it go on; a run that it stops goes on as any other."""
    run, told = tmp_path / "run", []

    def hook(progress):
        told.append((progress.epoch, progress.epoch_step, progress.step))
        return True if progress.step == 2 else None

    with pytest.raises(Stopped, match="stopped by on_step after step 2, in epoch 1.*--resume"):
        train(SIX, toy_root, run, on_step=hook)
    assert told == [(0, 1, 1), (0, 2, 2)]
    assert newest_whole(run) == "step-00000002"
    assert log_of(run) == log_of(straight)[:2], "the step that it stops after is in the log"
    assert train(SIX, toy_root, run, resume=True, on_step=hook).finished
    assert told == [(0, 1, 1), (0, 2, 2), (0, 3, 3), (1, 1, 4), (1, 2, 5), (1, 3, 6)]
    assert_same_run(run, straight)


def test_interrupted_after_every_single_step(straight, toy_root, tmp_path):
    run = tmp_path / "run"
    numbers = cycle([signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGINT])

    def send_a_signal(_):
        number = next(numbers)
        os.kill(os.getpid(), number)
        os.kill(os.getpid(), number)  # a second one does no harm

    for step in range(1, 7):
        with pytest.raises(Stopped, match=f"stopped by SIG.* after step {step}, in epoch {(step - 1) // 3 + 1}"):
            train(SIX, toy_root, run, resume=True, on_step=send_a_signal)
        assert newest_whole(run) == f"step-{step:08d}"
    assert train(SIX, toy_root, run, resume=True).finished
    assert_same_run(run, straight)


def test_stopped_while_it_evaluates(straight, toy_root, tmp_path):
    """The signal ends the evaluation at once; the epoch's steps are not done again, and it ends the same."""
    run = tmp_path / "run"

    def send_a_signal(*_):
        if not torch.is_grad_enabled():
            os.kill(os.getpid(), signal.SIGUSR1)

    with (
        before_forward(torch.nn.Conv2d, send_a_signal),
        pytest.raises(Stopped, match="stopped by SIGUSR1 after step 3, in epoch 1"),
    ):
        train(SIX, toy_root, run)
    assert [line["kind"] for line in read_log(run)] == ["step"] * 3
    train(SIX, toy_root, run, resume=True)
    assert_same_run(run, straight)


def test_features_of_its_own_are_gone_on_with(toy_root, tmp_path):
    config, straight, run = dataclasses.replace(HEADS, epochs=2), tmp_path / "straight", tmp_path / "run"
    train(config, toy_root, straight)
    with pytest.raises(Stopped):
        train(config, toy_root, run, on_step=stop_after(1))
    train(config, toy_root, run, resume=True)
    assert_same_run(run, straight)


@pytest.mark.parametrize(
    "config", [dataclasses.replace(TINY, frozen_encoder=True), HEADS], ids=["from pictures", "kept features"]
)
def test_an_encoder_that_is_not_trained_stays_the_one_that_is_saved(config, tiny_run, toy_root, tmp_path):
    """Whatever has become of the file that it started from, and of the features."""
    first, init = tiny_run / "checkpoints" / "best.safetensors", tmp_path / "start.safetensors"
    shutil.copyfile(first, init)
    config = dataclasses.replace(config, epochs=1, init=str(init))
    straight, run = tmp_path / "straight", tmp_path / "run"
    train(config, toy_root, straight)
    with pytest.raises(Stopped):
        train(config, toy_root, run, on_step=stop_after(1))
    tensors, header = read_tensors(first)
    write_tensors(init, {name: 2 * tensor for name, tensor in tensors.items()}, header)
    shutil.rmtree(run / "features", ignore_errors=True)
    train(config, toy_root, run, resume=True)
    assert_same_run(run, straight)
    if config.feature_views:
        assert read_about(run / "features").spec.encoder_trained_on == ("train",), "for other runs from these features"


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_other_precisions_go_on_the_same_way(precision, toy_root, tmp_path):
    """With fp16 the gradient scaler's state counts too."""
    clip = dataclasses.replace(TINY.clip, num_frames=1, image_size=32, resize_size=32)  # a CPU takes its time
    config = dataclasses.replace(TINY, clip=clip, precision=precision, epochs=1)
    straight, run = tmp_path / "straight", tmp_path / "run"
    train(config, toy_root, straight)
    assert bool(last_state(straight)[1]["scaler"]) == (precision == "fp16")
    with pytest.raises(Stopped):
        train(config, toy_root, run, on_step=stop_after(1))
    train(config, toy_root, run, resume=True)
    assert_same_run(run, straight)


# Other numbers of epochs


def epochs_of(run):
    return look_at(run).state, look_at(run).epochs_done, look_at(run).epochs


def never(progress):
    raise AssertionError(f"a step was taken: {progress}")


@pytest.mark.parametrize("done", [2, 1])
def test_fewer_epochs_than_are_done_end_the_run(done, straight, toy_root, tmp_path, caplog):
    """Whether it was finished before or not; nothing is trained, and its files say how it ended."""
    caplog.set_level("INFO")
    run = shutil.copytree(straight, tmp_path / "run")
    (run / "MODEL_CARD.md").unlink()
    if done == 1:
        for path in (run / "checkpoints" / "last").glob("step-00000006*"):
            path.unlink()
        config = dataclasses.replace(SIX, epochs=1, lr=2e-3)
    else:
        config = dataclasses.replace(SIX, epochs=1, train_on=("train", "validation"))
    progress = train(config, toy_root, run, resume=True, accept_changes=True, on_step=never)
    assert progress.finished and progress.epoch == done
    assert sum(
        f"{done} epochs are done, the settings ask for 1. Nothing was trained" in said for said in caplog.messages
    )
    assert load_config(run / "config.json") == dataclasses.replace(SIX, epochs=done), "the rest is what it trained by"
    assert (run / "MODEL_CARD.md").is_file() and epochs_of(run) == ("finished", 2, done)


def test_more_epochs_than_a_finished_run_did_are_trained(straight, toy_root, tmp_path):
    run, more = shutil.copytree(straight, tmp_path / "run"), dataclasses.replace(SIX, epochs=3)
    with pytest.raises(Stopped, match="after step 7, in epoch 3"):
        train(more, toy_root, run, resume=True, accept_changes=True, on_step=stop_after(7))
    assert epochs_of(run) == ("stopped", 2, 3) and not (run / "MODEL_CARD.md").exists()
    progress = train(more, toy_root, run, resume=True)
    assert progress.finished and (progress.epoch, progress.step) == (3, 9)
    assert log_of(run)[: len(log_of(straight))] == log_of(straight)
    rates = [line["lr"] for line in steps(run)][6:]
    assert rates == [lr_at(2 + n / 3, lr=more.lr, warmup_epochs=more.warmup_epochs, epochs=3) for n in (1, 2, 3)]
    assert epochs_of(run) == ("finished", 3, 3) and "- 3 epochs of at most 3" in (run / "MODEL_CARD.md").read_text()


def test_more_patience_goes_on_with_a_run_that_had_lost_it(straight, toy_root, tmp_path, caplog):
    caplog.set_level("INFO")
    run, config = shutil.copytree(straight, tmp_path / "run"), dataclasses.replace(SIX, epochs=9, patience=1)
    write_json(run / "config.json", to_dict(config))
    tensors, header = last_state(run)
    header["progress"] |= {"best_epoch": 1, "best_score": 99.0}
    put_state(run, LAST_STATE, tensors, header)
    assert train(config, toy_root, run, resume=True, on_step=never).finished
    assert any("no better score in 1 epochs, after 1 it was to stop" in said for said in caplog.messages)
    with pytest.raises(Stopped, match="after step 7, in epoch 3"):
        more = dataclasses.replace(config, patience=2)
        train(more, toy_root, run, resume=True, accept_changes=True, on_step=stop_after(7))


# Stopped and killed from outside


def wait_for(condition, process):
    """Until it holds, or the process has ended."""
    while process.poll() is None and not condition():
        time.sleep(0.02)


def num_lines(run):
    return (run / "log.jsonl").read_bytes().count(b"\n") if (run / "log.jsonl").is_file() else 0


@pytest.mark.slow
def test_killed_at_random_moments(straight, toy_root, tmp_path):
    """SIGKILL at any moment: while it starts, reads, steps, evaluates or saves, which it does at every step here."""
    config, run, rng = dataclasses.replace(SIX, save_minutes=1e-6), tmp_path / "run", random.Random(0)
    if NUM_KILLS > 10:  # 21 steps
        config, straight = dataclasses.replace(config, epochs=7, patience=7), tmp_path / "straight"
        train(config, toy_root, straight)
    words = command(config, toy_root, run, "--resume")
    killed, began = 0, False
    while killed < NUM_KILLS:
        process, before = start(words), num_lines(run)
        if killed % 3:  # most of them once it takes steps, as starting takes longer than all steps
            wait_for(lambda run=run, before=before: num_lines(run) > before, process)
        time.sleep(rng.uniform(0, 0.7 if killed % 3 else 1.5))
        began = began or num_lines(run) > 0
        process.kill()
        process.communicate()
        if process.returncode == 0:  # it was done: once more from the start
            assert_same_run(run, straight)
            run = tmp_path / f"run{killed}-{rng.random()}"
            words = command(config, toy_root, run, "--resume")
        killed += process.returncode != 0
    assert began
    train(config, toy_root, run, resume=True)
    assert_same_run(run, straight)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "wanted"),
    [(signal.SIGTERM, "lock"), (signal.SIGUSR1, "log.jsonl"), (signal.SIGINT, "log.jsonl")],
    ids=["before the first step", "SIGUSR1", "SIGINT"],
)
def test_a_signal_to_all_processes_of_a_run(number, wanted, straight, toy_root, tmp_path):
    """As a terminal's Ctrl-C or a scheduler sends it: also the data workers get it, which change nothing either."""
    config = dataclasses.replace(SIX, num_workers=2)
    for attempt in count():
        run = tmp_path / f"run{attempt}"
        process = start(command(config, toy_root, run))
        if wanted == "lock":
            wait_for((run / wanted).is_file, process)
        else:
            wait_for(lambda run=run: num_lines(run) > 0, process)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        out, err = process.communicate()
        if process.returncode != 0:  # else it was done before the signal came: once more
            break
    assert process.returncode == 75, (out, err)
    assert f"stopped by {number.name}" in out + err and "Traceback" not in out + err
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
    at = data.index(b'\\"step\\": 6') + len(b'\\"step\\": ')
    path.write_bytes(data[:at] + b"9" + data[at + 1 :])


def empty(path):
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [cut_off, flip_a_byte, flip_a_digit_of_the_step, empty, os.unlink])
def test_a_damaged_state_falls_back_to_an_older_one(damage, straight, tmp_path, caplog):
    run = tmp_path / "run"
    shutil.copytree(straight / "checkpoints" / "last", run / "checkpoints" / "last")
    assert newest_whole(run) == LAST_STATE
    damage(state_path(run, LAST_STATE))
    assert newest_whole(run) == "step-00000003-judged"
    assert sum(f"{LAST_STATE}.safetensors" in said and "older state" in said for said in caplog.messages) == 1


def test_a_run_goes_on_from_an_older_state_to_the_same_end(straight, toy_root, tmp_path, caplog):
    caplog.set_level("INFO")
    run = tmp_path / "run"
    shutil.copytree(straight, run)
    assert sorted(path.name for path in (run / "checkpoints/last").iterdir()) == [
        "step-00000003-judged.safetensors",
        "step-00000003-judged.sha256",
        "step-00000006-judged.safetensors",
        "step-00000006-judged.sha256",
    ]
    flip_a_byte(state_path(run, LAST_STATE))
    train(SIX, toy_root, run, resume=True)
    assert sum(f"{LAST_STATE}.safetensors" in said and "older state" in said for said in caplog.messages) == 1
    assert any("going on after step 3" in said for said in caplog.messages)
    assert_same_run(run, straight)


def test_no_whole_state_is_no_reason_to_start_over(straight, toy_root, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(straight, run)
    names = ["step-00000003-judged", LAST_STATE]
    for name in names:
        flip_a_byte(state_path(run, name))
    with pytest.raises(InputError, match="none of its 2 states is whole"):
        train(SIX, toy_root, run, resume=True)
    assert sorted(path.stem for path in (run / "checkpoints/last").glob("*.sha256")) == names


def test_checksums_are_what_sha256sum_reads(straight):
    last = straight / "checkpoints" / "last"
    need(subprocess.run(["which", "sha256sum"], capture_output=True, check=False).returncode == 0, "sha256sum")
    names = sorted(path.name for path in last.glob("*.sha256"))
    assert subprocess.run(["sha256sum", "--check", "--quiet", *names], cwd=last, check=False).returncode == 0


def test_what_a_save_left_that_was_cut_off_is_cleared(straight, toy_root, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(straight, run)
    last = run / "checkpoints" / "last"
    state_path(run, LAST_STATE).with_suffix(".sha256").unlink()
    (last / ".step-00000009-abc.part.safetensors").write_bytes(b"half")
    train(SIX, toy_root, run, resume=True)
    assert sorted(path.name for path in last.iterdir()) == [
        f"step-{n:08d}-judged.{s}" for n in (3, 6) for s in ("safetensors", "sha256")
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


def test_a_full_disk_falls_back_to_an_older_state(small_disk, straight, toy_root, caplog):
    """States do not fit any more in the middle of a run: it goes on, says so, and is gone on with from an older one."""
    run, config = small_disk / "run", dataclasses.replace(SIX, save_minutes=1e-6)
    filler = small_disk / "filler"

    def fill_the_disk(progress):
        if progress.step == 3:
            free = os.statvfs(small_disk)
            filler.write_bytes(bytes(free.f_bavail * free.f_bsize - 5 * 2**20))
        return progress.step == 5

    with pytest.raises(InputError, match=r"stopped by on_step.*could not be saved.*MB free"):
        train(config, toy_root, run, on_step=fill_the_disk)
    assert any("could not be saved" in said and "MB free" in said for said in caplog.messages)
    assert newest_whole(run) == "step-00000002"
    filler.unlink()
    train(config, toy_root, run, resume=True)
    assert_same_run(run, straight)
