"""`egochef report`: runs, saved scores and exported curves in, one page and figures out."""

import argparse
from pathlib import Path

from egochef.cli.common import DATA_HELP, add_json, print_json, print_seen

HELP = "what a model does, as one page and figures: curves, scores, confusions, calibration, clips"
EXAMPLE = "egochef report outputs/run16 outputs/run32 --data EPIC-KITCHENS --out outputs/report"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "sources",
        nargs="+",
        type=Path,
        metavar="RUN",
        help="run folders, files of scores (.npz, or the official .pt), CSV files of curves from Weights & Biases or "
        "folders of such, in any mix; of several models the ensemble is shown too",
    )
    parser.add_argument("--data", type=Path, metavar="ROOT", help=f"{DATA_HELP} (default: what the run was trained on)")
    parser.add_argument(
        "--participants",
        nargs="+",
        action="extend",
        default=[],
        metavar="P",
        help="only their videos, such as P01 P02 (default: everybody's)",
    )
    parser.add_argument("--split", default="validation", help="train or validation (default: validation)")
    parser.add_argument("--out", type=Path, metavar="DIR", help="(default: RUN/report of the first run, else report)")
    parser.add_argument(
        "--results", type=Path, metavar="FILE", help="also write it as Markdown, such as docs/results.md"
    )
    parser.add_argument("--device", metavar="D", help="for scores that are not kept yet (default: the best there is)")
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    from egochef.extras import need_extra

    need_extra("report", "the report", ("altair", "jinja2", "vl_convert"))
    from egochef.report.report import make_report
    from egochef.report.scores import is_run

    first = next((path for path in args.sources if is_run(path)), None)
    out = args.out or (Path("report") if first is None else first / "report")
    report = make_report(
        args.sources,
        out,
        data=args.data,
        split=args.split,
        participants=args.participants,
        device=args.device,
        results=args.results,
    )
    if args.json:
        print_json({"page": str(report.page), "missing": report.missing, "metrics": report.metrics} | report.told)
        return 0
    for name, metrics in report.metrics.items():
        values = ", ".join(
            f"{task} {metrics[f'all_{task}_accuracy_at_1']['value']:.1f} %" for task in ("verb", "noun", "action")
        )
        print(f"{name}: {values}")
    print_seen(report.told)
    for line in report.missing:
        print(f"missing: {line}")
    num, size = len(report.figures), report.page.stat().st_size
    print(f"written: {report.page} ({size / 1e6:.1f} MB) and {num} figure files beside it, in {report.seconds:.1f} s")
    if args.results:
        print(f"written: {args.results}")
    return 0
