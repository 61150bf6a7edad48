"""Golden vectors for the Swift twins in ios/EgoChefCore: what the Python code says of small made-up inputs.

`python tests/ios/golden.py` writes them again. Times and features are exact in JSON; what is computed in float32 is
rounded to eight decimals. Keys are named as in Swift, except in a clip, which is written as in a package's metadata.
"""

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from egochef.clip import ClipSpec, Grid
from egochef.data.sampling import candidate_times, view_places
from egochef.data.transforms import eval_crop
from egochef.inference.prediction import Ranked, rank
from egochef.inference.rolling import FeatureRing, RollingRecogniser, window_times
from egochef.inference.smoothing import Smoother, Smoothing
from egochef.live.stats import Latency, Rate, Spread, Timeline
from egochef.taxonomy import Taxonomy

FOLDER = Path(__file__).resolve().parents[2] / "ios" / "EgoChefCore" / "Tests" / "EgoChefCoreTests" / "Golden"

PHONE_CLIP = ClipSpec(num_frames=16, image_size=160, resize_size=160)
LONG_CLIP = ClipSpec(num_frames=32, image_size=224, resize_size=256)
SPARSE_CLIP = ClipSpec(num_frames=5, image_size=64, resize_size=64, grid=Grid(fps=7.5, min_frames=9))
CLIPS = (PHONE_CLIP, LONG_CLIP, SPARSE_CLIP)

VERBS = ("take", "put", "wash", "open", "close", "cut")
NOUNS = ("tap", "plate", "spoon", "drawer", "knife", "onion", "pan")


class TinyEngine:
    """logits = W @ sum over t of (t + 1) * features_t: small, and the order of the frames counts."""

    name, device, overlaps, shift = "tiny", torch.device("cpu"), False, "none"

    def __init__(self, clip: ClipSpec, seed: int):
        rng = np.random.default_rng(seed)
        self.clip, self.taxonomy = clip, Taxonomy(VERBS, NOUNS)
        scale = 5 / clip.num_frames**1.5  # windows are neither all sure nor all unsure
        self.verb = (rng.normal(size=(len(VERBS), 4)) * scale / 4).round(4)
        self.noun = (rng.normal(size=(len(NOUNS), 4)) * scale / 4).round(4)
        self.num_classified = 0

    def classify(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """(W, T, D) -> (W, V) and (W, N) logits."""
        assert features.shape[1] == self.clip.num_frames
        self.num_classified += len(features)
        order = torch.arange(1, features.shape[1] + 1, dtype=torch.float64)
        sums = (features.double() * order[:, None]).sum(1)  # (W, D)
        return tuple((sums @ torch.from_numpy(each).T).float() for each in (self.verb, self.noun))


def sampling() -> dict[str, Any]:
    segments = [(0.0, 0.3, Grid()), (2.25, 10.35, Grid()), (1e3 + 1 / 3, 1e3 + 8.4, Grid(30.0, 5))]
    segments += [(0.0, 1e-9, Grid(10.0, 4)), (5.0, 6.2, Grid(10.0, 12)), (5.0, 6.3, Grid(10.0, 12))]
    return {
        "segments": [
            {
                "startS": start_s,
                "stopS": stop_s,
                "grid": asdict(grid),
                "timesS": candidate_times(start_s, stop_s, grid).tolist(),
            }
            for start_s, stop_s, grid in segments
        ],
        "views": [
            {"numCandidates": candidates, "numFrames": frames, "places": view_places(candidates, frames, 1)[0].tolist()}
            for candidates, frames in ((48, 16), (80, 16), (48, 32), (96, 32), (37, 16), (3, 8), (1, 1), (1000, 7))
        ],
        "windows": [
            {"windowS": window_s, "clip": asdict(clip), "timesS": window_times(window_s, clip).tolist()}
            for clip in CLIPS
            for window_s in (0.3, 1.0, 2.0, 4.0, 8.0, 10.7)
        ],
    }


def ring() -> dict[str, Any]:
    """Frames, numbered, at irregular times; features are (number, -number)."""
    runs = []
    for seed, keep_s, gaps in ((1, 0.8, (0.01, 0.2)), (2, 3.0, (0.02, 0.6)), (3, 0.05, (0.03, 0.9))):
        rng = np.random.default_rng(seed)
        times_s = (5 + rng.uniform(*gaps, size=24).cumsum()).round(4)
        frames, steps = FeatureRing(keep_s), []
        for number, time_s in enumerate(times_s.tolist()):
            frames.add(time_s, torch.tensor([float(number), -float(number)]))
            asked = rng.uniform(time_s - 1.5 * keep_s - 0.1, time_s + 0.1, size=4).round(4).tolist()
            # Just inside and just outside of what a frame that begins a little late may still answer.
            asked += [time_s - 0.0009, time_s - 0.0011, time_s]
            found = [int(each[0]) for each in frames.at(asked)]
            known = {"count": len(frames), "startS": frames.start_s, "endS": frames.end_s}
            steps.append({"timeS": time_s, **known, "askedS": asked, "found": found})
        runs.append({"keepS": keep_s, "steps": steps})
    return {"runs": runs}


def rolling() -> dict[str, Any]:
    times_s = irregular_times(10, 60, 0.01, 0.06)
    return {
        "runs": [
            rolling_run("a camera's rate", PHONE_CLIP, times_s, [1.2, 0.3, 0.6]),
            rolling_run("slow, and the ring drops", PHONE_CLIP, irregular_times(11, 60, 0.03, 0.35), [1.0, 2.0, 4.0]),
            rolling_run("every window every time", LONG_CLIP, times_s, [0.3, 0.6], refresh_s=0.0),
            rolling_run("around a moment", PHONE_CLIP, times_s, [0.5, 1.0], keep_s=3.0, middles=True),
            # Sixteenths are exact, so that answers are just as old as they may get.
            rolling_run("at the limit", SPARSE_CLIP, [place / 16 for place in range(60)], [0.25, 0.5, 1.0], 0.125),
            rolling_run("begun anew", SPARSE_CLIP, times_s, [0.4, 0.2], forget_at=35),
        ]
    }


def irregular_times(seed: int, number: int, least_s: float, most_s: float) -> list[float]:
    gaps_s = np.random.default_rng(seed).uniform(least_s, most_s, size=number)
    return (3 + gaps_s.cumsum()).round(4).tolist()


def rolling_run(
    name: str,
    clip: ClipSpec,
    times_s: list[float],
    windows_s: list[float],
    refresh_s: float = 0.1,
    keep_s: float | None = None,
    middles: bool = False,
    forget_at: int | None = None,
) -> dict[str, Any]:
    """A whole run: what is kept at each step, and what is said then."""
    engine = TinyEngine(clip, seed=len(name))
    recogniser = RollingRecogniser(engine, windows_s, refresh_s=refresh_s, keep_s=keep_s)
    rng = np.random.default_rng(len(name))
    steps = []
    for number, time_s in enumerate(times_s):
        if number == forget_at:
            recogniser.forget()
        features = (np.sin(number / 7 + np.arange(4)) + rng.normal(size=4) / 3).astype(np.float32).round(4)
        recogniser.keep(time_s, torch.from_numpy(features))
        # Moments that lie too early, well, and too late in turn.
        middle_s = round(time_s - (0.9, 0.45, 0.2)[number % 3], 4) if middles else None
        before = engine.num_classified
        probs = recogniser.probs(middle_s)
        steps.append(
            {
                "timeS": time_s,
                "forget": number == forget_at,
                "features": rounded(features, 4),
                "middleS": middle_s,
                "count": len(recogniser.ring),
                "filled": [{"place": place, "startS": start_s} for place, start_s in recogniser.filled(middle_s)],
                "numClassified": engine.num_classified - before,
                "verb": None if probs is None else rounded(probs.verb),
                "noun": None if probs is None else rounded(probs.noun),
            }
        )
    return {
        "name": name,
        "clip": asdict(clip),
        "windowsS": windows_s,
        "refreshS": refresh_s,
        "keepS": keep_s,
        "verbWeights": engine.verb.tolist(),
        "nounWeights": engine.noun.tolist(),
        "steps": steps,
    }


def smoothing() -> dict[str, Any]:
    calm = Smoothing(tau_s=0.5, threshold=0.3, margin=0.15, hold=0.5)
    loyal = Smoothing(tau_s=0.2, threshold=0.5, margin=0.02, hold=0.05)  # another may lead without being named
    return {
        "verbs": list(VERBS),
        "nouns": list(NOUNS),
        "runs": [
            smoothing_run("defaults", Smoothing(), seed=1),
            smoothing_run("calm", calm, seed=2),
            smoothing_run("loyal", loyal, seed=5),
            smoothing_run("no averaging", Smoothing(tau_s=0.0), seed=3),
            smoothing_run("changed on the way", Smoothing(), seed=4, later=calm),
        ],
    }


def smoothing_inputs(seed: int) -> Iterator[tuple[float, bool, np.ndarray, np.ndarray]]:
    """(time, whether to forget before, verb and noun probabilities): actions that switch, doubt, and a gap in time."""
    rng = np.random.default_rng(seed)
    time_s = 20.0
    for part, (verb, noun, sure) in enumerate(((0, 1, 4.0), (2, 1, 3.5), (2, 1, 0.3), (4, 5, 3.0), (4, 5, 1.4))):
        for number in range(10):
            time_s = round(time_s + rng.uniform(0.02, 0.09) + (5.0 if (part, number) == (3, 4) else 0.0), 4)
            logits = rng.normal(size=len(VERBS)) * 0.7, rng.normal(size=len(NOUNS)) * 0.7
            logits[0][verb] += sure
            logits[1][noun] += sure
            yield time_s, (part, number) == (4, 0), *(soft(each) for each in logits)


def smoothing_run(name: str, settings: Smoothing, seed: int, later: Smoothing | None = None) -> dict[str, Any]:
    smoother = Smoother(Taxonomy(VERBS, NOUNS), settings)
    steps = []
    for number, (time_s, forget, verb, noun) in enumerate(smoothing_inputs(seed)):
        if forget:
            smoother.forget()
        if later is not None and number == 25:
            smoother.settings = later
        said = smoother.update(time_s, verb, noun)
        steps.append(
            {
                "timeS": time_s,
                "forget": forget,
                "settings": named(smoother.settings),
                "verb": rounded(verb),
                "noun": rounded(noun),
                "bestVerbs": ranked(said.verb),
                "bestNouns": ranked(said.noun),
                "bestActions": ranked(said.action),
                "shown": said.shown,
                "shownVerb": None if said.shown_ids is None else said.shown_ids[0],
                "shownNoun": None if said.shown_ids is None else said.shown_ids[1],
                "shownProb": round(said.shown_prob, 8),
            }
        )
    return {"name": name, "steps": steps}


def named(settings: Smoothing) -> dict[str, float]:
    values = asdict(settings)
    return {"tauS": values.pop("tau_s"), **values}


def ranking() -> dict[str, Any]:
    rng = np.random.default_rng(5)
    # Products of powers of two are exact, so that pairs are equally probable: the higher ids come first.
    inputs = [(np.float32([0.5, 0.25, 0.125, 0.0625]), np.float32([0.125, 0.5, 0.25]))]
    inputs += [(soft(rng.normal(size=6)), soft(rng.normal(size=7))), (soft(rng.normal(size=2)), soft(np.zeros(1)))]
    logits = [rng.normal(size=5) * 3, np.array([1e4, 1e4 - 1, -1e4]), np.array([-200.0, -201.5, -200.25]), np.zeros(1)]
    return {
        "cases": [rank_case(verb, noun) for verb, noun in inputs],
        "softmax": [
            {"logits": rounded(each, 4), "probs": rounded(torch.tensor(each.round(4)).float().softmax(0).numpy())}
            for each in logits
        ],
    }


def rank_case(verb: np.ndarray, noun: np.ndarray) -> dict[str, Any]:
    taxonomy = Taxonomy(VERBS[: len(verb)], NOUNS[: len(noun)])
    best = zip(("bestVerbs", "bestNouns", "bestActions"), rank(verb, noun, taxonomy), strict=True)
    return {
        "verbs": list(taxonomy.verbs),
        "nouns": list(taxonomy.nouns),
        "verb": rounded(verb),
        "noun": rounded(noun),
        **{kind: ranked(each) for kind, each in best},
    }


def stats() -> dict[str, Any]:
    rng = np.random.default_rng(6)
    values = [[12.5], [1.0, 2.0], [0.125, 0.125], [2.675, 2.675, 2.675], [1.005, 9.0]]
    values += [rng.gamma(4.0, 5.0, size=size).round(4).tolist() for size in (20, 37, 300, 450)]
    labels = ["open drawer", "open drawer", None, None, "take spoon", "put spoon", "put spoon", None]
    times_s = rng.uniform(0.2, 2.5, size=24).cumsum().round(3).tolist()
    return {
        "latencies": [latency_case(each) for each in values],
        "rates": [rate_case(seed, least_s, most_s) for seed, least_s, most_s in ((1, 0.01, 0.05), (2, 0.1, 1.9))],
        "timelines": [timeline_case(keep_s, times_s, labels) for keep_s in (4.0, 12.0)],
    }


def latency_case(values_ms: list[float]) -> dict[str, Any]:
    latency = Latency()
    latency.values_ms.extend(values_ms)  # `add` takes seconds, and 1000 times a second's share is not exact
    return {"valuesMs": values_ms, "recent": spread(latency.recent()), "overAll": spread(latency.over_all())}


def spread(of: Spread | None) -> dict[str, float]:
    assert of is not None
    return asdict(of)


def rate_case(seed: int, least_s: float, most_s: float) -> dict[str, Any]:
    now_s = 100.0
    rate = Rate(clock=lambda: now_s)
    steps = [{"nowS": now_s, "tick": False, "perS": rate.per_s, "count": rate.count}]
    for number, gap_s in enumerate(np.random.default_rng(seed).uniform(least_s, most_s, size=60)):
        now_s = round(now_s + gap_s + (3.0 if number == 40 else 0.0), 4)
        tick = number % 5 != 4
        if tick:
            rate.tick()
        steps.append({"nowS": now_s, "tick": tick, "perS": rate.per_s, "count": rate.count})
    return {"steps": steps}


def timeline_case(keep_s: float, times_s: list[float], labels: list[str | None]) -> dict[str, Any]:
    timeline, steps = Timeline(keep_s), []
    for number, time_s in enumerate(times_s):
        label = labels[number % len(labels)]
        timeline.add(time_s, label)
        parts = [{"startS": part.start_s, "stopS": part.stop_s, "label": part.label} for part in timeline.parts]
        steps.append({"timeS": time_s, "label": label, "parts": parts})
    return {"keepS": keep_s, "steps": steps}


def cropping() -> dict[str, Any]:
    return {
        "crops": [
            crop_case(seed, *sizes)
            for seed, sizes in enumerate([(48, 34, 16, 18), (26, 62, 20, 20), (18, 14, 24, 28), (32, 32, 32, 32)])
        ]
    }


def crop_case(seed: int, width: int, height: int, image_size: int, resize_size: int) -> dict[str, Any]:
    """A picture of noise, a plane of one colour, and what of it the encoder sees; rows from the top."""
    picture = np.random.default_rng([6, seed]).integers(0, 256, (height, width), dtype=np.uint8)
    frames = np.repeat(picture[None, :, :, None], 3, axis=3)  # (1, H, W, 3)
    crop = eval_crop(frames, ClipSpec(num_frames=1, image_size=image_size, resize_size=resize_size))
    return {
        "width": width,
        "height": height,
        "imageSize": image_size,
        "resizeSize": resize_size,
        "picture": picture.flatten().tolist(),
        "crop": crop[0, :, :, 0].flatten().tolist(),
    }


def soft(logits: np.ndarray) -> np.ndarray:
    """Probabilities that eight decimals hold."""
    powers = np.exp(logits - logits.max())
    return (powers / powers.sum()).round(6).astype(np.float32)


def rounded(values: np.ndarray, digits: int = 8) -> list[float]:
    return [round(float(each), digits) for each in values]


def ranked(best: Ranked) -> list[dict[str, Any]]:
    return [{"name": name, "prob": round(prob, 8)} for name, prob in best]


def vectors() -> dict[str, dict[str, Any]]:
    """File name, without .json, to what stands in it."""
    return {each.__name__: each() for each in (sampling, ring, rolling, smoothing, ranking, stats, cropping)}


def as_text(value: Any, depth: int = 0) -> str:
    """JSON with a line or a few for each case or step, so that a change can be read."""
    if depth < 4 and isinstance(value, dict | list) and any(isinstance(each, dict | list) for each in _inner(value)):
        pad = " " * (depth + 1)
        if isinstance(value, dict):
            inner = [f"{pad}{json.dumps(key)}: {as_text(each, depth + 1)}" for key, each in value.items()]
            return "{\n" + ",\n".join(inner) + "\n" + " " * depth + "}"
        return "[\n" + ",\n".join(pad + as_text(each, depth + 1) for each in value) + "\n" + " " * depth + "]"
    return json.dumps(value, allow_nan=False, ensure_ascii=False)


def _inner(value: Any) -> list[Any]:
    return list(value.values()) if isinstance(value, dict) else value


def main() -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, value in vectors().items():
        (FOLDER / f"{name}.json").write_text(as_text(value) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
