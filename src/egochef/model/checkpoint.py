"""A trained recogniser in one file: safetensors with everything needed to use it in its header.

Header (JSON under the key `egochef`): format number, ModelConfig, ClipSpec, class names, recipe and scores.
Loading mirrors saving; it never unpickles.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from egochef.clip import ClipSpec
from egochef.errors import InputError
from egochef.files import atomic_path
from egochef.model.recogniser import ModelConfig, Recogniser
from egochef.records import from_dict, to_dict
from egochef.taxonomy import Taxonomy

FORMAT = 2
BEST = Path("checkpoints", "best.safetensors")


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint file says beside its weights."""

    model: ModelConfig
    clip: ClipSpec
    taxonomy: Taxonomy
    recipe: str
    """name of the recipe that trained it"""
    initial_weights: str
    """what the encoder started from: `imagenet`, `none`, or a file's name; the SLS pretraining level follows"""
    train_on: tuple[str, ...] = ("train",)
    """splits whose labels were seen; the SLS data level follows"""
    held_out: tuple[str, ...] = ()
    """participants of those splits whose labels were not seen"""
    num_views: int = 1
    """clips a segment that are scored and averaged, unless told otherwise"""
    scores: dict[str, float] = field(default_factory=dict)
    """metrics on the validation split when it was saved"""

    def __post_init__(self) -> None:
        counts = (self.taxonomy.num_verbs, self.taxonomy.num_nouns)
        if counts != (self.model.num_verbs, self.model.num_nouns):
            raise InputError(
                f"{counts[0]} verb and {counts[1]} noun names for a model of "
                f"{self.model.num_verbs} and {self.model.num_nouns}"
            )


def checkpoint_file(path: Path) -> Path:
    """The file that a `--checkpoint` names: a file itself, or a run's best checkpoint.

    Raises:
        InputError: there is no such file, or the run has no checkpoint yet.
    """
    path = Path(path)
    if path.is_dir():
        if not (path / BEST).is_file():
            raise InputError(f"{path / BEST}: no such checkpoint. Train first: egochef train --out {path} ...")
        return path / BEST
    if not path.is_file():
        raise InputError(f"{path}: no such checkpoint. Give a .safetensors file or a run's folder.")
    return path


def save_checkpoint(path: Path, recogniser: Recogniser, about: Checkpoint) -> None:
    """Write weights and header under the final name in one step."""
    header = {
        "format": FORMAT,
        "model": to_dict(about.model),
        "clip": to_dict(about.clip),
        "verbs": about.taxonomy.verbs,
        "nouns": about.taxonomy.nouns,
        "recipe": about.recipe,
        "initial_weights": about.initial_weights,
        "train_on": about.train_on,
        "held_out": about.held_out,
        "num_views": about.num_views,
        "scores": about.scores,
    }
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in recogniser.state_dict().items()}
    write_tensors(path, tensors, header)


def read_checkpoint(path: Path) -> Checkpoint:
    """What a checkpoint file says of itself; its weights are not read.

    Raises:
        InputError: no such file, not a safetensors file, or not one of ours.
    """
    try:
        with safe_open(path, framework="pt") as file:
            return read_about(path, header_in(path, file.metadata()))
    except (SafetensorError, OSError, ValueError) as error:
        raise _not_whole(path, error) from None


def load_checkpoint(path: Path) -> tuple[Recogniser, Checkpoint]:
    """The recogniser (on the CPU, in eval mode) and what the file says of it.

    Raises:
        InputError: no such file, cut off, not one of ours, or weights that do not fit its own config.
    """
    path = checkpoint_file(path)
    tensors, header = read_tensors(path)
    about = read_about(path, header)
    recogniser = Recogniser(about.model)
    expected = recogniser.state_dict()
    for name, tensor in expected.items():
        found = tuple(tensors[name].shape) if name in tensors else "nothing"
        if found != tuple(tensor.shape):
            raise InputError(f"{path}: tensor {name} is {found}, its config asks for {tuple(tensor.shape)}")
    surplus = sorted(set(tensors) - set(expected))
    if surplus:
        raise InputError(f"{path}: tensor {surplus[0]} does not belong to the model that its config describes")
    recogniser.load_state_dict(tensors)
    return recogniser.eval(), about


def read_about(path: Path, header: dict[str, Any]) -> Checkpoint:
    """What a checkpoint's header says.

    Raises:
        InputError: of another version, or damaged.
    """
    if header.get("format") != FORMAT:
        raise InputError(f"{path}: checkpoint format {header.get('format')!r}, this version of EgoChef reads {FORMAT}")
    try:
        taxonomy = Taxonomy(tuple(header["verbs"]), tuple(header["nouns"]))
        return Checkpoint(
            model=from_dict(ModelConfig, header["model"], f"{path}: model"),
            clip=from_dict(ClipSpec, header["clip"], f"{path}: clip"),
            taxonomy=taxonomy,
            recipe=str(header["recipe"]),
            initial_weights=str(header["initial_weights"]),
            train_on=tuple(header["train_on"]),
            held_out=tuple(header.get("held_out", ())),  # older ones have neither
            num_views=int(header.get("num_views", 1)),
            scores=dict(header["scores"]),
        )
    except (KeyError, TypeError) as error:
        raise InputError(f"{path}: damaged header ({error!r}). Train again or take another copy of the file.") from None


def write_tensors(path: Path, tensors: dict[str, torch.Tensor], header: dict[str, Any]) -> None:
    """A safetensors file with `header` as JSON inside, under its final name in one step."""
    with atomic_path(path) as temporary:
        try:
            save_file(tensors, temporary, metadata={"egochef": json.dumps(header, allow_nan=False)})
        except SafetensorError as error:  # it wraps the operating system's reason in text
            raise InputError(f"{path}: cannot be written ({error}). Free space or choose another place.") from error


def read_tensors(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Tensors and header of a file that `write_tensors` wrote.

    Raises:
        InputError: not a whole safetensors file, or not one of ours.
    """
    try:
        with safe_open(path, framework="pt") as file:
            header = header_in(path, file.metadata())
            return {name: file.get_tensor(name) for name in file.keys()}, header  # noqa: SIM118  not a dict
    except (SafetensorError, OSError, ValueError) as error:
        raise _not_whole(path, error) from None


def header_in(path: Path, metadata: Mapping[str, str] | None) -> dict[str, Any]:
    """Our header in the metadata of a safetensors file.

    Raises:
        InputError: there is none.
        ValueError: it is damaged.
    """
    if not metadata or "egochef" not in metadata:
        raise InputError(f"{path}: a safetensors file, but not one of EgoChef's (weights go to --init)")
    header = json.loads(metadata["egochef"])
    if not isinstance(header, dict):
        raise InputError(f"{path}: damaged header. Take another copy of the file.")
    return header


def _not_whole(path: Path, error: Exception) -> InputError:
    if isinstance(error, InputError):
        return error
    return InputError(f"{path}: not a whole safetensors checkpoint ({error}). Is it cut off or another kind of file?")
