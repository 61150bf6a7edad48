"""Ending in good order on a signal: Ctrl-C, SIGTERM, SIGHUP, SIGUSR1 and SIGUSR2 (what terminals and schedulers send).

In: code that runs `with StopSignals() as stop`; the command line runs all commands in one. Out: an exception, raised at
once, or at a place of the code's choosing.
"""

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.machinery import ExtensionFileLoader
from types import FrameType, TracebackType

from egochef.errors import Stopped

NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2")
SIGNALS = tuple(getattr(signal, name) for name in NAMES if hasattr(signal, name))
ENDS = (KeyboardInterrupt, Stopped, GeneratorExit, SystemExit)
"""while one of these is on its way, the program is ending something in order"""
LOADING_S = 0.02
"""after which a signal that came while a library was being loaded is looked at again"""
LOADING = tuple(getattr(ExtensionFileLoader, name).__code__ for name in ("create_module", "exec_module"))
"""what loads compiled libraries"""


class StopSignals:
    """Hears the signals while it is entered (in the main thread; elsewhere it hears nothing).

    The first one raises `kind` where the program happens to be, as Ctrl-C does; inside `deferred` it is only noted,
    inside a further `deferred(False)` not. Others while that is on its way do nothing: who asks twice gets the same
    orderly end. A signal that is ignored when this begins, as `nohup` has it, stays ignored.

    One that comes while a compiled library is being loaded waits for its end: many turn it into other faults.
    """

    def __init__(self, kind: type[BaseException] = Stopped) -> None:
        self.received: str | None = None
        """name of the first signal"""
        self._kind = kind
        self._deferred = self._is_answered = False
        self._before: dict[int, object] = {}

    def __enter__(self) -> "StopSignals":
        if threading.current_thread() is threading.main_thread():
            if _entered:  # one that came when the work before this was just done
                self.received = _entered[-1].received
            _entered.append(self)
            for number in SIGNALS:
                if signal.getsignal(number) not in (signal.SIG_IGN, None):  # None: not Python's
                    self._before[number] = signal.signal(number, self._hear)
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
        if self in _entered:
            _entered.remove(self)

    def _hear(self, number: int, frame: FrameType | None) -> None:
        for stop in _entered:  # those around this one may have more to do when this one's work is done
            stop.received = stop.received or signal.Signals(number).name
        if self._deferred or self._is_answered or is_ending():
            return
        if hasattr(signal, "pthread_kill") and _is_loading(frame):
            again = threading.Timer(LOADING_S, signal.pthread_kill, (threading.main_thread().ident, number))
            again.daemon = True
            again.start()
            return
        self.raise_if_received()

    @contextmanager
    def deferred(self, wanted: bool = True) -> Iterator[None]:
        """Only note signals inside, so that nothing is left half done.

        Raises:
            Stopped: (or `kind`) a signal had come before, and is not to wait any longer.
        """
        before, self._deferred = self._deferred, wanted
        try:
            if not wanted:
                self.raise_if_received()
            yield
        finally:
            self._deferred = before

    def raise_if_received(self) -> None:
        """
        Raises:
            Stopped: (or `kind`) a signal has come.
        """
        if self.received is not None and not self._is_answered:
            raise self._kind(f"stopped by {self.received}")

    def answer(self) -> None:
        """What was asked for is done, and only has to be told: no signal, this one or another, ends that any more."""
        for stop in _entered:
            stop._is_answered = True

    def raise_if_due(self) -> None:
        """The same, but where signals are only noted, or something is ending already."""
        if not self._deferred and not is_ending():
            self.raise_if_received()


_entered: list[StopSignals] = []
"""the outermost first"""


@contextmanager
def held() -> Iterator[None]:
    """Hold signals back for the moment in which a file or folder is made, moved or removed."""
    stop = _entered[-1] if _entered and threading.current_thread() is threading.main_thread() else None
    if stop is None:
        yield
        return
    with stop.deferred():
        yield
    stop.raise_if_due()


@contextmanager
def unheard_by_children() -> Iterator[None]:
    """Hold signals back. Processes that start meanwhile never hear them, not even while they import.

    They inherit the mask. Here the system gives a signal to any thread, such as a library's, and Python calls its
    handler in this one, which could leave a process half started: so the handlers wait too.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    heard: list[int] = []
    is_main = threading.current_thread() is threading.main_thread()
    handlers = {number: signal.getsignal(number) for number in SIGNALS} if is_main else {}
    handlers = {number: handler for number, handler in handlers.items() if callable(handler)}
    for number in handlers:
        signal.signal(number, lambda number, frame: heard.append(number))
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        for number, handler in handlers.items():
            signal.signal(number, handler)
        for number in heard:
            signal.raise_signal(number)


def is_ending() -> bool:
    """Whether what is being done is the cleaning up on the way to an end."""
    error = sys.exception()
    while error is not None:
        if isinstance(error, ENDS):
            return True
        error = error.__context__
    return False


def _is_loading(frame: FrameType | None) -> bool:
    """Whether a compiled library is being loaded by a frame or one of those that called it."""
    while frame is not None:
        if frame.f_code in LOADING:
            return True
        frame = frame.f_back
    return False
