"""Predictions over a video's time equal the clip path on the same frames."""

import json

import numpy as np
import pytest
import torch

from egochef.clip import ClipSpec
from egochef.data.annotations import find_videos, open_data_folder, read_split
from egochef.data.transforms import eval_crop
from egochef.engines.torch_engine import TorchEngine
from egochef.errors import InputError
from egochef.inference.video import predict_videos, rank, recognise_video
from egochef.model.recogniser import ModelConfig, Recogniser
from egochef.taxonomy import Taxonomy
from egochef.video.decode import VideoError, decode_at, probe


@pytest.fixture(scope="module")
def folder(toy_root):
    return open_data_folder(toy_root)


@pytest.fixture(scope="module")
def video(folder):
    return next(iter(find_videos(folder, read_split(folder, "validation")).values()))


@pytest.fixture(scope="module")
def engine(folder):
    torch.manual_seed(0)
    recogniser = Recogniser(ModelConfig("efficientnet_lite0", hidden_size=8))
    clip = ClipSpec(num_frames=4, image_size=64, resize_size=64)
    return TorchEngine(recogniser, clip, folder.taxonomy, torch.device("cpu"), torch.float32)


def test_windows_cover_the_video_and_equal_clips(engine, video):
    told = list(recognise_video(engine, video, window_s=1.0, hop_s=0.5))
    duration_s = probe(video).duration_s
    assert told[0].start_s == 0 and told[-1].stop_s == pytest.approx(duration_s, abs=0.5)
    assert np.allclose(np.diff([prediction.start_s for prediction in told[:-1]]), 0.5, atol=0.05)
    for prediction in told[1:4]:
        frames = decode_at(video, prediction.start_s + np.arange(4) * 0.25).frames
        logits = engine.classify(engine.encode(eval_crop(frames, engine.clip)[None]))
        verbs, _, actions = rank(*(x[0].softmax(0).numpy() for x in logits), engine.taxonomy)
        assert [name for name, _ in verbs] == [name for name, _ in prediction.verb]
        assert actions[0][1] == pytest.approx(prediction.action[0][1], abs=1e-5)


def test_a_video_shorter_than_the_window_is_one_window(engine, video):
    told = list(recognise_video(engine, video, window_s=1000.0))
    assert len(told) == 1
    assert (told[0].start_s, told[0].stop_s) == (0.0, probe(video).duration_s)


def test_odd_short_videos_are_one_window(engine, odd_videos):
    """No duration in the header, a single frame, four frames that stand still: one prediction each."""
    for name, window_s in (
        ("moviepy__media_no_duration.webm", 60.0),
        ("*_1f.mp4", 2.0),
        ("torchcodec*animated.gif", 2.0),
    ):
        (path,) = odd_videos.glob(name)
        (told,) = recognise_video(engine, path, window_s=window_s)
        assert 0 < told.stop_s < window_s


def test_rank_is_the_brute_force():
    rng = np.random.default_rng(0)
    verb, noun = rng.dirichlet(np.ones(7)), rng.dirichlet(np.ones(9))
    taxonomy = Taxonomy(tuple(f"v{i}" for i in range(7)), tuple(f"n{i}" for i in range(9)))
    expected = sorted(((verb[v] * noun[n], f"v{v} n{n}") for v in range(7) for n in range(9)), reverse=True)[:5]
    assert [(name, prob) for prob, name in expected] == [
        (name, pytest.approx(prob)) for name, prob in rank(verb, noun, taxonomy)[2]
    ]


def test_log_lines(engine, video, tmp_path):
    log = tmp_path / "log" / "predictions.jsonl"
    told = list(predict_videos(engine, [video, video], log=log))
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert lines == told
    assert set(lines[0]) == {"video", "time_s"} | {
        f"{kind}{end}" for kind in ("verb", "noun", "action") for end in ("", "_prob", "_top5")
    }
    assert len(lines[0]["action_top5"]) == 5


def test_a_fault_leaves_no_log(engine, video, tmp_path):
    bad = tmp_path / "bad.mp4"
    bad.write_bytes(b"")
    with pytest.raises(VideoError, match=r"bad.mp4"):
        list(predict_videos(engine, [video, bad], log=tmp_path / "log.jsonl"))
    assert not (tmp_path / "log.jsonl").exists()


def test_wrong_windows(engine, video):
    with pytest.raises(InputError, match="more than 0"):
        list(recognise_video(engine, video, window_s=0))
