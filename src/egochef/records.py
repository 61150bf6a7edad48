"""Frozen dataclasses to plain JSON values and back, with every fault named.

In: a dataclass of numbers, strings, booleans, None, tuples and further such dataclasses. Out: dicts and lists.
"""

import dataclasses
import json
import math
import reprlib
import sys
import types
import typing
from pathlib import Path
from typing import Any, TypeVar

from egochef.errors import InputError
from egochef.texts import has_controls, quoted

Record = TypeVar("Record")

MAX_JSON_BYTES = 2**22
"""of a file or header that describes something; ours have some thousands"""
MAX_VALUES = 100_000
"""in a tuple"""
MAX_TEXT = 4096
"""characters of a text; the longest path that Linux takes"""


def to_dict(record: Any) -> dict[str, Any]:
    """Plain values for JSON, fields in their order."""
    return dataclasses.asdict(record)


def to_flat_dict(record: Any) -> dict[str, Any]:
    """The same with the fields of inner records under names such as `clip.num_frames`, to compare two records."""
    return _flatten(to_dict(record), "")


def _flatten(value: dict[str, Any], prefix: str) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, item in value.items():
        flat |= _flatten(item, f"{prefix}{name}.") if isinstance(item, dict) else {prefix + name: item}
    return flat


def shown(value: Any) -> str:
    """A value as messages show it: on one line, however long or deep it is."""
    short = reprlib.Repr()
    short.maxstring = short.maxother = short.maxlong = 60
    try:
        return f"{short.repr(value):.80}"
    except (ValueError, RecursionError):  # of whole numbers with thousands of digits
        return f"a very large {type(value).__name__}"


def parse_json(text: str, *, most: int = MAX_JSON_BYTES) -> Any:
    """The value of a JSON text.

    Args:
        most: characters.

    Raises:
        ValueError: not JSON, too long or nested too deeply, or a number that is not finite; in a few words.
    """
    if len(text) > most:
        raise ValueError(f"{len(text)} characters of JSON, expected at most {most}")
    try:
        return json.loads(text, parse_constant=_finite, parse_float=_finite)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def read_json(path: Path, *, most: int = MAX_JSON_BYTES) -> Any:
    """The value of a JSON file.

    Raises:
        OSError: it cannot be read.
        ValueError: as `parse_json`, or it is no file: opening a pipe would wait for a writer.
    """
    path = Path(path)
    if path.exists() and not path.is_file():
        raise ValueError("a device, a pipe or a folder, expected a file")
    with path.open("rb") as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise ValueError(f"larger than {most} bytes")
    return parse_json(data.decode("utf-8"), most=most)


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"a number that is not finite: {text:.20}")
    return value


def check_bounds(record: Any, prefix: str = "", /, **bounds: tuple[float, float]) -> None:
    """Every named field lies within its (lowest, highest), both included; None and empty tuples do.

    Bounds that are whole numbers want whole numbers. Of a tuple each value is looked at.

    Args:
        prefix: before a field's name in errors, such as `model.`.

    Raises:
        InputError: one does not; names the field, its value and the bounds.
    """
    for name, (low, high) in bounds.items():
        value = getattr(record, name)
        whole = isinstance(low, int) and isinstance(high, int)
        kinds = (int,) if whole else (int, float)
        for each in value if isinstance(value, tuple) else (value,):
            if each is None or (isinstance(each, kinds) and not isinstance(each, bool) and low <= each <= high):
                continue
            expected = f"a whole number from {low} to {high}" if whole else f"{low:g} to {high:g}"
            raise InputError(f"{prefix}{name} is {shown(value)}, expected {expected}")


def from_dict(kind: type[Record], value: Any, where: str) -> Record:
    """Build `kind` from plain JSON values; missing fields take their defaults.

    Args:
        where: what to call the value in errors, for example `run/config.json`.

    Raises:
        InputError: an unknown or missing field, or a value of the wrong type or out of bounds, naming both.
    """
    return _build(kind, value, where, "")


def _build(kind: type[Record], value: Any, where: str, inside: str) -> Record:
    """
    Args:
        inside: names of the fields that lead to the value, each with a dot behind it.
    """
    if not isinstance(value, dict):
        what = f"{inside.removesuffix('.')} is {shown(value)}" if inside else f"it is {shown(value)}"
        raise InputError(f"{where}: {what}, expected an object with the fields of {kind.__name__}")
    hints = typing.get_type_hints(kind)
    fields = {field.name: field for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    unknown = sorted(set(value) - set(fields))
    if unknown:
        name = shown(inside + unknown[0])
        raise InputError(f"{where}: unknown field {name} of {kind.__name__}, expected one of {', '.join(fields)}")
    arguments = {name: _convert(hints[name], item, where, inside + name) for name, item in value.items()}
    needed = [
        name
        for name, field in fields.items()
        if name not in arguments
        and field.default is dataclasses.MISSING
        and field.default_factory is dataclasses.MISSING
    ]
    if needed:
        raise InputError(f"{where}: field {inside + needed[0]!r} of {kind.__name__} is missing")
    try:
        return kind(**arguments)
    except InputError as error:
        raise InputError(f"{where}: {error}") from None


def read_about(path: Path, kind: type[Record], maker: str) -> Record:
    """The file in which a folder says what it is, as `kind`, whose defaults for `format` and `version` it must have.

    Args:
        maker: the command that makes such folders, for errors.

    Raises:
        InputError: not such a file, or one of another version.
    """
    try:
        value = read_json(path)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({error}), expected what {maker} writes.") from None
    expected = {field.name: field.default for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    if not isinstance(value, dict) or value.get("format") != expected["format"]:
        raise InputError(f"{path}: not made by {maker}, expected format {expected['format']!r}.")
    if value.get("version") != expected["version"]:
        raise InputError(
            f"{path}: version {shown(value.get('version'))}, this egochef reads version {expected['version']}. "
            f"Make the folder anew with {maker}, or use the egochef that made it."
        )
    return from_dict(kind, value, str(path))


def _convert(hint: Any, value: Any, where: str, name: str) -> Any:
    origin = typing.get_origin(hint)
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return _build(hint, value, where, f"{name}.")
    if origin in (typing.Union, types.UnionType):
        options = typing.get_args(hint)
        if value is None and type(None) in options:
            return None
        return _convert(next(option for option in options if option is not type(None)), value, where, name)
    if isinstance(value, list | tuple | dict) and len(value) > MAX_VALUES:
        raise InputError(f"{where}: {name} has {len(value)} values, expected at most {MAX_VALUES}")
    if origin is tuple and isinstance(value, list | tuple):
        kinds = typing.get_args(hint)
        if len(kinds) == 2 and kinds[1] is Ellipsis:
            kinds = (kinds[0],) * len(value)
        if len(kinds) != len(value):
            raise InputError(f"{where}: {name} has {len(value)} values, expected {len(kinds)}")
        return tuple(_convert(kind, item, where, name) for kind, item in zip(kinds, value, strict=True))
    if origin is dict and isinstance(value, dict):
        of_keys, of_values = typing.get_args(hint)
        return {
            _convert(of_keys, key, where, name): _convert(of_values, item, where, f"{name}.{key:.60}")
            for key, item in value.items()
        }
    if hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        if not -sys.float_info.max <= value <= sys.float_info.max:
            raise InputError(f"{where}: {name} is {shown(value)}, expected a finite number")
        return float(value)
    if isinstance(value, str) and len(value) > MAX_TEXT:
        raise InputError(f"{where}: {name} is a text of {len(value)} characters, expected at most {MAX_TEXT}")
    if isinstance(value, str) and has_controls(value):
        raise InputError(f"{where}: {name} is {quoted(value)}, expected a text without control characters")
    if isinstance(hint, type) and isinstance(value, hint) and not (isinstance(value, bool) and hint is not bool):
        return value
    raise InputError(f"{where}: {name} is {shown(value)}, expected {getattr(hint, '__name__', hint)}")
