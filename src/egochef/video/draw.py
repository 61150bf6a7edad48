"""Drawing on frames and sheets of them, with Pillow.

In: RGB frames or video files. Out: PNG files.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from egochef.files import atomic_path
from egochef.video.decode import decode_at

BACKGROUND, TEXT, RIGHT, WRONG = (24, 26, 30), (235, 235, 235), (110, 210, 130), (240, 150, 70)
THUMB_WIDTH_PX, LABEL_WIDTH_PX, GAP_PX, FONT_PX = 180, 210, 4, 17


def draw_sheet(path: Path, rows: Sequence[tuple[Path, float, float, str, str]], num_frames: int = 5) -> None:
    """Write a PNG with a row of frames for each segment.

    Args:
        rows: (video, start_s, stop_s, what happens, what was recognised).
        num_frames: frames a row, evenly spread over the segment.
    """
    font = ImageFont.load_default(FONT_PX)
    strips = []
    for video, start_s, stop_s, truth, said in rows:
        times = start_s + (np.arange(num_frames) + 0.5) * (stop_s - start_s) / num_frames
        thumbs = [_thumbnail(frame) for frame in decode_at(video, times).frames]
        height = thumbs[0].height
        strip = Image.new("RGB", (LABEL_WIDTH_PX + num_frames * (THUMB_WIDTH_PX + GAP_PX), height + GAP_PX), BACKGROUND)
        draw = ImageDraw.Draw(strip)
        draw.text((12, height / 2 - 26), truth, TEXT, font)
        draw.text((12, height / 2 + 2), said, RIGHT if said == truth else WRONG, font)
        for place, thumb in enumerate(thumbs):
            strip.paste(thumb, (LABEL_WIDTH_PX + place * (THUMB_WIDTH_PX + GAP_PX), 0))
        strips.append(strip)
    head = 34
    sheet = Image.new("RGB", (strips[0].width, head + sum(strip.height for strip in strips)), BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    draw.text((12, 8), "happens", TEXT, font)
    draw.text((90, 8), "recognised", RIGHT, font)
    draw.text((LABEL_WIDTH_PX, 8), "time goes right", (150, 150, 150), font)
    top = head
    for strip in strips:
        sheet.paste(strip, (0, top))
        top += strip.height
    with atomic_path(path) as temporary:
        sheet.quantize(256).save(temporary, optimize=True)  # a third of the size, and looks the same


def _thumbnail(frame: np.ndarray) -> Image.Image:
    height, width = frame.shape[:2]
    return Image.fromarray(frame).resize(
        (THUMB_WIDTH_PX, round(THUMB_WIDTH_PX * height / width)), Image.Resampling.LANCZOS
    )
