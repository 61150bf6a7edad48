"""What a benchmark says: numbers with a name and a unit, ratios of them, and the machine that they come from."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from egochef.records import to_dict


@dataclass(frozen=True)
class Row:
    """A number."""

    name: str
    """`what/way quantity`"""
    value: float | None
    """None: it could not be measured, and the note says why"""
    unit: str
    note: str = ""


@dataclass(frozen=True)
class Numbers:
    """All that was measured."""

    machine: dict[str, str | int | float]
    rows: tuple[Row, ...]
    ratios: dict[str, float | None]


def as_json(numbers: Numbers) -> dict[str, Any]:
    """Plain values; a row has a note only where there is something to say."""
    rows = [{name: value for name, value in to_dict(row).items() if name != "note" or value} for row in numbers.rows]
    return {"machine": numbers.machine, "rows": rows, "ratios": numbers.ratios}


def value_of(rows: Sequence[Row], name: str) -> float | None:
    """The value of a row, None where there is none."""
    return next((row.value for row in rows if row.name == name), None)


def versions_of(libraries: Sequence[str]) -> dict[str, str]:
    """Of the installed ones; `none` for the others."""
    found = {}
    for name in libraries:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "none"
    return found
