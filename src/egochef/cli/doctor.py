"""`egochef doctor`: every fault of a data folder, before a run."""

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

from egochef.cli.common import add_data, add_json, make_console, print_json

if TYPE_CHECKING:
    from rich.table import Table

    from egochef.data.doctor import Diagnosis, Fault

HELP = "every fault of a data folder, each with file, line or video, and what to do"
EXAMPLE = "egochef doctor --data EPIC-KITCHENS --videos full"
MAX_SHOWN = 20
"""faults of one kind in the table"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_data(parser)
    parser.add_argument(
        "--videos",
        choices=("quick", "full"),
        default="quick",
        help="quick reads containers only, full also decodes every frame that a row needs (default: quick)",
    )
    parser.add_argument(
        "--md5",
        type=Path,
        metavar="FILE",
        help="the official download scripts' md5.csv, to compare with (default: ROOT/md5.csv, if --videos full)",
    )
    parser.add_argument("--workers", type=int, metavar="N", help="processes (default: all processors if needed)")
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    from egochef.data.doctor import diagnose

    diagnosis = diagnose(
        args.data, videos=args.videos, participants=args.participants, md5=args.md5, num_workers=args.workers
    )
    if args.json:
        from egochef.records import to_dict

        counts = {"num_errors": diagnosis.num_errors, "num_warnings": diagnosis.num_warnings}
        print_json({"root": str(args.data), "looked": args.videos} | counts | to_dict(diagnosis))
    else:
        _print(args.data, diagnosis, args.videos)
    return 1 if diagnosis.num_errors else 0


def _print(root: Path, diagnosis: "Diagnosis", looked: str) -> None:
    """A table for each kind of fault, under a line with what to do."""
    from rich.padding import Padding
    from rich.text import Text

    console = make_console()
    kinds: dict[tuple[str, str], list[Fault]] = {}
    for fault in diagnosis.faults:
        kinds.setdefault((fault.level, fault.kind), []).append(fault)
    for (level, kind), faults in kinds.items():
        shared = {_short(fault.todo, root) for fault in faults}
        count = f" ({len(faults):,})" if len(faults) > 1 else ""
        console.print(Text.assemble((level, "bold red" if level == "error" else "bold yellow"), f" {kind}{count}"))
        console.print(_table(root, faults, with_todo=len(shared) != 1))
        if len(faults) > MAX_SHOWN:
            console.print(f"  and {len(faults) - MAX_SHOWN:,} more like these; --json tells them all")
        if len(shared) == 1:
            console.print(Padding(Text(shared.pop(), "italic"), (0, 0, 0, 2)))
        console.print()
    console.print(_sum_up(root, diagnosis, looked), soft_wrap=True)


def _table(root: Path, faults: "list[Fault]", with_todo: bool) -> "Table":
    from rich.box import HORIZONTALS
    from rich.table import Table
    from rich.text import Text

    table = Table(box=HORIZONTALS, show_header=False, show_lines=with_todo)
    table.add_column(overflow="fold", max_width=32)
    table.add_column(overflow="fold")
    for fault in faults[:MAX_SHOWN]:
        what = Text(_short(fault.message, root))
        if with_todo:
            what.append(f"\n{_short(fault.todo, root)}", "italic")
        table.add_row(Text(_short(fault.where, root)), what)
    return table


def _short(text: str, root: Path) -> str:
    """Paths as seen from the data folder."""
    return text.replace(f"{root}{os.sep}", "")


def _sum_up(root: Path, diagnosis: "Diagnosis", looked: str) -> str:
    from egochef.data.doctor.faults import number
    from egochef.data.store import is_store

    splits = ", ".join(
        f"{split} {num:,} in {number(diagnosis.videos[split], 'video')}" for split, num in diagnosis.segments.items()
    )
    seen = f"{number(diagnosis.num_videos, 'video')} looked into ({diagnosis.num_bytes / 1e9:,.2f} GB)"
    if is_store(root):
        seen = "a store, every picture read" if looked == "full" else "a store, its pictures not read (--videos full)"
    found = f"{number(diagnosis.num_errors, 'error')}, {number(diagnosis.num_warnings, 'warning')}"
    return f"{root}: {found}. Segments: {splits or 'none'}; {seen}."
