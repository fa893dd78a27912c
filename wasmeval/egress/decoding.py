"""Decoder: bodies as they were before Content-Encoding, a bounded piece at a time."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Protocol

ACCEPTED = b"gzip, deflate"
"""What we ask for, whatever the guest would have asked for: we must read a body to take secrets out of it."""

PIECE = 64 * 1024
"""The most bytes a decoder makes in one step: a bomb grows no further than the caller lets it."""

_EITHER = 32 + zlib.MAX_WBITS  # zlib's own detection of a gzip or zlib header


_GZIP = b"\x1f\x8b"


class BadEncoding(Exception):
    """The body is not what its Content-Encoding says."""


class Decoder(Protocol):
    def feed(self, data: bytes) -> Iterator[bytes]:
        """The decoded pieces of `data`. Raises BadEncoding."""

    def end(self) -> None:
        """Raises BadEncoding when the body is cut off."""


def decoder_for(encoding: str) -> Decoder | None:
    """A decoder for the value of a Content-Encoding header; None when it is not one of those that we asked for."""
    name = encoding.strip().lower()
    if name in ("", "identity"):
        return Identity()
    return Inflate() if name in ("gzip", "x-gzip", "deflate") else None


class Identity:
    def feed(self, data: bytes) -> Iterator[bytes]:
        for start in range(0, len(data), PIECE):
            yield data[start : start + PIECE]

    def end(self) -> None:
        return


class Inflate:
    """gzip, of any number of members, and deflate in a zlib or in no envelope."""

    def __init__(self) -> None:
        self._inflate = zlib.decompressobj(_EITHER)
        self._started = False
        self._between = b""

    def feed(self, data: bytes) -> Iterator[bytes]:
        while data:
            if self._inflate.eof:
                data, self._between = self._between + data, b""
                if data == _GZIP[:1]:
                    self._between = data
                    return
                # Another member of a gzip file; zeros, and whatever else follows, are padding.
                if not data.startswith(_GZIP):
                    return
                self._inflate = zlib.decompressobj(_EITHER)
            yield from self._member(data)
            data = self._inflate.unused_data

    def _member(self, data: bytes) -> Iterator[bytes]:
        piece = self._step(data)
        while piece:
            yield piece
            if self._inflate.eof or (len(piece) < PIECE and not self._inflate.unconsumed_tail):
                return
            piece = self._step(self._inflate.unconsumed_tail)

    def _step(self, data: bytes) -> bytes:
        try:
            piece = self._inflate.decompress(data, PIECE)
        except zlib.error as error:
            if self._started:
                raise BadEncoding(str(error)) from None
            # Some servers' deflate has no envelope. A header may have come in pieces: then this is an error too.
            self._inflate = zlib.decompressobj(-zlib.MAX_WBITS)
            try:
                piece = self._inflate.decompress(data, PIECE)
            except zlib.error:
                raise BadEncoding(str(error)) from None
        self._started = True
        return piece

    def end(self) -> None:
        if self._started and not self._inflate.eof:
            raise BadEncoding("the compressed body is cut off")
