"""Memory: the linear memory of the instance, interpreter included."""

from __future__ import annotations

import pytest

from wasmeval import Evaluator, InvalidArgument, Limits, Status
from wasmeval.limits import MIB


def minimum(evaluator: Evaluator, language: str) -> int:
    return next(each.minimum_memory_bytes for each in evaluator.runtimes() if language in each.languages)


@pytest.mark.parametrize("language", ["python", "javascript"])
def test_the_minimum_is_enough_for_a_snippet(evaluator: Evaluator, language: str) -> None:
    least = minimum(evaluator, language)
    result = evaluator.evaluate("1 + 1", language=language, limits=Limits(memory_bytes=least))
    assert (result.status, result.value, result.limits.memory_bytes) == (Status.OK, 2, least)
    assert result.usage.peak_memory_bytes <= least


@pytest.mark.parametrize("language", ["python", "javascript"])
def test_less_than_the_minimum_is_refused(evaluator: Evaluator, language: str) -> None:
    least = minimum(evaluator, language)
    with pytest.raises(InvalidArgument) as refused:
        evaluator.evaluate("1", language=language, limits=Limits(memory_bytes=least - 1))
    assert refused.value.field == "limits.memory_bytes"
    assert refused.value.description == (
        f"{least - 1} is less than {language} needs; ask for {least} or more"
    )


@pytest.mark.parametrize(
    ("language", "code"),
    [("python", "len(bytearray(40_000_000))"), ("javascript", "new Uint8Array(40_000_000).length")],
)
def test_more_memory_is_what_it_takes(evaluator: Evaluator, language: str, code: str) -> None:
    least = minimum(evaluator, language)
    result = evaluator.evaluate(code, language=language, limits=Limits(memory_bytes=least + 20 * MIB))
    assert result.status is Status.MEMORY_EXCEEDED
    result = evaluator.evaluate(code, language=language, limits=Limits(memory_bytes=least + 128 * MIB))
    assert (result.status, result.value) == (Status.OK, 40_000_000)
    assert 40_000_000 < result.usage.peak_memory_bytes <= least + 128 * MIB


@pytest.mark.parametrize("language", ["python", "javascript"])
def test_inputs_that_do_not_fit(evaluator: Evaluator, language: str) -> None:
    least = minimum(evaluator, language)
    inputs = {"x": "a" * 8_000_000}
    code = {"python": "len(x)", "javascript": "x.length"}[language]
    result = evaluator.evaluate(code, language=language, inputs=inputs, limits=Limits(memory_bytes=least))
    assert result.status is Status.MEMORY_EXCEEDED, result.error
    result = evaluator.evaluate(code, language=language, inputs=inputs)
    assert (result.status, result.value) == (Status.OK, 8_000_000)


def test_an_error_after_handled_shortage_is_that_error(evaluator: Evaluator) -> None:
    code = "try: bytes(10**9)\nexcept MemoryError: pass\n1 / 0"
    result = evaluator.evaluate(code)
    assert result.error
    assert (result.status, result.error.type) == (Status.ERROR, "ZeroDivisionError")
