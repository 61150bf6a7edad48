"""The script that checks a GPU, tried on the processor: all its checks, and what becomes of a check that fails."""

import importlib
import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from egochef.runtime import pick_device
from egochef.training.step import _room

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
CHECKS = """
import os, signal, time
from gpu_runner import Found

def sound(place):
    return Found({"process": os.getpid()})

def too_far(place):
    found = Found()
    found.at_most("losses_apart", float("nan"), 0.1)
    return found

def raises(place):
    raise RuntimeError("CUDA error: device-side assert triggered")

def dies(place):
    os.kill(os.getpid(), signal.SIGKILL)

def hangs(place):
    time.sleep(600)
"""
NAMES = [
    "kitchen",
    "training",
    "training resnet50",
    "training switches",
    "evaluation",
    "bf16",
    "fp16",
    "resume",
    "resume fp16",
    "features",
    "streams",
    "micro-batch",
    "torch.compile",
    "speed of training",
    "speed live",
]


@pytest.fixture
def gpu(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module("gpu")


@pytest.fixture
def checks(gpu, monkeypatch, tmp_path):
    """Checks that fail in one way each, in a module that a process of its own can import."""
    (tmp_path / "failing_checks.py").write_text(CHECKS)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "failing_checks", raising=False)
    return importlib.import_module("failing_checks")


@pytest.mark.soak
def test_all_checks_pass_on_the_processor(tmp_path):
    """A minute and a half of what the tests of each part show on a processor too; CI asks for it by name."""
    command = [sys.executable, BENCHMARKS / "gpu.py", "--device", "cpu", "--tiny", "--minutes", 14, "--out", tmp_path]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = tmp_path.iterdir()
    assert re.fullmatch(r"gpu-[a-z0-9-]+\.json", path.name) and done.stdout.splitlines()[-1] == str(path)
    found = json.loads(path.read_text())
    assert [check["name"] for check in found["checks"]] == NAMES
    for check in found["checks"]:
        assert check["passed"] is True and check["error"] is None and check["seconds"] >= 0, check
        assert check["detail"] and check["name"] in done.stdout
        assert all(check["detail"][name] <= limit for name, limit in check["limits"].items())
    assert {"processor", "cores", "torch", "device", "commit", "gpu"} <= set(found["machine"])
    rows = {row["name"]: row["value"] for row in found["rows"]}
    assert len(rows) == len(found["rows"]) and all(math.isfinite(value) for value in rows.values())
    assert {"fast/store data_wait_share", "fast/store over_resident", "light16@torch rolling"} <= set(rows)
    ratios = found["ratios"]
    assert all(math.isfinite(ratio) for ratio in ratios.values())
    assert {"data_wait_share", "store_over_resident", "rolling_over_encoder_light16@torch"} <= set(ratios)
    assert found["tiny"] is True and found["seconds"] > 0


@pytest.mark.slow
def test_a_check_that_fails_is_told_and_the_others_run(gpu, checks, tmp_path, capsys):
    names = ["sound", "too_far", "raises", "sound", "dies", "sound"]
    listed = [gpu.Check(f"{number} {name}", getattr(checks, name)) for number, name in enumerate(names)]
    path = tmp_path / "out" / "gpu-one.json"
    machine = {"processor": "one"}
    assert gpu.check_all([*listed, gpu.Check("last", checks.sound, 1e6)], place(gpu, tmp_path), machine, path, 10) == 1
    results = json.loads(path.read_text())["checks"]
    assert [result["passed"] for result in results] == [True, False, False, True, False, True, None]
    errors = [result["error"] for result in results]
    assert errors[1] == "losses_apart is nan, expected at most 0.1" and results[1]["detail"] == {"losses_apart": "nan"}
    assert "Traceback" in errors[2] and "RuntimeError: CUDA error: device-side assert triggered" in errors[2]
    assert errors[4] == "its process died, exit code -9" and errors[6].startswith("not run: it needs about")
    processes = [results[number]["detail"]["process"] for number in (0, 3, 5)]
    assert len(set(processes)) == 3, "a fresh process after each fault"
    shown = capsys.readouterr().out
    assert all(word in shown for word in ("passed", "failed", "not run", "device-side assert triggered", str(path)))


def test_a_check_that_does_not_end_is_ended(gpu, checks, tmp_path):
    told = []
    listed = [gpu.Check("hangs", checks.hangs), gpu.Check("sound", checks.sound)]
    results = gpu.run_checks(listed, place(gpu, tmp_path), 3.0, lambda results: told.append(len(results)))
    assert told == [1, 2] and [result.passed for result in results] == [None, None]
    assert "the time was up" in results[0].error and results[1].error.startswith("not run")


def place(gpu, tmp_path):
    return gpu.Place(tmp_path, "cpu", True)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA GPU")
def test_without_a_gpu_one_line_says_what_to_do(gpu, tmp_path, capsys):
    assert gpu.main(["--out", str(tmp_path)]) == 1
    told = capsys.readouterr()
    assert not told.out and len(told.err.splitlines()) == 1
    assert "no CUDA GPU" in told.err and "--device cpu --tiny" in told.err
    assert not list(tmp_path.iterdir())


def test_numbers_that_are_none_are_written_as_texts(gpu):
    found = gpu.Found({"apart": math.inf, "count": 3})
    results = [gpu.Result("one", False, 1.0, found, "apart is inf")]
    written = json.dumps(gpu.report({"processor": "one"}, results, True, 2.0), allow_nan=False)
    assert json.loads(written)["checks"][0]["detail"] == {"apart": "inf", "count": 3}


def test_a_gpu_has_its_number():
    """torch.cuda.set_device, which a run begins with, takes no device without one."""
    with FakeTensorMode():
        assert pick_device("cuda") == torch.device("cuda", 0)


@pytest.mark.parametrize(
    "said",
    [
        "CUDA error: out of memory",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED",
    ],
)
def test_what_a_gpu_without_room_says_is_understood(said):
    with _room() as room:
        raise RuntimeError(said)
    assert not room.there and room.why == said
