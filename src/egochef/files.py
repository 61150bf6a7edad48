"""Writing files so that a final name never holds half a file."""

import errno
import hashlib
import json
import os
import shutil
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from egochef.errors import InputError

_PLACE_IS_WRONG = {
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EFBIG,
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.EEXIST,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.ENAMETOOLONG,
}


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success flush it to disk and rename it, else remove it.

    The temporary name keeps the suffix (encoders choose a format by it). Parent folders are made.

    Raises:
        InputError: the folder cannot be written or the disk is full, naming `path`.
    """
    path = Path(path)
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-", suffix=f".part{path.suffix}")
        os.close(handle)
        temporary = Path(name)
        yield temporary
        os.chmod(temporary, 0o666 & ~_umask())  # noqa: PTH101  mkstemp gives 0600, and so do some libraries
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
        _flush_folder(path.parent)
    except FileNotFoundError as error:
        if temporary is None or error.filename not in (str(temporary), temporary):
            raise
        raise InputError(f"{path}: its temporary file is gone. Is another egochef at work in this folder?") from error
    except OSError as error:
        if error.errno not in _PLACE_IS_WRONG:
            raise
        raise _place_is_wrong(path, error) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


@contextmanager
def staging(path: Path) -> Iterator[Path]:
    """Yield a hidden folder beside `path`; on success all that lies in it moves up beside `path`, else it is removed.

    So are parent folders that were made for it. For what consists of several files or folders. Nothing that exists is
    overwritten.

    Raises:
        InputError: the place cannot be written, the disk is full, or a name is taken, naming `path` or that name.
    """
    path = Path(path)
    folder: Path | None = None
    moved: list[Path] = []
    made = [parent for parent in path.parents if not parent.exists()]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.stem}-", suffix=".part"))
        yield folder
        for file in sorted(folder.rglob("*")):
            if file.is_dir():
                file.chmod(0o777 & ~_umask())  # some libraries make folders that nobody else may enter
            elif file.is_file():
                os.chmod(file, 0o666 & ~_umask())  # noqa: PTH101  as in `atomic_path`
                with file.open("rb+") as opened:
                    os.fsync(opened.fileno())
        for source in sorted(folder.iterdir()):
            target = path.parent / source.name
            if target.exists():
                raise InputError(f"{target}: exists. Remove it, or choose another place.")
            source.rename(target)
            moved.append(target)
        _flush_folder(path.parent)
        moved, made = [], []
    except FileNotFoundError as error:
        if folder is None or folder.exists():
            raise
        raise InputError(f"{path}: its temporary folder is gone. Is another egochef at work here?") from error
    except InputError as error:  # name the place that the user knows
        raise InputError(str(error).replace(str(folder), str(path.parent))) from error
    except OSError as error:
        if error.errno not in _PLACE_IS_WRONG:
            raise
        raise _place_is_wrong(path, error) from error
    finally:
        for target in moved:
            shutil.rmtree(target) if target.is_dir() else target.unlink(missing_ok=True)
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)
        for parent in made:
            with suppress(OSError):  # it is not there, or another one uses it by now
                parent.rmdir()


def _place_is_wrong(path: Path, error: OSError) -> InputError:
    reason = error.strerror or str(error)
    return InputError(f"{path}: cannot be written ({reason}). Free space or choose another place.")


def _flush_folder(folder: Path) -> None:
    """Make a new name in a folder survive a power cut, where the system has such a call."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        except OSError as error:
            if error.errno != errno.EINVAL:  # file systems that have no such thing
                raise
        finally:
            os.close(handle)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text under its final name in one step."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write readable JSON under its final name in one step; NaN and infinity are refused."""
    write_text(path, json.dumps(value, indent=1, allow_nan=False) + "\n")


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def crc32_of(path: Path) -> int:
    """CRC-32 of a file, read in pieces."""
    value = 0
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            value = zlib.crc32(piece, value)
    return value


def check_is_new(out: Path, what: str) -> None:
    """Whether a folder can become `what`: it is not there, or holds nothing but what a run that was killed left.

    Raises:
        InputError: it holds something else, or is a file.
    """
    if out.exists() and (not out.is_dir() or any(".part" not in path.name for path in out.iterdir())):
        raise InputError(f"{out}: exists and is not a {what}. Choose another --out.")
