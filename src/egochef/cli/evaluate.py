"""`egochef evaluate`: checkpoints or saved scores in, the official metrics out."""

import argparse
from pathlib import Path

from egochef.cli.common import (
    add_data,
    add_device,
    add_json,
    add_models,
    add_tuned,
    print_json,
    print_seen,
    read_tables,
    read_tuned,
)

HELP = "official metrics of a checkpoint, of saved scores, or of an ensemble of several"
EXAMPLE = "egochef evaluate --checkpoint outputs/run16 outputs/run32 --data EPIC-KITCHENS --out outputs/evaluation"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_models(parser)
    add_tuned(parser)
    add_data(parser)
    parser.add_argument("--split", default="validation", help="train or validation (default: validation)")
    parser.add_argument(
        "--seen",
        action="store_true",
        help="score labels that a model has learned from too, as of a teacher's training segments; metrics.json tells",
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="where metrics.json and scores.npz go")
    add_device(parser)
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    from dataclasses import replace

    from egochef.data.annotations import open_data_folder, read_split
    from egochef.files import write_json
    from egochef.inference.scoring import labels_tuned_on, truth_of
    from egochef.scoring.metrics import evaluate, format_metrics
    from egochef.scoring.table import any_seen, save_scores, seen_of, who_has_seen
    from egochef.scoring.tuning import combine

    folder = open_data_folder(args.data, args.participants)
    if not folder.labelled(args.split):
        truth_of(folder, args.split, ())  # refuses before the work, not after
    tuned = read_tuned(args, args.split, read_split(folder, args.split), takes_seen=args.seen)
    names, tables, segments = read_tables(args, args.split, takes_seen=args.seen)
    truth = truth_of(folder, args.split, segments)
    members = {name: evaluate(table, truth) for name, table in zip(names, tables, strict=True)}
    scores = combine(tables, names, tuned)
    seen = dict(zip(names, map(seen_of, tables), strict=True))
    if tuned:
        seen[str(args.tuned)] = labels_tuned_on(tuned, args.split, segments)
    told = who_has_seen(list(seen), list(seen.values()))
    scores = replace(scores, seen=any_seen(list(seen.values())))
    metrics = evaluate(scores, truth)
    if args.out:
        save_scores(args.out / "scores.npz", scores)
        write_json(args.out / "metrics.json", metrics | told)
    if args.json:
        print_json(metrics | told)
        return 0
    if len(tables) > 1 or args.tuned:
        for name, member in members.items():
            print(f"{name}\n{format_metrics(member)}\n")
        ensembled = f"ensemble of {len(tables)}" if len(tables) > 1 else "scores"
        print(f"tuned {ensembled}" if args.tuned else ensembled)
    print(format_metrics(metrics))
    print_seen(told)
    if args.out:
        print(f"written: {args.out / 'metrics.json'}, {args.out / 'scores.npz'}")
    return 0
