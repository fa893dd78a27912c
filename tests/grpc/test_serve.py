"""`serve` as a process: what it announces, and how signals end it."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
from grpc_health.v1.health_pb2 import HealthCheckResponse

from tests.grpc.conftest import WAIT_SECONDS
from tests.grpc.test_stopping import health_of
from wasmeval import Client, ServiceError, Status


@contextmanager
def process(grace_seconds: float) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A running server and its target; killed in the end if it has not ended by itself."""
    command = [sys.executable, "-m", "tests.grpc.scripted_server", str(grace_seconds)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            first = server.stdout.readline()
            assert first.startswith("listening on 127.0.0.1:")
            yield server, first.split()[2]
        finally:
            if server.poll() is None:
                server.kill()


def lines_until(server: subprocess.Popen[str], word: str) -> list[str]:
    """What it prints up to the line with `word`."""
    assert server.stdout is not None
    lines: list[str] = []
    while not lines or word not in lines[-1]:
        line = server.stdout.readline()
        assert line, f"ended before {word!r}: {lines}"
        lines.append(line)
    return lines


def test_it_announces_what_is_in_force() -> None:
    with process(10) as (server, _):
        text = "".join(lines_until(server, "WITHOUT"))
    assert "runtimes: javascript 1.2, python 1.2\n" in text
    assert "limits by default: 100,000,000,000 fuel, 10 s, 256 MiB of memory, 1 MiB of each output\n" in text
    assert text.endswith("jail: scripted\njail: WITHOUT real: no guest runs here\n")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_what_runs_end(number: signal.Signals) -> None:
    with (
        process(WAIT_SECONDS) as (server, target),
        Client(target) as client,
        ThreadPoolExecutor() as executor,
    ):
        call = executor.submit(client.evaluate, "0.3")
        lines_until(server, "running")
        server.send_signal(number)
        assert call.result(WAIT_SECONDS).status is Status.OK
        lines_until(server, "stopped")
        assert server.wait(WAIT_SECONDS) == 0


def test_what_outlives_the_grace_is_answered() -> None:
    with process(0.1) as (server, target), Client(target) as client, ThreadPoolExecutor() as executor:
        call = executor.submit(client.evaluate, "1000")
        lines_until(server, "running")
        server.send_signal(signal.SIGTERM)
        assert call.result(WAIT_SECONDS).status is Status.CANCELLED
        assert server.wait(WAIT_SECONDS) == 0


def test_a_second_signal_ends_at_once() -> None:
    with process(1000) as (server, target), Client(target) as client, ThreadPoolExecutor() as executor:
        call = executor.submit(client.evaluate, "1000", timeout=WAIT_SECONDS)
        lines_until(server, "running")
        server.send_signal(signal.SIGTERM)
        lines_until(server, "draining")
        server.send_signal(signal.SIGTERM)
        assert server.wait(WAIT_SECONDS) == 0
        client.close()
        assert isinstance(call.exception(WAIT_SECONDS), ServiceError)


def test_whoever_read_its_output_may_go_away() -> None:
    with process(WAIT_SECONDS) as (server, target), Client(target) as client:
        assert server.stdout is not None
        server.stdout.close()
        assert client.evaluate("0").ok
        with ThreadPoolExecutor() as executor:
            call = executor.submit(client.evaluate, "0.5")
            time.sleep(0.2)
            server.send_signal(signal.SIGTERM)
            assert call.result(WAIT_SECONDS).status is Status.OK
        # 120 is Python's own word for output that nobody took.
        assert server.wait(WAIT_SECONDS) in (0, 120)


def test_health_says_when_no_worker_can_be_started_and_when_one_can_again() -> None:
    with process(0.1) as (_, target), Client(target) as client:
        for code, status in (("sick", "NOT_SERVING"), ("well", "SERVING")):
            assert client.evaluate(code).ok
            end = time.monotonic() + WAIT_SECONDS
            while health_of(target) != HealthCheckResponse.ServingStatus.Value(status):
                assert time.monotonic() < end
                time.sleep(0.05)
