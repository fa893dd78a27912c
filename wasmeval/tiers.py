"""Tiers: an evaluation runs in Wasm or in a VM; one that turns out to need a VM moves there, if nothing has happened
yet that must not happen twice.

`Moves` decides, for a service and for an embedded evaluator alike; `Crossing` watches a first run and leads into a
second one; `Tiers` is the pool that a service has over both.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

from wasmeval.errors import FailedPrecondition, InvalidArgument, SetupError
from wasmeval.limits import Limits
from wasmeval.model import ErrorInfo, Job, Result, RuntimeInfo, Status
from wasmeval.offer import check_files_fit
from wasmeval.policy import VM_RUNTIMES, Policy
from wasmeval.wasm.calls import Operation

if TYPE_CHECKING:
    from wasmeval.attendant import Link

# asyncio is loaded by who has a loop already: a `wasmeval run` would start 40 ms later.

OFF = "the tier of microVMs is turned off here"
UNAVAILABLE = "TierUnavailable"
"""The error's type where there are no VMs."""

_NO_HTTP = "needs network access: HTTP is not allowed"
"""What a guest says of that; a VM would allow no more. See test_unsupported.py."""

ASK = 'ask for tier="vm"'


class Partner(Protocol):
    """See pool.Partner."""

    def called(self, call: int, operation: Operation, body: bytes) -> None: ...
    def printed(self, stream: int, data: bytes) -> None: ...


Attend = Callable[[Any], Any]
"""Given the way into an evaluation that was accepted, gives whom its guest's calls go to."""


class Pool(Protocol):
    """What runs jobs; see service.Pool."""

    async def evaluate(self, job: Job, attend: Attend | None = None) -> Result: ...
    async def drain(self, grace_seconds: float) -> None: ...


class VmTier(Pool, Protocol):
    """The microVMs of this machine: `wasmeval.vm.VmTier`, or the double in `wasmeval.testing`. Making one is cheap, and
    what it evaluates are jobs of the tier "vm"."""

    @property
    def missing(self) -> str:
        """One sentence: what it lacks here, and how to get it. Empty when it can run."""

    @property
    def detail(self) -> str:
        """For people: which machine monitor, and whether the processor's virtualisation or an emulation."""

    @property
    def runtimes(self) -> tuple[RuntimeInfo, ...]:
        """What it runs."""

    async def start(self) -> None:
        """Returns when it can evaluate. Raises SetupError."""

    async def open_session(self, runtime: str) -> Any:
        """A place for a session's steps, which are jobs with it as their `session`. Raises ResourceExhausted,
        SetupError."""

    def close_session(self, place: Any) -> None:
        """It is not needed any more. Safe to call twice."""

    async def aclose(self) -> None:
        """Stops everything at once. Safe to call twice."""


def load_vm(settings: Any = None, **changed: Any) -> VmTier:
    """The VMs of `settings`, a `wasmeval.vm.VmSettings`, with some of them `changed`. Raises SetupError where this
    installation has none."""
    try:
        # Not before somebody wants one.
        from wasmeval.vm import VmSettings
        from wasmeval.vm import VmTier as Own
    except ImportError as error:
        raise SetupError(f"this installation has no microVMs ({error}); reinstall wasmeval") from None
    tier: VmTier = Own(replace(VmSettings() if settings is None else settings, **changed))
    return tier


class Moves:
    """Whether an evaluation can run in a VM, and whether it moves there. Threads may share it.

    `vm` is None where there is none, and `off` says why. Nothing moves by itself unless `auto`.
    """

    def __init__(self, policy: Policy, vm: VmTier | None, *, auto: bool = True, off: str = OFF) -> None:
        self.vm = vm
        self._policy = policy
        self._auto = auto
        self._lacking = off if vm is None else ""

    @property
    def missing(self) -> str:
        """Why there are no VMs; empty when there are."""
        return self._lacking or (self.vm.missing if self.vm is not None else OFF)

    @property
    def runtimes(self) -> tuple[RuntimeInfo, ...]:
        """What VMs run; nothing when there are none."""
        return () if self.vm is None or self.missing else self.vm.runtimes

    def give_up(self, error: SetupError) -> None:
        """The tier could not be started: there are no VMs."""
        self._lacking = str(error)

    def check(self, job: Job) -> None:
        """Raises InvalidArgument for limits with which a job for a VM could not run."""
        if why := self._too_small(job.runtime, job.limits):
            raise InvalidArgument("limits.memory_bytes", f"{why}; ask for more")

    async def open_session(self, runtime: str, limits: Limits) -> Any:
        """See vm_sessions.Machines. Raises FailedPrecondition where there are no VMs."""
        if self.vm is None or self.missing:
            raise FailedPrecondition(self.missing)
        self.check(Job(runtime, b"", b"", limits))
        try:
            return await self.vm.open_session(runtime)
        except SetupError as error:
            raise FailedPrecondition(str(error)) from None

    def close_session(self, place: Any) -> None:
        """See vm_sessions.Machines."""
        if self.vm is not None:
            self.vm.close_session(place)

    def unavailable(self, job: Job, why: str = "") -> Result:
        """What a job for a VM ends with where there is none."""
        error = ErrorInfo(UNAVAILABLE, why or self.missing)
        return Result(Status.UNSUPPORTED, error=error, limits=job.limits, tier="vm", runtime=job.runtime)

    def second(self, job: Job, first: Result, effect: str) -> Job | Result:
        """The job that `job`, whose run in Wasm ended `first`, is in a VM; or its result, which says why it does not
        move. `effect`: what it had done outside by then."""
        if first.error is not None and first.error.message.startswith(_NO_HTTP):
            return first
        why = self._obstacle(job, effect)
        if not why:
            limits = self._policy.in_vm.apply(job.asked)
            runtime = VM_RUNTIMES[job.runtime]
            why = self._too_small(runtime, limits) or _too_full(job, limits)
            if not why:
                return replace(job, runtime=runtime, limits=limits, tier="vm", asked=None)
        return stayed(first, why)

    def _obstacle(self, job: Job, effect: str) -> str:
        if job.session is not None:
            return 'a session stays where it is; begin one with tier="vm"'
        if job.translator:
            return f"a VM runs no {job.translator}"
        if missing := self.missing:
            return missing
        if job.grants is not None and job.grants.mounts:
            return f"a VM mounts no folders; send files instead, and {ASK}"
        if not self._auto:
            return f"this service moves nothing by itself; {ASK}"
        return f"it had {effect} by then; {ASK}" if effect else ""

    def _too_small(self, runtime: str, limits: Limits) -> str:
        for info in self.runtimes:
            if info.name == runtime and (limits.memory_bytes or 0) < info.minimum_memory_bytes:
                return f"limits.memory_bytes is {limits.memory_bytes}, and {runtime} needs {info.minimum_memory_bytes}"
        return ""


def _too_full(job: Job, limits: Limits) -> str:
    try:
        check_files_fit(job.grants.files if job.grants else {}, limits)
    except InvalidArgument as error:
        return error.description
    return ""


def stayed(first: Result, why: str) -> Result:
    """The result of a first run that there is no second one of."""
    if first.error is None:
        return first
    message = f"{first.error.message.rstrip(' .')}. It was not run in a VM: {why.rstrip(' .')}."
    return replace(first, error=replace(first.error, message=message))


def moved(first: Result, second: Result) -> Result:
    """The result of the second run of an evaluation whose first one ended `first`."""
    return replace(second, moved=first.error.message if first.error else "it needs what Wasm does not have")


_EFFECTS = {
    Operation.CALL: "called a tool",
    Operation.HTTP: "sent an HTTP request",
    Operation.READ: "sent an HTTP request",
    Operation.FILES: "used a folder",
    Operation.INPUT: "asked for standard input",
}


class Crossing:
    """The way into an evaluation that may run twice: a Link for whoever attends it, which leads into the run that is
    under way, and the first run's Partner, which notes what it does.

    `begin` and `land` are the `attend` of the first run and of the second. Whoever attends knows nothing of a move: no
    call was begun, nothing printed and no input taken before it. `_lock` orders what is said to the evaluation against
    the move; it is never held while something is heard from it, by whom the pool's own lock may be held.
    """

    def __init__(self, attend: Attend) -> None:
        self.effect = ""
        """What the first run did that must not be done twice."""
        self._attend = attend
        self._lock = threading.Lock()
        self._link: Link | None = None
        self._partner: Any = None
        self._ended = False
        self._stopped = False

    def begin(self, link: Link) -> Crossing:
        """The first run was accepted."""
        self._link = link
        self._partner = self._attend(self)
        return self

    def leave(self) -> None:
        """The first run is over, and there will be a second: what is said meanwhile is kept for it."""
        with self._lock:
            self._link = None

    def land(self, link: Link) -> Any:
        """The second run was accepted."""
        with self._lock:
            self._link = link
            if self._ended:
                link.feed(b"", True)
            if self._stopped:
                link.stop()
        return self._partner

    # --- Link ----------------------------------------------------------------------------------------------------

    def answer(self, call: int, outcome: Any, payload: bytes) -> None:
        """See attendant.Link."""
        if self._link is not None:
            self._link.answer(call, outcome, payload)

    def feed(self, data: bytes, ended: bool) -> None:
        """See attendant.Link. Whether it was read by the time the run ends, nobody knows."""
        with self._lock:
            if data:
                self.effect = self.effect or "been sent standard input"
            self._ended = self._ended or ended
            if self._link is not None:
                self._link.feed(data, ended)

    def stop(self) -> None:
        """See attendant.Link."""
        with self._lock:
            self._stopped = True
            self.effect = self.effect or "been cancelled"
            if self._link is not None:
                self._link.stop()

    # --- Partner, of the first run -------------------------------------------------------------------------------

    def called(self, call: int, operation: Operation, body: bytes) -> None:
        """See pool.Partner."""
        self.effect = self.effect or _EFFECTS.get(operation, "")
        self._partner.called(call, operation, body)

    def printed(self, stream: int, data: bytes) -> None:
        """See pool.Partner."""
        self.effect = self.effect or "shown output"
        self._partner.printed(stream, data)


class Tiers:
    """A `service.Pool` over `pool`, in Wasm, and the VMs that `moves` knows of. Whoever made these starts and closes
    them."""

    def __init__(self, pool: Pool, moves: Moves) -> None:
        self._pool = pool
        self._moves = moves

    async def evaluate(self, job: Job, attend: Attend | None = None) -> Result:
        """See service.Pool. A job that moves has its limits, and its deadline, anew; that the VMs are too busy for it
        is raised as ResourceExhausted: it may be sent again."""
        if job.tier == "wasm":
            return await self._pool.evaluate(job, attend)
        if job.tier == "vm":
            return await self._in_vm(job, attend)
        if attend is None:
            first = await self._pool.evaluate(job)
            return first if first.status is not Status.UNSUPPORTED else await self._again(job, first, None)
        crossing = Crossing(attend)
        first = await self._pool.evaluate(job, crossing.begin)
        return first if first.status is not Status.UNSUPPORTED else await self._again(job, first, crossing)

    async def drain(self, grace_seconds: float) -> None:
        """See service.Pool."""
        import asyncio

        vm = self._moves.vm
        draining = [self._pool.drain(grace_seconds)]
        if vm is not None and not self._moves.missing:
            draining.append(vm.drain(grace_seconds))
        await asyncio.gather(*draining)

    async def _in_vm(self, job: Job, attend: Attend | None) -> Result:
        vm = self._moves.vm
        if vm is None or self._moves.missing:
            return self._moves.unavailable(job)
        self._moves.check(job)
        try:
            return await vm.evaluate(job, attend)
        except SetupError as error:
            return self._moves.unavailable(job, str(error))

    async def _again(self, job: Job, first: Result, crossing: Crossing | None) -> Result:
        second = self._moves.second(job, first, crossing.effect if crossing else "")
        if isinstance(second, Result):
            return second
        vm = self._moves.vm
        assert vm is not None
        attend = None
        if crossing is not None:
            crossing.leave()
            attend = crossing.land
        try:
            return moved(first, await vm.evaluate(second, attend))
        except SetupError as error:
            return stayed(first, str(error))
