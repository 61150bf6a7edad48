"""A checkpoint in the runtime that suits the machine: torch, onnxruntime or OpenVINO.

What the other runtimes need is written once from the checkpoint, checked, and kept in the cache folder.
"""

import logging
import zlib
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from egochef.clip import ClipSpec
from egochef.data.sampling import centre_times
from egochef.data.transforms import eval_crop
from egochef.deploy.onnx_files import pair_at, quantise_encoder, quantise_head, write_onnx_pair
from egochef.engines.engine import Engine
from egochef.engines.onnx_engine import RUNTIMES, OnnxEngine, OnnxPair, has_runtime, read_about
from egochef.engines.torch_engine import load
from egochef.errors import InputError
from egochef.files import sha256_of
from egochef.model.checkpoint import checkpoint_file
from egochef.model.weights import cache_folder
from egochef.runtime import pick_device
from egochef.video.decode import decode_at, iter_frames, probe

log = logging.getLogger(__name__)

BACKENDS = ("auto", "torch", *RUNTIMES)
CALIBRATION_FRAMES = 128
"""frames of the calibration videos, together, that int8 ranges are measured on"""
FORMAT = 1
"""of what is kept in the cache folder"""


def load_engine(
    checkpoint: str | Path,
    *,
    backend: str = "auto",
    device: str | None = None,
    precision: str = "auto",
    calibrate: Sequence[Path] = (),
    compiled: bool = False,
) -> Engine:
    """Load a trained recogniser in a backend.

    Args:
        checkpoint: a `.safetensors` file of ours, or a run's folder (its best checkpoint).
        backend: `torch`, `onnx`, `openvino`; `auto` is onnxruntime for float32 on a processor if it is installed, else
            torch.
        device: for torch; the others run on the processor.
        precision: auto, fp32, bf16, fp16 (torch), int8 (onnx, openvino).
        calibrate: videos like those to come, for int8.
        compiled: with torch.compile (torch only).

    Raises:
        InputError: a runtime that is not installed, a combination that does not exist, or a checkpoint that cannot be
            loaded.
    """
    if backend not in BACKENDS:
        raise InputError(f"backend is {backend!r}, expected one of {', '.join(BACKENDS)}")
    if backend == "auto":
        backend = _best_backend(device, precision, compiled)
    if backend == "torch":
        if precision == "int8":
            raise InputError("int8 with torch: expected --backend onnx or openvino")
        return load(checkpoint, device=device, precision=precision, compiled=compiled)
    if compiled:
        raise InputError(f"torch.compile with backend {backend}: expected --backend torch")
    if device not in (None, "cpu"):
        raise InputError(f"device {device!r} with backend {backend}: it runs on the cpu. Use --backend torch.")
    if not has_runtime(backend):
        raise InputError(f'backend {backend!r} is not installed here: pip install "egochef[{backend}]"')
    pair = onnx_pair(Path(checkpoint))
    if precision == "int8":
        pair = _int8_pair(pair, calibrate, backend)
    return OnnxEngine(pair, backend=backend, precision="fp32" if precision in ("auto", "int8") else precision)


def _best_backend(device: str | None, precision: str, compiled: bool) -> str:
    on_cpu = pick_device(device).type == "cpu"
    if precision == "int8" or (on_cpu and precision in ("auto", "fp32") and not compiled and has_runtime("onnx")):
        return "onnx"
    return "torch"


def onnx_pair(checkpoint: Path) -> OnnxPair:
    """A checkpoint as ONNX in float32, from the cache folder; written and checked if it is not there yet.

    Raises:
        InputError: as `write_onnx_pair` and `checkpoint_file`.
    """
    sha256 = sha256_of(checkpoint_file(checkpoint))
    output = cache_folder() / "onnx" / f"{sha256[:24]}-{FORMAT}.onnx"
    pair = pair_at(output)
    if pair.encoder.is_file() and pair.head.is_file():
        return pair
    log.info("writing %s as ONNX, once", checkpoint)
    return write_onnx_pair(load(checkpoint, device="cpu", precision="fp32"), output, checkpoint=sha256)


def _int8_pair(pair: OnnxPair, videos: Sequence[Path], backend: str) -> OnnxPair:
    if not videos:
        raise InputError(
            "int8 needs to see pictures like those to come: --calibrate VIDEO ... (a minute of your camera will do)"
        )
    clip, _, _ = read_about(pair.encoder)
    crops = calibration_crops(videos, clip)
    output = pair.encoder.with_name(f"{pair.encoder.stem}-int8-{zlib.crc32(crops.numpy().tobytes()):08x}.onnx")
    if not output.is_file():
        log.info("quantising on %d frames of %s, once", len(crops), ", ".join(path.name for path in videos))
        quantise_encoder(pair, crops, output)
    quantised = OnnxPair(output, pair.head)
    if backend != "onnx":  # OpenVINO has no LSTM of eight bits
        return quantised
    head = pair.head.with_name(f"{pair.head.stem}-int8.onnx")
    return OnnxPair(output, head) if head.is_file() else quantise_head(quantised, head)


def calibration_crops(videos: Sequence[Path], clip: ClipSpec) -> Tensor:
    """Crops (N, S, S, 3) uint8 spread evenly over videos.

    Raises:
        VideoError: one cannot be read.
    """
    num_frames = max(1, CALIBRATION_FRAMES // len(videos))
    crops = []
    for path in videos:
        length_s = probe(path).duration_s or max(time_s for time_s, _ in iter_frames(path)) or 1.0
        crops.append(eval_crop(decode_at(path, centre_times(0.0, length_s, num_frames)).frames, clip))
    return torch.cat(crops)
