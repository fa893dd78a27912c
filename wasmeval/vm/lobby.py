"""Lobby: clones that are ready for whoever comes, and the queue of those who wait for one.

A clone is used once. Some are made ahead of time and have gone through a rehearsal, as far as nobody waits; who finds
none gets one that is made for him. No more than `most` run at a time, whatever they do.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from wasmeval.errors import Internal, ResourceExhausted, Unavailable
from wasmeval.vm.agent import Agent, Lost, Machine
from wasmeval.vm.frames import Order, Word

logger = logging.getLogger(__name__)

RESUME_SECONDS = 30.0
"""A clone takes a third of a second; on a machine that is very busy, some."""
_REHEARSAL_SECONDS = 60.0
_ATTEMPTS = 3
_REST_SECONDS = 1.0
"""Between attempts, when clones cannot be made."""
_MAKING = 2
"""Clones that are made at once: each keeps a CPU busy."""
_RETRY_SECONDS = 1.0
_CLOSING = "the virtual machines are shutting down; nothing ran"


@dataclass(frozen=True, slots=True)
class Stats:
    """Counts of now."""

    ready: int
    """Clones that wait for a job."""
    taken: int
    """Clones that have one."""
    waiting: int
    """Jobs that wait for a clone."""
    made: int
    """Clones so far."""


class Lobby:
    """Of one golden machine, on one event loop. `clone` makes a machine, at once; it may raise OSError.

    Each taken agent is given back by `leave`, which ends it.
    """

    def __init__(
        self, clone: Callable[[], Machine], *, ready: int, most: int, queue_size: int, rehearse: bool = True
    ) -> None:
        self._clone = clone
        self._wanted = min(ready, most)
        self._most = most
        self._queue_size = queue_size
        self._rehearses = rehearse
        self._ready: deque[Agent] = deque()
        self._taken: set[Agent] = set()
        self._making: set[asyncio.Task[None]] = set()
        self._waiting: deque[asyncio.Future[Agent]] = deque()
        self._dying: set[Machine] = set()
        self._refuses = self._closed = False
        self._made = 0
        self._failures = 0
        self._retry: asyncio.TimerHandle | None = None
        self._reaping: asyncio.TimerHandle | None = None

    def stats(self) -> Stats:
        """See Stats."""
        return Stats(len(self._ready), len(self._taken), len(self._waiting), self._made)

    def open(self) -> None:
        """Begin to make clones ready."""
        self._fill()

    async def take(self) -> Agent:
        """A fresh clone. Cancelling this gives it up.

        Raises ResourceExhausted when too many wait already, Unavailable once closed, Internal when none can be made.
        """
        if self._refuses:
            raise Unavailable(_CLOSING)
        if self._ready:
            agent = self._ready.popleft()
            self._taken.add(agent)
            # Not now: making the next one would take what this one has to do.
            asyncio.get_running_loop().call_soon(self._fill)
            return agent
        if len(self._waiting) >= self._queue_size:
            raise ResourceExhausted(
                f"{len(self._waiting)} jobs wait for a virtual machine already; nothing ran", _RETRY_SECONDS
            )
        place: asyncio.Future[Agent] = asyncio.get_running_loop().create_future()
        self._waiting.append(place)
        self._fill()
        try:
            return await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled() and place.exception() is None:
                self.leave(place.result())
            raise
        finally:
            with contextlib.suppress(ValueError):
                self._waiting.remove(place)

    def leave(self, agent: Agent) -> None:
        """Its job is over."""
        self._taken.discard(agent)
        self._bury(agent)
        self._fill()

    def refuse(self) -> None:
        """Give nobody a machine any more, whoever waits for one included. What runs goes on."""
        self._refuses = True
        self._fail_all(Unavailable(_CLOSING))

    async def close(self) -> None:
        """End all of them, and whoever waits. Safe to call twice."""
        self.refuse()
        self._closed = True
        if self._retry is not None:
            self._retry.cancel()
        for making in list(self._making):
            making.cancel()
        await asyncio.gather(*self._making, return_exceptions=True)
        for agent in (*self._ready, *self._taken):
            self._bury(agent)
        self._ready.clear()
        self._taken.clear()
        while self._dying:
            self._reap()
            await asyncio.sleep(0.005)

    # --- inside --------------------------------------------------------------------------------------------------

    def _fill(self) -> None:
        """Make as many as are wanted now, and may be."""
        self._reap()
        if self._refuses or self._retry is not None:
            return
        making = len(self._making)
        waiting = sum(not place.done() for place in self._waiting)
        missing = max(waiting, 0) + self._wanted - len(self._ready) - making
        room = self._most - len(self._taken) - len(self._ready) - making
        for _ in range(max(0, min(missing, room, _MAKING - making))):
            task = asyncio.get_running_loop().create_task(self._make())
            self._making.add(task)
            task.add_done_callback(self._made_one)

    def _made_one(self, task: asyncio.Task[None]) -> None:
        self._making.discard(task)
        if not self._closed:
            self._fill()

    async def _make(self) -> None:
        """One more clone, for the first who waits or for later."""
        agent = None
        try:
            self._made += 1
            agent = self._agent_of(self._clone())
            await agent.resume(f"vm-{self._made}", RESUME_SECONDS)
            if self._rehearses and not self._is_awaited():
                agent.send(Order.REHEARSE)
                await agent.wait_for(Word.REHEARSED, _REHEARSAL_SECONDS)
            if agent.is_lost:
                raise Lost("the virtual machine ended before there was a job for it")
        except Exception as error:
            if agent is not None:
                self._bury(agent)
            self._failed(error)
            return
        except BaseException:
            if agent is not None:
                self._bury(agent)
            raise
        self._failures = 0
        while self._waiting:
            place = self._waiting.popleft()
            if not place.done():
                self._taken.add(agent)
                place.set_result(agent)
                return
        agent.attend(None, partial(self._lose_ready, agent))
        self._ready.append(agent)

    @staticmethod
    def _agent_of(machine: Machine) -> Agent:
        try:
            return Agent(machine)
        except BaseException:
            machine.kill()
            raise

    def _lose_ready(self, agent: Agent, lost: Lost) -> None:
        """One that waited for a job has died."""
        with contextlib.suppress(ValueError):
            self._ready.remove(agent)
            self._bury(agent)
            self._failed(lost)

    def _is_awaited(self) -> bool:
        return any(not place.done() for place in self._waiting)

    def _failed(self, error: Exception) -> None:
        """A clone could not be made. Those who wait hear of it after some attempts; it is tried again all the same."""
        if self._closed:
            return
        self._failures += 1
        logger.error("a virtual machine could not be cloned: %s", error)
        if self._failures >= _ATTEMPTS:
            self._fail_all(Internal("no virtual machine can be made now; the service's log says why"))
        loop = asyncio.get_running_loop()
        if self._retry is not None:
            self._retry.cancel()
        self._retry = loop.call_later(_REST_SECONDS * min(self._failures, 30), self._try_again)

    def _fail_all(self, error: Exception) -> None:
        while self._waiting:
            place = self._waiting.popleft()
            if not place.done():
                place.set_exception(error)

    def _try_again(self) -> None:
        self._retry = None
        self._fill()

    def _bury(self, agent: Agent) -> None:
        agent.close()
        if not agent.machine.ended():
            self._dying.add(agent.machine)
            self._reap()

    def _reap(self) -> None:
        """Wait for those that were killed, whoever has ended by now; again soon, while there are some."""
        self._dying = {machine for machine in self._dying if not machine.ended()}
        if self._reaping is not None:
            self._reaping.cancel()
            self._reaping = None
        if self._dying and not self._closed:
            self._reaping = asyncio.get_running_loop().call_later(0.05, self._reap)
