"""Prediction logs: a line per prediction, as JSON lines or as CSV. In: plain values. Out: an open text file's lines."""

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, TextIO

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


class LineWriter:
    """Writes lines of one kind into a text file, which for CSV was opened with newline="".

    In CSV the first row names the columns, None is an empty cell, and lists are compact JSON within their cell.
    """

    def __init__(
        self, file: TextIO, format: LogFormat, fields: Sequence[str] | None = None, *, flush: bool = False
    ) -> None:
        """
        Args:
            fields: names of the columns, so that CSV has its header before the first line; else the first line's.
            flush: every line is handed to the system at once: it outlives this process.
        """
        self._file, self._format, self._flush = file, format, flush
        self._csv = csv.writer(file, lineterminator="\n")
        self._fields: tuple[str, ...] | None = None
        if fields is not None:
            self._begin(tuple(fields))

    @property
    def name(self) -> str:
        """The file's."""
        return str(self._file.name)

    def add(self, line: dict[str, Any]) -> None:
        """Append a line.

        Raises:
            ValueError: other fields than the lines before, or NaN or infinity.
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
        if self._flush:
            self._file.flush()

    def _begin(self, fields: tuple[str, ...]) -> None:
        self._fields = fields
        if self._format == "csv":
            self._csv.writerow(fields)
            if self._flush:
                self._file.flush()


def _cell(value: Any) -> Any:
    """What `csv` writes as meant: text and None as they are, all else as JSON."""
    if value is None or isinstance(value, str):
        return value
    return json.dumps(value, separators=(",", ":"), allow_nan=False)
