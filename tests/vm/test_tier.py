"""The tier over machines that are doubles: it starts once, drains, and closes whatever goes on."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from types import SimpleNamespace
from typing import Any

import pytest

from tests.vm.machines import FakeMachine
from tests.vm.test_lobby import Yard, soon
from wasmeval.errors import SetupError, Unavailable
from wasmeval.limits import MIB, VM_DEFAULTS
from wasmeval.model import Job
from wasmeval.vm import VmSettings, VmTier, golden, qemu
from wasmeval.vm.frames import Order, Word

JOB = Job("vm-command", b"", b"", VM_DEFAULTS, tier="vm", command=("true",))


class FakeGolden:
    """See golden.Golden."""

    hardware = SimpleNamespace(memory_bytes=512 * MIB, disk_bytes=512 * MIB)
    languages = {"bash": "5"}  # noqa: RUF012

    def __init__(self, yard: Yard) -> None:
        self.clone: Callable[[], FakeMachine] = yard.clone
        self.is_closed = False

    def close(self) -> None:
        assert not self.is_closed
        self.is_closed = True


class House:
    """A tier, and what it is made of. `gate` holds up the making of its golden machine."""

    def __init__(self) -> None:
        self.yard = Yard()
        # From its orders on, the tests play the guest.
        self.yard.knows_rehearsals = False
        self.made: list[FakeGolden] = []
        self.gate = threading.Event()
        self.gate.set()
        self.failure: Exception | None = None

    def golden_of(self, *arguments: Any) -> FakeGolden:
        given_up = arguments[3]
        for _ in range(1000):
            if self.gate.wait(0.02):
                break
            if given_up():
                raise SetupError("given up")
        else:
            raise AssertionError("nobody opens the gate")
        if self.failure is not None:
            raise self.failure
        self.made.append(FakeGolden(self.yard))
        return self.made[-1]

    def tier(self, **changed: Any) -> VmTier:
        tier = VmTier(VmSettings(accelerator="tcg", **{"ready": 0, "most": 1, **changed}))
        tier.missing = ""
        tier._image = SimpleNamespace(manifest=None)  # type: ignore[assignment]
        return tier

    async def begun(self, number: int) -> FakeMachine:
        """The machine of that number, when it has its job."""
        await self.yard.until(lambda: len(self.yard.machines) > number)
        machine = self.yard.machines[number]
        await machine.guest.hear_until(Order.RUN)
        return machine


@pytest.fixture
async def house(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[House]:
    one = House()
    monkeypatch.setattr(golden, "golden_of", one.golden_of)
    monkeypatch.setattr(qemu, "version", lambda: "7.2")
    yield one
    one.gate.set()
    await one.yard.close()
    assert all(each.is_closed for each in one.made)


async def run(house: House, tier: VmTier) -> asyncio.Task[Any]:
    """A job that has begun."""
    number = len(house.yard.machines)
    job = asyncio.create_task(tier.evaluate(JOB))
    await house.yard.until(lambda: len(house.yard.machines) > number and bool(tier._tasks))
    return job


async def test_it_starts_with_its_first_job_and_once(house: House) -> None:
    tier = house.tier(most=2)
    first, second = (asyncio.create_task(tier.evaluate(JOB)) for _ in range(2))
    await house.yard.until(lambda: len(tier._tasks) == 2)
    for machine in house.yard.machines:
        await machine.guest.hear_until(Order.RUN)
        await machine.guest.done()
    assert [(await soon(job)).status for job in (first, second)] == ["ok", "ok"]
    assert len(house.made) == 1
    assert all(machine.is_killed for machine in house.yard.machines)
    await tier.aclose()


async def test_who_gives_up_while_it_starts_costs_nothing(house: House) -> None:
    house.gate.clear()
    tier = house.tier()
    job = asyncio.create_task(tier.evaluate(JOB))
    await asyncio.sleep(0.02)
    job.cancel()
    await asyncio.gather(job, return_exceptions=True)
    house.gate.set()
    await soon(tier.start())
    assert len(house.made) == 1
    await tier.aclose()


@pytest.mark.parametrize("failure", [SetupError("no kernel"), OSError("no kernel")])
async def test_a_start_that_fails_is_told_and_tried_again(house: House, failure: Exception) -> None:
    house.failure = failure
    tier = house.tier()
    with pytest.raises(SetupError, match="no kernel"):
        await soon(tier.evaluate(JOB))
    house.failure = None
    await soon(tier.start())
    await tier.aclose()


async def test_closing_it_while_it_starts_leaves_nothing(house: House) -> None:
    house.gate.clear()
    tier = house.tier()
    job = asyncio.create_task(tier.evaluate(JOB))
    await asyncio.sleep(0.02)
    await soon(tier.aclose())
    with pytest.raises(Unavailable):
        await soon(job)
    assert house.made == []
    assert house.yard.machines == []


async def test_draining_waits_for_what_runs_and_waits(house: House) -> None:
    tier = house.tier()
    running = await run(house, tier)
    waiting = asyncio.create_task(tier.evaluate(JOB))
    await asyncio.sleep(0.01)
    draining = asyncio.create_task(tier.drain(20))
    await asyncio.sleep(0.01)
    with pytest.raises(Unavailable, match="shutting down; nothing ran"):
        await tier.evaluate(JOB)
    for number in range(2):
        assert not draining.done()
        machine = await house.begun(number)
        await machine.guest.done()
    await soon(draining)
    assert [(await soon(job)).status for job in (running, waiting)] == ["ok", "ok"]
    await tier.aclose()


async def test_draining_has_an_end(house: House) -> None:
    tier = house.tier()
    running = await run(house, tier)
    waiting = asyncio.create_task(tier.evaluate(JOB))
    await asyncio.sleep(0.01)
    await soon(tier.drain(0.05))
    with pytest.raises(Unavailable):
        await soon(waiting)
    machine = house.yard.machines[0]
    await machine.guest.hear_until(Order.STOP)
    await machine.guest.say(Word.OUTPUT, b"last", 1)
    await machine.guest.done()
    result = await soon(running)
    assert (result.status, result.stdout) == ("cancelled", "last")
    assert result.error.message == "the service was shutting down"
    assert len(house.yard.machines) == 1
    await tier.aclose()


async def test_draining_what_is_idle_takes_no_time(house: House) -> None:
    tier = house.tier()
    await soon(tier.drain(1000))
    await tier.aclose()
    started = house.tier()
    await started.start()
    await soon(started.drain(1000))
    await started.aclose()


async def test_closing_it_ends_what_runs_at_once(house: House) -> None:
    tier = house.tier()
    running = await run(house, tier)
    await soon(tier.aclose())
    result = await soon(running)
    assert (result.status, result.error.message) == ("cancelled", "the service was shutting down")
    with pytest.raises(Unavailable):
        await tier.evaluate(JOB)
    await tier.aclose()


async def test_cancelling_a_job_ends_its_machine(house: House) -> None:
    tier = house.tier()
    running = await run(house, tier)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert house.yard.machines[0].is_killed
    again = await run(house, tier)
    await (await house.begun(1)).guest.done()
    assert (await soon(again)).status == "ok"
    await tier.aclose()


async def test_a_machine_that_dies_costs_its_job_alone(house: House) -> None:
    tier = house.tier()
    running = await run(house, tier)
    house.yard.machines[0].guest.end()
    assert (await soon(running)).status == "crashed"
    again = await run(house, tier)
    await (await house.begun(1)).guest.done()
    assert (await soon(again)).status == "ok"
    await tier.aclose()


async def test_one_who_attends_and_fails_costs_his_job_alone(house: House) -> None:
    def attend(task: Any) -> Any:
        raise RuntimeError("no attendant")

    tier = house.tier()
    with pytest.raises(RuntimeError):
        await soon(tier.evaluate(JOB, attend))
    assert tier._tasks == set()
    assert house.yard.machines[0].is_killed
    await soon(tier.drain(1000))
    await tier.aclose()
