"""`egochef explore`: a data folder or store and runs in, a local page to browse them until Ctrl-C."""

import argparse
from pathlib import Path

from egochef.cli.common import add_data

HELP = "a local page to browse segments, their frames and predictions, and to compare runs"
EXAMPLE = "egochef explore --data EPIC-KITCHENS --run outputs/run16 outputs/run32"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_data(parser)
    parser.add_argument(
        "--run",
        type=Path,
        nargs="+",
        action="extend",
        default=[],
        dest="runs",
        metavar="RUN",
        help="run folders, or files of scores (.npz, or the official .pt); two or more can be compared",
    )
    parser.add_argument(
        "--split", nargs="+", action="extend", default=[], metavar="S", help="to browse (default: all there are)"
    )
    parser.add_argument(
        "--scored-split",
        metavar="S",
        help="that predictions are of (default: validation, or the only split that is browsed)",
    )
    parser.add_argument("--device", metavar="D", help="for scores that are not kept yet (default: the best there is)")
    parser.add_argument(
        "--port", type=int, default=8100, metavar="N", help="of 127.0.0.1; 0 takes a free one (default: 8100)"
    )
    parser.add_argument("--no-browser", action="store_true", help="only print the page's address")


def run(args: argparse.Namespace) -> int:
    from egochef.report.explorer.server import explore

    explore(
        args.data,
        args.runs,
        splits=args.split,
        scored_split=args.scored_split,
        participants=args.participants,
        device=args.device,
        port=args.port,
        opens_browser=not args.no_browser,
        tell_url=lambda url: print(url, flush=True),
    )
    return 0
