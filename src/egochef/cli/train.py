"""`egochef train`: a recipe and data in, a run's folder out."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from egochef.cli.common import add_data, add_device

if TYPE_CHECKING:
    from egochef.training.config import TrainConfig

HELP = "train a recogniser"
EXAMPLE = "egochef train --recipe frames16 --data EPIC-KITCHENS --out outputs/run16"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    start = parser.add_mutually_exclusive_group(required=True)
    start.add_argument("--recipe", metavar="R", help="frames16, frames32 or toy")
    start.add_argument("--config", type=Path, metavar="FILE", help="a saved config.json instead of a recipe")
    add_data(parser)
    parser.add_argument("--out", type=Path, required=True, metavar="RUN", help="folder of the run")
    parser.add_argument("--num-frames", type=int, metavar="N", help="frames a clip")
    parser.add_argument("--batch-size", type=int, metavar="N", help="clips an optimiser step, over all accumulation")
    parser.add_argument("--micro-batch", type=int, metavar="N", help="clips the device takes at once")
    parser.add_argument("--epochs", type=int, metavar="N", help="at most")
    parser.add_argument("--lr", type=float, metavar="X", help="peak learning rate")
    parser.add_argument("--seed", type=int, metavar="N", help="of weights, order and augmentation")
    parser.add_argument("--encoder", metavar="E", help="resnet50 or efficientnet_lite0")
    parser.add_argument("--temporal", metavar="M", help="temporal model: bilstm or mean")
    parser.add_argument("--pooling", metavar="P", help="over time: mean, last or attention")
    parser.add_argument("--hidden-size", type=int, metavar="N", help="LSTM units per direction")
    parser.add_argument("--train-on", nargs="+", metavar="SPLIT", help="train, or train validation for a submission")
    parser.add_argument("--init", metavar="FILE", help="weights file of the encoder, imagenet or none")
    parser.add_argument("--workers", type=int, metavar="N", help="decoding processes")
    parser.add_argument("--debug", action="store_true", help="cut the run down to minutes; its scores mean nothing")
    parser.add_argument("--resume", action="store_true", help="go on with the run in RUN, or start it")
    add_device(parser)


def run(args: argparse.Namespace) -> int:
    from egochef.training.loop import train
    from egochef.training.runfiles import LAST

    config = build_config(args)
    if args.resume and not (args.out / "config.json").is_file():
        print(f"{args.out}: no run there yet, starting one")
    progress = train(config, args.data, args.out, resume=args.resume, device=args.device)
    if progress.best_score >= 0:
        print(f"best validation action accuracy {progress.best_score:.2f} % in epoch {progress.best_epoch}")
    print(
        f"{args.out}: {progress.epoch} epochs, {progress.step} steps; best.safetensors and {LAST.name}/ in checkpoints"
    )
    print(f"next: egochef evaluate --checkpoint {args.out} --data {args.data}")
    return 0


def build_config(args: argparse.Namespace) -> "TrainConfig":
    """The recipe's or file's config with the flags put in."""
    import dataclasses

    from egochef.errors import InputError
    from egochef.model.encoders import ENCODERS
    from egochef.recipes import find_recipe
    from egochef.training.config import debug, load_config, with_encoder, with_init

    config = find_recipe(args.recipe) if args.recipe else load_config(args.config)
    if args.encoder:
        if args.encoder not in ENCODERS:
            raise InputError(f"unknown encoder {args.encoder!r}, expected one of {', '.join(ENCODERS)}")
        config = with_encoder(config, args.encoder)
    if args.init:
        config = with_init(config, args.init)
    model = {name: getattr(args, name) for name in ("temporal", "pooling", "hidden_size")}
    top = {name: getattr(args, name) for name in ("batch_size", "micro_batch", "epochs", "lr", "seed")}
    top |= {"num_workers": args.workers, "train_on": tuple(args.train_on) if args.train_on else None}
    top |= {"precision": args.precision if args.precision != "auto" else None}
    clip = {"num_frames": args.num_frames}
    config = dataclasses.replace(
        config,
        model=dataclasses.replace(config.model, **_given(model)),
        clip=dataclasses.replace(config.clip, **_given(clip)),
        **_given(top),
    )
    return debug(config) if args.debug else config


def _given(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}
