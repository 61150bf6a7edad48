"""The report's content: sections of computed sentences, tables, figures and clips, in the order they are read.

In: curves, and what models said of a split. Out: sections that `page` writes as HTML and `markdown` as Markdown. Every
sentence is made from numbers here; nothing is typed by hand.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import altair as alt
import numpy as np

from egochef.report import figures
from egochef.report.analysis import (
    Group,
    Outcome,
    Split,
    action_errors,
    by_class,
    by_frequency,
    by_length,
    by_pair,
    by_participant,
    by_seen,
    by_video,
    calibration,
    extremes,
    named_top,
    official,
)
from egochef.report.clips import strips
from egochef.report.comparison import differences, patterns
from egochef.report.confusion import confusion, mistakes
from egochef.report.curves import Curves, canonical
from egochef.report.intervals import MIN_VIDEOS, NUM_DRAWS, Estimate
from egochef.report.timeline import timeline, typical_video
from egochef.scoring.metrics import SUBSETS, TASKS
from egochef.scoring.table import NOT_TOLD, SEEN

Chart = alt.Chart | alt.LayerChart
NUM_MISTAKES, NUM_CLIPS, NUM_RANKED = 15, 6, 5
MAX_ROWS = 14
"""groups that are shown a row each; more are ranked"""


@dataclass(frozen=True)
class Table:
    """Rows of text; the first column names the row."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, eq=False)
class Figure:
    """A chart, and what its files are called."""

    name: str
    chart: Chart
    alt: str
    """what it shows, for who cannot see it"""
    shape: str = "half"
    """how it stands in a page: half, wide, or square (as wide as half, and as high)"""
    zoom: bool = False
    """whether it has the parameter figures.ZOOM"""
    still: Chart | None = None
    """what is saved for papers, where that is another chart"""


@dataclass(frozen=True, eq=False)
class Clip:
    """A segment to look at."""

    narration_id: str
    narration: str
    true: str
    """the action"""
    top: dict[str, list[tuple[str, float, bool]]]
    """by task the five best: name, probability, whether it is the right one"""
    length_s: float
    strip: bytes | str
    """a JPEG of its frames, or why there is none"""


@dataclass(frozen=True, eq=False)
class Clips:
    """Segments side by side."""

    title: str
    clips: tuple[Clip, ...]


@dataclass(frozen=True, eq=False)
class Section:
    """A part of the report under a heading."""

    id: str
    title: str
    words: tuple[str, ...]
    """paragraphs"""
    parts: tuple[Table | Figure | Clips, ...]


def curve_section(curves: Sequence[Curves]) -> Section:
    """Loss, accuracies, learning rate and waiting for data over training."""
    panels = canonical(curves)
    words = []
    for each in curves:
        said = [*each.missing, *each.notes]
        if said:
            words.append(f"{each.name}: {'; '.join(said)}.")
    action = panels["action"]
    for line in action.lines:
        finite = np.flatnonzero(~np.isnan(line.y))
        if not len(finite):
            continue
        best, last = finite[line.y[finite].argmax()], finite[-1]
        words.append(
            f"{line.run} is best at {action.axis} {line.x[best]:,.0f} with {line.y[best]:.1f} % action top-1"
            f"{f' ({line.label})' if line.label else ''}, and ends with {line.y[last]:.1f} %."
        )
    for line in panels["wait"].lines:
        if line.label != "step by step" and not np.isnan(line.y).all():
            words.append(f"{line.run} waits for data for {np.nanmean(line.y):.1f} % of its time.")
    notes = dict.fromkeys(note for panel in panels.values() for note in panel.notes)
    words += [f"{note}." for note in notes]
    empty = [panel.title for panel in panels.values() if not panel.lines]
    if empty:
        words.append(f"Not in these logs: {', '.join(empty)}.")
    parts = tuple(
        Figure(f"curve-{name}", figures.curve_figure(panel), f"{panel.title} over training, by {panel.axis}")
        for name, panel in panels.items()
        if panel.lines
    )
    return Section("curves", "Training", tuple(words), parts)


def score_section(outcomes: Sequence[Outcome], split: Split) -> Section:
    """The official metrics of every model."""
    metrics = {outcome.name: official(outcome, split) for outcome in outcomes}
    columns = [("all", task, k) for k in (1, 5) for task in TASKS]
    columns += [(subset, task, 1) for subset in SUBSETS[1:] for task in TASKS]
    rows = []
    for subset, task, k in columns:
        values = [metrics[name].get(f"{subset}_{task}_accuracy_at_{k}") for name in metrics]
        num = next((value.num for value in values if value), 0)
        rows.append((f"{subset} {task} top-{k}", *(_shown(value) for value in values), f"{num:,}"))
    words = [word for outcome in outcomes if (word := _seen_word(outcome, split))]
    for name, found in metrics.items():
        action, verb, noun = (found[f"all_{task}_accuracy_at_1"] for task in ("action", "verb", "noun"))
        words.append(
            f"{name} recognises {action} % of the {action.num:,} actions, {verb} % of the verbs, {noun} % of the nouns."
        )
    empty = [subset for subset in SUBSETS if not any(key.startswith(subset) for key in next(iter(metrics.values())))]
    if empty:
        words.append(f"No segment is in the subset {' or '.join(empty)}: there is no number for it.")
    unit = next(iter(metrics.values()))["all_action_accuracy_at_1"].unit
    words.append(
        f"In brackets, and as lines in the figures: 95 % bootstrap intervals, for which whole videos (single segments "
        f"where there are fewer than {MIN_VIDEOS}) are drawn again {NUM_DRAWS:,} times; here {unit} of the whole split."
    )
    table = Table("Official metrics, percent", ("", *metrics, "segments"), tuple(rows))
    parts = (
        table,
        Figure("metrics", figures.metrics_figure(metrics), "Top-1 of every model and official subset", "wide"),
    )
    return Section("scores", f"Scores on {split.name}", tuple(words), parts)


def comparison_section(outcomes: Sequence[Outcome], split: Split) -> Section:
    """Which model is better, and on which segments."""
    found = differences(outcomes, split)
    words = []
    for each in found:
        points = each.points["action"]
        words.append(
            f"{each.model} less {each.other}: {points.value:+.1f} points of action top-1 ({points.low:+.1f} to "
            f"{points.high:+.1f}), {'more' if each.is_sure else 'not more'} than chance explains. It gains "
            f"{_counted(each.num_gained, 'segment')} and loses {each.num_lost:,}."
        )
    bins = [group.name for group in by_length(outcomes[0], split)]
    rows = []
    for pattern in patterns(outcomes, split):
        everyone = len(pattern.models) == len(outcomes)
        who = "all" if everyone else ", ".join(pattern.models) or "none"
        verbs = ", ".join(f"{name} ({num:,})" for name, num in pattern.verbs)
        rows.append((who, f"{pattern.num:,}", *(f"{num:,}" for num in pattern.by_length), verbs))
    table = Table(
        "Segments by who has their action right", ("right", "segments", *bins, "most frequent verbs"), tuple(rows)
    )
    figure = Figure("differences", figures.differences_figure(found), "Differences of top-1 between models", "wide")
    return Section("comparison", "Which model wins where", tuple(words), (figure, table))


def error_section(outcomes: Sequence[Outcome], split: Split) -> Section:
    """Verb, noun, or both."""
    found = {outcome.name: action_errors(outcome, split) for outcome in outcomes}
    words = []
    for name, errors in found.items():
        wrong = errors.num - errors.num_right
        if not wrong:
            words.append(f"{name} has every action right.")
            continue
        words.append(
            f"Of {name}'s {wrong:,} wrong actions {_share(errors.num_verb, wrong)} have only the verb wrong, "
            f"{_share(errors.num_noun, wrong)} only the noun, {_share(errors.num_both, wrong)} both. With every noun "
            f"right it would reach {100 * (errors.num_right + errors.num_noun) / errors.num:.1f} %, with every verb "
            f"right {100 * (errors.num_right + errors.num_verb) / errors.num:.1f} %."
        )
    figure = Figure(
        "errors", figures.errors_figure(found), "Shares of right actions, and with verb, noun or both wrong"
    )
    return Section("errors", "What is wrong with wrong actions", tuple(words), (figure,))


def class_section(outcome: Outcome, split: Split) -> Section:
    """Head to tail."""
    words, parts = [], []
    frequency = {task: by_frequency(outcome, split, task) for task in TASKS}
    for task in ("verb", "noun"):
        results = by_class(outcome, split, task)
        never = [each for each in results if not each.recall]
        mean = float(np.mean([each.recall for each in results]))
        verb = "is" if len(never) == 1 else "are"
        how_many = f"{len(never)} of them, with {_counted(sum(each.num for each in never), 'segment')}, {verb} never"
        words.append(
            f"The mean over the {len(results)} {task} classes that occur is {mean:.1f} %; "
            f"{how_many if never else 'each is at least once'} recognised."
        )
        if not any(each.tail for each in results):
            words.append(f"There is no list of tail {task}s, or none of them occurs.")
        parts.append(Figure(f"classes-{task}", figures.class_figure(results, task),
                            f"{task} accuracy of each class against its frequency"))  # fmt: skip
    if frequency["verb"]:
        parts.append(Figure("frequency", figures.frequency_figure(frequency), "Top-1 by number of training segments"))
    else:
        words.append("The data has no training split: classes are ordered by their number in this one.")
    return Section("classes", "Classes, head to tail", tuple(words), tuple(parts))


def confusion_section(outcome: Outcome, split: Split) -> Section:
    """What is taken for what."""
    words: list[str] = []
    parts: list[Table | Figure | Clips] = []
    for task in ("verb", "noun"):
        matrix = confusion(outcome, split, task)
        largest = mistakes(matrix, NUM_MISTAKES)
        parts.append(
            Figure(
                f"confusion-{task}",
                figures.confusion_figure(matrix, task),
                f"{task} confusion matrix",
                "square",
                zoom=True,
            )
        )
        if not largest:
            words.append(f"No {task} is taken for another.")
            continue
        first = largest[0]
        words.append(
            f"Most often the {task} {first.true} is taken for {first.predicted}: {first.num:,} of its {first.of:,} "
            f"segments ({first.share:.0f} %)."
        )
        rows = tuple(
            (f"{each.true} → {each.predicted}", f"{each.num:,}", f"{each.of:,}", f"{each.share:.1f}")
            for each in largest
        )
        title = f"Largest {task} confusions"
        parts.append(Table(title, ("true → predicted", "segments", "of", "% of the true class"), rows))
    return Section("confusions", "Confusions", tuple(words), tuple(parts))


def group_section(outcome: Outcome, split: Split) -> Section:
    """By length, participant, video, seen and unseen."""
    words: list[str] = []
    parts: list[Table | Figure | Clips] = []
    kinds = (
        ("length", "Top-1 by segment length", by_length(outcome, split)),
        ("seen", "Participants seen in training or not", by_seen(outcome, split)),
        ("pairs", "Verb-noun pairs seen in training or not", by_pair(outcome, split)),
        ("participants", "Participants", by_participant(outcome, split)),
        ("videos", "Videos", by_video(outcome, split)),
    )
    for name, title, groups in kinds:
        known = [each for each in groups if each.num]
        if not known:
            lacks = "list of unseen participants for this split" if name == "seen" else "training split"
            words.append(f"{title}: not known, the data has no {lacks}.")
            continue
        if empty := [each.name for each in groups if not each.num]:
            words.append(f"No segment: {', '.join(empty)}.")
        words += _spread(title, known)
        many = len(known) > MAX_ROWS
        chart = figures.ranked_figure(known, title) if many else figures.groups_figure(known, title)
        parts.append(Figure(f"groups-{name}", chart, f"{title}, with intervals"))
        if many:
            parts.append(_ranked_table(title, known))
    return Section("groups", "Where it is right", tuple(words), tuple(parts))


def calibration_section(outcome: Outcome, split: Split) -> Section:
    """Whether probabilities can be believed."""
    words, parts = [], []
    for task in TASKS:
        found = calibration(outcome, task)
        right = 100 * float(outcome.right(task).mean())
        how = "surer than it is right" if found.confidence > right else "less sure than it is right"
        words.append(
            f"Best {task}: {found.confidence:.1f} % sure on average and {right:.1f} % right, {how}; expected "
            f"calibration error {found.error:.1f} points."
        )
        parts.append(Figure(f"calibration-{task}", figures.calibration_figure(found, task),
                            f"{task} accuracy against probability"))  # fmt: skip
    return Section("calibration", "Can its probabilities be believed?", tuple(words), tuple(parts))


def clip_section(outcome: Outcome, split: Split) -> Section:
    """Worst and best clips, and one video over time."""
    worst, best = extremes(outcome, split, NUM_CLIPS)
    pictures = strips(split.folder, [split.segments[row] for row in (*worst, *best)])
    clips = [_clip(outcome, split, row, strip) for row, strip in zip((*worst, *best), pictures, strict=True)]
    words = []
    if wrong := sorted({clip.strip for clip in clips if isinstance(clip.strip, str)}):
        words.append(
            f"Frames of {sum(isinstance(clip.strip, str) for clip in clips)} clips cannot be shown: {wrong[0]}"
        )
    parts: list[Table | Figure | Clips] = [
        Clips("Worst: wrong, and surest of it", tuple(clips[: len(worst)])),
        Clips("Best: right, and surest of it", tuple(clips[len(worst) :])),
    ]
    return Section("clips", "Clips to look at", tuple(words), tuple(part for part in parts if part.clips))  # type: ignore[union-attr]


def timeline_section(outcome: Outcome, split: Split) -> Section:
    """What happens and what is recognised in a video."""
    bars = timeline(outcome, split)
    video = typical_video(bars)
    own = [bar for bar in bars if bar.video == video]
    right = sum(bar.kind == "right" for bar in own)
    word = (
        f"{video} is shown first: of the longer half of the videos its accuracy is the middle one, {right:,} of "
        f"{len(own):,} actions ({100 * right / len(own):.1f} %)."
    )
    figure = Figure(
        "timeline",
        figures.timeline_figure(bars, video),
        "Segments of a video over its time, what happens above, what is recognised below",
        "wide",
        zoom=True,
        still=figures.timeline_figure(own, video),
    )
    return Section("timeline", "A video's time", (word,), (figure,))


def sections_of(outcomes: Sequence[Outcome], split: Split) -> list[Section]:
    """Everything about scores. What is about one model is about the last, the ensemble if there is one."""
    main = outcomes[-1]
    found = [score_section(outcomes, split)]
    if len(outcomes) > 1:
        found.append(comparison_section(outcomes, split))
    found.append(error_section(outcomes, split))
    for make in (class_section, confusion_section, group_section, calibration_section, timeline_section, clip_section):
        found.append(make(main, split))
    return found


def _clip(outcome: Outcome, split: Split, row: int, strip: bytes | str) -> Clip:
    segment = split.segments[row]
    top = {
        task: [(name, prob, bool(hit)) for (name, prob), hit in
               zip(named_top(outcome, split, row, task), outcome.hits[task][row], strict=True)]
        for task in ("action", "verb", "noun")
    }  # fmt: skip
    true, length_s = split.action_name(split.action[row]), segment.stop_s - segment.start_s
    return Clip(segment.narration_id, segment.narration, true, top, length_s, strip)


def _spread(title: str, groups: Sequence[Group]) -> list[str]:
    """Worst and best group by action, where they differ."""
    ranked = sorted((each for each in groups if each.action), key=lambda each: each.action.value)  # type: ignore[union-attr]
    worst, best = ranked[0].action, ranked[-1].action
    if worst is None or best is None or worst.value == best.value:
        return []
    ends = [f"{each.name} with {each.action} % of {each.num:,} actions" for each in (ranked[0], ranked[-1])]
    return [f"{title}: the worst is {ends[0]}; the best {ends[1]}."]


def _ranked_table(title: str, groups: Sequence[Group]) -> Table:
    ranked = sorted(groups, key=lambda each: (each.action.value if each.action else 0.0, each.name))
    chosen = [*ranked[:NUM_RANKED], *ranked[-NUM_RANKED:]]
    rows = tuple((each.name, *(_shown(getattr(each, task)) for task in TASKS), f"{each.num:,}") for each in chosen)
    return Table(f"{title}: the {NUM_RANKED} worst and best by action", ("", *TASKS, "segments"), rows)


def _seen_word(outcome: Outcome, split: Split) -> str | None:
    """What is to be said of labels that a model has learned from."""
    num = int((outcome.seen == SEEN).sum())
    if num:
        return (
            f"Too good: {outcome.name} has learned from the labels of {num:,} of these {len(split):,} segments. Its "
            "numbers do not say how it does on what is new to it."
        )
    if (outcome.seen == NOT_TOLD).any():
        return f"The scores of {outcome.name} do not tell whether it has learned from these labels."
    return None


def _shown(value: Estimate | None) -> str:
    return "-" if value is None else str(value)


def _counted(num: int, what: str) -> str:
    return f"{num:,} {what}{'' if num == 1 else 's'}"


def _share(num: int, of: int) -> str:
    return f"{100 * num / of:.1f} %"
