"""What the doctor says: one `Fault` for each thing that is wrong. Nothing comes in."""

from collections.abc import Sequence
from dataclasses import dataclass

from egochef.texts import escaped

ERROR, WARNING = "error", "warning"


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong with a data folder. Texts are printable: what they quote may be anything."""

    level: str
    """`error`: a run stops at it or learns what is wrong; `warning`: it does not"""
    kind: str
    """short and stable, for programs: `video-missing`"""
    where: str
    """a file, a file and row, a video id or a narration id"""
    message: str
    """what is wrong"""
    todo: str
    """what to do"""

    def __post_init__(self) -> None:
        for name in ("where", "message", "todo"):
            object.__setattr__(self, name, escaped(getattr(self, name)))


def error(kind: str, where: object, message: str, todo: str) -> Fault:
    return Fault(ERROR, kind, str(where), message, todo)


def warning(kind: str, where: object, message: str, todo: str) -> Fault:
    return Fault(WARNING, kind, str(where), message, todo)


def some(names: Sequence[str], most: int = 5) -> str:
    """The first few of many names: `P01_01, P01_02 and 7 more`."""
    shown = ", ".join(names[:most])
    return f"{shown} and {len(names) - most} more" if len(names) > most else shown


def number(count: int, name: str) -> str:
    """`1 row`, `2 rows`."""
    return f"{count:,} {name}" + ("" if count == 1 else "s")
