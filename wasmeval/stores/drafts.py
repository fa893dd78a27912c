"""Drafts: files that are written and synced in a folder of their own, before a rename puts them where they are read.

A writer holds a lock (flock) on its draft as long as it has it open. A draft that nobody has locked belongs to a writer
that died, and may be cleared. The kernel drops a dead process' locks, however it died.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import stat
from collections.abc import Iterator


@contextlib.contextmanager
def draft(folder: int, *parts: bytes) -> Iterator[str]:
    """The name of a synced file in the open `folder` with `parts` in it. Who wants to keep it renames it before this
    ends; else it is removed. Raises OSError."""
    fd, name = _made(folder)
    try:
        for part in parts:
            _write(fd, part)
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


def _write(fd: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(fd, rest) :]
