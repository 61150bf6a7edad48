"""Frames of a segment as JPEG files, from its video or from a store, a few segments kept in memory.

In: a segment of the index. Out: a `Clip`. Nothing that a request says reaches a path: the segment is one of the
annotations, and its video is where the data folder keeps it.
"""

from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from egochef.clip import Grid
from egochef.data.annotations import DataFolder, Segment
from egochef.errors import FrameError, InputError

if TYPE_CHECKING:  # what reads pictures brings torch, a second that the page does not wait for
    from egochef.data.frames import Frames
    from egochef.data.store import Store

MAX_FRAMES = 32
SIZE_PX = 360
"""shorter side of the pictures; smaller ones stay"""
QUALITY = 85
"""of JPEG"""
MAX_CLIPS = 32
"""kept; a clip takes about 1 MB"""


@dataclass(frozen=True)
class Clip:
    """A segment to look at."""

    times_s: tuple[float, ...] = ()
    """of each picture, in its video"""
    width_px: int = 0
    height_px: int = 0
    jpegs: tuple[bytes, ...] = ()
    fault: str = ""
    """why there are no pictures"""


class Pictures:
    """The frames of a folder's segments. Not for two threads at once."""

    def __init__(self, folder: DataFolder):
        self.folder = folder
        self._clips: OrderedDict[str, Clip] = OrderedDict()  # least recently used first
        self._store: Store | None = None  # opened when the first picture is asked for

    def clip(self, segment: Segment) -> Clip:
        """The segment's pictures; where they cannot be had, why."""
        if segment.narration_id in self._clips:
            self._clips.move_to_end(segment.narration_id)
            return self._clips[segment.narration_id]
        try:
            clip = self._read(segment)
        except (InputError, OSError) as error:
            return Clip(fault=_reason(error))  # not kept: it may be mended while we run
        self._clips[segment.narration_id] = clip
        while len(self._clips) > MAX_CLIPS:
            self._clips.popitem(last=False)
        return clip

    def _read(self, segment: Segment) -> Clip:
        from egochef.data.frames import open_frames
        from egochef.data.sampling import candidate_times, view_places
        from egochef.data.store import StoreFrames, encode_jpeg, is_store, open_store
        from egochef.data.transforms import shorter_side_to

        frames: Frames
        if is_store(self.folder.root):
            self._store = self._store or open_store(self.folder.root)
            frames = StoreFrames(self._store, (segment,))
        else:
            frames = open_frames(self.folder, (segment,), Grid())
        num_candidates = frames.num_candidates(0)
        places = view_places(num_candidates, min(MAX_FRAMES, num_candidates), 1)[0]  # (T,)
        pictures = frames.read(0, places)  # (T, H, W, 3)
        times_s = candidate_times(segment.start_s, segment.stop_s, frames.grid)[places]
        small = [shorter_side_to(picture, SIZE_PX) for picture in pictures]
        height_px, width_px = small[0].shape[:2]
        jpegs = tuple(encode_jpeg(np.asarray(picture), QUALITY) for picture in small)
        return Clip(tuple(np.round(times_s, 3).tolist()), width_px, height_px, jpegs)


def _reason(error: Exception) -> str:
    if isinstance(error, FrameError | InputError):
        return " ".join(str(error).split())
    return f"{getattr(error, 'filename', None) or 'the system'}: {getattr(error, 'strerror', None) or error}"
