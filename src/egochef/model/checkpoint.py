"""A trained recogniser in one file: safetensors with everything needed to use it in its header.

Header (JSON under the key `egochef`): format number, ModelConfig, ClipSpec, class names, recipe and scores, and a
CRC-32 over them and the tensors, checked on loading. Loading mirrors saving; it never unpickles.
"""

import json
import zlib
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch.overrides import TorchFunctionMode

from egochef.clip import ClipSpec
from egochef.errors import InputError
from egochef.files import atomic_path
from egochef.model.recogniser import ModelConfig, Recogniser
from egochef.records import check_bounds, from_dict, parse_json, shown, to_dict
from egochef.taxonomy import Taxonomy
from egochef.texts import control_in, quoted

FORMAT = 2
CHECKSUM = "crc32"
"""name of the checksum in a header; files of version 0.1 have none"""
MAX_HEADER_BYTES = 2**24
"""of a safetensors file of ours, which has some hundred thousand"""
MAX_VIEWS = 1000
"""of a segment"""
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
    datasets: tuple[str, ...] = ()
    """whose labels were seen, by the names of `data.known`; empty: of an older version, which did not tell"""

    def __post_init__(self) -> None:
        check_bounds(self, num_views=(1, MAX_VIEWS))
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
        "datasets": about.datasets,
    }
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in recogniser.state_dict().items()}
    write_tensors(path, tensors, header)


def read_checkpoint(path: Path) -> Checkpoint:
    """What a checkpoint file says of itself; its weights are not read.

    Raises:
        InputError: no such file, not a safetensors file, or not one of ours.
    """
    try:
        check_header_size(path)
        with safe_open(path, framework="pt") as file:
            return read_about(path, header_in(path, file.metadata()))
    except (SafetensorError, OSError, ValueError) as error:
        raise _not_whole(path, error) from None


def load_checkpoint(path: Path) -> tuple[Recogniser, Checkpoint]:
    """The recogniser (on the CPU, in eval mode) and what the file says of it.

    Raises:
        InputError: no such file, cut off, damaged, not one of ours, or weights that do not fit its own config.
    """
    path = checkpoint_file(path)
    tensors, header = read_tensors(path)
    about = read_about(path, header)
    recogniser = _without_weights(about.model)
    expected = recogniser.state_dict()
    for name, tensor in expected.items():
        found = tuple(tensors[name].shape) if name in tensors else "nothing"
        if found != tuple(tensor.shape):
            raise InputError(f"{path}: tensor {name} is {found}, its config asks for {tuple(tensor.shape)}")
    surplus = sorted(set(tensors) - set(expected))
    if surplus:
        raise InputError(f"{path}: tensor {shown(surplus[0])} does not belong to the model that its config describes")
    # Copies: what was read lies in the mapped file, and would change with it.
    own = {name: tensors[name].to(tensor.dtype, copy=True) for name, tensor in expected.items()}
    recogniser.load_state_dict(own, assign=True)
    return recogniser.eval(), about


def _without_weights(config: ModelConfig) -> Recogniser:
    """A recogniser whose tensors have shapes but no memory, so that a config of any size costs nothing."""
    with ExitStack() as stack:
        stack.enter_context(torch.device("meta"))
        stack.enter_context(_Unfilled())
        return Recogniser(config)


class _Unfilled(TorchFunctionMode):
    """Leaves out what fills new tensors; on the meta device it would take a second of imports, to no end."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", "")
        if name.endswith("_") and not name.endswith("__") and name != "requires_grad_":
            return kwargs["tensor"] if kwargs and "tensor" in kwargs else args[0]
        return func(*args, **(kwargs or {}))


def read_about(path: Path, header: dict[str, Any]) -> Checkpoint:
    """What a checkpoint's header says.

    Raises:
        InputError: of another version, or damaged.
    """
    if header.get("format") != FORMAT:
        raise InputError(
            f"{path}: checkpoint format {shown(header.get('format'))}, this version of EgoChef reads {FORMAT}"
        )
    needed = ("model", "clip", "verbs", "nouns", "recipe", "initial_weights", "train_on", "scores")
    missing = [name for name in needed if name not in header]
    if missing:
        raise InputError(f"{path}: damaged header (no {missing[0]}). Train again or take another copy of the file.")
    fields = {name: header[name] for name in needed if name not in ("verbs", "nouns")}
    later = ("held_out", "num_views", "datasets")  # older files lack some
    fields |= {name: header[name] for name in later if name in header}
    fields["taxonomy"] = {"verbs": header["verbs"], "nouns": header["nouns"]}
    return from_dict(Checkpoint, fields, f"{path}: damaged header")


def write_tensors(path: Path, tensors: dict[str, torch.Tensor], header: dict[str, Any]) -> None:
    """A safetensors file with `header` as JSON inside, and a checksum of both, under its final name in one step."""
    header = {name: value for name, value in header.items() if name != CHECKSUM}
    header[CHECKSUM] = _checksum(tensors, header)
    with atomic_path(path) as temporary:
        try:
            save_file(tensors, temporary, metadata={"egochef": json.dumps(header, allow_nan=False)})
        except SafetensorError as error:  # it wraps the operating system's reason in text
            raise InputError(f"{path}: cannot be written ({error}). Free space or choose another place.") from error


def read_tensors(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Tensors and header of a file that `write_tensors` wrote.

    Raises:
        InputError: not a whole safetensors file, damaged, or not one of ours.
    """
    try:
        check_header_size(path)
        with safe_open(path, framework="pt") as file:
            header = header_in(path, file.metadata())
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  not a dict
    except (SafetensorError, OSError, ValueError) as error:
        raise _not_whole(path, error) from None
    check_tensors(path, tensors, header)
    return tensors, header


def check_header_size(path: Path) -> None:
    """
    Raises:
        OSError: the file cannot be read.
        ValueError: its header is larger than one of ours can be; reading it would take long.
    """
    with Path(path).open("rb") as file:
        num_bytes = int.from_bytes(file.read(8), "little")
    if num_bytes > MAX_HEADER_BYTES:
        raise ValueError(f"a header of {num_bytes} bytes")


def header_in(path: Path, metadata: Mapping[str, str] | None) -> dict[str, Any]:
    """Our header in the metadata of a safetensors file.

    Raises:
        InputError: there is none.
        ValueError: it is damaged.
    """
    if not metadata or "egochef" not in metadata:
        raise InputError(f"{path}: a safetensors file, but not one of EgoChef's (weights go to --init)")
    header = parse_json(metadata["egochef"])
    if not isinstance(header, dict):
        raise InputError(f"{path}: damaged header. Take another copy of the file.")
    if (text := control_in(header)) is not None:
        raise InputError(f"{path}: its header holds control characters: {quoted(text)}. Take another copy of the file.")
    return header


def check_tensors(path: Path, tensors: Mapping[str, torch.Tensor], header: dict[str, Any]) -> None:
    """Whether what was read of a file is what was written; the checksum leaves the header. Without one all is well.

    Raises:
        InputError: a bit of it has changed since.
    """
    checksum = header.pop(CHECKSUM, None)
    if checksum is not None and checksum != _checksum(tensors, header):
        raise InputError(
            f"{path}: damaged: its tensors do not match their checksum. Take another copy of the file, or make it anew."
        )


def _checksum(tensors: Mapping[str, torch.Tensor], header: dict[str, Any]) -> int:
    """CRC-32 of the header's JSON, then of every tensor's name, type, shape and bytes, in the order of their names.

    It notices every flipped bit, and takes half as long as SHA-256: 0.08 s for 160 MB.
    """
    value = zlib.crc32(json.dumps(header, allow_nan=False, sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        value = zlib.crc32(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode(), value)
        value = zlib.crc32(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data, value)
    return value


def _not_whole(path: Path, error: Exception) -> InputError:
    if isinstance(error, InputError):
        return error
    reason = " ".join(str(error).split())
    return InputError(
        f"{path}: not a whole safetensors checkpoint ({reason:.200}). Is it cut off or another kind of file?"
    )
