"""The store fails, a caller goes away, another session cannot make room: no step that was answered is lost."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from wasmeval.errors import Conflict, ResourceExhausted, StoreUnavailable
from wasmeval.limits import DEFAULTS
from wasmeval.model import Job, Result, Status
from wasmeval.residence import Residence, Resident, with_session
from wasmeval.session import SessionOptions, StatePieces
from wasmeval.sessions import Keeper, Sealer, SessionSettings
from wasmeval.stores import Store, open_store

JOB = Job("python", b"", b"", DEFAULTS)


class Place:
    """A session in a worker that is none: the numbers of its steps."""

    given_up = unheard_fuel = counted_fuel = 0
    ended: Any = None

    def __init__(self, steps: list[int]) -> None:
        self.steps = steps
        self.marked: list[int] = []
        self.is_lost = False


class Places:
    """See residence.Places; `slow` is waited for before a fork."""

    def __init__(self) -> None:
        self.open: list[Place] = []

    def open_session(self, runtime: str, state: StatePieces = ()) -> Place:
        self.open.append(Place(json.loads(b"".join(state) or b"[]")))
        return self.open[-1]

    def fork_session(self, place: Place) -> Place:
        self.open.append(Place(place.steps.copy()))
        return self.open[-1]

    def mark_session(self, place: Place) -> None:
        place.marked = place.steps.copy()

    def revert_session(self, place: Place) -> Place:
        self.open.append(Place(place.marked.copy()))
        self.open[-1].marked = place.marked
        return self.open[-1]

    async def session_state(self, place: Place) -> StatePieces:
        return [json.dumps(place.steps).encode()]

    def close_session(self, place: Place) -> None:
        place.is_lost = True
        self.open.remove(place)


class FlakyStore:
    """A store whose calls of these numbers, from 1 on, fail: before they do anything, or after it."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.calls = 0
        self.fails: dict[int, str] = {}
        self.removes_blobs = True

    def __getattr__(self, name: str) -> Callable[..., Any]:
        call: Callable[..., Any] = getattr(self._store, name)

        def flaky(*arguments: object) -> Any:
            self.calls += 1
            fails = self.fails.get(self.calls)
            if fails == "before" or (name == "remove_blob" and not self.removes_blobs):
                raise StoreUnavailable("the store is down")
            answer = call(*arguments)
            if fails == "after":
                raise StoreUnavailable("the store's answer is lost")
            return answer

        return flaky


class Home:
    """A residence over such a store and such places, and what its sessions have done."""

    def __init__(self, **settings: Any) -> None:
        self.store, self.places = FlakyStore(open_store("memory:")), Places()
        keeper = Keeper(
            self.store,  # type: ignore[arg-type]
            Sealer(b"k" * 32),
            {"python": "image"},
            SessionSettings(**settings),
            owner="one",
        )
        self.residence = Residence(self.places, keeper)
        self.last = 0

    async def create(self, durability: str = "none") -> str:
        options = SessionOptions(durability=durability)  # type: ignore[arg-type]
        return (await self.residence.create("python", "python", options)).id

    async def use(self, session: str, use: Callable[[Resident], Awaitable[Any]]) -> Any:
        return await with_session(self.residence, session, use)

    async def step(self, session: str) -> list[int]:
        """The steps that the session remembers, this one last."""
        self.last += 1
        seen: list[int] = []

        async def run(job: Job) -> Result:
            job.session.steps.append(self.last)
            seen[:] = job.session.steps
            return Result(Status.OK, limits=DEFAULTS)

        await self.use(session, lambda resident: resident.step(JOB, run))
        return seen


@pytest.mark.parametrize("durability", ["none", "step"])
def test_no_answered_step_is_lost_whichever_call_fails(durability: str) -> None:
    async def live(fails: dict[int, str]) -> int:
        home = Home()
        session = await home.create(durability)
        home.store.calls, home.store.fails = 0, fails
        answered: list[int] = []
        for what in (*(None, "checkpoint", None, "hibernate", None, "fork", None, "look_after") * 2, None):
            try:
                if what is None:
                    seen = await home.step(session)
                    assert [step for step in seen if step in answered] == answered
                    answered = seen
                else:
                    await home.use(session, lambda resident, what=what: getattr(resident, what)())
            except StoreUnavailable:
                pass
        return home.store.calls

    async def all_of_them() -> None:
        calls = await live({})
        for number in range(1, calls + 1):
            for first in ("before", "after"):
                await live({number: first})
                for second in ("before", "after"):
                    await live({number: first, number + 1: second})
                    await live({number: first, number + 2: second})

    asyncio.run(all_of_them())


@pytest.mark.parametrize("durability", ["none", "step"])
@pytest.mark.parametrize(("is_marked", "number"), [(True, 1), (False, 1), (False, 2)])
def test_a_restoration_that_cannot_be_stored_leaves_the_session_as_it_is(
    durability: str, is_marked: bool, number: int
) -> None:
    async def run() -> None:
        home = Home()
        session = await home.create(durability)
        await home.step(session)
        checkpoint = await home.use(session, Resident.checkpoint)
        await home.step(session)
        if not is_marked:
            (await home.residence.find(session)).live.marked = (None, "")
        home.store.calls, home.store.fails = 0, {number: "before"}
        with pytest.raises(StoreUnavailable):
            await home.use(session, lambda resident: resident.restore(checkpoint.id))
        assert await home.step(session) == [1, 2, 3]
        await home.use(session, lambda resident: resident.restore(checkpoint.id))
        assert await home.step(session) == [1, 4]
        assert len(home.places.open) == 1

    asyncio.run(run())


def test_a_lease_is_not_renewed_for_a_step_that_ended_meanwhile() -> None:
    async def run() -> None:
        home = Home()
        session = await home.create("step")
        await home.step(session)
        resident = await home.residence.find(session)
        lease = resident.live.record.lease
        await resident._turn.acquire()
        await resident._plans.acquire()
        looking = asyncio.ensure_future(resident.look_after())
        await asyncio.sleep(0.01)
        resident._turn.release()
        resident._plans.release()
        await looking
        assert resident.live.record.lease == lease

    asyncio.run(run())


def test_a_blob_that_cannot_be_removed_undoes_nothing() -> None:
    async def run() -> None:
        home = Home()
        session = await home.create("step")
        home.store.removes_blobs = False
        assert [await home.step(session) for _ in range(3)] == [[1], [1, 2], [1, 2, 3]]
        await home.use(session, Resident.hibernate)
        assert await home.step(session) == [1, 2, 3, 4]
        await home.use(session, Resident.close)

    asyncio.run(run())


def test_what_is_wrong_with_a_session_that_is_to_make_room_is_not_the_others_fault() -> None:
    async def run() -> None:
        home = Home(most_live=2)
        idle, session = await home.create(), await home.create()
        await home.step(idle)
        await home.step(session)
        # Another replica has taken the idle one.
        taken = home.store.get(f"sessions/{idle}")
        home.store.swap(f"sessions/{idle}", taken.data + b" ", taken.version)
        await home.use(session, Resident.fork)
        assert await home.step(session) == [2, 3]

        # And one that cannot be stored is still there afterwards.
        home.store.fails = {home.store.calls + 1: "before"}
        with pytest.raises(ResourceExhausted, match="StoreUnavailable"):
            await home.use(session, Resident.fork)
        assert await home.step(session) == [2, 3, 4]

    asyncio.run(run())


def test_a_fork_whose_caller_goes_away_is_looked_after() -> None:
    async def run() -> None:
        home = Home()
        session = await home.create()
        await home.step(session)
        fork = asyncio.ensure_future(home.use(session, Resident.fork))
        await asyncio.sleep(0)
        fork.cancel()
        with pytest.raises(asyncio.CancelledError):
            await fork
        held = [resident.live.place for resident in home.residence._held.values()]
        assert sorted(map(id, held)) == sorted(map(id, home.places.open))

    asyncio.run(run())


def test_who_is_cancelled_twice_waits_for_the_plans_end_too() -> None:
    async def run() -> None:
        home = Home()
        session = await home.create()
        await home.step(session)
        resident = await home.residence.find(session)
        going = asyncio.ensure_future(resident.checkpoint())
        while not resident._plans.locked():
            await asyncio.sleep(0)
        for _ in range(3):
            going.cancel()
            await asyncio.sleep(0)
        with pytest.raises(asyncio.CancelledError):
            await going
        assert len(resident.checkpoints) == 1

    asyncio.run(run())


def test_a_record_that_cannot_be_read_hides_no_other() -> None:
    async def run() -> None:
        home = Home()
        session = await home.create()
        home.store.create(f"sessions/{'a' * 32}", b'{"version": 2}')
        infos, _ = await home.residence.list(0, "")
        assert [info.id for info in infos] == [session]

    asyncio.run(run())


def test_nobody_hears_of_the_id_of_a_session_that_was_not_found(caplog: pytest.LogCaptureFixture) -> None:
    async def run() -> None:
        finding = asyncio.ensure_future(Home().residence.find("a" * 32))
        await asyncio.sleep(0)
        finding.cancel()
        await asyncio.sleep(0.1)

    with caplog.at_level(logging.DEBUG):
        asyncio.run(run())
    assert "a" * 32 not in caplog.text


def test_a_replica_that_was_overtaken_hears_of_it() -> None:
    async def run() -> None:
        home = Home(lease_seconds=0.001)
        session = await home.create()
        await home.step(session)
        await asyncio.sleep(0.01)
        record = home.store.get(f"sessions/{session}")
        home.store.swap(f"sessions/{session}", record.data + b" ", record.version)
        with pytest.raises(Conflict):
            await home.step(session)

    asyncio.run(run())
