"""Standard input, output and errors, of which any may be closed, full, or no longer read by anybody.

In: the process's own three files. Out: three that can be written, whatever becomes of who reads them.
"""

import io
import os
import sys
from typing import Any, TextIO

STDOUT = "standard output"
"""the `filename` of faults in writing to it"""


def open_streams() -> None:
    """See that all three are open, that faults of standard output name it, and those of standard error end nothing.

    A closed one (`2>&-`) would give its number to the next file that is opened, and libraries would write into that.
    """
    for number, mode in ((0, "r"), (1, "w"), (2, "w")):
        name = ("stdin", "stdout", "stderr")[number]
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number, which is this one
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))  # noqa: SIM115
    if os.name == "posix":  # the console of Windows is no plain file
        sys.stdout, sys.stderr = (
            _over(_Named(1, "w", closefd=False), sys.stdout),
            _over(_Unheard(2, "w", closefd=False), sys.stderr),
        )


def _over(raw: io.FileIO, text: TextIO) -> TextIO:
    """The same stream over another raw file."""
    buffered = io.BufferedWriter(raw)
    is_unbuffered = bool(getattr(text, "write_through", False))  # python -u
    return io.TextIOWrapper(
        buffered, text.encoding, text.errors, line_buffering=bool(text.line_buffering), write_through=is_unbuffered
    )


class _Named(io.FileIO):
    """Standard output: its faults name it."""

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except OSError as error:
            error.filename = STDOUT
            raise


class _Unheard(io.FileIO):
    """A file that takes everything: what cannot be written is dropped, as there is nobody to tell it to."""

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except OSError:
            return memoryview(data).nbytes


def fault_of(stream: TextIO) -> OSError | None:
    """Why what has been printed cannot be written out, if so."""
    try:
        stream.flush()
    except OSError as error:
        return error
    return None


def silence(stream: TextIO) -> None:
    """Let all that is still to be written, and all that comes, go nowhere."""
    try:
        number = stream.fileno()
    except (OSError, ValueError):  # of a test's
        return
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, number)
    os.close(nothing)
