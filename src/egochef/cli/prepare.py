"""`egochef prepare`: a data folder in, a store out that trains at full speed."""

import argparse
from pathlib import Path

from egochef.cli.common import add_data, add_json, print_json

HELP = "decode every segment once into a store that trains at full speed; can be stopped and run again"
EXAMPLE = "egochef prepare --data EPIC-KITCHENS --out EPIC-STORE --workers 8"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_data(parser)
    parser.add_argument("--out", type=Path, required=True, metavar="STORE", help="folder of the store")
    parser.add_argument(
        "--split", nargs="+", action="extend", default=[], metavar="S", help="train, validation, test (default: all)"
    )
    parser.add_argument("--workers", type=int, metavar="N", help="processes (default: one for each processor)")
    parser.add_argument(
        "--shard", default="1/1", metavar="I/N", help="make the I-th of N parts of the videos, for cluster arrays"
    )
    parser.add_argument(
        "--size", type=int, default=256, metavar="PX", help="shorter side of the pictures (default: 256)"
    )
    parser.add_argument("--fps", type=float, default=10.0, metavar="N", help="frames kept a second (default: 10)")
    parser.add_argument(
        "--min-frames", type=int, default=48, metavar="N", help="frames kept of a segment at least (default: 48)"
    )
    parser.add_argument("--quality", type=int, default=85, metavar="N", help="of JPEG, 1 to 100 (default: 85)")
    parser.add_argument(
        "--from",
        dest="source",
        choices=("videos", "frames"),
        default="videos",
        help="videos, or the officially extracted rgb_frames (default: videos)",
    )
    parser.add_argument(
        "--max-lost",
        type=float,
        default=0.001,
        metavar="X",
        help="share of frames that may be damaged in the videos (default: 0.001)",
    )
    parser.add_argument("--dry-run", action="store_true", help="tell the size and make nothing")
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    import dataclasses

    from egochef.clip import Grid
    from egochef.data.prepare import estimate, prepare
    from egochef.data.store import StoreSpec
    from egochef.runtime import num_cpus

    spec = StoreSpec(args.size, args.quality, Grid(args.fps, args.min_frames))
    choice = {"splits": args.split, "participants": args.participants, "source": args.source}
    if args.dry_run:
        needs = estimate(args.data, args.out, spec, **choice)
        if args.json:
            print_json(dataclasses.asdict(needs))
        else:
            print(
                f"{needs.num_videos} videos, {needs.num_segments:,} segments: about {needs.num_frames:,} frames, "
                f"{needs.num_bytes / 1e9:.2f} GB"
            )
        return 0
    workers = num_cpus() if args.workers is None else args.workers
    shard = parse_shard(args.shard)
    done = prepare(args.data, args.out, spec, num_workers=workers, shard=shard, max_lost=args.max_lost, **choice)
    about = done.about
    if args.json:
        print_json(dataclasses.asdict(done))
    elif done.num_missing:
        print(f"{args.out}: {done.num_made} videos made, {done.num_missing} are still to be made by other parts")
    else:
        print(
            f"{args.out}: {about.num_segments:,} segments of {about.num_videos} videos, {about.num_frames:,} frames, "
            f"{about.num_bytes / 1e9:.2f} GB; {done.num_made} videos made now"
        )
        print(f"next: egochef train --recipe frames16 --data {args.out} --out outputs/run16")
    return 0


def parse_shard(text: str) -> tuple[int, int]:
    """`3/8` as (3, 8).

    Raises:
        InputError: not two whole numbers with a slash between.
    """
    from egochef.errors import InputError

    number, slash, total = text.partition("/")
    if not (slash and number.isdecimal() and total.isdecimal()):
        raise InputError(f"--shard is {text!r}, expected I/N such as 1/8 (the first of eight parts)")
    return int(number), int(total)
