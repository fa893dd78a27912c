"""Transcript: what a deterministic guest asked for and was answered, as bytes: one event after the other.

    kind      u8, see Kind
    detail    u8, the operation or the outcome
    call      u32, the number of the call; of PASSED how many waits in a row
    length    u32, of the body
    body      what was asked, or answered

Numbers are little-endian. Whoever reads one takes it for what a stranger wrote.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import NamedTuple

from wasmeval.determinism import MOST_TRANSCRIPT_BYTES

_HEAD = struct.Struct("<BBII")


class Kind(IntEnum):
    """What happened."""

    BEGAN = 1
    """The guest began a call: an operation of the guest ABI, with its body."""
    ANSWERED = 2
    """It waited, and was served this answer."""
    PASSED = 3
    """It waited while something was under way, and its time was over first."""
    READ = 4
    """It read standard input; nothing is its end."""


class Event(NamedTuple):
    """One of them."""

    kind: Kind
    detail: int
    call: int
    body: bytes


class MalformedTranscript(Exception):
    """These bytes are no transcript."""


class Recorder:
    """Writes a transcript. One that would be longer than MOST_TRANSCRIPT_BYTES `is_too_long`, and is dropped."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._passed_at = -1
        self.is_too_long = False

    @property
    def data(self) -> bytes:
        """What was written."""
        return bytes(self._data)

    @property
    def size(self) -> int:
        """Its length so far."""
        return len(self._data)

    def passed(self) -> None:
        """A wait was in vain; those that follow one another are one event."""
        if self._passed_at >= 0:
            kind, detail, count, _ = _HEAD.unpack_from(self._data, self._passed_at)
            if count < 0xFFFFFFFF:
                _HEAD.pack_into(self._data, self._passed_at, kind, detail, count + 1, 0)
                return
        at = len(self._data)
        self.add(Kind.PASSED, call=1)
        if not self.is_too_long:
            self._passed_at = at

    def add(self, kind: Kind, body: bytes = b"", call: int = 0, detail: int = 0) -> None:
        """One more event, which is no wait in vain."""
        if len(self._data) + _HEAD.size + len(body) > MOST_TRANSCRIPT_BYTES:
            self.is_too_long = True
            self._data.clear()
        self._passed_at = -1
        if self.is_too_long:
            return
        self._data += _HEAD.pack(kind, detail, call, len(body)) + body


class Player:
    """Reads a transcript, event by event."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0
        self._passed = 0
        self._count = 0
        self.last = -1
        """Which event was taken last, from 0."""

    @property
    def size(self) -> int:
        """Of the whole, in bytes."""
        return len(self._data)

    def peek(self) -> Event | None:
        """The next event; None at the end. Raises MalformedTranscript."""
        if self._at == len(self._data):
            return None
        if len(self._data) - self._at < _HEAD.size:
            raise MalformedTranscript("the transcript is cut short")
        kind, detail, call, length = _HEAD.unpack_from(self._data, self._at)
        start = self._at + _HEAD.size
        if kind not in _KINDS or len(self._data) - start < length:
            raise MalformedTranscript("the transcript is damaged")
        return Event(Kind(kind), detail, call, self._data[start : start + length])

    def take(self) -> Event | None:
        """The next event, which is then behind us; of waits in vain one after the other."""
        event = self.peek()
        if event is None:
            return None
        self.last = self._count
        if event.kind is Kind.PASSED:
            self._passed += 1
            if self._passed < event.call:
                return event
        self._passed = 0
        self._at += _HEAD.size + len(event.body)
        self._count += 1
        return event


_KINDS = frozenset(Kind)
