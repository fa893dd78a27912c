"""Room: memory of this process for the states of sessions on their way to the store."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager


class Room:
    """At most `most_bytes` at a time, or one alone that is larger. Who finds too little waits, in the order in which
    they came. For threads and for an event loop."""

    def __init__(self, most_bytes: int) -> None:
        self.most_bytes = most_bytes
        # Guards the two below.
        self._lock = threading.Lock()
        self._taken: dict[object, int] = {}
        self._waiting: deque[tuple[object, int, Callable[[], object]]] = deque()

    @contextmanager
    def take(self, size: int) -> Iterator[None]:
        """Have room for `size` bytes inside the block; the thread waits for it."""
        admitted = threading.Event()
        guest, is_in = self._enter(size, admitted.set)
        try:
            if not is_in:
                admitted.wait()
            yield
        finally:
            self._leave(guest)

    @asynccontextmanager
    async def take_async(self, size: int) -> AsyncIterator[None]:
        """The same, awaited."""
        loop, admitted = asyncio.get_running_loop(), asyncio.Event()
        guest, is_in = self._enter(size, lambda: loop.call_soon_threadsafe(admitted.set))
        try:
            if not is_in:
                await admitted.wait()
            yield
        finally:
            self._leave(guest)

    def _enter(self, size: int, admit: Callable[[], object]) -> tuple[object, bool]:
        """Who `_leave` is told of, and whether it is in; otherwise `admit` is called when it is."""
        guest = object()
        with self._lock:
            is_in = not self._waiting and self._fits(size)
            if is_in:
                self._taken[guest] = size
            else:
                self._waiting.append((guest, size, admit))
        return guest, is_in

    def _leave(self, guest: object) -> None:
        with self._lock:
            self._taken.pop(guest, None)
            self._waiting = deque(each for each in self._waiting if each[0] is not guest)
            while self._waiting and self._fits(self._waiting[0][1]):
                other, size, admit = self._waiting.popleft()
                self._taken[other] = size
                admit()

    def _fits(self, size: int) -> bool:
        return not self._taken or sum(self._taken.values()) + size <= self.most_bytes
