"""A video's segments over its time, what happens and what is recognised, in lanes that do not overlap."""

from dataclasses import dataclass

import numpy as np

from egochef.report.analysis import Outcome, Split
from egochef.taxonomy import ACTION_BASE

KINDS = ("right", "verb wrong", "noun wrong", "both wrong")


@dataclass(frozen=True)
class Bar:
    """A segment."""

    video: str
    start_s: float
    stop_s: float
    overlaps: int
    """1 where an earlier segment of the first lane has not ended yet"""
    true: str
    """the action that happens"""
    predicted: str
    kind: str
    """right, verb wrong, noun wrong, both wrong"""
    narration_id: str


def timeline(outcome: Outcome, split: Split) -> list[Bar]:
    """Bars of every video, by video and time. Where three segments overlap, the third shares the second's lane."""
    order = sorted(range(len(split)), key=lambda row: (split.segments[row].video_id, split.segments[row].start_s))
    verb, noun = np.divmod(outcome.best("action"), ACTION_BASE)
    verb_wrong, noun_wrong = verb != split.truth.verb, noun != split.truth.noun
    bars: list[Bar] = []
    video, free_s = "", 0.0
    for row in order:
        segment = split.segments[row]
        if segment.video_id != video:
            video, free_s = segment.video_id, 0.0
        overlaps = segment.start_s < free_s
        if not overlaps:
            free_s = segment.stop_s
        bars.append(
            Bar(
                video=video,
                start_s=segment.start_s,
                stop_s=segment.stop_s,
                overlaps=int(overlaps),
                true=split.action_name(split.action[row]),
                predicted=split.action_name(outcome.best("action")[row]),
                kind=KINDS[int(verb_wrong[row]) + 2 * int(noun_wrong[row])],
                narration_id=segment.narration_id,
            )
        )
    return bars


def typical_video(bars: list[Bar]) -> str:
    """Of the videos with the most segments (the upper half), the one whose accuracy is the median."""
    videos: dict[str, list[bool]] = {}
    for bar in bars:
        videos.setdefault(bar.video, []).append(bar.kind == "right")
    longest = sorted(videos, key=lambda name: (-len(videos[name]), name))[: max(1, len(videos) // 2)]
    ranked = sorted(longest, key=lambda name: (np.mean(videos[name]), name))
    return ranked[len(ranked) // 2]
