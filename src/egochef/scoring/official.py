"""Reads the results files of the official EK-100 baselines, without running any code that a file may bring.

In: a `.pt` file of torch.save: a list of {"verb_output": (V,), "noun_output": (N,), "narration_id": str}, or
a dict of arrays under the same keys, (S, V), (S, N) and (S,). Out: the dict of arrays. Source of the format:
the README of the official C1-Action-Recognition repository, "Result data formats". Its scores are what comes
before the softmax ("logits" here).

The arrays in such files are numpy's, which `torch.load(weights_only=True)` refuses by default. Allowing
numpy's own functions would hand a stranger's bytes to ndarray.__setstate__, so their names are bound to the
small stand-ins below, which know plain numbers and text only.
"""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from egochef.errors import InputError
from egochef.torch_files import NeedsCodeError, TooLargeError, load_torch_file

log = logging.getLogger(__name__)

MAX_BYTES = 1 << 30
"""of all arrays; those of the test split take 42 MB"""
KEYS = ("narration_id", "verb_output", "noun_output")


class _Dtype:
    """Stands for numpy.dtype, of a number (`f4`), of text (`U9`), or of Python values in a list (`O8`)."""

    def __init__(self, code: str, *_: bool) -> None:
        self.dtype = None if code.startswith("O") else np.dtype(code)
        if self.dtype is not None and self.dtype.kind not in "fiuU":
            raise ValueError(f"an array of {code!r}, expected numbers or text")

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        if self.dtype is not None and state[1] in ("<", ">"):
            self.dtype = self.dtype.newbyteorder(state[1])

    def read(self, raw: bytes | list[Any]) -> np.ndarray:
        return np.array(raw) if self.dtype is None else np.frombuffer(raw, self.dtype)  # type: ignore[arg-type]


class _Array:
    """Stands for numpy.ndarray."""

    values: np.ndarray | None = None

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, is_fortran, raw = state
        self.values = dtype.read(raw).reshape(shape, order="F" if is_fortran else "C")


def _new_array(*_: Any) -> _Array:
    """Stands for numpy's _reconstruct: an array that is yet to get its state."""
    return _Array()


def _scalar(dtype: _Dtype, raw: bytes) -> Any:
    """Stands for numpy's scalar."""
    return dtype.read(raw)[0].item()


STAND_INS: dict[str, Callable[..., Any]] = {
    "numpy.dtype": _Dtype,
    "numpy.ndarray": _Array,
    **{f"numpy.{core}.multiarray._reconstruct": _new_array for core in ("core", "_core")},
    **{f"numpy.{core}.multiarray.scalar": _scalar for core in ("core", "_core")},
}


def read_official_scores(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a results file, and `kind`, which is "logits".

    Raises:
        InputError: the file is damaged, needs code to be run, or holds something else, naming it.
    """
    try:
        content = load_torch_file(path, STAND_INS.get)
    except NeedsCodeError as error:
        raise _unread(path, f"it names {error}") from error
    except TooLargeError as error:
        raise InputError(f"{path}: refused: {error}. Give arrays or tensors as torch.save writes them.") from error
    except Exception as error:  # torch and zipfile raise a dozen kinds for damaged files
        raise _unread(path, " ".join(str(error).split()) or type(error).__name__) from error
    arrays = _collect(path, content)
    if all(_look_like_probs(arrays[key]) for key in ("verb_output", "noun_output")):
        log.warning(
            "%s holds what looks like probabilities. The official format is read as scores before the"
            " softmax, as the official evaluator does; this changes action top-5. To have them taken for"
            " probabilities, save them as .npz with kind='probs'.",
            path,
        )
    return arrays | {"kind": np.array("logits")}


def _unread(path: Path, reason: str) -> InputError:
    return InputError(
        f"{path}: not a results file that can be read without running code from it ({reason:.160})."
        " If it is whole and you trust it, open it yourself and save its arrays:"
        " numpy.savez('scores.npz', narration_id=..., verb_output=..., noun_output=..., kind='logits')"
    )


def _collect(path: Path, content: Any) -> dict[str, np.ndarray]:
    expected = f"expected a list of dicts or a dict of arrays with {', '.join(KEYS)}"
    if isinstance(content, dict):
        lacking = [key for key in KEYS if key not in content]
        columns = content
    elif isinstance(content, list) and content and all(isinstance(item, dict) for item in content):
        lacking = [key for key in KEYS if any(key not in item for item in content)]
        columns = {} if lacking else {key: [item[key] for item in content] for key in KEYS}
    else:
        raise InputError(f"{path}: holds {type(content).__name__}, {expected}")
    if lacking:
        raise InputError(f"{path}: {', '.join(lacking)} missing, {expected}")
    if (num_bytes := sum(_num_bytes(columns[key]) for key in KEYS)) > MAX_BYTES:
        raise InputError(f"{path}: its arrays take {num_bytes / 2**30:.1f} GiB, expected {MAX_BYTES >> 30} at most")
    try:
        return {key: np.array(_plain(columns[key])) for key in KEYS}
    except (ValueError, TypeError, RuntimeError) as error:
        raise InputError(f"{path}: rows of different lengths or odd kinds ({error!s:.160}), {expected}") from error


def _num_bytes(value: Any) -> int:
    """What numpy takes at most to stack it: in a list a tensor may come many times, and the longest text counts."""
    if isinstance(value, list | tuple):
        longest = max((len(item) for item in value if isinstance(item, str | bytes)), default=0)
        return 4 * longest * len(value) + sum(map(_num_bytes, value))
    if isinstance(value, _Array):
        value = value.values
    if hasattr(value, "detach"):
        return 8 * value.numel()
    return getattr(value, "nbytes", 8)


def _plain(value: Any) -> Any:
    """What numpy can stack: stand-ins and tensors become arrays, also inside a list."""
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, _Array):
        return value.values
    if not hasattr(value, "detach"):
        return value
    tensor = value.detach()
    return (tensor.double() if tensor.is_floating_point() else tensor).numpy()  # numpy has no bfloat16


def _look_like_probs(scores: np.ndarray) -> bool:
    if scores.ndim != 2 or scores.dtype.kind != "f":
        return False
    return bool((scores >= 0).all() and np.allclose(scores.sum(axis=1), 1, atol=1e-3))
