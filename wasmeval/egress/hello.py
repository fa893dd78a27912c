"""Hello: the first message of a TLS client, read as far as the name of the server that it asks for."""

from __future__ import annotations

from wasmeval.egress.failure import refused
from wasmeval.egress.hosts import canonical_host, is_address

MOST_HELLO = 16 * 1024
"""Bytes. Those of today's clients have a fiftieth to a fifth of it."""

_CLIENT_HELLO, _SERVER_NAME, _HOST_NAME = 1, 0, 0
_RECORD = b"\x16\x03"  # a handshake, of any version from SSL 3 on
_MOST_RECORD = 16 * 1024
_HEADER, _MESSAGE_HEADER = 5, 4


class Hello:
    """Holds back the first bytes of a tunnel until it is known that they ask for `host`.

    A server that hosts many sites could otherwise be asked for another than the rules allow. So what is no TLS is
    refused, and so is another name than `host`, or none unless `host` is an address: a name that is encrypted
    (ECH) cannot be told from another. Source: RFC 8446, 4 and 5; RFC 6066, 3.
    """

    def __init__(self, host: str) -> None:
        self._host = host
        self._records = bytearray()
        self._message = bytearray()

    def feed(self, data: bytes) -> bool:
        """Whether all that matters has come, and is as it must be. Raises HttpFailure as soon as it is not."""
        self._records += data
        while self._take_record():
            if len(self._message) < _MESSAGE_HEADER:
                continue
            length = int.from_bytes(self._message[1:_MESSAGE_HEADER], "big")
            if self._message[0] != _CLIENT_HELLO or length > MOST_HELLO:
                raise self._no_tls()
            if len(self._message) >= _MESSAGE_HEADER + length:
                self._check(bytes(self._message[_MESSAGE_HEADER : _MESSAGE_HEADER + length]))
                return True
        return False

    def _take_record(self) -> bool:
        """Move the handshake bytes of one record; False when none is whole. A message may span records."""
        records = self._records
        if not _RECORD.startswith(records[: len(_RECORD)]):
            raise self._no_tls()
        if len(records) < _HEADER:
            return False
        length = int.from_bytes(records[3:_HEADER], "big")
        if not 0 < length <= _MOST_RECORD:
            raise self._no_tls()
        if len(records) < _HEADER + length:
            return False
        self._message += records[_HEADER : _HEADER + length]
        del records[: _HEADER + length]
        return True

    def _check(self, body: bytes) -> None:
        try:
            name = server_name(body)
            asked = None if name is None else canonical_host(name)
        except ValueError:
            raise self._no_tls() from None
        if asked == self._host or (asked is None and is_address(self._host)):
            return
        said = "asks for no server name" if asked is None else f"asks for {asked[:100]}"
        raise refused(f"TLS in the tunnel to {self._host} {said}; it must ask for the tunnel's own host")

    def _no_tls(self) -> Exception:
        return refused(f"what is sent through the tunnel to {self._host} is not TLS")


def server_name(body: bytes) -> str | None:
    """The server name in a ClientHello without its header, None for none. Raises ValueError for what is no such."""
    reader = _Reader(body)
    reader.skip(2 + 32)
    for width in (1, 2, 1):  # session, cipher suites, compression methods
        reader.vector(width)
    if reader.done:
        return None
    extensions = _Reader(reader.vector(2))
    names = []
    while not extensions.done:
        kind = extensions.number(2)
        content = extensions.vector(2)
        if kind == _SERVER_NAME:
            entries = _Reader(_Reader(content).vector(2))
            while not entries.done:
                if entries.number(1) != _HOST_NAME:
                    raise ValueError("a name of an unknown kind")
                names.append(entries.vector(2))
    if len(names) > 1:
        raise ValueError("several names")
    return names[0].decode("ascii") if names else None


class _Reader:
    """TLS's own notation: numbers, and vectors that a number of a given width precedes. Raises ValueError."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def done(self) -> bool:
        return self._at == len(self._data)

    def skip(self, count: int) -> bytes:
        piece = self._data[self._at : self._at + count]
        if len(piece) != count:
            raise ValueError("cut off")
        self._at += count
        return piece

    def number(self, width: int) -> int:
        return int.from_bytes(self.skip(width), "big")

    def vector(self, width: int) -> bytes:
        return self.skip(self.number(width))
