"""What a run does when something goes wrong: lost numbers, no memory, unreadable samples, wrong states, two at once."""

import dataclasses
import json
import os
import shutil
import sys
import time
from pathlib import Path

import pytest
import torch
from tiny_runs import (
    TINY,
    assert_same_run,
    before_forward,
    best_of,
    command,
    ends,
    last_state,
    put_state,
    start,
    start_ranks,
    steps,
)

from egochef.data.annotations import find_videos, open_data_folder, read_split
from egochef.errors import InputError, Stopped
from egochef.files import write_json
from egochef.model.checkpoint import read_tensors
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
    tensors, _ = best_of(tmp_path / "run")
    assert all(tensor.isfinite().all() for tensor in tensors.values())
    assert any("step 2: skipped, its loss is nan" in said for said in caplog.messages)


def test_many_lost_steps_in_a_row_stop_the_run_and_leave_the_best(toy_root, tmp_path, lost_numbers, monkeypatch):
    monkeypatch.setattr(loop, "MAX_NOT_FINITE", 3)
    config = dataclasses.replace(TINY, epochs=30, patience=30)
    lost_numbers |= set(range(2, 30))
    with pytest.raises(InputError, match=r"not finite for 3 steps up to step 5; .*diverged.json"):
        train(config, toy_root, tmp_path / "run")
    told = json.loads((tmp_path / "run" / "diverged.json").read_text())["steps"]
    assert [step["step"] for step in told] == [3, 4, 5]
    ids = {segment.narration_id for segment in read_split(open_data_folder(toy_root), "train")}
    assert all(len(step["narration_ids"]) == 4 and set(step["narration_ids"]) <= ids for step in told)
    assert told[0]["loss"] == "nan"
    _, header = best_of(tmp_path / "run")
    first = next(line for line in read_log(tmp_path / "run") if line["kind"] == "evaluation")
    assert header["scores"]["all_action_accuracy_at_1"] == first["all_action_accuracy_at_1"]


def test_gradients_that_stay_lost_stop_an_fp16_run_too(toy_root, tmp_path, caplog):
    """Their loss is finite. The scale comes down 16 times at most, and so 20 steps are more than it can need."""
    clip = dataclasses.replace(TINY.clip, num_frames=1, image_size=32, resize_size=32)
    config = dataclasses.replace(
        TINY, clip=clip, precision="fp16", frozen_encoder=True, batch_size=1, max_train_segments=22
    )

    def lose_gradients(module, inputs):
        (x,) = inputs
        if x.requires_grad:
            x.register_hook(lambda gradient: gradient * float("inf"))

    with (
        before_forward(torch.nn.Linear, lose_gradients),
        pytest.raises(InputError, match=r"its gradients were not finite for 20 steps up to step 20; .*diverged.json"),
    ):
        train(config, toy_root, tmp_path / "run", on_step=lambda progress: progress.step > 20)
    lines = steps(tmp_path / "run")
    assert [line["skipped"] for line in lines] == [1] * 20
    assert all(line["loss"] is not None and line["grad_norm"] is None for line in lines)
    assert len(json.loads((tmp_path / "run" / "diverged.json").read_text())["steps"]) == 20
    assert not any(": skipped, its loss" in said for said in caplog.messages)


def test_how_many_were_lost_in_a_row_is_part_of_the_state(toy_root, tmp_path, lost_numbers, monkeypatch):
    monkeypatch.setattr(loop, "MAX_NOT_FINITE", 3)
    lost_numbers |= {None}
    with pytest.raises(Stopped, match="after step 2"):
        train(TINY, toy_root, tmp_path / "run", on_step=lambda progress: progress.step == 2)
    with pytest.raises(InputError, match="not finite for 3 steps up to step 3"):
        train(TINY, toy_root, tmp_path / "run", resume=True)


# Memory


def only_room_for(num_clips, config, in_backward=False):
    """Where a training step has more clips at once, torch's allocator really says no, to far more than there is."""

    def say_no(*_):
        torch.empty(2**60, dtype=torch.uint8)

    def hook(module, inputs):
        (x,) = inputs
        if module.in_channels == 3 and len(x) > num_clips * config.clip.num_frames and torch.is_grad_enabled():
            say_no()

    def hook_of_backward(module, inputs):
        (x,) = inputs
        if x.requires_grad and len(x) > num_clips:
            x.register_hook(say_no)

    if in_backward:
        return before_forward(torch.nn.Linear, hook_of_backward)
    return before_forward(torch.nn.Conv2d, hook)


@pytest.mark.parametrize("in_backward", [False, True], ids=["forward", "backward"])
def test_out_of_memory_halves_the_micro_batch(in_backward, toy_root, tmp_path, caplog):
    config = dataclasses.replace(TINY, micro_batch=4, epochs=1)
    with only_room_for(1, config, in_backward):
        progress = train(config, toy_root, tmp_path / "run")
    assert [said for said in caplog.messages if "out of memory" in said] == [
        "step 1: out of memory with 4 clips at once, going on with 2",
        "step 1: out of memory with 2 clips at once, going on with 1",
    ]
    assert progress.finished and progress.micro_batch == 1
    assert [line["num_clips"] for line in steps(tmp_path / "run")] == [4, 4]


def test_no_room_for_a_single_clip_is_told_with_what_helps(toy_root, tmp_path):
    with only_room_for(0, TINY), pytest.raises(InputError, match="no room for a single clip of 2 frames.*bf16"):
        train(TINY, toy_root, tmp_path / "run")


ONE_RANK_HAS_LESS = """
import logging, os, sys
from pathlib import Path
sys.path.insert(0, sys.argv[4])
from test_guards import only_room_for
from egochef.training.config import load_config
from egochef.training.loop import train
logging.basicConfig(level=logging.INFO)
config = load_config(Path(sys.argv[1]))
with only_room_for(1 if os.environ["RANK"] == "1" else 99, config):
    print(train(config, Path(sys.argv[2]), Path(sys.argv[3])))
"""


@pytest.mark.slow
@pytest.mark.parametrize("micro_batch", [4, 2])
def test_out_of_memory_on_one_rank_of_two(micro_batch, toy_root, tmp_path):
    """Both halve it and do the step again: with one pass each, and with two of which the first runs out."""
    config = dataclasses.replace(TINY, batch_size=8, micro_batch=micro_batch, epochs=1)
    write_json(tmp_path / "config.json", to_dict(config))
    script = [sys.executable, "-c", ONE_RANK_HAS_LESS, tmp_path / "config.json", toy_root, tmp_path / "run"]
    for process in start_ranks([*script, Path(__file__).parent], 2):
        said = ends(process, 0)
        assert f"out of memory with {micro_batch} clips at once, going on with {micro_batch // 2}" in said
        assert "out of memory with 2 clips at once, going on with 1" in said and "finished=True" in said
    assert [line["num_clips"] for line in steps(tmp_path / "run")] == [8]


LITTLE_MEMORY = """
import logging, os, resource, sys
from pathlib import Path
sys.path.insert(0, sys.argv[6])
import torch
from tiny_runs import before_forward
from egochef.training.config import load_config
from egochef.training.loop import train
torch.set_num_threads(1)
more, begun = int(sys.argv[5]), []

def size_of(name):
    return 1024 * int(next(line for line in open("/proc/self/status") if line.startswith(name)).split()[1])

def hook(module, inputs):
    if torch.is_grad_enabled() and not begun:
        begun.append(size_of("VmSize"))
        if more and os.environ.get("RANK", sys.argv[4]) == sys.argv[4]:
            resource.setrlimit(resource.RLIMIT_AS, (begun[0] + more, resource.RLIM_INFINITY))
    elif begun and not torch.is_grad_enabled():
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))

def tell(progress):
    print("more:", size_of("VmPeak") - begun[0])

logging.basicConfig(level=logging.INFO)
with before_forward(torch.nn.Conv2d, hook):
    config, data, run = map(Path, sys.argv[1:4])
    print(train(load_config(config), data, run, resume=True, on_step=tell))
"""
"""Trains or goes on; one rank may take only so many bytes more than it has, and its allocator says no to the rest.

0: as many as it wants; it then says how many those were."""


def little_memory(config, data, run, rank, num_bytes):
    path = run.with_suffix(".json")
    write_json(path, to_dict(config))
    return [sys.executable, "-c", LITTLE_MEMORY, path, data, run, str(rank), str(num_bytes), Path(__file__).parent]


def between(config, data, folder):
    """Bytes that are too few for its micro-batch, and enough for half of it, by what both take on this machine."""
    took = []
    for size in (config.micro_batch, config.micro_batch // 2):
        alone = dataclasses.replace(config, batch_size=size, micro_batch=size, max_train_segments=size)
        said = ends(start(little_memory(alone, data, folder / f"with{size}", 0, 0), MALLOC_ARENA_MAX="1"), 0)
        took.append(int(said.partition("more: ")[2].split()[0]))
    assert took[0] > 1.3 * took[1], took
    return sum(took) // 2


def end_well(start_all):
    """What the processes said; they are started again where it was oneDNN, now and then, that ran out first."""
    processes = start_all()
    said = ["".join(process.communicate()) for process in processes]
    codes = {process.returncode for process in processes}
    if codes == {1} and all("egochef.errors.Stopped" in text for text in said):
        return [before + after for before, after in zip(said, end_well(start_all), strict=True)]
    assert codes == {0}, said
    return said


@pytest.mark.soak
@pytest.mark.parametrize("num_ranks", [1, 2])
def test_real_want_of_memory_halves_the_micro_batch(num_ranks, toy_root, tmp_path):
    """A process that may take less than it needs. Two more learn how much that is."""
    clip = dataclasses.replace(TINY.clip, image_size=224, resize_size=224, num_frames=8)
    config = dataclasses.replace(TINY, clip=clip, batch_size=8, micro_batch=8 // num_ranks, epochs=1)
    words = little_memory(config, toy_root, tmp_path / "run", num_ranks - 1, between(config, toy_root, tmp_path))
    for said in end_well(lambda: start_ranks(words, num_ranks, MALLOC_ARENA_MAX="1")):
        assert f"out of memory with {8 // num_ranks} clips at once, going on with {4 // num_ranks}" in said
        assert "finished=True" in said
    assert [line["num_clips"] for line in steps(tmp_path / "run")] == [8]


NO_ROOM_FOR_CODE = """
import resource, sys
import torch
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
torch.set_num_threads(1)
from egochef.cli.main import main

def take_room(module, inputs):
    if isinstance(module, torch.nn.Conv2d):
        before.remove()
        used = next(line for line in open("/proc/self/status") if line.startswith("VmSize")).split()[1]
        resource.setrlimit(resource.RLIMIT_AS, (int(used) * 1024, resource.RLIM_INFINITY))

def give_room(module, inputs, output):
    if isinstance(module, torch.nn.Conv2d):
        after.remove()
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))

before = register_module_forward_pre_hook(take_room)
after = register_module_forward_hook(give_room, always_call=True)
sys.exit(main(sys.argv[1:]))
"""
"""`egochef`; its first convolution may take what its heap has in reserve, and no new pages, as code needs them."""


@pytest.mark.slow
def test_want_of_memory_that_only_a_new_process_mends(toy_root, tmp_path):
    """oneDNN can make no code in a thread in which that failed once, even with memory to spare (torch 2.13)."""
    run = tmp_path / "run"
    reserve = {"MALLOC_ARENA_MAX": "1", "MALLOC_TOP_PAD_": str(2**30), "MALLOC_MMAP_THRESHOLD_": str(2**25)}
    words = command(TINY, toy_root, run)[3:]
    said = ends(start([sys.executable, "-c", NO_ROOM_FOR_CODE, *words], **reserve), 75)
    assert "out of memory with 2 clips at once, going on with 1" in said
    assert "stopped by want of memory" in said and "after step 0" in said and "--resume" in said
    assert last_state(run)[1]["progress"]["micro_batch"] == 1
    train(TINY, toy_root, run, resume=True)
    assert [line["num_clips"] for line in steps(run)] == [4, 4, 4, 4]


# Samples that cannot be read


def test_unreadable_samples_are_counted_by_video_also_after_going_on(toy_root, tmp_path):
    root = tmp_path / "kitchen"
    shutil.copytree(toy_root, root)
    folder = open_data_folder(root)
    chosen = spread(read_split(folder, "train"), TINY.max_train_segments)
    bad = chosen[0].video_id
    path = find_videos(folder, chosen)[bad]
    path.write_bytes(path.read_bytes()[:500])
    straight, run = tmp_path / "straight", tmp_path / "run"
    train(TINY, root, straight)
    epochs = [line for line in read_log(straight) if line["kind"] == "epoch"]
    assert all(set(line["unreadable"]) == {bad} and line["unreadable"][bad] >= 1 for line in epochs)
    with pytest.raises(Stopped):
        train(TINY, root, run, on_step=lambda progress: progress.step == 1)
    train(TINY, root, run, resume=True)
    assert_same_run(run, straight)


# Other runs' states, other settings, other processes


def change_state(run, change):
    """The run's first state alone, with another header, as if it were another run's."""
    for path in (run / "checkpoints" / "last").glob("step-00000004*"):
        path.unlink()
    tensors, header = read_tensors(state_path(run, "step-00000002-judged"))
    change(header)
    put_state(run, "step-00000002-judged", tensors, header)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda header: header["model"].update(hidden_size=16), "its model.hidden_size is 16, this run's 8"),
        (lambda header: header["clip"].update(image_size=32), "its clip.image_size is 32, this run's 64"),
        (lambda header: header["clip"].update(num_frames=4), "its clip.num_frames is 4, this run's 2"),
        (lambda header: header["verbs"].pop(), r"it has \d+ verb classes, this run \d+"),
        (lambda header: header["nouns"].__setitem__(3, "spoon"), "its noun class 3 is 'spoon', this run's"),
        (
            lambda header: header.update(initial_weights="mine.pth"),
            "started from 'mine.pth', this run's from 'imagenet'",
        ),
        (
            lambda header: header.update(train_on=["train", "validation"]),
            "it has learned from validation, which this run",
        ),
        (lambda header: header.update(format=9), "state format 9, this version of EgoChef reads 1"),
    ],
)
def test_a_state_of_something_else_names_the_difference(change, message, tiny_run, toy_root, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(tiny_run, run)
    change_state(run, change)
    with pytest.raises(InputError, match=message):
        train(TINY, toy_root, run, resume=True)


def test_changed_settings_are_named_and_need_to_be_accepted(tiny_run, toy_root, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(tiny_run, run)
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


def test_other_segments_or_another_teacher_need_to_be_accepted(tiny_run, toy_root, tmp_path):
    run, root = shutil.copytree(tiny_run, tmp_path / "run"), tmp_path / "kitchen"
    change_state(run, lambda header: header["data"].update(teacher_sha256="0" * 64))
    with pytest.raises(InputError, match="other scores of its teacher. Put back the file"):
        train(TINY, toy_root, run, resume=True)
    shutil.copytree(toy_root, root, copy_function=os.link)
    table = root / "epic-kitchens-100-annotations" / "EPIC_100_train.csv"
    rows = table.read_text().splitlines(keepends=True)
    table.unlink()
    table.write_text("".join([*rows[:1], *rows[2:]]))
    with pytest.raises(InputError, match=r"with other segments.*\(8 to learn from then, 8 now\).*--accept-changes"):
        train(TINY, root, run, resume=True)
    with pytest.raises(Stopped, match="after step 3"):
        train(TINY, root, run, resume=True, accept_changes=True, on_step=lambda progress: True)


def test_who_was_learned_from_cannot_be_held_out_from_now_on(tiny_run, toy_root, tmp_path):
    run = shutil.copytree(tiny_run, tmp_path / "run")
    change_state(run, lambda header: None)
    first = read_split(open_data_folder(toy_root), "train")[0].participant_id
    config = dataclasses.replace(TINY, held_out=(first,))
    with pytest.raises(InputError, match=f"it has learned from {first}, whom this run holds out"):
        train(config, toy_root, run, resume=True, accept_changes=True)


def test_another_model_is_not_accepted(tiny_run, toy_root, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(tiny_run, run)
    change_state(run, lambda header: None)
    config = dataclasses.replace(TINY, model=dataclasses.replace(TINY.model, hidden_size=16))
    with pytest.raises(InputError, match="its model.hidden_size is 8, this run's 16"):
        train(config, toy_root, run, resume=True, accept_changes=True)


@pytest.mark.slow
def test_a_run_in_use_is_refused_and_a_killed_one_is_not(toy_root, tmp_path):
    config, run = dataclasses.replace(TINY, epochs=500, patience=500, num_workers=1), tmp_path / "run"
    process = start(command(config, toy_root, run))
    while not (run / "log.jsonl").is_file():
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
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
            "pickle.load",
            "Unpickler",
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
