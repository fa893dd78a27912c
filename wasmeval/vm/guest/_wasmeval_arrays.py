"""NumPy's arrays and scalars by the guest ABI, where NumPy is installed. The image: `runtimes/python/arrays.c`."""

from __future__ import annotations

import importlib
import struct
import sys
from typing import Any

MOST_ELEMENTS = 10_000
"""Of all arrays of a value, as nested lists."""

ALIGNMENT = 16
_HEAD = struct.Struct("<4I")
_WIDTHS = {"f": 8, "c": 16}


def give(names: dict[str, Any], records: memoryview) -> None:
    """Puts the arrays of a request into `names`, as copies that may be changed."""
    try:
        numpy: Any = importlib.import_module("numpy")
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            "an input is an array, and this VM's image has no NumPy", name="numpy"
        ) from None
    at = 0
    while at < len(records):
        name_length, dtype_length, dimensions, size = _HEAD.unpack_from(records, at)
        shape = struct.unpack_from(f"<{dimensions}Q", records, at + _HEAD.size)
        words = at + _HEAD.size + 8 * dimensions
        name = str(records[words : words + name_length], "utf-8")
        end = words + name_length + dtype_length
        dtype = numpy.dtype(str(records[words + name_length : end], "ascii"))
        start = end + -(end - at) % ALIGNMENT
        array = numpy.empty(shape, dtype)
        array.reshape(-1).view("u1")[:] = numpy.frombuffer(records, "u1", size, start)
        names[name] = array
        at = start + size + -size % ALIGNMENT


def plain(value: Any, room: int) -> tuple[Any, int] | None:
    """What JSON has for a scalar, or the lists of an array of no more elements than `room`; and what they take of it.
    None for anything else."""
    numpy = _numpy()
    if numpy is None:
        return None
    if _is_array(numpy, value):
        needed = _breadth(value.shape)
        return None if value.dtype.kind in "mM" or needed > room else (value.tolist(), needed)
    if not isinstance(value, numpy.generic) or isinstance(value, numpy.timedelta64):
        return None
    if isinstance(value, numpy.bool_):
        return bool(value), 0
    if isinstance(value, numpy.integer):
        return int(value), 0
    return (float(value), 0) if isinstance(value, numpy.floating) else None


def record(value: Any) -> tuple[bytes, bytes] | None:
    """The record of an array up to its elements, and these; None for what has none."""
    numpy = _numpy()
    if numpy is None or not _is_array(numpy, value):
        return None
    dtype = value.dtype
    if dtype.kind not in "biufcmMSU" or not 0 < dtype.itemsize <= _WIDTHS.get(dtype.kind, dtype.itemsize):
        return None
    text = dtype.str.encode()
    data = value.tobytes()
    head = (
        _HEAD.pack(0, len(text), value.ndim, len(data)) + struct.pack(f"<{value.ndim}Q", *value.shape) + text
    )
    return head + bytes(-len(head) % ALIGNMENT), data


def _numpy() -> Any:
    """NumPy, once the snippet has it; None for another module of its name."""
    numpy = sys.modules.get("numpy")
    masked = getattr(getattr(numpy, "ma", None), "MaskedArray", None)
    types = getattr(numpy, "ndarray", None), getattr(numpy, "generic", None), masked
    return numpy if all(isinstance(each, type) for each in types) else None


def _is_array(numpy: Any, value: Any) -> bool:
    return isinstance(value, numpy.ndarray) and not isinstance(value, numpy.ma.MaskedArray)


def _breadth(shape: tuple[int, ...]) -> int:
    """How many objects nested lists of this shape have at most along one of their levels."""
    most = product = 1
    for length in shape:
        product *= length
        most = max(most, product)
    return most
