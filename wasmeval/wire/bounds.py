"""Bounds: how often a field may stand in a request, counted before it is parsed, when it is two bytes and no object."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from wasmeval.arrays import MAX_DIMENSIONS
from wasmeval.errors import InvalidArgument
from wasmeval.inputs import MAX_INPUTS, TOO_MANY_INPUTS
from wasmeval.limits import MAX_BATCH
from wasmeval.wire.faults import fields_of, is_packed, is_plain_map, too_many

_SMALL_BYTES = 1 << 16
"""A message up to this size holds too few fields to be a burden."""

MOST_FIELDS = 300_000
"""Of one message, at all depths: counting as many takes about a third of a second, while others wait."""

_USUAL = 64
_BOUNDS = {
    "EvaluateBatchRequest.evaluations": MAX_BATCH,
    "EvaluateRequest.inputs": MAX_INPUTS,
    "EvaluateRequest.arrays": MAX_INPUTS,
    "EvaluateRequest.files": 65_536,
    "EvaluateRequest.command": 4096,
    "Start.tools": 128,
    "Tool.parameters": 256,
    # Bytes, where its numbers come packed: at most ten each.
    "Array.shape": 10 * MAX_DIMENSIONS,
}
"""By message and field; any other may stand `_USUAL` times, a singular one too: the last one counts."""


def check_bounds(kind: type[Message], data: bytes) -> None:
    """Raises InvalidArgument for a message in which a field stands more often than it may."""
    if len(data) > _SMALL_BYTES:
        try:
            _check(kind.DESCRIPTOR, memoryview(data), "", iter(range(MOST_FIELDS)))
        except InvalidArgument as error:
            raise too_many(kind, data, error) from None


def _check(descriptor: Any, data: memoryview, prefix: str, left: Iterator[int]) -> None:
    counts: dict[int, int] = {}
    for number, wire_type, content in fields_of(data):
        if next(left, None) is None:
            raise InvalidArgument("request", f"more than {MOST_FIELDS} fields and entries; send it in parts")
        field = descriptor.fields_by_number.get(number)
        if field is None:
            # Parsing says so.
            return
        count = counts[number] = counts.get(number, 0) + (len(content) if is_packed(field, wire_type) else 1)
        most = _BOUNDS.get(f"{descriptor.name}.{field.name}", _USUAL)
        if count > most:
            raise InvalidArgument(f"{prefix}{field.name}", _too_many(field.name, most))
        if field.type == FieldDescriptor.TYPE_MESSAGE and not is_plain_map(field):
            inside = f"{prefix}{field.name}[{count - 1}]." if field.is_repeated else f"{prefix}{field.name}."
            _check(field.message_type, content, inside, left)


def _too_many(name: str, most: int) -> str:
    if name in ("inputs", "arrays"):
        return TOO_MANY_INPUTS
    if name == "evaluations":
        return f"more than {most} in one batch; send between 1 and {most}"
    return f"more than {most}; send fewer"
