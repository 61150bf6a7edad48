"""Pictures of segments for a page: a row of frames each, as one JPEG.

In: segments of a data folder or store. Out: JPEG bytes; where a segment's frames cannot be had, why.
"""

from collections.abc import Sequence

import numpy as np
import simplejpeg
from PIL import Image

from egochef.clip import Grid
from egochef.data.annotations import DataFolder, Segment
from egochef.data.frames import open_frames
from egochef.data.sampling import view_places
from egochef.errors import InputError

NUM_FRAMES = 5
HEIGHT_PX, GAP_PX = 120, 3
QUALITY = 80


def strips(folder: DataFolder, segments: Sequence[Segment]) -> list[bytes | str]:
    """For each segment a JPEG of NUM_FRAMES frames from left to right, evenly spread over it, or what is wrong."""
    return [_strip(folder, segment) for segment in segments]


def _strip(folder: DataFolder, segment: Segment) -> bytes | str:
    try:
        frames = open_frames(folder, [segment], Grid())
        places = view_places(frames.num_candidates(0), NUM_FRAMES, 1)[0]  # (T,)
        pictures = [_resized(picture) for picture in frames.read(0, places)]
    except InputError as error:
        return str(error)
    gap = np.full((HEIGHT_PX, GAP_PX, 3), 128, dtype=np.uint8)
    row = [piece for picture in pictures for piece in (picture, gap)][:-1]
    return simplejpeg.encode_jpeg(np.ascontiguousarray(np.concatenate(row, axis=1)), QUALITY, "RGB", "420")


def _resized(picture: np.ndarray) -> np.ndarray:
    """(H, W, 3) to HEIGHT_PX."""
    height, width = picture.shape[:2]
    size = (round(width * HEIGHT_PX / height), HEIGHT_PX)
    return np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.LANCZOS))
