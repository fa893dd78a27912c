"""Files of the job, as the agent has them: opened with the rights of the job's user, so that what he left as a link
leads nowhere that he could not go, and counted to his quota."""

from __future__ import annotations

import ctypes
import os
import re
import stat
import struct
from collections.abc import Iterator, Sequence
from typing import Any, Optional

from _agent_processes import USER, WORKSPACE
from _agent_streams import PATH, PIECE_BYTES

MOST_PATH_BYTES = 4096
MOST_FOLDERS = 64
"""One below the other; the host takes no deeper path."""
SCRATCH_DEVICE = b"/dev/vdb"

# Source: Linux, include/uapi/linux/quota.h: QCMD(Q_SETQUOTA, USRQUOTA), QIF_LIMITS, struct if_dqblk.
_SET_QUOTA, _QUOTA_LIMITS = 0x800008 << 8, 5
_QUOTA = struct.Struct("<8QI4x")
_QUOTA_BLOCK_BYTES = 1024

_libc = ctypes.CDLL(None, use_errno=True)

Pattern = tuple[Optional["re.Pattern[str]"], ...]
"""An expression for each name of a path, None for any number of folders."""


class AsUser:
    """Within it, files are the user's."""

    def __enter__(self) -> None:
        os.setegid(USER)
        os.seteuid(USER)

    def __exit__(self, *error: object) -> None:
        os.seteuid(0)
        os.setegid(0)


def limit_disk(most_bytes: int, most_files: int) -> None:
    """What the user may have on the scratch disk. Raises OSError."""
    blocks = max(1, most_bytes // _QUOTA_BLOCK_BYTES)
    quota = _QUOTA.pack(blocks, blocks, 0, most_files, most_files, 0, 0, 0, _QUOTA_LIMITS)
    if _libc.quotactl(_SET_QUOTA, SCRATCH_DEVICE, USER, quota) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"the disk's quota cannot be set: {os.strerror(number)}")


def write_piece(begins: int, payload: bytes) -> None:
    """Write a piece of a file below the workspace. Raises OSError."""
    (length,) = PATH.unpack_from(payload)
    target = os.path.join(WORKSPACE, payload[2 : 2 + length].decode())
    with AsUser():
        if begins:
            os.makedirs(os.path.dirname(target), exist_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        file = os.open(target, flags | (os.O_TRUNC if begins else os.O_APPEND), 0o644)
        try:
            rest = memoryview(payload)[2 + length :]
            while rest:
                rest = rest[os.write(file, rest) :]
        finally:
            os.close(file)


def read_pieces(
    patterns: Sequence[Sequence[str | None]], most_bytes: int, most_files: int
) -> Iterator[Any | None]:
    """The files below the workspace that match, in pieces: whether the file begins with it, and the payload of a frame.
    None at the end when some are left out because they are too many or too large."""
    compiled = [tuple(None if part is None else re.compile(part) for part in parts) for parts in patterns]
    room, count = most_bytes, most_files
    with AsUser():
        for path in matching(WORKSPACE, compiled):
            count -= 1
            if count < 0:
                yield None
                return
            name = os.fsencode(path)
            begins = 1
            for data in _content(os.path.join(WORKSPACE, path)):
                room -= len(data)
                if room < 0:
                    yield None
                    return
                yield begins, PATH.pack(len(name)) + name + data
                begins = 0


def _content(path: str) -> Iterator[bytes]:
    """A plain file's, in pieces, at least one; nothing of what is no plain file."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return
    try:
        if not stat.S_ISREG(os.fstat(file).st_mode):
            return
        data = os.read(file, PIECE_BYTES)
        yield data
        while data:
            data = os.read(file, PIECE_BYTES)
            if data:
                yield data
    except OSError:
        return
    finally:
        os.close(file)


def matching(root: str, patterns: Sequence[Pattern]) -> Iterator[str]:
    """Paths below `root` of files that match one of `patterns`, sorted. Links are neither followed nor given."""
    return _below(root, "", {(pattern, 0) for pattern in patterns})


_States = set[tuple[Pattern, int]]
"""How far a path has come in which patterns."""


def _below(folder: str, prefix: str, states: _States) -> Iterator[str]:
    try:
        entries = list(os.scandir(folder))
    except OSError:
        return
    # With the slash behind its name a folder is sorted as the paths in it are.
    names = {os.fsencode(entry.name) + b"/" * entry.is_dir(follow_symlinks=False): entry for entry in entries}
    for _, entry in sorted(names.items()):
        path = prefix + entry.name
        reached = set(_after(states, entry.name))
        if not reached or len(os.fsencode(path)) > MOST_PATH_BYTES:
            continue
        if entry.is_dir(follow_symlinks=False):
            if path.count("/") == MOST_FOLDERS:
                continue
            yield from _below(entry.path, path + "/", reached)
        elif entry.is_file(follow_symlinks=False) and any(
            place == len(pattern) for pattern, place in _beyond(reached)
        ):
            yield path


def _after(states: _States, name: str) -> Iterator[tuple[Pattern, int]]:
    for pattern, place in _beyond(states):
        if place < len(pattern):
            part = pattern[place]
            if part is None:
                yield pattern, place
            elif part.match(name):
                yield pattern, place + 1


def _beyond(states: _States) -> _States:
    """The states, and those where None stands for no folder at all."""
    found = set(states)
    for pattern, place in states:
        while place < len(pattern) and pattern[place] is None:
            place += 1
            found.add((pattern, place))
    return found
