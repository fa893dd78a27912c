"""Arrays in messages without a copy for each layer: elements are taken out of a large message's bytes, and put behind a
small one's, by hand. What is read so is what protobuf would read; anything unusual is left to it.

Source: protobuf.dev/programming-guides/encoding.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from wasmeval.arrays import MAX_DIMENSIONS, Array
from wasmeval.errors import InvalidArgument
from wasmeval.inputs import shorten
from wasmeval.v1 import wasmeval_pb2 as pb
from wasmeval.wire.faults import read_varint

_LARGE_BYTES = 1 << 16
_MOST_FIELDS = 8192
"""Of one message. What has more is no matter of its arrays, and bounded before it is parsed."""
_VARINT, _BYTES = 0, 2
_TAG_BYTES = 5
_FIXED = {1: 8, 5: 4}
_ARRAYS = pb.EvaluateRequest.DESCRIPTOR.fields_by_name["arrays"].number
_RESULT = pb.EvaluateResponse.DESCRIPTOR.fields_by_name["result"].number
_ARRAY = pb.Result.DESCRIPTOR.fields_by_name["array"].number
_DTYPE, _SHAPE, _DATA = (
    pb.Array.DESCRIPTOR.fields_by_name[name].number for name in ("dtype", "shape", "data")
)
_KEY, _VALUE = 1, 2

Parts = list[bytes | memoryview]


def decode_array(field: str, message: pb.Array) -> Array:
    """Raises InvalidArgument for what is no array that is carried, whose field begins with `field`."""
    return _array_of(field, message.dtype, tuple(message.shape), message.data)


def write_array(message: pb.Array, array: Array) -> None:
    """Fills `message`."""
    message.dtype = array.dtype
    message.shape.extend(array.shape)
    message.data = array.data


def request_parts(arrays: Mapping[str, Array]) -> Parts:
    """What goes behind an EvaluateRequest that has none of them. Raises UnicodeError for a name that is not Unicode."""
    parts: Parts = []
    for name, array in arrays.items():
        value = _array_parts(array)
        key = _head(_KEY, len(name.encode())) + name.encode() + _head(_VALUE, _size(value))
        parts += _head(_ARRAYS, len(key) + _size(value)) + key, *value
    return parts


def reply_parts(rest: bytes, array: Array) -> Parts:
    """An EvaluateResponse whose Result is `rest` with the array."""
    value = _array_parts(array)
    inside = _head(_ARRAY, _size(value))
    return [_head(_RESULT, len(rest) + len(inside) + _size(value)), rest, inside, *value]


def split_request(data: bytes) -> tuple[bytes, dict[str, Array]]:
    """An EvaluateRequest without its arrays, and these, which lie over `data`; all of it and none where that takes
    protobuf. Raises InvalidArgument for an array that is none that is carried."""
    arrays: dict[str, Array] = {}
    rest: Parts = []
    try:
        for field in _fields(_large(data)):
            if field.number != _ARRAYS:
                rest.append(field.whole)
                continue
            entry = _only(field, _KEY, _VALUE)
            name = _text(entry[_KEY])
            if name in arrays:
                return data, {}
            arrays[name] = _array_of(f"arrays.{shorten(name)}", *_told(entry[_VALUE]))
    except _Unusual:
        return data, {}
    return (b"".join(rest), arrays) if arrays else (data, {})


def split_reply(data: bytes) -> tuple[bytes, Array] | None:
    """The Result of an EvaluateResponse without its array, and this, which lies over `data`; None where that takes
    protobuf. Raises InvalidArgument for an array that is none that is carried."""
    told = None
    rest: Parts = []
    try:
        (response,) = _fields(_large(data))
        for field in _fields(_content(response, _RESULT)):
            if field.number != _ARRAY:
                rest.append(field.whole)
            elif told is None:
                told = _told(field)
            else:
                return None
    except (_Unusual, ValueError):
        return None
    return (b"".join(rest), _array_of("array", *told)) if told else None


# --- inside ---------------------------------------------------------------------------------------------------------


def _array_of(field: str, dtype: str, shape: tuple[int, ...], data: bytes | memoryview) -> Array:
    try:
        return Array.over(dtype, shape, data)
    except InvalidArgument as error:
        raise InvalidArgument(f"{field}.{error.field}", error.description) from None


def _array_parts(array: Array) -> Parts:
    dtype, shape = array.dtype.encode(), b"".join(map(_varint, array.shape))
    head = _head(_DTYPE, len(dtype)) + dtype
    if shape:
        head += _head(_SHAPE, len(shape)) + shape
    return [head + _head(_DATA, len(array.elements)), array.elements]


class _Unusual(Exception):
    """Something that is left to protobuf, which may yet refuse it."""


class _Field(NamedTuple):
    """A field's number, wire type and content, and all of its bytes."""

    number: int
    wire_type: int
    content: memoryview
    whole: memoryview


def _large(data: bytes) -> memoryview:
    if len(data) < _LARGE_BYTES:
        raise _Unusual
    return memoryview(data)


def _fields(message: memoryview) -> Iterator[_Field]:
    """All of a message's, of which none is a group, and not too many."""
    position, end, left = 0, len(message), _MOST_FIELDS
    while position < end:
        before, left = position, left - 1
        tag, position = _number(message, position)
        if not left or position - before > _TAG_BYTES:
            raise _Unusual
        wire_type = tag & 7
        start = position
        if wire_type == _BYTES:
            length, start = _number(message, position)
            position = start + length
        elif wire_type == _VARINT:
            _, position = _number(message, position)
        else:
            position += _FIXED.get(wire_type, end)
        if position > end:
            raise _Unusual
        yield _Field(tag >> 3, wire_type, message[start:position], message[before:position])


def _number(message: memoryview, position: int) -> tuple[int, int]:
    value, end = read_varint(message, position)
    if end > len(message) or value >> 64:
        raise _Unusual
    return value, end


def _content(field: _Field, number: int) -> memoryview:
    if field.number != number or field.wire_type != _BYTES:
        raise _Unusual
    return field.content


def _only(entry: _Field, *numbers: int) -> dict[int, _Field]:
    """The fields of an entry that has these, each once, and nothing else."""
    fields = list(_fields(_content(entry, entry.number)))
    found = {field.number: field for field in fields}
    if len(fields) != len(numbers) or set(found) != set(numbers):
        raise _Unusual
    return found


def _text(field: _Field) -> str:
    try:
        return str(_content(field, field.number), "utf-8")
    except UnicodeDecodeError:
        raise _Unusual from None


def _told(message: _Field) -> tuple[str, tuple[int, ...], memoryview]:
    """What an Array says."""
    dtype, data = "", memoryview(b"")
    shape: list[int] = []
    for field in _fields(_content(message, message.number)):
        if field.number == _DTYPE:
            dtype = _text(field)
        elif field.number == _DATA:
            data = _content(field, _DATA)
        else:
            extents, at = _content(field, _SHAPE), 0
            while at < len(extents):
                extent, at = _number(extents, at)
                shape.append(extent)
                if len(shape) > MAX_DIMENSIONS:
                    raise _Unusual
    return dtype, tuple(shape), data


def _size(parts: Parts) -> int:
    return sum(map(len, parts))


def _head(number: int, length: int) -> bytes:
    return _varint(number << 3 | _BYTES) + _varint(length)


def _varint(value: int) -> bytes:
    coded = bytearray()
    while value > 127:
        coded.append(value & 127 | 128)
        value >>= 7
    coded.append(value)
    return bytes(coded)
