"""One report of runs, of saved scores, or of both.

In: run folders, files of scores, CSV files of Weights & Biases, and the data that scores are of. Out: a folder with
report.html, the figures as PNG and SVG, and numbers.json. What cannot be shown is said in the report.
"""

import dataclasses
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from egochef import __version__
from egochef.data.annotations import open_data_folder
from egochef.errors import InputError
from egochef.files import write_json
from egochef.inference.features import is_features
from egochef.model.checkpoint import BEST
from egochef.records import read_json
from egochef.report.analysis import Outcome, Split, official, open_split, outcome_of
from egochef.report.curves import read_curves
from egochef.report.markdown import write_markdown
from egochef.report.page import write_page
from egochef.report.scores import is_run, read_scores
from egochef.report.sections import Figure, Section, Table, curve_section, sections_of
from egochef.report.theme import save_figure
from egochef.scoring.ensemble import ensemble
from egochef.scoring.table import SEEN, who_has_seen
from egochef.training.card import read_sessions
from egochef.training.runs import look_at

log = logging.getLogger(__name__)

PAGE, NUMBERS, FIGURES = "report.html", "numbers.json", "figures"
ENSEMBLE = "ensemble"


@dataclass(frozen=True)
class Report:
    """What was written."""

    page: Path
    figures: tuple[Path, ...]
    """PNG and SVG files"""
    missing: tuple[str, ...]
    """what the report would have and has not, for people"""
    metrics: dict[str, dict[str, dict[str, Any]]]
    """by model and official name: the estimate's fields"""
    told: dict[str, list[str]]
    """who has seen the labels, as in metrics.json"""
    seconds: float


def make_report(
    sources: Sequence[Path],
    out: Path,
    *,
    data: Path | None = None,
    split: str = "validation",
    participants: Sequence[str] = (),
    device: str | None = None,
    results: Path | None = None,
) -> Report:
    """Read, analyse, draw and write.

    Args:
        sources: runs' folders, files of scores, CSV files or folders of such.
        data: what the scores are of; else the folder that the first run was trained on, if it is still there.
        results: also write the report as Markdown to this file, its pictures into images/NAME beside it.

    Raises:
        InputError: a source is none of these or damaged, scores are not of the data, or nothing can be shown.
    """
    started = time.perf_counter()
    if not sources:
        raise InputError("nothing to report on: name a run's folder, a file of scores, or CSV files of curves")
    runs = [path for path in sources if is_run(path)]
    files = [path for path in sources if path.is_file() and path.suffix.lower() != ".csv"]
    tables = [path for path in sources if path not in runs and path not in files]
    missing: list[str] = []
    sections: list[Section] = []
    curves = read_curves([*runs, *tables]) if runs or tables else []
    for run in runs:
        missing += _of_state(run)
    scored = [path for path in sources if path in files or (path in runs and (path / BEST).is_file())]
    opened = _open_split(scored, runs, data, split, participants, missing)
    outcomes: list[Outcome] = []
    if opened is not None:
        outcomes = _outcomes(scored, opened, device, missing)
        sections += sections_of(outcomes, opened)
    if any(each.series for each in curves):
        sections.insert(1 if sections else 0, curve_section(curves))
    else:
        missing += [f"{each.name}: {', '.join(each.missing)}." for each in curves]
        if files and not curves:
            missing.append("Training curves: scores alone have none; name the runs to have them.")
    if not sections:
        raise InputError(f"nothing to report on: {' '.join(missing)}")
    figures = _save_figures(sections, out)
    names = [outcome.name for outcome in outcomes[: len(scored)]] or [each.name for each in curves]
    head = {
        "title": f"Report on {', '.join(names)}",
        "subtitle": _subtitle(opened, outcomes),
        "missing": missing,
        "footer": f"Made by egochef report {' '.join(str(path) for path in sources)}, version {__version__}.",
    }
    write_page(out / PAGE, sections, **head)  # type: ignore[arg-type]
    if results is not None:
        pictures = results.parent / "images" / results.stem
        _save_pictures(sections, pictures)
        write_markdown(results, sections, pictures, **head)  # type: ignore[arg-type]
    metrics = {
        outcome.name: {name: dataclasses.asdict(value) for name, value in official(outcome, opened).items()}
        for outcome in outcomes
        if opened is not None
    }
    told = who_has_seen([outcome.name for outcome in outcomes], [outcome.seen for outcome in outcomes])
    write_json(out / NUMBERS, _numbers(opened, metrics, sections, missing) | told)
    return Report(out / PAGE, tuple(figures), tuple(missing), metrics, told, time.perf_counter() - started)


def _of_state(run: Path) -> list[str]:
    """What is to be said of a run that is not finished."""
    info, name = look_at(run), run.absolute().name
    said = []
    if info.fault:
        said.append(f"{info.fault}.")
    if info.state in ("running", "stopped", "empty"):
        how = "still running" if info.state == "running" else "not finished"
        said.append(f"{name}: {how}, {info.epochs_done} of at most {info.epochs} epochs are done.")
    if not (run / BEST).is_file():
        said.append(f"{name}: no checkpoint yet, so it has no scores.")
    return said


def _open_split(
    scored: Sequence[Path],
    runs: Sequence[Path],
    data: Path | None,
    split: str,
    participants: Sequence[str],
    missing: list[str],
) -> Split | None:
    """The data of the scores; None where there are no scores or it is not known, which is then said.

    Raises:
        InputError: scores were given and their data was not, or it has a fault.
    """
    if data is None:
        if not scored:
            return None
        if any(path not in runs for path in scored):
            raise InputError("scores need the data that they are of: give --data ROOT")
        trained_on = [
            Path(str(session["data"]))
            for run in scored
            for session in reversed(read_sessions(run))  # its last start counts
            if "data" in session
        ]
        data = next((path for path in trained_on if path.is_dir() and not is_features(path)), None)
        if data is None:
            missing.append(
                "Everything about scores: the pictures of the runs' data are not known, or not where they were. Name "
                "the data folder or store with --data ROOT."
            )
            return None
    opened = open_split(open_data_folder(data, participants), split)
    if opened.train is None:
        missing.append("What depends on training counts: the data has no training split of these participants.")
    if not scored:
        missing.append("Everything about scores: there are none yet.")
        return None
    return opened


def _outcomes(scored: Sequence[Path], opened: Split, device: str | None, missing: list[str]) -> list[Outcome]:
    """Of each source, and of the ensemble of several."""
    found = read_scores(scored, opened.folder, opened.name, opened.segments, device=device)
    outcomes = [outcome_of(each.name, each.table, opened) for each in found]
    if len(found) > 1:
        name = ENSEMBLE if all(each.name != ENSEMBLE for each in found) else f"{ENSEMBLE} of all"
        try:
            table = ensemble([each.table for each in found], names=[each.name for each in found])
            outcomes.append(outcome_of(name, table, opened))
        except InputError as error:
            missing.append(f"The ensemble: {error}")
    return outcomes


def _subtitle(opened: Split | None, outcomes: Sequence[Outcome]) -> str:
    if opened is None:
        return "Training alone; no scores."
    videos, people = len(set(opened.video.tolist())), len({segment.participant_id for segment in opened.segments})
    text = f"{opened.name}: {len(opened):,} segments of {videos:,} videos and {people:,} participants"
    detail = f" What is about one model is about {outcomes[-1].name}." if len(outcomes) > 1 else ""
    if seen := [outcome.name for outcome in outcomes if (outcome.seen == SEEN).any()]:
        detail += f" Too good, for labels were learned from: {', '.join(seen)}."
    return f"{text}.{detail}"


def _save_figures(sections: Sequence[Section], out: Path) -> list[Path]:
    """PNG and SVG files; those of an earlier report, by its NUMBERS, that this one lacks are removed."""
    paths: list[Path] = []
    for part in _figures(sections):
        paths += save_figure(part.still or part.chart, out / FIGURES, part.name)
    try:
        earlier = read_json(out / NUMBERS, most=2**26)["figures"]
    except (OSError, ValueError, KeyError, TypeError):
        return paths
    names = {path.name for path in paths}
    for name in earlier:
        if isinstance(name, str) and Path(name).name not in names:
            (out / FIGURES / Path(name).name).unlink(missing_ok=True)
    return paths


def _save_pictures(sections: Sequence[Section], folder: Path) -> None:
    """PNG files alone, small ones, for Markdown; those of an earlier report that this one lacks are removed."""
    names = {part.name for part in _figures(sections)}
    for part in _figures(sections):
        save_figure(part.still or part.chart, folder, part.name, for_docs=True)
    for older in folder.glob("*.png"):
        if older.stem not in names:
            older.unlink()


def _figures(sections: Sequence[Section]) -> list[Figure]:
    return [part for section in sections for part in section.parts if isinstance(part, Figure)]


def _numbers(
    opened: Split | None, metrics: dict[str, Any], sections: Sequence[Section], missing: Sequence[str]
) -> dict[str, Any]:
    """For programs: the metrics, and every sentence and table as they stand in the report."""
    return {
        "split": None if opened is None else opened.name,
        "num_segments": None if opened is None else len(opened),
        "metrics": metrics,
        "missing": list(missing),
        "figures": [f"{part.name}.{kind}" for part in _figures(sections) for kind in ("png", "svg")],
        "sections": {
            section.id: {
                "words": list(section.words),
                "tables": [dataclasses.asdict(part) for part in section.parts if isinstance(part, Table)],
            }
            for section in sections
        },
    }
