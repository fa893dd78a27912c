"""Report: figures as JSON lines, rows as a table, and both in the README."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from bench.measure import Samples

README = Path(__file__).parent / "README.md"
_BEGIN, _END = "<!-- results -->", "<!-- /results -->"

_SCALES = {"ms": 1e3, "s": 1.0, "us": 1e6}


@dataclass(frozen=True, slots=True)
class Figure:
    """One number: what it is, its unit, and what else tells it from its like."""

    metric: str
    unit: str
    value: float
    dimensions: dict[str, str | int | float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table: what was measured, beside what, and what it should reach.

    `reached` is None where there is nothing to reach. `figures` are all the numbers behind it.
    """

    what: str
    measured: str
    beside: str = ""
    target: str = ""
    reached: bool | None = None
    figures: Sequence[Figure] = ()


def times(metric: str, samples: Samples, unit: str = "ms", **dimensions: str | int | float) -> list[Figure]:
    """The median and the 99th percentile of `samples`, as figures."""
    scale = _SCALES[unit]
    return [
        Figure(metric, unit, getattr(samples, name) * scale, {**dimensions, "quantile": name, "n": samples.n})
        for name in ("p50", "p99")
    ]


def ms(seconds: float) -> str:
    """Milliseconds for people: three significant digits, as many as such figures repeat to at the best."""
    return f"{number(seconds * 1e3)} ms"


def pair(samples: Samples) -> str:
    """Median and 99th percentile for people."""
    return f"{number(samples.p50 * 1e3)} / {number(samples.p99 * 1e3)} ms"


def number(value: float) -> str:
    """Three significant digits, never as a power of ten."""
    if not math.isfinite(value) or value == 0:
        return f"{value:g}"
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:,.{digits}f}"


def geometric_mean(values: Iterable[float]) -> float:
    """The mean of ratios that does not depend on which side is the divisor."""
    logs = [math.log(value) for value in values]
    return math.exp(sum(logs) / len(logs)) if logs else math.nan


def table(rows: Iterable[Row]) -> str:
    """The rows as Markdown."""
    lines = ["| what | measured | beside it, in the same run | to reach | reached |", "|---|---|---|---|---|"]
    for row in rows:
        reached = {None: "", True: "yes", False: "**no**"}[row.reached]
        cells = (row.what, row.measured, row.beside, row.target, reached)
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines)


def json_lines(rows: Iterable[Row], common: dict[str, str | int | float]) -> str:
    """Every figure of the rows, one JSON object a line; `common` goes into the dimensions of each."""
    return "".join(
        json.dumps(
            {
                "metric": figure.metric,
                "unit": figure.unit,
                "value": float(f"{figure.value:.6g}"),
                "dimensions": {**figure.dimensions, **common},
            }
        )
        + "\n"
        for row in rows
        for figure in row.figures
    )


def update_readme(rows: Sequence[Row], command: str, common: dict[str, str | int | float]) -> None:
    """Put the table between the README's markers, with command, machine, commit and date beside it."""
    text = README.read_text()
    head, begin, rest = text.partition(_BEGIN)
    _, end, tail = rest.partition(_END)
    if not (begin and end):
        raise ValueError(f"{README} has no {_BEGIN} ... {_END}")
    date = datetime.now(UTC).strftime("%Y-%m-%d")
    source = f"`{command}` on {date}, commit `{common['commit']}`: {common['machine']}."
    README.write_text(f"{head}{_BEGIN}\n{source}\n\n{table(rows)}\n{_END}{tail}")
