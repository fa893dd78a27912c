"""NumPy: operations in a fresh instance beside native NumPy on one thread, and arrays through the service."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from statistics import median
from typing import Any

from bench.measure import Samples, Turn, in_turns, timed
from bench.report import Figure, Row, ms, number, times
from bench.serving import serving
from bench.settings import Settings, say
from wasmeval import Array, Client, Evaluation, Evaluator, Limits, wire
from wasmeval.requests import request_of

# Each with how many times native NumPy's time it may take.
_OPERATIONS: dict[str, tuple[str, str, float | None]] = {
    "sum of 1e6": ("a = r.random(10**6)", "a.sum()", 2),
    "cumsum of 1e6": ("a = r.random(10**6)", "a.cumsum()", 2),
    "sin of 1e6": ("a = r.random(10**6)", "np.sin(a)", 2),
    "exp of 1e6": ("a = r.random(10**6)", "np.exp(a)", 5),
    "rfft of 1e6": ("a = r.random(10**6)", "np.fft.rfft(a)", 2),
    "sort of 1e6": ("a = r.random(10**6)", "np.sort(a)", 6),
    "add, 1e6": ("a, b = r.random(10**6), r.random(10**6)", "a + b", 2),
    "multiply, 1e4": ("a, b = r.random(10**4), r.random(10**4)", "a * b", 2),
    "divide, 1e6": ("a, b = r.random(10**6), r.random(10**6)", "a / b", 2),
    "sqrt, 1e4": ("a = r.random(10**4)", "np.sqrt(a)", 2),
    "compare, 1e6": ("a, b = r.random(10**6), r.random(10**6)", "a < b", 2),
    "matmul 256": ("a, b = r.random((256, 256)), r.random((256, 256))", "a @ b", 5),
    "solve 200": ("a, b = r.random((200, 200)), r.random(200)", "np.linalg.solve(a, b)", 5),
    "argsort of 1e5": ("a = r.random(10**5)", "np.argsort(a)", None),
    "mean and std, 1e6": ("a = r.random(10**6)", "a.mean(), a.std()", None),
    "a[a > 0.5], 1e6": ("a = r.random(10**6)", "a[a > 0.5]", None),
}

_MADE = """
import time
import numpy as np
r = np.random.default_rng(1)
{setup}
"""
_TIMED = (
    _MADE
    + """
taken = []
for _ in range({count}):
    start = time.perf_counter()
    {code}
    taken.append(time.perf_counter() - start)
taken
"""
)
_BESIDE_IGNORING = (
    _MADE
    + """
taken = {{"warn": [], "ignore": []}}
for _ in range({count}):
    for errors, each in taken.items():
        with np.errstate(all=errors):
            start = time.perf_counter()
            {code}
            each.append(time.perf_counter() - start)
taken
"""
)
_NATIVE = """
import json, sys
for line in sys.stdin:
    names = {}
    exec(json.loads(line), names)
    print(json.dumps(names["taken"]), flush=True)
"""
_ONE_THREAD = {f"{name}_NUM_THREADS": "1" for name in ("OPENBLAS", "OMP", "MKL")}
_ROOMY = Limits(fuel=10**12, deadline_seconds=60, memory_bytes=1 << 30)

# Each beside itself under `np.errstate(all="ignore")`.
_WATCHED: dict[str, tuple[str, str]] = {
    "add, 1e6": ("a, b = r.random(10**6), r.random(10**6)", "a + b"),
    "multiply, 1e4": ("a, b = r.random(10**4), r.random(10**4)", "a * b"),
    "add in place, 1e6": ("a, b = r.random(10**6), r.random(10**6)", "np.add(a, b, out=a)"),
    "divide, 1e4": ("a, b = r.random(10**4), r.random(10**4)", "a / b"),
    "exp, 1e5": ("a = r.random(10**5)", "np.exp(a)"),
    "power, 1e5": ("a = r.random(10**5)", "a**1.5"),
    "complex multiply, 1e5": ("a = r.random(10**5) + 1j", "a * a"),
    "sum(axis=0), 1000 x 1000": ("a = r.random((1000, 1000))", "a.sum(axis=0)"),
}
_MOST_FOR_ERRORS = 1.1
"""As often its time without looking for errors an operation may take."""

_SMALL = {
    "1+1": "1+1",
    "numpy.arange(10).sum()": "import numpy\nnumpy.arange(10).sum()",
    "numpy.random.rand()": "import numpy\nnumpy.random.rand()",
}
_MEGABYTE = 131_072
_LIMIT_SECONDS = 3e-3


def rows(settings: Settings) -> Iterator[Row]:
    """All of them; those beside native NumPy when it is installed."""
    with Evaluator(workers=1, ceilings=_ROOMY) as evaluator:
        yield from _small(evaluator, settings)
        yield from _operations(evaluator, settings)
        yield from _watched(evaluator, settings)
    yield _arrays(settings)


def _small(evaluator: Evaluator, settings: Settings) -> Iterator[Row]:
    taken = {name: Samples() for name in _SMALL}
    for _ in range(settings.of(20, 3)):
        for name, code in _SMALL.items():
            taken[name].seconds += timed(lambda code=code: evaluator.evaluate(code))(settings.of(50, 10))  # type: ignore[misc]
    plain, numpy, drawn = taken.values()
    yield Row(
        "NumPy: `numpy.arange(10).sum()` in a fresh instance, embedded, p50",
        f"**{ms(numpy.p50)}**",
        f"`1+1` {ms(plain.p50)}, `numpy.random.rand()` {ms(drawn.p50)}",
        "",
        None,
        [Figure("numpy_small", "ms", each.p50 * 1e3, {"code": name}) for name, each in taken.items()],
    )


def _operations(evaluator: Evaluator, settings: Settings) -> Iterator[Row]:
    environment = {**os.environ, **_ONE_THREAD}
    if subprocess.run([sys.executable, "-c", "import numpy"], check=False, capture_output=True).returncode:
        say("numpy: native NumPy is not installed: nothing to compare with")
        return
    with subprocess.Popen(
        [sys.executable, "-c", _NATIVE],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    ) as native:
        for name, (setup, code, target) in _OPERATIONS.items():
            snippet = _TIMED.format(setup=setup, code=code, count=settings.of(15, 3))
            ratios, ours, theirs = [], [], []
            for _ in range(settings.of(5, 1)):
                theirs.append(median(_asked(native, snippet)))
                result = evaluator.evaluate(snippet, limits=_ROOMY)
                result.raise_for_status()
                ours.append(median(result.value))
                ratios.append(ours[-1] / theirs[-1])
            ratio = median(ratios)
            say(f"  {name}: {ratio:.2f}x")
            yield Row(
                f"NumPy: {name}, float64, beside native NumPy on one thread",
                f"**{number(ratio)}x** ({ms(median(ours))})",
                f"native {ms(median(theirs))}",
                f"<= {target:g}x" if target else "",
                ratio <= target if target else None,
                [Figure("numpy_ratio", "ratio", ratio, {"operation": name})],
            )


def _watched(evaluator: Evaluator, settings: Settings) -> Iterator[Row]:
    """What looking for floating-point errors costs."""
    for name, (setup, code) in _WATCHED.items():
        snippet = _BESIDE_IGNORING.format(setup=setup, code=code, count=settings.of(60, 5))
        ratios = []
        for _ in range(settings.of(5, 1)):
            result = evaluator.evaluate(snippet, limits=_ROOMY)
            result.raise_for_status()
            ratios.append(median(result.value["warn"]) / median(result.value["ignore"]))
        ratio = median(ratios)
        say(f"  {name}: {ratio:.2f}x with errstate")
        yield Row(
            f"NumPy: {name}, float64, with errstate on beside all=ignore",
            f"**{number(ratio)}x**",
            "",
            f"<= {_MOST_FOR_ERRORS:g}x",
            ratio <= _MOST_FOR_ERRORS,
            [Figure("numpy_errstate", "ratio", ratio, {"operation": name})],
        )


def _asked(native: subprocess.Popen[str], snippet: str) -> list[float]:
    assert native.stdin is not None
    assert native.stdout is not None
    native.stdin.write(json.dumps(snippet) + "\n")
    native.stdin.flush()
    taken: list[float] = json.loads(native.stdout.readline())
    return taken


def _arrays(settings: Settings) -> Row:
    """A megabyte of float64 there and back, beside an RPC that gives back as many bytes and does nothing else, and an
    evaluation with nothing to carry."""
    given: dict[str, Any] = {"x": Array("<f8", (_MEGABYTE,), bytes(8 * _MEGABYTE))}
    limits = Limits(output_bytes=4 << 20)
    request = request_of(Evaluation("x", inputs=given, limits=limits))
    with serving(settings.workers) as service, Client(service.target) as client:
        subjects = {
            "numpy_arrays": lambda: client.evaluate("x", inputs=given, limits=limits).raise_for_status(),
            "numpy_arrays_rpc": service.returned(wire.serialize_request(request)),
            "numpy_arrays_empty": lambda: client.evaluate("0"),
        }
        turns = {name: Turn(timed(subject), settings.of(20, 5)) for name, subject in subjects.items()}
        samples = in_turns(turns, settings.of(20, 3))
    carried, rpc, empty = samples.values()
    beyond = carried.p50 - rpc.p50
    return Row(
        "NumPy: 1 MB of float64 in and out over gRPC, beyond a bare RPC with as many bytes both ways, p50",
        f"**{ms(beyond)}**; beyond an empty evaluation {ms(carried.p50 - empty.p50)}",
        f"whole call {ms(carried.p50)}, the bare RPC {ms(rpc.p50)}, an empty evaluation {ms(empty.p50)}",
        f"<= {ms(_LIMIT_SECONDS)}",
        beyond <= _LIMIT_SECONDS,
        [figure for name, each in samples.items() for figure in times(name, each)],
    )
