"""Videos whose frames carry their number as pixels, and a reader that decodes everything, to test exactness on."""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

BLOCK_PX = 16
BITS = np.arange(16)
B_FRAMES = {"bf": "3", "b-adapt": "0"}  # always three, whatever the picture


def numbered_picture(number: int, width_px: int = 64, height_px: int = 64) -> np.ndarray:
    """16 black or white blocks that spell `number` in binary at the top left, on noise; (H, W, 3) uint8."""
    rng = np.random.default_rng(number)
    picture = rng.integers(100, 156, (height_px, width_px, 1), dtype=np.uint8).repeat(3, axis=2)
    bits = ((number >> BITS) & 1).reshape(4, 4).repeat(BLOCK_PX, 0).repeat(BLOCK_PX, 1)  # (64, 64)
    picture[:64, :64] = (30 + 190 * bits + rng.integers(0, 12, (64, 64)))[..., None]
    return picture


def read_number(picture: np.ndarray) -> int:
    """The number that `numbered_picture` wrote."""
    blocks = picture[:64, :64].mean(axis=2).reshape(4, BLOCK_PX, 4, BLOCK_PX).mean(axis=(1, 3))
    assert ((blocks < 90) | (blocks > 165)).all(), f"no clean bit pattern: {blocks.round()}"
    return int((blocks.ravel() > 128) @ (1 << BITS))


def write_numbered(
    path: Path,
    num_frames: int = 100,
    *,
    fps: Fraction | int = 25,
    ticks: Sequence[int] | None = None,
    codec: str = "libx264",
    pixel_format: str = "yuv420p",
    size_px: tuple[int, int] = (64, 64),
    options: dict[str, str] | None = None,
    container_options: dict[str, str] | None = None,
    rotation: tuple[float, bool, bool] | None = None,
) -> Path:
    """Encode frames 0, 1, 2, ...; `ticks` are their times in milliseconds where the rate varies."""
    with av.open(str(path), "w", options=container_options or {}) as container:
        stream = container.add_stream(codec, rate=fps, options=options or {})
        stream.width, stream.height = size_px
        stream.pix_fmt = pixel_format
        stream.codec_context.thread_count = 1
        if ticks is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        if rotation is not None:
            stream.set_display_rotation(rotation[0], hflip=rotation[1], vflip=rotation[2])
        for number in range(num_frames):
            frame = av.VideoFrame.from_ndarray(numbered_picture(number, *size_px), format="rgb24")
            if ticks is not None:
                frame.pts, frame.time_base = ticks[number], Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def remux(source: Path, path: Path, shift_ticks: int) -> Path:
    """Copy packets with all times moved; negative times become an edit list."""
    with av.open(str(source)) as old, av.open(str(path), "w", options={"avoid_negative_ts": "disabled"}) as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        for packet in old.demux(old.streams.video[0]):
            if packet.pts is not None and packet.dts is not None:
                packet.pts, packet.dts, packet.stream = packet.pts + shift_ticks, packet.dts + shift_ticks, stream
                new.mux(packet)
    return path


@dataclass(frozen=True)
class Reference:
    """All frames of a file, decoded from its start to its end and nothing else."""

    times_s: np.ndarray
    """(N,) from the first frame"""
    frames: list[np.ndarray]
    """(H, W, 3) uint8 RGB, as stored"""
    tick_s: float
    """of the file's clock"""

    def at(self, times_s: Sequence[float] | np.ndarray) -> np.ndarray:
        """Positions of the frames on screen, by the definition in `video.decode`."""
        limits = np.asarray(times_s) + min(self.tick_s, 0.001)
        return np.maximum(np.searchsorted(self.times_s, limits, "right") - 1, 0)


def decode_all(path: Path) -> Reference:
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_type = "NONE"
        frames = list(container.decode(stream))
        tick = stream.time_base
        assert tick is not None
        times_s = np.array([float((frame.pts - frames[0].pts) * tick) for frame in frames])
        assert (np.diff(times_s) > 0).all()
        return Reference(times_s, [frame.to_ndarray(format="rgb24") for frame in frames], float(tick))
