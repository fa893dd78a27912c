"""Clones wait for jobs, jobs for clones; whatever dies, fails or gives up, none of either is lost or left behind."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Any

import pytest

from tests.vm.machines import PATIENCE_SECONDS, FakeMachine
from wasmeval.errors import Internal, ResourceExhausted, Unavailable
from wasmeval.vm import lobby as lobbies
from wasmeval.vm.agent import Agent
from wasmeval.vm.frames import Order, Word
from wasmeval.vm.lobby import Lobby


class Yard:
    """Makes doubles, whose guests do what honest ones do at first. `fails` are what making one raises, in turn."""

    def __init__(self) -> None:
        self.machines: list[FakeMachine] = []
        self.fails: list[BaseException] = []
        self.stalls = False
        """Whether new guests say nothing."""
        self.rehearsals = 0
        self.knows_rehearsals = True
        """Whether new guests go on listening until there is one."""
        self.lobby: Lobby | None = None
        self._guests: list[asyncio.Task[None]] = []

    def open(self, *, ready: int = 1, most: int = 4, queue_size: int = 8, rehearse: bool = False) -> Lobby:
        """A lobby of its machines."""
        self.lobby = Lobby(self.clone, ready=ready, most=most, queue_size=queue_size, rehearse=rehearse)
        self.lobby.open()
        return self.lobby

    def clone(self) -> FakeMachine:
        if self.fails:
            raise self.fails.pop(0)
        machine = FakeMachine()
        self.machines.append(machine)
        if not self.stalls:
            self._guests.append(asyncio.create_task(self._play(machine)))
        return machine

    async def _play(self, machine: FakeMachine) -> None:
        with suppress(EOFError):
            await machine.guest.resume()
            if not self.knows_rehearsals:
                return
            await machine.guest.hear_until(Order.REHEARSE)
            self.rehearsals += 1
            await machine.guest.say(Word.REHEARSED)

    @property
    def alive(self) -> list[FakeMachine]:
        return [machine for machine in self.machines if not machine.is_killed]

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not condition():
                await asyncio.sleep(0.001)

    async def until_ready(self, count: int) -> None:
        lobby = self.lobby
        assert lobby is not None
        await self.until(lambda: lobby.stats().ready == count)

    async def close(self) -> None:
        if self.lobby is not None:
            await asyncio.wait_for(self.lobby.close(), PATIENCE_SECONDS)
            stats = self.lobby.stats()
            assert (stats.ready, stats.taken, stats.waiting) == (0, 0, 0)
        for guest in self._guests:
            guest.cancel()
        await asyncio.gather(*self._guests, return_exceptions=True)
        assert self.alive == []
        for machine in self.machines:
            machine.close()


@pytest.fixture
async def yard(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Yard]:
    monkeypatch.setattr(lobbies, "_REST_SECONDS", 0.01)
    one = Yard()
    yield one
    await one.close()


async def soon(awaitable: Any) -> Any:
    return await asyncio.wait_for(awaitable, PATIENCE_SECONDS)


async def test_clones_are_ready_before_anybody_comes_and_made_anew(yard: Yard) -> None:
    lobby = yard.open(ready=2)
    await yard.until_ready(2)
    first = await soon(lobby.take())
    await yard.until_ready(2)
    assert (lobby.stats().taken, len(yard.machines)) == (1, 3)
    assert first.machine is yard.machines[0]
    lobby.leave(first)
    assert yard.machines[0].is_killed
    assert lobby.stats().taken == 0


async def test_none_is_ready_where_none_is_wanted(yard: Yard) -> None:
    lobby = yard.open(ready=0)
    await asyncio.sleep(0.02)
    assert yard.machines == []
    lobby.leave(await soon(lobby.take()))
    await asyncio.sleep(0.02)
    assert len(yard.machines) == 1


async def test_no_more_run_than_may(yard: Yard) -> None:
    lobby = yard.open(ready=3, most=3)
    taking = [asyncio.create_task(lobby.take()) for _ in range(6)]
    most = 0
    for _ in range(6):
        await yard.until(lambda: any(task.done() for task in taking))
        most = max(most, len(yard.alive))
        done = next(task for task in taking if task.done())
        taking.remove(done)
        await asyncio.sleep(0.01)
        most = max(most, len(yard.alive))
        lobby.leave(done.result())
    assert most == 3
    assert lobby.stats().waiting == 0


async def test_who_comes_first_is_served_first(yard: Yard) -> None:
    lobby = yard.open(ready=0, most=1)
    order: list[int] = []

    async def job(number: int) -> None:
        agent = await lobby.take()
        order.append(number)
        await asyncio.sleep(0)
        lobby.leave(agent)

    await soon(asyncio.gather(*map(job, range(6))))
    assert order == list(range(6))


async def test_a_full_queue_says_so_and_when_to_come_again(yard: Yard) -> None:
    yard.stalls = True
    lobby = yard.open(ready=0, most=1, queue_size=2)
    waiting = [asyncio.create_task(lobby.take()) for _ in range(2)]
    await asyncio.sleep(0)
    with pytest.raises(
        ResourceExhausted, match="2 jobs wait for a virtual machine already; nothing ran"
    ) as refused:
        await lobby.take()
    assert refused.value.retry_after_seconds == 1.0
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    assert lobby.stats().waiting == 0


async def test_who_gives_up_waiting_leaves_his_place(yard: Yard) -> None:
    lobby = yard.open(ready=0, most=1)
    held = await soon(lobby.take())
    gone, stays = asyncio.create_task(lobby.take()), asyncio.create_task(lobby.take())
    await asyncio.sleep(0)
    gone.cancel()
    await asyncio.gather(gone, return_exceptions=True)
    assert lobby.stats().waiting == 1
    lobby.leave(held)
    lobby.leave(await soon(stays))


async def test_who_gives_up_in_the_moment_he_is_served_gives_it_back(yard: Yard) -> None:
    lobby = yard.open(ready=0, most=1)
    taking = asyncio.create_task(lobby.take())

    class Taken(set[Agent]):
        def add(self, agent: Agent) -> None:
            super().add(agent)
            # Between its being served, which follows, and its own next turn.
            asyncio.get_running_loop().call_soon(taking.cancel)

    lobby._taken = Taken()
    with pytest.raises(asyncio.CancelledError):
        await taking
    assert lobby.stats().taken == 0
    assert len(yard.machines) == 1
    assert not yard.alive
    lobby._taken = set()
    lobby.leave(await soon(lobby.take()))


async def test_those_that_nobody_waits_for_rehearse(yard: Yard) -> None:
    lobby = yard.open(ready=2, rehearse=True)
    await yard.until_ready(2)
    assert yard.rehearsals == 2
    lobby.leave(await soon(lobby.take()))


async def test_who_waits_does_not_wait_for_a_rehearsal(yard: Yard) -> None:
    lobby = yard.open(ready=0, rehearse=True)
    lobby.leave(await soon(lobby.take()))
    assert yard.rehearsals == 0


class Odd(Exception):
    """Nothing that was thought of."""


@pytest.mark.parametrize("failure", [OSError("no memory"), Odd("odd")])
async def test_a_clone_that_cannot_be_made_is_tried_again(
    yard: Yard, failure: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    yard.fails = [failure, failure]
    lobby = yard.open(ready=1)
    agent = await soon(lobby.take())
    lobby.leave(agent)
    said = [each.getMessage() for each in caplog.records if each.levelno == logging.ERROR]
    assert said == [f"a virtual machine could not be cloned: {failure}"] * 2


async def test_who_waits_hears_when_none_can_be_made_and_the_next_is_served(yard: Yard) -> None:
    yard.fails = [OSError("no memory")] * 3
    lobby = yard.open(ready=0)
    with pytest.raises(Internal, match="no virtual machine can be made now; the service's log says why"):
        await soon(lobby.take())
    await asyncio.sleep(0.05)
    lobby.leave(await soon(lobby.take()))


async def test_failing_does_not_become_a_loop_without_rest(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lobbies, "_REST_SECONDS", 0.2)
    yard.fails = [Odd("odd")] * 1000
    yard.open(ready=2)
    await asyncio.sleep(0.5)
    assert len(yard.fails) >= 990
    yard.fails.clear()


async def test_a_clone_that_never_comes_up_is_killed_and_another_made(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lobbies, "RESUME_SECONDS", 0.05)
    yard.stalls = True
    lobby = yard.open(ready=1)
    await yard.until(lambda: len(yard.machines) == 1)
    yard.stalls = False
    await yard.until_ready(1)
    assert yard.machines[0].is_killed
    assert lobby.stats().made == 2


async def test_a_ready_clone_that_dies_is_buried_and_replaced(yard: Yard) -> None:
    yard.open(ready=2)
    await yard.until_ready(2)
    yard.machines[0].guest.end()
    await yard.until(lambda: yard.machines[0].is_killed)
    await yard.until_ready(2)
    assert len(yard.alive) == 2


async def test_a_ready_clone_that_speaks_is_buried_and_replaced(yard: Yard) -> None:
    yard.open(ready=1)
    await yard.until_ready(1)
    await yard.machines[0].guest.say(Word.OUTPUT, b"psst", 1)
    await yard.until(lambda: yard.machines[0].is_killed)
    await yard.until_ready(1)


async def test_whose_loop_cannot_watch_it_is_killed(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Agent, machine: FakeMachine) -> None:
        raise OSError("no more descriptors")

    with monkeypatch.context() as patch:
        patch.setattr(Agent, "__init__", refuse)
        yard.open(ready=1)
        await yard.until(lambda: len(yard.machines) >= 1 and yard.machines[0].is_killed)
    await yard.until_ready(1)


async def test_those_that_take_long_to_die_are_waited_for(yard: Yard) -> None:
    lobby = yard.open(ready=0)
    agent = await soon(lobby.take())
    yard.machines[0].is_buried = False
    lobby.leave(agent)
    closing = asyncio.create_task(lobby.close())
    await asyncio.sleep(0.02)
    assert not closing.done()
    yard.machines[0].is_buried = True
    await soon(closing)


async def test_burying_many_leaves_one_timer(yard: Yard) -> None:
    lobby = yard.open(ready=0, most=1)
    for number in range(50):
        agent = await soon(lobby.take())
        yard.machines[number].is_buried = False
        lobby.leave(agent)
    timers = [each for each in asyncio.get_running_loop()._scheduled if not each.cancelled()]  # type: ignore[attr-defined]
    assert sum("_reap" in repr(each) for each in timers) == 1
    for machine in yard.machines:
        machine.is_buried = True


async def test_closing_ends_all_and_tells_who_waits(yard: Yard) -> None:
    lobby = yard.open(ready=1, most=2)
    await yard.until_ready(1)
    held = await soon(lobby.take())
    ends: list[str] = []
    held.attend(None, lambda lost: ends.append(str(lost)))
    other = await soon(lobby.take())
    waiting = asyncio.create_task(lobby.take())
    await asyncio.sleep(0)
    await soon(lobby.close())
    with pytest.raises(Unavailable, match="the virtual machines are shutting down; nothing ran"):
        await waiting
    with pytest.raises(Unavailable, match="shutting down"):
        await lobby.take()
    assert ends == ["the virtual machine was ended by its host"]
    assert other.is_lost
    lobby.leave(held)
    await soon(lobby.close())


async def test_closing_while_clones_are_made_leaves_none(yard: Yard) -> None:
    yard.stalls = True
    lobby = yard.open(ready=2)
    await yard.until(lambda: len(yard.machines) == 2)
    await soon(lobby.close())
    assert yard.alive == []


async def test_closing_while_it_rests_ends_the_rest(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lobbies, "_REST_SECONDS", 0.05)
    yard.fails = [OSError("no memory")] * 2
    lobby = yard.open(ready=2)
    await asyncio.sleep(0.01)
    await soon(lobby.close())
    await asyncio.sleep(0.1)
    assert yard.machines == []


async def test_a_lobby_that_refuses_lets_run_what_runs(yard: Yard) -> None:
    lobby = yard.open(ready=0, most=1)
    held = await soon(lobby.take())
    waiting = asyncio.create_task(lobby.take())
    await asyncio.sleep(0)
    lobby.refuse()
    with pytest.raises(Unavailable):
        await waiting
    assert not held.is_lost
    lobby.leave(held)
    assert len(yard.machines) == 1
