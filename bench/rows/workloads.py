"""CPU-bound snippets with all limits on, beside interpreters that have none."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

from bench import peers
from bench import workloads as snippets
from bench.companion import Companion, Failed
from bench.measure import Samples, Subject, timed
from bench.report import Figure, Row, geometric_mean, number
from bench.settings import Settings, say
from wasmeval import Evaluator

_PYTHON_TARGET, _JAVASCRIPT_TARGET = 2.0, 1.10
_EMPTY = {"python": "0", "javascript": "0"}


def python(settings: Settings) -> Iterator[Row]:
    """CPython in Wasm beside native CPython, and beside Monty where that knows enough Python."""
    with ExitStack() as stack:
        evaluator = stack.enter_context(Evaluator(workers=1))
        version, native = peers.native_python(settings.native)
        stack.enter_context(native)
        try:
            monty = stack.enter_context(peers.monty())
        except peers.NotInstalled:
            monty = None
        peer = f"native CPython {version}"
        taken = {}
        for name, code in snippets.PYTHON.items():
            subjects: dict[str, Subject] = {
                "ours": _ours(evaluator, "python", code),
                "native": _checked(native, code, evaluator.evaluate(code).value),
            }
            if monty and _can(monty, code):
                subjects["Monty"] = timed(partial(monty, code))
            taken[name] = _in_turns(subjects, settings.of(9, 3))
            say(f"  {name}: " + ", ".join(f"{k} {1e3 * v.least:.1f} ms" for k, v in taken[name].items()))
        yield _row("Python", "python", peer, "native", taken, _PYTHON_TARGET)


def javascript(settings: Settings) -> Iterator[Row]:
    """QuickJS with limits beside QuickJS without, and beside node, which compiles to machine code."""
    with ExitStack() as stack:
        evaluator = stack.enter_context(Evaluator(workers=1))
        peer, plain = peers.plain_javascript(settings.plain_javascript)
        stack.enter_context(plain)
        try:
            node = stack.enter_context(peers.node())
        except peers.NotInstalled:
            node = None
        taken = {}
        for name, code in snippets.JAVASCRIPT.items():
            subjects = {
                "ours": _ours(evaluator, "javascript", code),
                "plain": _less(plain.subject(code=code), plain.subject(code=_EMPTY["javascript"])),
            }
            if node:
                subjects["node"] = node.subject(code=code)
            taken[name] = _in_turns(subjects, settings.of(9, 3))
            say(f"  {name}: " + ", ".join(f"{k} {1e3 * v.least:.1f} ms" for k, v in taken[name].items()))
        yield _row("JavaScript", "javascript", f"QuickJS, {peer}", "plain", taken, _JAVASCRIPT_TARGET)


def _row(
    name: str,
    runtime: str,
    label: str,
    peer: str,
    taken: Mapping[str, Mapping[str, Samples]],
    target: float,
) -> Row:
    def ratios(of: str, quantile: str) -> dict[str, float]:
        return {
            snippet: getattr(samples["ours"], quantile) / getattr(samples[of], quantile)
            for snippet, samples in taken.items()
            if of in samples
        }

    least, median = ratios(peer, "least"), ratios(peer, "p50")
    mean = geometric_mean(least.values())
    figures = [
        Figure(f"{runtime}_ratio", "ratio", mean, {"peer": label, "of": "least", "mean": "geometric"}),
        Figure(
            f"{runtime}_ratio",
            "ratio",
            geometric_mean(median.values()),
            {"peer": label, "of": "p50", "mean": "geometric"},
        ),
    ]
    for snippet, samples in taken.items():
        for who, sample in samples.items():
            shared: dict[str, str | int | float] = {"snippet": snippet, "by": who, "n": sample.n}
            figures.append(Figure(f"{runtime}_snippet", "ms", sample.least * 1e3, {**shared, "of": "least"}))
            figures.append(Figure(f"{runtime}_snippet", "ms", sample.p50 * 1e3, {**shared, "of": "p50"}))
    beside = [label]
    for other in sorted({who for samples in taken.values() for who in samples} - {"ours", peer}):
        against = ratios(other, "least")
        names = "" if len(against) == len(taken) else f" ({', '.join(against)} only)"
        beside.append(f"{number(geometric_mean(against.values()))}x the time of {other}{names}")
    return Row(
        f"CPU-bound {name}, all limits on, geometric mean of {', '.join(taken)}",
        f"**{number(mean)}x** ("
        + ", ".join(f"{snippet} {number(ratio)}" for snippet, ratio in least.items())
        + f"); by medians {number(geometric_mean(median.values()))}x",
        "; ".join(beside),
        f"<= {target:.2f}x",
        mean <= target,
        figures,
    )


def _in_turns(subjects: Mapping[str, Subject], rounds: int) -> dict[str, Samples]:
    """One run of each, and again: a run takes so long that the machine may change its mind between two blocks."""
    samples = {name: Samples() for name in subjects}
    for _ in range(rounds):
        for name, subject in subjects.items():
            samples[name].seconds += subject(1)
    return samples


def _ours(evaluator: Evaluator, language: str, code: str) -> Subject:
    def run(snippet: str) -> None:
        evaluator.evaluate(snippet, language=language).raise_for_status()

    return _less(timed(partial(run, code)), timed(partial(run, _EMPTY[language])))


def _less(whole: Subject, empty: Subject) -> Subject:
    """What a snippet takes beyond an empty one."""

    def subject(count: int) -> Sequence[float]:
        floor = min(empty(3))
        return [seconds - floor for seconds in whole(count)]

    return subject


def _checked(native: Companion, code: str, value: object) -> Subject:
    """The native interpreter, which must come to the same value."""
    answer = native.ask(code=code, count=1)["value"]
    if answer != value:
        raise Failed(f"native says {answer!r}, the guest says {value!r}")
    return native.subject(code=code)


def _can(run: Callable[[str], Any], code: str) -> bool:
    try:
        run(code)
    except Exception:
        return False
    return True
