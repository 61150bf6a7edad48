"""`egochef predict`: video files in, actions over their time out."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from egochef.cli.common import add_backend, add_json, print_json
from egochef.texts import escaped

if TYPE_CHECKING:
    from egochef.inference.prediction import Prediction

HELP = "verb, noun and action over the time of video files"
EXAMPLE = "egochef predict video.mp4 --checkpoint outputs/run16 --log predictions.jsonl --render annotated.mp4"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("video", type=Path, nargs="+", metavar="VIDEO", help="video file")
    parser.add_argument("--checkpoint", type=Path, required=True, metavar="C", help="checkpoint file or run folder")
    outputs = parser.add_argument_group("what is written (each appears when it is whole; default: nothing)")
    outputs.add_argument("--log", type=Path, metavar="OUT.jsonl|.csv", help="a line per prediction")
    outputs.add_argument(
        "--segments", type=Path, metavar="OUT.csv", help="the shown actions as rows of an EK-100 annotation file"
    )
    outputs.add_argument(
        "--render",
        type=Path,
        metavar="OUT.mp4|DIR",
        help="the video with what is recognised drawn on it, without sound; a folder gets VIDEO's name + .mp4",
    )
    outputs.add_argument("--reel", type=Path, metavar="OUT.mp4", help="the best moments of all videos, with titles")
    outputs.add_argument(
        "--reel-moments", type=int, default=3, metavar="N", help="at most, of a video in the reel (default: 3)"
    )
    look = parser.add_argument_group("how it looks")
    look.add_argument(
        "--window",
        type=float,
        nargs="+",
        action="extend",
        metavar="S",
        help="seconds that a prediction sees; several lengths are looked at together (default: 1 2 4)",
    )
    look.add_argument("--hop", type=float, default=0.5, metavar="S", help="seconds between predictions (default: 0.5)")
    look.add_argument(
        "--threshold",
        type=float,
        metavar="P",
        help="probability from which an action is shown; below it is uncertain (default: 0.2)",
    )
    truth = parser.add_argument_group("what really happens, for --render")
    truth.add_argument("--data", type=Path, metavar="ROOT", help="data folder or store with the video's segments")
    truth.add_argument(
        "--split", nargs="+", action="extend", metavar="SPLIT", help="where they are (default: validation)"
    )
    add_backend(parser)
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    from contextlib import closing

    from egochef.deploy.backends import load_engine
    from egochef.errors import InputError
    from egochef.inference.outputs import check_film, check_outputs, film_paths
    from egochef.inference.reel import ReelItem, ReelSpec, choose_moments, make_reel
    from egochef.inference.render import read_truth, render_video
    from egochef.inference.rolling import WINDOWS_S
    from egochef.inference.smoothing import Smoothing
    from egochef.inference.video import predict_videos
    from egochef.video.decode import VideoError

    videos = list(dict.fromkeys(args.video))
    renders = film_paths(args.render, videos) if args.render else {}
    if args.reel:
        check_film(args.reel)
    outputs = [path for path in (args.log, args.segments, args.reel, *renders.values()) if path]
    check_outputs(outputs, [*videos, *args.calibrate])
    if (args.data or args.split) and not (args.data and args.render):
        raise InputError("--data and --split name what is drawn beside the predictions: they go with --render")
    splits = args.split or ["validation"]
    truths = {path: read_truth(args.data, splits, path.stem) for path in renders} if args.data else {}
    smoothing = Smoothing() if args.threshold is None else Smoothing(threshold=args.threshold)
    spec = ReelSpec(num_moments=args.reel_moments)
    engine = load_engine(
        args.checkpoint,
        backend=args.backend,
        device=args.device,
        precision=args.precision,
        calibrate=args.calibrate,
        compiled=args.compile,
    )
    items: list[ReelItem] = []
    written = [path for path in (args.log, args.segments) if path]

    def when_done(path: Path, predictions: "list[Prediction]") -> None:
        if args.reel:
            items.append(choose_moments(path, predictions, spec))
        if path in renders:
            render_video(path, predictions, renders[path], truths.get(path, ()), threshold=smoothing.threshold)
            written.append(renders[path])

    lines = predict_videos(
        engine,
        videos,
        log=args.log,
        segments=args.segments,
        windows_s=args.window or WINDOWS_S,
        hop_s=args.hop,
        smoothing=smoothing,
        when_done=when_done if args.reel or renders else None,
    )
    told: list[dict[str, Any]] = []
    last: dict[str, Any] | None = None
    fault = None
    try:
        with closing(lines):  # what is half-written goes at once when the keyboard stops us
            for line in lines:
                if args.json:
                    told.append(line)
                else:
                    _print(line, last)
                last = line
    except VideoError as error:
        if last is None:
            raise
        fault = error
    if items:
        make_reel(items, args.reel, spec)
        written.append(args.reel)
    if args.json:
        print_json({"predictions": told})
    elif written:
        print(f"written: {', '.join(escaped(str(path)) for path in written)}")
    if fault is not None:
        raise fault
    return 0


def _print(line: dict[str, Any], before: dict[str, Any] | None) -> None:
    """A prediction for people, under its video's name, and not into a progress bar."""
    from tqdm import tqdm

    if before is None or before["video"] != line["video"]:
        tqdm.write(escaped(line["video"]))
    tqdm.write(_as_text(line))


def _as_text(line: dict[str, Any]) -> str:
    """What is shown, or what is likeliest where nothing is."""
    hundredths = round(1000 * line["time_s"]) // 10  # begun, as all clocks here: 7.999 s is in second 7
    text = f"  {hundredths / 100:8.2f} s  {line['action_prob']:4.0%}  {line['action']}"
    if line["shown"] is None:
        return f"{text} (uncertain)"
    return text if line["shown"] == line["action"] else f"{text} (shown: {line['shown']})"
