"""What is written as ONNX does what the checkpoint does, in onnxruntime and OpenVINO, or is refused."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from deploy.exported import CLIP, TAXONOMY, pictures, save

from egochef.data.transforms import eval_crop
from egochef.deploy import backends
from egochef.deploy.backends import load_engine, onnx_pair
from egochef.deploy.onnx_files import write_onnx
from egochef.deploy.source import open_source
from egochef.engines.exported import pair_paths, report_of
from egochef.engines.onnx_engine import RUNTIMES, OnnxEngine
from egochef.errors import InputError
from egochef.video.decode import decode_at


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return save(tmp_path_factory.mktemp("checkpoint") / "x.safetensors", encoder="efficientnet_lite0")


@pytest.mark.parametrize(
    "model",
    [
        {"encoder": "efficientnet_lite0"},
        {"encoder": "resnet50"},
        {"encoder": "efficientnet_lite0", "pooling": "last"},
        {"encoder": "efficientnet_lite0", "pooling": "attention", "num_layers": 1},
        {"encoder": "efficientnet_lite0", "temporal": "tcn", "causal": True},
        {"encoder": "efficientnet_lite0", "temporal": "mean"},
    ],
    ids=lambda model: "-".join(str(value) for value in model.values()),
)
def test_the_pair_equals_the_checkpoint_at_any_size(model, tmp_path):
    source = open_source(save(tmp_path / "x.safetensors", **model))
    engine, pair = source.engine, pair_paths(tmp_path / "x.onnx")
    for part, path in zip(("encoder", "head"), pair, strict=True):
        write_onnx(source, part, path)
    for backend in RUNTIMES:
        if backend == "openvino" and model.get("temporal") == "tcn" and "ONEDNN_MAX_CPU_ISA" in os.environ:
            pytest.skip("OpenVINO 2026 asks the processor what it can, its oneDNN the variable, and the two crash")
        written = OnnxEngine(*pair, backend=backend)
        assert (written.clip, written.taxonomy) == (CLIP, TAXONOMY)
        for num_clips, num_frames in ((1, 1), (3, 4), (2, 9)):
            crops = pictures(num_clips, num_frames)
            features = engine.encode(crops)
            here = written.encode(crops)
            assert here.shape == features.shape
            assert (here - features).abs().max() < 1e-5 * features.abs().max().clamp_min(1)
            for ours, theirs in zip(engine.classify(features), written.classify(features), strict=True):
                assert (ours - theirs).abs().max() < 1e-4  # sums of up to 2048 features in another order


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


def test_what_is_no_pair_of_ours(checkpoint, tmp_path):
    import onnx

    encoder, head = onnx_pair(checkpoint)
    cut = tmp_path / "cut.onnx"
    cut.write_bytes(encoder.read_bytes()[:-1000])
    with pytest.raises(InputError, match="cut.onnx: not a whole ONNX model"):
        OnnxEngine(cut, head)
    with pytest.raises(InputError, match="no such file"):
        OnnxEngine(tmp_path / "none.onnx", head)
    with pytest.raises(InputError, match="the encoder is of part 'head'"):
        OnnxEngine(head, head)
    model = onnx.load(head)
    del model.metadata_props[:]
    onnx.save(model, tmp_path / "foreign.onnx")
    with pytest.raises(InputError, match="it names no classes"):
        OnnxEngine(encoder, tmp_path / "foreign.onnx")


def test_two_starts_at_once_share_what_was_there_first(checkpoint, tmp_path, monkeypatch):
    """The other one writes its pair, from its beginning to its end, while this one is at its encoder."""
    monkeypatch.setenv("EGOCHEF_CACHE", str(tmp_path))
    write, others = backends.write_onnx, []

    def while_another_does_it(*args):
        if not others:
            others.append(None)
            others[0] = onnx_pair(checkpoint)
        write(*args)

    monkeypatch.setattr(backends, "write_onnx", while_another_does_it)
    pair = onnx_pair(checkpoint)
    assert others == [pair]
    assert OnnxEngine(*pair).taxonomy.verbs
    left = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert sorted(left) == sorted([*pair, report_of(pair[0])])


def test_backends_agree_and_are_written_once(checkpoint, monkeypatch):
    crops = pictures(1, 4)
    expected = load_engine(checkpoint, backend="torch", device="cpu", precision="fp32").encode(crops)
    for backend in RUNTIMES:
        engine = load_engine(checkpoint, backend=backend)
        assert engine.name == f"{RUNTIMES[backend]} cpu fp32"
        assert (engine.encode(crops) - expected).abs().max() < 1e-4

    def again(*args, **kwargs):
        raise AssertionError("written twice")

    monkeypatch.setattr(backends, "write_onnx", again)
    load_engine(checkpoint, backend="onnx")


def test_a_damaged_file_of_the_cache_is_written_again(checkpoint, caplog):
    encoder, _ = onnx_pair(checkpoint)
    content = encoder.read_bytes()
    encoder.write_bytes(content[:-1000] + bytes([content[-1000] ^ 1]) + content[-999:])
    assert onnx_pair(checkpoint)[0] == encoder and encoder.read_bytes() == content
    assert "SHA-256" in caplog.text and "It is written again." in caplog.text


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
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(InputError, match=r'OpenVINO: openvino is not installed: pip install "egochef\[openvino\]"'):
        load_engine(checkpoint, backend="openvino")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert load_engine(checkpoint, device="cpu", precision="fp32").name == "torch cpu fp32"
