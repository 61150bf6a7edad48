"""`egochef runs`: folders in, a table of the training runs below them out."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from egochef.cli.common import add_json, make_console, print_json
from egochef.texts import escaped

if TYPE_CHECKING:
    from egochef.training.runs import RunInfo

HELP = "training runs with their settings, state and scores"
EXAMPLE = "egochef runs outputs --sort time"
DEFAULT = "outputs"
"""where the examples put their runs"""
STYLES = {"running": "bold green", "damaged": "bold red", "stopped": "yellow"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "folders",
        nargs="*",
        type=Path,
        metavar="FOLDER",
        help=f"where to look, at any depth (default: {DEFAULT})",
    )
    parser.add_argument(
        "--sort",
        choices=("score", "time", "name"),
        default="score",
        help="best validation action accuracy first, last change first, or by name (default: score)",
    )
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    from egochef.training.runs import find_runs, sort_runs

    folders = args.folders or [Path(DEFAULT)]
    looked = args.folders or [folder for folder in folders if folder.is_dir()]
    runs = sort_runs(find_runs(looked), args.sort)
    if args.json:
        from egochef.records import to_dict

        print_json({"runs": [to_dict(each) for each in runs]})
    elif runs:
        _print(runs)
    else:
        places = ", ".join(str(folder) for folder in folders)
        print(f"{places}: no training runs there. Train one: egochef train --recipe toy --data toy --out outputs/run")
    return 0


def _print(runs: "list[RunInfo]") -> None:
    from rich.box import HORIZONTALS
    from rich.table import Table
    from rich.text import Text

    console = make_console()
    table = Table(box=HORIZONTALS)
    table.add_column("run", overflow="fold")
    for title in ("recipe", "encoder"):
        table.add_column(title)
    for title in ("frames", "epochs", "steps", "verb", "noun", "action"):
        table.add_column(title, justify="right")
    table.add_column("state")
    table.add_column("last change")
    for each in runs:
        scores = ("-" if value is None else f"{value:.2f}" for value in (each.verb, each.noun, each.action))
        table.add_row(
            Text(escaped(each.path)),
            each.recipe or "-",
            each.encoder or "-",
            _shown(each.num_frames),
            f"{each.epochs_done}/{_shown(each.epochs)}",
            f"{each.steps:,}",
            *scores,
            Text(each.state, STYLES.get(each.state, "")),
            _local(each.changed),
        )
    console.print(table)
    for each in runs:
        if each.fault:
            console.print(Text.assemble((f"{escaped(each.path)}: ", "bold red"), escaped(each.fault)), soft_wrap=True)


def _shown(value: int | None) -> str:
    return "-" if value is None else str(value)


def _local(changed: str | None) -> str:
    from datetime import datetime

    return "-" if changed is None else f"{datetime.fromisoformat(changed).astimezone():%Y-%m-%d %H:%M}"
