"""`egochef toy`: draws a toy kitchen."""

import argparse
from pathlib import Path

HELP = "draw a ToyKitchen: first-person kitchen videos and their annotations in EK-100's layout"
EXAMPLE = "egochef toy --out toy --segments 200"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, required=True, metavar="ROOT", help="new or empty folder")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="another seed is another kitchen (default: 0)")
    parser.add_argument(
        "--segments", type=int, metavar="N", help="in all splits together (default: 600 for full, 360 for small)"
    )
    parser.add_argument(
        "--difficulty",
        choices=("easy", "normal", "hard"),
        default="normal",
        help="how hard it is to see (default: normal)",
    )
    parser.add_argument(
        "--preset",
        choices=("full", "small"),
        default="full",
        help="small has fewer classes and shorter segments (default: full)",
    )
    parser.add_argument("--workers", type=int, metavar="N", help="processes that draw (default: all processors)")


def run(args: argparse.Namespace) -> int:
    from egochef.toykitchen import ToyConfig, draw_kitchen
    from egochef.toykitchen.script import plan_kitchen

    config = ToyConfig(seed=args.seed, num_segments=args.segments, difficulty=args.difficulty, preset=args.preset)
    root = draw_kitchen(args.out, config, num_workers=args.workers)
    plans = plan_kitchen(config)
    num_bytes = sum(path.stat().st_size for path in root.rglob("*.MP4"))
    minutes = sum(plan.duration_s for plan in plans) / 60
    print(f"{root}: {len(plans)} videos, {minutes:.1f} minutes, {num_bytes / 1e6:.0f} MB")
    for split in ("train", "validation", "test"):
        chosen = [plan for plan in plans if plan.split == split]
        acts = [act for plan in chosen for act in plan.acts]
        kinds = f"{len({act.verb for act in acts})} verbs, {len({act.noun for act in acts})} nouns"
        participants = len({plan.participant_id for plan in chosen})
        print(f"  {split:<11}{len(acts):>5} segments in {len(chosen)} videos of {participants} participants, {kinds}")
    print(f"Next: egochef train --recipe toy --data {root} --out outputs/run")
    return 0
