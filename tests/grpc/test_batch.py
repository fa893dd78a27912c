"""A batch: results in order and independent, bounded in flight and in size, and never half lost."""

from __future__ import annotations

import asyncio
import threading

import pytest

from tests.grpc.conftest import WAIT_SECONDS, Serving
from wasmeval import (
    AsyncClient,
    Client,
    DeadlineExceeded,
    Evaluation,
    InvalidArgument,
    ResourceExhausted,
    Result,
    Status,
    Unavailable,
)
from wasmeval.model import Job
from wasmeval.testing import hang, succeed


def number(job: Job) -> Result:
    return Result(Status.OK, job.code, limits=job.limits)


def test_results_come_in_the_order_of_the_requests(serving: Serving) -> None:
    async def later(job: Job) -> Result:
        await asyncio.sleep(0.02 if int(job.code) % 3 == 0 else 0)
        return number(job)

    with serving(later) as server, Client(server.target) as client:
        results = client.evaluate_batch([Evaluation(str(index)) for index in range(200)])
    assert [result.value for result in results] == list(range(200))


def test_the_longest_batch_never_fills_the_queue(serving: Serving) -> None:
    most = 0

    async def count(job: Job) -> Result:
        nonlocal most
        most = max(most, len(server.pool._held))
        await asyncio.sleep(0)
        return number(job)

    with (
        serving(count, batch_in_flight=8, batch_most_in_flight=8) as server,
        Client(server.target) as client,
    ):
        results = client.evaluate_batch([Evaluation(str(index)) for index in range(1024)])
    assert [result.value for result in results] == list(range(1024))
    assert most == 8


def test_slow_evaluations_widen_their_batch_up_to_its_bound(serving: Serving) -> None:
    most = 0

    async def sleep(job: Job) -> Result:
        nonlocal most
        most = max(most, len(server.pool._held))
        while most < 30:
            await asyncio.sleep(0.002)
        return number(job)

    with (
        serving(sleep, batch_in_flight=4, batch_most_in_flight=32) as server,
        Client(server.target) as client,
    ):
        results = client.evaluate_batch([Evaluation(str(index)) for index in range(200)])
    assert [result.value for result in results] == list(range(200))
    assert 30 <= most <= 32


def test_a_failing_snippet_leaves_the_others_alone(serving: Serving) -> None:
    def script(job: Job) -> Result:
        return Result(Status.CRASHED if job.code == b"1" else Status.OK)

    with serving(script) as server, Client(server.target) as client:
        results = client.evaluate_batch([Evaluation(str(index)) for index in range(3)])
    assert [result.status for result in results] == [Status.OK, Status.CRASHED, Status.OK]


def test_what_no_longer_fits_the_reply_says_so(serving: Serving) -> None:
    def script(job: Job) -> Result:
        return Result(Status.OK, b'"' + b"x" * 400 + b'"', stdout="\N{SNOWMAN}" * 100, limits=job.limits)

    with (
        serving(script, batch_reply_bytes=1500, batch_in_flight=1) as server,
        Client(server.target) as client,
    ):
        results = client.evaluate_batch([Evaluation("1")] * 4)
    assert [result.status for result in results] == [Status.OK] * 2 + [Status.OUTPUT_EXCEEDED] * 2
    assert results[3].error is not None
    assert "more than 1500 bytes together; send smaller batches" in results[3].error.message
    assert results[3].limits == results[0].limits


def test_a_batch_waits_for_room_once_it_is_accepted(serving: Serving) -> None:
    async def later(job: Job) -> Result:
        await asyncio.sleep(0.005)
        return number(job)

    with serving(later, running=1, queue_size=1) as server, Client(server.target) as client:
        results = client.evaluate_batch([Evaluation(str(index)) for index in range(40)])
    assert [result.value for result in results] == list(range(40))


def test_a_batch_that_finds_the_queue_full_is_refused_whole(serving: Serving) -> None:
    release = asyncio.Event()

    async def blocked(job: Job) -> Result:
        await release.wait()
        return number(job)

    with serving(blocked, running=1, queue_size=0) as server, Client(server.target) as client:
        thread = threading.Thread(target=client.evaluate, args=("0",))
        thread.start()
        server.wait_until(lambda: server.pool.jobs)
        with pytest.raises(ResourceExhausted, match="queue is full"):
            client.evaluate_batch([Evaluation("1")] * 5, timeout=0.3)
        server.loop.call_soon_threadsafe(release.set)
        thread.join(30)
        assert len(server.pool.jobs) == 1
        assert client.evaluate("2").value == 2


def test_batches_under_way_are_bounded(serving: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wasmeval.service.MAX_BATCHES", 0)
    with serving() as server, Client(server.target) as client:
        with pytest.raises(ResourceExhausted, match="batches are under way"):
            client.evaluate_batch([Evaluation("1")], timeout=0.3)
        assert client.evaluate("1").ok


def test_a_cancelled_batch_stops_all_its_guests(serving: Serving) -> None:
    from wasmeval import AsyncClient

    async def main() -> None:
        async with AsyncClient(server.target) as client:
            task = asyncio.create_task(client.evaluate_batch([Evaluation("1")] * 5))
            while len(server.pool.jobs) < 5:
                await asyncio.sleep(0.002)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    with serving(lambda job: hang()) as server:
        asyncio.run(main())
        server.wait_until(lambda: len(server.pool.stopped) == 5)


def test_an_error_of_the_pool_fails_the_batch_and_stops_the_rest(serving: Serving) -> None:
    def script(job: Job) -> object:
        return Unavailable("closed") if job.code == b"1" else hang()

    with serving(script) as server, Client(server.target) as client:
        with pytest.raises(Unavailable, match="closed"):
            client.evaluate_batch([Evaluation("0"), Evaluation("1")], timeout=0.2)
        server.wait_until(lambda: server.pool.stopped)


def test_the_double_succeeds_by_default() -> None:
    job = Job("python", b"1", b"", Evaluation("1").limits)
    assert succeed(job).ok


def test_a_batch_of_none_needs_no_service() -> None:
    async def main() -> list[Result]:
        async with AsyncClient("127.0.0.1:1") as client:
            return await client.evaluate_batch([])

    with Client("127.0.0.1:1") as client:
        assert client.evaluate_batch([]) == []
    assert asyncio.run(main()) == []


def test_more_than_one_batch_holds_are_several(serving: Serving) -> None:
    with serving(number) as server, Client(server.target) as client:
        results = client.evaluate_batch([Evaluation(str(index)) for index in range(2500)])
        assert [result.value for result in results] == list(range(2500))

        async def main() -> list[Result]:
            async with AsyncClient(server.target) as client:
                return await client.evaluate_batch([Evaluation("1")] * 1025, timeout=WAIT_SECONDS)

        assert len(asyncio.run(main())) == 1025


def test_what_is_wrong_in_a_later_batch_has_its_place_among_all(serving: Serving) -> None:
    evaluations = [Evaluation("1")] * 1030
    with serving() as server, Client(server.target) as client:
        with pytest.raises(InvalidArgument) as caught:
            client.evaluate_batch([*evaluations, Evaluation("")])
        assert caught.value.field == "evaluations[1030].code"
        ran = len(server.pool.jobs)
        with pytest.raises(InvalidArgument) as caught:
            client.evaluate_batch([*evaluations, Evaluation("\ud800")])
        assert caught.value.field == "evaluations[1030].code"
        assert len(server.pool.jobs) == ran


def test_the_time_of_several_batches_is_one(serving: Serving) -> None:
    async def slow(job: Job) -> Result:
        await asyncio.sleep(0.4 if job.code == b"slow" else 0)
        return succeed(job)

    with serving(slow) as server, Client(server.target) as client:
        evaluations = [*[Evaluation("1")] * 1023, Evaluation("slow")] * 5
        with pytest.raises(DeadlineExceeded):
            client.evaluate_batch(evaluations, timeout=1.0)
        assert client.evaluate("1").ok
