"""Files into an evaluation and back, one megabyte and a hundred."""

from __future__ import annotations

from collections.abc import Iterator

from bench.measure import Turn, in_turns, timed
from bench.report import Row, number, pair, times
from bench.serving import serving
from bench.settings import Settings
from wasmeval import Client, Evaluator, Limits

_MB = 10**6
_ROOMY = Limits(workspace_bytes=512 << 20)


def rows(settings: Settings) -> Iterator[Row]:
    """A file in, renamed, and out again: over gRPC and embedded."""
    with serving(1) as service, Client(service.target) as client, Evaluator(workers=1) as evaluator:
        for size, count, rounds in ((1, 10, settings.of(10, 2)), (100, 1, settings.of(5, 1))):
            content = bytes(range(256)) * (size * _MB // 256)
            turns = {
                "gRPC": Turn(timed(lambda: _carry(client, content)), count, 1),  # noqa: B023
                "embedded": Turn(timed(lambda: _carry(evaluator, content)), count, 1),  # noqa: B023
                "empty": Turn(timed(lambda: _carry(client, b"")), count, 1),
            }
            samples = in_turns(turns, rounds)
            grpc, embedded, empty = samples["gRPC"], samples["embedded"], samples["empty"]
            yield Row(
                f"{size} MB in and out of one evaluation through `Client`, p50 / p99",
                f"**{pair(grpc)}**: {number(2 * size / grpc.p50)} MB/s",
                f"embedded {pair(embedded)}; an empty file {pair(empty)}",
                figures=[
                    *times("files", grpc, size_mb=size),
                    *times("files", embedded, size_mb=size, peer="embedded"),
                    *times("files", empty, size_mb=0),
                ],
            )


def _carry(where: Client | Evaluator, content: bytes) -> None:
    result = where.evaluate(
        "import os; os.rename('in', 'out')", files={"in": content}, outputs=["out"], limits=_ROOMY
    )
    result.raise_for_status()
    if result.files["out"].size != len(content):
        raise RuntimeError("the file that came back has another size")
