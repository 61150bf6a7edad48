"""Measures what a stream's recognition says in time, against what the whole clip of a segment gives.

    python benchmarks/live_accuracy.py > benchmarks/results/live_accuracy.json

Draws a toy kitchen, trains the `toy` recipe on it, and evaluates its validation segments as clips. Then it runs the
rolling recogniser over each whole validation video, every frame once, and asks what is shown for each segment of one
second or more that the clip got right:

    end     whether the right action is shown at some moment within 0.3 s of the segment's end
    middle  the same around its middle
    at_end, at_middle   what is shown at exactly that moment
    wrong_share         of all moments with an action shown inside such segments, how many show another action

for several sets of windows, before smoothing (the most probable action) and after it. Last, the same checkpoint's
clip-level accuracy in other runtimes and precisions (bf16 where the processor has it). `--keep DIR` keeps the kitchen
and the run and uses them again. Prints one JSON object.
"""

import argparse
import dataclasses
import json
import logging
import os
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from egochef.data.annotations import Segment, find_videos, open_data_folder, read_split
from egochef.data.prepare import prepare
from egochef.data.store import StoreSpec
from egochef.data.transforms import eval_crop
from egochef.deploy.backends import load_engine
from egochef.engines.engine import Engine
from egochef.inference.rolling import WINDOWS_S, RollingRecogniser
from egochef.inference.scoring import score_split, truth_of
from egochef.inference.smoothing import Smoother, Smoothing
from egochef.recipes import toy
from egochef.runtime import describe_machine, num_cpus, pick_dtype
from egochef.scoring.metrics import evaluate
from egochef.toykitchen import ToyConfig, draw_kitchen
from egochef.training.loop import train
from egochef.video.decode import iter_frames

WINDOW_SETS = ((1.0,), (2.0,), (4.0,), (1.0, 2.0), WINDOWS_S)
MIN_LENGTH_S, NEAR_S = 1.0, 0.3
CHUNK_FRAMES = 16
Moment = tuple[float, tuple[int, int] | None]
"""time in seconds, (verb, noun) that is shown"""


def main() -> None:
    """Print the numbers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--segments", type=int, default=600, help="of the toy kitchen, in all splits")
    parser.add_argument("--seed", type=int, default=1, help="of the kitchen; the settings were chosen on seed 0")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="keep what is drawn and trained there")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    with ExitStack() as stack:
        work = args.keep or Path(stack.enter_context(TemporaryDirectory()))
        if not (work / "data").exists():
            draw_kitchen(work / "data", ToyConfig(num_segments=args.segments, seed=args.seed))
        prepare(work / "data", work / "store", StoreSpec(), splits=("train", "validation"), num_workers=num_cpus())
        train(dataclasses.replace(toy(), precision="fp32"), work / "store", work / "run", resume=True)
        result = measure(work)
    machine = describe_machine() | {"load_average": round(os.getloadavg()[0], 2)}
    print(json.dumps({"machine": machine, **result}, indent=1))


def measure(work: Path) -> dict[str, Any]:
    """Clips, streams, and the clips again in other runtimes."""
    folder = open_data_folder(work / "data")
    segments = read_split(folder, "validation")
    videos = find_videos(folder, segments)
    engine = load_engine(work / "run", device="cpu", precision="fp32")
    scores = score_split(engine, folder, "validation", segments)
    right = {
        segment.narration_id
        for segment, verb, noun in zip(segments, scores.verb_output, scores.noun_output, strict=True)
        if (segment.verb, segment.noun) == (int(verb.argmax()), int(noun.argmax()))
    }
    asked = [segment for segment in segments if segment.stop_s - segment.start_s >= MIN_LENGTH_S]
    asked_right = [segment for segment in asked if segment.narration_id in right]
    features = {name: encode_video(engine, path) for name, path in tqdm(videos.items(), desc="videos", disable=None)}
    streams = []
    for windows_s in WINDOW_SETS:
        raw, shown = zip(*(watch(engine, features[name], windows_s) for name in features), strict=True)
        for said, moments in (("most probable", raw), ("shown", shown)):
            by_video = dict(zip(features, moments, strict=True))
            streams.append({"windows_s": windows_s, "said": said, **agreement(asked_right, by_video)})
    return {
        "num_validation": len(segments),
        "num_of_1_s_or_more": len(asked),
        "num_of_them_right_as_clips": len(asked_right),
        "smoothing": dataclasses.asdict(Smoothing()),
        "streams": streams,
        "clips": clip_accuracies(work, engine),
    }


def encode_video(engine: Engine, path: Path) -> list[tuple[float, torch.Tensor]]:
    """Time and features (D,) of every frame."""
    found: list[tuple[float, torch.Tensor]] = []
    times: list[float] = []
    crops: list[torch.Tensor] = []

    def encode() -> None:
        if crops:
            found.extend(zip(times, engine.encode(torch.cat(crops)[None])[0], strict=True))
            times.clear()
            crops.clear()

    for time_s, picture in iter_frames(path):
        times.append(time_s)
        crops.append(eval_crop(picture[None], engine.clip))
        if len(crops) == CHUNK_FRAMES:
            encode()
    encode()
    return found


def watch(
    engine: Engine, features: Sequence[tuple[float, torch.Tensor]], windows_s: Sequence[float]
) -> tuple[list[Moment], list[Moment]]:
    """What is most probable, and what is shown, with every frame of a video."""
    rolling, smoother = RollingRecogniser(engine, windows_s), Smoother(engine.taxonomy)
    raw: list[Moment] = []
    shown: list[Moment] = []
    for time_s, frame in features:
        rolling.keep(time_s, frame)
        probs = rolling.probs()
        if probs is not None:
            raw.append((time_s, (int(probs.verb.argmax()), int(probs.noun.argmax()))))
            shown.append((time_s, smoother.update(time_s, *probs).shown_ids))
    return raw, shown


def agreement(segments: Sequence[Segment], moments: dict[str, list[Moment]]) -> dict[str, float]:
    """Shares of segments, in percent, that are named rightly at their end and middle."""
    hits: dict[str, list[bool]] = {name: [] for name in ("end", "at_end", "middle", "at_middle")}
    inside = wrong = 0
    for segment in segments:
        truth, said = (segment.verb, segment.noun), moments[segment.video_id]
        for name, at_s in (("end", segment.stop_s), ("middle", (segment.start_s + segment.stop_s) / 2)):
            hits[name].append(any(ids == truth for time_s, ids in said if abs(time_s - at_s) <= NEAR_S))
            before = [ids for time_s, ids in said if time_s <= at_s]
            hits[f"at_{name}"].append(bool(before) and before[-1] == truth)
        named = [ids for time_s, ids in said if segment.start_s <= time_s < segment.stop_s and ids is not None]
        inside += len(named)
        wrong += sum(ids != truth for ids in named)
    found = {name: round(100 * float(np.mean(values)), 1) for name, values in hits.items()}
    return found | {"wrong_share": round(100 * wrong / max(1, inside), 1)}


def clip_accuracies(work: Path, exact: Engine) -> list[dict[str, Any]]:
    """The official action, verb and noun top-1 of validation clips in each runtime and precision."""
    folder = open_data_folder(work / "data")
    segments = read_split(folder, "validation")
    calibrate = list(find_videos(folder, read_split(folder, "train")).values())[:8]
    found = []
    for backend, precision in (
        ("torch", "fp32"),
        *([("torch", "bf16")] if pick_dtype(torch.device("cpu")) == torch.bfloat16 else []),  # else it is very slow
        ("onnx", "fp32"),
        ("onnx", "int8"),
        ("openvino", "fp32"),
        ("openvino", "int8"),
    ):
        device = "cpu" if backend == "torch" else None
        engine = load_engine(work / "run", backend=backend, device=device, precision=precision, calibrate=calibrate)
        metrics = evaluate(
            score_split(engine, folder, "validation", segments), truth_of(folder, "validation", segments)
        )
        names = {kind: metrics[f"all_{kind}_accuracy_at_1"] for kind in ("verb", "noun", "action")}
        found.append({"engine": engine.name, **names})
    return found


if __name__ == "__main__":
    main()
