"""Service: the use cases, whatever the transport: check a request, run it, report on it, stop in good order."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol, TypeVar

from wasmeval.attendant import Attendant, Link, Talk
from wasmeval.determinism import Deterministic
from wasmeval.errors import FailedPrecondition, InvalidArgument, ResourceExhausted, Unavailable
from wasmeval.limits import (
    MAX_BATCH,
    Limits,
)
from wasmeval.model import (
    NO_ROOM,
    ErrorInfo,
    Job,
    Request,
    Result,
    RuntimeInfo,
    Status,
    why_unrepeatable,
)
from wasmeval.offer import NOTHING, Offer
from wasmeval.policy import BASH, Policy, check_memory, prepare, runtime_infos
from wasmeval.receipts import Notary, takes_time
from wasmeval.residence import PAGE, Residence, Resident, with_session
from wasmeval.runtimes import Catalogue
from wasmeval.session import Checkpoint, SessionInfo, SessionOptions
from wasmeval.telemetry import Telemetry
from wasmeval.vm_sessions import VmSession, VmSessions

T = TypeVar("T")

Session = Resident | VmSession
"""One in Wasm, or one in a VM."""
_VM_PAGE = "vm:"
"""What tokens begin with of pages that sessions in VMs are on; they come first."""

# Unmeasured: batches hold their requests and results in memory, up to 80 MiB each at the worst.
MAX_BATCHES = 64
MAX_UPLOADS_BYTES = 1 << 30
MAX_UPLOAD_BYTES = 256 << 20
"""Of what clients send in pieces, or have not read yet: all of them together, and one of them."""
MAX_UNARY_FILES_BYTES = 16 << 20
"""More files than this have no place in one reply."""

# When the lanes of a batch take longer than this for one evaluation each, there may be more of them.
_SLOW_SECONDS = 0.02

# For so long the checks of one batch keep the event loop to themselves.
_TURN_SECONDS = 0.01

_DRAINING = "the service is shutting down; nothing ran, try again elsewhere or later"


class Pool(Protocol):
    """What runs the jobs: `wasmeval.pool.driven.AsyncPool`, or the double in `wasmeval.testing`."""

    async def evaluate(self, job: Job, attend: Callable[[Link], Any] | None = None) -> Result:
        """Cancelling this stops the guest. `attend` gives whom the guest's calls go to. Raises ResourceExhausted when
        full, Unavailable when draining."""

    async def drain(self, grace_seconds: float) -> None:
        """Takes nothing new, lets what runs end within the grace, then stops it with status `cancelled`."""


class Answers(Protocol):
    """What knows the answers that were given before: `wasmeval.answers.Answers`. Takes its time."""

    def find(self, job: Job) -> Result | None:
        """The answer to the job, if it is known."""

    def keep(self, job: Job, result: Result) -> None:
        """Know it from now on."""


class Service:
    """The use cases over one pool.

    `batch_in_flight` is how much of one batch is in the pool at a time, so that a batch of a thousand leaves the
    workers to others; slow evaluations let it grow to `batch_most_in_flight`. `batch_reply_bytes` bounds the results
    of one batch together. `notary` makes the receipts of deterministic evaluations, `answers` knows those that were
    given before; `vm_sessions` are those in VMs; `vm_runtimes` tells what VMs run at the time.
    """

    def __init__(
        self,
        pool: Pool,
        catalogue: Catalogue,
        policy: Policy | None = None,
        *,
        telemetry: Telemetry | None = None,
        batch_in_flight: int = 8,
        batch_most_in_flight: int = 64,
        batch_reply_bytes: int = 64 << 20,
        offer: Offer = NOTHING,
        residence: Residence | None = None,
        vm_sessions: VmSessions | None = None,
        notary: Notary | None = None,
        answers: Answers | None = None,
        vm_runtimes: Callable[[], tuple[RuntimeInfo, ...]] = tuple,
    ) -> None:
        self._pool = pool
        self._vm_runtimes = vm_runtimes
        self._residence = residence
        self._vm_sessions = vm_sessions
        self._notary = notary
        self._answers = answers
        self._catalogue = catalogue
        self._policy = policy or Policy()
        self._policy.check(catalogue)
        self._telemetry = telemetry
        self._batch_in_flight = batch_in_flight
        self._batch_most_in_flight = batch_most_in_flight
        self._batch_reply_bytes = batch_reply_bytes
        self._offer = offer
        self._uploads = 0
        self._calls = 0
        self._batches = 0
        self._entered = -math.inf
        """When the last call came."""
        self._idle: asyncio.Event | None = None
        """Set while draining and no call is under way; None before."""

    @property
    def observes(self) -> bool:
        """Whether a `carrier` is of any use."""
        return self._telemetry is not None

    async def evaluate(self, request: Request, carrier: Mapping[str, str] | None = None) -> Result:
        """Runs one request. `carrier` holds the caller's trace context. Raises as `prepare` and as the pool."""
        job = prepare(request, self._catalogue, self._policy, self._offer)
        self._enter()
        try:
            return _without_files_beyond(
                MAX_UNARY_FILES_BYTES, await self._answer(job, carrier), _TOO_MANY_FOR_A_REPLY
            )
        finally:
            self._leave()

    @contextlib.contextmanager
    def hold(self) -> Iterator[Callable[[Request, int], None]]:
        """Room for files and input that a client sends in pieces: call what it gives for each of them, with the request
        that they are for.

        Raises InvalidArgument for more than the evaluation's workspace holds, ResourceExhausted for more than
        MAX_UPLOADS_BYTES in all conversations together.
        """
        held = 0

        def hold(request: Request, size: int) -> None:
            nonlocal held
            most = self.limits(request).workspace_bytes or 0
            if held + size > most:
                raise InvalidArgument(
                    "data", f"more than limits.workspace_bytes ({most}) together; raise it or send less"
                )
            if held + size > MAX_UPLOAD_BYTES:
                raise InvalidArgument(
                    "data", f"more than {MAX_UPLOAD_BYTES} together in one conversation; send less"
                )
            if self._uploads + size > MAX_UPLOADS_BYTES:
                raise ResourceExhausted(
                    f"what clients send in pieces takes {self._uploads} bytes now, of {MAX_UPLOADS_BYTES}; try later"
                )
            held += size
            self._uploads += size

        try:
            yield hold
        finally:
            self._uploads -= held

    def release(self, result: Result) -> None:
        """A result of `converse` is on its way to its client: it no longer counts."""
        self._uploads -= _reply_bytes(result)

    def limits(self, request: Request) -> Limits:
        """The limits that apply to a request, where it runs at first."""
        return self._policy.of(request).apply(request.limits)

    def in_tier(self, session_id: str, request: Request) -> Request:
        """The request of a session's step, with the tier that the session lives in: its limits are others."""
        return request if self._in_vm(session_id) is None else request._replace(tier="vm")

    def check(self, request: Request) -> None:
        """Raises InvalidArgument as `converse`, whose request may get files that are not here yet."""
        prepare(request, self._catalogue, self._policy, self._offer)

    async def converse(
        self, request: Request, talk: Talk, carrier: Mapping[str, str] | None = None
    ) -> Result:
        """Runs one request whose guest converses with `talk`. Raises as `evaluate`.

        The result counts to what the service holds until it is given to `release`.
        """
        job = prepare(request, self._catalogue, self._policy, self._offer)
        self._enter()
        try:
            result = await self._answer(job, carrier, talk)
            result = _without_files_beyond(MAX_UPLOADS_BYTES - self._uploads, result, _TOO_MANY_HELD)
            self._uploads += _reply_bytes(result)
            return result
        finally:
            self._leave()

    # --- sessions ------------------------------------------------------------------------------------------------

    async def create_session(self, language: str, options: SessionOptions) -> SessionInfo:
        """Begins a session. Raises InvalidArgument; for one in a VM also FailedPrecondition where there are none, and
        ResourceExhausted."""
        if options.tier == "vm" or language == BASH:
            if self._vm_sessions is None:
                raise FailedPrecondition("this service keeps no sessions in VMs")
            with self._under_way():
                return (await self._vm_sessions.create(language, options)).info
        runtime = self._catalogue.for_language(language)
        options = replace(options, limits=self._policy.apply(options.limits))
        check_memory(options.limits, runtime)
        with self._at_home() as residence:
            resident = await residence.create(language, runtime.translates_to or runtime.name, options)
            return resident.info

    async def step(
        self,
        session_id: str,
        request: Request,
        carrier: Mapping[str, str] | None = None,
        *,
        waits: bool = True,
    ) -> Result:
        """Runs a session's next step. Raises as `evaluate`, and NotFound, SessionLost, Conflict."""
        result = await self._step(session_id, request, lambda job: self._run(job, carrier), waits)
        return _without_files_beyond(MAX_UNARY_FILES_BYTES, result, _TOO_MANY_FOR_A_REPLY)

    async def step_converse(
        self,
        session_id: str,
        request: Request,
        talk: Talk,
        carrier: Mapping[str, str] | None = None,
        *,
        waits: bool = True,
    ) -> Result:
        """Runs a session's next step, whose guest converses with `talk`: see `converse`."""
        result = await self._step(session_id, request, lambda job: self._run(job, carrier, talk), waits)
        result = _without_files_beyond(MAX_UPLOADS_BYTES - self._uploads, result, _TOO_MANY_HELD)
        self._uploads += _reply_bytes(result)
        return result

    async def fork_session(self, session_id: str) -> SessionInfo:
        """Begins another session that goes on from where that one is."""

        async def fork(session: Session) -> SessionInfo:
            return (await session.fork()).info

        return await self._use(session_id, fork)

    async def hibernate_session(self, session_id: str) -> SessionInfo:
        """Puts it to sleep."""

        async def hibernate(session: Session) -> SessionInfo:
            await session.hibernate()
            return session.info

        return await self._use(session_id, hibernate)

    async def close_session(self, session_id: str) -> None:
        """Ends it."""
        await self._use(session_id, lambda session: session.close())

    async def session(self, session_id: str) -> SessionInfo:
        """What it is."""
        return (await self._find(session_id)).info

    async def list_sessions(self, page_size: int, page_token: str) -> tuple[list[SessionInfo], str]:
        """Some of them, and the token of the next page."""
        size, infos = min(page_size or PAGE, PAGE), list[SessionInfo]()
        if self._vm_sessions is not None and (not page_token or page_token.startswith(_VM_PAGE)):
            infos = self._vm_sessions.page(size, page_token.removeprefix(_VM_PAGE))
            page_token = ""
            if len(infos) == size:
                return infos, _VM_PAGE + infos[-1].id
            size -= len(infos)
        with self._at_home() as residence:
            rest, page_token = await residence.list(size, page_token)
            return infos + rest, page_token

    async def make_checkpoint(self, session_id: str) -> Checkpoint:
        """A moment that it can go back to."""
        return await self._use(session_id, lambda session: session.checkpoint())

    async def checkpoints(self, session_id: str) -> tuple[Checkpoint, ...]:
        """Its checkpoints, the oldest first."""
        return (await self._find(session_id)).checkpoints

    async def restore_session(self, session_id: str, checkpoint_id: str) -> SessionInfo:
        """Goes back to a checkpoint."""

        async def restore(session: Session) -> SessionInfo:
            await session.restore(checkpoint_id)
            return session.info

        return await self._use(session_id, restore)

    async def _step(
        self, session_id: str, request: Request, run: Callable[[Job], Awaitable[Result]], waits: bool
    ) -> Result:
        async def step(session: Session) -> Result:
            return await session.step(self._prepare_step(session, request), run, waits=waits)

        return await self._use(session_id, step)

    def _prepare_step(self, session: Session, request: Request) -> Job:
        if request.language:
            raise InvalidArgument("evaluation.language", "is the session's; leave it empty")
        options = session.options
        most = options.limits
        limits = most if request.limits is None else request.limits.within(most, most)
        given, deterministic = request.deterministic, options.deterministic
        if given is not None and deterministic is None:
            raise InvalidArgument("evaluation.deterministic", "the session is not; begin one that is")
        if given is not None and given != Deterministic(transcript=given.transcript, seal=given.seal):
            raise InvalidArgument(
                "evaluation.deterministic", "seed and start time are the session's; leave them out"
            )
        if request.cache:
            raise InvalidArgument("evaluation.cache", "a step runs; leave it out")
        if request.tier not in ("auto", options.tier):
            raise InvalidArgument("evaluation.tier", "is the session's; leave it out")
        if request.command:
            raise InvalidArgument("evaluation.command", "is no step of a session; evaluate it by itself")
        if deterministic is not None:
            deterministic = given or deterministic
        # One in Wasm says why its steps do not move.
        tier = "vm" if options.tier == "vm" else "auto"
        request = request._replace(
            language=session.language, limits=limits, deterministic=deterministic, tier=tier
        )
        return prepare(request, self._catalogue, self._policy, self._offer)

    async def _use(self, session_id: str, use: Callable[[Session], Awaitable[T]]) -> T:
        if (session := self._in_vm(session_id)) is not None:
            with self._under_way():
                return await use(session)
        with self._at_home() as residence:
            return await with_session(residence, session_id, use)

    async def _find(self, session_id: str) -> Session:
        if (session := self._in_vm(session_id)) is not None:
            with self._under_way():
                return session
        with self._at_home() as residence:
            return await residence.find(session_id)

    def _in_vm(self, session_id: str) -> VmSession | None:
        return self._vm_sessions.get(session_id) if self._vm_sessions is not None else None

    @contextlib.contextmanager
    def _at_home(self) -> Iterator[Residence]:
        if self._residence is None:
            raise FailedPrecondition("this service keeps no sessions")
        with self._under_way():
            yield self._residence

    @contextlib.contextmanager
    def _under_way(self) -> Iterator[None]:
        self._enter()
        try:
            yield
        finally:
            self._leave()

    # --- batches, and the rest -----------------------------------------------------------------------------------

    async def evaluate_batch(
        self, requests: Sequence[Request], carrier: Mapping[str, str] | None = None
    ) -> list[Result]:
        """Runs all requests, or none when one is wrong; results in their order.

        A full queue refuses a batch of which nothing was accepted yet; an accepted one waits for room.
        """
        if not 1 <= len(requests) <= MAX_BATCH:
            raise InvalidArgument(
                "evaluations", f"{len(requests)} in one batch; send between 1 and {MAX_BATCH}"
            )
        if self._batches >= MAX_BATCHES:
            raise ResourceExhausted(
                f"{MAX_BATCHES} batches are under way; try again, or send evaluations one by one"
            )
        self._enter()
        self._batches += 1
        try:
            return await _Batch(self, await self._prepare_all(requests), carrier).run()
        finally:
            self._batches -= 1
            self._leave()

    def runtimes(self) -> tuple[RuntimeInfo, ...]:
        """What is installed."""
        return runtime_infos(self._catalogue) + self._vm_runtimes()

    async def drain(self, grace_seconds: float) -> None:
        """Refuses what is new from now on and returns when all that was accepted has its answer.

        What is still running after `grace_seconds` is stopped, and its answer is a Result with status
        `cancelled`.
        """
        idle = self._idle = self._idle or asyncio.Event()
        if not self._calls:
            idle.set()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(idle.wait(), grace_seconds)
        await self._pool.drain(0.0)
        await idle.wait()
        if self._vm_sessions is not None:
            self._vm_sessions.close()
        if self._residence is not None:
            await self._residence.hibernate_all()

    async def quiet(self, still_seconds: float, most_seconds: float) -> None:
        """Returns when nobody has called for `still_seconds`, refused calls included, and after `most_seconds` at the
        latest."""
        end = time.monotonic() + most_seconds
        while (left := self._entered + still_seconds - time.monotonic()) > 0 and time.monotonic() < end:
            await asyncio.sleep(left)

    async def _prepare_all(self, requests: Sequence[Request]) -> list[Job]:
        """All the jobs; other calls get a turn when the checks take long."""
        jobs = []
        clock = asyncio.get_running_loop().time
        turn = clock()
        for index, request in enumerate(requests):
            jobs.append(self._prepare_at(index, request))
            if clock() - turn > _TURN_SECONDS:
                await asyncio.sleep(0)
                turn = clock()
        return jobs

    def _prepare_at(self, index: int, request: Request) -> Job:
        try:
            return prepare(request, self._catalogue, self._policy, self._offer)
        except InvalidArgument as error:
            raise InvalidArgument(f"evaluations[{index}].{error.field}", error.description) from None

    def _enter(self) -> None:
        self._entered = time.monotonic()
        if self._idle is not None:
            raise Unavailable(_DRAINING)
        self._calls += 1

    def _leave(self) -> None:
        self._calls -= 1
        if self._idle is not None and not self._calls:
            self._idle.set()

    async def _answer(self, job: Job, carrier: Mapping[str, str] | None, talk: Talk | None = None) -> Result:
        """What the job gives, attested; or what is known of it."""
        if job.deterministic is None:
            return await self._run(job, carrier, talk)
        answers = self._answers if job.cache else None
        if answers is not None and (known := await asyncio.to_thread(answers.find, job)) is not None:
            return known
        result = await self._run(job, carrier, talk)
        if self._notary is not None:
            attest = self._notary.attest
            result = (
                await asyncio.to_thread(attest, job, result)
                if takes_time(job, result)
                else attest(job, result)
            )
        if answers is not None:
            await asyncio.to_thread(answers.keep, job, result)
        return result

    async def _run(self, job: Job, carrier: Mapping[str, str] | None, talk: Talk | None = None) -> Result:
        if self._telemetry is None:
            return await self._evaluate(job, talk)
        observation = self._telemetry.started(job, carrier)
        try:
            result = await self._evaluate(job, talk)
        except BaseException as error:
            observation.failed(error)
            raise
        observation.ended(result)
        return result

    async def _evaluate(self, job: Job, talk: Talk | None) -> Result:
        grants = job.grants
        if grants is None:
            return await self._pool.evaluate(job)
        attendants: list[Attendant] = []

        def attend(link: Link) -> Attendant:
            attendants.append(Attendant(grants, self._offer, link, talk))
            if talk is not None:
                talk.begins(link)
            return attendants[0]

        try:
            result = await self._pool.evaluate(job, attend)
        finally:
            for attendant in attendants:
                await attendant.aclose()
        uses = attendants[0].uses if attendants else ()
        return replace(result, http=uses) if uses else result


class _Batch:
    """One batch on its way: lanes that each take the next job and run it, until none is left.

    There are few lanes as long as they are quick, and more while most wait, asleep or for a long computation: those
    the workers run in turns, at no cost to others.
    """

    def __init__(self, service: Service, jobs: Sequence[Job], carrier: Mapping[str, str] | None) -> None:
        self._service = service
        self._carrier = carrier
        self._todo = iter(enumerate(jobs))
        self._results: list[Result | None] = [None] * len(jobs)
        self._room = service._batch_reply_bytes
        self._accepted = 0
        self._answered = 0
        self._lanes = 0
        self._close: Callable[[], object] = lambda: None

    async def run(self) -> list[Result]:
        try:
            async with asyncio.TaskGroup() as group:
                self._add_lanes(group, self._service._batch_in_flight)
                widening = group.create_task(self._widen(group))
                self._close = widening.cancel
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from None
        return [result for result in self._results if result is not None]

    def _add_lanes(self, group: asyncio.TaskGroup, count: int) -> None:
        left = len(self._results) - self._answered - self._lanes
        for _ in range(min(count, left)):
            self._lanes += 1
            group.create_task(self._lane())

    async def _widen(self, group: asyncio.TaskGroup) -> None:
        while self._lanes < self._service._batch_most_in_flight:
            answered = self._answered
            await asyncio.sleep(_SLOW_SECONDS)
            if self._answered - answered < self._lanes:
                self._add_lanes(group, min(self._lanes, self._service._batch_most_in_flight - self._lanes))

    async def _lane(self) -> None:
        for index, job in self._todo:
            self._results[index] = self._fit(await self._run(job))
            self._answered += 1
        self._lanes -= 1
        if not self._lanes:
            self._close()

    async def _run(self, job: Job) -> Result:
        while True:
            self._accepted += 1
            try:
                return await self._service._answer(job, self._carrier)
            except ResourceExhausted as full:
                self._accepted -= 1
                if not self._accepted:
                    raise
                await asyncio.sleep(full.retry_after_seconds)
            except Unavailable:
                # What other lanes have done must not be lost.
                if self._service._idle is None:
                    raise
                error = ErrorInfo("Cancelled", "it did not run: the service was shutting down; send it again")
                unrepeatable = why_unrepeatable(Status.CANCELLED) if job.deterministic else ""
                return Result(
                    Status.CANCELLED,
                    error=error,
                    limits=job.limits,
                    runtime=job.runtime,
                    unrepeatable=unrepeatable,
                )

    def _fit(self, result: Result) -> Result:
        """The result while there is room in the reply, else one without value and output."""
        size = _reply_bytes(result)
        if size > self._room:
            total = self._service._batch_reply_bytes
            result = Result(
                Status.OUTPUT_EXCEEDED,
                error=ErrorInfo(
                    "OutputExceeded",
                    f"the results of this batch are more than {total} bytes together; send smaller batches, or lower "
                    "limits.output_bytes",
                ),
                usage=result.usage,
                limits=result.limits,
                tier=result.tier,
                runtime=result.runtime,
                unrepeatable=NO_ROOM if result.receipt else result.unrepeatable,
            )
            size = 0
        self._room -= size
        return result


_TOO_MANY_FOR_A_REPLY = (
    f"more than {MAX_UNARY_FILES_BYTES} in one reply; ask for fewer, or converse: there they come in pieces"
)
_TOO_MANY_HELD = (
    "more than the service has room for now, as other clients read slowly; try again, or ask for fewer"
)


def _without_files_beyond(room: int, result: Result, why: str) -> Result:
    """The result, if its files fit into `room`; else one without them."""
    if not result.files or (size := sum(file.size for file in result.files.values())) <= room:
        return result
    error = ErrorInfo("OutputExceeded", f"the files that outputs asked for are {size} bytes, {why}")
    given = replace(result, status=Status.OUTPUT_EXCEEDED, value_json=b"", array=None, error=error, files={})
    return replace(given, receipt=None, unrepeatable=NO_ROOM) if result.receipt else given


def _reply_bytes(result: Result) -> int:
    """About how much of a reply a result takes, rounded up."""
    error = result.error
    texts = [result.stdout, result.stderr, *((error.type, error.message, error.traceback) if error else ())]
    files = sum(len(path) + file.size for path, file in result.files.items())
    return (
        files
        + len(result.transcript)
        + result.value_bytes
        + sum(len(text) if text.isascii() else len(text.encode()) for text in texts)
    )
