"""What a temporal shift costs: a frame of a stream through an online encoder against a plain encoder pass, and a clip.

Encoders as inference has them (BatchNorm folded, channels last), one picture of 224 pixels at a time and a clip of 8,
in turns so that a busy machine hits all alike: medians of --rounds. Also how far the stream's features are from those
of the same frames as a whole clip, relative to the largest; and whole predictions over a stream by the recipe `light`,
with random weights. Prints JSON.

    python benchmarks/shift.py > benchmarks/results/shift.json
"""

import argparse
import dataclasses
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from accuracy import stream
from torch import Tensor

from egochef.bench.peers import classes, known_actions
from egochef.engines.torch_engine import TorchEngine
from egochef.model.encoders import ENCODERS, build_encoder, fold_batchnorm
from egochef.model.recogniser import Recogniser
from egochef.model.shift import Encoder
from egochef.model.weights import load_initial_weights
from egochef.recipes import light
from egochef.runtime import describe_machine, mixed_precision

SIZE_PX, NUM_FRAMES = 224, 8
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=60)
    args = parser.parse_args()
    cpu = torch.device("cpu")
    rows: dict[str, Any] = {}
    for architecture in ("resnet50", "efficientnet_lite0"):
        encoders = {shift: made(architecture, shift) for shift in ("none", "both", "past")}
        clip = torch.rand(NUM_FRAMES, 3, SIZE_PX, SIZE_PX).to(memory_format=torch.channels_last)
        for precision, dtype in DTYPES.items():
            with torch.inference_mode(), mixed_precision(cpu, dtype):
                rows[f"{architecture} {precision}"] = measured(encoders, clip, args.rounds)
    rows |= {f"light {precision}": predicted(dtype, args.rounds) for precision, dtype in DTYPES.items()}
    print(json.dumps({"machine": describe_machine(), "rounds": args.rounds, "rows": rows}, indent=1))


def made(architecture: str, shift: str) -> Encoder:
    """One for inference; ResNet-50's weights are random, which its time does not depend on."""
    name = next(each.name for each in ENCODERS.values() if (each.architecture, each.shift) == (architecture, shift))
    torch.manual_seed(0)
    encoder = build_encoder(name)
    if architecture != "resnet50":
        load_initial_weights(encoder, name, "imagenet")
    folded = fold_batchnorm(encoder)
    folded.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stub lacks it
    return folded


def predicted(dtype: torch.dtype, rounds: int) -> dict[str, float]:
    """A new frame encoded, beside what is kept of the one before, and a window of 2 s classified."""
    config = light()
    model = dataclasses.replace(config.model, action_ids=known_actions())
    engine = TorchEngine(Recogniser(model), config.clip, classes(), torch.device("cpu"), dtype, encoder_is_final=True)
    predict = stream(engine)
    times = []
    for _ in range(rounds):
        began = time.perf_counter()
        predict()
        times.append(1000 * (time.perf_counter() - began))
    ms = statistics.median(times)
    return {"prediction_ms": round(ms, 2), "predictions_per_s": round(1000 / ms, 1)}


def measured(encoders: dict[str, Encoder], clip: Tensor, rounds: int) -> dict[str, float]:
    frame, online = clip[:1], encoders["past"]
    _, kept = online.step(frame, None)
    ways: dict[str, Callable[[], object]] = {
        "frame": lambda: encoders["none"](frame),
        "online_frame": lambda: online.step(frame, kept),
        "clip": lambda: encoders["none"](clip),
        "tsm_clip": lambda: encoders["both"](clip, NUM_FRAMES),
        "online_clip": lambda: online(clip, NUM_FRAMES),
    }
    times: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds + 3):
        for name, run in ways.items():
            began = time.perf_counter()
            run()
            if number >= 3:
                times[name].append(1000 * (time.perf_counter() - began))
    ms = {name: statistics.median(each) for name, each in times.items()}
    whole, features, before = online(clip, NUM_FRAMES), [], None
    for each in clip.split(1):
        feature, before = online.step(each, before)
        features.append(feature)
    return {f"{name}_ms": round(each, 2) for name, each in ms.items()} | {
        "online_frame_over_frame": round(ms["online_frame"] / ms["frame"], 3),
        "tsm_clip_over_clip": round(ms["tsm_clip"] / ms["clip"], 3),
        "online_clip_over_clip": round(ms["online_clip"] / ms["clip"], 3),
        "stream_against_clip": float(((torch.cat(features) - whole).abs().max() / whole.abs().max()).item()),
    }


if __name__ == "__main__":
    main()
