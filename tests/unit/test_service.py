"""prepare: what a request must be, and the job it becomes; Policy: what limits apply."""

from __future__ import annotations

from typing import Any

import pytest

from tests.grpc.conftest import CATALOGUE
from wasmeval import InvalidArgument, Limits, SetupError
from wasmeval.limits import CEILINGS, DEFAULTS
from wasmeval.model import Job, Request
from wasmeval.service import MAX_CODE_BYTES, Policy, Service, prepare
from wasmeval.testing import ScriptedPool


def job(code: str | bytes = "1", language: str = "python", **fields: Any) -> Job:
    return prepare(Request(code, language, **fields), CATALOGUE, Policy())


def test_a_request_becomes_a_job() -> None:
    got = job("x + \N{SNOWMAN}", "py", inputs={"x": b"[1, 2]", "y": b"NaN"}, limits=Limits(fuel=5))
    limits = Limits(5, DEFAULTS.deadline_seconds, DEFAULTS.memory_bytes, DEFAULTS.output_bytes)
    assert got == Job("python", "x + \N{SNOWMAN}".encode(), b'{"x":[1, 2],"y":NaN}', limits)
    assert job(b"1") == Job("python", b"1", b"", DEFAULTS)


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
    for policy in (Policy(ceilings=Limits(memory_bytes=1 << 20)), Policy(defaults=Limits(memory_bytes=1))):
        with pytest.raises(SetupError, match="javascript needs 25165824; raise the default and the ceiling"):
            Service(ScriptedPool(), CATALOGUE, policy)


def test_a_policy_without_requests_applies_its_defaults_within_its_ceilings() -> None:
    policy = Policy(DEFAULTS, Limits(fuel=7))
    assert policy.apply(None) == policy.apply(Limits()) == Limits(fuel=7).within(DEFAULTS, CEILINGS)
