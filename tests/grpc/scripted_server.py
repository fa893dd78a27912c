"""`serve` above a scripted pool, as a process: `python -m tests.grpc.scripted_server GRACE_SECONDS`.

Code `hang` never ends by itself; `sick` and `well` change what the pool says of itself; code `SECONDS` takes so long.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys

from tests.grpc.conftest import CATALOGUE
from wasmeval.config import load
from wasmeval.model import Job, Result, Status
from wasmeval.server import serve
from wasmeval.testing import Answer, ScriptedPool, hang, succeed


def script(job: Job) -> Answer:
    """A hang, or a value, at once or after a while."""
    if job.code in (b"sick", b"well"):
        pool.healthy = job.code == b"well"
        return succeed(job)
    return hang() if job.code == b"hang" else later(job)


async def later(job: Job) -> Result:
    """Ends `ok` after the seconds that are the code."""
    with contextlib.suppress(BrokenPipeError):
        print("running", flush=True)
    await asyncio.sleep(float(job.code))
    return Result(Status.OK, b"1")


if __name__ == "__main__":
    overrides = {"listen": "127.0.0.1:0", "grace_seconds": float(sys.argv[1]), "vm.enabled": False}
    config = load(environ={}, overrides=overrides)
    announce = lambda line: print(line, flush=True)  # noqa: E731
    pool = ScriptedPool(script)
    make_pool = lambda *_: pool  # noqa: E731
    asyncio.run(serve(config, announce=announce, catalogue=CATALOGUE, make_pool=make_pool))
