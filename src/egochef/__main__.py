"""`python -m egochef` is the `egochef` command."""

import sys

from egochef.cli.main import main

sys.exit(main())
