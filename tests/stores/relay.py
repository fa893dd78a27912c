"""Relay: a server of loopback between a store and its server, that loses answers and takes headers away."""

from __future__ import annotations

import re
import socket
import threading
from types import TracebackType
from typing import Self

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_CONDITIONS = re.compile(rb"\r\nIf-(None-)?Match: [^\r]*", re.IGNORECASE)


class Relay:
    """Passes bytes to `port` and back.

    `lose_answers(n, when)`: of the next `n` requests that have `when` in them, the server gets all, and the client
    no answer but the end of the connection; with `halves` the server gets no whole body either. `hides_conditions`:
    HTTP requests arrive without If-Match and If-None-Match.
    """

    def __init__(self, port: int, hides_conditions: bool = False) -> None:
        self._target = ("127.0.0.1", port)
        self._hides_conditions = hides_conditions
        self._lock = threading.Lock()
        self._losing, self._when = 0, b""
        self.halves = False
        self.seen = 0
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._server.getsockname()[1]
        self._sockets: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def lose_answers(self, count: int, when: bytes) -> None:
        """Lose the answers of the next `count` requests with `when` in them; `seen` counts those from now on."""
        with self._lock:
            self._losing, self._when, self.seen = count, when, 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        for each in self._sockets:
            each.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._server.accept()
            except OSError:
                return
            server = socket.create_connection(self._target)
            self._sockets += [client, server]
            lost = threading.Event()
            threading.Thread(target=self._forth, args=(client, server, lost), daemon=True).start()
            threading.Thread(target=self._back, args=(server, client, lost), daemon=True).start()

    def _forth(self, client: socket.socket, server: socket.socket, lost: threading.Event) -> None:
        try:
            while data := client.recv(1 << 20):
                with self._lock:
                    if self._when and self._when in data:
                        self.seen += 1
                        if self._losing:
                            self._losing -= 1
                            lost.set()
                if lost.is_set() and self.halves:
                    head, end, body = data.partition(b"\r\n\r\n")
                    server.sendall(head + end + body[: len(body) // 2])
                    break
                server.sendall(_CONDITIONS.sub(b"", data) if self._hides_conditions else data)
        except OSError:
            pass
        _end(server)

    def _back(self, server: socket.socket, client: socket.socket, lost: threading.Event) -> None:
        try:
            while data := server.recv(1 << 20):
                # Not an answer yet: the request's body comes after it.
                if lost.is_set() and (self.halves or data != _CONTINUE):
                    break
                client.sendall(data)
        except OSError:
            pass
        _end(client)


def _end(connection: socket.socket) -> None:
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass
