"""Backstage: what serves the guests of an embedded evaluator while its caller waits: an event loop in a thread.

The thread starts with the first evaluation that may use HTTP or a folder. Tools are not its business: their calls go
straight to the conversation, and to the caller's own threads.
"""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import replace
from time import monotonic
from typing import TYPE_CHECKING, Any, Protocol

from wasmeval.conversation import Conversation, ConversationEvent, EventReader
from wasmeval.errors import DeadlineExceeded, FailedPrecondition, InvalidArgument, Unavailable
from wasmeval.events import Answer, Called, Dropped, Event, Printed, Wanted
from wasmeval.model import Job, Result
from wasmeval.offer import Offer
from wasmeval.tools import NO_SUCH_TOOL, raised, tool_name
from wasmeval.wasm.calls import Operation, Outcome

if TYPE_CHECKING:
    import asyncio

    from wasmeval.attendant import Attendant
    from wasmeval.egress import Exchange

# asyncio and the attendant, with all that HTTP takes, are loaded with the first evaluation that needs them: most do
# not, and a `wasmeval run` would start 40 ms later.

_CLOSING_SECONDS = 5.0


class Running(Protocol):
    """One evaluation that was begun, and the way into it, from any thread: see pool.blocking.Running."""

    @property
    def outcome(self) -> Result | Exception | None: ...
    def answer(self, call: int, outcome: Outcome, payload: bytes) -> None: ...
    def feed(self, data: bytes, ended: bool) -> None: ...
    def stop(self) -> None: ...
    def cancel(self) -> None: ...
    def wait(self, ready: Callable[[], bool], timeout: float | None) -> None: ...


class Begins(Protocol):
    """What begins evaluations: see `BlockingPool.begin`."""

    def begin(self, job: Job, attend: Callable[[Any], Any]) -> Running: ...


class Backstage:
    """An event loop in a daemon thread, started at first use. Once closed it starts no more."""

    def __init__(self) -> None:
        self._starting = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._closed = False

    @property
    def is_over(self) -> bool:
        """Whether it is closed, and nothing runs there any more."""
        return self._closed and (self._thread is None or not self._thread.is_alive())

    def loop(self) -> asyncio.AbstractEventLoop:
        """The running loop. Raises Unavailable when closed."""
        with self._starting:
            if self._closed:
                raise Unavailable("the evaluator is closed")
            if self._loop is None:
                import asyncio

                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(
                    target=self._loop.run_forever, name="wasmeval-backstage", daemon=True
                )
                self._thread.start()
            return self._loop

    def call(self, function: Callable[..., object], *arguments: object) -> None:
        """Call it on the loop, soon; once closed there is nobody to serve."""
        with contextlib.suppress(Unavailable, RuntimeError):
            self.loop().call_soon_threadsafe(function, *arguments)

    def run(self, make: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run the coroutine that `make` gives on the loop, to its end; nothing once closed."""
        with contextlib.suppress(Unavailable):
            _run_on(self.loop(), make)

    def close(self, last: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run `last` on the loop, if there ever was one, and end the thread. Safe to call twice."""
        with self._starting:
            self._closed = True
            loop, thread = self._loop, self._thread
            self._loop = None
        if loop is None or thread is None:
            return
        _run_on(loop, last)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(_CLOSING_SECONDS)
        if not thread.is_alive():
            loop.close()
            self._thread = None


def _run_on(loop: asyncio.AbstractEventLoop, make: Callable[[], Coroutine[Any, Any, None]]) -> None:
    import asyncio
    from concurrent.futures import CancelledError

    async def run() -> None:
        await make()

    # The loop may be stopped meanwhile by whoever closes.
    with contextlib.suppress(RuntimeError, TimeoutError, CancelledError):
        asyncio.run_coroutine_threadsafe(run(), loop).result(_CLOSING_SECONDS)


class EmbeddedConversation(Conversation):
    """See Conversation. Its guest's calls arrive on whatever thread drives the pool and holds its turn then."""

    def __init__(
        self,
        pool: Begins,
        backstage: Backstage,
        offer: Offer,
        job: Job,
        timeout: float | None,
        finish: Callable[[Result], Result] | None = None,
    ) -> None:
        """`finish` is given its Result, and gives the one that counts."""
        assert job.grants is not None
        self._backstage = backstage
        self._grants = job.grants
        self._names = frozenset(tool.name for tool in job.grants.tools)
        self._offer = offer
        self._attendant: Attendant | None = None
        self._end = None if timeout is None else monotonic() + timeout
        self._timeout = timeout
        self._events: deque[Event] = deque()
        self._reader = EventReader(self._answer, finish)
        self._pending: Iterator[ConversationEvent] = iter(())
        self._over = False
        self._job = job
        self._input_bytes = 0
        self._input_over = not job.grants.stdin
        self._open: set[int] = set()
        self._last_call = 0
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
        data = data.encode() if isinstance(data, str) else data
        most = self._job.limits.workspace_bytes or 0
        self._check_input()
        if self._input_bytes + len(data) > most:
            raise InvalidArgument(
                "data", f"more than limits.workspace_bytes ({most}) together; raise it or send less"
            )
        self._input_bytes += len(data)
        if data:
            self._running.feed(data, False)

    def end_input(self) -> None:
        """See Conversation."""
        self._check_input()
        self._input_over = True
        self._running.feed(b"", True)

    def cancel(self) -> None:
        """See Conversation."""
        self._running.stop()

    def close(self) -> None:
        """See Conversation."""
        self._over = True
        self._running.cancel()
        self._dismiss()

    @property
    def gateway(self) -> Exchange | None:
        """See Attendant; on the loop of the Backstage."""
        attendant = self._attendant
        return attendant.gateway if attendant else None

    # --- pool.Partner, and attendant.Talk ------------------------------------------------------------------------

    def called(self, call: int, operation: Operation, body: bytes) -> None:
        """See pool.Partner."""
        if operation is Operation.CALL:
            self._open.add(call)
            self._last_call = max(call, self._last_call)
            self._events.append(Called(call, tool_name(body), body))
        elif operation is Operation.INPUT:
            self._events.append(Wanted())
        elif operation is Operation.DROP and call in self._open:
            self._open.discard(call)
            self._events.append(Dropped(call))
        elif self._attendant is not None:
            self._backstage.call(self._attendant.called, call, operation, body)

    def printed(self, stream: int, data: bytes) -> None:
        """See pool.Partner."""
        self._events.append(Printed(stream, data))

    # --- inside --------------------------------------------------------------------------------------------------

    def _dismiss(self) -> None:
        """Nobody serves the guest any more."""
        attendant, self._attendant = self._attendant, None
        if attendant is not None:
            self._backstage.run(attendant.aclose)

    def _check_input(self) -> None:
        if self._input_over and not self._over:
            raise FailedPrecondition("input came after its end; `stdin` says whether there is any")

    def look(self) -> bool:
        """Whether it is over; one that has to move somewhere else is sent there."""
        return self._running.outcome is not None

    def _attend(self, running: Running) -> EmbeddedConversation:
        if self._grants.http is not None or self._grants.mounts:
            from wasmeval.attendant import Attendant

            self._attendant = Attendant(self._grants, self._offer, running, None)
        return self

    def _receive(self) -> Event:
        while True:
            # Before the events: those of a VM come on another thread, the last of them just before the outcome.
            outcome = self._running.outcome
            if self._events:
                event = self._events.popleft()
                if not isinstance(event, Called) or event.name in self._names:
                    return event
                # Only a guest that speaks to the host itself gets here; not answered in `called`: it has the turn.
                self._answer(Answer(event.call, b"", NO_SUCH_TOOL))
                continue
            if isinstance(outcome, Result):
                self._over = True
                return self._complete(outcome)
            if outcome is not None:
                self.close()
                raise outcome
            if self._over:
                raise StopIteration  # Another thread has closed it.
            left = None if self._end is None else max(self._end - monotonic(), 1e-9)
            try:
                self._running.wait(lambda: bool(self._events) or self._over, left)
            except DeadlineExceeded:
                self.close()
                text = f"the time-out of {self._timeout:g} s passed before the result arrived"
                raise DeadlineExceeded(text) from None
            except BaseException:
                self.close()
                raise

    def _complete(self, result: Result) -> Result:
        # Once: another thread may dismiss it meanwhile.
        attendant = self._attendant
        uses = attendant.uses if attendant else ()
        return replace(result, http=uses) if uses else result

    def _answer(self, answer: Answer) -> None:
        if answer.call not in self._open:
            if not (self._over or 0 < answer.call <= self._last_call):
                raise InvalidArgument("call", f"no call has the number {answer.call}")
            return  # It came too late, or a second time.
        self._open.discard(answer.call)
        if answer.error is None:
            self._running.answer(answer.call, Outcome.DONE, answer.value)
        else:
            self._running.answer(answer.call, Outcome.RAISED, raised(*answer.error))
