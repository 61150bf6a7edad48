"""Predictions over a video's time equal the clip path on the same frames."""

import csv
import json
import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from numbered import write_numbered

from egochef.clip import ClipSpec
from egochef.data.annotations import find_videos, open_data_folder, parse_split, read_split
from egochef.data.transforms import eval_crop
from egochef.engines.torch_engine import TorchEngine
from egochef.errors import InputError
from egochef.inference.prediction import rank
from egochef.inference.rolling import window_times
from egochef.inference.smoothing import Smoothing
from egochef.inference.video import predict_videos, recognise_video
from egochef.model.recogniser import ModelConfig, Recogniser
from egochef.taxonomy import Taxonomy
from egochef.video.decode import VideoError, decode_at, iter_frames, probe

UNSMOOTHED = Smoothing(tau_s=0)
ALWAYS = Smoothing(tau_s=0, threshold=0)


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def folder(toy_root):
    return open_data_folder(toy_root)


@pytest.fixture(scope="module")
def video(folder):
    return next(iter(find_videos(folder, read_split(folder, "validation")).values()))


class Counting(TorchEngine):
    """Counts what it encodes."""

    num_encoded = 0

    def encode(self, frames, colour=None):
        self.num_encoded += frames.shape[0] * frames.shape[1]
        return super().encode(frames, colour)


@pytest.fixture
def engine(folder):
    torch.manual_seed(0)
    recogniser = Recogniser(ModelConfig("efficientnet_lite0", hidden_size=8))
    clip = ClipSpec(num_frames=4, image_size=64, resize_size=64)
    return Counting(recogniser, clip, folder.taxonomy, torch.device("cpu"), torch.float32)


def expected_probs(engine, video, windows, step_s):
    """Mean over windows [start, stop) of the clip of each, weighed by the cube of its best action's probability.

    Frames are those on screen at multiples of `step_s`.
    """
    verbs, nouns = [], []
    for start_s, stop_s in windows:
        wanted_s = start_s + window_times(stop_s - start_s, engine.clip)
        grid_s = np.maximum(0, np.floor((wanted_s + 1e-3) / step_s)) * step_s
        frames = decode_at(video, grid_s).frames
        logits = engine.classify(engine.encode(eval_crop(frames, engine.clip)[None]))
        verbs.append(logits.verb[0].softmax(0).numpy())
        nouns.append(logits.noun[0].softmax(0).numpy())
    weights = [(verb.max() * noun.max()) ** 3 for verb, noun in zip(verbs, nouns, strict=True)]
    return np.average(verbs, 0, weights), np.average(nouns, 0, weights)


def test_predictions_are_the_weighed_mean_of_clips_around_their_moment(engine, video):
    told = list(recognise_video(engine, video, windows_s=(2.0, 1.0), hop_s=0.5, smoothing=UNSMOOTHED))
    duration_s = probe(video).duration_s
    moments = [prediction.time_s for prediction in told]
    assert moments == pytest.approx([0.25 + 0.5 * k for k in range(len(told))])
    assert duration_s - 0.75 <= moments[-1] < duration_s
    assert abs(engine.num_encoded - duration_s * 4) <= 1  # four frames a second, each once
    end_s = math.ceil(duration_s * 4 - 1e-6) / 4  # the grid's
    last = len(told) - 1
    for place, windows in (
        (0, [(0.0, 1.0)]),  # the shortest one, shifted inside
        (1, [(0.25, 1.25), (-0.25, 1.75)]),  # reaches out by half a step, as a window may
        (3, [(1.25, 2.25), (0.75, 2.75)]),
        (7, [(3.25, 4.25), (2.75, 4.75)]),
        (last, [(end_s - 1, end_s)] if moments[-1] + 0.5 > end_s else None),
    ):
        if windows is None:
            continue
        verb, noun = expected_probs(engine, video, windows, 0.25)
        for expected, ours in zip(rank(verb, noun, engine.taxonomy), ("verb", "noun", "action"), strict=True):
            ranked = getattr(told[place], ours)
            assert [prob for _, prob in ranked] == pytest.approx([prob for _, prob in expected], abs=1e-5)
        assert told[place].action[0][0] == rank(verb, noun, engine.taxonomy)[2][0][0]


@pytest.mark.parametrize("encoder", ["efficientnet_lite0_tsm", "efficientnet_lite0_tsm_online"])
def test_encoders_with_a_shift_see_the_clips_of_their_windows(folder, video, encoder):
    """Both ways: every window is the clip path's. Online: so is the first, which nothing lies before."""
    torch.manual_seed(0)
    clip = ClipSpec(num_frames=4, image_size=64, resize_size=64)
    engine = Counting(
        Recogniser(ModelConfig(encoder, hidden_size=8)), clip, folder.taxonomy, torch.device("cpu"), torch.float32
    )
    told = list(recognise_video(engine, video, windows_s=(1.0,), hop_s=0.5, smoothing=UNSMOOTHED))
    for place, windows in ((0, [(0.0, 1.0)]), (3, [(1.25, 2.25)])):
        verb, _ = expected_probs(engine, video, windows, 0.25)
        expected = [prob for _, prob in rank(verb, verb, engine.taxonomy)[0]]
        same = [prob for _, prob in told[place].verb] == pytest.approx(expected, abs=1e-5)
        assert same == (encoder == "efficientnet_lite0_tsm" or place == 0)


def test_predictions_come_while_the_video_is_read(engine, video):
    """And no more is held than the windows need: that of a video of hours is what that of a minute is."""
    stream = recognise_video(engine, video, windows_s=(1.0, 2.0), hop_s=0.5)
    next(stream)
    assert engine.num_encoded <= 16
    stream.close()


def test_frames_that_stand_are_encoded_once(engine, tmp_path):
    """A video of two frames a second, looked at four times a second."""
    path = write_numbered(tmp_path / "slow.mp4", 12, fps=2)
    told = list(recognise_video(engine, path, windows_s=(1.0,)))
    assert len(told) == 12 and engine.num_encoded <= 14


def test_a_video_shorter_than_the_window_is_one_window(engine, video):
    (told,) = recognise_video(engine, video, windows_s=(1000.0,), smoothing=UNSMOOTHED)
    duration_s = probe(video).duration_s
    assert told.time_s == duration_s / 2
    frames = decode_at(video, window_times(duration_s, engine.clip)).frames
    verb, noun = engine.recognise(frames)
    assert told.action == rank(verb, noun, engine.taxonomy)[2]


def test_a_hop_longer_than_the_video_gives_one_prediction(engine, video):
    (told,) = recognise_video(engine, video, hop_s=1000.0)
    assert told.time_s == pytest.approx(probe(video).duration_s / 2, abs=0.2)


def test_odd_short_videos_are_one_window(engine, odd_videos):
    """No duration in the header, a single frame, four frames that stand still: one prediction each."""
    for name, window_s in (
        ("moviepy__media_no_duration.webm", 60.0),
        ("*_1f.mp4", 2.0),
        ("torchcodec*animated.gif", 2.0),
    ):
        (path,) = odd_videos.glob(name)
        (told,) = recognise_video(engine, path, windows_s=(window_s,))
        assert 0 < told.time_s < window_s / 2


def test_rank_is_the_brute_force():
    rng = np.random.default_rng(0)
    verb, noun = rng.dirichlet(np.ones(7)), rng.dirichlet(np.ones(9))
    taxonomy = Taxonomy(tuple(f"v{i}" for i in range(7)), tuple(f"n{i}" for i in range(9)))
    expected = sorted(((verb[v] * noun[n], f"v{v} n{n}") for v in range(7) for n in range(9)), reverse=True)[:5]
    assert [(name, prob) for prob, name in expected] == [
        (name, pytest.approx(prob)) for name, prob in rank(verb, noun, taxonomy)[2]
    ]


def test_log_and_segments(engine, video, tmp_path):
    log, table, rows = tmp_path / "log" / "p.jsonl", tmp_path / "p.csv", tmp_path / "segments.csv"
    told = list(predict_videos(engine, [video, video], log=log, segments=rows, hop_s=1, smoothing=ALWAYS))
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert lines == told
    assert set(lines[0]) == {"video", "time_s", "shown"} | {
        f"{kind}{end}" for kind in ("verb", "noun", "action") for end in ("", "_prob", "_top5")
    }
    assert len(lines[0]["action_top5"]) == 5
    again = list(predict_videos(engine, [video], log=table, hop_s=1, smoothing=ALWAYS))
    with table.open(newline="") as file:
        cells = list(csv.DictReader(file))
    assert again == told and [cell["action"] for cell in cells] == [line["action"] for line in told]
    segments, faults = parse_split(rows, engine.taxonomy, labelled=True)
    assert faults == [] and segments[0].start_s == 0  # a threshold of 0 always shows something
    assert segments[-1].stop_s == pytest.approx(probe(video).duration_s, abs=1e-3)
    assert all(first.stop_s == second.start_s for first, second in pairwise(segments))
    assert {segment.video_id for segment in segments} == {video.stem}
    assert {segment.narration for segment in segments} == {line["shown"] for line in told}


def test_predictions_are_kept_only_for_who_asks(engine, video, folder):
    """After each video, all its predictions."""
    videos = list(find_videos(folder, read_split(folder, "train")).values())[:2]
    done = []
    told = list(predict_videos(engine, videos, hop_s=2, when_done=lambda path, kept: done.append((path, len(kept)))))
    assert done == [(path, sum(line["video"] == str(path) for line in told)) for path in videos]


def test_a_fault_leaves_no_log(engine, video, tmp_path):
    bad = tmp_path / "bad.mp4"
    bad.write_bytes(b"")
    with pytest.raises(VideoError, match=r"bad.mp4"):
        list(predict_videos(engine, [video, bad], log=tmp_path / "log.jsonl", segments=tmp_path / "s.csv"))
    assert {path.name for path in tmp_path.iterdir()} == {"bad.mp4"}


def test_a_video_that_is_cut_off_is_told_after_what_came_before(engine, tmp_path):
    whole = write_numbered(tmp_path / "whole.mp4", 150, container_options={"movflags": "faststart"})
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(whole.read_bytes()[: int(0.7 * whole.stat().st_size)])
    complete = list(recognise_video(engine, whole, windows_s=(1.0,), smoothing=UNSMOOTHED))
    told = []
    with pytest.raises(VideoError, match=r"cut\.mp4: .*cut off"):
        for prediction in recognise_video(engine, cut, windows_s=(1.0,), smoothing=UNSMOOTHED):
            told.append(prediction)
    assert 3 <= told[-1].time_s <= 4.3
    assert told[:6] == complete[:6]
    with pytest.raises(VideoError, match=r"cut\.mp4"):
        list(predict_videos(engine, [cut], log=tmp_path / "log.jsonl", windows_s=(1.0,)))
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["time_s"] for line in lines] == [prediction.time_s for prediction in told]


def test_a_damaged_video_does_not_cost_the_others(engine, tmp_path):
    whole = write_numbered(tmp_path / "P01_1.mp4", 150, container_options={"movflags": "faststart"})
    cut = tmp_path / "P01_2.mp4"
    cut.write_bytes(whole.read_bytes()[: int(0.7 * whole.stat().st_size)])
    last = write_numbered(tmp_path / "P01_3.mp4", 50)
    told, done = [], []
    with pytest.raises(VideoError, match=r"^1 of 3 videos are damaged, the others are done: .*P01_2\.mp4: .*cut off"):
        for line in predict_videos(
            engine,
            [whole, cut, last],
            segments=tmp_path / "s.csv",
            windows_s=(1.0,),
            smoothing=Smoothing(threshold=0),
            when_done=lambda path, kept: done.append(path),
        ):
            told.append(line)
    assert done == [whole, last] and {line["video"] for line in told} == {str(whole), str(cut), str(last)}
    with (tmp_path / "s.csv").open(newline="") as file:
        assert {row["video_id"] for row in csv.DictReader(file)} == {"P01_1", "P01_2", "P01_3"}


def test_damage_that_only_shows_later_does_not_cost_the_log(engine, tmp_path):
    videos = [write_numbered(tmp_path / f"P01_{number}.mp4", 50) for number in (1, 2)]

    def when_done(path, kept):
        if path == videos[0]:
            raise VideoError(f"{path}: is damaged")

    with pytest.raises(VideoError, match="^1 of 2 videos are damaged"):
        list(predict_videos(engine, videos, log=tmp_path / "log.jsonl", windows_s=(1.0,), when_done=when_done))
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert {line["video"] for line in lines} == set(map(str, videos))


def test_what_is_asked_is_checked_before_the_work(engine, video, tmp_path):
    for wrong, message in (
        ({"windows_s": (0.0,)}, "windows of"),
        ({"windows_s": ()}, "windows of"),
        ({"hop_s": 0.0}, "hop of 0.0 s"),
        ({"hop_s": float("nan")}, "hop of nan s"),
        ({"log": tmp_path / "log.txt"}, r"log\.txt"),
        ({"segments": tmp_path / "s.jsonl"}, r"s\.jsonl"),
    ):
        with pytest.raises(InputError, match=message):
            next(predict_videos(engine, [video], **wrong))
    twin = tmp_path / video.name
    twin.write_bytes(b"")
    with pytest.raises(InputError, match="two videos of one name"):
        next(predict_videos(engine, [video, twin], segments=tmp_path / "s.csv"))
    assert engine.num_encoded == 0 and len(list(iter_frames(video, stop_s=0.1))) > 0
    assert list(tmp_path.iterdir()) == [twin]
