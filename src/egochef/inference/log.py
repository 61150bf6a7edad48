"""Prediction logs: a line per prediction, as JSON lines or as CSV. In: plain values. Out: an open text file's lines."""

import csv
import json
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Protocol

from egochef.errors import InputError

LogFormat = Literal["jsonl", "csv"]


def log_format(path: Path) -> LogFormat:
    """What a log is written as, by its suffix.

    Raises:
        InputError: another suffix than .jsonl or .csv.
    """
    match Path(path).suffix.lower():
        case ".jsonl":
            return "jsonl"
        case ".csv":
            return "csv"
    raise InputError(f"{path}: no format for a log of this name, expected one that ends in .jsonl or .csv")


class Lines(Protocol):
    """What takes lines: a text file, for CSV opened with newline="", or a `LineFile`."""

    def write(self, line: str, /) -> object: ...


class LineFile:
    """A new text file that ends with a whole line at every moment: what does not fit on a full disk is taken out again.

    Each line is handed to the system at once: it outlives this process.
    """

    def __init__(self, path: Path) -> None:
        """
        Raises:
            OSError: the file exists, or cannot be made.
        """
        self.path = path
        self._file = path.open("xb", buffering=0)  # a buffer would try again at the end
        self._num_bytes = 0

    def __enter__(self) -> "LineFile":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._file.close()

    def write(self, line: str, /) -> None:
        """Append a line with its end.

        Raises:
            InputError: the disk is full, or gone.
        """
        data = line.encode("utf-8", "backslashreplace")
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[self._file.write(rest) or 0 :]
        except OSError as error:
            with suppress(OSError):
                self._file.truncate(self._num_bytes)
                self._file.seek(self._num_bytes)
            what = f"cannot be written any further ({error.strerror}); it ends with its last whole line"
            raise InputError(f"{self.path}: {what}. Free space, or choose another place.") from error
        self._num_bytes += len(data)


class LineWriter:
    """Writes lines of one kind, each in one call.

    In CSV the first row names the columns, None is an empty cell, and lists are compact JSON within their cell.
    """

    def __init__(self, file: Lines, format: LogFormat, fields: Sequence[str] | None = None) -> None:
        """
        Args:
            fields: names of the columns, so that CSV has its header before the first line; else the first line's.
        """
        self._file, self._format = file, format
        self._csv = csv.writer(file, lineterminator="\n")
        self._fields: tuple[str, ...] | None = None
        if fields is not None:
            self._begin(tuple(fields))

    def add(self, line: dict[str, Any]) -> None:
        """Append a line.

        Raises:
            ValueError: other fields than the lines before, or NaN or infinity.
            InputError: as `LineFile.write`, where lines go to one.
        """
        if self._fields is None:
            self._begin(tuple(line))
        assert self._fields is not None
        if line.keys() != set(self._fields):
            raise ValueError(f"a log line with {', '.join(line)}, expected {', '.join(self._fields)}")
        if self._format == "jsonl":
            self._file.write(json.dumps(line, allow_nan=False) + "\n")
        else:
            self._csv.writerow([_cell(line[field]) for field in self._fields])

    def _begin(self, fields: tuple[str, ...]) -> None:
        self._fields = fields
        if self._format == "csv":
            self._csv.writerow(fields)


def _cell(value: Any) -> Any:
    """What `csv` writes as meant: text and None as they are, all else as JSON."""
    if value is None or isinstance(value, str):
        return value
    return json.dumps(value, separators=(",", ":"), allow_nan=False)
