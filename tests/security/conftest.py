"""One evaluator for all attacks; after each of them both languages still work, on the same workers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.guests import worker_pids
from wasmeval import Evaluator, Limits, Status

LANGUAGES = ("python", "javascript")


@pytest.fixture(scope="session")
def shared_evaluator() -> Iterator[Evaluator]:
    with Evaluator(workers=1, require_jail=True, vm=False) as evaluator:
        yield evaluator


@pytest.fixture
def evaluator(shared_evaluator: Evaluator) -> Iterator[Evaluator]:
    before = worker_pids(shared_evaluator._pool)
    yield shared_evaluator
    for language in LANGUAGES:
        # Not a tight deadline: the machine may be busy. Fuel says the same thing exactly.
        result = shared_evaluator.evaluate("1 + 1", language=language, limits=Limits(fuel=10_000_000))
        assert (result.status, result.value) == (Status.OK, 2)
    assert worker_pids(shared_evaluator._pool) == before, "a worker was replaced"
    stats = shared_evaluator._pool.stats()
    assert (stats.ready, stats.running, stats.queued, stats.restarts) == (1, 0, 0, 0)
