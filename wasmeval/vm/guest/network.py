"""The relay: a microVM's only way to a network. Connections to 127.0.0.1:3128 go through one virtio-serial port.

    python3 -I -S -B network.py [--channel PATH|DESCRIPTOR] [--listen ADDRESS:PORT] [--ready DESCRIPTOR]

Without arguments the channel is the port called `wasmeval.net`. `--ready` names a descriptor that is told the port's
number and closed once connections are accepted. What the other end makes of them, an HTTP proxy, is not known here.
One process, one thread: it costs nothing while nobody connects, and little on a slow emulated CPU.

Protocol, the same in both directions, little-endian:

    u32 connection | u32 length | bytes       length <= 65536

- Connections have the numbers 1, 2, 3, ... in the order in which their clients first send something. A number begins
  with its first frame from here and is never used again; at most 128 are open.
- Length 0: its sender sends no more of that connection. The other direction goes on.
- Each side may have sent 131072 bytes of a connection that the other has not given credit for, so that one which is not
  read costs a bounded buffer and stops no other.
- Connection 0 carries entries of u32 connection | u32 credit: so many bytes more may be sent. The credit 4294967295
  (ABORTED) ends the connection in both directions, at once and with an error; 0 (ENDED, from the host only) says that
  the host has sent all that it will and reads no more: what it sent is still delivered.
- Frames for a number that was used and is over crossed its end on the way. They are ignored.

Written for any Python from 3.9 on, whatever the guest's image has; it imports nothing of its package.
"""

from __future__ import annotations

import contextlib
import errno
import os
import selectors
import socket
import struct
import sys
import time

NAME = "wasmeval.net"
LISTEN = "127.0.0.1:3128"

WINDOW = 131072
"""Bytes of one connection and direction that may be on their way or wait for their reader."""
MOST_CONNECTIONS = 128
MOST_FRAME = 65536
ABORTED = 0xFFFFFFFF
ENDED = 0

_HEADER = struct.Struct("<II")

# As much as one turn takes from one client, so that all get theirs.
_PIECE = 32768

# The channel's own buffer. Clients are not read while it is full.
_MOST_OUT = 262144

# Linux hands out one page of a virtio port at a time, but one call may ask for many.
_PAGES = 32

_LINGER_SECONDS = 2.0
_RETRY_SECONDS = 0.1
_PORT_SECONDS = 30.0
_NOBODY = 65534


class ChannelClosed(Exception):
    """The other end is gone, or said what it may not."""


class Client:
    """One local connection."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.number = 0  # until it sends something
        self.credit = WINDOW
        self.reading = True  # it may send more
        self.held = False  # until the channel has room
        self.down = bytearray()  # on its way to it
        self.last = False  # after `down` nothing follows
        self.shut = False  # it was told so
        self.over = False  # the host has forgotten it
        self.owed = 0  # bytes that it took and that the host was given no credit for
        self.lingers = 0.0  # until then it is drained
        self.mask = 0

    def wanted(self) -> int:
        """What to wait for."""
        reads = self.reading and self.credit > 0 and not self.held and not self.over
        return (selectors.EVENT_READ if reads or self.lingers else 0) | (
            selectors.EVENT_WRITE if self.down else 0
        )


class Relay:
    """Carries connections between `listener` and the descriptor `channel`, until the channel ends."""

    def __init__(self, channel: int, listener: socket.socket) -> None:
        self._channel = channel
        self._listener = listener
        self._listening = False
        self._selector = selectors.DefaultSelector()
        self._clients: set[Client] = set()
        self._numbered: dict[int, Client] = {}
        self._last = 0
        self._out = bytearray()
        self._credits = bytearray()  # entries for the next frame of connection 0
        self._held: list[Client] = []
        self._lingering: set[Client] = set()
        self._header = bytearray()
        self._number = self._left = 0  # of the frame whose bytes are coming
        self._control = bytearray()
        self._pages = bytearray(4096 * _PAGES)
        view = memoryview(self._pages)
        self._views = [view[start : start + 4096] for start in range(0, len(view), 4096)]
        os.set_blocking(channel, False)
        listener.setblocking(False)

    def run(self) -> None:
        """Raises ChannelClosed at its end; every connection is closed then."""
        self._selector.register(self._channel, selectors.EVENT_READ)
        self._writing = False
        try:
            while True:
                self._listen()
                for key, events in self._selector.select(0.2 if self._lingering else None):
                    if isinstance(key.data, Client):
                        self._serve(key.data, events)
                    elif key.fileobj is self._listener:
                        self._accept()
                    elif events & selectors.EVENT_READ:
                        self._receive()
                self._sweep()
                self._flush()
        finally:
            for client in list(self._clients):
                self._close(client, abort=True)
            if self._listening:
                self._selector.unregister(self._listener)
            self._selector.close()

    # --- clients -------------------------------------------------------------------------------------------------

    def _listen(self) -> None:
        """Accept more, or not: those that are too many wait in the listener's own queue."""
        wanted = len(self._clients) < MOST_CONNECTIONS
        if wanted != self._listening:
            self._listening = wanted
            if wanted:
                self._selector.register(self._listener, selectors.EVENT_READ)
            else:
                self._selector.unregister(self._listener)

    def _accept(self) -> None:
        while len(self._clients) < MOST_CONNECTIONS:
            try:
                sock, _ = self._listener.accept()
            except OSError:  # none is left, or one that came has gone again
                return
            sock.setblocking(False)
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            client = Client(sock)
            self._clients.add(client)
            self._watch(client)

    def _watch(self, client: Client) -> None:
        mask = client.wanted()
        if mask == client.mask:
            return
        if not mask:
            self._selector.unregister(client.sock)
        elif not client.mask:
            self._selector.register(client.sock, mask, client)
        else:
            self._selector.modify(client.sock, mask, client)
        client.mask = mask

    def _serve(self, client: Client, events: int) -> None:
        if client in self._clients and events & selectors.EVENT_READ:
            self._read(client)
        if client in self._clients and events & selectors.EVENT_WRITE:
            self._deliver(client)

    def _read(self, client: Client) -> None:
        if client.lingers:
            self._drain(client)
            return
        if not client.reading:
            return
        if len(self._out) >= _MOST_OUT:
            client.held = True
            self._held.append(client)
            self._watch(client)
            return
        try:
            data = client.sock.recv(min(_PIECE, client.credit))
        except BlockingIOError:
            return
        except OSError:
            self._abort(client)
            return
        if not data and not client.number:
            self._close(client)
            return
        if not client.number:
            self._last += 1
            client.number = self._last
            self._numbered[client.number] = client
        self._out += _HEADER.pack(client.number, len(data))
        self._out += data
        client.credit -= len(data)
        client.reading = bool(data)
        self._settle(client)

    def _deliver(self, client: Client) -> None:
        """Write what is there for the client, as much as it takes."""
        if client.down:
            try:
                count = client.sock.send(client.down)
            except BlockingIOError:
                count = 0
            except OSError:
                self._abort(client)
                return
            del client.down[:count]
            self._took(client, count)
        self._settle(client)

    def _took(self, client: Client, count: int) -> None:
        client.owed += count
        if client.owed >= WINDOW // 4 and not client.last:
            self._credits += _HEADER.pack(client.number, client.owed)
            client.owed = 0

    def _settle(self, client: Client) -> None:
        """Pass on an end once all before it was delivered; forget a connection that has two."""
        if client.last and not client.down and not client.lingers:
            if not client.shut:
                client.shut = True
                with contextlib.suppress(OSError):
                    client.sock.shutdown(socket.SHUT_WR)
            if not client.reading:
                self._close(client)
                return
            if client.over:
                # Closed with unread bytes, the kernel would take back what the client has not read yet.
                client.lingers = time.monotonic() + _LINGER_SECONDS
                self._lingering.add(client)
        self._watch(client)

    def _drain(self, client: Client) -> None:
        try:
            if client.sock.recv(_PIECE):
                return
        except BlockingIOError:
            return
        except OSError:
            pass
        self._close(client)

    def _sweep(self) -> None:
        if self._lingering:
            now = time.monotonic()
            for client in [client for client in self._lingering if client.lingers <= now]:
                self._close(client)
        if self._held and len(self._out) < _MOST_OUT // 2:
            held, self._held = self._held, []
            for client in held:
                client.held = False
                if client in self._clients:
                    self._watch(client)

    def _abort(self, client: Client) -> None:
        """The client broke it off."""
        if client.number and not client.over:
            self._credits += _HEADER.pack(client.number, ABORTED)
        self._close(client, abort=True)

    def _close(self, client: Client, abort: bool = False) -> None:
        if client.mask:
            self._selector.unregister(client.sock)
        if abort:
            with contextlib.suppress(OSError):
                client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.sock.close()
        self._clients.discard(client)
        self._lingering.discard(client)
        self._numbered.pop(client.number, None)

    # --- the channel ---------------------------------------------------------------------------------------------

    def _flush(self) -> None:
        while self._credits:
            piece = self._credits[:MOST_FRAME]
            del self._credits[:MOST_FRAME]
            self._out += _HEADER.pack(0, len(piece)) + piece
        while self._out:
            try:
                count = os.write(self._channel, self._out)
            except BlockingIOError:
                break
            except OSError as error:
                raise ChannelClosed(str(error)) from None
            del self._out[:count]
        if bool(self._out) != self._writing:
            self._writing = bool(self._out)
            events = selectors.EVENT_READ | (selectors.EVENT_WRITE if self._writing else 0)
            self._selector.modify(self._channel, events)

    def _receive(self) -> None:
        try:
            count = os.readv(self._channel, self._views)
        except BlockingIOError:
            return
        except OSError as error:
            raise ChannelClosed(str(error)) from None
        if not count:
            raise ChannelClosed("the host has closed it")
        at = 0
        view = memoryview(self._pages)
        while at < count:
            if self._left:
                piece = view[at : min(count, at + self._left)]
                at += len(piece)
                self._left -= len(piece)
                self._take(piece)
                continue
            missing = _HEADER.size - len(self._header)
            self._header += view[at : min(count, at + missing)]
            at += missing
            if len(self._header) == _HEADER.size:
                self._number, self._left = _HEADER.unpack(self._header)
                self._header.clear()
                self._begin()

    def _begin(self) -> None:
        if self._left > MOST_FRAME or self._number > self._last:
            raise ChannelClosed("a frame that there cannot be")
        if not self._left:
            self._finish(self._number)

    def _finish(self, number: int) -> None:
        """The host sends no more of that connection."""
        client = self._numbered.get(number)
        if client is not None and not client.last:
            client.last = True
            self._settle(client)

    def _take(self, piece: memoryview) -> None:
        """Bytes of the frame that is coming, however few. They go to the client at once where they can."""
        if not self._number:
            self._control += piece
            if not self._left:
                entries, self._control = self._control, bytearray()
                for number, credit in _HEADER.iter_unpack(entries):
                    self._grant(number, credit)
            return
        client = self._numbered.get(self._number)
        if client is None:
            return
        if not client.down:
            try:
                count = client.sock.send(piece)
            except BlockingIOError:
                count = 0
            except OSError:
                self._abort(client)
                return
            self._took(client, count)
            piece = piece[count:]
        if piece:
            client.down += piece
            self._watch(client)

    def _grant(self, number: int, credit: int) -> None:
        client = self._numbered.get(number)
        if client is None:
            return
        if credit == ABORTED:
            self._close(client, abort=True)
        elif credit == ENDED:
            client.last = client.over = True
            self._numbered.pop(number)
            self._settle(client)
        else:
            client.credit += credit
            self._watch(client)


def find_port(name: str) -> str:
    """The device of the virtio-serial port called `name`; waits for it while the machine boots. Raises OSError."""
    folder = "/sys/class/virtio-ports"
    end = time.monotonic() + _PORT_SECONDS
    while True:
        with contextlib.suppress(OSError):
            for port in os.listdir(folder):
                with open(f"{folder}/{port}/name", encoding="utf-8") as file:
                    if file.read().strip() == name:
                        return f"/dev/{port}"
        if time.monotonic() > end:
            raise OSError(errno.ENODEV, f"no virtio-serial port is called {name}")
        time.sleep(_RETRY_SECONDS)


def give_up_rights() -> None:
    """What talks to hostile clients needs no rights of root."""
    if os.geteuid() == 0:
        os.setgroups([])
        os.setgid(_NOBODY)
        os.setuid(_NOBODY)


def main(arguments: list[str]) -> int:
    options = dict(zip(arguments[::2], arguments[1::2]))
    channel = options.pop("--channel", "")
    address, _, number = options.pop("--listen", LISTEN).rpartition(":")
    ready = options.pop("--ready", "")
    if options or len(arguments) % 2:
        sys.stderr.write("usage: network.py [--channel PATH|FD] [--listen ADDRESS:PORT] [--ready FD]\n")
        return 2
    listener = socket.create_server((address, int(number)), backlog=MOST_CONNECTIONS)
    device = not channel.isdigit()
    descriptor = os.open(channel or find_port(NAME), os.O_RDWR) if device else int(channel)
    give_up_rights()
    if ready:
        os.write(int(ready), b"%d\n" % listener.getsockname()[1])
        os.close(int(ready))
    while True:
        try:
            Relay(descriptor, listener).run()
        except ChannelClosed as error:
            if not device:
                sys.stderr.write(f"network: {error}\n")
                return 0
            # A port's host may come; until then a port says at each read that it is not there.
            time.sleep(_RETRY_SECONDS)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
