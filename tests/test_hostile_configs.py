"""JSON that describes something, from whoever wrote it: what cannot be ends in one short line, in little memory."""

import json
import resource
from pathlib import Path

import pytest
import torch

from egochef.cli.main import main
from egochef.clip import ClipSpec
from egochef.data.store import STORE_FILE
from egochef.data.store import read_about as read_store
from egochef.engines.exported import ExportAbout, read_metadata
from egochef.errors import InputError
from egochef.files import write_json
from egochef.inference.features import FEATURES_FILE
from egochef.inference.features import read_about as read_features
from egochef.model.checkpoint import Checkpoint, load_checkpoint, read_checkpoint, save_checkpoint, write_tensors
from egochef.model.recogniser import ModelConfig, Recogniser
from egochef.records import read_about, to_dict
from egochef.scoring.tuning import Tuning
from egochef.taxonomy import Taxonomy
from egochef.training.config import TrainConfig, load_config, set_fields

DEEP = "[" * 100_000 + "]" * 100_000
LONG = '"' + "x" * 100_000 + '"'
HUGE = '"' + "x" * 10_000_000 + '"'
MANY = "[" + "0," * 10_000_000 + "0]"
ANYTHING = ("NaN", "Infinity", "-1e400", "1e400", "9" * 400, "9" * 5000, "-1", DEEP, LONG, "{}", "[[[]]]")
"""what none of the fields below takes"""
NUMBERS = {  # field -> further values that it does not take
    "seed": ["1e308", "true", "4294967296"],
    "epochs": ["0", "1e308", "1.5", "1000000000"],
    "batch_size": ["0", "1000000000000"],
    "micro_batch": ["0", "1000000000000"],
    "lr": ["0", "1e308", "1e-300"],
    "weight_decay": ["1e308"],
    "warmup_epochs": ["1e308"],
    "label_smoothing": ["1"],
    "teacher_weight": ["0", "1.1"],
    "max_grad_norm": ["0", "1e308"],
    "logit_adjustment": ["1e308"],
    "ema_decay": ["1"],
    "layer_decay": ["0", "2"],
    "save_minutes": ["0", "1e308"],
    "feature_views": ["1000000000"],
    "num_views": ["0", "1000000000"],
    "keep": ["0", "1000000000000"],
    "num_workers": ["1000000000"],
    "frozen_stages": ["1000000000"],
    "patience": ["0", "1000000000000"],
    "max_train_segments": ["0", "1000000000000"],
    "model.hidden_size": ["0", "1000000000"],
    "model.num_layers": ["0", "1000000"],
    "model.num_verbs": ["0", "1000000000000"],
    "model.num_nouns": ["0", "1001"],
    "model.temporal_dropout": ["1"],
    "model.head_dropout": ["1e308"],
    "clip.num_frames": ["0", "1000000000"],
    "clip.image_size": ["1", "1000000"],
    "clip.resize_size": ["1", "1000000000"],
    "clip.grid.fps": ["0", "1e308"],
    "clip.grid.min_frames": ["0", "1000000000"],
    "augment.hue": ["1e308"],
    "augment.cutmix_alpha": ["1e308"],
    "augment.min_span": ["0"],
    "augment.drop_frames": ["1"],
}
OTHERS = {
    "model.encoder": ["7", DEEP, LONG],
    "model.action_ids": ["[-1]", "[1e400]", f"[{LONG}]", "[" + "1," * 200_000 + "2]", "[2000000]"],
    "train_on": ['"train"', "[[]]", f"[{LONG}]", '["test"]'],
    "clip": ["7", "[]", DEEP],
    "clip.mean": ["[1e300,0,0]", "[1e400,0,0]", "[0,0]", "7", f"[{DEEP},0,0]"],
    "clip.std": ["[0,1,1]", "[1e300,1,1]", "[-1,1,1]"],
    "augment.crop_scale": ["[0,1]", "[1,0.5]", "[1e300,1e300]"],
    "augment.crop_ratio": ["[0,1]", "[1,1e300]", "[2,1]"],
    "progressive": [
        '[{"until": 0.5, "image_size": 1000000, "num_frames": 8}]',
        '[{"until": 1e300, "image_size": 64, "num_frames": 8}]',
        '[{"until": 0.5, "image_size": 64, "num_frames": 1000000000}]',
        "[" + '{"until": 0.5, "image_size": 64, "num_frames": 8},' * 500 + "{}]",
    ],
    "speed.compile": ["1", LONG],
    "precision": [LONG],
}


@pytest.fixture(autouse=True)
def little_memory():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    grown_mb = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    assert grown_mb < 400, "a file of some megabytes took far more"


def refuses(function, *given, match=None, names=""):
    """One line, under 500 characters, that says `match` and names the file."""
    with pytest.raises(InputError, match=match) as caught:
        function(*given)
    message = str(caught.value)
    assert "\n" not in message and len(message) < 500 and str(names) in message, message[:600]
    return message


def with_field(record, name, text):
    """The JSON of a record with the JSON `text` in one field's place."""
    fields = to_dict(record)
    *path, last = name.split(".")
    where = fields
    for part in path:
        where = where[part]
    where[last] = "PLACE"
    return json.dumps(fields).replace('"PLACE"', text)


@pytest.mark.parametrize("name", [*NUMBERS, *OTHERS])
def test_fields_of_a_config(name, tmp_path):
    path = tmp_path / "config.json"
    for text in OTHERS.get(name, [*NUMBERS.get(name, ()), *ANYTHING]):
        path.write_text(with_field(TrainConfig(), name, text))
        refuses(load_config, path, names=path)
        if name != "clip" and text != '"train"':
            refuses(set_fields, TrainConfig(), [f"{name}={text}"])


def _features():
    spec = {
        "encoder": "resnet50",
        "encoder_sha256": "0",
        "initial_weights": "imagenet",
        "encoder_trained_on": [],
        "clip": to_dict(ClipSpec()),
        "augment": {"cutmix_alpha": 0.0},
        "seed": 0,
        "precision": "fp32",
    }
    view = {"name": "training/view-00", "num_segments": 1, "num_bytes": 1, "index_crc32": 0}
    return {
        "format": "egochef-features",
        "version": 1,
        "spec": spec,
        "num_features": 2048,
        "annotations": [],
        "participants": [],
        "segments_sha256": "0",
        "views": [view],
    }


def _store():
    return {
        "format": "egochef-store",
        "version": 1,
        "spec": {},
        "source": "videos",
        "annotations": [],
        "participants": [],
    }


@pytest.mark.parametrize(
    ("file", "read", "sound", "places"),
    [
        (
            FEATURES_FILE,
            lambda path: read_features(path.parent),
            _features,
            ("num_features", "spec", "views", "version"),
        ),
        (STORE_FILE, lambda path: read_store(path.parent), _store, ("spec", "participants", "num_frames", "format")),
        ("tuned.json", lambda path: read_about(path, Tuning, "egochef tune"), dict, ("format",)),
        ("config.json", load_config, lambda: to_dict(TrainConfig()), ("clip", "seed")),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_files_that_say_what_a_folder_is(file, read, sound, places, tmp_path):
    path = tmp_path / file
    if file != "tuned.json":
        write_json(path, sound())
        read(path)
    for place in places:
        for text in (DEEP, LONG, HUGE, MANY, "NaN", "1e400", "9" * 5000):
            path.write_text(json.dumps(sound() | {place: "PLACE"}).replace('"PLACE"', text))
            refuses(read, path, names=path)
    for text in (DEEP, "7", '"x"', "[]", "", "\0", "\ud800".encode("utf-8", "surrogatepass").decode("latin-1"), HUGE):
        path.write_text(text)
        refuses(read, path, names=path)


@pytest.mark.parametrize(
    "change",
    [
        {"num_segments": 10**12},
        {"num_segments": -1},
        {"name": "../../etc/passwd"},
        {"name": "training/view-00\n"},
        {"index_crc32": 2**70},
    ],
)
def test_views_of_kept_features(change, tmp_path):
    about = _features()
    about["views"][0] |= change
    write_json(tmp_path / FEATURES_FILE, about)
    refuses(read_features, tmp_path, names=tmp_path / FEATURES_FILE)


@pytest.fixture(scope="module")
def weights():
    torch.manual_seed(0)
    return Recogniser(ModelConfig("efficientnet_lite0", hidden_size=4, num_verbs=2, num_nouns=2))


HEADERS = {
    "format": [None, "2", 10**300, [[[[]]]], "x" * 1_000_000],
    "model": [
        7,
        {"encoder": "efficientnet_lite0", "hidden_size": 4096, "num_layers": 12, "num_verbs": 2, "num_nouns": 2},
        {"encoder": "efficientnet_lite0", "hidden_size": 10**9, "num_verbs": 2, "num_nouns": 2},
        {"encoder": "efficientnet_lite0", "num_layers": 10**6, "num_verbs": 2, "num_nouns": 2},
        {"num_verbs": 10**12, "num_nouns": 2},
        {"encoder": ["resnet50"]},
        {"joint": True, "action_ids": list(range(200_000)), "num_verbs": 2, "num_nouns": 2},
    ],
    "clip": [{"num_frames": 10**9}, {"image_size": 10**6, "resize_size": 10**6}, {"mean": [1e300, 0, 0]}, "clip"],
    "verbs": ["ab", [1, 2], 7, ["a"] * 1_000_000, ["a", "b" * 100_000], [["a"], ["b"]]],
    "nouns": [{"a": 1, "b": 2}, None, ["a\nb", 7]],
    "recipe": [7, "x" * 100_000],
    "initial_weights": [None],
    "train_on": ["train", 7, [7], ["x" * 100_000]],
    "held_out": ["P01", 7],
    "num_views": [0, 10**9, 1.5, "2", 10**300],
    "scores": [[], {"a": "b"}, {"a": True}, {"a" * 100_000: "b"}, 7],
}


@pytest.mark.parametrize("name", HEADERS)
def test_headers_of_checkpoints(name, weights, tmp_path):
    path = tmp_path / "best.safetensors"
    header = {
        "format": 2,
        "model": to_dict(weights.config),
        "clip": to_dict(ClipSpec()),
        "verbs": ["a", "b"],
        "nouns": ["c", "d"],
        "recipe": "toy",
        "initial_weights": "none",
        "train_on": ["train"],
        "held_out": [],
        "num_views": 1,
        "scores": {"x": 1},
    }
    for value in HEADERS[name]:
        write_tensors(path, weights.verb_head.state_dict(), header | {name: value})
        refuses(load_checkpoint, path, names=path)


def test_a_model_that_the_file_has_not_is_never_made(weights, tmp_path):
    """Its LSTM would take 13 GB; `little_memory` looks."""
    path = tmp_path / "best.safetensors"
    large = ModelConfig("efficientnet_lite0", hidden_size=4096, num_layers=12, num_verbs=2, num_nouns=2)
    taxonomy = Taxonomy(("a", "b"), ("c", "d"))
    save_checkpoint(path, weights, Checkpoint(large, ClipSpec(), taxonomy, "toy", "none"))
    refuses(load_checkpoint, path, match=r"tensor temporal\S+ is \(.*\), its config asks for \(16384, ", names=path)


def test_headers_that_are_no_json(tmp_path):
    from safetensors.torch import save_file

    path = tmp_path / "best.safetensors"
    for text in (DEEP, "NaN", '{"format": 1e400}', HUGE, "7", ""):
        save_file({"x": torch.zeros(1)}, path, metadata={"egochef": text})
        for read in (load_checkpoint, read_checkpoint):
            refuses(read, path, names=path)
    path.write_bytes((90 * 2**20).to_bytes(8, "little") + b" " * 1000)
    refuses(load_checkpoint, path, match="a header of 94371840 bytes", names=path)


@pytest.mark.parametrize("name", ["clip", "num_features", "verbs", "license", "format", "train_on"])
def test_metadata_of_exports(name):
    words = dict.fromkeys(("checkpoint", "recipe", "encoder", "temporal", "license", "initial_weights"), "x")
    about = ExportAbout(
        part="clip",
        precision="fp32",
        num_features=3,
        num_parameters=3,
        train_on=("train",),
        clip=ClipSpec(),
        verbs=("a",),
        nouns=("b",),
        **words,
    )
    path = Path("x.onnx")
    assert read_metadata(about.to_json(), path) == about
    for text in (DEEP, LONG, HUGE, "NaN", "1e400", "9" * 5000, "[[]]", *(["{}"] if name != "clip" else [])):
        refuses(read_metadata, with_field(about, name, text), path, names=path)


@pytest.mark.parametrize(
    "words",
    [
        "models --image-size 1",
        "models --image-size 1000000",
        "models --num-frames 0",
        "models --num-frames 1000000000",
        "models --image-size 2048 --num-frames 48",
        "train --recipe toy --data {} --out {}/R --hidden-size 1000000000",
        "train --recipe toy --data {} --out {}/R --lr nan",
        "train --recipe toy --data {} --out {}/R --lr inf",
        "train --recipe toy --data {} --out {}/R --batch-size 1000000000",
        "train --recipe toy --data {} --out {}/R --progressive nan:64:2",
        "train --recipe toy --data {} --out {}/R --progressive 0.5:1000000000:2",
        "prepare --data {} --out {}/S --fps nan",
        "prepare --data {} --out {}/S --min-frames 1000000000",
        "toy --out {}/T --segments 1000000000",
    ],
)
def test_flags(words, tmp_path, capsys):
    assert main([word.format(tmp_path, tmp_path) for word in words.split()]) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("egochef: ") and ("expected" in last or "more than a clip may have" in last), last
    assert list(tmp_path.iterdir()) == []
