"""Nodes: what a guest's tree of files is made of: folders, files, links, and the places where the host's folders hang.

No node knows the folder it is in, so a tree is free of cycles and goes when its last reference does: a worker collects
none. A node without a `quota` belongs to a read-only tree.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import copy
from time import time_ns

from wasmeval.wasm.contents import Contents
from wasmeval.wasm.errno import NAMETOOLONG, NOENT, NOSPC, ROFS, Errno

UNKNOWN, FOLDER, FILE, LINK = 0, 3, 4, 7
"""WASI's file types."""

NODE_BYTES = 512
"""What a file, folder or link costs beside its contents, whatever the length of its name."""

MOST_DEPTH = 64
"""Folders below one another: what walks a tree may call itself that often."""

# Every read-only file carries this time: 1980-01-01, the zip format's own beginning.
_FIXED_TIME_NS = 315_532_800 * 10**9


class Quota:
    """Bytes and nodes that a writable tree may have. Bytes are the lengths of files, holes included, and NODE_BYTES a
    node. Beyond: `ENOSPC`."""

    __slots__ = ("bytes", "changes", "files", "max_bytes", "max_files", "now_ns")

    def __init__(self) -> None:
        self.bytes = self.files = self.max_bytes = self.max_files = 0
        self.changes = 0
        """Counts up with every change of the tree, contents included."""
        self.now_ns: Callable[[], int] = time_ns
        """What its guest takes for the time, in nanoseconds since 1970."""

    def take(self, size: int, files: int = 0) -> None:
        """Count `size` bytes and `files` nodes. Raises Errno(NOSPC) and counts nothing when they are too many."""
        if self.bytes + size > self.max_bytes or self.files + files > self.max_files:
            raise Errno(NOSPC)
        self.bytes += size
        self.files += files

    def give(self, size: int, files: int = 0) -> None:
        """Take them back."""
        self.bytes -= size
        self.files -= files


class Node:
    """One of them. `number` is its inode; `opens` counts the descriptors on it."""

    __slots__ = ("accessed_ns", "changed_ns", "is_linked", "modified_ns", "number", "opens", "quota")
    kind = UNKNOWN
    handle = 0
    """Where the parent process keeps it; 0 for what is here."""

    def __init__(self, number: int, quota: Quota | None = None) -> None:
        self.number = number
        self.quota = quota
        self.opens = 0
        self.is_linked = True
        self.accessed_ns = self.modified_ns = self.changed_ns = quota.now_ns() if quota else _FIXED_TIME_NS

    @property
    def size(self) -> int:
        """Its length in bytes."""
        return 0

    @property
    def device(self) -> int:
        """The same for all nodes of a tree."""
        return 2 if self.quota else 1

    def touch(self) -> None:
        """Its contents changed now."""
        quota = self.writable()
        self.modified_ns = self.changed_ns = quota.now_ns()
        quota.changes += 1

    def writable(self) -> Quota:
        """The quota of its tree. Raises Errno(ROFS) where there is none."""
        if self.quota is None:
            raise Errno(ROFS)
        return self.quota

    def twin(self, quota: Quota) -> Node:
        """The same in the tree of `quota`, open nowhere; a folder's is empty."""
        twin = copy(self)
        twin.quota = quota
        twin.opens = 0
        return twin

    def release(self) -> None:
        """Give its space back once it has neither a name nor a descriptor."""
        if not self.is_linked and not self.opens and self.quota is not None:
            self.quota.give(self.size + NODE_BYTES, 1)
            self.quota.changes += 1


class Folder(Node):
    """A folder. `depth` is how many folders it is below the root of its tree."""

    __slots__ = ("depth", "names")
    kind = FOLDER

    def __init__(self, number: int, quota: Quota | None = None, depth: int = 0) -> None:
        super().__init__(number, quota)
        self.names: dict[bytes, Node] = {}
        self.depth = depth

    def twin(self, quota: Quota) -> Folder:
        """See Node."""
        twin = copy(self)
        twin.quota, twin.opens, twin.names = quota, 0, {}
        return twin

    def add(self, name: bytes, node: Node) -> None:
        """Give `node`, which is new, a name here. Raises Errno(NOSPC), and others."""
        quota = self.writable()
        if not self.is_linked:
            raise Errno(NOENT)
        if isinstance(node, Folder) and self.depth >= MOST_DEPTH:
            raise Errno(NAMETOOLONG)
        quota.take(NODE_BYTES + node.size, 1)
        self.names[name] = node
        self.touch()

    def remove(self, name: bytes) -> None:
        """Take a name away from its node."""
        self.writable()
        node = self.names.pop(name)
        self.touch()
        node.is_linked = False
        node.release()


class File(Node):
    """A file in memory. `given` is what it starts with; see Contents."""

    __slots__ = ("_contents",)
    kind = FILE

    def __init__(self, number: int, quota: Quota, given: bytes | bytearray = b"") -> None:
        super().__init__(number, quota)
        self._contents = Contents(given)

    @property
    def size(self) -> int:
        """See Node."""
        return self._contents.length

    def twin(self, quota: Quota) -> File:
        """See Node."""
        twin = copy(self)
        twin.quota, twin.opens, twin._contents = quota, 0, self._contents.twin()
        return twin

    def pieces(self) -> Iterator[tuple[int, bytes]]:
        """See Contents."""
        return self._contents.pieces()

    def read(self, position: int, length: int) -> bytes:
        """At most `length` bytes from `position`."""
        return self._contents.read(position, length)

    def write(self, position: int, data: bytes) -> None:
        """Put `data` at `position`, behind zeros where the file ended before. Raises Errno(NOSPC)."""
        if not data:
            return
        grown = position + len(data) - self._contents.length
        if grown > 0:
            self.writable().take(grown)
        self._contents.write(position, data)
        self.touch()

    def resize(self, size: int) -> None:
        """Cut, or let zeros follow. Raises Errno(NOSPC)."""
        grown = size - self._contents.length
        if grown > 0:
            self.writable().take(grown)
        else:
            self.writable().give(-grown)
        self._contents.resize(size)
        self.touch()


class Link(Node):
    """A symbolic link. `target` is counted like a file's contents."""

    __slots__ = ("target",)
    kind = LINK

    def __init__(self, number: int, quota: Quota, target: bytes) -> None:
        super().__init__(number, quota)
        self.target = target

    @property
    def size(self) -> int:
        """See Node."""
        return len(self.target)


class MountPoint(Node):
    """Where a folder of the host's hangs: all below it is the parent process's to look at."""

    __slots__ = ("handle", "is_read_only")
    kind = FOLDER

    def __init__(self, number: int, handle: int, is_read_only: bool) -> None:
        super().__init__(number)
        self.handle = handle
        self.is_read_only = is_read_only
