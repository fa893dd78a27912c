"""One evaluator with real workers for the tests of a module, and sessions that end with their test."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from wasmeval import Evaluator
from wasmeval.embedded_session import EmbeddedSession

MakeSession = Callable[..., EmbeddedSession]


@pytest.fixture(scope="module")
def evaluator() -> Iterator[Evaluator]:
    with Evaluator(workers=2) as evaluator:
        yield evaluator


@pytest.fixture
def begin(evaluator: Evaluator) -> Iterator[MakeSession]:
    """Begins sessions that end with the test."""
    begun: list[EmbeddedSession] = []

    def make(language: str = "python", **options: object) -> EmbeddedSession:
        begun.append(evaluator.session(language, **options))  # type: ignore[arg-type]
        return begun[-1]

    yield make
    for session in begun:
        session.close()
