"""VmTier: what evaluates jobs in virtual machines: their image, their golden machine, the clones, the jobs in them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wasmeval.errors import ResourceExhausted, SetupError, Unavailable
from wasmeval.limits import MIB
from wasmeval.model import Job, Result, RuntimeInfo
from wasmeval.vm import golden as golden_machine
from wasmeval.vm import qemu
from wasmeval.vm.golden import Golden, Source
from wasmeval.vm.agent import Agent
from wasmeval.vm.lobby import Lobby, Stats
from wasmeval.vm.task import Partner, Task

logger = logging.getLogger(__name__)

KERNEL_BYTES = 160 * MIB
"""Of a machine's memory that is not for its job: the kernel, the agent, and interpreters that wait."""


@dataclass(frozen=True, slots=True)
class VmSettings:
    """How virtual machines are had. `ready` of them wait for a job, at most `most` are there at a time, and `queue_size`
    jobs wait for one. `accelerator` is "kvm", "tcg" (software emulation), or "auto" for the first that works."""

    image: str = "default"
    images_dir: Path | None = None
    ready: int = 2
    most: int = 16
    queue_size: int = 256
    accelerator: str = "auto"
    require_jail: bool = False


class VmTier:
    """Evaluates jobs of the tier "vm", each in a machine of its own. For one event loop; close it."""

    def __init__(self, golden: Golden, settings: VmSettings) -> None:
        self._golden = golden
        self._lobby = Lobby(golden.clone, ready=settings.ready, most=settings.most, queue_size=settings.queue_size)
        self._running: set[asyncio.Task[Any]] = set()
        self._refuses = False

    @property
    def detail(self) -> str:
        how = "KVM" if self._golden.hardware.accelerator == "kvm" else "software emulation (TCG)"
        return f"qemu {qemu.version()}, {how}"

    async def start(self) -> None:
        self._lobby.open()

    def stats(self) -> Stats:
        return self._lobby.stats()

    async def evaluate(self, job: Job, attend: Callable[[Task], Partner] | None = None) -> Result:
        agent = await self._lobby.take()
        try:
            task = Task(job, agent, self.detail)
            if attend is not None:
                task.partner = attend(task)
            return await task.run()
        finally:
            self._lobby.leave(agent)

    async def aclose(self) -> None:
        await self._lobby.close()
        self._golden.close()
