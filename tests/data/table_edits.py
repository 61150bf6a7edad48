"""Changes to a CSV file, for tests of faults in annotation files."""

import csv
from collections.abc import Callable
from pathlib import Path

Edit = Callable[[list[list[str]]], object]


def change(path: Path, edit: Edit) -> None:
    """Read the rows, the header among them, let `edit` change the list, and write it back."""
    with path.open(newline="") as file:
        rows = list(csv.reader(file))
    edit(rows)
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)


def set_value(row: int, column: str, value: str) -> Edit:
    """Puts a value into a row, counted as in the file: the header is row 1."""

    def edit(rows):
        rows[row - 1][rows[0].index(column)] = value

    return edit
