"""Live: what a guest prints, on its way to its caller while it runs: in order, in few pieces, within its limit."""

from __future__ import annotations

from collections.abc import Callable

FLUSH_BYTES = 65536
"""A piece is sent at the end of a slice, or when it is this long."""

MANY_PIECES = 4096
FEW_PIECES = 8
"""So many are sent as they come. Then, of a guest that changes between stdout and stderr again and again, no more than
so few a slice: each stream is put together, and the order between the two is kept only from slice to slice."""

Emit = Callable[[int, bytes], None]


class Live:
    """One evaluation's output that is still to be sent. `emit(stream, data)` sends a piece; stream is 1 or 2."""

    def __init__(self, limit: int, emit: Emit) -> None:
        self._emit = emit
        self._room = {1: limit, 2: limit}
        self._pieces: list[tuple[int, bytearray]] = []
        self._size = 0
        self._sent = 0

    def write(self, stream: int, data: bytes) -> None:
        """Take what the guest wrote; beyond the limit of its stream nothing is sent any more."""
        room = self._room[stream]
        if not room:
            return
        taken = data[:room]
        self._room[stream] = room - len(taken)
        self._size += len(taken)
        if self._pieces and self._pieces[-1][0] == stream:
            self._pieces[-1][1].extend(taken)
        else:
            self._pieces.append((stream, bytearray(taken)))
        if self._size >= FLUSH_BYTES:
            self.flush()

    def flush(self) -> None:
        """Send what is there."""
        pieces, self._pieces, self._size = self._pieces, [], 0
        if len(pieces) > FEW_PIECES and self._sent > MANY_PIECES:
            pieces = merged(pieces)
        self._sent += len(pieces)
        for stream, data in pieces:
            self._emit(stream, bytes(data))


def merged(pieces: list[tuple[int, bytearray]]) -> list[tuple[int, bytearray]]:
    """At most one piece for each stream, in the order in which they began."""
    whole: dict[int, bytearray] = {}
    for stream, data in pieces:
        whole.setdefault(stream, bytearray()).extend(data)
    return list(whole.items())
