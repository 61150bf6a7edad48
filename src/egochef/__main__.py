"""`python -m egochef` is the `egochef` command."""

import sys

if sys.version_info < (3, 11):  # noqa: UP036  # pip refuses it; a checkout on PYTHONPATH has no pip
    sys.exit(f"egochef: needs Python 3.11 or newer, this is {sys.version_info[0]}.{sys.version_info[1]}")

from egochef.cli.main import main

sys.exit(main())
