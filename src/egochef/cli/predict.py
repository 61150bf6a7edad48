"""`egochef predict`: video files in, actions over their time out."""

import argparse
from pathlib import Path

from egochef.cli.common import add_device, add_json, print_json

HELP = "verb, noun and action over the time of video files"
EXAMPLE = "egochef predict video.mp4 --checkpoint outputs/run16 --log predictions.jsonl"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("video", type=Path, nargs="+", metavar="VIDEO", help="video file")
    parser.add_argument("--checkpoint", type=Path, required=True, metavar="C", help="checkpoint file or run folder")
    parser.add_argument("--log", type=Path, metavar="OUT.jsonl", help="a line per prediction (default: none)")
    parser.add_argument(
        "--window", type=float, default=2.0, metavar="S", help="seconds that one prediction sees (default: 2)"
    )
    parser.add_argument(
        "--hop", type=float, default=0.5, metavar="S", help="seconds between predictions (default: 0.5)"
    )
    add_device(parser)
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    from tqdm import tqdm

    from egochef.engines.torch_engine import load
    from egochef.inference.video import predict_videos

    engine = load(args.checkpoint, device=args.device, precision=args.precision)
    lines = predict_videos(engine, args.video, log=args.log, window_s=args.window, hop_s=args.hop)
    if args.json:
        print_json({"predictions": list(lines)})
        return 0
    video = None
    for line in lines:
        if line["video"] != video:
            video = line["video"]
            tqdm.write(video)
        tqdm.write(f"  {line['time_s']:8.2f} s  {line['action_prob']:4.0%}  {line['action']}")
    if args.log:
        print(f"written: {args.log}")
    return 0
