"""Runs a saved Core ML package (ML Program) where there is no Core ML: its program and weights, computed in torch.

In: a `.mlpackage` folder. Out: a function from named arrays to named arrays. It knows the operations that our exports
consist of, and refuses any other. What Core ML keeps in sixteen bits is rounded to sixteen bits after each operation,
so that an overflow or a lost digit shows here too; sums inside an operation are taken in thirty-two.

Operations are as in Apple's description of MIL (coremltools, `mil/ops/defs`).
"""

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from egochef.errors import InputError
from egochef.extras import need_extra

Values = Mapping[str, Any]
"""an operation's inputs by name: Tensors, numbers, lists of numbers, strings; those left out are missing"""


class MilProgram:
    """The main function of a saved ML Program."""

    def __init__(self, package: Path):
        """
        Raises:
            InputError: not a package, damaged, or one with operations that are not known here.
        """
        spec = read_spec(package)
        if spec.WhichOneof("Type") != "mlProgram":
            raise InputError(f"{package}: not an ML Program, expected what egochef export --format coreml writes")
        function = _load(package, spec)
        try:
            self._read(package, spec, function)
        except InputError:
            raise
        except Exception as error:  # of a damaged program anything may be missing
            raise InputError(f"{package}: not a whole Core ML package ({_short(error)}). Export it again.") from None

    def _read(self, package: Path, spec: Any, function: Any) -> None:
        self.package = package
        self.inputs = {name: _lengths(tuple(var.shape), name, spec) for name, var in function.inputs.items()}
        """name -> the least and the most that each dimension may be; a most of -1 is none"""
        self.outputs = tuple(var.name for var in function.outputs)
        self._rounded = {name for name, var in function.inputs.items() if _is_half(var)}
        self.op_types: list[str] = []
        """of all operations but constants, in order"""
        self._constants: dict[str, Any] = {}
        self._steps: list[_Step] = []
        for op in function.operations:
            if op.op_type == "const":
                self._constants[op.outputs[0].name] = _as_value(op.val.val)
                continue
            if op.op_type not in OPERATIONS:
                raise InputError(
                    f"{package}: operation {op.op_type!r} is not known to the interpreter, which runs "
                    f"{', '.join(sorted(OPERATIONS))}. Use macOS, or another kind of model."
                )
            self.op_types.append(op.op_type)
            step = _Step(op)
            if op.op_type.startswith("constexpr"):
                self._constants |= step.run(self._constants)
            else:
                self._steps.append(step)

    @torch.inference_mode()
    def __call__(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Run it. Inputs and outputs are float32 Tensors by name.

        Raises:
            InputError: an input is missing or of another shape, or an operation cannot be done.
        """
        values = dict(self._constants)
        for name, lengths in self.inputs.items():
            found = tuple(inputs[name].shape) if name in inputs else "nothing"
            if name not in inputs or not _fits(tuple(inputs[name].shape), lengths):
                wanted = ", ".join(str(low) if low == high else f"{low} to {high}" for low, high in lengths)
                raise InputError(f"input {name!r} is {found}, the program expects ({wanted})")
            values[name] = _round(inputs[name].float()) if name in self._rounded else inputs[name].float()
        for step in self._steps:
            try:
                values |= step.run(values)
            except InputError:
                raise
            except Exception as error:  # what torch raises, or what is missing
                what = f"its operation {step.op_type!r} cannot be done ({_short(error)})"
                raise InputError(f"{self.package}: {what}. Export it again.") from None
        return {name: values[name] for name in self.outputs}


class _Step:
    """One operation: where its inputs come from and where its outputs go."""

    def __init__(self, op: Any):
        self.op_type = op.op_type
        self.compute = OPERATIONS[op.op_type]
        self.inputs = {
            name: [each.name for each in var] if isinstance(var, list | tuple) else var.name
            for name, var in op.inputs.items()
            if var is not None
        }
        self.outputs = {var.name: _is_half(var) for var in op.outputs}

    def run(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Its outputs by name."""
        given = {
            name: [values[each] for each in source] if isinstance(source, list) else values[source]
            for name, source in self.inputs.items()
        }
        found = self.compute(given)
        results = zip(self.outputs.items(), found if isinstance(found, tuple) else (found,), strict=True)
        return {name: _round(result) if half else result for (name, half), result in results}


def import_coremltools() -> Any:
    """The module, without what it says about systems that have no Core ML.

    Raises:
        ExtraError: it cannot be imported.
    """
    log = logging.getLogger("coremltools")
    before = log.level
    log.setLevel(logging.CRITICAL)
    try:
        need_extra("coreml", "Core ML")
        import coremltools
    finally:
        log.setLevel(max(before, logging.ERROR))
    return coremltools


def read_spec(package: Path) -> Any:
    """The protobuf of a package.

    Raises:
        InputError: there is none, or it is damaged.
    """
    coremltools = import_coremltools()
    if not package.is_dir():
        what = "no such package" if not package.exists() else "a file, but a package is a folder"
        raise InputError(f"{package}: {what}, expected what egochef export --format coreml writes")
    _check_inside(package)
    try:
        root = Path(coremltools.libmodelpackage.ModelPackage(str(package)).getRootModel().path())
        if not root.resolve().is_relative_to(package.resolve()) or not root.is_file():
            raise InputError(f"{package}: its manifest leads to {root}, which is no file in it. Export it again.")
        return coremltools.utils.load_spec(str(root))
    except InputError:
        raise
    except Exception as error:  # of a damaged package it raises nearly anything
        raise InputError(f"{package}: not a whole Core ML package ({_short(error)}). Export it again.") from None


def _check_inside(package: Path) -> None:
    """
    Raises:
        InputError: something in the package is neither a file nor a folder: what it links to is not the package's, and
            a pipe would be waited for.
    """
    for path in package.rglob("*"):
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise InputError(f"{path}: a link, a device or a pipe, but a package holds files only. Export it again.")


def _load(package: Path, spec: Any) -> Any:
    """The main function."""
    from coremltools.converters.mil.frontend.milproto.load import load

    weights = next(package.rglob("weight.bin"), package / "weight.bin")
    try:
        found = load(spec, specification_version=spec.specificationVersion, file_weights_dir=str(weights.parent))
        return found.functions["main"]
    except Exception as error:
        raise InputError(f"{package}: not a whole Core ML package ({_short(error)}). Export it again.") from None


def _short(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split()):.200}"


def _lengths(shape: tuple[Any, ...], name: str, spec: Any) -> tuple[tuple[int, int], ...]:
    """The least and the most of each dimension; those that are not fixed stand in the description."""
    feature = next((each for each in spec.description.input if each.name == name), None)
    ranges = [] if feature is None else feature.type.multiArrayType.shapeRange.sizeRanges
    return tuple(
        (int(size), int(size))
        if isinstance(size, int | np.integer)
        else (int(ranges[place].lowerBound), int(ranges[place].upperBound))
        if place < len(ranges)
        else (1, -1)
        for place, size in enumerate(shape)
    )


def _fits(shape: tuple[int, ...], lengths: tuple[tuple[int, int], ...]) -> bool:
    return len(shape) == len(lengths) and all(
        low <= size and (size <= high or high < 0) for size, (low, high) in zip(shape, lengths, strict=True)
    )


def _as_value(value: Any) -> Any:
    """A constant: arrays of floating point as float32 Tensors, those of whole numbers as they are, the rest plain."""
    if isinstance(value, np.ndarray):
        if value.dtype.kind == "f":
            return torch.from_numpy(value.astype(np.float32))
        return torch.from_numpy(value.copy()) if value.dtype.kind in "iu" else value
    if isinstance(value, np.generic):
        return value.item()
    return value


def _is_half(var: Any) -> bool:
    from coremltools.converters.mil.mil import types

    return bool(var.dtype == types.fp16)


def _round(x: Tensor) -> Tensor:
    return x.half().float()


def _refusal(what: str) -> InputError:
    return InputError(f"{what} is not known to the interpreter of Core ML packages")


def _numbers(value: Any) -> list[int]:
    return [int(each) for each in (value.tolist() if isinstance(value, Tensor | np.ndarray) else value)]


def _flags(values: Values, name: str, rank: int) -> list[bool]:
    return [bool(each) for each in values[name]] if name in values else [False] * rank


def _conv(v: Values) -> Tensor:
    x, weight = v["x"], v["weight"]
    rank = x.dim() - 2
    strides, dilations = (_numbers(v[name]) if name in v else [1] * rank for name in ("strides", "dilations"))
    x, padding = _padded(x, v, list(weight.shape[2:]), strides, dilations, 0.0)
    convolve = {1: F.conv1d, 2: F.conv2d}.get(rank)
    if convolve is None:
        raise _refusal(f"a convolution in {rank} dimensions")
    return convolve(x, weight, v.get("bias"), strides, padding, dilations, int(v.get("groups", 1)))


def _max_pool(v: Values) -> Tensor:
    kernel, strides = _numbers(v["kernel_sizes"]), _numbers(v["strides"])
    pool = {1: F.max_pool1d, 2: F.max_pool2d}.get(len(kernel))
    if pool is None:
        raise _refusal(f"a max_pool in {len(kernel)} dimensions")
    x, padding = _padded(v["x"], v, kernel, strides, [1] * len(kernel), -torch.inf)
    return pool(x, kernel, strides, padding, ceil_mode=bool(v.get("ceil_mode", False)))


def _padded(
    x: Tensor, v: Values, kernel: list[int], strides: list[int], dilations: list[int], fill: float
) -> tuple[Tensor, list[int]]:
    """`x` padded as `pad_type` tells, and what padding the operation is left to do itself."""
    kind, none = v.get("pad_type", "valid"), [0] * len(kernel)
    if kind == "valid":
        return x, none
    if kind == "custom":
        pads = _numbers(v["pad"])  # before and after, dimension by dimension
    elif kind in ("same", "same_lower"):
        pads = []
        for size, length, stride, dilation in zip(x.shape[2:], kernel, strides, dilations, strict=True):
            total = max(0, (-(-size // stride) - 1) * stride + dilation * (length - 1) + 1 - size)
            less, more = total // 2, total - total // 2
            pads += [less, more] if kind == "same" else [more, less]
    else:
        raise _refusal(f"pad_type {kind!r}")
    before, after = pads[::2], pads[1::2]
    halves = all(2 * amount <= length for amount, length in zip(before, kernel, strict=True))
    if before == after and (fill == 0.0 or halves):  # a pool of torch is padded by no more than half its kernel
        return x, before
    return F.pad(x, _for_torch(pads), value=fill), none


def _for_torch(pads: list[int]) -> list[int]:
    """Before and after of each dimension: torch wants the last dimension first."""
    return [amount for place in range(len(pads) - 2, -1, -2) for amount in pads[place : place + 2]]


def _pad(v: Values) -> Tensor:
    if v["mode"] != "constant":
        raise _refusal(f"pad mode {v['mode']!r}")
    return F.pad(v["x"], _for_torch(_numbers(v["pad"])), value=float(v.get("constant_val", 0.0)))


def _slice_by_index(v: Values) -> Tensor:
    x = v["x"]
    rank = x.dim()
    begin, end = _numbers(v["begin"]), _numbers(v["end"])
    stride = _numbers(v["stride"]) if "stride" in v else [1] * rank
    if min(stride) < 0:
        raise _refusal(f"a slice with the stride {stride}")
    from_start, to_end, squeeze = (_flags(v, f"{name}_mask", rank) for name in ("begin", "end", "squeeze"))
    where: list[int | slice] = []
    for axis in range(rank):
        if squeeze[axis]:
            where.append(begin[axis])
        else:
            first = None if from_start[axis] else begin[axis]
            where.append(slice(first, None if to_end[axis] else end[axis], stride[axis]))
    return x[tuple(where)]


def _lstm(v: Values) -> tuple[Tensor, Tensor, Tensor]:
    """x (T, B, I) -> states (T, B, H) or (T, B, 2 H), last state and last cell; gates in the order i, f, o, g."""
    x, hidden, cell = v["x"], v["initial_h"], v["initial_c"]
    kinds = (v.get("recurrent_activation", "sigmoid"), v.get("cell_activation", "tanh"), v.get("activation", "tanh"))
    if kinds != ("sigmoid", "tanh", "tanh") or "peephole" in v or "clip" in v:
        raise _refusal(f"an LSTM with {kinds} or further parts")
    direction = v.get("direction", "forward")
    size = v["weight_hh"].shape[1]
    runs = {"forward": [("", False)], "reverse": [("", True)], "bidirectional": [("", False), ("_back", True)]}
    states, hiddens, cells = [], [], []
    for place, (suffix, backwards) in enumerate(runs[direction]):
        part = slice(place * size, (place + 1) * size)
        bias = v.get(f"bias{suffix}")
        inputs = x @ v[f"weight_ih{suffix}"].T + (0 if bias is None else bias)  # (T, B, 4 H)
        h, c, found = hidden[:, part], cell[:, part], []
        for step in inputs.flip(0) if backwards else inputs:
            i, f, o, g = (step + h @ v[f"weight_hh{suffix}"].T).chunk(4, dim=1)  # (B, H) each
            c = f.sigmoid() * c + i.sigmoid() * g.tanh()
            h = o.sigmoid() * c.tanh()
            found.append(h)
        states.append(torch.stack(found[::-1] if backwards else found))
        hiddens.append(h)
        cells.append(c)
    outputs = torch.cat(states, dim=2)
    last, cell = torch.cat(hiddens, dim=1), torch.cat(cells, dim=1)
    return (outputs if v.get("output_sequence", False) else last[None]), last, cell


def _affine_dequantize(v: Values) -> Tensor:
    data, axis = v["quantized_data"], int(v["axis"])
    shape = [-1 if place == axis else 1 for place in range(data.dim())]
    scale, zero = (torch.as_tensor(v[name]).float() for name in ("scale", "zero_point"))
    scale, zero = (each.reshape(shape) if each.dim() else each for each in (scale, zero))
    return (data.float() - zero) * scale


def _layer_norm(v: Values) -> Tensor:
    x, axes = v["x"], [axis % v["x"].dim() for axis in _numbers(v["axes"])]
    if axes != list(range(x.dim() - len(axes), x.dim())):
        raise _refusal(f"a layer_norm over dimensions {axes} of {x.dim()}")
    return F.layer_norm(x, x.shape[axes[0] :], v.get("gamma"), v.get("beta"), float(v.get("epsilon", 1e-5)))


def _batch_norm(v: Values) -> Tensor:
    x, shape = v["x"], [1, -1] + [1] * (v["x"].dim() - 2)
    scale = v.get("gamma", 1.0) * torch.rsqrt(v["variance"] + float(v.get("epsilon", 1e-5)))  # (C,)
    shift = v.get("beta", 0.0) - v["mean"] * scale  # (C,)
    return x * scale.reshape(shape) + shift.reshape(shape)


def _matmul(v: Values) -> Tensor:
    x = v["x"].transpose(-1, -2) if v.get("transpose_x", False) else v["x"]
    y = v["y"].transpose(-1, -2) if v.get("transpose_y", False) else v["y"]
    return x @ y


def _reduce(reduce: Callable[..., Tensor]) -> Callable[[Values], Tensor]:
    def run(v: Values) -> Tensor:
        axes = _numbers(v["axes"]) if "axes" in v else list(range(v["x"].dim()))
        return reduce(v["x"], dim=axes, keepdim=bool(v.get("keep_dims", False)))

    return run


def _cast(v: Values) -> Tensor:
    """Every value is float32 here; the rounding of fp16 follows each operation."""
    if v["dtype"] not in ("fp16", "fp32", "int32"):
        raise _refusal(f"a cast to {v['dtype']!r}")
    return v["x"].trunc() if v["dtype"] == "int32" else v["x"]


def _concat(v: Values) -> Tensor:
    if v.get("interleave", False):
        raise _refusal("a concat that interleaves")
    return torch.cat(v["values"], dim=int(v["axis"]))


def _reshape(v: Values) -> Tensor:
    x = v["x"]
    return x.reshape([size or x.shape[axis] for axis, size in enumerate(_numbers(v["shape"]))])  # 0: as in x


def _squeeze(v: Values) -> Tensor:
    return v["x"].squeeze(tuple(_numbers(v["axes"])) if "axes" in v else tuple(range(v["x"].dim())))


def _expand_dims(v: Values) -> Tensor:
    x = v["x"]
    for axis in sorted(axis % (x.dim() + len(v["axes"])) for axis in _numbers(v["axes"])):
        x = x.unsqueeze(axis)
    return x


OPERATIONS: dict[str, Callable[[Values], Any]] = {
    "add": lambda v: v["x"] + v["y"],
    "batch_norm": _batch_norm,
    "cast": _cast,
    "clip": lambda v: v["x"].clamp(float(v["alpha"]), float(v["beta"])),
    "concat": _concat,
    "constexpr_affine_dequantize": _affine_dequantize,
    "conv": _conv,
    "expand_dims": _expand_dims,
    "identity": lambda v: v["x"],
    "layer_norm": _layer_norm,
    "linear": lambda v: F.linear(v["x"], v["weight"], v.get("bias")),
    "lstm": _lstm,
    "matmul": _matmul,
    "max_pool": _max_pool,
    "mul": lambda v: v["x"] * v["y"],
    "pad": _pad,
    "reduce_mean": _reduce(torch.mean),
    "reduce_sum": _reduce(torch.sum),
    "relu": lambda v: v["x"].relu(),
    "relu6": lambda v: v["x"].clamp(0, 6),
    "reshape": _reshape,
    "slice_by_index": _slice_by_index,
    "softmax": lambda v: v["x"].softmax(int(v["axis"])),
    "squeeze": _squeeze,
    "sub": lambda v: v["x"] - v["y"],
    "transpose": lambda v: v["x"].permute(_numbers(v["perm"])),
}
"""what the interpreter runs, by MIL's names"""
