"""Files: WASI's calls on open files and folders. What is in the worker is answered at once, what is the host's is asked
for; see mounts.py."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence

from wasmeval.wasm.descriptors import (
    FD_READ,
    FD_WRITE,
    ROOT,
    STDERR,
    STDIN,
    STDOUT,
    Descriptor,
    Descriptors,
    Entry,
    filestat,
    filestat_of,
    signed,
)
from wasmeval.wasm.errno import BADF, INVAL, IO, NAMETOOLONG, NOTCAPABLE, NOTDIR, SPIPE, Errno
from wasmeval.wasm.library import LibraryFile
from wasmeval.wasm.mounts import (
    ENTRY,
    KEEP,
    MOST_IO_BYTES,
    SIZE,
    STAT,
    WRITTEN,
    Ask,
    FileOperation,
    Flag,
    HostNode,
    checked,
)
from wasmeval.wasm.nodes import FOLDER, UNKNOWN, File, Folder, Node

APPEND = 1
"""Of a descriptor's flags the one that does something; nothing here blocks or is ever out of step with a disk."""
_KNOWN_FLAGS = 31

_FDSTAT = struct.Struct("<BxHxxxxQQ")
_DIRENT = struct.Struct("<QQIB3x")
_LARGEST_POSITION = (1 << 63) - 1
_SET_ACCESSED, _ACCESSED_NOW, _SET_MODIFIED, _MODIFIED_NOW = 1, 2, 4, 8


class FileCalls(Descriptors):
    """fd_read, fd_write and the rest. Each answers None when it is done, or an Ask."""

    __slots__ = ()

    # --- bytes ---------------------------------------------------------------------------------------------------

    def fd_write(self, fd: int, vectors: int, count: int, written_out: int) -> Ask | None:
        """To stdout, stderr, or a file, from the descriptor's position on or at its end."""
        if fd in (STDOUT, STDERR):
            self._print(fd, vectors, count, written_out)
            return None
        descriptor = self._file(fd, FD_WRITE)
        node = descriptor.node
        at_end = descriptor.flags & APPEND
        if isinstance(node, HostNode):
            flags = Flag.APPEND if at_end else 0
            return self._write_host(node, descriptor.position, flags, vectors, count, written_out, descriptor)
        start = node.size if at_end else descriptor.position
        total = self._write_from(node, start, vectors, count)
        descriptor.position = start + total
        self.memory.write(written_out, total.to_bytes(4, "little"))
        return None

    def fd_pwrite(self, fd: int, vectors: int, count: int, position: int, written_out: int) -> Ask | None:
        """At `position`."""
        if fd <= STDERR:
            raise Errno(SPIPE)
        node = self._file(fd, FD_WRITE).node
        if position > _LARGEST_POSITION:
            raise Errno(INVAL)
        if isinstance(node, HostNode):
            return self._write_host(node, position, 0, vectors, count, written_out)
        total = self._write_from(node, position, vectors, count)
        self.memory.write(written_out, total.to_bytes(4, "little"))
        return None

    def fd_read(self, fd: int, vectors: int, count: int, read_out: int) -> Ask | None:
        """From stdin, or on from the descriptor's position."""
        if fd <= STDERR:
            return self._read_stdin(fd, vectors, count, read_out)
        descriptor = self._file(fd, FD_READ)
        node = descriptor.node
        if isinstance(node, HostNode):
            return self._read_host(node, descriptor.position, vectors, count, read_out, descriptor)
        descriptor.position += self._read_into(node, descriptor.position, vectors, count, read_out)
        return None

    def fd_pread(self, fd: int, vectors: int, count: int, position: int, read_out: int) -> Ask | None:
        """At `position`."""
        if fd <= STDERR:
            raise Errno(SPIPE)
        node = self._file(fd, FD_READ).node
        if position > _LARGEST_POSITION:
            raise Errno(INVAL)
        if isinstance(node, HostNode):
            return self._read_host(node, position, vectors, count, read_out)
        self._read_into(node, position, vectors, count, read_out)
        return None

    def fd_seek(self, fd: int, offset: int, whence: int, position_out: int) -> None:
        """Move the position; whence 0 is the start, 1 the position, 2 the end."""
        if fd <= STDERR:
            raise Errno(SPIPE)
        descriptor = self._descriptor(fd)
        if descriptor.node.kind == FOLDER:
            raise Errno(BADF)
        if whence > 2:
            raise Errno(INVAL)
        position = (0, descriptor.position, descriptor.node.size)[whence] + signed(offset)
        if not 0 <= position <= _LARGEST_POSITION:
            raise Errno(INVAL)
        descriptor.position = position
        self.memory.write(position_out, position.to_bytes(8, "little"))

    def fd_tell(self, fd: int, position_out: int) -> None:
        """The position."""
        if fd <= STDERR:
            raise Errno(SPIPE)
        self.memory.write(position_out, self._file(fd).position.to_bytes(8, "little"))

    def fd_allocate(self, fd: int, offset: int, length: int) -> Ask | None:
        """Make the file at least so long."""
        node = self._file(fd, FD_WRITE).node
        if not length or offset + length > _LARGEST_POSITION:
            raise Errno(INVAL)
        if isinstance(node, HostNode):
            return self._resize_host(node, offset + length, Flag.GROW)
        if offset + length > node.size:
            _writable(node).resize(offset + length)
        return None

    def fd_filestat_set_size(self, fd: int, size: int) -> Ask | None:
        """Cut the file, or fill it up with zeros."""
        node = self._file(fd, FD_WRITE).node
        if size > _LARGEST_POSITION:
            raise Errno(INVAL)
        if isinstance(node, HostNode):
            return self._resize_host(node, size, 0)
        _writable(node).resize(size)
        return None

    def fd_sync(self, fd: int) -> None:
        """fd_sync, fd_datasync: what is written is as safe as it will ever be."""
        if fd > STDERR:
            self._descriptor(fd)

    def fd_advise(self, fd: int, _offset: int, _length: int, advice: int) -> None:
        """Good to know."""
        self._file(fd)
        if advice > 5:
            raise Errno(INVAL)

    # --- descriptors ---------------------------------------------------------------------------------------------

    def fd_close(self, fd: int) -> None:
        """Close a descriptor; the standard streams stay."""
        if fd > STDERR:
            self._drop(self._descriptor(fd))
            del self._descriptors[fd]

    def fd_renumber(self, fd: int, to: int) -> None:
        """`to`, which must be open, is closed and is what `fd` was. The standard streams stay where they are."""
        if fd <= STDERR or to <= STDERR:
            raise Errno(BADF)
        moved, dropped = self._descriptor(fd), self._descriptor(to)
        if fd != to:
            self._drop(dropped)
            self._descriptors[to] = moved
            del self._descriptors[fd]

    def fd_fdstat_get(self, fd: int, out: int) -> None:
        """Kind, flags and rights."""
        if fd <= STDERR:
            rights = FD_READ if fd == STDIN else FD_WRITE
            self.memory.write(out, _FDSTAT.pack(UNKNOWN, 0, rights, 0))
            return
        descriptor = self._descriptor(fd)
        kind = descriptor.node.kind
        self.memory.write(out, _FDSTAT.pack(kind, descriptor.flags, descriptor.rights, descriptor.inheriting))

    def fd_fdstat_set_flags(self, fd: int, flags: int) -> None:
        """APPEND counts; the others are kept to be told."""
        if flags & ~_KNOWN_FLAGS:
            raise Errno(INVAL)
        if fd > STDERR:
            self._descriptor(fd).flags = flags

    def fd_fdstat_set_rights(self, fd: int, rights: int, inheriting: int) -> None:
        """Rights only ever become fewer."""
        descriptor = self._descriptor(fd)
        if rights & ~descriptor.rights or inheriting & ~descriptor.inheriting:
            raise Errno(NOTCAPABLE)
        descriptor.rights, descriptor.inheriting = rights, inheriting

    def fd_filestat_get(self, fd: int, out: int) -> Ask | None:
        """Size, kind and times of what is open."""
        if fd <= STDERR:
            self.memory.write(out, filestat(Node(0)))
            return None
        node = self._descriptor(fd).node
        if isinstance(node, HostNode):

            def finish(answer: bytes) -> None:
                stat = checked(STAT, answer)
                node.length = stat[2]
                self.memory.write(out, filestat_of(node.device, stat))

            return self._ask(finish, FileOperation.STATUS, node.handle)
        self.memory.write(out, filestat(node))
        return None

    def fd_filestat_set_times(self, fd: int, accessed: int, modified: int, flags: int) -> Ask | None:
        """Set one of the times, or both."""
        node = self._descriptor(fd).node
        first, second = chosen_times(self.world.now_ns(), accessed, modified, flags)
        if isinstance(node, HostNode):
            return self._ask(nothing, FileOperation.TIMES, node.handle, first=first, second=second)
        set_times(node, first, second)
        return None

    # --- folders -------------------------------------------------------------------------------------------------

    def fd_prestat_get(self, fd: int, out: int) -> None:
        """The one preopen, `/`."""
        if fd != ROOT:
            raise Errno(BADF)
        self.memory.write(out, (1 << 32).to_bytes(8, "little"))

    def fd_prestat_dir_name(self, fd: int, out: int, length: int) -> None:
        """Its name."""
        if fd != ROOT:
            raise Errno(BADF)
        if length < 1:
            raise Errno(NAMETOOLONG)
        self.memory.write(out, b"/")

    def fd_readdir(self, fd: int, out: int, length: int, cookie: int, used_out: int) -> Ask | None:
        """Entries of a folder from `cookie` on, the last one cut where the buffer ends."""
        descriptor = self._descriptor(fd)
        node = descriptor.node
        if node.kind != FOLDER:
            raise Errno(NOTDIR)
        if cookie == 0 or descriptor.listing is None:
            if isinstance(node, HostNode):

                def finish(answer: bytes) -> None:
                    self._list(descriptor, _entries(answer))
                    self._write_entries(descriptor, out, length, cookie, used_out)

                return self._ask(finish, FileOperation.LIST, node.handle)
            assert isinstance(node, Folder)
            self._list(descriptor, tuple(node.names))
        self._write_entries(descriptor, out, length, cookie, used_out)
        return None

    # --- inside --------------------------------------------------------------------------------------------------

    def _print(self, fd: int, vectors: int, count: int, written_out: int) -> None:
        output, total = self.stdout if fd == STDOUT else self.stderr, 0
        for address, length in self._vectors(vectors, count):
            # A short write is an answer every libc knows; so no call copies more than this.
            taken = min(length, MOST_IO_BYTES - total)
            data = self.memory.read(address, taken)
            output.write(data)
            if self.on_output is not None:
                self.on_output(fd, data)
            total += taken
            if taken < length:
                break
        self.memory.write(written_out, total.to_bytes(4, "little"))

    def _read_stdin(self, fd: int, vectors: int, count: int, read_out: int) -> Ask | None:
        if fd != STDIN:
            raise Errno(BADF)
        stdin, wanted = self.stdin, self._vectors(vectors, count)
        if stdin is None:
            self.memory.write(read_out, bytes(4))
            return None

        def finish(_answer: bytes) -> None:
            self._scatter(
                stdin.read(min(sum(length for _, length in wanted), MOST_IO_BYTES)), wanted, read_out
            )

        if not stdin.is_ready and any(length for _, length in wanted):
            return Ask(None, finish)
        finish(b"")
        return None

    def _read_into(self, node: Node, position: int, vectors: int, count: int, read_out: int) -> int:
        assert isinstance(node, File | LibraryFile)
        total = 0
        for address, length in self._vectors(vectors, count):
            data = node.read(position + total, min(length, MOST_IO_BYTES - total))
            self.memory.write(address, data)
            total += len(data)
            if len(data) < length:
                break
        self.memory.write(read_out, total.to_bytes(4, "little"))
        return total

    def _write_from(self, node: Node, position: int, vectors: int, count: int) -> int:
        file, total = _writable(node), 0
        for address, length in self._vectors(vectors, count):
            taken = min(length, MOST_IO_BYTES - total)
            data = self.memory.read(address, taken)
            try:
                file.write(position + total, data)
            except Errno:
                if total:
                    break
                raise
            total += taken
            if taken < length:
                break
        return total

    def _scatter(self, data: bytes, vectors: Sequence[tuple[int, int]], out: int) -> None:
        """Put `data` where the guest wants it, and its length at `out`."""
        at = 0
        for address, length in vectors:
            if at >= len(data):
                break
            self.memory.write(address, data[at : at + length])
            at += length
        self.memory.write(out, len(data).to_bytes(4, "little"))

    def _write_entries(
        self, descriptor: Descriptor, out: int, length: int, cookie: int, used_out: int
    ) -> None:
        data, length = bytearray(), min(length, MOST_IO_BYTES)
        for position, (name, number, kind) in _listed(descriptor, cookie):
            data += _DIRENT.pack(position, number, len(name), kind) + name
            if len(data) >= length:
                break
        self.memory.write(out, bytes(data[:length]))
        self.memory.write(used_out, min(len(data), length).to_bytes(4, "little"))

    def _read_host(
        self,
        node: HostNode,
        position: int,
        vectors: int,
        count: int,
        out: int,
        moved: Descriptor | None = None,
    ) -> Ask | None:
        """Read a file of the host's; `moved` is the descriptor whose position goes on."""
        wanted = self._vectors(vectors, count)
        length = min(sum(length for _, length in wanted), MOST_IO_BYTES)

        def give(data: bytes) -> None:
            self._scatter(data, wanted, out)
            if moved is not None:
                moved.position = position + len(data)

        ahead = node.take_ahead(position, length, self._generation)
        if ahead is not None or not length:
            give(ahead or b"")
            return None
        asked = node.wanted(position, length)

        def finish(answer: bytes) -> None:
            (node.length,) = checked(SIZE, answer)
            data = answer[SIZE.size :]
            if len(data) > asked:
                raise Errno(IO)
            self._held_bytes += node.keep_ahead(position, data, length, self._generation)
            give(data[:length])

        return self._ask(finish, FileOperation.READ, node.handle, first=position, second=asked)

    def _write_host(
        self,
        node: HostNode,
        position: int,
        flags: int,
        vectors: int,
        count: int,
        out: int,
        moved: Descriptor | None = None,
    ) -> Ask:
        parts, room = [], MOST_IO_BYTES
        for address, length in self._vectors(vectors, count):
            parts.append(self.memory.read(address, min(length, room)))
            room -= len(parts[-1])
        self._generation += 1

        def finish(answer: bytes) -> None:
            written, end, node.length = checked(WRITTEN, answer)
            if moved is not None:
                moved.position = end
            self.memory.write(out, written.to_bytes(4, "little"))

        data = b"".join(parts)
        return self._ask(finish, FileOperation.WRITE, node.handle, flags=flags, first=position, data=data)

    def _resize_host(self, node: HostNode, size: int, flags: int) -> Ask:
        self._generation += 1

        def finish(answer: bytes) -> None:
            (node.length,) = checked(SIZE, answer)

        return self._ask(finish, FileOperation.RESIZE, node.handle, flags=flags, first=size)


def chosen_times(now: int, accessed: int, modified: int, flags: int) -> tuple[int, int]:
    """The times that a call sets when it is `now`, in nanoseconds; KEEP for one that it does not."""
    if flags & 3 == 3 or flags & 12 == 12 or flags > 15:
        raise Errno(INVAL)
    first = accessed if flags & _SET_ACCESSED else now if flags & _ACCESSED_NOW else KEEP
    second = modified if flags & _SET_MODIFIED else now if flags & _MODIFIED_NOW else KEEP
    return first, second


def set_times(node: Node, accessed: int, modified: int) -> None:
    """Give `node` these times. Raises Errno(ROFS)."""
    quota = node.writable()
    quota.changes += 1
    if accessed != KEEP:
        node.accessed_ns = accessed
    if modified != KEEP:
        node.modified_ns = modified
    node.changed_ns = quota.now_ns()


def _writable(node: Node) -> File:
    node.writable()
    if not isinstance(node, File):
        raise Errno(INVAL)
    return node


def nothing(_answer: bytes) -> None:
    """An answer that only says that it is done."""


def _listed(descriptor: Descriptor, cookie: int) -> Iterator[tuple[int, Entry]]:
    """The entries of a folder that is being read, from `cookie` on, each with the cookie of the next."""
    node, listing = descriptor.node, descriptor.listing or ()
    for at, name in enumerate((b".", b"..")):
        if at >= cookie:
            yield at + 1, (name, node.number, FOLDER)
    for at in range(max(cookie - 2, 0), len(listing)):
        each = listing[at]
        if isinstance(each, tuple):
            yield at + 3, each
        elif isinstance(node, Folder) and (child := node.names.get(each)) is not None:
            yield at + 3, (each, child.number, child.kind)


def _entries(answer: bytes) -> list[Entry]:
    """The entries in an answer to LIST."""
    entries, at = [], 0
    while at < len(answer):
        number, kind, length = checked(ENTRY, answer[at : at + ENTRY.size])
        at += ENTRY.size
        entries.append((answer[at : at + length], number, kind))
        at += length
    return entries
