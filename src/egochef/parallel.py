"""Work spread over processes that start clean, report progress, and never outlive the command.

In: a function of a module's top level and items for it. Out: its results as they come. Ctrl-C, a fault in one process,
a process that was killed, the command itself being killed: each ends all the others.
"""

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing.connection import wait as wait_for_processes
from multiprocessing.sharedctypes import Synchronized
from multiprocessing.synchronize import Event
from typing import TypeVar

from egochef.errors import InputError
from egochef.limits import MORE_SHARED_MEMORY, SHARED_MEMORY
from egochef.stopping import SIGNALS, held, unheard_by_children

Item = TypeVar("Item")
Result = TypeVar("Result")

POLL_S = 0.2
"""how often progress is looked at"""
STALL_S = 600.0
"""without any sign from any process after which they are taken to hang"""
GRACE_S = 5.0
"""that processes have to stop by themselves, before they are killed"""


class _Stopped(Exception):
    """A process was told to stop."""


_stop: Event | None = None
_done: "Synchronized[int] | None" = None
_beats: "Synchronized[int] | None" = None
_on_progress: Callable[[int], None] | None = None


def advance(amount: int) -> None:
    """Tell progress from within the function, 0 for a sign of life; here it stops when the others have to."""
    if _on_progress is not None:
        _on_progress(amount)
    if _done is not None:
        with _done.get_lock():
            _done.value += amount
            assert _beats is not None
            _beats.value += 1
    if _stop is not None and _stop.is_set():
        raise _Stopped


def run_parallel(
    function: Callable[[Item], Result],
    items: Sequence[Item],
    num_workers: int,
    *,
    name: Callable[[Item], str] = str,
    on_progress: Callable[[int], None] | None = None,
    prepare: Callable[[], None] | None = None,
    stall_s: float = STALL_S,
) -> Iterator[tuple[int, Result]]:
    """Call `function` on each item, in `num_workers` processes (1: in this one).

    Args:
        function: importable by name, its arguments and results picklable; calls `advance` now and then.
        name: of an item, for the message about a process that was killed.
        on_progress: gets what `advance` was told, in this process.
        stall_s: without a sign of life from any process after which they are taken to hang.
        prepare: called once in each process that is started, for example to hold a library to one thread.

    Yields:
        Place of the item and its result, in the order in which they get ready.

    Raises:
        InputError: fewer than one worker, what the function raised, or a process was killed or hangs.
    """
    if num_workers < 1:
        raise InputError(f"num_workers is {num_workers}, expected at least 1")
    num_workers = min(num_workers, len(items))
    if num_workers <= 1:
        with _progress_here(on_progress):
            yield from enumerate(map(function, items))
        return
    context = multiprocessing.get_context("spawn")
    try:
        with unheard_by_children():  # the process that watches over these starts with the first of them
            stop, done, beats = context.Event(), context.Value("q", 0), context.Value("q", 0)
    except OSError as error:
        what = f"{num_workers} processes cannot share anything ({error.strerror})"
        raise InputError(f"{SHARED_MEMORY}: {what}. {MORE_SHARED_MEMORY}, or use --workers 1.") from error
    told, alive_at, beats_then = 0, time.monotonic(), 0

    def tell() -> None:
        nonlocal told
        now = done.value
        if on_progress is not None and now != told:
            on_progress(now - told)
        told = now

    with ProcessPoolExecutor(
        num_workers, context, initializer=_start_worker, initargs=(stop, done, beats, prepare)
    ) as pool:
        jobs: dict[Future[Result], int] = {}
        try:
            with unheard_by_children():
                for place, item in enumerate(items):
                    jobs[pool.submit(function, item)] = place
            pending = set(jobs)
            while pending:
                with held():  # who is stopped within a lock never lets go of it
                    ready, pending = wait(pending, POLL_S, FIRST_COMPLETED)
                    tell()
                    beats_now = beats.value
                    results = [(jobs[job], job.result()) for job in ready]
                if ready or beats_now != beats_then:
                    alive_at, beats_then = time.monotonic(), beats_now
                elif time.monotonic() - alive_at > stall_s:
                    at_work = ", ".join(name(items[jobs[job]]) for job in pending if job.running())
                    raise InputError(
                        f"no sign of life for {stall_s:g} s from the processes at {at_work}. Does the disk answer? "
                        "Then run it again."
                    )
                yield from results
        except BaseException as error:
            stop.set()
            running = [name(items[place]) for job, place in jobs.items() if not job.done() or _was_killed(job)]
            _end(pool, list(jobs))
            fault = _first_fault(list(jobs))
            if fault is None and isinstance(error, BrokenProcessPool):
                at_work = ", ".join(running[:num_workers])
                fault = InputError(
                    f"a worker process was killed while at {at_work}; the system may have run out of memory. "
                    "Run it again, with fewer --workers if that happens again."
                )
            raise fault or error from None


def _end(pool: ProcessPoolExecutor, jobs: "list[Future[Result]]") -> None:
    """Let processes stop by themselves for a moment, then kill what is left: one that hangs hears nothing."""
    processes = list((pool._processes or {}).values())  # there is no public way
    pool.shutdown(wait=False, cancel_futures=True)
    wait([job for job in jobs if job.running()], GRACE_S)
    for process in processes:
        process.join(0.5)
        if process.is_alive():
            process.kill()
            process.join(0.5)


def _was_killed(job: "Future[Result]") -> bool:
    return not job.cancelled() and isinstance(job.exception(), BrokenProcessPool)


def _first_fault(jobs: "list[Future[Result]]") -> InputError | None:
    """What a user can mend, if that is why a process failed."""
    errors = (job.exception() for job in jobs if job.done() and not job.cancelled())
    return next((error for error in errors if isinstance(error, InputError)), None)


@contextmanager
def _progress_here(on_progress: Callable[[int], None] | None) -> Iterator[None]:
    global _on_progress
    before, _on_progress = _on_progress, on_progress
    try:
        yield
    finally:
        _on_progress = before


def _start_worker(
    stop: Event, done: "Synchronized[int]", beats: "Synchronized[int]", prepare: Callable[[], None] | None
) -> None:
    global _stop, _done, _beats
    _stop, _done, _beats = stop, done, beats
    for number in SIGNALS:  # the parent hears them and sets `stop`
        signal.signal(number, signal.SIG_IGN)
    end_with_parent()
    if prepare is not None:
        prepare()


def end_with_parent() -> None:
    """End this process, which multiprocessing has started, as soon as its parent is gone."""
    threading.Thread(target=_wait_for_parent, daemon=True).start()


def _wait_for_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait_for_processes([parent.sentinel])
    os._exit(1)
