"""Opening a video file that may be anything: what is refused before a byte of it is decoded.

In go a path and the largest picture allowed; out come PyAV's container and its video stream.
"""

import re
from pathlib import Path

import av
from av.container import InputContainer
from av.stream import Discard, Disposition
from av.video.stream import VideoStream

from egochef.errors import FrameError
from egochef.texts import redacted

# Only files that hold their own data: no playlists (hls, dash, concat), no devices, no numbered pictures.
_FORMATS = "mov,matroska,avi,mpegts,mpeg,mpegvideo,m4v,flv,asf,ogg,gif,mjpeg,h264,hevc,ivf,obu,yuv4mpegpipe"
_LFS_MARK = b"version https://git-lfs"
_DURATION_TAG = re.compile(r"(\d+):(\d+):(\d+\.?\d*)")  # Matroska's, per stream: when the last frame ends
CONVERT = "Convert it: ffmpeg -i IN -c:v libx264 -pix_fmt yuv420p OUT.mp4"
REPLACE = "Fetch it again in full."


class VideoError(FrameError):
    """A video cannot give what was asked for: missing, not a video, cut off, damaged, too large or too short.

    The message names the file and the time, says what was expected and what to do.
    """


class NoStreamError(VideoError):
    """A file of a known format without a video stream, a sound recording for example."""


class UnsupportedError(VideoError):
    """Its video is of a form that is not decoded here."""


class TooLargeError(VideoError):
    """Its pictures are larger than allowed."""


def backstop_pixels(max_pixels: int) -> int:
    """FFmpeg's own limit, which holds while it probes and decodes: looser than ours, since coded sizes are padded."""
    return 2 * max_pixels + 65536


def open_video(path: Path, max_pixels: int) -> tuple[InputContainer, VideoStream]:
    """Open a local file and find its video stream; nothing that it names elsewhere is followed.

    Raises:
        VideoError: no such file, not a video, no video stream, pictures too large.
    """
    _check_file(path)
    options = {
        "protocol_whitelist": "file",
        "format_whitelist": _FORMATS,
        "max_pixels": str(backstop_pixels(max_pixels)),
    }
    try:
        container = av.open(f"file:{path}", options=options, metadata_errors="replace")
    except av.FFmpegError as error:
        reason = "no video format that is read here" if isinstance(error, av.ArgumentError) else error.strerror
        todo = "It is a Git LFS pointer: run `git lfs pull`." if _is_lfs_pointer(path) else "Replace the file."
        raise VideoError(f"{path}: cannot be opened ({reason}), expected a video like MP4 or MKV. {todo}") from error
    try:
        return container, _video_stream(path, container, max_pixels)
    except BaseException:
        container.close()
        raise


def check_size(path: Path, width_px: int, height_px: int, max_pixels: int) -> None:
    """Refuse pictures that would take too much memory."""
    if width_px * height_px > max_pixels:
        what = f"has pictures of {width_px}x{height_px}, expected {max_pixels:,} pixels at most"
        raise TooLargeError(f"{path}: {what}. Scale the video down, or raise max_pixels if such pictures are meant.")


def declared_end_s(container: InputContainer, stream: VideoStream) -> tuple[float, float] | None:
    """The end of the video by the file's header, seconds after the clock's start, and how far that may be off.

    None where no header knows: MPEG streams have none, and FFmpeg measures their duration on what is there.
    """
    name, rate = container.format.name, float(stream.average_rate or 25)
    slack_s = 0.02 + 1.5 / rate
    if "mov" in name and stream.duration and stream.time_base:
        return float((stream.duration + (stream.start_time or 0)) * stream.time_base), slack_s
    if "matroska" in name and (tag := _DURATION_TAG.fullmatch(stream.metadata.get("DURATION", ""))):
        hours, minutes, seconds = tag.groups()
        return int(hours) * 3600 + int(minutes) * 60 + float(seconds), slack_s
    if name == "avi" and stream.frames:  # its duration is what FFmpeg finds, not what the header says
        return stream.frames / rate, slack_s
    if name in ("flv", "asf", "matroska,webm") and container.duration:
        return container.duration / av.time_base, 2.0  # of the whole file: a longer sound track counts too
    return None


def _check_file(path: Path) -> None:
    """Refuse what is no file with something in it, before FFmpeg takes its name for anything else."""
    if path.is_dir():
        raise VideoError(f"{path}: is a folder, expected a video file. Name a file in it.")
    if not path.exists():
        raise VideoError(f"{redacted(str(path))}: no such file, expected a video on this machine. Check the path.")
    if not path.is_file():
        raise VideoError(f"{path}: is a device or a pipe, expected a video file. Save the video to a file first.")
    if path.stat().st_size == 0:
        raise VideoError(f"{path}: is empty (0 bytes), expected a video. {REPLACE}")


def _is_lfs_pointer(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(len(_LFS_MARK)) == _LFS_MARK
    except OSError:
        return False


def _video_stream(path: Path, container: InputContainer, max_pixels: int) -> VideoStream:
    """The video stream to decode, the others told to be skipped."""
    streams = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]  # no cover art
    if not streams:
        found = ", ".join(s.type for s in container.streams) or "nothing"
        raise NoStreamError(f"{path}: holds no video that can be decoded, only {found}. Name another file.")
    if streams[0].codec_context is None:
        raise UnsupportedError(f"{path}: holds no video that can be decoded: its codec is unknown. {CONVERT}")
    stream, codec = streams[0], streams[0].codec_context
    for other in container.streams:
        if other is not stream:
            other.discard = Discard.all  # their packets are not even read
    if not codec.width or not codec.height:
        what = f"its picture size cannot be read, or is far above the {max_pixels:,} pixels allowed"
        raise TooLargeError(f"{path}: {what}. Replace the file, or raise max_pixels if such pictures are meant.")
    check_size(path, codec.width, codec.height, max_pixels)
    if not stream.time_base:
        raise UnsupportedError(f"{path}: its video has no clock. {CONVERT}")
    if container.format.name == "avi" and codec.name in ("h264", "hevc") and codec.has_b_frames:
        what = f"AVI keeps no display times, and {codec.name} with B-frames needs them"
        raise UnsupportedError(f"{path}: {what}. {CONVERT}")
    return stream
