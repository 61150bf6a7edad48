"""Exported models from a stranger: what leads out of them, fails while it runs, or gives other things than it says."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from egochef.clip import ClipSpec
from egochef.engines.coreml_engine import CoreMLEngine
from egochef.engines.exported import METADATA_KEY, ExportAbout
from egochef.engines.mil import MilProgram
from egochef.engines.onnx_engine import OnnxClipEngine, has_runtime
from egochef.errors import InputError

CLIP = ClipSpec(num_frames=2, image_size=16, resize_size=16)


def about(part: str) -> str:
    names = ("a", "b", "c"), ("w", "x", "y", "z")
    made = ("0" * 64, "toy", "light", "mean", 5, 1, "none", "none", ("train",))
    return ExportAbout(part, "fp32", *made, CLIP, *names).to_json()


# ONNX


def write_onnx(path: Path, change: Callable[[Any, Any], None] = lambda model, helper: None) -> Path:
    """A whole model of clips (B, T, 16, 16, 3): the same probabilities whatever it sees."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    def constant(name: str, value: Any) -> Any:
        return numpy_helper.from_array(np.asarray(value), name)

    nodes = [
        helper.make_node("Cast", ["frames"], ["x"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["x", "axes"], ["mean"], keepdims=0),  # (B,)
        helper.make_node("Reshape", ["mean", "column"], ["rows"]),
        helper.make_node("MatMul", ["rows", "verbs"], ["verb_logits"]),
        helper.make_node("MatMul", ["rows", "nouns"], ["noun_logits"]),
        helper.make_node("Softmax", ["verb_logits"], ["verb_probs"]),
        helper.make_node("Softmax", ["noun_logits"], ["noun_probs"]),
    ]
    constants = [
        constant("axes", [1, 2, 3, 4]),
        constant("column", [-1, 1]),
        constant("verbs", np.ones((1, 3), np.float32)),
        constant("nouns", np.ones((1, 4), np.float32)),
    ]
    graph = helper.make_graph(
        nodes,
        "x",
        [helper.make_tensor_value_info("frames", TensorProto.UINT8, ["B", "T", 16, 16, 3])],
        [helper.make_tensor_value_info(f"{name}_probs", TensorProto.FLOAT, None) for name in ("verb", "noun")],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    helper.set_model_props(model, {METADATA_KEY: about("clip")})
    change(model, helper)
    onnx.save(model, path)
    return path


def to_three_columns(model: Any, helper: Any) -> None:
    """Only when it runs does it show that the numbers cannot be parted so."""
    model.graph.initializer[1].raw_data = np.array([-1, 3]).tobytes()
    model.graph.initializer[2].CopyFrom(_ones("verbs", (3, 3)))
    model.graph.initializer[3].CopyFrom(_ones("nouns", (3, 4)))


def far_out(model: Any, helper: Any) -> None:
    model.graph.node[2].CopyFrom(helper.make_node("Gather", ["mean", "column"], ["rows"]))
    model.graph.initializer[1].raw_data = np.array([7, 1 << 40]).tobytes()
    model.graph.initializer[2].CopyFrom(_ones("verbs", (2, 3)))
    model.graph.initializer[3].CopyFrom(_ones("nouns", (2, 4)))


def a_verb_less(model: Any, helper: Any) -> None:
    model.graph.initializer[2].CopyFrom(_ones("verbs", (1, 2)))


def one_output(model: Any, helper: Any) -> None:
    del model.graph.output[1]


def _ones(name: str, shape: tuple[int, ...]) -> Any:
    from onnx import numpy_helper

    return numpy_helper.from_array(np.ones(shape, np.float32), name)


def classify(path: Path, backend: str) -> None:
    OnnxClipEngine(path, backend=backend).clip_logits(torch.zeros(2, 2, 16, 16, 3, dtype=torch.uint8))


@pytest.mark.parametrize("backend", ["onnx", "openvino"])
@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (to_three_columns, "cannot run it"),
        (far_out, "cannot run it|gives outputs of"),
        (a_verb_less, r"gives outputs of \[\(2, 2\), \(2, 4\)\], but says of itself \[\(2, 3\), \(2, 4\)\]"),
        (one_output, r"gives outputs of \[\(2, 3\)\], but says of itself"),
    ],
)
def test_onnx_that_fails_while_it_runs(tmp_path: Path, change: Any, reason: str, backend: str) -> None:
    if not has_runtime(backend):
        pytest.skip(f"{backend} is not installed")
    classify(write_onnx(tmp_path / "whole.onnx"), backend)
    path = write_onnx(tmp_path / "x.onnx", change)
    with pytest.raises(InputError, match=reason) as caught:
        classify(path, backend)
    assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)


@pytest.mark.parametrize("backend", ["onnx", "openvino"])
def test_onnx_that_is_not_all_there(tmp_path: Path, backend: str) -> None:
    if not has_runtime(backend):
        pytest.skip(f"{backend} is not installed")

    def outside(model: Any, helper: Any) -> None:
        tensor = model.graph.initializer[2]
        tensor.ClearField("raw_data")
        tensor.data_location = tensor.EXTERNAL
        tensor.external_data.add(key="location", value="../secret")

    def inside_a_node(model: Any, helper: Any) -> None:
        outside(model, helper)
        tensor = model.graph.initializer.pop(2)
        tensor.name = ""
        model.graph.node.insert(0, helper.make_node("Constant", [], ["verbs"], value=tensor))

    def of_a_stranger(model: Any, helper: Any) -> None:
        model.graph.node[5].domain = "com.stranger"
        model.opset_import.append(helper.make_opsetid("com.stranger", 1))

    for change, reason in (
        (outside, "the numbers of 'verbs' are in another file"),
        (inside_a_node, "the numbers of '' are in another file"),
        (of_a_stranger, "cannot run it"),
    ):
        with pytest.raises(InputError, match=reason):
            classify(write_onnx(tmp_path / "x.onnx", change), backend)
    os.mkfifo(tmp_path / "pipe.onnx")
    with pytest.raises(InputError, match="no such file"):
        classify(tmp_path / "pipe.onnx", backend)


# Core ML


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A head: features (1, 2, 5) -> verb (1, 3) and noun (1, 4)."""
    pytest.importorskip("coremltools")
    import coremltools
    from coremltools.converters.mil import Builder as mb
    from coremltools.converters.mil import Program  # noqa: F401  loads what Builder needs

    path = tmp_path_factory.mktemp("coreml") / "x.mlpackage"

    @mb.program(input_specs=[mb.TensorSpec(shape=(1, 2, 5))], opset_version=coremltools.target.iOS17)
    def program(features: Any) -> Any:
        mean = mb.reduce_mean(x=features, axes=[1])
        weights = [np.ones((size, 5), np.float32) for size in (3, 4)]
        return mb.linear(x=mean, weight=weights[0], name="verb"), mb.linear(x=mean, weight=weights[1], name="noun")

    target, precision = coremltools.target.iOS17, coremltools.precision.FLOAT32
    made = {"minimum_deployment_target": target, "compute_precision": precision, "skip_model_load": True}
    model = coremltools.convert(program, convert_to="mlprogram", **made)
    model.user_defined_metadata[METADATA_KEY] = about("head")
    model.save(str(path))
    return path


def manifest(path: Path, place: str) -> None:
    """Say that the program lies at `place`, from the package's folder Data."""
    file = path / "Manifest.json"
    content = json.loads(file.read_text())
    content["itemInfoEntries"][content["rootModelIdentifier"]]["path"] = place
    file.write_text(json.dumps(content))


def to_outside(path: Path) -> None:
    shutil.copy(path / "Data" / "com.apple.CoreML" / "model.mlmodel", path.parent / "other.mlmodel")
    manifest(path, "../../other.mlmodel")


def linked(path: Path) -> None:
    program = path / "Data" / "com.apple.CoreML" / "model.mlmodel"
    program.unlink()
    program.symlink_to("/dev/zero")


def piped(path: Path) -> None:
    program = path / "Data" / "com.apple.CoreML" / "model.mlmodel"
    program.unlink()
    os.mkfifo(program)


def wrong_shape(path: Path) -> None:
    """A weight that does not fit what it is multiplied with."""
    import coremltools

    program = path / "Data" / "com.apple.CoreML" / "model.mlmodel"
    spec = coremltools.utils.load_spec(str(program))
    block = next(iter(spec.mlProgram.functions["main"].block_specializations.values()))
    mean = next(op for op in block.operations if op.type == "reduce_mean")
    mean.inputs["axes"].arguments[0].name, mean.inputs["x"].arguments[0].name = (
        mean.inputs["x"].arguments[0].name,
        mean.inputs["axes"].arguments[0].name,
    )
    program.write_bytes(spec.SerializeToString())


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (to_outside, r"its manifest leads to .*other\.mlmodel, which is no file in it"),
        (lambda path: manifest(path, "/dev/zero"), "not a whole Core ML package|which is no file in it"),
        (lambda path: manifest(path, "com.apple.CoreML"), "not a whole Core ML package|which is no file in it"),
        (linked, "a link, a device or a pipe"),
        (piped, "a link, a device or a pipe"),
        (wrong_shape, "not a whole Core ML package|cannot be done"),
    ],
)
def test_packages_that_lead_out_or_fail(package: Path, tmp_path: Path, damage: Any, reason: str) -> None:
    path = tmp_path / "x.mlpackage"
    shutil.copytree(package, path)
    assert MilProgram(path)({"features": torch.ones(1, 2, 5)})["verb"].tolist() == [[5.0, 5.0, 5.0]]
    damage(path)
    with pytest.raises(InputError, match=reason) as caught:
        MilProgram(path)({"features": torch.ones(1, 2, 5)})
    assert str(caught.value).startswith(str(path)) and "\n" not in str(caught.value)


def test_a_package_that_gives_something_else_than_it_says(package: Path, tmp_path: Path) -> None:
    import coremltools

    paths = tmp_path / "x-encoder.mlpackage", tmp_path / "x-head.mlpackage"
    for path, part in zip(paths, ("encoder", "head"), strict=True):
        shutil.copytree(package, path)
        program = path / "Data" / "com.apple.CoreML" / "model.mlmodel"
        spec = coremltools.utils.load_spec(str(program))
        said = about(part).replace('"verbs": ["a", ', '"verbs": ["a", "more", ')
        spec.description.metadata.userDefined[METADATA_KEY] = said
        program.write_bytes(spec.SerializeToString())
    engine = CoreMLEngine(*paths)
    with pytest.raises(InputError, match=r"x-head\.mlpackage: gives outputs of \[\(1, 3\), \(1, 4\)\], but says"):
        engine.classify(torch.ones(1, 2, 5))
