"""Promise: a machine leaves nothing behind: no process, no descriptor, no file, no memory; whoever is killed."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tests.vm.processes import files_below, gone, is_alive, machines, private_bytes, soon
from wasmeval.limits import MIB, VM_DEFAULTS
from wasmeval.model import Job, Result
from wasmeval.vm import VmSettings, VmTier, images
from wasmeval.vm.agent import Agent

CLONES = 20
JOB = Job("vm-command", b"", b"", VM_DEFAULTS, tier="vm", command=("true",))
SLEEP = replace(JOB, command=("sleep", "1000"))


async def begun(tier: VmTier, job: Job) -> tuple[asyncio.Task[Result], Agent]:
    """A job that runs, and its machine's agent."""
    running = asyncio.create_task(tier.evaluate(job))
    async with asyncio.timeout(60):
        while not tier._tasks:
            await asyncio.sleep(0.01)
    await asyncio.sleep(0.2)
    (agent,) = tier.lobby._taken
    return running, agent


async def test_clones_leave_nothing(
    vm_settings: VmSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    image = images.find(vm_settings.image, vm_settings.images_dir).folder
    before = set(machines(os.getpid()))
    tier = VmTier(replace(vm_settings, ready=0, most=4))
    assert (await tier.evaluate(JOB)).status == "ok"
    files = list(files_below(image))
    gc.collect()
    descriptors, memory = len(os.listdir("/proc/self/fd")), private_bytes(os.getpid())
    seen = set()
    for _ in range(CLONES // 4):
        jobs = [asyncio.create_task(tier.evaluate(JOB)) for _ in range(4)]
        await asyncio.wait(jobs, return_when=asyncio.FIRST_COMPLETED)
        seen |= set(machines(os.getpid())) - before
        assert [(await job).status for job in jobs] == ["ok"] * 4
    await asyncio.to_thread(soon, lambda: not tier.lobby._dying)
    assert seen
    assert tier.lobby.stats().made == CLONES + 1
    assert not any(map(is_alive, seen))
    assert set(machines(os.getpid())) - before == set()
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) <= descriptors
    assert private_bytes(os.getpid()) < memory + 30 * MIB
    assert list(files_below(image)) == files
    assert os.listdir(tmp_path) == []
    await tier.aclose()


SERVICE = """
import sys, threading, wasmeval
from wasmeval.vm import VmSettings
with wasmeval.Evaluator(workers=1, vm=VmSettings(ready=1, accelerator="tcg")) as evaluator:
    evaluator.evaluate("echo running; sleep 1000", language="bash",
                       on_output=lambda stream, text: print(text, flush=True))
"""


def test_a_service_that_is_killed_leaves_nothing(vm_settings: VmSettings, tmp_path: Path) -> None:
    image = images.find(vm_settings.image, vm_settings.images_dir).folder
    files = list(files_below(image))
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    service = subprocess.Popen(
        [sys.executable, "-c", SERVICE], env=environment, stdout=subprocess.PIPE, text=True
    )
    try:
        assert service.stdout is not None
        assert service.stdout.readline() == "running\n"
        assert soon(lambda: list(machines(service.pid).values()).count("qemu-system-x86") >= 2)
        left = machines(service.pid)
    finally:
        service.kill()
        service.communicate()
    assert len(left) >= 4
    assert gone(left)
    assert list(files_below(image)) == files
    # Of Wasm's worker there may be something that the next one sweeps; of machines nothing.
    assert [path for path in files_below(tmp_path) if "vm" in path or "memory" in path] == []


async def test_a_machine_that_is_killed_costs_its_job_alone(vm_settings: VmSettings) -> None:
    tier = VmTier(replace(vm_settings, ready=1, most=2))
    running, agent = await begun(tier, SLEEP)
    number = agent.machine.number
    os.kill(number, signal.SIGKILL)
    result = await asyncio.wait_for(running, 20)
    assert result.status == "crashed"
    assert result.error is not None
    assert result.error.type == "Crashed"
    assert await asyncio.to_thread(gone, {number})
    assert (await tier.evaluate(JOB)).status == "ok"
    await tier.aclose()


async def test_a_ready_machine_that_is_killed_is_replaced(vm_settings: VmSettings) -> None:
    tier = VmTier(replace(vm_settings, ready=1, most=1))
    await tier.start()
    async with asyncio.timeout(60):
        while not tier.lobby.stats().ready:
            await asyncio.sleep(0.01)
        (agent,) = tier.lobby._ready
        os.kill(agent.machine.number, signal.SIGKILL)
        while not agent.is_lost:
            await asyncio.sleep(0.01)
    assert (await tier.evaluate(JOB)).status == "ok"
    await tier.aclose()


async def test_a_machine_that_hangs_is_ended_by_the_deadline(vm_settings: VmSettings) -> None:
    tier = VmTier(replace(vm_settings, ready=0, most=1))
    limits = replace(VM_DEFAULTS, deadline_seconds=1.5)
    running, agent = await begun(tier, replace(SLEEP, limits=limits))
    number = agent.machine.number
    os.kill(number, signal.SIGSTOP)
    result = await asyncio.wait_for(running, 30)
    assert result.status == "deadline_exceeded"
    assert await asyncio.to_thread(gone, {number})
    assert (await tier.evaluate(JOB)).status == "ok"
    await tier.aclose()
    assert not machines(os.getpid()).keys() & {number}
