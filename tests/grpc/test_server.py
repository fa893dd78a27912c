"""Where the server listens and what else it answers: health, reflection, errors of its own."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Any, ClassVar

import grpc
import pytest
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from tests.grpc.conftest import WAIT_SECONDS, Running, Serving
from tests.grpc.test_stopping import health_of
from wasmeval import Client, Internal, InvalidArgument, SetupError, wire
from wasmeval.server import _Observer, allowed

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


@pytest.mark.parametrize("service", ["", "wasmeval.v1.Evaluator"])
def test_health_is_served(running: Running, service: str) -> None:
    assert health_of(running.target, service) == SERVING


def test_health_follows_the_pool(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    async def until(status: int) -> None:
        async with asyncio.timeout(WAIT_SECONDS):
            while await asyncio.to_thread(health_of, running.target) != status:
                await asyncio.sleep(0.01)

    monkeypatch.setattr("wasmeval.server._WATCH_SECONDS", 0.01)
    watch = asyncio.run_coroutine_threadsafe(running.server.watch(lambda: running.pool.healthy), running.loop)
    running.pool.healthy = False
    asyncio.run(until(NOT_SERVING))
    assert health_of(running.target, wire.SERVICE) == NOT_SERVING
    running.pool.healthy = True
    asyncio.run(until(SERVING))
    # A pool that comes back while the service stops makes it serve no more.
    running.pool.healthy = False
    asyncio.run(until(NOT_SERVING))
    running.call(running.server._health.enter_graceful_shutdown())
    running.pool.healthy = True
    running.call(asyncio.sleep(0.1))
    assert health_of(running.target) == NOT_SERVING
    watch.cancel()


def test_a_worker_that_is_replaced_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    class Told:
        reasons: ClassVar[list[str]] = []

        def worker_restarted(self, reason: str) -> None:
            self.reasons.append(reason)

        def queue_wait(self, runtime: str, seconds: float) -> None:
            self.reasons.append(f"{runtime} {seconds}")

    for telemetry in (None, Told()):
        observer = _Observer(telemetry)  # type: ignore[arg-type]
        observer.worker_restarted("crashed")
        observer.queue_wait("python", 0.5)
    assert Told.reasons == ["crashed", "python 0.5"]
    assert [record.getMessage() for record in caplog.records] == ["worker replaced: crashed"] * 2
    assert {record.levelno for record in caplog.records} == {logging.WARNING}


def test_reflection_is_served(running: Running) -> None:
    with grpc.insecure_channel(running.target) as channel:
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        request = reflection_pb2.ServerReflectionRequest(list_services="")
        [reply] = stub.ServerReflectionInfo(iter([request]), timeout=WAIT_SECONDS)
    names = {service.name for service in reply.list_services_response.service}
    assert {"wasmeval.v1.Evaluator", "grpc.health.v1.Health"} <= names


def test_an_unknown_method_is_unimplemented(running: Running) -> None:
    with grpc.insecure_channel(running.target) as channel, pytest.raises(grpc.RpcError) as caught:
        channel.unary_unary(f"/{wire.SERVICE}/Nothing")(b"", timeout=WAIT_SECONDS)
    call: Any = caught.value
    assert call.code() is grpc.StatusCode.UNIMPLEMENTED


def test_a_bug_is_internal_and_quotes_nothing(serving: Serving, caplog: pytest.LogCaptureFixture) -> None:
    with (
        serving(lambda job: RuntimeError(job.code.decode())) as server,
        Client(server.target) as client,
        caplog.at_level(logging.DEBUG),
    ):
        with pytest.raises(Internal, match="a bug of the service; its log says where"):
            client.evaluate("SECRET")
        assert client.runtimes()
    assert "internal error: RuntimeError" in caplog.text
    assert "service.py" in caplog.text
    assert "SECRET" not in caplog.text


def test_two_servers_on_one_port_fail(running: Running, serving: Serving) -> None:
    with pytest.raises(SetupError, match="the address is in use or not ours"), serving(listen=running.target):
        pass
    assert health_of(running.target) == SERVING


def test_two_servers_on_one_socket_fail(serving: Serving, tmp_path: Path) -> None:
    target = f"unix:{tmp_path}/socket"
    with serving(listen=target) as server:
        with pytest.raises(SetupError, match="is in use"), serving(listen=target):
            pass
        assert health_of(server.target) == SERVING
    with serving(listen=target) as server:
        assert health_of(server.target) == SERVING


@pytest.mark.parametrize(
    "listen",
    [
        "127.0.0.1:0",
        "127.9.9.9:1",
        "127.1:0",
        "[::1]:5",
        "[::ffff:127.0.0.1]:1",
        "localhost:0",
        "unix:/a",
        "unix-abstract:a",
    ],
)
def test_this_machine_is_allowed(listen: str) -> None:
    assert allowed(listen, insecure=False).is_local


@pytest.mark.parametrize(
    "listen",
    ["0.0.0.0:1", "0:1", ":1", "[::]:1", "[::ffff:0.0.0.0]:1", "10.0.0.1:1", "[fe80::1]:1", "192.0.2.1:0"],
)
def test_other_addresses_need_insecure(listen: str) -> None:
    with pytest.raises(InvalidArgument, match=r"^listen: .* can be reached from other machines.*--insecure"):
        allowed(listen, insecure=False)
    assert not allowed(listen, insecure=True).is_local


@pytest.mark.parametrize(
    "listen",
    [
        "",
        "localhost",
        "localhost:",
        "localhost:x",
        "localhost:65536",
        "localhost:-1",
        "::1:50051",
        "unix:",
        "unix://",
        "no.such.host.invalid:1",
        "dns:///localhost:1",
        "a..b:1",
        "localhost:\u0663",
    ],
)
def test_what_is_no_address_says_what_is(listen: str) -> None:
    with pytest.raises(InvalidArgument, match=r"^listen: .*use HOST:PORT, \[IPV6\]:PORT or unix:PATH"):
        allowed(listen, insecure=True)


def test_a_server_that_cannot_bind_leaves_nothing_behind(running: Running, serving: Serving) -> None:
    for _ in range(3):
        with pytest.raises(SetupError), serving(listen=running.target):
            pass
    with Client(running.target) as client:
        assert client.evaluate("1").ok
