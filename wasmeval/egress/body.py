"""Body: the bytes of one response between the connection and the guest, a bounded number at a time."""

from __future__ import annotations

import asyncio

from wasmeval.egress.failure import HttpFailure

MOST_HELD = 256 * 1024
"""Bytes that wait for the guest; a connection is not read further until it takes some."""


class Body:
    """One task puts, others read. `put` waits while the body is full, `read` while it is empty."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._over = False
        self._failure: HttpFailure | None = None
        self._news = asyncio.Event()
        self._space = asyncio.Event()

    @property
    def finished(self) -> bool:
        """Whether there is nothing to read any more, and nothing went wrong."""
        return self._over and not self._data and self._failure is None

    async def put(self, data: bytes) -> None:
        while len(self._data) >= MOST_HELD:
            self._space.clear()
            await self._space.wait()
        self._data += data
        self._news.set()

    def end(self) -> None:
        self._over = True
        self._news.set()

    def fail(self, failure: HttpFailure) -> None:
        """What has come can still be read; then `failure` is raised. The first end is the one that counts."""
        if not self._over:
            self._failure = failure
            self.end()

    async def read(self, most: int) -> bytes:
        """At least one byte and at most `most`; none at the end. Raises the HttpFailure that ended it early."""
        while not self._data and not self._over:
            self._news.clear()
            await self._news.wait()
        data = self.take(most)
        if not data and self._failure is not None:
            raise self._failure
        return data

    def take(self, most: int) -> bytes:
        """What is there, at most `most` bytes."""
        data = bytes(self._data[:most])
        del self._data[:most]
        self._space.set()
        return data

    async def gathered(self) -> None:
        """Wait until the body is over or full."""
        while not self._over and len(self._data) < MOST_HELD:
            self._news.clear()
            await self._news.wait()
