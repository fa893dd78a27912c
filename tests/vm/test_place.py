"""The machine of a session, its guest played by the test: what a step's end leaves for the next."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from signal import SIGINT

import pytest

from tests.vm.machines import FakeMachine
from wasmeval.limits import VM_DEFAULTS, Limits
from wasmeval.model import Job, Result, Status
from wasmeval.vm import task as tasks
from wasmeval.vm.agent import Agent
from wasmeval.vm.frames import Order, Word
from wasmeval.vm.place import Place
from wasmeval.vm.task import Task

REPLY = struct.Struct("<8I")


class Session:
    """A place in a double of a machine, and the step that runs there."""

    def __init__(self, machine: FakeMachine, program: str) -> None:
        self.machine = machine
        self.guest = machine.guest
        self.agent = Agent(machine)
        self.place = Place(self.agent)
        self.program = program

    async def begin(self, **limits: float) -> asyncio.Task[Result]:
        """The next step, when its guest has heard of it."""
        whole = Limits(**limits).within(VM_DEFAULTS, Limits())  # type: ignore[arg-type]
        job = Job(f"vm-{self.program}", b"1", b"", whole, tier="vm", session=self.place)
        self.task = Task(job, self.agent, "a double", is_step=True)
        running = asyncio.create_task(self.place.run(self.task))
        await self.guest.hear_until(Order.RUN)
        return running

    async def end_well(self) -> None:
        """As an interpreter does."""
        await self.guest.say(Word.REPLY, REPLY.pack(0, 0, 1, 0, 0, 0, 0, 0) + b"2")
        await self.guest.done(exit_status=None)


@asynccontextmanager
async def session(program: str = "python") -> AsyncIterator[Session]:
    machine = FakeMachine()
    one = Session(machine, program)
    try:
        yield one
    finally:
        one.agent.close()
        machine.close()


async def test_it_stands_still_between_steps() -> None:
    async with session("bash") as one:
        assert not one.machine.runs
        for status in (0, 3):
            step = await one.begin()
            assert one.machine.runs
            await one.guest.done(exit_status=status)
            assert (await step).exit_status == status
            assert not one.machine.runs
        assert not one.place.is_lost


@pytest.mark.parametrize("ends_by", ["deadline", "stop", "caller"])
async def test_python_is_interrupted_and_goes_on(ends_by: str) -> None:
    async with session() as one:
        step = await one.begin(deadline_seconds=0.05 if ends_by == "deadline" else 60.0)
        if ends_by == "stop":
            one.task.stop()
        elif ends_by == "caller":
            step.cancel()
        assert (await one.guest.hear())[:2] == (Order.SIGNAL, SIGINT)
        await one.guest.done(exit_status=None)
        if ends_by == "caller":
            with pytest.raises(asyncio.CancelledError):
                await step
        else:
            status = (await step).status
            assert status is (Status.CANCELLED if ends_by == "stop" else Status.DEADLINE_EXCEEDED)
        assert not one.place.is_lost
        again = await one.begin()
        await one.end_well()
        assert (await again).value == 2
        assert not one.machine.is_killed


async def test_one_that_does_not_heed_it_is_killed_and_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "_INTERRUPTION_SECONDS", 0.05)
    async with session() as one:
        step = await one.begin(deadline_seconds=0.05)
        assert [(await one.guest.hear())[0] for _ in range(2)] == [Order.SIGNAL, Order.STOP]
        await one.guest.done(exit_status=-9)
        assert (await step).status is Status.DEADLINE_EXCEEDED
        assert one.place.is_lost
        assert one.machine.is_killed


async def test_a_service_that_stops_interrupts_nobody() -> None:
    async with session() as one:
        step = await one.begin()
        one.task.stop("the service was shutting down", at_once=True)
        assert (await one.guest.hear())[0] is Order.STOP
        await one.guest.done(exit_status=-9)
        assert (await step).status is Status.CANCELLED


async def test_a_second_cancellation_leaves_the_step_its_time() -> None:
    async with session() as one:
        step = await one.begin()
        for _ in range(3):
            step.cancel()
            await asyncio.sleep(0.01)
        assert not step.done()
        await one.guest.done(exit_status=None)
        with pytest.raises(asyncio.CancelledError):
            await step
        assert not one.place.is_lost


async def test_an_order_that_could_not_be_followed_costs_a_step() -> None:
    async with session() as one:
        step = await one.begin()
        await one.guest.say(Word.FAILED, b"Disk quota exceeded")
        assert (await step).status is Status.CRASHED
        assert not one.place.is_lost


@pytest.mark.parametrize(
    ("word", "payload"),
    [(Word.OUTPUT, b"late"), (Word.CALL, b"\x05" + bytes(12)), (Word.REPLY, b"x"), (Word.DONE, b"{}")],
)
async def test_what_is_said_between_steps_ends_the_machine(word: Word, payload: bytes) -> None:
    async with session() as one:
        step = await one.begin()
        await one.end_well()
        assert (await step).ok
        assert not one.place.is_lost
        await one.guest.say(word, payload, 1)
        await asyncio.sleep(0.05)
        assert one.place.is_lost
        assert one.machine.is_killed


async def test_a_machine_that_dies_is_a_lost_place() -> None:
    async with session() as one:
        step = await one.begin()
        one.guest.end()
        assert (await step).status is Status.CRASHED
        assert one.place.is_lost
