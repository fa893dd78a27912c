"""Beneath: opening what is below a folder, and never anything else, whatever the path or a race makes of it.

The kernel resolves the whole path and refuses to leave the folder: by `..`, by a link, absolute or not, by one of the
magic links of /proc. That holds while others rename and link in it, which no check before an open could promise.

Source: https://man7.org/linux/man-pages/man2/openat2.2.html
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager

_OPENAT2 = 437
"""The same on every machine: calls that are younger than 5.0 share their numbers."""
_NO_MAGIC_LINKS, _BENEATH = 0x02, 0x08
_MOST_TRIES = 16

_HOW = struct.Struct("=QQQ")
_syscall = ctypes.CDLL(None, use_errno=True).syscall
_syscall.restype = ctypes.c_long


def open_beneath(folder: int, path: bytes, flags: int, mode: int = 0) -> int:
    """A descriptor of `path` below the open `folder`. Raises OSError: EXDEV when the path leads out of it, ENOSYS
    when the kernel is older than 5.6."""
    if not flags & os.O_PATH:
        flags |= os.O_NOCTTY
    how = _HOW.pack(flags | os.O_CLOEXEC, mode, _BENEATH | _NO_MAGIC_LINKS)
    for _ in range(_MOST_TRIES):
        fd = _syscall(_OPENAT2, ctypes.c_int(folder), path, how, ctypes.c_size_t(len(how)))
        if fd >= 0:
            return int(fd)
        code = ctypes.get_errno()
        # EAGAIN: something was renamed meanwhile, and the kernel cannot tell whether `..` still is inside.
        if code not in (errno.EAGAIN, errno.EINTR):
            break
    raise OSError(code, os.strerror(code))


@contextmanager
def looked_at(folder: int, path: bytes, follow: bool = False) -> Iterator[int]:
    """A descriptor that only says what is there: nothing is opened, so no device and no pipe notices."""
    fd = open_beneath(folder, path, os.O_PATH | (0 if follow else os.O_NOFOLLOW))
    try:
        yield fd
    finally:
        os.close(fd)


@contextmanager
def parent_of(folder: int, path: bytes) -> Iterator[tuple[int, bytes]]:
    """The folder that `path` names something in, open, and the name; the name is empty, `.` or `..` when there is none
    that could be made or removed."""
    head, _, name = path.rstrip(b"/").rpartition(b"/")
    fd = open_beneath(folder, head or b".", os.O_PATH | os.O_DIRECTORY)
    try:
        yield fd, name
    finally:
        os.close(fd)
