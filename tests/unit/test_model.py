"""Result: its value, decoded when it is first asked for, and its verdict."""

from __future__ import annotations

import json
import math
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wasmeval import ErrorInfo, EvaluationError, InvalidArgument, Result, Status
from wasmeval.model import decode_value

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(values)
def test_a_value_decodes_as_it_was_encoded(value: object) -> None:
    assert Result(Status.OK, json.dumps(value).encode()).value == value


@pytest.mark.parametrize("digits", [3999, 4000, 4001, 9999, 50_000])
@pytest.mark.parametrize("sign", ["", "-"])
def test_an_integer_has_any_size(digits: int, sign: str) -> None:
    expected = (10**digits - 1) // 9
    assert decode_value(f"{sign}{'1' * digits}".encode()) == (-expected if sign else expected)


def test_the_tokens_for_special_floats_decode() -> None:
    nan, infinity, minus = decode_value(b"[NaN,Infinity,-Infinity]")
    assert math.isnan(nan)
    assert (infinity, minus) == (math.inf, -math.inf)


def test_no_value_is_none_and_is_decoded_once() -> None:
    assert Result(Status.OK).value is None
    result = Result(Status.OK, b"[1]")
    assert result.value is result.value


@pytest.mark.parametrize("status", list(Status))
def test_only_ok_passes_raise_for_status(status: Status) -> None:
    result = Result(status, error=None if status is Status.OK else ErrorInfo("E", "why"))
    if status is Status.OK:
        assert result.raise_for_status() is result
        return
    with pytest.raises(EvaluationError, match=f"^{status.value}: E: why$") as caught:
        result.raise_for_status()
    assert caught.value.result is result


def test_errors_survive_pickling() -> None:
    error = pickle.loads(pickle.dumps(InvalidArgument("code", "empty")))
    assert (error.field, error.description, str(error)) == ("code", "empty", "code: empty")
