"""Writing H.264: what PyAV reads back is what was given."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from egochef.errors import InputError
from egochef.video.encode import EncodeSpec, write_video


def pictures(number: int, height: int = 96, width: int = 128) -> list[np.ndarray]:
    """Smooth colours with a square that moves."""
    ramp = np.linspace(40, 200, width, dtype=np.uint8)
    frames = []
    for i in range(number):
        frame = np.stack(
            [np.tile(ramp, (height, 1)), np.full((height, width), 90 + 3 * i), np.full((height, width), 120)], -1
        )
        frame[20:40, 8 + 2 * i : 28 + 2 * i] = (220, 40, 30)
        frames.append(frame.astype(np.uint8))
    return frames


def read(path: Path) -> tuple[av.VideoStream, list[av.VideoFrame]]:
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        return stream, list(container.decode(stream))


@pytest.mark.parametrize("rate", [Fraction(60000, 1001), Fraction(50), Fraction(25)])
@pytest.mark.parametrize("preset", ["ultrafast", "veryfast"])
def test_constant_rate(tmp_path: Path, rate: Fraction, preset: str):
    path = tmp_path / "video.MP4"
    frames = pictures(20)
    with write_video(path, rate=rate, spec=EncodeSpec(preset=preset, crf=12, gop=8)) as writer:
        for frame in frames:
            writer.add(frame)
    stream, decoded = read(path)
    assert stream.codec_context.name == "h264" and stream.codec_context.pix_fmt == "yuv420p"
    assert stream.average_rate == rate and stream.frames == 20
    np.testing.assert_allclose([frame.time for frame in decoded], np.arange(20) / float(rate), atol=1e-4)
    assert [i for i, frame in enumerate(decoded) if frame.key_frame] == [0, 8, 16]
    for given, back in zip(frames, decoded, strict=True):
        assert np.abs(back.to_ndarray(format="rgb24").astype(int) - given).mean() < 4


def test_times_of_its_own(tmp_path: Path):
    path, times = tmp_path / "video.mp4", [0.0, 0.04, 0.1, 0.5, 0.52, 2.0]
    with write_video(path) as writer:
        for frame, time_s in zip(pictures(6), times, strict=True):
            writer.add(frame, time_s)
    _, decoded = read(path)
    np.testing.assert_allclose([frame.time for frame in decoded], times, atol=1e-4)


def test_odd_sizes_grow_by_their_edge(tmp_path: Path):
    path = tmp_path / "video.mp4"
    with write_video(path, rate=Fraction(30), spec=EncodeSpec(crf=5)) as writer:
        for frame in pictures(3, 97, 129):
            writer.add(frame)
    _, decoded = read(path)
    assert (decoded[0].height, decoded[0].width) == (98, 130)
    back = decoded[0].to_ndarray(format="rgb24").astype(int)
    assert np.abs(back[:97, :129] - pictures(1, 97, 129)[0]).mean() < 4
    assert np.abs(back[97] - back[96]).mean() < 4


def test_colours_keep_their_values(tmp_path: Path):
    path = tmp_path / "video.mp4"
    colours = [(255, 255, 255), (0, 0, 0), (200, 30, 30), (30, 180, 60), (40, 60, 210)]
    with write_video(path, rate=Fraction(10), spec=EncodeSpec(crf=3)) as writer:
        for colour in colours:
            writer.add(np.full((64, 64, 3), colour, np.uint8))
    _, decoded = read(path)
    for colour, frame in zip(colours, decoded, strict=True):
        np.testing.assert_allclose(frame.to_ndarray(format="rgb24").mean((0, 1)), colour, atol=3)


def test_one_thread_gives_the_same_bytes(tmp_path: Path):
    for name in "ab":
        with write_video(tmp_path / f"{name}.mp4", rate=Fraction(50), spec=EncodeSpec(num_threads=1)) as writer:
            for frame in pictures(30):
                writer.add(frame)
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()


def test_a_fault_leaves_nothing(tmp_path: Path):
    with pytest.raises(RuntimeError, match="mine"), write_video(tmp_path / "video.mp4", rate=Fraction(50)) as writer:
        writer.add(pictures(1)[0])
        raise RuntimeError("mine")
    assert list(tmp_path.iterdir()) == []


def test_an_earlier_file_stays_until_the_new_one_is_whole(tmp_path: Path):
    path = tmp_path / "video.mp4"
    path.write_bytes(b"old")
    with pytest.raises(ValueError, match="at least one frame"), write_video(path, rate=Fraction(50)):
        pass
    assert path.read_bytes() == b"old"


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (np.zeros((64, 64), np.uint8), "shape"),
        (np.zeros((64, 64, 3), np.float32), "float32"),
        (np.zeros((64, 62, 3), np.uint8), "the ones before"),
    ],
)
def test_wrong_frames_are_refused(tmp_path: Path, frame: np.ndarray, message: str):
    with pytest.raises(ValueError, match=message), write_video(tmp_path / "v.mp4", rate=Fraction(50)) as writer:
        writer.add(np.zeros((64, 64, 3), np.uint8))
        writer.add(frame)


def test_times_must_rise_and_fit_the_rate(tmp_path: Path):
    frame = pictures(1)[0]
    with pytest.raises(ValueError, match="does not come after"), write_video(tmp_path / "a.mp4") as writer:
        writer.add(frame, 0.5)
        writer.add(frame, 0.5)
    with pytest.raises(ValueError, match="exactly one"), write_video(tmp_path / "b.mp4") as writer:
        writer.add(frame)
    with pytest.raises(ValueError, match="exactly one"), write_video(tmp_path / "c.mp4", rate=Fraction(50)) as writer:
        writer.add(frame, 0.0)


def test_wrong_settings_are_named(tmp_path: Path):
    with pytest.raises(InputError, match="preset is 'warp'"):
        EncodeSpec(preset="warp")
    with pytest.raises(InputError, match="crf is 99"):
        EncodeSpec(crf=99)
    with pytest.raises(InputError, match="rate"), write_video(tmp_path / "v.mp4", rate=Fraction(0)):
        pass
    with pytest.raises(InputError, match=r"suffix '\.xyz'"), write_video(tmp_path / "v.xyz", rate=Fraction(50)):
        pass
    assert list(tmp_path.iterdir()) == []
