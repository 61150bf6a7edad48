"""A window of kept features is the clip of the same interval, and each frame is encoded once."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from egochef.clip import ClipSpec
from egochef.data.annotations import find_videos, open_data_folder, read_split
from egochef.data.sampling import candidate_times, view_places
from egochef.data.transforms import eval_crop
from egochef.engines.torch_engine import TorchEngine
from egochef.errors import InputError
from egochef.inference.rolling import FeatureRing, RollingRecogniser, window_times
from egochef.model.recogniser import ModelConfig, Recogniser
from egochef.model.weights import load_initial_weights
from egochef.video.decode import decode_at, iter_frames


@pytest.fixture(scope="module")
def folder(toy_root):
    return open_data_folder(toy_root)


@pytest.fixture(scope="module")
def video(folder):
    return next(iter(find_videos(folder, read_split(folder, "validation")).values()))


@pytest.fixture(scope="module")
def engine(folder):
    torch.manual_seed(0)
    recogniser = Recogniser(ModelConfig("efficientnet_lite0", hidden_size=8, num_verbs=97, num_nouns=300))
    clip = ClipSpec(num_frames=4, image_size=64, resize_size=64)
    return TorchEngine(recogniser, clip, folder.taxonomy, torch.device("cpu"), torch.float32)


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class Counting:
    """An engine that counts what it encodes."""

    def __init__(self, engine):
        self.engine, self.clip, self.taxonomy, self.device = engine, engine.clip, engine.taxonomy, engine.device
        self.name, self.classify, self.overlaps = engine.name, engine.classify, engine.overlaps
        self.shift = engine.shift
        self.num_encoded = 0

    def encode(self, frames):
        self.num_encoded += frames.shape[0] * frames.shape[1]
        return self.engine.encode(frames)


def clip_probs(engine, video, start_s, stop_s):
    """Of the clip that evaluation would take of an interval, straight from the file."""
    candidates = candidate_times(start_s, stop_s, engine.clip.grid)
    places = view_places(len(candidates), engine.clip.num_frames, 1)[0]
    return engine.recognise(decode_at(video, candidates[places]).frames)


def test_a_window_equals_the_clip_of_its_interval(engine, video):
    counting = Counting(engine)
    rolling = RollingRecogniser(counting, [1.0])
    worst = num_frames = num_predictions = 0
    for time_s, picture in iter_frames(video, stop_s=3.0):
        rolling.see(time_s, picture)
        num_frames += 1
        probs = rolling.probs()
        if probs is not None and num_frames % 7 == 0:
            stop_s = rolling.ring.end_s
            for ours, theirs in zip(probs, clip_probs(engine, video, stop_s - 1.0, stop_s), strict=True):
                worst = max(worst, np.abs(ours - theirs).max())
            num_predictions += 1
    assert num_predictions > 6 and worst < 1e-5
    assert counting.num_encoded == num_frames


def test_several_windows_count_by_how_sure_they_are(engine, video):
    rolling = RollingRecogniser(engine, [0.5, 1.0, 2.0], refresh_s=0.0)
    for time_s, picture in iter_frames(video, stop_s=2.6):
        rolling.see(time_s, picture)
    stop_s = rolling.ring.end_s
    each = [clip_probs(engine, video, stop_s - window_s, stop_s) for window_s in (0.5, 1.0, 2.0)]
    sure = np.array([(verb.max() * noun.max()) ** 3 for verb, noun in each])
    probs = rolling.probs()
    for kind in (0, 1):
        expected = np.average([clip[kind] for clip in each], axis=0, weights=sure)
        assert np.abs(probs[kind] - expected).max() < 1e-5


def test_windows_take_turns_and_no_answer_gets_old(engine, video):
    windows_s = (0.5, 1.0, 2.0)
    looked_at, last_s = [], {}

    class Watched(Counting):
        """Features are their frame's time here, and tell which windows are looked at."""

        def __init__(self):
            super().__init__(engine)
            self.classify = self.watch

        def watch(self, features):
            looked_at.append(len(features))
            for begin_s, stop_s in features[:, [0, -1], 0].tolist():  # of four frames: three quarters of the window
                last_s[min(windows_s, key=lambda each: abs(0.75 * each - (stop_s - begin_s)))] = rolling.ring.end_s
            return self.engine.classify(features)

    for fps, most in ((50.0, 1), (8.0, 3)):  # three windows: a camera's rate, and one so slow that all are looked at
        rolling = RollingRecogniser(Watched(), windows_s, refresh_s=0.1)
        for number in range(int(4 * fps)):
            rolling.keep(number / fps, torch.full((1280,), number / fps))
            looked_at.clear()
            rolling.probs()
            if number > 3 * fps:
                assert looked_at == [most]
                assert len(last_s) == 3 and rolling.ring.end_s - min(last_s.values()) < 0.1 + 1e-6
        last_s.clear()


def test_windows_around_a_moment(engine, video):
    rolling = RollingRecogniser(engine, [1.0], keep_s=3.0)
    for time_s, picture in iter_frames(video, stop_s=3.0):
        rolling.see(time_s, picture)
    for kind, expected in enumerate(clip_probs(engine, video, 0.9, 1.9)):
        assert np.abs(rolling.probs(middle_s=1.4)[kind] - expected).max() < 1e-5
    assert rolling.probs(middle_s=2.9) is None, "half of that window is still to come"
    assert rolling.probs(middle_s=0.1) is None, "half of that window was never seen"


def test_a_window_speaks_when_it_is_full(engine, video):
    rolling = RollingRecogniser(engine, [2.0, 1.0])
    assert rolling.windows_s == (1.0, 2.0) and rolling.probs() is None
    said = {}
    for time_s, picture in iter_frames(video, stop_s=2.5):
        rolling.see(time_s, picture)
        said[round(time_s, 3)] = len(rolling.filled())
    times = list(said)
    assert [said[time_s] for time_s in times] == sorted(said.values()), "windows fill one after the other"
    first_of = {number: min(time_s for time_s in times if said[time_s] == number) for number in (1, 2)}
    assert first_of[1] == pytest.approx(0.875, abs=0.1) and first_of[2] == pytest.approx(1.75, abs=0.1)
    rolling.forget()
    assert rolling.probs() is None and len(rolling.ring) == 0


def test_the_frame_rate_does_not_matter(engine, video):
    """Frames that no window asks for change nothing: 30 a second, or only those that it takes."""
    stop_s = 3.0
    every = list(iter_frames(video, stop_s=stop_s))
    dense, sparse = RollingRecogniser(engine, [1.0]), RollingRecogniser(engine, [1.0])
    for time_s, picture in every:
        dense.see(time_s, picture)
    end_s = dense.ring.end_s
    wanted = {
        round(float(time_s), 6) for time_s in decode_at(video, end_s - 1 + window_times(1.0, engine.clip)).times_s
    }
    for place, (time_s, picture) in enumerate(every):
        if round(time_s, 6) in wanted or place in (0, len(every) - 2, len(every) - 1):
            sparse.see(time_s, picture)
    assert len(sparse.ring) < len(dense.ring) / 3
    assert sparse.ring.end_s == end_s
    for one, other in zip(dense.probs(), sparse.probs(), strict=True):
        assert np.abs(one - other).max() < 1e-6


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(0.004, 0.5), min_size=1, max_size=80), st.floats(0.2, 3.0), st.data())
def test_the_ring_gives_the_frame_on_screen(gaps, keep_s, data):
    times = np.cumsum(gaps)
    ring = FeatureRing(keep_s)
    for number, time_s in enumerate(times):
        ring.add(float(time_s), torch.tensor([float(number)]))
    asked = data.draw(st.lists(st.floats(float(times[-1]) - keep_s, float(times[-1]) + 1), min_size=1, max_size=8))
    for time_s, features in zip(asked, ring.at(asked), strict=True):
        on_screen = np.flatnonzero(times <= time_s + 1e-3)
        assert features.item() == (on_screen[-1] if len(on_screen) else 0)
    kept = times[times >= times[-1] - keep_s]
    assert len(kept) <= len(ring) <= len(kept) + 1, "memory is bounded by the kept span"


def test_what_is_refused(engine):
    ring = FeatureRing(1.0)
    ring.add(1.0, torch.zeros(2))
    with pytest.raises(ValueError, match="times must rise"):
        ring.add(1.0, torch.zeros(2))
    for windows in ([], [0.0], [1.0, -2.0], [float("nan")], [1e9]):
        with pytest.raises(InputError, match="one or more, each from 0.01 to 3600 s"):
            RollingRecogniser(engine, windows)


def shifted_engine(folder, encoder):
    torch.manual_seed(0)
    recogniser = Recogniser(ModelConfig(encoder, hidden_size=8, num_verbs=97, num_nouns=300))
    load_initial_weights(recogniser.encoder, encoder, "imagenet")
    clip = ClipSpec(num_frames=4, image_size=64, resize_size=64, mean=(0.498,) * 3, std=(0.502,) * 3)
    return TorchEngine(recogniser, clip, folder.taxonomy, torch.device("cpu"), torch.float32, encoder_is_final=True)


def test_an_online_encoder_streams_what_the_clip_path_sees(folder, video):
    """Frames a T-th of the window apart, each encoded once beside the one before, are a clip."""
    engine = shifted_engine(folder, "efficientnet_lite0_tsm_online")
    rolling = RollingRecogniser(engine, [1.0])
    frames = list(iter_frames(video, stop_s=2.0, every_s=0.25))
    crops = eval_crop(np.stack([picture for _, picture in frames]), engine.clip)  # (8, S, S, 3)
    whole = engine.encode(crops[None])[0]  # (8, D)
    for place, (_, picture) in enumerate(frames):
        features = rolling.encode(0.25 * place, picture)
        assert (features - whole[place]).abs().max() <= 1e-5 * whole.abs().max()
        rolling.keep(0.25 * place, features)
    alone = engine.encode(crops[:, None])[:, 0]  # each a clip of its own
    assert (alone[1:] - whole[1:]).abs().max() > 0.1 * whole.abs().max()
    expected = engine.classify(whole[None, -4:])
    for probs, logits in zip(rolling.probs(), expected, strict=True):
        assert np.abs(probs - logits[0].softmax(0).numpy()).max() < 1e-5


def test_a_stream_at_a_cameras_rate_is_several_streams_in_turn(folder, video):
    """Each frame sees the one that a clip would show before it, not the one 33 ms back."""
    engine = shifted_engine(folder, "efficientnet_lite0_tsm_online")
    rolling = RollingRecogniser(engine, [1.0])  # of 4 frames: 0.25 s
    frames = [(number / 20, picture) for number, (_, picture) in enumerate(iter_frames(video, stop_s=2.0))][:30]
    features = [rolling.encode(time_s, picture) for time_s, picture in frames]
    crops = eval_crop(np.stack([picture for _, picture in frames]), engine.clip)
    for chain in ([2, 7, 12, 17], [0, 4, 9, 14, 19, 24, 29]):  # frame 4 has none 0.25 s back, but one at 0.2 s
        whole = engine.encode(crops[chain][None])[0, -1]
        assert (features[chain[-1]] - whole).abs().max() <= 1e-5 * whole.abs().max()


def test_what_lies_too_far_back_is_not_looked_at(folder, video):
    engine = shifted_engine(folder, "efficientnet_lite0_tsm_online")
    rolling = RollingRecogniser(engine, [1.0])
    picture = next(iter_frames(video))[1]
    first = rolling.encode(5.0, picture)
    assert torch.equal(rolling.encode(7.0, picture), first), "a gap"
    assert not torch.equal(rolling.encode(7.25, picture), first)
    assert torch.equal(rolling.encode(1.0, picture), first), "another stream"
    assert torch.equal(rolling.encode(1.05, picture), first), "not a frame that is nearly this one"
    rolling.begin_stream()
    assert torch.equal(rolling.encode(1.25, picture), first)


def test_slow_frames_see_the_one_before(folder, video):
    """Four a second, of clips that have twelve: each is encoded beside the newest one."""
    engine = shifted_engine(folder, "efficientnet_lite0_tsm_online")
    rolling = RollingRecogniser(engine, [0.33])
    pictures = [picture for _, picture in iter_frames(video, stop_s=1.5, every_s=0.25)]
    crops = eval_crop(np.stack(pictures), engine.clip)
    whole = engine.encode(crops[None])[0]
    for place, picture in enumerate(pictures):
        assert (rolling.encode(0.25 * place, picture) - whole[place]).abs().max() <= 1e-5 * whole.abs().max()


def test_an_encoder_that_looks_both_ways_sees_whole_windows(folder, video, caplog):
    engine = shifted_engine(folder, "efficientnet_lite0_tsm")
    rolling = RollingRecogniser(engine, [1.0])
    assert "each window is encoded anew, 4 frames at a time" in caplog.text
    rolling.warm_up()
    for time_s, picture in iter_frames(video, stop_s=2.0):
        rolling.see(time_s, picture)
    stop_s = rolling.ring.end_s
    for ours, theirs in zip(rolling.probs(), clip_probs(engine, video, stop_s - 1.0, stop_s), strict=True):
        assert np.abs(ours - theirs).max() < 1e-5
