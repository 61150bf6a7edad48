"""How fast training goes, what keeps it from going faster, and what video transformers cost beside it.

In: which models, and for how long. Out: `Row`s, ratios, and the claims of the README that the project started from with
what was measured. Every measurement runs in a fresh process; all take turns over the rounds, and medians over the
rounds count. Weights and pictures are random; only the store's are those of a drawn kitchen, which is small enough to
stay in memory: its speed is the processor's, not the disk's.

    bare       forward and backward pass of the encoder alone
    resident   whole training steps on clips that lie on the device already
    store      the same steps on clips from a store, as `egochef train` takes them
    inference  logits of clips that lie on the device
"""

import os
import statistics
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from egochef.bench.kitchens import Kitchen, set_up
from egochef.bench.peers import CONTENDERS, Contender, Size, size_of
from egochef.bench.process import in_fresh_process
from egochef.bench.rows import Numbers, Row, as_json, value_of, versions_of
from egochef.bench.steps import (
    Effort,
    Taken,
    measure_bare,
    measure_inference,
    measure_loader,
    measure_one_process,
    measure_resident,
    measure_store,
)
from egochef.data.store import StoreSpec
from egochef.errors import InputError
from egochef.extras import ExtraError
from egochef.files import temporary_folder
from egochef.records import to_dict
from egochef.runtime import describe_machine, num_cpus, pick_device, pick_dtype
from egochef.toykitchen import ToyConfig
from egochef.training.step import TIMED

NUM_TRAIN = 67_217
"""training segments of EK-100"""
CLIPS_PER_S = {"a100": 154, "h100_low": 250, "h100_high": 450}
"""clips of 16 frames that GPUs train a ResNet-50 on in a second"""
LIBRARIES = ("transformers", "torchvision")
BASELINE, LIGHT, FAST = "ours16", "light16", "fast"
WAYS: dict[str, Callable[..., Taken]] = {
    "resident": measure_resident,
    "store": measure_store,
    "bare": measure_bare,
    "inference": measure_inference,
}


@dataclass(frozen=True)
class TrainBench:
    """What is measured, and how long."""

    models: tuple[str, ...] = tuple(CONTENDERS)
    rounds: int = 2
    effort: Effort = field(default_factory=Effort)
    pair_seconds: float = 10.0
    """for each half of a pair, of which the light model has two a round: steps from a store, and on resident clips"""
    loader_clips: int = 400
    price: float | None = None
    """of a GPU-hour, in whatever currency; None: no cost is reckoned"""
    kitchen: Kitchen = field(default_factory=lambda: Kitchen(ToyConfig(num_segments=40, segment_s=2.5)))
    store: StoreSpec = field(default_factory=StoreSpec)
    num_workers: int | None = None
    """processes that draw and prepare; None: one for each processor"""

    def __post_init__(self) -> None:
        if self.rounds < 1:
            raise InputError(f"rounds is {self.rounds}, expected at least 1")
        if self.price is not None and not self.price > 0:
            raise InputError(f"price is {self.price}, expected more than 0")
        unknown = [name for name in self.models if name not in CONTENDERS]
        if unknown or not self.models:
            raise InputError(f"unknown model {', '.join(unknown)!r}, expected some of {', '.join(CONTENDERS)}")


def quick_bench() -> TrainBench:
    """Half a minute in all, to see that everything works, with some of the models; its numbers say nothing."""
    kitchen = Kitchen(ToyConfig(preset="small", num_segments=12, width_px=228, height_px=128))
    return TrainBench(
        models=(BASELINE, LIGHT, "timesformer"),
        rounds=1,
        effort=Effort(seconds=0.0, tiny=True),
        pair_seconds=0.2,
        loader_clips=64,
        kitchen=kitchen,
        store=StoreSpec(size_px=128),
        num_workers=1,
    )


@dataclass(frozen=True)
class Claim:
    """What the starting README says of our model and of video transformers, and what was measured."""

    what: str
    ours: str
    others: str
    times: str
    unit: str
    """of what was measured"""
    measured_ours: float | None
    measured_others: dict[str, float]
    measured_times: dict[str, float]
    """how many times better ours is, by the other model"""
    note: str = ""


@dataclass(frozen=True)
class TrainNumbers(Numbers):
    """All that was measured, and the claims."""

    claims: tuple[Claim, ...] = ()


def bench_train(bench: TrainBench, *, keep: Path | None = None) -> TrainNumbers:
    """Draw, prepare, measure.

    Args:
        keep: folder for the kitchen and its store; what is there already is used again.

    Raises:
        InputError: `keep` holds something else, the disk is full, or the device is not there or too small.
    """
    device = pick_device(bench.effort.device)
    machine: dict[str, str | int | float] = {**describe_machine(), **versions_of(LIBRARIES)}
    machine |= {"device": str(device), "precision": str(pick_dtype(device, bench.effort.precision)).split(".")[-1]}
    machine |= {"threads": torch.get_num_threads(), "load_average_before": round(os.getloadavg()[0], 2)}
    with ExitStack() as stack:
        root = keep or stack.enter_context(temporary_folder("bench"))
        store = None
        if any(CONTENDERS[name].is_ours for name in bench.models):
            store = set_up(root / "train", bench.kitchen, bench.store, num_workers=bench.num_workers).store
        sizes, reasons = in_fresh_process(_sizes, bench.models, bench.effort.tiny, as_worker=False)
        measured = _measure_all(bench, tuple(sizes), store)
        rows = [
            row
            for name in bench.models
            for row in _rows_of_model(CONTENDERS[name], sizes.get(name), measured, reasons.get(name, ""), bench, device)
        ]
        if store is not None:
            rows += _rows_of_data(store, bench)
    machine["load_average_after"] = round(os.getloadavg()[0], 2)
    return TrainNumbers(machine, tuple(rows), ratios_of(rows), claims_of(rows))


def train_as_json(numbers: TrainNumbers) -> dict[str, Any]:
    """Plain values."""
    return as_json(numbers) | {"claims": [to_dict(claim) for claim in numbers.claims]}


# Measuring


def _sizes(names: Sequence[str], tiny: bool) -> tuple[dict[str, Size], dict[str, str]]:
    """What each model is, and why some are missing."""
    sizes, reasons = {}, {}
    for name in names:
        try:
            sizes[name] = size_of(CONTENDERS[name], tiny)
        except ExtraError as error:
            reasons[name] = str(error)
    return sizes, reasons


def _jobs_of_round(names: Sequence[str]) -> list[tuple[str, str]]:
    """(model, way) in turn; pairs that are compared stand side by side, the light model's there and back."""
    jobs = []
    for name in names:
        if CONTENDERS[name].is_ours:
            pair = ("resident", "store")
            jobs += [(name, way) for way in (*pair, *(reversed(pair) if name == LIGHT else ()), "bare", "inference")]
        else:
            jobs += [(name, "resident"), (name, "inference")]
    return jobs


def _measure_all(bench: TrainBench, names: Sequence[str], store: Path | None) -> dict[tuple[str, str], list[Taken]]:
    """Every way of every model, in turn over the rounds."""
    measured: dict[tuple[str, str], list[Taken]] = {}
    jobs = [job for _ in range(bench.rounds) for job in _jobs_of_round(names)]
    with tqdm(jobs, desc="measuring", unit="run", disable=None) as bar:
        for name, way in bar:
            bar.set_postfix_str(f"{name}/{way}")
            effort = bench.effort
            if name == LIGHT and way in ("resident", "store"):
                effort = Effort(effort.device, effort.precision, bench.pair_seconds, effort.least_steps, effort.tiny)
            arguments = (name, effort, store) if way == "store" else (name, effort)
            measured.setdefault((name, way), []).append(in_fresh_process(WAYS[way], *arguments, as_worker=False))
    return measured


# From measurements to rows


def _rows_of_model(
    contender: Contender,
    size: Size | None,
    measured: Mapping[tuple[str, str], list[Taken]],
    reason: str,
    bench: TrainBench,
    device: torch.device,
) -> list[Row]:
    name = contender.name
    published = Row(f"{name}/published ek100_action", contender.action_accuracy, "%", contender.accuracy_note)
    if size is None:
        missing = [Row(f"{name}/{way} clips_per_s", None, "clips/s", reason) for way in ("resident", "inference")]
        return [*missing, published]
    rows = [
        Row(f"{name}/model weights", round(size.weights_mib, 1), "MiB", f"{size.num_parameters:,} parameters, fp32"),
        Row(f"{name}/model gflops_per_clip", round(size.gflops, 2), "GFLOPs", "forward; a multiply-add counted once"),
    ]
    for way in WAYS:
        if takens := measured.get((name, way)):
            rows += _rows_of_way(f"{name}/{way}", way, takens, device)
    if (name, "store") in measured:
        rows += _rows_of_pair(name, measured[name, "resident"], measured[name, "store"])
    return [*rows, *_reckoned(contender, measured[name, "resident"], bench.price, device), published]


def _rows_of_way(name: str, way: str, takens: Sequence[Taken], device: torch.device) -> list[Row]:
    one = takens[0]
    ms = [taken.ms / taken.num_clips for taken in takens]
    ms_per_clip = statistics.median(ms)
    steps = "steps" if one.parts_ms else "passes"
    memory = "of tensors on the device" if device.type == "cuda" else "of the process, libraries and all"
    num_steps = sum(taken.num_steps for taken in takens)
    rows = [
        Row(f"{name} clips_per_s", round(1000 / ms_per_clip, 4), "clips/s", f"{num_steps} {steps} of {one.num_clips}"),
        Row(f"{name} images_per_s", round(1000 / ms_per_clip * one.num_frames, 3), "images/s"),
        Row(f"{name} ms_per_clip", round(ms_per_clip, 2), "ms"),
        Row(f"{name} spread", round((max(ms) - min(ms)) / ms_per_clip, 3), "share", "largest less smallest, of rounds"),
        Row(
            f"{name} peak_memory",
            round(statistics.median(taken.peak_mib for taken in takens), 1),
            "MiB",
            f"{memory}; clips at once: {one.micro_batch}",
        ),
    ]
    if way == "store":
        for part in TIMED:
            part_ms = statistics.median(taken.parts_ms[part] for taken in takens)
            rows.append(Row(f"{name} part_{part}", round(part_ms, 2), "ms a step"))
        share = statistics.median(taken.wait_share for taken in takens)
        rows.append(Row(f"{name} data_wait_share", round(share, 5), "share", "of the steps' time, waiting for clips"))
    return rows


def _rows_of_pair(name: str, resident: Sequence[Taken], store: Sequence[Taken]) -> list[Row]:
    """The median of pairs that were measured one after the other."""
    pairs = [
        (there.ms / there.num_clips) / (here.ms / here.num_clips) for there, here in zip(resident, store, strict=True)
    ]
    spread = f"pairs: {len(pairs)}, {min(pairs):.3f} to {max(pairs):.3f}"
    return [Row(f"{name}/store over_resident", round(statistics.median(pairs), 4), "times", spread)]


def _reckoned(contender: Contender, resident: Sequence[Taken], price: float | None, device: torch.device) -> list[Row]:
    """What EK-100 would take at the speed of resident clips, the same for all models."""
    name, unit = contender.name, "GPU-hours" if device.type == "cuda" else "hours of this machine"
    epoch_hours = statistics.median(taken.ms / taken.num_clips for taken in resident) * NUM_TRAIN / 3.6e6
    rows = [
        Row(f"{name}/reckoned epoch", round(epoch_hours, 4), unit, f"{NUM_TRAIN} clips"),
        Row(
            f"{name}/reckoned training",
            round(epoch_hours * contender.epochs, 3),
            unit,
            f"{contender.epochs} epochs; {contender.schedule}",
        ),
    ]
    if price is not None:
        cost = Row(
            f"{name}/reckoned cost",
            round(epoch_hours * contender.epochs * price, 2),
            "of --price's currency",
            f"{price:g} an hour",
        )
        rows.append(cost)
    return rows


def _rows_of_data(store: Path, bench: TrainBench) -> list[Row]:
    """The loader with a step that costs nothing, and how many cores would feed a GPU."""
    config, num_clips = CONTENDERS[BASELINE].config(bench.effort.tiny), bench.loader_clips
    one = [in_fresh_process(measure_one_process, store, config, num_clips) for _ in range(bench.rounds)]
    all_cores = [
        in_fresh_process(measure_loader, store, config, num_clips, bench.effort.device, as_worker=False)
        for _ in range(bench.rounds)
    ]
    speed, together = statistics.median(one), statistics.median(all_cores)
    rows = [
        Row("data/one_process clips_per_s", round(speed, 1), "clips/s a core", "a second of processor time"),
        Row("data/loader clips_per_s", round(together, 1), "clips/s", f"{num_cpus()} processes; steps cost nothing"),
    ]
    for gpu, wanted in CLIPS_PER_S.items():
        rows.append(Row(f"data/cores for_{gpu}", round(wanted / speed, 2), "cores", f"{wanted} clips/s"))
    return rows


# Ratios and claims


def ratios_of(rows: Sequence[Row]) -> dict[str, float | None]:
    """What the rows come to. Ratios without a model's name are the worst of our models'."""
    ratios: dict[str, float | None] = {}
    ours = [name for name in CONTENDERS if value_of(rows, f"{name}/store over_resident") is not None]
    for quantity, row, worst in (
        ("data_wait_share", "data_wait_share", max),
        ("store_over_resident", "over_resident", min),
    ):
        values = {name: value_of(rows, f"{name}/store {row}") for name in ours}
        known = [value for value in values.values() if value is not None]
        ratios[quantity] = worst(known) if known else None
        ratios |= {f"{quantity}@{name}": value for name, value in values.items()}
    for name in ours:
        ratios[f"store_over_bare@{name}"] = _over(rows, f"{name}/store images_per_s", f"{name}/bare images_per_s")
    loader, one = (value_of(rows, f"data/{way} clips_per_s") for way in ("loader", "one_process"))
    ratios["loader_over_one_process"] = round(loader / one, 3) if loader and one else None
    for gpu in CLIPS_PER_S:
        ratios[f"cores_for_{gpu}"] = value_of(rows, f"data/cores for_{gpu}")
    for name in _others(rows):
        for ratio, quantity in (
            ("training_speed", "resident clips_per_s"),
            ("inference_speed", "inference clips_per_s"),
        ):
            for mine in (BASELINE, FAST):
                ratios[f"{ratio}_{mine}_over_{name}"] = _over(rows, f"{mine}/{quantity}", f"{name}/{quantity}")
        for ratio, quantity in (
            ("training_memory", "resident peak_memory"),
            ("weights", "model weights"),
            ("gflops", "model gflops_per_clip"),
            ("whole_training", "reckoned training"),
        ):
            ratios[f"{ratio}_{name}_over_{BASELINE}"] = _over(rows, f"{name}/{quantity}", f"{BASELINE}/{quantity}")
    return ratios


def _others(rows: Sequence[Row]) -> list[str]:
    """Other people's models that were measured."""
    return [
        name
        for name, contender in CONTENDERS.items()
        if not contender.is_ours and value_of(rows, f"{name}/resident clips_per_s") is not None
    ]


def _over(rows: Sequence[Row], above: str, below: str) -> float | None:
    numerator, denominator = value_of(rows, above), value_of(rows, below)
    return round(numerator / denominator, 3) if numerator and denominator else None


def claims_of(rows: Sequence[Row]) -> tuple[Claim, ...]:
    """Each line of the starting README's comparison, with what was measured here, whatever it is."""
    hours = next((row.unit for row in rows if row.name == f"{BASELINE}/reckoned epoch"), "hours")
    priced = any(row.name == f"{BASELINE}/reckoned cost" for row in rows)
    clips_at_once = "the numbers of clips at once are in the rows"
    lines: list[tuple[str, str, str, str, str, str, bool, str]] = [
        ("an epoch", "~10 min", "~2 hours", "12x", "reckoned epoch", hours, False, "on resident clips"),
        ("whole training", "<5 hours", "~50+ hours", "10x", "reckoned training", hours, False, "published schedules"),
        ("memory in training", "28-32 GB", "60-80 GB", "2x", "resident peak_memory", "MiB", False, clips_at_once),
        ("model size", "285 MB", "1+ GB", "3.5x", "model weights", "MiB", False, "fp32"),
        (
            "inference",
            "30 FPS (laptop)",
            "5-10 FPS",
            "3-6x",
            "inference clips_per_s",
            "clips/s",
            True,
            "whole clips; frames a second of live video are another measurement",
        ),
        (
            "cost of a training",
            "~$20",
            "~$200+",
            "10x",
            "reckoned cost" if priced else "reckoned training",
            "of --price's currency" if priced else hours,
            False,
            "" if priced else "no --price was given",
        ),
        ("action accuracy", "35%", "~42-48%", "", "published ek100_action", "%", True, "ours: not measured"),
    ]
    return tuple(_claim(rows, *line) for line in lines)


def _claim(
    rows: Sequence[Row],
    what: str,
    ours: str,
    others: str,
    times: str,
    quantity: str,
    unit: str,
    more_is_better: bool,
    note: str,
) -> Claim:
    here = value_of(rows, f"{BASELINE}/{quantity}")
    found = {name: value_of(rows, f"{name}/{quantity}") for name in _others(rows)}
    there = {name: value for name, value in found.items() if value is not None}
    factors = {}
    if here:
        factors = {
            name: round(here / value if more_is_better else value / here, 3) for name, value in there.items() if value
        }
    return Claim(what, ours, others, times, unit, here, there, factors, note)
