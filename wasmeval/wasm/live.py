"""Live: what a guest prints, on its way to its caller while it runs: in order, in few pieces, within its limit."""

from __future__ import annotations

from collections.abc import Callable

FLUSH_BYTES = 65536
"""A piece is sent at the end of a slice, or when it is this long."""

Emit = Callable[[int, bytes], None]


class Live:
    """One evaluation's output that is still to be sent. `emit(stream, data)` sends a piece; stream is 1 or 2."""

    def __init__(self, limit: int, emit: Emit) -> None:
        self._emit = emit
        self._room = {1: limit, 2: limit}
        self._pending = bytearray()
        self._stream = 1

    def write(self, stream: int, data: bytes) -> None:
        """Take what the guest wrote; beyond the limit of its stream nothing is sent any more."""
        room = self._room[stream]
        if not room:
            return
        if stream != self._stream:
            self.flush()
            self._stream = stream
        taken = data[:room]
        self._room[stream] = room - len(taken)
        self._pending += taken
        if len(self._pending) >= FLUSH_BYTES:
            self.flush()

    def flush(self) -> None:
        """Send what is there."""
        if self._pending:
            data, self._pending = bytes(self._pending), bytearray()
            self._emit(self._stream, data)
