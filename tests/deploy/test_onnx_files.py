"""What is written as ONNX does what the checkpoint does, in onnxruntime and OpenVINO, or is refused."""

import dataclasses
import json
import subprocess
import sys

import numpy as np
import pytest
import torch

from egochef.clip import ClipSpec
from egochef.data.transforms import eval_crop
from egochef.deploy import backends
from egochef.deploy.backends import load_engine, onnx_pair
from egochef.deploy.onnx_files import check_pair, pair_at, write_onnx_pair
from egochef.engines.onnx_engine import METADATA_KEY, RUNTIMES, OnnxEngine, OnnxPair
from egochef.engines.torch_engine import load
from egochef.errors import InputError
from egochef.model.checkpoint import Checkpoint, save_checkpoint
from egochef.model.recogniser import ModelConfig, Recogniser
from egochef.taxonomy import Taxonomy
from egochef.video.decode import decode_at

CLIP = ClipSpec(num_frames=4, image_size=64, resize_size=72, mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3))
TAXONOMY = Taxonomy(("a", "b", "c"), ("w", "x", "y", "z"))


def save(path, seed=0, **model):
    torch.manual_seed(seed)
    recogniser = Recogniser(ModelConfig(hidden_size=8, num_verbs=3, num_nouns=4, frozen_batchnorm=False, **model))
    for module in recogniser.modules():  # statistics as after training
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 1.5)
    save_checkpoint(path, recogniser.eval(), Checkpoint(recogniser.config, CLIP, TAXONOMY, "toy", "none"))
    return path


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return save(tmp_path_factory.mktemp("checkpoint") / "x.safetensors", encoder="efficientnet_lite0")


def pictures(num_clips, num_frames, seed=1):
    return np.random.default_rng(seed).integers(0, 256, (num_clips, num_frames, 64, 64, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    "model",
    [
        {"encoder": "efficientnet_lite0"},
        {"encoder": "resnet50"},
        {"encoder": "efficientnet_lite0", "pooling": "last"},
        {"encoder": "efficientnet_lite0", "pooling": "attention", "num_layers": 1},
        {"encoder": "efficientnet_lite0", "temporal": "mean"},
    ],
    ids=lambda model: "-".join(str(value) for value in model.values()),
)
def test_the_pair_equals_the_checkpoint_at_any_size(model, tmp_path):
    engine = load(save(tmp_path / "x.safetensors", **model), device="cpu", precision="fp32")
    pair = write_onnx_pair(engine, tmp_path / "out" / "x.onnx", checkpoint="abc")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["x-encoder.onnx", "x-head.onnx"]
    for backend in RUNTIMES:
        written = OnnxEngine(pair, backend=backend)
        assert (written.clip, written.taxonomy) == (CLIP, TAXONOMY)
        for num_clips, num_frames in ((1, 1), (3, 4), (2, 9)):
            crops = torch.from_numpy(pictures(num_clips, num_frames))
            features = engine.encode(crops)
            here = written.encode(crops)
            assert here.shape == features.shape
            assert (here - features).abs().max() < 1e-5 * features.abs().max().clamp_min(1)
            for ours, theirs in zip(engine.classify(features), written.classify(features), strict=True):
                assert (ours - theirs).abs().max() < 1e-5


def test_a_signal_after_engines_went_in_the_order_they_came(checkpoint):
    """OpenVINO leaves a thread without the stack of its signal handlers then, if each engine has a core of its own."""
    script = f"""
import faulthandler, gc, signal
from egochef.deploy.backends import load_engine
faulthandler.enable()
engines = [load_engine({str(checkpoint)!r}, backend="openvino") for _ in range(2)]
while engines:
    del engines[0]
    gc.collect()
signal.signal(signal.SIGUSR1, lambda number, frame: print("handled", flush=True))
signal.raise_signal(signal.SIGUSR1)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stdout) == (0, "handled\n"), done.stderr


def test_a_disagreement_is_caught(checkpoint, tmp_path):
    import onnx

    engine = load(checkpoint, device="cpu", precision="fp32")
    pair = write_onnx_pair(engine, tmp_path / "x.onnx", checkpoint="abc")
    assert check_pair(engine, pair) < 1e-5
    other = load(save(tmp_path / "other.safetensors", seed=1, encoder="efficientnet_lite0"), device="cpu")
    with pytest.raises(InputError, match="differs from its checkpoint by"):
        check_pair(other, pair)
    for part, change in (
        ("encoder", {"clip": {**dataclasses.asdict(CLIP), "mean": (0.5, 0.5, 0.5)}}),
        ("head", {"verbs": ("b", "a", "c")}),
    ):
        swapped = pair_at(tmp_path / f"swapped-{part}.onnx")
        for one, path in (("encoder", swapped.encoder), ("head", swapped.head)):
            model = onnx.load(getattr(pair, one))
            if one == part:
                entry = next(each for each in model.metadata_props if each.key == METADATA_KEY)
                entry.value = json.dumps(json.loads(entry.value) | change)
            onnx.save(model, path)
        with pytest.raises(InputError, match="not of one recogniser"):
            check_pair(engine, swapped)


def test_a_write_that_fails_leaves_nothing(checkpoint, tmp_path, monkeypatch):
    engine = load(checkpoint, device="cpu", precision="fp32")
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(InputError, match="cannot be written"):
        write_onnx_pair(engine, tmp_path / "file" / "x.onnx", checkpoint="abc")
    (tmp_path / "out" / "x-head.onnx").mkdir(parents=True)
    with pytest.raises(InputError, match="cannot be written"):
        write_onnx_pair(engine, tmp_path / "out" / "x.onnx", checkpoint="abc")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["x-head.onnx"]


def test_what_is_no_pair_of_ours(checkpoint, tmp_path):
    import onnx

    pair = onnx_pair(checkpoint)
    cut = tmp_path / "cut.onnx"
    cut.write_bytes(pair.encoder.read_bytes()[:-1000])
    with pytest.raises(InputError, match="cut.onnx: not a whole ONNX model"):
        OnnxEngine(OnnxPair(cut, pair.head))
    with pytest.raises(InputError, match="no such file"):
        OnnxEngine(OnnxPair(tmp_path / "none.onnx", pair.head))
    model = onnx.load(pair.head)
    del model.metadata_props[:]
    onnx.save(model, tmp_path / "foreign.onnx")
    with pytest.raises(InputError, match="it names no classes"):
        OnnxEngine(OnnxPair(pair.encoder, tmp_path / "foreign.onnx"))


def test_backends_agree_and_are_written_once(checkpoint, monkeypatch):
    crops = torch.from_numpy(pictures(1, 4))
    expected = load_engine(checkpoint, backend="torch", device="cpu", precision="fp32").encode(crops)
    for backend in RUNTIMES:
        engine = load_engine(checkpoint, backend=backend)
        assert engine.name == f"{RUNTIMES[backend]} cpu fp32"
        assert (engine.encode(crops) - expected).abs().max() < 1e-4

    def again(*args, **kwargs):
        raise AssertionError("written twice")

    monkeypatch.setattr(backends, "write_onnx_pair", again)
    load_engine(checkpoint, backend="onnx")


def test_the_best_backend_is_found(checkpoint):
    assert load_engine(checkpoint, device="cpu").name == "onnxruntime cpu fp32"
    assert load_engine(checkpoint, device="cpu", precision="bf16").name == "torch cpu bf16"


def test_int8_is_close_and_needs_pictures(checkpoint, ek100_clips):
    with pytest.raises(InputError, match="int8 needs to see pictures like those to come: --calibrate VIDEO"):
        load_engine(checkpoint, precision="int8")
    videos = sorted(ek100_clips.glob("*.mp4"))
    frames = eval_crop(decode_at(videos[0], np.linspace(0, 1, 4)).frames, CLIP)[None]
    exact = load_engine(checkpoint, backend="onnx")
    for backend in RUNTIMES:
        rough = load_engine(checkpoint, backend=backend, precision="int8", calibrate=videos)
        assert rough.name.endswith("int8")
        ours, theirs = exact.encode(frames).flatten(), rough.encode(frames).flatten()
        assert torch.nn.functional.cosine_similarity(ours, theirs, dim=0) > 0.95
        assert (ours - theirs).abs().max() > 1e-4, "it is another computation"
        features = exact.encode(frames)
        heads = [engine.classify(features).verb for engine in (exact, rough)]
        assert (heads[0] - heads[1]).abs().max() < 0.05


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"backend": "tflite"}, "backend is 'tflite', expected one of auto, torch, onnx, openvino"),
        ({"backend": "torch", "precision": "int8"}, "int8 with torch: expected --backend onnx or openvino"),
        ({"backend": "onnx", "precision": "fp16"}, "'fp16' with onnxruntime on a processor: expected fp32 or int8"),
        ({"backend": "openvino", "precision": "fp16"}, "'fp16' with OpenVINO: expected fp32, bf16 or int8"),
        ({"backend": "onnx", "device": "cuda"}, "device 'cuda' with backend onnx: it runs on the cpu"),
        ({"backend": "onnx", "compiled": True}, "torch.compile with backend onnx"),
    ],
)
def test_what_does_not_go_together(checkpoint, wrong, message):
    with pytest.raises(InputError, match=message):
        load_engine(checkpoint, **wrong)


def test_a_runtime_that_is_missing(checkpoint, monkeypatch):
    monkeypatch.setattr(backends, "has_runtime", lambda backend: False)
    with pytest.raises(InputError, match=r'is not installed here: pip install "egochef\[openvino\]"'):
        load_engine(checkpoint, backend="openvino")
    assert load_engine(checkpoint, device="cpu", precision="fp32").name == "torch cpu fp32"
