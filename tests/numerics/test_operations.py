"""What NumPy's operations give in an instance is what they give elsewhere: values, types, shapes, errors, warnings.

operations.txt has the operations, reference.json what NumPy gave for them on x86-64 (reference.py writes it), and
differences.txt which of them are known to differ, and why: when such a one agrees, its test fails.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest

import wasmeval
from tests.numerics.reference import DESCRIBING, Operation, differences, operations, reference

OPERATIONS = operations()
REFERENCE = reference()
TOLERANCE = 1e-12
_TOLERANCES = {"float16": 2e-3, "float32": 3e-7, "complex64": 3e-7}
"""About two units in the last place of what is not a double."""
_CANCELLING = {"linalg", "fft"}
"""Sections in which an element may be all that is left of larger ones: near zero it counts beside the largest."""


@dataclass(frozen=True, slots=True)
class Tolerance:
    """`cancels`: what is described may hold what cancellation leaves, and `absolute` is relative to the largest."""

    relative: float
    cancels: bool = False
    absolute: float = 0.0

    def of(self, description: dict[str, Any]) -> Tolerance:
        """For what is below a description."""
        relative = _TOLERANCES.get(description.get("dtype", ""), self.relative)
        if not self.cancels or "elements" not in description:
            return replace(self, relative=relative)
        return replace(self, relative=relative, absolute=relative * _largest(description["elements"]))


def _largest(elements: list[Any]) -> float:
    parts = [part for each in elements for part in (each["complex"] if isinstance(each, dict) else [each])]
    return max((abs(part) for part in parts if isinstance(part, float)), default=0.0)


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
    assert is_same(given, expected, _tolerance(operation)), (given, expected)


def _tolerance(operation: Operation) -> Tolerance | None:
    return None if operation.is_exact else Tolerance(TOLERANCE, operation.section in _CANCELLING)


def test_what_is_known_to_differ_is_among_the_operations() -> None:
    assert differences().keys() <= REFERENCE["answers"].keys()


def is_same(given: Any, expected: Any, tolerance: Tolerance | None) -> bool:
    """Whether two descriptions agree; numbers to a tolerance where there is one."""
    if isinstance(expected, dict):
        within = tolerance and tolerance.of(expected)
        return (
            isinstance(given, dict)
            and given.keys() == expected.keys()
            and all(is_same(given[key], expected[key], within) for key in expected)
        )
    if isinstance(expected, list):
        return (
            isinstance(given, list)
            and len(given) == len(expected)
            and all(is_same(*pair, tolerance) for pair in zip(given, expected, strict=True))
        )
    if tolerance is not None and isinstance(expected, float) and isinstance(given, float):
        return math.isclose(given, expected, rel_tol=tolerance.relative, abs_tol=tolerance.absolute)
    # Not `==`: the sign of zero counts.
    return repr(given) == repr(expected)


@pytest.mark.parametrize(
    ("given", "is_close"), [("5e-324", True), ("2e-323", False), ("0.0", False), ("nan", False)]
)
def test_what_is_next_to_zero_is_compared_as_other_numbers_are(given: str, is_close: bool) -> None:
    assert is_same([float(given)], [5e-324], Tolerance(TOLERANCE)) is is_close


def test_what_cancellation_leaves_is_compared_with_the_largest_element() -> None:
    tolerance = Tolerance(TOLERANCE, cancels=True)
    small, large = ({"dtype": "float64", "elements": [1e-16, largest]} for largest in (1e-4, 1e4))
    other = {"dtype": "float64", "elements": [1e-12, 1e4]}
    assert is_same(other, large, tolerance)
    assert not is_same({**other, "elements": [1e-12, 1e-4]}, small, tolerance)
    assert not is_same(other, large, Tolerance(TOLERANCE))
