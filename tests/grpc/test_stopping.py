"""Whoever gives up stops the guest; a drain loses nothing."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.grpc.conftest import CATALOGUE, WAIT_SECONDS, Running, Serving
from wasmeval import (
    AsyncClient,
    Client,
    DeadlineExceeded,
    Evaluation,
    Result,
    SetupError,
    Status,
    Unavailable,
    wire,
)
from wasmeval.dialogue import Dialogue
from wasmeval.model import Job
from wasmeval.service import Service
from wasmeval.testing import ScriptedPool, hang, succeed
from wasmeval.v1 import wasmeval_pb2 as pb


def hang_or_succeed(job: Job) -> object:
    return hang() if job.code == b"hang" else succeed(job)


@pytest.fixture
def hanging(serving: Serving) -> object:
    """A service where the code `hang` never ends by itself."""
    with serving(hang_or_succeed) as server:
        yield server


def test_a_time_out_stops_the_guest(hanging: Running) -> None:
    with Client(hanging.target) as client:
        with pytest.raises(DeadlineExceeded):
            client.evaluate("hang", timeout=0.2)
        hanging.wait_until(lambda: hanging.pool.stopped)
        assert client.evaluate("1").ok


def test_a_cancelled_call_stops_the_guest(hanging: Running) -> None:
    async def main() -> None:
        async with AsyncClient(hanging.target) as client:
            task = asyncio.create_task(client.evaluate("hang"))
            while not hanging.pool.jobs:
                await asyncio.sleep(0.002)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert (await client.evaluate("1")).ok

    asyncio.run(main())
    hanging.wait_until(lambda: hanging.pool.stopped)


def test_an_interrupt_stops_the_guest(hanging: Running) -> None:
    script = f"from wasmeval import Client\nClient({hanging.target!r}).evaluate('hang')"
    process = subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.PIPE)
    hanging.wait_until(lambda: hanging.pool.jobs)
    process.send_signal(signal.SIGINT)
    hanging.wait_until(lambda: hanging.pool.stopped)
    assert b"KeyboardInterrupt" in process.communicate(timeout=WAIT_SECONDS)[1]


def test_a_client_that_dies_stops_the_guest(hanging: Running) -> None:
    script = f"from wasmeval import Client\nClient({hanging.target!r}).evaluate('hang')"
    process = subprocess.Popen([sys.executable, "-c", script])
    hanging.wait_until(lambda: hanging.pool.jobs)
    process.kill()
    process.wait(WAIT_SECONDS)
    hanging.wait_until(lambda: hanging.pool.stopped)
    with Client(hanging.target) as client:
        assert client.evaluate("1").ok


def test_a_closed_client_stops_the_guest(hanging: Running) -> None:
    client = Client(hanging.target)
    with ThreadPoolExecutor() as executor:
        call = executor.submit(client.evaluate, "hang")
        hanging.wait_until(lambda: hanging.pool.jobs)
        client.close()
        assert call.exception(WAIT_SECONDS) is not None
    hanging.wait_until(lambda: hanging.pool.stopped)


def test_a_client_from_before_a_fork_refuses_to_work(running: Running) -> None:
    client = Client(running.target)
    client._process = os.getpid() + 1
    with pytest.raises(SetupError, match="made before a fork"):
        client.evaluate("1")
    client.close()


def health_of(target: str, service: str = "") -> int:
    with grpc.insecure_channel(target) as channel:
        request = health_pb2.HealthCheckRequest(service=service)
        return int(health_pb2_grpc.HealthStub(channel).Check(request, timeout=WAIT_SECONDS).status)


def test_a_drain_answers_everything_that_was_accepted(serving: Serving) -> None:
    release = asyncio.Event()

    async def blocked(job: Job) -> Result:
        await release.wait()
        return Result(Status.OK, job.code)

    with (
        serving(blocked, running=3, batch_in_flight=2) as server,
        Client(server.target) as client,
        ThreadPoolExecutor(8) as executor,
    ):
        single = [executor.submit(client.evaluate, str(index)) for index in range(4)]
        batch = executor.submit(client.evaluate_batch, [Evaluation(str(index)) for index in range(6)])
        server.wait_until(lambda: len(server.pool._held) == 6)
        drain = asyncio.run_coroutine_threadsafe(server.server.drain(WAIT_SECONDS), server.loop)
        server.wait_until(lambda: server.service._idle)
        assert health_of(server.target) == health_pb2.HealthCheckResponse.NOT_SERVING
        with pytest.raises(Unavailable, match="shutting down"):
            client.evaluate("5", timeout=0.2)
        server.loop.call_soon_threadsafe(release.set)
        drain.result(WAIT_SECONDS)
        assert [call.result(WAIT_SECONDS).value for call in single] == list(range(4))
        assert [result.value for result in batch.result(WAIT_SECONDS)] == list(range(6))
        with pytest.raises(Unavailable):
            client.evaluate("6", timeout=0.2)


def test_who_still_calls_a_service_that_stops_is_refused_in_so_many_words(serving: Serving) -> None:
    """As a load balancer does until it has looked: a call in the moment in which gRPC stops would end CANCELLED."""
    request = pb.EvaluateRequest(code="1", language="python").SerializeToString()
    refused = 0
    with serving(succeed) as server, grpc.insecure_channel(server.target) as channel:
        evaluate = channel.unary_unary(wire.EVALUATE)
        evaluate(request, timeout=WAIT_SECONDS)
        drain = asyncio.run_coroutine_threadsafe(server.server.drain(WAIT_SECONDS), server.loop)
        while refused < 200:
            try:
                evaluate(request, timeout=WAIT_SECONDS)
            except grpc.RpcError as error:
                assert ("wasmeval-refused", "1") in error.trailing_metadata(), error  # noqa: PT017
                refused += 1
        drain.result(WAIT_SECONDS)


def test_what_outlives_the_grace_is_cancelled_and_answered(serving: Serving) -> None:
    with (
        serving(hang_or_succeed, batch_in_flight=2) as server,
        Client(server.target) as client,
        ThreadPoolExecutor() as executor,
    ):
        single = executor.submit(client.evaluate, "hang")
        codes = ["1", "hang", "hang", "2"]
        batch = executor.submit(client.evaluate_batch, [Evaluation(code) for code in codes])
        server.wait_until(lambda: len(server.pool.jobs) == 4)
        server.call(server.server.drain(0.0))
        assert single.result(WAIT_SECONDS).status is Status.CANCELLED
        results = batch.result(WAIT_SECONDS)
    assert [result.status for result in results] == [Status.OK] + [Status.CANCELLED] * 3
    assert results[3].error is not None
    assert results[3].error.message == "it did not run: the service was shutting down; send it again"


def test_an_idle_service_drains_at_once(running: Running) -> None:
    running.call(running.server.drain(WAIT_SECONDS))
    with Client(running.target) as client, pytest.raises(Unavailable):
        client.evaluate("1", timeout=0.1)


def test_a_second_drain_waits_for_the_first(hanging: Running) -> None:
    with Client(hanging.target) as client:
        thread = threading.Thread(target=client.evaluate, args=("hang",))
        thread.start()
        hanging.wait_until(lambda: hanging.pool.jobs)

        async def twice() -> None:
            await asyncio.gather(hanging.server.drain(0.05), hanging.server.drain(0.05))

        hanging.call(twice())
        thread.join(WAIT_SECONDS)


def test_a_closed_client_says_so(running: Running) -> None:
    async def main() -> None:
        client = AsyncClient(running.target)
        assert (await client.evaluate("1")).ok
        await client.close()
        with pytest.raises(Unavailable, match="this client is closed"):
            await client.evaluate("1")

    asyncio.run(main())
    client = Client(running.target)
    client.close()
    with pytest.raises(Unavailable, match="this client is closed"):
        client.evaluate("1")


def test_a_conversation_that_is_cancelled_twice_gives_back_what_it_held() -> None:
    """As gRPC may do: the second time while the first is still being followed."""
    start = pb.ConverseRequest(
        start=pb.Start(evaluation=pb.EvaluateRequest(code="1", language="python"), live_output=True)
    ).SerializeToString()

    async def main() -> None:
        service = Service(ScriptedPool(succeed), CATALOGUE)
        said = [start]
        writing = asyncio.Event()

        async def read() -> bytes | None:
            if not said:
                await asyncio.Event().wait()
            return said.pop()

        async def write(_message: bytes) -> None:
            writing.set()
            await asyncio.Event().wait()

        task = asyncio.ensure_future(Dialogue(service, read, write, None).run())
        await asyncio.wait_for(writing.wait(), WAIT_SECONDS)
        assert service._uploads > 0
        task.cancel()
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait({task}, timeout=WAIT_SECONDS)
        await asyncio.sleep(0)
        assert service._uploads == 0

    asyncio.run(main())
