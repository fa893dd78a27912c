"""One unary evaluation beside an empty call of the same server, one at a time."""

from __future__ import annotations

from collections.abc import Iterator

from bench.measure import Samples, Turn, in_turns, timed
from bench.report import Figure, Row, number, pair, times
from bench.rows.names import RUNTIMES
from bench.serving import serving
from bench.settings import Settings
from wasmeval import Client

_TARGETS = {"python": 1.6, "javascript": 1.5}


def rows(settings: Settings) -> Iterator[Row]:
    """For each runtime: the bare call and `Client.evaluate`, each against the empty call."""
    with serving(settings.workers) as service, Client(service.target) as client:
        turns = {"empty": Turn(timed(service.empty()))}
        for runtime in RUNTIMES:
            turns[f"bare {runtime}"] = Turn(timed(service.bare(runtime)))
            turns[f"client {runtime}"] = Turn(
                timed(lambda language=runtime: client.evaluate("1+1", language=language))  # type: ignore[misc]
            )
        samples = in_turns(turns, settings.of(40, 3))
    empty = samples["empty"]
    floor = times("grpc_empty_call", empty)
    for runtime, name in RUNTIMES.items():
        bare, client_side = samples[f"bare {runtime}"], samples[f"client {runtime}"]
        target = _TARGETS[runtime]
        yield Row(
            f"gRPC `1+1`, fresh {name} instance, p50 / p99",
            f"{pair(bare)}: **{number(bare.p50 / empty.p50)}x** the empty call",
            f"empty call {pair(empty)}",
            f"<= {target}x",
            bare.p50 / empty.p50 <= target,
            [*floor, *_figures("grpc_evaluate", runtime, bare, empty)],
        )
        yield Row(
            f"the same through `Client.evaluate`, {name}",
            f"{pair(client_side)}: {number(client_side.p50 / empty.p50)}x the empty call",
            f"empty call {pair(empty)}",
            figures=_figures("grpc_client_evaluate", runtime, client_side, empty),
        )
        floor = []


def _figures(metric: str, runtime: str, samples: Samples, empty: Samples) -> list[Figure]:
    ratio = Figure(
        f"{metric}_ratio", "ratio", samples.p50 / empty.p50, {"runtime": runtime, "peer": "empty call"}
    )
    return [*times(metric, samples, runtime=runtime), ratio]
