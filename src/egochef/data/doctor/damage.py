"""Counts the frames of segments that cannot be decoded.

In: a video and spans of it in seconds. Out: for each span, how many of its frames cannot be had, and how many it has.
"""

import math
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import av

from egochef.parallel import advance
from egochef.video.decode import MAX_PIXELS, iter_frames
from egochef.video.source import VideoError, declared_end_s, open_video

SAME_S = 1e-5
"""two times of a frame that differ by less are one"""


@dataclass(frozen=True)
class Damage:
    """What cannot be decoded of a video."""

    reason: str
    """the first fault"""
    lost: list[tuple[int, int]]
    """per span: frames that cannot be had, and all of them"""


def lost_frames(path: Path, spans: Sequence[tuple[float, float]]) -> Damage | None:
    """Decode what the spans cover, each frame once.

    A sound video takes one pass. Behind damage, reading goes on with the frame after the lost one, as far as that does
    without it, else with the next keyframe. So a frame counts as lost if reading reaches it neither from the frames
    before it nor from a keyframe between it and the damage: what a reader who streams the segment cannot have. (One who
    asks for single times may get a few of them, those that no damaged picture was needed for.) The frames in all are
    the container's, and where its header promises more than there is, the missing ones too.

    Args:
        spans: [start, stop) in seconds from the first frame, each beginning before the video's end.

    Returns:
        What is lost, or None if nothing is wrong.

    Raises:
        VideoError: the container cannot be opened.
    """
    had: list[float] = []
    frames: _Frames | None = None
    reason = ""
    for start_s, stop_s in _merged(spans):
        position_s = start_s
        while position_s < stop_s:
            reached = len(had)
            try:
                for time_s, _ in iter_frames(path, start_s=position_s, stop_s=stop_s):
                    had.append(time_s)
                    advance(0)
                break
            except VideoError as error:
                reason = reason or str(error)
                frames = frames or _list_frames(path)
                if len(had) > reached:
                    position_s = frames.after(frames.after(had[-1]))
                else:
                    position_s = frames.keyframe_after(position_s)
    if frames is None:
        return None
    had.sort()
    lost = []
    for start_s, stop_s in spans:
        its = frames.times_s[frames.first_in(start_s) : bisect_left(frames.times_s, stop_s)]
        lost.append((sum(not _is_in(had, time_s) for time_s in its), len(its)))
    return Damage(reason, lost)


def _is_in(times_s: list[float], time_s: float) -> bool:
    place = bisect_left(times_s, time_s - SAME_S)
    return place < len(times_s) and times_s[place] <= time_s + SAME_S


def _merged(spans: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The same seconds without overlaps, rising."""
    merged: list[tuple[float, float]] = []
    for start_s, stop_s in sorted(spans):
        if merged and start_s <= merged[-1][1]:
            merged[-1] = merged[-1][0], max(merged[-1][1], stop_s)
        else:
            merged.append((start_s, stop_s))
    return merged


@dataclass(frozen=True)
class _Frames:
    """The frames that a file should have, by its container."""

    times_s: list[float]
    """rising"""
    keyframes_s: list[float]
    """rising"""

    def first_in(self, start_s: float) -> int:
        """Place of the frame that is on screen at a time."""
        return max(0, bisect_right(self.times_s, start_s + SAME_S) - 1)

    def after(self, time_s: float) -> float:
        """The next frame's time, infinity after the last."""
        place = bisect_right(self.times_s, time_s + SAME_S)
        return self.times_s[place] if place < len(self.times_s) else math.inf

    def keyframe_after(self, time_s: float) -> float:
        place = bisect_right(self.keyframes_s, time_s + SAME_S)
        return self.keyframes_s[place] if place < len(self.keyframes_s) else math.inf


def _list_frames(path: Path) -> _Frames:
    """Read all packets, decode none."""
    container, stream = open_video(path, MAX_PIXELS)
    ticks: list[int] = []
    keys: list[int] = []
    with container:
        try:
            for packet in container.demux(stream):
                if packet.size and packet.pts is not None and not packet.is_discard:
                    ticks.append(packet.pts)
                    if packet.is_keyframe:
                        keys.append(packet.pts)
        except (av.FFmpegError, IndexError):
            pass  # it ends there
        tick_s, step_s = float(stream.time_base or 1), 1 / float(stream.average_rate or 25)
        ends = declared_end_s(container, stream)
    origin = min(ticks, default=0) if stream.start_time is None else stream.start_time
    times_s = sorted((pts - origin) * tick_s for pts in ticks if pts >= origin)
    if ends:
        first_s = times_s[-1] + step_s if times_s else 0.0
        num_missing = math.ceil((ends[0] - origin * tick_s - ends[1] - first_s) / step_s)
        times_s += [first_s + k * step_s for k in range(num_missing)]
    return _Frames(times_s, sorted((pts - origin) * tick_s for pts in keys))
