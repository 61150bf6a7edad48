"""Measuring in a process of its own: what it computes starts clean, and its memory is its own."""

import math
import multiprocessing
import platform
import resource
import sys
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import cv2

from egochef.data.dataset import start_worker
from egochef.errors import InputError

if TYPE_CHECKING:
    from multiprocessing.context import ForkServerContext, SpawnContext

Result = TypeVar("Result")
END_S = 10.0
"""that a process has to end when its work is done"""
PRELOADED = ("egochef.bench.data", "egochef.bench.live", "egochef.bench.train")
"""what measures, and with it the libraries that all of it needs"""


def in_fresh_process(function: Callable[..., Result], *arguments: Any, as_worker: bool = True) -> Result:
    """What a function of a module's top level gives in a process of its own.

    Args:
        as_worker: begin as a data worker does, with one thread; otherwise as a program does.

    Raises:
        InputError: the function's, or the process was killed.
    """
    context = _fresh_context()
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_answer, args=(sender, function, arguments, as_worker))
    process.start()
    sender.close()
    try:
        answer = receiver.recv()
    except EOFError:
        process.join()
        code = process.exitcode or 0
        if code < 0:
            raise InputError(
                f"a process that measures was killed (signal {-code}); the system may have run out of "
                "memory. Run it again with less (--segments of bench data, --models of bench train)."
            ) from None
        raise RuntimeError(f"{function.__name__} failed, see above") from None
    finally:
        receiver.close()
        process.join(END_S)
        process.kill()  # nothing but an interrupted one is left by now
        process.join()
    if isinstance(answer, InputError):
        raise answer
    return answer


def _fresh_context() -> "ForkServerContext | SpawnContext":
    """What starts processes that have computed nothing yet.

    On Linux they are forked from a process that has imported and done nothing else: importing takes seconds. Elsewhere
    forking is not safe.
    """
    if sys.platform != "linux":
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(PRELOADED))
    return context


def _answer(sender: Connection, function: Callable[..., Any], arguments: tuple[Any, ...], as_worker: bool) -> None:
    if as_worker:
        start_worker()
    cv2.setNumThreads(1)
    try:
        sender.send(function(*arguments))
    except InputError as error:
        sender.send(error)


def read_bytes_so_far() -> float:
    """That this process has read so far, NaN where the system does not tell."""
    try:
        return float(Path("/proc/self/io").read_text().split()[1])
    except OSError:
        return math.nan


def peak_mib_so_far() -> float:
    """The most memory that this process held."""
    try:  # getrusage counts what the parent held when it started this process
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 2**10
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if platform.system() == "Darwin" else 2**10)
