"""`egochef demo`: the whole main job on a small kitchen that is drawn."""

import argparse
from pathlib import Path

from egochef.cli.common import add_json, print_json

HELP = "draw a toy kitchen and do the whole main job on it, in minutes, on a CPU"
EXAMPLE = "egochef demo --out outputs/demo"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    default = Path("outputs", "demo")
    parser.add_argument("--out", type=Path, default=default, metavar="DIR", help=f"(default: {default})")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of everything (default: 0)")
    parser.add_argument("--segments", type=int, metavar="N", help="segments to draw (default: 280)")
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    import dataclasses

    from egochef.cli.submit import describe
    from egochef.demo import run_demo
    from egochef.errors import Stopped

    try:
        result = run_demo(args.out, seed=args.seed, num_segments=args.segments)
    except Stopped as stopped:  # of a training, which has a flag for it
        raise Stopped(str(stopped).replace("the same command and --resume", "the same command")) from None
    if args.json:
        print_json(dataclasses.asdict(result))
        return 0
    print("\nToyKitchen validation, top-1 in percent (a drawn kitchen: it says nothing about EK-100)")
    print(f"{'':<12}{'verb':>8}{'noun':>8}{'action':>8}")
    for name, metrics in result.metrics.items():
        values = "".join(f"{metrics[f'all_{task}_accuracy_at_1']:8.1f}" for task in ("verb", "noun", "action"))
        print(f"{name:<12}{values}")
    print(f"{'majority':<12}{'':>16}{result.majority_action:8.1f}")
    print(f"\nsubmission: valid, {describe(result.submission)}")
    print(f"time: {sum(result.seconds.values()):.0f} s")
    places = {
        "data/": "the kitchen, in EK-100's layout",
        "store/": "the same, prepared for training at full speed",
        "run16/": "the 16-frame run",
        "run32/": "the 32-frame run",
        "evaluation/": "metrics.json and scores.npz of both and of the ensemble",
        "submission.zip": "what the competition takes",
        "predictions.jsonl": "actions over a video's time",
        "export/": "the 16-frame model for the iPhone app, checked (docs/xcode-tutorial.md)",
        "report/": "what the models do: open report.html in a browser",
        "demo.png": "what was recognised, to look at",
    }
    if result.export is None:
        del places["export/"]
    if result.report is None:
        del places["report/"]
    for line in result.left_out:
        print(f"left out: {line}")
    for name, what in places.items():
        print(f"  {args.out / name!s:<36}{what}")
    return 0
