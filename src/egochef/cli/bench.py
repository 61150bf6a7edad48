"""`egochef bench`: the numbers in the README, measured here."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from egochef.cli.common import add_json, print_json

if TYPE_CHECKING:
    from egochef.bench.data import DataNumbers

HELP = "measure here what the README tells: data, how fast training clips come from a store and from videos"
EXAMPLE = "egochef bench data --json"
PIPE_WIDTH = 200
"""characters a line where nobody knows how wide the reader's screen is"""
COLUMNS = {
    "clips_per_core_s": "clips/s a core",
    "images_per_core_s": "images/s a core",
    "cpu_ms_per_clip": "CPU ms a clip",
    "cpu_spread": "spread of rounds",
    "wall_ms_per_clip": "wall ms a clip",
    "bytes_per_clip": "bytes a clip",
    "peak_rss": "peak MiB",
    "other_frames": "other frames",
}
"""quantities of a way, and what their columns are called"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("what", choices=("data",), help="what to measure")
    parser.add_argument("--segments", type=int, metavar="N", help="in each of the three drawn kitchens (default: 40)")
    parser.add_argument("--rounds", type=int, metavar="N", help="turns of all ways; medians count (default: 3)")
    parser.add_argument(
        "--keep", type=Path, metavar="DIR", help="keep kitchens and stores there, and use them again if they are there"
    )
    parser.add_argument(
        "--quick", action="store_true", help="a minute, to see that it works; the numbers then say little"
    )
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    from egochef.bench.data import DataBench, as_json, bench_data, quick_bench, with_sizes

    bench = quick_bench() if args.quick else DataBench()
    bench = with_sizes(bench, num_segments=args.segments, rounds=args.rounds)
    numbers = bench_data(bench, keep=args.keep)
    if args.json:
        print_json(as_json(numbers))
    else:
        _print(numbers)
    return 0


def _print(numbers: "DataNumbers") -> None:
    """A table of the ways for each kitchen, then what else there is, then the ratios."""
    from rich.box import HORIZONTALS
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False, emoji=False, markup=False)
    if not console.is_terminal:
        console = Console(highlight=False, emoji=False, markup=False, no_color=True, width=PIPE_WIDTH)
    ways: dict[str, dict[str, str]] = {}
    others = Table("", "", "unit", "", box=HORIZONTALS, title="also")
    for row in numbers.rows:
        way, _, quantity = row.name.partition(" ")
        shown = "-" if row.value is None else f"{row.value:,.4g}" if row.value < 1000 else f"{row.value:,.0f}"
        if quantity in COLUMNS:
            ways.setdefault(way, {})[quantity] = shown if row.value is not None else f"- {row.note}"
        else:
            others.add_row(row.name, shown, row.unit, row.note)
    for kitchen in dict.fromkeys(way.split("/")[0] for way in ways):
        table = Table("way", box=HORIZONTALS, title=f"{kitchen} kitchen")
        for title in COLUMNS.values():
            table.add_column(title, justify="right")
        for way, values in ways.items():
            if way.startswith(f"{kitchen}/"):
                table.add_row(way.split("/")[1], *(values.get(quantity, "") for quantity in COLUMNS))
        console.print(table)
    console.print(others)
    ratios = Table("ratio", "", box=HORIZONTALS, title="how many times")
    for name, ratio in numbers.ratios.items():
        ratios.add_row(name, "-" if ratio is None else f"{ratio:g}")
    console.print(ratios)
    console.print(", ".join(f"{name} {value}" for name, value in numbers.machine.items()), soft_wrap=True)
