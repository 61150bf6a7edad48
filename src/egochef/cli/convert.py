"""`egochef convert`: another project's trained baseline in, a checkpoint of ours out."""

import argparse
from pathlib import Path

from egochef.cli.common import add_data

HELP = "the official EK-100 TSN or TSM baseline as a checkpoint, to be scored and compared"
EXAMPLE = "egochef convert tsm_rgb.ckpt --data EPIC-KITCHENS --out outputs/tsm.safetensors"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, metavar="FILE", help="a .ckpt, .pth or .pt file with encoder and last layer")
    add_data(parser, "data folder in EK-100's layout: its class names, in the order of the last layer")
    parser.add_argument("--out", type=Path, required=True, metavar="C", help="the checkpoint, a .safetensors file")
    for name in ("mean", "std"):
        parser.add_argument(
            f"--{name}",
            type=float,
            nargs=3,
            metavar=("R", "G", "B"),
            help=f"{name} of pixel values in 0..1 that it was trained with (default: as the file tells)",
        )
    parser.add_argument("--num-frames", type=int, metavar="N", help="frames a clip (default: as the file tells, or 8)")


def run(args: argparse.Namespace) -> int:
    from egochef.data.annotations import open_data_folder
    from egochef.errors import InputError
    from egochef.model.checkpoint import save_checkpoint
    from egochef.model.convert import convert_baseline

    if args.out.suffix != ".safetensors":
        raise InputError(f"{args.out}: a checkpoint's name ends in .safetensors, choose one that does")
    if args.out.exists():
        raise InputError(f"{args.out}: exists. Remove it, or choose another --out.")
    taxonomy = open_data_folder(args.data, args.participants).taxonomy
    recogniser, about = convert_baseline(
        args.file,
        taxonomy,
        mean=tuple(args.mean) if args.mean else None,
        std=tuple(args.std) if args.std else None,
        num_frames=args.num_frames,
    )
    save_checkpoint(args.out, recogniser, about)
    clip = about.clip
    mean, std = (", ".join(f"{x:g}" for x in values) for values in (clip.mean, clip.std))
    print(
        f"{args.out}: {about.model.encoder}, {clip.num_frames} frames of {clip.image_size} px out of "
        f"{clip.resize_size} px, mean {mean}, std {std}"
    )
    print("the published score tells whether this is the right preprocessing (docs/models.md)")
    print(f"next: egochef evaluate --checkpoint {args.out} --data {args.data}")
    return 0
