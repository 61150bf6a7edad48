"""`egochef live`: a camera, a stream or a file in, actions on the screen."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from egochef.cli.common import add_backend, add_json, print_json
from egochef.texts import escaped

if TYPE_CHECKING:
    from egochef.live.app import LiveReport

HELP = "recognise verb, noun and action in live video: a camera, a network stream, or a file at its own rate"
EXAMPLE = "egochef live --checkpoint outputs/run16 --camera 0 --record kitchen.mp4 --log kitchen.jsonl"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--checkpoint", type=Path, required=True, metavar="C", help="checkpoint file or run folder")
    parser.add_argument(
        "--camera",
        default="0",
        metavar="0|FILE|URL",
        help="a camera's number, a video file, a folder of pictures, a fifo, or an address: rtsp:// http:// https:// "
        "(default: 0)",
    )
    add_backend(parser)
    parser.add_argument("--fp16", action="store_true", help="the same as --precision fp16")
    parser.add_argument(
        "--skip-frames", type=int, default=0, metavar="N", help="encode every (N+1)-th captured frame only (default: 0)"
    )
    parser.add_argument("--num-frames", type=int, metavar="N", help="must agree with the checkpoint")
    parser.add_argument(
        "--window",
        type=float,
        nargs="+",
        action="extend",
        metavar="S",
        help="seconds that a prediction sees, several at once (default: 1 2 4)",
    )
    parser.add_argument(
        "--threshold", type=float, metavar="P", help="probability from which an action is named (default: 0.2)"
    )
    parser.add_argument("--headless", action="store_true", help="no window")
    parser.add_argument("--record", type=Path, metavar="OUT.mp4", help="record what the screen shows, from the start")
    parser.add_argument("--log", type=Path, metavar="OUT.jsonl", help="a line per prediction; .csv works too")
    parser.add_argument(
        "--fast", action="store_true", help="every frame of a file, as fast as it goes, instead of at its own rate"
    )
    parser.add_argument("--loop", action="store_true", help="begin a file again at its end")
    parser.add_argument("--fps", type=float, default=10.0, metavar="N", help="of a folder of pictures (default: 10)")
    parser.add_argument("--size", type=_size, metavar="WxH", help="ask the camera for pictures of this size")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("outputs", "live"),
        metavar="DIR",
        help="where the keys r and s put recordings and screenshots (default: outputs/live)",
    )
    parser.add_argument("--seconds", type=float, metavar="S", help="stop after so long (default: never)")
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    import dataclasses

    from egochef.deploy.backends import load_engine
    from egochef.errors import InputError
    from egochef.inference.rolling import WINDOWS_S
    from egochef.inference.smoothing import Smoothing
    from egochef.live.app import LiveOptions, run_live
    from egochef.live.sources import open_source

    smoothing = Smoothing() if args.threshold is None else Smoothing(threshold=args.threshold)
    options = LiveOptions(
        windows_s=tuple(args.window or WINDOWS_S),
        smoothing=smoothing,
        skip_frames=args.skip_frames,
        headless=args.headless,
        record=args.record,
        log=args.log,
        folder=args.out,
        seconds=args.seconds,
    )
    if args.fp16 and args.precision not in ("auto", "fp16"):
        raise InputError(f"--fp16 and --precision {args.precision}: give one of them")
    source = open_source(args.camera, fast=args.fast, loop=args.loop, size=args.size, fps=args.fps)
    engine = load_engine(
        args.checkpoint,
        backend=args.backend,
        device=args.device,
        precision="fp16" if args.fp16 else args.precision,
        calibrate=args.calibrate,
        compiled=args.compile,
    )
    if args.num_frames not in (None, engine.clip.num_frames):
        raise InputError(
            f"--num-frames {args.num_frames}: {args.checkpoint} takes {engine.clip.num_frames} frames. Leave it out, "
            "or name the checkpoint that was trained with as many."
        )
    report = run_live(engine, source, options)
    if args.json:
        print_json(dataclasses.asdict(report))
    else:
        _print(report)
    if report.fault is not None:
        raise InputError(report.fault)
    return 0


def _size(text: str) -> tuple[int, int]:
    width, _, height = text.lower().partition("x")
    return int(width), int(height)


def _print(report: "LiveReport") -> None:
    print(f"{report.source}, {report.engine}: {report.seconds:.1f} s")
    print(
        f"  {report.num_captured:,} frames captured, {report.num_encoded:,} encoded, {report.num_dropped:,} dropped, "
        f"{report.num_predictions:,} predictions ({report.predictions_per_s:.1f}/s)"
    )
    if not report.num_predictions:
        print("  nothing was recognised: the shortest window was never full (--window takes shorter ones)")
    for name, spread in (("prediction", report.latency), ("screen", report.screen_latency)):
        if spread is not None:
            print(f"  from capture to {name}: {spread.median_ms:.0f} ms median, 95 % below {spread.p95_ms:.0f} ms")
    for path in (*report.recordings, *([report.log] if report.log else [])):
        print(f"  written: {escaped(path)}")
