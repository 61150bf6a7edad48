"""`egochef bench`: the numbers in the README, measured here."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from egochef.cli.common import add_device, add_json, make_console, print_json

if TYPE_CHECKING:
    from rich.console import Console

    from egochef.bench.rows import Numbers, Row
    from egochef.bench.train import TrainNumbers

HELP = (
    "measure here what the README tells: data, how fast training clips come from a store and from videos; train, how "
    "fast a model trains, and what video transformers cost beside it; live, what recognition over a stream costs"
)
EXAMPLE = "egochef bench data --json"
COLUMNS = {
    "clips_per_core_s": "clips/s a core",
    "images_per_core_s": "images/s a core",
    "cpu_ms_per_clip": "CPU ms a clip",
    "cpu_spread": "spread of rounds",
    "wall_ms_per_clip": "wall ms a clip",
    "bytes_per_clip": "bytes a clip",
    "peak_rss": "peak MiB",
    "other_frames": "other frames",
}
"""quantities of a way of `bench data`, and what their columns are called"""
MODEL_COLUMNS = {
    "resident clips_per_s": "training clips/s",
    "resident ms_per_clip": "ms a clip",
    "resident peak_memory": "peak MiB",
    "inference clips_per_s": "inference clips/s",
    "inference ms_per_clip": "ms a clip",
    "inference peak_memory": "peak MiB",
    "model weights": "weights MiB",
    "model gflops_per_clip": "GFLOPs a clip",
    "reckoned epoch": "hours an epoch",
    "reckoned training": "hours in all",
    "reckoned cost": "cost",
    "published ek100_action": "EK-100 action %",
}
"""quantities of a model of `bench train`, and what their columns are called"""
STEP_COLUMNS = {
    "bare images_per_s": "encoder alone, images/s",
    "resident images_per_s": "resident, images/s",
    "store images_per_s": "from a store, images/s",
    "store clips_per_s": "clips/s",
    "store over_resident": "of resident",
    "store data_wait_share": "waiting",
    "store part_data": "data ms",
    "store part_copy": "copy ms",
    "store part_forward": "forward ms",
    "store part_backward": "backward ms",
    "store part_optimiser": "optimiser ms",
}
"""the same of a training step"""
LIVE_COLUMNS = {
    "encoder": "encoder",
    "head": "head",
    "rolling": "one window",
    "windows": "three windows",
    "window": "encoding the window",
    "live_60fps predictions": "predictions/s",
    "live_30fps screen_median": "to screen at 30 fps",
    "live_30fps screen_p95": "95 % below",
}
"""the same of a model run in one way by `bench live`; milliseconds but for predictions"""
BELONGS_TO = {
    "segments": ("data",),
    "models": ("train", "live"),
    "price": ("train",),
    "precision": ("train",),
    "device": ("train", "live"),
    "ways": ("live",),
    "seconds": ("live",),
    "keep": ("data", "train"),
}
"""flag -> the measurements that it belongs to"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("what", choices=("data", "train", "live"), help="what to measure")
    parser.add_argument(
        "--rounds", type=int, metavar="N", help="turns of all; medians count (default: data 3, train 2, live 9)"
    )
    parser.add_argument(
        "--keep", type=Path, metavar="DIR", help="keep kitchens and stores there, and use them again if they are there"
    )
    parser.add_argument(
        "--quick", action="store_true", help="a minute, to see that it works; the numbers then say little"
    )
    data = parser.add_argument_group("data")
    data.add_argument("--segments", type=int, metavar="N", help="in each of the three drawn kitchens (default: 40)")
    train = parser.add_argument_group("train")
    train.add_argument(
        "--models",
        nargs="+",
        action="extend",
        metavar="M",
        help="some of ours16, ours32, light16; train: fast, timesformer, videomae, swin_t, swin_b too (default: all)",
    )
    train.add_argument("--price", type=float, metavar="X", help="of a GPU-hour, to reckon what a training costs")
    add_device(train)  # type: ignore[arg-type]  # a group takes arguments as a parser does
    live = parser.add_argument_group("live (takes --models and --device too)")
    live.add_argument(
        "--ways",
        nargs="+",
        action="extend",
        metavar="W",
        help="some of torch, torch-compiled, torch-bf16, onnx, onnx-int8, openvino, openvino-bf16, openvino-int8 "
        "(default: all)",
    )
    live.add_argument("--seconds", type=float, metavar="S", help="that each end-to-end run takes (default: 8)")
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    _refuse_others(args)
    return {"data": _run_data, "train": _run_train, "live": _run_live}[args.what](args)


def _refuse_others(args: argparse.Namespace) -> None:
    """Refuse flags of other measurements.

    Raises:
        InputError: names one.
    """
    from egochef.errors import InputError

    for name, belongs_to in BELONGS_TO.items():
        if args.what not in belongs_to and getattr(args, name) not in (None, "auto"):
            raise InputError(f"--{name} does not belong to bench {args.what}: leave it out")


def _run_data(args: argparse.Namespace) -> int:
    from egochef.bench.data import DataBench, bench_data, quick_bench, with_sizes
    from egochef.bench.rows import as_json

    bench = quick_bench() if args.quick else DataBench()
    bench = with_sizes(bench, num_segments=args.segments, rounds=args.rounds)
    numbers = bench_data(bench, keep=args.keep)
    if args.json:
        print_json(as_json(numbers))
    else:
        _print_data(numbers)
    return 0


def _run_train(args: argparse.Namespace) -> int:
    import dataclasses

    from egochef.bench.train import TrainBench, bench_train, quick_bench, train_as_json

    bench = quick_bench() if args.quick else TrainBench()
    given: dict[str, Any] = {
        "rounds": args.rounds,
        "models": tuple(dict.fromkeys(args.models)) if args.models else None,
        "price": args.price,
        "effort": dataclasses.replace(bench.effort, device=args.device, precision=args.precision),
    }
    bench = dataclasses.replace(bench, **{name: value for name, value in given.items() if value is not None})
    numbers = bench_train(bench, keep=args.keep)
    if args.json:
        print_json(train_as_json(numbers))
    else:
        _print_train(numbers)
    return 0


def _run_live(args: argparse.Namespace) -> int:
    import dataclasses

    from egochef.bench.live import LiveBench, bench_live, quick_bench
    from egochef.bench.rows import as_json

    bench = quick_bench() if args.quick else LiveBench()
    given: dict[str, Any] = {
        "rounds": args.rounds,
        "models": tuple(dict.fromkeys(args.models)) if args.models else None,
        "ways": tuple(dict.fromkeys(args.ways)) if args.ways else None,
        "device": args.device,
        "seconds": args.seconds,
    }
    bench = dataclasses.replace(bench, **{name: value for name, value in given.items() if value is not None})
    numbers = bench_live(bench)
    if args.json:
        print_json(as_json(numbers))
    else:
        _print_live(numbers)
    return 0


def _print_live(numbers: "Numbers") -> None:
    """A table of the models and the ways of running them, then the ratios."""
    from rich.box import HORIZONTALS
    from rich.table import Table

    console = make_console()
    rows = {row.name: row for row in numbers.rows}
    table = Table("", box=HORIZONTALS, title="milliseconds, predictions a second")
    for head in LIVE_COLUMNS.values():
        table.add_column(head, justify="right")
    table.add_column("")
    for way in dict.fromkeys(name.split(" ")[0] for name in rows):
        found = [rows.get(f"{way} {quantity}") for quantity in LIVE_COLUMNS]
        note = next((row.note for row in found if row is not None and row.note), "")
        table.add_row(way, *("" if row is None else _shown(row) for row in found), note)
    console.print(table)
    _print_ratios(console, numbers)


def _print_data(numbers: "Numbers") -> None:
    """A table of the ways for each kitchen, then what else there is, then the ratios."""
    from rich.box import HORIZONTALS
    from rich.table import Table

    console = make_console()
    ways: dict[str, dict[str, str]] = {}
    others = Table("", "", "unit", "", box=HORIZONTALS, title="also")
    for row in numbers.rows:
        way, _, quantity = row.name.partition(" ")
        if quantity in COLUMNS:
            ways.setdefault(way, {})[quantity] = _shown(row) if row.value is not None else f"- {row.note}"
        else:
            others.add_row(row.name, _shown(row), row.unit, row.note)
    for kitchen in dict.fromkeys(way.split("/")[0] for way in ways):
        table = Table("way", box=HORIZONTALS, title=f"{kitchen} kitchen")
        for title in COLUMNS.values():
            table.add_column(title, justify="right")
        for way, values in ways.items():
            if way.startswith(f"{kitchen}/"):
                table.add_row(way.split("/")[1], *(values.get(quantity, "") for quantity in COLUMNS))
        console.print(table)
    console.print(others)
    _print_ratios(console, numbers)


def _print_train(numbers: "TrainNumbers") -> None:
    """A table of the models, one of our steps, the claims, what else there is, then the ratios."""
    from rich.box import HORIZONTALS
    from rich.table import Table

    console = make_console()
    rows = {row.name: row for row in numbers.rows}
    models = list(dict.fromkeys(name.split("/")[0] for name in rows if not name.startswith("data/")))
    for title, columns in (("models", MODEL_COLUMNS), ("our training step", STEP_COLUMNS)):
        here = {quantity: head for quantity, head in columns.items() if any(f"{m}/{quantity}" in rows for m in models)}
        table = Table("", box=HORIZONTALS, title=title)
        for head in here.values():
            table.add_column(head, justify="right")
        for model in models:
            if title == "models" or f"{model}/store clips_per_s" in rows:
                found = [rows.get(f"{model}/{quantity}") for quantity in here]
                table.add_row(model, *("" if row is None else _shown(row) for row in found))
        if table.row_count:
            console.print(table)
    claims = Table(box=HORIZONTALS, title="the starting README's claims, and what was measured here")
    for head in ("", "ours", "transformers", "times", "measured: ours", "unit", "others", "times", ""):
        claims.add_column(head)
    for claim in numbers.claims:
        claims.add_row(
            claim.what,
            claim.ours,
            claim.others,
            claim.times,
            "-" if claim.measured_ours is None else f"{claim.measured_ours:,.4g}",
            claim.unit,
            ", ".join(f"{name} {value:,.4g}" for name, value in claim.measured_others.items()) or "-",
            ", ".join(f"{name} {times:,.3g}x" for name, times in claim.measured_times.items()) or "-",
            claim.note,
        )
    console.print(claims)
    others = Table("", "", "unit", "", box=HORIZONTALS, title="also")
    shown = {f"{model}/{quantity}" for model in models for quantity in MODEL_COLUMNS | STEP_COLUMNS}
    for row in numbers.rows:
        if row.name not in shown or row.note:
            others.add_row(row.name, _shown(row), row.unit, row.note)
    console.print(others)
    _print_ratios(console, numbers)


def _shown(row: "Row") -> str:
    if row.value is None:
        return "-"
    return f"{row.value:,.4g}" if row.value < 1000 else f"{row.value:,.0f}"


def _print_ratios(console: "Console", numbers: "Numbers") -> None:
    from rich.box import HORIZONTALS
    from rich.table import Table

    ratios = Table("ratio", "", box=HORIZONTALS, title="how many times")
    for name, ratio in numbers.ratios.items():
        ratios.add_row(name, "-" if ratio is None else f"{ratio:g}")
    console.print(ratios)
    console.print(", ".join(f"{name} {value}" for name, value in numbers.machine.items()), soft_wrap=True)
