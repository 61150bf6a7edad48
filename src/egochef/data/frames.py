"""Where the frames of segments come from: their videos, or a prepared store. Both choose from the same candidate times.

In: a segment's place and places among its candidate times (`sampling`). Out: frames (T, H, W, 3) uint8 RGB.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from egochef.clip import Grid
from egochef.data.annotations import DataFolder, Segment, find_videos
from egochef.data.sampling import candidate_times, num_candidates
from egochef.data.store import StoreFrames, is_store, open_store
from egochef.data.transforms import Cut, cut_out
from egochef.video.decode import decode_at


class Frames(Protocol):
    """The frames of a list of segments."""

    grid: Grid

    def num_candidates(self, segment: int) -> int:
        """K of a segment."""

    def read(self, segment: int, places: np.ndarray, cut: Cut | None = None) -> np.ndarray:
        """Frames (T, H, W, 3) uint8 at (T,) rising places among a segment's candidates.

        Args:
            cut: from a frame's (height, width) the part that is wanted; None: all of it.

        Raises:
            FrameError: they cannot be had; names the file, and the segment where that helps.
        """

    def where(self, segment: int) -> str:
        """The file that a segment's frames lie in, for messages."""


class VideoFrames:
    """Frames decoded from videos when they are asked for."""

    def __init__(self, segments: Sequence[Segment], videos: dict[str, Path], grid: Grid):
        self.grid = grid
        # Arrays, not 67,217 objects: forked workers then share their pages for good.
        self.start_s = np.array([segment.start_s for segment in segments])
        self.stop_s = np.array([segment.stop_s for segment in segments])
        video_id, self.video = np.unique([segment.video_id for segment in segments], return_inverse=True)
        self.paths = [videos[str(name)] for name in video_id]

    def num_candidates(self, segment: int) -> int:
        return num_candidates(self.start_s[segment], self.stop_s[segment], self.grid)

    def read(self, segment: int, places: np.ndarray, cut: Cut | None = None) -> np.ndarray:
        times_s = candidate_times(self.start_s[segment], self.stop_s[segment], self.grid)
        frames = decode_at(self.paths[self.video[segment]], times_s[places]).frames
        return cut_out(frames, cut) if cut else frames

    def where(self, segment: int) -> str:
        return str(self.paths[self.video[segment]])


def open_frames(folder: DataFolder, segments: Sequence[Segment], grid: Grid) -> Frames:
    """The frames of a data folder's or store's segments.

    Args:
        grid: candidate times, for videos; a store has its own.

    Raises:
        InputError: videos are missing, or the store is not whole or not of these segments.
    """
    if is_store(folder.root):
        return StoreFrames(open_store(folder.root), segments)
    return VideoFrames(segments, find_videos(folder, tuple(segments)), grid)
