"""What all tests share: a clean environment, and the command line as a process."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

Command = Callable[..., "subprocess.CompletedProcess[bytes]"]


@pytest.fixture(autouse=True, scope="session")
def _quiet_environment() -> None:
    """No telemetry or configuration of the machine at hand reaches a test."""
    for name in list(os.environ):
        if name.startswith("OTEL_") or (name.startswith("WASMEVAL_") and name not in _KEPT):
            del os.environ[name]
    # A service's own store is a folder of its user's.
    os.environ["WASMEVAL_SESSIONS_STORE"] = "memory:"
    # VMs that no test asks for would only take its time.
    os.environ["WASMEVAL_VM_ENABLED"] = "false"


_KEPT = {
    "WASMEVAL_CACHE_DIR",
    "WASMEVAL_TEST_NUMPY",
    "WASMEVAL_TEST_CORPUS",
    "WASMEVAL_TEST_VM",
    "WASMEVAL_VM_IMAGES_DIR",
}


@pytest.fixture(scope="session")
def wasmeval() -> Command:
    """Run `wasmeval ARGUMENTS...` to its end in a process of its own."""

    def run(*arguments: str, stdin: bytes = b"", **options: Any) -> subprocess.CompletedProcess[bytes]:
        command = [sys.executable, "-m", "wasmeval", *arguments]
        return subprocess.run(command, input=stdin, capture_output=True, timeout=120, check=False, **options)

    return run
