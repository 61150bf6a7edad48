"""Measuring in a process of its own: what it computes starts clean, and its memory is its own."""

import math
import multiprocessing
import os
import platform
import resource
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import cv2

from egochef.data.dataset import start_worker
from egochef.errors import InputError
from egochef.parallel import end_with_parent
from egochef.stopping import unheard_by_children

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
    patience_s = 0.0
    try:
        _start(process)
        sender.close()
        answer = receiver.recv()
        patience_s = END_S
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
        if process.pid is not None:
            process.join(patience_s)
            with suppress(ProcessLookupError, PermissionError):  # one that was interrupted, and what it has started
                os.killpg(process.pid, signal.SIGKILL)
            process.kill()
            process.join()
    if isinstance(answer, InputError):
        raise answer
    return answer


def _start(process: BaseProcess) -> None:
    """Start a process that hears no signals.

    On Linux it inherits that, and this waits for seconds until what forks it has imported: signals are heard meanwhile.
    """
    if sys.platform != "linux":
        with unheard_by_children():
            process.start()
        return
    try:
        process.start()
    except BaseException:  # what forks would stay until it has imported
        if (pid := getattr(forkserver._forkserver, "_forkserver_pid", None)) is not None:  # there is no public way
            os.kill(pid, signal.SIGKILL)
        raise


def _fresh_context() -> "ForkServerContext | SpawnContext":
    """What starts processes that have computed nothing yet.

    On Linux they are forked from a process that has imported and done nothing else: importing takes seconds. Elsewhere
    forking is not safe.
    """
    if sys.platform != "linux":
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(PRELOADED))
    with unheard_by_children():  # each at the first call; what starts the first lets go of what is held back
        resource_tracker.ensure_running()
    with unheard_by_children():
        forkserver.ensure_running()
    return context


def _answer(sender: Connection, function: Callable[..., Any], arguments: tuple[Any, ...], as_worker: bool) -> None:
    os.setpgid(0, 0)  # ended with all that it starts
    end_with_parent()
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
