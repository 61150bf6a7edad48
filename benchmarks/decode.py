"""Measures getting 16 frames of a 2.5 s segment out of a long video: `decode_at` against other ways, in one run.

Run as `python benchmarks/decode.py [--video FILE]`: prints one JSON object with the machine. Without a file it encodes
three minutes of 640x360 H.264 at 50 fps with a keyframe every 250 frames (about a minute). All ways take turns on each
clip, with one decoding thread; clips per processor second count, since other processes on the machine do not change
them much. `other_frames` is the share of frames that are not those of `decode_every_frame`.
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import av
import numpy as np

os.environ.setdefault("OPENCV_FFMPEG_CAPTURE_OPTIONS", "threads;1")  # before cv2 is imported
import cv2

from egochef.bench.ways import opencv_decoder
from egochef.data.sampling import centre_times
from egochef.runtime import describe_machine
from egochef.video.decode import decode_at, probe

FPS, GOP, SECONDS, WIDTH_PX, HEIGHT_PX = 50, 250, 180, 640, 360
NUM_FRAMES, SPAN_S = 16, 2.5
WARM_UP_CLIPS, MEMORY_CLIPS = 20, 200

Decoder = Callable[[str, np.ndarray], np.ndarray]


def main() -> None:
    """Print the numbers."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--video", type=Path, help="an existing video instead of one made here")
    parser.add_argument("--clips", type=int, default=40, help="clips for each way")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = args.video or make_video(Path(folder) / "long.mp4")
        machine = describe_machine() | {"load_average": round(os.getloadavg()[0], 2)}
        speed = measure(str(path), args.clips)
        memory = memory_over_many_clips(str(path))
        print(json.dumps({"machine": machine, "video": describe(path), **speed, "memory": memory}, indent=1))


def make_video(path: Path) -> Path:
    """A camera that swings over a texture, with things moving before it and a sensor's noise."""
    rng = np.random.default_rng(0)
    texture = np.zeros((1200, 2000, 3), np.float32)
    for size in (4, 16, 64, 256):
        coarse = rng.normal(size=(1200 // size + 2, 2000 // size + 2, 3)).astype(np.float32)
        texture += cv2.resize(coarse, (2000, 1200), interpolation=cv2.INTER_CUBIC) * size**0.35
    picture = np.clip(128 + texture * 18, 0, 255).astype(np.uint8)
    noise = rng.normal(0, 3, (8, HEIGHT_PX, WIDTH_PX, 1)).astype(np.float32)
    options = {"preset": "veryfast", "crf": "23", "g": str(GOP), "sc_threshold": "0"}
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS, options=options)
        stream.width, stream.height, stream.pix_fmt = WIDTH_PX, HEIGHT_PX, "yuv420p"
        for number in range(FPS * SECONDS):
            t = number / FPS
            x, y = 650 + 500 * np.sin(0.9 * t) + 60 * np.sin(5 * t), 400 + 300 * np.sin(0.7 * t + 1)
            turn = np.array([[1, 0.03 * np.sin(t), x], [-0.03 * np.sin(t), 1, y]])
            flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
            frame = cv2.warpAffine(picture, turn, (WIDTH_PX, HEIGHT_PX), flags=flags)
            for k, colour in enumerate([(180, 140, 110), (90, 60, 200), (220, 220, 210)]):
                centre = int(320 + 200 * np.sin(t * (1.3 + k) + k)), int(200 + 100 * np.cos(t * (1.7 + k)))
                cv2.ellipse(frame, centre, (60, 30), t * 90 * (k + 1), 0, 360, colour, -1)
            frame = np.clip(frame + noise[number % 8], 0, 255).astype(np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))
    return path


def describe(path: Path) -> dict[str, object]:
    info = probe(path)
    return {
        "size_px": [info.width_px, info.height_px],
        "fps": info.average_fps,
        "duration_s": info.duration_s,
        "codec": info.codec,
        "file_bytes": path.stat().st_size,
    }


# The ways: all take (path, times (T,)) and return (T, H, W, 3) uint8 RGB


def with_decode_at(path: str, times_s: np.ndarray) -> np.ndarray:
    return decode_at(path, times_s).frames


def decode_every_frame(path: str, times_s: np.ndarray) -> np.ndarray:
    """The reference: seek to the keyframe before, decode on, make an RGB picture of every frame."""
    shown_s, pictures = [], []
    for frame in _decode_from(path, times_s[0]):
        shown_s.append(frame.time)
        pictures.append(frame.to_ndarray(format="rgb24"))
        if frame.time > times_s[-1]:
            break
    places = np.searchsorted(shown_s, times_s + 1e-4, "right") - 1
    return np.stack([pictures[place] for place in places])


def decode_without_pictures(path: str, times_s: np.ndarray) -> np.ndarray:
    """What decoding alone costs, every frame and nothing made of it."""
    for frame in _decode_from(path, times_s[0]):
        if frame.time > times_s[-1]:
            break
    return np.empty(0, np.uint8)


def _decode_from(path: str, time_s: float) -> Iterator[av.VideoFrame]:
    with av.open(path) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_type, stream.codec_context.thread_count = "NONE", 1
        container.seek(int(time_s * av.time_base))
        yield from container.decode(stream)


def opencv_seek_each(path: str, times_s: np.ndarray) -> np.ndarray:
    """OpenCV, seeking to each time."""
    capture = cv2.VideoCapture(path, cv2.CAP_FFMPEG)
    fps, pictures = capture.get(cv2.CAP_PROP_FPS), []
    for place in (times_s * fps).astype(int):
        capture.set(
            cv2.CAP_PROP_POS_MSEC, 1000 * place / fps
        )  # it rounds: a time between two frames may give the later
        pictures.append(cv2.cvtColor(capture.read()[1], cv2.COLOR_BGR2RGB))
    capture.release()
    return np.stack(pictures)


def opencv_seek_once(path: str, times_s: np.ndarray) -> np.ndarray:
    """OpenCV, seeking to the first time and grabbing on from there, frame by frame."""
    return opencv_decoder()(Path(path), times_s)


WAYS: dict[str, Decoder] = {
    f.__name__: f
    for f in (with_decode_at, decode_every_frame, decode_without_pictures, opencv_seek_each, opencv_seek_once)
}


def measure(path: str, num_clips: int) -> dict[str, object]:
    """Clips a second for each way on the same clips, taking turns."""
    duration_s = probe(path).duration_s or 0.0
    starts_s = np.random.default_rng(0).uniform(0.1 * duration_s, 0.9 * duration_s - SPAN_S, num_clips)
    wall_s = dict.fromkeys(WAYS, 0.0)
    cpu_s = dict.fromkeys(WAYS, 0.0)
    num_other = dict.fromkeys(WAYS, 0)
    for start_s in starts_s:
        times_s = centre_times(start_s, start_s + SPAN_S, NUM_FRAMES)
        reference = decode_every_frame(path, times_s)
        for name, decode in WAYS.items():
            wall, cpu = time.perf_counter(), time.process_time()
            frames = decode(path, times_s)
            wall_s[name] += time.perf_counter() - wall
            cpu_s[name] += time.process_time() - cpu
            if len(frames):  # OpenCV rounds colours a little differently
                distance = np.abs(frames.astype(np.int16) - reference).mean(axis=(1, 2, 3))
                num_other[name] += int((distance > 2).sum())
    ways = {
        name: {
            "clips_per_cpu_s": round(num_clips / cpu_s[name], 2),
            "cpu_ms_per_clip": round(1000 * cpu_s[name] / num_clips, 1),
            "wall_ms_per_clip": round(1000 * wall_s[name] / num_clips, 1),
            "other_frames": round(num_other[name] / num_clips / NUM_FRAMES, 3),
        }
        for name in WAYS
    }
    ratios = {name: round(cpu_s[name] / cpu_s["with_decode_at"], 2) for name in WAYS if name != "with_decode_at"}
    clip = {"num_frames": NUM_FRAMES, "span_s": SPAN_S, "num_clips": num_clips}
    return {"clip": clip, "ways": ways, "decode_at_is_faster_by": ratios}


def memory_over_many_clips(path: str) -> dict[str, float]:
    """Resident memory after a warm-up and after many clips more, MiB."""
    rng = np.random.default_rng(1)
    duration_s = probe(path).duration_s or 0.0

    def decode(num_clips: int) -> float:
        for start_s in rng.uniform(0, duration_s - SPAN_S, num_clips):
            decode_at(path, centre_times(start_s, start_s + SPAN_S, NUM_FRAMES))
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return round(pages * os.sysconf("SC_PAGE_SIZE") / 2**20, 1)

    return {"num_clips": MEMORY_CLIPS, "before_mib": decode(WARM_UP_CLIPS), "after_mib": decode(MEMORY_CLIPS)}


if __name__ == "__main__":
    main()
