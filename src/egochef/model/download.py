"""Fetches weights files and keeps them. In: an address whose file's name holds the start of its sha256. Out: a path."""

import hashlib
import http.client
import logging
import os
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tqdm import tqdm

from egochef.errors import InputError
from egochef.files import atomic_path, sha256_of

MAX_DOWNLOAD_BYTES = 2**30
MAX_DOWNLOAD_S = 3600.0

log = logging.getLogger(__name__)


def cache_folder() -> Path:
    """Where fetched files are kept: $EGOCHEF_CACHE, else ~/.cache/egochef."""
    return Path(os.environ.get("EGOCHEF_CACHE") or Path.home() / ".cache" / "egochef")


@contextmanager
def cache_is_named() -> Iterator[None]:
    """A fault of writing into the cache folder says inside how to move it.

    Raises:
        InputError: the folder cannot be read or written.
    """
    advice = "Set the variable EGOCHEF_CACHE to another folder to keep such files in."
    try:
        yield
    except ConnectionError:
        raise
    except OSError as error:
        raise InputError(f"{cache_folder()}: cannot be used ({error.strerror or error}). {advice}") from error
    except InputError as error:
        cause: BaseException | None = error
        while isinstance(cause, InputError):
            cause = cause.__cause__
        if isinstance(cause, OSError):
            raise InputError(f"{error} {advice}") from cause
        raise


def fetch(url: str, folder: Path, *, timeout_s: float = 30.0) -> Path:
    """The file at `url`, kept in `folder`.

    Args:
        url: its file's name ends in `-` and the first hex digits of its sha256, which is checked.
        timeout_s: the longest that the network may stay silent.

    Raises:
        ConnectionError: no network, an interrupted one, or not the right file.
        InputError: the folder cannot be written.
    """
    path = folder / url.rsplit("/", 1)[-1]
    digits = path.stem.rsplit("-", 1)[-1]
    if path.is_file():
        if file_sha256(path).startswith(digits):
            return path
        log.warning("%s is damaged and is fetched again", path)
    digest = hashlib.sha256()
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        for block in _download(url, path.name, timeout_s):
            file.write(block)
            digest.update(block)
        if not digest.hexdigest().startswith(digits):
            raise ConnectionError(f"the file that came has sha256 {digest.hexdigest():.8}..., expected {digits}...")
    return path


def _download(url: str, title: str, timeout_s: float) -> Iterator[bytes]:
    """The bytes at `url`; every fault of the network is a ConnectionError."""
    start_s, num_bytes = time.monotonic(), 0
    try:
        with urllib.request.urlopen(url, timeout=timeout_s) as response:
            length = response.headers.get("Content-Length", "")
            total = int(length) if length.isdecimal() else None
            with tqdm(total=total, desc=title, unit="B", unit_scale=True, disable=None, leave=False) as bar:
                while block := response.read1(2**20):
                    num_bytes += len(block)
                    if num_bytes > MAX_DOWNLOAD_BYTES or time.monotonic() - start_s > MAX_DOWNLOAD_S:
                        raise ConnectionError("it is larger or slower than can be")
                    yield block
                    bar.update(len(block))
    except (OSError, http.client.HTTPException) as error:
        has_code = isinstance(error, urllib.error.HTTPError)  # whose reason alone lacks the code, such as 404
        raise ConnectionError(str(error if has_code else getattr(error, "reason", error))) from error
    if total is not None and num_bytes != total:
        raise ConnectionError(f"cut off after {num_bytes} of {total} bytes")


def file_sha256(path: Path) -> str:
    """Hexadecimal sha256 of a file.

    Raises:
        InputError: there is no such file, or it cannot be read.
    """
    try:
        return sha256_of(path)
    except OSError as error:
        reason = error.strerror or str(error)
        raise InputError(f"{path}: cannot be read ({reason}). Give a weights file, imagenet or none.") from None
