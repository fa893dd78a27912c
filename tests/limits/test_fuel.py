"""Fuel: a budget that ends any computation, and that is the same number every time."""

from __future__ import annotations

import pytest

from wasmeval import Evaluation, Evaluator, Limits, Status
from wasmeval.limits import MIB
from wasmeval.model import Job
from wasmeval.pool import BlockingPool, PoolSettings
from wasmeval.runtimes import Catalogue

SNIPPETS = {
    "python": [
        "1 + 1",
        "sum(i * i for i in range(20_000))",
        "import json, re\njson.loads('[1, 2, {\"a\": 3}]'), re.findall(r'\\w+', 'a b c' * 100)",
        "sorted({str(i): i for i in range(2000)}, key=hash)[:3]",
        "{object() for _ in range(100)} and len({'a', 'b', 'c'})",
        "class A: pass\n[id(A()) for _ in range(10)] and sorted([frozenset([i]) for i in range(50)], key=hash) and 5",
        "print('x' * 10_000)",
        "import sys\nfor i in range(100): print(i, file=sys.stderr)",
        "1 / 0",
        "def f(n): return n and f(n - 1)\nf(500)",
        "import decimal, statistics, dataclasses, fractions\nstatistics.mean([1, 2, 3])",
        "bytearray(30_000_000)[5]",
        "import tomllib\ntomllib.loads('a = 1')",
        "import gc\nx = [[] for _ in range(50_000)]\ngc.collect()",
    ],
    "javascript": [
        "1 + 1",
        "let s = 0; for (let i = 0; i < 20000; i++) s += i * i; s",
        "JSON.stringify(Array.from({ length: 500 }, (_, i) => ({ i })))",
        "'a b c'.repeat(100).match(/\\w+/g).length",
        "console.log('x'.repeat(10000))",
        "throw new Error('x')",
        "await Promise.resolve(5)",
        "new Map(Array.from({ length: 1000 }, (_, i) => ['k' + i, i])).size",
        "new Uint8Array(3e7)[5]",
    ],
}
CASES = [(language, code) for language, all in SNIPPETS.items() for code in all]


@pytest.mark.parametrize("language", SNIPPETS)
def test_the_end_of_the_fuel(evaluator: Evaluator, language: str) -> None:
    code = {"python": "print('before')\nwhile True: pass", "javascript": "console.log('before'); while (1);"}
    for fuel in (30_000_000, 100_000_000, 1_000_000_007):
        result = evaluator.evaluate(
            code[language], language=language, limits=Limits(fuel=fuel, deadline_seconds=60)
        )
        assert result.error
        assert (result.status, result.error.type, result.error.message) == (
            Status.FUEL_EXHAUSTED,
            "FuelExhausted",
            f"all fuel was used ({fuel}); raise limits.fuel or do less",
        )
        assert (result.usage.fuel, result.limits.fuel) == (fuel, fuel)
        assert (result.value, result.value_json) == (None, b"")


@pytest.mark.parametrize("language", SNIPPETS)
def test_the_least_fuel(evaluator: Evaluator, language: str) -> None:
    for fuel in (1, 2, 1000):
        result = evaluator.evaluate("1", language=language, limits=Limits(fuel=fuel))
        assert (result.status, result.usage.fuel, result.stdout) == (Status.FUEL_EXHAUSTED, fuel, "")


@pytest.mark.parametrize("language", SNIPPETS)
def test_what_was_used_is_enough_and_a_little_less_is_not(evaluator: Evaluator, language: str) -> None:
    used = evaluator.evaluate("1 + 1", language=language).usage.fuel
    assert evaluator.evaluate("1 + 1", language=language, limits=Limits(fuel=used + 1)).value == 2
    result = evaluator.evaluate("1 + 1", language=language, limits=Limits(fuel=used // 2))
    assert result.status is Status.FUEL_EXHAUSTED


@pytest.mark.parametrize(
    ("language", "code"), CASES, ids=[f"{language}-{i}" for i, (language, _) in enumerate(CASES)]
)
def test_fuel_is_the_same_every_time(evaluator: Evaluator, language: str, code: str) -> None:
    """On either worker, alone or among others, with whatever fuel and deadline is given."""
    alone = [evaluator.evaluate(code, language=language) for _ in range(6)]
    many = evaluator.evaluate_batch([Evaluation(code, language) for _ in range(12)])
    other = [
        evaluator.evaluate(code, language=language, limits=Limits(fuel=10**11, deadline_seconds=99)),
        evaluator.evaluate(code, language=language, limits=Limits(memory_bytes=512 * MIB)),
        evaluator.evaluate(code, language=language, limits=Limits(output_bytes=4 * MIB)),
    ]
    mixed = evaluator.evaluate_batch(
        [Evaluation(code, language), Evaluation("while True: pass", limits=Limits(fuel=200_000_000))] * 3
    )[::2]
    assert len({result.usage.fuel for result in alone + many + other + mixed}) == 1
    assert len({(result.status, result.value_json, result.stdout) for result in alone + many}) == 1


def test_fuel_with_inputs(evaluator: Evaluator) -> None:
    inputs = {"xs": list(range(1000)), "d": {str(i): i for i in range(1000)}, "s": "é" * 50_000}
    for language, code in (("python", "sum(xs) + len(d) + len(s)"), ("javascript", "xs.length + s.length")):
        results = [evaluator.evaluate(code, language=language, inputs=inputs) for _ in range(8)]
        assert {result.status for result in results} == {Status.OK}
        assert len({result.usage.fuel for result in results}) == 1


def test_sleep_uses_no_fuel(evaluator: Evaluator) -> None:
    code = "import time\ntime.sleep({})"
    short = evaluator.evaluate(code.format("0.001")).usage.fuel
    long = evaluator.evaluate(code.format("0.201")).usage.fuel
    assert abs(long - short) < 1_000_000


@pytest.mark.parametrize("ready", [0, 1, 4])
def test_fuel_does_not_depend_on_preparation(evaluator: Evaluator, ready: int) -> None:
    """A prepared instance and one that is made on demand spend the same, in another pool as in this one."""
    catalogue = Catalogue.installed()
    limits = Limits().within(evaluator._policy.defaults, evaluator._policy.ceilings)
    pool = BlockingPool(PoolSettings(workers=1, ready=ready), catalogue)
    pool.start()
    try:
        for language, code in (CASES[1], CASES[3], CASES[-1]):
            jobs = [Job(language, code.encode(), b"", limits) for _ in range(8)]
            fuels = {result.usage.fuel for result in pool.evaluate_many(jobs, timeout=60)}
            assert fuels == {evaluator.evaluate(code, language=language).usage.fuel}
    finally:
        pool.close()
