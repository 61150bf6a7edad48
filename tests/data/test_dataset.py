"""Batches of clips: the same whatever the workers, complete, and honest about what could not be read."""

import shutil

import numpy as np
import pytest
import torch

from egochef.clip import ClipSpec
from egochef.data.annotations import find_videos, open_data_folder, read_split
from egochef.data.dataset import (
    MAX_FAILED,
    Batch,
    Batches,
    ClipDataset,
    FailureCount,
    epoch_order,
    make_loader,
    split_evenly,
)
from egochef.data.transforms import Augment
from egochef.errors import InputError
from egochef.video.decode import VideoError

CLIP = ClipSpec(num_frames=4, image_size=64, resize_size=72)


@pytest.fixture(scope="module")
def train(toy_root):
    folder = open_data_folder(toy_root)
    segments = read_split(folder, "train")
    segments = segments[:6] + segments[-6:]
    assert segments[0].video_id != segments[-1].video_id
    return segments, find_videos(folder, segments)


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
    segments, videos = train
    dataset = ClipDataset(segments, videos, CLIP)
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
    import egochef.data.dataset as module

    asked = []
    decode = module.decode_at
    monkeypatch.setattr(module, "decode_at", lambda path, times: asked.append(len(times)) or decode(path, times))
    batches_of(ClipDataset(*train, CLIP, augment=Augment()), 0)
    assert asked == [4] * 12


@pytest.fixture
def broken(train, tmp_path):
    """The first segment's video is cut off at its start."""
    segments, videos = train
    bad = segments[0].video_id
    path = tmp_path / "bad.MP4"
    path.write_bytes(videos[bad].read_bytes()[:300])
    return segments, {**videos, bad: path}, bad


def test_unreadable_training_samples_are_replaced_and_told(train, broken):
    segments, videos, bad = broken
    dataset = ClipDataset(segments, videos, CLIP, augment=Augment())
    sample = dataset[(0, 0, 0)]
    assert segments[sample.segment].video_id != bad
    assert sample.verb == segments[sample.segment].verb
    assert sample.failures and all(video_id == bad for video_id, _ in sample.failures)
    assert dataset[(0, 0, 0)].segment == sample.segment


def test_unreadable_evaluation_samples_are_errors(broken):
    segments, videos, _ = broken
    with pytest.raises(VideoError, match=rf"segment {segments[0].narration_id}: .*bad.MP4"):
        ClipDataset(segments, videos, CLIP)[(0, 0, 0)]


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
