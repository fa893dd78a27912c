"""Growth: how much one evaluation has added to a writable folder, and that it is not too much.

Bytes are the lengths of files, holes included. What is cut or removed is given back only as far as this evaluation had
added it, so it cannot trade what was there before for room.
"""

from __future__ import annotations

from dataclasses import dataclass

from wasmeval.wasm.errno import NOSPC, Errno

Key = tuple[int, int]
"""Device and inode."""


@dataclass(slots=True)
class _Added:
    bytes: int = 0
    is_new: bool = False
    opens: int = 0
    is_gone: bool = False


class Growth:
    """One evaluation's, of one folder."""

    def __init__(self, max_bytes: int, max_files: int) -> None:
        self._max_bytes = max_bytes
        self._max_files = max_files
        self._bytes = 0
        self._files = 0
        self._added: dict[Key, _Added] = {}

    def check_file(self) -> None:
        """Raises Errno(NOSPC) unless there is room for one more file, folder or link."""
        if self._files >= self._max_files:
            raise Errno(NOSPC)

    def made(self, key: Key) -> None:
        """A file or folder is new."""
        self._files += 1
        # Whatever was known of an inode with this number was another file's.
        self._forget(key)
        self._added[key] = _Added(is_new=True)

    def grow(self, key: Key, size: int) -> None:
        """A file is to be longer by `size`. Raises Errno(NOSPC) and counts nothing when that is too much."""
        if self._bytes + size > self._max_bytes:
            raise Errno(NOSPC)
        self._bytes += size
        self._added.setdefault(key, _Added()).bytes += size

    def shrink(self, key: Key, size: int) -> None:
        """A file is shorter by `size`."""
        added = self._added.get(key)
        if added is not None:
            given = min(size, added.bytes)
            added.bytes -= given
            self._bytes -= given

    def opened(self, key: Key) -> None:
        """This evaluation has it open once more."""
        self._added.setdefault(key, _Added()).opens += 1

    def closed(self, key: Key) -> None:
        """And once less: what is gone by name is gone now, and a file that was only read is forgotten."""
        added = self._added.get(key)
        if added is None:
            return
        added.opens -= 1
        if added.opens <= 0 and (added.is_gone or not (added.bytes or added.is_new)):
            self._forget(key)

    def gone(self, key: Key) -> None:
        """It has no name any more; its room is free as soon as it is not open either."""
        added = self._added.get(key)
        if added is not None:
            added.is_gone = True
            if added.opens <= 0:
                self._forget(key)

    def _forget(self, key: Key) -> None:
        added = self._added.pop(key, None)
        if added is not None:
            self._bytes -= added.bytes
            self._files -= added.is_new
