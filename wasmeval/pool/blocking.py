"""BlockingPool: the pool driven by the threads that wait for it, for the embedded evaluator.

There is no thread of its own. Of the threads that wait for a result one leads: it waits on all workers' sockets
and settles whatever arrives, its own result or another's; when it has its own, the next one leads. So a single
caller pays no hand-over. `_lock` guards the state machine, `_leading` says that some thread waits on the
sockets; both change under `_turn`.
"""

from __future__ import annotations

import contextlib
import os
import select
import threading
from collections.abc import Callable, Sequence
from time import monotonic
from typing import Any

from wasmeval.errors import DeadlineExceeded, InvalidArgument, SetupError, Unavailable
from wasmeval.model import Job, Result
from wasmeval.pool.core import TICK_SECONDS, Pool, PoolStats
from wasmeval.pool.observer import Observer, Silent
from wasmeval.pool.place import Place
from wasmeval.pool.process import WorkerProcess
from wasmeval.pool.settings import PoolSettings
from wasmeval.pool.ticket import Partner, Ticket
from wasmeval.runtimes import Catalogue
from wasmeval.session import StatePieces
from wasmeval.wasm.cache import Cache, ProgressCallback
from wasmeval.wasm.calls import Outcome

_REVIVE_SECONDS = 2.0


class Running:
    """One evaluation that was begun, and the way into it; from any thread but one that holds the pool's turn."""

    def __init__(self, driver: BlockingPool, pool: Pool, job: Job) -> None:
        self._driver = driver
        self._pool = pool
        self.outcome: Result | Exception | None = None
        """How it ended; None while it runs."""
        self.ticket = pool.submit(job, self._settle)

    def answer(self, call: int, outcome: Outcome, payload: bytes) -> None:
        """See Pool.answer."""
        with self._driver._lock:
            self._pool.answer(self.ticket, call, outcome, payload)

    def feed(self, data: bytes, ended: bool) -> None:
        """See Pool.feed."""
        with self._driver._lock:
            self._pool.feed(self.ticket, data, ended)

    def stop(self) -> None:
        """See Pool.stop."""
        with self._driver._lock:
            self._pool.stop(self.ticket)

    def cancel(self) -> None:
        """See Pool.cancel."""
        with self._driver._lock:
            if self.outcome is None:
                self._pool.cancel(self.ticket)

    def wait(self, ready: Callable[[], bool], timeout: float | None) -> None:
        """Return when it is over, or when `ready()`, which is asked whenever something has come.

        Raises DeadlineExceeded after `timeout` seconds.
        """
        self._driver._wait(lambda: self.outcome is not None or ready(), timeout)

    def _settle(self, outcome: Result | Exception) -> None:
        self.outcome = outcome


class BlockingPool:
    """Workers for one process, used by any number of its threads. `start` before use, `close` after."""

    def __init__(
        self, settings: PoolSettings, catalogue: Catalogue, observer: Observer | None = None
    ) -> None:
        self._settings = settings
        self._catalogue = catalogue
        self._observer = observer or Silent()
        # Taken by itself: Condition's own entering and leaving are Python, and Ctrl-C between two of its lines would
        # leave it locked.
        self._lock = threading.Lock()
        self._turn = threading.Condition(self._lock)
        self._leading = False
        self._poll = select.epoll()
        self._workers: dict[int, WorkerProcess] = {}
        self._pool: Pool | None = None
        self._next_tick = 0.0
        self._process = os.getpid()

    def start(self, progress: ProgressCallback | None = None) -> None:
        """Compile what is not compiled, start the workers, wait until one is ready. Raises SetupError."""
        runtimes = Cache(self._settings.cache_dir).prepare(self._catalogue, progress)
        with self._lock:
            self._pool = Pool(self._settings, runtimes, self, self._observer)
            self._pool.start()
        pool = self._pool
        try:
            self._wait(lambda: pool.stats().ready > 0 or pool.failure is not None)
        except BaseException:
            self.close()
            raise
        if pool.failure:
            self.close()
            raise SetupError(str(pool.failure))

    def evaluate_many(self, jobs: Sequence[Job], timeout: float | None = None) -> list[Result]:
        """Run all of `jobs`, each in its own fresh instance; results in order.

        An exception in the waiting thread (Ctrl-C) stops the guests, and so does `timeout` in seconds. Raises
        DeadlineExceeded when it passes, ResourceExhausted when the queue is full, Unavailable when closed.
        """
        if timeout is not None and not timeout > 0:
            raise InvalidArgument("timeout", f"must be a positive number of seconds, not {timeout!r}")
        pool = self._checked()
        if pool.failure:
            self._revive(pool)
        outcomes: list[Result | Exception | None] = [None] * len(jobs)
        tickets: list[Ticket] = []
        left = len(jobs)

        def settler(index: int) -> Callable[[Result | Exception], None]:
            def settle(outcome: Result | Exception) -> None:
                nonlocal left
                outcomes[index] = outcome
                left -= 1

            return settle

        try:
            with self._lock:
                for index, job in enumerate(jobs):
                    tickets.append(pool.submit(job, settler(index)))
            self._wait(lambda: left == 0, timeout)
        except BaseException:
            with self._lock:
                for ticket in tickets:
                    pool.cancel(ticket)
            raise
        for outcome in outcomes:
            if isinstance(outcome, Exception):
                raise outcome
        return [outcome for outcome in outcomes if isinstance(outcome, Result)]

    def begin(self, job: Job, attend: Callable[[Running], Partner]) -> Running:
        """Start `job` and return at once; `attend` gives whom the guest's calls go to.

        Raises ResourceExhausted and Unavailable as `evaluate_many`.
        """
        pool = self._checked()
        if pool.failure:
            self._revive(pool)
        with self._lock:
            running = Running(self, pool, job)
            try:
                running.ticket.partner = attend(running)
            except BaseException:
                pool.cancel(running.ticket)
                raise
        return running

    def open_session(self, runtime: str, state: StatePieces = ()) -> Place:
        """See Pool.open_session; waits for a worker that is about to be ready."""
        pool = self._checked()
        if pool.failure:
            self._revive(pool)
        # Nobody else may be driving the pool, which then does not hear that a worker is ready.
        with contextlib.suppress(DeadlineExceeded):
            self._wait(lambda: pool.takes_sessions, self._settings.start_seconds)
        with self._lock:
            return pool.open_session(runtime, state)

    def fork_session(self, place: Place) -> Place:
        """See Pool.fork_session."""
        pool = self._checked()
        with self._lock:
            return pool.fork_session(place)

    def mark_session(self, place: Place) -> None:
        """See Pool.mark_session."""
        pool = self._checked()
        with self._lock:
            pool.mark_session(place)

    def revert_session(self, place: Place) -> Place:
        """See Pool.revert_session."""
        pool = self._checked()
        with self._lock:
            return pool.revert_session(place)

    def session_state(self, place: Place, timeout: float | None = None) -> StatePieces:
        """What the session was after its last good step; see Pool.ask_state. Raises DeadlineExceeded after `timeout`
        seconds."""
        pool = self._checked()
        outcomes: list[StatePieces | Exception] = []
        with self._lock:
            pool.ask_state(place, outcomes.append)
        self._wait(lambda: bool(outcomes), timeout)
        if isinstance(outcomes[0], Exception):
            raise outcomes[0]
        return outcomes[0]

    def hear_session(self, place: Place) -> None:
        """Return when its worker has told the ends of all steps that were given up, or is lost."""
        self._checked()
        self._wait(lambda: not place.given_up or place.is_lost)

    def close_session(self, place: Place) -> None:
        """See Pool.close_session. Nothing once the pool is closed."""
        if self._pool is None or os.getpid() != self._process:
            return
        with self._lock:
            self._pool.close_session(place)

    def close(self) -> None:
        """Kill the workers; evaluations that other threads wait for end as `cancelled`. Safe to call twice."""
        if self._pool is None or os.getpid() != self._process:
            return
        with self._lock:
            self._pool.cancel_all()
            self._pool.close()
            if not self._leading:
                self._poll.close()
            self._turn.notify_all()

    def stats(self) -> PoolStats:
        """Counts of now."""
        return self._checked().stats()

    def jail(self) -> list[list[Any]]:
        """The layers of the jail as a worker found them: [name, holds, detail]."""
        return self._checked().jail()

    # --- Watcher -------------------------------------------------------------------------------------------------

    def watch(self, worker: WorkerProcess) -> None:
        """See core.Watcher."""
        self._workers[worker.fileno()] = worker
        self._poll.register(worker.fileno(), select.EPOLLIN)
        if worker.wants_write:
            self.watch_writes(worker, True)

    def watch_writes(self, worker: WorkerProcess, wanted: bool) -> None:
        """See core.Watcher."""
        self._poll.modify(worker.fileno(), select.EPOLLIN | (select.EPOLLOUT if wanted else 0))

    def unwatch(self, worker: WorkerProcess) -> None:
        """See core.Watcher. What Ctrl-C cut short is done again."""
        self._workers.pop(worker.fileno(), None)
        with contextlib.suppress(OSError, ValueError):
            self._poll.unregister(worker.fileno())

    def changed(self) -> None:
        """See core.Watcher: whoever waits looks again after every round anyway."""

    # --- inside --------------------------------------------------------------------------------------------------

    def _revive(self, pool: Pool) -> None:
        """Workers could not be started some time ago; nobody has driven the pool since. Try once more."""
        with self._lock:
            pool.tick()
        with contextlib.suppress(DeadlineExceeded):
            self._wait(lambda: pool.failure is None, _REVIVE_SECONDS)

    def _checked(self) -> Pool:
        if self._pool is None:
            raise Unavailable("the evaluator is not started")
        if os.getpid() != self._process:
            raise Unavailable("this evaluator belongs to the parent process; make a new one after a fork")
        return self._pool

    def _wait(self, done: Callable[[], bool], timeout: float | None = None) -> None:
        """Return when `done()`; meanwhile lead, or wait for who does. Raises DeadlineExceeded after `timeout`."""
        end = None if timeout is None or timeout >= threading.TIMEOUT_MAX else monotonic() + timeout
        leads = False
        try:
            with self._lock:
                while self._leading and not done() and not _is_over(end):
                    self._turn.wait(None if end is None else max(0.0, end - monotonic()))
                if not done() and not _is_over(end):
                    leads = self._leading = True
            if leads:
                self._lead(done, end)
        finally:
            if leads:
                with self._lock:
                    self._leading = False
                    self._turn.notify_all()
        if not done():
            raise DeadlineExceeded(f"the time-out of {timeout:g} s passed before the result arrived")

    def _lead(self, done: Callable[[], bool], end: float | None) -> None:
        pool = self._pool
        assert pool is not None
        while True:
            events = self._poll.poll(
                TICK_SECONDS if end is None else max(0.0, min(TICK_SECONDS, end - monotonic()))
            )
            with self._lock:
                for descriptor, event in events:
                    worker = self._workers.get(descriptor)
                    if worker and event & select.EPOLLOUT:
                        pool.writable(worker)
                    if worker and event & ~select.EPOLLOUT:
                        pool.readable(worker)
                now = monotonic()
                if now >= self._next_tick:
                    self._next_tick = now + TICK_SECONDS
                    pool.tick()
                if done() or _is_over(end):
                    return
                # Another thread's result may have arrived with ours.
                self._turn.notify_all()


def _is_over(end: float | None) -> bool:
    return end is not None and monotonic() >= end
