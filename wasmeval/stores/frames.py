"""Frames: how a record or a blob lies in a file, in Redis or in an object: a header, then its data.

The header has the version, so that two writings are never the same bytes, and a checksum, so that what was cut short
or overwritten by something else is told from what was written.

    0   4  "WES1"
    4   4  CRC-32 of version and data, big-endian
    8   8  length of the data in bytes, big-endian
    16  32 version, hexadecimal
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterable

Piece = bytes | bytearray | memoryview

_HEADER = struct.Struct(">4sIQ32s")
_MAGIC = b"WES1"
_VERSION = re.compile(rb"[0-9a-f]{32}")

HEADER_BYTES = _HEADER.size
VERSION_SPAN = (16, 47)
"""The first and the last byte of the version, as Redis' GETRANGE counts."""


class MalformedFrame(Exception):
    """These bytes are not a frame, or not a whole one. Raised inside this room only."""


def header_of(version: str, data: bytes) -> bytes:
    """What precedes `data`."""
    header = Header(version)
    header.add(data)
    return header.encode()


def framed(version: str, data: Iterable[Piece]) -> bytes:
    """The frame of `data`, which may come in pieces."""
    header, pieces = Header(version), list(data)
    for piece in pieces:
        header.add(piece)
    return b"".join((header.encode(), *pieces))


class Header:
    """What precedes data that comes in pieces, and is known when all of them were added."""

    def __init__(self, version: str) -> None:
        self._version = version.encode()
        self._checksum = zlib.crc32(self._version)
        self._size = 0

    def add(self, piece: Piece) -> None:
        """The next piece."""
        self._checksum = zlib.crc32(piece, self._checksum)
        self._size += len(piece)

    def encode(self) -> bytes:
        """HEADER_BYTES of them."""
        return _HEADER.pack(_MAGIC, self._checksum, self._size, self._version)


def version_in(header: bytes, data: bytes) -> str:
    """The version in `header`. Raises MalformedFrame unless `data` is what was written with it."""
    if len(header) != HEADER_BYTES:
        raise MalformedFrame(f"{len(header) + len(data)} bytes, too few for a header")
    magic, checksum, size, version = _HEADER.unpack(header)
    if magic != _MAGIC or not _VERSION.fullmatch(version):
        raise MalformedFrame("not written by this program")
    if size != len(data):
        raise MalformedFrame(f"{len(data)} bytes of {size}")
    if checksum != zlib.crc32(data, zlib.crc32(version)):
        raise MalformedFrame("its checksum is another")
    return str(version, "ascii")


def parted(frame: bytes) -> tuple[str, bytes]:
    """Version and data of a whole frame. Raises MalformedFrame when it is none."""
    data = frame[HEADER_BYTES:]
    return version_in(frame[:HEADER_BYTES], data), data
