"""Keeper: what happens to a session, in which order: plans that say what is to be done, and are told what came of it.

A plan is a generator. What it yields is an effect (see effects.py) for whoever drives it, so threads and an event loop
follow the same plans. A session's plans are driven one after the other.

A record is changed by compare-and-swap alone: whoever did not see its last version changes nothing.
"""

from __future__ import annotations

import contextlib
import hashlib
import secrets
import time
from base64 import b32encode
from collections.abc import Callable, Container, Mapping
from dataclasses import replace
from typing import TypeVar

from wasmeval.errors import (
    Conflict,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    ResourceExhausted,
    SessionLost,
    StoreDamaged,
    StoreUnavailable,
    Unavailable,
    WasmevalError,
)
from wasmeval.limits import MOST_MEMORY_BYTES
from wasmeval.model import Job, Result
from wasmeval.receipts import Chain, Notary
from wasmeval.session import Checkpoint, Durability, SessionOptions, StatePieces
from wasmeval.sessions.effects import Closing, Do, Fork, Hear, Mark, Open, Plan, Revert, State
from wasmeval.sessions.live import IMAGE_BYTES, Live
from wasmeval.sessions.orphans import Orphans
from wasmeval.sessions.record import Course, SessionRecord, decode, record_key
from wasmeval.sessions.room import Room
from wasmeval.sessions.settings import SessionSettings
from wasmeval.sessions.snapshot import Bound, Sealer
from wasmeval.stores import Store

T = TypeVar("T")

_PREFIX = record_key("")
_MOST_STATE_BYTES = 2 * MOST_MEMORY_BYTES


class Keeper:
    """Plans for the sessions of one store. `images` maps a runtime's name to the digest of its image; without a
    `notary` no step has a receipt."""

    def __init__(
        self,
        store: Store,
        sealer: Sealer,
        images: Mapping[str, str],
        settings: SessionSettings | None = None,
        *,
        notary: Notary | None = None,
        owner: str = "",
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.settings = settings or SessionSettings()
        self._store = store
        self._sealer = sealer
        self._images = images
        self._notary = notary
        self._owner = owner
        self._clock = clock
        self._orphans = Orphans(store, clock=clock)
        self.room = Room(self.settings.most_state_bytes)

    def create(self, language: str, runtime: str, options: SessionOptions, tenant: str = "") -> Plan[Live]:
        """A new session, whose first step is still to come."""
        now = self._clock()
        deterministic = options.deterministic
        record = SessionRecord(
            new_id(), tenant, language, runtime, self._images[runtime], self.settings.apply(options), now, now,
            course=Course.begin(deterministic.seed) if deterministic else None,
        )  # fmt: skip
        return (yield from self._create(record))

    def find(self, session_id: str, tenant: str = "") -> Plan[Live]:
        """The session of that id, asleep. Raises NotFound, for one of another tenant as well."""
        found = yield Do(lambda: self._store.get(_key(session_id)))
        if found is None:
            raise no_such(session_id)
        record, now = decode(found.data), self._clock()
        if record.tenant != tenant or record.expires <= now:
            raise no_such(session_id)
        if record.owner not in ("", self._owner) and record.lease > now:
            raise Unavailable(
                f"another replica has the session for the next {record.lease - now:.1f} s; nothing ran, ask that one "
                "or try again"
            )
        return Live(record, found.version)

    def wake(self, live: Live) -> Plan[None]:
        """See to it that a worker has it. Raises SessionLost when its worker took what was not stored with it."""
        yield from self._catch_up(live)
        record = live.record
        if live.is_live:
            if record.lease <= self._clock():
                # Somebody else may have it by now.
                yield from self._write(live, record)
            return
        if not record.is_stored and live.place is not None:
            raise SessionLost(
                f"the worker of the session died after step {record.steps}, and it was last stored after step "
                f"{record.stored}; restore a checkpoint, or use durability='step'"
            )
        if live.place is None and record.is_out and not live.is_opening:
            raise SessionLost(
                f"the process that had the session is gone, and it was last stored after step {record.stored}; "
                "restore a checkpoint, or use durability='step'"
            )
        is_out = record.options.durability is not Durability.STEP
        if record.owner != self._owner or record.lease <= self._clock() or record.is_out != is_out:
            # From here on it is ours, and whoever had it before can write nothing more. Not before then is its snapshot
            # looked for: who writes the next one removes it.
            yield from self._write(live, replace(record, token=record.token + 1, is_out=is_out))
            live.is_opening = True
        try:
            state: StatePieces = ()
            if record.snapshot:
                state = yield from self._load(record, record.snapshot, record.stored)
            live.place = yield Open(record.runtime, state)
            live.most_file_bytes = max(live.most_file_bytes, sum(map(len, state)))
        except WasmevalError:
            if live.is_opening:
                # Nothing was out: whoever wakes it next, here or elsewhere, finds it as it was stored.
                with contextlib.suppress(Conflict, StoreUnavailable):
                    yield from self._write(live, live.record, lease=0.0)
            raise
        live.is_opening = False

    def _catch_up(self, live: Live) -> Plan[None]:
        """Record the last step, when whoever waited for it was gone before it was recorded."""
        place = live.place
        if place is None or place.is_lost:
            return
        if place.given_up:
            yield Hear(place)
        if place.ended is not None:
            job, result = place.ended
            yield from self.stepped(live, job, self.attest(live, job, result))

    def stepped(self, live: Live, job: Job, result: Result) -> Plan[None]:
        """The step that was `job` has ended with `result`. With `durability="step"` it is stored before this ends.

        When it cannot be stored the session goes back to what is: the step has not happened.
        """
        if live.place is not None:
            live.place.ended = None
        live.count_fuel()
        record = live.record
        has_happened = live.is_live and not result.rolled_back
        if result.usage.peak_memory_bytes:
            # Its memory, the mirror of it, and what is marked; an image's own pages take none. One that no worker told
            # of took no more.
            copies = 3 if live.marked[0] is live.place else 2
            live.memory_bytes = copies * max(0, result.usage.peak_memory_bytes - IMAGE_BYTES)
        record = replace(
            record,
            steps=record.steps + has_happened,
            fuel=record.fuel + result.usage.fuel,
            used=self._clock(),
        )
        if record.course is not None and has_happened:
            receipt = result.receipt.digest if result.receipt else "unrepeatable"
            is_replay = job.world is not None and job.world.transcript is not None
            course = record.course.advanced(result.usage.virtual_ns, receipt, is_replay=is_replay)
            record = replace(record, course=course)
        if record.options.durability is not Durability.STEP or not live.is_live:
            # In the store with what is written next: nothing there is wrong, only old.
            live.record = record
            return
        try:
            if has_happened:
                yield from self._keep(live, record, lease=self._linger())
            else:
                yield from self._write(live, record, lease=self._linger())
        except BaseException as error:
            place, live.place = live.place, None
            yield Closing(place)
            if isinstance(error, SessionLost):
                raise Unavailable(
                    "the session's worker died before the step could be stored; the session is as it was before it"
                ) from None
            raise

    def lost(self, live: Live, error: SessionLost) -> WasmevalError:
        """What it means that a step could not begin, because the worker was gone."""
        if not live.record.is_stored:
            return error
        return Unavailable("the session's worker died before the step began; nothing ran, try again")

    def step_job(self, live: Live, job: Job) -> Job:
        """`job` as the next step of the session, which is live, with no more fuel than it has left."""
        limits, left = job.limits, self.check_step(live)
        if limits.fuel is None or limits.fuel > left:
            limits = replace(limits, fuel=left)
        live.most_file_bytes = max(live.most_file_bytes, limits.workspace_bytes or 0)
        record = live.record
        deterministic = record.options.deterministic
        if deterministic is None or record.course is None:
            # By hand: `replace` takes ten times as long.
            return Job(
                job.runtime,
                job.code,
                job.inputs,
                limits,
                job.grants,
                job.translator,
                live.place,
                tier=job.tier,
                arrays=job.arrays,
            )
        world = record.course.world(deterministic, record.steps, job.world)
        return replace(
            job, limits=limits, session=live.place, deterministic=deterministic, world=world, cache=False
        )

    def attest(self, live: Live, job: Job, result: Result) -> Result:
        """The result of a deterministic session's step with its receipt; any other as it is."""
        course = live.record.course
        if course is None or self._notary is None:
            return result
        chain = Chain(live.record.steps + 1, course.receipt, course.is_forked, course.is_replay)
        return self._notary.attest(job, result, chain)

    def check_step(self, live: Live) -> int:
        """The fuel that is left for a step. Raises FailedPrecondition when there is none."""
        options = live.record.options
        left = (options.total_fuel or 0) - live.record.fuel - live.uncounted_fuel
        if left <= 0:
            raise FailedPrecondition(
                f"the session has spent its total_fuel ({options.total_fuel}); fork it or begin another"
            )
        return left

    def hibernate(self, live: Live) -> Plan[None]:
        """Store it and give its place back. One that sleeps stays asleep."""
        if live.place is None:
            return
        yield from self._catch_up(live)
        live.count_fuel()
        record = live.record
        if live.is_live and not record.is_stored:
            yield from self._keep(live, record, lease=0.0)
        elif not record.is_stored:
            raise SessionLost(
                f"the worker of the session died after step {record.steps}, which was not stored"
            )
        else:
            yield from self._write(live, record, lease=0.0)
        place, live.place = live.place, None
        yield Closing(place)

    def renew(self, live: Live, *, is_busy: bool) -> Plan[None]:
        """Have it for ourselves for a while longer, when little of the time is left. When every step is stored, only
        while one runs: between two of them another replica may have it."""
        is_needed = is_busy or live.record.options.durability is not Durability.STEP
        is_short = live.record.lease < self._clock() + 2 / 3 * self.settings.lease_seconds
        if live.is_live and is_needed and is_short:
            yield from self._write(live, live.record)

    def checkpoint(self, live: Live) -> Plan[Checkpoint]:
        """A moment to go back to: after the last step."""
        record = live.record
        if len(record.checkpoints) >= self.settings.most_checkpoints:
            raise FailedPrecondition(
                f"the session has {len(record.checkpoints)} checkpoints, as many as it may; begin another from one"
            )
        yield from self.wake(live)
        record, name = _next_blob(live.record)
        try:
            digest = yield from self._save(live, record, name, record.steps)
        except SessionLost:
            if not record.is_stored:
                raise
            # All of it is stored: another worker can tell it.
            yield from self.wake(live)
            record, name = _next_blob(live.record)
            digest = yield from self._save(live, record, name, record.steps)
        made = Checkpoint(name, record.id, record.steps, self._clock())
        if record.course is not None:
            made = replace(made, digest=digest)
            record = replace(record, course=record.course.marked(name))
        yield from self._write(live, replace(record, checkpoints=(*record.checkpoints, made)))
        if record.steps:
            yield from self._mark(live, made.id)
        return made

    def restore(self, live: Live, checkpoint_id: str) -> Plan[None]:
        """Go back to a checkpoint; what came after it is lost, but for its checkpoints."""
        record = live.record
        checkpoint = _checkpoint_of(record, checkpoint_id)
        yield from self._catch_up(live)
        live.count_fuel()
        record = live.record
        course = record.course.back(checkpoint.id) if record.course else None
        place = None
        if live.is_marked(checkpoint.id):
            with contextlib.suppress(SessionLost, ResourceExhausted):
                place = yield Revert(live.place)
        if place is None:
            state = yield from self._load(record, checkpoint.id, checkpoint.step)
            live.most_file_bytes = max(live.most_file_bytes, sum(map(len, state)))
            place = yield Open(record.runtime, state)
        stale = record.snapshot
        record = replace(
            record,
            steps=checkpoint.step,
            stored=checkpoint.step,
            # One blob is both, and stays as long as the checkpoint does.
            snapshot=checkpoint.id if checkpoint.step else "",
            used=self._clock(),
            is_out=record.options.durability is not Durability.STEP,
            course=course,
        )
        try:
            yield from self._write(live, record)
        except BaseException:
            # It has not gone back: what it was is still in its place.
            yield Closing(place)
            raise
        old, live.place = live.place, place
        if checkpoint.step:
            yield from self._mark(live, checkpoint.id)
        if old is not None:
            yield Closing(old)
        yield from self._forget(record, stale)

    def fork(self, live: Live) -> Plan[Live]:
        """Another session that goes on from where this one is. Checkpoints stay with this one."""
        yield from self.wake(live)
        live.count_fuel()
        now = self._clock()
        mine, course = live.record.course, None
        if mine is not None:
            mine, course = mine.forked(live.record.steps)
        record = replace(
            live.record,
            course=course,
            id=new_id(),
            created=now,
            used=now,
            snapshot="",
            stored=0,
            blobs=0,
            checkpoints=(),
            token=0,
            is_out=live.record.options.durability is not Durability.STEP,
        )
        place = yield Fork(live.place)
        try:
            if mine is not None:
                # Before there is another one: no two of them are alike.
                yield from self._write(live, replace(live.record, course=mine))
            if record.options.durability is Durability.STEP and record.steps:
                record, name = _next_blob(record)
                yield State(place, live.most_state_bytes, self._putting(record, name, record.steps))
                record = replace(record, snapshot=name, stored=record.steps)
            other = yield from self._create(record)
        except BaseException:
            yield Closing(place)
            raise
        other.place = place
        other.memory_bytes, other.most_file_bytes = live.memory_bytes, live.most_file_bytes
        return other

    def close(self, live: Live) -> Plan[None]:
        """End it, and remove all that is stored of it."""
        place, live.place = live.place, None
        if place is not None:
            yield Closing(place)
        record = live.record
        yield Do(lambda: self._store.remove(record.key, live.version))
        for name in sorted(set(record.blobs_named)):
            yield from self._forget(replace(record, checkpoints=()), name)

    def now(self) -> float:
        """Seconds since 1970."""
        return self._clock()

    def page(self, size: int, token: str, tenant: str = "") -> tuple[list[SessionRecord], str]:
        """At most `size` records of a tenant's sessions, and the token of what follows. Looks into the store: takes its
        time."""
        records: list[SessionRecord] = []
        now = self._clock()
        for key in sorted(self._store.keys(_PREFIX)):
            if key <= token:
                continue
            if len(records) == size:
                return records, record_key(records[-1].id)
            found = self._look_at(key)
            if found is not None and found.record.tenant == tenant and found.record.expires > now:
                records.append(found.record)
        return records, ""

    def expired(self, most: int) -> list[Live]:
        """At most `most` sessions whose life is over, and that nobody has. Looks into the store: takes its time."""
        over = []
        now = self._clock()
        for key in self._store.keys(_PREFIX):
            found = self._look_at(key)
            if found is not None and found.record.expires <= now and found.record.lease <= now:
                over.append(found)
                if len(over) == most:
                    break
        return over

    def sweep_orphans(self, held: Container[str] = ()) -> int:
        """Remove blobs that no record names, but none of a session that is `held`; see Orphans. Takes its time."""
        return self._orphans.sweep(self.settings.orphan_seconds, held)

    # --- inside --------------------------------------------------------------------------------------------------

    def _look_at(self, key: str) -> Live | None:
        """The session under that key; None for none, and for a record that cannot be read: the others can."""
        try:
            found = self._store.get(key)
            return Live(decode(found.data), found.version) if found is not None else None
        except StoreDamaged:
            return None

    def _create(self, record: SessionRecord) -> Plan[Live]:
        record = self._owned(record)
        version = yield Do(lambda: self._store.create(record.key, record.encode()))
        return Live(record, version)

    def _linger(self) -> float:
        return min(self.settings.linger_seconds, self.settings.lease_seconds)

    def _owned(self, record: SessionRecord, lease: float | None = None) -> SessionRecord:
        seconds = self.settings.lease_seconds if lease is None else lease
        return replace(record, owner=self._owner, lease=self._clock() + seconds)

    def _write(self, live: Live, record: SessionRecord, *, lease: float | None = None) -> Plan[None]:
        """Write the record, with a lease of ours for so many seconds, the usual ones when None. With none of them it is
        nobody's, and all of it is stored. Raises Conflict when it was not ours."""
        if lease == 0:
            record = replace(record, owner="", lease=0.0, is_out=False)
        else:
            record = self._owned(record, lease)
        data = record.encode()
        while True:
            try:
                live.version = yield Do(lambda: self._store.swap(record.key, data, live.version))
                break
            except StoreUnavailable:
                live.attempts.add(_digest(data))
                raise
            except Conflict:
                # It may be what we wrote before, when its answer was lost.
                found = (yield Do(lambda: self._store.get(record.key))) if live.attempts else None
                if found is None or _digest(found.data) not in live.attempts:
                    raise Conflict(
                        "another replica has taken the session over, or it was closed; this one changed nothing"
                    ) from None
                live.version = found.version
                live.attempts.clear()
        live.record = record
        live.attempts.clear()

    def _keep(self, live: Live, record: SessionRecord, *, lease: float | None = None) -> Plan[None]:
        """Store the session as it is now, in place of what was stored of it."""
        stale = record.snapshot
        record, name = _next_blob(record)
        is_brief = record.options.durability is Durability.STEP and lease != 0
        yield from self._save(live, record, name, record.steps, is_brief=is_brief)
        record = replace(record, snapshot=name, stored=record.steps)
        yield from self._write(live, record, lease=lease)
        yield from self._forget(record, stale)

    def _mark(self, live: Live, checkpoint_id: str) -> Plan[None]:
        """Have its worker remember what the session is, which is what it was at that checkpoint."""
        yield Mark(live.place)
        live.marked = live.place, checkpoint_id

    def _save(
        self, live: Live, record: SessionRecord, name: str, step: int, *, is_brief: bool = False
    ) -> Plan[str]:
        """The digest of what was saved, when the session is deterministic."""
        put = self._putting(record, name, step, is_brief=is_brief)
        digest: str = yield State(live.place, live.most_state_bytes, put)
        return digest

    def _putting(
        self, record: SessionRecord, name: str, step: int, *, is_brief: bool = False
    ) -> Callable[[StatePieces], str]:
        """What puts a state under that name, and gives its digest when the session is deterministic."""
        bound = _bound(record, name, step)
        key = record.blob_key(name)

        def put(state: StatePieces) -> str:
            self._store.put_blob(key, self._sealer.seal(state, bound, is_brief=is_brief))
            return _state_digest(state) if record.course else ""

        return put

    def _load(self, record: SessionRecord, name: str, step: int) -> Plan[StatePieces]:
        bound = _bound(record, name, step)
        if record.image != self._images.get(record.runtime):
            raise FailedPrecondition(
                f"the session was begun with another image of {record.runtime}; only a service that has it can go on "
                "with it"
            )
        key = record.blob_key(name)
        state: StatePieces = yield Do(
            lambda: self._sealer.open(self._store.get_blob(key), bound, _MOST_STATE_BYTES)
        )
        return state

    def _forget(self, record: SessionRecord, name: str) -> Plan[None]:
        """Remove a blob that no record names any more, unless it is a checkpoint's. One that cannot be removed now lies
        there: what was done is no less done."""
        if name and all(each.id != name for each in record.checkpoints):
            with contextlib.suppress(StoreUnavailable):
                yield Do(lambda: self._store.remove_blob(record.blob_key(name)))


def new_id() -> str:
    """160 bits that nobody can guess, in letters and digits."""
    return b32encode(secrets.token_bytes(20)).decode().lower()


def _state_digest(state: StatePieces) -> str:
    digest = hashlib.sha256()
    for piece in state:
        digest.update(piece)
    return digest.hexdigest()


def _digest(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def _bound(record: SessionRecord, name: str, step: int) -> Bound:
    return Bound(record.image, record.tenant, record.id, name, step)


def _next_blob(record: SessionRecord) -> tuple[SessionRecord, str]:
    """A name that no blob of the session has had, and the record that knows."""
    number = record.blobs + 1
    # Two replicas that both think the session theirs must not write to one blob.
    return replace(record, blobs=number), f"{number}-{secrets.token_hex(4)}"


def _checkpoint_of(record: SessionRecord, checkpoint_id: str) -> Checkpoint:
    for checkpoint in record.checkpoints:
        if checkpoint.id == checkpoint_id:
            return checkpoint
    raise NotFound(f"the session has no checkpoint {checkpoint_id!r}")


def _key(session_id: str) -> str:
    if not (
        len(session_id) == 32
        and session_id.isascii()
        and session_id.isalnum()
        and session_id == session_id.lower()
    ):
        raise InvalidArgument("session_id", "not the id of a session: 32 letters and digits")
    return record_key(session_id)


def no_such(session_id: str) -> NotFound:
    """What to say of an id that is none."""
    return NotFound(f"there is no session {session_id}; it was closed, or its life has ended")
