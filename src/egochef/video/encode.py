"""Writes H.264 video files. In: (H, W, 3) uint8 RGB frames and their times. Out: a file under its name, or none."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np

from egochef.errors import InputError
from egochef.files import atomic_path

TICKS_PER_S = 90_000
"""resolution of the times of frames that do not come at a constant rate"""
_LIMITED_RANGE, _BT601 = 1, 6
"""FFmpeg's numbers (AVCOL_RANGE_MPEG, AVCOL_SPC_SMPTE170M) for what `_to_yuv420p` gives"""
PRESETS = ("ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow")


@dataclass(frozen=True)
class EncodeSpec:
    """How a video is compressed."""

    preset: str = "veryfast"
    """x264's speed: a slower one makes smaller files"""
    crf: int = 23
    """x264's quality, 0 (lossless) to 51; 18 looks like the original"""
    gop: int = 60
    """frames from one key frame to the next: shorter is faster to seek in"""
    num_threads: int = 0
    """of the encoder, 0 for as many as it likes; the bytes depend on it, the pixels next to nothing

    Even with one, x264 with both B-frames and macroblock tree does not give the same bytes each time; `ultrafast`,
    which has neither, does."""

    def __post_init__(self) -> None:
        if self.preset not in PRESETS:
            raise InputError(f"EncodeSpec.preset is {self.preset!r}, expected one of {', '.join(PRESETS)}")
        for name, lowest, highest in (("crf", 0, 51), ("gop", 1, 100_000), ("num_threads", 0, 128)):
            value = getattr(self, name)
            if not isinstance(value, int) or not lowest <= value <= highest:
                raise InputError(f"EncodeSpec.{name} is {value!r}, expected a whole number from {lowest} to {highest}")


class VideoWriter:
    """An open video file; made by `write_video`."""

    def __init__(self, container: av.container.OutputContainer, rate: Fraction | None, spec: EncodeSpec) -> None:
        self.container, self.rate, self.spec = container, rate, spec
        self.stream: av.VideoStream | None = None
        self.shape: tuple[int, ...] = ()
        self.num_frames = 0
        self._last_tick = -1

    def add(self, frame: np.ndarray, time_s: float | None = None) -> None:
        """Append a frame.

        Args:
            frame: (H, W, 3) uint8 RGB, all of one size. An odd height or width grows by one row or column of its own
                edge, because yuv420p needs even ones.
            time_s: seconds from the video's start, later than the frame before; needed where no rate was given, and
                not allowed where one was.
        """
        if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
            raise ValueError(f"a frame is {frame.dtype} of shape {frame.shape}, expected uint8 of (H, W, 3)")
        if self.stream is None:
            self.shape = frame.shape
            self.stream = self._open_stream(frame.shape[0] + frame.shape[0] % 2, frame.shape[1] + frame.shape[1] % 2)
        if frame.shape != self.shape:
            raise ValueError(f"frame {self.num_frames} has shape {frame.shape}, the ones before {self.shape}")
        picture = av.VideoFrame.from_ndarray(_to_yuv420p(frame), format="yuv420p")
        picture.pts, picture.time_base = self._tick(time_s), self.stream.codec_context.time_base
        self.container.mux(self.stream.encode(picture))
        self.num_frames += 1

    def _tick(self, time_s: float | None) -> int:
        if (time_s is None) != (self.rate is not None):
            raise ValueError(f"time_s is {time_s} with rate {self.rate}: give exactly one of the two")
        tick = self.num_frames if time_s is None else round(time_s * TICKS_PER_S)
        if tick <= self._last_tick:
            raise ValueError(f"frame {self.num_frames} at {time_s} s does not come after the frame before it")
        self._last_tick = tick
        return tick

    def _open_stream(self, height: int, width: int) -> av.VideoStream:
        stream = self.container.add_stream("libx264", rate=self.rate or Fraction(30))
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.codec_context.time_base = 1 / self.rate if self.rate else Fraction(1, TICKS_PER_S)
        stream.codec_context.gop_size = self.spec.gop
        stream.codec_context.thread_count = self.spec.num_threads
        stream.codec_context.color_range, stream.codec_context.colorspace = _LIMITED_RANGE, _BT601
        stream.codec_context.options = {"preset": self.spec.preset, "crf": str(self.spec.crf)}
        return stream

    def finish(self) -> None:
        """Write what the encoder still holds."""
        if self.stream is None:
            raise ValueError("a video needs at least one frame")
        self.container.mux(self.stream.encode(None))


@contextmanager
def write_video(path: Path, *, rate: Fraction | None = None, spec: EncodeSpec | None = None) -> Iterator[VideoWriter]:
    """Open a video file for writing; it appears under its name when the block ends without an error.

    Args:
        path: ends in .mp4 or .MP4 (or another suffix that FFmpeg knows a container for).
        rate: constant frames a second, or None where each frame brings its own time.

    Raises:
        InputError: the place cannot be written or is full, or the suffix is unknown.
    """
    if rate is not None and rate <= 0:
        raise InputError(f"the rate of {path} is {rate}, expected more than 0 frames a second")
    with atomic_path(Path(path)) as temporary:
        try:
            container = av.open(str(temporary), "w")
        except ValueError as error:
            raise InputError(
                f"{path}: no video format for the suffix {Path(path).suffix!r}, use .mp4 ({error})"
            ) from None
        with container:
            writer = VideoWriter(container, rate, spec or EncodeSpec())
            yield writer
            writer.finish()


def _to_yuv420p(frame: np.ndarray) -> np.ndarray:
    """(H, W, 3) RGB to planes (H * 3 / 2, W), BT.601 of limited range, H and W made even."""
    height, width = frame.shape[:2]
    if height % 2 or width % 2:
        frame = cv2.copyMakeBorder(frame, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE)
    assert math.prod(frame.shape[:2]) % 4 == 0
    return cv2.cvtColor(frame, cv2.COLOR_RGB2YUV_I420)
