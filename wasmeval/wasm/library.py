"""Library: the read-only files a runtime's guests see, a zip of stored entries mapped into memory."""

from __future__ import annotations

import mmap
import zipfile
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(slots=True)
class Node:
    """A file or folder of the tree; `names` is None for a file. `number` is its inode."""

    number: int
    offset: int = 0
    size: int = 0
    names: dict[bytes, Node] | None = field(default=None)

    @property
    def is_folder(self) -> bool:
        """Whether this is a folder."""
        return self.names is not None


class Library:
    """A tree of read-only files below `/`. Shared by all instances of a worker; holds no state of theirs."""

    def __init__(self, archive: Path | None = None, mount: str = "/") -> None:
        self._count = 1
        self.root = Node(1, names={})
        self._data: mmap.mmap | bytes = b""
        if archive is not None:
            with open(archive, "rb") as file:
                self._data = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
            self._index(archive, mount)

    def read(self, node: Node, position: int, length: int) -> bytes:
        """At most `length` bytes of the file `node` from `position`."""
        start = node.offset + min(position, node.size)
        return self._data[start : min(start + length, node.offset + node.size)]

    def find(self, start: Node, path: bytes) -> Node | None:
        """The node at `path` from `start`; None when there is none. `..` goes no higher than `start`.

        Raises NotADirectoryError when a file stands where the path goes on.
        """
        trail = [start]
        for part in path.split(b"/"):
            if part in (b"", b"."):
                continue
            names = trail[-1].names
            if names is None:
                raise NotADirectoryError
            if part == b"..":
                if len(trail) > 1:
                    trail.pop()
                continue
            node = names.get(part)
            if node is None:
                return None
            trail.append(node)
        if path.endswith(b"/") and not trail[-1].is_folder:
            raise NotADirectoryError
        return trail[-1]

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
                names = self._folder(base, folder).names
                assert names is not None
                names[name.encode()] = Node(self._next(), self._start(info.header_offset), info.file_size)

    def _start(self, header: int) -> int:
        """Where an entry's bytes begin: behind its local header, its name and its extra field."""
        name, extra = (int.from_bytes(self._data[header + at : header + at + 2], "little") for at in (26, 28))
        return header + 30 + name + extra

    def _folder(self, base: Node, path: str) -> Node:
        node = base
        for part in path.encode().split(b"/"):
            if part:
                assert node.names is not None
                node = node.names.setdefault(part, Node(self._next(), names={}))
        return node

    def _next(self) -> int:
        self._count += 1
        return self._count
