"""Promise: an evaluation finds nothing of another, and no two draw the same random numbers."""

from __future__ import annotations

import pytest

from wasmeval import Evaluation, Evaluator, Status

# (what the first one does, what the second one asks, the answer of a fresh interpreter)
PYTHON_TRACES = {
    "global": ("secret = 'S'", "'secret' in globals()", False),
    "builtin": ("import builtins\nbuiltins.secret = 1\nbuiltins.len = None", "len('abc')", 3),
    "module": ("import json\njson.dumps = None", "import json\njson.dumps(1)", "1"),
    "sys.modules": (
        "import sys\nsys.modules['json'] = None\nsys.modules['evil'] = sys",
        "import sys, json\n'evil' in sys.modules or json is None",
        False,
    ),
    "sys.path": ("import sys\nsys.path[:] = ['/evil']", "import sys\n'/evil' in sys.path", False),
    "meta_path": (
        "import sys\nsys.meta_path.insert(0, None)",
        "import tomllib\ntomllib.loads('a = 1')",
        {"a": 1},
    ),
    "environ": ("import os\nos.environ['SECRET'] = 'S'", "import os\nos.environ.get('SECRET')", None),
    "recursion": (
        "import sys\nsys.setrecursionlimit(77)",
        "import sys\nsys.getrecursionlimit() == 77",
        False,
    ),
    "gc": (
        "import gc\nclass C(list): marker = 'S3CR3T'\nx = C(); x.append(x)",
        "import gc\nany('S3CR3T' in repr(getattr(type(o), 'marker', '')) for o in gc.get_objects())",
        False,
    ),
    "atexit": ("import atexit\natexit.register(print, 'late')", "1", 1),
    "random.seed": (
        "import random\nrandom.seed(7)",
        "import random\nrandom.random() == 0.32383276483316237",
        False,
    ),
    "locale": (
        "import decimal\ndecimal.getcontext().prec = 3",
        "import decimal\ndecimal.getcontext().prec",
        28,
    ),
    "warnings": (
        "import warnings\nwarnings.simplefilter('error')",
        "import warnings\nwarnings.warn('w')\n5",
        5,
    ),
    "trace": ("import sys\nsys.settrace(lambda *a: None)", "import sys\nsys.gettrace()", None),
    "streams": ("import sys\nsys.stdout = None", "import sys\nsys.stdout is None", False),
    "logging": ("import logging\nlogging.disable(50)", "import logging\nlogging.root.manager.disable", 0),
    "re-cache": (
        "import re\nre.compile('S3CR3T')",
        "import re\nany('S3CR3T' in str(k) for k in re._cache)",
        False,
    ),
    "interned": ("x = [str(i) for i in range(10**5)]", "import gc\ngc.get_count()[2] < 100", True),
    "float": ("float.__dict__", "(0.1).hex()", "0x1.999999999999ap-4"),
    "type": (
        "import ast\nast.AST.evil = 1",
        "import ast\nhasattr(ast.AST, 'evil')",
        False,
    ),
    "csv": (
        "import csv\ncsv.register_dialect('evil', delimiter='x')",
        "import csv\n'evil' in csv.list_dialects()",
        False,
    ),
    "sqlite": (
        "import sqlite3\nc = sqlite3.connect('file::memory:?cache=shared', uri=True)\nc.execute('create table t(a)')",
        (
            "import sqlite3\nc = sqlite3.connect('file::memory:?cache=shared', uri=True)\n"
            "c.execute('select count(*) from sqlite_master').fetchone()[0]"
        ),
        0,
    ),
    "descriptors": (
        "import os\nos.close(3)",
        "import os\nsorted(os.listdir('/'))",
        ["mnt", "tmp", "usr", "workspace"],
    ),
}
JAVASCRIPT_TRACES = {
    "global": ("globalThis.secret = 'S'", "typeof secret", "undefined"),
    "var": ("var secret = 'S'", "typeof secret", "undefined"),
    "let": ("let secret = 'S'", "typeof secret", "undefined"),
    "prototype": (
        "Object.prototype.evil = 1; Array.prototype.push = null",
        "[({}).evil === undefined, [].push(1)]",
        [True, 1],
    ),
    "built-in": (
        "Math.max = () => 0; JSON.stringify = null",
        "[Math.max(1, 2), JSON.stringify(1)]",
        [2, "1"],
    ),
    "console": ("console.log = null", "typeof console.log", "function"),
    "promise": ("Promise.prototype.then = null", "await Promise.resolve(5)", 5),
    "symbol": (
        "Symbol.for('x').description; globalThis[Symbol.for('x')] = 1",
        "globalThis[Symbol.for('x')] === undefined",
        True,
    ),
    "timer": ("setTimeout(() => {}, 0)", "1", 1),
    "frozen": ("Object.freeze(globalThis)", "globalThis.x = 1; x", 1),
    "regexp": ("/(S)/.test('S')", "RegExp.$1 === undefined || RegExp.$1 === ''", True),
}


@pytest.mark.parametrize(("first", "second", "fresh"), PYTHON_TRACES.values(), ids=PYTHON_TRACES)
def test_python_finds_no_trace(evaluator: Evaluator, first: str, second: str, fresh: object) -> None:
    check(evaluator, "python", first, second, fresh)


@pytest.mark.parametrize(("first", "second", "fresh"), JAVASCRIPT_TRACES.values(), ids=JAVASCRIPT_TRACES)
def test_javascript_finds_no_trace(evaluator: Evaluator, first: str, second: str, fresh: object) -> None:
    check(evaluator, "javascript", first, second, fresh)


def check(evaluator: Evaluator, language: str, first: str, second: str, fresh: object) -> None:
    # More of the first than instances are prepared: the second gets the slot of one of them.
    for _ in range(6):
        evaluator.evaluate(first, language=language)
    for _ in range(6):
        result = evaluator.evaluate(second, language=language)
        assert (result.status, result.value) == (Status.OK, fresh), result.error
        assert result.stdout == ""


def test_memory_of_a_guest_is_not_seen_by_the_next(evaluator: Evaluator) -> None:
    needle = "".join(chr(65 + i % 26) for i in range(5, 50))
    shift = [ord(c) + 1 for c in needle]
    write = f"x = [{needle!r} * 1000 + str(i) for i in range(300)]\nlen(x)"
    # The needle is built in the second guest without ever standing in its memory in one piece, but for the search.
    search = (
        f"n = bytes(c - 1 for c in {shift})\nimport gc\nfound = 0\n"
        "for _ in range(50):\n b = bytearray(100_000)\n found += b.count(n)\nfound"
    )
    for _ in range(5):
        assert evaluator.evaluate(write).ok
    assert [evaluator.evaluate(search).value for _ in range(5)] == [0] * 5


RANDOM = {
    "python": [
        "import random\nrandom.random()",
        "import random\nrandom.SystemRandom().random()",
        "import random\nrandom.Random().random()",
        "import random\nrandom.getrandbits(256)",
        "import secrets\nsecrets.token_hex()",
        "import uuid\nstr(uuid.uuid4())",
        "import uuid\nstr(uuid.uuid1())",
        "import os\nos.urandom(16).hex()",
        "import tempfile\nnext(tempfile._get_candidate_names())",
        "import random\nrandom.shuffle(x := list(range(100))) or x",
        "import uuid\nuuid.getnode()",
    ],
    "javascript": [
        "Math.random()",
        "crypto.randomUUID()",
        "[...crypto.getRandomValues(new Uint8Array(16))]",
    ],
}


@pytest.mark.parametrize(
    ("language", "code"), [(language, code) for language, codes in RANDOM.items() for code in codes]
)
def test_every_instance_draws_its_own_random_numbers(evaluator: Evaluator, language: str, code: str) -> None:
    results = evaluator.evaluate_batch([Evaluation(code, language) for _ in range(24)])
    results += [evaluator.evaluate(code, language=language) for _ in range(24)]
    assert {result.status for result in results} == {Status.OK}, results[0].error
    assert len({result.value_json for result in results}) == 48


def test_a_value_drawn_before_and_after_a_reseed_differ(evaluator: Evaluator) -> None:
    values = [
        evaluator.evaluate("import random\n[random.random() for _ in range(3)]").value for _ in range(10)
    ]
    assert len({value for triple in values for value in triple}) == 30


def test_the_hash_seed_is_the_same_and_documented_so(evaluator: Evaluator) -> None:
    """Fixed, so that fuel is the same each time; what it costs is bounded by the snippet's own fuel."""
    hashes = {evaluator.evaluate("hash('wasmeval'), list({'a', 'b', 'c', 'd'})").value_json for _ in range(8)}
    assert len(hashes) == 1
