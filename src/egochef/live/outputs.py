"""Where a live run's pictures and lines go: a window, a recording, a log. What is written is whole at every moment."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import numpy as np

from egochef.errors import InputError
from egochef.inference.log import LineFile, LineWriter, log_format
from egochef.live.recording import Recording

log = logging.getLogger(__name__)


class Screen(Protocol):
    """What pictures are shown on, and where keys come from: `live.window.Window`, or something that is like it."""

    def show(self, picture: np.ndarray) -> None:
        """Put up a picture (H, W, 3) uint8 RGB."""

    def keys(self) -> list[str]:
        """What was asked for since the last call."""


class Outputs:
    """The window, the recording that runs now, and the log, each of which may be missing."""

    def __init__(self, window: Screen | None, lines: LineWriter | None):
        self.window = window
        self.recordings: list[Path] = []
        """finished ones, with something in them"""
        self.fault: str | None = None
        """what is wrong with a recording that was ended by a fault"""
        self._lines = lines
        self._recording: Recording | None = None

    def __enter__(self) -> "Outputs":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.end_recording()

    @property
    def wants_pictures(self) -> bool:
        return self.window is not None or self.is_recording

    @property
    def is_recording(self) -> bool:
        return self._recording is not None

    def begin_recording(self, path: Path) -> Path:
        """
        Raises:
            InputError: the file exists already or cannot be written.
        """
        self._recording = Recording(path)
        return path

    def end_recording(self) -> Path | None:
        """Finish the recording if there is one; its path, if it holds anything."""
        recording, self._recording = self._recording, None
        if recording is None:
            return None
        recording.close()
        if recording.fault is not None:
            self.fault = recording.fault
            log.warning("%s", recording.fault)
        elif recording.num_dropped:
            log.warning("%s: %d pictures were dropped: encoding was too slow", recording.path, recording.num_dropped)
        if not recording.path.exists():
            return None
        self.recordings.append(recording.path)
        return recording.path

    def record(self, picture: np.ndarray, time_s: float, *, wait: bool) -> str | None:
        """Add a picture to the recording, if there is one; where that has failed, it is ended, and the reason told.

        Args:
            wait: for the encoder, rather than drop the picture.
        """
        if self._recording is None:
            return None
        self._recording.add(picture, time_s, wait=wait)
        fault = self._recording.fault
        if fault is not None:
            self.end_recording()
        return fault

    def write_line(self, line: dict[str, Any]) -> None:
        """
        Raises:
            InputError: the log's disk is full, or gone.
        """
        if self._lines is not None:
            self._lines.add(line)


@contextmanager
def open_log(path: Path) -> Iterator[LineWriter]:
    """A log that is whole after every line, so it stands under its own name from the start; an empty one goes again.

    Raises:
        InputError: it exists, cannot be written, or is neither .jsonl nor .csv.
    """
    kind = log_format(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = LineFile(path)
    except FileExistsError as error:
        if path.exists():
            raise InputError(f"{path}: exists already and is kept. Choose another name for the log.") from None
        raise InputError(f"{path}: cannot be written ({error.filename} is no folder). Choose another place.") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror}). Choose another place.") from error
    try:
        with file:
            yield LineWriter(file, kind)
    finally:
        if path.exists() and path.stat().st_size == 0:
            path.unlink()
