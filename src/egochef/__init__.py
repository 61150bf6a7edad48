"""EgoChef: action recognition in first-person kitchen video.

>>> import egochef
>>> engine = egochef.load("outputs/run")  # a TorchEngine: encode, classify, recognise, clip, taxonomy
"""

import os
from typing import TYPE_CHECKING, Any

# Before torch starts its threads: those that wait for each other sleep instead of spinning. With one other busy process
# on a two-core machine, spinning made a training step of the heads 15 times slower; on an idle one it gains nothing.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

if TYPE_CHECKING:
    from egochef.engines.torch_engine import load as load

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """`egochef.load`, imported when it is asked for: torch takes seconds, `egochef --help` must not."""
    if name == "load":
        from egochef.engines.torch_engine import load

        return load
    raise AttributeError(f"module 'egochef' has no attribute {name!r}")
