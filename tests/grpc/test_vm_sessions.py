"""Sessions in VMs over gRPC: a real service above a double of the VMs, and what its clients see."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.grpc.conftest import CATALOGUE, WAIT_SECONDS, Running, serve_above
from tests.grpc.test_tiers import Pool
from wasmeval import (
    AsyncClient,
    Client,
    FailedPrecondition,
    InvalidArgument,
    Limits,
    NotFound,
    Output,
    ResourceExhausted,
    Result,
    ServiceSession,
    SessionLost,
    Status,
    ToolCall,
    Unavailable,
    open_store,
)
from wasmeval.limits import DEFAULTS, VM_DEFAULTS
from wasmeval.model import Job
from wasmeval.policy import Policy
from wasmeval.residence import Residence
from wasmeval.sessions import Keeper, Sealer, SessionSettings
from wasmeval.testing import Answer, hang, succeed_in_vm
from wasmeval.vm_sessions import VmSessions
from wasmeval.wasm.calls import Operation

IMAGES = {runtime.name: runtime.image_sha256 for runtime in CATALOGUE.runtimes}


class Places(Pool):
    """Whose workers have places for sessions as well."""

    def open_session(self, runtime: str, state: Any = ()) -> Any:
        return None

    def close_session(self, place: Any) -> None: ...


@contextmanager
def serving(most_idle_seconds: float = 1000.0, **vm: Any) -> Iterator[Running[Any]]:
    pool = Places(**vm)
    settings = SessionSettings(most_idle_seconds=most_idle_seconds)
    keeper = Keeper(open_store("memory:"), Sealer(b"k" * 32), IMAGES, settings)
    with serve_above(
        lambda: pool,  # type: ignore[arg-type, return-value]
        CATALOGUE,
        residence=lambda: Residence(pool, keeper),  # type: ignore[arg-type]
        vm_sessions=VmSessions(pool.moves, CATALOGUE, Policy(), settings),
    ) as server:
        yield server


@pytest.fixture
def server() -> Iterator[Running[Any]]:
    with serving() as running:
        yield running


@pytest.fixture
def client(server: Running[Any]) -> Iterator[Client]:
    with Client(server.target) as client:
        yield client


def scripted(server: Running[Any], script: Callable[[Job], Answer]) -> None:
    server.pool.vm._script = script


def test_a_session_from_its_first_step_to_its_end(server: Running[Any], client: Client) -> None:
    vm = server.pool.vm
    before = time.time()
    with client.session(tier="vm", limits=Limits(processes=9), idle_seconds=50) as session:
        info = session.info()
        assert (info.id, info.language, info.runtime, info.is_live) == (
            session.id,
            "python",
            "vm-python",
            True,
        )
        assert (info.steps, info.fuel) == (0, 0)
        assert before <= info.created <= info.used <= time.time()
        assert info.expires == info.created + 86_400
        options = info.options
        assert (options.tier, options.idle_seconds, options.total_fuel) == ("vm", 50, None)
        assert (options.limits.processes, options.limits.fuel) == (9, None)
        assert options.limits.cpu_seconds == VM_DEFAULTS.cpu_seconds
        [place] = vm.places
        assert place.runtime == "vm-python"
        result = session.evaluate("x = 1", limits=Limits(processes=50, deadline_seconds=3))
        assert (result.status, result.tier, result.runtime) == ("ok", "vm", "vm-python")
        assert (result.rolled_back, result.limits.processes, result.limits.deadline_seconds) == (False, 9, 3)
        assert client.attach(session.id).evaluate("x").ok
        assert [(job.code, job.session) for job in vm.jobs] == [(b"x = 1", place), (b"x", place)]
        assert session.info().steps == 2
        assert session.id in {each.id for each in client.sessions()}
    assert vm.places == []
    with pytest.raises(NotFound, match=f"no session {session.id}"):
        session.evaluate("x")
    assert session.id not in {each.id for each in client.sessions()}
    session.close()


def test_the_same_awaited(server: Running[Any]) -> None:
    async def main() -> None:
        async with AsyncClient(server.target) as client, await client.session("bash") as session:
            results = await asyncio.gather(*(session.evaluate(f"echo {n}") for n in range(3)))
            assert [result.exit_status for result in results] == [0, 0, 0]
            assert (await session.info()).options.tier == "vm"
            with pytest.raises(FailedPrecondition, match="cannot sleep"):
                await session.hibernate()

    asyncio.run(main())
    assert {job.runtime for job in server.pool.vm.jobs} == {"vm-bash"}


def test_what_a_vm_cannot_do_says_so(client: Client) -> None:
    with client.session(tier="vm") as session:
        for call, words in (
            (session.fork, "a session in a VM cannot be forked: no copy of a running machine"),
            (session.hibernate, "a session in a VM cannot sleep: its machine is not stored"),
            (session.checkpoint, "a session in a VM cannot go back, and has no checkpoints"),
            (session.checkpoints, "a session in a VM cannot go back, and has no checkpoints"),
            (lambda: session.restore("1-a"), "a session in a VM cannot go back, and has no checkpoints"),
        ):
            with pytest.raises(FailedPrecondition, match=words):
                call()
        assert session.evaluate("1").ok


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"tier": "vm", "durability": "step"}, "durability"),
        ({"tier": "vm", "total_fuel": 5}, "total_fuel"),
        ({"tier": "vm", "deterministic": True}, "deterministic"),
        ({"language": "bash", "deterministic": True}, "deterministic"),
        ({"tier": "wasm", "language": "bash"}, "tier"),
        ({"tier": "vm", "language": "cobol"}, "language"),
        ({"tier": "vm", "limits": Limits(memory_bytes=1 << 20)}, "limits.memory_bytes"),
    ],
)
def test_what_no_session_in_a_vm_can_be_is_refused(
    server: Running[Any], client: Client, options: dict[str, Any], field: str
) -> None:
    with pytest.raises(InvalidArgument) as caught:
        client.session(**options)
    assert caught.value.field == field
    assert server.pool.vm.places == []


def test_what_no_step_can_be_is_refused(client: Client) -> None:
    with client.session(tier="vm") as session:
        with pytest.raises(InvalidArgument, match=r"^mounts: a VM mounts no folders"):
            session.evaluate("1", mounts=["data"])
        assert session.info().steps == 0
        assert session.evaluate("1").ok


@pytest.mark.parametrize("missing", ["no qemu is here"])
def test_without_vms_there_are_no_sessions_in_them(missing: str) -> None:
    with serving(missing=missing) as server, Client(server.target) as client:
        for options in ({"tier": "vm"}, {"language": "bash"}):
            with pytest.raises(FailedPrecondition, match=missing):
                client.session(**options)


def test_their_number_is_bounded() -> None:
    with serving(most_sessions=1) as server, Client(server.target) as client:
        with client.session(tier="vm"):
            with pytest.raises(ResourceExhausted, match="1 sessions are in virtual machines"):
                client.session(tier="vm", timeout=0.3)
            assert client.evaluate("1", tier="vm").ok
        client.session(tier="vm").close()


def test_one_that_nobody_uses_ends() -> None:
    with serving() as server, Client(server.target) as client:
        session = client.session(tier="vm", idle_seconds=0.2)
        lives = client.session(tier="vm", life_seconds=0.3)
        for _ in range(5):
            assert session.evaluate("1").ok
            time.sleep(0.08)
        server.wait_until(lambda: not server.pool.vm.places)
        for each in (session, lives):
            with pytest.raises(NotFound, match=f"no session {each.id}"):
                each.evaluate("1")


def test_a_step_that_takes_longer_than_it_may_idle_ends_well(server: Running[Any], client: Client) -> None:
    async def slowly(job: Job) -> Result:
        await asyncio.sleep(0.4)
        return succeed_in_vm(job)

    scripted(server, slowly)
    session = client.session(tier="vm", idle_seconds=0.1, life_seconds=0.2)
    assert session.evaluate("1").ok
    server.wait_until(lambda: not server.pool.vm.places)


def test_steps_take_turns_or_are_refused(server: Running[Any], client: Client) -> None:
    running: list[Job] = []
    free = asyncio.Event()

    async def one_at_a_time(job: Job) -> Result:
        running.append(job)
        await free.wait()
        assert running == [job]
        running.remove(job)
        return succeed_in_vm(job)

    scripted(server, one_at_a_time)
    with client.session(tier="vm") as session, session.converse("1") as first:
        server.wait_until(lambda: running)
        with pytest.raises(ResourceExhausted, match="a step of this session is running"):
            session.evaluate("2", wait=False)
        with session.converse("3") as second:
            server.loop.call_soon_threadsafe(free.set)
            assert [each.status for each in (*first, *second)] == ["ok", "ok"]  # type: ignore[union-attr]
    assert [job.code for job in server.pool.vm.jobs] == [b"1", b"3"]


def test_a_step_converses(server: Running[Any], client: Client) -> None:
    vm = server.pool.vm

    async def talk(job: Job) -> Result:
        vm.partners[-1].printed(1, b"hi")
        vm.partners[-1].called(1, Operation.CALL, b'{"name": "f", "args": [2], "kwargs": {}}')
        while not vm.links[-1].answers:
            await asyncio.sleep(0.001)
        return succeed_in_vm(job)

    scripted(server, talk)
    with client.session(tier="vm") as session:
        shown: list[Any] = []
        assert session.evaluate("f(2)", tools={"f": abs}, on_output=lambda *each: shown.append(each)).ok
        assert shown == [("stdout", "hi")]
        with session.converse("f(2)", tools={"f": abs}) as conversation:
            events = []
            for event in conversation:
                events.append(event)
                if isinstance(event, ToolCall):
                    event.reply(7)
        assert [type(event) for event in events] == [Output, ToolCall, Result]
        assert session.info().steps == 2


def test_a_step_s_conversation_has_the_limits_of_a_vm(server: Running[Any], client: Client) -> None:
    with client.session(tier="vm") as session:
        # More than a workspace in Wasm takes, in pieces.
        data = bytes((DEFAULTS.workspace_bytes or 0) + 1)
        assert session.evaluate("1", files={"a": data}, on_output=lambda *_: None).ok
        assert server.pool.vm.jobs[-1].grants.files == {"a": data}


def test_a_cancelled_step_has_been_and_the_session_goes_on(server: Running[Any], client: Client) -> None:
    vm = server.pool.vm
    with client.session(tier="vm") as session:
        scripted(server, lambda _: hang())
        with session.converse("1"):
            server.wait_until(lambda: vm.jobs)
        server.wait_until(lambda: vm.stopped)
        scripted(server, succeed_in_vm)
        assert session.evaluate("2").ok
        info = session.info()
        assert (info.steps, info.is_live) == (2, True)


def test_one_whose_interpreter_is_gone_is_lost_and_says_so(server: Running[Any], client: Client) -> None:
    def lose(job: Job) -> Answer:
        job.session.is_lost = True
        return Result(Status.DEADLINE_EXCEEDED, limits=job.limits, tier="vm")

    with client.session(tier="vm") as session:
        assert session.evaluate("1").ok
        scripted(server, lose)
        result = session.evaluate("2")
        assert (result.status, result.rolled_back) == (Status.DEADLINE_EXCEEDED, False)
        scripted(server, succeed_in_vm)
        words = "the session is lost: its interpreter ended, deadline_exceeded, in step 2, and a VM cannot go back"
        for _ in range(2):
            with pytest.raises(SessionLost, match=words):
                session.evaluate("3")
        info = session.info()
        assert (info.is_live, info.steps) == (False, 2)
        # Its machine is another's already.
        assert server.pool.vm.places == []
    with pytest.raises(NotFound):
        session.info()


def test_a_machine_that_dies_between_steps_is_a_lost_session(server: Running[Any], client: Client) -> None:
    with client.session(tier="vm") as session:
        assert session.evaluate("1").ok
        server.pool.vm.places[0].is_lost = True
        with pytest.raises(SessionLost, match="its machine ended after step 1"):
            session.evaluate("2")


def test_all_are_listed_page_by_page(server: Running[Any], client: Client) -> None:
    made = [client.session(tier="vm").id for _ in range(3)] + [client.session().id for _ in range(2)]
    listed: list[str] = []
    token = ""
    for size in (2, 1, 1, 5):
        infos, token = server.call(server.service.list_sessions(size, token))
        assert len(infos) <= size
        listed += [info.id for info in infos]
        assert bool(token) == (size != 5)
    assert sorted(listed) == sorted(made)
    assert sorted(listed[:3]) == listed[:3]
    assert {each.id for each in client.sessions()} == set(made)


def test_a_service_that_stops_ends_them(server: Running[Any], client: Client) -> None:
    scripted(server, lambda _: hang())
    session = client.session(tier="vm")
    with session.converse("1") as conversation:
        server.wait_until(lambda: server.pool.vm.jobs)
        draining = asyncio.run_coroutine_threadsafe(server.service.drain(0.1), server.loop)
        result = next(conversation)
        assert isinstance(result, Result)
        assert (result.status, result.rolled_back) == (Status.CANCELLED, False)
    draining.result(WAIT_SECONDS)
    assert server.pool.vm.places == []
    with pytest.raises(Unavailable):
        session.evaluate("1", timeout=0.2)


def test_ids_are_of_no_use_elsewhere(client: Client) -> None:
    with client.session(tier="vm") as session, serving() as other, Client(other.target) as elsewhere:
        with pytest.raises(NotFound, match=f"no session {session.id}"):
            elsewhere.attach(session.id)
        assert isinstance(client.attach(session.id), ServiceSession)
