"""Output: what a guest wrote to one stream, head and tail within a limit."""

from __future__ import annotations

_SLACK_BYTES = 65536
"""What the tail may be longer than what is kept of it, so that not every write moves all of it."""


class Output:
    """Keeps at most `limit` bytes of what is written, whatever is written; over it, the first and the last half.

    Host memory stays below the limit, 64 KiB, and the largest single write (1 MiB, see wasi.py).
    """

    __slots__ = ("_head", "_limit", "_tail", "written")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._head = bytearray()
        self._tail: bytearray | None = None
        self.written = 0
        """Bytes written so far, kept or not."""

    @property
    def held_bytes(self) -> int:
        """Host memory that is taken."""
        return len(self._head) + len(self._tail or b"")

    @property
    def truncated(self) -> bool:
        """Whether something was left out."""
        return self.written > self._limit

    def write(self, data: bytes) -> None:
        """Take `data`, as much of it as is kept."""
        self.written += len(data)
        if self._tail is None:
            self._head += data
            if self.written <= self._limit:
                return
            half = self._limit // 2
            self._tail = self._head[half:]
            del self._head[half:]
        else:
            self._tail += data
        if len(self._tail) > self._limit - self._limit // 2 + min(self._limit, _SLACK_BYTES):
            self._trim()

    def skip(self, count: int) -> None:
        """So many bytes more were written, and are not kept: what follows is the end, as much of it as is kept."""
        self.written += count

    def text(self) -> str:
        """What was written, as UTF-8 with invalid bytes replaced; over the limit with a line that says how much is
        missing."""
        if self._tail is None or not self.truncated:
            return (self._head + (self._tail or b"")).decode("utf-8", "replace")
        self._trim()
        head, tail = _whole_characters(self._head, self._tail)
        missing = self.written - len(head) - len(tail)
        marker = b"\n[... %d bytes left out ...]\n" % missing
        return (head + marker + tail).decode("utf-8", "replace")

    def _trim(self) -> None:
        assert self._tail is not None
        keep = self._limit - self._limit // 2
        if len(self._tail) > keep:
            del self._tail[: len(self._tail) - keep]


def _whole_characters(head: bytearray, tail: bytearray) -> tuple[bytes, bytes]:
    """`head` without a cut character at its end, `tail` without one at its start."""
    end = len(head)
    for back in range(1, min(4, end) + 1):
        byte = head[end - back]
        if byte & 0xC0 != 0x80:
            length = (
                1
                if byte < 0x80
                else 2
                if byte >> 5 == 6
                else 3
                if byte >> 4 == 14
                else 4
                if byte >> 3 == 30
                else 1
            )
            if length > back:
                end -= back
            break
    start = 0
    while start < min(3, len(tail)) and tail[start] & 0xC0 == 0x80:
        start += 1
    return bytes(head[:end]), bytes(tail[start:])
