"""Records what is on screen, as it happens. In: pictures and their times. Out: an H.264 file that plays at any moment.

The MP4 is written a fragment a second under its final name, so that whatever ends the program (Ctrl-C, `kill -9`, a
full disk) leaves a file that plays to its last whole fragment. `Recording.close` makes an ordinary MP4 of it in place.
"""

import logging
import threading
from collections import deque
from fractions import Fraction
from pathlib import Path
from types import TracebackType

import av
import cv2
import numpy as np
from av.video.frame import PictureType, VideoFrame

from egochef.errors import InputError
from egochef.video.encode import TICKS_PER_S

log = logging.getLogger(__name__)

FRAGMENT_S = 1.0
"""at most this much, and the picture after it, is lost when the program is killed"""
QUEUE_LENGTH = 16
"""pictures that may wait to be encoded; each holds a whole picture in memory"""
_ONE_THREAD_PX = 1280 * 720
"""up to this size one thread of the encoder keeps up with a camera, and leaves the rest to the model"""
_LIMITED_RANGE, _BT601 = 1, 6
"""FFmpeg's numbers for what OpenCV's conversion gives (AVCOL_RANGE_MPEG, AVCOL_SPC_SMPTE170M)"""


class Recording:
    """An H.264 file that is being written by a thread of its own."""

    def __init__(
        self, path: str | Path, *, preset: str = "superfast", crf: int = 23, queue_length: int = QUEUE_LENGTH
    ) -> None:
        """Make the file, so that what is wrong with its place shows before anything is recorded.

        Args:
            path: ends in .mp4; must not exist yet. Its folder is made.
            preset: x264's speed. `superfast` costs a third of a core at 1280x720 and 30 pictures a second.
            crf: x264's quality, 0 to 51, smaller is better.
            queue_length: pictures that may wait for the encoder.

        Raises:
            InputError: it exists, cannot be written, or is no .mp4.
        """
        self.path = Path(path).absolute()
        _make_file(self.path)
        self.num_frames = 0
        """pictures encoded"""
        self.num_dropped = 0
        """pictures that came while the queue was full, or after a fault"""
        self.fault: str | None = None
        """why it has stopped by itself; what was written until then plays"""
        # Nothing stays in the encoder, and key frames come when we say so, not with every flicker of a lamp.
        self._options = {"preset": preset, "crf": str(crf), "tune": "zerolatency", "sc_threshold": "0"}
        self._queue: deque[tuple[np.ndarray, float]] = deque()
        self._queue_length, self._closing = queue_length, False
        self._last_s: float | None = None
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name=f"recording {self.path.name}", daemon=True)
        self._thread.start()

    def __enter__(self) -> "Recording":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def add(self, picture: np.ndarray, time_s: float, *, wait: bool = False) -> None:
        """Hand over a picture; comes back at once. What the encoder has no room for is dropped and counted.

        Args:
            picture: (H, W, 3) uint8 RGB, not changed by anyone afterwards. The first one sets the video's size; others
                are fitted into it with black edges.
            time_s: seconds on a clock that does not go back. The first picture is the video's time 0.
            wait: until the encoder has room, where no camera is waiting.
        """
        if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3 or min(picture.shape) < 2:
            raise ValueError(f"a picture is {picture.dtype} of shape {picture.shape}, expected uint8 of (H, W, 3)")
        if self._last_s is not None and not time_s >= self._last_s:
            raise ValueError(f"a picture at {time_s} s comes after one at {self._last_s} s")
        with self._changed:
            if self._closing:
                raise ValueError(f"{self.path} is closed")
            if wait:
                self._changed.wait_for(lambda: len(self._queue) < self._queue_length or self.fault is not None)
            if self.fault is not None or len(self._queue) >= self._queue_length:
                self.num_dropped += 1
                return
            self._last_s = time_s
            self._queue.append((picture, time_s))
            self._changed.notify()

    def close(self) -> None:
        """Encode what still waits and finish the file; a recording without a picture leaves none. Twice is fine."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join()

    # In its thread

    def _next(self) -> tuple[np.ndarray, float] | None:
        with self._changed:
            self._changed.wait_for(lambda: self._queue or self._closing)
            self._changed.notify_all()  # there is room now
            return self._queue.popleft() if self._queue else None

    def _run(self) -> None:
        try:
            if (first := self._next()) is not None:
                self._write(*first)
            kept = self.num_frames > 0
        except Exception as error:  # whatever it is, the live picture goes on
            if not isinstance(error, OSError):
                log.exception("%s: the recording has failed", self.path)
            kept = _cut_to_whole_fragments(self.path)
            reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
            end = "What was written until then plays" if kept else "Nothing was written"
            todo = " Free space, or choose another place." if isinstance(error, OSError) else ""
            with self._changed:
                self.fault = f"{self.path}: the recording has stopped ({reason}). {end}.{todo}"
                self.num_dropped += len(self._queue)
                self._queue.clear()
                self._changed.notify_all()
        if not kept:
            self.path.unlink(missing_ok=True)

    def _write(self, picture: np.ndarray, start_s: float) -> None:
        """Encode from the first picture to the last."""
        # Fragments while it is written, an ordinary file when it is finished. Each key frame begins a fragment.
        with av.open(str(self.path), "w", format="mp4", options={"movflags": "hybrid_fragmented"}) as container:
            stream = container.add_stream("libx264", rate=Fraction(30), options=self._options)
            stream.height, stream.width = (side // 2 * 2 for side in picture.shape[:2])  # yuv420p needs even ones
            stream.pix_fmt = "yuv420p"
            context = stream.codec_context
            context.time_base, context.gop_size = Fraction(1, TICKS_PER_S), TICKS_PER_S
            context.thread_count = 1 if stream.width * stream.height <= _ONE_THREAD_PX else 2
            context.color_range, context.colorspace = _LIMITED_RANGE, _BT601
            tick, key_tick = -1, None
            waiting: tuple[np.ndarray, float] | None = (picture, start_s)
            while waiting is not None:
                picture, time_s = waiting
                planes: np.ndarray = cv2.cvtColor(_fitted(picture, stream.width, stream.height), cv2.COLOR_RGB2YUV_I420)
                frame = VideoFrame.from_ndarray(planes, format="yuv420p")
                tick = max(tick + 1, round((time_s - start_s) * TICKS_PER_S))
                frame.pts, frame.time_base = tick, context.time_base
                if key_tick is None or tick - key_tick >= FRAGMENT_S * TICKS_PER_S:
                    frame.pict_type, key_tick = PictureType.I, tick
                container.mux(stream.encode(frame))
                self.num_frames += 1
                waiting = self._next()
            container.mux(stream.encode(None))


def _make_file(path: Path) -> None:
    if path.suffix.lower() != ".mp4":
        raise InputError(f"{path}: recordings are MP4 files. Choose a name that ends in .mp4.")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.open("xb").close()
    except FileExistsError as error:
        if path.parent.is_dir():
            raise InputError(f"{path}: exists already and is kept. Choose another name for the recording.") from error
        reason = f"{error.filename} is no folder"
        raise InputError(f"{path}: cannot be recorded to ({reason}). Choose another place.") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be recorded to ({error.strerror}). Choose another place.") from error


def _fitted(picture: np.ndarray, width_px: int, height_px: int) -> np.ndarray:
    """A picture in the video's size: as it is, without an odd last row or column, or scaled with black edges."""
    height, width = picture.shape[:2]
    if (width // 2 * 2, height // 2 * 2) == (width_px, height_px):
        return picture[:height_px, :width_px]
    scale = min(width_px / width, height_px / height)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    canvas = np.zeros((height_px, width_px, 3), np.uint8)
    left, top = (width_px - size[0]) // 2, (height_px - size[1]) // 2
    canvas[top : top + size[1], left : left + size[0]] = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    return canvas


def _cut_to_whole_fragments(path: Path) -> bool:
    """Cut off what could not be written to its end, so that the file plays without an error; whether any of it does."""
    try:
        with path.open("rb+") as file:
            whole, end, has_data = 0, file.seek(0, 2), False
            position = 0
            while position + 8 <= end:  # an MP4 is a row of boxes: length, kind, content
                file.seek(position)
                length, kind = int.from_bytes(file.read(4), "big"), file.read(4)
                if length == 1:
                    length = int.from_bytes(file.read(8), "big")
                position += length
                if length < 8 or position > end:
                    break
                if kind != b"moof":  # counts only together with the data that it describes, which follow it
                    whole = position
                has_data |= kind == b"mdat"
            file.truncate(whole)
    except OSError as error:
        log.warning("%s: its end could not be put in order (%s)", path, error)
        return path.exists()
    return has_data
