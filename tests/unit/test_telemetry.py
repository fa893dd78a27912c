"""Telemetry: one span and a few numbers for each evaluation, from closed sets, and no word of a guest."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import grpc
import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from tests.grpc.conftest import CATALOGUE, serve_scripted
from wasmeval import ErrorInfo, Limits, Result, SetupError, Status, Unavailable, Usage, wire
from wasmeval.model import Job, Request
from wasmeval.service import Service
from wasmeval.telemetry import SPAN, Attribute, Metric, Telemetry, set_up
from wasmeval.testing import Answer, ScriptedPool, hang
from wasmeval.v1 import wasmeval_pb2 as pb

SECRET = "S3CR3T"
REQUEST = Request(SECRET, "python", {SECRET: f'"{SECRET}"'.encode()})


class Recorded:
    """A telemetry that keeps what it is told."""

    def __init__(self) -> None:
        self._spans = InMemorySpanExporter()
        self._metrics = InMemoryMetricReader()
        tracers = TracerProvider(shutdown_on_exit=False)
        tracers.add_span_processor(SimpleSpanProcessor(self._spans))
        meters = MeterProvider([self._metrics], shutdown_on_exit=False)
        self.telemetry = Telemetry(tracers.get_tracer("test"), meters.get_meter("test"))

    @property
    def span(self) -> ReadableSpan:
        [span] = self._spans.get_finished_spans()
        return span

    @property
    def metrics(self) -> dict[str, Any]:
        data = self._metrics.get_metrics_data()
        assert data is not None
        found = data.resource_metrics[0].scope_metrics[0].metrics
        return {metric.name: metric.data.data_points for metric in found}

    def evaluate(self, script: Callable[[Job], Answer], carrier: dict[str, str] | None = None) -> Result:
        service = Service(ScriptedPool(script), CATALOGUE, telemetry=self.telemetry)
        return asyncio.run(service.evaluate(REQUEST, carrier))


def talkative(job: Job) -> Result:
    error = ErrorInfo(SECRET, SECRET, SECRET, 1)
    return Result(Status.ERROR, stdout=SECRET, stderr=SECRET * 2, error=error, usage=Usage(77, 0.25, 1024))


def test_an_evaluation_is_one_span_and_its_numbers() -> None:
    recorded = Recorded()
    recorded.evaluate(talkative)
    assert recorded.span.name == SPAN
    assert recorded.span.parent is None
    assert dict(recorded.span.attributes or {}) == {
        Attribute.RUNTIME: "python",
        Attribute.OUTCOME: "error",
        Attribute.CODE_BYTES: 6,
        Attribute.INPUTS_BYTES: 19,
        Attribute.VALUE_BYTES: 0,
        Attribute.STDOUT_CHARACTERS: 6,
        Attribute.STDERR_CHARACTERS: 12,
        Attribute.FUEL: 77,
        Attribute.WALL_SECONDS: 0.25,
        Attribute.PEAK_MEMORY_BYTES: 1024,
    }
    metrics = recorded.metrics
    [count] = metrics[Metric.EVALUATIONS]
    assert (count.value, count.attributes) == (1, {Attribute.RUNTIME: "python", Attribute.OUTCOME: "error"})
    assert metrics[Metric.FUEL][0].sum == 77
    assert metrics[Metric.DURATION][0].count == 1


def test_no_word_of_a_guest_is_reported() -> None:
    recorded = Recorded()
    recorded.evaluate(talkative)
    assert SECRET not in recorded.span.to_json()
    assert SECRET not in str(recorded.metrics)


def test_a_service_error_is_an_outcome_without_its_message() -> None:
    recorded = Recorded()
    with pytest.raises(Unavailable):
        recorded.evaluate(lambda job: Unavailable(SECRET))
    assert dict(recorded.span.attributes or {})[Attribute.OUTCOME] == "Unavailable"
    assert SECRET not in recorded.span.to_json()


def test_a_caller_that_goes_away_is_an_outcome() -> None:
    recorded = Recorded()

    async def main() -> None:
        service = Service(ScriptedPool(lambda job: hang()), CATALOGUE, telemetry=recorded.telemetry)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(service.evaluate(REQUEST), 0.05)

    asyncio.run(main())
    assert dict(recorded.span.attributes or {})[Attribute.OUTCOME] == "CancelledError"


def test_the_caller_s_trace_is_the_parent() -> None:
    recorded = Recorded()
    recorded.evaluate(talkative, {"traceparent": f"00-{'1' * 32}-{'2' * 16}-01"})
    assert recorded.span.parent is not None
    assert (recorded.span.parent.trace_id, recorded.span.parent.span_id) == (
        int("1" * 32, 16),
        int("2" * 16, 16),
    )
    for nonsense in ({"traceparent": "x"}, {}):
        other = Recorded()
        other.evaluate(talkative, nonsense)
        assert other.span.parent is None


def test_the_pool_s_numbers_are_metrics() -> None:
    recorded = Recorded()
    recorded.telemetry.queue_wait("python", 0.5)
    recorded.telemetry.worker_restarted("crashed")
    recorded.telemetry.watch_workers(lambda: 3)
    metrics = recorded.metrics
    assert metrics[Metric.QUEUE_WAIT][0].sum == 0.5
    assert metrics[Metric.RESTARTS][0].attributes == {Attribute.REASON: "crashed"}
    assert metrics[Metric.WORKERS][0].value == 3


@pytest.mark.parametrize("environ", [{}, {"OTEL_TRACES_EXPORTER": "none"}, {"OTEL_SERVICE_NAME": "x"}])
def test_nothing_is_set_up_when_nothing_is_asked_for(environ: dict[str, str]) -> None:
    assert set_up(environ) is None
    assert set_up({"OTEL_SDK_DISABLED": "true", "OTEL_TRACES_EXPORTER": "console"}) is None


def test_an_unknown_exporter_is_refused() -> None:
    with pytest.raises(SetupError, match="OTEL_METRICS_EXPORTER='zipkin' is not known here"):
        set_up({"OTEL_METRICS_EXPORTER": "zipkin"})


def test_the_console_exporter_prints_spans_and_metrics() -> None:
    script = (
        "import os\nfrom wasmeval.telemetry import set_up\nfrom wasmeval.model import *\nfrom wasmeval import Limits\n"
        "t = set_up(os.environ)\no = t.started(Job('python', b'1', b'', Limits()))\n"
        "o.ended(Result(Status.OK))\nt.close()\n"
    )
    environ = {
        "OTEL_TRACES_EXPORTER": "console",
        "OTEL_METRICS_EXPORTER": "console",
        "PYTHONPATH": ":".join(sys.path),
    }
    done = subprocess.run(
        [sys.executable, "-c", script], env=environ, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    span, _ = json.JSONDecoder().raw_decode(done.stdout)
    assert span["name"] == SPAN
    assert span["resource"]["attributes"]["service.name"] == "wasmeval"
    assert Metric.EVALUATIONS in done.stdout


def test_without_telemetry_nothing_of_it_is_imported() -> None:
    script = (
        "import sys, wasmeval.service, wasmeval.telemetry as t\nassert t.set_up({}) is None\n"
        "print([name for name in sys.modules if name.startswith('opentelemetry')])"
    )
    environ = {"PYTHONPATH": ":".join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environ, capture_output=True, text=True, timeout=60
    )
    assert done.stdout == "[]\n", done.stderr


def test_limits_are_no_attribute() -> None:
    assert not [attribute for attribute in Attribute if "limit" in attribute]
    assert Limits().fuel is None


def test_the_trace_context_comes_with_the_call() -> None:
    recorded = Recorded()
    with (
        serve_scripted(telemetry=recorded.telemetry) as server,
        grpc.insecure_channel(server.target) as channel,
    ):
        request = pb.EvaluateRequest(code="1", language="python").SerializeToString()
        metadata = (("traceparent", f"00-{'1' * 32}-{'2' * 16}-01"), ("some-bin", b"\xff"))
        channel.unary_unary(wire.EVALUATE)(request, timeout=30, metadata=metadata)
        server.wait_until(recorded._spans.get_finished_spans)
    assert recorded.span.parent is not None
    assert recorded.span.parent.span_id == int("2" * 16, 16)


def test_disabled_wins_over_an_exporter_that_is_not_known() -> None:
    assert set_up({"OTEL_SDK_DISABLED": "True", "OTEL_TRACES_EXPORTER": "zipkin"}) is None
