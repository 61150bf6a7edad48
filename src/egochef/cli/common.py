"""Flags and prints that several commands share."""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

    from egochef.data.annotations import Segment
    from egochef.scoring.table import ScoreTable
    from egochef.scoring.tuning import Tuned


PIPE_WIDTH = 200
"""characters a line where nobody knows how wide the reader's screen is"""
DATA_HELP = "data folder in EK-100's layout, or a store"


def add_data(parser: argparse.ArgumentParser, help_text: str = DATA_HELP) -> None:
    parser.add_argument("--data", type=Path, required=True, metavar="ROOT", help=help_text)
    parser.add_argument(
        "--participants",
        nargs="+",
        action="extend",
        default=[],
        metavar="P",
        help="only their videos, such as P01 P02, for who has not all (default: everybody's)",
    )


def add_models(parser: argparse.ArgumentParser) -> None:
    """--checkpoint and --scores: what to score, each once or several times; several are an ensemble."""
    group = parser.add_mutually_exclusive_group()
    group.add_argument(
        "--checkpoint",
        type=Path,
        nargs="+",
        action="extend",
        metavar="C",
        help="checkpoint file, run folder, or exported model (.onnx, .mlpackage); several are an ensemble",
    )
    group.add_argument(
        "--scores",
        type=Path,
        nargs="+",
        action="extend",
        metavar="S",
        help="saved scores; several are an ensemble",
    )
    parser.add_argument(
        "--views", type=int, metavar="N", help="clips a segment, averaged (default: as a checkpoint tells, mostly 1)"
    )


def add_tuned(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--tuned", type=Path, metavar="FILE", help="combine as `egochef tune` found: weights, and a prior from training"
    )


def add_device(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", metavar="D", help="cpu, cuda, cuda:1, mps (default: the best there is)")
    parser.add_argument(
        "--precision",
        choices=("auto", "fp32", "bf16", "fp16"),
        default="auto",
        help="of the matrix products (default: auto)",
    )


def add_backend(parser: argparse.ArgumentParser) -> None:
    """What runs the model on one machine, for streams and files."""
    parser.add_argument(
        "--backend",
        choices=("auto", "torch", "onnx", "openvino"),
        default="auto",
        help="what runs the model (default: onnx on a processor if it is installed, else torch)",
    )
    parser.add_argument("--device", metavar="D", help="cpu, cuda, cuda:1, mps (default: the best there is)")
    parser.add_argument(
        "--precision",
        choices=("auto", "fp32", "bf16", "fp16", "int8"),
        default="auto",
        help="of the matrix products; int8 needs --calibrate (default: auto)",
    )
    parser.add_argument(
        "--calibrate",
        type=Path,
        nargs="+",
        action="extend",
        default=[],
        metavar="VIDEO",
        help="videos like those to come, for int8",
    )
    parser.add_argument(
        "--compile", action="store_true", help="torch.compile the encoder: a minute at the start, then faster"
    )


def add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the table")


def print_json(value: Any) -> None:
    print(json.dumps(value, indent=1, allow_nan=False))


def make_console() -> "Console":
    """Where tables go: as wide as the terminal, plain and wide where there is none."""
    from rich import console as rich

    class Console(rich.Console):
        def on_broken_pipe(self) -> None:
            raise  # for `main`; rich's own would exit here

    console = Console(highlight=False, emoji=False, markup=False)
    if not console.is_terminal:
        console = Console(highlight=False, emoji=False, markup=False, no_color=True, width=PIPE_WIDTH)
    return console


def read_tuned(args: argparse.Namespace, split: str) -> "Tuned | None":
    """What --tuned names, before any work is done; None without it.

    Raises:
        InputError: no tuning, or a prior that has seen the split.
    """
    from egochef.data.annotations import open_data_folder
    from egochef.deploy.backends import origin_of
    from egochef.inference.scoring import prior_of
    from egochef.records import read_about
    from egochef.scoring.tuning import Tuned, Tuning

    if args.tuned is None:
        return None
    tuning = read_about(args.tuned, Tuning, "egochef tune")
    if not tuning.prior_strength:
        return Tuned(tuning, None)
    seen = {each for path in args.checkpoint or () for each in origin_of(path).train_on}
    prior = prior_of(open_data_folder(args.data), tuple(dict.fromkeys((*tuning.prior_splits, *sorted(seen)))))
    prior.check(split)
    return Tuned(tuning, prior)


def read_tables(args: argparse.Namespace, split: str) -> "tuple[list[str], list[ScoreTable], tuple[Segment, ...]]":
    """What --checkpoint or --scores names, as (names, tables of the split, the split's segments).

    Raises:
        InputError: neither was given, or anything about files, data and classes that does not fit.
    """
    from egochef.data.annotations import open_data_folder, read_split
    from egochef.deploy.backends import load_scorer, views_of
    from egochef.errors import InputError
    from egochef.inference.scoring import score_split
    from egochef.scoring.table import load_scores

    paths = args.checkpoint or args.scores
    if not paths:
        raise InputError("nothing to score: give --checkpoint C ... or --scores S ...")
    folder = open_data_folder(args.data, args.participants)
    segments = read_split(folder, split)
    if args.scores:
        tables = [load_scores(path) for path in paths]
    else:
        engines = [load_scorer(path, device=args.device, precision=args.precision) for path in paths]
        views = [args.views if args.views is not None else views_of(path) for path in paths]
        tables = [
            score_split(engine, folder, split, segments, num_views=num_views)
            for engine, num_views in zip(engines, views, strict=True)
        ]
    return [str(path) for path in paths], tables, segments
