"""ScriptedPool: behaves like `AsyncPool`, without guests; for tests of what stands above the pool. ScriptedVm: the same
for `wasmeval.vm.VmTier`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from wasmeval.errors import ResourceExhausted, SetupError, Unavailable
from wasmeval.model import ErrorInfo, Job, Result, RuntimeInfo, Status

Answer = Result | BaseException | Awaitable[Result]


def succeed(job: Job) -> Result:
    """The default script: every job ends `ok` with the value None."""
    return Result(Status.OK, value_json=b"null", limits=job.limits, runtime=job.runtime)


async def hang() -> Result:
    """An answer that never comes: a guest that only a cancellation stops."""
    await asyncio.Event().wait()
    raise AssertionError("unreachable")


class ScriptedLink:
    """The way into a scripted evaluation: notes what is said, and stops it."""

    def __init__(self, stopping: asyncio.Future[None]) -> None:
        self._stopping = stopping
        self.answers: list[tuple[int, int, bytes]] = []
        self.input: list[tuple[bytes, bool]] = []

    def answer(self, call: int, outcome: int, payload: bytes) -> None:
        """How a call of the guest ended."""
        self.answers.append((call, outcome, payload))

    def feed(self, data: bytes, ended: bool) -> None:
        """Standard input for the guest."""
        self.input.append((data, ended))

    def stop(self) -> None:
        """The evaluation ends, as `cancelled`."""
        if not self._stopping.done():
            self._stopping.set_result(None)


class ScriptedPool:
    """Answers each job as `script(job)` says: with a Result, with an exception, or by an awaitable later.

    At most `running` jobs run at a time and `queue_size` wait for their turn; more are refused, as the real
    pool does. `jobs` are those that started, `stopped` those whose task was cancelled while they ran.
    """

    def __init__(
        self, script: Callable[[Job], Answer] = succeed, *, running: int = 1024, queue_size: int = 1024
    ) -> None:
        self.jobs: list[Job] = []
        self.stopped: list[Job] = []
        self.partners: list[Any] = []
        """Whom the calls of each evaluation that was granted something go to."""
        self.links: list[ScriptedLink] = []
        """The way into each of these."""
        self.healthy = True
        """Whether it says that it can run guests; a test may change it."""
        self._script = script
        self._slots = asyncio.Semaphore(running)
        self._room = running + queue_size
        self._held: set[asyncio.Future[None]] = set()
        """One for each evaluation that was accepted; `drain` stops an evaluation by resolving its future."""
        self._draining = False

    async def start(self) -> None:
        """Nothing to start."""

    def jail(self) -> list[list[Any]]:
        """One layer that holds and one that does not."""
        return [["scripted", True, ""], ["real", False, "no guest runs here"]]

    async def evaluate(self, job: Job, attend: Callable[[Any], Any] | None = None) -> Result:
        """Raises ResourceExhausted when the queue is full, Unavailable when draining or closed.

        `attend` is given a ScriptedLink, and its partner is in `partners`: a script may call it as a guest would.
        """
        if self._draining:
            raise Unavailable("the pool is draining")
        if len(self._held) >= self._room:
            raise ResourceExhausted("the queue is full", retry_after_seconds=0.01)
        stop: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._held.add(stop)
        if attend is not None:
            self.links.append(ScriptedLink(stop))
            self.partners.append(attend(self.links[-1]))
        try:
            async with self._slots:
                if stop.done():
                    raise Unavailable("the pool is draining")
                self.jobs.append(job)
                return await self._answer(job, stop)
        finally:
            self._held.discard(stop)

    async def drain(self, grace_seconds: float) -> None:
        """Takes nothing new, waits for what runs, and stops the rest after the grace."""
        self._draining = True
        loop = asyncio.get_running_loop()
        end = loop.time() + grace_seconds
        while self._held and loop.time() < end:
            await asyncio.sleep(0.005)
        for stop in self._held:
            if not stop.done():
                stop.set_result(None)
        while self._held:
            await asyncio.sleep(0)

    async def aclose(self) -> None:
        """Stops everything at once."""
        await self.drain(0.0)

    async def _answer(self, job: Job, stop: asyncio.Future[None]) -> Result:
        answer = self._script(job)
        if isinstance(answer, Result):
            return answer
        if isinstance(answer, BaseException):
            raise answer
        guest = asyncio.ensure_future(answer)
        first: set[asyncio.Future[Any]] = {guest, stop}
        try:
            await asyncio.wait(first, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            self.stopped.append(job)
            guest.cancel()
            raise
        if guest.done():
            return guest.result()
        guest.cancel()
        error = ErrorInfo("Cancelled", "the service was shutting down")
        return Result(Status.CANCELLED, error=error, limits=job.limits, runtime=job.runtime)


def succeed_in_vm(job: Job) -> Result:
    """The default script of a VM: every job ends `ok` with the value None."""
    status = 0 if job.command or job.runtime == "vm-bash" else None
    return Result(
        Status.OK,
        value_json=b"null",
        limits=job.limits,
        tier="vm",
        runtime=job.runtime,
        tier_detail=ScriptedVm.detail,
        exit_status=status,
    )


class ScriptedPlace:
    """The machine of a session, without a machine: `job.session` of its steps."""

    def __init__(self, runtime: str) -> None:
        self.runtime = runtime
        self.is_lost = False
        """Whether no step can follow."""


class ScriptedVm(ScriptedPool):
    """A tier of VMs without VMs: answers as ScriptedPool does. `missing` says what it lacks; `starts` and `closes` are
    counted. With `failure` it cannot be started."""

    detail = "scripted"

    def __init__(
        self,
        script: Callable[[Job], Answer] = succeed_in_vm,
        *,
        missing: str = "",
        failure: SetupError | None = None,
        minimum_memory_bytes: int = 64 << 20,
        running: int = 16,
        queue_size: int = 256,
        most_sessions: int = 8,
    ) -> None:
        super().__init__(script, running=running, queue_size=queue_size)
        self.places: list[ScriptedPlace] = []
        """Those of sessions that are open."""
        self._most_sessions = most_sessions
        self.missing = missing
        self.starts = 0
        self.closes = 0
        self._failure = failure
        self.runtimes = tuple(
            RuntimeInfo(name, "1.2", name, languages, "cd" * 32, 0, minimum_memory_bytes, "vm")
            for name, languages in (
                ("vm-python", ("python",)),
                ("vm-javascript", ("javascript",)),
                ("vm-bash", ("bash",)),
                ("vm-command", ()),
            )
        )

    async def start(self) -> None:
        """Raises `failure`."""
        self.starts += 1
        if self._failure is not None:
            raise self._failure

    async def open_session(self, runtime: str) -> ScriptedPlace:
        """A place that a script may lose."""
        if self._failure is not None:
            raise self._failure
        if self._draining:
            raise Unavailable("the pool is draining")
        if len(self.places) >= self._most_sessions:
            raise ResourceExhausted(f"{self._most_sessions} sessions are in virtual machines")
        self.places.append(ScriptedPlace(runtime))
        return self.places[-1]

    def close_session(self, place: ScriptedPlace) -> None:
        """It is gone."""
        if place in self.places:
            self.places.remove(place)

    async def aclose(self) -> None:
        """Stops everything at once."""
        self.closes += 1
        await super().aclose()
