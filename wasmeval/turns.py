"""Turn: threads that use one session, one after the other."""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Iterator

from wasmeval.errors import DeadlineExceeded, ResourceExhausted


class Turn:
    """One at a time, in the order in which they came."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: deque[threading.Lock] = deque()
        self._taken = False

    @property
    def is_taken(self) -> bool:
        """Whether somebody has it."""
        return self._taken

    @contextlib.contextmanager
    def take(self, *, wait: bool = True, timeout: float | None = None) -> Iterator[None]:
        """Have it inside the block. Raises ResourceExhausted when it is taken and `wait` is False, DeadlineExceeded
        when it is still another's after `timeout` seconds."""
        with self._lock:
            if not self._taken:
                self._taken, mine = True, None
            elif not wait:
                raise ResourceExhausted("a step of this session is running; wait for it, or let steps queue")
            else:
                mine = threading.Lock()
                mine.acquire()
                self._waiting.append(mine)
        try:
            if mine is not None and not mine.acquire(timeout=_bounded(timeout)):
                raise DeadlineExceeded(f"the time-out of {timeout:g} s passed before the step's turn came")
        except BaseException:
            self._leave(mine)
            raise
        try:
            yield
        finally:
            self._leave(None)

    def _leave(self, mine: threading.Lock | None) -> None:
        with self._lock:
            if mine is not None and mine in self._waiting:
                self._waiting.remove(mine)
            elif self._waiting:
                self._waiting.popleft().release()
            else:
                self._taken = False


def _bounded(timeout: float | None) -> float:
    return -1 if timeout is None else min(timeout, threading.TIMEOUT_MAX)
