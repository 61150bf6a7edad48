"""Optional libraries: which extra of the package installs them, and one clear line where one is missing or broken.

In: an extra and what needs it. Out: nothing, once its libraries are imported.
"""

import importlib
from collections.abc import Sequence
from importlib.metadata import packages_distributions

from egochef.errors import InputError

EXTRAS = {
    "bench": ("torchcodec", "transformers"),
    "coreml": ("coremltools",),
    "live": ("pygame",),
    "onnx": ("onnx", "onnxruntime"),
    "openvino": ("onnx", "onnxruntime", "openvino"),
    "report": ("altair", "h11", "itables", "jinja2", "starlette", "uvicorn", "vl_convert"),
    "track": ("tensorboard", "wandb"),
}
"""extra -> the modules that it is imported for"""


class ExtraError(InputError):
    """An optional library is missing."""


class BrokenExtraError(ExtraError):
    """An optional library is installed, and its import fails."""


def need_extra(extra: str, what: str, modules: Sequence[str] | None = None) -> None:
    """Import what an extra brings, so that it can be used.

    Args:
        extra: a key of EXTRAS.
        what: needs it, as the subject of a sentence: "the report".
        modules: some of the extra's (default: all).

    Raises:
        ExtraError: a library is missing.
        BrokenExtraError: its import fails.
    """
    for module in EXTRAS[extra] if modules is None else modules:
        try:
            importlib.import_module(module)
        except ModuleNotFoundError as error:
            missing = (error.name or module).partition(".")[0]
            if missing == module and error.name != module:  # a part of it is gone
                raise _broken(what, module, error) from error
            through = "" if missing == module else f" (for {module})"
            raise ExtraError(f'{what}: {missing}{through} is not installed: pip install "egochef[{extra}]"') from error
        except Exception as error:  # a library's own import may raise anything
            raise _broken(what, module, error) from error


def _broken(what: str, module: str, error: Exception) -> BrokenExtraError:
    reason = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    package = next(iter(packages_distributions().get(module, ())), module)
    return BrokenExtraError(
        f"{what}: {module} is installed, but cannot be imported ({type(error).__name__}: {reason:.300}). Install it "
        f"again: pip install --force-reinstall --no-deps {package}"
    )
