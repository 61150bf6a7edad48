"""The whole main job on a small kitchen that we draw: no data, no GPU, no network needed.

In: a folder to fill. Out: in it, data/, store/, run16/, run32/, evaluation/, submission.zip, predictions.jsonl,
export/, report/ and demo.png.
What is there already from an earlier, interrupted demo is gone on with.
"""

import dataclasses
import logging
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from egochef.data.annotations import DataFolder, find_videos, open_data_folder, read_split
from egochef.data.prepare import prepare
from egochef.data.store import StoreSpec
from egochef.deploy.export import CLASS_MAPPINGS, ExportReport, export, report_of, target_paths
from egochef.engines.mil import import_coremltools
from egochef.engines.torch_engine import load
from egochef.extras import ExtraError, need_extra
from egochef.files import write_json
from egochef.inference.scoring import score_split, truth_of
from egochef.inference.video import predict_videos
from egochef.recipes import toy
from egochef.report.scores import read_scores
from egochef.runtime import num_cpus
from egochef.scoring.ensemble import ensemble
from egochef.scoring.metrics import evaluate
from egochef.scoring.submission import SLS, SubmissionSummary, make_submission
from egochef.scoring.table import ScoreTable, save_scores, seen_of, who_has_seen
from egochef.toykitchen import ToyConfig, draw_kitchen
from egochef.training.config import TrainConfig
from egochef.training.loop import train
from egochef.video.draw import draw_sheet

log = logging.getLogger(__name__)

NUM_FRAMES = (16, 32)
NUM_SEGMENTS = 280
"""drawn for the demo: enough to learn the small kitchen, few enough for minutes"""


@dataclass(frozen=True)
class DemoResult:
    """What the demo measured."""

    metrics: dict[str, dict[str, float | int]]
    """official validation metrics of run16, run32 and the ensemble"""
    majority_action: float
    """validation action accuracy of always saying train's most frequent action, percent"""
    submission: SubmissionSummary
    seconds: dict[str, float]
    """wall time of each part"""
    export: ExportReport | None
    """of the packages for the iPhone app; None without the extra coreml"""
    report: str | None
    """the page that shows what the models do; None without the extra report"""
    left_out: tuple[str, ...]
    """for each part that needs an extra which is missing: why, and what to do"""


def run_demo(
    out: Path, *, seed: int = 0, num_segments: int | None = None, recipe: TrainConfig | None = None
) -> DemoResult:
    """Draw `num_segments` (or NUM_SEGMENTS), prepare them, train at 16 and 32 frames, evaluate, submit, predict,
    export, report.

    Args:
        recipe: what to train by, but for the seed and the numbers of frames (default: toy).

    Raises:
        InputError: the folder cannot be written, or holds something else.
    """
    seconds: dict[str, float] = {}
    mark = time.perf_counter()

    def done(part: str) -> None:
        nonlocal mark
        seconds[part] = round(time.perf_counter() - mark, 1)
        log.info("%s: %.0f s", part, seconds[part])
        mark = time.perf_counter()

    data = out / "data"
    if not data.exists():
        draw_kitchen(data, ToyConfig(preset="small", seed=seed, num_segments=num_segments or NUM_SEGMENTS))
    done("draw")

    store = out / "store"
    prepare(data, store, StoreSpec(), num_workers=num_cpus())
    done("prepare")
    folder = open_data_folder(store)

    for num_frames in NUM_FRAMES:
        config = dataclasses.replace(recipe or toy(), seed=seed)
        config = dataclasses.replace(config, clip=dataclasses.replace(config.clip, num_frames=num_frames))
        train(config, store, out / f"run{num_frames}", resume=True)
        done(f"train{num_frames}")

    engines = [load(out / f"run{num_frames}") for num_frames in NUM_FRAMES]
    metrics, scores = _evaluate(folder, out)
    done("evaluate")

    test = read_split(folder, "test")
    ids = [segment.narration_id for segment in test]
    tables = [score_split(engine, folder, "test", test) for engine in engines]
    path = out / "submission.zip"
    summary = make_submission(path, ensemble(tables), SLS(pt=1, tl=3, td=3), ids, *folder.taxonomy.counts)
    done("submit")

    drawn = open_data_folder(data)
    video = next(iter(find_videos(drawn, read_split(drawn, "validation")).values()))
    num_predictions = len(list(predict_videos(engines[0], [video], log=out / "predictions.jsonl")))
    log.info("%d predictions for %s", num_predictions, video.name)
    done("predict")

    exported, page, left_out = None, None, []
    try:
        exported = export_demo(out / f"run{NUM_FRAMES[0]}", store, out / "export" / "kitchen.mlpackage")
    except ExtraError as error:
        left_out.append(str(error))
    done("export")

    try:
        page = report_demo(out, store)
    except ExtraError as error:
        left_out.append(str(error))
    done("report")

    draw_demo_sheet(drawn, scores, out / "demo.png")
    result = DemoResult(metrics, majority_action(folder), summary, seconds, exported, page, tuple(left_out))
    write_json(out / "demo.json", dataclasses.asdict(result))
    return result


def _evaluate(folder: DataFolder, out: Path) -> tuple[dict[str, dict[str, float | int]], ScoreTable]:
    """Official metrics of each run and of the ensemble, written beside their scores; the ensemble's scores."""
    segments = read_split(folder, "validation")
    truth = truth_of(folder, "validation", segments)
    runs = [out / f"run{num_frames}" for num_frames in NUM_FRAMES]
    tables = {each.name: each.table for each in read_scores(runs, folder, "validation", segments)}
    tables["ensemble"] = ensemble(list(tables.values()))
    metrics = {name: evaluate(table, truth) for name, table in tables.items()}
    for name, table in tables.items():
        place = out / "evaluation" if name == "ensemble" else out / "evaluation" / name
        save_scores(place / "scores.npz", table)
        write_json(place / "metrics.json", metrics[name] | who_has_seen([name], [seen_of(table)]))
    return metrics, tables["ensemble"]


def export_demo(checkpoint: Path, data: Path, output: Path) -> ExportReport:
    """The pair of packages that the iPhone app runs. What an earlier demo left is written anew.

    Raises:
        ExtraError: no coremltools.
        InputError: the place cannot be written, or a package disagrees with its checkpoint.
    """
    import_coremltools()
    for path in (*target_paths(output, "stream").values(), report_of(output), output.parent / CLASS_MAPPINGS):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    return export(checkpoint, output, format="coreml", parts="stream", data=data)


def report_demo(out: Path, data: Path) -> str:
    """The page about both runs and their ensemble.

    Raises:
        ExtraError: what draws it is missing.
    """
    need_extra("report", "the report", ("altair", "jinja2", "vl_convert"))
    from egochef.report.report import make_report

    return str(make_report([out / f"run{num}" for num in NUM_FRAMES], out / "report", data=data).page)


def majority_action(folder: DataFolder) -> float:
    """Validation action accuracy, percent, of always saying the most frequent action of train."""
    train_actions = [(segment.verb, segment.noun) for segment in read_split(folder, "train")]
    best = max(sorted(set(train_actions), key=str), key=train_actions.count)
    validation = read_split(folder, "validation")
    return 100 * sum((segment.verb, segment.noun) == best for segment in validation) / len(validation)


def draw_demo_sheet(folder: DataFolder, scores: ScoreTable, path: Path, num_segments: int = 8) -> None:
    """A picture: validation segments, a row each, with what happens and what was recognised."""
    segments = read_split(folder, "validation")
    videos = find_videos(folder, segments)
    rows = []
    for place in list(range(0, len(segments), max(1, len(segments) // num_segments)))[:num_segments]:
        segment = segments[place]
        verb, noun = int(scores.verb_output[place].argmax()), int(scores.noun_output[place].argmax())
        assert segment.verb is not None and segment.noun is not None
        truth = folder.taxonomy.action_name(segment.verb, segment.noun)
        said = folder.taxonomy.action_name(verb, noun)
        rows.append((videos[segment.video_id], segment.start_s, segment.stop_s, truth, said))
    draw_sheet(path, rows)
