"""One evaluator for all limits; after each test both languages still work on the same workers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.guests import worker_pids
from wasmeval import Evaluator, Status


@pytest.fixture(scope="session")
def limited_evaluator() -> Iterator[Evaluator]:
    with Evaluator(workers=2) as evaluator:
        evaluator._pool._wait(lambda: evaluator._pool.stats().ready == 2, 60)
        yield evaluator


@pytest.fixture
def evaluator(limited_evaluator: Evaluator) -> Iterator[Evaluator]:
    before = sorted(worker_pids(limited_evaluator._pool))
    yield limited_evaluator
    for language in ("python", "javascript"):
        result = limited_evaluator.evaluate("1 + 1", language=language)
        assert (result.status, result.value) == (Status.OK, 2)
    assert sorted(worker_pids(limited_evaluator._pool)) == before
    stats = limited_evaluator._pool.stats()
    assert (stats.ready, stats.running, stats.queued, stats.restarts) == (2, 0, 0, 0)
