"""Figures of a dataset's statistics, as Altair charts for files (`theme.save_figure`).

In: `Statistics`. Out: charts with a title, units and counts, and no colours of their own.
"""

from collections.abc import Sequence

import altair as alt

from egochef.report.stats import SHORT_S, ClassCount, ParticipantCount, Statistics

WIDTH_PX, FREQUENCY_PX = 640, 340
NUM_VERBS, NUM_NOUNS = 20, 30
"""of the heatmap"""
NUM_NAMED = 12
"""classes that are named in the frequency figures, at even distances"""
MARK = " *"
"""behind the name of a participant who is not in train"""


def figures(stats: Statistics) -> dict[str, alt.LayerChart]:
    """All that can be drawn of what there is, by the names of their files."""
    found: dict[str, alt.LayerChart] = {}
    if stats.pairs:
        found["verbs"] = frequency_figure(stats.verbs, "verb")
        found["nouns"] = frequency_figure(stats.nouns, "noun")
        found["cooccurrence"] = cooccurrence_figure(stats)
    found["lengths"] = lengths_figure(stats)
    found["participants"] = participants_figure(stats)
    return found


def frequency_figure(classes: Sequence[ClassCount], what: str) -> alt.LayerChart:
    """Segments of every class that occurs, in every labelled split, from head to tail."""
    splits, num_classes = list(classes[0].segments), len(classes)
    classes = _occurring(classes)
    rows = [
        {"rank": rank, "split": split, "segments": num}
        for rank, each in enumerate(classes, 1)
        for split, num in each.segments.items()
        if num
    ]
    tops = [max(each.segments.values()) for each in classes]
    used = [sum(each.segments[split] > 0 for each in classes) for split in splits]
    subtitle = [
        f"{split}: {sum(each.segments[split] for each in classes):,} segments, {num:,} of {num_classes:,} {what}s"
        for split, num in zip(splits, used, strict=True)
    ]
    most = max(tops)
    named = sorted({1 + place * len(classes) // NUM_NAMED for place in range(NUM_NAMED)})
    room = len(classes) // 16  # ranks that a name covers
    names = [
        {"rank": rank, "name": classes[rank - 1].name, "top": max(tops[max(0, rank - 1 - room // 4) : rank + room])}
        for rank in named
    ]
    x = alt.X(
        "rank:Q", title=f"{what}s, the commonest first (rank)",
        scale=alt.Scale(domain=[0, len(classes) + 1], nice=False), axis=alt.Axis(tickMinStep=1),
    )  # fmt: skip
    y = alt.Y(
        "segments:Q",
        title="segments (log scale)",
        scale=alt.Scale(type="log", domain=[0.5, 2.5 * most], nice=False),
        axis=alt.Axis(values=[10**power for power in range(7)], format="~s"),
    )
    points = (
        alt.Chart(alt.Data(values=rows))
        .mark_point(filled=True, size=22, opacity=0.85)
        .encode(x=x, y=y, color=_by_split(alt.Color, splits), shape=_by_split(alt.Shape, splits))
    )
    labels = (
        alt.Chart(alt.Data(values=names))
        .mark_text(align="left", baseline="bottom", dx=4, dy=-4, fontSize=11, angle=330)
        .encode(x=x, y=alt.Y("top:Q"), text="name:N")
    )
    tails = [{"rank": rank} for rank, each in enumerate(classes, 1) if each.tail]
    layers: list[alt.Chart] = [points, labels]
    if tails:
        marks = alt.Chart(alt.Data(values=tails)).mark_tick(thickness=2, size=8, opacity=0.9)
        layers.append(marks.encode(x=x, y=alt.value(FREQUENCY_PX - 5)))
        subtitle.append(f"ticks at the bottom: {len(tails):,} {what}s that are in the official tail list")
    return _layered(layers, f"{what.capitalize()}s, head to tail", subtitle, height=FREQUENCY_PX)


def lengths_figure(stats: Statistics) -> alt.LayerChart:
    """Shares of each split's segments by their length."""
    edges_s = stats.length_edges_s
    last = max(place for each in stats.lengths for place, num in enumerate(each.histogram) if num)
    rows = [
        {
            "split": each.split,
            # The first bin begins at 0, which a log scale has not; it is drawn as wide as the others.
            "from_s": edges_s[place] or edges_s[1] / 2**0.5,
            "share": 100 * (each.histogram[place] if place <= last else 0) / each.num_segments,
        }
        for each in stats.lengths
        for place in range(last + 2)
        if place < len(edges_s)
    ]
    splits = [each.split for each in stats.lengths]
    ticks = [0.125, 0.25, 0.5, 1, 2, 4, 8, 16, 32, 64, 128, 256]
    x = alt.X(
        "from_s:Q",
        title="length, s (log scale)",
        scale=alt.Scale(type="log", base=2, domain=[edges_s[1] / 2**0.5, edges_s[min(last + 1, len(edges_s) - 1)]]),
        axis=alt.Axis(values=ticks, format="~g"),
    )
    lines = (
        alt.Chart(alt.Data(values=rows))
        .mark_line(interpolate="step-after", strokeWidth=2)
        .encode(
            x=x,
            y=alt.Y("share:Q", title="segments of the split in a bin of half an octave, %"),
            color=_by_split(alt.Color, splits),
            strokeDash=_by_split(alt.StrokeDash, splits),
        )
    )
    rule = alt.Chart(alt.Data(values=[{"from_s": SHORT_S}])).mark_rule(strokeDash=[2, 3]).encode(x=x)
    parts = [
        f"{each.split}: {each.num_segments:,} segments, median {each.quantiles_s['0.5']:.2f} s, "
        f"{100 * each.short_share:.1f} % under {SHORT_S:g} s"
        for each in stats.lengths
    ]
    return _layered([rule, lines], "How long segments are", parts, height=280)


def cooccurrence_figure(stats: Statistics) -> alt.LayerChart:
    """How often the commonest verbs and nouns come together."""
    verbs, nouns = _occurring(stats.verbs)[:NUM_VERBS], _occurring(stats.nouns)[:NUM_NOUNS]
    verb_names, noun_names = {each.id: each.name for each in verbs}, {each.id: each.name for each in nouns}
    counts = {(pair.verb, pair.noun): sum(pair.segments.values()) for pair in stats.pairs}
    shown = {key: num for key, num in counts.items() if key[0] in verb_names and key[1] in noun_names}
    rows = [
        {"verb": verb_names[verb], "noun": noun_names[noun], "segments": num} for (verb, noun), num in shown.items()
    ]
    total = sum(counts.values())
    share = 100 * sum(shown.values()) / total
    subtitle = [
        f"The {len(verbs)} commonest of {len(stats.verbs):,} verbs and {len(nouns)} of {len(stats.nouns):,} nouns: "
        f"{sum(shown.values()):,} of {total:,} segments ({share:.0f} %)",
        f"{len(shown):,} of {len(counts):,} pairs are shown, {len(counts) - len(shown):,} with "
        f"{total - sum(shown.values()):,} segments left out; dot: never together",
    ]
    never = [
        {"verb": verb_name, "noun": noun_name}
        for verb, verb_name in verb_names.items()
        for noun, noun_name in noun_names.items()
        if (verb, noun) not in shown
    ]
    most = max(2, *counts.values())
    powers = [10**power for power in range(7) if 3 * 10**power <= most]
    x = alt.X(
        "noun:N", title="noun", scale=alt.Scale(domain=list(noun_names.values())),
        axis=alt.Axis(labelAngle=-50, labelOverlap=False),
    )  # fmt: skip
    y = alt.Y("verb:N", title="verb", scale=alt.Scale(domain=list(verb_names.values())))
    color = alt.Color(
        "segments:Q", title="segments (log scale)", scale=alt.Scale(type="log", domain=[1, most], nice=False),
        legend=alt.Legend(orient="right", gradientLength=160, values=[*powers, most], format=".2~s"),
    )  # fmt: skip
    layers = [
        alt.Chart(alt.Data(values=rows)).mark_rect().encode(x=x, y=y, color=color),
        alt.Chart(alt.Data(values=never)).mark_text(text="·", opacity=0.6).encode(x=x, y=y),
    ]
    return _layered(layers, "Verbs and nouns together", subtitle, height=20 * len(verbs))


def participants_figure(stats: Statistics) -> alt.LayerChart:
    """Segments of every participant by split, and how many videos they are of."""
    splits = [each.split for each in stats.splits]
    rows = [
        {"participant": _marked(each), "split": split, "place": place, "segments": num}
        for each in stats.participants
        for place, (split, num) in enumerate(each.segments.items())
    ]
    tops = [
        {"participant": _marked(each), "segments": sum(each.segments.values()), "videos": sum(each.videos.values())}
        for each in stats.participants
    ]
    x = alt.X(
        "participant:N", title="participant", scale=alt.Scale(domain=list(map(_marked, stats.participants))),
        axis=alt.Axis(labelAngle=-60, labelOverlap=False),
    )  # fmt: skip
    y = alt.Y("segments:Q", title="segments")
    bars = alt.Chart(alt.Data(values=rows)).mark_bar()
    bars = bars.encode(x=x, y=y, color=_by_split(alt.Color, splits), order="place:Q")
    numbers = alt.Chart(alt.Data(values=tops)).mark_text(baseline="bottom", dy=-2, fontSize=11)
    counts = ", ".join(f"{each.split} {each.num_participants:,}" for each in stats.splits)
    totals = stats.totals
    subtitle = [
        f"{len(tops):,} participants ({counts}), {totals.num_segments:,} segments",
        f"numbers above the bars: videos, {totals.num_videos:,} in all",
    ]
    if unseen := sum(each.unseen for each in stats.participants):
        subtitle[0] += f"; {unseen:,} marked *: officially not in train"
    layers = [bars, numbers.encode(x=x, y=y, text="videos:Q")]
    return _layered(layers, "Who recorded what", subtitle, height=260)


def _occurring(classes: Sequence[ClassCount]) -> list[ClassCount]:
    return [each for each in classes if any(each.segments.values())]


def _marked(participant: ParticipantCount) -> str:
    return participant.participant_id + (MARK if participant.unseen else "")


def _by_split(channel: type, splits: list[str]) -> object:
    """The same legend for colour, shape and dash, so that they come together in one."""
    return channel("split:N", title=None, scale=alt.Scale(domain=splits))


def _layered(layers: Sequence[alt.Chart], title: str, subtitle: str | list[str], height: int) -> alt.LayerChart:
    shown = alt.TitleParams(title, subtitle=subtitle)
    return alt.LayerChart(layer=list(layers)).properties(title=shown, width=WIDTH_PX, height=height)
