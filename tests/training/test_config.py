"""What hangs on a field follows it: the size before the crop, by whatever way the crop's size is set."""

import dataclasses

import pytest

from egochef.cli.main import build_parser
from egochef.cli.train import build_config
from egochef.clip import ClipSpec
from egochef.errors import InputError
from egochef.files import write_json
from egochef.recipes import RECIPES, frames16
from egochef.records import to_dict
from egochef.training.config import Phase, TrainConfig, load_config, set_fields, with_image_size


def sizes(config):
    return config.clip.image_size, config.clip.resize_size


@pytest.mark.parametrize(
    ("recipe", "settings", "expected"),
    [
        ("frames16", ["clip.image_size=112"], (112, 128)),
        ("frames16", ["clip.image_size=336"], (336, 384)),
        ("fast", ["clip.image_size=96"], (96, 110)),
        ("toy", ["clip.image_size=112"], (112, 112)),
        ("frames16", ["clip.image_size=112", "clip.resize_size=256"], (112, 256)),
        ("frames16", ["clip.resize_size=256", "clip.image_size=112"], (112, 256)),
        ("frames16", ["clip.resize_size=230"], (224, 230)),
        ("frames16", ["clip.image_size=224"], (224, 256)),
    ],
)
def test_the_size_before_the_crop_follows(recipe, settings, expected):
    assert sizes(set_fields(RECIPES[recipe](), settings)) == expected
    words = ["train", "--recipe", recipe, "--data", "D", "--out", "R", "--debug", "--set", *settings]
    assert sizes(build_config(build_parser().parse_args(words))) == expected


def test_what_follows_is_told(caplog):
    caplog.set_level("INFO")
    set_fields(frames16(), ["clip.image_size=112", "clip.resize_size=128"])
    set_fields(frames16(), ["clip.num_frames=8"])
    assert not caplog.records
    set_fields(frames16(), ["clip.image_size=112"])
    assert caplog.messages == ["clip.resize_size follows clip.image_size: 128 px, not 256"]


def test_the_crop_of_all_recipes_shows_as_much_at_any_size():
    for recipe in RECIPES.values():
        for size in (64, 112, 160, 224, 320):
            clip = with_image_size(recipe(), size).clip
            ratio = recipe().clip.resize_size / recipe().clip.image_size
            assert clip.image_size == size and abs(clip.resize_size - size * ratio) <= 0.5


def test_smaller_clips_of_the_first_epochs_keep_the_ratio():
    config = dataclasses.replace(frames16(), epochs=4, progressive=(Phase(0.5, 112, 8),))
    assert (config.clip_of(2).image_size, config.clip_of(2).resize_size) == (112, 128)
    assert config.clip_of(3) == config.clip


def test_a_file_says_both_sizes(tmp_path):
    config = TrainConfig(clip=ClipSpec(image_size=112, resize_size=256))
    write_json(tmp_path / "config.json", to_dict(config))
    assert sizes(load_config(tmp_path / "config.json")) == (112, 256)


@pytest.mark.parametrize("text", ["", "x", "1.5", "-1", "0", "1e400", "9" * 5000, "[" * 100_000, "true"])
@pytest.mark.parametrize("name", ["clip.image_size", "clip.num_frames"])
def test_sizes_that_are_none(name, text):
    with pytest.raises(InputError, match=r"expected a whole number") as caught:
        set_fields(frames16(), [f"{name}={text}"])
    assert len(str(caught.value)) < 300
