"""Promise: a guest whose root and kernel are hostile costs its own job alone: the service answers others, keeps its
memory, believes nothing, and the machine is gone."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.vm.processes import gone, private_bytes
from wasmeval.grants import Grants, HttpPolicy, HttpRule, Tool
from wasmeval.limits import MIB, VM_DEFAULTS
from wasmeval.model import Job, Result
from wasmeval.vm import VmSettings, VmTier, golden, images
from wasmeval.vm import task as tasks
from wasmeval.vm.building import initramfs
from wasmeval.vm.golden import Golden, Source
from wasmeval.vm.guest import guest_files
from wasmeval.vm.lobby import Lobby
from wasmeval.vm.network import Connection
from wasmeval.vm.task import Task
from wasmeval.wasm.calls import Operation

AGENT = Path(__file__).with_name("hostile.py")
LIMITS = replace(VM_DEFAULTS, deadline_seconds=1.5, output_bytes=8 * MIB, workspace_files=500)
MOST_MEMORY = 48 * MIB
"""More than before, of the service: the largest frame and output that there may be, and some."""


@pytest.fixture(scope="module")
def evil(vm_settings: VmSettings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Golden]:
    """A golden machine with that agent."""
    image = images.find(vm_settings.image, vm_settings.images_dir)
    files = {**guest_files(), "agent.py": AGENT.read_bytes()}
    source = Source(image.root, image.kernel.read_bytes(), initramfs.make(image, files), "hostile")
    folder = tmp_path_factory.mktemp("golden")
    made = golden.boot(source, replace(golden.hardware_of(image, "tcg"), memory_bytes=256 * MIB), folder)
    yield made
    made.close()


class Hangs:
    """A gateway that takes no notice."""

    def __init__(self) -> None:
        self.served = 0

    async def serve(self, stream: Connection) -> None:
        self.served += 1
        await asyncio.Event().wait()


class Outside:
    """Whom a job talks to: nobody."""

    def __init__(self) -> None:
        self.gateway = Hangs()
        self.asked = 0

    def called(self, call: int, operation: Operation, body: bytes) -> None:
        self.asked += 1

    def printed(self, stream: int, data: bytes) -> None:
        pass


def job(what: str) -> Job:
    grants = Grants(
        tools=(Tool("f", doc="x" * 50_000),),
        http=HttpPolicy((HttpRule("*"),)),
        stdin=True,
        live=True,
        outputs=("**",),
    )
    return Job("vm-command", b"", b"", LIMITS, grants, tier="vm", command=(what,))


class Battle:
    """A job that attacks, while others want to be served."""

    def __init__(self, evil: Golden) -> None:
        self.tier = VmTier(VmSettings(ready=0, most=3, accelerator="tcg"))
        self.tier._golden = evil
        self.tier._lobby = Lobby(evil.clone, ready=0, most=3, queue_size=8)
        self.outside = Outside()
        self.beats = 0
        self.longest = 0.0

    def attend(self, task: Task) -> Outside:
        return self.outside

    async def fight(self, what: str) -> Result:
        """What the attack ends with; others are served meanwhile."""
        lobby = self.tier.lobby
        memory = private_bytes(os.getpid())
        attack = asyncio.create_task(self.tier.evaluate(job(what), self.attend))
        while not self.tier._tasks and not attack.done():
            await asyncio.sleep(0.005)
        beating = asyncio.create_task(self.beat())
        numbers = {agent.machine.number for agent in lobby._taken}
        grown = 0
        try:
            other = asyncio.create_task(self.tier.evaluate(job("honest"), self.attend))
            while not attack.done():
                await asyncio.wait([attack], timeout=0.1)
                grown = max(grown, private_bytes(os.getpid()) - memory)
            assert (await asyncio.wait_for(other, 20)).stdout == "fine"
            result = await attack
        finally:
            beating.cancel()
            await lobby.close()
        assert await asyncio.to_thread(gone, numbers)
        assert grown < MOST_MEMORY, f"{grown / MIB:.0f} MiB"
        return result

    async def beat(self) -> None:
        while True:
            began = time.monotonic()
            await asyncio.sleep(0.002)
            self.beats += 1
            self.longest = max(self.longest, time.monotonic() - began)


UNTRUSTED = "the guest's agent is not to be trusted any more: "
CALLED_ON = UNTRUSTED + "a call before the answer to the last one"
OUTPUT = UNTRUSTED + "output of nothing, or beyond its limit"
ENDS = {
    "nothing": ("deadline_exceeded", ""),
    "spin": ("deadline_exceeded", ""),
    "output": ("crashed", OUTPUT),
    "bytes": ("deadline_exceeded", ""),
    "single writes": ("deadline_exceeded", ""),
    "empty": ("crashed", OUTPUT),
    "garbage": ("crashed", UNTRUSTED),
    "huge": ("crashed", UNTRUSTED + "4294967295 bytes of OUTPUT"),
    "almost huge": ("deadline_exceeded", ""),
    "calls": ("crashed", CALLED_ON),
    "calls answered": ("deadline_exceeded", ""),
    "both ways": ("crashed", CALLED_ON),
    "inputs": ("crashed", UNTRUSTED + "input is wanted where there is none, or too often"),
    "files": ("crashed", UNTRUSTED + "more files than their limit"),
    "tails": ("crashed", UNTRUSTED + "a tail that cannot be"),
    "done and on": ("ok", ""),
    "never stops": ("deadline_exceeded", ""),
    "network": ("crashed", "the guest's network is not to be trusted any more: "),
    "connections": ("crashed", "the guest's network is not to be trusted any more: more than "),
    "connection bytes": ("deadline_exceeded", ""),
    "power off": ("crashed", "the virtual machine ended"),
    "panic": ("crashed", "the virtual machine ended"),
    "what is this": ("crashed", UNTRUSTED),
}


@pytest.mark.parametrize("what", ENDS)
async def test_an_attack_costs_its_own_job_alone(
    evil: Golden, what: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(tasks, "_STOPPING_SECONDS", 0.5)
    battle = Battle(evil)
    result = await battle.fight(what)
    status, why = ENDS[what]
    said = result.error.message if result.error is not None else ""
    assert (result.status, said[: len(why)]) == (status, why)
    assert len(said) < 1000
    # The loop was there for others, and without a long silence: usually 30 ms at most.
    assert battle.longest < 1
    assert battle.beats > 20
    assert battle.outside.asked <= 20
    assert [each.getMessage() for each in caplog.records if each.levelno >= logging.WARNING] == []
