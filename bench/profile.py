"""`python -m bench profile`: where the time of one evaluation goes, step by step, on an otherwise idle machine.

Each step is timed by itself, over and over, in this process, with the real objects; the whole is timed through the
real thing. What no step explains is what the processes take to wake each other, and cold caches: a step that is
repeated has all its code and data at hand, and takes three to five times as long when it comes once a millisecond.
"""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial

from bench.companion import Companion
from bench.companions.bare import images
from bench.measure import Samples, Turn, in_turns, quantile, timed
from bench.report import number
from bench.rows.names import RUNTIMES
from bench.serving import serving
from bench.settings import Settings, say
from wasmeval import Evaluator, wire
from wasmeval.limits import DEFAULTS
from wasmeval.model import Job, Request, Result, Status
from wasmeval.policy import Policy, prepare
from wasmeval.pool import PoolSettings
from wasmeval.pool.driven import AsyncPool
from wasmeval.runtimes import Catalogue
from wasmeval.service import Service
from wasmeval.wasm.instance import Image, Instance
from wasmeval.wasm.order import Order
from wasmeval.wasm.results import Ending
from wasmeval.wasm.scheduler import Scheduler
from wasmeval.worker import frames, orders

_CODE = "1+1"


@dataclass(slots=True)
class Stages:
    """Microseconds by the name of a step, each a median."""

    steps: dict[str, float] = field(default_factory=dict)

    def add(self, name: str, call: Callable[[], object], count: int, batch: int = 10) -> None:
        """Time `call`, a few in a row so that the clock's own cost does not show."""
        taken = []
        for _ in range(count):
            start = time.perf_counter()
            for _ in range(batch):
                call()
            taken.append((time.perf_counter() - start) / batch)
        self.steps[name] = 1e6 * quantile(taken, 0.5)

    def sum(self, *prefixes: str) -> float:
        """All the steps whose name begins so."""
        return sum(value for name, value in self.steps.items() if name.startswith(prefixes))


def run(settings: Settings) -> None:
    """Print one table for each runtime."""
    count = settings.of(2000, 200)
    loaded = images()
    gc.collect()
    gc.freeze()
    gc.disable()
    for runtime in RUNTIMES:
        say(f"{runtime} ...")
        stages = Stages()
        _front(stages, runtime, count)
        job, result = _guest(stages, loaded[runtime], count)
        _frames(stages, job, result, count)
        stages.steps["ipc: wake the other process and be woken"] = _wake(count)
        whole = _whole(settings, runtime)
        print("\n".join(_table(runtime, stages, whole)), flush=True)


def _front(stages: Stages, runtime: str, count: int) -> None:
    catalogue, policy = Catalogue.installed(), Policy()
    request = Request(_CODE, runtime, {}, None)
    data = wire.encode_request(request).SerializeToString()
    result = Result(value_json=b"2", limits=DEFAULTS, runtime=runtime, status=Status.OK)
    stages.add("front: wire.decode_request", partial(wire.decode_request, data), count)
    stages.add("front: service.prepare", partial(prepare, request, catalogue, policy), count)
    stages.add("front: wire.encode_reply", partial(wire.encode_reply, result), count)


def _frames(stages: Stages, job: Job, result: Result, count: int) -> None:
    sent, received = orders.encode_order(1, 0, None, job), frames.encode_result(1, result)
    head = len(frames.encode(frames.Kind.RESULT))
    decoder = frames.Decoder()
    stages.add("front: orders.encode_order", partial(orders.encode_order, 1, 0, None, job), count)
    stages.add("front: Decoder.feed", lambda: list(decoder.feed(received)), count)
    stages.add("front: frames.decode_result", partial(frames.decode_result, received[head:], job), count)
    stages.add("worker: Decoder.feed", lambda: list(decoder.feed(sent)), count)
    stages.add("worker: orders.decode_order", partial(orders.decode_order, sent[head:], [job.runtime]), count)
    stages.add("worker: frames.encode_result", partial(frames.encode_result, 1, result), count)


def _guest(stages: Stages, image: Image, count: int) -> tuple[Job, Result]:
    """An instance's life, step by step, then the same through a scheduler: the difference is the scheduler's."""
    runtime = image.runtime.name
    job = prepare(Request(_CODE, runtime, {}, None), Catalogue.installed(), Policy())
    steps: dict[str, list[float]] = {}

    def step(name: str, since: float) -> float:
        now = time.perf_counter()
        steps.setdefault(name, []).append(now - since)
        return time.perf_counter()

    result = None
    for _ in range(count):
        now = time.perf_counter()
        instance = Instance(image)
        now = step("after: Instance(): instantiate, reserve, warm up", now)
        instance.start(job.code, job.inputs, job.limits)
        now = step("worker: Instance.start", now)
        instance.poll()
        now = step("guest: Instance.poll", now)
        result = Ending(instance, job.limits, 0.0, runtime).replied()
        now = step("worker: reply into a Result", now)
        instance.close()
        step("after: Instance.close", now)
    assert result is not None
    for name, taken in steps.items():
        stages.steps[name] = 1e6 * quantile(taken, 0.5)
    scheduler = Scheduler({runtime: image}, _Nowhere())
    whole = []
    for number_ in range(1, count + 1):
        while scheduler.timeout() == 0.0:
            scheduler.step()
        start = time.perf_counter()
        scheduler.submit(Order(number_, runtime, job.code, job.inputs, job.limits))
        scheduler.step()
        whole.append(time.perf_counter() - start)
    scheduler.close()
    inside = sum(
        stages.steps[name]
        for name in ("worker: Instance.start", "guest: Instance.poll", "worker: reply into a Result")
    )
    stages.steps["worker: Scheduler, the rest"] = max(0.0, 1e6 * quantile(whole, 0.5) - inside)
    return job, result


class _Nowhere:
    """An outlet for results that nobody wants."""

    def result(self, number: int, result: Result) -> None:
        """Nothing."""

    def call(self, number: int, call: int, operation: int, body: bytes) -> None:
        """Nothing."""

    def output(self, number: int, stream: int, data: bytes) -> None:
        """Nothing."""

    def file(self, number: int, path: str, data: bytes, is_last: bool) -> None:
        """Nothing."""


def _wake(count: int) -> float:
    """A round trip over a socket pair with a process that only answers."""
    with Companion.module("echo") as echo:
        return 1e6 * float(echo.ask(count=count)["seconds"][0])


def _whole(settings: Settings, runtime: str) -> dict[str, Samples]:
    with serving(settings.workers) as service, Evaluator(settings.workers) as evaluator:
        turns = {
            "empty call": Turn(timed(service.empty())),
            "gRPC": Turn(timed(service.bare(runtime))),
            "embedded": Turn(timed(partial(evaluator.evaluate, _CODE, language=runtime))),
        }
        samples = in_turns(turns, settings.of(30, 3))
    samples["asyncio"] = asyncio.run(_asyncio(settings, runtime))
    return samples


async def _asyncio(settings: Settings, runtime: str) -> Samples:
    """The service without gRPC: what the event loop and the pool take around a worker."""
    catalogue = Catalogue.installed()
    pool = AsyncPool(PoolSettings(workers=settings.workers), catalogue)
    service = Service(pool, catalogue)
    samples = Samples()
    try:
        await pool.start()
        for _ in range(settings.of(1500, 150)):
            start = time.perf_counter()
            await service.evaluate(Request(_CODE, runtime, {}, None))
            samples.seconds.append(time.perf_counter() - start)
    finally:
        await pool.aclose()
    return samples


def _table(runtime: str, stages: Stages, whole: dict[str, Samples]) -> Iterator[str]:
    p50 = {name: 1e6 * samples.p50 for name, samples in whole.items()}
    yield f"\n## `{_CODE}`, fresh {RUNTIMES[runtime]} instance, microseconds\n"
    yield "| step | p50 |\n|---|---|"
    for name, value in stages.steps.items():
        yield f"| {name} | {number(value)} |"
    known = stages.sum("front: frames", "front: Decoder", "worker", "guest", "ipc")
    yield f"| **worker and pool, these steps together** | {number(known)} |"
    yield f"| **embedded, the whole** | {number(p50['embedded'])} |"
    yield f"| **service on asyncio without gRPC, the whole** | {number(p50['asyncio'])} |"
    yield f"| **empty gRPC call** | {number(p50['empty call'])} |"
    yield f"| **gRPC evaluation, the whole** | {number(p50['gRPC'])} |"
    yield f"| gRPC evaluation less the empty call | {number(p50['gRPC'] - p50['empty call'])} |"
    yield f"| after the reply, on a CPU but on nobody's way (`after:`) | {number(stages.sum('after'))} |"
