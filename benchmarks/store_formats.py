"""Measures ways to keep decoded frames for training: the cost of 16 random frames of a random 2.5 s segment.

    python benchmarks/store_formats.py [--data ROOT] > benchmarks/results/store_formats.json

Without --data it draws a small toy kitchen. The same frames (shorter side 256) are stored as JPEG in tar shards with an
index, as short H.264 clips and as webdataset's samples, and read back as (T, H, W, 3) uint8 RGB; the videos themselves,
through `decode_at`, stand beside them. One process and one thread; the ways take turns, and medians over the rounds
count. Everything lies in the page cache, so that this is processor time alone: clips per processor second, which other
processes on the machine do not change much. "parts" has what a clip's reading is made of. Prints one JSON object.
webdataset and litdata are measured where they are installed (litdata imports without torchvision, which it asks for).
"""

import argparse
import importlib
import io
import json
import os
import statistics
import tarfile
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import torch
from PIL import Image
from torch.utils.data import default_collate

from egochef.clip import ClipSpec, Grid
from egochef.data.annotations import Segment, find_videos, open_data_folder, read_split
from egochef.data.sampling import candidate_times, jittered_places
from egochef.data.transforms import Augment, _resize, random_crop_box, train_crop
from egochef.runtime import describe_machine
from egochef.toykitchen import ToyConfig, draw_kitchen
from egochef.video.decode import decode_at, probe

NUM_FRAMES, SPAN_S, SHORT_PX = 16, 2.5, 256
QUALITIES = (75, 85, 90)
MAX_SEGMENTS = 32
CLIP_FPS, CLIP_GOP, CLIP_CRF = 25, 12, 23
BATCH_CLIPS = 8

Clips = Callable[[Sequence[int], np.random.Generator], Iterator[np.ndarray]]
"""a way to read: numbers of segments -> a clip (T, H, W, 3) uint8 RGB of each, in an order of its own if it must"""
DecodeJpeg = Callable[[bytes, np.ndarray], None]
"""a JPEG file -> into (H, W, 3) uint8 RGB"""


@dataclass(frozen=True)
class Stored:
    """Frames that were stored in one way."""

    clips: Clips
    bytes_a_clip: float
    """that must be read for a clip"""
    bytes_a_segment: float
    """on disk"""
    psnr_db: float | None
    """of all frames against the originals, None for the originals"""


def main() -> None:
    """Print the numbers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="a data folder in EK-100's layout")
    parser.add_argument("--rounds", type=int, default=21)
    args = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    machine = describe_machine() | {"load_average": round(os.getloadavg()[0], 2)}
    with tempfile.TemporaryDirectory() as temporary, ExitStack() as stack:
        data = args.data or draw_kitchen(Path(temporary, "kitchen"), ToyConfig(num_segments=40, segment_s=SPAN_S))
        source = Source(data)
        stored, shards, not_measured = store_all(source, Path(temporary), stack)
        result = {
            "machine": machine,
            "libraries": versions(),
            "source": source.describe(),
            "clip": {"num_frames": NUM_FRAMES, "span_s": SPAN_S, "rounds": args.rounds},
            "ways": measure(stored, len(source), args.rounds),
            "not_measured": not_measured,
            "parts": measure_parts(shards, source, args.rounds),
        }
        print(json.dumps(result, indent=1))


def optional(name: str) -> Any:
    """A library, None where it is not installed."""
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


def versions() -> dict[str, str]:
    known = {"av": av, "opencv": cv2} | {
        name: optional(name) for name in ("simplejpeg", "PIL", "webdataset", "litdata")
    }
    return {name: getattr(library, "__version__", "?") for name, library in known.items() if library}


class Source:
    """The frames that all ways store: spans of `SPAN_S` that begin with segments of a data folder's videos."""

    def __init__(self, data: Path) -> None:
        folder = open_data_folder(data)
        segments = [segment for split in ("train", "validation") for segment in read_split(folder, split)]
        self.videos = find_videos(folder, tuple(segments))
        self.info = {video_id: probe(path) for video_id, path in self.videos.items()}
        inside = [s for s in segments if s.start_s + SPAN_S <= (self.info[s.video_id].duration_s or 0)]
        inside.sort(key=lambda segment: (segment.video_id, segment.start_s))
        chosen = np.linspace(0, len(inside) - 1, min(MAX_SEGMENTS, len(inside))).round().astype(int)
        self.segments: list[Segment] = [inside[i] for i in chosen]
        self.times_s = [candidate_times(s.start_s, s.start_s + SPAN_S, Grid()) for s in self.segments]

    def __len__(self) -> int:
        return len(self.segments)

    def path(self, number: int) -> Path:
        return self.videos[self.segments[number].video_id]

    def frames(self, number: int) -> np.ndarray:
        """The candidates of a segment, (K, H, W, 3) with the shorter side as stored."""
        return self._shown(number, self.times_s[number])

    def dense_frames(self, number: int) -> np.ndarray:
        """A segment at `CLIP_FPS`."""
        times_s = self.segments[number].start_s + np.arange(round(SPAN_S * CLIP_FPS)) / CLIP_FPS
        return self._shown(number, times_s)

    def _shown(self, number: int, times_s: np.ndarray) -> np.ndarray:
        frames = decode_at(self.path(number), times_s).frames
        height, width = frames.shape[1:3]
        scale = SHORT_PX / min(height, width)
        return _resize(torch.from_numpy(frames), int(height * scale), int(width * scale)).contiguous().numpy()

    def clips(self, numbers: Sequence[int], rng: np.random.Generator) -> Iterator[np.ndarray]:
        for number in numbers:
            times_s = self.times_s[number]
            yield decode_at(self.path(number), times_s[jittered_places(len(times_s), NUM_FRAMES, rng)]).frames

    def describe(self) -> dict[str, object]:
        info = next(iter(self.info.values()))
        return {
            "num_segments": len(self),
            "frames_kept_a_segment": len(self.times_s[0]),
            "stored_size_px": list(self.frames(0).shape[2:0:-1]),
            "video_size_px": [info.width_px, info.height_px],
            "video_fps": sorted({round(i.average_fps or 0, 2) for i in self.info.values()}),
            "video_frames_a_key_frame": round(statistics.median(map(frames_a_key_frame, self.videos.values())), 1),
        }


def frames_a_key_frame(path: Path) -> float:
    with av.open(str(path)) as container:
        keys = [packet.is_keyframe for packet in container.demux(video=0) if packet.pts is not None]
    return len(keys) / sum(keys)


# Storing


def store_all(
    source: Source, folder: Path, stack: ExitStack
) -> tuple[dict[str, Stored], "dict[int, Shards]", dict[str, str]]:
    """Write the frames in all ways; also what could not be measured and why."""
    shards = {quality: stack.enter_context(Shards(folder / f"q{quality}", source, quality)) for quality in QUALITIES}
    stored = {}
    decoders = jpeg_decoders()
    for quality, shard in shards.items():
        for name, decode in decoders.items():
            stored[f"jpeg_q{quality}_{name}"] = shard.stored(decode)
    for tune in ("", "fastdecode"):
        name = f"h264_gop{CLIP_GOP}" + (f"_{tune}" if tune else "")
        stored[name] = store_h264(source, folder / name, tune)
    not_measured = {} if optional("simplejpeg") else {"simplejpeg": "not installed"}
    decode = decoders.get("simplejpeg", decoders["opencv"])
    if wds := optional("webdataset"):
        stored["webdataset_q90_file_a_frame"] = store_webdataset(wds, shards[90], folder / "wds", decode, joined=False)
        stored["webdataset_q90_file_a_segment"] = store_webdataset(wds, shards[90], folder / "wdj", decode, joined=True)
    else:
        not_measured["webdataset"] = "not installed"
    if litdata := optional("litdata"):
        stored["litdata_q90"] = store_litdata(litdata, shards[90], folder / "litdata", decode)
    else:
        not_measured["litdata"] = "not installed: it brings torchvision in, which this project does without"
    seconds = {video_id: info.duration_s or 1 for video_id, info in source.info.items()}
    rate = statistics.mean(source.videos[s.video_id].stat().st_size / seconds[s.video_id] for s in source.segments)
    stored["video_decode_at"] = Stored(source.clips, rate * SPAN_S, rate * SPAN_S, None)
    return stored, shards, not_measured


class Shards:
    """JPEG frames in plain tar files, one a video, and an index of offset, size and CRC-32 of each frame."""

    def __init__(self, folder: Path, source: Source, quality: int) -> None:
        folder.mkdir()
        self.index: list[np.ndarray] = []
        """of each segment (K, 3): offset, size, CRC-32"""
        squares = []
        with ExitStack() as stack:
            tars: dict[str, tarfile.TarFile] = {}
            for number, segment in enumerate(source.segments):
                if segment.video_id not in tars:
                    tars[segment.video_id] = stack.enter_context(tarfile.open(folder / f"{segment.video_id}.tar", "w"))
                tar, rows = tars[segment.video_id], []
                for place, frame in enumerate(source.frames(number)):
                    data = encode_opencv(frame, quality)
                    squares.append(mean_square(decode_opencv(data), frame))
                    member = tarfile.TarInfo(f"{segment.narration_id}/{place:03d}.jpg")
                    member.size = len(data)
                    rows.append((tar.offset + tarfile.BLOCKSIZE, len(data), zlib.crc32(data)))
                    tar.addfile(member, io.BytesIO(data))
                self.index.append(np.array(rows))
        self.shape = frame.shape
        self.psnr_db = psnr(squares)
        self.bytes_a_clip = NUM_FRAMES * float(np.concatenate(self.index)[:, 1].mean())
        self.num_bytes = sum(path.stat().st_size for path in folder.iterdir())
        self.open_fds = {video_id: os.open(folder / f"{video_id}.tar", os.O_RDONLY) for video_id in tars}
        self.fds = [self.open_fds[segment.video_id] for segment in source.segments]

    def __enter__(self) -> "Shards":
        return self

    def __exit__(self, *_: object) -> None:
        for fd in self.open_fds.values():
            os.close(fd)

    def read(self, number: int, place: int) -> bytes:
        """One JPEG file, checked."""
        offset, size, crc = (int(value) for value in self.index[number][place])
        data = os.pread(self.fds[number], size, offset)
        if len(data) != size or zlib.crc32(data) != crc:
            raise ValueError(f"segment {number}, frame {place}: its bytes are damaged")
        return data

    def read_all(self, number: int) -> list[bytes]:
        return [self.read(number, place) for place in range(len(self.index[number]))]

    def stored(self, decode: DecodeJpeg) -> Stored:
        def clips(numbers: Sequence[int], rng: np.random.Generator) -> Iterator[np.ndarray]:
            for number in numbers:
                places = jittered_places(len(self.index[number]), NUM_FRAMES, rng)
                yield decode_files([self.read(number, int(place)) for place in places], self.shape, decode)

        return Stored(clips, self.bytes_a_clip, self.num_bytes / len(self.index), self.psnr_db)


def encode_opencv(frame: np.ndarray, quality: int) -> bytes:
    """4:2:0, as its default is."""
    done, data = cv2.imencode(".jpg", cv2.cvtColor(frame, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])
    assert done
    return data.tobytes()


def decode_opencv(data: bytes) -> np.ndarray:
    picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
    assert picture is not None
    return picture


def jpeg_decoders() -> dict[str, DecodeJpeg]:
    def opencv(data: bytes, out: np.ndarray) -> None:
        out[:] = decode_opencv(data)

    def pillow(data: bytes, out: np.ndarray) -> None:
        out[:] = np.asarray(Image.open(io.BytesIO(data)))

    decoders: dict[str, DecodeJpeg] = {"opencv": opencv, "pillow": pillow}
    if library := optional("simplejpeg"):

        def simplejpeg(data: bytes, out: np.ndarray) -> None:
            library.decode_jpeg(data, buffer=out)

        decoders = {"simplejpeg": simplejpeg, **decoders}
    return decoders


def store_h264(source: Source, folder: Path, tune: str) -> Stored:
    """A short file a segment, all its frames at `CLIP_FPS`."""
    folder.mkdir()
    paths = [folder / f"{number}.mp4" for number in range(len(source))]
    options = {"preset": "veryfast", "crf": str(CLIP_CRF), "g": str(CLIP_GOP)} | ({"tune": tune} if tune else {})
    num_frames = round(SPAN_S * CLIP_FPS)
    squares = []
    for number, path in enumerate(paths):
        frames = source.dense_frames(number)
        frames = frames[:, :, : frames.shape[2] // 2 * 2]  # yuv420p needs even ones
        with av.open(str(path), "w") as container:
            stream = container.add_stream("libx264", rate=CLIP_FPS, options=options)
            stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], "yuv420p"
            stream.codec_context.thread_count = 1
            for frame in frames:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
            container.mux(stream.encode(None))
        squares.append(mean_square(decode_places(path, np.arange(num_frames)), frames))

    def clips(numbers: Sequence[int], rng: np.random.Generator) -> Iterator[np.ndarray]:
        for number in numbers:
            yield decode_places(paths[number], jittered_places(num_frames, NUM_FRAMES, rng))

    size = statistics.mean(path.stat().st_size for path in paths)
    return Stored(clips, size, size, psnr(squares))


def decode_places(path: Path, places: np.ndarray) -> np.ndarray:
    """Frames of a short file by their numbers; `decode_at` is PyAV with one thread, and faster than its to_ndarray."""
    return decode_at(path, (places + 0.5) / CLIP_FPS).frames


def store_webdataset(wds: Any, shards: Shards, folder: Path, decode: DecodeJpeg, *, joined: bool) -> Stored:
    """A sample a segment, with a member a frame or one member of all frames; read in the library's own order."""
    folder.mkdir()
    num_shards = len(shards.open_fds)
    for shard, numbers in enumerate(np.array_split(np.random.default_rng(0).permutation(len(shards.fds)), num_shards)):
        with wds.TarWriter(str(folder / f"{shard:03d}.tar")) as writer:
            for number in numbers.tolist():
                files = shards.read_all(number)
                sample: dict[str, object] = {f"{place:03d}.jpg": data for place, data in enumerate(files)}
                if joined:
                    sample = {"jpegs": b"".join(files), "starts.npy": np.cumsum([0, *map(len, files)])}
                writer.write({"__key__": f"{number:06d}", **sample})
    paths = sorted(map(str, folder.glob("*.tar")))

    def clips(numbers: Sequence[int], rng: np.random.Generator) -> Iterator[np.ndarray]:
        dataset = wds.WebDataset(paths, shardshuffle=num_shards, empty_check=False).shuffle(len(shards.fds))
        for sample in dataset:
            if joined:
                starts = np.load(io.BytesIO(sample["starts.npy"]))
                yield decode_joined(sample["jpegs"], starts, shards.shape, decode, rng)
            else:
                files = [sample[name] for name in sorted(sample) if name.endswith(".jpg")]
                chosen = jittered_places(len(files), NUM_FRAMES, rng)
                yield decode_files([files[place] for place in chosen], shards.shape, decode)

    size = sum(Path(path).stat().st_size for path in paths) / len(shards.fds)
    return Stored(clips, size, size, shards.psnr_db)


def store_litdata(litdata: Any, shards: Shards, folder: Path, decode: DecodeJpeg) -> Stored:
    """A sample a segment, read in the library's own order."""
    cache = importlib.import_module("litdata.streaming.cache").Cache(str(folder), chunk_bytes="16MB")
    for number in range(len(shards.index)):
        files = shards.read_all(number)
        cache[number] = {"jpegs": b"".join(files), "starts": np.cumsum([0, *map(len, files)])}
    cache.done()
    cache.merge()
    dataset = litdata.StreamingDataset(str(folder), shuffle=True)

    def clips(numbers: Sequence[int], rng: np.random.Generator) -> Iterator[np.ndarray]:
        for sample in dataset:
            yield decode_joined(sample["jpegs"], sample["starts"], shards.shape, decode, rng)

    size = sum(path.stat().st_size for path in folder.iterdir()) / len(shards.index)
    return Stored(clips, shards.bytes_a_clip, size, shards.psnr_db)  # it maps its files: untouched bytes stay unread


def decode_joined(
    jpegs: bytes, starts: np.ndarray, shape: tuple[int, ...], decode: DecodeJpeg, rng: np.random.Generator
) -> np.ndarray:
    """A clip out of a segment's files that stand end to end."""
    chosen = jittered_places(len(starts) - 1, NUM_FRAMES, rng)
    return decode_files([bytes(jpegs[starts[place] : starts[place + 1]]) for place in chosen], shape, decode)


def decode_files(files: Sequence[bytes], shape: tuple[int, ...], decode: DecodeJpeg) -> np.ndarray:
    out = np.empty((len(files), *shape), np.uint8)
    for frame, data in zip(out, files, strict=True):
        decode(data, frame)
    return out


def mean_square(a: np.ndarray, b: np.ndarray) -> float:
    return float(((a.astype(np.float32) - b) ** 2).mean())


def psnr(squares: Sequence[float]) -> float:
    return 10 * float(np.log10(255**2 / np.mean(squares)))


# Measuring


def measure(stored: dict[str, Stored], num_segments: int, num_rounds: int) -> dict[str, dict[str, object]]:
    """A round is every segment once, in every way, the ways in random order; the first does not count."""
    cpu_s: dict[str, list[float]] = {name: [] for name in stored}
    for number in range(num_rounds + 1):
        order = np.random.default_rng((0, number)).permutation(num_segments).tolist()
        for name in np.random.default_rng((2, number)).permutation(list(stored)).tolist():
            way = stored[name]
            begun_s = time.process_time()
            num_clips = sum(len(clip) == NUM_FRAMES for clip in way.clips(order, np.random.default_rng((1, number))))
            if number:
                cpu_s[name].append(time.process_time() - begun_s)
            assert num_clips == num_segments, name
    medians = {name: statistics.median(values) for name, values in cpu_s.items()}
    return {
        name: {
            "clips_per_cpu_s": round(num_segments / medians[name], 1),
            "range": [round(num_segments / pick(cpu_s[name]), 1) for pick in (max, min)],
            "times_decode_at": round(medians["video_decode_at"] / medians[name], 1),
            "kb_a_clip": round(way.bytes_a_clip / 1000),
            "kb_a_segment": round(way.bytes_a_segment / 1000),
            "psnr_db": way.psnr_db and round(way.psnr_db, 1),
        }
        for name, way in stored.items()
    }


def measure_parts(shards: dict[int, Shards], source: Source, num_rounds: int) -> dict[str, object]:
    """Milliseconds of processor time, medians, taking turns."""
    rng = np.random.default_rng(2)
    frames = source.frames(0)[:: len(source.times_s[0]) // NUM_FRAMES][:NUM_FRAMES]  # (16, H, W, 3)
    files = [encode_opencv(frame, 90) for frame in frames]
    clip_ms = turns(clip_parts(shards[90], frames, files, rng), num_rounds)
    batch = [torch.from_numpy(np.ascontiguousarray(frames[:, :224, :224])) for _ in range(BATCH_CLIPS)]
    batch_ms = turns({f"collate_{BATCH_CLIPS}_clips_224": lambda: default_collate(batch)}, num_rounds)
    frame_ms, sizes = measure_encoding(frames, num_rounds)
    return {
        "ms_a_clip_of_16_q90": clip_ms,
        "ms_a_batch": batch_ms,
        "ms_a_frame_encoding_q90": frame_ms,
        "encoded_kb_a_frame": sizes,
        "simplejpeg_options": simplejpeg_options(frames, files),
    }


def turns(calls: dict[str, Callable[[], object]], num_rounds: int) -> dict[str, float]:
    """Median milliseconds of each call."""
    spent: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(3 * num_rounds + 1):
        for name, call in calls.items():
            begun_s = time.process_time()
            call()
            if number:
                spent[name].append(time.process_time() - begun_s)
    return {name: round(1000 * statistics.median(values), 3) for name, values in spent.items()}


def clip_parts(
    shards: Shards, frames: np.ndarray, files: list[bytes], rng: np.random.Generator
) -> dict[str, Callable[[], object]]:
    """Reading, decoding and cropping one clip."""
    num_segments, num_kept = len(shards.index), len(shards.index[0])
    clip, augment = ClipSpec(), Augment()
    out = np.empty_like(frames)

    def read() -> None:
        number = int(rng.integers(num_segments))
        for place in jittered_places(num_kept, NUM_FRAMES, rng):
            shards.read(number, int(place))

    def opencv(into: bool = False) -> None:
        for place, data in enumerate(files):
            picture = decode_opencv(data)
            if into:
                out[place] = picture

    def crop_opencv(method: int) -> np.ndarray:
        top, left, height, width = random_crop_box(frames.shape[1], frames.shape[2], augment, rng)
        size = (clip.image_size, clip.image_size)
        boxes = frames[:, top : top + height, left : left + width]
        return np.stack([cv2.resize(box, size, interpolation=method) for box in boxes])

    calls: dict[str, Callable[[], object]] = {
        "pread_and_crc32": read,
        "decode_opencv": opencv,
        "decode_opencv_and_copy_to_buffer": lambda: opencv(into=True),
        "train_crop_224": lambda: train_crop(frames, clip, augment, rng),
        "crop_opencv_area": lambda: crop_opencv(cv2.INTER_AREA),
        "crop_opencv_linear": lambda: crop_opencv(cv2.INTER_LINEAR),
    }
    if library := optional("simplejpeg"):

        def decode(into: bool = False, **options: Any) -> None:
            for place, data in enumerate(files):
                library.decode_jpeg(data, buffer=out[place] if into else None, **options)

        calls |= {
            "decode_simplejpeg": decode,
            "decode_simplejpeg_into_buffer": lambda: decode(into=True),
            "decode_simplejpeg_fastdct": lambda: decode(into=True, fastdct=True),
            "decode_simplejpeg_fastupsample": lambda: decode(into=True, fastupsample=True),
            "decode_simplejpeg_fast_both": lambda: decode(into=True, fastdct=True, fastupsample=True),
            "decode_simplejpeg_to_7_8": lambda: decode(min_height=frames.shape[1] * 7 // 8),
            "decode_simplejpeg_to_half": lambda: decode(min_height=frames.shape[1] // 2),
        }
    return calls


def measure_encoding(frames: np.ndarray, num_rounds: int) -> tuple[dict[str, float], dict[str, float]]:
    """Milliseconds and kilobytes a frame."""
    large = torch.from_numpy(cv2.resize(frames[0], (640, 360), interpolation=cv2.INTER_CUBIC))[None]
    data = encode_opencv(frames[0], 90)
    encoders: dict[str, Callable[[np.ndarray], bytes]] = {"encode_opencv": partial(encode_opencv, quality=90)}
    if library := optional("simplejpeg"):
        for sampling in ("420", "444"):
            encode = partial(library.encode_jpeg, quality=90, colorsubsampling=sampling)
            encoders[f"encode_simplejpeg_{sampling}"] = encode
    calls: dict[str, Callable[[], object]] = {name: partial(f, frames[0]) for name, f in encoders.items()}
    calls["resize_640x360_to_455x256"] = lambda: _resize(large, 256, 455)
    calls["crc32"] = lambda: zlib.crc32(data)
    sizes = {name: round(statistics.mean(len(f(frame)) for frame in frames) / 1000, 2) for name, f in encoders.items()}
    return turns(calls, num_rounds), sizes


def simplejpeg_options(frames: np.ndarray, files: list[bytes]) -> dict[str, object]:
    """PSNR of what the fast options give, and the size that scaled decoding gives."""
    library = optional("simplejpeg")
    if library is None:
        return {}
    options: dict[str, dict[str, bool]] = {
        "exact": {},
        "fastdct": {"fastdct": True},
        "fastupsample": {"fastupsample": True},
        "fast_both": {"fastdct": True, "fastupsample": True},
    }
    found: dict[str, object] = {}
    for name, option in options.items():
        pairs = zip(files, frames, strict=True)
        found[f"psnr_db_{name}"] = round(
            psnr([mean_square(library.decode_jpeg(data, **option), frame) for data, frame in pairs]), 2
        )
    picture = library.decode_jpeg(files[0])
    found["equal_to_opencv"] = bool((picture == decode_opencv(files[0])).all())
    found["equal_to_pillow"] = bool((picture == np.asarray(Image.open(io.BytesIO(files[0])))).all())
    found["shape_to_7_8"] = list(library.decode_jpeg(files[0], min_height=frames.shape[1] * 7 // 8).shape)
    return found


if __name__ == "__main__":
    main()
