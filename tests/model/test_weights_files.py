"""Other people's weights files: names written out here after each project's own modules, and what goes with them."""

import re
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from egochef.clip import IMAGENET_MEAN, IMAGENET_STD, ClipSpec
from egochef.errors import InputError
from egochef.model.checkpoint import load_checkpoint, save_checkpoint
from egochef.model.convert import convert_baseline
from egochef.model.encoders import build_encoder
from egochef.model.resnet import ResNet50
from egochef.model.weights import load_initial_weights
from egochef.model.weights_files import read_weights
from egochef.taxonomy import Taxonomy
from egochef.training.config import TrainConfig, with_encoder, with_init

EPIC = Taxonomy(tuple(f"v{n}" for n in range(97)), tuple(f"n{n}" for n in range(300)))
SAME = (0.485, 0.456, 0.406)
"""the means, and by mistake the stds too, that the published EK-100 baselines were trained with"""


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    """ResNet-50 in torchvision's names, with a classifier of 397 classes."""
    torch.manual_seed(3)
    network = ResNet50(num_classes=397)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.weight.data.uniform_(0.4, 0.8)
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    return network.state_dict()


@pytest.fixture(scope="module")
def flat(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same names and shapes, and in each tensor one number of its own: files of it are small."""
    return {
        name: torch.tensor((place + 1) / len(state)).expand(tensor.shape) if tensor.is_floating_point() else tensor
        for place, (name, tensor) in enumerate(state.items())
    }


def in_mmaction2(name: str, is_shifted: bool) -> str:
    """ConvModules hold `conv` and `bn`; TemporalShift holds the convolution that it shifts for as `net`."""
    if name.startswith("fc."):
        return f"cls_head.fc_cls.{name[3:]}"
    net = "net." if is_shifted else ""
    name = re.sub(r"downsample\.0\.", "downsample.conv.", name)
    name = re.sub(r"downsample\.1\.", "downsample.bn.", name)
    name = re.sub(r"(layer.*\.)conv1\.(?=weight)", rf"\1conv1.conv.{net}", name)
    name = re.sub(r"(layer.*\.)conv([23])\.(?=weight)", r"\1conv\2.conv.", name)
    name = re.sub(r"^conv1\.", "conv1.conv.", name)
    name = re.sub(r"\bbn([123])\.", r"conv\1.bn.", name)
    return f"backbone.{name}"


def in_tsm_code(name: str, is_shifted: bool) -> str:
    if name.startswith("fc."):
        return f"new_{name}"
    return "base_model." + (re.sub(r"(layer.*\.conv1\.)", r"\1net.", name) if is_shifted else name)


def save(path: Path, content: Any) -> Path:
    torch.save(content, path)
    return path


def epic_settings(**preprocessing: Any) -> dict[str, Any]:
    """As configs/tsm_rgb.yaml of the official baselines has them."""
    given = {"bgr": False, "rescale": True, "input_size": 224, "scale_size": 256, "mean": [*SAME], "std": [*SAME]}
    return {
        "modality": "RGB",
        "data": {
            "frame_count": 8,
            "segment_length": 1,
            "preprocessing": given | preprocessing,
            "test_augmentation": {"rescale_size": 256},
        },
        "model": {"type": "TSM", "backbone": "resnet50", "shift_div": 8},
    }


def epic_file(path: Path, state: dict[str, Tensor], is_shifted: bool = True, **preprocessing: Any) -> Path:
    """As Lightning writes it around the official baselines."""
    weights = {f"model.{in_tsm_code(name, is_shifted)}": tensor for name, tensor in state.items()}
    return save(
        path,
        {
            "epoch": 61,
            "global_step": 1234,
            "pytorch-lightning_version": "0.9.0",
            "state_dict": weights,
            "hyper_parameters": epic_settings(**preprocessing),
        },
    )


@pytest.mark.parametrize("is_shifted", [False, True])
@pytest.mark.parametrize(
    ("spelling", "wrapper", "prefix", "suffix", "kind"),
    [
        (in_mmaction2, "state_dict", "", ".pth", "MMAction2"),
        (in_tsm_code, "state_dict", "module.", ".pth.tar", "the original TSM code"),
    ],
)
def test_tsn_and_tsm_files_load(
    flat: dict[str, Tensor],
    tmp_path: Path,
    is_shifted: bool,
    spelling: Any,
    wrapper: str,
    prefix: str,
    suffix: str,
    kind: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    entries = {prefix + spelling(name, is_shifted): tensor for name, tensor in flat.items()}
    assert len(entries) == len(flat) and not set(entries) & set(flat)
    path = save(tmp_path / f"weights{suffix}", {wrapper: entries, "meta": {"epoch": 50}})
    file = read_weights(path)
    assert file.kind == f"{kind} ({'TSM' if is_shifted else 'TSN'})"
    assert file.shift == ("both" if is_shifted else "none")
    assert file.preprocessing is not None
    assert (file.preprocessing.mean, file.preprocessing.std) == (IMAGENET_MEAN, IMAGENET_STD)
    assert file.classifier is not None and torch.equal(file.classifier[0], flat["fc.weight"])
    encoder = build_encoder("resnet50_tsm")
    with caplog.at_level("INFO"):
        report = load_initial_weights(encoder, "resnet50_tsm", str(path))
    assert all(torch.equal(tensor, flat[name]) for name, tensor in encoder.state_dict().items())
    assert (report.num_loaded, len(report.unexpected)) == (318, 2)
    assert "318 of 318 tensors loaded; 2 entries have no place in it" in caplog.text
    assert ("was trained with temporal shift none, resnet50_tsm has both" in caplog.text) == (not is_shifted)


@pytest.mark.parametrize("is_shifted", [False, True])
def test_an_official_baseline_becomes_a_checkpoint(state: dict[str, Tensor], tmp_path: Path, is_shifted: bool) -> None:
    recogniser, about = convert_baseline(epic_file(tmp_path / "tsm_rgb.ckpt", state, is_shifted), EPIC)
    assert about.model.encoder == ("resnet50_tsm" if is_shifted else "resnet50")
    assert about.clip == ClipSpec(num_frames=8, image_size=224, resize_size=256, mean=SAME, std=SAME)
    assert about.initial_weights == "tsm_rgb.ckpt"
    frames = torch.randn(2, 4, 3, 64, 64)
    shift = "both" if is_shifted else "none"
    network = ResNet50(num_classes=397, shift=shift).eval()
    network.load_state_dict(state)
    with torch.no_grad():
        scores = network(frames.flatten(0, 1), 4).unflatten(0, (2, 4)).mean(1)  # TSN's consensus
        logits = recogniser(frames)
    scale = scores.abs().max().item()
    torch.testing.assert_close(logits.verb, scores[:, :97], rtol=0, atol=1e-5 * scale)
    torch.testing.assert_close(logits.noun, scores[:, 97:], rtol=0, atol=1e-5 * scale)
    path = tmp_path / "tsm.safetensors"
    save_checkpoint(path, recogniser, about)
    assert load_checkpoint(path)[1] == about
    again = read_weights(path)  # our own may be a start too
    assert (again.kind, again.shift) == ("an EgoChef checkpoint", shift)
    assert again.preprocessing is not None and again.preprocessing.std == SAME


def test_blue_first_and_pixel_values_up_to_255_are_undone(state: dict[str, Tensor], tmp_path: Path) -> None:
    """What the network sees is the same: (blue, green, red) in 0..255, minus 104, 117, 123."""
    path = epic_file(
        tmp_path / "x.ckpt", state, is_shifted=False, bgr=True, rescale=False, mean=[104, 117, 123], std=[1, 2, 4]
    )
    recogniser, about = convert_baseline(path, EPIC)
    network = ResNet50().eval()
    network.load_state_dict({name: tensor for name, tensor in state.items() if not name.startswith("fc")})
    pixels = torch.rand(1, 3, 64, 64)  # RGB in 0..1
    theirs = (255 * pixels.flip(1) - torch.tensor([104.0, 117, 123])[:, None, None]) / torch.tensor([1.0, 2, 4])[
        :, None, None
    ]
    mean, std = (torch.tensor(values)[:, None, None] for values in (about.clip.mean, about.clip.std))
    with torch.no_grad():
        expected = network(theirs)
        features = recogniser.encoder((pixels - mean) / std)
    torch.testing.assert_close(features, expected, rtol=1e-3, atol=1e-5 * expected.abs().max().item())


def test_what_the_user_says_goes_before_what_the_file_says(flat: dict[str, Tensor], tmp_path: Path) -> None:
    path = epic_file(tmp_path / "tsm.ckpt", flat, std=[0.229, 0.224, 0.225])
    assert convert_baseline(path, EPIC)[1].clip.std == IMAGENET_STD
    clip = convert_baseline(path, EPIC, std=SAME, num_frames=25)[1].clip
    assert (clip.std, clip.mean, clip.num_frames) == (SAME, SAME, 25)
    assert convert_baseline(path, EPIC, num_frames=64)[1].clip.grid.min_frames == 64
    with pytest.raises(InputError, match="num_frames is 0"):
        convert_baseline(path, EPIC, num_frames=0)


def test_preprocessing_goes_into_a_training_run(flat: dict[str, Tensor], tmp_path: Path) -> None:
    path = str(epic_file(tmp_path / "tsm.ckpt", flat))
    config = with_init(with_encoder(TrainConfig(), "resnet50_tsm"), path)
    assert (config.clip.mean, config.clip.std) == (SAME, SAME)
    assert (config.clip.num_frames, config.clip.resize_size) == (16, 256)  # the recipe's
    light = build_encoder("efficientnet_lite0").state_dict()
    back = with_init(config, "imagenet")
    assert (back.clip.mean, back.clip.std) == (IMAGENET_MEAN, IMAGENET_STD)
    assert with_encoder(config, "resnet50").clip.std == SAME, "it still starts from that file"
    own = with_init(with_encoder(TrainConfig(), "efficientnet_lite0_tsm"), str(save(tmp_path / "light.pth", light)))
    assert own.clip.mean == (0.498,) * 3


def test_objects_of_training_libraries_are_passed_over(
    flat: dict[str, Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Settings as omegaconf's, a callback's class as a key: nothing of them is made, and the weights load."""
    module = types.ModuleType("omegaconf.dictconfig")
    parts: dict[str, Any] = {"__module__": module.__name__, "__setstate__": lambda self, held: pytest.fail("was made")}
    config_type = type("DictConfig", (), parts)
    dict_type = type("ConfigDict", (dict,), {"__module__": module.__name__})
    module.DictConfig, module.ConfigDict = config_type, dict_type  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "omegaconf", types.ModuleType("omegaconf"))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    settings = config_type()
    settings._content = {"data": 1}
    content = {
        "state_dict": {f"module.{in_tsm_code(name, True)}": tensor for name, tensor in flat.items()},
        "hyper_parameters": settings,
        "callbacks": {config_type: {"best": 0.1}, "more": dict_type(a=1)},
    }
    path = save(tmp_path / "old.ckpt", content)
    monkeypatch.delitem(sys.modules, module.__name__)
    file = read_weights(path)
    assert file.kind == "the original TSM code (TSM)" and file.has_unread_settings
    with pytest.raises(InputError, match="Give --mean and --std"):
        convert_baseline(path, EPIC, std=SAME)
    assert convert_baseline(path, EPIC, mean=SAME, std=SAME)[1].clip.std == SAME
    assert torch.equal(file.entries["layer4.2.conv1.weight"], flat["layer4.2.conv1.weight"])


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"mean": [0.5, 0.5]}, "2 means and 3 stds"),
        ({"std": None}, "data of another kind than the official baselines'"),
        ({"input_size": "large"}, "data of another kind than the official baselines'"),
    ],
)
def test_settings_that_make_no_sense_are_told(
    flat: dict[str, Tensor], tmp_path: Path, change: dict[str, Any], match: str
) -> None:
    with pytest.raises(InputError, match=match):
        read_weights(epic_file(tmp_path / "tsm.ckpt", flat, **change))


def test_what_is_no_baseline_of_these_classes_is_told(flat: dict[str, Tensor], tmp_path: Path) -> None:
    kinetics = {f"module.{in_tsm_code(name, True)}": tensor for name, tensor in flat.items()}
    kinetics |= {"module.new_fc.weight": torch.zeros(400, 2048), "module.new_fc.bias": torch.zeros(400)}
    with pytest.raises(InputError, match=r"knows 400 classes, expected 397 \(97 verbs, then 300 nouns\).*--init"):
        convert_baseline(save(tmp_path / "kinetics.pth", {"state_dict": kinetics}), EPIC)
    with pytest.raises(InputError, match=r"nothing\.ckpt: cannot be read \(No such file\)"):
        convert_baseline(tmp_path / "nothing.ckpt", EPIC)
    encoder = {name: tensor for name, tensor in flat.items() if not name.startswith("fc")}
    with pytest.raises(InputError, match="has no last layer"):
        convert_baseline(save(tmp_path / "encoder.pth", encoder), EPIC)
    flow = flat | {"conv1.weight": torch.zeros(64, 10, 7, 7)}
    with pytest.raises(InputError, match=r"conv1\.weight is \(64, 10, 7, 7\), expected \(64, 3, 7, 7\)"):
        convert_baseline(epic_file(tmp_path / "flow.ckpt", flow), EPIC)
    wide = flat | {"fc.weight": torch.zeros(397, 256)}
    with pytest.raises(InputError, match=r"its last layer is \(397, 256\), expected \(397, 2048\)"):
        convert_baseline(epic_file(tmp_path / "trn.ckpt", wide), EPIC)


def test_what_fits_half_is_refused_by_name_unless_told_otherwise(
    flat: dict[str, Tensor], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    half = {
        name: tensor for name, tensor in flat.items() if not name.startswith("layer4") or name.endswith("2.bn3.bias")
    }
    path = str(save(tmp_path / "half.pth", half | {"layer3.5.conv2.weight": torch.zeros(8, 8, 3, 3)}))
    encoder = build_encoder("resnet50")
    before = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
    with pytest.raises(InputError) as caught:
        load_initial_weights(encoder, "resnet50", path)
    text = str(caught.value)
    missing = [name for name in before if name not in half and not name.endswith("num_batches_tracked")]
    assert "only in part, 258 of 318 tensors" in text and "--init-partial" in text
    assert "layer3.5.conv2.weight is (8, 8, 3, 3), expected (256, 256, 3, 3)" in text
    listed = text.split("All that do not fit: ")[1]
    assert all(name.rpartition(".")[0] in listed for name in missing) and "layer4.2.bn3 (weight, running" in listed
    assert all(torch.equal(tensor, before[name]) for name, tensor in encoder.state_dict().items())
    with caplog.at_level("WARNING"):
        report = load_initial_weights(encoder, "resnet50", path, partial=True)
    assert report.num_loaded == 258 and set(missing) < set(report.missing)
    assert "tensors stay random: layer3.5.conv2 (weight), layer4.0.conv1 (weight)" in caplog.text
    for name, tensor in encoder.state_dict().items():
        assert torch.equal(tensor, before[name] if name in report.missing else half[name]), name
    strange = str(save(tmp_path / "strange.pth", {"a.weight": torch.zeros(3, 3)}))
    with pytest.raises(InputError, match="not the weights of a resnet50"):
        load_initial_weights(encoder, "resnet50", strange, partial=True)


def test_a_network_with_another_shift_is_refused(flat: dict[str, Tensor], tmp_path: Path) -> None:
    path = epic_file(tmp_path / "tsm.ckpt", flat)
    content = torch.load(path, weights_only=True)
    content["hyper_parameters"]["model"]["shift_div"] = 4
    with pytest.raises(InputError, match="shift_div 4 and temporal_pool None, expected 8 and none"):
        read_weights(save(path, content))


def test_damaged_headers_are_told(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    for text, match in (("{", "not a whole safetensors file"), ("[1]", "damaged header")):
        path = tmp_path / "x.safetensors"
        save_file({"conv1.weight": torch.zeros(2)}, path, metadata={"egochef": text})
        with pytest.raises(InputError, match=match):
            read_weights(path)
