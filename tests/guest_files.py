"""A guest's calls on files, made by hand: the WASI functions on a memory that is just bytes, mounts answered by the
real parent's side."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any

from wasmeval.grants import Folder, Mount
from wasmeval.limits import MIB
from wasmeval.preopens import OpenFolders
from wasmeval.wasm import errno, wasi
from wasmeval.wasm.library import Library

CREAT, DIRECTORY, EXCL, TRUNC = 1, 2, 4, 8
READ, WRITE = 1 << 1, 1 << 6
APPEND = 1
FOLDER, FILE, LINK = 3, 4, 7

_MEMORY_BYTES = 4 * MIB
_PATH, _NEW_PATH, _VECTOR, _OUT, _DATA = 0, 8192, 16384, 20480, 65536
_STAT = struct.Struct("<QQB7xQQQQQ")
_DIRENT = struct.Struct("<QQIB3x")


class Memory:
    """A guest's memory."""

    def __init__(self, size: int = _MEMORY_BYTES) -> None:
        self.data = bytearray(size)

    def read(self, address: int, length: int) -> bytes:
        if address + length > len(self.data):
            raise wasi.Errno(errno.FAULT)
        return bytes(self.data[address : address + length])

    def write(self, address: int, data: bytes) -> None:
        if address + len(data) > len(self.data):
            raise wasi.Errno(errno.FAULT)
        self.data[address : address + len(data)] = data


class GuestFiles:
    """One guest. Every method raises wasi.Errno as the guest would see it; paths are from `/` unless `fd` says else."""

    def __init__(
        self,
        library: Library | None = None,
        max_bytes: int = 8 * MIB,
        max_files: int = 1000,
        files: Mapping[str, bytes] | None = None,
        folders: Mapping[str, Folder] | None = None,
        mounts: Sequence[Mount] | None = None,
    ) -> None:
        self.memory = Memory()
        self.wasi = wasi.Wasi(self.memory, library or Library())
        self.folders = OpenFolders(folders or {})
        self.asked = 0
        if mounts is None:
            mounts = [Mount(name, folder.read_only) for name, folder in (folders or {}).items()]
        self.wasi.provide(max_bytes, max_files, files or {}, mounts)

    def __enter__(self) -> GuestFiles:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.folders.close()

    def call(self, name: str, *arguments: int) -> None:
        """A WASI function, asked of the parent where it has to be."""
        ask = wasi.FUNCTIONS[name][1](self.wasi, *arguments)
        if ask is None:
            return
        assert name in wasi.SUSPENDING
        assert ask.request is not None
        self.asked += 1
        ask.finish(self.folders.handle(ask.request))

    def open(
        self,
        path: str | bytes,
        how: int = 0,
        rights: int = READ,
        flags: int = 0,
        fd: int = 3,
        follow: int = 1,
    ) -> int:
        self.call("path_open", fd, follow, *self._path(path), how, rights, (1 << 28) - 1, flags, _OUT)
        return self._number(4)

    def close(self, fd: int) -> None:
        self.call("fd_close", fd)

    def write(self, fd: int, data: bytes, at: int | None = None) -> int:
        """All of `data` at once; at most a megabyte."""
        self.memory.write(_DATA, data)
        self.memory.write(_VECTOR, struct.pack("<II", _DATA, len(data)))
        if at is None:
            self.call("fd_write", fd, _VECTOR, 1, _OUT)
        else:
            self.call("fd_pwrite", fd, _VECTOR, 1, at, _OUT)
        return self._number(4)

    def read(self, fd: int, length: int = MIB, at: int | None = None) -> bytes:
        self.memory.write(_VECTOR, struct.pack("<II", _DATA, length))
        if at is None:
            self.call("fd_read", fd, _VECTOR, 1, _OUT)
        else:
            self.call("fd_pread", fd, _VECTOR, 1, at, _OUT)
        return self.memory.read(_DATA, self._number(4))

    def seek(self, fd: int, offset: int, whence: int = 0) -> int:
        self.call("fd_seek", fd, offset % 2**64, whence, _OUT)
        return self._number(8)

    def put(self, path: str | bytes, data: bytes = b"") -> None:
        """A file with these contents."""
        fd = self.open(path, CREAT | TRUNC, READ | WRITE)
        try:
            if data:
                assert self.write(fd, data) == len(data)
        finally:
            self.close(fd)

    def get(self, path: str | bytes) -> bytes:
        """The contents of a file."""
        fd, parts = self.open(path), []
        while part := self.read(fd):
            parts.append(part)
        self.close(fd)
        return b"".join(parts)

    def stat(self, path: str | bytes | int, follow: int = 1, fd: int = 3) -> dict[str, int]:
        """Of a path, or of a descriptor."""
        if isinstance(path, int):
            self.call("fd_filestat_get", path, _OUT)
        else:
            self.call("path_filestat_get", fd, follow, *self._path(path), _OUT)
        names = ("device", "number", "kind", "links", "size", "accessed", "modified", "changed")
        return dict(zip(names, _STAT.unpack(self.memory.read(_OUT, _STAT.size)), strict=True))

    def entries(self, fd: int, cookie: int = 0, size: int = MIB) -> list[tuple[int, bytes, int]]:
        """(next cookie, name, kind) of the whole entries that fit into `size` bytes."""
        self.call("fd_readdir", fd, _DATA, size, cookie, _OUT)
        data, at, found = self.memory.read(_DATA, self._number(4)), 0, []
        while at + _DIRENT.size <= len(data):
            following, _, length, kind = _DIRENT.unpack_from(data, at)
            at += _DIRENT.size
            if at + length <= len(data):
                found.append((following, data[at : at + length], kind))
            at += length
        return found

    def names(self, path: str | bytes) -> list[bytes]:
        """What is in a folder, sorted, without `.` and `..`."""
        fd = self.open(path, DIRECTORY, 0)
        names = sorted(name for _, name, _ in self.entries(fd) if name not in (b".", b".."))
        self.close(fd)
        return names

    def mkdir(self, path: str | bytes, fd: int = 3) -> None:
        self.call("path_create_directory", fd, *self._path(path))

    def rmdir(self, path: str | bytes, fd: int = 3) -> None:
        self.call("path_remove_directory", fd, *self._path(path))

    def unlink(self, path: str | bytes, fd: int = 3) -> None:
        self.call("path_unlink_file", fd, *self._path(path))

    def rename(self, path: str | bytes, new: str | bytes, fd: int = 3, new_fd: int = 3) -> None:
        self.call("path_rename", fd, *self._path(path), new_fd, *self._path(new, _NEW_PATH))

    def link(self, path: str | bytes, new: str | bytes) -> None:
        self.call("path_link", 3, 0, *self._path(path), 3, *self._path(new, _NEW_PATH))

    def symlink(self, target: str | bytes, path: str | bytes, fd: int = 3) -> None:
        self.call("path_symlink", *self._path(target, _NEW_PATH), fd, *self._path(path))

    def readlink(self, path: str | bytes, size: int = 5000) -> bytes:
        self.call("path_readlink", 3, *self._path(path), _DATA, size, _OUT)
        return self.memory.read(_DATA, self._number(4))

    def resize(self, fd: int, size: int) -> None:
        self.call("fd_filestat_set_size", fd, size)

    def allocate(self, fd: int, offset: int, length: int) -> None:
        self.call("fd_allocate", fd, offset, length)

    def code(self, method: str, *arguments: Any, **options: Any) -> int:
        """The errno with which a method ends, 0 for none."""
        try:
            getattr(self, method)(*arguments, **options)
        except wasi.Errno as error:
            return error.code
        return errno.SUCCESS

    def _path(self, path: str | bytes, address: int = _PATH) -> tuple[int, int]:
        data = path.encode() if isinstance(path, str) else path
        self.memory.write(address, data)
        return address, len(data)

    def _number(self, size: int) -> int:
        return int.from_bytes(self.memory.read(_OUT, size), "little")
