"""A real `wasmeval serve` in a process of its own, on a free port, for tests."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

_READY = re.compile(r"listening on (\S+)")
_READY_SECONDS = 120


@dataclass(slots=True)
class Service:
    """A service that runs: where it listens, its process, and what it said so far."""

    target: str
    process: subprocess.Popen[str]
    log: list[str] = field(default_factory=list)


@contextmanager
def running_service(*arguments: str) -> Iterator[Service]:
    """Start `wasmeval serve` with `arguments`, wait until it listens, and stop it in the end."""
    command = [
        sys.executable,
        "-m",
        "wasmeval",
        "serve",
        "--listen",
        "127.0.0.1:0",
        "--workers",
        "1",
        *arguments,
    ]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, text=True
    )
    service = Service("", process)
    ready = threading.Event()

    def read() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            service.log.append(line)
            if not service.target and (match := _READY.search(line)):
                service.target = match[1]
                ready.set()
        ready.set()

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    try:
        ready.wait(_READY_SECONDS)
        assert service.target, "".join(service.log) or "nothing was said"
        yield service
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        reader.join(10)
