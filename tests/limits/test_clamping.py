"""What is not given takes the default, what is too much is lowered, and the result says what applied."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wasmeval import Evaluator, InvalidArgument, Limits
from wasmeval.limits import CEILINGS, DEFAULTS, MIB

FIELDS = tuple(field.name for field in fields(Limits))
SECONDS = ("deadline_seconds", "tool_seconds", "cpu_seconds")


def test_the_defaults_apply(evaluator: Evaluator) -> None:
    assert evaluator.evaluate("1").limits == DEFAULTS
    assert evaluator.evaluate("1", limits=Limits()).limits == DEFAULTS
    assert evaluator.evaluate("1/0").limits == DEFAULTS


def test_more_than_the_ceiling_is_lowered(evaluator: Evaluator) -> None:
    asked = Limits(**{name: 1e15 if name in SECONDS else 2**62 for name in FIELDS})
    assert evaluator.evaluate("1", limits=asked).limits == CEILINGS
    asked = Limits(fuel=123_456_789, memory_bytes=2**50)
    applied = evaluator.evaluate("1", limits=asked).limits
    assert applied == replace(DEFAULTS, fuel=123_456_789, memory_bytes=CEILINGS.memory_bytes)


@pytest.fixture(scope="module")
def strict() -> Iterator[Evaluator]:
    ceilings = Limits(fuel=80_000_000, deadline_seconds=20.0, memory_bytes=64 * MIB, output_bytes=100)
    with Evaluator(workers=1, defaults=Limits(output_bytes=50), ceilings=ceilings) as evaluator:
        yield evaluator


def test_an_operators_ceilings_are_kept(strict: Evaluator) -> None:
    lowered = replace(DEFAULTS, fuel=80_000_000, memory_bytes=64 * MIB, output_bytes=50)
    assert strict.evaluate("1").limits == lowered
    applied = strict.evaluate("1", limits=Limits(10**15, 300.0, 10**15, 10**6)).limits
    assert applied == replace(lowered, deadline_seconds=20.0, output_bytes=100)
    assert strict.evaluate("while True: pass", limits=Limits(fuel=10**15)).usage.fuel == 80_000_000
    assert strict.evaluate("bytes(10**8)", limits=Limits(memory_bytes=10**10)).status == "memory_exceeded"
    assert strict.evaluate("'x' * 99", limits=Limits(output_bytes=10**6)).status == "output_exceeded"
    assert strict.evaluate("'x' * 98", limits=Limits(output_bytes=10**6)).value == "x" * 98


@pytest.mark.parametrize("name", FIELDS)
@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf"), -0.0, "5", True, 2**63, [], 1.5])
def test_what_cannot_be_a_limit_is_refused(name: str, value: object) -> None:
    if name in SECONDS and value in (1.5, 2**63):
        assert getattr(Limits(**{name: value}), name) == value  # type: ignore[arg-type]
        return
    with pytest.raises(InvalidArgument) as refused:
        Limits(**{name: value})  # type: ignore[arg-type]
    assert refused.value.field == f"limits.{name}"


_WHOLE = st.none() | st.integers(1, 2**63 - 1)
_LIMITS = st.builds(Limits, _WHOLE, st.none() | st.floats(1e-9, 1e9, allow_nan=False), _WHOLE, _WHOLE)


@given(asked=_LIMITS, defaults=_LIMITS, ceilings=_LIMITS)
def test_within(asked: Limits, defaults: Limits, ceilings: Limits) -> None:
    applied = asked.within(defaults, ceilings)
    for name in FIELDS:
        wanted, ceiling, got = (getattr(each, name) for each in (asked, ceilings, applied))
        wanted = getattr(defaults, name) if wanted is None else wanted
        if wanted is None:
            assert got is None
        else:
            assert got == (wanted if ceiling is None else min(wanted, ceiling))
    assert applied.within(defaults, ceilings) == applied


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"code": 5}, "code"),
        ({"code": "1", "language": None}, "language"),
        ({"code": "1", "inputs": []}, "inputs"),
        ({"code": "1", "limits": {}}, "limits"),
    ],
)
def test_arguments_of_another_type_are_named(
    strict: Evaluator, arguments: dict[str, Any], field: str
) -> None:
    with pytest.raises(InvalidArgument) as refused:
        strict.evaluate(**arguments)
    assert refused.value.field == field
    assert strict.evaluate_batch([], timeout=float("inf")) == []
    assert strict.evaluate("1", timeout=1e12).ok
