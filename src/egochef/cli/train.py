"""`egochef train`: a recipe and data in, a run's folder out."""

import argparse
import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from egochef.cli.common import add_data, add_device
from egochef.cli.streams import silence

if TYPE_CHECKING:
    from egochef.training.config import TrainConfig

log = logging.getLogger(__name__)

HELP = "train a recogniser"
EXAMPLE = "egochef train --recipe frames16 --data EPIC-KITCHENS --out outputs/run16"
DATA_HELP = "data folder in EK-100's layout, a store, or features: then only what follows the encoder is trained"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    start = parser.add_mutually_exclusive_group(required=True)
    start.add_argument("--recipe", metavar="R", help="frames16, frames32, light, strong, fast or toy")
    start.add_argument("--config", type=Path, metavar="FILE", help="a saved config.json instead of a recipe")
    add_data(parser, DATA_HELP)
    parser.add_argument("--out", type=Path, required=True, metavar="RUN", help="folder of the run")
    parser.add_argument("--num-frames", type=int, metavar="N", help="frames a clip")
    parser.add_argument("--batch-size", type=int, metavar="N", help="clips an optimiser step, over all devices")
    parser.add_argument("--micro-batch", type=int, metavar="N", help="clips the device takes at once")
    parser.add_argument("--epochs", type=int, metavar="N", help="at most")
    parser.add_argument("--lr", type=float, metavar="X", help="peak learning rate")
    parser.add_argument("--seed", type=int, metavar="N", help="of weights, order and augmentation")
    parser.add_argument("--encoder", metavar="E", help="resnet50 or efficientnet_lite0; behind it _tsm or _tsm_online")
    parser.add_argument("--temporal", metavar="M", help="temporal model: bilstm, bigru, tcn (no recurrence) or mean")
    parser.add_argument("--pooling", metavar="P", help="over time: mean, last or attention")
    parser.add_argument("--hidden-size", type=int, metavar="N", help="recurrent units per direction, or TCN channels")
    parser.add_argument("--causal", action="store_true", default=None, help="the TCN looks at no later frame")
    parser.add_argument(
        "--train-on", nargs="+", action="extend", metavar="SPLIT", help="train, or train validation for a submission"
    )
    parser.add_argument("--init", metavar="FILE", help="weights file of the encoder, imagenet or none")
    parser.add_argument(
        "--init-partial", action="store_true", default=None, help="take what fits of a file that lacks some weights"
    )
    parser.add_argument(
        "--frozen-encoder", action="store_true", help="train from pictures, but only what follows the encoder"
    )
    parser.add_argument(
        "--frozen-stages",
        type=int,
        metavar="N",
        help="keep the encoder's first N stages as they are",
    )
    parser.add_argument(
        "--progressive",
        nargs="+",
        action="extend",
        type=phase,
        metavar="SHARE:PX:FRAMES",
        help="smaller clips at first: 0.5:128:8 is 8 frames of 128 px up to half of the epochs; several in their order",
    )
    parser.add_argument(
        "--set",
        nargs="+",
        action="extend",
        default=[],
        metavar="NAME=VALUE",
        help="any fields of the config: model.joint=true augment.mixup_alpha=0.2 held_out=P01,P02",
    )
    parser.add_argument("--ema", type=float, metavar="D", help="judge and keep a moving average of the weights: 0.999")
    parser.add_argument("--compile", action="store_true", default=None, help="torch.compile of the encoder")
    parser.add_argument(
        "--channels-last",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="memory layout of the encoder (default: yes, but for MPS)",
    )
    parser.add_argument(
        "--fused",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="the optimiser in one kernel (default: yes, but for MPS)",
    )
    parser.add_argument(
        "--gradient-checkpointing", action="store_true", default=None, help="less memory for more time, in the encoder"
    )
    parser.add_argument("--workers", type=int, metavar="N", help="decoding processes")
    parser.add_argument("--save-minutes", type=float, metavar="N", help="save the state as often (default: 10)")
    parser.add_argument("--keep", type=int, metavar="N", help="states on disk (default: 2)")
    parser.add_argument(
        "--track", nargs="+", action="extend", metavar="T", help="also send the log to tensorboard, wandb"
    )
    parser.add_argument("--debug", action="store_true", help="cut the run down to minutes; its scores mean nothing")
    parser.add_argument("--resume", action="store_true", help="go on with the run in RUN, or start it")
    parser.add_argument(
        "--accept-changes", action="store_true", help="with --resume: go on although settings have changed"
    )
    add_device(parser)


def phase(text: str) -> tuple[float, int, int]:
    until, size, frames = text.split(":")
    return float(until), int(size), int(frames)


def run(args: argparse.Namespace) -> int:
    from egochef.errors import InputError
    from egochef.launch import read_launch

    if args.accept_changes and not args.resume:
        raise InputError("--accept-changes goes with --resume")
    is_first = read_launch().rank == 0
    if not is_first:  # one speaks for all
        os.environ["TQDM_DISABLE"] = "1"
        logging.getLogger().setLevel(logging.ERROR)

    from egochef.inference.features import is_features
    from egochef.training.loop import train
    from egochef.training.state import LAST

    from_features = is_features(args.data)
    if from_features:
        check_flags(args)
    config = build_config(args)
    if is_first and args.resume and not (args.out / "config.json").is_file():
        say(f"{args.out}: no run there yet, starting one")
    progress = train(
        config,
        args.data,
        args.out,
        resume=args.resume,
        accept_changes=args.accept_changes,
        device=args.device,
        on_epoch=EpochTable(config.epochs),
    )
    if not is_first:
        return 0
    if progress.best_score >= 0:
        say(f"best validation action accuracy {progress.best_score:.2f} % in epoch {progress.best_epoch}")
    say(f"{args.out}: {progress.epoch} epochs, {progress.step} steps; best.safetensors and {LAST.name}/ in checkpoints")
    judged = "submit" if "validation" in config.train_on else "evaluate"  # by labels that it has not seen
    say(f"next: egochef {judged} --checkpoint {args.out} --data {'DATA' if from_features else args.data}")
    return 0


def say(line: str) -> None:
    """Print a line. Where nobody reads any more, or the disk is full, hours of work go on without."""
    try:
        print(line, flush=True)
    except OSError as error:
        silence(sys.stdout)
        log.warning("standard output: cannot be written (%s); the run goes on, log.jsonl has it all", error.strerror)


class EpochTable:
    """Prints a line an epoch, under a header before the first."""

    TITLES = ("epoch", "step", "loss", "verb %", "noun %", "action %", "clips/s", "waiting", "time", "skipped")

    def __init__(self, epochs: int):
        self.epochs, self._begun = epochs, False

    def __call__(self, line: dict[str, Any], metrics: dict[str, float]) -> None:
        from egochef.video.times import clock

        cells = [f"{line['epoch']}/{self.epochs}", line["step"], f"{line['loss']:.4f}"]
        cells += [_percent(metrics, kind) for kind in ("verb", "noun", "action")]
        cells += [
            f"{line['clips_per_s']:.1f}",
            f"{line['wait_share']:.1%}",
            clock(line["epoch_s"]),
            line["skipped"],
        ]
        for row in [cells] if self._begun else [self.TITLES, cells]:
            say("".join(f"{cell:>9}" for cell in row))
        self._begun = True


def _percent(metrics: dict[str, float], kind: str) -> str:
    name = f"all_{kind}_accuracy_at_1"
    return f"{metrics[name]:.2f}" if name in metrics else "-"


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
    fixed = ("clip.", "augment.", "model.encoder", "init", "feature_views", "frozen_encoder")
    for setting in args.set:
        if setting.startswith(fixed) and not setting.startswith("augment.mixup_alpha="):
            raise InputError(
                f"{args.data}: --set {setting} was decided when these features were made. Leave it out, or make others."
            )
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
    from egochef.training.config import Phase, debug, load_config, set_fields, with_encoder, with_init, with_num_frames

    config = find_recipe(args.recipe) if args.recipe else load_config(args.config)
    if args.encoder:
        config = with_encoder(config, args.encoder)
    if args.init:
        config = with_init(config, args.init)
    if args.num_frames is not None:
        config = with_num_frames(config, args.num_frames)
    model = {name: getattr(args, name) for name in ("temporal", "pooling", "hidden_size", "causal")}
    top = {name: getattr(args, name) for name in ("batch_size", "micro_batch", "epochs", "lr", "seed")}
    top |= {"num_workers": args.workers, "train_on": tuple(args.train_on) if args.train_on else None}
    top |= {"participants": tuple(args.participants) or None}
    top |= {"precision": args.precision if args.precision != "auto" else None}
    top |= {name: getattr(args, name) for name in ("frozen_stages", "save_minutes", "keep")}
    top |= {"init_partial": args.init_partial}
    top |= {"ema_decay": args.ema, "trackers": tuple(args.track) if args.track else None}
    if args.progressive:
        top |= {"progressive": tuple(Phase(*phase) for phase in args.progressive)}
    speed = {name: getattr(args, name) for name in ("compile", "channels_last", "fused")}
    speed |= {"recompute": args.gradient_checkpointing}
    if args.frozen_encoder:
        top |= {"frozen_encoder": True, "feature_views": 0}
    config = dataclasses.replace(
        config,
        model=dataclasses.replace(config.model, **_given(model)),
        speed=dataclasses.replace(config.speed, **_given(speed)),
        **_given(top),
    )
    config = set_fields(config, args.set)
    return debug(config) if args.debug else config


def _given(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}
