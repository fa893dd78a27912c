"""Installation: the Wasmtime that is installed, as all may know it who never load its library.

The pool's side of a worker only passes on where it is; see capi.py for what is inside.
"""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec
from pathlib import Path

from wasmeval.errors import SetupError

FLOOR = (50, 0, 1)
"""The oldest Wasmtime that is safe here. Below it: GHSA-6wgr-89rj-399p, CVE-2026-27204, RUSTSEC-2026-0268 and
-0269."""
BEYOND = (51,)
"""The first version whose C layouts were not checked against capi.py."""

CODE_SETTINGS = "fuel,cow,speed"
"""Names what compiled code depends on beside the image and Wasmtime itself; part of the cache's key."""


def _installation() -> tuple[Path, str]:
    """The folder of the `wasmtime` package and its version, without importing it."""
    spec = find_spec("wasmtime")
    if spec is None or spec.origin is None:
        raise SetupError("the package 'wasmtime' is not installed; install wasmeval with its dependencies")
    package = Path(spec.origin).parent
    # importlib.metadata would take longer than all the rest of a worker's imports.
    infos = sorted(package.parent.glob("wasmtime-*.dist-info"))
    version = infos[-1].name.removeprefix("wasmtime-").removesuffix(".dist-info") if infos else ""
    return package, version


PACKAGE, VERSION = _installation()
# As `platform.machine()` says it, which takes longer to import than all of this.
MACHINE = {"AMD64": "x86_64", "arm64": "aarch64"}.get(os.uname().machine, os.uname().machine)


def check_version() -> None:
    """Raise SetupError unless Wasmtime and Python are of versions that go together here."""
    if sys.version_info >= (3, 14):
        raise SetupError(
            "Python 3.14 takes a host function on a guest's fiber for a stack overflow; use Python 3.11 to 3.13"
        )
    try:
        version = tuple(int(part) for part in VERSION.split("."))
    except ValueError:
        version = ()
    if not FLOOR <= version < BEYOND:
        floor, beyond = ".".join(map(str, FLOOR)), ".".join(map(str, BEYOND))
        raise SetupError(
            f"wasmtime {VERSION or '(unknown)'} is not in [{floor}, {beyond}); install wasmtime=={floor}"
        )
