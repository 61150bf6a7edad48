"""Exactness of decoding by time, against pixels that carry the frame's number and against decoding everything."""

import ctypes
import subprocess
import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from conftest import need
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numbered import B_FRAMES, Reference, decode_all, numbered_picture, read_number, remux, write_numbered

from egochef.video import reader as reader_module
from egochef.video.decode import DecodedFrames, VideoError, decode_at, iter_frames, probe

NTSC = Fraction(60000, 1001)
RATES = [pytest.param(r, g, id=f"{float(r):.4g}fps-gop{g}") for r in (25, 50, NTSC) for g in (12, 250)]
Maker = Callable[..., tuple[Path, Reference]]


@pytest.fixture(scope="session")
def make(tmp_path_factory: pytest.TempPathFactory) -> Maker:
    """Encode a video once, whoever asks; with it comes the reference."""
    made: dict[str, tuple[Path, Reference]] = {}

    def once(name: str, *args: object, **kwargs: object) -> tuple[Path, Reference]:
        key = f"{name} {args} {kwargs}"
        if key not in made:
            path = write_numbered(tmp_path_factory.mktemp("videos") / name, *args, **kwargs)  # type: ignore[arg-type]
            made[key] = path, decode_all(path)
        return made[key]

    return once


def check(path: Path, reference: Reference, times_s: list[float] | np.ndarray, **kwargs: int) -> DecodedFrames:
    decoded = decode_at(path, times_s, **kwargs)
    places = reference.at(times_s)
    np.testing.assert_array_equal(decoded.times_s, reference.times_s[places])
    for picture, place in zip(decoded.frames, places, strict=True):
        np.testing.assert_array_equal(picture, reference.frames[place])
    return decoded


@pytest.mark.parametrize(("rate", "gop"), RATES)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_times_in_any_order_give_the_frames_on_screen(
    make: Maker, rate: Fraction, gop: int, data: st.DataObject
) -> None:
    path, reference = make("rate.mp4", 260, fps=rate, options={"g": str(gop), **B_FRAMES})
    end_s = reference.times_s[-1]
    anywhere = st.floats(-1.0, end_s + 0.9)
    on_a_frame = st.sampled_from(reference.times_s.tolist())
    times_s = data.draw(st.lists(anywhere | on_a_frame, min_size=1, max_size=20))
    decoded = check(path, reference, times_s)
    assert decoded.frames.shape == (len(times_s), 64, 64, 3) and decoded.frames.dtype == np.uint8
    numbers = [read_number(picture) for picture in decoded.frames]
    assert numbers == [min(max(int(np.floor(t * rate + 0.01)), 0), 259) for t in times_s] or any(
        abs(t * rate - round(t * rate)) < 0.02
        for t in times_s  # so near a change that the tolerance decides
    )


KINDS = {
    "open-gop.mp4": {"options": {"g": "12", **B_FRAMES, "x264-params": "open-gop=1"}},
    "pyramid.mov": {"options": {"g": "60", "bf": "8", "b-adapt": "0", "refs": "8"}},
    "intra.mp4": {"options": {"g": "1"}},
    "intra-refresh.mp4": {"options": {"g": "30", "intra-refresh": "1"}},
    "interlaced.mp4": {"options": {"g": "30", **B_FRAMES, "x264-params": "tff=1"}},
    "fragments.mp4": {
        "options": {"g": "12", **B_FRAMES},
        "container_options": {"movflags": "frag_keyframe+empty_moov"},
    },
    "no-edit-list.mp4": {"options": {"g": "12", **B_FRAMES}, "container_options": {"use_editlist": "0"}},
    "h264.mkv": {"options": {"g": "12", **B_FRAMES}},
    "h264.ts": {"options": {"g": "12", **B_FRAMES}},
    "h264.flv": {"options": {"g": "12", **B_FRAMES}},
    "hevc.mp4": {
        "codec": "libx265",
        "options": {"x265-params": "keyint=24:bframes=4:log-level=none:temporal-layers=3"},
    },
    "mpeg4.avi": {"codec": "mpeg4", "options": {"g": "12", "bf": "2"}},
    "mpeg2.ts": {"codec": "mpeg2video", "options": {"g": "12", "bf": "2"}},
    "vp9.webm": {"codec": "libvpx-vp9", "options": {"g": "24", "lag-in-frames": "12", "cpu-used": "8"}},
    "still.gif": {"codec": "gif", "pixel_format": "rgb8"},
    "raw.mjpeg": {"codec": "mjpeg", "pixel_format": "yuvj420p"},
}


@pytest.mark.parametrize("num_threads", [1, 2])
@pytest.mark.parametrize("name", KINDS)
def test_kinds_of_files(make: Maker, monkeypatch: pytest.MonkeyPatch, name: str, num_threads: int) -> None:
    monkeypatch.setattr(reader_module, "JUMP_S", 0.5)  # seek also where one would read on in such a short file
    path, reference = make(name, 97, **KINDS[name])
    rng = np.random.default_rng(0)
    end_s = reference.times_s[-1]
    for begin_s in (0.0, 0.7, 1.9, 3.0):
        check(path, reference, np.sort(rng.uniform(begin_s, begin_s + 0.5, 8)), num_threads=num_threads)
    check(path, reference, rng.uniform(-0.2, end_s + 0.5, 12), num_threads=num_threads)
    check(path, reference, rng.choice(reference.times_s, 12), num_threads=num_threads)
    assert [t for t, _ in iter_frames(path, num_threads=num_threads)] == reference.times_s.tolist()


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_variable_rate(make: Maker, data: st.DataObject) -> None:
    gaps_ms = np.random.default_rng(1).choice([7, 16, 17, 33, 40, 250, 900], 120)
    ticks = tuple(int(t) for t in np.cumsum(gaps_ms))
    path, reference = make("vfr.mp4", 120, ticks=ticks, options={"g": "30", **B_FRAMES})
    assert np.unique(np.diff(reference.times_s).round(3)).size > 5
    times_s = data.draw(st.lists(st.floats(0, float(reference.times_s[-1])), min_size=1, max_size=12))
    decoded = check(path, reference, times_s)
    starts_s = (np.array(ticks) - ticks[0]) / 1000
    for time_s, picture in zip(times_s, decoded.frames, strict=True):
        if np.abs(starts_s - time_s).min() > 0.002:
            assert read_number(picture) == np.searchsorted(starts_s, time_s, "right") - 1


@pytest.mark.parametrize("shift", [512 * 40, 512 * 40 + 100, -512 * 40], ids=["edit-list", "between-frames", "late"])
def test_time_zero_is_the_first_displayed_frame(make: Maker, tmp_path: Path, shift: int) -> None:
    source, _ = make("source.mp4", 100, options={"g": "25", **B_FRAMES})
    path = remux(source, tmp_path / "moved.mp4", -shift)
    reference = decode_all(path)
    first = 100 - len(reference.frames)
    assert first == (max(shift, 0) + 511) // 512
    decoded = check(path, reference, [0.0, 0.5, 1.3, -2.0])
    assert [read_number(p) for p in decoded.frames] == [first, first + 12, first + 32, first]


def test_a_frame_time_that_was_rounded_still_means_its_frame(make: Maker) -> None:
    path, reference = make("ntsc.mkv", 120, fps=NTSC, options={"g": "30"})  # Matroska rounds to milliseconds
    exact_s = np.arange(120) / float(NTSC)
    assert [read_number(p) for p in decode_at(path, exact_s).frames] == list(range(120))
    assert np.abs(reference.times_s - exact_s).max() > 1e-4


def test_order_and_repeats_are_those_of_the_question(make: Maker) -> None:
    path, _ = make("rate.mp4", 260, fps=25, options={"g": "250", **B_FRAMES})
    decoded = decode_at(path, [8.0, 0.0, 8.0, 4.0, 0.01])
    assert [read_number(p) for p in decoded.frames] == [200, 0, 200, 100, 0]
    np.testing.assert_allclose(decoded.times_s, [8.0, 0.0, 8.0, 4.0, 0.0], atol=1e-9)


def test_no_packet_is_decoded_twice_and_gaps_are_jumped(make: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[tuple[int, bool]] = []
    real = reader_module.Reader.decode

    def spy(self: reader_module.Reader, packet: av.Packet | None, skip: bool = False) -> list[av.VideoFrame]:
        if packet is not None:
            sent.append((packet.pts or 0, skip))
        return real(self, packet, skip)

    monkeypatch.setattr(reader_module.Reader, "decode", spy)
    path, _ = make("rate.mp4", 260, fps=25, options={"g": "12", **B_FRAMES})
    assert [read_number(p) for p in decode_at(path, [0.2, 9.9, 4.0, 4.04]).frames] == [5, 247, 100, 101]
    assert len({pts for pts, _ in sent}) == len(sent) <= 3 * 16, "three groups of pictures at most"

    sent.clear()
    path, _ = make("rate.mp4", 260, fps=25, options={"g": "250", **B_FRAMES})
    decode_at(path, np.linspace(4, 6, 9))
    assert len({pts for pts, _ in sent}) == len(sent) <= 156
    assert sum(skip for _, skip in sent) > 50, "frames that nobody needs are not decoded"


def test_beyond_the_end(make: Maker) -> None:
    path, _ = make("source.mp4", 100, options={"g": "25", **B_FRAMES})  # ends at 4.0 s
    decoded = decode_at(path, [3.9, 4.5, 60.0])
    assert [read_number(p) for p in decoded.frames] == [97, 99, 99]
    np.testing.assert_allclose(decoded.times_s, [3.88, 3.96, 3.96])
    assert read_number(decode_at(path, [4.9]).frames[0]) == 99
    with pytest.raises(VideoError, match=r"source\.mp4: asked for 5\.100 s, but it ends at 4\.000 s"):
        decode_at(path, [5.1, 7.0])
    with pytest.raises(VideoError, match="ends at 4.000 s"):
        decode_at(path, [1e300])


@pytest.mark.parametrize("times_s", [[], [[1.0]], [np.nan], [0.0, np.inf]])
def test_times_that_are_none(make: Maker, times_s: list[float]) -> None:
    path, _ = make("source.mp4", 100, options={"g": "25", **B_FRAMES})
    with pytest.raises(VideoError, match="finite number of seconds"):
        decode_at(path, times_s)


@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
@pytest.mark.parametrize("mirrored", [False, True])
def test_frames_come_upright(tmp_path: Path, degrees: int, mirrored: bool) -> None:
    # The matrix turns the stored picture counterclockwise, then mirrors the result.
    path = write_numbered(tmp_path / "turned.mp4", 9, size_px=(96, 64), rotation=(degrees, mirrored, False))
    stored = decode_all(path).frames
    want = [np.rot90(p, degrees // 90)[:, :: -1 if mirrored else 1] for p in stored]
    decoded = decode_at(path, [0.0, 0.2])
    np.testing.assert_array_equal(decoded.frames, np.stack([want[0], want[5]]))
    info = probe(path)
    assert (info.height_px, info.width_px) == decoded.frames.shape[1:3]
    if not mirrored:
        assert info.rotation == -degrees % 360


MATRICES = {1: (0.2126, 0.0722), 6: (0.299, 0.114), 2: (0.299, 0.114), 9: (0.2627, 0.0593)}


@pytest.mark.parametrize("full_range", [False, True])
@pytest.mark.parametrize("matrix", MATRICES, ids={1: "bt709", 6: "bt601", 2: "none", 9: "bt2020"}.get)
def test_colours_follow_the_matrix_and_range_of_the_stream(tmp_path: Path, matrix: int, full_range: bool) -> None:
    path = tmp_path / "colour.mp4"
    colours = [(60, 100, 180), (120, 160, 90), (200, 128, 128), (40, 120, 140)]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"qp": "0"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.colorspace = matrix
        stream.codec_context.color_range = 2 if full_range else 1
        for colour in colours:
            frame = av.VideoFrame(64, 48, "yuv420p")
            frame.colorspace, frame.color_range = matrix, 2 if full_range else 1
            for plane, value in zip(frame.planes, colour, strict=True):
                plane.update(bytes([value]) * plane.buffer_size)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    decoded = decode_at(path, np.arange(4) / 25).frames
    red, blue = MATRICES[matrix]
    for picture, (y, cb, cr) in zip(decoded, colours, strict=True):
        luma, scale = (y / 255, 255) if full_range else ((y - 16) / 219, 224)
        r = luma + 2 * (1 - red) * (cr - 128) / scale
        b = luma + 2 * (1 - blue) * (cb - 128) / scale
        g = (luma - red * r - blue * b) / (1 - red - blue)
        want = np.clip(np.array([r, g, b]) * 255, 0, 255)
        assert np.abs(picture[20, 30] - want).max() <= 3, (picture[20, 30], want)


def test_probe(make: Maker) -> None:
    path, _ = make("rate.mp4", 260, fps=NTSC, options={"g": "12", **B_FRAMES})
    info = probe(path)
    assert (info.width_px, info.height_px, info.rotation, info.codec) == (64, 64, 0, "h264")
    assert info.duration_s == pytest.approx(260 / NTSC, abs=1e-3) and info.average_fps == pytest.approx(float(NTSC))


def test_a_stream_that_changes_its_size_is_refused(tmp_path: Path) -> None:
    sources = [tmp_path / "small.ts", tmp_path / "large.ts"]
    for source, size_px in zip(sources, [(64, 64), (128, 96)], strict=True):
        write_numbered(source, 30, options={"g": "10"}, size_px=size_px)
    path = tmp_path / "both.ts"
    with av.open(str(path), "w") as container, av.open(str(sources[0])) as first, av.open(str(sources[1])) as second:
        stream = container.add_stream_from_template(first.streams.video[0])
        for number, source in enumerate((first, second)):
            for packet in source.demux(video=0):
                if packet.pts is not None and packet.dts is not None:
                    packet.pts, packet.dts = packet.pts + 108000 * number, packet.dts + 108000 * number  # 1.2 s
                    packet.stream = stream
                    container.mux(packet)
    assert read_number(decode_at(path, [0.5]).frames[0]) == 12
    for read in (lambda: list(iter_frames(path)), lambda: decode_at(path, [0.5, 1.6])):
        with pytest.raises(
            VideoError, match=r"both\.ts: its picture size changes from \(64, 64, 3\) to \(96, 128, 3\)"
        ):
            read()


# iter_frames


def test_iterating_gives_each_frame_once(make: Maker) -> None:
    path, reference = make("source.mp4", 100, options={"g": "25", **B_FRAMES})
    given = list(iter_frames(path))
    assert [t for t, _ in given] == reference.times_s.tolist()
    for (_, picture), want in zip(given, reference.frames, strict=True):
        np.testing.assert_array_equal(picture, want)


@pytest.mark.parametrize(
    ("start_s", "stop_s", "numbers"),
    [
        (1.0, 2.0, range(25, 50)),
        (0.99, 1.05, [24, 25, 26]),
        (3.9, None, [97, 98, 99]),
        (-3, 0.05, [0, 1]),
        (3.9, 99, [97, 98, 99]),
    ],
)
def test_iterating_a_span(make: Maker, start_s: float, stop_s: float | None, numbers: range | list[int]) -> None:
    path, _ = make("source.mp4", 100, options={"g": "25", **B_FRAMES})
    assert [read_number(p) for _, p in iter_frames(path, start_s=start_s, stop_s=stop_s)] == list(numbers)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(start_s=st.floats(0, 3), span_s=st.floats(0.05, 2), every_s=st.floats(0.005, 1))
def test_iterating_on_a_grid_is_decoding_at_its_times(
    make: Maker, start_s: float, span_s: float, every_s: float
) -> None:
    path, _ = make("source.mp4", 100, options={"g": "25", **B_FRAMES})
    stop_s = min(start_s + span_s, 4.0)
    grid_s = start_s + every_s * np.arange(500)
    decoded = decode_at(path, grid_s[grid_s < stop_s - 1e-6 * every_s])
    given_ = list(iter_frames(path, start_s=start_s, stop_s=stop_s, every_s=every_s))
    assert [t for t, _ in given_] == decoded.times_s.tolist()
    np.testing.assert_array_equal(np.stack([p for _, p in given_]), decoded.frames)


def test_iterating_on_a_grid_ends_with_the_video(make: Maker) -> None:
    path, _ = make("source.mp4", 100, options={"g": "25", **B_FRAMES})  # 4.0 s
    assert [read_number(p) for _, p in iter_frames(path, every_s=0.5)] == [0, 12, 25, 37, 50, 62, 75, 87]
    assert len(list(iter_frames(path, every_s=0.01))) == 400, "a frame comes for each time that it is on screen"


def test_iterating_where_nothing_is(make: Maker) -> None:
    path, _ = make("source.mp4", 100, options={"g": "25", **B_FRAMES})
    with pytest.raises(VideoError, match=r"no frame in 7\.000 to 8\.000 s, it ends at 4\.0 s"):
        list(iter_frames(path, start_s=7.0, stop_s=8.0))
    for wrong in ({"start_s": 2.0, "stop_s": 2.0}, {"every_s": 0.0}, {"every_s": -1.0}, {"start_s": np.nan}):
        with pytest.raises(VideoError, match="expected start_s < stop_s and every_s > 0"):
            list(iter_frames(path, **wrong))


def test_memory_stays_flat_over_a_video_and_over_many_clips(tmp_path: Path) -> None:
    path = tmp_path / "large.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"preset": "ultrafast", "g": "50"})
        stream.width, stream.height, stream.pix_fmt = 640, 360, "yuv420p"
        pictures = [av.VideoFrame.from_ndarray(numbered_picture(n, 640, 360), format="rgb24") for n in range(4)]
        for number in range(200):
            pictures[number % 4].pts = None
            container.mux(stream.encode(pictures[number % 4]))
        container.mux(stream.encode(None))
    code = (
        "import gc, sys, resource\n"
        "from egochef.video.decode import decode_at, iter_frames\n"
        "gc.disable()\n"  # pictures must go when they are dropped, not when Python next looks for cycles
        "peak_mib = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024\n"
        "for k in range(3): decode_at(sys.argv[1], [k, k + 0.5, k + 1])\n"
        "before = peak_mib()\n"
        "assert sum(1 for _ in iter_frames(sys.argv[1])) == 200\n"
        "for k in range(30): decode_at(sys.argv[1], [k % 6, k % 6 + 0.5, k % 6 + 1])\n"
        "print(peak_mib() - before)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 16, "200 frames are 138 MB"


def test_a_clip_leaves_nothing_allocated(make: Maker) -> None:
    """Over the millions of clips of a training run every lost byte counts."""
    need(hasattr(ctypes.CDLL(None), "mallinfo2"), "glibc 2.33 or later, which counts what is allocated")
    path, _ = make("source.mp4", 100, options={"g": "25", **B_FRAMES})
    code = (
        "import ctypes, gc, sys\n"
        "from egochef.video.decode import decode_at\n"
        "class Info(ctypes.Structure):\n"
        "    _fields_ = [(str(n), ctypes.c_size_t) for n in range(10)]\n"  # the 5th and 8th are bytes in use
        "libc = ctypes.CDLL(None)\n"
        "libc.mallinfo2.restype = Info\n"
        "def in_use():\n"
        "    gc.collect()\n"
        "    info = libc.mallinfo2()\n"
        "    return getattr(info, '4') + getattr(info, '7')\n"
        "def decode(num_clips):\n"
        "    for k in range(num_clips): decode_at(sys.argv[1], [k % 3, k % 3 + 0.5])\n"
        "    return in_use()\n"
        "decode(500)\n"  # until what is kept for all of them is there
        "print(-decode(1) + decode(500))\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 500 * 40, "bytes a clip"
