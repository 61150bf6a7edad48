"""`egochef stats`: what is in a data folder, as tables, JSON and figures."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from egochef.cli.common import add_data, add_json, make_console, print_json

if TYPE_CHECKING:
    from egochef.report.stats import Statistics

HELP = "what a dataset has: counts per split, class frequencies, segment lengths, verb-noun pairs, participants"
EXAMPLE = "egochef stats --data EPIC-KITCHENS --out outputs/stats"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_data(parser)
    parser.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="also write stats.json, stats.md and figures as PNG and SVG there (figures need egochef[report])",
    )
    parser.add_argument(
        "--top", type=int, default=10, metavar="N", help="classes and pairs in the terminal's tables (default: 10)"
    )
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    from egochef.errors import InputError
    from egochef.records import to_dict
    from egochef.report.stats import dataset_statistics

    if args.top < 1:
        raise InputError(f"--top is {args.top}, expected at least 1")
    if args.out is not None:
        from egochef.extras import need_extra

        need_extra("report", "figures", ("altair", "vl_convert"))
    stats = dataset_statistics(args.data, args.participants)
    written = [] if args.out is None else _write(stats, args.out)
    if args.json:
        print_json(to_dict(stats))
        return 0
    _print(stats, args.top)
    if written:
        print(f"written to {args.out}: {', '.join(path.name for path in written)}")
    return 0


def _write(stats: "Statistics", out: Path) -> list[Path]:
    from egochef.files import write_json, write_text
    from egochef.records import to_dict
    from egochef.report.stats_figures import figures
    from egochef.report.stats_tables import to_markdown
    from egochef.report.theme import save_figure

    paths = [out / "stats.json", out / "stats.md"]
    write_json(paths[0], to_dict(stats))
    write_text(paths[1], to_markdown(stats))
    for name, chart in figures(stats).items():
        paths += save_figure(chart, out, name)
    return paths


def _print(stats: "Statistics", most: int) -> None:
    from rich.box import HORIZONTALS
    from rich.table import Table
    from rich.text import Text

    from egochef.report.stats_tables import sheets

    console = make_console()
    for sheet in sheets(stats, most):
        console.print(Text(sheet.title, "bold"))
        table = Table(box=HORIZONTALS)
        for place, column in enumerate(sheet.columns):
            table.add_column(column, justify="left" if place < sheet.num_words else "right")
        for row in sheet.rows:
            table.add_row(*map(Text, row))
        console.print(table)
        for note in sheet.notes:
            console.print(f"  {note}", soft_wrap=True)
        console.print()
