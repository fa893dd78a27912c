"""Sessions over gRPC: a real service, real workers, and what its clients see."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest

from tests.grpc.conftest import WAIT_SECONDS, Running, serve_above, serve_scripted
from tests.running import running_service
from wasmeval import (
    AsyncClient,
    Client,
    Conflict,
    DeadlineExceeded,
    FailedPrecondition,
    InvalidArgument,
    Limits,
    NotFound,
    ResourceExhausted,
    ServiceSession,
    SessionLost,
    Status,
    Unavailable,
    open_store,
    wire,
)
from wasmeval.pool import PoolSettings
from wasmeval.pool.driven import AsyncPool
from wasmeval.residence import Residence
from wasmeval.runtimes import Catalogue
from wasmeval.sessions import Keeper, Sealer, SessionSettings
from wasmeval.stores import Store
from wasmeval.v1 import wasmeval_pb2 as pb

KEY = b"k" * 32
Real = Running[AsyncPool]


@contextmanager
def serve(store: Store, *, owner: str = "one", **settings: float) -> Iterator[Real]:
    catalogue = Catalogue.installed()
    images = {runtime.name: runtime.image_sha256 for runtime in catalogue.runtimes}
    keeper = Keeper(store, Sealer(KEY), images, SessionSettings(**settings), owner=owner)  # type: ignore[arg-type]
    homes: list[Residence] = []

    def make_pool() -> AsyncPool:
        pool = AsyncPool(PoolSettings(workers=1), catalogue)
        homes.append(Residence(pool, keeper))
        return pool

    with serve_above(make_pool, catalogue, residence=lambda: homes[0]) as server:
        yield server


@pytest.fixture(scope="module")
def real() -> Iterator[Real]:
    with serve(open_store("memory:")) as server:
        yield server


@pytest.fixture(scope="module")
def client(real: Real) -> Iterator[Client]:
    with Client(real.target) as client:
        yield client


def test_a_session_from_its_first_step_to_its_end(client: Client) -> None:
    with client.session(limits=Limits(deadline_seconds=7), idle_seconds=50, durability="step") as session:
        assert session.evaluate("x = [1]; import json").ok
        assert session.evaluate("x.append(2); json.dumps(x)").value == "[1, 2]"
        raised = session.evaluate("x.append(3)\n1 / 0")
        assert (raised.status, raised.rolled_back, raised.limits.deadline_seconds) == (Status.ERROR, False, 7)
        bad = session.evaluate("x.append(4)\nwhile True: pass", limits=Limits(fuel=50_000_000))
        assert (bad.status, bad.rolled_back) == (Status.FUEL_EXHAUSTED, True)
        assert session.evaluate("x").value == [1, 2, 3]
        info = session.info()
        assert (info.id, info.language, info.runtime, info.is_live, info.steps) == (
            session.id,
            "python",
            "python",
            True,
            4,
        )
        assert info.options.idle_seconds == 50
        assert info.options.durability == "step"
        assert session.id in {each.id for each in client.sessions()}
        mark = session.checkpoint()
        fork = session.fork()
        session.evaluate("x.clear()")
        assert fork.evaluate("x").value == [1, 2, 3]
        fork.close()
        session.restore(mark)
        assert session.checkpoints() == (mark,)
        session.hibernate()
        assert not session.info().is_live
        assert client.attach(session.id).evaluate("x").value == [1, 2, 3]
    with pytest.raises(NotFound, match=f"no session {session.id}"):
        session.evaluate("x")
    assert session.id not in {each.id for each in client.sessions()}
    session.close()


def test_the_same_awaited(real: Real) -> None:
    async def main() -> None:
        async with AsyncClient(real.target) as client, await client.session("javascript") as session:
            assert (await session.evaluate("let x = 1")).ok
            fork = await session.fork()
            results = await asyncio.gather(*(session.evaluate("x += 1") for _ in range(5)))
            assert sorted(result.value for result in results) == [2, 3, 4, 5, 6]
            assert (await fork.evaluate("x")).value == 1
            mark = await session.checkpoint()
            await session.evaluate("x = 'later'")
            await session.hibernate()
            await session.restore(mark)
            again = await client.attach(session.id)
            assert (await again.evaluate("x")).value == 6
            assert await session.checkpoints() == (mark,)
            assert (await session.info()).steps == 7
            assert {session.id, fork.id} <= {each.id for each in await client.sessions()}
            await fork.close()

    asyncio.run(asyncio.wait_for(main(), WAIT_SECONDS))


def test_a_step_converses(client: Client) -> None:
    seen: list[tuple[str, str]] = []
    with client.session() as session:
        session.evaluate("x = 20")
        result = session.evaluate(
            "print(input(), flush=True); y = add(x, 1); y",
            tools={"add": lambda a, b: a + b}, stdin="hello\n", on_output=lambda *said: seen.append(said),
            files={"in": b"a" * (5 << 20)}, outputs=["in"],
        )  # fmt: skip
        assert (result.value, seen, len(result.files["in"].data)) == (21, [("stdout", "hello\n")], 5 << 20)
        assert session.evaluate("y + len(open('in').read())").value == 21 + (5 << 20)
        stopped = session.evaluate(
            "y = 0\nwhile True: pass", tools={"add": print}, limits=Limits(fuel=50_000_000)
        )
        assert stopped.rolled_back
        assert session.evaluate("y").value == 21


def test_a_step_whose_client_goes_away_is_rolled_back(client: Client) -> None:
    with client.session() as session:
        session.evaluate("x = 1")
        for code in ("import time; time.sleep(60)", "while True: pass"):
            with pytest.raises(DeadlineExceeded):
                session.evaluate(f"x = 2\n{code}", timeout=0.5)
            assert session.evaluate("x").value == 1
        assert session.info().steps == 3
        # What it has spent is spent.
        assert session.info().fuel > 10_000_000


def test_a_step_whose_client_goes_away_while_it_calls_is_rolled_back(client: Client) -> None:
    """A client that is gone looks at first like one that has nothing more to say, whose tools fail: the step would go
    on, and end well."""
    gone = threading.Event()

    def leave(*_: object) -> None:
        raise LookupError

    code = "x = 2; print(1, flush=True)\ntry: ask()\nexcept Exception: pass"
    with client.session() as session:
        session.evaluate("x = 1")
        for _ in range(20):
            with pytest.raises(LookupError):
                session.evaluate(code, tools={"ask": gone.wait}, on_output=leave)
            assert session.evaluate("x").value == 1
        gone.set()


def test_a_step_may_refuse_to_wait(client: Client) -> None:
    with client.session() as session, ThreadPoolExecutor(1) as executor:
        running = threading.Event()
        first = executor.submit(
            session.evaluate,
            "import time; print(1, flush=True); time.sleep(1)",
            on_output=lambda *_: running.set(),
        )
        assert running.wait(WAIT_SECONDS)
        for more in ({}, {"stdin": ""}):
            with pytest.raises(ResourceExhausted, match="a step of this session is running"):
                session.evaluate("1", wait=False, **more)  # type: ignore[arg-type]
        assert first.result(WAIT_SECONDS).ok


def test_what_is_wrong_is_refused(client: Client, real: Real) -> None:
    with pytest.raises(InvalidArgument, match="language"):
        client.session("cobol")
    with pytest.raises(InvalidArgument, match="durability: must be 'none' or 'step'"):
        client.session(durability="always")
    with pytest.raises(InvalidArgument, match=r"limits\.memory_bytes"):
        client.session(limits=Limits(memory_bytes=1))
    with pytest.raises(InvalidArgument, match="not the id of a session"):
        client.attach("../etc")
    with pytest.raises(NotFound, match="no session"):
        client.attach("a" * 32)
    session = client.session()
    with session:
        with pytest.raises(NotFound, match="no checkpoint 'none'"):
            session.restore("none")
        with pytest.raises(InvalidArgument, match="code"):
            session.evaluate("")
        assert session.evaluate("1").value == 1
    session = client.session()
    step = pb.StepRequest(session_id=session.id, evaluation=pb.EvaluateRequest(code="1", language="python"))
    start = pb.ConverseRequest(start=pb.Start(evaluation=pb.EvaluateRequest(code="1", language="python")))
    with grpc.insecure_channel(real.target) as channel:
        with pytest.raises(grpc.RpcError, match="say of which session"):
            list(channel.stream_stream(wire.STEP_CONVERSE)(iter([start.SerializeToString()])))
        with pytest.raises(grpc.RpcError, match="the session's; leave it empty"):
            channel.unary_unary(wire.STEP)(step.SerializeToString())


def test_a_service_without_sessions_says_so() -> None:
    with (
        serve_scripted() as server,
        Client(server.target) as client,
        pytest.raises(FailedPrecondition, match="keeps no sessions"),
    ):
        client.session()


def test_a_worker_that_dies_takes_with_it_what_was_not_stored(real: Real, client: Client) -> None:
    with client.session() as plain, client.session(durability="step") as durable:
        for session in (plain, durable):
            session.evaluate("x = 1")
        kill_worker(real)
        with pytest.raises(SessionLost, match="durability='step'"):
            plain.evaluate("x")
        assert durable.evaluate("x").value == 1


def test_idle_sessions_are_put_to_sleep_and_old_ones_end(client: Client) -> None:
    idle = client.session(idle_seconds=0.2)
    old = client.session(life_seconds=1.5)
    for session in (idle, old):
        session.evaluate("x = 1")
    end = time.monotonic() + WAIT_SECONDS
    while idle.info().is_live and time.monotonic() < end:
        time.sleep(0.05)
    assert not idle.info().is_live
    assert idle.evaluate("x").value == 1
    idle.close()
    while time.monotonic() < end:
        try:
            old.info()
        except NotFound:
            break
        time.sleep(0.05)
    with pytest.raises(NotFound):
        old.evaluate("x")


# Two replicas over one store.


def test_a_session_that_sleeps_is_anybodys(tmp_path: Path) -> None:
    store = open_store(f"dir:{tmp_path}/store")
    with (
        serve(store) as one,
        serve(store, owner="two") as two,
        Client(one.target) as first,
        Client(two.target) as second,
    ):
        session = first.session()
        session.evaluate("x = 1")
        with pytest.raises(Unavailable, match="another replica has the session"):
            second.attach(session.id, timeout=0.3)
        session.hibernate()
        moved = second.attach(session.id)
        assert moved.evaluate("x += 1; x").value == 2
        moved.hibernate()
        assert session.evaluate("x += 1; x").value == 3
        session.close()


def test_a_replica_that_lost_its_lease_changes_nothing(tmp_path: Path) -> None:
    """Leases are renewed once a second, which is too late for one of half a second."""
    store = open_store(f"dir:{tmp_path}/store")
    with (
        serve(store, lease_seconds=0.5) as one,
        serve(store, owner="two", lease_seconds=0.5) as two,
        Client(one.target) as first,
        Client(two.target) as second,
    ):
        session = first.session()
        session.evaluate("x = 1")
        mark = session.checkpoint()
        session.evaluate("x = 2")
        taken = second.attach(session.id, timeout=WAIT_SECONDS)
        # What was not stored is not there, and that is said; what was, is.
        with pytest.raises(SessionLost, match="the process that had the session is gone"):
            taken.evaluate("x")
        taken.restore(mark)
        assert taken.evaluate("x += 10; x").value == 11
        with pytest.raises(Conflict, match="another replica has taken the session over"):
            session.evaluate("x = 3")
        assert taken.evaluate("x").value == 11


def test_a_session_whose_steps_are_stored_goes_from_replica_to_replica(tmp_path: Path) -> None:
    store = open_store(f"dir:{tmp_path}/store")
    with (
        serve(store, linger_seconds=0.1) as one,
        serve(store, owner="two", linger_seconds=0.1) as two,
        Client(one.target) as first,
        Client(two.target) as second,
    ):
        session = first.session(durability="step")
        session.evaluate("xs = []")
        other = ServiceSession(second, session.info())
        for number in range(0, 6, 2):
            assert session.evaluate(f"xs.append({number}); len(xs)").value == number + 1
            assert other.evaluate(f"xs.append({number + 1}); len(xs)").value == number + 2
        # While a step runs it is one replica's alone, however long that takes.
        with ThreadPoolExecutor(1) as executor:
            running = threading.Event()
            long = executor.submit(
                session.evaluate, "import time; print(1, flush=True); time.sleep(1.5); xs.append(6)",
                on_output=lambda *_: running.set(),
            )  # fmt: skip
            assert running.wait(WAIT_SECONDS)
            with pytest.raises(Unavailable, match="another replica has the session"):
                other.evaluate("xs.append('no')", timeout=0.3)
            assert long.result(WAIT_SECONDS).ok
        assert other.evaluate("xs").value == list(range(7))


def test_a_service_that_stops_puts_its_sessions_to_sleep(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WASMEVAL_SESSIONS_STORE", raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    with running_service() as service, Client(service.target) as client:
        session = client.session()
        session.evaluate("x = 'kept'")
        service.process.send_signal(signal.SIGTERM)
        assert service.process.wait(WAIT_SECONDS) == 0
    assert (tmp_path / "wasmeval" / "snapshot.key").stat().st_mode & 0o777 == 0o600
    with running_service() as service, Client(service.target) as client:
        assert client.attach(session.id).evaluate("x").value == "kept"


def kill_worker(real: Real) -> None:
    pool = real.pool._pool
    assert pool is not None
    before = pool.stats().restarts
    [worker] = pool._workers
    os.kill(worker.process.pid, signal.SIGKILL)
    real.wait_until(lambda: pool.stats().restarts > before and pool.is_ready)
