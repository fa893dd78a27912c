"""VmTier: what evaluates jobs in virtual machines: an image, its golden machine, the clones, the jobs in them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shutil
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from wasmeval.errors import ResourceExhausted, SetupError, Unavailable
from wasmeval.limits import MIB
from wasmeval.model import Job, Result, RuntimeInfo
from wasmeval.vm import jail, qemu
from wasmeval.vm.images import VmImage, find
from wasmeval.vm.left import Room
from wasmeval.vm.place import Place
from wasmeval.vm.settings import VmSettings
from wasmeval.vm.task import Partner, Task

if TYPE_CHECKING:
    from wasmeval.vm.agent import Agent
    from wasmeval.vm.golden import Golden
    from wasmeval.vm.lobby import Lobby, Stats

logger = logging.getLogger(__name__)

RESERVED_BYTES = 160 * MIB
"""Of a machine's memory that no job gets: the kernel's, the agent's, and that of interpreters that wait in vain."""
LEAST_BYTES = 64 * MIB
_ROOM_BYTES = 32 * MIB
"""That a snippet has at the least, beside its interpreter."""
_MOST_LEFT_BYTES = 1 << 30
"""Of files that jobs have left, until their Results are made: what the service's conversations may hold as well."""
_INTERPRETERS = {"python": "CPython", "javascript": "Node.js", "bash": "GNU bash"}
_RETRY_SECONDS = 1.0
_DRAINING = "the virtual machines are shutting down; nothing ran"


class VmTier:
    """Evaluates jobs of the tier "vm", each in a machine that was never used before. For one event loop.

    Making one looks what there is and starts nothing; `start` before use, `aclose` after.
    """

    def __init__(self, settings: VmSettings | None = None) -> None:
        self._settings = settings or VmSettings()
        self._image: VmImage | None = None
        self._accelerator = ""
        self._golden: Golden | None = None
        self._lobby: Lobby | None = None
        self._tasks: set[Task] = set()
        self._room = Room(_MOST_LEFT_BYTES)
        self._accepted = 0
        self._places: set[Place] = set()
        self._opening = 0
        """Sessions that wait for their machine."""
        self._idle = asyncio.Event()
        self._drains = self._refuses = False
        self._starting: asyncio.Task[None] | None = None
        self.missing = self._look()
        """One sentence: what there is not, and how to get it. Empty when all is there."""

    @property
    def detail(self) -> str:
        """For people: which machine monitor, and how its machines compute."""
        how = {"kvm": "KVM", "tcg": "software emulation (TCG)"}.get(self._accelerator, "not started")
        return f"qemu {qemu.version()}, {how}"

    @property
    def runtimes(self) -> tuple[RuntimeInfo, ...]:
        """What it runs: the interpreters of its image, bash, and any command."""
        if self._image is None:
            return ()
        if self._golden is not None:
            known = [(name, each.version, each.memory_bytes) for name, each in self._golden.languages.items()]
        else:
            known = [(name, version, 0) for name, version in self._image.manifest.languages.items()]
        infos = [self._runtime(f"vm-{name}", version, memory, (name,)) for name, version, memory in known]
        return (*infos, self._runtime("vm-command", "", 0, ()))

    def _runtime(self, name: str, version: str, memory_bytes: int, languages: tuple[str, ...]) -> RuntimeInfo:
        assert self._image is not None
        manifest = self._image.manifest
        interpreter = f"{_INTERPRETERS[languages[0]]} {version}" if languages else manifest.source
        least = max(LEAST_BYTES, memory_bytes + _ROOM_BYTES)
        return RuntimeInfo(
            name, version, interpreter, languages, manifest.root_sha256, memory_bytes, least, "vm"
        )

    @property
    def lobby(self) -> Lobby:
        """Where its machines wait. Only after `start`."""
        assert self._lobby is not None
        return self._lobby

    def stats(self) -> Stats | None:
        """Counts of now; None before `start`."""
        return self._lobby.stats() if self._lobby else None

    async def start(self) -> None:
        """Load the golden machine, or boot it when it was not kept; begin to make clones ready. Raises SetupError."""
        if self._lobby is None:
            if self._starting is None:
                self._starting = asyncio.create_task(self._start())
                self._starting.add_done_callback(self._started)
            # Whoever gives up waiting leaves it to the others.
            await asyncio.shield(self._starting)

    async def _start(self) -> None:
        from wasmeval.vm import golden
        from wasmeval.vm.lobby import Lobby

        if self.missing or self._image is None:
            raise SetupError(self.missing)
        settings = self._settings
        lacking = [layer for layer in jail.report() if not layer.ok]
        if settings.require_jail and lacking:
            raise SetupError(f"the jail of virtual machines is not whole: {lacking[0].detail}")
        self._accelerator = await asyncio.to_thread(self._choose, self._image)
        try:
            made = await asyncio.to_thread(
                golden.golden_of,
                self._image,
                self._accelerator,
                lambda stage: logger.info("the virtual machine of image %s: %s", settings.image, stage),
                lambda: self._refuses,
            )
        except (OSError, SetupError) as error:
            if self._refuses:
                raise Unavailable(_DRAINING) from None
            if isinstance(error, SetupError):
                raise
            raise SetupError(
                f"the virtual machine of image {settings.image} cannot be had: {error}"
            ) from error
        if self._refuses:
            made.close()
            raise Unavailable(_DRAINING)
        self._golden = made
        self._lobby = Lobby(
            made.clone, ready=settings.ready, most=settings.most, queue_size=settings.queue_size
        )
        self._lobby.open()

    def _started(self, starting: asyncio.Task[None]) -> None:
        # Where it failed, the next one who asks tries again. Nobody may be left to see how it failed.
        self._starting = None
        if not starting.cancelled():
            starting.exception()

    async def evaluate(self, job: Job, attend: Callable[[Task], Partner] | None = None) -> Result:
        """Run `job` in a machine of its own. Cancelling the awaiting task ends the machine.

        `attend` is given the way into it, and gives whom the guest's calls go to. A job with a session runs in its
        place; one at a time, and cancelled it is stopped there. Raises ResourceExhausted when too many wait,
        Unavailable when draining or closed.
        """
        if self._drains:
            raise Unavailable(_DRAINING)
        self._accepted += 1
        try:
            await self.start()
            if self._refuses:
                raise Unavailable(_DRAINING)
            if job.session is not None:
                return await self.run(job, job.session.agent, attend)
            if not job.command:
                self._check_language(job.runtime)
            lobby = self.lobby
            agent = await lobby.take()
            try:
                return await self.run(job, agent, attend)
            finally:
                lobby.leave(agent)
        finally:
            self._accepted -= 1
            self._idle.set()

    async def run(self, job: Job, agent: Agent, attend: Callable[[Task], Partner] | None = None) -> Result:
        """Run `job` in the machine of `agent`, which was taken from the lobby and stays the caller's."""
        place: Place | None = job.session
        task = Task(self._fitted(job), agent, self.detail, room=self._room, is_step=place is not None)
        if attend is not None:
            task.attended(attend(task))
        self._tasks.add(task)
        try:
            return await (task.run() if place is None else place.run(task))
        finally:
            self._tasks.discard(task)
            self._idle.set()

    async def open_session(self, runtime: str) -> Place:
        """A machine for the steps of a session, until it is closed; what runs them is `runtime`.

        Raises SetupError when there is none, ResourceExhausted when sessions have as many as they may, Unavailable when
        draining or closed.
        """
        if self._drains:
            raise Unavailable(_DRAINING)
        await self.start()
        assert self._lobby is not None
        self._check_language(runtime)
        most = min(self._settings.most_sessions, self._settings.most - 1)
        if len(self._places) + self._opening >= most:
            raise ResourceExhausted(
                f"{most} sessions are in virtual machines, as many as may be; close one, or try again",
                _RETRY_SECONDS,
            )
        self._opening += 1
        try:
            place = Place(await self._lobby.take())
        finally:
            self._opening -= 1
        self._places.add(place)
        return place

    def close_session(self, place: Place) -> None:
        """Its machine is ended. Safe to call twice."""
        if place in self._places:
            self._places.discard(place)
            if self._lobby is not None:
                self._lobby.leave(place.agent)

    async def drain(self, grace_seconds: float) -> None:
        """Accept nothing more; wait for what runs and waits, at most `grace_seconds`; then end what runs as
        `cancelled`, and what waits as Unavailable."""
        self._drains = True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace_seconds):
                while self._tasks or self._accepted:
                    self._idle.clear()
                    await self._idle.wait()
        self._stop_all()

    async def aclose(self) -> None:
        """End every machine. Safe to call twice."""
        self._drains = True
        self._stop_all()
        if self._starting is not None:
            # A machine that boots is given up, and must not outlive the loop.
            await asyncio.gather(self._starting, return_exceptions=True)
        lobby, golden = self._lobby, self._golden
        self._lobby = self._golden = None
        if lobby is not None:
            await lobby.close()
        if golden is not None:
            golden.close()

    def _stop_all(self) -> None:
        self._refuses = True
        if self._lobby is not None:
            self._lobby.refuse()
        for task in tuple(self._tasks):
            task.stop("the service was shutting down", at_once=True)

    # --- inside --------------------------------------------------------------------------------------------------

    def _look(self) -> str:
        try:
            qemu.version()
        except SetupError as error:
            return str(error)
        if shutil.which("bwrap") is None:
            return "bwrap is not installed; apt-get install bubblewrap"
        try:
            self._image = find(self._settings.image, self._settings.images_dir)
        except SetupError as error:
            return str(error)
        return ""

    def _choose(self, image: VmImage) -> str:
        """The accelerator that is used. Raises SetupError for one that was asked for and does not work."""
        wanted = self._settings.accelerator
        if wanted == "tcg":
            return wanted
        from wasmeval.vm import kvm

        answer = kvm.probe(image)
        if answer.works:
            return "kvm"
        if wanted == "kvm":
            raise SetupError(
                f"vm.accelerator is kvm, and KVM does not work here: {answer.reason}; set it to auto"
            )
        # Not louder: a service says it when it starts, and each Result in its `tier_detail`.
        logger.info("virtual machines are emulated in software, some twenty times slower: %s", answer.reason)
        return "tcg"

    def _check_language(self, runtime: str) -> None:
        """Raises SetupError when the machines have no interpreter for it."""
        assert self._golden is not None
        language = runtime.removeprefix("vm-")
        if language not in self._golden.languages:
            known = ", ".join(self._golden.languages) or "none"
            raise SetupError(
                f"the VM image {self._settings.image!r} has no interpreter of {language}; it has: {known}"
            )

    def _fitted(self, job: Job) -> Job:
        """The job with no limit above what a machine has."""
        assert self._golden is not None
        hardware, limits = self._golden.hardware, job.limits
        fitted = replace(
            limits,
            memory_bytes=min(limits.memory_bytes or 0, hardware.memory_bytes - RESERVED_BYTES),
            workspace_bytes=min(limits.workspace_bytes or 0, hardware.disk_bytes),
        )
        return job if fitted == limits else replace(job, limits=fitted)
