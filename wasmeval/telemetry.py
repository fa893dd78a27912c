"""Telemetry: the spans and metrics of a service, by OpenTelemetry; nothing at all when none is configured.

Names and attributes are the closed sets below. No code, input, output, name or message of a guest is ever
among them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from enum import StrEnum
from importlib import import_module
from typing import TYPE_CHECKING, Any

from wasmeval.errors import SetupError
from wasmeval.grants import HttpUse
from wasmeval.model import Job, Result

if TYPE_CHECKING:
    from opentelemetry.metrics import Meter
    from opentelemetry.trace import Span, Tracer

SPAN = "wasmeval.evaluate"

_Attributes = dict[str, str | int | float]


class Metric(StrEnum):
    """Every metric, with its unit."""

    EVALUATIONS = "wasmeval.evaluations"
    """{evaluation}: how many ended, by runtime and outcome."""
    DURATION = "wasmeval.evaluation.duration"
    """s: from acceptance to result, queueing included, by runtime and outcome."""
    FUEL = "wasmeval.evaluation.fuel"
    """{fuel}: spent by one evaluation, by runtime."""
    QUEUE_WAIT = "wasmeval.queue.wait"
    """s: from acceptance to the guest's start, by runtime."""
    TOOL_CALLS = "wasmeval.tool_calls"
    """{call}: calls of tools that snippets began, by runtime."""
    HTTP_REQUESTS = "wasmeval.http.requests"
    """{request}: HTTP requests that snippets asked for, by runtime and outcome: `sent`, `failed` or `refused`."""
    HTTP_BYTES = "wasmeval.http.bytes"
    """By: sent and received for snippets, by runtime and direction."""
    WORKERS = "wasmeval.workers"
    """{worker}: alive now."""
    RESTARTS = "wasmeval.worker.restarts"
    """{restart}: workers replaced, by reason."""


class Attribute(StrEnum):
    """Every attribute of a span or metric."""

    RUNTIME = "wasmeval.runtime"
    OUTCOME = "wasmeval.status"
    """A `Status`, or the name of the service error in its place."""
    REASON = "wasmeval.reason"
    DIRECTION = "wasmeval.direction"
    """`sent` or `received`."""
    FUEL = "wasmeval.fuel"
    WALL_SECONDS = "wasmeval.wall_seconds"
    PEAK_MEMORY_BYTES = "wasmeval.peak_memory_bytes"
    CODE_BYTES = "wasmeval.code_bytes"
    INPUTS_BYTES = "wasmeval.inputs_bytes"
    VALUE_BYTES = "wasmeval.value_bytes"
    STDOUT_CHARACTERS = "wasmeval.stdout_characters"
    STDERR_CHARACTERS = "wasmeval.stderr_characters"


class Observation:
    """One evaluation under way: ended exactly once, by `ended` or `failed`."""

    def __init__(self, telemetry: Telemetry, runtime: str, span: Span) -> None:
        self._telemetry = telemetry
        self._runtime = runtime
        self._span = span
        self._started = telemetry.clock()

    def ended(self, result: Result) -> None:
        """The evaluation gave `result`."""
        if result.moved:
            # What began in Wasm counts where it ended.
            self._runtime = result.runtime
            self._span.set_attribute(Attribute.RUNTIME, self._runtime)
        self._span.set_attributes(
            {
                Attribute.FUEL: result.usage.fuel,
                Attribute.WALL_SECONDS: result.usage.wall_seconds,
                Attribute.PEAK_MEMORY_BYTES: result.usage.peak_memory_bytes,
                Attribute.VALUE_BYTES: result.value_bytes,
                Attribute.STDOUT_CHARACTERS: len(result.stdout),
                Attribute.STDERR_CHARACTERS: len(result.stderr),
            }
        )
        if result.tier != "vm":
            self._telemetry.fuel.record(result.usage.fuel, {Attribute.RUNTIME: self._runtime})
        if result.usage.tool_calls:
            self._telemetry.tool_calls.add(result.usage.tool_calls, {Attribute.RUNTIME: self._runtime})
        for use in result.http:
            self._telemetry.http_used(self._runtime, use)
        self._end(result.status.value)

    def failed(self, error: BaseException) -> None:
        """The service failed, or the caller went away (`CancelledError`). Only the class of `error` is kept."""
        from opentelemetry.trace import StatusCode

        self._span.set_status(StatusCode.ERROR)
        self._end(type(error).__name__)

    def _end(self, outcome: str) -> None:
        labels: _Attributes = {Attribute.RUNTIME: self._runtime, Attribute.OUTCOME: outcome}
        self._telemetry.evaluations.add(1, labels)
        self._telemetry.duration.record(self._telemetry.clock() - self._started, labels)
        self._span.set_attribute(Attribute.OUTCOME, outcome)
        self._span.end()


class Telemetry:
    """Where a service reports to; also the pool's observer. `close` sends what is left."""

    def __init__(
        self,
        tracer: Tracer,
        meter: Meter,
        *,
        close: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.clock = clock
        self.close = close
        self._tracer = tracer
        self._meter = meter
        self.evaluations = meter.create_counter(Metric.EVALUATIONS, "{evaluation}")
        self.duration = meter.create_histogram(Metric.DURATION, "s")
        self.fuel = meter.create_histogram(Metric.FUEL, "{fuel}")
        self.tool_calls = meter.create_counter(Metric.TOOL_CALLS, "{call}")
        self._http_requests = meter.create_counter(Metric.HTTP_REQUESTS, "{request}")
        self._http_bytes = meter.create_counter(Metric.HTTP_BYTES, "By")
        self._queue_wait = meter.create_histogram(Metric.QUEUE_WAIT, "s")
        self._restarts = meter.create_counter(Metric.RESTARTS, "{restart}")

    def started(self, job: Job, carrier: Mapping[str, str] | None = None) -> Observation:
        """Begins the span of `job`, under the W3C trace context in `carrier` (RPC metadata) if there is one."""
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        parent = TraceContextTextMapPropagator().extract(carrier) if carrier else None
        attributes: _Attributes = {
            Attribute.RUNTIME: job.runtime,
            Attribute.CODE_BYTES: len(job.code),
            Attribute.INPUTS_BYTES: job.inputs_bytes,
        }
        return Observation(
            self, job.runtime, self._tracer.start_span(SPAN, context=parent, attributes=attributes)
        )

    def http_used(self, runtime: str, use: HttpUse) -> None:
        """A snippet sent an HTTP request, or wanted to. Where to is nobody's business here."""
        outcome = "refused" if not use.allowed else "sent" if use.status else "failed"
        self._http_requests.add(1, {Attribute.RUNTIME: runtime, Attribute.OUTCOME: outcome})
        for direction, size in (("sent", use.sent_bytes), ("received", use.received_bytes)):
            self._http_bytes.add(size, {Attribute.RUNTIME: runtime, Attribute.DIRECTION: direction})

    def queue_wait(self, runtime: str, seconds: float) -> None:
        """An evaluation left the queue."""
        self._queue_wait.record(seconds, {Attribute.RUNTIME: runtime})

    def worker_restarted(self, reason: str) -> None:
        """A worker was replaced; `reason` is one of the pool's closed set."""
        self._restarts.add(1, {Attribute.REASON: reason})

    def watch_workers(self, count: Callable[[], int]) -> None:
        """From now on the number of workers is read from `count`."""
        from opentelemetry.metrics import CallbackOptions, Observation

        def observe(_: CallbackOptions) -> Iterable[Observation]:
            return [Observation(count())]

        self._meter.create_observable_gauge(Metric.WORKERS, [observe], "{worker}")


def set_up(environ: Mapping[str, str]) -> Telemetry | None:
    """The telemetry that the standard `OTEL_*` variables ask for; None, with nothing imported, for none.

    Exporters: `console`, and `otlp` (gRPC, with `pip install wasmeval[otlp]`, or HTTP by its own package). An
    endpoint means `otlp`. Raises SetupError when the exporter is not there or not known.
    """
    if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return None
    traces, metrics = (_exporter(environ, signal) for signal in ("TRACES", "METRICS"))
    if (traces, metrics) == ("none", "none"):
        return None
    try:
        from opentelemetry.sdk.metrics import MeterProvider
        from opentelemetry.sdk.resources import SERVICE_NAME, Resource
        from opentelemetry.sdk.trace import TracerProvider
    except ImportError as error:
        raise SetupError("OTEL_* asks for telemetry: pip install 'wasmeval[otlp]', or unset it") from error
    from wasmeval import __version__

    named = Resource({SERVICE_NAME: "wasmeval"}).merge(Resource.create())
    resource = named if "OTEL_SERVICE_NAME" in environ else Resource.create({SERVICE_NAME: "wasmeval"})
    tracers = TracerProvider(resource=resource, shutdown_on_exit=False)
    for processor in _span_processors(environ, traces):
        tracers.add_span_processor(processor)
    meters = MeterProvider(
        metric_readers=_metric_readers(environ, metrics), resource=resource, shutdown_on_exit=False
    )

    def close() -> None:
        tracers.shutdown()
        meters.shutdown()

    return Telemetry(
        tracers.get_tracer("wasmeval", __version__), meters.get_meter("wasmeval", __version__), close=close
    )


def _exporter(environ: Mapping[str, str], signal: str) -> str:
    endpoints = "OTEL_EXPORTER_OTLP_ENDPOINT", f"OTEL_EXPORTER_OTLP_{signal}_ENDPOINT"
    default = "otlp" if any(environ.get(name) for name in endpoints) else "none"
    name = environ.get(f"OTEL_{signal}_EXPORTER", "").strip().lower() or default
    if name not in ("none", "console", "otlp"):
        raise SetupError(f"OTEL_{signal}_EXPORTER={name!r} is not known here; use otlp, console or none")
    return name


def _span_processors(environ: Mapping[str, str], exporter: str) -> list[Any]:
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter

    if exporter == "none":
        return []
    return [BatchSpanProcessor(ConsoleSpanExporter() if exporter == "console" else _otlp(environ, "TRACES"))]


def _metric_readers(environ: Mapping[str, str], exporter: str) -> list[Any]:
    from opentelemetry.sdk.metrics.export import ConsoleMetricExporter, PeriodicExportingMetricReader

    if exporter == "none":
        return []
    return [
        PeriodicExportingMetricReader(
            ConsoleMetricExporter() if exporter == "console" else _otlp(environ, "METRICS")
        )
    ]


def _otlp(environ: Mapping[str, str], signal: str) -> Any:
    """The OTLP exporter of one signal; it reads its endpoint and headers from the environment itself."""
    names = f"OTEL_EXPORTER_OTLP_{signal}_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"
    protocol = next((environ[name] for name in names if environ.get(name)), "grpc")
    module, name = {"TRACES": ("trace", "OTLPSpanExporter"), "METRICS": ("metric", "OTLPMetricExporter")}[
        signal
    ]
    package = "opentelemetry.exporter.otlp.proto." + ("grpc" if protocol == "grpc" else "http")
    try:
        return getattr(import_module(f"{package}.{module}_exporter"), name)()
    except ImportError as error:
        raise SetupError(
            f"OTEL_* asks for OTLP over {protocol}: pip install 'wasmeval[otlp]', or unset it"
        ) from error
