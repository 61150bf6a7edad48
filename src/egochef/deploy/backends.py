"""A checkpoint in the runtime that suits the machine: torch, onnxruntime or OpenVINO.

What the other runtimes need is written once from the checkpoint, checked, and kept in the cache folder.
"""

import dataclasses
import logging
import shutil
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from egochef.clip import ClipSpec
from egochef.data.annotations import DataFolder, Segment
from egochef.data.sampling import centre_times
from egochef.data.transforms import eval_crop
from egochef.deploy.agreement import TOLERANCES, check, compare
from egochef.deploy.export import SUFFIXES, open_exported
from egochef.deploy.export import read_about as read_export
from egochef.deploy.onnx_files import quantise, write_onnx
from egochef.deploy.source import check_alone, open_source
from egochef.engines.engine import ClipEngine, Engine
from egochef.engines.exported import ExportAbout, check_digest, digests_of, pair_paths, report_of
from egochef.engines.onnx_engine import RUNTIMES, OnnxEngine, has_runtime, need_runtime, read_about
from egochef.engines.torch_engine import load
from egochef.errors import InputError
from egochef.files import atomic_folder, sha256_of, write_json
from egochef.inference.scoring import score_split, seen_labels
from egochef.model.checkpoint import Checkpoint, checkpoint_file, read_checkpoint
from egochef.model.download import cache_folder, cache_is_named
from egochef.runtime import pick_device
from egochef.scoring.table import ScoreTable
from egochef.video.decode import decode_at, iter_frames, probe

log = logging.getLogger(__name__)

BACKENDS = ("auto", "torch", *RUNTIMES)
CALIBRATION_FRAMES = 128
"""frames of the calibration videos, together, that int8 ranges are measured on"""
EXPORTED = tuple(SUFFIXES.values())
"""how the names of exported files end"""
FORMAT = 4
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
        checkpoint: a `.safetensors` file of ours, or a run's folder (its best checkpoint); or an exported pair,
            which has a backend and a precision of its own.
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
    if Path(checkpoint).suffix in EXPORTED:
        if calibrate:
            raise InputError(f"{checkpoint}: has a precision of its own. Leave out --calibrate.")
        return _load_exported(Path(checkpoint), backend, device, precision, compiled)
    if backend not in BACKENDS:
        raise InputError(f"backend is {backend!r}, expected one of {', '.join(BACKENDS)}")
    if backend == "auto":
        backend = _best_backend(Path(checkpoint), device, precision, compiled)
    if backend == "torch":
        if precision == "int8":
            raise InputError("int8 with torch: expected --backend onnx or openvino")
        return load(checkpoint, device=device, precision=precision, compiled=compiled)
    if compiled:
        raise InputError(f"torch.compile with backend {backend}: expected --backend torch")
    if device not in (None, "cpu"):
        raise InputError(f"device {device!r} with backend {backend}: it runs on the cpu. Use --backend torch.")
    need_runtime(backend)
    pair = onnx_pair(Path(checkpoint))
    if precision == "int8" and read_checkpoint(checkpoint_file(Path(checkpoint))).model.joint:
        raise InputError("a joint head adds up many small probabilities, which eight bits do not hold. Use fp32.")
    if precision == "int8":
        pair = _int8_pair(pair, calibrate, backend)
    return OnnxEngine(*pair, backend=backend, precision="fp32" if precision in ("auto", "int8") else precision)


def _load_exported(path: Path, backend: str, device: str | None, precision: str, compiled: bool) -> Engine:
    if backend not in ("auto", "onnx" if path.suffix == ".onnx" else "auto") or compiled:
        raise InputError(f"{path}: was exported already. Leave out --backend and --compile.")
    engine = load_scorer(path, device=device, precision=precision)
    if not isinstance(engine, Engine):
        raise InputError(f"{path}: takes whole clips; a stream needs a pair. Export it by --parts stream.")
    return engine


def _best_backend(checkpoint: Path, device: str | None, precision: str, compiled: bool) -> str:
    on_cpu = pick_device(device).type == "cpu"
    is_shifted = read_checkpoint(checkpoint_file(checkpoint)).model.shift != "none"
    if is_shifted and precision != "int8":  # which only the others have
        return "torch"
    if precision == "int8" or (on_cpu and precision in ("auto", "fp32") and not compiled and has_runtime("onnx")):
        return "onnx"
    return "torch"


def load_scorer(checkpoint: Path, *, device: str | None = None, precision: str = "auto") -> ClipEngine:
    """What scores clips: a checkpoint with torch, or an exported file in the runtime that it is for.

    Args:
        checkpoint: a `.safetensors` file of ours or a run's folder; or `X.onnx` or `X.mlpackage`.
        device: for a checkpoint; an exported file runs on the processor.
        precision: for a checkpoint; an exported file has its own.

    Raises:
        InputError: as `load` and `open_exported`, or flags that an exported file does not take.
    """
    if checkpoint.suffix not in EXPORTED:
        return load(checkpoint, device=device, precision=precision)
    if device not in (None, "cpu") or precision != "auto":
        raise InputError(f"{checkpoint}: runs on the cpu in its own precision. Leave out --device and --precision.")
    return open_exported(checkpoint)


def origin_of(checkpoint: Path) -> Checkpoint | ExportAbout:
    """What a checkpoint or an exported file says of how it came about: `initial_weights`, `train_on`, `held_out`.

    Raises:
        InputError: no such file, or not one of ours.
    """
    if checkpoint.suffix not in EXPORTED:
        return read_checkpoint(checkpoint_file(checkpoint))
    encoder, _ = pair_paths(checkpoint)
    return read_export(checkpoint if checkpoint.exists() else encoder)


def score_checkpoint(
    checkpoint: Path,
    engine: ClipEngine,
    folder: DataFolder,
    split: str,
    segments: tuple[Segment, ...],
    *,
    num_views: int | None = None,
) -> ScoreTable:
    """Scores of a split's segments by a checkpoint, with what it says of having learned from their labels.

    Args:
        engine: the checkpoint, loaded by `load_scorer`.
        num_views: clips a segment; None: as the checkpoint tells.

    Raises:
        InputError: as `score_split`, naming the checkpoint.
    """
    num_views = views_of(checkpoint) if num_views is None else num_views
    table = score_split(engine, folder, split, segments, num_views=num_views, name=str(checkpoint))
    return dataclasses.replace(table, seen=seen_by(checkpoint, split, segments))


def seen_by(checkpoint: Path, split: str, segments: tuple[Segment, ...]) -> np.ndarray:
    """(S,) int8 for `ScoreTable.seen`, by what a checkpoint or an exported file says of itself.

    Raises:
        InputError: as `origin_of`.
    """
    origin = origin_of(checkpoint)
    return seen_labels(origin.train_on, origin.held_out, split, segments)


def views_of(checkpoint: Path) -> int:
    """Clips a segment that a checkpoint is to be scored with; an exported file does not tell, and has one."""
    return 1 if checkpoint.suffix in EXPORTED else read_checkpoint(checkpoint_file(checkpoint)).num_views


def onnx_pair(checkpoint: Path) -> tuple[Path, Path]:
    """Encoder and head of a checkpoint as ONNX in float32, from the cache folder; written and checked if not there yet.

    Raises:
        InputError: as `checkpoint_file`, or the written files disagree with the checkpoint.
    """
    sha256 = sha256_of(checkpoint_file(checkpoint))
    pair = pair_paths(cache_folder() / "onnx" / f"{sha256[:24]}-{FORMAT}" / "model.onnx")

    def write(encoder: Path, head: Path) -> None:
        log.info("writing %s as ONNX, once", checkpoint)
        source = open_source(checkpoint)
        check_alone(source)
        write_onnx(source, "encoder", encoder)
        write_onnx(source, "head", head)
        clip = source.engine.clip
        shape = (2, clip.num_frames, clip.image_size, clip.image_size, 3)
        noise = torch.from_numpy(np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8))
        tolerance = TOLERANCES["onnx", "fp32"]
        check(compare(source.engine, OnnxEngine(encoder, head), noise, tolerance, any_length=True), pair[0])

    _write_once(pair, write)
    return pair


def _write_once(files: Sequence[Path], write: Callable[..., None]) -> None:
    """Fill a folder of the cache with these files, unless they lie there, whole.

    Of several processes that do so at the same time the first one's stay.
    """
    folder = files[0].parent
    with cache_is_named():
        if _are_kept(files):
            return
        try:
            with atomic_folder(folder) as place:
                staged = [place / file.name for file in files]
                write(*staged)
                write_json(report_of(staged[0]), {"sha256": digests_of(staged)})
        except (InputError, OSError):
            if not _are_kept(files):  # else another one was quicker, and its files are as good
                raise


def _are_kept(files: Sequence[Path]) -> bool:
    """Whether files lie in the cache, whole; their folder goes away where they are damaged."""
    folder = files[0].parent
    if not folder.exists():
        return False
    try:
        for file in files:
            check_digest(file)
        if all(file.is_file() for file in (*files, report_of(files[0]))):
            return True
    except InputError as error:
        log.warning("%s It is written again.", error)
    shutil.rmtree(folder, ignore_errors=True)  # another one may do the same
    return False


def _int8_pair(pair: tuple[Path, Path], videos: Sequence[Path], backend: str) -> tuple[Path, Path]:
    if not videos:
        raise InputError(
            "int8 needs to see pictures like those to come: --calibrate VIDEO ... (a minute of your camera will do)"
        )
    encoder, head = pair
    about = read_about(encoder)
    crops = calibration_crops(videos, about.clip)
    seen = f"{zlib.crc32(crops.numpy().tobytes()):08x}"
    output = encoder.parent.with_name(f"{encoder.parent.name}-int8-{seen}") / encoder.name

    def quantise_encoder(path: Path) -> None:
        log.info("quantising on %d frames of %s, once", len(crops), ", ".join(path.name for path in videos))
        _write_int8(encoder, path, about, iter(crops[:, None]))

    _write_once([output], quantise_encoder)
    if backend != "onnx" or about.temporal != "bilstm":  # OpenVINO has no LSTM of eight bits
        return output, head
    small_head = head.parent.with_name(f"{head.parent.name}-int8") / head.name
    _write_once([small_head], lambda path: _write_int8(head, path, read_about(head), iter(())))
    return output, small_head


def _write_int8(path: Path, output: Path, about: ExportAbout, samples: Iterator[Tensor]) -> None:
    shutil.copyfile(path, output)
    quantise(output, dataclasses.replace(about, precision="int8"), samples)


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
