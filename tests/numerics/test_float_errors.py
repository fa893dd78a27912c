"""Division by zero, overflow and invalid values are told of wherever native NumPy tells, and nowhere else."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from wasmeval import Evaluator, Limits

FINDING = Path(__file__).with_name("float_errors.py").read_text()
LIMITS = Limits(fuel=1_000_000_000_000, deadline_seconds=120.0)
REAL = ["float16", "float32", "float64", "longdouble"]
SLOW = [pytest.param(dtype, marks=pytest.mark.slow) for dtype in REAL]
QUICK = ["complex64", "complex128", "clongdouble", "int8", "int32", "int64"]


@pytest.fixture(scope="module")
def evaluator() -> Iterator[Evaluator]:
    with Evaluator(workers=1, ceilings=LIMITS, vm=False) as found:
        yield found


@pytest.mark.parametrize("dtype", [*SLOW, *QUICK])
def test_errors_of_floating_point_are_raised(evaluator: Evaluator, dtype: str) -> None:
    result = evaluator.evaluate(f"{FINDING}\nfailures_of({dtype!r})", limits=LIMITS)
    assert result.ok, (result.status, result.error)
    assert result.value == []


@pytest.mark.parametrize("dtype", REAL)
def test_what_is_not_finite_elsewhere_hides_no_error(evaluator: Evaluator, dtype: str) -> None:
    result = evaluator.evaluate(f"{FINDING}\nfailures_in_company_of({dtype!r})", limits=LIMITS)
    assert result.ok, (result.status, result.error)
    assert result.value == []


DEAF = """
errors_of = lambda call: set()
is_raised = lambda call, error: False
failures = "\\n".join(failures_of(dtype))
[case[1].__name__ in failures for case in cases_of(np.dtype(dtype)) if case[0]]
"""


@pytest.mark.parametrize("dtype", ["float64", "complex64", "int64"])
def test_an_error_that_is_not_told_is_a_failure(evaluator: Evaluator, dtype: str) -> None:
    result = evaluator.evaluate(FINDING + DEAF, inputs={"dtype": dtype}, limits=LIMITS)
    assert result.ok, (result.status, result.error)
    assert len(result.value) >= 5
    assert all(result.value)


WARNING = """
import warnings
import numpy as np
with warnings.catch_warnings(record=True) as caught, np.errstate(all="warn", under="ignore"):
    warnings.simplefilter("always")
    np.divide(1, 0.0)
    np.array(1e300) * np.array(1e300)
    np.float64(1e300) * np.float64(1e300)
    np.array(np.inf) - np.array(np.inf)
    np.sqrt([1.0, -1.0])
    np.log([0.0, -1.0])
    np.add(1.0, 2.0)
[str(warning.message) for warning in caught]
"""


def test_an_error_of_floating_point_is_a_warning_unless_asked_otherwise(evaluator: Evaluator) -> None:
    assert evaluator.evaluate(WARNING).value == [
        "divide by zero encountered in divide",
        "overflow encountered in multiply",
        "overflow encountered in scalar multiply",
        "invalid value encountered in subtract",
        "invalid value encountered in sqrt",
        "divide by zero encountered in log",
        "invalid value encountered in log",
    ]
