"""Exchanges: the frames of an evaluation that talks while it runs: calls and their answers, input, output, files.

What comes from a worker is decoded here as what a taken-over worker may have sent: lengths are checked, and everything
else is the business of whoever gets it.
"""

from __future__ import annotations

import struct

from wasmeval.wasm.calls import Operation, Outcome
from wasmeval.worker.frames import Kind, MalformedFrame, encode

_NUMBER = struct.Struct("<Q")
# number, call, operation or outcome
_CALL = struct.Struct("<QIB")
# number, stream, or whether this was the last
_STREAM = struct.Struct("<QB")
# number, whether this is the file's last piece, length of the path
_FILE = struct.Struct("<QBH")
_OPERATIONS = frozenset(
    {Operation.CALL, Operation.HTTP, Operation.READ, Operation.DROP, Operation.FILES, Operation.INPUT}
)
_MOST_PATH_BYTES = 4096


def encode_call(number: int, call: int, operation: int, body: bytes) -> bytes:
    """The CALL frame: evaluation `number` begins, or drops, `call`."""
    return encode(Kind.CALL, _CALL.pack(number, call, operation) + body)


def decode_call(frame: bytes) -> tuple[int, int, Operation, bytes]:
    """(number, call, operation, body) of a CALL frame's body."""
    if len(frame) < _CALL.size:
        raise MalformedFrame("a short call")
    number, call, operation = _CALL.unpack_from(frame)
    if operation not in _OPERATIONS or not call:
        raise MalformedFrame(f"call {call} of operation {operation}")
    return number, call, Operation(operation), frame[_CALL.size :]


def encode_answer(number: int, call: int, outcome: Outcome, payload: bytes) -> bytes:
    """The ANSWER frame: how `call` of evaluation `number` ended."""
    return encode(Kind.ANSWER, _CALL.pack(number, call, outcome) + payload)


def decode_answer(frame: bytes) -> tuple[int, int, Outcome, bytes]:
    """(number, call, outcome, payload) of an ANSWER frame's body."""
    if len(frame) < _CALL.size:
        raise MalformedFrame("a short answer")
    number, call, outcome = _CALL.unpack_from(frame)
    return number, call, Outcome(outcome), frame[_CALL.size :]


def encode_input(number: int, data: bytes, ended: bool) -> bytes:
    """The INPUT frame: standard input of evaluation `number`."""
    return encode(Kind.INPUT, _STREAM.pack(number, ended) + data)


def decode_input(frame: bytes) -> tuple[int, bytes, bool]:
    """(number, data, whether the input has ended) of an INPUT frame's body."""
    if len(frame) < _STREAM.size:
        raise MalformedFrame("a short input")
    number, ended = _STREAM.unpack_from(frame)
    return number, frame[_STREAM.size :], bool(ended)


def encode_output(number: int, stream: int, data: bytes) -> bytes:
    """The OUTPUT frame: what evaluation `number` printed."""
    return encode(Kind.OUTPUT, _STREAM.pack(number, stream) + data)


def decode_output(frame: bytes) -> tuple[int, int, bytes]:
    """(number, stream, data) of an OUTPUT frame's body; stream is 1 or 2."""
    if len(frame) < _STREAM.size:
        raise MalformedFrame("a short output")
    number, stream = _STREAM.unpack_from(frame)
    if stream not in (1, 2):
        raise MalformedFrame(f"output on stream {stream}")
    return number, stream, frame[_STREAM.size :]


def encode_transcript(number: int, data: bytes) -> bytes:
    """The TRANSCRIPT frame: a piece of what evaluation `number` asked for and was answered."""
    return encode(Kind.TRANSCRIPT, _NUMBER.pack(number) + data)


def decode_transcript(frame: bytes) -> tuple[int, bytes]:
    """(number, piece) of a TRANSCRIPT frame's body."""
    if len(frame) < _NUMBER.size:
        raise MalformedFrame("a short piece of a transcript")
    return _NUMBER.unpack_from(frame)[0], frame[_NUMBER.size :]


def encode_output_file(number: int, path: str, data: bytes, is_last: bool) -> bytes:
    """The OUTPUT_FILE frame: a piece of a file of evaluation `number`."""
    name = path.encode("utf-8", "surrogateescape")
    return encode(Kind.OUTPUT_FILE, _FILE.pack(number, is_last, len(name)) + name + data)


def decode_output_file(frame: bytes) -> tuple[int, str, bytes, bool]:
    """(number, path, data, whether it is the file's last piece) of an OUTPUT_FILE frame's body."""
    if len(frame) < _FILE.size:
        raise MalformedFrame("a short file")
    number, is_last, length = _FILE.unpack_from(frame)
    start = _FILE.size + length
    if length > _MOST_PATH_BYTES or not length or len(frame) < start:
        raise MalformedFrame("a file whose path is missing, cut or too long")
    try:
        path = frame[_FILE.size : start].decode()
    except UnicodeDecodeError:
        raise MalformedFrame("a file whose path is not UTF-8") from None
    return number, path, frame[start:], bool(is_last)
