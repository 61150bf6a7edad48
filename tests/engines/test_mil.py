"""The interpreter of Core ML packages against numpy and torch.nn, operation by operation, and on damaged packages."""

import dataclasses
import importlib.util
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import need
from numpy.lib.stride_tricks import sliding_window_view
from torch import nn

from egochef.engines import mil
from egochef.engines.mil import MilProgram
from egochef.errors import InputError

pytestmark = pytest.mark.filterwarnings("ignore")  # coremltools warns of much, of the versions around it above all


@pytest.fixture(scope="module", autouse=True)
def coremltools():
    need(importlib.util.find_spec("coremltools") is not None, "coremltools")
    return mil.import_coremltools()


def draw(shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def write(package, takes, compute, half=False, passes=True, **kwargs) -> Path:
    """Save the program of `compute(mb, inputs by name)` -> outputs; it takes these shapes (or placeholders).

    Without `passes` the operations stay those that were asked for.
    """
    import coremltools as ct
    from coremltools.converters.mil import Builder as mb
    from coremltools.converters.mil.mil import Function, Program

    placeholders = {name: mb.placeholder(shape=of) if isinstance(of, tuple) else of for name, of in takes.items()}
    with Function(placeholders, opset_version=ct.target.iOS17) as function:
        found = compute(mb, function.inputs)
        function.set_outputs(list(found) if isinstance(found, list | tuple) else [found])
    program = Program()
    program.add_function("main", function)
    if not passes:
        kwargs["pass_pipeline"] = ct.PassPipeline.EMPTY
    precision = ct.precision.FLOAT16 if half else ct.precision.FLOAT32
    kwargs = {"minimum_deployment_target": ct.target.iOS17, "compute_precision": precision} | kwargs
    ct.convert(program, skip_model_load=True, **kwargs).save(str(package))
    return package


def run(program, **inputs):
    """The only output, as an array."""
    (output,) = program({name: torch.from_numpy(np.asarray(x)) for name, x in inputs.items()}).values()
    return output.numpy()


# References: numpy, or torch.nn where that is another way to the same numbers.


def windows(x, kernel, strides, dilations, pads, fill=0.0):
    """x (B, C, *size) padded by `pads`, (before, after) per dimension -> what each window sees, (B, C, *where, K)."""
    x = np.pad(x, [(0, 0), (0, 0), *pads], constant_values=fill)
    reach = [dilation * (length - 1) + 1 for length, dilation in zip(kernel, dilations, strict=True)]
    steps = [slice(None, None, step) for step in (1, 1, *strides, *dilations)]
    seen = sliding_window_view(x, reach, axis=tuple(range(2, x.ndim)))[tuple(steps)]
    return seen.reshape(*seen.shape[: -len(kernel)], -1)


def conv(*, x, weight, bias=None, strides=None, dilations=None, groups=1, pads=None, **_):
    kernel = weight.shape[2:]
    ones = [1] * len(kernel)
    seen = windows(x, kernel, strides or ones, dilations or ones, pads or [(0, 0)] * len(kernel))
    parts = []
    for part, its_weight in zip(np.split(seen, groups, 1), np.split(weight, groups, 0), strict=True):
        parts.append(np.einsum("bc...k,ock->bo...", part, its_weight.reshape(*its_weight.shape[:2], -1)))
    y = np.concatenate(parts, 1)
    return y if bias is None else y + bias.reshape(-1, *ones)


def max_pool(*, x, kernel_sizes, strides=None, pads=None, **_):
    ones = [1] * len(kernel_sizes)
    return windows(x, kernel_sizes, strides or ones, ones, pads or [(0, 0)] * len(ones), -np.inf).max(-1)


def lstm(*, x, initial_h, initial_c, direction="forward", output_sequence=False, **weights):
    """By nn.LSTM, whose gates stand in the order i, f, g, o, where MIL's are i, f, o, g."""
    hidden = weights["weight_hh"].shape[1]
    both = direction == "bidirectional"
    module = nn.LSTM(x.shape[2], hidden, bidirectional=both)
    for name, parameter in module.named_parameters():
        kind, _, rest = name.partition("_l0")
        back = "_back" if rest else ""
        value = weights.get(f"{'bias' if kind == 'bias_ih' else kind}{back}")  # bias_hh stays zero
        value = np.zeros(parameter.shape, np.float32) if value is None else value
        i, f, o, g = np.split(value, 4)
        parameter.data = torch.from_numpy(np.concatenate([i, f, g, o]))
    start = [torch.from_numpy(np.stack(np.split(state, 1 + both, 1))) for state in (initial_h, initial_c)]
    x = np.flip(x, 0).copy() if direction == "reverse" else x
    with torch.no_grad():
        states, (last, cell) = module(torch.from_numpy(x), (start[0], start[1]))
    states = states.flip(0) if direction == "reverse" else states
    last, cell = (state.transpose(0, 1).flatten(1).numpy() for state in (last, cell))  # (B, directions * H)
    return (states.numpy() if output_sequence else last[None]), last, cell


def batch_norm(*, x, mean, variance, gamma=None, beta=None, epsilon=1e-5):
    module = {3: nn.BatchNorm1d, 4: nn.BatchNorm2d}[x.ndim](x.shape[1], eps=float(epsilon)).eval()
    found = {"running_mean": mean, "running_var": variance, "weight": gamma, "bias": beta}
    module.load_state_dict({n: torch.from_numpy(v) for n, v in found.items() if v is not None}, strict=False)
    with torch.no_grad():
        return module(torch.from_numpy(x)).numpy()


def layer_norm(*, x, axes, gamma=1.0, beta=0.0, epsilon=1e-5):
    axes = tuple(axes)
    return (x - x.mean(axes, keepdims=True)) / np.sqrt(x.var(axes, keepdims=True) + epsilon) * gamma + beta


def softmax(*, x, axis=-1):
    powers = np.exp(x.astype(np.float64))
    return powers / powers.sum(axis, keepdims=True)


def dequantized_linear(*, x, quantized_data, zero_point, scale, axis):
    """Row by row: each has its own scale where there is one per row."""
    data = np.moveaxis(quantized_data.astype(np.float64), axis, 0)
    zeros, scales = (np.broadcast_to(each, len(data)) for each in (zero_point, scale))
    rows = [(row - zero) * one for row, zero, one in zip(data, zeros, scales, strict=True)]
    return x @ np.moveaxis(np.stack(rows), 0, axis).T


# Cases


@dataclasses.dataclass(frozen=True)
class Case:
    """One use of one operation."""

    op: str
    about: str
    inputs: dict[str, Any]
    """parameter -> shape, or shapes where it takes several"""
    parameters: dict[str, Any]
    """constants"""
    reference: Callable[..., Any]
    """(inputs and parameters by name) -> the output, or a tuple of outputs"""
    only_here: dict[str, Any] = dataclasses.field(default_factory=dict)
    """what the reference is told besides"""
    build: Callable[..., Any] | None = None
    """(mb, inputs and parameters by name) -> variables, where it is not just the operation"""

    def __str__(self) -> str:
        return f"{self.op}-{self.about}"

    def variables(self, mb: Any, given: dict[str, Any]) -> list[Any]:
        build = self.build or (lambda mb, **values: getattr(mb, self.op)(**values))
        found = build(mb, **given, **self.parameters)
        return list(found) if isinstance(found, list | tuple) else [found]

    def names(self, number: int) -> dict[str, Any]:
        """parameter -> the name of the program's input, or names."""
        return {
            name: [f"{name}{number}_{k}" for k in range(len(shape))] if isinstance(shape, list) else f"{name}{number}"
            for name, shape in self.inputs.items()
        }


def unary(op, about, reference, parameters=None, shape=(2, 3, 4)):
    return Case(op, about, {"x": shape}, parameters or {}, reference)


def elementwise(op, reference):
    row = draw((1, 3, 1), 1)
    return [
        Case(op, "two inputs, broadcast", {"x": (2, 3, 4), "y": (3, 1)}, {}, reference),
        Case(op, "a constant row", {"x": (2, 3, 4)}, {"y": row}, reference),
        Case(op, "a constant number on the left", {"y": (2, 3)}, {"x": np.float32(0.75)}, reference),
    ]


def convolution(about, size, weight, pads=None, bias=None, **parameters):
    weight = draw(weight, 2)
    groups = parameters.get("groups", 1)
    if bias:
        parameters["bias"] = draw(len(weight), 3)
    inputs = {"x": (2, weight.shape[1] * groups, *size)}
    return Case("conv", about, inputs, {"weight": weight, **parameters}, conv, {"pads": pads})


def pool(about, size, kernel, strides, pads=None, **parameters):
    parameters = {"kernel_sizes": kernel, **({"strides": strides} if strides else {}), **parameters}
    return Case("max_pool", about, {"x": (2, 3, *size)}, parameters, max_pool, {"pads": pads})


def recurrent(direction, output_sequence, bias=True):
    inner, hidden, directions = 3, 5, 2 if direction == "bidirectional" else 1
    parameters = {"direction": direction, "output_sequence": output_sequence}
    for place, suffix in enumerate(("", "_back")[:directions]):
        parameters[f"weight_ih{suffix}"] = draw((4 * hidden, inner), 10 * place + 4)
        parameters[f"weight_hh{suffix}"] = draw((4 * hidden, hidden), 10 * place + 5)
        if bias:
            parameters[f"bias{suffix}"] = draw(4 * hidden, 10 * place + 6)
    about = f"{direction}, {'all states' if output_sequence else 'last state'}, {'bias' if bias else 'no bias'}"
    inputs = {"x": (6, 2, inner), "initial_h": (2, hidden * directions), "initial_c": (2, hidden * directions)}
    return Case("lstm", about, inputs, parameters, lstm)


def dequantize(about, **parameters):
    parameters = {"quantized_data": np.arange(-20, 15, dtype=np.int8).reshape(5, 7) * 3, **parameters}

    def build(mb, *, x, **values):
        return mb.linear(x=x, weight=mb.constexpr_affine_dequantize(**values))

    return Case("constexpr_affine_dequantize", about, {"x": (2, 7)}, parameters, dequantized_linear, build=build)


def to_int32_and_back(mb, *, x):
    return mb.cast(x=mb.cast(x=x, dtype="int32"), dtype="fp32")


def sliced(about, reference, begin, end, **parameters):
    shape = (5, 6, 7)
    return unary("slice_by_index", about, reference, {"begin": begin, "end": end, **parameters}, shape)


CASES: list[Case] = [
    *elementwise("add", lambda *, x, y: x + y),
    *elementwise("sub", lambda *, x, y: x - y),
    *elementwise("mul", lambda *, x, y: x * y),
    Case(
        "batch_norm",
        "pictures",
        {"x": (2, 3, 4, 5)},
        {
            "mean": draw(3, 1),
            "variance": np.array([0.5, 2, 0], np.float32),
            "gamma": draw(3, 2),
            "beta": draw(3, 3),
            "epsilon": np.float32(0.01),
        },
        batch_norm,
    ),
    Case(
        "batch_norm",
        "a line, no gamma and beta",
        {"x": (2, 3, 4)},
        {"mean": draw(3, 1), "variance": np.array([0.5, 2, 1], np.float32)},
        batch_norm,
    ),
    Case("cast", "to int32 and back", {"x": (4, 5)}, {}, lambda *, x: np.trunc(x), build=to_int32_and_back),
    unary(
        "clip",
        "one side nearer",
        lambda *, x, alpha, beta: np.minimum(np.maximum(x, alpha), beta),
        {"alpha": np.float32(-0.25), "beta": np.float32(0.75)},
    ),
    Case(
        "concat",
        "three",
        {"values": [(2, 3), (2, 1), (2, 4)]},
        {"axis": 1},
        lambda *, values, axis: np.concatenate(values, axis),
    ),
    Case(
        "concat",
        "negative axis",
        {"values": [(2, 3, 1), (2, 1, 1)]},
        {"axis": -2},
        lambda *, values, axis: np.concatenate(values, axis),
    ),
    dequantize("one scale", zero_point=np.int8(5), scale=np.float32(0.125), axis=0),
    dequantize("by row", zero_point=np.arange(5, dtype=np.int8), scale=np.abs(draw(5)) + 1, axis=0),
    dequantize("by column", zero_point=np.arange(7, dtype=np.int8) - 3, scale=np.abs(draw(7)) + 1, axis=1),
    dequantize(
        "without sign",
        quantized_data=np.arange(221, 256, dtype=np.uint8).reshape(5, 7),
        zero_point=np.uint8(200),
        scale=np.float32(0.5),
        axis=0,
    ),
    convolution("line, valid", (9,), (4, 3, 3), pad_type="valid"),
    convolution("line, groups, stride, bias", (9,), (4, 1, 3), bias=True, groups=2, strides=[2], pad_type="valid"),
    convolution("line, dilated", (9,), (4, 3, 3), dilations=[3], pad_type="valid"),
    convolution("line, padded before", (9,), (4, 3, 3), [(4, 0)], dilations=[2], pad_type="custom", pad=[4, 0]),
    convolution("picture, valid, bias", (6, 7), (4, 3, 2, 3), bias=True, pad_type="valid"),
    convolution(
        "picture, each channel alone", (6, 7), (3, 1, 3, 3), [(1, 1)] * 2, groups=3, pad_type="custom", pad=[1, 1, 1, 1]
    ),
    convolution(
        "picture, custom and asymmetric",
        (6, 7),
        (4, 3, 3, 2),
        [(0, 2), (3, 1)],
        strides=[2, 3],
        dilations=[1, 2],
        pad_type="custom",
        pad=[0, 2, 3, 1],
    ),
    convolution(
        "picture, different symmetric padding",
        (6, 7),
        (4, 3, 3, 3),
        [(2, 2), (1, 1)],
        strides=[1, 2],
        pad_type="custom",
        pad=[2, 2, 1, 1],
    ),
    convolution("picture, same, odd and even kernels", (6, 7), (4, 3, 3, 2), [(1, 1), (0, 1)], pad_type="same"),
    convolution("picture, same_lower", (6, 7), (4, 3, 3, 2), [(1, 1), (1, 0)], pad_type="same_lower"),
    convolution("picture, same, stride", (6, 7), (4, 3, 3, 3), [(0, 1), (1, 1)], strides=[2, 2], pad_type="same"),
    convolution("picture, same, dilated", (6, 7), (4, 3, 3, 2), [(2, 2), (1, 2)], dilations=[2, 3], pad_type="same"),
    unary(
        "expand_dims",
        "in several places",
        lambda *, x, axes: x.reshape(1, 2, 1, 3, 1),
        {"axes": [2, -1, 0]},
        (2, 3),
    ),
    unary("identity", "itself", lambda *, x: x),
    unary(
        "layer_norm",
        "last dimension",
        layer_norm,
        {"axes": [-1], "gamma": draw(4, 1), "beta": draw(4, 2), "epsilon": np.float32(0.03)},
    ),
    unary("layer_norm", "two dimensions", layer_norm, {"axes": [1, 2], "gamma": draw((3, 4), 1)}),
    unary("layer_norm", "no parameters", layer_norm, {"axes": [2]}),
    Case(
        "linear",
        "with bias",
        {"x": (2, 3, 4)},
        {"weight": draw((5, 4), 1), "bias": draw(5, 2)},
        lambda *, x, weight, bias: np.einsum("abi,oi->abo", x, weight) + bias,
    ),
    Case("linear", "no bias", {"x": (3, 4)}, {"weight": draw((5, 4), 1)}, lambda *, x, weight: x @ weight.T),
    *[recurrent(way, every) for way in ("forward", "reverse", "bidirectional") for every in (False, True)],
    recurrent("bidirectional", True, bias=False),
    Case("matmul", "plain", {"x": (2, 3, 4), "y": (4, 5)}, {}, lambda *, x, y: np.einsum("bij,jk->bik", x, y)),
    Case(
        "matmul",
        "x transposed",
        {"x": (2, 4, 3), "y": (2, 4, 5)},
        {"transpose_x": True},
        lambda *, x, y, transpose_x: np.einsum("bji,bjk->bik", x, y),
    ),
    Case(
        "matmul",
        "y transposed",
        {"x": (2, 1, 3, 4), "y": (3, 5, 4)},
        {"transpose_y": True},
        lambda *, x, y, transpose_y: np.einsum("abij,bkj->abik", np.repeat(x, 3, 1), y),
    ),
    Case(
        "matmul",
        "both transposed",
        {"x": (4, 3), "y": (5, 4)},
        {"transpose_x": True, "transpose_y": True},
        lambda *, x, y, transpose_x, transpose_y: (y @ x).T,
    ),
    Case(
        "matmul",
        "a row",
        {"x": (4,), "y": (5, 4)},
        {"transpose_y": True},
        lambda *, x, y, transpose_y: np.einsum("j,kj->k", x, y),
    ),
    pool("valid", (6, 7), [2, 3], [2, 1], pad_type="valid"),
    pool("stride left out", (6, 7), [2, 2], None, pad_type="valid"),
    pool("custom", (6, 7), [3, 3], [2, 2], [(1, 1), (1, 1)], pad_type="custom", pad=[1, 1, 1, 1]),
    pool("custom and asymmetric", (6, 7), [3, 2], [2, 2], [(0, 1), (1, 0)], pad_type="custom", pad=[0, 1, 1, 0]),
    pool("much padding", (6, 7), [3, 3], [1, 1], [(2, 2), (1, 1)], pad_type="custom", pad=[2, 2, 1, 1]),
    pool("same", (6, 7), [3, 2], [2, 2], [(0, 1), (0, 1)], pad_type="same"),
    pool("ceil", (6, 7), [3, 2], [2, 2], [(0, 1), (0, 1)], pad_type="valid", ceil_mode=True),
    pool(
        "ceil and custom", (4, 6), [3, 3], [2, 2], [(1, 2), (1, 2)], pad_type="custom", pad=[1, 1, 1, 1], ceil_mode=True
    ),
    pool(  # a last window that would stand in the padding alone is left out
        "ceil, no window of padding alone",
        (3, 5),
        [2, 2],
        [2, 2],
        [(1, 0), (1, 0)],
        pad_type="custom",
        pad=[1, 1, 1, 1],
        ceil_mode=True,
    ),
    pool("a line", (7,), [3], [2], [(1, 1)], pad_type="custom", pad=[1, 1]),
    unary("pad", "zeros, last dimension", lambda *, x, pad: np.pad(x, [(0, 0), (0, 0), (1, 2)]), {"pad": [1, 2]}),
    unary(
        "pad",
        "a number, all dimensions",
        lambda *, x, pad, mode, constant_val: np.pad(x, [(1, 0), (0, 2), (3, 1)], constant_values=7),
        {"pad": [1, 0, 0, 2, 3, 1], "mode": "constant", "constant_val": np.float32(7)},
    ),
    *[
        case
        for op, reduce in (("reduce_mean", np.mean), ("reduce_sum", np.sum))
        for case in (
            unary(
                op,
                "two axes, kept",
                lambda *, x, axes, keep_dims, reduce=reduce: reduce(x, (0, 2), keepdims=True),
                {"axes": [0, -1], "keep_dims": True},
            ),
            unary(op, "one axis", lambda *, x, axes, reduce=reduce: reduce(x, 1), {"axes": [1]}),
            unary(op, "all", lambda *, x, keep_dims, reduce=reduce: reduce(x).reshape(1, 1, 1), {"keep_dims": True}),
        )
    ],
    unary("relu", "both signs", lambda *, x: np.where(x > 0, x, 0)),
    unary("relu6", "above and below", lambda *, x: np.where(x < 0, 0, np.where(x > 6, 6, x)), shape=(9, 9, 9)),
    unary("reshape", "plain", lambda *, x, shape: np.array(x.ravel()).reshape(4, 6), {"shape": [4, 6]}),
    unary("reshape", "the rest", lambda *, x, shape: x.reshape(3, 8), {"shape": [3, -1]}),
    unary("reshape", "as it was", lambda *, x, shape: x.reshape(2, 12, 1), {"shape": [0, -1, 1]}),
    sliced("plain", lambda *, x, **_: x[1:4, 0:6, 2:3], [1, 0, 2], [4, 6, 3]),
    sliced("strides", lambda *, x, **_: x[1:5:2, 0:6:3, 2:7:2], [1, 0, 2], [5, 6, 7], stride=[2, 3, 2]),
    sliced("negative", lambda *, x, **_: x[2:4, 3:5, 0:4], [-3, -3, 0], [-1, 5, -3]),
    sliced(
        "masks",
        lambda *, x, **_: x[:4, 2:, ::2],
        [3, 2, 5],
        [4, 3, 6],
        stride=[1, 1, 2],
        begin_mask=[True, False, True],
        end_mask=[False, True, True],
    ),
    sliced("squeezed", lambda *, x, **_: x[2, 1:3, 6], [2, 1, -1], [0, 3, 0], squeeze_mask=[True, False, True]),
    unary("softmax", "last dimension", softmax),
    unary("softmax", "another dimension", softmax, {"axis": 1}),
    unary("squeeze", "one of three", lambda *, x, axes: x[:, 0], {"axes": [1]}, (2, 1, 3, 1, 1)),
    unary("squeeze", "from the end", lambda *, x, axes: x[..., 0, 0], {"axes": [-1, -2]}, (2, 1, 3, 1, 1)),
    unary("squeeze", "all", lambda *, x: x[:, 0, :, 0, 0], shape=(2, 1, 3, 1, 1)),
    unary(
        "transpose",
        "two ways",
        lambda *, x, perm: np.einsum("abc->cab", x),
        {"perm": [2, 0, 1]},
    ),
    unary("transpose", "from the end", lambda *, x, perm: np.einsum("abc->acb", x), {"perm": [0, -1, -2]}),
]


class OneOperation:
    """All cases of an operation in one program: saved, loaded and run."""

    def __init__(self, op: str, folder: Path):
        self.cases = [case for case in CASES if case.op == op]
        shapes, self.inferred = {}, []
        for number, case in enumerate(self.cases):
            for name, shape in zip(case.names(number).values(), case.inputs.values(), strict=True):
                shapes |= dict(zip(name, shape, strict=True)) if isinstance(name, list) else {name: shape}

        def compute(mb, inputs):
            found = []
            for number, case in enumerate(self.cases):
                given = {
                    name: [inputs[each] for each in source] if isinstance(source, list) else inputs[source]
                    for name, source in case.names(number).items()
                }
                variables = case.variables(mb, given)
                self.inferred.append([tuple(var.shape) for var in variables])
                found += variables
            return found

        self.program = MilProgram(write(folder / f"{op}.mlpackage", shapes, compute, passes=False))
        self.inputs = {name: 3 * draw(shape, seed) for seed, (name, shape) in enumerate(shapes.items())}
        tensors = {name: torch.from_numpy(x) for name, x in self.inputs.items()}
        self.outputs = [output.numpy() for output in self.program(tensors).values()]
        assert len(self.outputs) == sum(len(shapes) for shapes in self.inferred)


@pytest.fixture(scope="module")
def operations(coremltools, tmp_path_factory):
    folder, made = tmp_path_factory.mktemp("operations"), {}

    def get(op: str) -> OneOperation:
        if op not in made:
            made[op] = OneOperation(op, folder)
        return made[op]

    return get


def test_there_is_a_case_of_every_operation():
    assert {case.op for case in CASES} == set(mil.OPERATIONS)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_operation(case, operations):
    """What the interpreter computes is what the reference does, of the shape that coremltools infers."""
    one = operations(case.op)
    number = one.cases.index(case)
    given = {
        name: [one.inputs[each] for each in source] if isinstance(source, list) else one.inputs[source]
        for name, source in case.names(number).items()
    }
    wanted = case.reference(**given, **case.parameters, **case.only_here)
    wanted = wanted if isinstance(wanted, tuple) else (wanted,)
    first = sum(len(shapes) for shapes in one.inferred[:number])
    found = one.outputs[first : first + len(wanted)]
    assert [output.shape for output in found] == [np.shape(each) for each in wanted] == one.inferred[number]
    for output, each in zip(found, wanted, strict=True):
        np.testing.assert_allclose(output, each, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("op", sorted(mil.OPERATIONS))
def test_the_operation_that_was_meant_is_the_one_that_ran(op, operations):
    one = operations(op)
    each = {"constexpr_affine_dequantize": [op, "linear"], "cast": [op, op]}.get(op, [op])
    assert one.program.op_types == each * len(one.cases)


def test_weights_in_eight_bits(coremltools, tmp_path):
    """As coremltools packs them: the numbers are those of a rounding by hand, row by row."""
    from coremltools.optimize.coreml import OpLinearQuantizerConfig, OptimizationConfig, linear_quantize_weights

    weight = draw((16, 64), 1) * np.linspace(0.1, 3, 16, dtype=np.float32)[:, None]
    package = write(tmp_path / "x.mlpackage", {"x": (2, 64)}, lambda mb, v: mb.linear(x=v["x"], weight=weight))
    model = coremltools.models.MLModel(str(package), skip_model_load=True)
    config = OptimizationConfig(OpLinearQuantizerConfig(mode="linear_symmetric", weight_threshold=0))
    linear_quantize_weights(model, config).save(str(tmp_path / "small.mlpackage"))
    program = MilProgram(tmp_path / "small.mlpackage")
    assert program.op_types == ["constexpr_affine_dequantize", "linear"]
    scale = np.abs(weight).max(1, keepdims=True) / 127
    rounded = np.round(weight / scale) * scale
    x = draw((2, 64))
    np.testing.assert_allclose(run(program, x=x), x @ rounded.T, atol=1e-4)
    assert np.abs(x @ rounded.T - x @ weight.T).max() > 1e-3  # so that the line above tells them apart


# Sixteen bits


def chain(mb, inputs):
    x = inputs["x"]
    return [
        mb.add(x=x, y=np.float32(10_000)),  # too much for sixteen bits
        mb.sub(x=mb.add(x=x, y=np.float32(2048)), y=np.float32(2048)),  # the step between is rounded too
        mb.mul(x=x, y=np.float32(1 / 3)),  # so is a constant
        mb.reduce_sum(x=x, axes=[1], keep_dims=True),  # but not the parts of a sum
    ]


@pytest.mark.parametrize("half", [True, False])
def test_rounding_to_sixteen_bits(half, tmp_path):
    program = MilProgram(write(tmp_path / "x.mlpackage", {"x": (1, 4)}, chain, half=half))
    assert program.op_types.count("cast") == (5 if half else 0)
    x = np.array([[60_000, 1 + 2**-12, 1, -60_000]], np.float32)
    added, there_and_back, third, total = (y.tolist()[0] for y in program({"x": torch.from_numpy(x)}).values())
    if half:
        assert added == [np.inf, 10_000, 10_000, -49_984]  # numbers are 8 and 32 apart there, ties go to even
        assert there_and_back == [60_000, 0, 0, -60_000]
        assert third[1:3] == [np.float16(1 / 3)] * 2
        assert total == [2]
    else:
        assert added == [70_000, 10_001, 10_001, -50_000]
        assert there_and_back == x[0].tolist()
        assert third[2] == np.float32(1 / 3) and third[1] > third[2]
        assert abs(total[0] - 2) < 0.01


def test_inputs_and_weights_of_sixteen_bits(tmp_path):
    """A program that takes sixteen bits rounds what it is given, and weights that are unpacked to sixteen bits."""
    from coremltools.converters.mil import Builder as mb
    from coremltools.converters.mil.mil import types

    scale = np.float16(1 / 3)

    def compute(mb, inputs):
        data = np.array([[101, 100]], np.int8)
        weight = mb.constexpr_affine_dequantize(quantized_data=data, zero_point=np.int8(0), scale=scale, axis=0)
        return [mb.cast(x=inputs["x"], dtype="fp32"), mb.linear(x=inputs["pair"], weight=weight)]

    takes = {name: mb.placeholder(shape=(1, 2), dtype=types.fp16) for name in ("x", "pair")}
    program = MilProgram(write(tmp_path / "x.mlpackage", takes, compute, half=True, passes=False))
    given = {"x": torch.tensor([[1 + 2**-12, 70_000]]), "pair": torch.tensor([[1.0, -1.0]])}
    same, difference = program(given).values()
    assert same.tolist() == [[1, np.inf]]
    assert difference.item() == np.float16(101) * scale - np.float16(100) * scale == 0.34375  # not a third


def test_a_network_in_sixteen_bits(tmp_path):
    """Close to the one in thirty-two, and not the same."""
    weights = [draw((8, 3, 3, 3), 1), draw((6, 8), 2)]

    def compute(mb, inputs):
        y = mb.relu(x=mb.conv(x=inputs["x"], weight=weights[0], pad_type="same", strides=[2, 2]))
        y = mb.reduce_mean(x=y, axes=[2, 3])
        return mb.softmax(x=mb.linear(x=y, weight=weights[1]))

    x = draw((2, 3, 10, 10), 3)
    found = {}
    for half in (False, True):
        program = MilProgram(write(tmp_path / f"{half}.mlpackage", {"x": x.shape}, compute, half=half))
        assert [op for op in program.op_types if op != "cast"] == ["conv", "relu", "reduce_mean", "linear", "softmax"]
        found[half] = run(program, x=x)
    y = np.maximum(conv(x=x, weight=weights[0], strides=[2, 2], pads=[(0, 1)] * 2), 0).mean((2, 3)) @ weights[1].T
    np.testing.assert_allclose(found[False], softmax(x=y), atol=1e-5)
    assert 1e-6 < np.abs(found[True] - found[False]).max() < 5e-3
    assert np.array_equal(found[True], found[True].astype(np.float16))


# Inputs


@pytest.fixture(scope="module")
def flexible(coremltools, tmp_path_factory):
    """x (1, T, 6) -> x reshaped to (1, T, 2, 3), and the sum of its steps, (1, 6)."""
    from coremltools.converters.mil import Builder as mb
    from coremltools.converters.mil.mil import get_new_symbol

    def compute(mb, inputs):
        return [mb.reshape(x=inputs["x"], shape=[1, -1, 2, 3]), mb.reduce_sum(x=inputs["x"], axes=[1])]

    length = coremltools.RangeDim(lower_bound=1, upper_bound=9, default=4)
    return write(
        tmp_path_factory.mktemp("flexible") / "x.mlpackage",
        {"x": mb.placeholder(shape=(1, get_new_symbol(), 6))},
        compute,
        inputs=[coremltools.TensorType(name="x", shape=(1, length, 6))],
    )


@pytest.mark.parametrize("length", [1, 4, 9])
def test_flexible_length(flexible, length):
    x = draw((1, length, 6))
    found, total = MilProgram(flexible)({"x": torch.from_numpy(x)}).values()
    assert np.array_equal(found.numpy(), x.reshape(1, length, 2, 3))
    np.testing.assert_allclose(total.numpy(), x.sum(1), atol=1e-5)


def test_wrong_inputs(flexible):
    program = MilProgram(flexible)
    assert program.inputs["x"] == ((1, 1), (1, 9), (6, 6)) and len(program.outputs) == 2
    for shape in ((1, 4, 5), (2, 4, 6), (4, 6), (1, 1, 4, 6), (1, 10, 6), (1, 0, 6)):
        with pytest.raises(InputError) as caught:
            program({"x": torch.zeros(shape)})
        assert str(caught.value) == f"input 'x' is {shape}, the program expects (1, 1 to 9, 6)"
    with pytest.raises(InputError, match=r"input 'x' is nothing, the program expects \(1, 1 to 9, 6\)"):
        program({"y": torch.zeros(1, 4, 6)})


# Faults


@pytest.fixture(scope="module")
def sound(coremltools, tmp_path_factory):
    """A package that has all its parts."""
    weight = draw((32, 64))
    package = tmp_path_factory.mktemp("sound") / "x.mlpackage"
    write(package, {"x": (1, 64)}, lambda mb, v: mb.linear(x=v["x"], weight=weight))
    assert MilProgram(package).op_types == ["linear"]
    return package


def replace_with_file(package):
    shutil.rmtree(package)
    package.write_bytes(b"PK")


def empty(package):
    shutil.rmtree(package)
    package.mkdir()


def cut(name, keep):
    def damage(package):
        (file,) = package.rglob(name)
        file.write_bytes(file.read_bytes()[:keep])

    return damage


def remove(name):
    return lambda package: next(package.rglob(name)).unlink()


def overwrite(name, content):
    return lambda package: next(package.rglob(name)).write_bytes(content)


FAULTS = {
    "no folder": (shutil.rmtree, "no such package"),
    "a file": (replace_with_file, "a file, but a package is a folder"),
    "an empty folder": (empty, "not a whole Core ML package .*manifest"),
    "no manifest": (remove("Manifest.json"), "not a whole Core ML package .*manifest"),
    "half a manifest": (cut("Manifest.json", 50), "not a whole Core ML package .*parse error"),
    "an empty manifest": (overwrite("Manifest.json", b"{}"), "not a whole Core ML package"),
    "a manifest that is a list": (overwrite("Manifest.json", b"[]"), "not a whole Core ML package"),
    "no program": (remove("model.mlmodel"), "not a whole Core ML package"),
    "an empty program": (cut("model.mlmodel", 0), "not an ML Program"),
    "half a program": (cut("model.mlmodel", 400), "not a whole Core ML package"),
    "a program less its end": (cut("model.mlmodel", -1), "not a whole Core ML package"),
    "rubbish for a program": (overwrite("model.mlmodel", b"rubbish" * 200), "not a whole Core ML package"),
    "no weights": (remove("weight.bin"), "not a whole Core ML package .*weight.bin"),
    "empty weights": (cut("weight.bin", 0), "not a whole Core ML package"),
    "weights cut in their head": (cut("weight.bin", 100), "not a whole Core ML package"),
    "half the weights": (cut("weight.bin", 4000), "not a whole Core ML package"),
    "weights less their end": (cut("weight.bin", -1), "not a whole Core ML package"),
    "weights all zero": (overwrite("weight.bin", bytes(8400)), "not a whole Core ML package"),
}


def refused(package, why):
    """Opening it is refused in one line that names it."""
    with pytest.raises(InputError, match=why) as caught:
        MilProgram(package)
    assert str(caught.value).startswith(f"{package}: ") and "\n" not in str(caught.value)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_damaged_package(fault, sound, tmp_path):
    package = tmp_path / "damaged.mlpackage"
    shutil.copytree(sound, package)
    MilProgram(package)  # whole so far
    damage, why = FAULTS[fault]
    damage(package)
    refused(package, why)


def test_a_neural_network_is_not_an_ml_program(coremltools, tmp_path):
    target = coremltools.target.iOS14
    precision = {"minimum_deployment_target": target, "compute_precision": None, "convert_to": "neuralnetwork"}
    write(tmp_path / "x.mlmodel", {"x": (1, 3)}, lambda mb, v: mb.relu(x=v["x"]), **precision)
    spec = coremltools.utils.load_spec(str(tmp_path / "x.mlmodel"))
    coremltools.utils.save_spec(spec, str(tmp_path / "x.mlpackage"))
    refused(tmp_path / "x.mlpackage", "not an ML Program")


def test_an_unknown_operation(tmp_path):
    package = write(tmp_path / "x.mlpackage", {"x": (1, 3)}, lambda mb, v: mb.relu(x=mb.sin(x=v["x"])))
    refused(package, "operation 'sin' is not known to the interpreter, which runs add, .*transpose")


def test_a_program_of_another_name(coremltools, sound, tmp_path):
    """Packages with several functions need not have one called main."""
    package = tmp_path / "x.mlpackage"
    shutil.copytree(sound, package)
    spec = coremltools.utils.load_spec(str(package))
    functions = spec.mlProgram.functions
    functions["other"].CopyFrom(functions["main"])
    del functions["main"]
    next(package.rglob("model.mlmodel")).write_bytes(spec.SerializeToString())
    refused(package, "not a whole Core ML package")


LSTM = {"initial_h": np.zeros((1, 2), np.float32), "initial_c": np.zeros((1, 2), np.float32)}
LSTM |= {"weight_ih": draw((8, 4)), "weight_hh": draw((8, 2))}
UNKNOWN = {
    "a cast to 'bool'": lambda mb, x: mb.cast(x=mb.cast(x=x, dtype="bool"), dtype="fp32"),
    "a concat that interleaves": lambda mb, x: mb.concat(values=[x, x], axis=1, interleave=True),
    "a convolution in 3 dimensions": lambda mb, x: mb.conv(
        x=mb.expand_dims(x=x, axes=[0, 1]), weight=draw((1, 1, 1, 1, 1)), pad_type="valid"
    ),
    "a layer_norm over dimensions": lambda mb, x: mb.layer_norm(x=x, axes=[1]),
    "a max_pool in 3 dimensions": lambda mb, x: mb.max_pool(
        x=mb.expand_dims(x=x, axes=[0, 1]), kernel_sizes=[1, 1, 1], pad_type="valid"
    ),
    "a slice with the stride": lambda mb, x: mb.slice_by_index(x=x, begin=[0, 0, 3], end=[3, 1, 0], stride=[1, 1, -1]),
    "an LSTM with .*relu": lambda mb, x: mb.lstm(x=x, activation="relu", **LSTM)[0],
    "an LSTM with .*further parts": lambda mb, x: mb.lstm(x=x, peephole=draw(6), **LSTM)[0],
    "pad mode 'reflect'": lambda mb, x: mb.pad(x=x, pad=[1, 1], mode="reflect"),
}


@pytest.mark.parametrize("what", UNKNOWN)
def test_a_kind_of_operation_that_is_not_known(what, tmp_path):
    """Refused, and not computed as if it were the kind that is known."""
    package = write(tmp_path / "x.mlpackage", {"x": (3, 1, 4)}, lambda mb, v: UNKNOWN[what](mb, v["x"]), passes=False)
    program = MilProgram(package)
    with pytest.raises(InputError, match=f"{what}.* is not known to the interpreter of Core ML packages"):
        program({"x": torch.zeros(3, 1, 4)})


def test_without_coremltools(sound, monkeypatch):
    monkeypatch.setitem(sys.modules, "coremltools", None)
    with pytest.raises(InputError, match=r"Core ML: coremltools is not installed: pip install .egochef\[coreml\]"):
        MilProgram(sound)
