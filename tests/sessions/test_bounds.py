"""What sessions may take together, and how long: in workers, in workspaces, and of time."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.grpc.conftest import WAIT_SECONDS
from tests.grpc.test_sessions import serve
from wasmeval import Client, Evaluator, Limits, NotFound, ServiceSession, Status
from wasmeval.limits import MIB
from wasmeval.pool import BlockingPool
from wasmeval.pool.core import Pool
from wasmeval.sessions.record import decode, record_key
from wasmeval.sessions.room import Room
from wasmeval.stores.memory import MemoryStore


@pytest.fixture(scope="module")
def evaluator() -> Iterator[Evaluator]:
    with Evaluator(workers=1) as evaluator:
        yield evaluator


def resident_bytes(pid: int) -> int:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def test_idle_sessions_take_no_more_than_they_may(monkeypatch: pytest.MonkeyPatch) -> None:
    """What rests, and its mirror, counts: those that were left alone longest are put to sleep."""
    with Evaluator(workers=1) as evaluator:
        with evaluator.session() as first:
            first.evaluate("0")
        keeper = evaluator._retained()._keeper
        keeper.settings = replace(keeper.settings, most_live_bytes=256 * MIB)
        (worker,) = evaluator._pool._workers.values()
        before = resident_bytes(worker.process.pid)
        sessions = [evaluator.session() for _ in range(6)]
        for number, session in enumerate(sessions):
            session.evaluate(f"x = b'%d' % {number} * (48 << 20); 0")
        evaluator.evaluate("0")
        assert resident_bytes(worker.process.pid) - before < 384 * MIB
        assert [session.evaluate("x[:1]").value["repr"] for session in sessions] == [
            f"b'{n}'" for n in range(6)
        ]


# States on their way to the store are in this process's memory.


class Traffic:
    """Counts states from when they are asked for until they are stored."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = self.most = 0
        self._lock = threading.Lock()
        ask_state, put_blob = Pool.ask_state, MemoryStore.put_blob

        def asked(pool: Pool, *arguments: Any) -> None:
            with self._lock:
                self.now += 1
                self.most = max(self.now, self.most)
            ask_state(pool, *arguments)

        def stored(store: MemoryStore, *arguments: Any) -> None:
            # Long enough for all others to be asked for meanwhile.
            time.sleep(0.1)
            put_blob(store, *arguments)
            with self._lock:
                self.now -= 1

        monkeypatch.setattr(Pool, "ask_state", asked)
        monkeypatch.setattr(MemoryStore, "put_blob", stored)


@pytest.mark.parametrize(("most_bytes", "most"), [(1, 1), (200 * MIB, 2), (1 << 30, 4)])
def test_states_that_are_asked_for_at_once_wait_for_one_another(
    evaluator: Evaluator, monkeypatch: pytest.MonkeyPatch, most_bytes: int, most: int
) -> None:
    """By default a small session may take 24 MiB and its files 64 MiB."""
    sessions = [evaluator.session() for _ in range(4)]
    for number, session in enumerate(sessions):
        session.evaluate(f"x = {number}")
    traffic = Traffic(monkeypatch)
    monkeypatch.setattr(evaluator._retained()._keeper.room, "most_bytes", most_bytes)
    with ThreadPoolExecutor(4) as executor:
        list(executor.map(lambda session: session.hibernate(), sessions))
    assert (traffic.most, traffic.now) == (most, 0)
    assert [session.evaluate("x").value for session in sessions] == list(range(4))
    for session in sessions:
        session.close()


def test_so_they_do_at_a_service(monkeypatch: pytest.MonkeyPatch) -> None:
    with serve(MemoryStore(), most_state_bytes=1) as real, Client(real.target) as client:
        sessions = [client.session(durability="step") for _ in range(4)]
        traffic = Traffic(monkeypatch)
        with ThreadPoolExecutor(4) as executor:
            results = list(executor.map(lambda session: session.evaluate("x = 1; x"), sessions))
        assert [result.value for result in results] == [1] * 4
        assert (traffic.most, traffic.now) == (1, 0)


def test_a_state_that_waits_keeps_no_other_session_from_its_lease(monkeypatch: pytest.MonkeyPatch) -> None:
    store, put_blob = MemoryStore(), MemoryStore.put_blob
    go_on = threading.Event()

    def stall(store: MemoryStore, *arguments: Any) -> None:
        assert go_on.wait(WAIT_SECONDS)
        put_blob(store, *arguments)

    def lease(session: ServiceSession) -> float:
        found = store.get(record_key(session.id))
        assert found is not None
        return decode(found.data).lease

    monkeypatch.setattr(MemoryStore, "put_blob", stall)
    with (
        serve(store, lease_seconds=2) as real,
        Client(real.target) as client,
        ThreadPoolExecutor(1) as executor,
    ):
        stored, other = client.session(), client.session()
        for session in (stored, other):
            session.evaluate("x = 1")
        sleeping = executor.submit(stored.hibernate)
        end, seen = time.monotonic() + WAIT_SECONDS, set()
        while len(seen) < 4:
            assert time.monotonic() < end
            seen.add(lease(other))
            time.sleep(0.05)
        go_on.set()
        sleeping.result(WAIT_SECONDS)
        assert stored.evaluate("x").value == 1


def test_a_state_takes_no_more_than_it_has_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    rooms: list[int] = []
    states: list[int] = []
    take, session_state = Room.take, BlockingPool.session_state

    def taken(room: Room, size: int) -> Any:
        rooms.append(size)
        return take(room, size)

    def told(pool: BlockingPool, *arguments: Any) -> bytes:
        state = session_state(pool, *arguments)
        states.append(sum(map(len, state)))
        return state

    monkeypatch.setattr(Room, "take", taken)
    monkeypatch.setattr(BlockingPool, "session_state", told)
    few, key = Limits(workspace_bytes=MIB), b"k" * 32
    store = MemoryStore()
    with Evaluator(workers=1, store=store, snapshot_key=key) as first:
        session = first.session()
        session.evaluate("x = b'abcde' * 8_000_000; open('f', 'wb').write(x[:900_000])", limits=few)
        mark = session.checkpoint()
        assert session.evaluate("while True: pass", limits=Limits(fuel=50_000_000)).rolled_back
        fork = session.fork()
        fork.checkpoint()
        fork.close()
        session.hibernate()
    with Evaluator(workers=1, store=store, snapshot_key=key) as second:
        session = second.attach(session.id)
        session.checkpoint()
        session.evaluate("open('g', 'wb').write(x)", limits=Limits(workspace_bytes=80 * MIB))
        session.evaluate("del x", limits=few)
        session.hibernate()
    with Evaluator(workers=1, store=store, snapshot_key=key) as third:
        session = third.attach(session.id)
        session.restore(mark)
        session.checkpoint()
    assert len(states) == len(rooms) == 6
    for size, room in zip(states, rooms, strict=True):
        assert 40_000_000 < size < room


def test_room_is_had_in_turn_and_given_back() -> None:
    """Who is given up while it waits makes room for the next; nobody overtakes, and what is too large goes alone."""

    async def main() -> None:
        room, seen = Room(10), []

        async def use(name: str, size: int, until: asyncio.Event) -> None:
            async with room.take_async(size):
                seen.append(name)
                await until.wait()
            seen.append(name.upper())

        ends = {name: asyncio.Event() for name in "abcde"}
        sizes = {"a": 6, "b": 100, "c": 5, "d": 4, "e": 4}
        tasks = {}
        for name, size in sizes.items():
            tasks[name] = asyncio.ensure_future(use(name, size, ends[name]))
            await asyncio.sleep(0)
        assert seen == ["a"]
        ends["a"].set()
        await tasks["a"]
        await asyncio.sleep(0.01)
        assert seen == ["a", "A", "b"]
        tasks["c"].cancel()
        await asyncio.sleep(0.01)
        ends["b"].set()
        await tasks["b"]
        await asyncio.sleep(0.01)
        assert seen == ["a", "A", "b", "B", "d", "e"]
        tasks["d"].cancel()
        ends["e"].set()
        await tasks["e"]
        with room.take(10):
            pass

    asyncio.run(asyncio.wait_for(main(), 30))


def test_files_of_many_steps_keep_to_the_workspaces_limits(evaluator: Evaluator) -> None:
    """Workspace.put counts, but never refuses: a session's steps add up."""
    limits = Limits(workspace_bytes=8 * MIB, workspace_files=10)
    with evaluator.session(limits=limits) as session:
        for step in range(3):
            files = {f"{step}-{at}": b"x" * (7 * MIB // 8) for at in range(8)}
            result = session.evaluate("import os; os.listdir()", files=files)
            assert (result.ok, result.rolled_back) == (step == 0, step > 0)
            assert step == 0 or "No space left on device: the files of this step" in result.error.message
        assert session.evaluate("import os; len(os.listdir())").value == 8


def test_a_session_of_an_evaluator_ends_with_its_life(evaluator: Evaluator) -> None:
    """Nothing looks after an evaluator's own sessions: see Residence.watch for a service's."""
    session = evaluator.session(life_seconds=0.2)
    session.evaluate("x = 1")
    time.sleep(0.4)
    with pytest.raises(NotFound):
        session.evaluate("x")


def test_an_idle_session_of_an_evaluator_goes_to_sleep(evaluator: Evaluator) -> None:
    with evaluator.session(idle_seconds=0.2) as session, evaluator.session() as other:
        session.evaluate("x = 1")
        time.sleep(1.1)
        assert other.evaluate("1").status is Status.OK
        assert not session.info.is_live
