"""The `egochef` command: finds the subcommand, turns faults into one line and an exit code.

Exit codes: 0 success, 1 a fault that the user can mend (one line on standard error), 2 wrong usage, 75 stopped by a
signal in a state to go on from.
"""

import argparse
import importlib
import logging
import sys
from collections.abc import Sequence

from egochef import __version__
from egochef.errors import InputError, Stopped

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
    parser = argparse.ArgumentParser(
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
    """Run a command line; returns the exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    options = build_parser().parse_args([_with_dashes(word) for word in words])
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        return int(options.run(options))
    except InputError as error:
        if options.traceback:
            raise
        return _fault(str(error))
    except Stopped as stopped:
        print(f"egochef: {stopped}", file=sys.stderr)
        return stopped.EXIT_CODE
    except KeyboardInterrupt:
        if options.traceback:
            raise
        return _fault("stopped by the keyboard. What was finished is kept; nothing half-written is left.")
    except BrokenPipeError:  # the reader of our output went away, as in `egochef ... | head`
        sys.stderr.close()
        return 1
    except ImportError as error:  # of a library that everything needs; extras have errors of their own
        if options.traceback or (error.name or "").partition(".")[0] == "egochef":
            raise
        return _fault(
            f"{error.name or 'a library'} cannot be imported ({error}). Install EgoChef and what it needs again: "
            "pip install -c constraints.txt -e . (--traceback shows where it failed)"
        )
    except OSError as error:
        if options.traceback or (error.filename is None and error.errno is None):
            raise
        return _fault(f"{error.filename or 'the system'}: {error.strerror or error}")


def _fault(message: str) -> int:
    line = " ".join(message.split())
    print(f"egochef: {line}", file=sys.stderr)
    return 1


def _with_dashes(word: str) -> str:
    """--num_frames=8 as --num-frames=8."""
    if not word.startswith("--"):
        return word
    flag, equals, value = word.partition("=")
    return flag.replace("_", "-") + equals + value
