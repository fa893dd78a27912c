"""Conversations that end before their time give everything back, in front and workers, however many there are."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from statistics import median

import grpc
import pytest

from tests.grpc.conftest import Running, serve_above
from tests.pool.test_growth import anonymous_bytes, descriptors
from wasmeval import wire
from wasmeval.pool import PoolSettings
from wasmeval.pool.driven import AsyncPool
from wasmeval.runtimes import Catalogue
from wasmeval.v1 import wasmeval_pb2 as pb

MIB = 1 << 20
COUNT = 10_000
ROUNDS = 5
AT_ONCE = 250

Real = Running[AsyncPool]


@pytest.fixture
def real() -> Iterator[Real]:
    catalogue = Catalogue.installed()
    with serve_above(lambda: AsyncPool(PoolSettings(workers=2), catalogue), catalogue) as server:
        yield server


def worker_pids(real: Real) -> set[int]:
    assert real.pool._pool
    return {worker.process.pid for worker in real.pool._pool._workers}


def start(code: str, language: str, seconds: float) -> bytes:
    evaluation = pb.EvaluateRequest(code=code, language=language)
    evaluation.limits.deadline_seconds = seconds
    tools = [pb.Tool(name="tool")]
    return pb.ConverseRequest(
        start=pb.Start(evaluation=evaluation, tools=tools, input=True)
    ).SerializeToString()


CANCEL = pb.ConverseRequest(cancel=pb.Cancel()).SerializeToString()
KINDS = {
    "cancelled by a message": start("tool(1)", "python", 60),
    "its client goes away": start("await tool(1)", "javascript", 60),
    "its tool never answers": start("await Promise.all([tool(1), tool(2)])", "javascript", 0.2),
    "its client goes away while it waits for input": start("input()", "python", 60),
    "its client goes away while it sleeps": start(
        "import time; tool(1) if 0 else time.sleep(60)", "python", 60
    ),
}


async def converse(channel: grpc.aio.Channel, kind: str) -> None:
    call = channel.stream_stream(wire.CONVERSE)()
    await call.write(KINDS[kind])
    if "sleeps" in kind:
        await asyncio.sleep(0.01)
    else:
        event = pb.ConverseResponse.FromString(await call.read())
        # On a busy machine a short deadline may pass before the first call.
        assert event.HasField("result") == ("answers" in kind and not event.HasField("tool_call")), event
    if "goes away" in kind:
        call.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await call.code()
        return
    if "message" in kind:
        await call.write(CANCEL)
    while event.WhichOneof("event") != "result":
        event = pb.ConverseResponse.FromString(await call.read())
    wanted = pb.STATUS_CANCELLED if "message" in kind else pb.STATUS_DEADLINE_EXCEEDED
    assert event.result.status == wanted
    assert await call.code() is grpc.StatusCode.OK


async def converse_many(target: str, count: int) -> None:
    kinds = list(KINDS)
    places = asyncio.Semaphore(AT_ONCE)

    async def one(number: int) -> None:
        async with places:
            await converse(channel, kinds[number % len(kinds)])

    async with grpc.aio.insecure_channel(target) as channel:
        for begin in range(0, count, 1000):
            await asyncio.gather(*(one(number) for number in range(begin, min(begin + 1000, count))))


def at_rest(measure: Callable[[], int]) -> int:
    """The figure when two looks agree: a worker drops and prepares instances when it has nothing else to do."""
    last = measure()
    for _ in range(100):
        time.sleep(0.1)
        if (now := measure()) == last:
            break
        last = now
    return last


def growth(looks: list[dict[str, float]], name: str) -> float:
    """By how much `name` grew in all the rounds, when each of them grew as the median one did.

    What is left behind grows in every round. What a worker keeps of its busiest moment, when an unlucky crowd of
    conversations came at once, grows in one or two.
    """
    return ROUNDS * median(after[name] - before[name] for before, after in pairwise(looks))


@pytest.mark.slow
def test_ten_thousand_conversations_leave_nothing(real: Real) -> None:
    pids = worker_pids(real)

    def settled() -> dict[str, float]:
        real.wait_until(lambda: real.pool.stats().running == 0)
        assert real.pool.stats().queued == 0
        gc.collect()
        return {
            "worker": at_rest(lambda: max(map(anonymous_bytes, pids))),
            "front": anonymous_bytes(os.getpid()),
            "descriptors": descriptors(os.getpid()),
            "worker descriptors": max(map(descriptors, pids)),
            "tasks": real.call(count_tasks()),
        }

    async def count_tasks() -> int:
        return len(asyncio.all_tasks())

    # The first one warms up.
    looks = []
    for _ in range(ROUNDS + 1):
        asyncio.run(converse_many(real.target, COUNT // ROUNDS))
        looks.append(settled())
    assert worker_pids(real) == pids, "a worker was replaced"
    assert growth(looks, "worker") < 4 * MIB, looks
    # The clients are in this process too.
    assert growth(looks, "front") < 24 * MIB, looks
    before, after = looks[0], looks[-1]
    assert after["descriptors"] <= before["descriptors"] + 2, looks
    assert after["worker descriptors"] == before["worker descriptors"]
    assert after["tasks"] <= before["tasks"] + 1
    assert real.service._uploads == 0
