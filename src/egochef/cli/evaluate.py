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
    parser.add_argument("--out", type=Path, metavar="DIR", help="where metrics.json and scores.npz go")
    add_device(parser)
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    from egochef.data.annotations import open_data_folder
    from egochef.files import write_json
    from egochef.inference.scoring import truth_of
    from egochef.scoring.metrics import evaluate, format_metrics
    from egochef.scoring.table import save_scores
    from egochef.scoring.tuning import combine

    folder = open_data_folder(args.data, args.participants)
    if not folder.labelled(args.split):
        truth_of(folder, args.split, ())  # refuses before the work, not after
    tuned = read_tuned(args, args.split)
    names, tables, segments = read_tables(args, args.split)
    truth = truth_of(folder, args.split, segments)
    members = {name: evaluate(table, truth) for name, table in zip(names, tables, strict=True)}
    scores = combine(tables, names, tuned)
    metrics = evaluate(scores, truth)
    if args.out:
        save_scores(args.out / "scores.npz", scores)
        write_json(args.out / "metrics.json", metrics)
    if args.json:
        print_json(metrics)
        return 0
    if len(tables) > 1 or args.tuned:
        for name, member in members.items():
            print(f"{name}\n{format_metrics(member)}\n")
        ensembled = f"ensemble of {len(tables)}" if len(tables) > 1 else "scores"
        print(f"tuned {ensembled}" if args.tuned else ensembled)
    print(format_metrics(metrics))
    if args.out:
        print(f"written: {args.out / 'metrics.json'}, {args.out / 'scores.npz'}")
    return 0
