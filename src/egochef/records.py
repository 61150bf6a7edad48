"""Frozen dataclasses to plain JSON values and back, with every fault named.

In: a dataclass of numbers, strings, booleans, None, tuples and further such dataclasses. Out: dicts and lists.
"""

import dataclasses
import json
import types
import typing
from pathlib import Path
from typing import Any, TypeVar

from egochef.errors import InputError

Record = TypeVar("Record")


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


def from_dict(kind: type[Record], value: Any, where: str) -> Record:
    """Build `kind` from plain JSON values; missing fields take their defaults.

    Args:
        where: what to call the value in errors, for example `run/config.json`.

    Raises:
        InputError: an unknown or missing field, or a value of the wrong type, naming both.
    """
    if not isinstance(value, dict):
        raise InputError(f"{where}: expected an object with the fields of {kind.__name__}, got {value!r:.60}")
    hints = typing.get_type_hints(kind)
    fields = {field.name: field for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    unknown = sorted(set(value) - set(fields))
    if unknown:
        raise InputError(
            f"{where}: unknown field {unknown[0]!r} of {kind.__name__}, expected one of {', '.join(fields)}"
        )
    arguments = {name: _convert(hints[name], item, f"{where}: {name}") for name, item in value.items()}
    needed = [
        name
        for name, field in fields.items()
        if name not in arguments
        and field.default is dataclasses.MISSING
        and field.default_factory is dataclasses.MISSING
    ]
    if needed:
        raise InputError(f"{where}: field {needed[0]!r} of {kind.__name__} is missing")
    return kind(**arguments)


def read_about(path: Path, kind: type[Record], maker: str) -> Record:
    """The file in which a folder says what it is, as `kind`, whose defaults for `format` and `version` it must have.

    Args:
        maker: the command that makes such folders, for errors.

    Raises:
        InputError: not such a file, or one of another version.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({error}), expected what {maker} writes.") from None
    expected = {field.name: field.default for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    if not isinstance(value, dict) or value.get("format") != expected["format"]:
        raise InputError(f"{path}: not made by {maker}, expected format {expected['format']!r}.")
    if value.get("version") != expected["version"]:
        raise InputError(
            f"{path}: version {value.get('version')}, this egochef reads version {expected['version']}. "
            f"Make the folder anew with {maker}, or use the egochef that made it."
        )
    return from_dict(kind, value, str(path))


def _convert(hint: Any, value: Any, where: str) -> Any:
    origin = typing.get_origin(hint)
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return from_dict(hint, value, where)
    if origin in (typing.Union, types.UnionType):
        options = typing.get_args(hint)
        if value is None and type(None) in options:
            return None
        return _convert(next(option for option in options if option is not type(None)), value, where)
    if origin is tuple and isinstance(value, list | tuple):
        kinds = typing.get_args(hint)
        if len(kinds) == 2 and kinds[1] is Ellipsis:
            kinds = (kinds[0],) * len(value)
        if len(kinds) != len(value):
            raise InputError(f"{where} has {len(value)} values, expected {len(kinds)}")
        return tuple(_convert(kind, item, where) for kind, item in zip(kinds, value, strict=True))
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(hint, type) and isinstance(value, hint) and not (isinstance(value, bool) and hint is not bool):
        return value
    raise InputError(f"{where} is {value!r:.60}, expected {getattr(hint, '__name__', hint)}")
