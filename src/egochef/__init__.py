"""EgoChef: action recognition in first-person kitchen video.

>>> import egochef
>>> engine = egochef.load("outputs/run")  # a TorchEngine: encode, classify, recognise, clip, taxonomy
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from egochef.engines.torch_engine import load as load

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """`egochef.load`, imported when it is asked for: torch takes seconds, `egochef --help` must not."""
    if name == "load":
        from egochef.engines.torch_engine import load

        return load
    raise AttributeError(f"module 'egochef' has no attribute {name!r}")
