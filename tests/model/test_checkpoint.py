"""A checkpoint gives back what was saved, or one clear error."""

import pickle
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

from egochef.clip import ClipSpec
from egochef.errors import InputError
from egochef.model.checkpoint import Checkpoint, load_checkpoint, read_tensors, save_checkpoint, write_tensors
from egochef.model.recogniser import ModelConfig, Recogniser
from egochef.taxonomy import Taxonomy


@pytest.fixture(scope="module")
def recogniser():
    torch.manual_seed(0)
    return Recogniser(ModelConfig("efficientnet_lite0", hidden_size=8, num_verbs=3, num_nouns=4))


@pytest.fixture(scope="module")
def about(recogniser):
    taxonomy = Taxonomy(("a", "b", "c"), ("w", "x", "y", "z"))
    clip = ClipSpec(num_frames=5, image_size=96, resize_size=128)
    return Checkpoint(recogniser.config, clip, taxonomy, "toy", "imagenet", scores={"all_verb_accuracy_at_1": 12.5})


@pytest.fixture
def saved(tmp_path, recogniser, about):
    path = tmp_path / "checkpoints" / "best.safetensors"
    save_checkpoint(path, recogniser, about)
    return path


def test_round_trip(saved, recogniser, about):
    loaded, said = load_checkpoint(saved)
    assert said == about
    assert not loaded.training
    for name, tensor in recogniser.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor)


def test_a_run_folder_means_its_best(saved, about):
    assert load_checkpoint(saved.parent.parent)[1] == about


@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.999])
def test_cut_off(saved, share):
    content = saved.read_bytes()
    saved.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(InputError, match=r"best.safetensors: not a whole safetensors checkpoint"):
        load_checkpoint(saved)


def test_not_ours(tmp_path, recogniser):
    path = tmp_path / "weights.safetensors"
    save_file({"weight": torch.zeros(3)}, path)
    with pytest.raises(InputError, match="not one of EgoChef's"):
        load_checkpoint(path)


def test_a_pickle_is_not_run(tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    path = tmp_path / "best.pth"
    path.write_bytes(pickle.dumps(Evil()))
    with pytest.raises(InputError, match="not a whole safetensors checkpoint"):
        load_checkpoint(path)
    torch.save(Evil(), path)
    with pytest.raises(InputError, match="not a whole safetensors checkpoint"):
        load_checkpoint(path)
    assert not (tmp_path / "ran").exists()


def test_of_another_shape(saved):
    tensors, header = read_tensors(saved)
    header["model"]["hidden_size"] = 16
    write_tensors(saved, tensors, header)
    with pytest.raises(InputError, match=r"tensor temporal.lstm.\S+ is \(.*\), its config asks for"):
        load_checkpoint(saved)


def test_missing_and_surplus_tensors(saved):
    tensors, header = read_tensors(saved)
    bias = tensors.pop("verb_head.bias")
    write_tensors(saved, tensors, header)
    with pytest.raises(InputError, match="tensor verb_head.bias is nothing"):
        load_checkpoint(saved)
    write_tensors(saved, tensors | {"verb_head.bias": bias, "extra": bias.clone()}, header)
    with pytest.raises(InputError, match="tensor 'extra' does not belong"):
        load_checkpoint(saved)


def test_damaged_headers(saved):
    tensors, header = read_tensors(saved)
    for change, message in (
        ({"format": 99}, "checkpoint format 99"),
        ({"clip": {"num_frames": 0}}, "num_frames is 0"),
        ({"verbs": ["a"]}, "1 verb and 4 noun names"),
    ):
        write_tensors(saved, tensors, header | change)
        with pytest.raises(InputError, match=message):
            load_checkpoint(saved)
    write_tensors(saved, tensors, {name: value for name, value in header.items() if name != "nouns"})
    with pytest.raises(InputError, match="damaged header"):
        load_checkpoint(saved)


def test_nothing_there(tmp_path):
    with pytest.raises(InputError, match="no such checkpoint"):
        load_checkpoint(tmp_path / "none.safetensors")
    with pytest.raises(InputError, match="Train first"):
        load_checkpoint(tmp_path)


def test_names_and_heads_agree(about):
    with pytest.raises(InputError, match="3 verb and 4 noun names for a model of 97 and 300"):
        replace(about, model=ModelConfig())
