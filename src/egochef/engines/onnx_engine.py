"""Runs a recogniser that was written as ONNX, with onnxruntime or OpenVINO, on the processor.

In: a pair of files, the frame encoder and the head over features, that `deploy.onnx` wrote. Both carry ClipSpec and
class names in their metadata.
"""

import functools
import importlib.util
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from egochef.clip import ClipSpec
from egochef.errors import InputError
from egochef.model.recogniser import Logits
from egochef.records import from_dict
from egochef.runtime import num_cpus
from egochef.taxonomy import Taxonomy

if TYPE_CHECKING:
    import openvino

METADATA_KEY = "egochef"
RUNTIMES = {"onnx": "onnxruntime", "openvino": "openvino"}
"""backend -> the module that runs it"""
Run = Callable[[np.ndarray], list[np.ndarray]]


@dataclass(frozen=True)
class OnnxPair:
    """A recogniser in two files."""

    encoder: Path
    """`pixels` (N, S, S, 3) uint8 -> `features` (N, D) float32"""
    head: Path
    """`features` (B, T, D) float32 -> `verb` (B, V) and `noun` (B, N) logits"""


def has_runtime(backend: str) -> bool:
    """Whether a backend of RUNTIMES can be used here."""
    return importlib.util.find_spec(RUNTIMES[backend]) is not None and importlib.util.find_spec("onnx") is not None


class OnnxEngine:
    """A pair of ONNX files in a runtime; see `engines.engine.Engine`."""

    overlaps = True

    def __init__(self, pair: OnnxPair, *, backend: str = "onnx", precision: str = "fp32"):
        """
        Args:
            pair: the two files.
            backend: `onnx` or `openvino`.
            precision: what OpenVINO computes in: `fp32`, or `bf16` where the processor has it. Weights of eight bits
                are a matter of the files.

        Raises:
            InputError: the runtime is not installed, a file is missing or not one of ours, or no such precision here.
        """
        if not has_runtime(backend):
            raise InputError(f'backend {backend!r} is not installed here: pip install "egochef[{backend}]"')
        self.clip, self.taxonomy, about = read_about(pair.encoder)
        if read_about(pair.head)[:2] != (self.clip, self.taxonomy):
            raise InputError(f"{pair.encoder} and {pair.head} are not of one recogniser. Export both again.")
        self.device = torch.device("cpu")
        self.name = f"{RUNTIMES[backend]} cpu {about['precision'] if about['precision'] != 'fp32' else precision}"
        opened = _open_onnxruntime if backend == "onnx" else _open_openvino
        # The LSTM's steps are too small to share out: a second thread would take more from the encoder than it gives.
        self._encoder, self._head = opened(pair.encoder, precision, num_cpus()), opened(pair.head, precision, 1)

    def encode(self, frames: Tensor) -> Tensor:
        """Cropped frames (B, T, S, S, 3) uint8 -> features (B, T, D) float32."""
        (features,) = self._encoder(frames.flatten(0, 1).numpy())  # (B*T, D)
        return torch.from_numpy(features).unflatten(0, frames.shape[:2])  # (B, T, D)

    def classify(self, features: Tensor) -> Logits:
        """Features (B, T, D) -> logits (B, V) and (B, N), float32."""
        verb, noun = self._head(np.ascontiguousarray(features.float().numpy()))
        return Logits(torch.from_numpy(verb), torch.from_numpy(noun))


def read_about(path: Path) -> tuple[ClipSpec, Taxonomy, dict[str, str]]:
    """ClipSpec, class names and what else an ONNX file of ours says of itself (`part`, `precision`, `checkpoint`).

    Raises:
        InputError: no such file, not whole, or not one of ours.
    """
    import onnx

    try:
        model = onnx.load(path, load_external_data=False)
        about = json.loads(next(entry.value for entry in model.metadata_props if entry.key == METADATA_KEY))
        clip = from_dict(ClipSpec, about.pop("clip"), f"{path}: clip")
        return clip, Taxonomy(tuple(about.pop("verbs")), tuple(about.pop("nouns"))), about
    except FileNotFoundError:
        raise InputError(f"{path}: no such file, expected an ONNX model that EgoChef wrote") from None
    except StopIteration:
        raise InputError(f"{path}: an ONNX model, but not one that EgoChef wrote: it names no classes") from None
    except InputError:
        raise
    except Exception as error:  # protobuf's own errors have no common base
        raise InputError(f"{path}: not a whole ONNX model of EgoChef's ({error}). Export it again.") from None


def _open_onnxruntime(path: Path, precision: str, num_threads: int) -> Run:
    import onnxruntime

    if precision != "fp32":
        raise InputError(f"precision {precision!r} with onnxruntime on a processor: expected fp32 or int8")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = num_threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # the picture is drawn meanwhile
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda value: session.run(None, {name: value})


@functools.cache
def _openvino_core() -> "openvino.Core":
    """The one of this process.

    Each would give the thread a stack for signal handlers, and leave a freed one there unless the last to come is the
    first to go: the next signal then ends the process.
    """
    import openvino

    return openvino.Core()


def _open_openvino(path: Path, precision: str, num_threads: int) -> Run:
    import openvino

    kind = {"fp32": openvino.Type.f32, "bf16": openvino.Type.bf16}.get(precision)
    if kind is None:
        raise InputError(f"precision {precision!r} with OpenVINO: expected fp32, bf16 or int8")
    core = _openvino_core()
    settings = {"INFERENCE_NUM_THREADS": num_threads, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": kind}
    model = core.compile_model(str(path), "CPU", settings)
    if precision == "bf16" and "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        raise InputError("precision 'bf16' with OpenVINO: this processor has none. Use fp32 or int8.")
    request = model.create_infer_request()

    def run(value: np.ndarray) -> list[np.ndarray]:
        request.infer([value])
        return [request.get_output_tensor(place).data.copy() for place in range(len(model.outputs))]

    return run
