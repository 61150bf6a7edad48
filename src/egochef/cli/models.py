"""`egochef models`: what the recognisers cost. Recipes as they are, then every encoder under one temporal model."""

import argparse
from typing import TYPE_CHECKING, Any

from egochef.cli.common import add_json, make_console, print_json

if TYPE_CHECKING:
    from egochef.clip import ClipSpec
    from egochef.model.recogniser import ModelConfig

HELP = "the recognisers: parameters, GFLOPs a clip, memory, and how they run over a stream"
EXAMPLE = "egochef models --num-frames 16 --temporal tcn"
STREAMS = {
    "none": "each frame once",
    "past": "each frame once, beside the one before",
    "both": "whole clips",
}
"""temporal shift -> what a stream costs"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--num-frames", type=int, default=8, metavar="N", help="of the encoders' rows (default: 8)")
    parser.add_argument("--image-size", type=int, default=224, metavar="PX", help="pixels, likewise (default: 224)")
    parser.add_argument(
        "--temporal",
        default="mean",
        metavar="M",
        help="likewise: bilstm, bigru, tcn or mean (the default)",
    )
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    from dataclasses import replace

    from egochef.clip import ClipSpec
    from egochef.model.encoders import ENCODERS
    from egochef.model.recogniser import ModelConfig
    from egochef.recipes import RECIPES

    clip = replace(ClipSpec(), num_frames=args.num_frames).with_image_size(args.image_size)
    recipes = {name: recipe() for name, recipe in RECIPES.items()}
    models = [(name, config.model, config.clip) for name, config in recipes.items()]
    models += [("-", ModelConfig(encoder=name, temporal=args.temporal), clip) for name in ENCODERS]
    rows = [row_of(*each) for each in models]
    if args.json:
        print_json({"models": rows})
        return 0
    from rich.box import HORIZONTALS
    from rich.table import Table

    table = Table(box=HORIZONTALS)
    for title in ("recipe", "encoder", "temporal", "clip"):
        table.add_column(title, no_wrap=title != "encoder")
    for title in ("GFLOPs a clip", "a frame", "M parameters", "MB", "MB to train a clip"):
        table.add_column(title, justify="right")
    table.add_column("over a stream")
    for row in rows:
        table.add_row(
            row["recipe"],
            row["encoder"],
            row["temporal"],
            f"{row['num_frames']} x {row['image_size']} px",
            f"{row['gflops']:.2f}",
            f"{row['gflops_a_frame']:.2f}",
            f"{row['num_parameters'] / 1e6:.2f}",
            f"{row['size_mb']:.1f}",
            f"{row['training_mb']:.0f}",
            row["stream"],
        )
    make_console().print(table)
    print("GFLOPs: a multiply-add counts once. MB: weights in float32; to train a clip: what autograd keeps.")
    return 0


def row_of(recipe: str, model: "ModelConfig", clip: "ClipSpec") -> dict[str, Any]:
    """A row of the table, as plain values."""
    from egochef.model.cost import cost_of

    cost = cost_of(model, clip)
    return {
        "recipe": recipe,
        "encoder": model.encoder,
        "temporal": model.temporal,
        "num_frames": clip.num_frames,
        "image_size": clip.image_size,
        "gflops": round(cost.flops / 1e9, 4),
        "gflops_a_frame": round(cost.encoder_flops / 1e9, 4),
        "num_parameters": cost.num_parameters,
        "size_mb": round(4 * cost.num_parameters / 1e6, 2),
        "training_mb": round(cost.training_bytes / 1e6, 1),
        "stream": STREAMS[model.shift],
    }
