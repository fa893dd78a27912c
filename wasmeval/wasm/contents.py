"""Contents: the bytes of one file in memory. What was never written takes no memory and no time: it is zeros when read.

A guest's fuel does not show what a host call costs, so no operation here may take longer than what it moves: a hole is
a chunk that is not there, and neither growing nor cutting fills or copies more than one chunk.
"""

from __future__ import annotations

from collections.abc import Iterator

CHUNK_BYTES = 256 << 10
"""Small enough to be filled or copied in some 20 us, large enough that a GiB is a list of 4,096."""


class Contents:
    """`length` bytes: in front those the file was given, over them the chunks that were written since.

    `given` may be a bytearray; it is then this object's to cut.
    """

    __slots__ = ("_chunks", "_given", "_given_end", "_is_given_shared", "_shared", "length")

    def __init__(self, given: bytes | bytearray = b"") -> None:
        self._given = given
        self._given_end = self.length = len(given)
        self._chunks: list[bytearray | None] = []
        self._shared: set[int] = set()
        """Indexes of chunks that a twin has too: they are copied before they are written."""
        self._is_given_shared = False

    def twin(self) -> Contents:
        """The same bytes in an object of their own. What both have is held once, until one of them writes over it."""
        twin = Contents()
        twin._given, twin._given_end, twin.length = self._given, self._given_end, self.length
        twin._chunks = self._chunks.copy()
        self._shared = set(range(len(self._chunks)))
        twin._shared = self._shared.copy()
        self._is_given_shared = twin._is_given_shared = True
        return twin

    def pieces(self) -> Iterator[tuple[int, bytes]]:
        """What was given or written, each piece with its position; between them are zeros."""
        for index in range(-(-self.length // CHUNK_BYTES)):
            start = index * CHUNK_BYTES
            written = index < len(self._chunks) and self._chunks[index] is not None
            if written or start < self._given_end:
                yield start, self.read(start, CHUNK_BYTES)

    def read(self, position: int, length: int) -> bytes:
        """At most `length` bytes from `position`."""
        end = min(position + length, self.length)
        if position >= end:
            return b""
        if not self._chunks:
            return self._of_given(position, end)
        index, start = divmod(position, CHUNK_BYTES)
        if end <= (index + 1) * CHUNK_BYTES:
            return self._piece(index, start, start + end - position)
        parts = []
        while position < end:
            index, start = divmod(position, CHUNK_BYTES)
            taken = min(CHUNK_BYTES - start, end - position)
            parts.append(self._piece(index, start, start + taken))
            position += taken
        return b"".join(parts)

    def write(self, position: int, data: bytes) -> None:
        """Put `data`, which is not empty, at `position`; a gap before it is a hole."""
        end = position + len(data)
        index, start = divmod(position, CHUNK_BYTES)
        if start + len(data) <= CHUNK_BYTES:
            self._put(index, start, data)
        else:
            view, at = memoryview(data), position
            while at < end:
                index, start = divmod(at, CHUNK_BYTES)
                taken = min(CHUNK_BYTES - start, end - at)
                self._put(index, start, view[at - position : at - position + taken])
                at += taken
        self.length = max(self.length, end)

    def resize(self, length: int) -> None:
        """Cut, or add a hole."""
        if length < self.length:
            index, left = divmod(length, CHUNK_BYTES)
            if index < len(self._chunks):
                # A chunk of nothing would be told apart from a hole.
                del self._chunks[index + (left > 0) :]
                if left and self._chunks[index] is not None:
                    del self._own(index)[left:]
            self._cut_given(min(self._given_end, length))
        self.length = length

    # --- inside --------------------------------------------------------------------------------------------------

    def _piece(self, index: int, start: int, end: int) -> bytes:
        """Bytes of one chunk, zeros where it has none."""
        chunk = self._chunks[index] if index < len(self._chunks) else None
        if chunk is None:
            return self._of_given(index * CHUNK_BYTES + start, index * CHUNK_BYTES + end)
        with memoryview(chunk) as view:
            data = bytes(view[start:end])
        return data if len(data) == end - start else data.ljust(end - start, b"\0")

    def _of_given(self, start: int, end: int) -> bytes:
        if start >= self._given_end:
            return bytes(end - start)
        with memoryview(self._given) as view:
            data = bytes(view[start : min(end, self._given_end)])
        return data if len(data) == end - start else data.ljust(end - start, b"\0")

    def _put(self, index: int, start: int, data: bytes | memoryview) -> None:
        chunks = self._chunks
        if index >= len(chunks):
            chunks.extend([None] * (index + 1 - len(chunks)))
        chunk = chunks[index]
        if chunk is None:
            first = index * CHUNK_BYTES
            given = min(first + CHUNK_BYTES, self._given_end)
            chunk = bytearray(self._of_given(first, given) if first < given else b"")
            chunks[index] = chunk
            self._shared.discard(index)
            self._cut_given(self._given_end)
        else:
            chunk = self._own(index)
        if start > len(chunk):
            chunk.extend(bytes(start - len(chunk)))
        # A slice that reaches beyond the end appends; the chunk grows by an eighth at a time.
        chunk[start : start + len(data)] = data

    def _own(self, index: int) -> bytearray:
        """The chunk, which is there, for writing."""
        chunk = self._chunks[index]
        assert chunk is not None
        if index in self._shared:
            chunk = self._chunks[index] = chunk.copy()
            self._shared.discard(index)
        return chunk

    def _cut_given(self, end: int) -> None:
        """Of what was given, `end` bytes are still in use, less those at their end that a chunk covers."""
        chunks = self._chunks
        while end and (index := (end - 1) // CHUNK_BYTES) < len(chunks) and chunks[index] is not None:
            end = index * CHUNK_BYTES
        self._given_end = end
        if not end:
            self._given = b""
        elif isinstance(self._given, bytearray) and not self._is_given_shared:
            del self._given[end:]
