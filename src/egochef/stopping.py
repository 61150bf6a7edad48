"""Ending in good order on a signal: Ctrl-C, SIGTERM, SIGUSR1 and SIGUSR2 (what Slurm and other schedulers send).

In: code that runs `with StopSignals() as stop`. Out: `Stopped`, raised at once, or at a place of the code's choosing.
"""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType

from egochef.errors import Stopped

SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1", "SIGUSR2") if hasattr(signal, name))


class StopSignals:
    """Hears the signals while it is entered (in the main thread; elsewhere it hears nothing).

    The first one raises `Stopped` where the program happens to be, as Ctrl-C does; inside `deferred` it is only noted,
    inside a further `deferred(False)` not. Others after it do nothing: who asks twice gets the same orderly end.
    """

    def __init__(self) -> None:
        self.received: str | None = None
        """name of the first signal"""
        self._deferred = False
        self._before: dict[int, object] = {}

    def __enter__(self) -> "StopSignals":
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._hear) for number in SIGNALS}
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _hear(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None:
            return
        self.received = signal.Signals(number).name
        if not self._deferred:
            self.raise_if_received()

    @contextmanager
    def deferred(self, wanted: bool = True) -> Iterator[None]:
        """Only note signals inside, so that nothing is left half done.

        Raises:
            Stopped: a signal had come before, and is not to wait any longer.
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
            Stopped: a signal has come.
        """
        if self.received is not None:
            raise Stopped(f"stopped by {self.received}")
