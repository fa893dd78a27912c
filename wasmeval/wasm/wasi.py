"""The WASI preview 1 functions we supply: clock, random, sleep, output, and a read-only tree of files.

Wasmtime's own WASI is not linked: its sleep blocks the thread, its files need descriptors, its output has no
bound. Each `Wasi` is the view of one guest. A handler gets the call's integers, may raise `Errno`, and answers
0 otherwise; nothing else it does can reach the guest. Addresses and lengths come from the guest and are checked
in `GuestMemory`.

Source: https://github.com/WebAssembly/WASI/blob/main/legacy/preview1/docs.md
"""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Callable
from typing import Protocol

from wasmeval.wasm.library import Library, Node
from wasmeval.wasm.output import Output

MODULE = b"wasi_snapshot_preview1"

SUCCESS, BADF, EXIST, FAULT, INVAL, ISDIR, MFILE, NAMETOOLONG, NOENT, NOSYS, NOTDIR, ROFS, SPIPE = (
    0, 8, 20, 21, 28, 31, 33, 37, 44, 52, 54, 69, 70
)  # fmt: skip

_FOLDER, _FILE, _UNKNOWN = 3, 4, 0
_STDIN, _STDOUT, _STDERR, _ROOT = 0, 1, 2, 3
_MOST_DESCRIPTORS = 256
_MOST_VECTORS = 1024
_MOST_PATH_BYTES = 4096
_MOST_RANDOM_BYTES = 65536
_MOST_SUBSCRIPTIONS = 256
_MOST_IO_BYTES = 1 << 20

# fd_read, fd_seek, fd_tell, path_open, fd_readdir, path_filestat_get, fd_filestat_get, poll_fd_readwrite
_READING_RIGHTS = 1 << 1 | 1 << 2 | 1 << 5 | 1 << 13 | 1 << 14 | 1 << 18 | 1 << 21 | 1 << 27
_FD_WRITE = 1 << 6
_O_CREAT, _O_DIRECTORY, _O_EXCL, _O_TRUNC = 1, 2, 4, 8
_ABSOLUTE_TIME = 1
_REALTIME = 0

_FILESTAT = struct.Struct("<QQB7xQQQQQ")
_FDSTAT = struct.Struct("<BxHxxxxQQ")
_DIRENT = struct.Struct("<QQIB3x")
_SUBSCRIPTION = struct.Struct("<QB7xI4xQQH6x")
_EVENT = struct.Struct("<QHB5x16x")
_VECTOR = struct.Struct("<II")

# Every file in the library carries this time: 1980-01-01, the zip format's own beginning.
_FILE_TIME_NS = 315_532_800 * 10**9
# A guest's monotonic clock does not tell how long the machine has been up.
_MONOTONIC_BASE_NS = time.monotonic_ns() - 10**9


class Errno(Exception):
    """A WASI errno for the guest."""

    def __init__(self, code: int) -> None:
        self.code = code


class Exit(Exception):
    """The guest called proc_exit."""

    def __init__(self, code: int) -> None:
        self.code = code


class GuestMemory(Protocol):
    """The guest's memory; raises Errno(FAULT) for what is not in it."""

    def read(self, address: int, length: int) -> bytes:
        """`length` bytes at `address`."""

    def write(self, address: int, data: bytes) -> None:
        """Put `data` at `address`."""


class Wasi:
    """What one guest sees of the world. Has no effect on anything but itself; needs no closing."""

    __slots__ = ("_descriptors", "_library", "memory", "stderr", "stdout")

    def __init__(self, memory: GuestMemory, library: Library) -> None:
        self.memory = memory
        self.stdout = Output(0)
        self.stderr = Output(0)
        self._library = library
        self._descriptors: dict[int, _Descriptor] | None = None

    # --- arguments and environment: empty ------------------------------------------------------------------------

    def sizes_get(self, count_out: int, size_out: int) -> None:
        """args_sizes_get, environ_sizes_get"""
        self.memory.write(count_out, bytes(4))
        self.memory.write(size_out, bytes(4))

    def nothing(self, *_: int) -> None:
        """args_get, environ_get, sched_yield, fd_sync on nothing: nothing to do."""

    # --- time and chance -----------------------------------------------------------------------------------------

    def clock_time_get(self, clock: int, _precision: int, out: int) -> None:
        """The wall clock, or a monotonic one for every other clock."""
        self.memory.write(out, clock_ns(clock).to_bytes(8, "little"))

    def clock_res_get(self, _clock: int, out: int) -> None:
        """One microsecond, nearly."""
        self.memory.write(out, (1000).to_bytes(8, "little"))

    def random_get(self, out: int, length: int) -> None:
        """Fresh entropy from the operating system."""
        if length > _MOST_RANDOM_BYTES:
            raise Errno(INVAL)
        self.memory.write(out, os.urandom(length))

    def sleep(self, subscriptions: int, events: int, count: int, count_out: int) -> int:
        """poll_oneoff: write the event that comes first, and say when it does, in monotonic nanoseconds (0: now)."""
        if not 0 < count <= _MOST_SUBSCRIPTIONS:
            raise Errno(INVAL)
        data = self.memory.read(subscriptions, 48 * count)
        first, wake = (0, 0, 0), None
        for userdata, tag, clock, timeout, _, flags in _SUBSCRIPTION.iter_unpack(data):
            due = 0
            if tag == 0:
                due = time.monotonic_ns() + timeout
                if flags & _ABSOLUTE_TIME:
                    due -= clock_ns(clock)
            if wake is None or due < wake:
                first, wake = (userdata, SUCCESS, tag), max(0, due)
        self.memory.write(events, _EVENT.pack(*first))
        self.memory.write(count_out, (1).to_bytes(4, "little"))
        return wake or 0

    def proc_exit(self, code: int) -> None:
        """Ends the guest."""
        raise Exit(code - (1 << 32) if code >> 31 else code)

    # --- descriptors ---------------------------------------------------------------------------------------------

    def fd_write(self, fd: int, vectors: int, count: int, written_out: int) -> None:
        """stdout and stderr; everything else cannot be written."""
        if fd == _STDOUT:
            output = self.stdout
        elif fd == _STDERR:
            output = self.stderr
        else:
            self._descriptor(fd)
            raise Errno(BADF)
        total = 0
        for address, length in self._vectors(vectors, count):
            # A short write is an answer every libc knows; so no call copies more than this.
            taken = min(length, _MOST_IO_BYTES - total)
            output.write(self.memory.read(address, taken))
            total += taken
            if taken < length:
                break
        self.memory.write(written_out, total.to_bytes(4, "little"))

    def fd_read(self, fd: int, vectors: int, count: int, read_out: int) -> None:
        """Read on from the descriptor's position; stdin is at its end."""
        if fd == _STDIN:
            self.memory.write(read_out, bytes(4))
            return
        descriptor = self._file(fd)
        descriptor.position += self._read_into(descriptor.node, descriptor.position, vectors, count, read_out)

    def fd_pread(self, fd: int, vectors: int, count: int, position: int, read_out: int) -> None:
        """Read at `position`."""
        self._read_into(self._file(fd).node, position, vectors, count, read_out)

    def fd_seek(self, fd: int, offset: int, whence: int, position_out: int) -> None:
        """Move the position; whence 0 is the start, 1 the position, 2 the end."""
        if fd <= _STDERR:
            raise Errno(SPIPE)
        descriptor = self._file(fd)
        signed = offset - (1 << 64) if offset >> 63 else offset
        if whence > 2:
            raise Errno(INVAL)
        position = (0, descriptor.position, descriptor.node.size)[whence] + signed
        if not 0 <= position < 1 << 63:
            raise Errno(INVAL)
        descriptor.position = position
        self.memory.write(position_out, position.to_bytes(8, "little"))

    def fd_tell(self, fd: int, position_out: int) -> None:
        """The position."""
        if fd <= _STDERR:
            raise Errno(SPIPE)
        self.memory.write(position_out, self._file(fd).position.to_bytes(8, "little"))

    def fd_close(self, fd: int) -> None:
        """Close a descriptor; the standard streams stay."""
        if fd > _STDERR:
            self._descriptor(fd)
            del self._table()[fd]

    def fd_fdstat_get(self, fd: int, out: int) -> None:
        """Kind and rights."""
        if fd <= _STDERR:
            rights = _READING_RIGHTS if fd == _STDIN else _FD_WRITE
            self.memory.write(out, _FDSTAT.pack(_UNKNOWN, 0, rights, 0))
            return
        node = self._descriptor(fd).node
        kind = _FOLDER if node.is_folder else _FILE
        # What may be asked for in path_open: wasi-libc drops what is not listed here, and an open for writing must
        # be seen to be refused.
        self.memory.write(out, _FDSTAT.pack(kind, 0, _READING_RIGHTS, _READING_RIGHTS | _FD_WRITE))

    def fd_filestat_get(self, fd: int, out: int) -> None:
        """Size, kind and times of an open file."""
        if fd <= _STDERR:
            self.memory.write(out, _FILESTAT.pack(0, 0, _UNKNOWN, 1, 0, 0, 0, 0))
            return
        self.memory.write(out, _filestat(self._descriptor(fd).node))

    def fd_prestat_get(self, fd: int, out: int) -> None:
        """The one preopen, `/`."""
        if fd != _ROOT:
            raise Errno(BADF)
        self.memory.write(out, (1 << 32).to_bytes(8, "little"))

    def fd_prestat_dir_name(self, fd: int, out: int, length: int) -> None:
        """Its name."""
        if fd != _ROOT:
            raise Errno(BADF)
        if length < 1:
            raise Errno(NAMETOOLONG)
        self.memory.write(out, b"/")

    def fd_readdir(self, fd: int, out: int, length: int, cookie: int, used_out: int) -> None:
        """Entries of a folder from `cookie` on, the last one cut where the buffer ends."""
        node = self._descriptor(fd).node
        if node.names is None:
            raise Errno(NOTDIR)
        entries = [(b".", node), (b"..", node), *node.names.items()]
        data = bytearray()
        for position, (name, child) in enumerate(entries[cookie:], cookie + 1):
            kind = _FOLDER if child.is_folder else _FILE
            data += _DIRENT.pack(position, child.number, len(name), kind) + name
            if len(data) >= length:
                break
        self.memory.write(out, bytes(data[:length]))
        self.memory.write(used_out, min(len(data), length).to_bytes(4, "little"))

    # --- paths ---------------------------------------------------------------------------------------------------

    def path_open(
        self,
        fd: int,
        _follow: int,
        path: int,
        length: int,
        how: int,
        rights: int,
        _inherit: int,
        _flags: int,
        out: int,
    ) -> None:
        """Open what is there, for reading."""
        node = self._find(fd, path, length)
        if node is None:
            raise Errno(ROFS if how & _O_CREAT else NOENT)
        if how & _O_CREAT and how & _O_EXCL:
            raise Errno(EXIST)
        if node.is_folder and rights & _FD_WRITE and not how & _O_DIRECTORY:
            raise Errno(ISDIR)
        if how & _O_TRUNC or (not node.is_folder and rights & _FD_WRITE):
            raise Errno(ROFS)
        if how & _O_DIRECTORY and not node.is_folder:
            raise Errno(NOTDIR)
        table = self._table()
        if len(table) >= _MOST_DESCRIPTORS:
            raise Errno(MFILE)
        number = next(n for n in range(_ROOT + 1, _ROOT + 1 + _MOST_DESCRIPTORS) if n not in table)
        table[number] = _Descriptor(node)
        self.memory.write(out, number.to_bytes(4, "little"))

    def path_filestat_get(self, fd: int, _follow: int, path: int, length: int, out: int) -> None:
        """Size, kind and times of what is at a path."""
        node = self._find(fd, path, length)
        if node is None:
            raise Errno(NOENT)
        self.memory.write(out, _filestat(node))

    def path_readlink(self, fd: int, path: int, length: int, _out: int, _size: int, _used: int) -> None:
        """There are no symbolic links."""
        raise Errno(NOENT if self._find(fd, path, length) is None else INVAL)

    # --- inside --------------------------------------------------------------------------------------------------

    def _table(self) -> dict[int, _Descriptor]:
        if self._descriptors is None:
            self._descriptors = {_ROOT: _Descriptor(self._library.root)}
        return self._descriptors

    def _descriptor(self, fd: int) -> _Descriptor:
        descriptor = self._table().get(fd)
        if descriptor is None:
            raise Errno(BADF)
        return descriptor

    def _file(self, fd: int) -> _Descriptor:
        descriptor = self._descriptor(fd)
        if descriptor.node.is_folder:
            raise Errno(ISDIR)
        return descriptor

    def _find(self, fd: int, path: int, length: int) -> Node | None:
        if length > _MOST_PATH_BYTES:
            raise Errno(NAMETOOLONG)
        name = self.memory.read(path, length)
        if b"\0" in name:
            raise Errno(INVAL)
        if not name:
            raise Errno(NOENT)
        try:
            return self._library.find(self._descriptor(fd).node, name)
        except NotADirectoryError:
            raise Errno(NOTDIR) from None

    def _vectors(self, address: int, count: int) -> list[tuple[int, int]]:
        if count > _MOST_VECTORS:
            raise Errno(INVAL)
        return list(_VECTOR.iter_unpack(self.memory.read(address, 8 * count)))

    def _read_into(self, node: Node, position: int, vectors: int, count: int, read_out: int) -> int:
        total = 0
        for address, length in self._vectors(vectors, count):
            data = self._library.read(node, position + total, min(length, _MOST_IO_BYTES - total))
            self.memory.write(address, data)
            total += len(data)
            if len(data) < length:
                break
        self.memory.write(read_out, total.to_bytes(4, "little"))
        return total


class _Descriptor:
    __slots__ = ("node", "position")

    def __init__(self, node: Node) -> None:
        self.node = node
        self.position = 0


def clock_ns(clock: int) -> int:
    """A guest's clock in nanoseconds: the wall clock for 0, a monotonic one for the rest."""
    return time.time_ns() if clock == _REALTIME else time.monotonic_ns() - _MONOTONIC_BASE_NS


def _filestat(node: Node) -> bytes:
    kind = _FOLDER if node.is_folder else _FILE
    return _FILESTAT.pack(1, node.number, kind, 1, node.size, _FILE_TIME_NS, _FILE_TIME_NS, _FILE_TIME_NS)


def _answer(code: int) -> Callable[..., None]:
    def handler(_wasi: Wasi, *_: int) -> None:
        raise Errno(code)

    return handler


Handler = Callable[..., None]

FUNCTIONS: dict[str, tuple[str, Handler]] = {
    "args_get": ("ii", Wasi.nothing),
    "args_sizes_get": ("ii", Wasi.sizes_get),
    "environ_get": ("ii", Wasi.nothing),
    "environ_sizes_get": ("ii", Wasi.sizes_get),
    "clock_res_get": ("ii", Wasi.clock_res_get),
    "clock_time_get": ("iIi", Wasi.clock_time_get),
    "random_get": ("ii", Wasi.random_get),
    "sched_yield": ("", Wasi.nothing),
    "fd_advise": ("iIIi", Wasi.nothing),
    "fd_close": ("i", Wasi.fd_close),
    "fd_datasync": ("i", Wasi.nothing),
    "fd_fdstat_get": ("ii", Wasi.fd_fdstat_get),
    "fd_filestat_get": ("ii", Wasi.fd_filestat_get),
    "fd_pread": ("iiiIi", Wasi.fd_pread),
    "fd_prestat_dir_name": ("iii", Wasi.fd_prestat_dir_name),
    "fd_prestat_get": ("ii", Wasi.fd_prestat_get),
    "fd_read": ("iiii", Wasi.fd_read),
    "fd_readdir": ("iiiIi", Wasi.fd_readdir),
    "fd_seek": ("iIii", Wasi.fd_seek),
    "fd_sync": ("i", Wasi.nothing),
    "fd_tell": ("ii", Wasi.fd_tell),
    "fd_write": ("iiii", Wasi.fd_write),
    "path_filestat_get": ("iiiii", Wasi.path_filestat_get),
    "path_open": ("iiiiiIIii", Wasi.path_open),
    "path_readlink": ("iiiiii", Wasi.path_readlink),
    # What would write, on files that cannot be written.
    "fd_allocate": ("iII", _answer(ROFS)),
    "fd_filestat_set_size": ("iI", _answer(ROFS)),
    "fd_filestat_set_times": ("iIIi", _answer(ROFS)),
    "fd_pwrite": ("iiiIi", _answer(ROFS)),
    "path_create_directory": ("iii", _answer(ROFS)),
    "path_filestat_set_times": ("iiiiIIi", _answer(ROFS)),
    "path_link": ("iiiiiii", _answer(ROFS)),
    "path_remove_directory": ("iii", _answer(ROFS)),
    "path_rename": ("iiiiii", _answer(ROFS)),
    "path_symlink": ("iiiii", _answer(ROFS)),
    "path_unlink_file": ("iii", _answer(ROFS)),
    # What this tier does not have.
    "fd_fdstat_set_flags": ("ii", _answer(NOSYS)),
    "fd_fdstat_set_rights": ("iII", _answer(NOSYS)),
    "fd_renumber": ("ii", _answer(NOSYS)),
    "proc_raise": ("i", _answer(NOSYS)),
    "sock_accept": ("iii", _answer(NOSYS)),
    "sock_recv": ("iiiiii", _answer(NOSYS)),
    "sock_send": ("iiiii", _answer(NOSYS)),
    "sock_shutdown": ("ii", _answer(NOSYS)),
}
"""Every synchronous function that answers an errno: its parameters and its handler. poll_oneoff and proc_exit
differ."""
