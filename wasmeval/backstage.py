"""Backstage: what serves the guests of an embedded evaluator while its caller waits: an event loop in a thread.

The thread starts with the first evaluation that may use HTTP or a folder. Tools are not its business: their calls go
straight to the conversation, and to the caller's own threads.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import replace
from time import monotonic
from typing import Any

from wasmeval.attendant import NO_SUCH_TOOL, Attendant, raised, tool_name
from wasmeval.conversation import Conversation, ConversationEvent, EventReader
from wasmeval.errors import DeadlineExceeded, InvalidArgument
from wasmeval.events import Answer, Called, Dropped, Event, Printed, Wanted
from wasmeval.model import Job, Result
from wasmeval.offer import Offer
from wasmeval.pool import BlockingPool
from wasmeval.pool.blocking import Running
from wasmeval.wasm.calls import Operation, Outcome

_CLOSING_SECONDS = 5.0


class Backstage:
    """An event loop in a daemon thread, started at first use. Close it after the evaluations it serves."""

    def __init__(self) -> None:
        self._starting = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def loop(self) -> asyncio.AbstractEventLoop:
        """The running loop."""
        with self._starting:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(
                    target=self._loop.run_forever, name="wasmeval-backstage", daemon=True
                )
                self._thread.start()
            return self._loop

    def run(self, make: Callable[[], Any]) -> Any:
        """What the coroutine that `make` gives returns; it runs on the loop."""

        async def run() -> Any:
            return await make()

        return asyncio.run_coroutine_threadsafe(run(), self.loop()).result()

    def close(self) -> None:
        """End the thread. Safe to call twice."""
        with self._starting:
            loop, thread = self._loop, self._thread
            self._loop = self._thread = None
        if loop is None or thread is None:
            return
        loop.call_soon_threadsafe(loop.stop)
        thread.join(_CLOSING_SECONDS)
        if not thread.is_alive():
            loop.close()


class EmbeddedConversation(Conversation):
    """See Conversation. Its guest's calls arrive on whatever thread drives the pool and holds its turn then."""

    def __init__(
        self, pool: BlockingPool, backstage: Backstage, offer: Offer, job: Job, timeout: float | None
    ) -> None:
        assert job.grants is not None
        self._backstage = backstage
        self._grants = job.grants
        self._names = frozenset(tool.name for tool in job.grants.tools)
        self._offer = offer
        self._attendant: Attendant | None = None
        self._end = None if timeout is None else monotonic() + timeout
        self._timeout = timeout
        self._events: deque[Event] = deque()
        self._reader = EventReader(self._answer)
        self._pending: Iterator[ConversationEvent] = iter(())
        self._over = False
        self._open: set[int] = set()
        self._running = pool.begin(job, self._attend)

    def __next__(self) -> ConversationEvent:
        """See Conversation."""
        while True:
            event = next(self._pending, None)
            if event is not None:
                return event
            if self._over:
                raise StopIteration
            self._pending = self._reader.read(self._receive())

    def send_input(self, data: bytes | str) -> None:
        """See Conversation."""
        self._running.feed(data.encode() if isinstance(data, str) else bytes(data), False)

    def end_input(self) -> None:
        """See Conversation."""
        self._running.feed(b"", True)

    def cancel(self) -> None:
        """See Conversation."""
        self._running.stop()

    def close(self) -> None:
        """See Conversation."""
        self._over = True
        self._running.cancel()
        attendant, self._attendant = self._attendant, None
        if attendant is not None:
            self._backstage.run(attendant.aclose)

    # --- pool.Partner, and attendant.Talk ------------------------------------------------------------------------

    def called(self, call: int, operation: Operation, body: bytes) -> None:
        """See pool.Partner."""
        if operation is Operation.CALL:
            self._open.add(call)
            self._events.append(Called(call, tool_name(body), body))
        elif operation is Operation.INPUT:
            self._events.append(Wanted())
        elif operation is Operation.DROP and call in self._open:
            self._open.discard(call)
            self._events.append(Dropped(call))
        elif self._attendant is not None:
            self._backstage.loop().call_soon_threadsafe(self._attendant.called, call, operation, body)

    def printed(self, stream: int, data: bytes) -> None:
        """See pool.Partner."""
        self._events.append(Printed(stream, data))

    # --- inside --------------------------------------------------------------------------------------------------

    def _attend(self, running: Running) -> EmbeddedConversation:
        if self._grants.http is not None or self._grants.mounts:
            self._attendant = Attendant(self._grants, self._offer, running, None)
        return self

    def _receive(self) -> Event:
        while True:
            if self._events:
                event = self._events.popleft()
                if not isinstance(event, Called) or event.name in self._names:
                    return event
                # Only a guest that speaks to the host itself gets here; not answered in `called`: it has the turn.
                self._answer(Answer(event.call, b"", NO_SUCH_TOOL))
                continue
            outcome = self._running.outcome
            if isinstance(outcome, Result):
                self._over = True
                return self._complete(outcome)
            if outcome is not None:
                self.close()
                raise outcome
            left = None if self._end is None else max(self._end - monotonic(), 1e-9)
            try:
                self._running.wait(lambda: bool(self._events), left)
            except DeadlineExceeded:
                self.close()
                text = f"the time-out of {self._timeout:g} s passed before the result arrived"
                raise DeadlineExceeded(text) from None
            except BaseException:
                self.close()
                raise

    def _complete(self, result: Result) -> Result:
        uses = self._attendant.uses if self._attendant else ()
        return replace(result, http=uses) if uses else result

    def _answer(self, answer: Answer) -> None:
        if answer.call not in self._open:
            if self._over:
                return
            raise InvalidArgument("call", f"no call of the number {answer.call} waits for an answer")
        self._open.discard(answer.call)
        if answer.error is None:
            self._running.answer(answer.call, Outcome.DONE, answer.value)
        else:
            self._running.answer(answer.call, Outcome.RAISED, raised(*answer.error))
