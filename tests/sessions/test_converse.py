"""A session's step as a conversation: in workers of one's own, at a service, and at a service in an event loop.

It has the session's turn until it ends or is closed; closed early, it has not been.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

import pytest

from tests.grpc.conftest import WAIT_SECONDS
from tests.grpc.test_sessions import Real, kill_worker, serve
from tests.sessions.test_sessions import kill_workers
from wasmeval import (
    AsyncClient,
    Client,
    DeadlineExceeded,
    Evaluator,
    FailedPrecondition,
    InputWanted,
    InvalidArgument,
    Limits,
    NotFound,
    Output,
    ResourceExhausted,
    Result,
    ServiceSession,
    SessionLost,
    Status,
    Tool,
    ToolCall,
    Unavailable,
    open_store,
)
from wasmeval.conversation import Conversation
from wasmeval.embedded_session import EmbeddedSession
from wasmeval.errors import StoreUnavailable
from wasmeval.stores import Store

LONG = Limits(deadline_seconds=300)
"""Of steps that only their closing can end in time."""
ASK = [Tool("ask", "(question)", ("question",))]
KEY = b"k" * 32


class Home(Protocol):
    """Where sessions are, as these tests need it."""

    def session(self, language: str = "python", **options: Any) -> Any: ...
    def kill_worker(self) -> None: ...
    def await_waiting(self, session: Any) -> None: ...


class Embedded:
    def __init__(self, evaluator: Evaluator) -> None:
        self._evaluator = evaluator

    def session(self, language: str = "python", **options: Any) -> EmbeddedSession:
        return self._evaluator.session(language, **{"limits": LONG, **options})

    def kill_worker(self) -> None:
        kill_workers(self._evaluator)

    def await_waiting(self, session: EmbeddedSession) -> None:
        """Returns when somebody waits for the session's turn."""
        until(lambda: session._held.turn._waiting)


class Service:
    def __init__(self, real: Real, client: Client) -> None:
        self._real = real
        self._client = client

    def session(self, language: str = "python", **options: Any) -> ServiceSession:
        return self._client.session(language, **{"limits": LONG, **options})

    def kill_worker(self) -> None:
        kill_worker(self._real)

    def await_waiting(self, session: ServiceSession) -> None:
        """Returns when somebody waits for the session's turn."""
        residence = self._real.service._residence
        assert residence is not None
        self._real.wait_until(lambda: residence._held[session.id]._turn._waiters)


def until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + WAIT_SECONDS
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.002)


@pytest.fixture(scope="module")
def real() -> Iterator[Real]:
    with serve(open_store("memory:")) as real:
        yield real


@pytest.fixture(scope="module")
def homes(real: Real) -> Iterator[dict[str, Home]]:
    with Evaluator(workers=1) as evaluator, Client(real.target) as client:
        yield {"embedded": Embedded(evaluator), "service": Service(real, client)}


@pytest.fixture(params=["embedded", "service"])
def home(request: pytest.FixtureRequest, homes: dict[str, Home]) -> Home:
    return homes[request.param]


def texts(events: list[Any]) -> str:
    return "".join(event.text for event in events if isinstance(event, Output))


def test_a_step_tells_its_events_and_sees_what_was_before(home: Home) -> None:
    with home.session() as session:
        session.evaluate("x = 20")
        events: list[Any] = []
        with session.converse(
            "print(input()); y = ask('more?') + x + n; open('f').read(), y",
            inputs={"n": 1}, tools=ASK, stdin=True, files={"f": b"in"}, outputs=["f"],
        ) as conversation:  # fmt: skip
            assert isinstance(conversation, Conversation)
            for event in conversation:
                events.append(event)
                if isinstance(event, InputWanted):
                    conversation.send_input("line\n")
                    conversation.end_input()
                elif isinstance(event, ToolCall):
                    assert (event.name, event.args) == ("ask", ["more?"])
                    event.reply(300)
        result = events[-1]
        assert isinstance(result, Result)
        assert (result.value, result.rolled_back, texts(events)) == (["in", 321], False, "line\n")
        assert result.files["f"].data == b"in"
        assert list(conversation) == []
        assert session.evaluate("y").value == 321


def test_a_step_of_javascript_does_so_too(home: Home) -> None:
    with home.session("javascript") as session:
        session.evaluate("let x = 1")
        with session.converse("console.log('on'); x += 1; x") as conversation:
            *events, result = conversation
        assert (texts(events), result.value) == ("on\n", 2)
        assert session.evaluate("x").value == 2


def test_it_has_the_turn_until_it_ends(home: Home) -> None:
    with home.session() as session:
        with session.converse("x = ask('go on?')", tools=ASK) as conversation:
            call = next(conversation)
            with pytest.raises(ResourceExhausted, match="a step of this session is running"):
                session.evaluate("1", wait=False)
            with pytest.raises(ResourceExhausted, match="a step of this session is running"):
                list(session.converse("1", wait=False))
            with ThreadPoolExecutor(1) as executor:
                later = executor.submit(session.evaluate, "x + 1")
                home.await_waiting(session)
                call.reply(1)
                [result] = conversation
                assert later.result(WAIT_SECONDS).value == 2
        assert result.ok
        assert session.evaluate("x", wait=False).value == 1


def test_closed_early_it_has_not_been(home: Home) -> None:
    with home.session() as session:
        session.evaluate("x = [1]; open('f', 'w').write('one')")
        for _ in range(2):
            with session.converse(
                "x.append(2); open('f', 'w').write('two')\nask('?')", tools=ASK, limits=LONG
            ) as conversation:
                assert isinstance(next(conversation), ToolCall)
            assert list(conversation) == []
            conversation.close()
            after = session.evaluate("[x, open('f').read()]", timeout=WAIT_SECONDS)
            assert after.value == [[1], "one"]
        with session.converse(
            "x = 2\nprint('on', flush=True)\nwhile True: pass", limits=LONG
        ) as conversation:
            assert isinstance(next(conversation), Output)
            time.sleep(0.1)
        assert session.evaluate("x", timeout=WAIT_SECONDS).value == [1]
        info = session.info if isinstance(session, EmbeddedSession) else session.info()
        assert info.steps == 4
        # What it has spent is spent.
        assert info.fuel > 10_000_000


def test_what_is_raised_in_its_block_closes_it(home: Home) -> None:
    with home.session() as session:
        session.evaluate("x = 1")
        with (
            contextlib.suppress(LookupError),
            session.converse("x = 2\nask('?')", tools=ASK, limits=LONG) as conversation,
        ):
            next(conversation)
            raise LookupError
        assert session.evaluate("x", timeout=WAIT_SECONDS).value == 1


def test_closed_after_its_end_it_stays(home: Home) -> None:
    with home.session() as session:
        conversation = session.converse("x = 1; x")
        [result] = conversation
        conversation.close()
        conversation.close()
        assert (result.value, list(conversation)) == (1, [])
        assert session.evaluate("x").value == 1


def test_one_that_nobody_reads_ends_by_itself(home: Home) -> None:
    with home.session() as session:
        session.evaluate("x = 1")
        unread = session.converse("print('here'); x += 1; x")
        assert session.evaluate("x", timeout=WAIT_SECONDS).value == 2
        *events, result = unread
        assert (texts(events), result.value) == ("here\n", 2)
        # And when it waits for somebody who does not come, its deadline ends it.
        unread = session.converse("x = 3\nask('?')", tools=ASK, limits=Limits(deadline_seconds=0.2))
        assert session.evaluate("x", timeout=WAIT_SECONDS).value == 2
        *_, result = unread
        assert (result.status, result.rolled_back) == (Status.DEADLINE_EXCEEDED, True)


def test_one_that_is_dropped_is_closed(home: Home) -> None:
    with home.session() as session:
        session.evaluate("x = 1")
        conversation: Any = session.converse("x = 2\nask('?')", tools=ASK, limits=LONG)
        event: Any = next(conversation)
        del conversation
        gc.collect()
        assert session.evaluate("x", timeout=WAIT_SECONDS).value == 1
        event.reply("too late")


def test_closing_it_elsewhere_ends_its_events(home: Home) -> None:
    with home.session() as session, ThreadPoolExecutor(1) as executor:
        session.evaluate("x = 1")
        conversation = session.converse("x = 2\nask('?')", tools=ASK, limits=LONG)
        next(conversation)
        read = executor.submit(list, conversation)
        time.sleep(0.05)
        conversation.close()
        assert read.result(WAIT_SECONDS) == []
        assert session.evaluate("x", timeout=WAIT_SECONDS).value == 1


@pytest.mark.parametrize("what", ["hibernate", "close", "checkpoint", "fork"])
def test_what_else_is_done_to_the_session_waits_for_its_end(home: Home, what: str) -> None:
    session = home.session()
    with (
        session.converse("x = ask('?'); x", tools=ASK, limits=LONG) as conversation,
        ThreadPoolExecutor(1) as executor,
    ):
        call = next(conversation)
        done = executor.submit(getattr(session, what))
        home.await_waiting(session)
        call.reply(7)
        [result] = conversation
        made = done.result(WAIT_SECONDS)
    assert (result.value, result.rolled_back) == (7, False)
    if what == "close":
        with pytest.raises((NotFound, FailedPrecondition)):
            list(session.converse("x"))
        return
    assert session.evaluate("x").value == 7
    if what == "fork":
        assert made.evaluate("x").value == 7
        made.close()
    session.close()


@pytest.mark.parametrize(
    ("code", "limits", "status", "rolled_back"),
    [
        ("raise ValueError('no')", None, Status.ERROR, False),
        ("while True: pass", Limits(fuel=50_000_000), Status.FUEL_EXHAUSTED, True),
        ("import time; time.sleep(60)", Limits(deadline_seconds=0.2), Status.DEADLINE_EXCEEDED, True),
        ("import os; os._exit(3)", None, Status.ERROR, True),
    ],
)
def test_bad_ends_are_those_of_any_step(
    home: Home, code: str, limits: Limits | None, status: Status, rolled_back: bool
) -> None:
    with home.session() as session:
        session.evaluate("x = 1")
        *_, result = session.converse(f"x = 2\n{code}", limits=limits)
        assert (result.status, result.rolled_back) == (status, rolled_back)
        assert session.evaluate("x").value == (1 if rolled_back else 2)


def test_a_cancelled_one_tells_its_result_and_is_rolled_back(home: Home) -> None:
    with home.session() as session:
        session.evaluate("x = 1")
        with session.converse("x = 2\nask('?')", tools=ASK, limits=LONG) as conversation:
            next(conversation)
            conversation.cancel()
            *_, result = conversation
        assert (result.status, result.rolled_back) == (Status.CANCELLED, True)
        assert session.evaluate("x").value == 1


def test_its_time_out_ends_it_read_or_not(home: Home) -> None:
    with home.session() as session:
        session.evaluate("x = 1")
        for is_read in (True, False):
            conversation = session.converse("x = 2\nask('?')", tools=ASK, limits=LONG, timeout=0.5)
            if is_read:
                with pytest.raises(DeadlineExceeded):
                    list(conversation)
            assert session.evaluate("x", timeout=WAIT_SECONDS).value == 1


def test_what_is_wrong_is_said_before_it_begins(home: Home) -> None:
    with home.session() as session:
        with pytest.raises(InvalidArgument, match="tools"):
            list(session.converse("1", tools=[Tool("no name")]))
        with pytest.raises(InvalidArgument, match="timeout"):
            session.converse("1", timeout=0)
        assert session.evaluate("1", wait=False).value == 1


@pytest.mark.parametrize("durability", ["none", "step"])
def test_the_death_of_its_worker_ends_it(home: Home, durability: str) -> None:
    with home.session(durability=durability) as session:
        session.evaluate("x = 1")
        with session.converse("x = 2\nask('?')", tools=ASK, limits=LONG) as conversation:
            next(conversation)
            home.kill_worker()
            *_, result = conversation
        assert (result.status, result.rolled_back) == (Status.CRASHED, durability == "step")
        if durability == "step":
            assert session.evaluate("x").value == 1
        else:
            with pytest.raises(SessionLost):
                list(session.converse("x"))


def test_a_total_of_fuel_holds_for_conversations_too(home: Home) -> None:
    with home.session(total_fuel=50_000_000) as session:
        *_, result = session.converse("while True: pass")
        assert (result.status, result.rolled_back) == (Status.FUEL_EXHAUSTED, True)
        with pytest.raises(FailedPrecondition, match="has spent its total_fuel"):
            list(session.converse("1"))


# In an event loop.


def test_the_same_awaited(real: Real) -> None:
    async def main() -> None:
        async with AsyncClient(real.target) as client, await client.session(limits=LONG) as session:
            await session.evaluate("x = 1")
            events: list[Any] = []
            async with session.converse("print('on'); x = ask('?'); x", tools=ASK) as conversation:
                async for event in conversation:
                    events.append(event)
                    if isinstance(event, ToolCall):
                        with pytest.raises(ResourceExhausted):
                            await session.evaluate("1", wait=False)
                        with pytest.raises(ResourceExhausted):
                            await anext(session.converse("1", wait=False))
                        later = asyncio.ensure_future(session.evaluate("x + 1"))
                        event.reply(10)
            assert (texts(events), events[-1].value) == ("on\n", 10)
            assert (await later).value == 11
            with contextlib.suppress(LookupError):
                async with session.converse("x = 2\nask('?')", tools=ASK, limits=LONG) as conversation:
                    await anext(conversation)
                    raise LookupError
            conversation.close()
            assert (await session.evaluate("x")).value == 10
            unread = session.converse("x += 1; x")
            await asyncio.sleep(0)
            while (await session.evaluate("x")).value != 11:
                pass
            assert [event.value async for event in unread] == [11]
            dropped: Any = session.converse("x = 2\nask('?')", tools=ASK, limits=LONG)
            await anext(dropped)
            del dropped
            gc.collect()
            assert (await session.evaluate("x")).value == 11
            task = asyncio.ensure_future(
                read_all(session.converse("x = 2\nask('?')", tools=ASK, limits=LONG))
            )
            while (await session.info()).steps and not real.pool.stats().running:
                await asyncio.sleep(0.01)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            del task
            gc.collect()
            assert (await session.evaluate("x")).value == 11

    async def read_all(conversation: Any) -> list[Any]:
        return [event async for event in conversation]

    asyncio.run(asyncio.wait_for(main(), WAIT_SECONDS))


# A service that stops.


@pytest.mark.parametrize("answered", [True, False])
def test_a_service_that_stops_ends_it_and_keeps_the_session(tmp_path: Path, answered: bool) -> None:
    store = open_store(f"dir:{tmp_path}/store")
    with serve(store) as real, Client(real.target) as client, ThreadPoolExecutor(1) as executor:
        session = client.session(limits=LONG)
        session.evaluate("x = 1")
        with session.converse("x = ask('?')", tools=ASK, limits=LONG) as conversation:
            call = next(conversation)
            draining = executor.submit(real.call, real.service.drain(WAIT_SECONDS if answered else 0.1))
            if answered:
                real.wait_until(lambda: real.service._idle is not None)
                call.reply(2)
            *_, result = conversation
        draining.result(WAIT_SECONDS)
        assert (result.ok, result.rolled_back) == (answered, not answered)
    with serve(store, owner="two") as real, Client(real.target) as client:
        with client.attach(session.id).converse("x") as conversation:
            [result] = conversation
        assert result.value == (2 if answered else 1)


# Workers of one's own.


def test_the_end_of_its_evaluator_ends_it() -> None:
    evaluator = Evaluator(workers=1)
    session = evaluator.session()
    with session.converse("ask('?')", tools=ASK, limits=LONG) as conversation:
        next(conversation)
        evaluator.close()
        *_, result = conversation
    assert (result.status, result.rolled_back) == (Status.CANCELLED, True)
    with pytest.raises(Unavailable):
        session.converse("1")


def test_a_time_out_covers_the_wait_for_the_turn(homes: dict[str, Home]) -> None:
    with homes["embedded"].session() as session:
        with session.converse("x = ask('?'); x", tools=ASK, limits=LONG) as conversation:
            call = next(conversation)
            for begin in (session.evaluate, session.converse):
                with pytest.raises(DeadlineExceeded, match=r"the time-out of 0\.1 s passed"):
                    begin("x = 'late'", timeout=0.1)
            call.reply(1)
            *_, result = conversation
        assert (result.value, session.evaluate("x").value) == (1, 1)


def test_an_interrupt_while_it_waits_for_its_turn_gives_it_up(homes: dict[str, Home]) -> None:
    home = homes["embedded"]
    with home.session() as session, ThreadPoolExecutor(1) as executor:
        with session.converse("x = ask('?')", tools=ASK, limits=LONG) as conversation:
            call = next(conversation)

            def interrupt() -> None:
                home.await_waiting(session)
                os.kill(os.getpid(), signal.SIGINT)

            interrupting = executor.submit(interrupt)
            with pytest.raises(KeyboardInterrupt):
                session.converse("x = 'given up'")
            interrupting.result(WAIT_SECONDS)
            call.reply(1)
            result = list(conversation)[-1]
            assert result.ok, result.error
        assert session.evaluate("x").value == 1


def test_once_it_is_closed_the_turn_is_free(homes: dict[str, Home]) -> None:
    with homes["embedded"].session() as session:
        for _ in range(20):
            with session.converse("x = ask('?')", tools=ASK, limits=LONG) as conversation:
                next(conversation)
            assert session.evaluate("1", wait=False).ok


def test_what_served_it_is_closed_when_it_ends_read_or_not(homes: dict[str, Home], tmp_path: Path) -> None:
    def descriptors() -> int:
        return len(os.listdir("/proc/self/fd"))

    (tmp_path / "f").write_text("here")
    with homes["embedded"].session() as session:
        code = "open('/mnt/data/f').read()"
        assert session.evaluate(code, mounts={"data": tmp_path}).value == "here"
        before = descriptors()
        unread = [session.converse(code, mounts={"data": tmp_path}) for _ in range(5)]
        session.evaluate("1")
        assert descriptors() <= before
        assert [list(conversation)[-1].value for conversation in unread] == ["here"] * 5


def test_what_a_forked_child_drops_is_the_parents(homes: dict[str, Home]) -> None:
    with homes["embedded"].session() as session:
        conversation: Any = session.converse("x = ask('?'); x", tools=ASK)
        call = next(conversation)
        if not (child := os.fork()):
            del conversation
            gc.collect()
            time.sleep(0.3)
            os._exit(0)
        os.waitpid(child, 0)
        call.reply(1)
        [result] = conversation
        assert result.value == 1


def test_one_that_cannot_be_stored_has_not_been(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store: Store = open_store(f"dir:{tmp_path}/store")
    with Evaluator(workers=1, store=store, snapshot_key=KEY) as evaluator:
        session = evaluator.session(durability="step")
        session.evaluate("x = 1")
        with session.converse("x = ask('?')", tools=ASK, limits=LONG) as conversation:
            call = next(conversation)
            with monkeypatch.context() as patched:
                patched.setattr(store, "put_blob", unavailable)
                call.reply(2)
                with pytest.raises(StoreUnavailable, match="the store is down"):
                    list(conversation)
        assert session.evaluate("x").value == 1
        session.close()


def unavailable(*_: object) -> None:
    raise StoreUnavailable("the store is down")


def test_no_thread_follows_what_is_over() -> None:
    def followers() -> int:
        return sum(thread.name == "wasmeval-caller" for thread in threading.enumerate())

    before = followers()
    with Evaluator(workers=1) as evaluator, evaluator.session() as session:
        for _ in range(3):
            with session.converse("1") as conversation:
                list(conversation)
            with session.converse("ask('?')", tools=ASK, limits=LONG) as conversation:
                next(conversation)
        until(lambda: followers() <= before)
