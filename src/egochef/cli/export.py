"""`egochef export`: a checkpoint as ONNX or Core ML, checked against the checkpoint."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from egochef.cli.common import add_json, print_json

if TYPE_CHECKING:
    from egochef.deploy.export import ExportReport

HELP = "write a checkpoint as ONNX or Core ML, and check the written file against it"
EXAMPLE = "egochef export --checkpoint outputs/run16 --format coreml --parts stream --output exports/kitchen.mlpackage"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--checkpoint", type=Path, required=True, metavar="C", help="checkpoint file or run folder")
    parser.add_argument("--format", required=True, choices=("coreml", "onnx"), help="what to write")
    parser.add_argument("--output", type=Path, required=True, metavar="PATH", help="NAME.mlpackage or NAME.onnx")
    parser.add_argument(
        "--parts",
        choices=("clip", "stream"),
        default="clip",
        help="one file that takes whole clips, or two for streams, -encoder and -head (default: clip)",
    )
    parser.add_argument(
        "--precision",
        choices=("fp32", "fp16", "int8"),
        help="onnx: fp32, fp16 or int8; coreml: fp16, or int8 for weights of eight bits (default: the first)",
    )
    parser.add_argument(
        "--data",
        type=Path,
        metavar="ROOT",
        help="data folder or store whose clips the file is checked on, and int8 in onnx measured on "
        "(default: a small kitchen is drawn)",
    )
    parser.add_argument(
        "--participants", nargs="+", action="extend", default=[], metavar="P", help="only their videos of --data"
    )
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    import dataclasses

    from egochef.deploy.export import CLASS_MAPPINGS, export, report_of

    report = export(
        args.checkpoint,
        args.output,
        format=args.format,
        parts=args.parts,
        precision=args.precision,
        data=args.data,
        participants=args.participants,
    )
    if args.json:
        print_json(dataclasses.asdict(report))
        return 0
    print_report(report)
    names = [*report.files, report_of(args.output).name, CLASS_MAPPINGS]
    print(f"written to {args.output.parent}: {', '.join(names)}")
    return 0


def print_report(report: "ExportReport") -> None:
    """The table of an export."""
    agreement = report.agreement
    rows = [
        ("ran on", report.ran_on),
        ("clips", f"{agreement.num_clips} {report.clips}"),
        (
            "largest difference",
            f"{agreement.difference:.1e} of log-probabilities (at most {agreement.tolerance.log_probs:.0e})",
        ),
    ]
    if agreement.feature_difference is not None:
        rows.append(
            ("", f"{agreement.feature_difference:.1e} of features (at most {agreement.tolerance.features:.0e})")
        )
    rows += [
        ("", f"{agreement.prob_difference:.1e} of probabilities, in absolute terms"),
        ("same best class", f"verb {agreement.verb_top1:.0%}, noun {agreement.noun_top1:.0%}"),
    ]
    rows += [("size", f"{name} {size / 2**20:.1f} MiB") for name, size in report.files.items()]
    rows.append(("time", f"{report.seconds:.0f} s"))
    for name, text in rows:
        print(f"{name:<20}{text}")
