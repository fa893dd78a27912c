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


class Left:
    """One job's. `files` are those with a path that a Result can have: text, relative, neither file and folder at
    once."""

    def __init__(self, limits: Limits) -> None:
        self.files: dict[str, bytearray] = {}
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
        if begins == (path in self.files):
            raise MalformedFrame("a file that begins twice, or not at all")
        if begins:
            self._add(path)
            self.files[path] = bytearray()
        self.files[path] += data

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
