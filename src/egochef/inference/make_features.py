"""Makes a features folder (`features`): runs an encoder once over every clip and keeps what it saw.

In: an engine, segments and their frames. Out: a features folder. A view is written row after row under a temporary name
that becomes its own at the end, so that memory stays bounded and a run can be stopped at any moment and run again; the
bytes depend on data, settings and machine alone.
"""

import logging
import shutil
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import save_file

from egochef.data.annotations import ANNOTATION_FOLDERS, DataFolder, Segment, annotation_digests, copy_annotations
from egochef.data.dataset import ClipDataset, FailureCount, Key
from egochef.data.frames import Frames
from egochef.data.store import as_bytes, as_names
from egochef.data.transforms import Augment
from egochef.engines.torch_engine import TorchEngine
from egochef.errors import InputError
from egochef.files import atomic_path, check_is_new, crc32_of, sweep, write_json
from egochef.inference.features import (
    DTYPES,
    ENCODER_FILE,
    EVALUATION,
    FEATURES_FILE,
    HEADER_BYTES,
    TRAINING,
    FeaturesAbout,
    FeatureSpec,
    ViewAbout,
    is_features,
    read_about,
    read_index,
    segments_sha256,
    view_name,
    weights_sha256,
)
from egochef.inference.scoring import encode_batches
from egochef.model.checkpoint import MAX_VIEWS, write_tensors
from egochef.model.encoders import ENCODERS
from egochef.records import to_dict, to_flat_dict

log = logging.getLogger(__name__)

OTHERS = {
    "annotations": "from other annotation files",
    "segments_sha256": "of other segments",
    "spec.encoder_sha256": "with other weights of the encoder",
}
"""what differs -> how a folder was begun, where the values would say nothing"""
PRECISION_NAMES = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}

Source = tuple[tuple[Segment, ...], Frames]
"""segments, and where their frames come from"""


@dataclass(frozen=True)
class Made:
    """What a run of `make_features` did."""

    about: FeaturesAbout
    num_made: int
    """views made by this run"""


@dataclass(frozen=True)
class ViewJob:
    """A view to be made."""

    name: str
    """such as training/view-00"""
    dataset: ClipDataset
    keys: list[Key]
    title: str
    """of the progress bar"""


def feature_spec(
    engine: TorchEngine,
    augment: Augment,
    *,
    seed: int,
    dtype: str = "fp16",
    initial_weights: str,
    encoder_trained_on: tuple[str, ...] = (),
) -> FeatureSpec:
    """The spec of features that an engine makes; what mixes clips is left out of the augmentation."""
    return FeatureSpec(
        encoder=engine.recogniser.config.encoder,
        encoder_sha256=weights_sha256(engine.recogniser.encoder),
        initial_weights=initial_weights,
        encoder_trained_on=encoder_trained_on,
        clip=engine.clip,
        augment=replace(augment, cutmix_alpha=0.0, mixup_alpha=0.0),
        seed=seed,
        precision=PRECISION_NAMES[engine.dtype],
        dtype=dtype,
    )


def make_features(
    engine: TorchEngine,
    folder: DataFolder,
    out: Path,
    spec: FeatureSpec,
    to_learn: Source,
    to_judge: Source | None,
    *,
    num_views: int,
    num_workers: int | None = None,
) -> Made:
    """Make a features folder, or go on with one. A finished one keeps its views and gets those that are asked for.

    Args:
        spec: of `feature_spec` for this engine.
        to_learn: gets `num_views` jittered views a segment.
        to_judge: gets the evaluation clip; None: there is nothing to judge by.

    Raises:
        InputError: features of other data or settings in the folder, a full disk, too many samples that cannot be read,
            or values that the kept type has no room for.
    """
    if not 1 <= num_views <= MAX_VIEWS:
        raise InputError(f"{num_views} views of a segment: expected 1 to {MAX_VIEWS}")
    judged = to_judge[0] if to_judge else ()
    about = FeaturesAbout(
        spec=spec,
        num_features=ENCODERS[spec.encoder].num_features,
        annotations=annotation_digests(folder.annotations),
        participants=tuple(sorted(folder.participants)),
        segments_sha256=segments_sha256(to_learn[0], judged),
    )
    there = _start(engine, folder, out, about)
    jobs = list(_jobs(spec, to_learn, to_judge, max(num_views, there.num_views)))
    todo = [job for job in jobs if not _is_made(out, job, about)]
    _check_space(out, todo, about)
    failures = FailureCount()
    for job in todo:
        _make(engine, out, job, about, failures, num_workers)
    for video_id, count in failures.by_video.most_common():
        log.warning("%s: %d training samples could not be read and were replaced", video_id, count)
    about = replace(about, views=tuple(_view_about(out, job) for job in jobs))
    if about != there:
        write_json(out / FEATURES_FILE, to_dict(about))
    return Made(about, len(todo))


def _start(engine: TorchEngine, folder: DataFolder, out: Path, about: FeaturesAbout) -> FeaturesAbout:
    """The folder with what it is made from, and without what a run that was killed left half-written."""
    there = about
    if is_features(out):
        there = read_about(out)
        ours, theirs = to_flat_dict(replace(about, views=())), to_flat_dict(replace(there, views=()))
        if other := next((name for name in ours if ours[name] != theirs[name]), None):
            what = OTHERS.get(other) or f"with {other} {theirs[other]!r}, not {ours[other]!r}"
            raise InputError(
                f"{out / FEATURES_FILE}: the features were begun {what}. Choose another --out, or remove the folder."
            )
    else:
        check_is_new(out, "features folder")
    for place in (out, *(out / name for name in (ANNOTATION_FOLDERS[0], TRAINING, EVALUATION))):
        sweep(place, pattern=".*.part*", is_ours=True)
    if not is_features(out):
        write_json(out / FEATURES_FILE, to_dict(about))  # first: the folder is known as ours from now on
    copy_annotations(folder.annotations, out, about.participants)
    if not (out / ENCODER_FILE).is_file():
        weights = engine.recogniser.encoder.state_dict()
        tensors = {name: value.detach().cpu().contiguous() for name, value in weights.items()}
        write_tensors(out / ENCODER_FILE, tensors, {"encoder": about.spec.encoder})
    return there


def _jobs(spec: FeatureSpec, to_learn: Source, to_judge: Source | None, num_views: int) -> Iterator[ViewJob]:
    """The evaluation clips first: they are few, and what is wrong with the data shows early."""
    if to_judge:
        dataset = ClipDataset(*to_judge, spec.clip)
        keys: list[Key] = [(0, place, place) for place in range(len(dataset))]
        yield ViewJob(view_name(EVALUATION, 0), dataset, keys, "features for evaluation")
    dataset = ClipDataset(*to_learn, spec.clip, augment=spec.augment, seed=spec.seed)
    for view in range(num_views):
        keys = [(view, place, place) for place in range(len(dataset))]
        yield ViewJob(view_name(TRAINING, view), dataset, keys, f"features, view {view + 1}/{num_views}")


def _is_made(out: Path, job: ViewJob, about: FeaturesAbout) -> bool:
    """Whether a view is there, whole and of these segments; its index is written last."""
    path = out / f"{job.name}.npy"
    try:
        index = read_index(path.with_suffix(".safetensors"))
        whole = path.stat().st_size == HEADER_BYTES + len(job.keys) * _row_bytes(about)
        return whole and as_names(index["narration_id"]) == job.dataset.narration_id.tolist()
    except (OSError, InputError):
        return False


def _row_bytes(about: FeaturesAbout) -> int:
    return 2 * about.spec.clip.num_frames * about.num_features


def _check_space(out: Path, todo: list[ViewJob], about: FeaturesAbout) -> None:
    """Tell the size of what is to be made, and refuse what the disk has no room for."""
    needs = sum(len(job.keys) for job in todo) * _row_bytes(about)
    free = shutil.disk_usage(out).free
    if todo:
        log.info("features to be made: %d views, %.2f GB (free: %.1f GB)", len(todo), needs / 1e9, free / 1e9)
    if needs > free:
        raise InputError(
            f"{out}: needs {needs / 1e9:.1f} GB, the disk has {free / 1e9:.1f} GB free. Free space, choose another "
            "place, or fewer views."
        )


def _make(
    engine: TorchEngine,
    out: Path,
    job: ViewJob,
    about: FeaturesAbout,
    failures: FailureCount,
    num_workers: int | None,
) -> None:
    """Write a view, then its index."""
    path = out / f"{job.name}.npy"
    dtype, descr = DTYPES[about.spec.dtype]
    shape = (len(job.keys), about.spec.clip.num_frames, about.num_features)
    shown, crc32 = [], []
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        # Written one behind the other, not mapped: a full disk is then an error, not a crash.
        np.lib.format.write_array_header_1_0(file, {"descr": descr, "fortran_order": False, "shape": shape})
        assert file.tell() == HEADER_BYTES
        for batch, features in encode_batches(engine, job.dataset, job.keys, num_workers=num_workers, title=job.title):
            failures.add(batch)
            kept = features.to(dtype).cpu()
            if not kept.isfinite().all():
                raise InputError(_not_finite(features, job.dataset.narration_id[batch.segment], about.spec))
            rows = kept.flatten(1).view(torch.uint8).numpy()  # (B, row_bytes)
            file.write(rows.data)
            shown.append(batch.segment)
            crc32 += [zlib.crc32(row) for row in rows]
    shows = torch.cat(shown).numpy()
    arrays = {
        "narration_id": as_bytes(job.dataset.narration_id.tolist()),
        "shown": shows.astype(np.int32),
        "verb": job.dataset.verb[shows].astype(np.int32),
        "noun": job.dataset.noun[shows].astype(np.int32),
        "crc32": np.array(crc32, np.int64),
    }
    with atomic_path(path.with_suffix(".safetensors")) as temporary:
        save_file(arrays, temporary)


def _not_finite(features: torch.Tensor, narration_ids: np.ndarray, spec: FeatureSpec) -> str:
    """Why features (B, T, D) cannot be kept."""
    row = int((~features.to(DTYPES[spec.dtype][0]).isfinite()).flatten(1).any(1).int().argmax())
    name, largest = narration_ids[row], features[row].abs().max().item()
    if features.isfinite().all():
        return (
            f"segment {name} has features up to {largest:.3g}, which {spec.dtype} has no room for. Keep them as bf16."
        )
    return f"segment {name} has features that are not finite, computed in {spec.precision}; try --precision fp32"


def _view_about(out: Path, job: ViewJob) -> ViewAbout:
    path = out / f"{job.name}.npy"
    return ViewAbout(job.name, len(job.keys), path.stat().st_size, crc32_of(path.with_suffix(".safetensors")))
