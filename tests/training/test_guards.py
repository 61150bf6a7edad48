"""What a run does when something goes wrong: lost numbers, no memory, unreadable samples, wrong states, two at once."""

import dataclasses
import json
import shutil
import signal
import sys
import time
from pathlib import Path

import pytest
import torch
from tiny_runs import TINY, assert_same_run, command, ends, last_state, start, start_ranks, steps

from egochef.data.annotations import find_videos, open_data_folder, read_split
from egochef.errors import InputError
from egochef.files import sha256_of, write_json
from egochef.model.checkpoint import read_tensors, write_tensors
from egochef.records import to_dict
from egochef.training import loop
from egochef.training.loop import train
from egochef.training.run import spread
from egochef.training.runfiles import locked, read_log
from egochef.training.sources import VideoSource
from egochef.training.state import state_path

# Lost numbers


@pytest.fixture
def lost_numbers(monkeypatch):
    """Colours that are not finite, and so losses, in the steps whose numbers are put into the set; None: in all."""
    wanted, real, count = set(), VideoSource.epoch, [0]

    def epoch(self, *arguments):
        for micro in real(self, *arguments):
            if None in wanted or count[0] in wanted:
                micro = dataclasses.replace(micro, colour=torch.full_like(micro.colour, float("nan")))
            count[0] += micro.ends_step
            yield micro

    monkeypatch.setattr(VideoSource, "epoch", epoch)
    return wanted


def test_a_step_whose_loss_is_lost_is_skipped_and_counted(toy_root, tmp_path, lost_numbers, caplog):
    lost_numbers |= {1, 2}
    config = dataclasses.replace(TINY, ema_decay=0.9)
    train(config, toy_root, tmp_path / "run")
    lines = steps(tmp_path / "run")
    assert [line["skipped"] for line in lines] == [0, 1, 1, 0]
    assert [line["loss"] is None for line in lines] == [False, True, True, False]
    epochs = [line for line in read_log(tmp_path / "run") if line["kind"] == "epoch"]
    assert [line["skipped"] for line in epochs] == [1, 1]
    tensors, _ = read_tensors(tmp_path / "run" / "checkpoints" / "best.safetensors")
    assert all(tensor.isfinite().all() for tensor in tensors.values())
    assert any("step 2: skipped, its loss is nan" in said for said in caplog.messages)


def test_many_lost_steps_in_a_row_stop_the_run_and_leave_the_best(toy_root, tmp_path, lost_numbers, monkeypatch):
    monkeypatch.setattr(loop, "MAX_NOT_FINITE", 5)
    config = dataclasses.replace(TINY, epochs=30, patience=30)
    with pytest.raises(InputError, match=r"not finite for 5 steps up to step 7; .*diverged.json"):
        lost_numbers |= set(range(2, 30))
        train(config, toy_root, tmp_path / "run")
    told = json.loads((tmp_path / "run" / "diverged.json").read_text())["steps"]
    assert [step["step"] for step in told] == list(range(3, 8))
    ids = {segment.narration_id for segment in read_split(open_data_folder(toy_root), "train")}
    assert all(len(step["narration_ids"]) == 4 and set(step["narration_ids"]) <= ids for step in told)
    assert told[0]["loss"] == "nan"
    _, header = read_tensors(tmp_path / "run" / "checkpoints" / "best.safetensors")
    first = next(line for line in read_log(tmp_path / "run") if line["kind"] == "evaluation")
    assert header["scores"]["all_action_accuracy_at_1"] == first["all_action_accuracy_at_1"]


def test_how_many_were_lost_in_a_row_is_part_of_the_state(toy_root, tmp_path, lost_numbers, monkeypatch):
    monkeypatch.setattr(loop, "MAX_NOT_FINITE", 3)
    lost_numbers |= {None}
    config = dataclasses.replace(TINY, save_minutes=1e-6)
    real = loop._one_step

    def stop_after_two(run, progress, micros):
        if progress.step == 1:
            run.stop._hear(signal.SIGTERM, None)
        return real(run, progress, micros)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "_one_step", stop_after_two)
        with pytest.raises(Exception, match="stopped by SIGTERM after step 2"):
            train(config, toy_root, tmp_path / "run")
    with pytest.raises(InputError, match="not finite for 3 steps up to step 3"):
        train(config, toy_root, tmp_path / "run", resume=True)


def test_an_fp16_scale_that_is_too_large_mends_itself(toy_root, tmp_path, monkeypatch):
    """Gradients overflow, the loss does not: such steps are skipped, halve the scale, and do not count as lost.

    Every step has another clip, with larger or smaller gradients: near the edge some overflow and some do not.
    """
    real = loop._one_step

    def with_a_huge_scale(run, progress, micros):
        if progress.step == 0:
            run.learner.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**20)
        return real(run, progress, micros)

    monkeypatch.setattr(loop, "_one_step", with_a_huge_scale)
    clip = dataclasses.replace(TINY.clip, num_frames=1, image_size=32, resize_size=32)
    config = dataclasses.replace(TINY, clip=clip, precision="fp16", batch_size=1, micro_batch=1, epochs=1)
    train(config, toy_root, tmp_path / "run")
    skipped = [line["skipped"] for line in steps(tmp_path / "run")]
    assert skipped[0] == 1 and sum(skipped) < len(skipped) / 2
    _, header = last_state(tmp_path / "run")
    assert header["progress"]["not_finite"] == 0 and header["scaler"]["scale"] == 2.0 ** (20 - sum(skipped))


# Memory


LITTLE_MEMORY = """
import logging, os, resource, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from egochef.training import loop
from egochef.training.config import load_config
real = loop._train_epoch

def with_little_memory(run, progress):
    if os.environ.get("RANK", sys.argv[4]) != sys.argv[4]:
        return real(run, progress)
    used = next(line for line in open("/proc/self/status") if line.startswith("VmSize")).split()[1]
    resource.setrlimit(resource.RLIMIT_AS, (int(used) * 1024 + int(sys.argv[5]), resource.RLIM_INFINITY))
    try:
        return real(run, progress)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))

loop._train_epoch = with_little_memory
logging.basicConfig(level=logging.INFO)
print(loop.train(load_config(Path(sys.argv[1])), Path(sys.argv[2]), Path(sys.argv[3]), resume=True))
"""
"""Trains or goes on; one rank may take only so many bytes more than it has, and its allocator says no to the rest."""


def little_memory(config, data, run, rank, num_bytes):
    write_json(run.parent / "config.json", to_dict(config))
    return [sys.executable, "-c", LITTLE_MEMORY, run.parent / "config.json", data, run, str(rank), str(num_bytes)]


def end_well(start_all):
    """What the processes said; they are started again where it was oneDNN, now and then, that ran out first."""
    processes = start_all()
    said = ["".join(process.communicate(timeout=300)) for process in processes]
    codes = {process.returncode for process in processes}
    if codes == {1} and all("egochef.errors.Stopped" in text for text in said):
        return [before + after for before, after in zip(said, end_well(start_all), strict=True)]
    assert codes == {0}, said
    return said


EIGHT_LARGE = dataclasses.replace(
    TINY,
    clip=dataclasses.replace(TINY.clip, image_size=224, resize_size=224, num_frames=8),
    batch_size=8,
    micro_batch=8,
    epochs=1,
)
"""one step of 8 clips of 420 MB each"""


@pytest.mark.slow
def test_out_of_memory_halves_the_micro_batch(toy_root, tmp_path):
    words = little_memory(EIGHT_LARGE, toy_root, tmp_path / "run", 0, 2_200 * 2**20)
    (said,) = end_well(lambda: [start(words, MALLOC_ARENA_MAX="1")])
    assert "out of memory with 8 clips at once, going on with 4" in said
    assert "micro_batch=8" not in said and "finished=True" in said
    assert [line["num_clips"] for line in steps(tmp_path / "run")] == [8]


@pytest.mark.slow
@pytest.mark.parametrize(("micro_batch", "num_bytes"), [(4, 1_300 * 2**20), (2, 790 * 2**20)])
def test_out_of_memory_on_one_rank_of_two(micro_batch, num_bytes, toy_root, tmp_path):
    """Both halve it and do the step again: with one pass each, and with two of which the first runs out."""
    config = dataclasses.replace(EIGHT_LARGE, micro_batch=micro_batch)
    words = little_memory(config, toy_root, tmp_path / "run", 1, num_bytes)
    for said in end_well(lambda: start_ranks(words, 2, MALLOC_ARENA_MAX="1")):
        assert f"out of memory with {micro_batch} clips at once, going on with {micro_batch // 2}" in said
        assert "finished=True" in said
    assert [line["num_clips"] for line in steps(tmp_path / "run")] == [8]


NO_ROOM_FOR_CODE = """
import resource, sys
import torch
torch.set_num_threads(1)
from egochef.cli.main import main
from egochef.training.step import Learner
real = Learner._forward

def without_room_for_code(*arguments):
    used = next(line for line in open("/proc/self/status") if line.startswith("VmSize")).split()[1]
    resource.setrlimit(resource.RLIMIT_AS, (int(used) * 1024, resource.RLIM_INFINITY))
    try:
        return real(*arguments)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        Learner._forward = real

Learner._forward = without_room_for_code
sys.exit(main(sys.argv[1:]))
"""
"""`egochef`; its first forward pass may take what its heap has in reserve, and no new pages, as code needs them."""


@pytest.mark.slow
def test_want_of_memory_that_only_a_new_process_mends(toy_root, tmp_path):
    """oneDNN can make no code in a thread in which that failed once, even with memory to spare (torch 2.13)."""
    run = tmp_path / "run"
    words = command(TINY, toy_root, run, "--resume")
    reserve = {"MALLOC_ARENA_MAX": "1", "MALLOC_TOP_PAD_": str(2**30), "MALLOC_MMAP_THRESHOLD_": str(2**25)}
    said = ends(start([sys.executable, "-c", NO_ROOM_FOR_CODE, *words[3:]], **reserve), 75)
    assert "out of memory with 2 clips at once, going on with 1" in said
    assert "stopped by want of memory" in said and "after step 0" in said and "--resume" in said
    assert last_state(run)[1]["progress"]["micro_batch"] == 1
    ends(start(words), 0)
    assert [line["num_clips"] for line in steps(run)] == [4, 4, 4, 4]


# Samples that cannot be read


def test_unreadable_samples_are_counted_by_video_also_after_going_on(toy_root, tmp_path, monkeypatch):
    root = tmp_path / "kitchen"
    shutil.copytree(toy_root, root)
    folder = open_data_folder(root)
    chosen = spread(read_split(folder, "train"), TINY.max_train_segments)
    bad = chosen[0].video_id
    path = find_videos(folder, chosen)[bad]
    path.write_bytes(path.read_bytes()[:500])
    straight, run, real = tmp_path / "straight", tmp_path / "run", loop._one_step
    train(TINY, root, straight)
    epochs = [line for line in read_log(straight) if line["kind"] == "epoch"]
    assert all(set(line["unreadable"]) == {bad} and line["unreadable"][bad] >= 1 for line in epochs)

    def step_with_a_signal(*arguments):
        arguments[0].stop._hear(signal.SIGTERM, None)
        return real(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "_one_step", step_with_a_signal)
        for _ in range(3):
            with pytest.raises(Exception, match="stopped by SIGTERM"):
                train(TINY, root, run, resume=True)
    train(TINY, root, run, resume=True)
    assert_same_run(run, straight)


# Other runs' states, other settings, other processes


@pytest.fixture(scope="module")
def trained(toy_root, tmp_path_factory):
    run = tmp_path_factory.mktemp("run") / "run"
    train(TINY, toy_root, run)
    return run


def put_state(run, change):
    """The run's first state alone, with another header, as if it were another run's."""
    for path in (run / "checkpoints" / "last").glob("step-00000004*"):
        path.unlink()
    path = state_path(run, "step-00000002-judged")
    tensors, header = read_tensors(path)
    change(header)
    write_tensors(path, tensors, header)
    path.with_suffix(".sha256").write_text(f"{sha256_of(path)}  {path.name}\n")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda header: header["model"].update(hidden_size=16), "its model.hidden_size is 16, this run's 8"),
        (lambda header: header["clip"].update(image_size=32), "its clip.image_size is 32, this run's 64"),
        (lambda header: header["clip"].update(num_frames=4), "its clip.num_frames is 4, this run's 2"),
        (lambda header: header["verbs"].pop(), r"it has \d+ verb classes, this run \d+"),
        (lambda header: header["nouns"].__setitem__(3, "spoon"), "its noun class 3 is 'spoon', this run's"),
        (lambda header: header.update(format=9), "state format 9, this version of EgoChef reads 1"),
    ],
)
def test_a_state_of_something_else_names_the_difference(change, message, trained, toy_root, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    put_state(run, change)
    with pytest.raises(InputError, match=message):
        train(TINY, toy_root, run, resume=True)


def test_changed_settings_are_named_and_need_to_be_accepted(trained, toy_root, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    config = dataclasses.replace(TINY, epochs=3, lr=5e-4, num_workers=1, keep=3)
    with pytest.raises(
        InputError, match=r"started with epochs = 2, not 3, lr = 0.001, not 0.0005\. .*--accept-changes"
    ):
        train(config, toy_root, run, resume=True)
    for path in (run / "checkpoints" / "last").glob("step-00000004*"):
        path.unlink()
    progress = train(config, toy_root, run, resume=True, accept_changes=True)
    assert (progress.epoch, progress.step) == (3, 6)
    assert json.loads((run / "config.json").read_text())["epochs"] == 3


def test_another_model_is_not_accepted(trained, toy_root, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    put_state(run, lambda header: None)
    config = dataclasses.replace(TINY, model=dataclasses.replace(TINY.model, hidden_size=16))
    with pytest.raises(InputError, match="its model.hidden_size is 8, this run's 16"):
        train(config, toy_root, run, resume=True, accept_changes=True)


@pytest.mark.slow
def test_a_run_in_use_is_refused_and_a_killed_one_is_not(toy_root, tmp_path):
    config, run = dataclasses.replace(TINY, epochs=500, patience=500, num_workers=1), tmp_path / "run"
    process = start(command(config, toy_root, run))
    while not (run / "log.jsonl").is_file():
        assert process.poll() is None
        time.sleep(0.02)
    with pytest.raises(InputError, match=rf"in use by process {process.pid} on "):
        train(config, toy_root, run, resume=True)
    process.kill()  # its data worker lives on for a moment, and does not hold the run
    process.wait()
    with locked(run):
        pass
    process.communicate()


def test_no_pickle_and_no_unsafe_loading_anywhere():
    root = Path(loop.__file__).parents[1]
    sources = {path: path.read_text() for path in root.rglob("*.py")}
    assert len(sources) > 80
    for path, text in sources.items():
        for banned in (
            "import pickle",
            "import dill",
            "import joblib",
            "weights_only=False",
            "torch.save(",
            "allow_pickle=True",
        ):
            assert banned not in text, f"{path}: {banned}"
        for line in text.splitlines():
            if "torch.load(" in line:
                assert "weights_only=True" in line, f"{path}: {line}"
