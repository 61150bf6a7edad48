"""From decoded frames to a model's input.

In the workers, uint8: crop, resize and flip of one clip, (T, H, W, 3) -> (T, S, S, 3), the same random choice for all
its frames. On the device, float and batched: colour, normalisation, (B, T, S, S, 3) uint8 -> (B, T, 3, S, S).
The last dimension is colour all the way, so that the encoder gets channels_last memory without a copy.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from egochef.clip import ClipSpec
from egochef.errors import InputError
from egochef.records import check_bounds

GREY_WEIGHTS = (0.299, 0.587, 0.114)  # luma of ITU-R BT.601, as Pillow's "L"
# NTSC's YIQ: turning the (I, Q) plane turns the hue and keeps the luma.
_RGB_TO_YIQ = np.array([GREY_WEIGHTS, (0.5959, -0.2746, -0.3213), (0.2115, -0.5227, 0.3112)])
_YIQ_TO_RGB = np.linalg.inv(_RGB_TO_YIQ)


@dataclass(frozen=True)
class Augment:
    """Random changes of a training clip; the defaults are the baseline's."""

    crop_scale: tuple[float, float] = (0.6, 1.0)
    """share of the frame's area that the random crop keeps"""
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    """width over height of the random crop"""
    flip: float = 0.5
    """probability of a horizontal flip"""
    brightness: float = 0.3
    """factor drawn from 1 - x to 1 + x"""
    contrast: float = 0.3
    """factor drawn from 1 - x to 1 + x"""
    saturation: float = 0.2
    """factor drawn from 1 - x to 1 + x"""
    hue: float = 0.1
    """turn of the colour circle drawn from -x to x, where 1 is a full turn"""
    greyscale: float = 0.1
    """probability of taking all colour away"""
    cutmix_alpha: float = 1.0
    """of the Beta distribution that CutMix draws its area from; 0 turns it off"""
    mixup_alpha: float = 0.0
    """of the Beta distribution that Mixup draws a clip's share from, of pictures or kept features; 0 turns it off. With
    CutMix on as well, each micro-batch draws one of the two"""
    min_span: float = 1.0
    """share of the segment that a clip's frames lie in at least: they follow each other at a random rate"""
    drop_frames: float = 0.0
    """probability that a frame is lost and the one before it is shown again"""

    def __post_init__(self) -> None:
        check_bounds(
            self,
            "augment.",
            crop_scale=(0.001, 1.0),
            crop_ratio=(0.01, 100.0),
            flip=(0.0, 1.0),
            greyscale=(0.0, 1.0),
            brightness=(0.0, 1.0),
            contrast=(0.0, 1.0),
            saturation=(0.0, 1.0),
            hue=(0.0, 0.5),
            cutmix_alpha=(0.0, 100.0),
            mixup_alpha=(0.0, 100.0),
            min_span=(0.001, 1.0),
            drop_frames=(0.0, 0.99),
        )
        for name in ("crop_scale", "crop_ratio"):
            low, high = getattr(self, name)
            if low > high:
                raise InputError(f"augment.{name} is {getattr(self, name)}, expected the lower one first")


Cut = Callable[[int, int], tuple[int, int, int, int]]
"""a frame's (height, width) -> (top, left, height, width) in pixels of the part that is wanted"""


def random_crop_box(height: int, width: int, augment: Augment, rng: np.random.Generator) -> tuple[int, int, int, int]:
    """(top, left, height, width) in pixels of a random crop, after Szegedy et al. 2015 (Inception) as commonly done.

    Ten tries for a box of the drawn area and ratio that fits; then the largest centred box of an allowed ratio. The
    generator is read as often whatever the size, and what fits does not hang on it, so that clips from videos and from
    a store are alike.
    """
    low, high = augment.crop_ratio
    for for_area, for_ratio, for_top, for_left in rng.random((10, 4)).tolist():
        smallest, largest = augment.crop_scale
        area = height * width * (smallest + for_area * (largest - smallest))
        ratio = math.exp(math.log(low) + for_ratio * (math.log(high) - math.log(low)))
        if math.sqrt(area * ratio) <= width and math.sqrt(area / ratio) <= height:
            crop_width = max(1, round(math.sqrt(area * ratio)))
            crop_height = max(1, round(math.sqrt(area / ratio)))
            top, left = int(for_top * (height - crop_height + 1)), int(for_left * (width - crop_width + 1))
            return top, left, crop_height, crop_width
    ratio = min(max(width / height, low), high)
    crop_width, crop_height = min(width, round(height * ratio)), min(height, round(width / ratio))
    return (height - crop_height) // 2, (width - crop_width) // 2, crop_height, crop_width


def random_cut(augment: Augment, rng: np.random.Generator) -> Cut:
    """A random crop, chosen once the frames' size is known."""
    return lambda height, width: random_crop_box(height, width, augment, rng)


def cut_out(frames: np.ndarray, cut: Cut) -> np.ndarray:
    """(T, H, W, 3) -> the wanted part of all frames, a view."""
    top, left, height, width = cut(frames.shape[1], frames.shape[2])
    return frames[:, top : top + height, left : left + width]


def finish_crop(cropped: np.ndarray, clip: ClipSpec, augment: Augment, rng: np.random.Generator) -> Tensor:
    """Resize and random flip of what `random_cut` left: (T, H, W, 3) uint8 -> (T, S, S, 3) uint8."""
    resized = _resize(torch.from_numpy(cropped), clip.image_size, clip.image_size)
    if rng.random() < augment.flip:
        resized = resized.flip(2)
    return resized.contiguous()


def train_crop(frames: np.ndarray, clip: ClipSpec, augment: Augment, rng: np.random.Generator) -> Tensor:
    """Random resized crop and flip of whole frames: (T, H, W, 3) uint8 -> (T, S, S, 3) uint8."""
    return finish_crop(cut_out(frames, random_cut(augment, rng)), clip, augment, rng)


def eval_crop(frames: np.ndarray, clip: ClipSpec) -> Tensor:
    """Shorter side to `resize_size`, then the centre: (T, H, W, 3) uint8 -> (T, S, S, 3) uint8."""
    size = clip.image_size
    new_height, new_width = _with_shorter_side(frames.shape[1], frames.shape[2], clip.resize_size)
    resized = _resize(torch.from_numpy(frames), new_height, new_width)
    top, left = round((new_height - size) / 2), round((new_width - size) / 2)
    return resized[:, top : top + size, left : left + size].contiguous()


def shorter_side_to(frame: np.ndarray, size_px: int) -> np.ndarray:
    """(H, W, 3) uint8 with its shorter side brought down to `size_px`, as `eval_crop` does; smaller ones stay."""
    height, width = frame.shape[:2]
    if min(height, width) <= size_px:
        return frame
    return _resize(torch.from_numpy(frame)[None], *_with_shorter_side(height, width, size_px))[0].numpy()


def _with_shorter_side(height: int, width: int, size_px: int) -> tuple[int, int]:
    new_height = size_px if height <= width else int(size_px * height / width)
    new_width = size_px if width <= height else int(size_px * width / height)
    return new_height, new_width


def _resize(frames: Tensor, height: int, width: int) -> Tensor:
    """(T, H, W, 3) -> (T, height, width, 3) uint8, bilinear with antialiasing (as Pillow's and torchvision's)."""
    if frames.shape[1:3] == (height, width):
        return frames
    planes = frames.permute(0, 3, 1, 2)  # (T, 3, H, W), channels_last memory
    resized = F.interpolate(planes, size=(height, width), mode="bilinear", antialias=True)
    return resized.permute(0, 2, 3, 1)  # (T, height, width, 3)


def draw_colour(augment: Augment, rng: np.random.Generator) -> np.ndarray:
    """One clip's colour change: (brightness, contrast, saturation factors, hue turn, 1 if grey) float32 (5,)."""
    spread = np.array([augment.brightness, augment.contrast, augment.saturation, augment.hue])
    values = np.array([1.0, 1.0, 1.0, 0.0]) + rng.uniform(-1, 1, size=4) * spread
    return np.append(values, rng.random() < augment.greyscale).astype(np.float32)


def colour_matrices(colour: Tensor) -> Tensor:
    """(B, 5) of `draw_colour` -> (B, 3, 3): brightness, contrast, saturation, hue and grey in one linear map of RGB."""
    brightness, contrast, saturation, hue, grey = colour.double().unbind(1)
    eye = torch.eye(3, dtype=torch.float64)
    to_grey = torch.tensor(GREY_WEIGHTS, dtype=torch.float64).expand(3, 3)  # each row: the luma
    angle = 2 * math.pi * hue
    turn = eye.repeat(len(colour), 1, 1)  # (B, 3, 3) in YIQ
    turn[:, 1, 1] = turn[:, 2, 2] = angle.cos()
    turn[:, 1, 2], turn[:, 2, 1] = -angle.sin(), angle.sin()
    turn = torch.from_numpy(_YIQ_TO_RGB) @ turn @ torch.from_numpy(_RGB_TO_YIQ)
    saturate = torch.lerp(to_grey, eye, saturation[:, None, None])
    matrix = turn @ saturate * (brightness * contrast)[:, None, None]
    return torch.where(grey[:, None, None] > 0, to_grey @ matrix, matrix).float()


def to_input(frames: Tensor, clip: ClipSpec, colour: Tensor | None = None) -> Tensor:
    """uint8 (B, T, S, S, 3) -> normalised float32 (B, T, 3, S, S) on the frames' device.

    Args:
        colour: (B, 5) of `draw_colour` on the CPU, or None for no change. The order is brightness, contrast (about
            each frame's mean luma), saturation, hue, grey; values are clipped to 0..1 once, at the end.
    """
    device = frames.device
    pixels = frames.float() / 255  # (B, T, S, S, 3)
    if colour is not None:
        colour = colour.cpu()
        luma = pixels.mean(dim=(2, 3)) @ torch.tensor(GREY_WEIGHTS, device=device)  # (B, T)
        shift = luma * ((1 - colour[:, 1]) * colour[:, 0]).to(device)[:, None]  # (B, T)
        matrix = colour_matrices(colour).to(device)  # (B, 3, 3)
        pixels = torch.bmm(pixels.flatten(1, 3), matrix.transpose(1, 2)).view_as(pixels)
        pixels = (pixels + shift[:, :, None, None, None]).clamp_(0, 1)
    mean, std = torch.tensor(clip.mean, device=device), torch.tensor(clip.std, device=device)
    return ((pixels - mean) / std).permute(0, 1, 4, 2, 3)  # (B, T, 3, S, S)
