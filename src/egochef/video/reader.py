"""One open video file: its clock, its packets, its frames, and what can be wrong with them.

In go a path and the wanted times (`video.times`); out come decoded frames with their times in seconds from the first
displayed frame. Nobody but `video.decode` needs this file.
"""

import math
import struct
from collections.abc import Generator, Iterator
from contextlib import closing
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import cast

import av
import numpy as np
from av.buffer import Buffer
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter

from egochef.video.source import CONVERT, REPLACE, VideoError, backstop_pixels, check_size, declared_end_s, open_video
from egochef.video.times import Wanted, with_next_pts

MAX_TOLERANCE_S = 0.001
"""a time is matched with a tolerance of one tick of the file's clock, and never of more than this"""
JUMP_S = 10.0
"""a gap between wanted times from which seeking pays in a file whose keyframes are not known beforehand"""
LATEST_S = 1e9
"""later times mean this one: what keeps ticks within 64 bits"""


class Reader:
    """A file that is read forward in runs: `go_to` a time, then `frames` from the keyframe before it."""

    def __init__(self, path: str | Path, *, max_pixels: int, num_threads: int) -> None:
        self.path = Path(path)
        self.max_pixels = max_pixels
        self.num_threads = num_threads
        self._picture_shape: tuple[int, ...] | None = None
        self._orientation: tuple[bool, bool, bool] | None = None
        self._reformatter = VideoReformatter()  # one for all frames: it keeps its conversion tables
        self._open()
        try:
            # An MP4's index tells all packets' times before any is read. Other demuxers guess, or learn as they go.
            self._indexed = "mov" in self.container.format.name
            # One packet gives one frame in these, so that a frame that is lost can be told.
            self._one_to_one = self._indexed and self.codec.name in ("h264", "hevc")
            # H.264 marks frames that no other one needs. (HEVC marks them too, but for one layer only.)
            self._can_skip = self._indexed and self.codec.name == "h264"
            self._origin = self._first_pts()
        except BaseException:
            self.container.close()
            raise

    def __enter__(self) -> "Reader":
        return self

    def __exit__(self, *exception: object) -> None:
        self.container.close()

    def error(self, what: str, todo: str) -> VideoError:
        """What is wrong with this file, to be raised."""
        return VideoError(f"{self.path}: {what}. {todo}")

    # The file and its clock

    def _open(self) -> None:
        self.container, self.stream = open_video(self.path, self.max_pixels)
        self.codec = self.stream.codec_context
        # Frame threads only where asked for: in a worker process they cost more than they bring.
        self.codec.thread_type = "NONE" if self.num_threads == 1 else "FRAME"
        self.codec.thread_count = self.num_threads
        self.codec.options = {"max_pixels": str(backstop_pixels(self.max_pixels))}
        tick_s = Fraction(self.stream.time_base or 0)
        self._tick = tick_s.numerator, tick_s.denominator
        self._tick_s = float(tick_s)
        self.tolerance_s = min(self._tick_s, MAX_TOLERANCE_S)
        self._frame_s = 1 / float(self.stream.average_rate or 25)  # a usual frame's time on screen
        self._fresh = True
        self._begin_run(at_start=True)

    def _begin_run(self, at_start: bool) -> None:
        self.at_start = at_start
        self._started = False  # whether a frame has come out
        self._floor: int | None = None  # display time of the run's first keyframe, ticks
        self._key_delay = 0  # ticks from that keyframe's decoding to its display
        self._first_dts: int | None = None  # ticks
        self._last_pts = -math.inf  # ticks
        self._due: set[int] = set()  # display times of wanted packets whose frames have not come out yet, ticks

    def _first_pts(self) -> int:
        """Time zero in ticks: the first displayed frame, by the header where that is exact."""
        entries = self.stream.index_entries
        if self._indexed and self.stream.start_time is not None and len(entries) and entries[0].is_keyframe:
            return self.stream.start_time
        self._origin = 0
        self._fresh = False
        for frame in chain.from_iterable(map(self.decode, chain(self._packets(), [None]))):
            if frame.pts is None:
                raise self.error("its frames carry no times", CONVERT)
            return frame.pts
        raise self.error("no frame of it can be decoded", REPLACE)

    def time_s(self, ticks: int) -> float:
        """Seconds from the first displayed frame."""
        return (ticks - self._origin) * self._tick[0] / self._tick[1]

    def _ticks(self, time_s: float) -> int:
        return self._origin + math.floor((min(time_s, LATEST_S) + self.tolerance_s) / self._tick_s)

    def end_s(self, last: VideoFrame) -> float:
        """When the last frame leaves the screen."""
        return self.time_s(last.pts or 0) + (last.duration * self._tick_s or self._frame_s)

    def duration_s(self) -> float | None:
        """From the first frame to the end: as declared, else as FFmpeg estimates it."""
        declared = declared_end_s(self.container, self.stream)
        if declared is not None:
            return declared[0] - self._origin * self._tick_s
        return self.container.duration / av.time_base if self.container.duration else None

    def check_whole(self, end_s: float) -> None:
        """Tell a file that was cut off from an honest end.

        Raises:
            VideoError: the frames end well before the end that the file declares.
        """
        declared = declared_end_s(self.container, self.stream)
        if declared is None:
            return
        declared_s = declared[0] - self._origin * self._tick_s
        if end_s < declared_s - declared[1]:
            what = f"is cut off: its frames end at {end_s:.2f} s, its header says {declared_s:.2f} s"
            raise self.error(what, REPLACE)

    # Where a run begins

    def go_to(self, time_s: float) -> None:
        """Begin a run at a keyframe that should lie before `time_s`; at the file's start if that is not positive."""
        if time_s > 0:
            self._fresh = False
            try:
                self.container.seek(self._ticks(time_s), stream=self.stream)
            except av.FFmpegError:
                pass  # this file cannot be searched: from its start, then
            else:
                self._begin_run(at_start=False)
                return
        if not self._fresh:
            self.container.close()
            self._open()

    def earlier(self, position_s: float, step_s: float) -> float:
        """A position before the last run's: just before its first packet, and `step_s` more."""
        if self._first_dts is not None:
            position_s = min(position_s, self.time_s(self._first_dts))
        return position_s - 2 * self.tolerance_s - step_s

    def worth_jumping(self, time_s: float, next_s: float) -> bool:
        """Whether to seek from `time_s` to `next_s` where keyframes are not known beforehand."""
        return not self._indexed and next_s - time_s > JUMP_S

    def _keyframe_dts(self, time_s: float) -> float:
        """Decoding time in ticks of the last keyframe shown at or before `time_s`, by the index."""
        entries = self.stream.index_entries
        place = entries.search_timestamp(self._ticks(time_s) - self._key_delay)
        return entries[place].timestamp if place >= 0 else -math.inf

    # A run

    def frames(self, wanted: Wanted, target_s: float) -> Iterator[tuple[float, VideoFrame | None]]:
        """Decode forward; frames that are neither wanted nor needed by others are left out where the codec marks them.

        Args:
            wanted: which frames.
            target_s: the wanted time that this run was begun for.

        Yields:
            Time and frame, in rising order. Where the run stops before the file's end, the last item is a time and
            None: all wanted times before it are answered by what came.
        """
        packets = with_next_pts(self._packets()) if self._indexed else ((p, None, None) for p in self._packets())
        asked_s: float | None = target_s
        for packet, next_pts, dts in packets:
            self._note(packet)
            if dts is not None and (self._started or not self.at_start):
                next_s = wanted.next(self.time_s(dts))
                is_new, asked_s = next_s != asked_s, next_s
                if next_s is None or (is_new and next_s > target_s and self._keyframe_dts(next_s) > dts):
                    yield from self._timed(self.decode(None))
                    self._check_due(math.inf)
                    yield self.time_s(dts), None
                    return
            is_wanted = True
            if dts is not None and packet.pts is not None:
                is_wanted = (
                    wanted.count(self.time_s(packet.pts), math.inf if next_pts is None else self.time_s(next_pts)) > 0
                )
                if is_wanted and self._one_to_one and not packet.is_discard and self._is_after_key(packet.pts):
                    self._due.add(packet.pts)
            # Only once a frame is out: until then nobody knows whether it is interlaced, a frame from two packets.
            skip = not is_wanted and self._can_skip and self._one_to_one and self._started
            yield from self._timed(self.decode(packet, skip=skip))
        yield from self._timed(self.decode(None))
        self._check_due(math.inf)

    def _check_due(self, pts: float) -> None:
        """Frames come out in order: what was due before this one is lost, unless the run just had to find its feet."""
        lost = {due for due in self._due if due < pts}
        if lost and (self._started or self.at_start):
            raise self.error(f"its frame at {self.time_s(min(lost)):.3f} s is lost", REPLACE)
        self._due -= lost

    def _packets(self) -> Iterator[Packet]:
        """The video's packets from here on, without PyAV's empty one at the end."""
        try:
            # PyAV 18 never frees what a demuxer that is given up halfway holds, unless it is closed.
            with closing(cast("Generator[Packet]", self.container.demux(self.stream))) as packets:
                for packet in packets:
                    if packet.size:
                        yield packet
        except av.FFmpegError as error:
            raise self.error(f"cannot be read on ({error.strerror})", REPLACE) from error
        except IndexError:
            pass  # the end: PyAV 18 trips there over a stream that damage made appear late

    def _note(self, packet: Packet) -> None:
        if self._first_dts is None:
            self._first_dts = packet.dts
        if self._floor is None and packet.is_keyframe and packet.pts is not None:
            self._floor = packet.pts
            self._key_delay = packet.pts - packet.dts if packet.dts is not None else 0

    def _is_after_key(self, pts: int | None) -> bool:
        """What is shown before the run's first keyframe leans on pictures before it, and cannot be clean."""
        return self._floor is not None and (pts is None or pts >= self._floor)

    def decode(self, packet: Packet | None, skip: bool = False) -> list[VideoFrame]:
        """Frames that come out when a packet goes in; None flushes the decoder."""
        self.codec.skip_frame = "NONREF" if skip else "DEFAULT"
        damaged_pts = packet.pts if packet is not None else None
        try:
            frames = self.codec.decode(packet)
            damaged = packet is not None and packet.is_corrupt
        except av.FFmpegError:
            frames, damaged = [], True
        for frame in frames:
            if frame.is_corrupt:
                damaged, damaged_pts = True, frame.pts
            if frame.interlaced_frame:
                self._one_to_one = False
        if damaged and self._is_after_key(damaged_pts):
            at = "its end" if damaged_pts is None else f"{self.time_s(damaged_pts):.3f} s"
            raise self.error(f"is damaged or cut off at {at}", REPLACE)
        return [] if damaged else frames

    def _timed(self, frames: list[VideoFrame]) -> Iterator[tuple[float, VideoFrame]]:
        for frame in frames:
            if frame.pts is None:
                raise self.error("its frames carry no times", CONVERT)
            if not self.at_start and not self._is_after_key(frame.pts):
                continue
            time_s = self.time_s(frame.pts)
            if frame.pts < self._last_pts:
                raise self.error(f"its frame times run backwards at {time_s:.3f} s", CONVERT)
            if self.at_start and not self._started and time_s > 2 * self._frame_s + self.tolerance_s:
                raise self.error(f"its first {time_s:.3f} s are damaged and do not decode", REPLACE)
            self._due.discard(frame.pts)
            self._check_due(frame.pts)
            self._started, self._last_pts = True, frame.pts
            yield time_s, frame

    # Pictures

    def picture(self, frame: VideoFrame) -> np.ndarray:
        """RGB, upright, (H, W, 3) uint8; a view on memory of the frame, so copy it before the next one.

        swscale converts with the matrix and range that the stream declares (BT.601 and limited range where it declares
        none, as FFmpeg's own tools do); high bit depths and HDR are cut to 8 bits without tone mapping.
        """
        check_size(self.path, frame.width, frame.height, self.max_pixels)
        try:
            rgb = self._reformatter.reformat(frame, format="rgb24", threads=1).to_ndarray()
        except av.FFmpegError as error:
            what = f"its {frame.format.name} pictures cannot be converted to RGB ({error.strerror})"
            raise self.error(what, CONVERT) from error
        if self._orientation is None:
            self._orientation = _orientation(frame)
        transposed, flip_rows, flip_columns = self._orientation
        if transposed:
            rgb = rgb.transpose(1, 0, 2)  # (W, H, 3), named (H, W, 3) from here on
        rgb = rgb[:: -1 if flip_rows else 1, :: -1 if flip_columns else 1]
        if self._picture_shape not in (None, rgb.shape):
            what = f"its picture size changes from {self._picture_shape} to {rgb.shape} (H, W, 3)"
            raise self.error(what, "Convert it to one size: ffmpeg -i IN -vf scale=W:H OUT.mp4")
        self._picture_shape = rgb.shape
        return rgb


def _orientation(frame: VideoFrame) -> tuple[bool, bool, bool]:
    """What makes a stored picture upright: transpose, then flip rows, then flip columns.

    The display matrix (ISO/IEC 14496-12, 6.2.2) sends x to a x + c y and y to b x + d y.
    """
    # Asking a frame for its side data ties it into a reference cycle, which keeps its pictures in memory for long: so a
    # thumbnail, which carries the same side data, is asked instead.
    thumbnail = VideoReformatter().reformat(frame, 16, 16, "gray8", interpolation="POINT", threads=1)
    data = thumbnail.side_data.get("DISPLAYMATRIX")
    if data is None:
        return False, False, False
    a, b, _, c, d, *_ = struct.unpack("=9i", bytes(cast(Buffer, data)))
    if abs(a) + abs(d) >= abs(b) + abs(c):
        return False, d < 0, a < 0
    return True, b < 0, c < 0
