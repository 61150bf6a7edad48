"""`egochef` within the process of the tests, which spares each call the two seconds of importing torch."""

import contextlib
import io

from egochef.cli.main import main


def egochef(*words):
    """What the command prints."""
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as errors:
        assert main(list(map(str, words))) == 0, errors.getvalue()
    return out.getvalue()


def fails(*words, message):
    """The command gives 1 and ends with one line that says `message`."""
    with contextlib.redirect_stderr(io.StringIO()) as errors:
        assert main(list(map(str, words))) == 1, errors.getvalue()
    last = errors.getvalue().strip().splitlines()[-1]
    assert last.startswith("egochef: ") and message in last, errors.getvalue()
