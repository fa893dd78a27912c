"""Mounts: how a worker, which can open nothing, asks its parent process for what is in a folder of the host's.

A request is one frame of one shape whatever it asks; an answer is an errno and, when that is 0, what was asked for. The
parent's side is `wasmeval/preopens.py`: it trusts no request. Handles are numbers of the parent's; a mounted folder's
own is its place among the mounts, from 1 on.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from enum import IntEnum
from typing import NamedTuple

from wasmeval.wasm.errno import IO, Errno
from wasmeval.wasm.nodes import MountPoint, Node


class FileOperation(IntEnum):
    """What is asked, and which parts of the request it uses beside `handle`; then what the answer is."""

    OPEN = 1
    """`path`, `flags` (a Flag sum): a handle, u32, and a STAT."""
    READ = 2
    """`first`, the position, and `second`, the most bytes: the file's size, u64, and bytes."""
    WRITE = 3
    """`first`, the position, or Flag.APPEND, and `data`: bytes written, the position behind, the size."""
    STATUS = 4
    """A STAT."""
    RESIZE = 5
    """`first`, the new size; with Flag.GROW it is not made smaller."""
    TIMES = 6
    """`first` and `second`, access and modification in nanoseconds, or KEEP."""
    LIST = 7
    """All entries: number, u64, kind, u8, length of the name, u8, the name."""
    PATH_STATUS = 8
    """`path`, Flag.FOLLOW: a STAT."""
    PATH_TIMES = 9
    """`path`, Flag.FOLLOW, and as TIMES."""
    MAKE_FOLDER = 10
    REMOVE_FOLDER = 11
    REMOVE_FILE = 12
    """`path`."""
    RENAME = 13
    """`path`, and `data`, the new path from the folder `other`."""
    READ_LINK = 14
    """`path`: the link's text."""


class Flag(IntEnum):
    """Bits of a request's `flags`."""

    FOLLOW = 1
    CREATE = 2
    FOLDER = 4
    EXCLUSIVE = 8
    TRUNCATE = 16
    WRITE = 32
    APPEND = 64
    GROW = 128


KEEP = (1 << 64) - 1
"""A time that stays as it is."""

MOST_IO_BYTES = 1 << 20
AHEAD_BYTES = 256 << 10
"""What is read of a file in one piece when it is read from front to back."""

STAT = struct.Struct("<BQQQQQ")
"""Kind, number, size, accessed, modified, changed."""
OPENED = struct.Struct("<I")
WRITTEN = struct.Struct("<IQQ")
SIZE = struct.Struct("<Q")
ENTRY = struct.Struct("<QBB")

_HEAD = struct.Struct("<BIIIQQHH")
_MOST_CLOSED = 256


class MalformedRequest(Exception):
    """Not a request. Whoever sent it is not the code that we wrote."""


class FileRequest(NamedTuple):
    """One request. `closed` are handles that are not needed any more; they are closed first."""

    operation: FileOperation
    handle: int
    path: bytes = b""
    flags: int = 0
    first: int = 0
    second: int = 0
    data: bytes = b""
    other: int = 0
    closed: tuple[int, ...] = ()

    def encode(self) -> bytes:
        """The frame."""
        head = _HEAD.pack(
            self.operation,
            self.handle,
            self.other,
            self.flags,
            self.first,
            self.second,
            len(self.path),
            len(self.closed),
        )
        return b"".join((head, struct.pack(f"<{len(self.closed)}I", *self.closed), self.path, self.data))

    @classmethod
    def decode(cls, frame: bytes) -> FileRequest:
        """The request in a frame from a worker. Raises MalformedRequest."""
        if len(frame) < _HEAD.size:
            raise MalformedRequest("too short")
        operation, handle, other, flags, first, second, path_length, count = _HEAD.unpack_from(frame)
        path_at = _HEAD.size + 4 * count
        data_at = path_at + path_length
        if count > _MOST_CLOSED or len(frame) < data_at or len(frame) - data_at > MOST_IO_BYTES:
            raise MalformedRequest("lengths that do not add up")
        try:
            known = FileOperation(operation)
        except ValueError:
            raise MalformedRequest(f"operation {operation}") from None
        closed = struct.unpack_from(f"<{count}I", frame, _HEAD.size)
        path, data = frame[path_at:data_at], frame[data_at:]
        return cls(known, handle, path, flags, first, second, data, other, closed)


class Ask(NamedTuple):
    """A WASI function cannot answer yet: its guest is suspended, and `finish` is called with the answer.

    `request` goes to the parent process; None waits for standard input instead, and the answer is then empty. `finish`
    writes the results into the guest's memory, or raises Errno.
    """

    request: bytes | None
    finish: Callable[[bytes], None]


def payload(answer: bytes) -> bytes:
    """What is behind the errno of an answer. Raises that Errno, and IO for an answer that is none."""
    if not answer:
        raise Errno(IO)
    if answer[0]:
        raise Errno(answer[0])
    return answer[1:]


def checked(layout: struct.Struct, data: bytes) -> tuple[int, ...]:
    """The numbers at the start of `data`. Raises Errno(IO) when it is too short."""
    if len(data) < layout.size:
        raise Errno(IO)
    return layout.unpack_from(data)


class HostNode(Node):
    """A file or folder of the host's that the guest has open.

    `ahead` are bytes that were read from `ahead_start` on; they are good as long as nothing was written by this
    guest since (`generation`). Others' writes may be seen late by what was read ahead.
    """

    __slots__ = (
        "ahead",
        "ahead_start",
        "generation",
        "handle",
        "kind",
        "length",
        "mount",
        "read_end",
    )

    def __init__(self, mount: MountPoint, handle: int, stat: tuple[int, ...]) -> None:
        self.kind, number, self.length, *times = stat
        super().__init__(number)
        self.accessed_ns, self.modified_ns, self.changed_ns = times
        self.mount = mount
        self.handle = handle
        self.ahead = b""
        self.ahead_start = self.read_end = self.generation = 0

    @property
    def device(self) -> int:
        """See Node."""
        return mount_device(self.mount)

    @property
    def size(self) -> int:
        """As of the last operation on it."""
        return self.length

    def take_ahead(self, position: int, length: int, generation: int) -> bytes | None:
        """What was read ahead at `position`; None when nothing was, or something was written since."""
        at = position - self.ahead_start
        if generation != self.generation or not 0 <= at < len(self.ahead):
            return None
        self.read_end = position + min(length, len(self.ahead) - at)
        return self.ahead[at : at + length]

    def wanted(self, position: int, length: int) -> int:
        """How much to read at `position` when `length` is asked for: more when it goes on from front to back."""
        return max(length, AHEAD_BYTES) if position == self.read_end else length

    def keep_ahead(self, position: int, data: bytes, length: int, generation: int) -> int:
        """Keep `data`, read at `position`, of which `length` is used at once. Returns the change of what is held."""
        held = len(self.ahead)
        self.ahead = data if len(data) > length else b""
        self.ahead_start, self.generation = position, generation
        self.read_end = position + min(length, len(data))
        return len(self.ahead) - held


def mount_device(mount: MountPoint) -> int:
    """The device number of all that is in a mounted folder."""
    return mount.number & 0xFFFF | 1 << 16
