"""The bare instance loop: what a worker does for an evaluation, and nothing around it, in one plain process.

Also holds live instances, for whoever wants to weigh them.
"""

from __future__ import annotations

import gc
import os
import time
from typing import Any

from bench.companions import lines
from bench.machine import private_dirty_bytes
from wasmeval.limits import DEFAULTS
from wasmeval.pool import PoolSettings
from wasmeval.runtimes import Catalogue
from wasmeval.wasm.cache import Cache
from wasmeval.wasm.instance import Image, Instance
from wasmeval.worker.main import load


def images() -> dict[str, Image]:
    """Every installed runtime, loaded as a worker loads it."""
    compiled = Cache().prepare(Catalogue.installed())
    entries = [
        {
            "folder": str(each.runtime.image.path.parent),
            "module": str(each.module),
            "library": str(each.library) if each.library else "",
        }
        for each in compiled
    ]
    settings = PoolSettings()
    return load(
        {
            "runtimes": entries,
            "concurrency": settings.concurrency,
            "sessions": 0,
            "ready": settings.ready,
            "slice_seconds": settings.slice_seconds,
            "max_memory_bytes": settings.max_memory_bytes,
        }
    )


def evaluate(instance: Instance, code: bytes) -> bytes:
    """The value of `code`, under the limits that apply by default."""
    instance.start(code, b"", DEFAULTS)
    while not instance.poll():
        pass
    return instance.reply().value


class Loop:
    """The images of one process, and the instances it holds."""

    def __init__(self) -> None:
        self._images = images()
        self._held: list[Instance] = []

    def answer(self, question: dict[str, Any]) -> dict[str, Any]:
        """`count` instances of `runtime`, each evaluating `code` and dropped; or held, and weighed."""
        image, code, count = self._images[question["runtime"]], question["code"].encode(), question["count"]
        if question.get("hold"):
            return {"bytes": self._hold(image, code, count)}
        begin = time.perf_counter()
        for _ in range(count):
            instance = Instance(image)
            evaluate(instance, code)
            instance.close()
        return {"seconds": [(time.perf_counter() - begin) / count]}

    def _hold(self, image: Image, code: bytes, count: int) -> float:
        """Private bytes of one live instance after it evaluated `code`, on average over `count`."""
        for _ in range(3):
            instance = Instance(image)
            evaluate(instance, code)
            instance.close()
        before = private_dirty_bytes()
        for _ in range(count):
            instance = Instance(image)
            evaluate(instance, code)
            self._held.append(instance)
        used = private_dirty_bytes() - before
        for instance in self._held:
            instance.close()
        self._held.clear()
        return used / count


if __name__ == "__main__":
    loop = Loop()
    # As a worker does.
    os.nice(5)
    gc.disable()
    gc.freeze()
    lines.serve(loop.answer)
