"""Reads other people's weights files: tensors under our names, and the preprocessing that they were trained with.

In: a .pth, .pt, .ckpt, .pth.tar or .safetensors file. Out: a `WeightsFile`. Nothing that a file holds is ever run.

Known are torchvision's ResNet-50; TSN and TSM ResNet-50 of MMAction2 (`backbone.layer1.0.conv1.conv.net.weight`) and of
the original TSM code (`module.base_model.layer1.0.conv1.net.weight`), whatever they were trained on; the official
EK-100 baselines, the latter in a Lightning checkpoint with their settings; the published EfficientNet-Lite0; our own.
"""

import re
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from egochef.clip import IMAGENET_MEAN, IMAGENET_STD, ClipSpec
from egochef.errors import InputError
from egochef.model.checkpoint import Checkpoint, check_tensors, header_in, read_about
from egochef.model.shift import SHARE
from egochef.torch_files import NeedsCodeError, TooLargeError, load_torch_file

SUFFIXES = (".pth", ".pt", ".ckpt", ".tar", ".safetensors")
WRAPPERS = ("state_dict", "model")
"""keys under which training scripts put the weights"""
PREFIXES = ("module.", "_orig_mod.", "model.", "encoder.", "backbone.", "base_model.")
"""what wrappers put before a tensor's name; any number of them, in any order"""
MAX_NAME = 1000
"""letters of a tensor's name"""
SETTINGS = "hyper_parameters"
"""key under which Lightning puts a run's settings"""
IGNORED_LIBRARIES = ("omegaconf.", "pytorch_lightning.", "lightning.", "lightning_fabric.", "mmengine.", "mmcv.")
IGNORED_NAMES = (
    "typing.Any",
    "collections.defaultdict",
    *(f"builtins.{name}" for name in ("dict", "list", "int", "str")),
)
"""what stands beside the weights in training libraries' checkpoints; empty objects take its place"""
CLASSIFIERS = ("new_fc", "fc", "cls_head.fc_cls")
"""last layer: the original TSM code's, torchvision's, MMAction2's"""

MMACTION2 = (
    (r"\.conv\.net\.", ".conv."),  # the convolution behind a shift
    (r"^(conv|(.*\.)conv)(\d)\.conv\.", r"\1\3."),
    (r"^((.*\.)?)conv(\d)\.bn\.", r"\1bn\3."),
    (r"\.downsample\.conv\.", ".downsample.0."),
    (r"\.downsample\.bn\.", ".downsample.1."),
)
"""MMAction2's names -> torchvision's, as patterns for re.sub"""
TSM_CODE = ((r"\.net\.", "."),)
"""the original TSM code's names -> torchvision's"""
LITE0 = (
    (r"^_conv_stem\.", "stem_conv."),
    (r"^_bn0\.", "stem_bn."),
    (r"^_conv_head\.", "head_conv."),
    (r"^_bn1\.", "head_bn."),
    (r"^_fc\.", "fc."),
    (r"^_blocks\.", "blocks."),
    (r"\._(expand|depthwise|project)_conv\.", r".\1_conv."),
    (r"\._bn0\.", ".expand_bn."),
    (r"\._bn1\.", ".depthwise_bn."),
    (r"\._bn2\.", ".project_bn."),
)
"""the published EfficientNet-Lite0 file's names -> ours"""


@dataclass(frozen=True)
class Preprocessing:
    """What a network's frames went through while it was trained; None: the file does not tell."""

    mean: tuple[float, float, float]
    """per channel (R, G, B), of pixel values in 0..1"""
    std: tuple[float, float, float]
    resize_size: int | None = None
    """the frame's shorter side before the centre crop, pixels"""
    image_size: int | None = None
    num_frames: int | None = None
    bgr: bool = False
    """the network wants its channels the other way round; its first convolution was turned when it was read"""

    def of_clips(self, clip: ClipSpec) -> ClipSpec:
        """The clips with these means and stds; sizes and frames stay."""
        return replace(clip, mean=self.mean, std=self.std)


IMAGENET = Preprocessing(IMAGENET_MEAN, IMAGENET_STD)


@dataclass(frozen=True, eq=False)
class WeightsFile:
    """A weights file, read."""

    path: Path
    kind: str
    """for people: whose names it has"""
    entries: Mapping[str, Any]
    """by our encoder's names; whatever else there is by its own"""
    preprocessing: Preprocessing | None
    """None: as the encoder's ImageNet weights have it"""
    shift: str | None
    """the temporal shift it was trained with, of `model.shift.SHIFTS`; None: the names do not tell"""
    about: Checkpoint | None = None
    """what a checkpoint of ours says of itself"""
    has_unread_settings: bool = False
    """settings of a training library lie beside the weights, in a form that cannot be read without running it"""

    @property
    def classifier(self) -> tuple[Tensor, Tensor] | None:
        """Weight (classes, D) and bias (classes,) of the last layer, where there is one."""
        for name in CLASSIFIERS:
            weight, bias = self.entries.get(f"{name}.weight"), self.entries.get(f"{name}.bias")
            if isinstance(weight, Tensor) and isinstance(bias, Tensor) and weight.dim() == 2:
                return weight, bias
        return None


def read_weights(path: Path) -> WeightsFile:
    """Read a file and bring its tensors under our names.

    Raises:
        InputError: an unknown suffix, a damaged file, one that would run code, one without entries by name, one that
            holds a tensor twice, or settings that make no sense.
    """
    path = Path(path)
    if path.suffix not in SUFFIXES:
        raise InputError(f"{path}: unknown kind of weights file, expected {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}")
    if not path.is_file():
        raise InputError(f"{path}: cannot be read (No such file). Give a weights file.")
    settings: Any = None
    about = None
    if path.suffix == ".safetensors":
        raw, about = _read_safetensors(path)
        kind, preprocessing, shift = "safetensors", None, None
        if about:
            clip = about.clip
            preprocessing = Preprocessing(clip.mean, clip.std, clip.resize_size, clip.image_size, clip.num_frames)
            kind, shift = "an EgoChef checkpoint", about.model.shift
    else:
        content = _unpickle(path)
        settings = content.get(SETTINGS) if isinstance(content, dict) else None
        raw = _unwrap(content, path)
        preprocessing, shift, kind = None, None, "a state dict in torchvision's or our names"
    names = list(raw)
    if any(".net." in name for name in names):
        shift = "both"
    spellings: tuple[tuple[str, str], ...] = ()
    if any(re.search(r"^(_blocks|.*\._blocks)\.", name) for name in names):
        spellings, kind = LITE0, "the published EfficientNet-Lite0"
    elif any(name.endswith("conv1.conv.weight") for name in names):
        spellings, kind = MMACTION2, f"MMAction2 ({'TSM' if shift else 'TSN'})"
        preprocessing = IMAGENET
    elif any("base_model." in name for name in names):
        spellings, kind = TSM_CODE, f"the original TSM code ({'TSM' if shift else 'TSN'})"
        preprocessing = IMAGENET
    if shift is None and spellings in (MMACTION2, TSM_CODE):
        shift = "none"
    entries = _rename(raw, spellings, path)
    if isinstance(settings, dict) and isinstance(settings.get("data"), dict):
        preprocessing = _settings_of_epic(settings, path)
        kind = f"an EPIC-KITCHENS-100 baseline ({'TSM' if shift == 'both' else 'TSN'})"
        first = entries.get("conv1.weight")
        if preprocessing.bgr and isinstance(first, Tensor) and first.dim() == 4 and first.shape[1] == 3:
            entries["conv1.weight"] = first.flip(1)  # for RGB
    unread = settings is not None and type(settings) is not dict  # an object, or what stands in its place
    return WeightsFile(path, kind, entries, preprocessing, shift, about, unread)


def _read_safetensors(path: Path) -> tuple[dict[str, Any], Checkpoint | None]:
    try:
        with safe_open(path, framework="pt") as file:
            raw = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  not a dict
            metadata = file.metadata() or {}
        header = header_in(path, metadata) if "egochef" in metadata else {}
        check_tensors(path, raw, header)
    except InputError:
        raise
    except (SafetensorError, OSError, ValueError) as error:
        raise InputError(f"{path}: not a whole safetensors file ({error}). Is it cut off? Take another copy.") from None
    # The encoder of kept features has a header too, and no clip in it.
    return raw, read_about(path, header) if "clip" in header else None


def _unpickle(path: Path) -> Any:
    reason = "not a whole PyTorch weights file; it is cut off, or of another kind"
    for stand_in in (_Ignored, OrderedDict):  # the latter where they are dicts
        try:
            return load_torch_file(path, partial(_stand_in, stand_in))
        except NeedsCodeError as error:
            reason = f"refused: it holds more than weights ({error}), and reading that could run code"
            break
        except TooLargeError as error:
            reason = f"refused: {error}"
            break
        except Exception:  # of a damaged file PyTorch raises nearly anything
            continue
    raise InputError(f"{path}: {reason}. Give a file that holds a state dict alone, or a .safetensors file.")


def _stand_in(taken: type, name: str) -> type | None:
    """What is built for a name: `taken` for what is a training library's."""
    return taken if name.startswith(IGNORED_LIBRARIES) or name in IGNORED_NAMES else None


class _Ignored:
    """Stands where a file has an object of a training library, and does nothing."""

    def __init__(self, *args: object):
        pass

    def __setstate__(self, state: object) -> None:
        pass


def _unwrap(content: Any, path: Path) -> dict[str, Any]:
    for wrapper in (*WRAPPERS, *WRAPPERS):  # one within the other, either way round
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
            content = content[wrapper]
    if not isinstance(content, dict) or not content:
        raise InputError(f"{path}: holds {type(content).__name__} data, expected a state dict (tensors by name)")
    return {str(name): value for name, value in content.items()}


def _rename(raw: Mapping[str, Any], spellings: tuple[tuple[str, str], ...], path: Path) -> dict[str, Any]:
    """The same entries without wrappers' prefixes, in our spelling."""
    renamed: dict[str, Any] = {}
    for name, value in raw.items():
        if len(name) > MAX_NAME:
            raise InputError(f"{path}: a name in it has {len(name):,} letters, expected a state dict (tensors by name)")
        own = name
        while (prefix := next((prefix for prefix in PREFIXES if own.startswith(prefix)), None)) is not None:
            own = own.removeprefix(prefix)
        for pattern, replacement in spellings:
            own = re.sub(pattern, replacement, own)
        if own in renamed:
            raise InputError(f"{path}: holds {own} twice (once as {name}). Give a file with one encoder's weights.")
        renamed[own] = value
    return renamed


def _settings_of_epic(settings: Mapping[str, Any], path: Path) -> Preprocessing:
    """From the official baselines' settings (configs/*.yaml of C1-Action-Recognition-TSN-TRN-TSM)."""
    data, network = settings["data"], settings.get("model")
    if isinstance(network, dict) and (network.get("shift_div", SHARE) != SHARE or network.get("temporal_pool")):
        raise InputError(
            f"{path}: a network with shift_div {network.get('shift_div')!r:.60} and temporal_pool "
            f"{network.get('temporal_pool')!r:.60}, expected {SHARE} and none, as the published ones have"
        )
    try:
        given = data["preprocessing"]
        scale = 1.0 if given.get("rescale", True) else 255.0  # pixel values went in as 0..255
        bgr = bool(given.get("bgr", False))
        mean, std = ([float(x) / scale for x in given[name]] for name in ("mean", "std"))
        if len(mean) != 3 or len(std) != 3:
            raise ValueError(f"{len(mean)} means and {len(std)} stds")
        if bgr:
            mean, std = mean[::-1], std[::-1]
        return Preprocessing(
            mean=(mean[0], mean[1], mean[2]),
            std=(std[0], std[1], std[2]),
            resize_size=int(data.get("test_augmentation", {}).get("rescale_size", given["scale_size"])),
            image_size=int(given["input_size"]),
            num_frames=int(data["frame_count"]),
            bgr=bgr,
        )
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise InputError(
            f"{path}: its {SETTINGS} have data of another kind than the official baselines' ({error!r:.200}). Give a "
            "file that holds a state dict alone."
        ) from None
