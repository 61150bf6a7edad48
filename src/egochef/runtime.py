"""Where and how numbers are computed: device, precision, seeds, processors."""

import ctypes
import os
import platform
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import numpy as np
import torch

from egochef.errors import InputError

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of malloc.h
PRECISIONS = ("auto", "fp32", "bf16", "fp16")


def pick_device(name: str | None = None) -> torch.device:
    """The device asked for, or the best there is: CUDA, then MPS, then the CPU. On CUDA it has its number.

    Raises:
        InputError: the device asked for is not there.
    """
    if name is None:
        if not torch.cuda.is_available():
            return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
        name = "cuda"
    try:
        device = torch.device(name)
        made = torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            f"device {name!r} cannot be used here ({reason}). Leave the device out to let it be chosen."
        ) from None
    return made.device if device.type == "cuda" else device  # torch.cuda.set_device takes none without a number


def pick_dtype(device: torch.device, precision: str = "auto") -> torch.dtype:
    """The type that an encoder's matrix products run in; weights, what follows an encoder and losses stay float32.

    `auto` is bf16 on CUDA (fp16 where the GPU lacks it), bf16 on CPUs with matrix units for it (AMX), else fp32.
    """
    if precision not in PRECISIONS:
        raise InputError(f"precision is {precision!r}, expected one of {', '.join(PRECISIONS)}")
    if precision != "auto":
        return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    if device.type == "cpu" and torch.cpu._is_amx_tile_supported():
        return torch.bfloat16
    return torch.float32


@contextmanager
def mixed_precision(device: torch.device, dtype: torch.dtype) -> Iterator[None]:
    """Autocast to `dtype`, or nothing for float32."""
    with torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32):
        yield


def full_precision(device: torch.device) -> AbstractContextManager[Any]:
    """Autocast, where it is on, held off; tensors keep their types."""
    return nullcontext() if device.type == "meta" else torch.autocast(device.type, enabled=False)  # meta has none


def seed_torch(*key: int) -> None:
    """Seed torch's global generator (weights, dropout) from whole numbers such as (seed, epoch)."""
    torch.manual_seed(int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0] >> np.uint64(1)))


def num_cpus() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def keep_freed_memory() -> None:
    """Let this process use the memory again that it frees, instead of giving it back to the system at once.

    A data worker takes and frees megabytes for every clip; with glibc's defaults clips from videos come with 760 page
    faults more, a seventh of their time. Nothing happens where the C library is another one.
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(_M_MMAP_THRESHOLD, 32 << 20)  # the most that glibc before 2.35 takes
        libc.mallopt(_M_TRIM_THRESHOLD, 1 << 30)


def describe_machine() -> dict[str, str | int]:
    """What a measured number has to be read with."""
    processor = platform.processor() or platform.machine()
    try:
        with open("/proc/cpuinfo") as file:  # noqa: PTH123  not a path of ours
            processor = next(
                (line.split(":", 1)[1].strip() for line in file if line.startswith("model name")), processor
            )
    except OSError:
        pass
    return {
        "cores": num_cpus(),
        "processor": processor,
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "system": platform.system(),
    }
