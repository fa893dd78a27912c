"""Every case of the corpus gives in its runtime what it gave in the real interpreter.

The expected results come from `generate.py`. Of a JavaScript error the traceback is not compared, and its message only
where it is the snippet's own text; of a Python traceback only the frames of the snippet.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

import wasmeval
from tests.guest.corpus import LANGUAGES, Case, comparable, load_cases, load_expected

CASES = [case for language in LANGUAGES for case in load_cases(language)]
EXPECTED = {language: load_expected(language)["cases"] for language in LANGUAGES}
BATCH = 64


@pytest.fixture(scope="module")
def results() -> Iterator[dict[tuple[str, str], wasmeval.Result]]:
    """The result of every case by language and name, evaluated in a few batches."""
    with wasmeval.Evaluator(workers=2) as evaluator:
        batches = [CASES[start : start + BATCH] for start in range(0, len(CASES), BATCH)]
        given = [
            result
            for batch in batches
            for result in evaluator.evaluate_batch([_evaluation(c) for c in batch])
        ]
        yield {(case.language, case.name): result for case, result in zip(CASES, given, strict=True)}


def _evaluation(case: Case) -> wasmeval.Evaluation:
    return wasmeval.Evaluation(case.code, language=case.language, inputs=case.inputs)


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.language}/{case.name}")
def test_a_snippet_gives_what_the_real_interpreter_gives(
    case: Case, results: dict[tuple[str, str], wasmeval.Result]
) -> None:
    expected = EXPECTED[case.language][case.name]
    assert _restricted(_described(results[case.language, case.name], case), expected) == _decoded(expected)


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_case_has_an_expected_result_and_none_is_left_over(language: str) -> None:
    assert list(EXPECTED[language]) == [case.name for case in load_cases(language)]


@pytest.mark.parametrize("language", LANGUAGES)
def test_few_cases_are_allowed_to_differ(language: str) -> None:
    cases = load_cases(language)
    assert sum(bool(case.differs) for case in cases) < len(cases) * 0.05


def _described(result: wasmeval.Result, case: Case) -> dict[str, Any]:
    """`result` in the shape of an expected one."""
    described: dict[str, Any] = {
        "status": str(result.status),
        "stdout": result.stdout,
        "stderr": result.stderr,
    }
    if result.ok:
        described |= {"value": result.value_json.decode(), "value_is_json": result.value_is_json}
    if result.error:
        error = result.error
        described["error"] = {
            name: getattr(error, name) for name in ("type", "message", "traceback", "line", "column")
        }
    return comparable(described, case.differs)


def _restricted(described: dict[str, Any], expected: dict[str, Any]) -> dict[str, Any]:
    """`described` with the fields that are compared, which are those of `expected`; what it lacks stays lacking."""
    kept = {key: value for key, value in described.items() if key in expected or key == "error"}
    if "error" in kept and "error" in expected:
        kept["error"] = {key: value for key, value in kept["error"].items() if key in expected["error"]}
    return _decoded(kept)


def _decoded(fields: dict[str, Any]) -> dict[str, Any]:
    return fields | {"value": _exact(fields["value"])} if "value" in fields else fields


def _exact(text: str) -> Any:
    """The value of JSON `text` in which 1, 1.0, -0.0 and NaN are four things, and the order of keys counts."""
    return json.loads(
        text,
        parse_int=lambda digits: ("integer", digits),
        parse_float=lambda digits: ("float", repr(float(digits))),
        parse_constant=lambda name: ("float", name),
        object_pairs_hook=tuple,
    )
