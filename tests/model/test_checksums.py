"""Every file of weights of ours notices a flipped bit, wherever it is read; files of before checksums still load."""

import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from egochef.clip import ClipSpec
from egochef.data.transforms import Augment
from egochef.errors import InputError
from egochef.inference.features import ENCODER_FILE, FeatureSpec, load_encoder, weights_sha256
from egochef.model.checkpoint import Checkpoint, load_checkpoint, read_tensors, save_checkpoint, write_tensors
from egochef.model.recogniser import ModelConfig, Recogniser
from egochef.model.weights_files import read_weights
from egochef.taxonomy import Taxonomy

DAMAGED = "damaged: its tensors do not match their checksum"


@pytest.fixture(scope="module")
def recogniser():
    torch.manual_seed(0)
    config = ModelConfig(
        "efficientnet_lite0", hidden_size=8, num_verbs=3, num_nouns=4, joint=True, action_ids=(0, 1001, 2003)
    )
    return Recogniser(config).eval()


@pytest.fixture(scope="module")
def content(recogniser, tmp_path_factory):
    path = tmp_path_factory.mktemp("checksums") / "best.safetensors"
    taxonomy = Taxonomy(("a", "b", "c"), ("w", "x", "y", "z"))
    save_checkpoint(path, recogniser, Checkpoint(recogniser.config, ClipSpec(), taxonomy, "toy", "none"))
    return path.read_bytes()


def _flipped(content, place, bit=0):
    return content[:place] + bytes([content[place] ^ 1 << bit]) + content[place + 1 :]


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 1.0])
def test_a_flipped_bit_of_a_weight(content, share, tmp_path):
    start = 8 + int.from_bytes(content[:8], "little")
    path = tmp_path / "best.safetensors"
    path.write_bytes(_flipped(content, start + int(share * (len(content) - 1 - start)), 6))
    for read in (load_checkpoint, read_tensors, read_weights):
        with pytest.raises(InputError, match=f"{path}: {DAMAGED}"):
            read(path)


@pytest.mark.parametrize("words", [b"0.485", b"resize_size", b"temporal.lstm.0.weight_ih_l0"])
def test_a_flipped_bit_of_the_header(content, words, tmp_path):
    path = tmp_path / "best.safetensors"
    path.write_bytes(_flipped(content, content.index(words) + len(words) - 1))
    with pytest.raises(InputError, match=DAMAGED):
        load_checkpoint(path)


def test_what_is_loaded_is_the_same_and_draws_nothing(content, recogniser, tmp_path):
    path = tmp_path / "best.safetensors"
    path.write_bytes(content)
    before = torch.get_rng_state()
    loaded, _ = load_checkpoint(path)
    assert torch.equal(torch.get_rng_state(), before)
    path.write_bytes(bytes(len(content)))  # it hangs on the file no more
    features = torch.rand(2, 5, 1280)
    with torch.no_grad():
        for ours, theirs in zip(loaded.classify(features), recogniser.classify(features), strict=True):
            assert torch.equal(ours, theirs)
    assert [parameter.requires_grad for parameter in loaded.parameters()] == [
        parameter.requires_grad for parameter in recogniser.parameters()
    ]


def test_a_file_without_a_checksum(content, recogniser, tmp_path):
    path, old = tmp_path / "new.safetensors", tmp_path / "old.safetensors"
    path.write_bytes(content)
    with safe_open(path, framework="pt") as file:
        header = json.loads(file.metadata()["egochef"])
    assert isinstance(header.pop("crc32"), int)
    save_file(recogniser.state_dict(), old, metadata={"egochef": json.dumps(header)})
    assert load_checkpoint(old)[1] == load_checkpoint(path)[1]
    assert read_weights(old).about == read_weights(path).about
    assert read_tensors(old)[1] == read_tensors(path)[1] == header


def test_the_encoder_of_kept_features(recogniser, tmp_path):
    encoder = recogniser.encoder
    spec = FeatureSpec(
        encoder="efficientnet_lite0",
        encoder_sha256=weights_sha256(encoder),
        initial_weights="none",
        encoder_trained_on=(),
        clip=ClipSpec(),
        augment=Augment(cutmix_alpha=0.0),
        seed=0,
        precision="fp32",
    )
    path = tmp_path / ENCODER_FILE
    write_tensors(path, encoder.state_dict(), {"encoder": spec.encoder})
    load_encoder(tmp_path, encoder, spec)
    path.write_bytes(_flipped(path.read_bytes(), path.stat().st_size // 2))
    with pytest.raises(InputError, match=DAMAGED):
        load_encoder(tmp_path, encoder, spec)
    with pytest.raises(InputError, match=DAMAGED):
        read_weights(path)


def test_tensors_of_any_kind(tmp_path):
    kinds = {
        "none": torch.zeros(0, 3),
        "one": torch.tensor(3.0),
        "bits": torch.tensor([True, False]),
        "short": torch.ones(3, dtype=torch.bfloat16),
    }
    write_tensors(tmp_path / "x.safetensors", kinds, {"é": [1, 2.5, None]})
    tensors, header = read_tensors(tmp_path / "x.safetensors")
    assert header == {"é": [1, 2.5, None]} and all(torch.equal(tensors[name], kinds[name]) for name in kinds)
