"""Vms: the microVMs of an embedded evaluator, on the event loop of its backstage, for the threads that wait for them.

Nothing of it is loaded, and no VM is started, before the first evaluation that needs one. What is begun here has the
interface of `pool.blocking.Running`, so that a conversation does not know where its snippet runs.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Coroutine
from dataclasses import replace
from queue import Empty, SimpleQueue
from time import monotonic
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar
from weakref import WeakValueDictionary

from wasmeval.backstage import Backstage, Begins, Running
from wasmeval.errors import DeadlineExceeded, FailedPrecondition, NotFound, SetupError, Unavailable
from wasmeval.model import Job, Result, RuntimeInfo, Status
from wasmeval.policy import Policy
from wasmeval.tiers import OFF, UNAVAILABLE, Attend, Crossing, Moves, Partner, VmTier, load_vm, moved, stayed
from wasmeval.turns import Turn

if TYPE_CHECKING:
    import asyncio

    from wasmeval.attendant import Link
    from wasmeval.runtimes import Catalogue
    from wasmeval.session import Checkpoint, SessionInfo, SessionOptions
    from wasmeval.vm import VmSettings
    from wasmeval.vm_sessions import VmSession, VmSessions
    from wasmeval.wasm.calls import Operation, Outcome

T = TypeVar("T")

# Whoever calls waits for his own evaluations; there is nobody else to be fair to.
_QUEUE_SIZE = 1 << 30

_LOOK_SECONDS = 1.0
"""So often a thread that waits looks whether there still is somebody who could wake it."""

_CLOSED = "the evaluator is closed"


class Vms:
    """Those of one evaluator, as `settings` say: None where there can be any, False for none. Threads may share it."""

    def __init__(
        self,
        backstage: Backstage,
        catalogue: Catalogue,
        policy: Policy,
        settings: VmSettings | bool | None,
        *,
        require_jail: bool = False,
    ) -> None:
        self._backstage = backstage
        self._catalogue = catalogue
        self._policy = policy
        self._settings = settings
        self._require_jail = require_jail
        self._opening = threading.Lock()
        self._known: Moves | None = None
        self._starting: asyncio.Task[None] | None = None
        self._running: set[asyncio.Task[None]] = set()
        self._sessions: VmSessions | None = None
        self._held: WeakValueDictionary[str, HeldInVm] = WeakValueDictionary()
        self._process = os.getpid()

    @property
    def moves(self) -> Moves:
        """What can run in a VM, and what moves there."""
        with self._opening:
            if self._known is None:
                self._known = self._look()
            return self._known

    @property
    def runtimes(self) -> tuple[RuntimeInfo, ...]:
        """What VMs run; nothing when there are none."""
        return self.moves.runtimes

    def require(self) -> None:
        """Raises SetupError when there can be none."""
        if missing := self.moves.missing:
            raise SetupError(f"there can be no microVMs: {missing}")

    def begin(self, job: Job, attend: Attend) -> Running:
        """Start a job for a VM and return at once; see `BlockingPool.begin`. Raises InvalidArgument for limits with
        which it could not run, Unavailable when closed."""
        self._check_process()
        moves = self.moves
        if moves.vm is None or moves.missing:
            return Over(moves.unavailable(job))
        moves.check(job)
        return _Running(self, self._backstage, job, attend)

    async def evaluate(self, job: Job, attend: Attend) -> Result:
        """Run it, on the loop. Raises SetupError when VMs cannot be started."""
        vm = await self._started()
        if job.session is None:
            return await vm.evaluate(job, attend)
        session: VmSession = job.session
        return await session.step(job, lambda job: vm.evaluate(job, attend))

    def create_session(self, language: str, options: SessionOptions) -> HeldInVm:
        """A new session in a VM. Raises as `VmSessions.create`, and Unavailable when closed."""
        from wasmeval.vm_sessions import VmSessions

        async def create() -> VmSession:
            if self._sessions is None:
                self._sessions = VmSessions(self.moves, self._catalogue, self._policy)
            if not self.moves.missing:
                await self._started()
            return await self._sessions.create(language, options)

        try:
            session = self.wait_for(create)
        except SetupError as error:
            raise FailedPrecondition(str(error)) from None
        return self._hold(session)

    def find_session(self, session_id: str) -> HeldInVm | None:
        """The session of that id; None when it is none of these."""
        session = self._sessions.get(session_id) if self._sessions is not None else None
        return self._hold(session) if session is not None else None

    def _hold(self, session: VmSession) -> HeldInVm:
        with self._opening:
            return self._held.setdefault(session.id, HeldInVm(self, session))

    def wait_for(self, make: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """What `make` gives, on the loop. Raises Unavailable when closed."""
        import asyncio
        from concurrent.futures import CancelledError

        self._check_process()
        loop, making = self._backstage.loop(), make()
        try:
            future = asyncio.run_coroutine_threadsafe(making, loop)
        except RuntimeError:  # Closed just now.
            making.close()
            raise Unavailable(_CLOSED) from None
        try:
            while True:
                try:
                    return future.result(_LOOK_SECONDS)
                except TimeoutError:
                    if self._backstage.is_over:
                        raise Unavailable(_CLOSED) from None
        except CancelledError:
            raise Unavailable(_CLOSED) from None
        finally:
            future.cancel()

    async def _started(self) -> VmTier:
        import asyncio

        vm = self.moves.vm
        assert vm is not None
        if self._starting is None:
            self._starting = asyncio.ensure_future(vm.start())
        # Whoever is cancelled meanwhile leaves it to the others.
        await asyncio.shield(self._starting)
        return vm

    def _check_process(self) -> None:
        if os.getpid() != self._process:
            raise Unavailable("this evaluator belongs to the parent process; make a new one after a fork")

    async def aclose(self) -> None:
        """Ends what runs, as `cancelled`, and the VMs; on the loop."""
        import asyncio

        if self._known is None or self._known.vm is None or self._starting is None:
            return
        vm = self._known.vm
        try:
            if self._starting.done() and self._starting.exception() is None:
                await vm.drain(0.0)
        finally:
            tasks = [self._starting, *self._running]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            if self._sessions is not None:
                self._sessions.close()
            await vm.aclose()

    def _look(self) -> Moves:
        if self._settings is False:
            return Moves(self._policy, None, off=f"{OFF}: this evaluator was made with vm=False")
        settings = None if self._settings is True else self._settings
        try:
            required = {"require_jail": True} if self._require_jail else {}
            vm = load_vm(settings, queue_size=_QUEUE_SIZE, **required)
        except SetupError as error:
            return Moves(self._policy, None, off=str(error))
        return Moves(self._policy, vm)


class HeldInVm:
    """A session in a VM, for the threads that use it: see retained.Held."""

    def __init__(self, vms: Vms, session: VmSession) -> None:
        self._vms = vms
        self._session = session
        self._turn = Turn()
        self.id = session.id
        self.language = session.language
        self.options = session.options

    @property
    def info(self) -> SessionInfo:
        """As it is now."""
        return self._session.info

    @property
    def checkpoints(self) -> tuple[Checkpoint, ...]:
        """Raises FailedPrecondition, as `fork`, `checkpoint`, `restore` and `hibernate`."""
        return self._session.checkpoints

    def step(
        self, job: Job, run: Callable[[Job], Result], *, wait: bool = True, timeout: float | None = None
    ) -> Result:
        """See retained.Held. What `run` gives the job to has it run in the session."""
        with self._turn.take(wait=wait, timeout=timeout):
            return run(replace(job, session=self._session))

    def fork(self) -> NoReturn:
        """See checkpoints."""
        self._vms.wait_for(self._session.fork)

    def checkpoint(self) -> NoReturn:
        """See checkpoints."""
        self._vms.wait_for(self._session.checkpoint)

    def restore(self, checkpoint_id: str) -> NoReturn:
        """See checkpoints."""
        self._vms.wait_for(lambda: self._session.restore(checkpoint_id))

    def hibernate(self) -> NoReturn:
        """See checkpoints."""
        self._vms.wait_for(self._session.hibernate)

    def close(self) -> None:
        """End it. Safe to call twice, and when its evaluator is closed, which has ended it."""
        with self._turn.take(), contextlib.suppress(NotFound, Unavailable):
            self._vms.wait_for(self._session.close)


class Over:
    """An evaluation that is over: what there would be to say to it has no effect."""

    def __init__(self, outcome: Result | Exception) -> None:
        self.outcome: Result | Exception | None = outcome

    def answer(self, call: int, outcome: Outcome, payload: bytes) -> None: ...
    def feed(self, data: bytes, ended: bool) -> None: ...
    def stop(self) -> None: ...
    def cancel(self) -> None: ...
    def wait(self, ready: Callable[[], bool], timeout: float | None) -> None: ...


class _Running:
    """An evaluation in a VM, for a thread that waits for it: see pool.blocking.Running.

    All that is said to it goes to the loop, in order. What comes from there is a word in `_news` for whoever waits:
    a queue of C's own, which Ctrl-C cannot leave locked.
    """

    def __init__(self, vms: Vms, backstage: Backstage, job: Job, attend: Attend) -> None:
        self.outcome: Result | Exception | None = None
        self._vms = vms
        self._backstage = backstage
        self._job = job
        self._news: SimpleQueue[None] = SimpleQueue()
        self._link: Link | None = None
        self._early: list[Callable[[Link], None]] = []
        self._task: asyncio.Task[None] | None = None
        self._partner: Partner = attend(self)
        try:
            backstage.loop().call_soon_threadsafe(self._begin)
        except RuntimeError:  # Closed just now.
            raise Unavailable(_CLOSED) from None

    def answer(self, call: int, outcome: Outcome, payload: bytes) -> None:
        """See Running."""
        self._say(lambda link: link.answer(call, outcome, payload))

    def feed(self, data: bytes, ended: bool) -> None:
        """See Running."""
        self._say(lambda link: link.feed(data, ended))

    def stop(self) -> None:
        """See Running."""
        self._say(lambda link: link.stop())

    def cancel(self) -> None:
        """See Running."""
        self._backstage.call(self._cancel)
        self._news.put(None)

    def wait(self, ready: Callable[[], bool], timeout: float | None) -> None:
        """See Running."""
        end = None if timeout is None else monotonic() + timeout
        while self.outcome is None and not ready():
            left = _LOOK_SECONDS if end is None else end - monotonic()
            if left <= 0:
                raise DeadlineExceeded(f"the time-out of {timeout:g} s passed before the result arrived")
            try:
                self._news.get(timeout=min(left, _LOOK_SECONDS))
            except Empty:
                if self._backstage.is_over and self.outcome is None:
                    self.outcome = Unavailable(_CLOSED)

    # --- on the loop ---------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        import asyncio

        self._task = asyncio.ensure_future(self._run())
        self._vms._running.add(self._task)
        self._task.add_done_callback(self._vms._running.discard)

    async def _run(self) -> None:
        import asyncio

        try:
            self.outcome = await self._vms.evaluate(self._job, self._attend)
        except asyncio.CancelledError:
            self.outcome = Unavailable(_CLOSED)
        except SetupError as error:
            self.outcome = self._vms.moves.unavailable(self._job, str(error))
        except Exception as error:
            self.outcome = error
        finally:
            self._news.put(None)

    def _attend(self, link: Link) -> _Running:
        self._link = link
        for say in self._early:
            say(link)
        self._early.clear()
        return self

    def called(self, call: int, operation: Operation, body: bytes) -> None:
        """See pool.Partner."""
        self._partner.called(call, operation, body)
        self._news.put(None)

    def printed(self, stream: int, data: bytes) -> None:
        """See pool.Partner."""
        self._partner.printed(stream, data)
        self._news.put(None)

    @property
    def gateway(self) -> Any:
        """See vm.task.Partner."""
        return getattr(self._partner, "gateway", None)

    def _say(self, say: Callable[[Link], None]) -> None:
        self._backstage.call(self._pass_on, say)

    def _pass_on(self, say: Callable[[Link], None]) -> None:
        if self._link is None:
            self._early.append(say)
        else:
            say(self._link)

    def _cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()


class BothTiers:
    """Begins evaluations where they belong, in workers or VMs, and takes those across that turn out to need a VM."""

    def __init__(self, workers: Begins, vms: Vms) -> None:
        self._workers = workers
        self._vms = vms

    def begin(self, job: Job, attend: Attend) -> Running:
        """See `BlockingPool.begin`, and `Vms.begin`."""
        if job.tier == "vm":
            return self._vms.begin(job, attend)
        if job.tier == "wasm":
            return self._workers.begin(job, attend)
        return _Moving(self._workers, self._vms, job, attend)

    def after(self, first: Result) -> Begins:
        """What begins a job that has run in Wasm already, and ended `first` there."""
        return _Continued(self._vms, first)


class _Continued:
    def __init__(self, vms: Vms, first: Result) -> None:
        self._vms = vms
        self._first = first

    def begin(self, job: Job, attend: Attend) -> Running:
        return _Moving(self, self._vms, job, attend, Over(self._first))


class _Moving:
    """An evaluation in Wasm, and then in a VM if it has to be: see pool.blocking.Running.

    Whoever looks at `outcome` moves it. `_lock` is held for that, and by who cancels.
    """

    def __init__(
        self, workers: Begins, vms: Vms, job: Job, attend: Attend, first: Running | None = None
    ) -> None:
        self._vms = vms
        self._job = job
        self._lock = threading.Lock()
        self._crossing = Crossing(attend)
        self._second: Running | None = None
        self._settled: Result | Exception | None = None
        self._cancelled = False
        if first is None:
            self._first = workers.begin(job, self._crossing.begin)
        else:
            self._first = first
            self._crossing.begin(first)
            # Of many they are all on their way before the first is waited for.
            self.look()

    @property
    def outcome(self) -> Result | Exception | None:
        """How it ended; None while it runs."""
        if self._settled is None:
            self.look()
        return self._settled

    def look(self) -> None:
        """Move it, if it has to be; settle it, if it is over."""
        with self._lock:
            if self._settled is not None:
                return
            first = self._first.outcome
            if not isinstance(first, Result) or first.status is not Status.UNSUPPORTED:
                self._settled = first
                return
            if self._second is None:
                self._settled = self._cross(first)
            elif (second := self._second.outcome) is not None:
                self._settled = _joined(first, second)

    def answer(self, call: int, outcome: Outcome, payload: bytes) -> None:
        """See Running."""
        self._crossing.answer(call, outcome, payload)

    def feed(self, data: bytes, ended: bool) -> None:
        """See Running."""
        self._crossing.feed(data, ended)

    def stop(self) -> None:
        """See Running."""
        self._crossing.stop()

    def cancel(self) -> None:
        """See Running."""
        with self._lock:
            self._cancelled = True
        (self._second or self._first).cancel()

    def wait(self, ready: Callable[[], bool], timeout: float | None) -> None:
        """See Running."""
        (self._second or self._first).wait(ready, timeout)

    def _cross(self, first: Result) -> Result | Exception | None:
        second = self._vms.moves.second(self._job, first, self._crossing.effect)
        if isinstance(second, Result):
            return second
        if self._cancelled:
            return first
        self._crossing.leave()
        try:
            self._second = self._vms.begin(second, self._crossing.land)
        except Exception as error:
            return error
        return None


def _joined(first: Result, second: Result | Exception) -> Result | Exception:
    if not isinstance(second, Result):
        return second
    is_there = second.error is None or second.error.type != UNAVAILABLE
    return moved(first, second) if is_there else stayed(first, second.error.message if second.error else "")
