"""Runs of seconds on a tiny drawn kitchen, in this process or as processes of their own, and how two runs compare."""

import dataclasses
import os
import socket
import subprocess
import sys
from contextlib import contextmanager

import torch
from torch.nn.modules.module import register_module_forward_pre_hook

from egochef.clip import ClipSpec
from egochef.data.transforms import Augment
from egochef.files import sha256_of, write_json
from egochef.model.checkpoint import read_tensors, write_tensors
from egochef.model.recogniser import ModelConfig
from egochef.records import to_dict
from egochef.training.config import TrainConfig, with_encoder
from egochef.training.runfiles import read_log
from egochef.training.state import newest_whole, state_path

TINY = dataclasses.replace(
    with_encoder(TrainConfig(recipe="tiny"), "efficientnet_lite0"),
    model=ModelConfig(encoder="efficientnet_lite0", hidden_size=8),
    clip=ClipSpec(num_frames=2, image_size=64, resize_size=64, mean=(0.498,) * 3, std=(0.502,) * 3),
    epochs=2,
    batch_size=4,
    micro_batch=2,
    lr=1e-3,
    warmup_epochs=0.5,
    precision="fp32",
    num_workers=0,
    max_train_segments=8,
    max_validation_segments=4,
)
HEADS = dataclasses.replace(TINY, feature_views=2, epochs=4, augment=Augment(cutmix_alpha=0.0))
SIX = dataclasses.replace(TINY, max_train_segments=12, ema_decay=0.9, warmup_epochs=1.0)
"""6 steps in 2 epochs, with dropout, CutMix, accumulation and a moving average"""

TIMES = ("data_ms", "copy_ms", "forward_ms", "backward_ms", "optimiser_ms", "step_ms", "eval_ms")
RATES = ("epoch_s", "clips_per_s", "wait_share")


@contextmanager
def one_thread():
    """As the processes that `start` starts: other numbers of threads round otherwise."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def before_forward(kind, hook):
    """Calls `hook(module, inputs)` before each forward pass of modules of that kind, whoever made them."""
    handle = register_module_forward_pre_hook(
        lambda module, inputs: hook(module, inputs) if isinstance(module, kind) else None
    )
    try:
        yield
    finally:
        handle.remove()


def log_of(run):
    """A run's log without times and rates."""
    return [{name: line[name] for name in line if name not in TIMES + RATES} for line in read_log(run)]


def steps(run):
    return [line for line in log_of(run) if line["kind"] == "step"]


def last_state(run):
    return read_tensors(state_path(run, newest_whole(run)))


def same_tensors(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def assert_same_run(a, b):
    """Bit for bit: log, best checkpoint with its scores, and the last state with all that is in it."""
    assert log_of(a) == log_of(b)
    for first, second in ((last_state(a), last_state(b)), (best_of(a), best_of(b))):
        assert same_tensors(first[0], second[0])
        assert first[1] == second[1]


def best_of(run):
    return read_tensors(run / "checkpoints" / "best.safetensors")


def put_state(run, name, tensors, header):
    """A state under that name, whole as far as its checksum tells."""
    path = state_path(run, name)
    write_tensors(path, tensors, header)
    path.with_suffix(".sha256").write_text(f"{sha256_of(path)}  {path.name}\n")


def command(config, data, out, *flags):
    """`egochef train` as a command line, with the config as a file beside the run."""
    path = out.parent / f"{out.name}.json"
    write_json(path, to_dict(config))
    return [sys.executable, "-m", "egochef", "train", "--config", path, "--data", data, "--out", out, *flags]


def start(words, **environment):
    """A process in a session of its own, so that a signal can go to it and all that it started."""
    return subprocess.Popen(
        list(map(str, words)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"} | environment,
    )


def ends(process, code):
    """Its output, once it has ended with the exit code. A test that hangs here is ended by pytest."""
    out, err = process.communicate()
    assert process.returncode == code, (process.returncode, out, err)
    return out + err


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def start_ranks(words, num_ranks, **environment):
    """The same command on several ranks, as a launcher would start them."""
    common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": str(num_ranks)} | environment
    return [start(words, RANK=str(rank), LOCAL_RANK=str(rank), **common) for rank in range(num_ranks)]
