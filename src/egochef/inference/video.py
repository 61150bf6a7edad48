"""Actions over the time of a whole video, in constant memory: each frame is encoded once.

In: an engine and a video file. Out: one `Prediction` a hop, of the T features in a sliding window.
"""

import json
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from egochef.data.sampling import centre_times
from egochef.data.transforms import eval_crop
from egochef.engines.torch_engine import TorchEngine
from egochef.errors import InputError
from egochef.files import atomic_path
from egochef.taxonomy import Taxonomy
from egochef.video.decode import decode_at, iter_frames, probe

CHUNK_FRAMES = 16
"""frames in one encoder call"""

Ranked = tuple[tuple[str, float], ...]
"""(class name, probability), best first"""


@dataclass(frozen=True)
class Prediction:
    """What the model sees around a moment of a video."""

    time_s: float
    """middle of the window, from the video's start"""
    start_s: float
    stop_s: float
    verb: Ranked
    """five best"""
    noun: Ranked
    """five best"""
    action: Ranked
    """five best pairs, by the product of verb and noun probability"""


def recognise_video(
    engine: TorchEngine, path: Path, *, window_s: float = 2.0, hop_s: float = 0.5
) -> Iterator[Prediction]:
    """Slide a window over a video.

    Frames are taken every window_s / T seconds, as training takes T of a segment. A video shorter than the window is
    one window.

    Raises:
        VideoError: the video cannot be read.
        InputError: a window or hop that is not positive.
    """
    if not window_s > 0 or not hop_s > 0:
        raise InputError(f"window {window_s} s and hop {hop_s} s: both must be more than 0")
    num_frames = engine.clip.num_frames
    step_s = window_s / num_frames
    hop = max(1, round(hop_s / step_s))
    kept: deque[Tensor] = deque(maxlen=num_frames)
    seen, told = 0, 0  # frames so far, and when the last prediction was made; frame k stands at k * step_s

    def window() -> Prediction:
        return _classify(engine, list(kept), (seen - num_frames) * step_s, seen * step_s)

    for features in _encode_stream(engine, path, step_s):
        kept.append(features)
        seen += 1
        if seen == num_frames or (seen > num_frames and seen - told >= hop):
            told = seen
            yield window()
    if seen < num_frames:  # a short video: T frames over all of it
        length_s = probe(path).duration_s or max(time_s for time_s, _ in iter_frames(path)) or step_s
        frames = decode_at(path, centre_times(0.0, length_s, num_frames)).frames
        whole = engine.encode(eval_crop(frames, engine.clip)[None])[0]  # (T, D)
        yield _classify(engine, list(whole), 0.0, length_s)
    elif told < seen:
        yield window()


def _encode_stream(engine: TorchEngine, path: Path, step_s: float) -> Iterator[Tensor]:
    """Features (D,) of the frame on screen at 0, step_s, 2 * step_s, ..."""
    crops = (eval_crop(frame[None], engine.clip) for _, frame in iter_frames(path, every_s=step_s))  # (1, S, S, 3)
    while chunk := list(islice(crops, CHUNK_FRAMES)):
        yield from engine.encode(torch.cat(chunk)[None])[0]


def _classify(engine: TorchEngine, features: list[Tensor], start_s: float, stop_s: float) -> Prediction:
    logits = engine.classify(torch.stack(features)[None])
    verb = logits.verb[0].softmax(0).cpu().numpy()
    noun = logits.noun[0].softmax(0).cpu().numpy()
    return Prediction(round((start_s + stop_s) / 2, 3), start_s, stop_s, *rank(verb, noun, engine.taxonomy))


def rank(verb: np.ndarray, noun: np.ndarray, taxonomy: Taxonomy, most: int = 5) -> tuple[Ranked, Ranked, Ranked]:
    """The best verbs, nouns and actions of verb (V,) and noun (N,) probabilities."""
    verbs, nouns = np.argsort(-verb)[:most], np.argsort(-noun)[:most]
    pairs = sorted(((float(verb[v] * noun[n]), v, n) for v in verbs for n in nouns), reverse=True)[:most]
    return (
        tuple((taxonomy.verbs[v], float(verb[v])) for v in verbs),
        tuple((taxonomy.nouns[n], float(noun[n])) for n in nouns),
        tuple((taxonomy.action_name(v, n), prob) for prob, v, n in pairs),
    )


def predict_videos(
    engine: TorchEngine,
    videos: Sequence[Path],
    *,
    log: Path | None = None,
    window_s: float = 2.0,
    hop_s: float = 0.5,
) -> Iterator[dict[str, Any]]:
    """Predictions of several videos as plain values, also written as JSON lines where `log` is given.

    A line has `video`, `time_s`, and for verb, noun and action the name, `_prob` and `_top5`. The log appears under its
    name when all is done.

    Raises:
        VideoError: a video that cannot be read; all are looked at before the first is begun.
    """
    infos = {path: probe(path) for path in videos}
    with ExitStack() as stack:
        file = stack.enter_context(stack.enter_context(atomic_path(log)).open("w", encoding="utf-8")) if log else None
        for path, info in infos.items():
            total = round(info.duration_s, 1) if info.duration_s else None
            with tqdm(total=total, desc=path.name, unit="s", disable=None, leave=False) as bar:
                for told in recognise_video(engine, path, window_s=window_s, hop_s=hop_s):
                    line = _as_line(path, told)
                    if file:
                        file.write(json.dumps(line) + "\n")
                    yield line
                    bar.update(min(told.stop_s, total or told.stop_s) - bar.n)


def _as_line(path: Path, told: Prediction) -> dict[str, Any]:
    line: dict[str, Any] = {"video": str(path), "time_s": told.time_s}
    for kind in ("verb", "noun", "action"):
        ranked: Ranked = getattr(told, kind)
        line |= {kind: ranked[0][0], f"{kind}_prob": round(ranked[0][1], 5)}
        line[f"{kind}_top5"] = [[name, round(prob, 5)] for name, prob in ranked]
    return line
