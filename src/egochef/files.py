"""Writing files so that a final name never holds half a file.

What is being written has a hidden name, which tells whose it is: `.NAME-MACHINE-PID-START-RANDOM.part`, and the suffix.
An end in order, also by a signal, removes it. What a process that was killed left is removed by the next one that
writes into the same folder.
"""

import errno
import functools
import hashlib
import json
import logging
import os
import platform
import re
import shutil
import stat
import tempfile
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from egochef.errors import InputError
from egochef.stopping import held

log = logging.getLogger(__name__)

STRANGE_S = 86400.0
"""without a change after which something half-written is left over, where its writer cannot be looked for from here"""
MOST_STEM_BYTES = 150
"""of a name that are part of its temporary name"""
_PART = re.compile(r"\.?.+-(?P<machine>[0-9a-f]{8})-(?P<pid>\d+)-(?P<start>\d+)-[a-z0-9_]{8}\.part(\..*)?", re.DOTALL)
_OLD_PART = re.compile(r"\.(?P<stem>.+)-[a-z0-9_]{8}\.part(\..*)?", re.DOTALL)
"""of version 0.1, which does not tell whose it is"""
_PLACE_IS_WRONG = {
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EFBIG,
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.EEXIST,
    errno.ENOTEMPTY,
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
        sweep(path.parent, stem=path.stem)
        with held():
            handle, name = tempfile.mkstemp(
                dir=path.parent, prefix=_prefix(f".{path.stem}"), suffix=f".part{path.suffix}"
            )
            temporary = Path(name)
            os.close(handle)
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
            with held():
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
    moved: list[Path] = []
    try:
        with _hidden_folder(path, path.parent) as folder:
            yield folder
            for file in sorted(folder.rglob("*")):
                if file.is_dir():
                    file.chmod(0o777 & ~_umask())  # some libraries make folders that nobody else may enter
                elif file.is_file():
                    os.chmod(file, 0o666 & ~_umask())  # noqa: PTH101  as in `atomic_path`
                    with file.open("rb+") as opened:
                        os.fsync(opened.fileno())
            with held():
                for source in sorted(folder.iterdir()):
                    target = path.parent / source.name
                    if target.exists():
                        raise InputError(f"{target}: exists. Remove it, or choose another place.")
                    source.rename(target)
                    moved.append(target)
                _flush_folder(path.parent)
                moved = []
    except BaseException:
        with held():
            for target in moved:
                shutil.rmtree(target) if target.is_dir() else target.unlink(missing_ok=True)
        raise


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield a hidden folder beside `path`; on success it takes that name, which is free or an empty folder's.

    Else it is removed, and so are parent folders that were made for it.

    Raises:
        InputError: the place cannot be written or the disk is full, naming `path`.
    """
    path = Path(path).absolute()
    with _hidden_folder(path, path) as folder:
        yield folder
        folder.chmod(0o777 & ~_umask())  # mkdtemp gives 0700
        folder.replace(path)


@contextmanager
def _hidden_folder(path: Path, known_as: Path) -> Iterator[Path]:
    """A hidden folder beside `path`, removed at the end. Faults name the place that the user knows."""
    folder: Path | None = None
    made = [parent for parent in path.parents if not parent.exists()]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        sweep(path.parent, stem=path.stem)
        with held():
            folder = Path(tempfile.mkdtemp(dir=path.parent, prefix=_prefix(f".{path.stem}"), suffix=".part"))
        yield folder
        made = []
    except FileNotFoundError as error:
        if folder is None or folder.exists():
            raise
        raise InputError(f"{path}: its temporary folder is gone. Is another egochef at work here?") from error
    except InputError as error:
        raise InputError(str(error).replace(str(folder), str(known_as))) from error
    except OSError as error:
        if error.errno not in _PLACE_IS_WRONG:
            raise
        raise _place_is_wrong(path, error) from error
    finally:
        with held():
            if folder is not None:
                shutil.rmtree(folder, ignore_errors=True)
            for parent in made:
                with suppress(OSError):  # it is not there, or another one uses it by now
                    parent.rmdir()


@contextmanager
def temporary_folder(what: str) -> Iterator[Path]:
    """Yield a folder `egochef-WHAT-...` where the system wants temporary ones (TMPDIR), removed at the end.

    Raises:
        InputError: it cannot be made.
    """
    place = Path(tempfile.gettempdir())
    folder: Path | None = None
    try:
        sweep(place)
        with held():
            try:
                folder = Path(tempfile.mkdtemp(dir=place, prefix=_prefix(f"egochef-{what}"), suffix=".part"))
            except OSError as error:
                raise _place_is_wrong(place, error) from error
        yield folder
    finally:
        with held():
            if folder is not None:
                shutil.rmtree(folder, ignore_errors=True)


# What was left behind


def sweep(folder: Path, *, stem: str | None = None, pattern: str = "*", is_ours: bool = False) -> int:
    """Remove what processes that are gone left half-written in a folder; returns how many files and folders.

    A living process of this machine keeps its own. Where its writer cannot be looked for from here, something counts as
    left over when it has not changed for STRANGE_S: what another machine or container writes, and, of `stem` only, what
    version 0.1 wrote.

    Args:
        pattern: only these names.
        is_ours: whoever writes into this folder now, it is this process: what has no living writer on this machine goes
            at once.
    """
    num_removed = 0
    try:
        parts = [path for path in folder.glob(pattern) if ".part" in path.name]
    except OSError:  # it is not there, or may not be read
        return 0
    for path in parts:
        try:
            if not _is_left_over(path, stem, is_ours):
                continue
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        except OSError:  # another one was faster, or it is not ours to remove
            continue
        num_removed += 1
    if num_removed:
        log.info("%s: removed %d files or folders that killed runs left half-written", folder, num_removed)
    return num_removed


def _is_left_over(path: Path, stem: str | None, is_ours: bool) -> bool:
    if whose := _PART.fullmatch(path.name):
        if whose["machine"] == _machine() and os.name == "posix":  # Windows has no harmless question
            return not _lives(int(whose["pid"]), int(whose["start"]))
    elif not is_ours:
        old = _OLD_PART.fullmatch(path.name)
        if old is None or old["stem"] != stem:
            return False
    return is_ours or time.time() - _changed_at(path) > STRANGE_S


def _changed_at(path: Path) -> float:
    """When something in a file or folder was last changed, in seconds since 1970."""
    return max(each.lstat().st_mtime for each in (path, *path.rglob("*")))


def _prefix(name: str) -> str:
    """Of the temporary name of what this process writes."""
    stem = name.encode()[:MOST_STEM_BYTES].decode(errors="ignore")
    return f"{stem}-{_machine()}-{os.getpid()}-{_started(os.getpid())}-"


@functools.cache
def _machine() -> str:
    """Tells machines apart, and on Linux also containers and starts, in which a process number means something else."""
    said = [platform.node()]
    with suppress(OSError):
        said.append(Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii"))
        said.append(os.readlink("/proc/self/ns/pid"))  # noqa: PTH115  no path
    return f"{zlib.crc32(' '.join(said).encode()):08x}"


def _lives(pid: int, start: int) -> bool:
    """Whether a process of this machine, or rather this very one of that number, is still there."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # somebody else's
        return True
    return _started(pid) == start


def _started(pid: int) -> int:
    """When a process started, in the system's ticks; -1 for one that has ended, 0 where the system does not tell."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return 0
    state, *fields = stat.rpartition(")")[2].split()
    return -1 if state in "ZX" else int(fields[18])


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


def check_is_file(path: Path) -> None:
    """Before a path of somebody else's is opened: opening a pipe waits for a writer, and a device need not end.

    Raises:
        OSError: it is a device or a pipe, or there is nothing.
    """
    kind = path.stat().st_mode
    if not stat.S_ISREG(kind) and not stat.S_ISDIR(kind):  # of a folder `open` tells by itself
        raise OSError(errno.EINVAL, "a device or a pipe, expected a file", str(path))


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    check_is_file(path)
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def crc32_of(path: Path) -> int:
    """CRC-32 of a file, read in pieces."""
    value = 0
    check_is_file(path)
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
