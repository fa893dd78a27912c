"""Frames between the pool and a worker: a length, a kind, a body. Decoding validates everything.

The pool treats a worker as taken over by its guest: a frame that is not exactly what it may be raises
MalformedFrame, and the worker is killed. In the other direction the same code serves as a check on ourselves.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterator
from enum import IntEnum
from typing import Any, cast

from wasmeval.arrays import RECORD_BYTES, Array, read_record, record_parts
from wasmeval.heap import unfilled
from wasmeval.limits import Usage
from wasmeval.model import TOO_LONG, ErrorInfo, Job, Result, Status, why_unrepeatable

LARGEST_FRAME = 256 << 20
"""No frame is larger; the ceilings of limits keep real ones far below."""


class Kind(IntEnum):
    """What a frame is, and who sends it."""

    CONFIGURE = 1
    """To the worker, once: what to load."""
    EVALUATE = 2
    CANCEL = 3
    FILE = 4
    """To the worker, before EVALUATE: a piece of a file of that evaluation."""
    ANSWER = 5
    """To the worker: how a call ended."""
    INPUT = 6
    """To the worker: standard input."""
    OPEN_SESSION = 7
    """To the worker: a session begins, or goes on with the state that came before."""
    STATE = 8
    """To the worker, before OPEN_SESSION: a piece of that session's state."""
    FORK_SESSION = 9
    TELL_STATE = 10
    CLOSE_SESSION = 11
    MARK_SESSION = 12
    """To the worker: what the session is now may be wanted again."""
    REVERT_SESSION = 13
    """To the worker: a session begins with what another one was when it was last marked."""
    READY = 16
    """From the worker, once."""
    FAILED = 17
    RESULT = 18
    CALL = 19
    """From the worker: an evaluation asks its parent for something."""
    OUTPUT = 20
    """From the worker: what an evaluation printed."""
    OUTPUT_FILE = 21
    """From the worker, before RESULT: a piece of a file that was asked for."""
    SESSION_STATE = 22
    """From the worker: a piece of a session's state, or its end."""
    TRANSCRIPT = 23
    """From the worker, before RESULT: a piece of a deterministic evaluation's transcript."""


class MalformedFrame(Exception):
    """These bytes are no frame; whoever sent them is not to be trusted further."""


_HEADER = struct.Struct("<IB")
_NUMBER = struct.Struct("<Q")
# number, status, flags, line, column, fuel, wall, peak memory, tool calls, virtual nanoseconds, and the lengths of
# value, stdout, stderr, type, message, traceback, array
_RESULT = struct.Struct("<QBBIIQdQIQ7I")
_STATUSES = tuple(Status)
_STATUS_INDEX = {status: index for index, status in enumerate(_STATUSES)}
_VALUE_IS_JSON, _STDOUT_TRUNCATED, _STDERR_TRUNCATED, _HAS_ERROR, _ROLLED_BACK = 1, 2, 4, 8, 16
_UNREPEATABLE, _TOO_LONG = 32, 64
_ALL_FLAGS = 127
_MOST_ERROR_BYTES = 3 * 65536
_LARGE_BYTES = 1 << 16
_UNCOPIED = frozenset({Kind.EVALUATE, Kind.RESULT, Kind.STATE, Kind.SESSION_STATE})
_RECEIVED_IN_PLACE = range(1 << 16, 1 << 21)
"""Of so many bytes. For a larger one memory is taken as it comes, not as it is announced."""


def encode(kind: Kind, body: bytes = b"") -> bytes:
    """A frame of `kind` with `body`."""
    return _HEADER.pack(len(body), kind) + body


def in_pieces(*parts: bytes | memoryview) -> Iterator[bytes | memoryview]:
    """What is small of `parts` joined, and what is large by itself, so that it is not copied."""
    small: list[bytes | memoryview] = []
    for part in parts:
        if len(part) < _LARGE_BYTES:
            small.append(part)
            continue
        yield b"".join(small)
        yield part
        small.clear()
    if any(small):
        yield b"".join(small)


def encode_head(kind: Kind, size: int) -> bytes:
    """What goes before the body of a frame, when that has `size` bytes and is sent by itself."""
    return _HEADER.pack(size, kind)


class Decoder:
    """Cuts a stream of bytes into frames. Holds at most one unfinished frame."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._kind = 0
        self._body = bytearray()
        self._rest = memoryview(b"")

    @property
    def room(self) -> memoryview:
        """Where the rest of a large frame belongs: what is received right into it need not be fed, only `filled`. Empty
        when no such frame is under way."""
        return self._rest

    def filled(self, size: int) -> Iterator[tuple[int, bytes]]:
        """The (kind, body) of the frame under way, if the `size` bytes that were written into `room` complete it."""
        self._rest = self._rest[size:]
        if not self._rest and self._body:
            body, self._body = self._body, bytearray()
            # What may be large, and is taken apart or only ever passed on, is not copied: it reads as bytes do.
            yield self._kind, cast(bytes, memoryview(body)) if self._kind in _UNCOPIED else bytes(body)

    def feed(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """The (kind, body) of every frame that `data` completes. Raises MalformedFrame for one that is too large."""
        buffer = self._buffer
        if self._rest:
            missing = data[: len(self._rest)]
            self._rest[: len(missing)] = missing
            buffer += data[len(missing) :]
            data = b""
            yield from self.filled(len(missing))
        if buffer:
            buffer += data
        source = buffer or data
        position = 0
        try:
            while len(source) - position >= _HEADER.size:
                length, kind = _HEADER.unpack_from(source, position)
                if length > LARGEST_FRAME:
                    raise MalformedFrame(f"a frame of {length} bytes")
                start = position + _HEADER.size
                end = start + length
                if len(source) < end:
                    if length in _RECEIVED_IN_PLACE:
                        position = len(source)
                        self._begin(kind, length, source[start:])
                    break
                # Before whoever takes it may be interrupted: no frame comes twice.
                position = end
                yield kind, source[start:end] if source is data else bytes(memoryview(source)[start:end])
        finally:
            if source is data:
                buffer += data[position:]
            else:
                del buffer[:position]

    def _begin(self, kind: int, length: int, data: bytes | bytearray) -> None:
        # Nobody sees it before all of it has come.
        self._kind, self._body = kind, unfilled(length)
        self._body[: len(data)] = data
        self._rest = memoryview(self._body)[len(data) :]


def encode_number(kind: Kind, number: int) -> bytes:
    """A frame whose body is the number of an evaluation."""
    return encode(kind, _NUMBER.pack(number))


def decode_number(body: bytes) -> int:
    """The number in such a body."""
    if len(body) != _NUMBER.size:
        raise MalformedFrame("not a number")
    return int(_NUMBER.unpack(body)[0])


def encode_result(number: int, result: Result) -> bytes:
    """The RESULT frame of evaluation `number`."""
    return b"".join(result_parts(number, result))


def result_parts(number: int, result: Result) -> Iterator[bytes | memoryview]:
    """The same, in one piece but for what is large."""
    error, usage = result.error, result.usage
    stdout, stderr = result.stdout.encode(), result.stderr.encode()
    flags = (
        result.value_is_json * _VALUE_IS_JSON
        | result.stdout_truncated * _STDOUT_TRUNCATED
        | result.stderr_truncated * _STDERR_TRUNCATED
        | result.rolled_back * _ROLLED_BACK
    )
    if result.unrepeatable:
        flags |= _TOO_LONG if result.unrepeatable == TOO_LONG else _UNREPEATABLE
    kind = message = traceback = b""
    line = column = 0
    if error:
        flags |= _HAS_ERROR
        kind, message, traceback = error.type.encode(), error.message.encode(), error.traceback.encode()
        line, column = error.line or 0, error.column or 0
    value = result.value_json
    array = record_parts("", result.array) if result.array is not None else ()
    head = _RESULT.pack(
        number, _STATUS_INDEX[result.status], flags, line, column, usage.fuel, usage.wall_seconds,
        usage.peak_memory_bytes, usage.tool_calls, usage.virtual_ns, len(value), len(stdout), len(stderr), len(kind),
        len(message), len(traceback), sum(map(len, array)),
    )  # fmt: skip
    body = (head, value, stdout, stderr, kind, message, traceback, *array)
    return in_pieces(encode_head(Kind.RESULT, sum(map(len, body))), *body)


def result_number(body: bytes | memoryview) -> int:
    """Whose result a RESULT frame's body is; the rest is decoded with that evaluation's limits."""
    if len(body) < _RESULT.size:
        raise MalformedFrame("a short result")
    return int(_NUMBER.unpack_from(body)[0])


def decode_result(body: bytes | memoryview, job: Job) -> Result:
    """The Result in a RESULT frame's body, which answers `job`. Raises MalformedFrame unless it keeps the job's
    limits."""
    if len(body) < _RESULT.size:
        raise MalformedFrame("a short result")
    body = memoryview(body)
    _, index, flags, line, column, fuel, wall, peak, tool_calls, virtual_ns, *lengths = _RESULT.unpack_from(
        body
    )
    limits = job.limits
    assert limits.output_bytes is not None
    value, stdout, stderr, kind, message, traceback, array_length = lengths
    if index >= len(_STATUSES) or flags & ~_ALL_FLAGS or len(body) != _RESULT.size + sum(lengths):
        raise MalformedFrame("a result whose status, flags or lengths cannot be")
    status = _STATUSES[index]
    # A replaced byte takes three; and the truncation notice comes on top.
    most_output = 3 * limits.output_bytes + 128
    if (
        value > limits.output_bytes
        or array_length > limits.output_bytes + RECORD_BYTES
        or max(stdout, stderr) > most_output
        or kind + message + traceback > _MOST_ERROR_BYTES
    ):
        raise MalformedFrame("a result larger than its limits allow")
    if bool(value) != (status is Status.OK) or not math.isfinite(wall) or wall < 0:
        raise MalformedFrame("a result with a value where none may be, or with an impossible time")
    array = (
        _decode_array(body, len(body) - array_length, limits.output_bytes - value) if array_length else None
    )
    if array is not None and status is not Status.OK:
        raise MalformedFrame("a result with an array where none may be")
    parts = []
    position = _RESULT.size
    for length in lengths[:-1]:
        parts.append(body[position : position + length])
        position += length
    error = None
    if flags & _HAS_ERROR:
        error = ErrorInfo(_text(parts[3]), _text(parts[4]), _text(parts[5]), line or None, column or None)
    return Result(
        status,
        bytes(parts[0]),
        bool(flags & _VALUE_IS_JSON),
        _text(parts[1]),
        _text(parts[2]),
        bool(flags & _STDOUT_TRUNCATED),
        bool(flags & _STDERR_TRUNCATED),
        error,
        Usage(fuel, wall, peak, tool_calls, virtual_ns),
        limits,
        "wasm",
        job.runtime,
        rolled_back=bool(flags & _ROLLED_BACK),
        unrepeatable=_unrepeatable(status, flags) if job.world else "",
        array=array,
    )


def _decode_array(body: memoryview, start: int, most: int) -> Array:
    try:
        name, array, end = read_record(body, start)
    except ValueError as error:
        raise MalformedFrame(f"an array that is none: {error}") from None
    if name or end != len(body) or len(array.elements) > most:
        raise MalformedFrame("an array that has a name, does not end with its frame, or is too large")
    return array


def _unrepeatable(status: Status, flags: int) -> str:
    if flags & _TOO_LONG:
        return TOO_LONG
    # Whatever the worker says of it.
    is_ours = status in (Status.CANCELLED, Status.CRASHED)
    return why_unrepeatable(status) if is_ours or flags & _UNREPEATABLE else ""


def _text(data: memoryview) -> str:
    return str(data, "utf-8", "replace") if data else ""


def decode_jail(body: bytes) -> list[list[Any]]:
    """The jail's layers in a READY frame's body: [name, holds, detail] each."""
    try:
        layers = json.loads(body)["jail"]
        return [[str(name), bool(holds), str(detail)] for name, holds, detail in layers]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise MalformedFrame("READY without a jail") from error
