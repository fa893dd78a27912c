"""TypeScript is translated in an instance of its own: within the limits, and out of the reach of the snippet."""

from __future__ import annotations

import pytest

from wasmeval import Evaluator, Limits, Result, Status

DEEP = 20_000
HOSTILE = {
    "parentheses": "(" * DEEP + "1" + ")" * DEEP,
    "arrays": "[" * DEEP + "]" * DEEP,
    "types": "type A = " + "Array<" * DEEP + "number" + ">" * DEEP,
    "conditional types": "type A = " + "B extends C ? " * DEEP + "1" + " : 2" * DEEP,
    "casts": "<any>" * DEEP + "1",
    "unclosed": "class A { constructor(public x: " * 100,
    "template": "`${" * DEEP,
    "many enums": "".join(f"enum E{i} {{ A, B }}\n" for i in range(5000)),
    "a long line": "const a: number = 1; " * 40_000,
    "a long name": "const " + "a" * 500_000 + ": number = 1",
    "no text at all": "\N{LINE SEPARATOR}" * 1000,
    "odd characters": "const \u00e4\U0001d4d0: string = '\U0001f600'; \u00e4\U0001d4d0",
}


def evaluate(evaluator: Evaluator, code: str, **limits: float) -> Result:
    return evaluator.evaluate(code, language="typescript", limits=Limits(**limits))  # type: ignore[arg-type]


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_sources_end(evaluator: Evaluator, name: str) -> None:
    result = evaluate(evaluator, HOSTILE[name], deadline_seconds=20)
    assert result.status in (Status.OK, Status.ERROR, Status.MEMORY_EXCEEDED), result.error
    assert evaluate(evaluator, "const n: number = 2; n").value == 2


def test_translating_spends_the_same_fuel(evaluator: Evaluator) -> None:
    code = "enum Size { S, L }\nfunction f(x: number): number { return x + Size.L }\nf(1)"
    whole = evaluate(evaluator, code).usage.fuel
    assert evaluate(evaluator, code).usage.fuel == whole
    assert evaluate(evaluator, code, fuel=whole).status is Status.OK
    for fuel in (whole - 50_000, whole // 2, 1000, 1):
        result = evaluate(evaluator, code, fuel=fuel)
        assert (result.status, result.usage.fuel) == (Status.FUEL_EXHAUSTED, fuel)


def test_translating_counts_to_the_deadline_and_to_the_memory(evaluator: Evaluator) -> None:
    long = "".join(f"enum E{i} {{ A = {i}, B }}\n" for i in range(20_000))
    result = evaluate(evaluator, long, deadline_seconds=0.02)
    assert result.status is Status.DEADLINE_EXCEEDED
    result = evaluate(evaluator, long, memory_bytes=24 << 20)
    assert result.status in (Status.MEMORY_EXCEEDED, Status.CRASHED), result
    assert evaluate(evaluator, "1 as number").value == 1


def test_nothing_remains_in_the_translator(evaluator: Evaluator) -> None:
    evaluate(evaluator, "enum Secret { A = 41 }\nclass P { constructor(public x: number) {} }\nSecret.A")
    result = evaluate(evaluator, "enum Other { B }\ntypeof Secret + typeof P")
    assert result.value == "undefinedundefined"
    result = evaluate(evaluator, "let x: = 3")
    assert evaluate(evaluator, "let x: number = 3; x").value == 3


def test_the_snippet_meets_no_translator(evaluator: Evaluator) -> None:
    code = "Reflect.ownKeys(globalThis).map(String).sort()"
    plain = evaluator.evaluate(code, language="javascript").value
    assert evaluate(evaluator, f"const keys: string[] = {code}; keys").value == plain


@pytest.mark.parametrize(
    ("code", "line", "column"),
    [
        ("const a: number = 1\nlet x: = 3", 2, 8),
        ("enum A { B }\n\nfunction f(): never {\n  throw new Error('x')\n}\nf()", 4, 9),
        ("class P {\n  constructor(private x: number) { if (x) throw new Error('x') }\n}\nnew P(1)", 2, None),
        ("interface A {\n  x: number\n}\nnull!.x", 4, None),
    ],
)
def test_errors_are_placed_in_the_snippet(
    evaluator: Evaluator, code: str, line: int, column: int | None
) -> None:
    result = evaluate(evaluator, code)
    assert result.status is Status.ERROR
    assert result.error is not None
    assert result.error.line == line
    assert column in (None, result.error.column)
