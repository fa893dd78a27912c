"""Samples, taken in turns: whatever drifts on a machine then meets every subject alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

Subject = Callable[[int], Sequence[float]]
"""Does its thing so many times and says how many seconds each took."""


@dataclass(slots=True)
class Samples:
    """What one subject took, in seconds."""

    seconds: list[float] = field(default_factory=list)

    @property
    def n(self) -> int:
        """How many there are."""
        return len(self.seconds)

    @property
    def p50(self) -> float:
        """The median."""
        return quantile(self.seconds, 0.5)

    @property
    def p99(self) -> float:
        """What one in a hundred takes longer than."""
        return quantile(self.seconds, 0.99)

    @property
    def least(self) -> float:
        """The shortest: for work that always takes the same, the one least disturbed."""
        return min(self.seconds)


@dataclass(frozen=True, slots=True)
class Turn:
    """One subject's turn in each round: `count` samples, after `settle` more that do not count."""

    subject: Subject
    count: int = 50
    settle: int = 3


def quantile(values: Sequence[float], q: float) -> float:
    """The nearest-rank quantile; NaN of nothing."""
    if not values:
        return float("nan")
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * q))]


def timed(call: Callable[[], object]) -> Subject:
    """One call after the other, each begun when the last one has ended."""

    def subject(count: int) -> list[float]:
        seconds = []
        for _ in range(count):
            start = time.perf_counter()
            call()
            seconds.append(time.perf_counter() - start)
        return seconds

    return subject


def paced(call: Callable[[], object], rate: float) -> Subject:
    """`rate` calls a second: between them the other side has time to rest, to cool down, and to prepare."""

    def subject(count: int) -> list[float]:
        seconds = []
        begin = time.perf_counter()
        for index in range(count):
            time.sleep(max(0.0, begin + index / rate - time.perf_counter()))
            start = time.perf_counter()
            call()
            seconds.append(time.perf_counter() - start)
        return seconds

    return subject


def in_turns(turns: Mapping[str, Turn], rounds: int) -> dict[str, Samples]:
    """Every subject once a round, each round beginning with another one.

    Turns are blocks, not single calls: what a call leaves to do behind it (dropping an instance, preparing the next)
    must fall on its own kind, not on the peer.
    """
    samples = {name: Samples() for name in turns}
    names = list(turns)
    for number in range(rounds):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            turn = turns[name]
            if turn.settle:
                turn.subject(turn.settle)
            samples[name].seconds += turn.subject(turn.count)
    return samples
