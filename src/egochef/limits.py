"""What the system grants a process, looked at before work rather than in its middle. In: what is needed. Out: a fault.

A process that may open no further file, or worker processes whose shared memory is full, fail where nobody can explain
it: in a library's thread, by a signal, or never.
"""

import errno
import os
import shutil
import sys
from pathlib import Path

from egochef.errors import InputError

MIN_FILES = 256
"""open files that any command may need: libraries, videos, a store's tars, connections to a few processes"""
TOO_MANY_FILES = {errno.EMFILE, errno.ENFILE}
SHARED_MEMORY = Path("/dev/shm")  # where Linux keeps what processes share
MORE_FILES = "Raise the limit: ulimit -n 4096 (in a container: docker run --ulimit nofile=4096)."
MORE_SHARED_MEMORY = "Give the container more (docker run --shm-size=8g, or --ipc=host)"


def allow_files(num_files: int) -> None:
    """See to it that so many files can be open at once, by raising this process's own limit if it may.

    Raises:
        InputError: it may not.
    """
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= num_files:
        return
    if hard != resource.RLIM_INFINITY and hard < num_files:
        raise InputError(f"only {hard} files may be open at once (ulimit -n), {num_files} may be needed. {MORE_FILES}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (num_files, hard))


def num_open_files() -> int:
    """Of this process."""
    folder = Path("/dev/fd")  # of /proc on Linux
    return len(os.listdir(folder)) if folder.is_dir() else 0  # noqa: PTH208  a count


def free_shared_memory() -> int | None:
    """Bytes that processes can still share; None where there is no limit of its own."""
    if sys.platform != "linux" or not SHARED_MEMORY.is_dir():
        return None
    return shutil.disk_usage(SHARED_MEMORY).free
