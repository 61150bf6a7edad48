"""Processes forked from one that has threads, made sure to have come up.

CPython before 3.11.10 can leave a forked process waiting for ever for a lock that a thread of its parent held at that
moment (gh-112275). Under several ranks, whose communication has threads, that was seen once in a few hundred epochs.
"""

import logging
import os
import sys
from multiprocessing.connection import wait
from multiprocessing.context import BaseContext

from egochef.errors import InputError

log = logging.getLogger(__name__)

PATIENCE_S = (10.0, 20.0, 40.0)
"""for a new process to come up, at each try; usual are milliseconds"""


def fork_context() -> BaseContext | None:
    """What starts a DataLoader's workers. On Linux they are forked; elsewhere it is None: torch's default."""
    return _context() if sys.platform == "linux" else None


def _context() -> BaseContext:
    from multiprocessing.context import ForkContext, ForkProcess  # neither is there on Windows
    from multiprocessing.popen_fork import Popen

    class SurePopen(Popen):
        def _launch(self, process: "SureProcess") -> None:
            """Fork, until a process says that it is there.

            Raises:
                InputError: none does.
            """
            for patience_s in PATIENCE_S:
                read_end, process.write_end = os.pipe()
                super()._launch(process)  # type: ignore[misc]  # the new process does not come back from here
                os.close(process.write_end)
                try:
                    if wait([read_end], patience_s):  # it came; or it ended, which is for others to tell
                        return
                finally:
                    os.close(read_end)
                log.warning("process %d did not come up within %g s: starting another", self.pid, patience_s)
                self.kill()
                self.wait()
                self.finalizer()  # type: ignore[misc]
                self.returncode = None
            raise InputError("data workers do not come up. Use --workers 0, or a newer Python (3.11.10 or later).")

    class SureProcess(ForkProcess):
        write_end: int

        @staticmethod
        def _Popen(process: "SureProcess") -> SurePopen:  # type: ignore[override]
            return SurePopen(process)

        def _bootstrap(self, *arguments: object, **named: object) -> int:
            os.write(self.write_end, b".")
            os.close(self.write_end)
            return super()._bootstrap(*arguments, **named)  # type: ignore[misc]

    class SureContext(ForkContext):
        Process = SureProcess

    return SureContext()
