"""Virtual machines: a clone until it is ready, jobs through the API while others wait, sixteen at once, memory."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from bench import machine
from bench.measure import Samples, timed
from bench.report import Figure, Row, number, times
from bench.serving import listening
from bench.settings import Settings, say
from wasmeval import Client
from wasmeval.limits import VM_DEFAULTS
from wasmeval.model import Job
from wasmeval.vm import VmSettings, VmTier

_READY = 2
_SETTLE_SECONDS = 4.0
"""For the clones that wait to be made again, and to have rehearsed: nothing of that falls into the next call."""
_AT_ONCE = 16
_NUMPY = "import numpy as np\nfloat(np.linalg.norm(np.arange(10_000.0).reshape(100, 100) @ np.ones(100)))"
_COMMAND = ["python3", "-c", "print(1)"]


def rows(settings: Settings) -> Iterator[Row]:
    """All of them, or a word why there are none."""
    tier = VmTier(VmSettings(ready=0))
    if tier.missing:
        say(f"vm: left out: {tier.missing}")
        return
    yield from asyncio.run(_clones(settings))
    with _serving() as target, Client(target) as client:
        yield from _calls(client, settings)
        yield _at_once(client)


async def _clones(settings: Settings) -> list[Row]:
    """Below the API: clones made one after the other, and clones that wait."""
    cold, ready, memory = Samples(), Samples(), Samples()
    tier = VmTier(VmSettings(ready=0))
    await tier.start()
    lobby = tier.lobby
    try:
        for _ in range(settings.of(12, 3)):
            start = time.perf_counter()
            agent = await lobby.take()
            cold.seconds.append(time.perf_counter() - start)
            lobby.leave(agent)
    finally:
        await tier.aclose()
    tier = VmTier(VmSettings(ready=_READY))
    await tier.start()
    try:
        for _ in range(settings.of(6, 2)):
            await asyncio.sleep(_SETTLE_SECONDS)
            start = time.perf_counter()
            agent = await tier.lobby.take()
            ready.seconds.append(time.perf_counter() - start)
            tier.lobby.leave(agent)
        for _ in range(settings.of(4, 1)):
            await asyncio.sleep(_SETTLE_SECONDS)
            memory.seconds.append(await _memory(tier))
    finally:
        await tier.aclose()
    detail = tier.detail
    return [
        Row(
            f"VM: a clone, until its agent answers, p50 / p99 ({detail})",
            f"**{number(cold.p50)} / {number(cold.p99)} s**",
            "",
            "<= 0.35 s",
            cold.p50 <= 0.35,
            times("vm_clone", cold, "s"),
        ),
        Row(
            "VM: a clone from those that wait ready, p50 / p99",
            f"**{number(1e3 * ready.p50)} / {number(1e3 * ready.p99)} ms**",
            "",
            "<= 0.05 s",
            ready.p50 <= 0.05,
            times("vm_ready", ready, "ms"),
        ),
        Row(
            "VM: memory of a running clone beyond what clones share, at the end of a NumPy job, p50",
            f"**{number(memory.p50)} MB**",
            "",
            "<= 80 MB",
            memory.p50 <= 80,
            [Figure("vm_memory", "MB", memory.p50, {"n": memory.n})],
        ),
    ]


async def _memory(tier: VmTier) -> float:
    """MB that a machine shares with nobody when its job is done."""
    job = Job("vm-python", _NUMPY.encode(), b"", VM_DEFAULTS, tier="vm")
    agent = await tier.lobby.take()
    try:
        result = await tier.run(job, agent)
        result.raise_for_status()
        return agent.machine.own_bytes() / 1e6
    finally:
        tier.lobby.leave(agent)


def _calls(client: Client, settings: Settings) -> Iterator[Row]:
    """One call after the other, each when clones wait ready again."""
    calls: dict[str, tuple[str, float, Callable[[], object]]] = {
        "command": (
            "`python3 -c 'print(1)'` by `run_command`",
            0.6,
            lambda: client.run_command(_COMMAND).raise_for_status(),
        ),
        "print": (
            "`print(1)` in the warmed interpreter",
            0.3,
            lambda: client.evaluate("print(1)", tier="vm").raise_for_status(),
        ),
        "numpy": (
            "a NumPy job in the warmed interpreter",
            0.4,
            lambda: client.evaluate(_NUMPY, tier="vm").raise_for_status(),
        ),
        "javascript": (
            "`1 + 1` in JavaScript, node warmed",
            0.0,
            lambda: client.evaluate("1 + 1", language="javascript", tier="vm").raise_for_status(),
        ),
        "bash": (
            "`echo 1` in bash",
            0.0,
            lambda: client.evaluate("echo 1", language="bash").raise_for_status(),
        ),
    }
    native = Samples(
        list(timed(lambda: subprocess.run([sys.executable, "-I", "-c", "print(1)"], capture_output=True))(10))
    )
    samples = {name: Samples() for name in calls}
    for _ in range(settings.of(8, 2)):
        for name, (_, _, call) in calls.items():
            time.sleep(_SETTLE_SECONDS)
            samples[name].seconds += timed(call)(1)
    for name, (what, most, _) in calls.items():
        taken = samples[name]
        yield Row(
            f"VM: {what}, through `Client`, clones ready, p50 / p99",
            f"**{number(taken.p50)} / {number(taken.p99)} s**",
            f"a `python -I -c` process here {number(1e3 * native.p50)} ms",
            f"<= {most:g} s" if most else "",
            taken.p50 <= most if most else None,
            times("vm_call", taken, "s", job=name),
        )


def _at_once(client: Client) -> Row:
    time.sleep(_SETTLE_SECONDS)
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        with ThreadPoolExecutor(_AT_ONCE) as threads:
            for result in threads.map(lambda _: client.evaluate(_NUMPY, tier="vm"), range(_AT_ONCE)):
                result.raise_for_status()
        seconds.append(time.perf_counter() - start)
        time.sleep(2 * _SETTLE_SECONDS)
    taken = Samples(seconds)
    return Row(
        f"VM: {_AT_ONCE} NumPy jobs at once, until all are done, {_READY} clones ready, p50",
        f"**{number(taken.p50)} s**",
        "",
        "<= 10 s",
        taken.p50 <= 10,
        [Figure("vm_at_once", "s", taken.p50, {"jobs": _AT_ONCE, "n": taken.n})],
    )


@contextmanager
def _serving() -> Iterator[str]:
    """A service with machines; its target."""
    process = subprocess.Popen(
        [sys.executable, "-m", "wasmeval", "serve", "--listen", "127.0.0.1:0", "--workers", "1"],
        cwd=machine.ROOT,
        env={**os.environ, "WASMEVAL_VM_ENABLED": "true", "WASMEVAL_VM_READY": str(_READY)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        yield listening(process)
    finally:
        process.terminate()
        process.wait(30)
