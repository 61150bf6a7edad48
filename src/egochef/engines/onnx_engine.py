"""Runs a recogniser that was written as ONNX, with onnxruntime or OpenVINO, on the processor.

In: one file for whole clips, or a pair for streams, as `deploy.onnx_files` writes them.
"""

import functools
import logging
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from egochef.engines.engine import ClipEngine, Engine, as_logits
from egochef.engines.exported import METADATA_KEY, ExportAbout, check_digest, check_outputs, check_pair, read_metadata
from egochef.errors import InputError
from egochef.extras import BrokenExtraError, ExtraError, need_extra
from egochef.model.recogniser import Logits
from egochef.runtime import num_cpus

if TYPE_CHECKING:
    import openvino

log = logging.getLogger(__name__)

RUNTIMES = {"onnx": "onnxruntime", "openvino": "openvino"}
"""backend -> the module that runs it"""
Run = Callable[[np.ndarray], list[Tensor]]


def has_runtime(backend: str) -> bool:
    """Whether a backend of RUNTIMES can be used here; warns of one that is installed and broken."""
    try:
        need_runtime(backend)
    except BrokenExtraError as error:
        log.warning("%s", error)
        return False
    except ExtraError:
        return False
    return True


def need_runtime(backend: str) -> None:
    """
    Raises:
        ExtraError: a backend of RUNTIMES cannot be used here.
    """
    need_extra(backend, {"onnx": "ONNX", "openvino": "OpenVINO"}[backend])


class OnnxEngine(Engine):
    """A pair of ONNX files, frame encoder and head, in a runtime; see `engines.engine.Engine`."""

    overlaps = True

    def __init__(self, encoder: Path, head: Path, *, backend: str = "onnx", precision: str = "fp32"):
        """
        Args:
            encoder: `pixels` (N, S, S, 3) uint8 -> `features` (N, D) float32.
            head: `features` (B, T, D) float32 -> `verb` (B, V) and `noun` (B, N) logits.
            backend: `onnx` or `openvino`.
            precision: what OpenVINO computes in: `fp32`, or `bf16` where the processor has it. Weights of eight bits
                are a matter of the files.

        Raises:
            InputError: the runtime is not installed, a file is missing or not one of ours, or no such precision here.
        """
        need_runtime(backend)
        self.about = read_about(encoder)
        check_pair(self.about, read_about(head), f"{encoder} and {head}")
        self.clip, self.taxonomy = self.about.clip, self.about.taxonomy
        self.device = torch.device("cpu")
        self.name = _name(self.about, backend, precision)
        self._encoder_path, self._head_path = encoder, head
        # The LSTM's steps are too small to share out: a second thread would take more from the encoder than it gives.
        self._encoder = _open(encoder, backend, precision, num_cpus())
        self._head = _open(head, backend, precision, 1)

    def encode(self, frames: Tensor) -> Tensor:
        """Cropped frames (B, T, S, S, 3) uint8 -> features (B, T, D) float32."""
        found = self._encoder(frames.flatten(0, 1).numpy())  # (B*T, D)
        (features,) = check_outputs(found, frames.shape[:2].numel(), (self.about.num_features,), self._encoder_path)
        return features.unflatten(0, frames.shape[:2])  # (B, T, D)

    def classify(self, features: Tensor) -> Logits:
        """Features (B, T, D) -> logits (B, V) and (B, N), float32."""
        found = self._head(np.ascontiguousarray(features.float().numpy()))
        return Logits(*check_outputs(found, len(features), _num_classes(self.about), self._head_path))


class OnnxClipEngine(ClipEngine):
    """One ONNX file that takes whole clips, in a runtime; see `engines.engine.ClipEngine`."""

    def __init__(self, path: Path, *, backend: str = "onnx", precision: str = "fp32"):
        """
        Args:
            path: `frames` (B, T, S, S, 3) uint8 -> `verb_probs` (B, V) and `noun_probs` (B, N).
            backend: as of `OnnxEngine`.
            precision: as of `OnnxEngine`.

        Raises:
            InputError: the runtime is not installed, the file is missing or not one of ours, or no such precision here.
        """
        need_runtime(backend)
        self.about = read_about(path)
        if self.about.part != "clip":
            raise InputError(f"{path}: part {self.about.part!r} of a pair, expected one that takes whole clips")
        self.clip, self.taxonomy = self.about.clip, self.about.taxonomy
        self.device = torch.device("cpu")
        self.name = _name(self.about, backend, precision)
        self._path = path
        self._run = _open(path, backend, precision, num_cpus())

    def clip_logits(self, frames: Tensor) -> Logits:
        """Cropped frames (B, T, S, S, 3) uint8 -> log-probabilities (B, V) and (B, N), float32."""
        found = self._run(np.ascontiguousarray(frames.numpy()))
        verb, noun = check_outputs(found, len(frames), _num_classes(self.about), self._path)
        return Logits(as_logits(verb), as_logits(noun))


def _num_classes(about: ExportAbout) -> tuple[int, int]:
    return len(about.verbs), len(about.nouns)


def read_about(path: Path) -> ExportAbout:
    """The metadata of an ONNX file.

    Raises:
        InputError: onnxruntime is not installed; no such file, not whole, or not one of ours, which have all numbers
            within.
    """
    need_runtime("onnx")
    import onnx

    if not path.is_file():
        raise InputError(f"{path}: no such file, expected an ONNX model that EgoChef wrote")
    try:
        model = onnx.load(path, load_external_data=False)
    except Exception as error:  # protobuf's own errors have no common base
        raise InputError(f"{path}: not a whole ONNX model ({error}). Export it again.") from None
    graphs = [model.graph, *model.functions]
    if outside := [each.name for each in _tensors(graphs) if each.data_location == each.EXTERNAL]:
        raise InputError(f"{path}: the numbers of {outside[0]!r:.60} are in another file. Export it again.")
    return read_metadata(next((one.value for one in model.metadata_props if one.key == METADATA_KEY), None), path)


def _tensors(graphs: Iterable[Any]) -> Iterator[Any]:
    """All constants of graphs and functions, and of the graphs within their nodes."""
    for graph in graphs:
        yield from getattr(graph, "initializer", ())
        for sparse in getattr(graph, "sparse_initializer", ()):
            yield from (sparse.values, sparse.indices)
        for attribute in (attribute for node in graph.node for attribute in node.attribute):
            yield from (attribute.t, *attribute.tensors, attribute.sparse_tensor.values)
            yield from _tensors((attribute.g, *attribute.graphs))


def _name(about: ExportAbout, backend: str, precision: str) -> str:
    return f"{RUNTIMES[backend]} cpu {about.precision if about.precision != 'fp32' else precision}"


def _open(path: Path, backend: str, precision: str, num_threads: int) -> Run:
    check_digest(path)
    try:
        opened = (_open_onnxruntime if backend == "onnx" else _open_openvino)(path, precision, num_threads)
    except InputError:
        raise
    except Exception as error:  # the runtimes' own errors have no common base
        raise _cannot_run(path, backend, error) from None

    def run(value: np.ndarray) -> list[Tensor]:
        try:
            return [torch.from_numpy(each) for each in opened(value)]
        except Exception as error:  # the same, and what is no array of numbers
            raise _cannot_run(path, backend, error) from None

    return run


def _cannot_run(path: Path, backend: str, error: Exception) -> InputError:
    reason = " ".join(str(error).split())
    return InputError(f"{path}: {RUNTIMES[backend]} cannot run it ({reason:.200}). Export it again.")


def _open_onnxruntime(path: Path, precision: str, num_threads: int) -> Callable[[np.ndarray], list[np.ndarray]]:
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


def _open_openvino(path: Path, precision: str, num_threads: int) -> Callable[[np.ndarray], list[np.ndarray]]:
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
