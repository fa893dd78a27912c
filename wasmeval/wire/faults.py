"""Faults: a message is parsed, or said precisely what is wrong with it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError, Message

from wasmeval.errors import InvalidArgument

_M = TypeVar("_M", bound=Message)


def parse(kind: type[_M], data: bytes) -> _M:
    """Raises InvalidArgument for what is no such message, and for fields that this version does not know."""
    try:
        message = kind.FromString(data)
    except DecodeError:
        raise _malformed(kind, data) from None
    # Unknown fields at any depth are part of the size. (As an UnknownFieldSet each of them would become an object.)
    size = message.ByteSize()
    message.DiscardUnknownFields()
    if message.ByteSize() != size:
        raise _unknown(kind, data)
    return message


def too_many(kind: type[Message], data: bytes, error: InvalidArgument) -> InvalidArgument:
    """What to say of a message with more fields than it may have: `error`, unless some of them are unknown."""
    return _unknown(kind, data) if _find(kind.DESCRIPTOR, data, _is_unknown) else error


def _unknown(kind: type[Message], data: bytes) -> InvalidArgument:
    path, name = _find(kind.DESCRIPTOR, data, _is_unknown) or ("request", kind.DESCRIPTOR.full_name)
    what = "such field" if path == "request" else f"field {path.rpartition('.')[2]} of this type"
    return InvalidArgument(path, f"{name} has no {what} in this version; leave it out or update the service")


def _malformed(kind: type[Message], data: bytes) -> InvalidArgument:
    found = _find(kind.DESCRIPTOR, data, _is_garbled)
    if found:
        return InvalidArgument(found[0], "not valid UTF-8; send text in UTF-8")
    return InvalidArgument("request", f"not a {kind.DESCRIPTOR.full_name} message")


# What is wrong in a message that was refused, found by hand: protobuf only says that something is.

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_MOST_FIELDS = 10_000
"""Looked at for the path to what is wrong; a message with more before it gets a vaguer answer."""

# A field's wire type and content, and what its descriptor says, None when there is none of its number.
_Fault = Callable[[int, memoryview, Any], bool]


def _find(descriptor: Any, data: bytes, fault: _Fault) -> tuple[str, str] | None:
    """The path of the first field with `fault`, and the name of its message."""
    return _find_in(descriptor, memoryview(data), "", fault, iter(range(_MOST_FIELDS)))


def _find_in(
    descriptor: Any, data: memoryview, prefix: str, fault: _Fault, left: Iterator[int]
) -> tuple[str, str] | None:
    seen: dict[str, int] = {}
    for number, wire_type, content in fields_of(data):
        if next(left, None) is None:
            return None
        field = descriptor.fields_by_number.get(number)
        if fault(wire_type, content, field):
            return f"{prefix}{field.name if field and fault is _is_garbled else number}", descriptor.full_name
        if field is None or field.type != FieldDescriptor.TYPE_MESSAGE or wire_type != _BYTES:
            continue
        path = f"{prefix}{field.name}"
        index = seen[path] = seen.get(path, -1) + 1
        is_map = field.message_type.GetOptions().map_entry
        if is_plain_map(field) and fault is _is_unknown:
            # Parsing drops them.
            continue
        inside = f"{path}[{index}]." if field.is_repeated else f"{path}."
        found = _find_in(field.message_type, content, inside, fault, left)
        if found:
            return (path, descriptor.full_name) if is_map else found
    return None


def is_plain_map(field: Any) -> bool:
    """Whether a field of messages is a map whose values are none themselves."""
    entry = field.message_type
    if not entry.GetOptions().map_entry:
        return False
    return bool(entry.fields_by_name["value"].type != FieldDescriptor.TYPE_MESSAGE)


def is_packed(field: Any, wire_type: int) -> bool:
    """Whether the numbers of a field come as bytes, one behind the other."""
    return bool(field.is_repeated and field.type == FieldDescriptor.TYPE_UINT64 and wire_type == _BYTES)


def _is_unknown(wire_type: int, _: memoryview, field: Any) -> bool:
    if field is None:
        return True
    if is_packed(field, wire_type):
        return False
    if field.type in (FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_BYTES, FieldDescriptor.TYPE_MESSAGE):
        return wire_type != _BYTES
    return wire_type != (_FIXED64 if field.type == FieldDescriptor.TYPE_DOUBLE else _VARINT)


def _is_garbled(wire_type: int, content: memoryview, field: Any) -> bool:
    is_text = field is not None and field.type == FieldDescriptor.TYPE_STRING
    return is_text and wire_type == _BYTES and not is_unicode(bytes(content))


def fields_of(data: memoryview) -> Iterator[tuple[int, int, memoryview]]:
    """Number, wire type and content of each field in turn, as far as they are well-formed.

    Source: protobuf.dev/programming-guides/encoding. Groups have no content here: what is in them follows.
    """
    position, end = 0, len(data)
    while position < end:
        tag, position = read_varint(data, position)
        wire_type = tag & 7
        start = position
        if wire_type == _VARINT:
            _, position = read_varint(data, position)
        elif wire_type == _BYTES:
            length, start = read_varint(data, position)
            position = start + length
        elif wire_type in (_FIXED64, _FIXED32):
            position += 8 if wire_type == _FIXED64 else 4
        if position > end:
            return
        yield tag >> 3, wire_type, data[start:position]


def read_varint(data: memoryview, position: int) -> tuple[int, int]:
    """The number at `position` and where it ends; beyond the data when it does not end."""
    if position < len(data) and (only := data[position]) < 0x80:
        return only, position + 1
    value = shift = 0
    for byte in data[position : position + 10]:
        value |= (byte & 0x7F) << shift
        shift += 7
        position += 1
        if byte < 0x80:
            return value, position
    return value, len(data) + 1


def is_unicode(text: str | bytes) -> bool:
    """Whether `text` can be written as UTF-8, or is UTF-8."""
    try:
        text.encode() if isinstance(text, str) else text.decode()
    except UnicodeError:
        return False
    return True
