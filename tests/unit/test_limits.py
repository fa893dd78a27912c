"""Limits: what is no limit is refused, what is not given is filled, what is too much is clamped."""

from __future__ import annotations

import math
from dataclasses import asdict, astuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wasmeval import InvalidArgument, Limits
from wasmeval.limits import ABSENT, CEILINGS, DEFAULTS, VM_CEILINGS, VM_DEFAULTS

integers = st.none() | st.integers(1, 2**63 - 1)
seconds = st.none() | st.floats(0, exclude_min=True, allow_infinity=False) | st.integers(1, 10**6)
limits = st.builds(Limits, integers, seconds, integers, integers, cpu_seconds=seconds, processes=integers)


TIERS = [("wasm", DEFAULTS, CEILINGS), ("vm", VM_DEFAULTS, VM_CEILINGS)]


@given(limits, limits, limits)
def test_clamping_fills_gaps_and_passes_no_ceiling(asked: Limits, defaults: Limits, ceilings: Limits) -> None:
    got = asked.within(defaults, ceilings)
    for value, wanted, default, ceiling in zip(*map(astuple, (got, asked, defaults, ceilings)), strict=True):
        unclamped = default if wanted is None else wanted
        if unclamped is None or ceiling is None:
            assert value == unclamped
        else:
            assert value == min(unclamped, ceiling)


@given(limits)
def test_clamping_twice_changes_nothing_more(asked: Limits) -> None:
    for tier, defaults, ceilings in TIERS:
        once = asked.within(defaults, ceilings)
        gaps = {name for name, value in asdict(once).items() if value is None}
        assert gaps <= set(ABSENT[tier])
        assert once.within(defaults, ceilings) == once


def test_the_defaults_are_within_the_ceilings() -> None:
    assert Limits().within(DEFAULTS, CEILINGS) == DEFAULTS
    assert Limits().within(VM_DEFAULTS, VM_CEILINGS) == VM_DEFAULTS


@pytest.mark.parametrize(("tier", "defaults", "ceilings"), TIERS)
def test_a_tier_has_all_limits_but_those_of_the_other(tier: str, defaults: Limits, ceilings: Limits) -> None:
    for limits in (defaults, ceilings):
        assert {name for name, value in asdict(limits).items() if value is None} == set(ABSENT[tier])


@pytest.mark.parametrize("name", ["fuel", "memory_bytes", "output_bytes", "processes"])
@pytest.mark.parametrize("value", [0, -1, 2**63, 1.0, math.nan, True, "1", b"1"])
def test_what_is_no_whole_positive_number_is_refused(name: str, value: object) -> None:
    with pytest.raises(InvalidArgument) as caught:
        Limits(**{name: value})
    assert caught.value.field == f"limits.{name}"


@pytest.mark.parametrize("value", [0, 0.0, -0.5, math.nan, math.inf, -math.inf, False, "1"])
def test_what_is_no_positive_finite_time_is_refused(value: object) -> None:
    with pytest.raises(InvalidArgument, match=r"^limits\.deadline_seconds: must be a "):
        Limits(deadline_seconds=value)
    with pytest.raises(InvalidArgument, match=r"^limits\.cpu_seconds: must be a "):
        Limits(cpu_seconds=value)
