"""`egochef train`: a recipe and data in, a run's folder out."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from egochef.cli.common import add_data, add_device

if TYPE_CHECKING:
    from egochef.training.config import TrainConfig

HELP = "train a recogniser"
EXAMPLE = "egochef train --recipe frames16 --data EPIC-KITCHENS --out outputs/run16"
DATA_HELP = "data folder in EK-100's layout, a store, or features: then only what follows the encoder is trained"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    start = parser.add_mutually_exclusive_group(required=True)
    start.add_argument("--recipe", metavar="R", help="frames16, frames32 or toy")
    start.add_argument("--config", type=Path, metavar="FILE", help="a saved config.json instead of a recipe")
    add_data(parser, DATA_HELP)
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
    parser.add_argument(
        "--train-on", nargs="+", action="extend", metavar="SPLIT", help="train, or train validation for a submission"
    )
    parser.add_argument("--init", metavar="FILE", help="weights file of the encoder, imagenet or none")
    parser.add_argument(
        "--frozen-encoder", action="store_true", help="train from pictures, but only what follows the encoder"
    )
    parser.add_argument("--workers", type=int, metavar="N", help="decoding processes")
    parser.add_argument("--debug", action="store_true", help="cut the run down to minutes; its scores mean nothing")
    parser.add_argument("--resume", action="store_true", help="go on with the run in RUN, or start it")
    add_device(parser)


def run(args: argparse.Namespace) -> int:
    from egochef.inference.features import is_features
    from egochef.training.loop import train
    from egochef.training.runfiles import LAST

    from_features = is_features(args.data)
    if from_features:
        check_flags(args)
    config = build_config(args)
    if args.resume and not (args.out / "config.json").is_file():
        print(f"{args.out}: no run there yet, starting one")
    progress = train(config, args.data, args.out, resume=args.resume, device=args.device)
    if progress.best_score >= 0:
        print(f"best validation action accuracy {progress.best_score:.2f} % in epoch {progress.best_epoch}")
    print(
        f"{args.out}: {progress.epoch} epochs, {progress.step} steps; best.safetensors and {LAST.name}/ in checkpoints"
    )
    print(f"next: egochef evaluate --checkpoint {args.out} --data {'EPIC-KITCHENS' if from_features else args.data}")
    return 0


def check_flags(args: argparse.Namespace) -> None:
    """Refuse flags that contradict the features folder that --data names.

    Raises:
        InputError: names the flag and what the folder has.
    """
    from egochef.errors import InputError
    from egochef.inference.features import open_about

    spec = open_about(args.data).spec
    init = Path(args.init).name if args.init else None
    start = "a trained encoder" if spec.encoder_trained_on else spec.initial_weights
    for flag, asked, there in (
        ("--num-frames", args.num_frames, spec.clip.num_frames),
        ("--encoder", args.encoder, spec.encoder),
        ("--init", init, start),
    ):
        if asked is not None and asked != there:
            raise InputError(
                f"{args.data}: these features were made with {flag} {there}, not {asked}. "
                "Leave the flag out, or make other features."
            )


def build_config(args: argparse.Namespace) -> "TrainConfig":
    """The recipe's or file's config with the flags put in."""
    import dataclasses

    from egochef.recipes import find_recipe
    from egochef.training.config import debug, load_config, with_encoder, with_init, with_num_frames

    config = find_recipe(args.recipe) if args.recipe else load_config(args.config)
    if args.encoder:
        config = with_encoder(config, args.encoder)
    if args.init:
        config = with_init(config, args.init)
    if args.num_frames is not None:
        config = with_num_frames(config, args.num_frames)
    model = {name: getattr(args, name) for name in ("temporal", "pooling", "hidden_size")}
    top = {name: getattr(args, name) for name in ("batch_size", "micro_batch", "epochs", "lr", "seed")}
    top |= {"num_workers": args.workers, "train_on": tuple(args.train_on) if args.train_on else None}
    top |= {"participants": tuple(args.participants) or None}
    top |= {"precision": args.precision if args.precision != "auto" else None}
    if args.frozen_encoder:
        top |= {"frozen_encoder": True, "feature_views": 0}
    config = dataclasses.replace(
        config,
        model=dataclasses.replace(config.model, **_given(model)),
        **_given(top),
    )
    return debug(config) if args.debug else config


def _given(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}
