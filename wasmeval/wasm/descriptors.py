"""Descriptors: a guest's table of what it has open, and its memory, as far as calls on files need them."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Protocol

from wasmeval.wasm.errno import BADF, INVAL, IO, ISDIR, MFILE, NAMETOOLONG, NOENT, NOTDIR, Errno
from wasmeval.wasm.globs import Found
from wasmeval.wasm.library import Library
from wasmeval.wasm.lookup import MOST_PATH_BYTES, HostPlace, Place, check_name, find, find_inside
from wasmeval.wasm.mounts import Ask, FileOperation, FileRequest, HostNode, payload
from wasmeval.wasm.nodes import FOLDER, Folder, Node
from wasmeval.wasm.output import Output
from wasmeval.wasm.stdin import Stdin
from wasmeval.wasm.workspace import Mounted, Workspace
from wasmeval.wasm.world import ACTUAL, Sight

STDIN, STDOUT, STDERR, ROOT = 0, 1, 2, 3
MOST_DESCRIPTORS = 256
_MOST_VECTORS = 1024

FD_READ, FD_SEEK, FD_TELL, FD_WRITE = 1 << 1, 1 << 2, 1 << 5, 1 << 6
FD_ALLOCATE, PATH_FILESTAT_SET_SIZE, FD_FILESTAT_SET_SIZE = 1 << 8, 1 << 19, 1 << 22
ALL_RIGHTS = (1 << 28) - 1
"""Those that files and folders have; the ones above are for sockets."""
FILE_RIGHTS = 1 << 0 | FD_READ | FD_SEEK | 1 << 3 | 1 << 4 | FD_TELL | FD_WRITE | 1 << 7 | FD_ALLOCATE | (
    1 << 21 | FD_FILESTAT_SET_SIZE | 1 << 23 | 1 << 27
)  # fmt: skip
FOLDER_RIGHTS = ALL_RIGHTS & ~(
    FD_READ | FD_SEEK | FD_TELL | FD_WRITE | 1 << 7 | FD_ALLOCATE | FD_FILESTAT_SET_SIZE
)

_VECTOR = struct.Struct("<II")
_FILESTAT = struct.Struct("<QQB7xQQQQQ")

Entry = tuple[bytes, int, int]
"""A name in a folder of the host's, its inode and its kind."""


class GuestMemory(Protocol):
    """The guest's memory; raises Errno(FAULT) for what is not in it."""

    def read(self, address: int, length: int) -> bytes:
        """`length` bytes at `address`."""

    def write(self, address: int, data: bytes) -> None:
        """Put `data` at `address`."""


class Descriptor:
    """One of the table. `listing` is a folder's contents as they were when their reading began, so that a position in
    it stays one whatever is removed meanwhile."""

    __slots__ = ("flags", "inheriting", "listing", "node", "position", "rights")

    def __init__(self, node: Node, rights: int, inheriting: int, flags: int = 0) -> None:
        self.node = node
        self.rights = rights
        self.inheriting = inheriting
        self.flags = flags
        self.position = 0
        self.listing: Sequence[bytes] | Sequence[Entry] | None = None


class Descriptors:
    """What all calls on files share. A guest that touches no file has no table, and no tree."""

    __slots__ = (
        "_closed",
        "_descriptors",
        "_generation",
        "_given",
        "_held_bytes",
        "_library",
        "_workspace",
        "memory",
        "on_output",
        "stderr",
        "stdin",
        "stdout",
        "world",
    )  # fmt: skip

    def __init__(self, memory: GuestMemory, library: Library) -> None:
        self.memory = memory
        self.world: Sight = ACTUAL
        """What it sees of time and chance; see `enter`."""
        self.stdout = Output(0)
        self.stderr = Output(0)
        self.stdin: Stdin | None = None
        """None: standard input is at its end."""
        self.on_output: Callable[[int, bytes], None] | None = None
        """Called with the stream, 1 or 2, and what is written to it, as it is written."""
        self._library = library
        self._workspace: Workspace | None = None
        self._descriptors: dict[int, Descriptor] = {}
        self._given: tuple[int, int, Mapping[str, bytes], Sequence[Mounted]] = (0, 0, {}, ())
        self._closed: list[int] = []
        self._generation = 0
        self._held_bytes = 0

    def provide(
        self,
        max_bytes: int,
        max_files: int,
        files: Mapping[str, bytes] | None = None,
        mounts: Sequence[Mounted] = (),
    ) -> None:
        """What the guest has to write to and to read, once, before it starts: see Workspace."""
        self._given = max_bytes, max_files, files or {}, mounts
        if self._workspace is not None:
            self._furnish(self._workspace)

    def enter(self, world: Sight) -> None:
        """Let the guest see this of time and chance from now on."""
        self.world = world
        if self._workspace is not None:
            self._workspace.quota.now_ns = world.now_ns

    @property
    def workspace(self) -> Workspace | None:
        """Its tree; None as long as it has not looked at a file."""
        return self._workspace

    @property
    def table(self) -> dict[int, Descriptor]:
        """What it has open, by number."""
        return self._descriptors

    def furnish(self, workspace: Workspace, table: dict[int, Descriptor]) -> None:
        """Let the guest, which is new, have this tree, and have this open in it."""
        self._workspace, self._descriptors = workspace, table
        workspace.quota.now_ns = self.world.now_ns

    def settle(self) -> None:
        """Put the files where they belong that it was given and has not looked at: it may be given others."""
        if self._given[2]:
            self._tree()

    def close_node(self, descriptor: Descriptor) -> None:
        """The descriptor, which stays in the table, is not on its node any more."""
        self._drop(descriptor)

    @property
    def workspace_bytes(self) -> int:
        """Host memory that the guest's files, folders and input take, nearly: a file that shrank may take twice its
        length."""
        files = self._workspace.quota.bytes if self._workspace else sum(map(len, self._given[2].values()))
        return files + self._held_bytes + (self.stdin.held_bytes if self.stdin else 0)

    def collect(self, patterns: Iterable[str]) -> Iterator[Found]:
        """The files below /workspace that match one of `patterns`: see Workspace. For when the guest has ended."""
        return self._tree().collect(patterns)

    # --- the table -----------------------------------------------------------------------------------------------

    def _tree(self) -> Workspace:
        """The guest's files; from its first look at them on."""
        if self._workspace is None:
            self._workspace = Workspace(self._library, self.world.now_ns)
            self._descriptors[ROOT] = Descriptor(self._workspace.root, FOLDER_RIGHTS, ALL_RIGHTS)
            self._furnish(self._workspace)
        return self._workspace

    def _furnish(self, workspace: Workspace) -> None:
        max_bytes, max_files, files, mounts = self._given
        workspace.quota.max_bytes, workspace.quota.max_files = max_bytes, max_files
        workspace.put(files)
        workspace.mount(mounts)
        # What a file was given may go as it is written over.
        self._given = max_bytes, max_files, {}, ()

    def _descriptor(self, fd: int) -> Descriptor:
        descriptor = self._descriptors.get(fd)
        if descriptor is None:
            if self._workspace is not None:
                raise Errno(BADF)
            self._tree()
            return self._descriptor(fd)
        return descriptor

    def _file(self, fd: int, right: int = 0) -> Descriptor:
        """The descriptor of a file, open for `right`."""
        descriptor = self._descriptor(fd)
        if descriptor.node.kind == FOLDER:
            raise Errno(ISDIR)
        if right and not descriptor.rights & right:
            raise Errno(BADF)
        return descriptor

    def _open(self, descriptor: Descriptor) -> int:
        """The lowest free number, now the descriptor's."""
        number = ROOT
        while number in self._descriptors:
            number += 1
        self._descriptors[number] = descriptor
        descriptor.node.opens += 1
        return number

    def _check_room(self) -> None:
        if len(self._descriptors) >= MOST_DESCRIPTORS:
            raise Errno(MFILE)

    def _drop(self, descriptor: Descriptor) -> None:
        """Nothing refers to it any more."""
        node = descriptor.node
        self._list(descriptor, None)
        node.opens -= 1
        if isinstance(node, HostNode):
            self._closed.append(node.handle)
            self._held_bytes -= len(node.ahead)
        else:
            node.release()

    def _list(self, descriptor: Descriptor, listing: Sequence[bytes] | Sequence[Entry] | None) -> None:
        """Let `listing` be what the descriptor's folder has in it."""
        # A place in the listing, and of the host's folders an entry around it.
        cost = 256 if descriptor.node.handle else 8
        self._held_bytes += cost * (len(listing or ()) - len(descriptor.listing or ()))
        descriptor.listing = listing

    # --- arguments -----------------------------------------------------------------------------------------------

    def _locate(self, fd: int, path: int, length: int, follow: int) -> Place | HostPlace:
        """Where a path in the guest's memory leads from `fd`; see lookup.find."""
        if length > MOST_PATH_BYTES:
            raise Errno(NAMETOOLONG)
        name = self.memory.read(path, length)
        if b"\0" in name:
            raise Errno(INVAL)
        node = self._descriptor(fd).node
        if not name:
            raise Errno(NOENT)
        if isinstance(node, Folder):
            place = find(self._tree().root, node, name, follow)
            if type(place) is HostPlace:
                _check_names(place.path)
            return place
        if isinstance(node, HostNode) and node.kind == FOLDER:
            _check_names(name)
            return find_inside(node.mount, node.handle, name)
        raise Errno(NOTDIR)

    def _vectors(self, address: int, count: int) -> list[tuple[int, int]]:
        if count > _MOST_VECTORS:
            raise Errno(INVAL)
        return list(_VECTOR.iter_unpack(self.memory.read(address, 8 * count)))

    def _ask(
        self,
        finish: Callable[[bytes], None],
        operation: FileOperation,
        handle: int,
        path: bytes = b"",
        flags: int = 0,
        first: int = 0,
        second: int = 0,
        data: bytes = b"",
        other: int = 0,
    ) -> Ask:
        """Ask the parent process; see mounts.FileRequest."""
        closed, self._closed = tuple(self._closed), []
        request = FileRequest(operation, handle, path, flags, first, second, data, other, closed)
        return Ask(request.encode(), lambda answer: finish(payload(answer)))


def filestat(node: Node) -> bytes:
    """A node's filestat."""
    return _FILESTAT.pack(
        node.device, node.number, node.kind, 1, node.size, node.accessed_ns, node.modified_ns, node.changed_ns
    )


def filestat_of(device: int, stat: tuple[int, ...]) -> bytes:
    """The filestat of what the parent process told of a file."""
    kind, number, size, *times = stat
    try:
        return _FILESTAT.pack(device, number, kind, 1, size, *times)
    except struct.error:
        raise Errno(IO) from None


def signed(value: int) -> int:
    """A u64 as the i64 that it is."""
    return value - (1 << 64) if value >> 63 else value


def _check_names(path: bytes) -> None:
    for name in path.split(b"/"):
        check_name(name)
