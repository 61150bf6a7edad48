"""The store: the same frames as the videos, the same bytes however it was made, and no damage that goes unnoticed."""

import dataclasses
import hashlib
import io
import json
import os
import random
import re
import resource
import shutil
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from table_edits import change, set_value

from egochef.cli.main import main
from egochef.clip import ClipSpec, Grid
from egochef.data.annotations import find_videos, open_data_folder, read_split
from egochef.data.dataset import ClipDataset
from egochef.data.frames import VideoFrames, open_frames
from egochef.data.pack import nearest_sound
from egochef.data.prepare import SAMPLES, estimate, prepare
from egochef.data.sampling import candidate_times
from egochef.data.store import INDEX_FILE, StoreSpec, open_store, read_about, shard_file
from egochef.data.transforms import Augment
from egochef.errors import FrameError, InputError
from egochef.video.decode import decode_at

SPEC = StoreSpec(size_px=72, grid=Grid(fps=8.0, min_frames=16))
CLIP = ClipSpec(num_frames=8, image_size=64, resize_size=72, grid=SPEC.grid)
SPLITS = ("train", "validation", "test")


@pytest.fixture(scope="module")
def kitchen(toy_root) -> Path:
    return toy_root


@pytest.fixture(scope="module")
def store(kitchen, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("stores") / "store"
    prepare(kitchen, out, SPEC)
    return out


@pytest.fixture
def copy(store, tmp_path) -> Path:
    """A store that a test may spoil."""
    return Path(shutil.copytree(store, tmp_path / "copy"))


@pytest.fixture
def own_kitchen(kitchen, tmp_path) -> Path:
    """A kitchen that a test may spoil."""
    return Path(shutil.copytree(kitchen, tmp_path / "kitchen"))


def digests(root: Path) -> dict[str, str]:
    files = [path for path in sorted(root.rglob("*")) if path.is_file()]
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def pillow_jpeg(picture: Image.Image) -> np.ndarray:
    """What another encoder makes of a picture, at the store's quality."""
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=SPEC.quality, subsampling="4:2:0")
    return np.array(Image.open(file))


def segments_of(root: Path):
    folder = open_data_folder(root)
    return folder, tuple(segment for split in SPLITS for segment in read_split(folder, split))


def first_video(root: Path) -> tuple[str, Path]:
    folder, segments = segments_of(root)
    return next(iter(sorted(find_videos(folder, segments).items())))


# What is in it


def test_the_frames_are_those_of_the_videos(kitchen, store):
    folder, segments = segments_of(kitchen)
    videos = find_videos(folder, segments)
    opened = open_store(store)
    index = opened.index
    for row, name in enumerate(opened.index["narration_id"]):
        (segment,) = [s for s in segments if s.narration_id == bytes(name).rstrip(b"\0").decode()]
        video = int(index["segment_video"][row])
        first, stop = index["segment_candidates"][row : row + 2]
        pictures = index["video_frames"][video] + index["candidates"][first:stop]
        times_s = candidate_times(segment.start_s, segment.stop_s, SPEC.grid)
        expected = decode_at(videos[segment.video_id], times_s)
        np.testing.assert_array_equal(index["frame_time_s"][pictures], expected.times_s)
        if row % 9 == 0:
            frames = opened.read(row, np.arange(len(times_s)))
            assert frames.shape == (len(times_s), 72, 128, 3)
            shrunk = np.stack([pillow_jpeg(Image.fromarray(f).resize((128, 72), 2)) for f in expected.frames])
            difference = frames.astype(int) - shrunk  # of the colours only, which the store doubles without smoothing
            assert np.abs(difference).mean() < 3
            assert np.abs(difference @ [0.299, 0.587, 0.114]).mean() < 1


def test_clips_from_both_show_the_same_moments(kitchen, store):
    """Through the one interface: the same labels, the same choice, nearly the same pixels."""
    folder, segments = segments_of(kitchen)
    stored, stored_segments = segments_of(store)
    assert stored_segments == segments
    videos = open_frames(folder, segments, CLIP.grid)
    pictures = open_frames(stored, segments, CLIP.grid)
    assert isinstance(videos, VideoFrames) and pictures.grid == CLIP.grid
    for augment in (None, Augment()):
        one, two = (ClipDataset(segments, frames, CLIP, augment=augment, seed=3) for frames in (videos, pictures))
        for place in range(0, len(segments), 7):
            a, b = one[(1, place, place)], two[(1, place, place)]
            assert (a.verb, a.noun, a.segment) == (b.verb, b.noun, b.segment) and a.failures == b.failures == ()
            assert augment is None or a.colour.equal(b.colour)
            other = two[(2, place, place)]
            near, far = ((a.frames.float() - x.frames.float()).abs().mean() for x in (b, other))
            assert near < 10 and (augment is None or near < far)


def test_other_tools_can_read_the_tars(store):
    about = read_about(store)
    num_frames = 0
    for path in sorted(store.glob("frames/*/*.tar")):
        with tarfile.open(path) as tar:
            for member in tar:
                assert re.fullmatch(rf"{path.stem}/\d{{6}}\.\d{{6}}\.jpg", member.name)
                num_frames += 1
            picture = Image.open(tar.extractfile(member.name))
            assert picture.size == (128, 72) and picture.format == "JPEG"
    assert num_frames == about.num_frames


def test_overlapping_segments_share_frames_that_are_decoded_once(own_kitchen, tmp_path, monkeypatch):
    import egochef.data.sources as module

    path = own_kitchen / "epic-kitchens-100-annotations" / "EPIC_100_train.csv"
    lines = path.read_text().splitlines()
    again = [re.sub(r"^(P\d+_\d+)_(\d+)", r"\1_9\2", line) for line in lines[1:]]
    path.write_text("\n".join([*lines, *again]) + "\n")
    shown = []
    original = module.iter_at

    def counting(path, times_s):
        for frame in original(path, times_s):
            shown.append((str(path), frame.time_s))
            yield frame

    monkeypatch.setattr(module, "iter_at", counting)
    about = prepare(own_kitchen, tmp_path / "store", SPEC, splits=["train"]).about
    assert about.num_segments == 2 * (len(lines) - 1)
    assert about.num_frames <= len(shown) <= about.num_frames + SAMPLES  # a few were decoded before, to tell the size


def test_the_size_is_told_in_advance(kitchen, store, tmp_path):
    told = estimate(kitchen, tmp_path / "x", SPEC)
    about = read_about(store)
    assert (told.num_videos, told.num_segments) == (about.num_videos, about.num_segments)
    assert 0.7 < told.num_frames / about.num_frames < 1.4 and 0.6 < told.num_bytes / about.num_bytes < 1.6
    assert not (tmp_path / "x").exists()


# The same bytes however it was made


def test_workers_and_parts_do_not_show(kitchen, store, tmp_path):
    prepare(kitchen, tmp_path / "two", SPEC, num_workers=2)
    assert digests(tmp_path / "two") == digests(store)
    for number in (3, 1, 2):
        done = prepare(kitchen, tmp_path / "parts", SPEC, shard=(number, 3))
        assert (done.num_missing == 0) == (number == 2)
    assert digests(tmp_path / "parts") == digests(store)


def test_a_split_can_be_added(kitchen, store, tmp_path):
    out = tmp_path / "grows"
    assert prepare(kitchen, out, SPEC, splits=["validation"]).about.splits == ("validation",)
    with pytest.raises(InputError, match="it holds validation"):
        open_frames(open_data_folder(out), read_split(open_data_folder(out), "train"), CLIP.grid)
    done = prepare(kitchen, out, SPEC, splits=["train", "test"])
    assert done.about.splits == SPLITS and 0 < done.num_made < done.about.num_videos
    assert digests(out) == digests(store)


NUM_KILLS = int(os.environ.get("EGOCHEF_KILLS", "4"))
"""`make soak` asks for 50"""
COMMAND = ["prepare", "--size", "72", "--fps", "8", "--min-frames", "16"]


def living(group: int) -> list[int]:
    """The processes of a group that have not ended."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, of_group, *_ = path.read_text().rpartition(") ")[2].split()
        except OSError:  # it has just ended
            continue
        if int(of_group) == group and state not in "ZX":
            found.append(int(path.parent.name))
    return found


@pytest.mark.slow
def test_killed_at_random_moments_and_gone_on_with(kitchen, store, tmp_path):
    """kill -9, each time some packs further; in the end nothing is lost or doubled, and nothing left over."""
    out = tmp_path / "killed"
    command = [sys.executable, "-m", "egochef", *COMMAND, "--data", str(kitchen), "--out", str(out)]
    rng = random.Random(5)
    num_killed, seen = 0, set()

    def num_packs():
        return len(list(out.glob("frames/*/*.safetensors")))

    while num_killed < NUM_KILLS:
        goal = num_packs() + (rng.randint(0, 3) if num_killed > 1 else 2 * num_killed)
        process = subprocess.Popen(
            [*command, "--workers", "12"[num_killed % 2]], stderr=subprocess.DEVNULL, start_new_session=True
        )
        before = len(list(out.rglob("*"))) if out.exists() else 0
        while process.poll() is None:  # until it has begun to write, and come so far
            if out.exists() and len(list(out.rglob("*"))) != before and num_packs() >= goal:
                break
            time.sleep(0.005)
        time.sleep(rng.uniform(0.0, 0.1))
        if process.poll() is None:
            process.kill()
            num_killed += 1
        process.wait()
        seen.add(num_packs())
        if (out / INDEX_FILE).exists():  # all done: begin anew, so that there is something to be killed at
            shutil.rmtree(out)
    while living(process.pid):  # a worker of the last one
        time.sleep(0.05)
    subprocess.run([*command, "--workers", "2"], check=True, capture_output=True)
    assert digests(out) == digests(store)
    assert len(seen) > 1  # it was not always killed at the same place


# What is wrong is found


@contextmanager
def files_of_at_most(num_bytes: int) -> Iterator[None]:
    """Files may not grow beyond that, here and in processes started from here: the error of a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_full_disk_is_one_line_and_resumes(kitchen, store, tmp_path, workers, capsys):
    out = tmp_path / "full"
    with files_of_at_most(150_000):
        assert main([*COMMAND, "--data", str(kitchen), "--out", str(out), "--workers", workers]) == 1
    errors = capsys.readouterr().err
    assert "Traceback" not in errors
    assert ".tar: cannot be written (File too large). Free space" in errors.splitlines()[-1]
    assert not list(out.rglob("*.part*"))
    prepare(kitchen, out, SPEC)
    assert digests(out) == digests(store)


def test_a_disk_without_room_is_refused_before_the_work(kitchen, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(total=10**6, used=10**6, free=1000))
    with pytest.raises(InputError, match=r"needs about .* GB, the disk has 0\.0 GB free"):
        prepare(kitchen, tmp_path / "x", SPEC)


def test_a_flipped_byte_names_tar_and_segment(copy):
    folder, segments = segments_of(copy)
    frames = open_frames(folder, segments, CLIP.grid)
    index = open_store(copy).index
    path = Path(frames.where(0))
    number = int(index["candidates"][index["segment_candidates"][frames.rows[0]] + 3])
    number += int(index["video_frames"][index["segment_video"][frames.rows[0]]])
    data = bytearray(path.read_bytes())
    data[int(index["frame_offset"][number]) + 100] ^= 1
    path.write_bytes(data)
    with pytest.raises(FrameError, match=rf"{path.name}: is damaged.*segment {segments[0].narration_id}"):
        frames.read(0, np.arange(5))
    assert len(frames.read(0, np.arange(6, 8))) == 2  # others are sound
    sample = ClipDataset(segments, frames, CLIP, augment=Augment(), seed=1)
    with pytest.raises(FrameError, match=path.name):
        ClipDataset(segments, frames, ClipSpec(16, 64, 72, grid=SPEC.grid))[(0, 0, 0)]
    assert sample[(0, 9, 9)].failures == ()


def test_a_tar_that_is_cut_off_or_gone(copy):
    folder, segments = segments_of(copy)
    frames = open_frames(folder, segments, CLIP.grid)
    path = Path(frames.where(0))
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(FrameError, match=rf"{path.name}: is cut off at byte 3000, segment {segments[0].narration_id}"):
        frames.read(0, np.arange(16))
    path.unlink()
    with pytest.raises(FrameError, match=rf"{path.name}: cannot be read \(No such file"):
        open_frames(folder, segments, CLIP.grid).read(0, np.arange(16))


def edit(path: Path, change) -> None:
    about = json.loads(path.read_text())
    change(about)
    path.write_text(json.dumps(about))


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda root: flip(root / INDEX_FILE), r"index.safetensors: damaged \(its checksum"),
        (lambda root: (root / INDEX_FILE).unlink(), r"index.safetensors: cannot be read"),
        (
            lambda root: edit(root / "store.json", lambda a: a.update(version=2)),
            "version 2, this egochef reads version 1",
        ),
        (lambda root: edit(root / "store.json", lambda a: a.update(format="x")), "not made by egochef prepare"),
        (lambda root: edit(root / "store.json", lambda a: a.update(finished=False)), "not finished"),
        (lambda root: edit(root / "store.json", lambda a: a.update(more=1)), "unknown field 'more'"),
        (lambda root: (root / "store.json").write_text("{"), "cannot be read"),
        (
            lambda root: flip(root / "epic-kitchens-100-annotations" / "EPIC_100_video_info.csv"),
            "EPIC_100_video_info.csv: not the file that ",
        ),
        (
            lambda root: (root / "epic-kitchens-100-annotations" / "EPIC_100_tail_nouns.csv").unlink(),
            "EPIC_100_tail_nouns.csv: not the file that ",
        ),
    ],
)
def test_a_store_that_is_not_as_it_was_made_is_refused(copy, spoil, message):
    spoil(copy)
    with pytest.raises(InputError, match=message):
        open_store(copy)


def test_another_data_set_is_refused(store, kitchen, own_kitchen, tmp_path):
    _, segments = segments_of(kitchen)
    moved = tuple(dataclasses.replace(segment, stop_s=segment.stop_s + 0.01) for segment in segments)
    with pytest.raises(InputError, match=rf"made from other annotations: segment {segments[0].narration_id} goes from"):
        open_frames(open_data_folder(store), moved, CLIP.grid)
    change(own_kitchen / "epic-kitchens-100-annotations" / "EPIC_100_train.csv", set_value(2, "narration", "another"))
    with pytest.raises(InputError, match="begun from other annotation files"):
        prepare(own_kitchen, store, SPEC)
    with pytest.raises(InputError, match=r"begun with spec .*quality=85"):
        prepare(kitchen, store, StoreSpec(size_px=72, quality=50, grid=SPEC.grid))
    with pytest.raises(InputError, match="a store already"):
        prepare(store, tmp_path / "x", SPEC)
    with pytest.raises(InputError, match="exists and is not a store"):
        prepare(kitchen, kitchen, SPEC)


# Damaged videos


def damage(path: Path, at: float, num_bytes: int = 4000) -> None:
    """Overwrite some of a video's data."""
    data = bytearray(path.read_bytes())
    begin = int(len(data) * at)
    data[begin : begin + num_bytes] = bytes(random.Random(0).randbytes(num_bytes))
    path.write_bytes(data)


def test_damaged_frames_are_counted_and_refused_past_a_limit(own_kitchen, store, tmp_path, caplog):
    _, path = first_video(own_kitchen)
    sound = path.read_bytes()
    damage(path, 0.5)
    out = tmp_path / "store"
    with pytest.raises(InputError, match=r"not finished: \d+ of \d+ candidate frames \(.*the limit is 0.10%; most in"):
        prepare(own_kitchen, out, SPEC)
    with pytest.raises(InputError, match="not finished"):
        open_store(out)
    done = prepare(own_kitchen, out, SPEC, max_lost=0.5)
    assert done.num_made == 0 and 0 < done.about.num_lost < 0.2 * done.about.num_candidates
    assert "candidate frames are damaged or missing" in caplog.text
    index = open_store(out).index
    lost = index["segment_lost"]
    assert lost.sum() == done.about.num_lost and set(index["segment_video"][lost > 0]) == {0}
    _, segments = segments_of(own_kitchen)
    whole = open_frames(open_data_folder(out), segments, CLIP.grid)
    for place in range(len(segments)):
        whole.read(place, np.arange(16))  # a neighbour stands for what is lost
    path.write_bytes(sound)  # fetched again
    done = prepare(own_kitchen, out, SPEC)
    assert (done.num_made, done.about.num_lost) == (1, 0)
    assert digests(out) == digests(store)


def test_a_video_that_cannot_be_read_stops_no_other(own_kitchen, store, tmp_path):
    video_id, path = first_video(own_kitchen)
    sound = path.read_bytes()
    path.write_bytes(b"<html>not found</html>")
    out = tmp_path / "store"
    with pytest.raises(InputError, match=rf"1 of \d+ videos could not be read: .*{video_id}.MP4"):
        prepare(own_kitchen, out, SPEC)
    assert len(list(out.glob("frames/*/*.tar"))) == read_about(store).num_videos - 1
    path.write_bytes(sound)
    assert prepare(own_kitchen, out, SPEC).num_made == 1
    assert digests(out) == digests(store)


def test_a_video_that_ends_early_is_refused(own_kitchen, tmp_path):
    """Its first half is sound; the segments behind it have no frame."""
    video_id, path = first_video(own_kitchen)
    from fractions import Fraction

    from egochef.video.decode import iter_frames, probe
    from egochef.video.encode import write_video

    half_s = (probe(path).duration_s or 0) / 2
    with write_video(tmp_path / "half.mp4", rate=Fraction(25)) as writer:
        for _, frame in iter_frames(path, stop_s=half_s, every_s=0.04):
            writer.add(frame)
    (tmp_path / "half.mp4").replace(path)
    with pytest.raises(InputError, match=rf"\d+ segments have no frame that can be read, the first is {video_id}_"):
        prepare(own_kitchen, tmp_path / "store", SPEC, max_lost=1.0)


def test_a_mended_video_of_the_same_size_is_made_again(own_kitchen, store, tmp_path, monkeypatch):
    """What a download with a hole leaves differs from the sound file in the middle only."""
    monkeypatch.setattr("egochef.data.pack.EDGE_BYTES", 1000)
    _, path = first_video(own_kitchen)
    sound = path.read_bytes()
    damage(path, 0.5)
    out = tmp_path / "store"
    assert prepare(own_kitchen, out, SPEC, max_lost=0.5).about.num_lost > 0
    path.write_bytes(sound)
    done = prepare(own_kitchen, out, SPEC)
    assert (done.num_made, done.about.num_lost) == (1, 0)


def test_a_finished_store_is_not_finished_while_its_tars_change(own_kitchen, tmp_path):
    out = tmp_path / "store"
    prepare(own_kitchen, out, SPEC)
    damage(first_video(own_kitchen)[1], 0.5)
    with pytest.raises(InputError, match="not finished: "):
        prepare(own_kitchen, out, SPEC)
    with pytest.raises(InputError, match="the store is not finished"):
        open_store(out)
    assert read_about(out).splits == SPLITS


def test_a_flipped_byte_beside_a_tar_is_found_before_it_gets_into_the_index(kitchen, store, copy):
    flip(next(copy.glob("frames/*/*.safetensors")))
    assert prepare(kitchen, copy, SPEC).num_made == 1
    assert digests(copy) == digests(store)


def test_a_start_that_was_killed_can_be_gone_on_with(kitchen, store, tmp_path):
    out = tmp_path / "store"
    out.mkdir()
    (out / ".store-abc.part.json").write_text("{")
    prepare(kitchen, out, SPEC)
    assert digests(out) == digests(store)


def test_a_disk_that_fills_at_the_index_is_one_line(kitchen, copy, capsys):
    (copy / INDEX_FILE).unlink()
    with files_of_at_most(2000):
        assert main([*COMMAND, "--data", str(kitchen), "--out", str(copy)]) == 1
    errors = capsys.readouterr().err
    assert "Traceback" not in errors
    assert "index.safetensors: cannot be written (File too large)" in errors


def test_the_nearest_sound_frame_stands_for_a_lost_one():
    lost = np.array([-1, -1, 4, -1, -1, -1, 9, -1], np.int32)
    assert nearest_sound(lost).tolist() == [4, 4, 4, 4, 4, 9, 9, 9]  # as near to both: the earlier
    assert nearest_sound(np.array([-1, -1])).tolist() == [-1, -1]


@pytest.mark.parametrize("share", [-0.1, 1.5, float("nan")])
def test_limits_that_are_no_share_are_refused(kitchen, tmp_path, share):
    with pytest.raises(InputError, match="max_lost is"):
        prepare(kitchen, tmp_path / "x", SPEC, max_lost=share)


# Some participants, extracted pictures, the command


def test_only_some_participants(kitchen, tmp_path, capsys):
    out = tmp_path / "store"
    _, segments = segments_of(kitchen)
    who = segments[0].participant_id
    prepare(kitchen, out, SPEC, participants=[who], splits=["train"])
    folder = open_data_folder(out)
    assert {segment.participant_id for segment in read_split(folder, "train")} == {who}
    open_frames(folder, read_split(folder, "train"), CLIP.grid).read(0, np.arange(4))
    with pytest.raises(InputError, match="P99 is not in it"):
        open_data_folder(out, ["P99"])
    assert main(["submit", "--data", str(out), "--scores", "x.npz"]) == 1
    assert "a submission needs everybody's segments" in capsys.readouterr().err
    with pytest.raises(InputError, match="begun with participants"):
        prepare(kitchen, out, SPEC, splits=["train"])


def test_participants_who_are_not_in_every_split(kitchen, tmp_path):
    folder = open_data_folder(kitchen)
    splits = {split: {segment.participant_id for segment in read_split(folder, split)} for split in SPLITS}
    only_train = sorted(splits["train"] - splits["validation"] - splits["test"])[0]
    about = prepare(kitchen, tmp_path / "store", SPEC, participants=[only_train]).about
    assert about.num_segments == sum(s.participant_id == only_train for s in read_split(folder, "train"))
    with pytest.raises(InputError, match="no segment of P77, expected some of"):
        prepare(kitchen, tmp_path / "x", SPEC, participants=[only_train, "P77"])
    with pytest.raises(InputError, match=f"the test split has no segment of {only_train}"):
        prepare(kitchen, tmp_path / "x", SPEC, participants=[only_train], splits=["test"])


def test_a_folder_without_splits(own_kitchen, tmp_path):
    for name in ("train", "validation", "test_timestamps"):
        (own_kitchen / "epic-kitchens-100-annotations" / f"EPIC_100_{name}.csv").unlink()
    with pytest.raises(InputError, match="none of EPIC_100_train.csv, .* in it"):
        prepare(own_kitchen, tmp_path / "x", SPEC)


@pytest.mark.parametrize("packed", [False, True])
def test_extracted_pictures(own_kitchen, tmp_path, packed):
    """As the official ones: 60 a second whatever the video's rate, numbered from 1, in folders or tars."""
    folder, segments = segments_of(own_kitchen)
    segments = [segment for segment in segments if segment.video_id == segments[0].video_id]
    videos = find_videos(folder, tuple(segments))
    path = videos[segments[0].video_id]
    rate = 50 if abs(segments[0].stop_frame / segments[0].stop_s - 50) < 2 else 60
    last_s = max(segment.stop_s for segment in segments)
    times_s = np.arange(int(last_s * rate) + 1) / rate
    place = own_kitchen / "P00" if packed else own_kitchen / "rgb_frames" / segments[0].participant_id
    place = place / segments[0].video_id
    place.mkdir(parents=True)
    for number, frame in enumerate(decode_at(path, times_s).frames, 1):
        Image.fromarray(frame).save(place / f"frame_{number:010d}.jpg", quality=90)
    if packed:
        tar = own_kitchen / segments[0].participant_id / "rgb_frames" / f"{segments[0].video_id}.tar"
        tar.parent.mkdir(parents=True)
        with tarfile.open(tar, "w") as archive:
            archive.add(place, arcname=".")
        shutil.rmtree(place.parent)
    keep_only(own_kitchen, segments[0].video_id)
    out = tmp_path / "store"
    spec = StoreSpec(size_px=256, grid=SPEC.grid)
    about = prepare(own_kitchen, out, spec, splits=["train"], source="frames").about
    assert about.source == "frames" and about.num_segments == len(segments)
    frames = open_frames(open_data_folder(out), segments, CLIP.grid)
    for row, segment in enumerate(segments[::4]):
        asked = candidate_times(segment.start_s, segment.stop_s, SPEC.grid)
        expected = decode_at(path, np.floor(asked * rate + 1e-6) / rate).frames
        got = frames.read(4 * row, np.arange(16))
        assert np.abs(got.astype(int) - expected[:16]).mean() < 6
    if not packed:  # their bytes are kept
        with tarfile.open(next(out.glob("frames/*/*.tar"))) as tar:
            kept = {tar.extractfile(member).read() for member in tar}
        assert kept <= {picture.read_bytes() for picture in place.iterdir()}
        for number in range(int(segments[0].start_s * rate) + 4, int(segments[0].start_s * rate) + 12):
            broken = place / f"frame_{number:010d}.jpg"
            broken.write_bytes(broken.read_bytes()[:-500])
        with pytest.raises(InputError, match=r"not finished: \d+ of \d+ candidate frames"):
            prepare(own_kitchen, tmp_path / "second", spec, splits=["train"], source="frames")


def test_extracted_pictures_that_bite(own_kitchen, tmp_path):
    """Of two sizes, empty, a broken link: lost frames. Not a tar: that video is told, and the others are made."""
    _, segments = segments_of(own_kitchen)
    segments = [segment for segment in segments if segment.video_id == segments[0].video_id]
    place = own_kitchen / "rgb_frames" / segments[0].participant_id / segments[0].video_id
    place.mkdir(parents=True)
    for number in range(1, int(max(segment.stop_s for segment in segments) * 60) + 2):
        size = (100, 60) if 200 <= number < 220 else (120, 80)
        Image.new("RGB", size, (number % 256, 0, 0)).save(place / f"frame_{number:010d}.jpg")
    begin = int(segments[0].start_s * 60)
    (place / f"frame_{begin + 5:010d}.jpg").write_bytes(b"")
    (place / f"frame_{begin + 9:010d}.jpg").unlink()
    (place / f"frame_{begin + 9:010d}.jpg").symlink_to("nowhere.jpg")
    keep_only(own_kitchen, segments[0].video_id)
    out = tmp_path / "store"
    spec = StoreSpec(grid=Grid(fps=60.0, min_frames=16))
    about = prepare(own_kitchen, out, spec, splits=["train"], source="frames", max_lost=0.3).about
    assert 2 <= about.num_lost < 40
    frames = open_frames(open_data_folder(out), segments, spec.grid)
    for place_of in range(len(segments)):
        assert frames.read(place_of, np.arange(frames.num_candidates(place_of))).shape[1:] == (80, 120, 3)
    shutil.rmtree(place)
    tar = own_kitchen / "rgb_frames" / segments[0].participant_id / f"{segments[0].video_id}.tar"
    tar.write_text("not a tar")
    with pytest.raises(InputError, match="1 of 1 videos could not be read: .*not a readable tar"):
        prepare(own_kitchen, tmp_path / "other", spec, splits=["train"], source="frames")


def keep_only(root: Path, video_id: str) -> None:
    path = root / "epic-kitchens-100-annotations" / "EPIC_100_train.csv"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], *(line for line in lines[1:] if f",{video_id}," in line)]) + "\n")


def test_missing_extracted_pictures_are_named(kitchen, tmp_path):
    with pytest.raises(InputError, match=r"rgb_frames/P\d+/P\d+_\d+: no such folder, and no tar beside it"):
        prepare(kitchen, tmp_path / "x", SPEC, source="frames")


def test_the_command(kitchen, tmp_path, capsys):
    out = tmp_path / "store"
    flags = ["--data", str(kitchen), "--out", str(out), "--size", "72", "--fps", "8", "--min-frames", "16"]
    flags += ["--workers", "1"]
    assert main(["prepare", *flags, "--dry-run"]) == 0
    assert "36 segments: about" in capsys.readouterr().out and not out.exists()
    assert main(["prepare", *flags, "--shard", "1/2", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["num_missing"] > 0 and told["about"]["spec"]["size_px"] == 72
    assert main(["prepare", *flags, "--shard", "2/2"]) == 0
    assert f"egochef train --recipe frames16 --data {out}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--shard", "0/2"], "shard 0/2: expected I/N with I from 1"),
        (["--shard", "3"], "--shard is '3', expected I/N"),
        (["--quality", "0"], "quality is 0"),
        (["--size", "3"], "size_px is 3"),
        (["--fps", "0"], "Grid.fps is 0"),
        (["--workers", "0"], "num_workers is 0"),
        (["--split", "trian"], "unknown split 'trian'"),
        (["--participants", "P77"], "no segment of P77"),
    ],
)
def test_wrong_flags_are_one_line(kitchen, tmp_path, capsys, flags, message):
    assert main(["prepare", "--data", str(kitchen), "--out", str(tmp_path / "x"), *flags]) == 1
    assert message in capsys.readouterr().err


def test_shard_file_is_where_the_participant_is(tmp_path):
    assert shard_file(tmp_path, "P01_101") == tmp_path / "frames" / "P01" / "P01_101.tar"
