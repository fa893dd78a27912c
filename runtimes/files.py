"""Files: a read-only WASI file system in which nothing differs from build to build.

A host's inode numbers, times of change and order of names reach the guest's memory, and from there the snapshot: a
freed structure leaves its bytes in the padding of the next. Here names are sorted and every number is fixed.
Source: https://github.com/WebAssembly/WASI/blob/main/legacy/preview1/docs.md
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

_BAD_DESCRIPTOR, _IS_FOLDER, _NO_ENTRY, _NOT_FOLDER, _READ_ONLY, _NO_SEEK = 8, 31, 44, 54, 69, 70
_DEVICE, _FOLDER, _FILE = 2, 3, 4
_CREATE, _FOLDER_WANTED, _TRUNCATE = 1, 2, 8
_ALL_RIGHTS = (1 << 29) - 1
_ROOT = 3

Read = Callable[[int, int], bytes]
Write = Callable[[int, bytes], None]


@dataclass(slots=True)
class _Open:
    path: Path
    content: bytes = b""
    position: int = 0


class Files:
    """The functions of preview 1 over the folder `root`, the guest's `/` and its descriptor 3."""

    def __init__(self, root: Path, read: Read, write: Write) -> None:
        self._read, self._write = read, write
        self._open = {_ROOT: _Open(root)}

    def functions(self) -> dict[str, Callable[..., int]]:
        return {
            "fd_prestat_get": self._prestat_get,
            "fd_prestat_dir_name": self._prestat_dir_name,
            "fd_fdstat_get": self._fdstat_get,
            "fd_filestat_get": self._filestat_get,
            "path_filestat_get": self._path_filestat_get,
            "path_open": self._path_open,
            "fd_read": self._fd_read,
            "fd_seek": self._seek,
            "fd_tell": lambda descriptor, out: self._seek(descriptor, 0, 1, out),
            "fd_readdir": self._readdir,
            "fd_close": self._close,
        }

    def _prestat_get(self, descriptor: int, out: int) -> int:
        if descriptor != _ROOT:
            return _BAD_DESCRIPTOR
        self._write(out, struct.pack("<II", 0, 1))
        return 0

    def _prestat_dir_name(self, descriptor: int, out: int, length: int) -> int:
        self._write(out, b"/"[:length])
        return 0

    def _kind(self, descriptor: int) -> int | None:
        if descriptor < _ROOT:
            return _DEVICE
        if descriptor not in self._open:
            return None
        return _FOLDER if self._open[descriptor].path.is_dir() else _FILE

    def _fdstat_get(self, descriptor: int, out: int) -> int:
        kind = self._kind(descriptor)
        if kind is None:
            return _BAD_DESCRIPTOR
        self._write(out, struct.pack("<BxHxxxxQQ", kind, 0, _ALL_RIGHTS, _ALL_RIGHTS))
        return 0

    def _filestat_get(self, descriptor: int, out: int) -> int:
        kind = self._kind(descriptor)
        if kind is None:
            return _BAD_DESCRIPTOR
        self._write_stat(out, kind, None if kind == _DEVICE else self._open[descriptor].path)
        return 0

    def _write_stat(self, out: int, kind: int, path: Path | None) -> None:
        size = path.stat().st_size if path and kind == _FILE else 0
        time = path.stat().st_mtime_ns if path else 0
        self._write(out, struct.pack("<QQB7xQQQQQ", 1, 1, kind, 1, size, time, time, time))

    def _find(self, descriptor: int, at: int, length: int) -> Path | int:
        """The path, or the error's number. `..` cannot be in what an interpreter asks for here."""
        if descriptor not in self._open:
            return _BAD_DESCRIPTOR
        path = self._open[descriptor].path / self._read(at, length).decode()
        if path.exists():
            return path
        return _NOT_FOLDER if path.parent.is_file() else _NO_ENTRY

    def _path_filestat_get(self, descriptor: int, flags: int, at: int, length: int, out: int) -> int:
        path = self._find(descriptor, at, length)
        if isinstance(path, int):
            return path
        self._write_stat(out, _FOLDER if path.is_dir() else _FILE, path)
        return 0

    def _path_open(
        self,
        descriptor: int,
        _follow: int,
        at: int,
        length: int,
        how: int,
        _base: int,
        _inherited: int,
        _flags: int,
        out: int,
    ) -> int:
        if how & (_CREATE | _TRUNCATE):
            return _READ_ONLY
        path = self._find(descriptor, at, length)
        if isinstance(path, int):
            return path
        if how & _FOLDER_WANTED and not path.is_dir():
            return _NOT_FOLDER
        number = next(n for n in range(_ROOT + 1, 1 << 16) if n not in self._open)
        self._open[number] = _Open(path, b"" if path.is_dir() else path.read_bytes())
        self._write(out, struct.pack("<I", number))
        return 0

    def _fd_read(self, descriptor: int, vectors: int, count: int, out: int) -> int:
        total = 0
        if descriptor != 0:
            if self._kind(descriptor) != _FILE:
                return _IS_FOLDER if descriptor in self._open else _BAD_DESCRIPTOR
            file = self._open[descriptor]
            for i in range(count):
                address, length = struct.unpack("<II", self._read(vectors + 8 * i, 8))
                part = file.content[file.position : file.position + length]
                self._write(address, part)
                file.position += len(part)
                total += len(part)
        self._write(out, struct.pack("<I", total))
        return 0

    def _seek(self, descriptor: int, offset: int, whence: int, out: int) -> int:
        if descriptor < _ROOT:
            return _NO_SEEK
        if descriptor not in self._open:
            return _BAD_DESCRIPTOR
        file = self._open[descriptor]
        file.position = max(0, offset + (0, file.position, len(file.content))[whence])
        self._write(out, struct.pack("<Q", file.position))
        return 0

    def _readdir(self, descriptor: int, at: int, room: int, cookie: int, out: int) -> int:
        if descriptor not in self._open:
            return _BAD_DESCRIPTOR
        entries = sorted(self._open[descriptor].path.iterdir())
        content = b""
        for number, entry in enumerate(entries[cookie:], start=cookie + 1):
            name = entry.name.encode()
            kind = _FOLDER if entry.is_dir() else _FILE
            content += struct.pack("<QQIB3x", number, 1, len(name), kind) + name
            if len(content) >= room:
                break
        self._write(at, content[:room])
        self._write(out, struct.pack("<I", min(len(content), room)))
        return 0

    def _close(self, descriptor: int) -> int:
        return 0 if self._open.pop(descriptor, None) else _BAD_DESCRIPTOR
