"""`egochef export`: a checkpoint out of PyTorch, as ONNX or Core ML, checked against the checkpoint on clips.

In: a checkpoint, and clips of a data folder or of a kitchen drawn for it. Out: the files, `PATH.json` with what the
check found, and `class_mappings.json`; all of them or none.
"""

import dataclasses
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from egochef.data.annotations import DataFolder, open_data_folder, read_split
from egochef.data.dataset import ClipDataset
from egochef.data.frames import open_frames
from egochef.deploy.agreement import TOLERANCES, Agreement, check, check_about, compare
from egochef.deploy.coreml_files import shrink, write_coreml
from egochef.deploy.onnx_files import halve, quantise, write_onnx
from egochef.deploy.source import Source, check_alone, open_source
from egochef.engines import coreml_engine, onnx_engine
from egochef.engines.coreml_engine import CoreMLClipEngine, CoreMLEngine
from egochef.engines.engine import ClipEngine, Engine
from egochef.engines.exported import ExportAbout, digests_of, pair_paths, report_of
from egochef.engines.mil import MilProgram, import_coremltools
from egochef.engines.onnx_engine import OnnxClipEngine, OnnxEngine, need_runtime
from egochef.errors import InputError
from egochef.files import staging, temporary_folder, write_json
from egochef.records import read_json
from egochef.stopping import StopSignals
from egochef.toykitchen import ToyConfig, draw_kitchen

log = logging.getLogger(__name__)

PRECISIONS = {"onnx": ("fp32", "fp16", "int8"), "coreml": ("fp16", "int8")}
"""format -> what it can be written in; the first is what is taken unless told otherwise"""
SUFFIXES = {"onnx": ".onnx", "coreml": ".mlpackage"}
PARTS = ("clip", "stream")
"""one file, or encoder and head"""
NUM_CHECKED = 8
"""clips that a written file is shown"""
NUM_CALIBRATED = 32
"""clips that int8 ranges are measured on"""
CLASS_MAPPINGS = "class_mappings.json"


@dataclass(frozen=True)
class ExportReport:
    """What an export found; written to `PATH.json`."""

    format: str
    parts: str
    precision: str
    checkpoint: str
    """sha256 of the checkpoint's file"""
    files: dict[str, int]
    """name -> bytes, all files of a package together"""
    sha256: dict[str, str]
    """name -> digest, checked when it is opened"""
    ran_on: str
    """what ran the saved files for the check"""
    clips: str
    """which clips were shown"""
    agreement: Agreement
    op_types: dict[str, list[str]]
    """name of a package -> operations by kind, for Core ML"""
    seconds: float
    """of the whole export"""


def export(
    checkpoint: Path,
    output: Path,
    *,
    format: str,
    parts: str = "clip",
    precision: str | None = None,
    data: Path | None = None,
    participants: Sequence[str] = (),
) -> ExportReport:
    """Write a checkpoint in another form, and check it.

    Args:
        checkpoint: a `.safetensors` file of ours, or a run's folder.
        output: `X.onnx` or `X.mlpackage`; of `stream` become `X-encoder` and `X-head` with that suffix.
        format: onnx or coreml.
        parts: clip or stream.
        precision: one of PRECISIONS[format], its first unless given.
        data: a data folder or store whose clips the check is made on, and int8 ranges measured. Without it a small
            kitchen is drawn for the check.
        participants: whose segments are taken; everybody's if empty.

    Raises:
        InputError: something that does not go together or is missing, outputs that exist, a place that cannot be
            written, or a written file that disagrees with its checkpoint. Nothing is left then.
    """
    started = time.perf_counter()
    precision = _checked(format, parts, precision, output)
    calibrates = format == "onnx" and precision == "int8"
    if participants and data is None:
        raise InputError("--participants without --data: there are no segments to choose from")
    if calibrates and data is None:
        raise InputError("int8 needs to see clips like those to come: --data with a data folder or store")
    targets = target_paths(output, parts)
    report_path = report_of(output)
    for path in (*targets.values(), report_path):
        if path.exists():
            raise InputError(f"{path}: exists. Remove it, or choose another --output.")
    if format == "coreml":
        import_coremltools()
    else:
        need_runtime("onnx")
    source = open_source(checkpoint)
    if parts == "stream":
        check_alone(source)
    if source.checkpoint.model.joint:
        if (format, precision) != ("onnx", "fp32"):
            raise InputError(
                "a joint head adds up many small probabilities, which needs float32: export it as ONNX in fp32"
            )
        log.info("verb and noun scores are written; the joint head's scores of actions are not")
    mappings = output.parent / CLASS_MAPPINGS
    _check_mappings(mappings, source)
    exact = PRECISIONS[format][0]
    with StopSignals() as stop, staging(output) as folder:
        clips, calibration, told = find_clips(source, data, participants, NUM_CALIBRATED if calibrates else 0)
        for part, target in targets.items():
            log.info("writing %s", target.name)
            (write_coreml if format == "coreml" else write_onnx)(source, part, folder / target.name)
            stop.raise_if_received()  # the converter swallows what is raised in it
        staged = [folder / target.name for target in targets.values()]
        if precision != exact:  # a fault of the export cannot hide behind the rounding
            check_files(source, folder / output.name, clips, parts=parts, precision=exact)
            for part, path in zip(targets, staged, strict=True):
                about = source.about(part, precision)
                if format == "coreml":
                    shrink(path, about)
                elif precision == "fp16":
                    halve(path, about)
                else:
                    log.info("measuring ranges on %d clips", len(calibration))
                    quantise(path, about, samples_of(source, part, calibration))
                stop.raise_if_received()
        log.info("checking against the checkpoint on %d clips", len(clips))
        written, agreement = check_files(source, folder / output.name, clips, parts=parts, precision=precision)
        _check_mappings(mappings, source)  # again: another export may have come first
        if not mappings.exists():
            write_json(folder / CLASS_MAPPINGS, class_mappings(source))
        report = ExportReport(
            format=format,
            parts=parts,
            precision=precision,
            checkpoint=source.sha256,
            files={path.name: size_of(path) for path in staged},
            sha256=digests_of(staged),
            ran_on=written.name,
            clips=told,
            agreement=agreement,
            op_types={path.name: sorted(set(MilProgram(path).op_types)) for path in staged if format == "coreml"},
            seconds=round(time.perf_counter() - started, 1),
        )
        write_json(folder / report_path.name, dataclasses.asdict(report))
    return report


def target_paths(output: Path, parts: str) -> dict[str, Path]:
    """Part -> the file or package that it becomes."""
    if parts == "clip":
        return {"clip": output}
    encoder, head = pair_paths(output)
    return {"encoder": encoder, "head": head}


def class_mappings(source: Source) -> dict[str, dict[str, str]]:
    """Class id -> name, of verbs and nouns."""
    taxonomy = source.engine.taxonomy
    return {
        kind: {str(place): name for place, name in enumerate(names)}
        for kind, names in (("verbs", taxonomy.verbs), ("nouns", taxonomy.nouns))
    }


def _check_mappings(path: Path, source: Source) -> None:
    """An existing file of class names beside the output must be the same."""
    if not path.exists():
        return
    try:
        found = read_json(path)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({error}). Remove it, or choose another folder.") from None
    if found != class_mappings(source):
        raise InputError(f"{path}: names other classes than the checkpoint. Choose an --output in another folder.")


def open_exported(path: Path) -> ClipEngine:
    """An exported file, package, or pair of them, in the runtime that it is for.

    Args:
        path: `X.onnx` or `X.mlpackage`: a file for whole clips; or, of a pair, what `--output` named or one of the two.

    Raises:
        InputError: no such file, not one of ours, damaged, or its runtime is not installed.
    """
    kinds: dict[str, tuple[Callable[[Path, Path], Engine], Callable[[Path], ClipEngine]]] = {
        ".onnx": (OnnxEngine, OnnxClipEngine),
        ".mlpackage": (CoreMLEngine, CoreMLClipEngine),
    }
    of_pair, of_clips = kinds[path.suffix]
    encoder, head = pair_paths(path)
    if path.exists() and path not in (encoder, head):
        return of_clips(path)
    missing = [part for part in (encoder, head) if not part.exists()]
    if missing:
        name = path if len(missing) == 2 else missing[0]
        kind = "file" if path.suffix == ".onnx" else "package"
        raise InputError(f"{name}: no such {kind}. Make it by egochef export.")
    return of_pair(encoder, head)


def check_files(
    source: Source, output: Path, clips: Tensor, *, parts: str, precision: str
) -> tuple[ClipEngine, Agreement]:
    """Run saved files on clips (B, T, S, S, 3) uint8 and compare them with the checkpoint.

    Returns:
        What ran them, and how alike the two are.

    Raises:
        InputError: they say something else of themselves than they should, or differ by more than their precision
            explains.
    """
    for part, path in target_paths(output, parts).items():
        check_about(source.about(part, precision), read_about(path), path)
    format = next(name for name, suffix in SUFFIXES.items() if suffix == output.suffix)
    written = open_exported(output)
    any_length = format == "onnx" or parts == "stream"
    agreement = compare(source.engine, written, clips, TOLERANCES[format, precision], any_length=any_length)
    check(agreement, output)
    return written, agreement


def find_clips(
    source: Source, data: Path | None, participants: Sequence[str], num_calibrated: int
) -> tuple[Tensor, Tensor, str]:
    """Clips to check on (B, T, S, S, 3) uint8, clips to calibrate on, and what to say of the former.

    Raises:
        InputError: the data folder or its videos cannot be read.
    """
    if data is None:
        with temporary_folder("export") as temporary:
            log.info("drawing a small kitchen to check on (--data takes your own)")
            config = ToyConfig(preset="small", num_segments=40, seed=11)
            root = draw_kitchen(temporary / "kitchen", config, num_workers=1)  # so that a script needs no guard
            clips = _read_clips(source, open_data_folder(root), "validation", NUM_CHECKED)
        return clips, torch.zeros(0), "of a kitchen drawn for it"
    folder = open_data_folder(data, participants)
    clips = _read_clips(source, folder, "validation", NUM_CHECKED)
    calibration = _read_clips(source, folder, "train", num_calibrated) if num_calibrated else torch.zeros(0)
    return clips, calibration, f"of the validation split of {data.resolve().name}"


def _read_clips(source: Source, folder: DataFolder, split: str, most: int) -> Tensor:
    """Clips (B, T, S, S, 3) uint8 of segments that lie evenly over a split."""
    segments = read_split(folder, split)
    places = sorted({round(place * (len(segments) - 1) / max(1, most - 1)) for place in range(most)})
    chosen = tuple(segments[place] for place in places)
    dataset = ClipDataset(chosen, open_frames(folder, chosen, source.engine.clip.grid), source.engine.clip)
    return torch.stack([dataset[0, place, place].frames for place in range(len(chosen))])


def _checked(format: str, parts: str, precision: str | None, output: Path) -> str:
    """The precision; what does not go together is refused."""
    if format not in PRECISIONS:
        raise InputError(f"format is {format!r}, expected one of {', '.join(PRECISIONS)}")
    if parts not in PARTS:
        raise InputError(f"parts is {parts!r}, expected one of {', '.join(PARTS)}")
    precision = precision or PRECISIONS[format][0]
    if precision not in PRECISIONS[format]:
        raise InputError(f"precision {precision!r} in {format}: expected one of {', '.join(PRECISIONS[format])}")
    if output.suffix != SUFFIXES[format]:
        raise InputError(f"{output}: the name of a file in {format} ends in {SUFFIXES[format]}")
    if output.stem.endswith(("-encoder", "-head")):
        raise InputError(f"{output}: names in -encoder and -head are those of a pair's parts. Choose another --output.")
    return precision


def samples_of(source: Source, part: str, clips: Tensor) -> Iterator[Tensor]:
    """What goes into a part, from clips (B, T, S, S, 3) uint8, one at a time."""
    for clip in clips:
        if part == "encoder":
            yield from clip[:, None]
        else:
            yield clip[None] if part == "clip" else source.engine.encode(clip[None])


def read_about(path: Path) -> ExportAbout:
    """The metadata of an exported file or package."""
    return (onnx_engine if path.suffix == ".onnx" else coreml_engine).read_about(path)


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files of a package."""
    return sum(each.stat().st_size for each in ([path] if path.is_file() else path.rglob("*")) if each.is_file())
