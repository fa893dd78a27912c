"""Arrays: NumPy's without NumPy: a dtype, a shape, and bytes; and the records of `runtimes/abi.md` they travel in."""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from wasmeval.errors import InvalidArgument

MAX_DIMENSIONS = 64
"""Source: NumPy 2, NPY_MAXDIMS."""

MAX_DTYPE_BYTES = 64
MAX_ARRAY_BYTES = (1 << 31) - 1
"""Of one, its axes of no length left out: what a guest of 32 bits can say of its size."""

RECORD_BYTES = 1024
"""A record has at most so many, beside its elements and its name."""

ALIGNMENT = 16
_MOST_EMPTY_LISTS = 1 << 22
_HEAD = struct.Struct("<4I")

# What is nothing but its bytes, and alike on every machine.
_DTYPE = re.compile(
    r"(?P<order>[<>|])(?:(?P<plain>b1|[iu][1248]|f[248]|c8|c16)|(?P<kind>[SU])(?P<width>[1-9]\d{0,9})"
    r"|[Mm]8(?:\[(?:[1-9]\d{0,9})?(?:Y|M|W|D|h|m|s|ms|us|ns|ps|fs|as)\])?)",
    re.ASCII,
)
_NAMES = {
    "bool": "|b1",
    "complex64": "<c8",
    "complex128": "<c16",
    "int8": "|i1",
    "uint8": "|u1",
    **{f"int{8 * size}": f"<i{size}" for size in (2, 4, 8)},
    **{f"uint{8 * size}": f"<u{size}" for size in (2, 4, 8)},
    **{f"float{8 * size}": f"<f{size}" for size in (2, 4, 8)},
}  # fmt: skip
_FORMATS = {
    "b1": "?", "i1": "b", "i2": "h", "i4": "i", "i8": "q", "u1": "B", "u2": "H", "u4": "I", "u8": "Q", "f2": "e",
    "f4": "f", "f8": "d", "c8": "f", "c16": "d",
}  # fmt: skip
_KINDS = "bool, integers, float16 to float64, complex64 and complex128, datetime64, timedelta64, 'S' and 'U'"


def item_bytes(dtype: str) -> int:
    """How many bytes an element takes. Raises ValueError for a dtype that is not carried, or not as NumPy writes it."""
    match = _DTYPE.fullmatch(dtype)
    if match is None:
        raise ValueError("no dtype that is carried")
    size = 8
    if match["plain"]:
        size = int(match["plain"][1:])
    elif match["kind"]:
        size = int(match["width"]) * (4 if match["kind"] == "U" else 1)
    if (match["order"] == "|") != (size == 1 or match["kind"] == "S"):
        raise ValueError("no dtype that is carried")
    return size


def check(dtype: str, shape: tuple[int, ...], size: int) -> str:
    """What is wrong with an array of `size` bytes, as the name of a part and a text behind ": "; empty for nothing."""
    try:
        needed = item_bytes(dtype)
    except ValueError:
        return f"dtype: {dtype[:40]!r} is not carried, which are {_KINDS}, as NumPy's dtype.str"
    if len(shape) > MAX_DIMENSIONS:
        return f"shape: {len(shape)} axes; there are at most {MAX_DIMENSIONS}"
    if needed * math.prod(filter(None, shape)) > MAX_ARRAY_BYTES:
        return f"shape: more than {MAX_ARRAY_BYTES} bytes"
    needed *= math.prod(shape)
    return f"data: {size} bytes, and dtype and shape say {needed}" if needed != size else ""


class Array:
    """An array of NumPy's: `dtype` as its `dtype.str`, `shape`, and `data`, its elements in C order. It never changes.

    `numpy.asarray(array)` is the same without a copy, read-only. A name such as "float64" is taken for `dtype` too, in
    little-endian order. Raises InvalidArgument for a dtype that is not carried, and for other bytes than there must be.
    """

    __slots__ = ("_data", "_dtype", "_shape")

    def __init__(self, dtype: str, shape: Sequence[int], data: bytes) -> None:
        given: object = dtype
        if not isinstance(given, str):
            raise InvalidArgument("dtype", f"must be a str such as 'float64', not {type(given).__name__}")
        if not isinstance(shape, tuple | list) or not all(type(each) is int and each >= 0 for each in shape):
            raise InvalidArgument("shape", "must be a tuple of int, such as (2, 3)")
        self._set(_NAMES.get(dtype, dtype), tuple(shape), _bytes(data))

    @classmethod
    def over(cls, dtype: str, shape: tuple[int, ...], data: bytes | memoryview) -> Array:
        """The same, whose elements are not copied before somebody asks for `data`; they must not change."""
        array = cls.__new__(cls)
        array._set(dtype, shape, data)
        return array

    def _set(self, dtype: str, shape: tuple[int, ...], data: bytes | memoryview) -> None:
        if wrong := check(dtype, shape, len(data)):
            part, _, text = wrong.partition(": ")
            raise InvalidArgument(part, text)
        self._dtype, self._shape = dtype, shape
        self._data = data.toreadonly() if isinstance(data, memoryview) else data

    @property
    def dtype(self) -> str:
        """As NumPy's `dtype.str`."""
        return self._dtype

    @property
    def shape(self) -> tuple[int, ...]:
        """Elements along each axis."""
        return self._shape

    @property
    def data(self) -> bytes:
        """The elements in C order."""
        if not isinstance(self._data, bytes):
            self._data = bytes(self._data)
        return self._data

    def freeze(self) -> None:
        """Have bytes of its own from now on."""
        self._data = self.data

    @property
    def elements(self) -> bytes | memoryview:
        """The same, without a copy."""
        return self._data

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Array):
            return NotImplemented
        same = (self._dtype, self._shape) == (other._dtype, other._shape)
        return same and self._data == other._data

    def __hash__(self) -> int:
        return hash((self._dtype, self._shape, self.data))

    def __reduce__(self) -> tuple[type[Array], tuple[str, tuple[int, ...], bytes]]:
        return Array, (self._dtype, self._shape, self.data)

    @property
    def __array_interface__(self) -> dict[str, Any]:
        """NumPy's own protocol, version 3."""
        return {"version": 3, "typestr": self._dtype, "shape": self._shape, "data": self._data}

    def __len__(self) -> int:
        """Along the first axis; TypeError when there is none."""
        if not self.shape:
            raise TypeError("an array without axes has no len()")
        return self.shape[0]

    def __bool__(self) -> bool:
        """True, though it may be empty: what is no array is None."""
        return True

    def __repr__(self) -> str:
        return f"Array({self._dtype!r}, {self._shape}, {len(self._data)} bytes)"

    def tolist(self) -> Any:
        """Nested lists of bool, int, float, complex, str or bytes; of times, integers in their unit. Raises ValueError
        for more empty lists than anybody can want."""
        if 0 in self.shape and math.prod(filter(None, self.shape)) > _MOST_EMPTY_LISTS:
            raise ValueError(f"an array of shape {self.shape} is millions of empty lists")
        items: Any = list(_items(self.dtype, self.data))
        if not self.shape:
            return items[0]
        for axis in range(len(self.shape) - 1, 0, -1):
            length, count = self.shape[axis], math.prod(self.shape[:axis])
            items = [items[at * length : (at + 1) * length] for at in range(count)]
        return items


def _items(dtype: str, data: bytes) -> Iterator[Any]:
    size, kind = item_bytes(dtype), dtype[1]
    if kind in "SU":
        encoding = {"S": "", "U": "utf-32-be" if dtype[0] == ">" else "utf-32-le"}[kind]
        for at in range(0, len(data), size):
            item = data[at : at + size]
            if encoding:
                yield item.decode(encoding, "surrogatepass").rstrip("\0")
            else:
                yield item.rstrip(b"\0")
        return
    code = _FORMATS.get(dtype[1:], "q")
    count = len(data) // struct.calcsize("=" + code)
    values = struct.unpack(f"{'>' if dtype[0] == '>' else '<'}{count}{code}", data)
    yield from map(complex, values[::2], values[1::2]) if kind == "c" else values


def _bytes(data: Any) -> bytes:
    try:
        return data if isinstance(data, bytes) else memoryview(data).tobytes()
    except TypeError:
        raise InvalidArgument("data", f"must be bytes, not {type(data).__name__}") from None


# --- from other objects ---------------------------------------------------------------------------------------------


def is_array(value: object) -> bool:
    """Whether it is an array by NumPy's protocol, which its scalars have as well."""
    return isinstance(value, Array) or (_has_protocol(value) and not is_scalar(value))


def is_scalar(value: Any) -> bool:
    """Whether it is a scalar of NumPy's, or like one: unlike an array without axes it can be hashed."""
    if isinstance(value, Array) or type(value).__hash__ is None or not _has_protocol(value):
        return False
    return hasattr(value, "item") and value.__array_interface__.get("shape") == ()


def _has_protocol(value: object) -> bool:
    told = None if isinstance(value, type) else getattr(value, "__array_interface__", None)
    return (
        isinstance(told, Mapping)
        and isinstance(told.get("typestr"), str)
        and isinstance(told.get("shape"), tuple)
    )


def array_of(field: str, value: Any) -> Array:
    """The array that a value with NumPy's protocol is, over its own elements where they lie in C order: they must not
    change meanwhile. Raises InvalidArgument for `field` when it is not carried."""
    if isinstance(value, Array):
        return value
    if hasattr(value, "mask"):
        raise InvalidArgument(
            field, "a masked array is not carried; pass .filled(...), and .mask by another name"
        )
    told: Mapping[str, Any] = value.__array_interface__
    dtype, shape = str(told["typestr"]), tuple(map(int, told["shape"]))
    try:
        size = item_bytes(dtype) * math.prod(shape)
    except ValueError:
        described = str(getattr(value, "dtype", dtype))[:80]
        raise InvalidArgument(
            field,
            f"an array of {described} is not carried, which are {_KINDS}; "
            "convert it with .astype(...), or pass .tolist()",
        ) from None
    try:
        return Array.over(dtype, shape, _elements_of(value, told, size))
    except InvalidArgument as error:
        raise InvalidArgument(field, f"{error.field}: {error.description}") from None


def _elements_of(value: Any, told: Mapping[str, Any], size: int) -> bytes | memoryview:
    """In C order."""
    if not size:
        return b""
    if told.get("strides") is None:
        # Of a format that cannot be cast, or without a buffer: the other ways.
        with suppress(TypeError, ValueError, BufferError):
            return memoryview(value).cast("B")
    if hasattr(value, "tobytes"):
        return bytes(value.tobytes())
    data = told.get("data")
    if told.get("strides") is not None or not isinstance(data, tuple):
        raise InvalidArgument(
            "data", "not in C order, and without tobytes(); copy it into an array of NumPy's"
        )
    import ctypes

    return ctypes.string_at(data[0], size)


# --- records --------------------------------------------------------------------------------------------------------


def _padding(length: int) -> bytes:
    return bytes(-length % ALIGNMENT)


def record_parts(name: str, array: Array) -> tuple[bytes | memoryview, ...]:
    """An array's record, in pieces, so that its elements are not copied for it."""
    words = name.encode(), array.dtype.encode()
    size = len(array.elements)
    head = _HEAD.pack(len(words[0]), len(words[1]), len(array.shape), size)
    head += struct.pack(f"<{len(array.shape)}Q", *array.shape) + b"".join(words)
    return head + _padding(len(head)), array.elements, _padding(size)


def compose(arrays: Mapping[str, Array]) -> tuple[bytes | memoryview, ...]:
    """The records of `arrays`, one behind the other, in pieces."""
    return tuple(part for name, array in arrays.items() for part in record_parts(name, array))


class Head(NamedTuple):
    """What a record says of its elements: `size` bytes, which begin at `start`."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    size: int
    start: int


def read_head(data: bytes | memoryview, start: int = 0) -> Head:
    """Of the record that begins at `start`. Raises ValueError for what is none, or none of an array that may be."""
    if len(data) - start < _HEAD.size:
        raise ValueError("a record that is cut")
    name_length, dtype_length, dimensions, size = _HEAD.unpack_from(data, start)
    if dimensions > MAX_DIMENSIONS or dtype_length > MAX_DTYPE_BYTES:
        raise ValueError("a dtype or a shape that is too long")
    words = start + _HEAD.size + 8 * dimensions
    dtype_at = words + name_length
    elements = dtype_at + dtype_length
    elements += -(elements - start) % ALIGNMENT
    if elements > len(data):
        raise ValueError("a record that is cut")
    shape = struct.unpack_from(f"<{dimensions}Q", data, start + _HEAD.size)
    name = str(data[words:dtype_at], "utf-8")
    dtype = str(data[dtype_at : dtype_at + dtype_length], "ascii")
    if wrong := check(dtype, shape, size):
        raise ValueError(wrong)
    return Head(name, dtype, shape, size, elements)


def read_record(data: bytes | memoryview, start: int = 0) -> tuple[str, Array, int]:
    """The name and array of the record that begins at `start`, and where it ends; the array lies over `data`. Raises
    ValueError."""
    head = read_head(data, start)
    end = head.start + head.size + -head.size % ALIGNMENT
    if end > len(data):
        raise ValueError("a record that is cut")
    elements = memoryview(data)[head.start : head.start + head.size]
    return head.name, Array.over(head.dtype, head.shape, elements), end
