"""What NumPy's operations give in an instance is what they give elsewhere: values, types, shapes, errors, warnings.

operations.txt has the operations, reference.json what NumPy gave for them on x86-64 (reference.py writes it), and
differences.txt which of them are known to differ, and why: when such a one agrees, its test fails.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pytest

import wasmeval
from tests.numerics.reference import DESCRIBING, Operation, differences, operations, reference

OPERATIONS = operations()
REFERENCE = reference()
TOLERANCE = 1e-12
_TOLERANCES = {"float16": 2e-3, "float32": 3e-7, "complex64": 3e-7}
"""About two units in the last place of what is not a double."""
Answers = dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def answers() -> Answers:
    """What one instance gives, by operation."""
    codes = [operation.code for operation in OPERATIONS]
    with wasmeval.Evaluator(workers=1, vm=False) as evaluator:
        result = evaluator.evaluate(DESCRIBING, inputs={"operations": codes})
    assert result.ok, (result.status, result.error, result.stderr)
    return dict(zip(codes, result.value, strict=True))


def test_the_reference_is_of_these_operations_and_of_the_version_in_the_image() -> None:
    assert list(REFERENCE["answers"]) == [operation.code for operation in OPERATIONS]
    with wasmeval.Evaluator(workers=1, vm=False) as evaluator:
        assert evaluator.evaluate("import numpy\nnumpy.__version__").value == REFERENCE["numpy"]


def _parameters() -> Iterator[Any]:
    known = differences()
    for operation in OPERATIONS:
        reason = known.get(operation.code)
        marks = [pytest.mark.xfail(reason=reason)] if reason else []
        yield pytest.param(operation, id=operation.code, marks=marks)


@pytest.mark.parametrize("operation", list(_parameters()))
def test_an_operation_gives_what_it_gives_elsewhere(operation: Operation, answers: Answers) -> None:
    given, expected = answers[operation.code], REFERENCE["answers"][operation.code]
    assert is_same(given, expected, None if operation.is_exact else TOLERANCE), (given, expected)


def test_what_is_known_to_differ_is_among_the_operations() -> None:
    assert differences().keys() <= REFERENCE["answers"].keys()


def is_same(given: Any, expected: Any, tolerance: float | None) -> bool:
    """Whether two descriptions agree; numbers to a relative tolerance where there is one."""
    if isinstance(expected, dict):
        if tolerance is not None:
            tolerance = _TOLERANCES.get(expected.get("dtype", ""), tolerance)
        return (
            isinstance(given, dict)
            and given.keys() == expected.keys()
            and all(is_same(given[key], expected[key], tolerance) for key in expected)
        )
    if isinstance(expected, list):
        return (
            isinstance(given, list)
            and len(given) == len(expected)
            and all(is_same(*pair, tolerance) for pair in zip(given, expected, strict=True))
        )
    if tolerance is not None and isinstance(expected, float) and isinstance(given, float):
        return math.isclose(given, expected, rel_tol=tolerance, abs_tol=1e-12)
    # Not `==`: the sign of zero counts.
    return repr(given) == repr(expected)
