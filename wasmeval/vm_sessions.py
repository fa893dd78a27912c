"""VmSessions: the sessions that live in microVMs, on one event loop: a service's, or that of an evaluator's backstage.

Each has a machine of its own from its beginning to its end. A machine cannot be stored, so nothing of such a session
sleeps, is copied or goes back: where a session in Wasm would be put to sleep, it ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from typing import Any, NoReturn, Protocol

from wasmeval.errors import FailedPrecondition, InvalidArgument, ResourceExhausted, SessionLost
from wasmeval.limits import Limits
from wasmeval.model import Job, Result, Status
from wasmeval.policy import BASH, Policy, runtime_in_vm
from wasmeval.runtimes import Catalogue
from wasmeval.session import Checkpoint, Durability, SessionInfo, SessionOptions
from wasmeval.sessions import SessionSettings, new_id, no_such

_MOST_LOST = 1000
"""Sessions whose machine is gone, and whose users have not heard of it yet."""


class Machines(Protocol):
    """Where the machines come from: `tiers.Moves`."""

    async def open_session(self, runtime: str, limits: Limits) -> Any:
        """A place: what a job of the session's has as its `session`. Its `is_lost` says that no step can follow."""

    def close_session(self, place: Any) -> None:
        """Its machine is ended. Safe to call twice."""


class VmSessions:
    """All of them. Those that are lost are among them until they are closed or their life ends."""

    def __init__(
        self,
        machines: Machines,
        catalogue: Catalogue,
        policy: Policy,
        settings: SessionSettings | None = None,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._machines = machines
        self._catalogue = catalogue
        self._policy = policy.in_vm
        self._settings = settings or SessionSettings()
        self._clock = clock
        self._held: dict[str, VmSession] = {}

    async def create(self, language: str, options: SessionOptions) -> VmSession:
        """A new session, which has its machine. Raises InvalidArgument for what none in a VM can be, FailedPrecondition
        when there are no VMs, ResourceExhausted when there are as many as may be."""
        _check(language, options)
        _, runtime = runtime_in_vm(language, self._catalogue)
        limits = self._policy.apply(options.limits)
        options = replace(self._settings.apply(options), limits=limits, tier="vm", total_fuel=None)
        place = await self._machines.open_session(runtime, limits)
        session = VmSession(self, self._machines, language, runtime, options, place, self._clock)
        self._held[session.id] = session
        return session

    def get(self, session_id: str) -> VmSession | None:
        """The session of that id; None when it is none of these."""
        return self._held.get(session_id)

    def page(self, size: int, after: str) -> list[SessionInfo]:
        """At most `size` of them whose id is greater than `after`, in the order of their ids."""
        return [self._held[each].info for each in sorted(self._held) if each > after][:size]

    def close(self) -> None:
        """End all of them at once."""
        for session in list(self._held.values()):
            session.end()

    # --- for VmSession -------------------------------------------------------------------------------------------

    def forget(self, session: VmSession) -> None:
        """It has ended."""
        self._held.pop(session.id, None)

    def bound_lost(self) -> None:
        """One more is lost; those that were lost first need not be told for ever."""
        lost = [session for session in self._held.values() if session.is_lost]
        for session in lost[: max(0, len(lost) - _MOST_LOST)]:
            session.end()


class VmSession:
    """One session, with the methods of `residence.Resident`. Whoever uses it takes his turn, in the order in which they
    came."""

    def __init__(
        self,
        sessions: VmSessions,
        machines: Machines,
        language: str,
        runtime: str,
        options: SessionOptions,
        place: Any,
        clock: Callable[[], float],
    ) -> None:
        self.id = new_id()
        """Which nobody can guess."""
        self.language = language
        self.options = options
        self._runtime = runtime
        self._sessions = sessions
        self._machines = machines
        self._place = place
        self._clock = clock
        self._created = self._used = clock()
        self._steps = 0
        self._lost = ""
        self._is_closed = False
        self._turn = asyncio.Lock()
        self._timer: asyncio.TimerHandle | None = None
        self._watch()

    @property
    def info(self) -> SessionInfo:
        """As it is now; from any thread."""
        return SessionInfo(
            self.id, self.language, self._runtime, not self.is_lost, self._steps, 0, self._created, self._used,
            self._expires, self.options,
        )  # fmt: skip

    @property
    def is_lost(self) -> bool:
        """Whether it has no machine any more."""
        return bool(self._lost) or self._place.is_lost

    async def step(self, job: Job, run: Callable[[Job], Awaitable[Result]], *, waits: bool = True) -> Result:
        """What `run` gives for the job of the next step. Raises ResourceExhausted when another one runs and it does not
        wait, SessionLost when no step can follow those before it."""
        if not waits and self._turn.locked():
            raise ResourceExhausted("a step of this session is running; wait for it, or let steps queue")
        async with self._mine():
            if self.is_lost:
                self._lose("its machine ended after")
                raise SessionLost(self._lost)
            try:
                # Cancelled, it returns when the step has ended.
                result = await run(replace(job, session=self._place))
            except asyncio.CancelledError:
                self._ended(Status.CANCELLED)
                raise
            self._ended(result.status)
            return result

    async def close(self) -> None:
        """End it, as soon as no step runs."""
        async with self._mine():
            self.end()

    async def fork(self) -> NoReturn:
        """Raises FailedPrecondition, as all that follows."""
        raise _cannot("be forked: no copy of a running machine is made; begin another, or one in Wasm")

    async def hibernate(self) -> NoReturn:
        """See fork."""
        raise _cannot("sleep: its machine is not stored; close it, or let it end after idle_seconds")

    async def checkpoint(self) -> NoReturn:
        """See fork."""
        raise _cannot(_GO_BACK)

    async def restore(self, checkpoint_id: str) -> NoReturn:
        """See fork."""
        raise _cannot(_GO_BACK)

    @property
    def checkpoints(self) -> tuple[Checkpoint, ...]:
        """See fork."""
        raise _cannot(_GO_BACK)

    def end(self) -> None:
        """End it at once, whoever uses it. Safe to call twice."""
        self._is_closed = True
        if self._timer is not None:
            self._timer.cancel()
        self._sessions.forget(self)
        self._machines.close_session(self._place)

    # --- inside --------------------------------------------------------------------------------------------------

    @property
    def _expires(self) -> float:
        return self._created + (self.options.life_seconds or 0)

    @contextlib.asynccontextmanager
    async def _mine(self) -> AsyncIterator[None]:
        async with self._turn:
            if self._is_closed:
                raise no_such(self.id)
            try:
                yield
            finally:
                self._used = self._clock()
                self._watch()

    def _watch(self) -> None:
        """Look again when it may be over: nobody has used it for long enough, or its life has ended."""
        if self._timer is not None:
            self._timer.cancel()
        if not self._is_closed:
            left = min(self._expires, self._used + (self.options.idle_seconds or 0)) - self._clock()
            self._timer = asyncio.get_running_loop().call_later(max(left, 0), self._due)

    def _due(self) -> None:
        # One that is in use is looked at again when it is not.
        if not self._turn.locked():
            self.end()

    def _ended(self, status: Status) -> None:
        self._steps += 1
        if self._place.is_lost:
            self._lose(f"its interpreter ended, {status.value}, in")

    def _lose(self, what: str) -> None:
        if not self._lost:
            self._lost = (
                f"the session is lost: {what} step {self._steps}, and a VM cannot go back; begin another"
            )
            self._machines.close_session(self._place)
            self._sessions.bound_lost()


_GO_BACK = (
    "go back, and has no checkpoints: no copy of a running machine is made; keep files, or use one in Wasm"
)


def _cannot(what: str) -> FailedPrecondition:
    return FailedPrecondition(f"a session in a VM cannot {what}")


def _check(language: str, options: SessionOptions) -> None:
    if options.tier == "wasm":
        raise InvalidArgument("tier", f"{BASH} runs in a VM alone; leave tier out, or ask for 'vm'")
    if options.durability is not Durability.NONE:
        raise InvalidArgument("durability", "a VM's state is not stored; leave it out, or the tier")
    if options.total_fuel is not None:
        raise InvalidArgument("total_fuel", "a VM has no fuel; limits.cpu_seconds bounds each step")
