"""Stdin: what a guest may read from descriptor 0, as it comes."""

from __future__ import annotations


class Stdin:
    """Input that is fed piece by piece and read once. Whoever feeds it bounds it."""

    __slots__ = ("_buffer", "_start", "is_closed")

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._start = 0
        self.is_closed = False
        """Whether nothing more will come."""

    @property
    def held_bytes(self) -> int:
        """Host memory that is taken."""
        return len(self._buffer)

    @property
    def is_ready(self) -> bool:
        """Whether a read has something to say: bytes, or that this is the end."""
        return self.is_closed or self._start < len(self._buffer)

    def feed(self, data: bytes) -> None:
        """More input."""
        if not self.is_closed:
            self._buffer += data

    def close(self) -> None:
        """There is no more."""
        self.is_closed = True

    def read(self, length: int) -> bytes:
        """At most `length` bytes of what has come; none at the end."""
        end = min(self._start + length, len(self._buffer))
        data = bytes(memoryview(self._buffer)[self._start : end])
        self._start = end
        # What is read goes when it is the larger part, so that all of it is moved once at most.
        if self._start * 2 >= len(self._buffer):
            del self._buffer[: self._start]
            self._start = 0
        return data
