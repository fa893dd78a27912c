"""prepare: what a request must be, and the job it becomes; Policy: what limits apply."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from tests.grpc.conftest import CATALOGUE
from wasmeval import Evaluator, InvalidArgument, Limits, SetupError
from wasmeval.limits import CEILINGS, DEFAULTS
from wasmeval.model import Job, Request
from wasmeval.policy import MAX_CODE_BYTES, Policy, prepare
from wasmeval.service import Service
from wasmeval.testing import ScriptedPool


def job(code: str | bytes = "1", language: str = "python", **fields: Any) -> Job:
    return prepare(Request(code, language, **fields), CATALOGUE, Policy())


def test_a_request_becomes_a_job() -> None:
    got = job("x + \N{SNOWMAN}", "py", inputs={"x": b"[1, 2]", "y": b"NaN"}, limits=Limits(fuel=5))
    limits = replace(DEFAULTS, fuel=5)
    assert got == Job(
        "python",
        "x + \N{SNOWMAN}".encode(),
        b'{"x":[1, 2],"y":NaN}',
        limits,
        tier="auto",
        asked=Limits(fuel=5),
    )
    assert job(b"1") == Job("python", b"1", b"", DEFAULTS, tier="auto")
    assert job(b"1", tier="wasm") == Job("python", b"1", b"", DEFAULTS, tier="wasm")


def test_white_space_is_code() -> None:
    assert job(" ").code == b" "
    assert len(job("#" * MAX_CODE_BYTES).code) == MAX_CODE_BYTES


@pytest.mark.parametrize(
    ("code", "description"),
    [
        ("", "empty; send at least one statement"),
        ("a\0", "a NUL character at byte 1; remove or escape it"),
        ("a\ud800", "a lone surrogate at character 1; remove it"),
        (b"a\xff", "not valid UTF-8 at byte 1; send text in UTF-8"),
        ("\N{SNOWMAN}" * 349_526, "1048578 bytes, more than 1048576; pass data as inputs"),
    ],
)
def test_what_is_no_code_is_refused(code: str | bytes, description: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        job(code)
    assert (caught.value.field, caught.value.description) == ("code", description)


def test_too_little_memory_for_the_runtime_names_the_least() -> None:
    assert job(limits=Limits(memory_bytes=24 << 20)).limits.memory_bytes == 24 << 20
    with pytest.raises(InvalidArgument, match=r"^limits\.memory_bytes: .* ask for 25165824 or more$"):
        job(limits=Limits(memory_bytes=(24 << 20) - 1))


def test_a_policy_that_no_runtime_can_live_with_is_refused() -> None:
    small = Limits(memory_bytes=1 << 20)
    for policy in (Policy(small, small), Policy(defaults=Limits(memory_bytes=1))):
        with pytest.raises(SetupError, match="javascript needs 25165824; raise the default and the ceiling"):
            Service(ScriptedPool(), CATALOGUE, policy)


def test_a_policy_without_requests_applies_its_defaults_within_its_ceilings() -> None:
    policy = Policy(Limits(fuel=5).within(DEFAULTS, CEILINGS), Limits(fuel=7))
    assert policy.apply(None) == policy.apply(Limits()) == Limits(fuel=5).within(DEFAULTS, CEILINGS)
    assert policy.apply(Limits(fuel=9)).fuel == 7


def test_a_default_above_its_ceiling_is_refused() -> None:
    with pytest.raises(InvalidArgument) as caught:
        Policy(DEFAULTS, Limits(fuel=7))
    assert caught.value.field == "defaults.fuel"
    assert caught.value.description == (
        "100000000000 is above its ceiling of 7; lower it or raise the ceiling"
    )


def test_an_evaluator_takes_no_default_above_its_ceiling() -> None:
    with pytest.raises(InvalidArgument, match=r"^defaults\.fuel: 8 is above its ceiling of 7"):
        Evaluator(defaults=Limits(fuel=8), ceilings=Limits(fuel=7))


def test_the_checks_of_a_long_batch_give_other_calls_a_turn() -> None:
    heavy = Request("1", "python", {"x": b"[" + b"{}," * 100_000 + b"0]"})

    async def main() -> int:
        service = Service(ScriptedPool(), CATALOGUE)
        batch = asyncio.ensure_future(service.evaluate_batch([heavy] * 10))
        turns = 0
        while not service._pool.jobs:  # type: ignore[attr-defined]
            await asyncio.sleep(0)
            turns += 1
        assert len(await batch) == 10
        return turns

    assert asyncio.run(main()) >= 4
