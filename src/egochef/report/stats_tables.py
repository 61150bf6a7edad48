"""A dataset's statistics as tables of text: for the terminal, for `stats.md`, for this project's README.

In: `Statistics`. Out: `Sheet`s, and Markdown made of them.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from egochef.report.stats import SHORT_S, ClassCount, Statistics

NONE = "-"
MAX_PAIRS = 100
"""pairs shown where all classes are; `stats.json` has all"""
MAX_NAMES = 12
"""of classes in a sentence"""


@dataclass(frozen=True)
class Sheet:
    """A table with what is to be said about it."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    num_words: int = 1
    """columns of words, at the left; the others are numbers"""
    notes: tuple[str, ...] = ()
    """sentences below it"""


def sheets(stats: Statistics, most: int | None = None) -> list[Sheet]:
    """All tables.

    Args:
        most: rows of tables of classes and pairs; None: all classes, MAX_PAIRS pairs.
    """
    return [
        _splits(stats),
        _tails(stats),
        _classes(stats, "verb", stats.verbs, stats.unused_verbs, most),
        _classes(stats, "noun", stats.nouns, stats.unused_nouns, most),
        _pairs(stats, MAX_PAIRS if most is None else most),
        _lengths(stats),
        _participants(stats),
    ]


def readme_table(stats: Statistics) -> str:
    """The Markdown of this project's README: counts of every split, and a sentence of totals."""
    rows = [
        (each.split, f"{each.num_segments:,}", f"{each.num_videos:,}", f"{each.num_participants:,}")
        for each in stats.splits
    ]
    lines = ["| split | segments | videos | participants |", "|---|---|---|---|", *map(_row, rows)]
    return "\n".join([*lines, "", totals_sentence(stats)])


def totals_sentence(stats: Statistics) -> str:
    """`700 videos of 37 participants, 97 verbs, ...`"""
    totals = stats.totals
    where = " and ".join(each.split for each in stats.splits if each.num_actions is not None)
    actions = f", {totals.num_actions:,} different actions in {where}" if where else ""
    return (
        f"{totals.num_videos:,} videos of {totals.num_participants:,} participants, {totals.num_verbs:,} verbs, "
        f"{totals.num_nouns:,} nouns{actions}."
    )


def to_markdown(stats: Statistics) -> str:
    """All tables as a page."""
    parts = [f"# What is in {stats.root}\n"]
    for sheet in sheets(stats):
        rule = ["---" if place < sheet.num_words else "---:" for place in range(len(sheet.columns))]
        lines = [_row(sheet.columns), f"|{'|'.join(rule)}|", *(_row(map(_escape, row)) for row in sheet.rows)]
        parts += [f"## {sheet.title}\n", "\n".join(lines) + "\n", *(f"{_escape(note)}\n" for note in sheet.notes)]
    return "\n".join(parts)


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _escape(text: str) -> str:
    return text.replace("|", "\\|")


def _splits(stats: Statistics) -> Sheet:
    rows = [
        (
            each.split,
            *map(_number, (each.num_segments, each.num_videos, each.num_participants)),
            f"{each.annotated_h:.2f}",
            f"{each.covered_h:.2f}",
            *map(_number, (each.num_verbs, each.num_nouns, each.num_actions)),
        )
        for each in stats.splits
    ]
    notes = [totals_sentence(stats)]
    notes += [f"Not counted: {split} ({why})." for split, why in stats.missing.items()]
    notes += [f"{note[0].upper()}{note[1:]}." for note in stats.notes]
    columns = ("split", "segments", "videos", "participants", "hours annotated", "hours covered")
    return Sheet("Splits", (*columns, "verbs", "nouns", "actions"), tuple(rows), notes=tuple(notes))


def _tails(stats: Statistics) -> Sheet:
    columns = ("split", "tail verb", "tail noun", "tail action", "unseen participants")
    rows = [
        (
            each.split,
            *map(_number, (each.num_tail_verb, each.num_tail_noun, each.num_tail_action, each.num_unseen)),
        )
        for each in stats.splits
    ]
    tails = [sum(each.tail for each in classes) for classes in (stats.verbs, stats.nouns)]
    lists = f"The official tail lists have {tails[0]:,} verbs and {tails[1]:,} nouns."
    return Sheet("Segments of the official subsets", columns, tuple(rows), notes=(lists,))


def _classes(
    stats: Statistics, what: str, classes: Sequence[ClassCount], unused: Sequence[str], most: int | None
) -> Sheet:
    splits = _labelled(stats)
    total = max(1, sum(sum(each.segments.values()) for each in classes))
    shown = classes if most is None else classes[:most]
    rows = [
        (
            each.name,
            "tail" if each.tail else "",
            *(_number(each.segments[split]) for split in splits),
            f"{100 * sum(each.segments.values()) / total:.2f}",
        )
        for each in shown
    ]
    notes = [f"The {len(shown):,} commonest of {len(classes):,} {what}s."] if len(shown) < len(classes) else []
    if unused:
        notes.append(f"In no labelled split: {_some(unused)}.")
    if stats.novelty is not None:
        new = stats.novelty.new_verbs if what == "verb" else stats.novelty.new_nouns
        notes.append(
            f"In validation and never in train: {_some(new)}." if new else f"Train has every {what} of validation."
        )
    title = f"{what.capitalize()}s, head to tail" if most is None else f"Commonest {what}s"
    return Sheet(title, (what, "list", *splits, "%"), tuple(rows), num_words=2, notes=tuple(notes))


def _pairs(stats: Statistics, most: int) -> Sheet:
    splits = _labelled(stats)
    shown = stats.pairs[:most]
    total = max(1, sum(sum(each.segments.values()) for each in stats.pairs))
    rows = [
        (
            each.action,
            *(_number(each.segments[split]) for split in splits),
            f"{100 * sum(each.segments.values()) / total:.2f}",
        )
        for each in shown
    ]
    possible = stats.totals.num_verbs * stats.totals.num_nouns
    notes = [f"{len(stats.pairs):,} of {possible:,} possible pairs occur, {len(shown):,} are shown."]
    if (new := stats.novelty) is not None:
        count = f"{new.new_action_segments:,} validation segments have one of {new.new_actions:,} pairs never in train."
        notes.append(count if new.new_actions else "Train has every pair of validation.")
    return Sheet("Commonest verb-noun pairs", ("action", *splits, "%"), tuple(rows), notes=tuple(notes))


def _lengths(stats: Statistics) -> Sheet:
    quantiles = tuple(stats.lengths[0].quantiles_s)
    rows = [
        (
            each.split,
            f"{each.min_s:.2f}",
            *(f"{each.quantiles_s[q]:.2f}" for q in quantiles),
            f"{each.max_s:.2f}",
            f"{each.mean_s:.2f}",
            _number(each.num_short),
            f"{100 * each.short_share:.1f}",
        )
        for each in stats.lengths
    ]
    names = tuple("median" if float(q) == 0.5 else f"{100 * float(q):g} %" for q in quantiles)
    columns = ("split", "shortest", *names, "longest", "mean", f"under {SHORT_S:g} s", "share, %")
    return Sheet("Segment lengths, s", columns, tuple(rows))


def _participants(stats: Statistics) -> Sheet:
    splits = [each.split for each in stats.splits]
    rows = [
        (
            each.participant_id,
            "unseen" if each.unseen else "",
            *(_number(each.segments[split]) for split in splits),
            *(_number(each.videos[split]) for split in splits),
        )
        for each in stats.participants
    ]
    columns = ("participant", "list", *splits, *(f"{split} videos" for split in splits))
    note = "Unseen: officially not in train." if any(each.unseen for each in stats.participants) else ""
    return Sheet("Participants", columns, tuple(rows), num_words=2, notes=(note,) if note else ())


def _labelled(stats: Statistics) -> list[str]:
    return [each.split for each in stats.splits if each.num_actions is not None]


def _number(value: int | None) -> str:
    return NONE if value is None else f"{value:,}"


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - MAX_NAMES:,} more" if len(names) > MAX_NAMES else ""
    return ", ".join(names[:MAX_NAMES]) + more
