"""Residents: the frames about sessions: they begin, are copied, are told, and end."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Sequence

from wasmeval.session import StatePieces
from wasmeval.worker.frames import Kind, MalformedFrame, decode_number, encode, encode_head, encode_number

_OPEN = struct.Struct("<QB")
_PAIR = struct.Struct("<QQ")
_NUMBER = struct.Struct("<Q")
# asked, whether this is the end
_STATE = struct.Struct("<QB")
_PIECE_BYTES = 1 << 20
_MOST_PARTS = 512
"""Of one frame: below what sendmsg(2) takes at once."""


def encode_open(number: int, runtime: int, state: StatePieces) -> Iterator[bytes | memoryview]:
    """The frames that begin session `number` of the runtime with this index, with `state`, or anew when that is
    empty. They come in parts, and `state` is not copied."""
    for each in state:
        for start in range(0, len(each), _PIECE_BYTES):
            piece = memoryview(each)[start : start + _PIECE_BYTES]
            yield encode_head(Kind.STATE, _NUMBER.size + len(piece)) + _NUMBER.pack(number)
            yield piece
    yield encode(Kind.OPEN_SESSION, _OPEN.pack(number, runtime))


def decode_open(body: bytes, runtimes: Sequence[str]) -> tuple[int, str]:
    """(number, runtime) of an OPEN_SESSION frame's body."""
    number, runtime = _unpack(_OPEN, body)
    return number, runtimes[runtime]


def decode_piece(body: bytes) -> tuple[int, memoryview]:
    """(number, piece) of a STATE frame's body."""
    return decode_number(body[: _NUMBER.size]), memoryview(body)[_NUMBER.size :]


def encode_fork(number: int, other: int) -> bytes:
    """The frame that begins session `other` with what session `number` is."""
    return encode(Kind.FORK_SESSION, _PAIR.pack(number, other))


def encode_tell(number: int, asked: int) -> bytes:
    """The frame that asks for the state of session `number`; it comes under the number `asked`."""
    return encode(Kind.TELL_STATE, _PAIR.pack(number, asked))


def encode_mark(number: int) -> bytes:
    """The frame that marks what session `number` is."""
    return encode_number(Kind.MARK_SESSION, number)


def encode_revert(number: int, other: int) -> bytes:
    """The frame that begins session `other` with what session `number` was when it was last marked."""
    return encode(Kind.REVERT_SESSION, _PAIR.pack(number, other))


def decode_pair(body: bytes) -> tuple[int, int]:
    """The two numbers of a FORK_SESSION, REVERT_SESSION or TELL_STATE frame's body."""
    first, second = _unpack(_PAIR, body)
    return first, second


def encode_close(number: int) -> bytes:
    """The frame that ends session `number`."""
    return encode_number(Kind.CLOSE_SESSION, number)


def encode_state(asked: int, pieces: Iterable[bytes | memoryview]) -> Iterator[list[bytes | memoryview]]:
    """The SESSION_STATE frames of the state that is `pieces`, none of more than 1 MiB: the parts of one frame after the
    other. No piece is copied."""
    parts: list[bytes | memoryview] = []
    size = 0
    for piece in pieces:
        if size + len(piece) > _PIECE_BYTES or len(parts) == _MOST_PARTS:
            yield [_head_of_state(asked, size, is_last=False), *parts]
            parts, size = [], 0
        parts.append(piece)
        size += len(piece)
    yield [_head_of_state(asked, size, is_last=True), *parts]


def _head_of_state(asked: int, size: int, *, is_last: bool) -> bytes:
    return encode_head(Kind.SESSION_STATE, _STATE.size + size) + _STATE.pack(asked, is_last)


def decode_state(body: bytes) -> tuple[int, bytes, bool]:
    """(asked, piece, whether this is the end) of a SESSION_STATE frame's body."""
    if len(body) < _STATE.size:
        raise MalformedFrame("a short piece of a state")
    asked, is_last = _STATE.unpack_from(body)
    return asked, body[_STATE.size :], bool(is_last)


def _unpack(layout: struct.Struct, body: bytes) -> tuple[int, ...]:
    if len(body) != layout.size:
        raise MalformedFrame(f"{len(body)} bytes about a session")
    return layout.unpack(body)
