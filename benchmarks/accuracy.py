"""What each model and each switch of training brings: an ablation on a hard drawn kitchen, paired by seed and segment.

    python benchmarks/accuracy.py                        # all that is missing in benchmarks/results/accuracy.json
    python benchmarks/accuracy.py --study heads          # a part of it
    python benchmarks/accuracy.py --table                # the table of the README, from the JSON file

Two studies, each with a base that everything is compared with:

- heads: the light encoder as its ImageNet weights have it, features of 16 frames kept once, and the `toy` recipe's
  training of what follows, with five seeds;
- encoders: encoders trained too, on 8 frames of 112 pixels, with three seeds, the light encoder's first five stages as
  loaded; all are also compared with the recipes' switches on an encoder without shift, and with the baseline's
  architecture, ResNet-50 + BiLSTM, which starts from random weights as none can be had without a network.

A variant has the base's data, encoder weights, epochs and seeds; only what its row says differs. The weights of the
last epoch are scored: validation chooses nothing. A result is which validation segments a run names the action of, kept
bit by bit in the JSON file: a stopped study goes on where it was, on another machine too, and differences are taken
segment by segment. A row has a hash of its settings: what the script would not make any more is refused. Intervals are
of the mean difference, 95 %, from drawing seeds and segments again 10,000 times. What is tuned at test time (a prior's
strength, an ensemble's weights) is tuned on participants held out of training, in runs of their own.

Everything kept between calls lies in --work; it may be removed. Two processes may share it with different --seeds: give
each one thread (OMP_NUM_THREADS=1) then, after one of them has made the features. Streams are timed without --seeds.
"""

import argparse
import dataclasses
import fcntl
import hashlib
import itertools
import json
import logging
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from egochef.data.annotations import DataFolder, Segment, open_data_folder, read_split
from egochef.data.dataset import ClipDataset, Key
from egochef.data.frames import open_frames
from egochef.data.prepare import prepare
from egochef.data.store import StoreSpec
from egochef.data.transforms import Augment
from egochef.engines.torch_engine import TorchEngine, load
from egochef.errors import InputError
from egochef.files import atomic_path, write_json
from egochef.inference.rolling import RollingRecogniser
from egochef.inference.scoring import Sums, encode_batches, prior_of, score_split, truth_of
from egochef.model.checkpoint import read_tensors
from egochef.model.cost import cost_of
from egochef.model.recogniser import Recogniser
from egochef.ranks import Ranks
from egochef.recipes import toy
from egochef.records import to_dict
from egochef.runtime import describe_machine, num_cpus, pick_dtype
from egochef.scoring.ensemble import ensemble
from egochef.scoring.metrics import Truth
from egochef.scoring.prior import apply_prior
from egochef.scoring.table import ScoreTable, load_scores, save_scores, take_rows
from egochef.scoring.tuning import fit_strength, fit_weights, is_right
from egochef.toykitchen import ToyConfig, draw_kitchen
from egochef.training.config import TrainConfig, with_encoder, with_init
from egochef.training.loop import train
from egochef.training.run import FEATURES
from egochef.training.runfiles import read_log
from egochef.training.state import newest_whole, state_path

NUM_SEGMENTS, NUM_VALIDATION = 2000, 1000
KITCHEN = ToyConfig(
    seed=1, num_segments=NUM_SEGMENTS, validation_share=NUM_VALIDATION / NUM_SEGMENTS, difficulty="hard"
)
RESULTS = Path(__file__).parent / "results" / "accuracy.json"
NUM_RESAMPLED = 10_000
NUM_TIMED = 60
"""predictions over a stream"""
HELD_OUT = ("P01", "P02", "P03")
"""participants whose training segments the runs that tune do without"""

Change = Callable[[TrainConfig], TrainConfig]


@dataclass(frozen=True)
class Variant:
    """A row of the table."""

    title: str
    change: Change = lambda config: config
    """of the base's config"""
    at_test: str = ""
    """instead of a training of its own: what is done to the scores of other variants' runs"""
    published: str = ""
    """gain on EK-100 and where it was published"""
    trains: tuple[str, ...] = ()
    """variants that have to be trained before, on the same seed; their time counts"""


@dataclass(frozen=True)
class Study:
    base: TrainConfig
    variants: dict[str, Variant]
    """by name; the first is the base"""
    num_seeds: int
    beside: tuple[str, ...]
    """other variants that all are compared with"""


def model(**changes: Any) -> Change:
    return lambda config: dataclasses.replace(config, model=dataclasses.replace(config.model, **changes))


def augment(**changes: Any) -> Change:
    return lambda config: dataclasses.replace(config, augment=dataclasses.replace(config.augment, **changes))


def field(**changes: Any) -> Change:
    return lambda config: dataclasses.replace(config, **changes)


def several(*changes: Change) -> Change:
    def change(config: TrainConfig) -> TrainConfig:
        for each in changes:
            config = each(config)
        return config

    return change


GRU_AND_JOINT = model(temporal="bigru", joint=True)
"""chosen by a first look at another kitchen than that of this study"""
BY_LAYER = field(layer_decay=0.8)
SWITCHED = several(GRU_AND_JOINT, BY_LAYER)
"""as the recipes `light`, `strong` and `fast` have it"""
HEADS = Study(
    dataclasses.replace(toy(), patience=30, max_validation_segments=16),
    {
        "bilstm": Variant("BiLSTM (the base)"),
        "mean": Variant("mean of the frames", model(temporal="mean")),
        "attention": Variant("attention pooling of the frames", model(temporal="mean", pooling="attention")),
        "bigru": Variant("GRU", model(temporal="bigru")),
        "tcn": Variant("temporal convolutions", model(temporal="tcn")),
        "joint": Variant("joint action head", model(joint=True)),
        "mixup": Variant("mixup of features, 0.2", augment(mixup_alpha=0.2)),
        "ema": Variant("moving average of weights, 0.99", field(ema_decay=0.99)),
        "balance": Variant("class-balanced sampling, 0.5", field(balance=0.5)),
        "adjust": Variant("logit adjustment, 0.5", field(logit_adjustment=0.5)),
        "rate": Variant("random rate (0.6), lost frames (0.1)", augment(min_span=0.6, drop_frames=0.1)),
        "teacher": Variant(
            "distilled from the base's and the TCN's ensemble", field(teacher="TEACHER"), trains=("bilstm", "tcn")
        ),
        "views": Variant("three views at test time", at_test="views"),
        "prior": Variant("verb-noun prior at test time", at_test="prior"),
        "ensemble": Variant("BiLSTM and TCN, learned weights", at_test="ensemble"),
        "best": Variant("GRU, joint head", GRU_AND_JOINT),
    },
    num_seeds=5,
    beside=("bigru",),
)


def _whole(config: TrainConfig) -> TrainConfig:
    """Encoders trained too, at a size that a processor trains in minutes."""
    return dataclasses.replace(
        config,
        clip=dataclasses.replace(config.clip, num_frames=8, image_size=112, resize_size=128),
        augment=Augment(crop_scale=(0.7, 1.0), flip=0.0, greyscale=0.0, cutmix_alpha=0.0),
        feature_views=0,
        epochs=5,
        patience=5,
        frozen_stages=5,  # of 9: as much is learned in an epoch, in half the time
        max_validation_segments=16,
        batch_size=16,
        lr=5e-4,
        warmup_epochs=0.5,
    )


def _from_random(config: TrainConfig) -> TrainConfig:
    """All of it is trained: there is nothing to keep."""
    return with_init(with_encoder(dataclasses.replace(config, frozen_stages=0), "resnet50"), "none")


TSM_PUBLISHED = (
    "TSM from Kinetics weights +8.35 over TSN from ImageNet's, ResNet-50 (README of C1-Action-Recognition-TSN-TRN-TSM)"
)
ENCODERS = Study(
    _whole(toy()),
    {
        "lite0": Variant("Lite0 + BiLSTM (the base)"),
        "resnet50": Variant("ResNet-50 + BiLSTM, from random weights", _from_random),
        "bigru": Variant("GRU", model(temporal="bigru")),
        "joint": Variant("joint action head", model(joint=True)),
        "best": Variant("GRU, joint head", GRU_AND_JOINT),
        "best_half": Variant("GRU, joint head, half the learning rate", several(GRU_AND_JOINT, field(lr=2.5e-4))),
        "layers": Variant("learning rates by layer, 0.8", BY_LAYER),
        "best_layers": Variant("GRU, joint head, rates by layer", SWITCHED),
        "tsm": Variant("TSM both ways", model(encoder="efficientnet_lite0_tsm"), published=TSM_PUBLISHED),
        "light": Variant(
            "`light`: GRU, joint head, rates by layer and TSM online",
            several(model(encoder="efficientnet_lite0_tsm_online"), SWITCHED),
        ),
        "fast": Variant(
            "`fast`: GRU, joint head, rates by layer and TSM both ways",
            several(model(encoder="efficientnet_lite0_tsm"), SWITCHED),
        ),
    },
    num_seeds=3,
    beside=("best_layers", "resnet50"),
)
STUDIES = {"heads": HEADS, "encoders": ENCODERS}


class Bench:
    """The kitchen, the runs, and the results so far."""

    def __init__(self, work: Path, results: Path):
        self.work, self.results = work, results
        self.kept: dict[str, Any] = {}
        self.read()
        self.store = work / "store"
        data = work / "data"
        if not data.exists():
            draw_kitchen(data, KITCHEN, num_workers=num_cpus())
        prepare(data, self.store, StoreSpec(size_px=160), splits=("train", "validation"), num_workers=num_cpus())
        self.folder: DataFolder = open_data_folder(self.store)
        self.segments = read_split(self.folder, "validation")
        self.truth: Truth = truth_of(self.folder, "validation", self.segments)

    def read(self) -> None:
        """What is kept so far, by another process too."""
        if self.results.exists():
            self.kept = json.loads(self.results.read_text())

    @contextmanager
    def alone(self) -> Iterator[None]:
        """The results as they are now, held against other processes until they are written with what is added."""
        with (self.work / "lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            self.read()
            yield
            write_json(self.results, self.kept)

    def row(self, study: str, name: str, seed: int) -> dict[str, Any] | None:
        """What is kept of a run.

        Raises:
            InputError: it was made by other settings than the script has now.
        """
        found: dict[str, Any] | None = self.kept.get(study, {}).get(name, {}).get(str(seed))
        if found and found["settings"] != settings_of(study, name):
            raise InputError(
                f"{self.results}: {name} of {study}, seed {seed}, was made by other settings than the script has now. "
                "Take it out, and what --work has of it."
            )
        return found

    def keep(self, study: str, name: str, seed: int, table: ScoreTable, **more: Any) -> None:
        """A run's result, and what it was made by and on."""
        row: dict[str, Any] = packed(table, self.truth) | more | {"settings": settings_of(study, name)}
        precision = STUDIES[study].variants[name].change(STUDIES[study].base).precision
        dtype = pick_dtype(torch.device("cpu"), precision)
        row |= {"machine": describe_machine(), "precision": str(dtype).split(".")[-1]}
        with self.alone():
            self.kept.setdefault(study, {}).setdefault(name, {})[str(seed)] = row
        logging.info("%s %s, seed %d: action top-1 %.2f %%", study, name, seed, row["action_top1"])

    def scores(self, study: str, run: Path, split: str = "validation", num_views: int = 1) -> ScoreTable:
        """Of a run's last weights, kept beside it."""
        path = run / f"{split}-{num_views}.npz"
        if not path.exists():
            engine, segments = last_engine(run), read_split(self.folder, split)
            if study == "heads":
                table = self.classify(engine, segments, self.encoded(engine, split, num_views))
            else:
                table = score_split(engine, self.folder, split, segments, num_views=num_views)
            save_scores(path, table)
        return load_scores(path)

    def encoded(self, engine: TorchEngine, split: str, num_views: int) -> Tensor:
        """Features (S, V, T, D) float16 of a split under the encoder that all runs of the heads share, made once."""
        path = self.work / f"encoded-{split}-{num_views}.pt"
        if not path.exists():
            segments = read_split(self.folder, split)
            frames = open_frames(self.folder, segments, engine.clip.grid)
            dataset = ClipDataset(segments, frames, engine.clip, num_views=num_views)
            keys: list[Key] = [(0, place, place) for place in range(len(dataset))]
            parts = [features.half() for _, features in encode_batches(engine, dataset, keys, title=split)]
            with atomic_path(path) as temporary:
                torch.save(torch.cat(parts).unflatten(0, (len(segments), num_views)), temporary)
        kept: Tensor = torch.load(path, weights_only=True)
        return kept

    def classify(self, engine: TorchEngine, segments: tuple[Segment, ...], features: Tensor) -> ScoreTable:
        """Scores of kept features (S, V, T, D), the mean over the views."""
        sums = Sums(len(segments), engine.taxonomy, engine.action_ids)
        num_views = features.shape[1]
        for place in range(0, len(segments), 128):
            part = features[place : place + 128]  # (B, V, T, D)
            places = np.repeat(np.arange(place, place + len(part)), num_views)
            sums.add(places, *engine.classify_actions(part.flatten(0, 1)), share=1 / num_views)
        return sums.table(segments, Ranks())

    def train(self, study: str, name: str, seed: int, **more: Any) -> Path:
        """A run of a variant, whole."""
        base = STUDIES[study].base
        config = dataclasses.replace(STUDIES[study].variants[name].change(base), seed=seed, recipe=name, **more)
        suffix = "-held-out" if more.get("held_out") else ""
        run = self.work / study / f"{name}{suffix}-{seed}"
        if config.teacher:
            config = dataclasses.replace(config, teacher=str(self.teacher(study, seed)))
        data = self.store
        if config.feature_views:
            data = self.features(config)
        train(config, data, run, resume=True)
        return run

    def features(self, config: TrainConfig) -> Path:
        """Kept features, made once for all seeds that see the same clips."""
        seen = (config.augment.min_span, config.augment.drop_frames)
        first = self.work / f"features-{seen[0]:g}-{seen[1]:g}"
        if not (first / FEATURES / "features.json").exists() or not (first / "done").exists():
            plain = dataclasses.replace(config.augment, mixup_alpha=0.0)
            short = dataclasses.replace(HEADS.base, augment=plain, epochs=1, seed=0)
            train(short, self.store, first, resume=True)
            (first / "done").touch()
        return first / FEATURES

    def teacher(self, study: str, seed: int) -> Path:
        path = self.work / study / f"teacher-{seed}.npz"
        if not path.exists():
            runs = [self.train(study, name, seed) for name in ("bilstm", "tcn")]
            save_scores(path, ensemble([self.scores(study, run, "train") for run in runs]))
        return path

    def at_test(self, study: str, kind: str, seed: int) -> ScoreTable:
        """Scores of the base's run, and of others', as a variant without training has them."""
        base = self.train(study, "bilstm", seed)
        if kind == "views":
            return self.scores(study, base, num_views=3)
        held_out = {"held_out": HELD_OUT}
        segments = tuple(each for each in read_split(self.folder, "train") if each.participant_id in HELD_OUT)
        truth = truth_of(self.folder, "train", segments)

        def of_held_out(name: str) -> ScoreTable:
            table = self.scores(study, self.train(study, name, seed, **held_out), "train")
            return take_rows(table, np.isin(table.narration_id, truth.narration_id))

        if kind == "prior":
            strength = fit_strength(of_held_out("bilstm"), truth, prior_of(self.folder, ("train",), without=HELD_OUT))
            return apply_prior(self.scores(study, base), prior_of(self.folder, ("train",)), strength)
        assert kind == "ensemble", kind
        weights = fit_weights([of_held_out("bilstm"), of_held_out("tcn")], truth)
        return ensemble([self.scores(study, run) for run in (base, self.train(study, "tcn", seed))], weights)

    def time_streams(self, study: str, names: list[str]) -> None:
        """How much longer than the base's one prediction over a stream takes, measured in turns; medians."""
        base = next(iter(STUDIES[study].variants))
        for name in names:
            self.read()
            variant, known = STUDIES[study].variants[name], self.kept.get("stream", {}).get(study, {})
            if name in known or variant.at_test or not self.row(study, name, 0):
                continue
            engines = [last_engine(self.train(study, each, 0)) for each in (base, name)]
            if "both" in (engine.shift for engine in engines):
                continue  # it is for clips
            ours = [stream(engine) for engine in engines]
            spent: list[list[float]] = [[], []]
            for _ in range(NUM_TIMED):
                for predict, each in zip(ours, spent, strict=True):
                    began = time.perf_counter()
                    predict()
                    each.append(time.perf_counter() - began)
            of_base, of_name = (statistics.median(each) for each in spent)
            with self.alone():
                times = self.kept.setdefault("stream", {}).setdefault(study, {})
                times[name] = {"over_base": round(of_name / of_base, 2), "ms": round(1000 * of_name, 1)}

    def run(self, study: str, names: list[str], seeds: list[int]) -> None:
        """All that is missing, seed by seed, so that a stopped study has whole pairs."""
        for seed in seeds:
            for name in names:
                self.read()
                if self.row(study, name, seed):
                    continue
                variant = STUDIES[study].variants[name]
                if variant.at_test:
                    self.keep(study, name, seed, self.at_test(study, variant.at_test, seed))
                    continue
                run = self.train(study, name, seed)
                train_s = sum(line["step_ms"] for line in read_log(run) if line["kind"] == "step") / 1000
                self.keep(study, name, seed, self.scores(study, run), train_s=round(train_s, 1))


def stream(engine: TorchEngine) -> Callable[[], object]:
    """One prediction over a stream: a frame encoded, a window of the kept features classified."""
    rolling = RollingRecogniser(engine, [2.0])
    rng = np.random.default_rng(0)
    size = engine.clip.image_size
    pictures = [rng.integers(0, 256, (size, size, 3), dtype=np.uint8) for _ in range(4)]
    times_s = itertools.count(step=0.05)

    def predict() -> object:
        time_s = next(times_s)
        rolling.see(time_s, pictures[round(20 * time_s) % 4])
        return rolling.probs()

    for _ in range(60):  # until the window is full
        predict()
    return predict


def last_engine(run: Path) -> TorchEngine:
    """A run's weights after its last epoch, the moving average where there is one."""
    engine = load(run, device="cpu")
    name = newest_whole(run)
    assert name is not None
    tensors, _ = read_tensors(state_path(run, name))
    prefix = "ema." if any(each.startswith("ema.") for each in tensors) else "model."
    recogniser = Recogniser(engine.recogniser.config)
    recogniser.load_state_dict(
        {each.removeprefix(prefix): tensors[each] for each in tensors if each.startswith(prefix)}
    )
    return TorchEngine(recogniser, engine.clip, engine.taxonomy, engine.device, engine.dtype, encoder_is_final=True)


def settings_of(study: str, name: str) -> str:
    """Hash of all that decides a row, whatever the seed; what is as in every run by default is left out."""
    variant = STUDIES[study].variants[name]
    trained = [variant, *(STUDIES[study].variants[each] for each in variant.trains)]
    defaults = to_dict(TrainConfig())
    configs = [_changed(to_dict(each.change(STUDIES[study].base)), defaults) for each in trained]
    text = json.dumps([to_dict(KITCHEN), variant.at_test, configs], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _changed(value: Any, default: Any) -> Any:
    if not isinstance(value, dict) or not isinstance(default, dict):
        return value
    return {name: _changed(value[name], default[name]) for name in value if value[name] != default[name]}


def packed(table: ScoreTable, truth: Truth) -> dict[str, Any]:
    """Which segments' verbs, nouns and actions are named, a bit each in hexadecimal."""
    verb, noun = table.verb_output.argmax(1) == truth.verb, table.noun_output.argmax(1) == truth.noun
    right = {"verb": verb, "noun": noun, "action": is_right(table, truth)}
    row: dict[str, Any] = {task: np.packbits(of_task).tobytes().hex() for task, of_task in right.items()}
    return row | {"action_top1": round(100 * float(right["action"].mean()), 2)}


def bits(row: dict[str, Any], task: str, num: int) -> np.ndarray:
    return np.unpackbits(np.frombuffer(bytes.fromhex(row[task]), np.uint8))[:num].astype(float)


def summarise(kept: dict[str, Any], num: int) -> dict[str, list[dict[str, Any]]]:
    """Rows of the tables, by study; only seeds that a variant shares with the base count."""
    streams = kept.get("stream", {})
    return {study: list(_rows(study, kept.get(study, {}), streams.get(study, {}), num)) for study in STUDIES}


def _rows(study: str, kept: dict[str, Any], streams: dict[str, Any], num: int) -> Iterator[dict[str, Any]]:
    base_name = next(iter(STUDIES[study].variants))
    for name, variant in STUDIES[study].variants.items():
        seeds = _shared(kept, name, base_name)
        if not seeds:
            continue
        ours, bases = ([kept[each][seed] for seed in seeds] for each in (name, base_name))
        config = variant.change(STUDIES[study].base)
        views = 3 if variant.at_test == "views" else 1
        row: dict[str, Any] = {
            "name": name,
            "title": variant.title,
            "num_seeds": len(seeds),
            "gflops": round(views * cost_of(config.model, config.clip).flops / 1e9, 2),
            "published": variant.published,
        }
        if variant.at_test == "ensemble":  # of two heads on one encoder
            other = cost_of(dataclasses.replace(config.model, temporal="tcn"), config.clip)
            head_flops = other.flops - config.clip.num_frames * other.encoder_flops
            row["gflops"] = round(row["gflops"] + head_flops / 1e9, 2)
        for task in ("verb", "noun", "action"):
            row[task] = round(100 * float(_right(ours, task, num).mean()), 2)
        if name != base_name:
            row["action_gain"] = interval(100 * (_right(ours, "action", num) - _right(bases, "action", num)))
        row["gains_beside"] = {}
        for second in STUDIES[study].beside:
            if name != second and (shared := _shared(kept, name, second)):
                mine, theirs = (_right([kept[each][seed] for seed in shared], "action", num) for each in (name, second))
                title = STUDIES[study].variants[second].title
                row["gains_beside"][title] = interval(100 * (mine - theirs))
        if times := [
            sum(kept[each][seed]["train_s"] for each in (name, *variant.trains)) / kept[base_name][seed]["train_s"]
            for seed in seeds
            if not variant.at_test and kept[name][seed]["machine"] == kept[base_name][seed]["machine"]
        ]:
            row["training_time"] = round(statistics.median(times), 2)
        if stream := streams.get(name):
            row["stream_over_base"] = stream["over_base"]
        yield row


def _shared(kept: dict[str, Any], *names: str) -> list[str]:
    """Seeds that all of some variants have."""
    return sorted(set.intersection(*(set(kept.get(name, {})) for name in names)))


def _right(rows: list[dict[str, Any]], task: str, num: int) -> np.ndarray:
    """(seeds, S), 1 where a run names a segment's class."""
    return np.stack([bits(row, task, num) for row in rows])


def markdown(rows: list[dict[str, Any]]) -> str:
    """A study's table, the base first; `-` where there is nothing to say."""
    titles = ["", "action top-1", "gain in points (95 %)"]
    besides = list(dict.fromkeys(title for row in rows for title in row["gains_beside"]))
    titles += [f"over {title}" for title in besides]
    titles += ["seeds", "GFLOPs", "training time", "over a stream", "published"]
    lines = [f"| {' | '.join(titles)} |".replace("|  |", "| |"), "|---" * len(titles) + "|"]
    for row in rows:
        cells = [row["title"], f"{row['action']:.1f} %", _told(row.get("action_gain"))]
        cells += [_told(row["gains_beside"].get(title)) for title in besides]
        cells += [
            str(row["num_seeds"]),
            f"{row['gflops']:.2f}",
            *(f"{row[name]:.2f} times" if name in row else "-" for name in ("training_time", "stream_over_base")),
            row["published"] or "-",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _told(gain: dict[str, float] | None) -> str:
    return f"{gain['mean']:+.1f} ({gain['low']:+.1f} to {gain['high']:+.1f})" if gain else "-"


def interval(differences: np.ndarray) -> dict[str, float]:
    """Mean and 95 % interval of paired differences (seeds, S), resampled over seeds and segments."""
    num_seeds, num_segments = differences.shape
    of_seeds, of_segments = drawn_again(num_seeds, num_segments)
    sums = of_segments @ differences.T  # (NUM_RESAMPLED, seeds), over the drawn segments
    means = (of_seeds * sums).sum(axis=1) / (num_seeds * num_segments)
    low, high = np.percentile(means, (2.5, 97.5))
    return {"mean": round(float(differences.mean()), 2), "low": round(float(low), 2), "high": round(float(high), 2)}


@lru_cache(maxsize=2)
def drawn_again(num_seeds: int, num_segments: int) -> tuple[np.ndarray, np.ndarray]:
    """How often each seed (NUM_RESAMPLED, seeds) and segment (NUM_RESAMPLED, S) is drawn, for all intervals alike."""
    random = np.random.default_rng(0)
    of_seeds, of_segments = (np.empty((NUM_RESAMPLED, num)) for num in (num_seeds, num_segments))
    for place in range(NUM_RESAMPLED):
        for counts in (of_seeds, of_segments):
            num = counts.shape[1]
            counts[place] = np.bincount(random.integers(0, num, num), minlength=num)
    return of_seeds, of_segments


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("outputs", "accuracy"))
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--study", nargs="+", choices=tuple(STUDIES), default=list(STUDIES))
    parser.add_argument("--variants", nargs="+", metavar="V", help="only these, and the base")
    parser.add_argument(
        "--seeds", nargs="+", type=int, metavar="N", help="only these; two processes may share the work"
    )
    parser.add_argument("--table", action="store_true", help="print what is there, train nothing")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    if not args.table:
        bench = Bench(args.work, args.results)
        for study in args.study:
            names = list(STUDIES[study].variants)
            if args.variants:
                names = [name for name in names if name in args.variants or name == names[0]]
            bench.run(
                study, names, [seed for seed in range(STUDIES[study].num_seeds) if seed in (args.seeds or [seed])]
            )
            if not args.seeds:
                bench.time_streams(study, names)
    if not args.results.exists():
        sys.exit(f"{args.results}: no such file. Run it without --table first.")
    kept = json.loads(args.results.read_text())
    print("\n\n".join(markdown(rows) for rows in summarise(kept, NUM_VALIDATION).values() if rows))


if __name__ == "__main__":
    main()
