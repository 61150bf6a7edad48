"""What can end a command other than its success. Nothing comes in; every module raises it."""


class InputError(ValueError):
    """Something the user gave is wrong: the message names it, says what was expected and what to do.

    The command line prints the message in one line and exits with 1. Any other exception is our own fault.
    """


class FrameError(InputError):
    """Frames of a segment cannot be had, from its video or from a store."""


class Stopped(BaseException):
    """A run ended that can be gone on with, by a signal or because it needs a new process; says how far it came.

    Not an `Exception`, as KeyboardInterrupt is none: nobody's `except Exception` may keep it.

    The command line prints the message in one line and exits with EX_TEMPFAIL of sysexits.h, "try again".
    """

    EXIT_CODE = 75


class Interrupted(KeyboardInterrupt):
    """A command ends by a signal that it has no answer of its own to.

    A kind of its own: where code in a string is what a plain KeyboardInterrupt ends, Python ends the process by SIGINT
    in the end, whoever has caught it meanwhile.
    """
