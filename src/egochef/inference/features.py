"""The features folder: what an encoder saw of segments, kept, so that all that follows it trains without pictures.

    F/features.json                     what it was made from, with which settings, and what is in it
    F/epic-kitchens-100-annotations/    the annotation files, as they were
    F/encoder.safetensors               the encoder's weights
    F/training/view-00.npy              (S, T, D) of one jittered clip of every segment to learn from
    F/training/view-00.safetensors      whose they are (the arrays of `INDEX`)
    F/evaluation/view-00.npy            (S, T, D) of the evaluation clip of every segment to judge by
    F/evaluation/view-00.safetensors

A .npy file holds float16, or the bits of bfloat16 as uint16 (numpy has no bfloat16). Rows are read from the file when
they are asked for, never mapped: memory stays what a batch takes, and a file that is cut off is an error, not a crash.
Sizes are checked on opening, a row's CRC-32 when it is read for the first time: 20 GB are not read before the start.
"""

import hashlib
import json
import os
import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file
from torch import Tensor, nn

from egochef import records
from egochef.clip import ClipSpec
from egochef.data.annotations import Segment, check_annotations_kept
from egochef.data.store import as_names
from egochef.data.transforms import Augment
from egochef.errors import InputError
from egochef.files import check_is_file, crc32_of
from egochef.model.checkpoint import read_tensors
from egochef.records import check_bounds, shown

FORMAT = "egochef-features"
VERSION = 1
FEATURES_FILE = "features.json"
ENCODER_FILE = "encoder.safetensors"
TRAINING, EVALUATION = "training", "evaluation"
DTYPES = {"fp16": (torch.float16, "<f2"), "bf16": (torch.bfloat16, "<u2")}
"""what features are kept in -> (torch's type, what numpy calls it in the file)"""
HEADER_BYTES = 128
"""of a .npy file, before its values"""
MEND = "Remove it and make the features again: only what is missing is made."

INDEX = {
    "narration_id": "(S, W) uint8, ASCII, filled with zeros: the segment that a row is for",
    "shown": "(S,) int32, the row of the segment whose clip it is: another one's where its own could not be read",
    "verb": "(S,) int32, class id of the clip that it is, -1 without labels",
    "noun": "(S,) int32",
    "crc32": "(S,) int64, of a row's bytes",
}


@dataclass(frozen=True)
class FeatureSpec:
    """What decides every value of a features folder, beside the segments."""

    encoder: str
    """name in `ENCODERS`"""
    encoder_sha256: str
    """of its weights, by `weights_sha256`"""
    initial_weights: str
    """what the encoder started from: `imagenet`, or a file's name"""
    encoder_trained_on: tuple[str, ...]
    """splits whose labels the encoder has seen; empty: it has the weights that it started from"""
    clip: ClipSpec
    augment: Augment
    """of the training views; without CutMix and Mixup, which mix the clips of a batch"""
    seed: int
    """of times and pictures of the training views"""
    precision: str
    """that the encoder ran in: fp32, bf16 or fp16"""
    dtype: str = "fp16"
    """that features are kept in: fp16 or bf16"""

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise InputError(f"features are kept as {shown(self.dtype)}, expected one of {', '.join(DTYPES)}")
        if self.augment.cutmix_alpha or self.augment.mixup_alpha:
            raise InputError("augment.cutmix_alpha or mixup_alpha is not 0: features are kept of each clip alone")
        check_bounds(self, "spec.", seed=(0, 2**32 - 1))


@dataclass(frozen=True)
class ViewAbout:
    """One view of segments: a .npy file and its index."""

    name: str
    """such as training/view-00"""
    num_segments: int
    num_bytes: int
    """size of the .npy file"""
    index_crc32: int

    def __post_init__(self) -> None:
        if not re.fullmatch(rf"({TRAINING}|{EVALUATION})/view-\d{{2,4}}", self.name):
            raise InputError(f"a view is named {shown(self.name)}, expected such as {view_name(TRAINING, 0)}")
        check_bounds(self, "a view's ", num_segments=(0, 10**8), num_bytes=(0, 2**50), index_crc32=(0, 2**32 - 1))


@dataclass(frozen=True)
class FeaturesAbout:
    """`features.json`."""

    spec: FeatureSpec
    num_features: int
    """D"""
    annotations: tuple[tuple[str, str], ...]
    """(file, SHA-256) of the annotations it was made from"""
    participants: tuple[str, ...]
    """whose segments are in it; empty: everybody's"""
    segments_sha256: str
    """of the narration ids to learn from and to judge by, in their order"""
    views: tuple[ViewAbout, ...] = ()
    """that are in it; empty: it is not finished"""
    format: str = FORMAT
    version: int = VERSION

    def __post_init__(self) -> None:
        check_bounds(self, num_features=(1, 1_000_000))

    @property
    def num_views(self) -> int:
        """Training views of a segment."""
        return sum(view.name.startswith(TRAINING) for view in self.views)


def is_features(root: Path) -> bool:
    return (Path(root) / FEATURES_FILE).is_file()


def read_about(root: Path) -> FeaturesAbout:
    """What a features folder says of itself.

    Raises:
        InputError: not a features folder, or one of another version.
    """
    return records.read_about(Path(root) / FEATURES_FILE, FeaturesAbout, "egochef features")


def open_about(root: Path) -> FeaturesAbout:
    """What a finished features folder says of itself; its annotations are those that it was made from.

    Raises:
        InputError: not a features folder, of another version, not finished, or its annotations have changed.
    """
    about = read_about(root)
    if not about.views:
        raise InputError(f"{root}: the features are not finished. Run the same command again: it goes on from there.")
    check_annotations_kept(root, about.annotations)
    return about


def view_name(kind: str, number: int) -> str:
    """Where a view lies in the folder, without suffix."""
    return f"{kind}/view-{number:02d}"


def weights_sha256(module: nn.Module) -> str:
    """SHA-256 of names, types, shapes and values of a module's tensors."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        values = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {values.dtype} {tuple(values.shape)}\n".encode())
        digest.update(values.reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def segments_sha256(*lists: Sequence[Segment]) -> str:
    """SHA-256 of the narration ids of lists of segments."""
    names = [[segment.narration_id for segment in segments] for segments in lists]
    return hashlib.sha256(json.dumps(names).encode()).hexdigest()


def load_encoder(root: Path, encoder: nn.Module, spec: FeatureSpec) -> None:
    """Fill an encoder with the weights that the features were made with.

    Raises:
        InputError: the file is missing, damaged, or not the one that the features were made with.
    """
    path = Path(root) / ENCODER_FILE
    tensors, _ = read_tensors(path)
    try:
        encoder.load_state_dict(tensors)
    except RuntimeError as error:
        raise InputError(f"{path}: not the weights of a {spec.encoder} ({str(error).splitlines()[0]})") from None
    if weights_sha256(encoder) != spec.encoder_sha256:
        raise InputError(f"{path}: not the weights that the features were made with. Make the features anew.")


class View:
    """An open view of segments."""

    def __init__(self, root: Path, about: FeaturesAbout, view: ViewAbout):
        self.path = Path(root) / f"{view.name}.npy"
        self.shape = (view.num_segments, about.spec.clip.num_frames, about.num_features)  # (S, T, D)
        self.index = read_index(self.path.with_suffix(".safetensors"), view)
        for name, array in self.index.items():
            if array.shape[:1] != (view.num_segments,):
                raise InputError(
                    f"{self.path}: its index has {name} {array.shape} of {view.num_segments} segments. {MEND}"
                )
        self.row_bytes = 2 * self.shape[1] * self.shape[2]
        try:
            check_is_file(self.path)
            with self.path.open("rb") as file:
                size = os.fstat(file.fileno()).st_size
                np.lib.format.read_magic(file)
                shape, _, dtype = np.lib.format.read_array_header_1_0(file)
        except OSError as error:
            raise InputError(f"{self.path}: cannot be read ({error.strerror or error}). {MEND}") from None
        except ValueError as error:
            raise InputError(f"{self.path}: not a whole .npy file ({error}). {MEND}") from None
        expected = np.dtype(DTYPES[about.spec.dtype][1])
        if (shape, dtype) != (self.shape, expected):
            raise InputError(f"{self.path}: holds {dtype} {shape}, expected {expected} {self.shape}. {MEND}")
        if size != HEADER_BYTES + view.num_segments * self.row_bytes:
            raise InputError(f"{self.path}: has {size} bytes, expected {view.num_bytes}. {MEND}")
        self._checked = np.zeros(view.num_segments, bool)
        self._file = os.open(self.path, os.O_RDONLY)

    def read(self, row: int, out: np.ndarray) -> None:
        """A row's bytes into `out` (row_bytes,) uint8.

        Raises:
            InputError: the row is damaged or cut off; names file and segment.
        """
        data = os.pread(self._file, self.row_bytes, HEADER_BYTES + row * self.row_bytes)
        if len(data) < self.row_bytes:
            raise InputError(f"{self.path}: is cut off before segment {self._name(row)}. {MEND}")
        if not self._checked[row]:
            if zlib.crc32(data) != self.index["crc32"][row]:
                raise InputError(
                    f"{self.path}: is damaged: the features of segment {self._name(row)} have another CRC-32. {MEND}"
                )
            self._checked[row] = True
        out[:] = np.frombuffer(data, np.uint8)

    def _name(self, row: int) -> str:
        return as_names(self.index["narration_id"][row : row + 1])[0]

    def __del__(self) -> None:
        if hasattr(self, "_file"):
            os.close(self._file)


def read_index(path: Path, view: ViewAbout | None = None) -> dict[str, np.ndarray]:
    """The arrays of a view's index.

    Args:
        view: what the index has to be; None: whatever is whole.

    Raises:
        InputError: missing, damaged, or not the view's.
    """
    try:
        if view and crc32_of(path) != view.index_crc32:
            raise InputError(f"{path}: damaged (its checksum is not the one in {FEATURES_FILE}). {MEND}")
        arrays = load_file(path)
        return {name: arrays[name] for name in INDEX}
    except (OSError, SafetensorError, KeyError) as error:
        raise InputError(f"{path}: cannot be read ({error}). {MEND}") from None


class Features:
    """Kept features (W, S, T, D) of segments, read a batch at a time.

    verb, noun (W, S) int64 are those of the clips: where a segment could not be read, of the one that took its place.
    """

    def __init__(self, root: Path, kind: str, segments: Sequence[Segment], *, num_views: int | None = None):
        """
        Args:
            kind: TRAINING or EVALUATION.
            num_views: the first so many; None: all.

        Raises:
            InputError: not a finished features folder, not whole, or without features of a segment.
        """
        self.root, self.about = Path(root), open_about(root)
        found = [view for view in self.about.views if view.name.startswith(kind)]
        self._views = [View(self.root, self.about, view) for view in found[:num_views]]
        ids = as_names(self._views[0].index["narration_id"]) if self._views else []
        row_of = {name: row for row, name in enumerate(ids)}
        missing = [segment.narration_id for segment in segments if segment.narration_id not in row_of]
        if missing:
            raise InputError(
                f"{self.root}: {len(missing)} of {len(segments)} segments have no {kind} features in it, the first is "
                f"{missing[0]}. Make features of the splits and participants that are needed."
            )
        self._rows = np.array([row_of[segment.narration_id] for segment in segments])
        self.num_views, self.num_segments = len(self._views), len(segments)
        self.verb, self.noun = (
            torch.from_numpy(np.stack([view.index[name][self._rows] for view in self._views])).long()
            for name in ("verb", "noun")
        )
        shown = np.stack([view.index["shown"][self._rows] for view in self._views])  # (W, S)
        place_of = np.full(len(ids), -1)
        place_of[self._rows] = np.arange(self.num_segments)
        self.shown_place = place_of[shown]
        """(W, S) whose clip it is: a place among the segments, -1 for one that is not among them"""
        self.num_replaced = int((shown != self._rows).sum())  # clips of another segment, as theirs could not be read

    def read(self, view: np.ndarray, place: np.ndarray, *, pin_memory: bool = False) -> Tensor:
        """Features (B, T, D) in the kept type, on the CPU.

        Args:
            view: (B,) which view of each segment.
            place: (B,) its place among the segments.

        Raises:
            InputError: features are damaged; names file and segment.
        """
        dtype, _ = DTYPES[self.about.spec.dtype]
        kept = torch.empty((len(place), *self._views[0].shape[1:]), dtype=dtype, pin_memory=pin_memory)
        raw = kept.view(torch.uint8).flatten(1).numpy()  # (B, row_bytes), the same memory
        for out, number, row in zip(raw, view.tolist(), self._rows[place].tolist(), strict=True):
            self._views[number].read(row, out)
        return kept
