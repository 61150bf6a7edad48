"""What recognition over a stream costs, and how fast all of it goes together.

In: which models and ways of running them, and for how long. Out: `Row`s and ratios. Each model and way is measured in a
fresh process, where all quantities take turns, so that their ratios hold on a machine that is not steady:

    encoder    one bare encoder pass, of a picture that is cropped already
    rolling    one prediction over a stream: crop, encode the new frame, one window of kept features
    windows    the same with three windows (1, 2, 4 s) looked at together; at a camera's rate they take turns
    window     the same prediction by encoding all T frames of the window again
    head       the temporal model and the heads over one window

and then `egochef live` itself on a file at 60 and at 30 frames a second: capture, crop, encode, windows, draw; only
handing the picture to a window is left out. Weights are random, the pictures are those of a drawn kitchen.
"""

import itertools
import os
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from egochef.bench.peers import CONTENDERS, classes
from egochef.bench.process import in_fresh_process
from egochef.bench.rows import Numbers, Row, value_of, versions_of
from egochef.data.annotations import find_videos, open_data_folder, read_split
from egochef.data.transforms import eval_crop
from egochef.deploy.backends import load_engine
from egochef.engines.engine import Engine
from egochef.errors import InputError
from egochef.files import temporary_folder
from egochef.inference.rolling import WINDOWS_S, RollingRecogniser, window_times
from egochef.live.app import LiveOptions, run_live
from egochef.live.sources import open_source
from egochef.model.checkpoint import Checkpoint, save_checkpoint
from egochef.model.recogniser import Recogniser
from egochef.runtime import describe_machine, seed_torch
from egochef.toykitchen import ToyConfig, draw_kitchen
from egochef.video.decode import iter_frames
from egochef.video.encode import EncodeSpec, write_video

MODELS = ("ours16", "ours32", "light16")
BASELINE = "ours16"
LIBRARIES = ("onnx", "onnxruntime", "openvino", "opencv-python-headless", "av")
WINDOW_S = 2.0
"""of the single window"""
WARM_UP = 3
"""rounds that do not count"""
THROUGHPUT_FPS, CAMERA_FPS = 60, 30
"""of the file that shows how many predictions a second there can be, and of the one that stands in for a camera"""


@dataclass(frozen=True)
class Way:
    """How a model is run."""

    backend: str
    precision: str = "fp32"
    compiled: bool = False


WAYS = {
    "torch": Way("torch"),
    "torch-compiled": Way("torch", compiled=True),
    "torch-bf16": Way("torch", "bf16"),
    "onnx": Way("onnx"),
    "onnx-int8": Way("onnx", "int8"),
    "openvino": Way("openvino"),
    "openvino-bf16": Way("openvino", "bf16"),
    "openvino-int8": Way("openvino", "int8"),
}


@dataclass(frozen=True)
class LiveBench:
    """What is measured, and for how long."""

    models: tuple[str, ...] = MODELS
    ways: tuple[str, ...] = tuple(WAYS)
    device: str | None = None
    """for torch; the others run on the processor"""
    rounds: int = 9
    """of all quantities in turn; medians count"""
    seconds: float = 8.0
    """that each end-to-end run takes"""
    budget_s: float = 40.0
    """after so long no further round begins, where a way is slow; one is always measured"""
    tiny: bool = False
    """models and pictures so small that nothing takes time; the numbers then say nothing"""

    def __post_init__(self) -> None:
        for given, known, what in ((self.models, MODELS, "model"), (self.ways, tuple(WAYS), "way")):
            for name in given:
                if name not in known:
                    raise InputError(f"unknown {what} {name!r} of bench live, expected one of {', '.join(known)}")
        if self.rounds < 1 or not self.seconds > 0:
            raise InputError(f"{self.rounds} rounds and {self.seconds} s: expected at least 1, and more than 0")


def quick_bench() -> LiveBench:
    """Half a minute, to see that it works."""
    return LiveBench(models=("light16",), ways=("torch", "onnx"), rounds=2, seconds=1.0, tiny=True)


def bench_live(bench: LiveBench) -> Numbers:
    """Measure, and reckon the ratios.

    Raises:
        InputError: a device or library that is asked for and cannot be used.
    """
    rows: list[Row] = []
    with temporary_folder("bench") as folder, tqdm(disable=None, unit="run") as bar:
        videos = draw_videos(folder, bench)
        jobs = list(itertools.product(bench.models, bench.ways))
        bar.total = len(jobs)
        for model, name in jobs:
            bar.set_description(f"{model} {name}")
            try:
                found = in_fresh_process(measure, model, name, bench, videos, folder, as_worker=False)
                rows += [Row(f"{model}@{name} {quantity}", value, unit) for quantity, value, unit in found]
            except InputError as error:
                rows.append(Row(f"{model}@{name} rolling", None, "ms", str(error)))
            bar.update()
    machine = {**describe_machine(), **versions_of(LIBRARIES), "load_average": round(os.getloadavg()[0], 2)}
    return Numbers(machine, tuple(rows), ratios_of(rows, bench))


def draw_videos(folder: Path, bench: LiveBench) -> dict[int, Path]:
    """Frame rate -> a video of the same drawn pictures, 640x360 (tiny: 96x64)."""
    width_px, height_px = (96, 64) if bench.tiny else (640, 360)
    config = ToyConfig(preset="small", num_segments=12, width_px=width_px, height_px=height_px)
    drawn = open_data_folder(draw_kitchen(folder / "kitchen", config))
    video = next(iter(find_videos(drawn, read_split(drawn, "train")).values()))
    frames = [picture for _, picture in iter_frames(video, stop_s=4.0)]
    paths = {}
    for fps in (THROUGHPUT_FPS, CAMERA_FPS):
        paths[fps] = folder / f"{fps}.mp4"
        with write_video(paths[fps], rate=Fraction(fps), spec=EncodeSpec(gop=fps)) as writer:
            for place in range(round((bench.seconds + 2) * fps)):  # longer than the run: a loop would empty the windows
                writer.add(frames[place % len(frames)])
    return paths


def measure(
    model: str, way_name: str, bench: LiveBench, videos: dict[int, Path], folder: Path
) -> list[tuple[str, float, str]]:
    """All quantities of one model run in one way: (quantity, value, unit)."""
    os.environ["EGOCHEF_CACHE"] = str(folder / "cache")
    way = WAYS[way_name]
    engine = load_engine(
        random_checkpoint(model, folder, tiny=bench.tiny),
        backend=way.backend,
        device=bench.device if way.backend == "torch" else None,
        precision=way.precision,
        calibrate=[videos[CAMERA_FPS]],
        compiled=way.compiled,
    )
    took_ms, num_rounds = take_turns(_quantities(engine, videos[CAMERA_FPS]), bench)
    found = [(name, round(value, 3), "ms") for name, value in took_ms.items()] + [("rounds", float(num_rounds), "")]
    for fps in (THROUGHPUT_FPS, CAMERA_FPS):
        source = open_source(str(videos[fps]))
        report = run_live(engine, source, LiveOptions(headless=True, seconds=bench.seconds), screen=_Blank())
        found.append((f"live_{fps}fps predictions", report.predictions_per_s, "1/s"))
        found.append((f"live_{fps}fps dropped", float(report.num_dropped), "frames"))
        if report.screen_latency is not None:
            found.append((f"live_{fps}fps screen_median", report.screen_latency.median_ms, "ms"))
            found.append((f"live_{fps}fps screen_p95", report.screen_latency.p95_ms, "ms"))
    return found


class _Blank:
    """A screen that takes pictures and shows none, and on which nobody presses a key."""

    def show(self, picture: np.ndarray) -> None:
        pass

    def keys(self) -> list[str]:
        return []


def random_checkpoint(model: str, folder: Path, *, tiny: bool = False) -> Path:
    """A checkpoint of one of MODELS with random weights, written once."""
    path = folder / f"{model}.safetensors"
    if not path.exists():
        config = CONTENDERS[model].config(tiny)
        seed_torch(0)
        about = Checkpoint(config.model, config.clip, classes(), model, "none")
        save_checkpoint(path, Recogniser(config.model).eval(), about)
    return path


def _quantities(engine: Engine, video: Path) -> dict[str, Callable[[], object]]:
    """What is measured beside each other, as calls without arguments."""
    clip = engine.clip
    pictures = [picture for _, picture in itertools.islice(iter_frames(video), 8)]
    crops = [eval_crop(picture[None], clip)[None] for picture in pictures]  # (1, 1, S, S, 3)
    one, several = RollingRecogniser(engine, (WINDOW_S,)), RollingRecogniser(engine, WINDOWS_S, refresh_s=0.0)
    features = engine.encode(crops[0])[0, 0]
    for rolling in (one, several):
        for place in range(int(CAMERA_FPS * (WINDOWS_S[-1] + 1))):
            rolling.keep(place / CAMERA_FPS, features)
    places = itertools.count()
    kept = features.expand(1, clip.num_frames, -1).contiguous()
    whole = [pictures[place % len(pictures)] for place in range(len(window_times(WINDOW_S, clip)))]
    synchronise = _synchroniser(engine)

    def see(rolling: RollingRecogniser) -> None:
        rolling.see(rolling.ring.end_s, pictures[next(places) % len(pictures)])
        rolling.probs()

    def window() -> None:
        clip_crops = torch.cat([eval_crop(picture[None], clip) for picture in whole])[None]  # (1, T, S, S, 3)
        verb, noun = engine.classify(engine.encode(clip_crops))
        verb.softmax(1).cpu(), noun.softmax(1).cpu()

    def encoder() -> None:
        engine.encode(crops[next(places) % len(crops)])
        synchronise()

    def head() -> None:
        engine.classify(kept).verb.cpu()

    return {
        "encoder": encoder,
        "rolling": lambda: see(one),
        "windows": lambda: see(several),
        "window": window,
        "head": head,
    }


def _synchroniser(engine: Engine) -> Callable[[], None]:
    """What waits until a GPU has done its work."""
    if engine.device.type == "cuda":
        return torch.cuda.synchronize
    return torch.mps.synchronize if engine.device.type == "mps" else lambda: None


def take_turns(quantities: dict[str, Callable[[], object]], bench: LiveBench) -> tuple[dict[str, float], int]:
    """Median milliseconds of each, and the rounds that counted."""
    took_ms: dict[str, list[float]] = {name: [] for name in quantities}
    deadline = time.perf_counter() + bench.budget_s
    num_rounds = 0
    for number in range(WARM_UP + bench.rounds):
        for name, call in quantities.items():
            began_at = time.perf_counter()
            call()
            took_ms[name].append(1000 * (time.perf_counter() - began_at))
        num_rounds += 1
        if number >= 1 and time.perf_counter() > deadline:
            break
    first = min(WARM_UP, num_rounds - 1)
    return {name: statistics.median(values[first:]) for name, values in took_ms.items()}, num_rounds - first


def ratios_of(rows: Sequence[Row], bench: LiveBench) -> dict[str, float | None]:
    """How many times: `rolling_over_encoder` (one prediction over a bare encoder pass) and `window_over_rolling`.

    `name@way` is the baseline's (ResNet-50 at 16 frames); other models put theirs between: `name_model@way`.
    """
    ratios: dict[str, float | None] = {}
    for model, way in itertools.product(bench.models, bench.ways):
        values = {name: value_of(rows, f"{model}@{way} {name}") for name in ("encoder", "rolling", "windows", "window")}
        for name, above, below in (
            ("rolling_over_encoder", "rolling", "encoder"),
            ("windows_over_encoder", "windows", "encoder"),
            ("window_over_rolling", "window", "rolling"),
        ):
            over, under = values[above], values[below]
            key = f"{name}@{way}" if model == BASELINE else f"{name}_{model}@{way}"
            ratios[key] = round(over / under, 3) if over and under else None
    return ratios
