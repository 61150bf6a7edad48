"""What an exported file says of itself, and the names of its inputs and outputs; the same in ONNX and Core ML.

A recogniser is exported whole (part `clip`) or as a pair for streams (parts `encoder` and `head`). Each file carries
an `ExportAbout` as JSON under `METADATA_KEY`. The iPhone app reads the same names and fields
(`ios/EgoChefCore/Sources/EgoChefCore`).
"""

import json
from dataclasses import dataclass
from pathlib import Path

from egochef.clip import ClipSpec
from egochef.errors import InputError
from egochef.records import from_dict, to_dict
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
    format: int = FORMAT

    def __post_init__(self) -> None:
        if self.format != FORMAT:
            raise InputError(f"export format {self.format}, this version of EgoChef reads {FORMAT}")
        if self.part not in PARTS:
            raise InputError(f"part is {self.part!r}, expected one of {', '.join(PARTS)}")

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
        return from_dict(ExportAbout, json.loads(text), "metadata")
    except (json.JSONDecodeError, InputError) as error:
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
