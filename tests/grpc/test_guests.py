"""The whole way, with nothing scripted: client, gRPC, service, pool, workers, guests."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.grpc.conftest import WAIT_SECONDS, Running, serve_above
from wasmeval import (
    AsyncClient,
    Client,
    DeadlineExceeded,
    Evaluation,
    Limits,
    ResourceExhausted,
    Status,
)
from wasmeval.pool import PoolSettings
from wasmeval.pool.driven import AsyncPool
from wasmeval.runtimes import Catalogue

FOREVER = {"python": "while True: pass", "javascript": "for (;;) {}"}
ASLEEP = {
    "python": "import time; time.sleep(1000)",
    "javascript": "await new Promise(() => setTimeout(() => {}, 1e6))",
}
LANGUAGES = ("python", "javascript")

Real = Running[AsyncPool]


def serve_real(**settings: int) -> object:
    """A service with workers of its own."""
    catalogue = Catalogue.installed()
    return serve_above(lambda: AsyncPool(PoolSettings(**settings), catalogue), catalogue)


@pytest.fixture(scope="module")
def real() -> Iterator[Real]:
    """One service for this module: each test proves that the one before left it healthy."""
    with serve_real(workers=1) as server:
        yield server


@pytest.fixture
def client(real: Real) -> Iterator[Client]:
    """Its client; afterwards nothing is left running and the service works."""
    with Client(real.target) as client:
        yield client
        real.wait_until(lambda: real.pool.stats().running == 0)
        assert [client.evaluate("1 + 1", language=language).value for language in LANGUAGES] == [2, 2]


@pytest.mark.parametrize("language", LANGUAGES)
def test_inputs_become_a_value(client: Client, language: str) -> None:
    code = {
        "python": "{'sum': sum(xs), 'text': text}",
        "javascript": "({sum: xs.reduce((a, b) => a + b), text})",
    }
    inputs = {"xs": [1, 2, 3.5], "text": "\N{SNOWMAN}\0"}
    result = client.evaluate(code[language], language=language, inputs=inputs).raise_for_status()
    assert result.value == {"sum": 6.5, "text": "\N{SNOWMAN}\0"}
    assert (result.runtime, result.tier) == (language, "wasm")
    assert result.usage.fuel > 0


def test_an_integer_of_any_size_comes_and_goes(client: Client) -> None:
    assert client.evaluate("n + 1", inputs={"n": 7**20_000}).value == 7**20_000 + 1


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("codes", [FOREVER, ASLEEP], ids=["looping", "asleep"])
def test_a_time_out_of_the_call_stops_the_guest(
    real: Real, client: Client, language: str, codes: dict[str, str]
) -> None:
    with pytest.raises(DeadlineExceeded):
        client.evaluate(codes[language], language=language, limits=Limits(deadline_seconds=100), timeout=0.3)
    real.wait_until(lambda: real.pool.stats().running == 0)


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("codes", [FOREVER, ASLEEP], ids=["looping", "asleep"])
def test_cancelling_the_call_stops_the_guest(
    real: Real, client: Client, language: str, codes: dict[str, str]
) -> None:
    async def main() -> None:
        async with AsyncClient(real.target) as other:
            task = asyncio.create_task(other.evaluate(codes[language], language=language))
            while not real.pool.stats().running:
                await asyncio.sleep(0.002)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(main())
    real.wait_until(lambda: real.pool.stats().running == 0)


def test_a_batch_of_both_languages_comes_in_order(client: Client) -> None:
    batch = [Evaluation(f"{index} * 2", LANGUAGES[index % 2]) for index in range(100)]
    batch[50] = Evaluation("1 / 0")
    batch[51] = Evaluation(FOREVER["javascript"], "javascript", limits=Limits(fuel=10**8))
    results = client.evaluate_batch(batch)
    statuses = [result.status for result in results]
    assert (statuses.pop(51), statuses.pop(50)) == (Status.FUEL_EXHAUSTED, Status.ERROR)
    assert set(statuses) == {Status.OK}
    assert [result.value for result in results if result.ok] == [
        n * 2 for n in range(100) if n not in (50, 51)
    ]


def test_a_full_service_refuses_and_recovers() -> None:
    with (
        serve_real(workers=1, concurrency=1, queue_size=1) as server,
        Client(server.target) as client,
        ThreadPoolExecutor() as executor,
    ):
        calls = []
        for held in (1, 2):
            calls.append(executor.submit(client.evaluate, "import time; time.sleep(1)"))
            server.wait_until(
                lambda held=held: server.pool.stats().running + server.pool.stats().queued >= held
            )
        with pytest.raises(ResourceExhausted) as caught:
            client.evaluate("1", timeout=0.2)
        assert caught.value.retry_after_seconds > 0
        assert [call.result(WAIT_SECONDS).status for call in calls] == [Status.OK] * 2
        assert client.evaluate("1", timeout=WAIT_SECONDS).ok


def test_a_drain_loses_nothing() -> None:
    with serve_real(workers=1) as server, Client(server.target) as client, ThreadPoolExecutor() as executor:
        naps = [Evaluation(f"import time; time.sleep(0.2); {index}") for index in range(80)]
        batch = executor.submit(client.evaluate_batch, naps)
        server.wait_until(lambda: server.pool.stats().running > 2)
        server.call(server.server.drain(WAIT_SECONDS))
        assert [result.value for result in batch.result(WAIT_SECONDS)] == list(range(80))


def test_what_outlives_the_grace_is_cancelled() -> None:
    with serve_real(workers=1) as server, Client(server.target) as client, ThreadPoolExecutor() as executor:
        limits = Limits(fuel=10**12, deadline_seconds=300)
        call = executor.submit(client.evaluate, FOREVER["python"], limits=limits)
        server.wait_until(lambda: server.pool.stats().running)
        server.call(server.server.drain(0.1))
        assert call.result(WAIT_SECONDS).status is Status.CANCELLED
