"""Private memory of one live instance after `1+1`."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

from bench import peers
from bench.companion import Companion
from bench.machine import private_dirty_bytes
from bench.report import Figure, Row, number
from bench.rows.names import RUNTIMES
from bench.settings import Settings

_TARGETS = {"python": 0.6e6, "javascript": 0.15e6}
_INSTANCES = 200


def rows(settings: Settings) -> Iterator[Row]:
    """For each runtime: what two hundred live instances add to a process, divided."""
    count = settings.of(_INSTANCES, 50)
    beside = {"python": _python_process(), "javascript": _node_context(count)}
    for runtime, name in RUNTIMES.items():
        with Companion.module("bare") as companion:
            used = companion.ask(runtime=runtime, code="1+1", count=count, hold=True)["bytes"]
        label, peer = beside[runtime]
        figures = [Figure("instance_private_memory", "MB", used / 1e6, {"runtime": runtime, "n": count})]
        if peer is not None:
            figures.append(Figure("instance_private_memory", "MB", peer / 1e6, {"peer": label}))
        yield Row(
            f"private memory of a live instance after `1+1`, {name}",
            f"**{number(used / 1e6)} MB**",
            label if peer is None else f"{label} {number(peer / 1e6)} MB",
            f"<= {_TARGETS[runtime] / 1e6:g} MB",
            used <= _TARGETS[runtime],
            figures,
        )


def _python_process() -> tuple[str, float | None]:
    command = [sys.executable, "-I", "-c", "import sys; 1+1; print(flush=True); sys.stdin.read()"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout
        process.stdout.readline()
        return "a `python -I -c` process", private_dirty_bytes(process.pid)


def _node_context(count: int) -> tuple[str, float | None]:
    try:
        companion = peers.node()
    except peers.NotInstalled as reason:
        return f"node: not installed: {reason}", None
    with companion:
        companion.ask(code="1+1", count=5, keep=True)
        before = private_dirty_bytes(companion.pid)
        companion.ask(code="1+1", count=count, keep=True)
        return "a context of node's vm", (private_dirty_bytes(companion.pid) - before) / count
