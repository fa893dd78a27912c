"""Library: the read-only files a runtime's guests see, a zip of stored entries mapped into memory."""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator
from pathlib import Path

from wasmeval.wasm.nodes import FILE, Folder, Node

# Of the zip format: the record at its end (how many entries, where the first one's head is), and the head of an entry
# (method, size, lengths of name, extra field and comment, where the entry is). zipfile takes six times as long for
# them, at every start of a worker. Source: APPNOTE.TXT 6.3.10, 4.3.12 and 4.3.16.
_END = struct.Struct("<4s6xH4xI2x")
_HEAD = struct.Struct("<4s6xH12xI3H8xI")
_STORED = 0
# Of the header before an entry's bytes: its length but for the name and the extra field, and where their lengths are.
_LOCAL_BYTES, _LENGTHS_AT, _LENGTHS = 30, 26, struct.Struct("<2H")


class Library:
    """A tree of read-only files below `/`. Shared by all instances of a worker; holds no state of theirs."""

    def __init__(self, archive: Path | None = None, mount: str = "/") -> None:
        self._count = 1
        self.root = Folder(1)
        self._data: mmap.mmap | bytes = b""
        if archive is not None:
            with open(archive, "rb") as file:
                self._data = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
            self._index(archive, mount)

    def node(self, number: int) -> Node:
        """The file or folder of that number. Raises KeyError. Slow: it looks at all of them."""
        todo: list[Node] = [self.root]
        while todo:
            node = todo.pop()
            if node.number == number:
                return node
            if isinstance(node, Folder):
                todo += node.names.values()
        raise KeyError(number)

    def _index(self, archive: Path, mount: str) -> None:
        base = self._folder(self.root, mount.encode())
        path, folder = b"", base
        for entry, size, header in _entries(archive, self._data):
            # A folder's own entry ends with a slash. The files of a folder follow one another.
            above, _, name = entry.rpartition(b"/")
            if above != path:
                path, folder = above, self._folder(base, above)
            if name:
                folder.names[name] = LibraryFile(self._next(), self._data, header, size)

    def _folder(self, base: Folder, path: bytes) -> Folder:
        folder = base
        for part in path.split(b"/"):
            if part:
                child = folder.names.get(part)
                if child is None:
                    child = folder.names[part] = Folder(self._next(), depth=folder.depth + 1)
                if not isinstance(child, Folder):
                    raise ValueError(f"{path.decode()} goes through a file")
                folder = child
        return folder

    def _next(self) -> int:
        self._count += 1
        return self._count


def _entries(archive: Path, data: mmap.mmap | bytes) -> Iterator[tuple[bytes, int, int]]:
    """The name, size and local header's place of each entry. Raises ValueError for what is no zip of stored ones."""
    end = len(data) - _END.size
    signature, count, at = _END.unpack_from(data, end) if end >= 0 else (b"", 0, 0)
    # The archive is our own: it has no comment, and is smaller than what needs other records.
    if signature != b"PK\5\6":
        raise ValueError(f"{archive} is no zip")
    for _ in range(count):
        signature, method, size, name, extra, comment, header = _HEAD.unpack_from(data, at)
        entry = data[at + _HEAD.size : at + _HEAD.size + name]
        if signature != b"PK\1\2" or method != _STORED:
            raise ValueError(f"{archive}: {entry!r} is not stored")
        yield entry, size, header
        at += _HEAD.size + name + extra + comment


class LibraryFile(Node):
    """A file of a library: `size` bytes of its archive, behind the local header at `header`."""

    __slots__ = ("_archive", "_header", "_size")
    kind = FILE

    def __init__(self, number: int, archive: mmap.mmap | bytes, header: int, size: int) -> None:
        super().__init__(number)
        self._archive = archive
        self._header = header
        self._size = size

    @property
    def size(self) -> int:
        """See Node."""
        return self._size

    def read(self, position: int, length: int) -> bytes:
        """At most `length` bytes from `position`."""
        # Looked up at each read: to visit all local headers at the start would map pages of the whole archive.
        name, extra = _LENGTHS.unpack_from(self._archive, self._header + _LENGTHS_AT)
        begin = self._header + _LOCAL_BYTES + name + extra
        start = begin + min(position, self._size)
        return self._archive[start : min(start + length, begin + self._size)]
