"""What an exported file says of itself, and the names of its inputs and outputs; the same in ONNX and Core ML.

A recogniser is exported whole (part `clip`) or as a pair for streams (parts `encoder` and `head`). Each file carries
an `ExportAbout` as JSON under `METADATA_KEY`. The iPhone app reads the same names and fields
(`ios/EgoChefCore/Sources/EgoChefCore`).
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from egochef.clip import ClipSpec
from egochef.errors import InputError
from egochef.files import sha256_of
from egochef.records import check_bounds, from_dict, parse_json, read_json, shown, to_dict
from egochef.taxonomy import Taxonomy

METADATA_KEY = "egochef"
FORMAT = 1
PARTS = ("clip", "encoder", "head")

IMAGE = "image"
"""into a Core ML encoder: one RGB picture"""
PIXELS = "pixels"
"""into an ONNX encoder: (N, S, S, 3) uint8 RGB"""
FEATURES = "features"
"""out of an encoder (N, D), into a head (B, T, D), float32"""
VERB, NOUN = "verb", "noun"
"""out of a head: logits (B, V) and (B, N), float32"""
FRAMES = "frames"
"""into a clip model: ONNX (B, T, S, S, 3) uint8, Core ML (1, T, 3, S, S) float32 in 0..255, both RGB"""
VERB_PROBS, NOUN_PROBS = "verb_probs", "noun_probs"
"""out of a clip model: probabilities (B, V) and (B, N), float32"""


@dataclass(frozen=True)
class ExportAbout:
    """The metadata of an exported file."""

    part: str
    """clip, encoder or head"""
    precision: str
    """fp32, fp16 or int8"""
    checkpoint: str
    """sha256 of the checkpoint file that it was made from, in hexadecimal"""
    recipe: str
    encoder: str
    temporal: str
    num_features: int
    """D"""
    num_parameters: int
    """of the whole recogniser"""
    license: str
    """for people: what may be done with the weights"""
    initial_weights: str
    """what the encoder started from, as in the checkpoint"""
    train_on: tuple[str, ...]
    """splits whose labels were seen"""
    clip: ClipSpec
    verbs: tuple[str, ...]
    nouns: tuple[str, ...]
    held_out: tuple[str, ...] = ()
    """participants of `train_on` whose labels were not seen; older files do not tell"""
    format: int = FORMAT

    def __post_init__(self) -> None:
        if self.format != FORMAT:
            raise InputError(f"export format {shown(self.format)}, this version of EgoChef reads {FORMAT}")
        if self.part not in PARTS:
            raise InputError(f"part is {shown(self.part)}, expected one of {', '.join(PARTS)}")
        Taxonomy(self.verbs, self.nouns)  # whether they can be classes
        check_bounds(self, num_features=(1, 1_000_000), num_parameters=(1, 10**12))

    @property
    def taxonomy(self) -> Taxonomy:
        return Taxonomy(self.verbs, self.nouns)

    def to_json(self) -> str:
        return json.dumps(to_dict(self))


def read_metadata(text: str | None, path: Path) -> ExportAbout:
    """The metadata of an exported file, from what stands under METADATA_KEY in it.

    Raises:
        InputError: there is none, or it is not ours; names the file.
    """
    if text is None:
        raise InputError(f"{path}: not a model that EgoChef wrote: it names no classes. Make one by egochef export.")
    try:
        return from_dict(ExportAbout, parse_json(text), "metadata")
    except ValueError as error:
        raise InputError(f"{path}: what it says of itself cannot be used ({error}). Export it again.") from None


def check_pair(encoder: ExportAbout, head: ExportAbout, where: str) -> None:
    """Both are the halves of one recogniser.

    Raises:
        InputError: they are not; `where` names the two files.
    """
    for part, about in (("encoder", encoder), ("head", head)):
        if about.part != part:
            raise InputError(f"{where}: the {part} is of part {about.part!r}. Export both again by --parts stream.")
    for name in ("checkpoint", "clip", "verbs", "nouns", "num_features"):
        if getattr(encoder, name) != getattr(head, name):
            raise InputError(f"{where} are not of one recogniser: they differ in {name}. Export both again.")


def check_outputs(found: Sequence[Tensor], num_rows: int, lengths: tuple[int, ...], where: object) -> list[Tensor]:
    """What an exported file gave, if it is what its metadata promise.

    Args:
        found: one Tensor (num_rows, length) of floating point for each of `lengths`.
        where: names the file.

    Raises:
        InputError: it is something else.
    """
    shapes, expected = [tuple(each.shape) for each in found], [(num_rows, length) for length in lengths]
    if shapes != expected or not all(each.is_floating_point() for each in found):
        raise InputError(f"{where}: gives outputs of {shapes}, but says of itself {expected}. Export it again.")
    return list(found)


def pair_paths(path: Path) -> tuple[Path, Path]:
    """The two files of `OUT.onnx` or `OUT.mlpackage`: `OUT-encoder` and `OUT-head` with its suffix.

    Either of the two names them as well.
    """
    stem = path.stem
    for part in ("encoder", "head"):
        if path.exists() and stem.endswith(f"-{part}"):
            stem = stem.removesuffix(f"-{part}")
    encoder, head = (path.with_name(f"{stem}-{part}{path.suffix}") for part in ("encoder", "head"))
    return encoder, head


def report_of(path: Path) -> Path:
    """Where an export's report lies: `PATH.json`; of a pair's part, beside what `--output` named."""
    stem = path.stem
    for part in ("encoder", "head"):
        stem = stem.removesuffix(f"-{part}")
    return path.with_name(f"{stem}{path.suffix}.json")


def digests_of(paths: Iterable[Path]) -> dict[str, str]:
    """Names of exported files and packages -> SHA-256, as a report keeps them under `sha256`.

    Of a package it is that of what `sha256sum` prints of its files (without hidden ones) in the order of their names.
    """
    return {path.name: _digest(path) for path in paths}


def _digest(path: Path) -> str:
    if path.is_file():
        return sha256_of(path)
    digest = hashlib.sha256()
    for name, file in sorted((file.relative_to(path).as_posix(), file) for file in path.rglob("*") if file.is_file()):
        if not any(part.startswith(".") for part in name.split("/")):  # such as .DS_Store
            digest.update(f"{sha256_of(file)}  {name}\n".encode())
    return digest.hexdigest()


def check_digest(path: Path) -> None:
    """Whether an exported file or package is what its report says; without one, or with an older one, all is well.

    Raises:
        InputError: a bit of it has changed since it was written, or the report cannot be read; names the file.
    """
    report = report_of(path)
    if not report.is_file():
        return
    try:
        fields = read_json(report)
    except (OSError, ValueError) as error:
        raise InputError(f"{report}: cannot be read ({error}). Take another copy of the export.") from None
    digests = fields.get("sha256") if isinstance(fields, dict) else None
    if not isinstance(digests, dict):
        return
    expected = {digests[path.name]} if path.name in digests else set(digests.values())  # it may have been renamed
    if _digest(path) not in expected:
        raise InputError(
            f"{path}: damaged, or not the one of its report: its SHA-256 is not the one in {report.name}. Take another "
            "copy of both, or export it again."
        )
