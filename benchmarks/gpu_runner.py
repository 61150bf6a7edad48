"""Runs checks one after the other in a process of their own, so that no fault of one keeps the others from running.

In: `Check`s and a time for all of them. Out: a `Result` each. After an exception the next check gets a fresh process: a
CUDA fault can leave one useless. A process that dies is reported, one that is not done in time is ended.
"""

import gc
import multiprocessing
import os
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from egochef.bench.rows import Row

END_S = 10.0
"""that a process has to end by itself when all is done"""
TAIL = 4000
"""characters of what a process wrote to standard error that are kept with a fault"""
NO_TF32 = {"NVIDIA_TF32_OVERRIDE": "0"}
"""environment in which NVIDIA's libraries compute float32 as float32"""


@dataclass(frozen=True)
class Place:
    """Where checks work, on what, and how much they do."""

    work: Path
    """a folder for all that they write"""
    device: str
    """such as cuda"""
    tiny: bool
    """so small that a processor does all in a minute; the numbers then say nothing"""


@dataclass
class Found:
    """What a check found. It passes where there are no faults."""

    detail: dict[str, Any] = field(default_factory=dict)
    limits: dict[str, float] = field(default_factory=dict)
    """of those of the details that have one"""
    faults: list[str] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    ratios: dict[str, float] = field(default_factory=dict)

    def at_most(self, name: str, value: float, limit: float) -> None:
        """Keep a number; above the limit, or not a number, it is a fault."""
        self.detail[name], self.limits[name] = value, limit
        if not value <= limit:
            self.faults.append(f"{name} is {value:.3g}, expected at most {limit:g}")

    def expect(self, holds: bool, what: str) -> None:
        """`what` is a fault unless it holds."""
        if not holds:
            self.faults.append(f"expected: {what}")


@dataclass(frozen=True)
class Check:
    """One question, asked in a process that may have been asked others before."""

    name: str
    ask: Callable[[Place], Found]
    """of a module's top level, or a partial of one"""
    needs_s: float = 0.0
    """about; it is not begun with less time than this"""
    tf32: bool = False
    """float32 products may be rounded to TF32, as they are by default"""


@dataclass(frozen=True)
class Result:
    """What became of a check."""

    name: str
    passed: bool | None
    """None: it was not run, or not to its end"""
    seconds: float
    found: Found
    error: str | None
    """why it did not pass"""


def run_checks(
    checks: Sequence[Check], place: Place, budget_s: float, tell: Callable[[list[Result]], None]
) -> list[Result]:
    """All checks in their order, as far as the time goes.

    Args:
        tell: gets the results so far, after each check.
    """
    deadline = time.monotonic() + budget_s
    results: list[Result] = []
    worker: Worker | None = None
    try:
        for check in checks:
            left_s = deadline - time.monotonic()
            if left_s <= check.needs_s:
                left = f"{max(0.0, left_s):.0f} of {budget_s:.0f} s"
                why = f"not run: it needs about {check.needs_s:.0f} s, and {left} are left"
                results.append(Result(check.name, None, 0.0, Found(), why))
            else:
                if worker and worker.tf32 != check.tf32:
                    worker.end()
                if worker is None or not worker.is_alive:
                    worker = Worker(place.work / "stderr.txt", check.tf32)
                results.append(worker.ask(check, place, left_s))
            tell(results)
    finally:
        if worker:
            worker.end()
    return results


class Worker:
    """A process that answers checks, in a process group with all that it starts."""

    def __init__(self, stderr: Path, tf32: bool):
        """`stderr`: gets what it and those that it starts write to standard error."""
        context = multiprocessing.get_context("spawn")
        self.tf32 = tf32
        self._stderr = stderr
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_answer, args=(theirs, stderr, tf32))
        self._is_busy = False
        with _environment({} if tf32 else NO_TF32):
            self._process.start()
        theirs.close()

    @property
    def is_alive(self) -> bool:
        return not self._connection.closed

    def ask(self, check: Check, place: Place, left_s: float) -> Result:
        """What becomes of a check; the process is ended where it can be used no more."""
        began_s = time.monotonic()
        self._stderr.write_text("")
        found, error = Found(), None
        passed: bool | None = False
        self._is_busy = True
        try:
            self._connection.send((check.ask, place))
            if self._connection.poll(left_s):
                found, error = self._connection.recv()
                self._is_busy = False
                passed = error is None and not found.faults
            else:
                passed, error = None, f"not done: the time was up after {left_s:.0f} s of it"
        except (EOFError, ConnectionError):
            self._process.join(END_S)
            error = f"its process died, exit code {self._process.exitcode}"
        if error:
            self.end()
            written = self._stderr.read_text(errors="replace").strip()[-TAIL:]
            error = f"{written}\n{error}" if written else error
        if error is None and found.faults:
            error = "; ".join(found.faults)
        return Result(check.name, passed, round(time.monotonic() - began_s, 2), found, error)

    def end(self) -> None:
        """End the process, and with it what it started."""
        if not self.is_alive:
            return
        self._connection.close()
        if not self._is_busy:  # it waits for a check, and ends by itself now
            self._process.join(END_S)
        if self._process.pid and hasattr(os, "killpg"):
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)
        self._process.kill()
        self._process.join()


@contextmanager
def _environment(more: dict[str, str]) -> Iterator[None]:
    """Variables for processes that are started inside."""
    before = {name: os.environ.get(name) for name in more}
    os.environ.update(more)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _answer(connection: Connection, stderr: Path, tf32: bool) -> None:
    """Answer checks until nobody asks any more."""
    if hasattr(os, "setpgrp"):
        os.setpgrp()
    sys.stderr.flush()
    os.dup2(os.open(stderr, os.O_WRONLY | os.O_CREAT | os.O_APPEND), sys.stderr.fileno())
    if not tf32:
        with warnings.catch_warnings():  # another way to say so is coming
            warnings.simplefilter("ignore")
            torch.backends.cudnn.allow_tf32 = False
    while True:
        try:
            ask, place = connection.recv()
        except EOFError:
            return
        found, error = Found(), None
        try:
            found = ask(place)
        except Exception:
            error = traceback.format_exc()
        connection.send((found, error))
        gc.collect()
        if torch.cuda.is_initialized():
            with suppress(RuntimeError):  # a device that had a fault
                torch.cuda.empty_cache()
