"""TypeScript: its corpus gives what the real compiler and node gave, and its errors are placed in the snippet.

The expected results come from `tests/guest/typescript_generate.py`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import wasmeval
from tests.guest.corpus import HERE, Case, load_cases
from wasmeval import Status
from wasmeval.wasm.abi import MalformedReply
from wasmeval.wasm.translation import Translation, decode, map_traceback, original_place

CASES = load_cases("typescript")
EXPECTED = json.loads((HERE / "typescript" / "expected.json").read_text("utf-8"))["cases"]


@pytest.fixture(scope="module")
def evaluator() -> Iterator[wasmeval.Evaluator]:
    with wasmeval.Evaluator(workers=1) as evaluator:
        yield evaluator


def evaluate(evaluator: wasmeval.Evaluator, code: str, **options: Any) -> wasmeval.Result:
    return evaluator.evaluate(code, language="typescript", **options)


@pytest.fixture(scope="module")
def results(evaluator: wasmeval.Evaluator) -> dict[str, wasmeval.Result]:
    given = [wasmeval.Evaluation(case.code, language="typescript", inputs=case.inputs) for case in CASES]
    return dict(zip([case.name for case in CASES], evaluator.evaluate_batch(given), strict=True))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_snippet_gives_what_the_real_compiler_and_node_give(
    case: Case, results: dict[str, wasmeval.Result]
) -> None:
    expected, result = EXPECTED[case.name], results[case.name]
    assert (str(result.status), result.error) == (expected["status"], result.error)
    if "value" in expected and "value" not in case.differs:
        assert json.loads(result.value_json) == json.loads(expected["value"])
    assert result.stdout == expected.get("stdout", "")
    if result.error:
        wanted = {key: value for key, value in expected["error"].items() if value is not None}
        assert {key: getattr(result.error, key) for key in wanted if key not in case.differs} == {
            key: value for key, value in wanted.items() if key not in case.differs
        }


def test_every_case_has_an_expected_result_and_few_may_differ() -> None:
    assert list(EXPECTED) == [case.name for case in CASES]
    assert sum(bool(case.differs) for case in CASES) <= 6


def test_an_error_of_type_syntax_names_line_and_column(evaluator: wasmeval.Evaluator) -> None:
    result = evaluate(evaluator, "const y = 1;\n  let x: = 3")
    assert result.status is Status.ERROR
    assert result.error is not None
    assert (result.error.type, result.error.line, result.error.column) == ("SyntaxError", 2, 10)
    assert result.error.message.startswith("Unexpected token `=`")
    assert result.error.traceback.startswith("<snippet>:2\n  let x: = 3\n         ^\n\nSyntaxError: ")
    assert result.error.traceback.endswith("\n    at <snippet>:2:10")
    assert evaluate(evaluator, "const x: number = 3; x").value == 3


def test_every_frame_of_a_rewritten_snippet_names_its_own_place(evaluator: wasmeval.Evaluator) -> None:
    code = "enum E {\n  A,\n}\n\nfunction fail(x: E): never {\n  throw new Error('no')\n}\n\n"
    code += "[1].map(\n  n => fail(n),\n)"
    result = evaluate(evaluator, code)
    assert result.error is not None
    assert result.error.line == 6
    places = [
        frame.rpartition("<snippet>:")[2].rstrip(")").split(":")[0]
        for frame in result.error.traceback.splitlines()
        if frame.startswith("    at ") and "<snippet>" in frame
    ]
    assert places[:2] == ["6", "10"]
    assert result.error.traceback.startswith("<snippet>:6\n")


def test_windows_line_ends_keep_their_lines(evaluator: wasmeval.Evaluator) -> None:
    for code in ("type A = 1\r\n\r\nthrow new Error('x')", "enum A { B }\r\n\r\nthrow new Error('x')"):
        result = evaluate(evaluator, code)
        assert result.error is not None
        assert result.error.line == 3
    result = evaluate(evaluator, "const a = 1\r\nlet x: = 3")
    assert result.error is not None
    assert (result.error.line, result.error.column) == (2, 8)
    assert result.error.traceback.startswith("<snippet>:2\nlet x: = 3\n       ^\n")


@pytest.mark.parametrize("code", ["@dec class A {}", "class A {\n  @log()\n  run(): void {}\n}"])
def test_decorators_are_refused_by_name(evaluator: wasmeval.Evaluator, code: str) -> None:
    result = evaluate(evaluator, code)
    assert result.status is Status.ERROR
    assert result.error is not None
    assert result.error.message.startswith("decorators are not supported")
    assert result.error.line == 1 + code.count("\n", 0, code.index("@"))


@pytest.mark.parametrize("head", ["", "enum E { A }\n"])
def test_an_import_of_a_value_is_refused_as_in_javascript(evaluator: wasmeval.Evaluator, head: str) -> None:
    result = evaluate(evaluator, head + "import { readPage } from 'pages'\nreadPage()")
    assert result.status is Status.UNSUPPORTED
    assert result.error is not None
    assert "'pages'" in result.error.message


@pytest.mark.parametrize("code", ["(" * 100_000, "x" + ".y" * 100_000, "type X = " + "A<" * 50_000])
def test_endless_nesting_is_an_error_of_the_snippet(evaluator: wasmeval.Evaluator, code: str) -> None:
    result = evaluate(evaluator, code)
    assert result.status is Status.ERROR
    assert result.error is not None
    assert (result.error.type, result.error.message) == (
        "RangeError",
        "the snippet is nested too deeply for the TypeScript front end",
    )
    assert evaluate(evaluator, "1 as number").value == 1


def test_translating_uses_fuel_and_can_run_out_of_it(evaluator: wasmeval.Evaluator) -> None:
    code = "const a: number = 1; a"
    first, second = evaluate(evaluator, code), evaluate(evaluator, code)
    plain = evaluator.evaluate("const a         = 1; a", language="javascript")
    assert first.usage.fuel == second.usage.fuel > plain.usage.fuel
    result = evaluate(
        evaluator, "const a: number[] = [" + "1, " * 100_000 + "]", limits=wasmeval.Limits(fuel=1_000_000)
    )
    assert result.status is Status.FUEL_EXHAUSTED


def test_translating_within_little_memory_ends_by_that_limit(evaluator: wasmeval.Evaluator) -> None:
    code = "const a: number[] = [" + "1, " * 300_000 + "]"
    result = evaluate(evaluator, code, limits=wasmeval.Limits(memory_bytes=16 << 20))
    assert result.status is Status.MEMORY_EXCEEDED
    assert evaluate(evaluator, "2 as number").value == 2


# ---- what the host makes of a reply ----------------------------------------------------------------------------

LINES = ("1,1,1;9,2,3", "", "5,4,7")


def test_places_are_those_of_the_segment_before_them() -> None:
    assert original_place(LINES, 1, 8) == (1, 1)
    assert original_place(LINES, 1, 9) == (2, 3)
    assert original_place(LINES, 1) == (1, 1)
    assert original_place(LINES, 3, 1) == (4, 7)
    assert original_place(LINES, 2, 1) == original_place(LINES, 4, 1) == original_place(LINES, 0) == (0, 0)


def test_a_traceback_is_mapped_and_its_heading_follows_its_first_frame() -> None:
    text = "<snippet>:1\n  code\n\nError: x\n    at f (<snippet>:1:12)\n    at <snippet>:3:6\n    at <snippet>:2:1"
    assert map_traceback(text, LINES) == (
        "<snippet>:2\n  code\n\nError: x\n    at f (<snippet>:2:3)\n    at <snippet>:4:7\n    at <snippet>:2:1"
    )


def test_a_translation_without_lines_is_the_snippet_s_own_lines() -> None:
    assert decode(b'{"code": "a\\u0000b", "lines": null}') == Translation(b"ab", None)
    assert Translation(b"", None).original(7) == 7
    assert Translation(b"", LINES).original(1, 9) == 2


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"[]",
        b"null",
        b'{"code": 1, "lines": null}',
        b'{"code": "x"}',
        b'{"code": "x", "lines": 5}',
        b'{"code": "x", "lines": [1]}',
        b'{"code": "x", "lines": {"0": "1,1,1"}}',
        b'{"code": "\\ud800", "lines": null}',
        b"\xff",
        b"[" * 100_000,
    ],
)
def test_what_is_no_translation_is_malformed(value: bytes) -> None:
    with pytest.raises(MalformedReply):
        decode(value)


@given(
    st.lists(st.text(alphabet="0123456789,;-ab", max_size=40), max_size=4),
    st.integers(0, 6),
    st.integers(0, 50),
)
def test_hostile_segments_place_an_error_somewhere_or_nowhere(
    lines: list[str], line: int, column: int
) -> None:
    found = original_place(tuple(lines), line, column)
    assert all(0 <= number < 10**9 for number in found)
    assert map_traceback(f"at <snippet>:{line}:{column}", tuple(lines)).startswith("at <snippet>:")
