"""Batches of clips: the same whatever the workers, complete, and honest about what could not be read."""

import contextlib
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from egochef.clip import ClipSpec
from egochef.data import store
from egochef.data.annotations import find_videos, open_data_folder, read_split
from egochef.data.dataset import (
    MAX_FAILED,
    Batch,
    Batches,
    ClipDataset,
    FailureCount,
    epoch_order,
    make_loader,
    on_device,
    split_evenly,
)
from egochef.data.frames import VideoFrames, open_frames
from egochef.data.prepare import prepare
from egochef.data.store import StoreSpec
from egochef.data.transforms import Augment
from egochef.errors import FrameError, InputError
from egochef.files import write_json

CLIP = ClipSpec(num_frames=4, image_size=64, resize_size=72)


@pytest.fixture(scope="module")
def train(toy_root):
    folder = open_data_folder(toy_root)
    segments = read_split(folder, "train")
    segments = segments[:6] + segments[-6:]
    assert segments[0].video_id != segments[-1].video_id
    return segments, VideoFrames(segments, find_videos(folder, segments), CLIP.grid)


def batches_of(dataset, num_workers, epoch=1):
    keys = [(epoch, position, position % len(dataset)) for position in range(12)]
    return list(make_loader(dataset, Batches(split_evenly(keys, 5)), num_workers=num_workers))


def test_batches_do_not_depend_on_the_number_of_workers(train):
    dataset = ClipDataset(*train, CLIP, augment=Augment(), seed=3)
    one, two = batches_of(dataset, 0), batches_of(dataset, 2)
    assert [len(batch.segment) for batch in one] == [5, 5, 2]
    assert one[0].frames.shape == (5, 4, 64, 64, 3) and one[0].frames.dtype == torch.uint8
    for a, b in zip(one, two, strict=True):
        assert all(torch.equal(getattr(a, name), getattr(b, name)) for name in ("frames", "verb", "colour", "segment"))


def test_epochs_and_seeds_change_the_clips(train):
    dataset = ClipDataset(*train, CLIP, augment=Augment(), seed=3)
    other_seed = ClipDataset(*train, CLIP, augment=Augment(), seed=4)
    first = batches_of(dataset, 0)[0].frames
    assert not torch.equal(first, batches_of(dataset, 0, epoch=2)[0].frames)
    assert not torch.equal(first, batches_of(other_seed, 0)[0].frames)


def test_evaluation_clips_are_fixed_and_carry_labels(train):
    segments, frames = train
    dataset = ClipDataset(segments, frames, CLIP)
    batch = batches_of(dataset, 0)[0]
    assert batch.colour is None
    assert batch.verb.tolist() == [segment.verb for segment in segments[:5]]
    assert torch.equal(batch.frames, batches_of(dataset, 0, epoch=9)[0].frames)


def test_several_views_see_other_moments(train):
    dataset = ClipDataset(*train, CLIP, num_views=3)
    assert len(dataset) == 36
    views = [dataset[(0, 0, place)] for place in range(3)]
    assert [view.segment for view in views] == [0, 0, 0]
    assert not torch.equal(views[0].frames, views[2].frames)


def test_one_decode_a_frame(train, monkeypatch):
    """A batch asks the decoder once per clip, for the clip's frames and no more."""
    import egochef.data.frames as module

    asked = []
    decode = module.decode_at
    monkeypatch.setattr(module, "decode_at", lambda path, times: asked.append(len(times)) or decode(path, times))
    batches_of(ClipDataset(*train, CLIP, augment=Augment()), 0)
    assert asked == [4] * 12


@pytest.fixture
def broken(train, tmp_path):
    """The first segment's video is cut off at its start."""
    segments, frames = train
    bad = segments[0].video_id
    path = tmp_path / "bad.MP4"
    path.write_bytes(Path(frames.where(0)).read_bytes()[:300])
    videos = {segment.video_id: Path(frames.where(place)) for place, segment in enumerate(segments)}
    return segments, VideoFrames(segments, {**videos, bad: path}, CLIP.grid), bad


def test_unreadable_training_samples_are_replaced_and_told(train, broken):
    segments, frames, bad = broken
    dataset = ClipDataset(segments, frames, CLIP, augment=Augment())
    sample = dataset[(0, 0, 0)]
    assert segments[sample.segment].video_id != bad
    assert sample.verb == segments[sample.segment].verb
    assert sample.failures and all(video_id == bad for video_id, _ in sample.failures)
    assert dataset[(0, 0, 0)].segment == sample.segment


def test_unreadable_evaluation_samples_are_errors(broken):
    segments, frames, _ = broken
    with pytest.raises(FrameError, match=rf"segment {segments[0].narration_id}: .*bad.MP4"):
        ClipDataset(segments, frames, CLIP)[(0, 0, 0)]


def batch_with(num_samples, num_failures):
    nothing = torch.zeros(num_samples)
    failures = tuple([("P01_01", "cut off")] * num_failures)
    return Batch(nothing, nothing, nothing, None, nothing, failures)


def test_a_run_stops_past_the_limits():
    count = FailureCount()
    count.add(batch_with(100, MAX_FAILED))  # 20 %, but only 20
    with pytest.raises(InputError, match=r"21 of 200 training samples .* P01_01 \(21\)"):
        count.add(batch_with(100, 1))
    count = FailureCount()
    count.add(batch_with(100_000, 999))  # many, but under 1 %
    assert count.by_video == {"P01_01": 999}


def test_order_is_a_permutation_from_seed_and_epoch():
    order = epoch_order(100, 1, 2)
    assert sorted(order) == list(range(100))
    assert np.array_equal(order, epoch_order(100, 1, 2))
    assert not np.array_equal(order, epoch_order(100, 1, 3))


def test_a_missing_video_is_found_before_training(toy_root, tmp_path):
    root = tmp_path / "kitchen"
    shutil.copytree(toy_root, root)
    folder = open_data_folder(root)
    segments = read_split(folder, "train")
    for path in find_videos(folder, segments).values():
        path.unlink()
    with pytest.raises(InputError, match="and .* more of"):
        find_videos(folder, segments)


PATIENCE_S = 10.0
"""a worker that only has to wait for its turn on a busy machine is not taken to hang"""


class Stuck:
    """Frames that never come for one segment: the process that reads it stops, as on a disk that does not answer."""

    def __init__(self, frames, bad, how, folder):
        self.frames, self.bad, self.how, self.grid = frames, bad, how, frames.grid
        self.num_candidates, self.where = frames.num_candidates, frames.where
        self.pid_file = folder / "pid"

    def read(self, segment, places, cut=None):
        if segment == self.bad:
            write_json(self.pid_file, os.getpid())
            os.kill(os.getpid(), self.how)
        return self.frames.read(segment, places, cut)

    def wait(self, state):
        """Until the process that reads the segment is in the state of that letter: T stopped, Z dead."""
        while not self.pid_file.exists():
            time.sleep(0.01)
        stat = Path(f"/proc/{json.loads(self.pid_file.read_text())}/stat")
        while stat.read_text().rpartition(") ")[2][0] != state:
            time.sleep(0.01)


class LateThenStuck(Stuck):
    """The second segment comes after the first has been fetched, and is on its way when its reader stops."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.fetched = self.pid_file.with_name("fetched")

    def read(self, segment, places, cut=None):
        while segment == 1 and not self.fetched.exists():
            time.sleep(0.01)
        if segment == self.bad:  # the thread that hands the second over goes first; the error is the same if it did not
            time.sleep(1)
        return super().read(segment, places, cut)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_a_worker_that_dies_or_hangs_is_an_error_that_names_the_sample(train, tmp_path, how):
    segments, frames = train
    dataset = ClipDataset(segments, Stuck(frames, 4, how, tmp_path), CLIP)
    keys = [(0, position, position % len(dataset)) for position in range(12)]
    loader = make_loader(dataset, Batches(split_evenly(keys, 2)), num_workers=2, timeout_s=PATIENCE_S)
    with pytest.raises(
        InputError, match=rf"segment {segments[4].narration_id} of .*{segments[4].video_id}.MP4"
    ) as told:
        list(loader)
    assert ("killed" if how == signal.SIGKILL else "no data for ") in str(told.value)


def test_a_worker_that_stops_before_its_batch_is_fetched(train, tmp_path):
    segments, frames = train
    stuck = LateThenStuck(frames, 2, signal.SIGSTOP, tmp_path)
    plan = [[(0, place, place)] for place in range(4)]
    loader = make_loader(ClipDataset(segments, stuck, CLIP), Batches(plan), num_workers=1, timeout_s=PATIENCE_S)
    batches = iter(loader)
    next(batches)
    stuck.fetched.touch()
    stuck.wait("T")
    with pytest.raises(InputError, match=rf"a worker hangs while reading .*segment {segments[2].narration_id} of"):
        list(batches)


def test_a_worker_that_dies_while_its_batches_are_worked_on(train, tmp_path):
    """The error comes where the next batch is asked for, not in the middle of the training step."""
    segments, frames = train
    stuck = Stuck(frames, 2, signal.SIGKILL, tmp_path)
    plan = [[(0, place, place)] for place in range(4)]
    loader = make_loader(ClipDataset(segments, stuck, CLIP), Batches(plan), num_workers=1, timeout_s=60)
    batches = iter(loader)
    next(batches)
    stuck.wait("Z")  # the worker reads ahead
    with pytest.raises(InputError, match=rf"killed while reading segment {segments[2].narration_id} of"):
        list(batches)


def test_a_fault_in_a_worker_is_told_in_one_line(broken):
    segments, frames, _ = broken
    loader = make_loader(ClipDataset(segments, frames, CLIP), Batches([[(0, 0, 0)]]), num_workers=1)
    with pytest.raises(FrameError, match=rf"^segment {segments[0].narration_id}: [^\n]*bad.MP4[^\n]*$"):
        list(loader)
    loader.close()  # as a run does with its own


def open_files(pid):
    """A running process opens and closes files while it is looked at."""
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            yield link.readlink()


def test_workers_hold_no_more_files_and_memory_as_they_go(toy_root, tmp_path, monkeypatch):
    """From a store with more tars than a worker may keep open."""
    tmp_path = tmp_path.resolve()
    prepare(toy_root, tmp_path / "store", StoreSpec(size_px=64))
    folder = open_data_folder(tmp_path / "store")
    segments = tuple(segment for split in ("train", "validation", "test") for segment in read_split(folder, split))
    assert len({segment.video_id for segment in segments}) > 2
    monkeypatch.setattr(store, "MAX_OPEN_FILES", 2)
    dataset = ClipDataset(segments, open_frames(folder, segments, CLIP.grid), CLIP)
    plan = Batches(split_evenly([(0, p, p % len(dataset)) for p in range(12 * len(dataset))], 6))
    others = {process.pid for process in multiprocessing.active_children()}
    num_tars, memory = [], []
    for _ in make_loader(dataset, plan, num_workers=1):
        (pid,) = {process.pid for process in multiprocessing.active_children()} - others
        num_tars.append(sum(path.suffix == ".tar" and tmp_path in path.parents for path in open_files(pid)))
        memory.append(int(Path(f"/proc/{pid}/statm").read_text().split()[1]))
    half = len(memory) // 2
    assert 1 <= max(num_tars) <= 2
    assert max(memory[half:]) < max(memory[:half]) + 2000  # pages: 8 MB


def test_batches_on_the_device_are_the_same(train):
    dataset = ClipDataset(*train, CLIP)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    moved = [batch.frames.cpu() for batch in on_device(batches_of(dataset, 0), device)]
    assert all(torch.equal(a, b.frames) for a, b in zip(moved, batches_of(dataset, 0), strict=True))


def test_a_worker_that_is_left_behind_does_not_hold_up_the_programs_end(toy_root):
    """Workers hear no SIGTERM, which is what Python ends them with; one of these even stands still."""
    code = (
        "import multiprocessing, os, signal, sys\n"
        "from pathlib import Path\n"
        "from egochef.clip import ClipSpec\n"
        "from egochef.data.annotations import open_data_folder, read_split\n"
        "from egochef.data.dataset import Batches, ClipDataset, make_loader\n"
        "from egochef.data.frames import open_frames\n"
        "folder, clip = open_data_folder(Path(sys.argv[1])), ClipSpec(num_frames=2, image_size=32, resize_size=32)\n"
        "segments = read_split(folder, 'train')[:8]\n"
        "dataset = ClipDataset(segments, open_frames(folder, segments, clip.grid), clip)\n"
        "loader = make_loader(dataset, Batches([[(0, i, i)] for i in range(8)]), num_workers=2)\n"
        "next(batches := iter(loader))\n"
        "sys.kept = loader, batches\n"
        "one, other = multiprocessing.active_children()\n"
        "os.kill(one.pid, signal.SIGSTOP)\n"
    )
    subprocess.run([sys.executable, "-c", code, toy_root], check=True)
