"""What each exported form of a recogniser keeps of its checkpoint: size, agreement and accuracy over a validation set.

Draws a small kitchen with 200 validation segments and trains recognisers on it for some epochs. EfficientNet-Lite0
keeps its ImageNet weights. ResNet-50 starts at random unless `--resnet-init` names a file, and is then trained whole,
on small pictures and few frames, so that it has trained weights to round: its accuracy says nothing of what it can do.
Then each is exported as a pair for streams in its formats and precisions, and the saved files score all 200 segments,
as does the checkpoint: onnxruntime runs ONNX, the interpreter (on a Mac: Core ML) the packages. Finished parts are kept
in `--work`, so that it can be stopped and run again. Prints JSON.

    python benchmarks/exports.py > benchmarks/results/exports.json
"""

import argparse
import dataclasses
import json
import logging
import sys
from pathlib import Path
from typing import Any

import numpy as np

from egochef.clip import ClipSpec
from egochef.data.annotations import open_data_folder, read_split
from egochef.data.frames import open_frames
from egochef.deploy.agreement import TOLERANCES
from egochef.deploy.export import SUFFIXES, export, open_exported, report_of
from egochef.engines.engine import ClipEngine
from egochef.engines.torch_engine import load
from egochef.inference.scoring import score_segments, truth_of
from egochef.model.checkpoint import checkpoint_file, load_checkpoint, save_checkpoint
from egochef.model.recogniser import count_parameters
from egochef.recipes import toy
from egochef.runtime import describe_machine
from egochef.scoring.metrics import evaluate
from egochef.scoring.table import ScoreTable, load_scores, save_scores
from egochef.toykitchen import ToyConfig, draw_kitchen
from egochef.training.config import TrainConfig, with_encoder, with_init
from egochef.training.loop import train

NUM_SEGMENTS, VALIDATION_SHARE = 400, 0.5
EPOCHS = 12
MODELS = {
    "light": ("efficientnet_lite0", "bilstm", 16),
    "light_tcn": ("efficientnet_lite0", "tcn", 16),
    "resnet16": ("resnet50", "bilstm", 16),
    "resnet32": ("resnet50", "bilstm", 32),
}
"""name -> encoder, temporal model, frames; `resnet32` is `resnet16` shown 32 frames"""
KINDS = {name: tuple(TOLERANCES) for name in MODELS} | {"resnet32": (("onnx", "fp32"), ("coreml", "fp16"))}
"""name -> (format, precision); eight bits and halves of `resnet32` are those of `resnet16`"""
TASKS = ("verb", "noun", "action")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("outputs", "exports"))
    parser.add_argument("--resnet-init", default="none", help="torchvision's ResNet-50 file, or none (default)")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    data = args.work / "data"
    if not data.exists():
        config = ToyConfig(preset="small", num_segments=NUM_SEGMENTS, validation_share=VALIDATION_SHARE, seed=21)
        draw_kitchen(data, config)
    rows = {name: study(name, data, args.work, args.resnet_init) for name in args.models}
    print(json.dumps({"machine": describe_machine(), "resnet_init": args.resnet_init, "models": rows}, indent=1))


def trained(name: str, data: Path, work: Path, resnet_init: str) -> Path:
    """The checkpoint of one recogniser, trained unless it is kept."""
    encoder, temporal, num_frames = MODELS[name]
    checkpoint = work / f"{name}.safetensors"
    if checkpoint.is_file():
        return checkpoint
    if name == "resnet32":
        recogniser, about = load_checkpoint(trained("resnet16", data, work, resnet_init))
    else:
        config = config_of(encoder, temporal, num_frames, resnet_init)
        train(config, data, work / f"run_{name}", resume=True)
        recogniser, about = load_checkpoint(checkpoint_file(work / f"run_{name}"))
    clip = ClipSpec(num_frames, mean=about.clip.mean, std=about.clip.std)
    save_checkpoint(checkpoint, recogniser, dataclasses.replace(about, clip=clip))
    return checkpoint


def study(name: str, data: Path, work: Path, resnet_init: str) -> dict[str, Any]:
    """One recogniser in all its forms."""
    encoder, temporal, num_frames = MODELS[name]
    checkpoint = trained(name, data, work, resnet_init)
    folder = open_data_folder(data)
    segments = read_split(folder, "validation")
    truth = truth_of(folder, "validation", segments)

    def scores(engine: ClipEngine, title: str) -> ScoreTable:
        kept = work / name / f"{title}.npz"
        if not kept.is_file():
            frames = open_frames(folder, segments, engine.clip.grid)
            save_scores(kept, score_segments(engine, segments, frames, title=f"{name} {title}"))
        return load_scores(kept)

    engine = load(checkpoint, device="cpu", precision="fp32")
    reference = scores(engine, "checkpoint")
    rows = {}
    for format, precision in KINDS[name]:
        output = work / name / f"{format}-{precision}{SUFFIXES[format]}"
        if not report_of(output).is_file():
            export(checkpoint, output, format=format, parts="stream", precision=precision, data=data)
        report = json.loads(report_of(output).read_text(encoding="utf-8"))
        table = scores(open_exported(output), f"{format}-{precision}")
        rows[f"{format} {precision}"] = {
            "mib": {part.removeprefix(f"{output.stem}-"): size / 2**20 for part, size in report["files"].items()},
            "export_s": report["seconds"],
            **alike(reference, table),
            "accuracy": accuracy(evaluate(table, truth)),
        }
    return {
        "encoder": encoder,
        "temporal": temporal,
        "num_frames": num_frames,
        "num_parameters": count_parameters(engine.recogniser),
        "checkpoint_mib": checkpoint.stat().st_size / 2**20,
        "num_segments": len(segments),
        "accuracy": accuracy(evaluate(reference, truth)),
        "exports": rows,
    }


def config_of(encoder: str, temporal: str, num_frames: int, resnet_init: str) -> TrainConfig:
    """The toy recipe with the baseline's sizes: 224 pixels, 512 units."""
    config = dataclasses.replace(with_encoder(toy(), encoder), epochs=EPOCHS, feature_views=0, keep=1)
    if encoder == "resnet50":
        config = with_init(config, resnet_init)
    model = dataclasses.replace(config.model, temporal=temporal, hidden_size=512)
    config = dataclasses.replace(config, model=model)
    if config.init == "none":
        small = ClipSpec(num_frames=8, image_size=112, resize_size=128, mean=config.clip.mean, std=config.clip.std)
        return dataclasses.replace(config, clip=small, batch_size=8, lr=3e-4)
    clip = ClipSpec(num_frames, mean=config.clip.mean, std=config.clip.std)
    return dataclasses.replace(config, clip=clip, feature_views=1)


def alike(reference: ScoreTable, table: ScoreTable) -> dict[str, float]:
    """Differences of log-probabilities, relative to the largest of all, and shares of segments of one best class."""
    ours, theirs = (np.concatenate([each.verb_output, each.noun_output], axis=1) for each in (reference, table))
    same = {
        task: getattr(reference, f"{task}_output").argmax(1) == getattr(table, f"{task}_output").argmax(1)
        for task in ("verb", "noun")
    }
    of_segments = np.abs(ours - theirs).max(1) / np.abs(ours).max()
    return {
        "difference": float(of_segments.max()),
        "median_difference": float(np.median(of_segments)),
        "verb_same": float(same["verb"].mean()),
        "noun_same": float(same["noun"].mean()),
        "action_same": float((same["verb"] & same["noun"]).mean()),
    }


def accuracy(metrics: dict[str, float | int]) -> dict[str, float]:
    return {task: metrics[f"all_{task}_accuracy_at_1"] for task in TASKS}


if __name__ == "__main__":
    main()
