"""Float vectors out of a pickle, without unpickling: its opcodes are read as data, and nothing is imported or called.

A pickle is a program for a small stack machine whose GLOBAL opcode imports any name and whose REDUCE opcode
calls it. This machine knows the few names that NumPy's arrays need, as names only, and refuses every other.
"""

from __future__ import annotations

import math
import pickletools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spikerl_deploy.errors import SpikerlError

BYTES_MAX = 1 << 20  # statistics of 65,536 observations in float64; a larger file holds something else
HINT = "give the [mean, var] list of float arrays that training wrote, or --unnormalised without it"
DIMENSIONS_MAX = 8
TEXT_MAX = 100  # characters of a name, a dtype or a byte order
_ITEM_BYTES = {"f4": 4, "f8": 8}
_RECONSTRUCT, _SCALAR = "numpy.core.multiarray._reconstruct", "numpy.core.multiarray.scalar"
_FROM_BUFFER, _NDARRAY, _DTYPE = "numpy.core.numeric._frombuffer", "numpy.ndarray", "numpy.dtype"
_ENCODE = "_codecs.encode"  # how protocols 0 to 2 spell bytes
_NAMES = {_RECONSTRUCT, _SCALAR, _FROM_BUFFER, _NDARRAY, _DTYPE, _ENCODE}
_VALUES = {
    *("NONE", "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "FLOAT", "BINFLOAT"),
    *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8", "STRING", "BINSTRING", "SHORT_BINSTRING"),
    *("UNICODE", "BINUNICODE", "SHORT_BINUNICODE"),
}
_CONSTANTS = {"NEWTRUE": True, "NEWFALSE": False}
_TUPLES = {"EMPTY_TUPLE": 0, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_PUTS, _GETS = {"PUT", "BINPUT", "LONG_BINPUT"}, {"GET", "BINGET", "LONG_BINGET"}
_BROKEN = (ValueError, IndexError, KeyError, TypeError, AttributeError, OverflowError, MemoryError)


class _Refused(Exception):
    """The pickle holds something that no list of arrays needs."""


@dataclass(frozen=True)
class _Name:
    """A name that the pickle would have imported."""

    text: str


@dataclass
class _Dtype:
    code: str
    order: str = "<"


@dataclass
class _Array:
    """What the pickle says of an array; `raw` is bytes, or text whose characters are the bytes."""

    dtype: _Dtype | None = None
    shape: tuple[int, ...] = ()
    raw: Any = b""


def read_vectors(path: Path) -> list[NDArray[np.float64]]:
    """The two one-dimensional float arrays, or lists of floats, of which a pickled list or tuple consists.

    Two, since a pickle may name one object any number of times. A vector of them is no larger than the file: an
    array's bytes lie in it, and each number of a list took an opcode and its argument.

    Raises:
        SpikerlError: the file is missing, too large, truncated, or holds anything else; nothing in it has run.
    """
    try:
        with path.open("rb") as stream:
            data = stream.read(BYTES_MAX + 1)
    except OSError as error:
        raise SpikerlError(f"cannot read '{path}': {error.strerror}", HINT) from error
    if len(data) > BYTES_MAX:
        raise SpikerlError(f"'{path}' is larger than {BYTES_MAX} bytes, too large for statistics", HINT)
    try:
        root = _run(data)
        if not isinstance(root, list | tuple):
            raise _Refused(f"holds a {_kind(root)}, a list of arrays was expected")
        if len(root) != 2:
            raise _Refused(f"holds {len(root)} arrays, mean and variance were expected")
        return [_vector(item) for item in root]
    except _Refused as error:
        raise SpikerlError(f"'{path}' {error}", HINT) from error
    except _BROKEN as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise SpikerlError(f"'{path}' is truncated or no pickle of arrays: {reason[:200]}", HINT) from error


def _run(data: bytes) -> Any:
    """The value that the opcodes build."""
    stack: list[Any] = []
    marks: list[int] = []
    memo: dict[int, Any] = {}

    def since_mark() -> list[Any]:
        start = marks.pop()
        items = stack[start:]
        del stack[start:]
        return items

    argument: Any
    for opcode, argument, _ in pickletools.genops(data):
        name = opcode.name
        if name in _VALUES:
            stack.append(argument)
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name in _TUPLES:
            size = _TUPLES[name]
            items = [stack.pop() for _ in range(size)]
            stack.append(tuple(reversed(items)))
        elif name in _PUTS:
            memo[argument] = stack[-1]
        elif name in _GETS:
            stack.append(memo[argument])
        elif name == "MEMOIZE":
            memo[len(memo)] = stack[-1]
        elif name == "MARK":
            marks.append(len(stack))
        elif name == "TUPLE":
            stack.append(tuple(since_mark()))
        elif name in ("LIST", "EMPTY_LIST"):
            stack.append(since_mark() if name == "LIST" else [])
        elif name == "APPEND":
            item = stack.pop()
            stack[-1].append(item)
        elif name == "APPENDS":
            items = since_mark()
            stack[-1].extend(items)
        elif name == "GLOBAL":
            stack.append(_name(*argument.split(" ", 1)))
        elif name == "STACK_GLOBAL":
            attribute, module = stack.pop(), stack.pop()
            stack.append(_name(module, attribute))
        elif name == "REDUCE":
            arguments, function = stack.pop(), stack.pop()
            stack.append(_reduce(function, arguments))
        elif name == "BUILD":
            state = stack.pop()
            _build(stack[-1], state)
        elif name == "STOP":
            break
        elif name not in ("PROTO", "FRAME"):
            raise _Refused(f"uses the pickle opcode {name}, which no array needs")
    (root,) = stack
    return root


def _name(module: Any, attribute: Any) -> _Name:
    text = f"{_text(module)}.{_text(attribute)}".replace("numpy._core.", "numpy.core.")  # NumPy 2 moved them
    if text not in _NAMES:
        raise _Refused(f"refers to {text[:80]!r}, which no array needs; it was not run")
    return _Name(text)


def _reduce(function: Any, arguments: tuple[Any, ...]) -> Any:
    """What a call of one of the known names would have given."""
    if not isinstance(function, _Name):
        raise _Refused(f"calls a {_kind(function)}")
    if function.text == _RECONSTRUCT:
        return _Array()
    if function.text == _DTYPE:
        return _Dtype(_text(arguments[0]))
    if function.text == _SCALAR:
        return _Array(arguments[0], (), arguments[1])
    if function.text == _FROM_BUFFER:
        return _Array(arguments[1], arguments[2], arguments[0])
    if function.text == _ENCODE and arguments[1] == "latin1":
        return arguments[0]  # stays text until an array wants its bytes: copies of copies would fill the memory
    raise _Refused(f"calls '{function.text}' with arguments that no array needs")


def _build(target: Any, state: Any) -> None:
    """The state of an array (version, shape, dtype, Fortran order, bytes) or of a dtype (version, byte order, ...)."""
    if isinstance(target, _Array):
        _, target.shape, target.dtype, _, target.raw = state
    elif isinstance(target, _Dtype):
        target.order = _text(state[1])
    else:
        raise _Refused(f"sets the state of a {_kind(target)}")


def _vector(item: Any) -> NDArray[np.float64]:
    if isinstance(item, list | tuple):
        # shapes first: converting an array copies its text, and the list may hold one array many times
        wrong = [n for n in item if type(n) not in (int, float) and not (isinstance(n, _Array) and n.shape == ())]
        if wrong:
            raise _Refused(f"holds a list with a {_kind(wrong[0])} in it, numbers were expected")
        return np.array([_array(n) if isinstance(n, _Array) else n for n in item], dtype=np.float64)
    if not isinstance(item, _Array):
        raise _Refused(f"holds a {_kind(item)}, a float array was expected")
    array = _array(item)
    if array.ndim != 1:
        raise _Refused(f"holds an array of shape {array.shape}, a vector was expected")
    with np.errstate(invalid="ignore"):  # a signalling NaN; the caller refuses what is not finite
        return array.astype(np.float64)


def _array(item: _Array) -> NDArray[Any]:
    dtype = item.dtype
    itemsize = _ITEM_BYTES.get(dtype.code) if isinstance(dtype, _Dtype) else None
    if dtype is None or itemsize is None or dtype.order not in ("<", ">"):
        code = dtype.code if isinstance(dtype, _Dtype) else ""
        raise _Refused(f"holds an array of dtype {code[:20]!r}, float32 or float64 was expected")
    shape, raw = item.shape, item.raw
    small = isinstance(shape, tuple) and len(shape) <= DIMENSIONS_MAX and all(type(n) is int for n in shape)
    if not isinstance(raw, bytes | bytearray | str) or not small or len(raw) != math.prod(shape) * itemsize:
        raise _Refused("holds an array whose data is not of the size that it states")
    data = raw.encode("latin1") if isinstance(raw, str) else raw
    return np.frombuffer(data, dtype=dtype.order + dtype.code).reshape(shape)


def _text(value: Any) -> str:
    if not isinstance(value, str | bytes):
        raise _Refused(f"holds a {_kind(value)} where a name was expected")
    if len(value) > TEXT_MAX:  # decoding copies it, and the pickle may name it many times
        raise _Refused(f"holds a name of {len(value)} characters")
    return value.decode("ascii") if isinstance(value, bytes) else value


def _kind(value: Any) -> str:
    names = {_Name: "function", _Dtype: "dtype", _Array: "array"}
    return names.get(type(value), type(value).__name__)
