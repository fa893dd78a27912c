"""Doctor: what works on this machine, check by check."""

from __future__ import annotations

import hashlib
import platform
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from wasmeval.errors import SetupError, WasmevalError
from wasmeval.limits import Limits
from wasmeval.model import Status
from wasmeval.runtimes import Catalogue, Runtime

if TYPE_CHECKING:
    from wasmeval.embedded import Evaluator

_OLDEST_PYTHON, _TOO_NEW_PYTHON = (3, 11), (3, 14)


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at. Where `needed` is False, a failure is only worth knowing."""

    name: str
    ok: bool
    detail: str
    needed: bool = True


def examine(before_evaluating: Callable[[], None] = lambda: None) -> Iterator[Check]:
    """Every check, in the order in which one builds on another; never raises for what it finds.

    Ends with a snippet in each runtime, which compiles an image that is not yet in the cache; `before_evaluating` may
    do so first, and show it.
    """
    yield _check_python()
    yield _guarded("wasmtime", _check_wasmtime)
    try:
        catalogue = Catalogue.installed()
    except SetupError as error:
        yield Check("images", False, str(error))
        return
    for runtime in catalogue:
        yield _guarded(f"image {runtime.name}", partial(_check_image, runtime))
    yield _guarded("cache", _check_cache)
    for runtime in catalogue:
        yield _guarded(f"compiled {runtime.name}", partial(_check_compiled, runtime))
    yield from _check_vm()
    before_evaluating()
    yield from _check_evaluations(catalogue)


def _guarded(name: str, check: Callable[[], Check]) -> Check:
    """What `check` finds, or that it failed and why."""
    try:
        return check()
    except (WasmevalError, OSError, ImportError) as error:
        return Check(name, False, str(error) or repr(error))


def _check_python() -> Check:
    version = platform.python_version()
    if not _OLDEST_PYTHON <= sys.version_info < _TOO_NEW_PYTHON:
        return Check("python", False, f"{version}; 3.11, 3.12 or 3.13 is needed")
    return Check("python", True, f"{version} on {platform.machine()}, Linux {platform.release()}")


def _check_wasmtime() -> Check:
    import wasmeval.wasm.capi  # noqa: F401 (loads the library)
    from wasmeval.wasm import installation

    installation.check_version()
    return Check(
        "wasmtime",
        True,
        f"{installation.VERSION}, at or above the floor {'.'.join(map(str, installation.FLOOR))}",
    )


def _check_vm() -> Iterator[Check]:
    """The VM tier, which everything else works without: its programs, its default image, and what it would run on."""
    from wasmeval.vm import images, kvm, qemu

    try:
        yield Check("vm qemu", True, qemu.version(), needed=False)
    except SetupError as error:
        yield Check("vm qemu", False, str(error), needed=False)
    jail = shutil.which("bwrap")
    detail = jail or "not installed; apt-get install bubblewrap"
    yield Check("vm bubblewrap", jail is not None, detail, needed=False)
    try:
        image = images.find()
    except WasmevalError as error:
        yield Check("vm image", False, str(error), needed=False)
        return
    languages = ", ".join(f"{name} {version}" for name, version in image.manifest.languages.items())
    detail = f"{image.name}: {languages}; {image.manifest.source}, built {image.manifest.created}"
    yield Check("vm image", True, detail, needed=False)
    answer = kvm.probe(image)
    detail = (
        f"KVM: {answer.reason}"
        if answer.works
        else f"software emulation, which computes some 20 times slower; no KVM: {answer.reason}"
    )
    yield Check("vm accelerator", answer.works, detail, needed=False)


def _check_image(runtime: Runtime) -> Check:
    from wasmeval.wasm.cache import unpack

    name = f"image {runtime.name}"
    digest = hashlib.sha256(unpack(runtime.image)).hexdigest()
    if runtime.library:
        unpack(runtime.library)
    return Check(name, True, f"{runtime.interpreter}, sha256 {digest[:12]} as its manifest says")


def _check_cache() -> Check:
    from wasmeval.wasm.cache import Cache

    cache = Cache()
    if not cache.writable:
        return Check("cache", False, f"{cache.folder} cannot be written: nothing new is kept", needed=False)
    return Check("cache", True, f"{cache.folder}, writable by this user only")


def _check_compiled(runtime: Runtime) -> Check:
    from wasmeval.wasm.cache import Cache

    found = Cache().find(runtime)
    detail = (
        f"{found.module.stat().st_size / 1e6:.0f} MB in the cache"
        if found
        else "not yet; the first use does it"
    )
    return Check(f"compiled {runtime.name}", found is not None, detail, needed=False)


def _check_evaluations(catalogue: Catalogue) -> Iterator[Check]:
    """The jail as a worker found it, and `1 + 1` in every runtime.

    Where no worker starts, the jail is what this kernel should have for one.
    """
    from wasmeval.worker import jail

    started = False
    try:
        from wasmeval.embedded import Evaluator

        with Evaluator(workers=1) as evaluator:
            started = True
            for name, ok, detail in evaluator.jail():
                yield Check(f"jail {name}", ok, detail, needed=False)
            for runtime in catalogue:
                yield _guarded(f"evaluate {runtime.name}", partial(_check_evaluation, runtime, evaluator))
    except (WasmevalError, OSError, ImportError) as error:
        if not started:
            for layer in jail.report():
                yield Check(f"jail {layer.name}", layer.ok, layer.detail, needed=False)
        yield Check("evaluate", False, str(error))


def _check_evaluation(runtime: Runtime, evaluator: Evaluator) -> Check:
    """`1 + 1`: the first time to warm up, the second for the time."""
    name = f"evaluate {runtime.name}"
    limits = Limits(deadline_seconds=5.0)
    for _ in range(2):
        started = time.perf_counter()
        result = evaluator.evaluate("1 + 1", language=runtime.languages[0], limits=limits)
        milliseconds = 1e3 * (time.perf_counter() - started)
        if result.status is not Status.OK or result.value != 2:
            message = result.error.message if result.error else repr(result.value)
            return Check(name, False, f"1 + 1 ended {result.status.value}: {message}")
    return Check(name, True, f"1 + 1 is 2, in {milliseconds:.2f} ms")
