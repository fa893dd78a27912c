"""The frames of the guest ABI (runtimes/abi.md): requests written, replies read and distrusted."""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import NamedTuple

VERSION = 1
WASM_PAGE_BYTES = 65536
MEMORY, RESERVE, EVALUATE = b"memory", b"wasmeval_reserve", b"wasmeval_evaluate"

_REQUEST = struct.Struct("<HHIII")
_REPLY = struct.Struct("<8I")
REPLY_HEADER_BYTES = _REPLY.size

TYPE_BYTES, MESSAGE_BYTES, TRACEBACK_BYTES = 256, 8192, 32768
_NOT_JSON = 1
_HAS_CONTEXT, _IS_STEP, _RENEWS_ENTROPY = 1, 2, 4


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
    """A guest's reply, checked: lengths agree, text is text, the value is within its limit."""

    outcome: Outcome
    value: bytes
    value_is_json: bool
    type: str
    message: str
    traceback: str
    line: int
    column: int


def encode_request(
    code: bytes,
    inputs: bytes,
    value_limit: int,
    *,
    has_context: bool = False,
    is_step: bool = False,
    renews_entropy: bool = False,
) -> bytes:
    """The request frame for `code` with `inputs`, one JSON object or nothing."""
    flags = _HAS_CONTEXT * has_context | _IS_STEP * is_step | _RENEWS_ENTROPY * renews_entropy
    return _REQUEST.pack(VERSION, flags, min(value_limit, 0xFFFFFFFF), len(code), len(inputs)) + code + inputs


def largest_reply(value_limit: int) -> int:
    """The most bytes a well-formed reply can have."""
    return REPLY_HEADER_BYTES + value_limit + TYPE_BYTES + MESSAGE_BYTES + TRACEBACK_BYTES


def decode_reply(frame: bytes, value_limit: int) -> Reply:
    """The reply in `frame`. Raises MalformedReply for anything the ABI does not allow."""
    if len(frame) < REPLY_HEADER_BYTES:
        raise MalformedReply(f"{len(frame)} bytes are no reply")
    outcome, flags, value, kind, message, traceback, line, column = _REPLY.unpack_from(frame)
    if len(frame) != REPLY_HEADER_BYTES + value + kind + message + traceback:
        raise MalformedReply("the lengths do not add up")
    if outcome > Outcome.OUT_OF_MEMORY or flags & ~_NOT_JSON:
        raise MalformedReply(f"unknown outcome {outcome} or flags {flags}")
    if kind > TYPE_BYTES or message > MESSAGE_BYTES or traceback > TRACEBACK_BYTES:
        raise MalformedReply("an error text is too long")
    if (outcome == Outcome.VALUE) != bool(value) or value > value_limit:
        raise MalformedReply("a value where none may be, none where one must be, or one over the limit")
    end = REPLY_HEADER_BYTES + value
    return Reply(
        Outcome(outcome),
        frame[REPLY_HEADER_BYTES:end],
        not flags,
        frame[end : end + kind].decode("utf-8", "replace"),
        frame[end + kind : end + kind + message].decode("utf-8", "replace"),
        frame[end + kind + message :].decode("utf-8", "replace"),
        line,
        column,
    )
