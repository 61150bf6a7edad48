"""Loads files of `torch.save` from anybody: without running code, and without taking more memory than they show.

In: a path, zip or older. Out: what is in it. `torch.load(weights_only=True)` runs no code, but it builds what it is
told to, and a small file can tell much: members that unpack to gigabytes, tensors that are larger than what is stored
of them, lists that hold a list many times that holds a list many times. So all pickles of a file are read over first,
and their sizes added up, before any of it is built.
"""

import io
import pickle
import re
import zipfile
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

MAX_VALUES = 1 << 23
"""values in a file, those counted again that stand in it several times; scores of a test split as plain lists have 5
million"""
TOO_MANY = f"it has more than {MAX_VALUES:,} values, those counted again that stand in it several times"
MAX_SPREAD_BYTES = 1 << 30
"""by which tensors may be larger than their file: one of equal numbers may be stored as one number"""
MAX_DEPTH = 100
"""of containers within each other"""
BYTES_PER_VALUE = 64
"""of a text, which counts as so many values"""
LEGACY_PICKLES = 5
"""before the tensors' bytes: two numbers, the system, the content, and the keys of what follows"""
BUILT = {
    "builtins.complex",
    "builtins.set",
    "collections.Counter",
    "collections.OrderedDict",
    "torch.Size",
    "torch.device",
    "torch._utils._rebuild_parameter",
    "torch._utils._rebuild_tensor",
    "torch._utils._rebuild_tensor_v2",
}
"""what may be built; PyTorch knows more, such as `bytearray`, which makes ten bytes into a terabyte"""
ENCODE = "_codecs.encode"
"""how bytes are written; other codecs than latin1 may take long"""
DTYPE = re.compile(r"torch\.(bool|(b?float|int|uint|complex)\d+)")
STORAGES = {
    f"torch.{name}Storage": size
    for name, size in {
        **dict.fromkeys(("Bool", "Byte", "Char"), 1),
        **dict.fromkeys(("Half", "BFloat16", "Short"), 2),
        **dict.fromkeys(("Float", "Int"), 4),
        **dict.fromkeys(("Double", "Long", "ComplexFloat"), 8),
        "ComplexDouble": 16,
    }.items()
}
"""kinds of stored numbers, and bytes of one"""


class NeedsCodeError(ValueError):
    """A file names something that is not built here; the message is that name."""


class TooLargeError(ValueError):
    """A file would take much more memory or time than its size tells; the message says why."""


def load_torch_file(path: Path, stand_in: Callable[[str], Any] = lambda name: None) -> Any:
    """What a file holds, on the CPU.

    Args:
        stand_in: from a full name as `numpy.dtype` to what is built in its place; None: the file is refused.

    Raises:
        NeedsCodeError: it names something that is not built here.
        TooLargeError: it would take much more memory or time than its size tells.
        Exception: it is damaged, or of another kind; PyTorch raises nearly anything.
    """
    import torch

    num_bytes = path.stat().st_size
    with path.open("rb") as file:
        is_zip = file.read(4) == b"PK\x03\x04"  # as PyTorch tells them apart
    names = (_names_in_zip if is_zip else _names_in_legacy)(path, num_bytes)
    stand_ins = {}
    for name in names:
        if name not in BUILT and name not in STORAGES and name != ENCODE and not DTYPE.fullmatch(name):
            stand_ins[name] = stand_in(name)
            if stand_ins[name] is None:
                raise NeedsCodeError(name.removeprefix("builtins."))
    with torch.serialization.safe_globals([(taken, name) for name, taken in stand_ins.items()]):
        content = torch.load(path, map_location="cpu", weights_only=True)
    tensors = list(_tensors(content))
    stored = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in tensors}
    if sum(stored.values()) > num_bytes:
        raise TooLargeError("its tensors are larger than the file")
    seen_bytes = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    if seen_bytes > num_bytes + MAX_SPREAD_BYTES:
        raise TooLargeError(f"its tensors take {seen_bytes / 2**30:.1f} GiB, in a file of {num_bytes:,} bytes")
    return content


def _names_in_zip(path: Path, num_bytes: int) -> list[str]:
    with zipfile.ZipFile(path) as archive:
        members = {member.filename: member for member in archive.infolist()}
        if len(members) < len(archive.infolist()) or any(m.compress_type or m.flag_bits & 1 for m in members.values()):
            raise TooLargeError("packed, or with a member twice: PyTorch writes no such file")
        if sum(max(member.file_size, member.compress_size) for member in members.values()) > num_bytes:
            raise TooLargeError("its members are larger than the file")
        pickles = [name for name in members if name.rpartition("/")[2] == "data.pkl"]
        if len(pickles) != 1:
            raise ValueError(f"{len(pickles)} members named data.pkl, expected one")
        folder = pickles[0].removesuffix("data.pkl")
        # PyTorch refuses numbers of another size than their member by itself.
        sizes = {name.removeprefix(f"{folder}data/").encode(): member.file_size for name, member in members.items()}
        return _check_pickle(io.BytesIO(archive.read(pickles[0])), lambda key: sizes.get(key, 0))


def _names_in_legacy(path: Path, num_bytes: int) -> list[str]:
    names: list[str] = []
    with path.open("rb") as file:
        for _ in range(LEGACY_PICKLES):
            names += _check_pickle(file, lambda key: num_bytes)
    return names


class _Part:
    """Something in a pickle that consists of others."""

    __slots__ = ("parts",)

    def __init__(self, parts: list[Any]):
        self.parts = parts


class _Global(str):
    """A full name in a pickle, of a function or class."""

    __slots__ = ()


# opcodes by what they do with the stack: PyTorch reads no others
_NUMBERS = {pickle.BININT1: 1, pickle.BININT2: 2, pickle.BININT: 4}
"""bytes that follow"""
_PUTS, _GETS = {pickle.BINPUT: 1, pickle.LONG_BINPUT: 4}, {pickle.BINGET: 1, pickle.LONG_BINGET: 4}
_TEXTS = {pickle.SHORT_BINSTRING: 1, pickle.LONG1: 1, pickle.BINUNICODE: 4}
"""bytes that tell how many follow"""
_CONSTANTS = {pickle.NONE, pickle.NEWTRUE, pickle.NEWFALSE}
_EMPTY = {pickle.EMPTY_TUPLE, pickle.EMPTY_LIST, pickle.EMPTY_DICT, pickle.EMPTY_SET}
_TUPLES = {pickle.TUPLE1: 1, pickle.TUPLE2: 2, pickle.TUPLE3: 3}
_ADD = {pickle.APPEND: 1, pickle.BUILD: 1, pickle.SETITEM: 2}
"""how many are taken from the stack"""


def _check_pickle(file: IO[bytes], stored_bytes: Callable[[Any], int]) -> list[str]:
    """The names that the next pickle of a file gives, once its sizes have been found honest.

    Args:
        stored_bytes: from the key of stored numbers to how many bytes there can be of them.

    Raises:
        ValueError: something in it is not what it seems, or is not read by PyTorch.
    """
    stack: list[Any] = []
    marks: list[int] = []
    memo: dict[int, Any] = {}
    names: dict[str, None] = {}

    def number(size: int) -> int:
        return int.from_bytes(file.read(size), "little")

    def take(count: int | None) -> list[Any]:
        """So many from the stack, or all to the last mark."""
        begin = len(stack) - count if count else marks.pop()
        if begin < (marks[-1] if marks else 0):
            raise ValueError("a damaged pickle")
        taken = stack[begin:]
        del stack[begin:]
        return taken

    for _ in range(2 * MAX_VALUES):
        code = file.read(1)
        if code == pickle.BINFLOAT:  # of these there may be millions
            file.read(8)
            stack.append(None)
        elif code in _NUMBERS:
            stack.append(number(_NUMBERS[code]))
        elif code in _PUTS:
            memo[number(_PUTS[code])] = stack[-1]
        elif code in _GETS:
            stack.append(memo[number(_GETS[code])])
        elif code in _TEXTS:
            text = file.read(number(_TEXTS[code]))
            stack.append(int.from_bytes(text, "little") if code == pickle.LONG1 else text)
        elif code in _CONSTANTS:
            stack.append(None)
        elif code in _EMPTY:
            stack.append(_Part([]))
        elif code == pickle.MARK:
            marks.append(len(stack))
        elif code == pickle.TUPLE or code in _TUPLES:
            stack.append(_Part(take(_TUPLES.get(code))))
        elif code in (pickle.APPENDS, pickle.SETITEMS) or code in _ADD:
            taken = take(_ADD.get(code))
            stack[-1].parts.extend(taken)
        elif code in (pickle.REDUCE, pickle.NEWOBJ):
            function, arguments = take(2)
            if function == ENCODE and arguments.parts[1:] != [b"latin1"]:
                raise TooLargeError(f"bytes encoded by {arguments.parts[1:]!r:.40}")
            stack.append(_Part([function, arguments]))
        elif code == pickle.BINPERSID:
            (stored,) = take(1)
            _check_stored(stored, stored_bytes)
            stack.append(_Part([stored]))
        elif code == pickle.GLOBAL:
            module, name = (file.readline().removesuffix(b"\n").decode() for _ in range(2))
            module, name = NAME_MAPPING.get((module, name), (IMPORT_MAPPING.get(module, module), name))
            names[f"{module}.{name}"] = None
            stack.append(_Global(f"{module}.{name}"))
        elif code == pickle.PROTO:
            file.read(1)
        elif code == pickle.STOP:
            break
        else:
            raise ValueError(f"opcode {code!r}, which PyTorch does not read")
    else:
        raise TooLargeError(TOO_MANY)
    if len(stack) != 1 or marks:
        raise ValueError("a damaged pickle")
    if _num_values(stack[0]) > MAX_VALUES:
        raise TooLargeError(TOO_MANY)
    return list(names)


def _check_stored(stored: Any, stored_bytes: Callable[[Any], int]) -> None:
    """Whether stored numbers are there: ("storage", kind, key, place, count), in older files with one thing more."""
    fields = stored.parts if isinstance(stored, _Part) else []
    kind, key, count = (fields[1], fields[2], fields[4]) if len(fields) > 4 else (None, None, None)
    if not isinstance(kind, _Global) or kind not in STORAGES or type(count) is not int:
        raise ValueError(f"stored numbers of kind {kind!r:.60}")
    if count * STORAGES[kind] > stored_bytes(key):
        raise ValueError(f"{count:,} numbers are said to be stored, which the file has not")


def _num_values(root: Any) -> int:
    """How many values there are in all, where those count again that stand in several places."""
    totals: dict[int, int] = {}
    open_parts: set[int] = set()
    path = [root]
    while path:
        part = path[-1]
        if not isinstance(part, _Part) or id(part) in totals:
            path.pop()
        elif id(part) in open_parts:  # all that is in it is counted
            total = 1 + sum(totals[id(p)] if isinstance(p, _Part) else _weight(p) for p in part.parts)
            totals[id(part)] = min(total, MAX_VALUES + 1)  # it may have millions of digits
            open_parts.remove(id(part))
            path.pop()
        else:
            open_parts.add(id(part))
            inner = [each for each in part.parts if isinstance(each, _Part)]
            if any(id(each) in open_parts for each in inner):
                raise TooLargeError("something in it holds itself")
            if len(open_parts) > MAX_DEPTH:
                raise TooLargeError(f"more than {MAX_DEPTH} containers within each other")
            path += inner
    return totals.get(id(root), 1)


def _weight(value: Any) -> int:
    return 1 + (len(value) // BYTES_PER_VALUE if isinstance(value, bytes) else 0)


def _tensors(content: Any) -> Iterator[Any]:
    """Each tensor in dicts, lists and tuples, however deep; what stands in several places comes once."""
    from torch import Tensor

    seen: set[int] = set()
    waiting = [content]
    while waiting:
        value = waiting.pop()
        if not isinstance(value, Tensor | dict | list | tuple) or id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, Tensor):
            yield value
        else:
            waiting += value.values() if isinstance(value, dict) else value
