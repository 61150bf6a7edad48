"""What can end a command other than its success. Nothing comes in; every module raises it."""


class InputError(ValueError):
    """Something the user gave is wrong: the message names it, says what was expected and what to do.

    The command line prints the message in one line and exits with 1. Any other exception is our own fault.
    """


class FrameError(InputError):
    """Frames of a segment cannot be had, from its video or from a store."""


class Stopped(Exception):
    """A signal ended a run that can be gone on with; says how far it came.

    The command line prints the message in one line and exits with EX_TEMPFAIL of sysexits.h, "try again".
    """

    EXIT_CODE = 75
