"""Frames of a video file by time, exactly.

In go a path and times in seconds; out come RGB frames (T, H, W, 3) uint8, upright, and the times they really have (T,).
Time 0 is the first displayed frame. The frame for a time `t` is the last one that begins at or before `t`, with a
tolerance of one tick of the file's clock (1 ms at most); the first frame stands for all times before it. Frame numbers
never come in: they lie on files of variable rate.

Whatever is wrong with a video raises `VideoError`: no frame is silently missing, damaged or another one, as far as the
file can tell. MP4, MOV and Matroska store what that takes; MPEG streams have no header that says where they end, and
FFmpeg has to guess some display times of program streams (.mpg).
"""

import math
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from av.video.frame import VideoFrame

from egochef.video.reader import Reader
from egochef.video.source import REPLACE, VideoError
from egochef.video.times import EveryFrame, ListedTimes, TimeGrid, Wanted

__all__ = [
    "END_TOLERANCE_S",
    "MAX_PIXELS",
    "DecodedFrames",
    "ShownFrame",
    "VideoError",
    "VideoInfo",
    "decode_at",
    "iter_at",
    "iter_frames",
    "probe",
]

MAX_PIXELS = 8192 * 4320
"""pictures with more pixels are refused before anything is allocated for them; 8K passes"""
END_TOLERANCE_S = 1.0
"""the first asked time may lie this far beyond the video's end and still get the last frame"""


@dataclass(frozen=True)
class VideoInfo:
    """What a file says of its video, checked as far as decoding the first frame."""

    width_px: int
    """of the upright picture"""
    height_px: int
    """of the upright picture"""
    rotation: int
    """degrees clockwise by which the stored picture is turned to be upright: 0, 90, 180 or 270"""
    duration_s: float | None
    """from the first frame to the end, as declared; None where no header says"""
    average_fps: float | None
    """frames a second on average, as declared; frames of a variable rate lie elsewhere"""
    codec: str
    """decoder's name, `h264`"""
    container: str
    """demuxer's name, `mov,mp4,m4a,3gp,3g2,mj2`"""
    pixel_format: str
    """as stored, `yuv420p`"""


@dataclass(frozen=True)
class DecodedFrames:
    """Frames in the order of the times asked for."""

    frames: np.ndarray
    """(T, H, W, 3) uint8 RGB, upright"""
    times_s: np.ndarray
    """(T,) float64, when each frame really begins"""


@dataclass(frozen=True)
class ShownFrame:
    """A frame of `iter_at`."""

    first: int
    """it answers the times from this place"""
    stop: int
    """to before this one"""
    time_s: float
    """when it really begins"""
    picture: np.ndarray
    """(H, W, 3) uint8 RGB, upright; valid until the next one is asked for"""
    end_s: float | None
    """when the video ends, for its last frame"""


@dataclass(frozen=True)
class _Shown:
    """A frame that is wanted, or the last one of the file."""

    time_s: float
    """its own time"""
    start_s: float
    """the wanted times from here"""
    stop_s: float
    """to before here are its"""
    frame: VideoFrame
    """decoded, not converted"""
    is_last: bool
    """the file ends with it"""


def probe(path: str | Path, *, max_pixels: int = MAX_PIXELS) -> VideoInfo:
    """Open a video and decode its first frame.

    Raises:
        VideoError: the file is missing, holds no video, or its first frame cannot be had.
    """
    with Reader(path, max_pixels=max_pixels, num_threads=1) as reader:
        shown = next(_shown(reader, ListedTimes([0.0], reader.tolerance_s)))
        height_px, width_px, _ = reader.picture(shown.frame).shape
        return VideoInfo(
            width_px=width_px,
            height_px=height_px,
            rotation=round(-shown.frame.rotation / 90) * 90 % 360,
            duration_s=reader.duration_s(),
            average_fps=float(reader.stream.average_rate) if reader.stream.average_rate else None,
            codec=reader.codec.name,
            container=reader.container.format.name,
            pixel_format=shown.frame.format.name,
        )


def decode_at(
    path: str | Path, times_s: Sequence[float] | np.ndarray, *, max_pixels: int = MAX_PIXELS, num_threads: int = 1
) -> DecodedFrames:
    """Decode the frames on screen at given times, in one pass forward from the keyframe before the first.

    Args:
        path: a file on this machine.
        times_s: (T,) seconds from the first displayed frame; unsorted and repeated ones are fine. Times beyond the end
            get the last frame, and its time tells so.
        max_pixels: larger pictures are refused.
        num_threads: for decoding. More than one spends more processor time in all; not in worker processes.

    Returns:
        Exactly T frames, in the order of `times_s`.

    Raises:
        VideoError: anything is wrong with the file, all times lie more than `END_TOLERANCE_S` beyond its end, or the
            file is cut off before one of them.
    """
    times = np.asarray(times_s, dtype=np.float64)
    if times.ndim != 1 or not times.size or not np.isfinite(times).all():
        raise VideoError(
            f"{path}: asked for the times {times_s!r}, expected a list of at least one finite number of seconds."
        )
    order = np.argsort(times, kind="stable")
    frames: np.ndarray | None = None
    actual_s = np.empty(times.size)
    num_done = 0
    for shown in iter_at(path, times[order], max_pixels=max_pixels, num_threads=num_threads):
        picture = shown.picture
        frames = np.empty((times.size, *picture.shape), np.uint8) if frames is None else frames
        for place in order[shown.first : shown.stop]:
            frames[place] = picture
            actual_s[place] = shown.time_s
        num_done = shown.stop
    assert frames is not None and num_done == times.size, f"{num_done} of {times.size} frames"
    return DecodedFrames(frames, actual_s)


def iter_at(
    path: str | Path, times_s: np.ndarray, *, max_pixels: int = MAX_PIXELS, num_threads: int = 1
) -> Iterator[ShownFrame]:
    """Stream the frames on screen at rising times; each frame comes once, and none is decoded twice.

    Args:
        path: a file on this machine.
        times_s: (T,) seconds from the first displayed frame, rising, repeats allowed.
        max_pixels: larger pictures are refused.
        num_threads: for decoding.

    Yields:
        Frames with the times that they answer; together they answer all.

    Raises:
        VideoError: as `decode_at`; at the first time that cannot be answered, after the frames before it.
    """
    with Reader(path, max_pixels=max_pixels, num_threads=num_threads) as reader:
        wanted = ListedTimes(times_s.tolist(), reader.tolerance_s)
        first = 0
        for shown in _shown(reader, wanted):
            if shown.is_last and times_s[0] > shown.stop_s + END_TOLERANCE_S:
                what = f"asked for {times_s[0]:.3f} s, but it ends at {shown.stop_s:.3f} s"
                raise reader.error(what, "Check that times and video belong together.")
            stop = len(times_s) if shown.is_last else first + wanted.count(shown.start_s, shown.stop_s)
            if stop > first:
                end_s = shown.stop_s if shown.is_last else None
                yield ShownFrame(first, stop, shown.time_s, reader.picture(shown.frame), end_s)
                first = stop


def iter_frames(
    path: str | Path,
    *,
    start_s: float = 0.0,
    stop_s: float | None = None,
    every_s: float | None = None,
    max_pixels: int = MAX_PIXELS,
    num_threads: int = 1,
) -> Iterator[tuple[float, np.ndarray]]:
    """Stream a video, or [start_s, stop_s) of it, in constant memory.

    Args:
        path: a file on this machine.
        start_s: begins with the frame on screen then, seconds from the first displayed frame.
        stop_s: ends before the first frame that begins then or later; None is the end of the video.
        every_s: None gives each frame once. Otherwise item k is the frame on screen at `start_s + k * every_s`: frames
            in between are not converted, and one that is on screen for several of these times comes several times.
        max_pixels: larger pictures are refused.
        num_threads: for decoding.

    Yields:
        The time the frame really begins, seconds, and the frame (H, W, 3) uint8 RGB, upright.

    Raises:
        VideoError: anything is wrong with the file, or no frame is in the span. A file that was cut off raises it at
            the end, after its frames.
    """
    stop_s = math.inf if stop_s is None else stop_s
    if not (math.isfinite(start_s) and start_s < stop_s) or (every_s is not None and not 0 < every_s < math.inf):
        asked = f"start_s={start_s}, stop_s={stop_s}, every_s={every_s}"
        raise VideoError(f"{path}: asked for frames with {asked}, expected start_s < stop_s and every_s > 0.")
    with Reader(path, max_pixels=max_pixels, num_threads=num_threads) as reader:
        wanted: Wanted
        if every_s is None:
            wanted = EveryFrame(start_s, stop_s, reader.tolerance_s)
        else:
            wanted = TimeGrid(start_s, stop_s, every_s, reader.tolerance_s)
        end_s = None
        num_given = 0
        for shown in _shown(reader, wanted):
            end_s = shown.stop_s
            num = wanted.count(shown.start_s, shown.stop_s)
            if num:
                picture = reader.picture(shown.frame).copy()
                yield from ((shown.time_s, picture) for _ in range(num))
                num_given += num
        if not num_given:
            raise reader.error(
                f"no frame in {start_s:.3f} to {stop_s:.3f} s, it ends at {end_s} s", "Ask for an earlier span."
            )


def _shown(reader: Reader, wanted: Wanted) -> Iterator[_Shown]:
    """The frames that answer wanted times, in order; at the end of the file its last frame in any case."""
    done_s = -math.inf  # all wanted times before it are answered
    target_s = wanted.next(done_s)
    while target_s is not None:
        position_s, step_s = target_s, 0.0
        reader.go_to(position_s)
        while (reached_s := (yield from _run(reader, wanted, target_s, done_s))) is None:
            position_s = reader.earlier(position_s, step_s)
            step_s = max(0.5, 2 * step_s)
            reader.go_to(position_s)
        done_s = reached_s
        target_s = wanted.next(done_s) if done_s < math.inf else None


def _run(reader: Reader, wanted: Wanted, target_s: float, done_s: float) -> Generator[_Shown, None, float | None]:
    """Decode forward from where the reader stands until it is cheaper to go on elsewhere.

    Returns:
        The time before which all wanted times are answered, infinity at the end of the file; None if the run began
        too late to show `target_s`.
    """
    held: tuple[float, VideoFrame] | None = None  # the frame on screen and its time
    from_s = done_s  # the wanted times from here are open
    for time_s, frame in reader.frames(wanted, target_s):
        next_s = wanted.next(time_s)
        if held is None:
            if not reader.at_start:  # else the first frame stands for all times before it
                if frame is None or next_s is None or next_s > target_s:
                    return None
                from_s = max(done_s, time_s)
            assert frame is not None
            held = time_s, frame
            continue
        if from_s < time_s:
            if wanted.count(from_s, time_s):
                yield _Shown(held[0], from_s, time_s, held[1], is_last=False)
            from_s = time_s
        if frame is None or next_s is None or (next_s > target_s and reader.worth_jumping(time_s, next_s)):
            return time_s
        held = time_s, frame
    if held is None:
        if reader.at_start:
            raise reader.error("no frame of it can be decoded", REPLACE)
        return None
    end_s = reader.end_s(held[1])
    if wanted.next(end_s) is not None:
        reader.check_whole(end_s)
    yield _Shown(held[0], from_s, end_s, held[1], is_last=True)
    return math.inf
