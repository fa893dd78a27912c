"""An agent of a machine: what it says is heard or is its end, what it is told reaches it, and its end is told once."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator

import pytest

from tests.vm.machines import PATIENCE_SECONDS, FakeMachine, frame
from wasmeval.vm.agent import Agent, Lost
from wasmeval.vm.frames import Frame, Order, Word
from wasmeval.vm.network import Connection


@pytest.fixture
async def machine() -> AsyncIterator[FakeMachine]:
    one = FakeMachine()
    yield one
    one.close()


class Ear:
    """What an agent said, and how it was lost."""

    def __init__(self, agent: Agent) -> None:
        self.heard: list[Frame] = []
        self.lost: list[str] = []
        self.news = asyncio.Event()
        agent.attend(self.hear, self.lose)

    def hear(self, frame: Frame) -> None:
        self.heard.append(frame)
        self.news.set()

    def lose(self, lost: Lost) -> None:
        self.lost.append(str(lost))
        self.news.set()

    async def until(self, count: int = 1) -> None:
        """So much was heard, or it was lost."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while len(self.heard) < count and not self.lost:
                self.news.clear()
                await self.news.wait()


async def test_a_clone_is_told_time_name_and_entropy_first(machine: FakeMachine) -> None:
    agent = Agent(machine)
    resuming = asyncio.create_task(agent.resume("vm-7", 20))
    order, _, payload = await machine.guest.hear()
    assert order is Order.RESUME
    assert abs(int.from_bytes(payload[:8], "little") - time.time_ns()) < 60e9
    assert payload[72:] == b"vm-7"
    assert len(set(payload[8:72])) > 10
    await machine.guest.say(Word.RESUMED)
    await resuming
    agent.close()


async def test_no_two_clones_get_the_same_entropy() -> None:
    seeds = set()
    for _ in range(5):
        one = FakeMachine()
        agent = Agent(one)
        resuming = asyncio.create_task(agent.resume("vm", 20))
        seeds.add((await one.guest.hear())[2][8:72])
        await one.guest.say(Word.RESUMED)
        await resuming
        agent.close()
        one.close()
    assert len(seeds) == 5


async def test_silence_is_lost_after_its_time(machine: FakeMachine) -> None:
    agent = Agent(machine)
    with pytest.raises(Lost, match=r"^the machine did not say RESUMED within 0.05 s$"):
        await agent.resume("vm", 0.05)
    agent.close()


async def test_another_word_is_lost(machine: FakeMachine) -> None:
    agent = Agent(machine)
    asyncio.get_running_loop().call_later(0.01, machine.guest.socket.send, frame(Word.DONE, b"{}"))
    with pytest.raises(Lost, match="not to be trusted any more: DONE where RESUMED was expected"):
        await agent.resume("vm", 20)
    assert machine.is_killed


async def test_its_end_while_it_resumes(machine: FakeMachine) -> None:
    agent = Agent(machine)
    machine.last_words = "qemu: no memory"
    machine.guest.end()
    with pytest.raises(Lost, match=r"^qemu: no memory$"):
        await agent.resume("vm", 20)
    assert agent.is_lost


async def test_what_nobody_asked_for_is_its_end(machine: FakeMachine) -> None:
    agent = Agent(machine)
    await machine.guest.say(Word.OUTPUT, b"psst", 1)
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not agent.is_lost:
            await asyncio.sleep(0.001)
    ear = Ear(agent)
    assert ear.lost == ["the guest's agent is not to be trusted any more: OUTPUT that nobody asked for"]
    assert machine.is_killed


@pytest.mark.parametrize(
    "data", [b"GET / HTTP/1.1\r\n\r\n", bytes(9), b"\xff" * 9, frame(Word.OUTPUT)[:4] + b"\0" * 5]
)
async def test_what_is_no_frame_is_its_end(machine: FakeMachine, data: bytes) -> None:
    ear = Ear(Agent(machine))
    await machine.guest.utter(data)
    await ear.until()
    assert ear.heard == []
    assert len(ear.lost) == 1
    assert ear.lost[0].startswith("the guest's agent is not to be trusted any more: ")


async def test_frames_before_a_malformed_one_count_and_none_after_it(machine: FakeMachine) -> None:
    agent = Agent(machine)
    ear = Ear(agent)
    await machine.guest.utter(frame(Word.INPUT) + frame(Word.CALL, b"x"))
    await ear.until(2)
    await machine.guest.utter(frame(0) + frame(Word.INPUT))
    await ear.until(3)
    assert [each.word for each in ear.heard] == [Word.INPUT, Word.CALL]
    assert len(ear.lost) == 1


async def test_a_listener_that_fails_is_its_end_and_quotes_nothing(
    machine: FakeMachine, caplog: pytest.LogCaptureFixture
) -> None:
    agent = Agent(machine)

    def hear(frame: Frame) -> None:
        raise RuntimeError(frame.payload.decode())

    lost: list[Lost] = []
    agent.attend(hear, lost.append)
    await machine.guest.say(Word.OUTPUT, b"\x1b[31mforged\nline", 1)
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not lost:
            await asyncio.sleep(0.001)
    assert str(lost[0]) == "the service could not go on with it; its log says why"
    assert [each.getMessage() for each in caplog.records] == [
        "internal error in what a guest said: RuntimeError"
    ]
    assert caplog.records[0].levelno == logging.ERROR
    assert machine.is_killed


async def test_closing_it_tells_whoever_hears_it_once(machine: FakeMachine) -> None:
    agent = Agent(machine)
    ear = Ear(agent)
    agent.close()
    agent.close()
    assert ear.lost == ["the virtual machine was ended by its host"]
    late = Ear(agent)
    assert late.lost == ear.lost
    agent.send(Order.STOP)
    with pytest.raises(EOFError):
        await machine.guest.hear()


async def test_a_guest_that_reads_slowly_gets_all_of_it_in_order(machine: FakeMachine) -> None:
    agent = Agent(machine)
    pieces = [bytes([n]) * 100_000 for n in range(40)]
    for number, piece in enumerate(pieces):
        agent.send(Order.FEED, piece, number)
    assert agent.sent_bytes < agent.queued_bytes
    for number, piece in enumerate(pieces):
        assert await machine.guest.hear() == (Order.FEED, number, piece)
        await asyncio.sleep(0.001)
    assert agent.sent_bytes == agent.queued_bytes
    agent.close()


async def test_a_guest_that_reads_nothing_costs_its_host_no_time(machine: FakeMachine) -> None:
    agent = Agent(machine)
    ear = Ear(agent)
    agent.send(Order.FEED, bytes(5 << 20))
    used = time.process_time()
    await asyncio.sleep(0.3)
    assert time.process_time() - used < 0.2
    # It is heard all the same, and its end is seen.
    await machine.guest.say(Word.INPUT)
    await ear.until()
    machine.guest.end()
    await ear.until(2)
    assert ear.lost == ["the virtual machine ended"]


async def test_its_end_with_much_on_its_way(machine: FakeMachine) -> None:
    agent = Agent(machine)
    ear = Ear(agent)
    agent.send(Order.FEED, bytes(5 << 20))
    machine.guest.end()
    await ear.until()
    agent.send(Order.FEED, b"more")
    assert len(ear.lost) == 1


@pytest.mark.parametrize("size", [0, 1, 30])
async def test_a_flood_of_small_frames_leaves_the_loop_to_others(machine: FakeMachine, size: int) -> None:
    agent = Agent(machine)
    ear = Ear(agent)
    flooding = asyncio.create_task(machine.guest.flood(frame(Word.OUTPUT, bytes(size), 1) * 5000))
    turns, most, end = 0, 0.0, time.monotonic() + 1.0
    while time.monotonic() < end:
        began = time.monotonic()
        await asyncio.sleep(0.001)
        most = max(most, time.monotonic() - began)
        turns += 1
    assert ear.heard
    assert not ear.lost
    # Without its share the loop would have some ten turns, most of them of 10 ms and more.
    assert turns > 100
    agent.close()
    await flooding


async def test_whoever_was_not_heard_for_a_while_is_heard_again(machine: FakeMachine) -> None:
    agent = Agent(machine)
    ear = Ear(agent)
    count = 30_000
    sending = asyncio.create_task(machine.guest.utter(frame(Word.INPUT) * count))
    await ear.until(count)
    await sending
    assert len(ear.heard) == count
    agent.close()


async def test_closing_it_while_it_is_not_heard(machine: FakeMachine) -> None:
    agent = Agent(machine)
    ear = Ear(agent)
    flooding = asyncio.create_task(machine.guest.flood(frame(Word.INPUT) * 5000))
    await asyncio.sleep(0.3)
    agent.close()
    await asyncio.sleep(0.01)
    heard = len(ear.heard)
    await asyncio.sleep(0.05)
    assert len(ear.heard) == heard
    await flooding


class Hangs:
    """A gateway that answers nothing."""

    async def serve(self, stream: Connection) -> None:
        await asyncio.Event().wait()


async def test_a_network_that_breaks_its_rules_is_the_machine_s_end(machine: FakeMachine) -> None:
    agent = Agent(machine)
    ear = Ear(agent)
    agent.connect(Hangs())
    await asyncio.get_running_loop().sock_sendall(machine.guest_network, b"\xff" * 8)
    await ear.until()
    assert ear.lost == ["the guest's network is not to be trusted any more: a frame of 4294967295 bytes"]
    assert machine.is_killed


async def test_a_killed_machine_s_network_gives_its_descriptor_to_nobody_too_early(
    machine: FakeMachine,
) -> None:
    """The loop would take the next machine's channel, under the same number, for the old one's."""
    agent = Agent(machine)
    agent.connect(Hangs())
    await asyncio.sleep(0.01)
    agent.close()
    others = [FakeMachine() for _ in range(5)]
    agents = [Agent(each) for each in others]
    await asyncio.sleep(0.01)
    for each, other in zip(agents, others, strict=True):
        ear = Ear(each)
        await other.guest.say(Word.INPUT)
        await ear.until()
        assert len(ear.heard) == 1
        each.close()
        other.close()
