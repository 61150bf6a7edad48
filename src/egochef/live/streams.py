"""Reading what never waits for us: network streams, and fifos that another program writes into.

In: an address, or the path of a fifo. Out: `Grab`s as they arrive, until the connection ends (the generator returns) or
breaks (`SourceError`).

How old a picture can get: everything is read as soon as it is there, so that what piled up on the way is drained, and
only the newest one is kept (by `live.capture`). Where decoding itself is too slow, `Backlog` notices by the stream's
own clock and throws away packets undecoded until reading has to wait again.
"""

import errno
import logging
import os
import select
import threading
import time
from collections.abc import Generator
from contextlib import closing
from pathlib import Path
from typing import NamedTuple, cast

import av
import numpy as np
from av.container import InputContainer
from av.packet import Packet
from av.stream import Discard
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream

from egochef.errors import InputError
from egochef.texts import redacted
from egochef.video.decode import MAX_PIXELS
from egochef.video.source import backstop_pixels

OPEN_S = 5.0
"""a connection that says nothing for so long cannot be opened"""
READ_S = 5.0
"""a connection that says nothing for so long is broken"""
NO_PICTURE_S = 15.0
"""a connection that sends data for so long, and no picture that can be decoded, is broken"""
MAX_BACKLOG_S = 0.5
"""a picture that waits for longer before it is decoded is thrown away"""
WAITED_S = 0.005
"""reading that takes this long had to wait: nothing else had piled up"""
AGAIN = "Check that it still runs."

_CONTAINERS = "mpegts,matroska,mov,flv,mpjpeg,mjpeg,jpeg_pipe,h264,hevc,m4v,mpegvideo,mpeg,nut,avi,ogg,asf,yuv4mpegpipe"
_HTTP = "http,https,tcp,tls,crypto"
_RTSP = f"rtsp,rtp,udp,srtp,{_HTTP}"
PROTOCOLS = {
    "http": _HTTP,
    "https": _HTTP,
    "rtsp": _RTSP,
    "rtsps": _RTSP,
    "rtmp": "rtmp,rtmps,tcp,tls,crypto",
    "rtmps": "rtmp,rtmps,tcp,tls,crypto",
    "udp": "udp,rtp",
    "tcp": "tcp",
}
"""schemes that are read, and what FFmpeg may open for each: never a local file, whatever a server redirects to"""

log = logging.getLogger(__name__)


class Grab(NamedTuple):
    """A picture that a source gave."""

    time_s: float | None
    """its own time, seconds from the first one; None for a live source"""
    arrived_at: float
    """`time.perf_counter()` when its data was there"""
    picture: np.ndarray
    """(H, W, 3) uint8 RGB, contiguous"""


class SourceError(InputError):
    """A source cannot be opened or read on."""

    def __init__(self, name: str, what: str, todo: str) -> None:
        super().__init__(f"{name}: {what}. {todo}")
        self.what = what
        """what is wrong, without the name and what to do"""


def read_url(url: str, stopped: threading.Event) -> Generator[Grab]:
    """Connect and give pictures as they arrive.

    Reading can hang for `READ_S` (opening twice `OPEN_S`) after `stopped` is set.

    Raises:
        SourceError: it cannot be opened or sends no video, nothing came for `READ_S`, or the connection broke.
    """
    scheme, name = url.partition("://")[0].lower(), redacted(url)
    options = {"protocol_whitelist": PROTOCOLS[scheme], "format_whitelist": f"{_CONTAINERS},rtsp"}
    if scheme.startswith("rtsp"):
        options["rtsp_transport"] = "tcp"  # a lost packet smears pictures for seconds; TCP sends it again
    yield from _read(url, name, options, (OPEN_S, READ_S), stopped)


def read_fifo(path: Path, stopped: threading.Event) -> Generator[Grab]:
    """Wait for a writer and give pictures as they arrive; never hangs for long after `stopped` is set.

    A writer may be silent for as long as it likes: closing the fifo would kill it.

    Raises:
        SourceError: what is written is no video, or breaks off in the middle.
    """
    fifo = _Fifo(path, stopped)
    try:
        if fifo.wait():
            options = {"protocol_whitelist": "none", "format_whitelist": _CONTAINERS}
            yield from _read(fifo, str(path), options, None, stopped)
    finally:
        fifo.close()


class _Fifo:
    """The reading end of a fifo as a file object for PyAV, which gives up when told to stop."""

    def __init__(self, path: Path, stopped: threading.Event) -> None:
        self.name = str(path)
        self._stopped = stopped
        try:
            self._file = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # else opening waits for a writer
        except OSError as error:
            raise SourceError(self.name, f"cannot be opened ({error.strerror})", "Check who may read it.") from error
        self._poll = select.poll()
        self._poll.register(self._file, select.POLLIN)

    def wait(self) -> bool:
        """Until a writer has written; False if told to stop."""
        while not self._stopped.is_set():
            events = self._poll.poll(100)
            if any(event & select.POLLIN for _, event in events):
                return True
            if events:  # a writer came and went without a word
                self._stopped.wait(0.1)
        return False

    def read(self, size: int) -> bytes:
        """What is there, at most `size` bytes; nothing at the end, that is when the last writer has gone."""
        while not self._stopped.is_set():
            if self._poll.poll(100):
                return os.read(self._file, size)
        return b""

    def close(self) -> None:
        os.close(self._file)


class Backlog:
    """Whether packets pile up faster than they are decoded.

    A live stream's clock runs as ours does. Whenever reading had to wait, nothing had piled up: how far the stream's
    clock is behind ours then is where it should stay. A stream that comes faster than real time is never late.
    """

    def __init__(self) -> None:
        self._base_s: float | None = None

    def is_late(self, time_s: float, now_s: float, waited_s: float) -> bool:
        """Whether the packet just read has waited for too long.

        Args:
            time_s: its time by the stream's clock.
            now_s: the time by ours.
            waited_s: how long reading it took.
        """
        behind_s = now_s - time_s
        if self._base_s is None or waited_s > WAITED_S:
            self._base_s = behind_s
        return behind_s > self._base_s + MAX_BACKLOG_S


def _read(
    where: "str | _Fifo",
    name: str,
    options: dict[str, str],
    timeout_s: tuple[float, float] | None,
    stopped: threading.Event,
) -> Generator[Grab]:
    with _open(where, name, options, timeout_s) as container:
        stream = _video_stream(container, name)
        if timeout_s is not None and container.size > 0 and container.duration:
            what = f"is a finished video of {container.duration / av.time_base:.0f} s, expected a stream that goes on"
            raise SourceError(name, what, "Download it and name the file.")
        codec, reformatter = stream.codec_context, VideoReformatter()
        heard_at = time.perf_counter()
        with closing(_timely_packets(container, stream, name, gives_up=timeout_s is not None)) as packets:
            for packet, arrived_at in packets:
                if stopped.is_set():
                    return
                for frame in _decode(stream, packet):
                    heard_at = arrived_at
                    yield Grab(None, arrived_at, _picture(frame, name, reformatter))
                if timeout_s is not None and arrived_at - heard_at > NO_PICTURE_S:
                    what = f"sends data, but no {codec.name} picture that can be decoded for {NO_PICTURE_S:.0f} s"
                    raise SourceError(name, what, "Set the camera to H.264 or MJPEG, 8K at most.")


def _open(
    where: "str | _Fifo", name: str, options: dict[str, str], timeout_s: tuple[float, float] | None
) -> InputContainer:
    # By default FFmpeg looks at seconds of a stream before it gives its first frame. (Not "fflags nobuffer": it throws
    # away what was looked at, and with it the first key frame, so that the first picture comes seconds later.)
    options = options | {
        "analyzeduration": "500000",  # microseconds
        "fpsprobesize": "0",
        "max_pixels": str(backstop_pixels(MAX_PIXELS)),
    }
    try:
        return av.open(where, "r", options=options, timeout=timeout_s, metadata_errors="replace")
    except av.FFmpegError as error:
        todo = "Check the address, and that the camera is on." if timeout_s else "Check what is written into it."
        raise SourceError(name, f"cannot be opened ({_reason(error, OPEN_S)})", todo) from error


def _reason(error: av.FFmpegError, waited_s: float) -> str:
    """What FFmpeg says, or means."""
    if isinstance(error, av.error.ExitError):  # our own timeout
        return f"no answer for {waited_s:.0f} s"
    if isinstance(error, av.error.HTTPUnauthorizedError | av.error.HTTPForbiddenError):
        return "user name or password is missing or wrong"
    if error.errno == errno.EIO:
        return "no such host, or the connection failed"
    if isinstance(error, av.InvalidDataError):
        return "no video format that is read here"
    if isinstance(error, av.ArgumentError):
        return "a kind of video or address that is not read here"
    return error.strerror or type(error).__name__


def _video_stream(container: InputContainer, name: str) -> VideoStream:
    """The first video stream, ready to decode; the others told to be skipped."""
    streams = [stream for stream in container.streams.video if stream.codec_context is not None]
    if not streams:
        found = ", ".join(stream.type for stream in container.streams) or "nothing"
        raise SourceError(name, f"sends no video that can be decoded, only {found}", "Name another one.")
    for other in container.streams:
        if other is not streams[0]:
            other.discard = Discard.all
    codec = streams[0].codec_context
    codec.thread_type = "SLICE"  # frame threads would give each picture some pictures later
    codec.options = {"max_pixels": str(backstop_pixels(MAX_PIXELS))}
    return streams[0]


def _timely_packets(
    container: InputContainer, stream: VideoStream, name: str, gives_up: bool
) -> Generator[tuple[Packet, float]]:
    """Packets and when each was there, without those that are too late to be worth decoding."""
    backlog, skipping = Backlog(), False
    began_at = time.perf_counter()
    try:
        with closing(cast("Generator[Packet]", container.demux(stream))) as packets:
            for packet in packets:
                now = time.perf_counter()
                if gives_up and now - began_at > READ_S:  # FFmpeg gave up, and gives the rest of what it had
                    raise SourceError(name, f"broke off (no answer for {READ_S:.0f} s)", AGAIN)
                time_s = None if packet.dts is None or not stream.time_base else float(packet.dts * stream.time_base)
                if time_s is not None and backlog.is_late(time_s, now, now - began_at):
                    skipping = True
                elif packet.is_keyframe:  # the others lean on what was thrown away
                    skipping = False
                if not skipping:
                    yield packet, now
                began_at = time.perf_counter()
    except av.FFmpegError as error:
        raise SourceError(name, f"broke off ({_reason(error, READ_S)})", AGAIN) from error
    except IndexError:
        pass  # the end: PyAV 18 trips there over a stream that appeared late


def _decode(stream: VideoStream, packet: Packet) -> list[VideoFrame]:
    """Whole pictures out of a packet; damaged ones are left out, the next ones will be whole again."""
    if packet.is_corrupt:
        return []
    try:
        return [frame for frame in stream.codec_context.decode(packet if packet.size else None) if not frame.is_corrupt]
    except av.FFmpegError as error:
        log.debug("a packet does not decode: %s", error.strerror)
        return []


def _picture(frame: VideoFrame, name: str, reformatter: VideoReformatter) -> np.ndarray:
    if frame.width * frame.height > MAX_PIXELS:
        what = f"sends pictures of {frame.width}x{frame.height}, expected {MAX_PIXELS:,} pixels at most"
        raise SourceError(name, what, "Set the camera to a smaller picture.")
    try:
        return np.ascontiguousarray(reformatter.reformat(frame, format="rgb24", threads=1).to_ndarray())
    except av.FFmpegError as error:
        what = f"sends {frame.format.name} pictures, which cannot be converted to RGB ({error.strerror})"
        raise SourceError(name, what, "Set the camera to another format.") from error
