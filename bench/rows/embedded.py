"""`Evaluator.evaluate("1+1")` in a fresh instance, back to back and at a steady pace, beside all others that could."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial

from bench import peers
from bench.companion import Failed
from bench.measure import Turn, in_turns, paced, timed
from bench.report import Row, ms, pair, times
from bench.rows.names import RUNTIMES
from bench.settings import Settings, say
from wasmeval import Evaluator

_TARGETS = {"python": 0.20e-3, "javascript": 0.15e-3}
_RATE = 300.0


def rows(settings: Settings) -> Iterator[Row]:
    """Ours for each runtime, then each peer."""
    with ExitStack() as stack:
        evaluator = stack.enter_context(Evaluator(settings.workers))
        turns: dict[str, Turn] = {}
        for runtime in RUNTIMES:
            call = partial(evaluator.evaluate, "1+1", language=runtime)
            call().raise_for_status()
            turns[runtime] = Turn(timed(call))
            turns[f"{runtime} paced"] = Turn(paced(call, _RATE))
        missing: dict[str, str] = {}
        for name, start in _PEERS.items():
            try:
                label, turn = start(stack, settings)
                turn.subject(1)
                turns[label] = turn
            except (peers.NotInstalled, Failed) as reason:
                missing[name] = str(reason)
                say(f"  {name}: {reason}")
        samples = in_turns(turns, settings.of(24, 2))
    for runtime, name in RUNTIMES.items():
        back_to_back, steady = samples[runtime], samples[f"{runtime} paced"]
        yield Row(
            f"embedded `1+1`, fresh {name} instance, p50 / p99",
            f"**{pair(back_to_back)}**",
            f"at {_RATE:g} a second: {pair(steady)}",
            f"p50 <= {ms(_TARGETS[runtime])}",
            back_to_back.p50 <= _TARGETS[runtime],
            [
                *times("embedded_evaluate", back_to_back, runtime=runtime, pace="back to back"),
                *times("embedded_evaluate", steady, runtime=runtime, pace=f"{_RATE:g} a second"),
            ],
        )
    ours = {*RUNTIMES, *(f"{runtime} paced" for runtime in RUNTIMES)}
    for label in (label for label in turns if label not in ours):
        yield Row(
            f"peer: `1+1` by {label}", pair(samples[label]), figures=times("peer", samples[label], peer=label)
        )
    for name, how in missing.items():
        yield Row(f"peer: `1+1` by {name}", f"not installed: {how}")


def _monty(stack: ExitStack, _settings: Settings) -> tuple[str, Turn]:
    evaluate = stack.enter_context(peers.monty())
    return "Pydantic Monty (subset of Python), warm pool, fresh session", Turn(
        timed(partial(evaluate, "1+1"))
    )


def _process(_stack: ExitStack, _settings: Settings) -> tuple[str, Turn]:
    return "`python -I -c`, a process each", Turn(timed(partial(peers.python_process, "1+1")), 4, 0)


def _naive(stack: ExitStack, settings: Settings) -> tuple[str, Turn]:
    kind, companion = peers.wasi_python(settings.wasi_python)
    stack.enter_context(companion)
    code = "print(1+1)" if kind == "python.wasm" else "1+1"
    return f"plain wasmtime-py, {kind}, fresh instance", Turn(companion.subject(code=code), 5, 1)


def _node(stack: ExitStack, _settings: Settings) -> tuple[str, Turn]:
    companion = stack.enter_context(peers.node())
    return "node's vm (no isolation), fresh context, its own clock", Turn(companion.subject(code="1+1"))


_PEERS: dict[str, Callable[[ExitStack, Settings], tuple[str, Turn]]] = {
    "Pydantic Monty": _monty,
    "python -I -c": _process,
    "plain wasmtime-py": _naive,
    "node's vm": _node,
}
