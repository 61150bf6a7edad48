"""Ways to get the frames of segments that stand beside ours, each as a `data.frames.Frames`.

In: segments with their videos, or with a store and the folder of its pictures. Out: frames (T, H, W, 3) uint8 RGB. All
show the frame of a time that `video.decode` shows, and use one thread.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import av
import cv2
import numpy as np

from egochef.clip import Grid
from egochef.data.annotations import Segment, open_data_folder, read_split
from egochef.data.frames import Frames, VideoFrames, find_videos
from egochef.data.sampling import candidate_times
from egochef.data.store import StoreFrames, open_store
from egochef.data.transforms import Cut, cut_out
from egochef.errors import FrameError
from egochef.extras import need_extra

TOLERANCE_S = 1.5e-5
"""a frame that begins so little after a time is its frame: about a tick of a file's clock, as in `video.decode`"""

Decode = Callable[[Path, np.ndarray], np.ndarray]
"""a video and rising times (T,), seconds -> frames (T, H, W, 3) uint8 RGB"""


def open_segments(root: Path) -> tuple[Segment, ...]:
    """The segments of all splits of a data folder or store."""
    folder = open_data_folder(root)
    return tuple(segment for split in ("train", "validation", "test") for segment in read_split(folder, split))


def open_way(name: str, kitchen: Path, store: Path, pictures: Path, grid: Grid) -> tuple[tuple[Segment, ...], Frames]:
    """All segments of a kitchen, and their frames in one of the `WAYS`.

    Args:
        store: of the kitchen, with the same grid.
        pictures: the store's pictures, one file each.

    Raises:
        ExtraError: a library is missing.
    """
    segments = open_segments(kitchen)
    if name == "store":
        return segments, StoreFrames(open_store(store), segments)
    if name == "jpeg_folder":
        return segments, FolderFrames(StoreFrames(open_store(store), segments), pictures)
    videos = find_videos(open_data_folder(kitchen), segments)
    if name == "raw":
        return segments, VideoFrames(segments, videos, grid)
    return segments, DecodedFrames(segments, videos, grid, DECODERS[name]())


class DecodedFrames(VideoFrames):
    """Frames decoded from videos when they are asked for, by another decoder."""

    def __init__(self, segments: Sequence[Segment], videos: dict[str, Path], grid: Grid, decode: Decode):
        super().__init__(segments, videos, grid)
        self.decode = decode

    def read(self, segment: int, places: np.ndarray, cut: Cut | None = None) -> np.ndarray:
        times_s = candidate_times(self.start_s[segment], self.stop_s[segment], self.grid)
        frames = self.decode(self.paths[self.video[segment]], times_s[places])
        return cut_out(frames, cut) if cut else frames


def torchcodec_decoder() -> Decode:
    """torchcodec, which finds the frames by its own index of the file.

    Raises:
        ExtraError: it is not installed, or its libraries cannot be loaded.
    """
    need_extra("bench", "decoding with torchcodec and the system's FFmpeg libraries", ("torchcodec",))
    from torchcodec.decoders import VideoDecoder

    def decode(path: Path, times_s: np.ndarray) -> np.ndarray:
        decoder = VideoDecoder(str(path), num_ffmpeg_threads=1, seek_mode="exact", dimension_order="NHWC")
        return decoder.get_frames_played_at((times_s + TOLERANCE_S).tolist()).data.numpy()

    return decode


def opencv_decoder() -> Decode:
    """OpenCV, seeking to the first time and grabbing on from there, frame by frame."""

    def decode(path: Path, times_s: np.ndarray) -> np.ndarray:
        capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
        fps, pictures = capture.get(cv2.CAP_PROP_FPS), []
        places = ((times_s + TOLERANCE_S) * fps).astype(int)
        capture.set(cv2.CAP_PROP_POS_MSEC, 1000 * places[0] / fps)
        grabbed = places[0] - 1
        for place in places:
            while grabbed < place:
                capture.grab()
                grabbed += 1
            done, picture = capture.retrieve()
            if not done:
                raise FrameError(f"{path}: OpenCV gives no frame {place}")
            pictures.append(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB))
        capture.release()
        return np.stack(pictures)

    return decode


def pyav_seek_decoder() -> Decode:
    """PyAV as one first writes it: for every time, seek to the keyframe before it and decode up to it."""

    def decode(path: Path, times_s: np.ndarray) -> np.ndarray:
        pictures = []
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            stream.codec_context.thread_type, stream.codec_context.thread_count = "NONE", 1
            length_s = 1 / float(stream.average_rate or 1)
            for time_s in times_s + TOLERANCE_S:
                container.seek(int(time_s * av.time_base))
                shown = next(frame for frame in container.decode(stream) if frame.time + length_s > time_s)
                pictures.append(shown.to_ndarray(format="rgb24"))
        return np.stack(pictures)

    return decode


DECODERS: dict[str, Callable[[], Decode]] = {
    "torchcodec": torchcodec_decoder,
    "opencv": opencv_decoder,
    "pyav_seek": pyav_seek_decoder,
}
WAYS = ("store", "jpeg_folder", "raw", *DECODERS)


class FolderFrames:
    """Frames read from a folder of JPEG files, one each, as most projects keep them. The files are a store's."""

    def __init__(self, stored: StoreFrames, pictures: Path):
        self.stored, self.grid = stored, stored.grid
        store = stored.store
        self.paths = [
            sorted(map(str, (pictures / video_id).iterdir()))  # their names are times: in the order of the index
            for video_id in store.video_ids
        ]

    def num_candidates(self, segment: int) -> int:
        return self.stored.num_candidates(segment)

    def read(self, segment: int, places: np.ndarray, cut: Cut | None = None) -> np.ndarray:
        index, row = self.stored.store.index, self.stored.rows[segment]
        paths = self.paths[index["segment_video"][row]]
        numbers = index["candidates"][index["segment_candidates"][row] + places]
        read = (cv2.imread(paths[number], cv2.IMREAD_COLOR_RGB) for number in numbers)
        pictures = [picture for picture in read if picture is not None]
        if len(pictures) < len(numbers):  # OpenCV says nothing of a bad file
            raise FrameError(f"{paths[numbers[0]]} or one of the {len(numbers) - 1} after it cannot be read")
        top, left, height, width = cut(*pictures[0].shape[:2]) if cut else (0, 0, *pictures[0].shape[:2])
        return np.stack([picture[top : top + height, left : left + width] for picture in pictures])

    def where(self, segment: int) -> str:
        return str(Path(self.paths[self.stored.store.index["segment_video"][self.stored.rows[segment]]][0]).parent)
