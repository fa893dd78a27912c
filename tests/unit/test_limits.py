"""Limits: what is no limit is refused, what is not given is filled, what is too much is clamped."""

from __future__ import annotations

import math
from dataclasses import astuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wasmeval import InvalidArgument, Limits
from wasmeval.limits import CEILINGS, DEFAULTS

integers = st.none() | st.integers(1, 2**63 - 1)
seconds = st.none() | st.floats(0, exclude_min=True, allow_infinity=False) | st.integers(1, 10**6)
limits = st.builds(Limits, integers, seconds, integers, integers)


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
    once = asked.within(DEFAULTS, CEILINGS)
    assert None not in astuple(once)
    assert once.within(DEFAULTS, CEILINGS) == once


def test_the_defaults_are_within_the_ceilings() -> None:
    assert Limits().within(DEFAULTS, CEILINGS) == DEFAULTS


@pytest.mark.parametrize("name", ["fuel", "memory_bytes", "output_bytes"])
@pytest.mark.parametrize("value", [0, -1, 2**63, 1.0, math.nan, True, "1", b"1"])
def test_what_is_no_whole_positive_number_is_refused(name: str, value: object) -> None:
    with pytest.raises(InvalidArgument) as caught:
        Limits(**{name: value})
    assert caught.value.field == f"limits.{name}"


@pytest.mark.parametrize("value", [0, 0.0, -0.5, math.nan, math.inf, -math.inf, False, "1"])
def test_what_is_no_positive_finite_time_is_refused(value: object) -> None:
    with pytest.raises(InvalidArgument, match=r"^limits\.deadline_seconds: must be a "):
        Limits(deadline_seconds=value)
