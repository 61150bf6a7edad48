"""Whether all of EgoChef does on a CUDA GPU what it does on a processor, and how fast; in under ten minutes.

    make gpu
    python benchmarks/gpu.py --device cpu --tiny    # tries the script where there is no GPU

Draws a kitchen and prepares its store. Then come checks of training (`gpu_training.py`), of what a trained model says
(`gpu_answers.py`), and of speed: what `egochef bench train` and `egochef bench live` measure, with few rounds. Each is
on its own (`gpu_runner.py`): an exception in one is noted, and the others run. What no longer fits into --minutes is
not run.

Prints a table of the checks and writes gpu-MACHINE.json after each of them: `machine`, `checks` (what was found, with
the limits of what has one, and why a check did not pass), `rows` and `ratios` as `egochef bench --json` has them (those
of float32 begin with `fp32/`), `seconds`. Exit code 0: every check passed.
"""

import argparse
import dataclasses
import math
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import gpu_answers
import gpu_training
import torch
from gpu_runner import Check, Found, Place, Result, run_checks
from rich.box import HORIZONTALS
from rich.table import Table

import egochef
from egochef.bench.live import LiveBench, bench_live
from egochef.bench.rows import Numbers, as_json
from egochef.bench.steps import MIB
from egochef.bench.train import bench_train
from egochef.cli.common import make_console
from egochef.errors import InputError
from egochef.files import write_json
from egochef.runtime import describe_machine, pick_device, pick_dtype
from egochef.training.card import git_commit

RESULTS = Path(__file__).resolve().parent / "results"
MINUTES = 9.0
TRAINED, LIVE = ("ours16", "fast"), ("ours16", "light16")
"""our models whose training, and whose live recognition, is measured"""
PEERS = ("timesformer", "videomae")
VERDICTS = {True: "passed", False: "failed", None: "not run"}
SHOWN = ("data_wait_share", "store_over_resident", "training_", "inference_speed", "rolling_over_encoder")
"""how the ratios begin that stand in the table too"""
NVIDIA_SMI_S = 20.0
"""that nvidia-smi has to answer"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Check, write, print; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", metavar="D", help="cuda, cuda:1, or cpu (default: cuda)")
    parser.add_argument("--tiny", action="store_true", help="a minute on a processor, to try the script")
    parser.add_argument("--out", type=Path, default=RESULTS, metavar="DIR", help="folder of the JSON file")
    parser.add_argument("--minutes", type=float, default=MINUTES, metavar="N", help=f"for all (default: {MINUTES:g})")
    args = parser.parse_args(arguments)
    try:
        machine = describe(args.device)
    except InputError as error:
        print(f"gpu.py: {error}", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory(prefix="egochef-gpu-") as folder:
        place = Place(Path(folder), args.device, args.tiny)
        path = args.out / f"gpu-{slug_of(machine)}.json"
        return check_all(checks_for(place), place, machine, path, args.minutes)


def check_all(checks: Sequence[Check], place: Place, machine: dict[str, Any], path: Path, minutes: float) -> int:
    """Run the checks, write the file after each, print the table; returns the exit code."""
    began_s = time.monotonic()

    def write(results: list[Result]) -> None:
        write_json(path, report(machine, results, place.tiny, time.monotonic() - began_s))
        last = results[-1]
        print(f"{last.name}: {VERDICTS[last.passed]}, {last.seconds:.1f} s", file=sys.stderr)
        if last.error:
            print(last.error, file=sys.stderr)

    results = run_checks(checks, place, 60 * minutes, write)
    print_results(results, path)
    return 0 if all(result.passed for result in results) else 1


def checks_for(place: Place) -> list[Check]:
    """All checks, correctness first; times are those of a machine with a GPU and some processors."""
    on_cuda = place.device.split(":")[0] == "cuda"
    checks = [
        Check("kitchen", gpu_training.draw_the_kitchen, 30),
        Check("training", partial(gpu_training.training, make_config=gpu_training.light), 25),
        Check("training resnet50", partial(gpu_training.training, make_config=gpu_training.resnet), 15),
        Check("training switches", partial(gpu_training.training, make_config=gpu_training.with_switches), 20),
        Check("evaluation", gpu_answers.evaluation, 15),
        Check("bf16", partial(gpu_answers.mixed_precision, precision="bf16"), 15),
        Check("fp16", partial(gpu_answers.mixed_precision, precision="fp16"), 15),
        Check("resume", partial(gpu_training.resuming, precision="fp32"), 15),
        Check("resume fp16", partial(gpu_training.resuming, precision="fp16"), 15),
        Check("features", gpu_answers.features, 15),
        Check("streams", gpu_answers.streams, 25),
        Check("micro-batch", gpu_training.micro_batch, 30),
        *([Check("out of memory", gpu_training.no_room, 30)] if on_cuda else []),
        Check("torch.compile", gpu_answers.compiled, 60),
        Check("speed of training", partial(measure_training, precision="auto"), 150, tf32=True),
        Check("speed live", partial(measure_live, models=LIVE, ways=("torch",)), 50, tf32=True),
    ]
    if place.tiny:
        return [dataclasses.replace(check, needs_s=0.0) for check in checks]
    compiled = partial(measure_live, models=LIVE[1:], ways=("torch-compiled",))
    return [
        *checks,
        Check("speed live, torch.compile", compiled, 60, tf32=True),
        Check("speed of training, fp32", partial(measure_training, precision="fp32"), 90),
    ]


# Speed


def measure_training(place: Place, precision: str) -> Found:
    """Our models' steps on clips that lie on the device and on clips from the store, and the transformers beside them.

    In float32 `fast` is left out, for the time, and TF32 is off: by default PyTorch lets convolutions round to it and
    matrix products not, which would slow the transformers alone.
    """
    bench = gpu_training.bench_of(place)
    effort = dataclasses.replace(bench.effort, device=place.device, precision=precision)
    if place.tiny:
        bench = dataclasses.replace(bench, models=TRAINED[1:], effort=effort)
    else:
        models = (*(TRAINED[:1] if precision == "fp32" else TRAINED), *PEERS)
        effort = dataclasses.replace(effort, seconds=1.0)
        bench = dataclasses.replace(bench, models=models, rounds=1, effort=effort)
    numbers = bench_train(bench, keep=place.work)
    return measured(numbers, "fp32/" if precision == "fp32" else "")


def measure_live(place: Place, models: tuple[str, ...], ways: tuple[str, ...]) -> Found:
    """What a prediction over a stream costs, and `egochef live` on a file."""
    bench = LiveBench(models=models, ways=ways, device=place.device, seconds=3.0, budget_s=20.0)
    if place.tiny:
        bench = dataclasses.replace(bench, models=LIVE[1:], rounds=2, seconds=1.0, tiny=True)
    return measured(bench_live(bench), "")


def measured(numbers: Numbers, prefix: str) -> Found:
    """A benchmark's numbers; what could not be measured is a fault, what nobody has published is not."""
    rows = [dataclasses.replace(row, name=prefix + row.name) for row in numbers.rows if "/published" not in row.name]
    missing = [f"{row.name}: {row.note}" for row in rows if row.value is None]
    known = {name: value for name, value in numbers.ratios.items() if value is not None}
    shown = {name: value for name, value in known.items() if name.partition("@")[0].startswith(SHOWN)}
    return Found(shown, faults=missing, rows=rows, ratios={prefix + name: value for name, value in known.items()})


# The machine and the report


def describe(device_name: str) -> dict[str, Any]:
    """What the numbers have to be read with.

    Raises:
        InputError: there is no such device; says what to do.
    """
    if device_name.split(":")[0] == "cuda" and not torch.cuda.is_available():
        raise InputError(
            f"no CUDA GPU can be used here (torch {torch.__version__}). Run this where nvidia-smi shows one, with a "
            "build of torch for CUDA; --device cpu --tiny tries the script without one."
        )
    device = pick_device(device_name)
    machine: dict[str, Any] = {
        **describe_machine(),
        "device": str(device),
        "precision": str(pick_dtype(device)).removeprefix("torch."),
        "egochef": egochef.__version__,
        "commit": git_commit(),
        "load_average": round(os.getloadavg()[0], 2),
    }
    if device.type == "cuda":
        about = torch.cuda.get_device_properties(device)
        machine |= {
            "gpu": about.name,
            "gpu_memory_mib": about.total_memory // MIB,
            "compute_capability": f"{about.major}.{about.minor}",
            "driver": driver_version(),
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
        }
    return machine


def driver_version() -> str:
    """The version of NVIDIA's driver, from nvidia-smi; `unknown` without it."""
    smi = shutil.which("nvidia-smi")
    if smi is None:
        return "unknown"
    command = [smi, "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=NVIDIA_SMI_S)
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return next(iter(done.stdout.split()), "unknown")


def slug_of(machine: dict[str, Any]) -> str:
    """The GPU's name, or the processor's, for a file's name."""
    name = machine["gpu"] if "cuda" in machine else machine["processor"]
    return re.sub("[^a-z0-9]+", "-", name.lower()).strip("-")


def report(machine: dict[str, Any], results: list[Result], tiny: bool, seconds: float) -> dict[str, Any]:
    """All of it as plain values."""
    numbers = Numbers(machine, tuple(row for result in results for row in result.found.rows), {})
    for result in results:
        numbers.ratios.update(result.found.ratios)
    checks = [
        {
            "name": result.name,
            "passed": result.passed,
            "seconds": result.seconds,
            "detail": {name: plain(value) for name, value in result.found.detail.items()},
            "limits": result.found.limits,
            "error": result.error,
        }
        for result in results
    ]
    return {"tiny": tiny, "checks": checks, **as_json(numbers), "seconds": round(seconds, 1)}


def plain(value: Any) -> Any:
    """As JSON takes it: a number that is not finite as a text."""
    return repr(value) if isinstance(value, float) and not math.isfinite(value) else value


def print_results(results: list[Result], path: Path) -> None:
    """The table of checks and where the rest lies."""
    console = make_console()
    table = Table("check", "", "s", "", box=HORIZONTALS)
    for result in results:
        shown = [
            f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {value}"
            for name, value in result.found.detail.items()
        ]
        why = result.error.strip().splitlines()[-1] if result.error else ", ".join(shown)
        table.add_row(result.name, VERDICTS[result.passed], f"{result.seconds:.1f}", why)
    console.print(table)
    console.print(f"{path}", soft_wrap=True)


if __name__ == "__main__":
    sys.exit(main())
