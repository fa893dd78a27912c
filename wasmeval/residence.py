"""Residence: the sessions of a service: the keeper's plans, driven in its event loop.

Whoever is cancelled in the middle of a plan waits for its end: a record that was half written would be nobody's.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from typing import Any, Protocol, TypeVar

from wasmeval.errors import (
    Conflict,
    NotFound,
    ResourceExhausted,
    SessionLost,
    SnapshotRefused,
    StoreDamaged,
    StoreUnavailable,
    Unavailable,
    WasmevalError,
)
from wasmeval.model import Job, Result, Status
from wasmeval.receipts import takes_time
from wasmeval.session import Checkpoint, Durability, SessionInfo, SessionOptions, StatePieces
from wasmeval.sessions import Closing, Do, Effect, Fork, Hear, Keeper, Live, Mark, Open, Plan, Revert, State

logger = logging.getLogger(__name__)

T = TypeVar("T")

PAGE = 1000
"""Sessions in one answer of `list`."""
_WATCH_SECONDS = 1.0
_SWEEP_SECONDS = 60.0
_ORPHANS_SECONDS = 600.0
_EXPIRED_AT_ONCE = 100
_LARGE_BYTES = 64 << 20
"""A session of this size is reason to look at once whether all together take too much."""


class Places(Protocol):
    """The part of `pool.AsyncPool` that sessions need."""

    def open_session(self, runtime: str, state: StatePieces = ()) -> Any:
        """See AsyncPool."""

    def fork_session(self, place: Any) -> Any:
        """See AsyncPool."""

    def mark_session(self, place: Any) -> None:
        """See AsyncPool."""

    def revert_session(self, place: Any) -> Any:
        """See AsyncPool."""

    async def session_state(self, place: Any) -> StatePieces:
        """See AsyncPool."""

    async def hear_session(self, place: Any) -> None:
        """See AsyncPool."""

    def close_session(self, place: Any) -> None:
        """See AsyncPool."""


class Residence:
    """All sessions that this service looks after; those that it has not heard of are asleep in the store."""

    def __init__(self, places: Places, keeper: Keeper) -> None:
        self._places = places
        self._keeper = keeper
        self._held: dict[str, Resident] = {}
        self._finding: dict[str, asyncio.Task[Resident]] = {}

    async def create(self, language: str, runtime: str, options: SessionOptions) -> Resident:
        """A new session."""
        return await self.settled(self._held_by(self._keeper.create(language, runtime, options)))

    async def find(self, session_id: str) -> Resident:
        """The session of that id. Raises NotFound, and Unavailable when another replica has it."""
        held = self._held.get(session_id)
        if held is not None:
            return held
        # Two that look at once must find the same.
        task = self._finding.get(session_id)
        if task is None:
            task = asyncio.ensure_future(self._find(session_id))
            self._finding[session_id] = task
            task.add_done_callback(lambda task: self._found(session_id, task))
        return await asyncio.shield(task)

    async def list(self, page_size: int, page_token: str) -> tuple[list[SessionInfo], str]:
        """Some sessions, and the token of the next page; empty when there are no more."""
        size = min(page_size or PAGE, PAGE)
        records, token = await asyncio.to_thread(self._keeper.page, size, page_token)
        infos = []
        for record in records:
            held = self._held.get(record.id)
            infos.append(held.info if held is not None else record.info(is_live=False))
        return infos, token

    async def watch(self) -> None:
        """Puts to sleep what nobody uses, ends what has lived long enough, keeps the leases, tidies the store; until
        cancelled."""
        await asyncio.gather(self._look_after_all(), self._tidy_store())

    async def _tidy_store(self) -> None:
        # Beside the rest: it takes long where much is stored, and leases do not wait.
        while True:
            await asyncio.sleep(_ORPHANS_SECONDS)
            await self.sweep_orphans()

    async def _look_after_all(self) -> None:
        swept = 0.0
        while True:
            await asyncio.sleep(_WATCH_SECONDS)
            if time.monotonic() - swept > _SWEEP_SECONDS:
                swept = time.monotonic()
                await self.sweep()
            for resident in list(self._held.values()):
                with _logged("a session could not be looked after"):
                    await resident.look_after()
            await self.lighten()

    async def lighten(self) -> None:
        """Put those to sleep that were left alone longest, while all live ones together take more than they may."""
        live = [resident for resident in self._held.values() if resident.live.is_live]
        taken = sum(resident.live.memory_bytes for resident in live)
        for resident in sorted(live, key=lambda resident: resident.used):
            if taken <= self._keeper.settings.most_live_bytes:
                return
            if not resident.is_busy:
                with _logged("a session could not be put to sleep for others"):
                    await resident.hibernate()
                    taken -= resident.live.memory_bytes

    async def sweep(self) -> None:
        """Ends the sessions in the store whose life is over."""
        with _logged("sessions whose life is over could not be removed"):
            for live in await asyncio.to_thread(self._keeper.expired, _EXPIRED_AT_ONCE):
                with contextlib.suppress(Conflict):
                    await self.settled(self._keeper.close(live))

    async def sweep_orphans(self) -> None:
        """Removes blobs that no record names, when that is known for long enough; see sessions.orphans."""
        with _logged("what no record names could not be removed"):
            removed = await asyncio.to_thread(self._keeper.sweep_orphans, frozenset(self._held))
            if removed:
                logger.info("removed %d snapshots that no session needs", removed)

    async def hibernate_all(self) -> None:
        """Puts all to sleep; for a service that stops. What cannot be stored is lost, and logged."""
        for resident in list(self._held.values()):
            with _logged("a session could not be put to sleep, and is lost"):
                await resident.hibernate()

    async def settled(self, plan: Plan[T]) -> T:
        """What `plan` gives. It is driven to its end whatever becomes of the caller."""
        try:
            effect = plan.send(None)
        except StopIteration as end:
            # Most plans of a step have nothing to do, and need no task.
            result: T = end.value
            return result
        task = asyncio.ensure_future(self._drive(plan, effect))
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            # Whoever is cancelled twice waits as well: two plans of a session at once would undo each other's work.
            while not task.done():
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.wait({task})
            if not task.cancelled():
                task.exception()
            raise

    async def _drive(self, plan: Plan[T], effect: Effect) -> T:
        while True:
            answer: Any = None
            failure: BaseException | None = None
            try:
                answer = await self._do(effect)
            except Exception as error:
                failure = error
            try:
                effect = plan.send(answer) if failure is None else plan.throw(failure)
            except StopIteration as end:
                result: T = end.value
                return result

    async def _do(self, effect: Effect) -> Any:
        match effect:
            case Do():
                return await asyncio.to_thread(effect.call)
            case Open():
                await self._make_room()
                return self._places.open_session(effect.runtime, effect.state)
            case Fork():
                await self._make_room()
                return self._places.fork_session(effect.place)
            case Mark():
                return self._places.mark_session(effect.place)
            case Revert():
                await self._make_room()
                return self._places.revert_session(effect.place)
            case State():
                async with self._keeper.room.take_async(effect.size):
                    state = await self._places.session_state(effect.place)
                    return await asyncio.to_thread(effect.use, state)
            case Hear():
                return await self._places.hear_session(effect.place)
            case Closing():
                return self._places.close_session(effect.place)

    async def _make_room(self) -> None:
        """Put the session to sleep that was left alone longest, while there are as many live ones as may be."""
        while True:
            live = [resident for resident in self._held.values() if resident.live.is_live]
            if len(live) < self._keeper.settings.most_live:
                return
            idle = [resident for resident in live if not resident.is_busy]
            if not idle:
                raise ResourceExhausted(f"all {len(live)} live sessions are running a step; try again")
            resident = min(idle, key=lambda resident: resident.used)
            try:
                await resident.hibernate()
            except (_Moved, Conflict):
                # It is not ours any more, which leaves as much room.
                continue
            except WasmevalError as error:
                # What is wrong with it must not look like a fault of the session that wants its room.
                raise ResourceExhausted(
                    f"there are {len(live)} live sessions, and one that should make room cannot be put to sleep "
                    f"({type(error).__name__}); try again"
                ) from error

    async def _find(self, session_id: str) -> Resident:
        return await self.settled(self._held_by(self._keeper.find(session_id)))

    def _found(self, session_id: str, task: asyncio.Task[Resident]) -> None:
        del self._finding[session_id]
        if not task.cancelled():
            # Looked at, so that asyncio does not log it, with the id in it, when whoever asked is gone.
            task.exception()

    def _held_by(self, plan: Plan[Live]) -> Plan[Resident]:
        """The plan, and what it gives is looked after even when nobody waits for it any more."""
        return self._hold((yield from plan))

    def _hold(self, live: Live) -> Resident:
        resident = Resident(self, self._keeper, live)
        self._held[live.record.id] = resident
        return resident

    def forget(self, resident: Resident) -> None:
        """It is closed, asleep, or not ours any more: whoever asks for it next looks in the store."""
        if self._held.get(resident.id) is resident:
            del self._held[resident.id]
        place, resident.live.place = resident.live.place, None
        if place is not None:
            self._places.close_session(place)


class Resident:
    """One session: whoever uses it takes its turn, in the order in which they came."""

    def __init__(self, residence: Residence, keeper: Keeper, live: Live) -> None:
        self._residence = residence
        self._keeper = keeper
        self.live = live
        self._turn = asyncio.Lock()
        self._plans = asyncio.Lock()
        """Held while a plan is driven: the lease is renewed in the middle of a step, too."""
        self._clock = asyncio.get_running_loop().time
        self.used = self._clock()

    @property
    def id(self) -> str:
        """Which nobody can guess."""
        return self.live.record.id

    @property
    def language(self) -> str:
        """What it was begun with."""
        return self.live.record.language

    @property
    def options(self) -> SessionOptions:
        """What it may be, without gaps."""
        return self.live.record.options

    @property
    def info(self) -> SessionInfo:
        """As it is now."""
        return self.live.info()

    @property
    def checkpoints(self) -> tuple[Checkpoint, ...]:
        """Those it can go back to, the oldest first."""
        return self.live.record.checkpoints

    @property
    def is_busy(self) -> bool:
        """Whether somebody has its turn."""
        return self._turn.locked()

    async def step(self, job: Job, run: Callable[[Job], Awaitable[Result]], *, waits: bool = True) -> Result:
        """What `run` gives for the job of the next step. Raises ResourceExhausted when another one runs and it does not
        wait."""
        if not waits and self.is_busy:
            raise ResourceExhausted("a step of this session is running; wait for it, or let steps queue")
        async with self._mine():
            self._keeper.check_step(self.live)
            await self._wake()
            job = self._keeper.step_job(self.live, job)
            # A caller who goes away stops the step, and its worker goes back to the last good one.
            try:
                result = await run(job)
            except SessionLost as error:
                raise self._keeper.lost(self.live, error) from None
            if result.status is Status.CRASHED and not self.live.is_live and self.live.record.is_stored:
                result = replace(result, rolled_back=True)
            if takes_time(job, result):
                result = await asyncio.to_thread(self._keeper.attest, self.live, job, result)
            else:
                result = self._keeper.attest(self.live, job, result)
            await self._follow(self._keeper.stepped(self.live, job, result))
        if self.live.memory_bytes > _LARGE_BYTES:
            await self._residence.lighten()
        return result

    async def fork(self) -> Resident:
        """Another session that goes on from here."""
        async with self._mine():
            return await self._follow(self._residence._held_by(self._keeper.fork(self.live)))

    async def checkpoint(self) -> Checkpoint:
        """A moment to go back to."""
        async with self._mine():
            return await self._follow(self._keeper.checkpoint(self.live))

    async def restore(self, checkpoint_id: str) -> None:
        """Go back to it."""
        async with self._mine():
            await self._follow(self._keeper.restore(self.live, checkpoint_id))

    async def hibernate(self) -> None:
        """Store it, and give its place back."""
        async with self._mine():
            await self._follow(self._keeper.hibernate(self.live))
            self._residence.forget(self)

    async def close(self) -> None:
        """End it."""
        async with self._mine():
            await self._follow(self._keeper.close(self.live))
            self._residence.forget(self)

    async def look_after(self) -> None:
        """End it when its life is over, put it to sleep when nobody uses it, keep its lease otherwise."""
        record = self.live.record
        if not self.is_busy and record.expires <= self._keeper.now():
            await self.close()
        elif not self.is_busy and self._clock() - self.used >= (record.options.idle_seconds or 0):
            await self.hibernate()
        elif not self._plans.locked():
            # A plan that is under way writes the record itself, and other sessions' leases do not wait for it.
            try:
                async with self._plans:
                    # Asked for when nothing else is under way: a step that ended meanwhile leaves a short lease.
                    await self._residence.settled(self._keeper.renew(self.live, is_busy=self.is_busy))
            except Conflict:
                self._residence.forget(self)
                raise

    async def _wake(self) -> None:
        was_live = self.live.is_live
        try:
            await self._follow(self._keeper.wake(self.live))
        except Conflict:
            self._residence.forget(self)
            if was_live and self.live.record.options.durability is not Durability.STEP:
                raise
            # Nothing has run, and nothing is lost: another replica was quicker, and the store knows which.
            raise _Moved from None

    async def _follow(self, plan: Plan[T]) -> T:
        async with self._plans:
            return await self._residence.settled(plan)

    @contextlib.asynccontextmanager
    async def _mine(self) -> AsyncIterator[None]:
        async with self._turn:
            if self._residence._held.get(self.id) is not self:
                # It was put to sleep, or closed, while this one waited.
                raise _Moved
            try:
                yield
            except Conflict:
                self._residence.forget(self)
                raise
            except StoreUnavailable:
                if not self.live.is_live and self.live.record.options.durability is Durability.STEP:
                    # What the store has is what counts; whoever asks next looks there.
                    self._residence.forget(self)
                raise
            finally:
                self.used = self._clock()


class _Moved(Exception):
    """The session is not held under this object any more; to be looked for again."""


async def with_session(residence: Residence, session_id: str, use: Callable[[Resident], Awaitable[T]]) -> T:
    """What `use` gives for the session of that id, wherever it is by the time its turn comes."""
    while True:
        try:
            return await use(await residence.find(session_id))
        except _Moved:
            continue


@contextlib.contextmanager
def _logged(what: str) -> Any:
    """What goes wrong when nobody waits for it is logged, and no reason to stop."""
    try:
        yield
    except (_Moved, NotFound):
        pass
    except (Conflict, Unavailable, StoreUnavailable, SessionLost, SnapshotRefused, StoreDamaged) as error:
        logger.warning("%s: %s", what, type(error).__name__)
    except Exception as error:
        # The others are to be looked after all the same.
        logger.error("%s: %s", what, type(error).__name__)
