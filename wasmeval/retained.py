"""Retained: the sessions of an embedded evaluator: the keeper's plans, driven by the threads that wait for them."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from time import monotonic
from typing import Any, TypeVar

from wasmeval.errors import (
    Conflict,
    FailedPrecondition,
    NotFound,
    ResourceExhausted,
    SessionLost,
    StoreUnavailable,
    WasmevalError,
)
from wasmeval.model import Job, Result, Status
from wasmeval.pool import BlockingPool
from wasmeval.session import Checkpoint, SessionInfo, SessionOptions
from wasmeval.sessions import Closing, Do, Effect, Fork, Hear, Keeper, Live, Mark, Open, Plan, Revert, State
from wasmeval.turns import Turn

T = TypeVar("T")

_TIDY_SECONDS = 1.0
_LARGE_BYTES = 64 << 20
"""A session of this size is reason to look at once whether all together take too much."""


class Retained:
    """All sessions of one evaluator. Threads may share it."""

    def __init__(self, pool: BlockingPool, keeper: Keeper) -> None:
        self._pool = pool
        self._keeper = keeper
        self._lock = threading.Lock()
        self._held: dict[str, Held] = {}
        self._tidied = 0.0

    def create(self, language: str, runtime: str, options: SessionOptions) -> Held:
        """A new session."""
        return self._hold(self.run(self._keeper.create(language, runtime, options)))

    def find(self, session_id: str) -> Held:
        """The session of that id. Raises NotFound."""
        with self._lock:
            held = self._held.get(session_id)
        if held is not None:
            return held
        return self._hold(self.run(self._keeper.find(session_id)))

    def close(self) -> None:
        """Forget them; the pool, which is closed before, has none of them any more."""
        with self._lock:
            self._held.clear()

    def run(self, plan: Plan[T]) -> T:
        """What `plan` gives."""
        answer: Any = None
        failure: BaseException | None = None
        while True:
            try:
                effect = plan.send(answer) if failure is None else plan.throw(failure)
            except StopIteration as end:
                result: T = end.value
                return result
            answer, failure = None, None
            try:
                answer = self._do(effect)
            except BaseException as error:
                failure = error

    def _do(self, effect: Effect) -> Any:
        match effect:
            case Do():
                return effect.call()
            case Open():
                self._make_room()
                return self._pool.open_session(effect.runtime, effect.state)
            case Fork():
                self._make_room()
                return self._pool.fork_session(effect.place)
            case Mark():
                return self._pool.mark_session(effect.place)
            case Revert():
                self._make_room()
                return self._pool.revert_session(effect.place)
            case State():
                with self._keeper.room.take(effect.size):
                    return effect.use(self._pool.session_state(effect.place))
            case Hear():
                return self._pool.hear_session(effect.place)
            case Closing():
                return self._pool.close_session(effect.place)

    def tidy(self, grown_bytes: int) -> None:
        """End sessions whose life is over, put those to sleep that nobody uses, or that take too much together; after a
        step of one that takes `grown_bytes`."""
        now = monotonic()
        with self._lock:
            may_be_heavy = grown_bytes > _LARGE_BYTES and self._is_heavy()
            if now - self._tidied < _TIDY_SECONDS and not may_be_heavy:
                return
            self._tidied = now
            idle = sorted(
                (held for held in self._held.values() if held.live.is_live and not held.turn.is_taken),
                key=lambda held: held.used,
            )
        for held in idle:
            record = held.live.record
            is_alone = now - held.used >= (record.options.idle_seconds or 0)
            with contextlib.suppress(WasmevalError):
                if record.expires <= self._keeper.now():
                    held.close()
                elif is_alone or self._is_heavy():
                    held.hibernate(wait=False)

    def _is_heavy(self) -> bool:
        held = list(self._held.values())
        return sum(each.live.memory_bytes for each in held if each.live.is_live) > (
            self._keeper.settings.most_live_bytes
        )

    def _make_room(self) -> None:
        """Put the session to sleep that was left alone longest, while there are as many live ones as may be."""
        while True:
            with self._lock:
                live = [held for held in self._held.values() if held.live.is_live]
                if len(live) < self._keeper.settings.most_live:
                    return
                idle = [held for held in live if not held.turn.is_taken]
            if not idle:
                raise ResourceExhausted(
                    f"all {len(live)} live sessions are running a step; try again, or allow more"
                )
            try:
                min(idle, key=lambda held: held.used).hibernate(wait=False)
            except (ResourceExhausted, FailedPrecondition, Conflict):
                # Somebody uses it just now, or it is closed or not ours any more; another one is looked for.
                continue
            except StoreUnavailable as error:
                # What is wrong with it must not look like a fault of the session that wants its room.
                raise ResourceExhausted(
                    f"there are {len(live)} live sessions, and one that should make room cannot be put to sleep "
                    f"({type(error).__name__}); try again"
                ) from error

    def _hold(self, live: Live) -> Held:
        with self._lock:
            return self._held.setdefault(live.record.id, Held(self, self._keeper, live))

    def forget(self, held: Held) -> None:
        """It is closed, or not ours any more."""
        with self._lock:
            if self._held.get(held.id) is held:
                del self._held[held.id]
        place, held.live.place = held.live.place, None
        if place is not None:
            self._pool.close_session(place)


class Held:
    """One session: whoever uses it takes its turn."""

    def __init__(self, sessions: Retained, keeper: Keeper, live: Live) -> None:
        self._sessions = sessions
        self._keeper = keeper
        self.live = live
        self.turn = Turn()
        self.used = monotonic()
        self._is_closed = False
        self._is_overtaken = False

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

    def step(
        self, job: Job, run: Callable[[Job], Result], *, wait: bool = True, timeout: float | None = None
    ) -> Result:
        """What `run` gives for the job of the next step. Raises ResourceExhausted when another one runs and `wait` is
        False, DeadlineExceeded when its turn has not come after `timeout` seconds."""
        with self._turn(wait=wait, timeout=timeout):
            if self.live.record.expires <= self._keeper.now():
                self._is_closed = True
                self._sessions.forget(self)
                self._sessions.run(self._keeper.close(self.live))
                raise NotFound(f"the life of session {self.id} has ended")
            self._keeper.check_step(self.live)
            self._sessions.run(self._keeper.wake(self.live))
            job = self._keeper.step_job(self.live, job)
            # What this raises (a time-out, Ctrl-C) stops the step, and its worker goes back to the last good one.
            try:
                result = run(job)
            except SessionLost as error:
                raise self._keeper.lost(self.live, error) from None
            if result.status is Status.CRASHED and not self.live.is_live and self.live.record.is_stored:
                result = replace(result, rolled_back=True)
            result = self._keeper.attest(self.live, job, result)
            self._sessions.run(self._keeper.stepped(self.live, job, result))
        self._sessions.tidy(self.live.memory_bytes)
        return result

    def fork(self) -> Held:
        """Another session that goes on from here."""
        with self._turn():
            return self._sessions._hold(self._sessions.run(self._keeper.fork(self.live)))

    def checkpoint(self) -> Checkpoint:
        """A moment to go back to."""
        with self._turn():
            return self._sessions.run(self._keeper.checkpoint(self.live))

    def restore(self, checkpoint_id: str) -> None:
        """Go back to it."""
        with self._turn():
            self._sessions.run(self._keeper.restore(self.live, checkpoint_id))

    def hibernate(self, *, wait: bool = True) -> None:
        """Store it, and give its place back. Raises ResourceExhausted when it is in use and `wait` is False."""
        with self._turn(wait=wait):
            self._sessions.run(self._keeper.hibernate(self.live))

    def close(self) -> None:
        """End it. Safe to call twice."""
        if self._is_closed or self._is_overtaken:
            return
        with self._turn():
            self._is_closed = True
            self._sessions.forget(self)
            self._sessions.run(self._keeper.close(self.live))

    @contextlib.contextmanager
    def _turn(self, *, wait: bool = True, timeout: float | None = None) -> Iterator[None]:
        with self.turn.take(wait=wait, timeout=timeout):
            if self._is_closed:
                raise FailedPrecondition("the session is closed")
            if self._is_overtaken:
                raise Conflict("another evaluator has taken the session over; attach to it again")
            self.used = monotonic()
            try:
                yield
            except Conflict:
                self._is_overtaken = True
                self._sessions.forget(self)
                raise
            self.used = monotonic()
