"""`egochef features`: an encoder and data in, its features of every segment out."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from egochef.cli.common import add_data, add_device, add_json, print_json

if TYPE_CHECKING:
    from egochef.data.transforms import Augment
    from egochef.engines.torch_engine import TorchEngine
    from egochef.taxonomy import Taxonomy

HELP = "encoder features of every segment, kept: egochef train then trains what follows in seconds an epoch"
EXAMPLE = "egochef features --recipe frames16 --data EPIC-STORE --out EPIC-FEATURES"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    start = parser.add_mutually_exclusive_group(required=True)
    start.add_argument(
        "--checkpoint", type=Path, metavar="C", help="checkpoint file or run folder whose encoder is used"
    )
    start.add_argument(
        "--recipe",
        metavar="R",
        help="start as this recipe does instead: frames16, frames32, light, strong, fast or toy",
    )
    parser.add_argument("--init", metavar="FILE", help="with --recipe: weights file of the encoder, or imagenet")
    parser.add_argument(
        "--init-partial", action="store_true", help="with --init: take what fits of a file that lacks some weights"
    )
    parser.add_argument("--encoder", metavar="E", help="with --recipe: as in egochef models")
    parser.add_argument("--num-frames", type=int, metavar="N", help="with --recipe: frames a clip")
    add_data(parser)
    parser.add_argument("--out", type=Path, required=True, metavar="F", help="folder of the features")
    parser.add_argument(
        "--views",
        type=int,
        default=4,
        metavar="N",
        help="jittered clips of every segment to learn from (default: 4); evaluation has one, the middle",
    )
    parser.add_argument(
        "--train-on",
        nargs="+",
        action="extend",
        metavar="SPLIT",
        help="splits to learn from: train, or train validation for a submission (default: train)",
    )
    parser.add_argument(
        "--dtype", choices=("fp16", "bf16"), default="fp16", help="that features are kept in (default: fp16)"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of times and pictures (default: 0)")
    parser.add_argument("--workers", type=int, metavar="N", help="decoding processes")
    add_device(parser)
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    import dataclasses
    import logging

    from egochef.data.annotations import open_data_folder, read_split
    from egochef.data.frames import open_frames
    from egochef.errors import InputError
    from egochef.inference.features import is_features
    from egochef.inference.make_features import feature_spec, make_features
    from egochef.records import to_dict
    from egochef.training.config import TrainConfig

    train_on = tuple(args.train_on or ("train",))
    TrainConfig(train_on=train_on, seed=args.seed, num_workers=args.workers)  # refuses what they cannot be
    folder = open_data_folder(args.data, args.participants)
    if is_features(args.data):
        raise InputError(f"{args.data}: holds features already. Give the data folder or store they are of.")
    to_learn = tuple(segment for split in train_on for segment in read_split(folder, split))
    to_judge = read_split(folder, "validation")
    engine, augment, initial_weights, trained_on = load_engine(args, folder.taxonomy)
    learn_frames = open_frames(folder, to_learn, engine.clip.grid)
    judge_frames = open_frames(folder, to_judge, engine.clip.grid)
    if learn_frames.grid != engine.clip.grid:
        logging.getLogger(__name__).info("%s: candidate times as in the store, %s", args.data, learn_frames.grid)
        engine.clip = dataclasses.replace(engine.clip, grid=learn_frames.grid)
    spec = feature_spec(
        engine,
        augment,
        seed=args.seed,
        dtype=args.dtype,
        initial_weights=initial_weights,
        encoder_trained_on=trained_on,
    )
    made = make_features(
        engine,
        folder,
        args.out,
        spec,
        (to_learn, learn_frames),
        (to_judge, judge_frames),
        num_views=args.views,
        num_workers=args.workers,
    )
    about = made.about
    if args.json:
        print_json(to_dict(about) | {"num_views": about.num_views, "num_made": made.num_made})
        return 0
    num_bytes = sum(view.num_bytes for view in about.views)
    print(
        f"{args.out}: {len(to_learn):,} segments in {about.num_views} views to learn from, {len(to_judge):,} to judge "
        f"by; {spec.clip.num_frames} x {about.num_features} features each of {spec.encoder} in {spec.precision}, kept "
        f"as {spec.dtype}, {num_bytes / 1e9:.2f} GB; {made.num_made} views made now"
    )
    print(f"next: egochef train --recipe {args.recipe or 'frames16'} --data {args.out} --out outputs/heads")
    return 0


def load_engine(args: argparse.Namespace, taxonomy: "Taxonomy") -> "tuple[TorchEngine, Augment, str, tuple[str, ...]]":
    """The engine, the augmentation that goes with it, what its encoder started from, and splits it was trained on.

    Raises:
        InputError: no such checkpoint or recipe, weights that cannot be had, or flags that contradict the checkpoint.
    """
    from egochef.engines.torch_engine import TorchEngine
    from egochef.errors import InputError
    from egochef.model.checkpoint import load_checkpoint
    from egochef.model.recogniser import Recogniser
    from egochef.model.weights import load_initial_weights
    from egochef.recipes import augment_of, find_recipe
    from egochef.runtime import pick_device, pick_dtype
    from egochef.training.config import with_encoder, with_init, with_num_frames

    device = pick_device(args.device)
    dtype = pick_dtype(device, args.precision)
    if args.checkpoint:
        for flag in ("init", "encoder", "num_frames"):
            if getattr(args, flag) is not None:
                name = flag.replace("_", "-")
                raise InputError(f"--{name}: the checkpoint tells it. Leave it out, or use --recipe.")
        recogniser, about = load_checkpoint(args.checkpoint)
        engine = TorchEngine(recogniser, about.clip, about.taxonomy, device, dtype, encoder_is_final=True)
        return engine, augment_of(args.checkpoint, about), about.initial_weights, about.train_on
    config = find_recipe(args.recipe)
    if args.encoder is not None:
        config = with_encoder(config, args.encoder)
    if args.num_frames is not None:
        config = with_num_frames(config, args.num_frames)
    init = args.init or "imagenet"
    if init == "none":
        raise InputError("--init none: features of random weights are of no use. Give a weights file or imagenet.")
    config = with_init(config, init)
    recogniser = Recogniser(config.model)
    load_initial_weights(recogniser.encoder, config.model.encoder, init, partial=args.init_partial)
    engine = TorchEngine(recogniser, config.clip, taxonomy, device, dtype, encoder_is_final=True)
    return engine, config.augment, init if init == "imagenet" else Path(init).name, ()
