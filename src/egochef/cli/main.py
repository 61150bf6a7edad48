"""The `egochef` command: finds the subcommand, turns faults into one line and an exit code.

Exit codes: 0 success, 1 a fault that the user can mend, or stopped by a signal (one line on standard error), 2 wrong
usage, 75 stopped in a state to go on from, 141 nobody read the output to its end.
"""

import argparse
import importlib
import io
import logging
import signal
import sys
from collections.abc import Sequence
from typing import NoReturn

from egochef import __version__
from egochef.cli.streams import STDOUT, fault_of, open_streams, silence
from egochef.errors import InputError, Interrupted, Stopped
from egochef.limits import MIN_FILES, MORE_FILES, TOO_MANY_FILES, allow_files
from egochef.stopping import SIGNALS, StopSignals
from egochef.texts import escaped, hide_secrets, one_line

GO_ON = ("demo", "prepare", "features", "train")
"""commands that go on with what they have done when they are run again"""
BROKEN_PIPE = 141
"""what shells give for a program that SIGPIPE has ended"""
COMMANDS = (
    "demo",
    "toy",
    "doctor",
    "stats",
    "prepare",
    "features",
    "train",
    "convert",
    "models",
    "runs",
    "tune",
    "evaluate",
    "report",
    "explore",
    "submit",
    "predict",
    "live",
    "export",
    "bench",
    "slurm",
)


def build_parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="egochef",
        description="Action recognition in first-person kitchen video, for EPIC-KITCHENS-100.",
        epilog="example: egochef demo",
    )
    parser.add_argument("--version", action="version", version=f"egochef {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name in COMMANDS:
        module = importlib.import_module(f"egochef.cli.{name}")
        command = commands.add_parser(
            name,
            help=module.HELP,
            description=module.HELP,
            epilog=f"example: {module.EXAMPLE}",
            allow_abbrev=False,
        )
        module.add_arguments(command)
        command.add_argument("--traceback", action="store_true", help="show where a fault came from")
        command.set_defaults(run=module.run)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line; returns the exit code.

    Args:
        arguments: those of this process if left out; its standard files and signals are then looked after to the end.
    """
    is_process = arguments is None
    if is_process:
        open_streams()
    words = list(sys.argv[1:] if arguments is None else arguments)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # names of files may be more than an encoding can say
    try:
        with StopSignals(Interrupted) as stop:
            code = _run(words)
    except KeyboardInterrupt as stopped:  # a moment after the work was done
        code = _stopped(words, stopped)
    if is_process:  # how it ended is decided
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        if stop.received:  # libraries may be half loaded, and complain
            logging.disable()
    return code


def _run(words: list[str]) -> int:
    shows_traceback = False
    try:
        options = build_parser().parse_args([_with_dashes(word) for word in words])
        shows_traceback = options.traceback
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(_Formatter("%(message)s"))
        logging.basicConfig(level=logging.INFO, handlers=[handler])
        allow_files(MIN_FILES)
        code = int(options.run(options))
        sys.stdout.flush()
        return code
    except SystemExit:  # after --help
        if fault := fault_of(sys.stdout):
            return _not_written(fault)
        raise
    except InputError as error:
        if shows_traceback:
            raise
        return _fault(str(error))
    except Stopped as stopped:
        _fault(str(stopped))
        return stopped.EXIT_CODE
    except KeyboardInterrupt as stopped:
        if shows_traceback:
            raise
        return _stopped(words, stopped)
    except BrokenPipeError as error:
        return _not_written(error)
    except ImportError as error:  # of a library that everything needs; extras have errors of their own
        if shows_traceback or (error.name or "").partition(".")[0] == "egochef":
            raise
        return _fault(
            f"{error.name or 'a library'} cannot be imported ({error}). Install EgoChef and what it needs again: "
            "pip install -c constraints.txt -e . (--traceback shows where it failed)"
        )
    except OSError as error:
        if error.filename == STDOUT:
            return _not_written(error)
        if shows_traceback or (error.filename is None and error.errno is None):
            raise
        todo = f". {MORE_FILES}" if error.errno in TOO_MANY_FILES else ""
        return _fault(f"{error.filename or 'the system'}: {error.strerror or error}{todo}")


def _fault(message: str) -> int:
    print(f"egochef: {one_line(message, sys.argv[1:])}", file=sys.stderr)
    return 1


def _stopped(words: list[str], stopped: KeyboardInterrupt) -> int:
    """After a signal, where the command itself has nothing to say to it."""
    how = str(stopped) or "stopped by SIGINT"
    if words and words[0] in GO_ON:
        _fault(f"{how}. What was finished is kept; the same command goes on.")
        return Stopped.EXIT_CODE
    return _fault(f"{how}. What was finished is kept; nothing half-written is left.")


def _not_written(error: OSError) -> int:
    """After what was printed could not be written out."""
    silence(sys.stdout)
    if isinstance(error, BrokenPipeError):  # the reader has what it wanted, as in `egochef ... | head`
        return BROKEN_PIPE
    return _fault(f"{STDOUT}: cannot be written ({error.strerror}). Free space, or send it somewhere else.")


class _Parser(argparse.ArgumentParser):
    """Its messages quote what was given."""

    def error(self, message: str) -> NoReturn:
        super().error(one_line(message, sys.argv[1:]))


class _Formatter(logging.Formatter):
    """Lines of the log as plain as those of faults."""

    def format(self, record: logging.LogRecord) -> str:
        return "\n".join(escaped(hide_secrets(line)) for line in super().format(record).split("\n"))


def _with_dashes(word: str) -> str:
    """--num_frames=8 as --num-frames=8."""
    if not word.startswith("--"):
        return word
    flag, equals, value = word.partition("=")
    return flag.replace("_", "-") + equals + value
