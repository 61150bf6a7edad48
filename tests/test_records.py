"""Dataclasses to JSON and back."""

import json

import pytest

from egochef.clip import ClipSpec
from egochef.errors import InputError
from egochef.records import from_dict, to_dict
from egochef.training.config import TrainConfig


def test_config_survives_json():
    config = TrainConfig(recipe="x", train_on=("train", "validation"), micro_batch=7, clip=ClipSpec(num_frames=3))
    assert from_dict(TrainConfig, json.loads(json.dumps(to_dict(config))), "file") == config


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"surprise": 1}, "unknown field 'surprise'"),
        ({"num_frames": "16"}, "num_frames is '16', expected int"),
        ({"num_frames": True}, "num_frames is True, expected int"),
        ({"num_frames": 0}, "a whole number from 1 to 1024"),
        ({"mean": [0.5, 0.5]}, "2 values, expected 3"),
    ],
)
def test_wrong_values_are_named(change, message):
    with pytest.raises(InputError, match=message):
        from_dict(ClipSpec, to_dict(ClipSpec()) | change, "run/config.json: clip")


def test_whole_numbers_serve_as_floats():
    assert from_dict(TrainConfig, {"warmup_epochs": 3}, "file").warmup_epochs == 3.0
