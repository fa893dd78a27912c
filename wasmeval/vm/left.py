"""Left: the files that a guest gives back, as its agent says them, piece by piece, and none of it is believed."""

from __future__ import annotations

import struct

from wasmeval.errors import InvalidArgument
from wasmeval.limits import Limits
from wasmeval.paths import check_path
from wasmeval.vm.frames import MalformedFrame

_PATH = struct.Struct("<H")
_Names = dict[str, "_Names | None"]
"""What is in a folder; None is a file."""


class Room:
    """Memory of the host's for the files of all jobs together, until their Results are made."""

    def __init__(self, most_bytes: int) -> None:
        self.most_bytes = most_bytes
        self.held_bytes = 0

    def hold(self, count: int) -> bool:
        """Whether there is room for so many bytes more; they are held then."""
        if self.held_bytes + count > self.most_bytes:
            return False
        self.held_bytes += count
        return True


class Left:
    """One job's. `files` are those with a path that a Result can have: text, relative, neither file and folder at
    once. They are held in `room` until `release`; where that does not suffice, all are dropped, and `is_refused`."""

    def __init__(self, limits: Limits, room: Room) -> None:
        self.files: dict[str, bytearray] = {}
        self.is_refused = False
        self._room = room
        self._held = 0
        self._limits = limits
        self._bytes = 0
        self._begun = 0
        self._folders = 0
        self._names: _Names = {}

    def take(self, begins: bool, payload: bytes) -> None:
        """A piece: u16 length of path | path | content. Raises MalformedFrame for what cannot be or is too much."""
        (length,) = _PATH.unpack_from(payload) if len(payload) >= _PATH.size else (0,)
        name, data = payload[_PATH.size : _PATH.size + length], payload[_PATH.size + length :]
        self._begun += begins
        self._bytes += len(data)
        # Those that no Result can have count as well: the guest's agent has counted them, too.
        if self._bytes > (self._limits.workspace_bytes or 0) or self._begun > (
            self._limits.workspace_files or 0
        ):
            raise MalformedFrame("more files than their limit")
        if not (begins or data):
            raise MalformedFrame("a piece of a file that holds nothing")
        try:
            path = name.decode()
            check_path("path", path)
        except (InvalidArgument, UnicodeDecodeError):
            return
        if self.is_refused:
            return
        if begins == (path in self.files):
            raise MalformedFrame("a file that begins twice, or not at all")
        if begins:
            self._add(path)
            self.files[path] = bytearray()
        if self._room.hold(len(data)):
            self._held += len(data)
            self.files[path] += data
        else:
            self.is_refused = True
            self.files.clear()
            self.release()

    def release(self) -> None:
        """They are somebody else's now, or nobody's. Safe to call twice."""
        self._room.held_bytes -= self._held
        self._held = 0

    def _add(self, path: str) -> None:
        *folders, name = path.split("/")
        here = self._names
        for folder in folders:
            if folder not in here:
                self._folders += 1
                if self._folders > (self._limits.workspace_files or 0):
                    raise MalformedFrame("more folders than there can be files")
                here[folder] = {}
            there = here[folder]
            if there is None:
                raise MalformedFrame("a file in a file")
            here = there
        if name in here:
            raise MalformedFrame("a file where a folder is")
        here[name] = None
