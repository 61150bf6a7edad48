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


def print_seen(told: dict[str, list[str]]) -> None:
    """What there is to say of labels that models have learned from, below the numbers."""
    if names := told["labels_seen_by"]:
        print(f"too good: {', '.join(names)} learned from labels that are scored here")
    if names := told["labels_seen_not_told_by"]:
        print(f"not told: whether {', '.join(names)} learned from labels that are scored here")


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


def read_tuned(
    args: argparse.Namespace, split: str, segments: "tuple[Segment, ...]", *, takes_seen: bool = True
) -> "Tuned | None":
    """What --tuned names, before any work is done; None without it.

    Args:
        takes_seen: whether it may have been chosen by the labels of the segments that are scored with it.

    Raises:
        InputError: no tuning, or one that was chosen by their labels and may not be.
    """
    from egochef.data.annotations import open_data_folder
    from egochef.deploy.backends import origin_of
    from egochef.inference.scoring import check_unseen, labels_tuned_on, prior_of
    from egochef.records import read_about
    from egochef.scoring.tuning import Tuned, Tuning

    if args.tuned is None:
        return None
    tuning = read_about(args.tuned, Tuning, "egochef tune")
    prior = None
    if tuning.prior_strength:
        counted = {each for path in args.checkpoint or () for each in origin_of(path).train_on}
        splits = tuple(dict.fromkeys((*tuning.prior_splits, *sorted(counted))))
        prior = prior_of(open_data_folder(args.data), splits)
    tuned = Tuned(tuning, prior)
    if not takes_seen:
        check_unseen(labels_tuned_on(tuned, split, segments), str(args.tuned), split)
    return tuned


def read_tables(
    args: argparse.Namespace, split: str, *, takes_seen: bool = True
) -> "tuple[list[str], list[ScoreTable], tuple[Segment, ...]]":
    """What --checkpoint or --scores names, as (names, tables of the split, the split's segments in their order).

    Args:
        takes_seen: whether they may be by models that have learned from the segments' labels.

    Raises:
        InputError: neither was given, or anything about files, data and classes that does not fit; before any work
            is done where that can be told.
    """
    from egochef.data.annotations import open_data_folder, read_split
    from egochef.deploy.backends import load_scorer, origin_of, score_checkpoint, seen_by
    from egochef.errors import InputError
    from egochef.inference.scoring import check_taxonomy, check_unseen, fitted
    from egochef.scoring.table import load_scores, seen_of

    paths = args.checkpoint or args.scores
    if not paths:
        raise InputError("nothing to score: give --checkpoint C ... or --scores S ...")
    folder = open_data_folder(args.data, args.participants)
    segments = read_split(folder, split)
    names = [str(path) for path in paths]
    if args.scores:
        tables = [fitted(load_scores(path), folder, segments, str(path)) for path in paths]
        seen = [seen_of(table) for table in tables]
    else:
        for path in paths:
            check_taxonomy(origin_of(path).taxonomy, folder, str(path))
        seen = [seen_by(path, split, segments) for path in paths]
    if not takes_seen:
        for name, each in zip(names, seen, strict=True):
            check_unseen(each, name, split)
    if args.checkpoint:
        engines = [load_scorer(path, device=args.device, precision=args.precision) for path in paths]
        tables = [
            score_checkpoint(path, engine, folder, split, segments, num_views=args.views)
            for path, engine in zip(paths, engines, strict=True)
        ]
    return names, tables, segments
