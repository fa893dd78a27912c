"""Drafts: files that are written and synced in a folder of their own, before a rename puts them where they are read.

A writer holds a lock (flock) on its draft as long as it has it open. A draft that nobody has locked belongs to a writer
that died, and may be cleared. The kernel drops a dead process' locks, however it died.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import secrets
import stat
from collections.abc import Callable, Iterable, Iterator

from wasmeval.stores.ahead import Ahead
from wasmeval.stores.frames import HEADER_BYTES, Header, Piece

_LARGE_BYTES = 1 << 19
_SYNC_FILE_RANGE_WRITE = 2

_sync_file_range = ctypes.CDLL(None).sync_file_range
_sync_file_range.argtypes = ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint


@contextlib.contextmanager
def draft(folder: int, fill: Callable[[int], None]) -> Iterator[str]:
    """The name of a synced file in the open `folder` with what `fill` writes to its descriptor. Who wants to keep it
    renames it before this ends; else it is removed. Raises OSError, and what `fill` raises."""
    fd, name = _made(folder)
    try:
        fill(fd)
        os.fsync(fd)
        yield name
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=folder)
        os.close(fd)


def clear(folder: int) -> int:
    """Remove the drafts of writers that died from the open `folder`; how many. A live writer's are left alone."""
    cleared = 0
    for name in os.listdir(folder):
        try:
            fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
        except OSError:
            continue  # renamed by its writer meanwhile, or nothing that a writer made
        try:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                continue
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.unlink(name, dir_fd=folder)
            cleared += 1
        except (BlockingIOError, FileNotFoundError):
            continue
        finally:
            os.close(fd)
    return cleared


def _made(folder: int) -> tuple[int, str]:
    """A new file, open and locked, and its name."""
    while True:
        name = secrets.token_hex(16)
        fd = os.open(
            name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=folder
        )
        try:
            # `clear` may hold it for the moment between these two calls, and has removed it then.
            fcntl.flock(fd, fcntl.LOCK_EX)
            if os.fstat(fd).st_nlink:
                return fd, name
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)


def write_frame(fd: int, version: str, data: Iterable[Piece]) -> None:
    """Write the frame of `data`. From the first large piece on a thread does it, while the next pieces are made. Raises
    OSError, and what asking for `data` raises."""
    header = Header(version)
    os.lseek(fd, HEADER_BYTES, os.SEEK_SET)

    def take(piece: Piece) -> None:
        header.add(piece)
        write(fd, piece)

    with contextlib.ExitStack() as stack:
        writer, writing = None, []
        for piece in data:
            if writer is None and len(piece) >= _LARGE_BYTES:
                writer = stack.enter_context(Ahead(1))
            if writer is None:
                take(piece)
            else:
                writing.append(writer.submit(take, piece))
        for each in writing:
            each.result()
    os.pwrite(fd, header.encode(), 0)


def write(fd: int, data: Piece) -> None:
    """Write all of `data`. Raises OSError."""
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(fd, rest) :]
    if len(data) >= _LARGE_BYTES:
        # The disk begins now, and not with fsync, which alone says whether it has written: a refusal here is no matter.
        _sync_file_range(fd, 0, 0, _SYNC_FILE_RANGE_WRITE)
