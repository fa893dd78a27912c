"""Promise: no code runs past its fuel or its deadline, whatever it catches, and deep recursion ends in an error."""

from __future__ import annotations

import pytest

from wasmeval import Evaluator, Limits, Status

FUEL = 300_000_000

ENDLESS = {
    "python": {
        "loop": "while True: pass",
        "except": "while True:\n try:\n  while True: pass\n except BaseException: pass",
        "finally": "try:\n while True: pass\nfinally:\n while True: pass",
        "recursion": "def f():\n try: f()\n except RecursionError: f()\nf()",
        "generator": "def g():\n while True:\n  try: yield 1\n  finally: continue\nfor _ in g(): pass",
        "itertools": "import itertools\nsum(itertools.count())",
        "power": "10 ** 10 ** 8",
        "tower": "9 ** 9 ** 9 ** 9",
        "digits": "import sys\nsys.set_int_max_str_digits(0)\nstr(1 << 30_000_000)",
        "regex": "import re\nre.match(r'(a+)+$', 'a' * 40 + 'b')",
        "regex-nested": "import re\nre.match(r'(x+x+)+y', 'x' * 60)",
        "collisions": "class K:\n def __hash__(s): return 1\n def __eq__(s, o): return s is o\n"
        "{K(): 0 for _ in range(10**6)}",
        "integer-collisions": "d = {i * (2**61 - 1): 0 for i in range(10**5)}\n"
        "for i in range(10**6): (i * (2**61 - 1)) in d",
        "repr": "class R:\n def __repr__(s):\n  while True: pass\nR()",
        "del": "class Z:\n def __del__(s):\n  while True: pass\nZ()",
        "sort": "class C:\n def __lt__(s, o):\n  while True: pass\nsorted([C(), C()])",
        "import-hook": "import sys\nclass F:\n def find_spec(s, *a):\n  while True: pass\n"
        "sys.meta_path.insert(0, F())\nimport nosuchthing",
        "asyncio": "import asyncio\nasync def f():\n while True: await asyncio.sleep(0)\nasyncio.run(f())",
        "error-text": "class E(Exception):\n def __str__(s):\n  while True: pass\nraise E",
        "sum-of-range": "sum(range(10**12))",
        "string-search": "s = 'ab' * 10**6\nwhile True: s.find('ba' * 400_000 + 'x')",
    },
    "javascript": {
        "loop": "while (1);",
        "catch": "for (;;) try { for (;;); } catch {}",
        "finally": "try { while (1); } finally { while (1); }",
        "generator": "function* g() { while (1) try { yield 1 } finally { continue } } for (const x of g());",
        "bigint": "let b = 3n; while (1) b = b * b % (2n ** 20000n)",
        "regex": "/(a+)+$/.test('a'.repeat(40) + 'b')",
        "regex-nested": "/(x+x+)+y/.test('x'.repeat(60))",
        "microtask": "queueMicrotask(function f() { queueMicrotask(f) })",
        "promise": "Promise.resolve().then(function f() { return Promise.resolve().then(f) })",
        "await": "while (1) await 0",
        "to-json": "({ toJSON() { while (1); } })",
        "getter": "({ get x() { while (1); } })",
        "thenable": "Object.defineProperty(Object.prototype, 'then', { get() { while (1); } }); ({})",
        "error-text": "let e = new Error('m'); Object.defineProperty(e, 'message', { get() { while (1); } }); throw e",
        "sort": "[3, 1, 2].sort(() => { while (1); })",
        "array-like": "Array.from({ length: 1e9 }, () => 0).length",
    },
}


@pytest.mark.parametrize(
    ("language", "code"),
    [
        pytest.param(language, code, id=f"{language}-{name}")
        for language, all in ENDLESS.items()
        for name, code in all.items()
    ],
)
def test_endless_code_uses_its_fuel_and_no_more(evaluator: Evaluator, language: str, code: str) -> None:
    limits = Limits(fuel=FUEL, deadline_seconds=60)
    result = evaluator.evaluate(code, language=language, limits=limits)
    assert result.error
    assert (result.status, result.error.message) == (
        Status.FUEL_EXHAUSTED,
        f"all fuel was used ({FUEL}); raise limits.fuel or do less",
    )
    assert result.usage.fuel == FUEL
    assert result.value is None


# Too deep for the interpreter: its own error, and the instance is not lost.
DEEP = {
    "python": {
        "function": ("def f(): f()\nf()", "RecursionError", "maximum recursion depth exceeded"),
        "repr": (
            "class A:\n def __repr__(s): return repr(s)\nrepr(A())",
            "RecursionError",
            "maximum recursion depth exceeded",
        ),
        "getattr": (
            "import sys\nsys.setrecursionlimit(10**9)\nclass A:\n def __getattr__(s, n): return getattr(s, n)\nA().x",
            "RecursionError",
            "maximum recursion depth exceeded",
        ),
        "json": (
            "import json\njson.loads('[' * 10**5)",
            "RecursionError",
            "maximum recursion depth exceeded while decoding a JSON array from a unicode string",
        ),
        "deepcopy": (
            "import copy\nx = []\nfor _ in range(10**5): x = [x]\ncopy.deepcopy(x)",
            "RecursionError",
            "maximum recursion depth exceeded",
        ),
    },
    "javascript": {
        "function": ("function f() { f() } f()", "RangeError", "Maximum call stack size exceeded"),
        "to-string": (
            "let o = {}; o.toString = () => '' + o; '' + o",
            "RangeError",
            "Maximum call stack size exceeded",
        ),
        "proxy": (
            "new Proxy({}, { get(t, k, r) { return r[k] } }).x",
            "RangeError",
            "Maximum call stack size exceeded",
        ),
        "getter": ("({ get x() { return this.x } }).x", "RangeError", "Maximum call stack size exceeded"),
    },
}


@pytest.mark.parametrize(
    ("language", "code", "kind", "message"),
    [
        pytest.param(language, *case, id=f"{language}-{name}")
        for language, cases in DEEP.items()
        for name, case in cases.items()
    ],
)
def test_deep_recursion_is_the_languages_own_error(
    evaluator: Evaluator, language: str, code: str, kind: str, message: str
) -> None:
    result = evaluator.evaluate(code, language=language, limits=Limits(deadline_seconds=60))
    assert result.error
    assert (result.status, result.error.type, result.error.message) == (Status.ERROR, kind, message)


# Deep in C, where an interpreter may have no answer but to end: never more than its own instance is lost.
DEEP_IN_C = {
    "python": [
        "eval('(' * 10000 + ')' * 10000)",
        "eval('-' * 100000 + '1')",
        "x = ()\nfor _ in range(10**5): x = (x,)\nhash(x)",
        "x = []\nfor _ in range(10**5): x = [x]\nx",
        "x = []\nfor _ in range(10**5): x = [x]\nrepr(x)",
        "x = {}\nfor _ in range(10**5): x = {'a': x}\nx",
        "x = []\nfor _ in range(10**6): x = [x]\ndel x",
        "import ast\nast.parse('f(' * 5000)",
        "import pickle\npickle.loads(b'(' * 10**5 + b't' * 10**5 + b'.')",
        "import functools\nf = len\nfor _ in range(10**5): f = functools.partial(f)\nf([])",
        "import itertools\nx = []\nfor _ in range(10**5): x = itertools.chain(x)\nlist(x)",
        "x = type('X', (), {})\nfor _ in range(2000): x = type('X', (x,), {})\nx()",
        "import re\nre.compile('(?:' * 5000 + ')' * 5000)",
        "import sys\nsys.setrecursionlimit(10**9)\ndef f(): f()\nf()",
        "import xml.etree.ElementTree as e\ne.fromstring('<a>' * 10**5)",
        "import marshal\nx = []\nfor _ in range(3000): x = [x]\nmarshal.dumps(x)",
    ],
    "javascript": [
        "JSON.parse('['.repeat(1e5))",
        "eval('('.repeat(1e5))",
        "eval('-'.repeat(1e5) + '1')",
        "eval('['.repeat(1e5) + ']'.repeat(1e5))",
        "eval('{'.repeat(1e5))",
        "let a = []; for (let i = 0; i < 1e5; i++) a = [a]; a",
        "let a = []; for (let i = 0; i < 1e5; i++) a = [a]; String(a)",
        "let a = []; for (let i = 0; i < 1e5; i++) a = [a]; JSON.stringify(a)",
        "let a = []; for (let i = 0; i < 1e5; i++) a = [a]; console.log(a)",
        "let f = () => 1; for (let i = 0; i < 1e4; i++) f = f.bind(null); f()",
        "new RegExp('(?:'.repeat(1e4) + ')'.repeat(1e4))",
        "let p = {}; for (let i = 0; i < 1e4; i++) p = new Proxy(p, {}); p.x",
        "let s = 'x'; for (let i = 0; i < 1e5; i++) s = 'a' + s + 'b'; s.length",
    ],
}


@pytest.mark.parametrize(
    ("language", "code"),
    [
        pytest.param(language, code, id=f"{language}-{i}")
        for language, all in DEEP_IN_C.items()
        for i, code in enumerate(all)
    ],
)
def test_deep_structures_harm_nobody_else(evaluator: Evaluator, language: str, code: str) -> None:
    limits = Limits(fuel=3_000_000_000, deadline_seconds=60)
    result = evaluator.evaluate(code, language=language, limits=limits)
    assert result.status in (
        Status.OK,
        Status.ERROR,
        Status.MEMORY_EXCEEDED,
        Status.CRASHED,
        Status.FUEL_EXHAUSTED,
    )
    if result.status is Status.CRASHED:
        assert result.error
        assert result.error.message == "the interpreter's native stack overflowed; recurse less deeply"


SLEEPS = {
    "python": [
        "import time\ntime.sleep(1e9)",
        "import asyncio\nasyncio.run(asyncio.sleep(1e9))",
        "import select\nselect.select([], [], [], 1e9)",
        "import threading\nthreading.Event().wait(1e9)",
        "import time\nwhile True:\n try: time.sleep(1e9)\n except BaseException: pass",
        "import time\ntry: time.sleep(1e9)\nfinally: time.sleep(1e9)",
        "import time\nwhile True: time.sleep(0.001)",
        (
            "import asyncio\nasync def f(): await asyncio.gather(*[asyncio.sleep(1e6) for _ in range(1000)])\n"
            "asyncio.run(f())"
        ),
    ],
    "javascript": [
        "await new Promise(r => setTimeout(r, 1e9))",
        "setTimeout(() => {}, 2 ** 31 - 1)",
        "setInterval(() => {}, 5)",
        "for (let i = 0; i < 1000; i++) setTimeout(() => {}, 1e8 + i)",
        "try { await new Promise(r => setTimeout(r, 1e9)) } finally { await new Promise(r => setTimeout(r, 1e9)) }",
    ],
}


@pytest.mark.parametrize(
    ("language", "code"),
    [
        pytest.param(language, code, id=f"{language}-{i}")
        for language, all in SLEEPS.items()
        for i, code in enumerate(all)
    ],
)
def test_a_sleep_ends_at_the_deadline(evaluator: Evaluator, language: str, code: str) -> None:
    result = evaluator.evaluate(code, language=language, limits=Limits(deadline_seconds=0.2))
    assert result.error
    assert (result.status, result.error.message) == (
        Status.DEADLINE_EXCEEDED,
        "the deadline of 0.2 s passed; raise limits.deadline_seconds or do less",
    )
    assert result.usage.wall_seconds >= 0.2
    # Asleep, it spent next to nothing of its fuel.
    assert result.usage.fuel < 2_000_000_000
