"""Checks of what a trained model says for `gpu.py`: on a device beside the processor, in other precisions, compiled.

In: a `Place` with a drawn kitchen's store. Out: `Found`: numbers, and faults where they are too far apart.
"""

import dataclasses
import math
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from gpu_runner import Found, Place
from gpu_training import (
    LATER_LOSS,
    LIGHT,
    compare_steps,
    light,
    relative,
    run,
    run_twice,
    scaler_of,
    segments_of,
    steps_of,
)
from torch import Tensor

from egochef.data.annotations import find_videos, open_data_folder, read_split
from egochef.data.dataset import ClipDataset
from egochef.data.frames import open_frames
from egochef.data.transforms import Augment
from egochef.engines.torch_engine import TorchEngine, load
from egochef.inference.rolling import RollingRecogniser
from egochef.inference.scoring import score_split, truth_of
from egochef.inference.video import predict_videos
from egochef.model.checkpoint import load_checkpoint
from egochef.model.efficientnet import NUM_FEATURES, STAGES, EfficientNetLite0
from egochef.model.recogniser import Recogniser
from egochef.model.weights import load_initial_weights
from egochef.runtime import pick_device
from egochef.scoring.metrics import evaluate
from egochef.video.decode import iter_frames, probe

LOG_PROBS = 1e-3
"""between log-probabilities in float32"""
FEATURES = 1e-3
"""between a frame's features in float32, relative to their length"""
KEPT_FEATURES = 2e-3
"""the same of features that were kept as float16"""
PROBS = 1e-4
"""between probabilities over a video in float32"""
ROUNDED = {"bf16": (0.05, 0.2, 0.25), "fp16": (0.01, 0.05, 0.05)}
"""precision -> what it explains of the first loss and of features, both relative, and of log-probabilities"""


def clips_of(place: Place) -> Tensor:
    """The first validation clips, cropped (B, T, S, S, 3) uint8."""
    folder, segments = segments_of(place, "validation")
    clip = light(place).clip
    dataset = ClipDataset(segments, open_frames(folder, segments, clip.grid), clip)
    return torch.stack([dataset[(0, number, number)].frames for number in range(min(8, len(dataset)))])


@torch.inference_mode()
def answers(engine: TorchEngine, clips: Tensor) -> dict[str, Tensor]:
    """Features (B, T, D) and log-probabilities (B, classes) on the processor."""
    features = engine.encode(clips)
    verb, noun = engine.classify(features)
    return {"features": features.cpu(), "verb": verb.log_softmax(1).cpu(), "noun": noun.log_softmax(1).cpu()}


def compare_engines(
    found: Found, ours: TorchEngine, theirs: TorchEngine, clips: Tensor, *, features: float, log_probs: float
) -> None:
    """Answers of two engines to the same clips."""
    here, there = answers(ours, clips), answers(theirs, clips)
    far = (here["features"] - there["features"]).norm(dim=-1) / there["features"].norm(dim=-1)  # (B, T)
    found.at_most("features_apart", far.max().item(), features)
    compare_rows(found, {task: (here[task].numpy(), there[task].numpy()) for task in ("verb", "noun")}, log_probs)


def compare_rows(found: Found, pairs: dict[str, tuple[np.ndarray, np.ndarray]], limit: float) -> None:
    """Scores (S, classes) by task: how far apart, and whether the best is the same where no other comes near."""
    found.at_most("scores_apart", max(float(abs(ours - theirs).max()) for ours, theirs in pairs.values()), limit)
    num_near, num_other = 0, 0
    for ours, theirs in pairs.values():
        second, best = np.sort(theirs, axis=1)[:, -2:].T  # (S,)
        is_near, is_other = best - second <= 2 * limit, ours.argmax(1) != theirs.argmax(1)  # (S,)
        num_near, num_other = num_near + int(is_near.sum()), num_other + int((is_other & ~is_near).sum())
    found.detail["num_near_ties"] = num_near
    found.at_most("num_other_best", num_other, 0)


def mixed_precision(place: Place, precision: str) -> Found:
    """A few steps beside those of float32, and the same weights' answers in both."""
    found = Found()
    of_loss, of_features, of_log_probs = ROUNDED[precision]
    exact = run(place, light(place), "light")
    rounded = run(place, dataclasses.replace(light(place), precision=precision), precision)
    ours, theirs = steps_of(rounded), steps_of(exact)
    apart = relative(ours["loss"], theirs["loss"])
    found.expect(bool(np.isfinite(ours["loss"]).all()), "every loss is finite")
    found.at_most("first_loss_apart", float(apart[0]), of_loss)
    found.detail |= {"losses_apart": float(apart.max()), "num_skipped": int(ours["skipped"].sum())}
    if not found.detail["num_skipped"]:  # fp16 skips steps until its scale is small enough
        found.at_most("losses_apart", float(apart.max()), 5 * of_loss)
    if precision == "fp16":
        scaler = scaler_of(rounded)
        found.detail["scaler"] = scaler
        found.expect(scaler.get("scale", 0) > 0, "the gradient scaler is in the saved state")
    engines = [load(exact, device=place.device, precision=each) for each in (precision, "fp32")]
    compare_engines(found, engines[0], engines[1], clips_of(place), features=of_features, log_probs=of_log_probs)
    return found


def evaluation(place: Place) -> Found:
    """The best checkpoint of a run on the device, scored there and on the processor."""
    found = Found()
    best = run(place, light(place), "light")
    folder, segments = segments_of(place, "validation")
    engines = [load(best, device=device, precision="fp32") for device in (place.device, "cpu")]
    here, there = (score_split(engine, folder, "validation", segments) for engine in engines)
    pairs = {"verb": (here.verb_output, there.verb_output), "noun": (here.noun_output, there.noun_output)}
    compare_rows(found, pairs, LOG_PROBS)
    truth = truth_of(folder, "validation", segments)
    ours, theirs = (
        {name: value for name, value in evaluate(table, truth).items() if name.endswith("_at_1")}
        for table in (here, there)
    )
    found.detail |= ours
    found.detail["same_metrics"] = ours == theirs
    found.expect(ours == theirs or found.detail["num_near_ties"] > 0, "the same metrics")
    return found


def compiled(place: Place) -> Found:
    """torch.compile of the encoder beside the same encoder without, on whole clips and, as live, frame by frame."""
    found = Found()
    best = run(place, light(place), "light")
    plain, other = (compilable(place, best, compiled=each) for each in (False, True))
    clips = clips_of(place)
    compare_engines(found, other, plain, clips, features=FEATURES, log_probs=LOG_PROBS)
    frame = clips[:1, :1]
    far = (other.encode(frame) - plain.encode(frame)).norm() / plain.encode(frame).norm()
    found.at_most("frame_apart", far.item(), FEATURES)
    return found


def compilable(place: Place, best: Path, *, compiled: bool) -> TorchEngine:
    """A checkpoint's engine; tiny, its encoder is cut down to the first block, on which a compiler takes seconds."""
    recogniser, about = load_checkpoint(best)
    if place.tiny:
        torch.manual_seed(0)
        encoder = recogniser.encoder
        assert isinstance(encoder, EfficientNetLite0)
        encoder.blocks = torch.nn.Sequential(encoder.blocks[0])
        encoder.head_conv = torch.nn.Conv2d(STAGES[0][-1], NUM_FEATURES, 1, bias=False)
    device = pick_device(place.device)
    return TorchEngine(
        recogniser, about.clip, about.taxonomy, device, torch.float32, encoder_is_final=True, compiled=compiled
    )


def features(place: Place) -> Found:
    """Features that are kept by the device and by the processor, and heads that learn from them there."""
    found = Found()
    config = dataclasses.replace(light(place), feature_views=1, frozen_stages=0, augment=Augment(cutmix_alpha=0.0))
    here, there = run_twice(place, config, "heads")
    compare_steps(found, here, there, first=KEPT_FEATURES, later=LATER_LOSS)
    for kind in ("training", "evaluation"):
        ours, theirs = (
            np.load(folder / "features" / kind / "view-00.npy").astype(np.float32) for folder in (here, there)
        )  # (S, T, D)
        far = np.linalg.norm(ours - theirs, axis=-1) / np.linalg.norm(theirs, axis=-1)  # (S, T)
        found.at_most(f"{kind}_features_apart", float(far.max()), KEPT_FEATURES)
    return found


def streams(place: Place) -> Found:
    """A video frame by frame: as `egochef predict`, as `egochef live`, and through an online encoder."""
    found = Found()
    best = run(place, light(place), "light")
    engines = [load(best, device=device, precision="fp32") for device in (place.device, "cpu")]
    folder = open_data_folder(place.work / "train" / "kitchen")
    videos = find_videos(folder, read_split(folder, "train")).values()
    video = min(videos, key=lambda path: probe(path).duration_s or math.inf)
    lines, others = (list(predict_videos(engine, [video])) for engine in engines)
    found.detail["num_predictions"] = len(lines)
    found.expect([line["time_s"] for line in lines] == [line["time_s"] for line in others], "the same moments")
    probs = [abs(a["verb_prob"] - b["verb_prob"]) for a, b in zip(lines, others, strict=False)]
    found.at_most("predictions_apart", max(probs, default=math.nan), PROBS)
    pictures = [picture for _, picture in islice(iter_frames(video, every_s=0.1), 30)]
    compare_streams(found, "live_apart", engines, pictures)
    compare_streams(found, "online_apart", [online(place, device) for device in (place.device, "cpu")], pictures)
    return found


def compare_streams(found: Found, name: str, engines: list[TorchEngine], pictures: list[np.ndarray]) -> None:
    """What two engines see in windows that end with the newest picture, pictures a tenth of a second apart."""
    seen = []
    for engine in engines:
        rolling = RollingRecogniser(engine, (0.5, 1.0), refresh_s=0.0)
        probs = []
        for number, picture in enumerate(pictures):
            rolling.see(number / 10, picture)
            probs.append(rolling.probs())
        seen.append(np.stack([np.append(each.verb, each.noun) for each in probs if each is not None]))
    found.at_most(name, float(abs(seen[0] - seen[1]).max()), PROBS)


def online(place: Place, device: str) -> TorchEngine:
    """An encoder with online shift and its ImageNet weights, before random heads."""
    _, about = load_checkpoint(run(place, light(place), "light"))
    model = dataclasses.replace(about.model, encoder=f"{LIGHT}_tsm_online")
    torch.manual_seed(0)
    recogniser = Recogniser(model).eval()
    load_initial_weights(recogniser.encoder, model.encoder, "imagenet")
    where = pick_device(device)
    return TorchEngine(recogniser, about.clip, about.taxonomy, where, torch.float32, encoder_is_final=True)
