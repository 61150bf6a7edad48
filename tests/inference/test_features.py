"""Kept features: what the encoder gives, the same bytes however they were made, and nothing damaged goes unseen."""

import dataclasses
import json
import shutil
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from torch import nn

from egochef.cli.main import main
from egochef.clip import ClipSpec
from egochef.data.annotations import find_videos, open_data_folder, read_split
from egochef.data.dataset import ClipDataset
from egochef.data.frames import open_frames
from egochef.data.prepare import prepare
from egochef.data.store import StoreSpec
from egochef.data.transforms import Augment
from egochef.engines.torch_engine import TorchEngine
from egochef.errors import InputError
from egochef.inference.features import (
    EVALUATION,
    TRAINING,
    Features,
    is_features,
    load_encoder,
    open_about,
    read_about,
    read_index,
)
from egochef.inference.make_features import feature_spec, make_features
from egochef.inference.scoring import score_split
from egochef.model.checkpoint import Checkpoint, read_tensors, save_checkpoint, write_tensors
from egochef.model.encoders import build_encoder
from egochef.model.recogniser import ModelConfig, Recogniser
from egochef.model.weights import load_initial_weights

CLIP = ClipSpec(num_frames=2, image_size=64, resize_size=64, mean=(0.498,) * 3, std=(0.502,) * 3)
AUGMENT = Augment(cutmix_alpha=0.0)
LEARN, JUDGE = 8, 4


@pytest.fixture(scope="module")
def folder(toy_root):
    return open_data_folder(toy_root)


@pytest.fixture(scope="module")
def recogniser():
    torch.manual_seed(0)
    recogniser = Recogniser(ModelConfig("efficientnet_lite0", hidden_size=8))
    load_initial_weights(recogniser.encoder, "efficientnet_lite0", "imagenet")
    return recogniser


@pytest.fixture(scope="module")
def engine(recogniser, folder):
    return engine_of(recogniser, folder)


@pytest.fixture(scope="module")
def made(engine, folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("features") / "F"
    make(engine, folder, out)
    return out


def engine_of(recogniser, folder):
    cpu = torch.device("cpu")
    return TorchEngine(recogniser, CLIP, folder.taxonomy, cpu, torch.float32, encoder_is_final=True)


def to_learn(folder):
    """Of several videos."""
    train = read_split(folder, "train")
    return train[:: len(train) // LEARN][:LEARN]


def make(engine, folder, out, *, num_views=2, num_workers=0, seed=3, dtype="fp16"):
    learn, judge = to_learn(folder), read_split(folder, "validation")[:JUDGE]
    spec = feature_spec(engine, AUGMENT, seed=seed, dtype=dtype, initial_weights="imagenet")
    grid = engine.clip.grid
    sources = (learn, open_frames(folder, learn, grid)), (judge, open_frames(folder, judge, grid))
    return make_features(engine, folder, out, spec, *sources, num_views=num_views, num_workers=num_workers)


def read_all(root, kind, segments, view=0):
    features = Features(root, kind, segments)
    places = np.arange(len(segments))
    return features.read(np.full_like(places, view), places)


def bytes_of(root):
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def test_features_are_what_the_encoder_gives(engine, folder, made):
    learn, judge = to_learn(folder), read_split(folder, "validation")[:JUDGE]
    dataset = ClipDataset(learn, open_frames(folder, learn, CLIP.grid), CLIP, augment=AUGMENT, seed=3)
    features = Features(made, TRAINING, learn)
    assert (features.num_views, features.num_segments, features.num_replaced) == (2, LEARN, 0)
    for view, place in ((0, 0), (1, 5)):
        sample = dataset[(view, place, place)]
        direct = engine.encode(sample.frames[None], sample.colour[None])
        kept = features.read(np.array([view]), np.array([place]))
        assert kept.shape == (1, 2, 1280) and kept.dtype == torch.float16
        assert torch.allclose(kept.float(), direct, rtol=2e-3, atol=1e-4)
        assert (features.verb[view, place], features.noun[view, place]) == (sample.verb, sample.noun)
    dataset = ClipDataset(judge, open_frames(folder, judge, CLIP.grid), CLIP)
    direct = engine.encode(torch.stack([dataset[(0, place, place)].frames for place in range(JUDGE)]))
    assert torch.allclose(read_all(made, EVALUATION, judge).float(), direct, rtol=2e-3, atol=1e-4)


def test_views_differ(folder, made):
    learn = to_learn(folder)
    first, second = (read_all(made, TRAINING, learn, view).float() for view in range(2))
    assert not any(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_segments_are_found_by_name_in_any_order(folder, made):
    learn = to_learn(folder)
    chosen = (learn[6], learn[1])
    assert torch.equal(read_all(made, TRAINING, chosen), read_all(made, TRAINING, learn)[[6, 1]])


def test_the_same_bytes_with_any_number_of_workers_and_others_with_another_seed(engine, folder, made, tmp_path):
    make(engine, folder, tmp_path / "two", num_workers=2)
    assert bytes_of(tmp_path / "two") == bytes_of(made)
    make(engine, folder, tmp_path / "other", seed=4)
    other = bytes_of(tmp_path / "other")
    assert other["training/view-00.npy"] != bytes_of(made)["training/view-00.npy"]
    assert other["evaluation/view-00.npy"] == bytes_of(made)["evaluation/view-00.npy"]


def test_a_killed_run_goes_on_to_the_same_bytes(recogniser, folder, tmp_path):
    about = Checkpoint(recogniser.config, CLIP, folder.taxonomy, "tiny", "imagenet")
    save_checkpoint(tmp_path / "c.safetensors", recogniser, about)
    words = ["features", "--checkpoint", tmp_path / "c.safetensors", "--data", folder.root, "--views", 3]
    words += ["--workers", 0, "--precision", "fp32", "--device", "cpu", "--out"]
    words = [str(word) for word in words]
    assert main([*words, str(tmp_path / "whole")]) == 0
    killed = tmp_path / "killed"
    command = [sys.executable, "-m", "egochef", *words, str(killed)]
    while not (killed / "training" / "view-00.npy").exists() or (killed / "training" / "view-01.npy").exists():
        shutil.rmtree(killed, ignore_errors=True)  # the last one went on further than this process could see
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        while process.poll() is None and not list(killed.glob("training/.view-01-*.part.npy")):
            time.sleep(0.002)
        process.kill()
        process.wait()
    first = (killed / "training" / "view-00.npy").stat()
    with pytest.raises(InputError, match="not finished"):
        open_about(killed)
    assert main([*words, str(killed)]) == 0
    assert bytes_of(killed) == bytes_of(tmp_path / "whole")
    assert (killed / "training" / "view-00.npy").stat().st_mtime_ns == first.st_mtime_ns
    assert read_about(killed).spec.encoder_trained_on == ("train",)


def test_more_views_later(engine, folder, made, tmp_path):
    make(engine, folder, tmp_path / "F", num_views=1)
    assert make(engine, folder, tmp_path / "F").num_made == 1
    assert bytes_of(tmp_path / "F") == bytes_of(made)
    assert make(engine, folder, tmp_path / "F", num_views=1).about.num_views == 2
    (tmp_path / "F" / "training" / "view-00.npy").unlink()
    assert make(engine, folder, tmp_path / "F", num_views=1).num_made == 1
    assert bytes_of(tmp_path / "F") == bytes_of(made)


def test_the_encoder_comes_back(recogniser, made):
    encoder = build_encoder("efficientnet_lite0")
    load_encoder(made, encoder, read_about(made).spec)
    expected = recogniser.encoder.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in encoder.state_dict().items())


def test_a_store_gives_the_features_of_its_videos(engine, folder, made, toy_root, tmp_path):
    prepare(toy_root, tmp_path / "store", StoreSpec(), splits=("train", "validation"))
    make(engine, open_data_folder(tmp_path / "store"), tmp_path / "F")
    learn = to_learn(folder)
    ours, theirs = (read_all(root, TRAINING, learn).float() for root in (tmp_path / "F", made))
    assert torch.cosine_similarity(ours, theirs, dim=2).min() > 0.98
    assert read_about(tmp_path / "F").spec == read_about(made).spec


def test_a_segment_that_cannot_be_read_is_replaced_with_its_labels(engine, folder, toy_root, tmp_path):
    root = tmp_path / "kitchen"
    shutil.copytree(toy_root, root)
    broken = open_data_folder(root)
    learn = to_learn(broken)
    videos = find_videos(broken, learn)
    bad = learn[0].video_id
    assert any(segment.video_id != bad for segment in learn)
    videos[bad].write_bytes(videos[bad].read_bytes()[:500])
    make(engine, broken, tmp_path / "F", num_views=1)
    features = Features(tmp_path / "F", TRAINING, learn)
    assert features.num_replaced == sum(segment.video_id == bad for segment in learn)
    shown = read_index(tmp_path / "F" / "training" / "view-00.safetensors")["shown"]
    assert all(learn[row].video_id != bad for row in shown)
    assert features.verb[0].tolist() == [learn[row].verb for row in shown]
    assert features.noun[0].tolist() == [learn[row].noun for row in shown]


class Loud(nn.Module):
    """An encoder that gives one value."""

    def __init__(self, value):
        super().__init__()
        self.value = value

    def forward(self, x, num_frames):
        return torch.full((len(x), 1280), self.value)


def test_values_that_fp16_has_no_room_for(recogniser, folder, tmp_path):
    engine = engine_of(recogniser, folder)
    engine.encoder = Loud(1e5)
    first = read_split(folder, "validation")[0].narration_id
    with pytest.raises(InputError, match=f"{first} has features up to 1e.05, which fp16 has no room for.*bf16"):
        make(engine, folder, tmp_path / "F")
    make(engine, folder, tmp_path / "G", dtype="bf16", num_views=1)
    kept = read_all(tmp_path / "G", TRAINING, to_learn(folder))
    assert kept.dtype == torch.bfloat16 and kept.unique().tolist() == [torch.tensor(1e5).bfloat16().item()]
    engine.encoder = Loud(float("nan"))
    with pytest.raises(InputError, match="not finite, computed in fp32"):
        make(engine, folder, tmp_path / "H", dtype="bf16")


def flip(path, place):
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)


def cut(path):
    path.write_bytes(path.read_bytes()[:-10])


def rewrite(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda root: flip(root / "training/view-01.npy", -7), "view-01.npy: is damaged: .* segment P"),
        (lambda root: cut(root / "training/view-01.npy"), "view-01.npy: has .* bytes, expected"),
        (lambda root: (root / "training/view-01.npy").write_bytes(b""), "view-01.npy: not a whole .npy file"),
        (lambda root: (root / "training/view-01.npy").unlink(), "view-01.npy: cannot be read"),
        (lambda root: flip(root / "training/view-00.safetensors", -7), "view-00.safetensors: damaged"),
        (lambda root: (root / "training/view-00.safetensors").unlink(), "view-00.safetensors: cannot be read"),
        (lambda root: rewrite(root / "features.json", version=9), "version 9"),
        (lambda root: rewrite(root / "features.json", format="x"), "not made by egochef features"),
        (lambda root: rewrite(root / "features.json", views=[]), "not finished"),
        (lambda root: (root / "features.json").write_text("{"), "cannot be read"),
        (lambda root: flip(next(root.glob("epic*/EPIC_100_train.csv")), -7), "EPIC_100_train.csv: not the file"),
    ],
)
def test_what_is_damaged_is_refused(damage, message, folder, made, tmp_path):
    root = tmp_path / "F"
    shutil.copytree(made, root)
    learn = to_learn(folder)
    damage(root)
    with pytest.raises(InputError, match=message):
        read_all(root, TRAINING, learn, view=1)


def test_a_file_cut_off_while_it_is_open_is_an_error(folder, made, tmp_path):
    shutil.copytree(made, tmp_path / "F")
    learn = to_learn(folder)
    features = Features(tmp_path / "F", TRAINING, learn)
    cut(tmp_path / "F" / "training" / "view-00.npy")
    with pytest.raises(InputError, match=f"cut off before segment {learn[-1].narration_id}"):
        features.read(np.array([0]), np.array([LEARN - 1]))


def test_a_changed_encoder_is_refused(made, tmp_path):
    shutil.copytree(made, tmp_path / "F")
    path = tmp_path / "F" / "encoder.safetensors"
    tensors, header = read_tensors(path)
    write_tensors(path, {name: tensor * 1.001 for name, tensor in tensors.items()}, header)
    with pytest.raises(InputError, match="not the weights that the features were made with"):
        load_encoder(tmp_path / "F", build_encoder("efficientnet_lite0"), read_about(made).spec)


def test_a_folder_of_other_settings_is_left_alone(engine, folder, made, tmp_path):
    root = tmp_path / "F"
    shutil.copytree(made, root)
    before = bytes_of(root)
    with pytest.raises(InputError, match="begun with spec.seed 3, not 4"):
        make(engine, folder, root, seed=4)
    with pytest.raises(InputError, match="begun with spec.dtype 'fp16', not 'bf16'"):
        make(engine, folder, root, dtype="bf16")
    torch.manual_seed(1)
    with pytest.raises(InputError, match="other weights of the encoder"):
        make(engine_of(Recogniser(engine.recogniser.config), folder), folder, root)
    fewer = dataclasses.replace(folder, participants=frozenset({"P01", "P02", "P03"}))
    with pytest.raises(InputError, match="begun with participants"):
        make(engine, fewer, root)
    assert bytes_of(root) == before
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "thesis.txt").write_text("years of work")
    with pytest.raises(InputError, match="not a features folder"):
        make(engine, folder, tmp_path / "thesis")
    assert not is_features(tmp_path / "thesis")


def test_segments_without_features_are_named(folder, made):
    learn = to_learn(folder)
    other = next(segment for segment in read_split(folder, "train") if segment not in learn)
    with pytest.raises(InputError, match=f"1 of 2 segments have no training features.*{other.narration_id}"):
        Features(made, TRAINING, (learn[0], other))


def test_features_are_no_pictures(engine, folder, made):
    with pytest.raises(InputError, match="holds features, not pictures"):
        score_split(engine, open_data_folder(made), "validation", read_split(folder, "validation"))
