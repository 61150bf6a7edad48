"""What can end a command other than its success. Nothing comes in; every module raises it."""


class InputError(ValueError):
    """Something the user gave is wrong: the message names it, says what was expected and what to do.

    The command line prints the message in one line and exits with 1. Any other exception is our own fault.
    """


class FrameError(InputError):
    """Frames of a segment cannot be had, from its video or from a store."""


class Stopped(Exception):
    """A run ended that can be gone on with, by a signal or because it needs a new process; says how far it came.

    The command line prints the message in one line and exits with EX_TEMPFAIL of sysexits.h, "try again".
    """

    EXIT_CODE = 75
