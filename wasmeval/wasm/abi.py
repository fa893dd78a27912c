"""The frames of the guest ABI (runtimes/abi.md): requests written, replies read and distrusted."""

from __future__ import annotations

import struct
from collections.abc import Callable
from enum import IntEnum
from typing import NamedTuple

from wasmeval.arrays import ALIGNMENT, RECORD_BYTES, Array, read_head, read_record

VERSION = 1
WASM_PAGE_BYTES = 65536
MEMORY, RESERVE, EVALUATE = b"memory", b"wasmeval_reserve", b"wasmeval_evaluate"

_REQUEST = struct.Struct("<HHIII")
_REPLY = struct.Struct("<8I")
REPLY_HEADER_BYTES = _REPLY.size

TYPE_BYTES, MESSAGE_BYTES, TRACEBACK_BYTES = 256, 8192, 32768
_NOT_JSON, _HAS_ARRAY, _IS_ELSEWHERE = 1, 2, 4
_FLAGS = frozenset({0, 1, 2, 3, 6, 7})
"""Without an array it is nowhere."""
_ADDRESS = struct.Struct("<I")
_HAS_CONTEXT, _IS_STEP, _RENEWS_ENTROPY, _HAS_ARRAYS = 1, 2, 4, 8


class Outcome(IntEnum):
    """What a guest says of its evaluation."""

    VALUE = 0
    RAISED = 1
    VALUE_TOO_LARGE = 2
    UNSUPPORTED = 3
    OUT_OF_MEMORY = 4


class MalformedReply(Exception):
    """A guest's reply is not a frame of this ABI; the guest is not to be trusted further."""


class Reply(NamedTuple):
    """A guest's reply, checked: lengths agree, text is text, value and array are within their limit."""

    outcome: Outcome
    value: bytes
    value_is_json: bool
    type: str
    message: str
    traceback: str
    line: int
    column: int
    array: Array | None = None


def encode_request(
    code: bytes,
    inputs: bytes,
    value_limit: int,
    *,
    has_arrays: bool = False,
    has_context: bool = False,
    is_step: bool = False,
    renews_entropy: bool = False,
) -> bytes:
    """The request frame for `code` with `inputs`, one JSON object or nothing; records of arrays may follow it."""
    flags = _HAS_CONTEXT * has_context | _IS_STEP * is_step | _RENEWS_ENTROPY * renews_entropy
    padding = b""
    if has_arrays:
        flags |= _HAS_ARRAYS
        padding = bytes(-(_REQUEST.size + len(code) + len(inputs)) % ALIGNMENT)
    head = _REQUEST.pack(VERSION, flags, min(value_limit, 0xFFFFFFFF), len(code), len(inputs))
    return head + code + inputs + padding


def largest_reply(value_limit: int) -> int:
    """The most bytes a well-formed reply can have."""
    return REPLY_HEADER_BYTES + value_limit + TYPE_BYTES + MESSAGE_BYTES + TRACEBACK_BYTES + RECORD_BYTES


Read = Callable[[int, int], bytes | memoryview]
"""Gives so many bytes at an address of the guest's memory, or raises MalformedReply."""


def decode_reply(frame: bytes, value_limit: int, read: Read | None = None) -> Reply:
    """The reply in `frame`, whose array may lie over what `read` gives. Raises MalformedReply for anything the ABI does
    not allow."""
    if len(frame) < REPLY_HEADER_BYTES:
        raise MalformedReply(f"{len(frame)} bytes are no reply")
    outcome, flags, value, kind, message, traceback, line, column = _REPLY.unpack_from(frame)
    if outcome > Outcome.OUT_OF_MEMORY or flags not in _FLAGS:
        raise MalformedReply(f"unknown outcome {outcome} or flags {flags}")
    end_of_texts = REPLY_HEADER_BYTES + value + kind + message + traceback
    array, end_of_reply = None, end_of_texts
    if flags & _HAS_ARRAY:
        if outcome != Outcome.VALUE or (flags & _IS_ELSEWHERE and read is None):
            raise MalformedReply("an array where none may be")
        read = read if flags & _IS_ELSEWHERE else None
        array, end_of_reply = _decode_array(frame, end_of_texts, value_limit - value, read)
    if len(frame) != end_of_reply:
        raise MalformedReply("the lengths do not add up")
    if kind > TYPE_BYTES or message > MESSAGE_BYTES or traceback > TRACEBACK_BYTES:
        raise MalformedReply("an error text is too long")
    if (outcome == Outcome.VALUE) != bool(value) or value > value_limit:
        raise MalformedReply("a value where none may be, none where one must be, or one over the limit")
    end = REPLY_HEADER_BYTES + value
    return Reply(
        Outcome(outcome),
        frame[REPLY_HEADER_BYTES:end],
        not flags & _NOT_JSON,
        frame[end : end + kind].decode("utf-8", "replace"),
        frame[end + kind : end + kind + message].decode("utf-8", "replace"),
        frame[end + kind + message : end_of_texts].decode("utf-8", "replace"),
        line,
        column,
        array,
    )


def _decode_array(frame: bytes, start: int, most: int, read: Read | None) -> tuple[Array, int]:
    """The array whose record begins at `start`, and where that ends; `read` is for elements that are elsewhere."""
    try:
        head = read_head(frame, start)
        if head.name or head.size > most:
            raise MalformedReply("an array with a name, or over the limit")
        if read is None:
            _, array, end = read_record(frame, start)
            return array, end
        if len(frame) < head.start + _ADDRESS.size:
            raise MalformedReply("an array without an address")
        data = read(_ADDRESS.unpack_from(frame, head.start)[0], head.size)
        return Array.over(head.dtype, head.shape, data), head.start + _ADDRESS.size
    except ValueError as error:
        raise MalformedReply(f"an array that is none: {error}") from None
