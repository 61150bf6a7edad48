"""`egochef tune`: runs that held participants out in, ensemble weights, a prior's strength and a threshold out."""

import argparse
from pathlib import Path

from egochef.cli.common import add_data, add_device

HELP = "choose ensemble weights, a prior's strength and a threshold on participants held out of training"
EXAMPLE = "egochef tune --checkpoint outputs/run16 outputs/run32 --data EPIC-KITCHENS --out outputs/tuned.json"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--checkpoint",
        type=Path,
        nargs="+",
        action="extend",
        required=True,
        metavar="C",
        help="checkpoint files or run folders, trained with the same held_out participants",
    )
    parser.add_argument("--views", type=int, metavar="N", help="clips a segment, averaged (default: as each tells)")
    add_data(parser)
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="the tuning, for evaluate and submit")
    add_device(parser)


def run(args: argparse.Namespace) -> int:
    from egochef.data.annotations import open_data_folder, read_split
    from egochef.deploy.backends import load_scorer, score_checkpoint
    from egochef.errors import InputError
    from egochef.files import write_json
    from egochef.inference.scoring import check_taxonomy, prior_of, truth_of
    from egochef.model.checkpoint import checkpoint_file, read_checkpoint
    from egochef.records import to_dict
    from egochef.scoring.tuning import tune

    abouts = {path: read_checkpoint(checkpoint_file(path)) for path in args.checkpoint}
    if len(abouts) < len(args.checkpoint):
        raise InputError("a checkpoint was given twice: expected different ones, to weigh them against each other")
    held_out = {tuple(sorted(about.held_out)) for about in abouts.values()}
    if held_out == {()} or len(held_out) > 1:
        found = "; ".join(f"{path}: {' '.join(about.held_out) or 'nobody'}" for path, about in abouts.items())
        raise InputError(
            f"the checkpoints were trained without the segments of other participants ({found}): expected some, and "
            "the same ones, to tune on. Train with --set held_out=P01,P02."
        )
    seen = {about.train_on for about in abouts.values()}
    if seen != {("train",)}:
        raise InputError("tuning is for checkpoints trained on train alone, so that validation can judge it")
    folder = open_data_folder(args.data, args.participants)
    for path, about in abouts.items():
        check_taxonomy(about.taxonomy, folder, str(path))
    (participants,) = held_out
    segments = tuple(each for each in read_split(folder, "train") if each.participant_id in participants)
    if not segments:
        raise InputError(f"{args.data}: no training segments of {', '.join(participants)}, who were held out")
    prior = prior_of(folder, ("train",), without=participants)
    tables = []
    for path in abouts:
        engine = load_scorer(path, device=args.device, precision=args.precision)
        tables.append(score_checkpoint(path, engine, folder, "train", segments, num_views=args.views))
    names = [str(path) for path in args.checkpoint]
    tuning = tune(tables, names, truth_of(folder, "train", segments), prior, participants)
    write_json(args.out, to_dict(tuning))
    for name, weight in zip(tuning.members, tuning.weights, strict=True):
        print(f"{name}: weight {weight:.3f}")
    print(f"prior strength {tuning.prior_strength:g}, counted on {' and '.join(tuning.prior_splits)}")
    if tuning.threshold is not None:
        print(
            f"four of five answers are right from a probability of {tuning.threshold:g} on (egochef live --threshold)"
        )
    print(
        f"action top-1 of the {tuning.num_segments:,} held-out segments: {tuning.plain_accuracy:.2f} % untuned, "
        f"{tuning.tuned_accuracy:.2f} % tuned (chosen by these, so a little too good)"
    )
    words = " ".join(names)
    print(f"next: egochef evaluate --checkpoint {words} --data {args.data} --tuned {args.out}")
    return 0
