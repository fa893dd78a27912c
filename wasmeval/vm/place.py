"""Place: the machine of a session, which runs one step after another, and stands still between them."""

from __future__ import annotations

import asyncio
import contextlib

from wasmeval.model import Result
from wasmeval.vm.agent import Agent
from wasmeval.vm.task import Task


class Place:
    """One session's. Its steps are run one at a time; whoever runs them sees to that.

    Between them nothing runs in it: what a step left behind would spend CPU time that nobody counts.
    """

    def __init__(self, agent: Agent) -> None:
        self.agent = agent
        self._is_lost = False
        agent.machine.stand_still()

    @property
    def is_lost(self) -> bool:
        """Whether no step can follow: its interpreter or its machine is gone."""
        return self._is_lost or self.agent.is_lost

    async def run(self, task: Task) -> Result:
        """The step's Result. Cancelled, this stops the step, and returns when it has ended."""
        self.agent.machine.go_on()
        running = asyncio.ensure_future(task.run())
        try:
            return await asyncio.shield(running)
        except asyncio.CancelledError:
            task.stop()
            # Whoever is cancelled twice waits as well: the next step is not to hear the end of this one.
            while not running.done():
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.wait({running})
            raise
        finally:
            if task.can_go_on:
                self.agent.machine.stand_still()
            else:
                self._is_lost = True
                self.agent.close()
