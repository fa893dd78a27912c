"""Frames: what a microVM's agent and its host say to each other. `guest/agent.py` is the other side.

    u32 length of the payload | u8 kind | u32 number | payload        little-endian

The guest is hostile, its kernel and its agent as well: what it sends is bounded before it is kept.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import NamedTuple

from wasmeval.limits import MIB

HEADER = struct.Struct("<IBI")
PIECE_BYTES = 1 << 16
"""How a guest cuts what is long; see guest/agent.py."""


class Order(IntEnum):
    """Host to guest."""

    RESUME = 1
    """i64 nanoseconds since 1970 | 64 bytes of entropy | host name: the first thing that a clone hears."""
    FILE = 2
    """u16 length of path | path | a piece of content; the number is 1 for the first piece of a file."""
    BEGIN = 3
    """JSON: the program that is to run, and its limits."""
    RUN = 4
    """What it is given: a request frame of the guest ABI, or a shell's script."""
    FEED = 5
    """Standard input; the number is 1 where it ends."""
    ANSWER = 6
    """i32 result | bytes: to a CALL."""
    SIGNAL = 7
    """The number is that of the signal."""
    REHEARSE = 8
    """Go through what an order takes, before there is one."""
    STOP = 9
    """End the job now; DONE follows."""


class Word(IntEnum):
    """Guest to host."""

    READY = 33
    """JSON: the languages that there are, each with its version and its memory in bytes. Only before the snapshot."""
    RESUMED = 34
    OUTPUT = 35
    """Bytes of the stream that the number names."""
    TAIL = 36
    """u64 bytes left out | the last bytes of the stream that the number names."""
    CALL = 37
    """A host operation of the guest ABI; ANSWER follows before the next."""
    INPUT = 38
    """There is room for more standard input."""
    REPLY = 39
    """A piece of a reply frame of the guest ABI."""
    LEFT = 40
    """As FILE: a file that was asked for."""
    DONE = 41
    """JSON: how it ended. Nothing follows."""
    FAILED = 42
    """Text: an order could not be followed."""
    REHEARSED = 43


class Frame(NamedTuple):
    """One of the guest's."""

    word: Word
    number: int
    payload: bytes


class MalformedFrame(Exception):
    """What came is none, or longer than it may be: the guest is not to be trusted any further."""


_MOST_BYTES = {Word.CALL: 16 * MIB + (1 << 17), Word.TAIL: 9 * MIB}
_MOST_OTHER_BYTES = 1 << 17


def encode(order: Order, payload: bytes = b"", number: int = 0) -> bytes:
    """One frame for the guest."""
    return HEADER.pack(len(payload), order, number) + payload


class Decoder:
    """Makes frames of what comes. Holds at most one frame, and what came with it."""

    def __init__(self) -> None:
        self._coming = bytearray()

    @property
    def held_bytes(self) -> int:
        """Of a frame that is not complete."""
        return len(self._coming)

    def feed(self, data: bytes) -> list[Frame]:
        """The frames that are complete with `data`. Raises MalformedFrame."""
        coming = self._coming
        coming += data
        frames: list[Frame] = []
        at = 0
        while len(coming) - at >= HEADER.size:
            length, kind, number = HEADER.unpack_from(coming, at)
            try:
                word = Word(kind)
            except ValueError:
                raise MalformedFrame(f"a frame of the unknown kind {kind}") from None
            if length > _MOST_BYTES.get(word, _MOST_OTHER_BYTES):
                raise MalformedFrame(f"{length} bytes of {word.name}")
            end = at + HEADER.size + length
            if len(coming) < end:
                break
            frames.append(Frame(word, number, bytes(memoryview(coming)[at + HEADER.size : end])))
            at = end
        del coming[:at]
        return frames
