"""Library: the read-only files a runtime's guests see, a zip of stored entries mapped into memory."""

from __future__ import annotations

import mmap
import zipfile
from pathlib import Path

from wasmeval.wasm.nodes import FILE, Folder, Node


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
        base = self._folder(self.root, mount)
        with zipfile.ZipFile(archive) as entries:
            for info in entries.infolist():
                if info.is_dir():
                    self._folder(base, info.filename)
                    continue
                if info.compress_type != zipfile.ZIP_STORED:
                    raise ValueError(f"{info.filename} is not stored")
                folder, _, name = info.filename.rpartition("/")
                start = self._start(info.header_offset)
                file = LibraryFile(self._next(), self._data, start, info.file_size)
                self._folder(base, folder).names[name.encode()] = file

    def _start(self, header: int) -> int:
        """Where an entry's bytes begin: behind its local header, its name and its extra field."""
        name, extra = (int.from_bytes(self._data[header + at : header + at + 2], "little") for at in (26, 28))
        return header + 30 + name + extra

    def _folder(self, base: Folder, path: str) -> Folder:
        folder = base
        for part in path.encode().split(b"/"):
            if part:
                child = folder.names.setdefault(part, Folder(self._next(), depth=folder.depth + 1))
                if not isinstance(child, Folder):
                    raise ValueError(f"{path} goes through a file")
                folder = child
        return folder

    def _next(self) -> int:
        self._count += 1
        return self._count


class LibraryFile(Node):
    """A file of a library: `size` bytes of its archive from `start`."""

    __slots__ = ("_archive", "_size", "_start")
    kind = FILE

    def __init__(self, number: int, archive: mmap.mmap | bytes, start: int, size: int) -> None:
        super().__init__(number)
        self._archive = archive
        self._start = start
        self._size = size

    @property
    def size(self) -> int:
        """See Node."""
        return self._size

    def read(self, position: int, length: int) -> bytes:
        """At most `length` bytes from `position`."""
        start = self._start + min(position, self._size)
        return self._archive[start : min(start + length, self._start + self._size)]
