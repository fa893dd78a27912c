"""A step whose caller was gone when it ended has happened, or it has not: a session is what is known of it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator

import pytest

from tests.running import running_service
from wasmeval import AsyncClient, DeadlineExceeded, Evaluator, ServiceError


@pytest.fixture(scope="module")
def target() -> Iterator[str]:
    with running_service("--workers", "1") as service:
        yield service.target


SLOWLY = "for _ in range(30_000): pass\nn += 1"


class Gone(Exception):
    """What a caller's own function raises."""


@pytest.mark.parametrize("deterministic", [False, True])
def test_output_that_cannot_be_shown_is_no_step_that_is_forgotten(deterministic: bool) -> None:
    def show(_stream: str, _text: str) -> None:
        raise Gone

    with (
        Evaluator(workers=1) as evaluator,
        evaluator.session(deterministic=deterministic or None) as session,
    ):
        session.evaluate("n = 0")
        for _ in range(20):
            with pytest.raises(Gone):
                session.evaluate("n += 1\nprint(n)", on_output=show)
        happened = session.evaluate("n").value
        assert session.info.steps == happened + 2
        session.hibernate()
        assert session.evaluate("n").value == happened


@pytest.mark.parametrize("deterministic", [False, True])
def test_time_outs_at_any_moment_embedded(deterministic: bool) -> None:
    with (
        Evaluator(workers=1) as evaluator,
        evaluator.session(deterministic=deterministic or None) as session,
    ):
        session.evaluate("n = 0")
        late = 0
        for _ in range(150):
            try:
                session.evaluate(SLOWLY, timeout=random.uniform(0.0005, 0.008))
            except DeadlineExceeded:
                late += 1
        happened = session.evaluate("n").value
        assert late
        assert session.info.steps == happened + 2
        session.hibernate()
        assert session.evaluate("n").value == happened
        last = session.evaluate("n")
        if deterministic:
            assert last.receipt
            assert last.receipt.step == session.info.steps


@pytest.mark.parametrize("deterministic", [False, True])
def test_callers_that_go_at_any_moment(target: str, deterministic: bool) -> None:
    async def run() -> None:
        async with AsyncClient(target) as client:
            session = await client.session(deterministic=deterministic or None)
            await session.evaluate("n = 0")
            gone = 0
            for _ in range(200):
                try:
                    await asyncio.wait_for(session.evaluate("n += 1"), random.uniform(0.0002, 0.004))
                except (TimeoutError, ServiceError):
                    gone += 1
            happened = (await session.evaluate("n")).value
            assert gone
            assert (await session.info()).steps == happened + 2
            await session.hibernate()
            assert (await session.evaluate("n")).value == happened
            await session.close()

    asyncio.run(run())
