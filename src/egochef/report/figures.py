"""The report's figures, as Altair charts as wide as their place.

In: records of `analysis`, `confusion` and `comparison`. Out: charts with a title, units and counts, and no colours of
their own (see `theme`). What differs by colour differs by shape, dash or place too.
"""

import json
from collections.abc import Sequence
from typing import Any

import altair as alt
import numpy as np

from egochef.report.analysis import ActionErrors, Calibration, ClassResult, Group
from egochef.report.comparison import Difference
from egochef.report.confusion import Confusion
from egochef.report.curves import Panel
from egochef.report.intervals import Estimate
from egochef.report.theme import OUTCOMES
from egochef.report.timeline import Bar
from egochef.scoring.metrics import SUBSETS, TASKS

SQUARE_PX = 520
"""height of a confusion matrix"""
ZOOM = "zoom"
"""the parameter that a matrix and a timeline are zoomed by"""
MAX_MARKED = 60
"""points of a line that are marked each"""
ZOOM_KEYS = "wheel![event.ctrlKey || event.metaKey]"
"""a wheel alone scrolls the page"""


def metrics_figure(metrics: dict[str, dict[str, Estimate]]) -> alt.LayerChart:
    """Top-1 of every model on every official subset, with intervals.

    Args:
        metrics: by model, as `analysis.official` gives them.
    """
    rows = [
        {"model": model, "task": task, "subset": subset, **_of(value)}
        for model, found in metrics.items()
        for subset in SUBSETS
        for task in TASKS
        if (value := found.get(f"{subset}_{task}_accuracy_at_1"))
    ]
    for row in rows:
        row["what"] = f"{row['subset']} {row['task']}"
    order = [f"{subset} {task}" for subset in SUBSETS for task in TASKS]
    shown = [name for name in order if any(row["what"] == name for row in rows)]
    return _intervals(
        rows, "what", shown, f"Top-1 accuracy, {_segments(max(row['num'] for row in rows))}", models=list(metrics)
    )


def groups_figure(groups: Sequence[Group], title: str) -> alt.LayerChart:
    """Verb, noun and action top-1 of each group, with intervals."""
    rows = [
        {"group": _named(each), "model": task, **_of(value)}
        for each in groups
        for task in TASKS
        if (value := getattr(each, task))
    ]
    return _intervals(
        rows, "group", [_named(each) for each in groups if each.num], title, models=list(TASKS), of="task"
    )


def ranked_figure(groups: Sequence[Group], title: str) -> alt.LayerChart:
    """Action top-1 of many groups, from the worst to the best, with intervals."""
    known = sorted((each for each in groups if each.action), key=lambda each: (each.action.value, each.name))  # type: ignore[union-attr]
    rows = [{"rank": rank, "group": each.name, **_of(each.action)} for rank, each in enumerate(known, 1)]
    base = alt.Chart(alt.Data(values=rows)).encode(
        x=alt.X("rank:Q", title="rank, worst first", scale=alt.Scale(nice=False, padding=6)),
        tooltip=[
            alt.Tooltip("group:N"),
            alt.Tooltip("value:Q", title="action top-1, %"),
            alt.Tooltip("low:Q"),
            alt.Tooltip("high:Q"),
            alt.Tooltip("num:Q", title="segments"),
        ],
    )
    y = _percent_axis("action top-1, %")
    bars = base.mark_rule(opacity=0.5, strokeWidth=1.5).encode(y=alt.Y("low:Q", **y), y2="high:Q")
    points = base.mark_circle(opacity=1).encode(y=alt.Y("value:Q", **y), size=_size("num"))
    return _sized(alt.layer(bars, points), title, f"{len(rows)} of them; lines are 95 % intervals", 280)


def class_figure(results: Sequence[ClassResult], task: str) -> alt.LayerChart:
    """Each class's accuracy against how often training has it."""
    by = "train" if results[0].num_train is not None else "this split"
    rows = [
        {
            "class": each.name,
            "count": max(1, (each.num if each.num_train is None else each.num_train)),
            "recall": _round(each.recall),
            "num": each.num,
            "kind": "tail class" if each.tail else "head class",
        }
        for each in results
    ]
    base = alt.Chart(alt.Data(values=rows)).encode(
        x=alt.X(
            "count:Q",
            title=f"its segments in {by}, log scale",
            scale=alt.Scale(type="log", nice=True),
            axis=alt.Axis(format="~s", tickCount=5),
        ),
        y=alt.Y("recall:Q", **_percent_axis(f"{task} top-1, %")),
    )
    points = base.mark_point(filled=True, opacity=0.75).encode(
        **_told_apart("kind", ["head class", "tail class"]),
        size=_size("num"),
        tooltip=[
            alt.Tooltip("class:N"),
            alt.Tooltip("kind:N"),
            alt.Tooltip("count:Q", title=f"segments in {by}"),
            alt.Tooltip("num:Q", title="segments here"),
            alt.Tooltip("recall:Q", title="right, %"),
        ],
    )
    num = sum(each.num for each in results)
    return _sized(
        alt.layer(points), f"{task.capitalize()} classes, head to tail",
        f"{len(rows)} classes with {_segments(num)}; larger points have more of them", 340,
    )  # fmt: skip


def frequency_figure(found: dict[str, list[tuple[str, Estimate | None]]]) -> alt.LayerChart:
    """Top-1 by how often training has the class or action."""
    rows = [{"bin": name, "model": task, **_of(value)} for task, bins in found.items() for name, value in bins if value]
    order = [name for name, _ in next(iter(found.values()))]
    base = alt.Chart(alt.Data(values=rows)).encode(
        x=alt.X("bin:N", sort=order, title="training segments of its class",
                axis=alt.Axis(labelAngle=-30)),
        xOffset=alt.XOffset("model:N", sort=list(found)),
        color=_told_apart("model", list(found))["color"],
        tooltip=_tooltip("bin", "trained on", "model", "task"),
    )  # fmt: skip
    y = _percent_axis("top-1, %")
    return _sized(
        alt.layer(
            base.mark_rule(strokeWidth=2, opacity=0.6).encode(y=alt.Y("low:Q", **y), y2="high:Q"),
            base.mark_point(filled=True, size=70, opacity=1).encode(
                y=alt.Y("value:Q", **y), shape=_told_apart("model", list(found))["shape"]
            ),
        ),
        "From never trained on to trained on often",
        "lines are 95 % intervals; bins without segments are left out",
        300,
    )


def confusion_figure(matrix: Confusion, task: str) -> alt.Chart:
    """The clustered matrix; zoomed by the parameter ZOOM."""
    shares = matrix.shares
    rows = [
        {
            "column": column,
            "left": column - 0.5,
            "right": column + 0.5,
            "row": row,
            "top": row - 0.5,
            "bottom": row + 0.5,
            "true": matrix.names[row],
            "predicted": matrix.names[column],
            "num": int(matrix.counts[row, column]),
            "share": _round(shares[row, column]),
        }
        for row, column in zip(*matrix.counts.nonzero(), strict=True)
    ]
    names = json.dumps(list(matrix.names))
    size = len(matrix.names)
    axis: dict[str, Any] = {
        "labelExpr": f"{names}[datum.value]",
        "tickMinStep": 1,
        "grid": False,
        "labelOverlap": "greedy",
        "labelLimit": 110,
        "tickCount": min(size, 40),
    }
    zoom = alt.selection_interval(name=ZOOM, bind="scales", zoom=ZOOM_KEYS, encodings=["x", "y"])
    scale: dict[str, Any] = {"domain": [-0.5, size - 0.5], "nice": False, "zero": False}
    chart = (
        alt.Chart(alt.Data(values=rows))
        .mark_rect(clip=True)
        .encode(
            x=alt.X("left:Q", title=f"predicted {task}", axis=alt.Axis(labelAngle=-90, **axis),
                    scale=alt.Scale(**scale)),
            x2="right:Q",
            y=alt.Y("top:Q", title=f"true {task}", axis=alt.Axis(**axis), scale=alt.Scale(**scale, reverse=True)),
            y2="bottom:Q",
            color=alt.Color("share:Q", title="% of the true class",
                            scale=alt.Scale(domain=[0, 100], type="pow", exponent=0.5),
                            legend=alt.Legend(gradientLength=160)),
            tooltip=[
                alt.Tooltip("true:N"),
                alt.Tooltip("predicted:N"),
                alt.Tooltip("num:Q", title="segments"),
                alt.Tooltip("share:Q", title="% of the true class"),
            ],
        )
        .add_params(zoom)
    )  # fmt: skip
    return _sized(
        chart,
        f"{task.capitalize()}s taken for each other",
        f"{size} classes that occur, {_segments(int(matrix.counts.sum()))}; confused ones stand side by side",
        SQUARE_PX,
    )


def calibration_figure(found: Calibration, task: str) -> alt.LayerChart:
    """Accuracy against probability; on the diagonal a probability says how often the model is right."""
    rows = [
        {
            "confidence": _round(each.confidence),
            "accuracy": _round(each.accuracy),
            "num": each.num,
            "bin": f"{100 * each.low:.0f} to {100 * each.high:.0f} %",
        }
        for each in found.bins
    ]
    x = _percent_axis("mean probability of the best, %")
    y = _percent_axis("right, %")
    diagonal = (
        alt.Chart(alt.Data(values=[{"at": 0}, {"at": 100}]))
        .mark_line(strokeDash=[4, 4], opacity=0.6, strokeWidth=1.5)
        .encode(x=alt.X("at:Q", **x), y=alt.Y("at:Q", **y))
    )
    base = alt.Chart(alt.Data(values=rows)).encode(x=alt.X("confidence:Q", **x), y=alt.Y("accuracy:Q", **y))
    points = base.mark_point(filled=True, opacity=1).encode(
        size=_size("num"),
        tooltip=[
            alt.Tooltip("bin:N", title="probability"),
            alt.Tooltip("accuracy:Q", title="right, %"),
            alt.Tooltip("num:Q", title="segments"),
        ],
    )
    return _sized(
        alt.layer(diagonal, base.mark_line(), points),
        f"{task.capitalize()}: expected calibration error {found.error:.1f} points",
        f"{_segments(sum(each.num for each in found.bins))}; dashed: probability = accuracy",
        260,
    )


def errors_figure(found: dict[str, ActionErrors]) -> alt.Chart:
    """What of each model's actions is right, and which half of the others is wrong."""
    kinds = {"right": "num_right", "verb wrong": "num_verb", "noun wrong": "num_noun", "both wrong": "num_both"}
    rows = [
        {
            "model": model,
            "kind": kind,
            "place": place,
            "num": getattr(errors, field),
            "share": _round(100 * getattr(errors, field) / errors.num),
        }
        for model, errors in found.items()
        for place, (kind, field) in enumerate(kinds.items())
    ]
    base = alt.Chart(alt.Data(values=rows)).encode(
        y=alt.Y("model:N", title=None, sort=list(found)),
        x=alt.X("share:Q", **_percent_axis("% of the segments"), stack="zero"),
        order=alt.Order("place:Q"),
        tooltip=[
            alt.Tooltip("model:N"),
            alt.Tooltip("kind:N", title="action"),
            alt.Tooltip("num:Q", title="segments"),
            alt.Tooltip("share:Q", title="%"),
        ],
    )
    bars = base.mark_bar(height={"band": 0.7}).encode(color=_outcome("kind", list(kinds)))
    num = next(iter(found.values())).num
    return _sized(alt.layer(bars), "Actions, right or wrong in which half", _segments(num), 44 * len(found))


def differences_figure(found: Sequence[Difference]) -> alt.LayerChart:
    """Paired differences of models, in points."""
    rows = [
        {"pair": f"{each.model} less {each.other}", "model": task, **_of(value)}
        for each in found
        for task, value in each.points.items()
    ]
    pairs = list(dict.fromkeys(row["pair"] for row in rows))
    zero = alt.Chart(alt.Data(values=[{"at": 0}])).mark_rule(strokeDash=[4, 4]).encode(x="at:Q")
    return _intervals(
        rows, "pair", pairs, "Differences of top-1 on the same segments", models=list(TASKS), of="task",
        x={"title": "points"}, under=zero,
    )  # fmt: skip


def timeline_figure(bars: Sequence[Bar], video: str) -> alt.LayerChart:
    """Truth and prediction over a video's time; a menu chooses the video, first `video`; ZOOM is the time."""
    rows = [
        {
            "v": each.video,
            "s": _round(each.start_s),
            "e": _round(each.stop_s),
            "o": each.overlaps,
            "t": each.true,
            "p": each.predicted,
            "k": each.kind,
            "i": each.narration_id,
        }
        for each in bars
    ]
    videos = sorted({each.video for each in bars})
    menu = alt.param(name="video", value=video, bind=alt.binding_select(options=videos, name="video "))
    zoom = alt.selection_interval(name=ZOOM, bind="scales", encodings=["x"], zoom=ZOOM_KEYS)
    lanes = ["happens", "happens, overlap", "recognised", "recognised, overlap"]
    base = alt.Chart().encode(
        x=alt.X("s:Q", title="seconds of the video", scale=alt.Scale(zero=False, nice=False)),
        x2="e:Q",
        y=alt.Y("lane:N", title=None, sort=lanes),
        color=_outcome("what"),
        tooltip=[
            alt.Tooltip("t:N", title="happens"),
            alt.Tooltip("p:N", title="recognised"),
            alt.Tooltip("k:N", title="that is"),
            alt.Tooltip("s:Q", title="from, s"),
            alt.Tooltip("e:Q", title="to, s"),
            alt.Tooltip("i:N", title="narration id"),
        ],
    )
    lane = "'{}' + (datum.o ? ', overlap' : '')"
    truth = base.transform_calculate(lane=lane.format("happens"), what="'happens'").mark_bar(clip=True)
    said = base.transform_calculate(lane=lane.format("recognised"), what="datum.k").mark_bar(clip=True).add_params(zoom)
    chart = alt.layer(truth, said, data=alt.Data(values=rows)).transform_filter("datum.v == video").add_params(menu)
    return _sized(
        chart, "What happens and what is recognised, over a video's time",
        f"{len(videos)} videos to choose from; overlapping segments have a lane of their own", 40 * len(lanes),
    )  # fmt: skip


def curve_figure(panel: Panel) -> alt.LayerChart:
    """The curves of runs; where points are means, a band shows the values behind them."""
    rows = [
        {
            "run": line.run,
            "curve": line.label or "all",
            "x": _round(x),
            "y": None if np.isnan(y) else _shortened(y),
            "low": None if np.isnan(y) else _shortened(low),
            "high": None if np.isnan(y) else _shortened(high),
        }
        for line in panel.lines
        for x, y, low, high in zip(line.x, line.y, line.low, line.high, strict=True)
    ]
    runs = list(dict.fromkeys(line.run for line in panel.lines))
    labels = list(dict.fromkeys(line.label or "all" for line in panel.lines))
    unit = f", {panel.unit}" if panel.unit else ""
    legend = alt.Legend(symbolType="stroke")
    marked = max(len(line.x) for line in panel.lines) <= MAX_MARKED
    base = alt.Chart(alt.Data(values=rows)).encode(
        x=alt.X("x:Q", title=panel.axis, scale=alt.Scale(zero=False, nice=False)),
        color=alt.Color("run:N", title=None, scale=alt.Scale(domain=runs), legend=legend if len(runs) > 1 else None),
        strokeDash=alt.StrokeDash(
            "curve:N", title=None, scale=alt.Scale(domain=labels), legend=legend if len(labels) > 1 else None
        ),
    )
    y: Any = {"title": f"{panel.title}{unit}", "scale": alt.Scale(zero=False)}
    lines = base.mark_line(strokeWidth=2, point={"size": 24} if marked else False).encode(
        y=alt.Y("y:Q", **y),
        tooltip=[
            alt.Tooltip("run:N"),
            alt.Tooltip("curve:N"),
            alt.Tooltip("x:Q", title=panel.axis),
            alt.Tooltip("y:Q", title=panel.title),
        ],
    )
    layers: list[Any] = [lines]
    if any((line.low < line.high).any() for line in panel.lines):
        band = base.mark_area(opacity=0.18, strokeWidth=0).encode(y=alt.Y("low:Q", **y), y2="high:Q")
        layers.insert(0, band)
    num = sum(line.num_values for line in panel.lines)
    subtitle = f"{', '.join(runs)}; {num:,} values" if len(runs) == 1 else f"{len(runs)} runs, {num:,} values"
    return _sized(alt.layer(*layers), panel.title.capitalize(), subtitle, 240)


def _intervals(
    rows: list[dict[str, Any]],
    field: str,
    order: list[str],
    title: str,
    *,
    models: list[str],
    of: str = "model",
    x: Any = None,
    under: alt.Chart | None = None,
) -> alt.LayerChart:
    """Points with intervals, a row for each value of a field and in it a place for each of `models`."""
    x = x or _percent_axis("top-1, %")
    base = alt.Chart(alt.Data(values=rows)).encode(
        y=alt.Y(f"{field}:N", sort=order, title=None),
        yOffset=alt.YOffset("model:N", sort=models),
        color=_told_apart("model", models)["color"],
        tooltip=_tooltip(field, field, "model", of),
    )
    layers = [
        base.mark_rule(strokeWidth=2, opacity=0.6).encode(x=alt.X("low:Q", **x), x2="high:Q"),
        base.mark_point(filled=True, size=70, opacity=1).encode(
            x=alt.X("value:Q", **x), shape=_told_apart("model", models)["shape"]
        ),
    ]
    if under is not None:
        layers.insert(0, under)
    height = max(26, 12 * len(models)) * len(order)
    return _sized(alt.layer(*layers), title, "lines are 95 % intervals", height)


def _tooltip(field: str, title: str, model: str, model_title: str) -> list[alt.Tooltip]:
    return [
        alt.Tooltip(f"{field}:N", title=title),
        alt.Tooltip(f"{model}:N", title=model_title),
        alt.Tooltip("value:Q", title="value"),
        alt.Tooltip("low:Q", title="from"),
        alt.Tooltip("high:Q", title="to"),
        alt.Tooltip("num:Q", title="segments"),
    ]


def _sized(chart: Any, title: str, subtitle: str, height_px: int) -> Any:
    return chart.properties(
        title=alt.TitleParams(title, subtitle=subtitle), width="container", height=height_px,
        autosize=alt.AutoSizeParams(type="fit-x", contains="padding"),
    )  # fmt: skip


def _size(field: str) -> alt.Size:
    return alt.Size(f"{field}:Q", legend=None, scale=alt.Scale(range=[25, 320]))


def _percent_axis(title: str) -> Any:
    return {"title": title, "scale": alt.Scale(domain=[0, 100]), "axis": alt.Axis(tickCount=5)}


def _told_apart(field: str, values: list[str]) -> dict[str, Any]:
    """Colour and shape in one legend; with a `sort` in the domain's place there would be two.

    Lines take the colour alone: a shape would put points at their ends.
    """
    how: dict[str, Any] = {
        "title": None,
        "scale": alt.Scale(domain=values),
    }
    return {"color": alt.Color(f"{field}:N", **how), "shape": alt.Shape(f"{field}:N", **how)}


def _outcome(field: str, kinds: Sequence[str] = tuple(OUTCOMES)) -> alt.Color:
    scale = alt.Scale(domain=list(kinds), range=[OUTCOMES[kind] for kind in kinds])
    return alt.Color(f"{field}:N", title=None, scale=scale)


def _of(value: Estimate | None) -> dict[str, Any]:
    assert value is not None
    return {"value": _round(value.value), "low": _round(value.low), "high": _round(value.high), "num": value.num}


def _named(each: Group) -> str:
    mark = f", {each.mark}" if each.mark else ""
    return f"{each.name}{mark} ({each.num:,})"


def _round(value: float) -> float:
    return round(float(value), 2)


def _shortened(value: float) -> float:
    return float(f"{value:.5g}")


def _segments(num: int) -> str:
    return f"{num:,} segment{'' if num == 1 else 's'}"
