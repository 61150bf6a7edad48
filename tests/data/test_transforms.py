"""Pictures become inputs as Pillow would make them; random choices stay within their bounds."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageEnhance

from egochef.clip import ClipSpec
from egochef.data.transforms import (
    GREY_WEIGHTS,
    Augment,
    colour_matrices,
    draw_colour,
    eval_crop,
    random_crop_box,
    to_input,
    train_crop,
)

PLAIN = ClipSpec(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))


def picture(height=256, width=456, seed=0):
    """Smooth and busy parts, so that a wrong filter shows."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    smooth = np.stack([x * 255 / width, y * 255 / height, (x + y) % 256], axis=2)
    return np.clip(smooth + rng.normal(0, 20, (height, width, 3)), 0, 255).astype(np.uint8)


@pytest.mark.parametrize(("height", "width"), [(360, 640), (1080, 1920), (640, 360), (200, 300), (256, 256)])
def test_eval_crop_equals_pillow(height, width):
    frame = picture(height, width)
    ours = eval_crop(frame[None], ClipSpec())[0].numpy()
    scale = 256 / min(height, width)
    size = (256, int(height * scale)) if width < height else (int(width * scale), 256)
    resized = Image.fromarray(frame).resize(size, Image.Resampling.BILINEAR)
    left, top = round((size[0] - 224) / 2), round((size[1] - 224) / 2)
    theirs = np.asarray(resized.crop((left, top, left + 224, top + 224)))
    assert ours.shape == (224, 224, 3)
    assert np.abs(ours.astype(int) - theirs).max() <= 1


def test_eval_crop_without_resize_is_the_centre():
    frame = picture()
    assert np.array_equal(eval_crop(frame[None], ClipSpec())[0].numpy(), frame[16:240, 116:340])


def test_train_crop_is_the_same_for_all_frames():
    frame = picture()
    clip = train_crop(np.stack([frame] * 4), ClipSpec(), Augment(), np.random.default_rng(1))
    assert clip.shape == (4, 224, 224, 3) and clip.dtype == torch.uint8
    assert all(torch.equal(clip[0], other) for other in clip)


def test_train_crop_equals_pillow():
    frame, augment = picture(), Augment(flip=1.0)
    ours = train_crop(frame[None], ClipSpec(), augment, np.random.default_rng(5))[0].numpy()
    top, left, height, width = random_crop_box(256, 456, augment, np.random.default_rng(5))
    cropped = Image.fromarray(frame[top : top + height, left : left + width])
    theirs = np.asarray(cropped.resize((224, 224), Image.Resampling.BILINEAR))[:, ::-1]
    assert np.abs(ours.astype(int) - theirs).max() <= 1


@given(st.integers(1, 500), st.integers(1, 500), st.integers(0, 1000))
def test_crop_boxes_lie_inside(height, width, seed):
    top, left, box_height, box_width = random_crop_box(height, width, Augment(), np.random.default_rng(seed))
    assert top >= 0 and left >= 0 and box_height >= 1 and box_width >= 1
    assert top + box_height <= height and left + box_width <= width


def test_crop_boxes_have_the_asked_area_and_ratio():
    rng = np.random.default_rng(0)
    boxes = np.array([random_crop_box(360, 640, Augment(), rng) for _ in range(2000)])
    area, ratio = boxes[:, 2] * boxes[:, 3] / (360 * 640), boxes[:, 3] / boxes[:, 2]
    assert area.min() >= 0.55 and area.max() <= 1.0
    assert ratio.min() >= 0.74 and ratio.max() <= 1.35


@pytest.mark.parametrize(
    ("place", "enhance"), [(0, ImageEnhance.Brightness), (1, ImageEnhance.Contrast), (2, ImageEnhance.Color)]
)
@pytest.mark.parametrize("factor", [0.7, 1.3])
def test_colour_equals_pillow(place, enhance, factor):
    frame = picture() // 2 + 30  # keeps clear of clipping, which Pillow does after each step
    colour = torch.tensor([[1.0, 1.0, 1.0, 0.0, 0.0]])
    colour[0, place] = factor
    ours = to_input(torch.from_numpy(frame)[None, None], PLAIN, colour)[0, 0].permute(1, 2, 0) * 255
    theirs = np.asarray(enhance(Image.fromarray(frame)).enhance(factor))
    assert np.abs(ours.numpy() - theirs).max() <= 1.5


def test_hue_keeps_the_luma_and_turns_back():
    colour = torch.tensor([[1.0, 1.0, 1.0, 0.1, 0.0], [1.0, 1.0, 1.0, -0.1, 0.0], [1.0, 1.0, 1.0, 1.0, 0.0]])
    there, back, full = colour_matrices(colour)
    luma = torch.tensor(GREY_WEIGHTS)
    assert torch.allclose(luma @ there, luma, atol=1e-3)
    assert torch.allclose(there @ back, torch.eye(3), atol=1e-5)
    assert torch.allclose(full, torch.eye(3), atol=1e-5)
    assert not torch.allclose(there, torch.eye(3), atol=0.1)


def test_grey_has_equal_channels():
    inputs = to_input(torch.from_numpy(picture())[None, None], PLAIN, torch.tensor([[1.2, 0.8, 1.1, 0.05, 1.0]]))
    assert torch.allclose(inputs[:, :, 0], inputs[:, :, 1], atol=1e-5)
    assert torch.allclose(inputs[:, :, 0], inputs[:, :, 2], atol=1e-5)


def test_drawn_colours_stay_within_bounds():
    rng = np.random.default_rng(0)
    drawn = np.array([draw_colour(Augment(), rng) for _ in range(3000)])
    low, high = drawn.min(axis=0), drawn.max(axis=0)
    assert (low[:4] >= [0.7, 0.7, 0.8, -0.1]).all() and (high[:4] <= [1.3, 1.3, 1.2, 0.1]).all()
    assert abs(drawn[:, 4].mean() - 0.1) < 0.02


def test_normalisation_and_layout():
    frames = torch.from_numpy(np.stack([picture(8, 8, seed) for seed in range(6)]).reshape(2, 3, 8, 8, 3))
    clip = ClipSpec()
    inputs = to_input(frames, clip)
    assert inputs.shape == (2, 3, 3, 8, 8)
    expected = (frames[1, 2, 4, 5].float() / 255 - torch.tensor(clip.mean)) / torch.tensor(clip.std)
    assert torch.allclose(inputs[1, 2, :, 4, 5], expected, atol=1e-6)
    assert inputs.flatten(0, 1).is_contiguous(memory_format=torch.channels_last)


def test_no_colour_change_changes_nothing():
    frames = torch.from_numpy(picture(32, 32))[None, None]
    same = torch.tensor([[1.0, 1.0, 1.0, 0.0, 0.0]])
    assert torch.allclose(to_input(frames, PLAIN, same), to_input(frames, PLAIN), atol=1e-5)
