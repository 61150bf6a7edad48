"""An annotated copy has every frame of its video at its own time, and says what was said of that moment."""

import numpy as np
import pytest
from numbered import decode_all, write_numbered

from egochef.data.annotations import find_videos, open_data_folder, read_split
from egochef.errors import InputError
from egochef.inference.prediction import Prediction
from egochef.inference.render import make_timeline, nearest, read_truth, render_video
from egochef.video.decode import VideoError, iter_frames, probe
from egochef.video.overlay import StripPart

RANKED = (("open", 0.6), ("close", 0.2), ("take", 0.1))


def said(time_s, shown=None, prob=0.0):
    ids = None if shown is None else (len(shown), 0)
    return Prediction(time_s, RANKED, RANKED, RANKED, shown, ids, prob)


def story(length_s):
    """`open drawer`, then nothing, then `take cup`, one prediction every half second."""
    moments = np.arange(0.25, length_s, 0.5)
    names = ["open drawer", None, "take cup"]
    chosen = [names[int(3 * moment / length_s)] for moment in moments]
    return [said(moment, name, 0.8 if name else 0.0) for moment, name in zip(moments, chosen, strict=True)]


@pytest.fixture(scope="module")
def folder(toy_root):
    return open_data_folder(toy_root)


@pytest.fixture(scope="module")
def video(folder):
    videos = find_videos(folder, read_split(folder, "validation"))
    return min(videos.values(), key=lambda path: probe(path).duration_s)


def test_frames_of_a_variable_rate_stand_where_they_stood(tmp_path):
    ticks = [0, 40, 80, 400, 420, 1000, 1500, 1533, 1900, 2500]  # ms
    path = write_numbered(tmp_path / "vfr.mp4", 10, ticks=ticks, size_px=(640, 480))
    out = tmp_path / "copy.mp4"
    assert render_video(path, story(2.5), out) == 10
    copy = decode_all(out)
    assert copy.times_s == pytest.approx(np.array(ticks) / 1000, abs=1e-4)
    pictures = [picture for _, picture in iter_frames(path)]
    for before, after in zip(pictures, copy.frames, strict=True):
        assert after.shape == before.shape
        differs = np.abs(after.astype(int) - before).max(axis=2) > 60
        assert 0.01 < differs.mean() < 0.7  # something is drawn, and the picture is still to be seen
    assert {file.name for file in tmp_path.iterdir()} == {"vfr.mp4", "copy.mp4"}


def test_small_and_turned_videos_come_out_upright_and_readable(tmp_path):
    path = write_numbered(tmp_path / "turned.mp4", 5, size_px=(128, 96), rotation=(90, False, False))
    render_video(path, story(0.6), tmp_path / "copy.mp4")
    before, after = probe(path), probe(tmp_path / "copy.mp4")
    assert (before.width_px, before.height_px) == (96, 128)
    assert after.rotation == 0 and after.width_px >= 360 and after.height_px / after.width_px == pytest.approx(4 / 3)


def test_an_overlay_says_the_nearest_prediction(video):
    end_s = probe(video).duration_s
    timeline = make_timeline(video, story(end_s), threshold=0.3)
    first, middle, last = (timeline.overlay(share * end_s) for share in (0.1, 0.5, 0.95))
    assert (first.title, first.tone, first.title_prob) == ("open drawer", "sure", 0.8)
    assert (middle.tone, middle.title_prob) == ("uncertain", None)
    assert last.title == "take cup" and last.now_s == 0.95 * end_s
    assert [part.label for part in last.strip] == ["open drawer", None, "take cup"]
    assert (last.strip_start_s, last.strip_stop_s) == (0.0, end_s)
    assert (last.strip[0].start_s, last.strip[-1].stop_s) == (0.0, end_s)
    assert last.threshold == 0.3 and last.truth == []


def test_nearest_is_the_brute_force():
    predictions = [said(time_s) for time_s in (0.25, 0.75, 1.25, 5.0)]
    for time_s in np.arange(0, 8, 0.1):
        gaps = [abs(prediction.time_s - time_s) for prediction in predictions]
        assert nearest(predictions, time_s) is predictions[int(np.argmin(gaps))]


def test_a_long_video_shows_the_minute_around_now(tmp_path):
    path = write_numbered(tmp_path / "long.mp4", 200, fps=1)
    truth = [StripPart(10, 20, "take cup"), StripPart(150, 190, "put cup")]
    timeline = make_timeline(path, story(200), truth)
    for now_s, start_s, labels, happens in (
        (5.0, 0.0, ["open drawer"], ["take cup"]),
        (70.0, 40.0, ["open drawer", None], []),
        (130.0, 100.0, [None, "take cup"], ["put cup"]),
        (199.0, 140.0, ["take cup"], ["put cup"]),
    ):
        overlay = timeline.overlay(now_s)
        assert (overlay.strip_start_s, overlay.strip_stop_s) == (start_s, start_s + 60)
        assert [part.label for part in overlay.strip] == labels
        assert [part.label for part in overlay.truth] == happens
    assert timeline.overlay(70.0).status == ("1:10 / 3:20",)


def test_truth_is_drawn_and_comes_from_the_splits_asked_for(video, folder, toy_root, tmp_path):
    truth = read_truth(toy_root, ["train", "validation"], video.stem)
    segments = [each for each in read_split(folder, "validation") if each.video_id == video.stem]
    assert len(truth) == len(segments) > 0
    assert {(part.start_s, part.stop_s) for part in truth} == {(each.start_s, each.stop_s) for each in segments}
    assert truth[0].label == folder.taxonomy.action_name(
        *next((each.verb, each.noun) for each in segments if each.start_s == truth[0].start_s)
    )
    with pytest.raises(InputError, match=f"no segment of a video {video.stem} in train"):
        read_truth(toy_root, ["train"], video.stem)
    with pytest.raises(InputError, match="--split test: its labels are not public"):
        read_truth(toy_root, ["validation", "test"], video.stem)


def test_a_fault_leaves_no_copy(tmp_path):
    whole = write_numbered(tmp_path / "whole.mp4", 60, container_options={"movflags": "faststart"})
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(whole.read_bytes()[: int(0.6 * whole.stat().st_size)])
    with pytest.raises(VideoError, match=r"cut\.mp4"):
        render_video(cut, story(2.4), tmp_path / "copy.mp4")
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        render_video(whole, story(2.4), tmp_path / "file" / "copy.mp4")
    assert {file.name for file in tmp_path.iterdir()} == {"whole.mp4", "cut.mp4", "file"}
