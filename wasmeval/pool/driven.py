"""AsyncPool: the pool driven by an asyncio event loop, for the server."""

from __future__ import annotations

import asyncio
import contextlib
from asyncio import AbstractEventLoop, Future
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from wasmeval.errors import SetupError
from wasmeval.model import Job, Result
from wasmeval.pool.core import TICK_SECONDS, Pool, PoolStats
from wasmeval.pool.observer import Observer, Silent
from wasmeval.pool.place import Place
from wasmeval.pool.process import WorkerProcess
from wasmeval.pool.settings import PoolSettings
from wasmeval.pool.ticket import Partner, Ticket
from wasmeval.runtimes import Catalogue
from wasmeval.session import StatePieces
from wasmeval.wasm.cache import Cache
from wasmeval.wasm.calls import Outcome

T = TypeVar("T")

_HEARING_SECONDS = 0.001
"""About a slice of a guest."""


class Link:
    """The way into one evaluation that was accepted; once it is over, nothing that is said here has an effect."""

    def __init__(self, pool: Pool, ticket: Ticket) -> None:
        self._pool = pool
        self._ticket = ticket

    def answer(self, call: int, outcome: Outcome, payload: bytes) -> None:
        """See Pool.answer."""
        self._pool.answer(self._ticket, call, outcome, payload)

    def feed(self, data: bytes, ended: bool) -> None:
        """See Pool.feed."""
        self._pool.feed(self._ticket, data, ended)

    def stop(self) -> None:
        """See Pool.stop."""
        self._pool.stop(self._ticket)


class AsyncPool:
    """Workers for one event loop. `start` before use, `aclose` after; everything in between on that loop's thread."""

    def __init__(
        self, settings: PoolSettings, catalogue: Catalogue, observer: Observer | None = None
    ) -> None:
        self._settings = settings
        self._catalogue = catalogue
        self._observer = observer or Silent()
        self._loop: AbstractEventLoop | None = None
        self._pool: Pool | None = None
        self._changed = asyncio.Event()
        self._ticker: asyncio.TimerHandle | None = None

    async def start(self) -> None:
        """Compile what is not compiled, start the workers, wait until all are ready. Raises SetupError when they cannot
        be."""
        self._loop = asyncio.get_running_loop()
        cache = Cache(self._settings.cache_dir)
        runtimes = await asyncio.to_thread(cache.prepare, self._catalogue)
        self._pool = Pool(self._settings, runtimes, self, self._observer)
        self._pool.start()
        self._tick()
        while not self._pool.is_ready:
            if self._pool.failure:
                failure = self._pool.failure
                await self.aclose()
                raise SetupError(str(failure))
            await self._change()

    async def evaluate(self, job: Job, attend: Callable[[Link], Partner] | None = None) -> Result:
        """Run `job` in a fresh instance. Cancelling the awaiting task stops the guest.

        `attend` is given the way into the evaluation, and gives whom the guest's calls go to. Raises ResourceExhausted
        when the queue is full, Unavailable when draining or closed.
        """
        assert self._pool
        assert self._loop
        future: Future[Result] = self._loop.create_future()
        ticket = self._pool.submit(job, partial(_settle, future))
        try:
            if attend is not None:
                # Nothing of the guest is heard before this task gives way.
                ticket.partner = attend(Link(self._pool, ticket))
            return await future
        except BaseException:
            if not future.done() or future.cancelled():
                self._pool.cancel(ticket)
            raise

    def open_session(self, runtime: str, state: StatePieces = ()) -> Place:
        """See Pool.open_session."""
        assert self._pool
        return self._pool.open_session(runtime, state)

    def fork_session(self, place: Place) -> Place:
        """See Pool.fork_session."""
        assert self._pool
        return self._pool.fork_session(place)

    def mark_session(self, place: Place) -> None:
        """See Pool.mark_session."""
        assert self._pool
        self._pool.mark_session(place)

    def revert_session(self, place: Place) -> Place:
        """See Pool.revert_session."""
        assert self._pool
        return self._pool.revert_session(place)

    async def session_state(self, place: Place) -> StatePieces:
        """What the session was after its last good step; see Pool.ask_state."""
        assert self._pool
        assert self._loop
        future: Future[StatePieces] = self._loop.create_future()
        self._pool.ask_state(place, partial(_settle, future))
        return await future

    async def hear_session(self, place: Place) -> None:
        """Return when its worker has told the ends of all steps that were given up, or is lost."""
        # It was told to stop: that takes it a slice, and a worker that hangs is replaced.
        while place.given_up and not place.is_lost:
            await asyncio.sleep(_HEARING_SECONDS)

    def close_session(self, place: Place) -> None:
        """See Pool.close_session."""
        if self._pool:
            self._pool.close_session(place)

    async def drain(self, grace_seconds: float) -> None:
        """Accept nothing more; wait for what runs and waits, at most `grace_seconds`; then end it as `cancelled`."""
        assert self._pool
        self._pool.refuse()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace_seconds):
                while not self._pool.is_idle:
                    await self._change()
        self._pool.cancel_all()

    async def aclose(self) -> None:
        """Kill the workers. Safe to call twice."""
        if self._ticker:
            self._ticker.cancel()
            self._ticker = None
        if self._pool:
            self._pool.cancel_all()
            self._pool.close()

    def stats(self) -> PoolStats:
        """Counts of now."""
        assert self._pool
        return self._pool.stats()

    @property
    def healthy(self) -> bool:
        """Whether workers can be started; while they cannot, everything is refused."""
        return self._pool is not None and self._pool.failure is None

    def jail(self) -> list[list[Any]]:
        """The layers of the jail as a worker found them: [name, holds, detail]."""
        assert self._pool
        return self._pool.jail()

    # --- Watcher -------------------------------------------------------------------------------------------------

    def watch(self, worker: WorkerProcess) -> None:
        """See core.Watcher."""
        assert self._loop
        assert self._pool
        self._loop.add_reader(worker.fileno(), self._pool.readable, worker)
        if worker.wants_write:
            self.watch_writes(worker, True)

    def watch_writes(self, worker: WorkerProcess, wanted: bool) -> None:
        """See core.Watcher."""
        assert self._loop
        assert self._pool
        if wanted:
            self._loop.add_writer(worker.fileno(), self._pool.writable, worker)
        else:
            self._loop.remove_writer(worker.fileno())

    def unwatch(self, worker: WorkerProcess) -> None:
        """See core.Watcher."""
        assert self._loop
        self._loop.remove_reader(worker.fileno())
        self._loop.remove_writer(worker.fileno())

    def changed(self) -> None:
        """See core.Watcher."""
        self._changed.set()

    # --- inside --------------------------------------------------------------------------------------------------

    async def _change(self) -> None:
        self._changed.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(TICK_SECONDS):
                await self._changed.wait()

    def _tick(self) -> None:
        assert self._loop
        assert self._pool
        self._pool.tick()
        self._ticker = self._loop.call_later(TICK_SECONDS, self._tick)


def _settle(future: Future[T], outcome: T | Exception) -> None:
    if future.done():
        return
    if isinstance(outcome, Exception):
        future.set_exception(outcome)
    else:
        future.set_result(outcome)
