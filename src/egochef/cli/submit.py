"""`egochef submit`: checkpoints or saved scores in, the competition's zip out; or a strict check of any zip."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from egochef.cli.common import add_data, add_device, add_models, add_tuned, read_tables, read_tuned

if TYPE_CHECKING:
    from egochef.scoring.submission import SLS, SubmissionSummary

HELP = "write the competition's zip, or check one (--check)"
EXAMPLE = "egochef submit --checkpoint outputs/run16 outputs/run32 --data EPIC-KITCHENS --out submission.zip"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_models(parser)
    add_tuned(parser)
    add_data(parser)
    parser.add_argument("--split", default="test", help="train, validation or test (default: test)")
    default = Path("outputs", "submissions", "ensemble_submission.zip")
    parser.add_argument("--out", type=Path, default=default, metavar="Z.zip", help=f"(default: {default})")
    for level, what in (("pt", "pretraining"), ("tl", "training labels"), ("td", "training data")):
        parser.add_argument(
            f"--sls-{level}",
            type=int,
            metavar="N",
            help=f"supervision level of {what} (default: as the checkpoints say)",
        )
    parser.add_argument(
        "--no-actions", action="store_true", help="leave the action field out; the server makes its own"
    )
    parser.add_argument("--check", type=Path, metavar="Z.zip", help="check this zip and write nothing")
    add_device(parser)


def run(args: argparse.Namespace) -> int:
    from egochef.data.annotations import open_data_folder, read_split
    from egochef.errors import InputError
    from egochef.scoring.submission import check_submission, make_submission
    from egochef.scoring.tuning import combine

    folder = open_data_folder(args.data, args.participants)
    if folder.participants:
        raise InputError(f"{args.data}: a submission needs everybody's segments, not only some participants'")
    taxonomy = folder.taxonomy
    segments = read_split(folder, args.split)
    ids = [segment.narration_id for segment in segments]
    if args.check:
        print(f"{args.check}: valid, {describe(check_submission(args.check, ids, *taxonomy.counts))}")
        return 0
    sls = find_sls(args)
    tuned = read_tuned(args, args.split, segments)
    names, tables, _ = read_tables(args, args.split)
    scores = combine(tables, names, tuned)
    summary = make_submission(args.out, scores, sls, ids, *taxonomy.counts, with_actions=not args.no_actions)
    print(f"{args.out}: valid, {describe(summary)}")
    print("next: upload it as docs/submission.md tells (one submission a day counts, malformed ones too)")
    return 0


def describe(summary: "SubmissionSummary") -> str:
    """A submission in a few words."""
    levels = summary.sls
    return (
        f"{summary.num_segments:,} segments, {summary.num_actions or 'no'} actions each, "
        f"SLS {levels.pt} {levels.tl} {levels.td}, {summary.zip_bytes / 1e6:.1f} MB"
    )


def find_sls(args: argparse.Namespace) -> "SLS":
    """The supervision levels: the flags, else the highest of the checkpoints'.

    Raises:
        InputError: a level that neither a flag nor a checkpoint tells.
    """
    from egochef.deploy.backends import origin_of
    from egochef.errors import InputError
    from egochef.scoring.submission import SLS

    given = {level: getattr(args, f"sls_{level}") for level in ("pt", "tl", "td")}
    told: dict[str, int | None] = dict.fromkeys(given)
    if args.checkpoint:
        abouts = [origin_of(path) for path in args.checkpoint]
        starts = {about.initial_weights for about in abouts}
        if starts <= {"none", "imagenet"}:
            told["pt"] = 1 if "imagenet" in starts else 0
        told["tl"] = 3  # start and stop times
        told["td"] = 4 if any("validation" in about.train_on for about in abouts) else 3
    levels = {level: told[level] if value is None else value for level, value in given.items()}
    for level, value in levels.items():
        if value is None:
            raise InputError(
                f"give --sls-{level} N: the supervision level cannot be told from what was given (docs/submission.md)"
            )
    return SLS(**levels)  # type: ignore[arg-type]
