"""Followed: the next step of an embedded session as a conversation, and the thread that follows it to its end.

Whether or not anybody reads its events, a step that has ended gives the session's turn back.
"""

from __future__ import annotations

import _thread
import contextlib
import os
import threading
import weakref
from collections.abc import Callable
from time import monotonic

from wasmeval.backstage import Backstage, Begins, EmbeddedConversation
from wasmeval.conversation import Conversation, ConversationEvent
from wasmeval.errors import DeadlineExceeded, Unavailable
from wasmeval.model import Job, Result, Status
from wasmeval.offer import Offer
from wasmeval.tools import in_thread

Run = Callable[[Job], Result]


class Guest(EmbeddedConversation):
    """The conversation of a step, which its reader and the thread that follows it share.

    It is never given up, only stopped: what a cancelled step has spent counts as well.
    """

    def __init__(
        self, pool: Begins, backstage: Backstage, offer: Offer, job: Job, timeout: float | None
    ) -> None:
        super().__init__(pool, backstage, offer, job, None)
        self._seconds = timeout
        self.is_late = False
        """Whether its time-out stopped it."""

    def follow(self) -> Result:
        """How it ended. After its time-out it is stopped, and that is how."""
        try:
            self._running.wait(lambda: False, self._seconds)
        except DeadlineExceeded:
            self.is_late = True
            self._running.stop()
            self._running.wait(lambda: False, None)
        outcome = self._running.outcome
        if not isinstance(outcome, Result):
            assert outcome is not None
            raise outcome
        result = self._complete(outcome)
        self._dismiss()
        return result

    def close(self) -> None:
        """Stop it. Who follows it sees to the rest."""
        self._over = True
        self._running.stop()


class StepConversation(Conversation):
    """See Conversation. Returns when the step's turn has come and it has begun, and raises as `evaluate` does.

    `step` runs what it is given in the session's turn; `begin` begins the step. One that is dropped is closed: neither
    the pool nor the thread knows it.
    """

    def __init__(
        self,
        step: Callable[[Run], Result],
        begin: Callable[[Job, float | None], Guest],
        timeout: float | None,
    ) -> None:
        self._timeout = timeout
        self._is_closed = False
        beginning = _Beginning(begin, timeout)
        self._ended = in_thread(step, beginning.run)
        guest = beginning.wait(self._ended.add_done_callback)
        if guest is None:
            self._ended.result()
            raise AssertionError("a step that ended without a beginning raises why")
        self._guest = guest
        self._dropped = weakref.finalize(self, _drop, self._guest, os.getpid())
        self._dropped.atexit = False

    def __next__(self) -> ConversationEvent:
        """See Conversation."""
        if self._is_closed:
            raise StopIteration
        event = next(self._guest)
        if not isinstance(event, Result):
            return event
        if self._is_closed:
            raise StopIteration  # By another thread: this is not how the step would have ended.
        self._dropped.detach()
        result = self._ended.result()
        if self._guest.is_late and result.status is Status.CANCELLED:
            raise DeadlineExceeded(f"the time-out of {self._timeout:g} s passed before the result arrived")
        return result

    def send_input(self, data: bytes | str) -> None:
        """See Conversation."""
        self._guest.send_input(data)

    def end_input(self) -> None:
        """See Conversation."""
        self._guest.end_input()

    def cancel(self) -> None:
        """See Conversation."""
        self._guest.cancel()

    def close(self) -> None:
        """See Conversation. Returns when the session's turn is another's."""
        self._is_closed = True
        self._dropped.detach()
        self._guest.close()
        # What went wrong with the session is told to whoever uses it next.
        self._ended.exception()


class _Beginning:
    """What the two threads hand over: the step, once its turn has come."""

    def __init__(self, begin: Callable[[Job, float | None], Guest], timeout: float | None) -> None:
        self._begin = begin
        self._end = None if timeout is None else monotonic() + timeout
        self._guest: Guest | None = None
        self._given_up = threading.Event()
        self._decided = threading.Event()

    def run(self, job: Job) -> Result:
        """Begin the step and follow it."""
        if self._given_up.is_set():
            raise Unavailable("nobody waits for the step any more; nothing ran")
        left = None if self._end is None else max(self._end - monotonic(), 1e-9)
        guest = self._guest = self._begin(job, left)
        if self._given_up.is_set():
            guest.close()
        self._decided.set()
        return guest.follow()

    def wait(self, when_ended: Callable[[Callable[[object], None]], None]) -> Guest | None:
        """The step that has begun; None when it has ended without."""
        when_ended(lambda _: self._decided.set())
        try:
            self._decided.wait()
        except BaseException:
            self._given_up.set()
            if self._guest is not None:
                self._guest.close()
            raise
        return self._guest


def _drop(guest: Guest, process: int) -> None:
    """Close it elsewhere: whoever collects garbage may hold the locks that closing takes."""
    if process != os.getpid():
        return  # It is the parent's.
    with contextlib.suppress(RuntimeError):
        _thread.start_new_thread(guest.close, ())
