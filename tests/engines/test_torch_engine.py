"""`egochef.load` gives back a recogniser that does what the saved one did."""

import numpy as np
import pytest
import torch

import egochef
from egochef.clip import ClipSpec
from egochef.data.transforms import eval_crop, to_input
from egochef.errors import InputError
from egochef.model.checkpoint import Checkpoint, save_checkpoint
from egochef.model.recogniser import ModelConfig, Recogniser
from egochef.taxonomy import Taxonomy

CLIP = ClipSpec(num_frames=3, image_size=64, resize_size=72)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    torch.manual_seed(0)
    recogniser = Recogniser(ModelConfig("efficientnet_lite0", hidden_size=8, num_verbs=3, num_nouns=4)).eval()
    about = Checkpoint(recogniser.config, CLIP, Taxonomy(("a", "b", "c"), ("w", "x", "y", "z")), "toy", "none")
    path = tmp_path_factory.mktemp("engine") / "x.safetensors"
    save_checkpoint(path, recogniser, about)
    return path, recogniser


def frames(seed=0):
    return np.random.default_rng(seed).integers(0, 256, (3, 90, 120, 3), dtype=np.uint8)


def test_load_and_recognise(saved):
    path, recogniser = saved
    engine = egochef.load(path, precision="fp32", device="cpu")
    verb, noun = engine.recognise(frames())
    with torch.inference_mode():
        logits = recogniser(to_input(eval_crop(frames(), CLIP)[None], CLIP))
    assert np.abs(verb - logits.verb[0].softmax(0).numpy()).max() < 1e-5
    assert np.abs(noun - logits.noun[0].softmax(0).numpy()).max() < 1e-5
    assert engine.taxonomy.verbs == ("a", "b", "c") and engine.clip == CLIP


def test_features_of_a_frame_do_not_depend_on_its_batch(saved):
    engine = egochef.load(saved[0], precision="fp32", device="cpu")
    crop = eval_crop(frames(), CLIP)
    together = engine.encode(crop[None])[0]
    alone = torch.cat([engine.encode(crop[None, [t]])[0] for t in range(3)])
    assert (together - alone).abs().max() < 1e-5


def test_lower_precision_is_close(saved):
    exact = egochef.load(saved[0], precision="fp32", device="cpu").recognise(frames())
    rough = egochef.load(saved[0], precision="bf16", device="cpu").recognise(frames())
    assert all(np.abs(a - b).max() < 0.02 for a, b in zip(exact, rough, strict=True))


def test_a_device_that_is_not_there(saved):
    with pytest.raises(InputError, match="device 'cuda:9' cannot be used here"):
        egochef.load(saved[0], device="cuda:9")
    with pytest.raises(InputError, match="device 'toaster'"):
        egochef.load(saved[0], device="toaster")
    with pytest.raises(InputError, match="precision is 'fp8'"):
        egochef.load(saved[0], precision="fp8")


def test_only_load_is_exported():
    with pytest.raises(AttributeError, match="no attribute 'lod'"):
        egochef.lod  # noqa: B018
