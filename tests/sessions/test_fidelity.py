"""A session is what it was, byte for byte: in the next step, in a fork, after a sleep, and after going back."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.sessions.conftest import MakeSession
from wasmeval import Evaluator, Limits
from wasmeval.embedded_session import EmbeddedSession
from wasmeval.limits import MIB

Move = Callable[[EmbeddedSession], EmbeddedSession]


def stay(session: EmbeddedSession) -> EmbeddedSession:
    return session


def fork(session: EmbeddedSession) -> EmbeddedSession:
    other = session.fork()
    # What becomes of the first one is not the second one's business.
    session.evaluate("globals().clear()" if session.info.language == "python" else "globalThis.gone = 1")
    session.close()
    return other


def sleep(session: EmbeddedSession) -> EmbeddedSession:
    session.hibernate()
    assert not session.info.is_live
    return session


def go_back(session: EmbeddedSession) -> EmbeddedSession:
    checkpoint = session.checkpoint()
    session.evaluate("globals().clear()" if session.info.language == "python" else "globalThis.gone = 1")
    session.restore(checkpoint)
    return session


MOVES = [stay, fork, sleep, go_back]

PYTHON: dict[str, tuple[list[str], str, object]] = {
    "names": (["import json\nx = [1]", "x.append(2)"], "json.dumps(x)", "[1, 2]"),
    "a closure": (
        [
            "def counter():\n n = 0\n def up():\n  nonlocal n\n  n += 1\n  return n\n return up",
            "c = counter(); c()",
        ],
        "c()",
        2,
    ),
    "a generator in the middle": (
        ["g = (i * i for i in range(9))", "[next(g), next(g)]"],
        "[next(g), next(g)]",
        [4, 9],
    ),
    "a coroutine in the middle": (
        [
            (
                "import types\n@types.coroutine\ndef pause():\n got = yield 1\n return got\n"
                "async def f():\n return 2 * await pause()\nc = f()"
            ),
            "c.send(None)",
        ],
        "try:\n c.send(21)\nexcept StopIteration as e:\n out = e.value\nout",
        42,
    ),
    "a class and its objects": (
        ["class A:\n n = 0\n def up(self):\n  A.n += 1\n  return A.n\na = A()", "a.up()"],
        "[a.up(), type(a).__name__]",
        [2, "A"],
    ),
    "identity": (["a = []; b = {'a': a}; a.append(b)"], "b['a'] is a and a[0] is b", True),
    "state of a module": (
        ["import decimal; decimal.getcontext().prec = 7"],
        "str(decimal.Decimal(1) / 3)",
        "0.3333333",
    ),
    "a seed of its own": (
        ["import random; random.seed(7); r = random.Random(8)", "random.random(); r.random(); None"],
        "[random.random(), r.random()]",
        None,
    ),
    "an open file": (
        ["f = open('log.txt', 'w+'); f.write('one\\n'); f.flush()", "f.write('two\\n')"],
        "f.seek(0); f.read()",
        "one\ntwo\n",
    ),
    "an open file that has no name any more": (
        ["import os\nf = open('t', 'w+b'); f.write(b'kept'); f.flush(); os.remove('t')"],
        "f.seek(0); [f.read().decode(), os.path.exists('t')]",
        ["kept", False],
    ),
    "folders, links and times": (
        [
            (
                "import os, pathlib\nos.makedirs('a/b/c'); pathlib.Path('a/b/c/f').write_text('x')\n"
                "os.symlink('a/b/c/f', 'l'); os.utime('a/b/c/f', ns=(5, 7)); os.chdir('a/b')"
            )
        ],
        "[pathlib.Path('/workspace/l').read_text(), os.stat('c/f').st_mtime_ns, os.getcwd()]",
        ["x", 7, "/workspace/a/b"],
    ),
    "sqlite3": (
        [
            "import sqlite3\ndb = sqlite3.connect('d.db'); db.execute('create table t (n)')",
            "db.execute('insert into t values (1)')\nNone",
        ],
        "db.execute('insert into t values (2)'); db.commit(); db.execute('select sum(n) from t').fetchone()[0]",
        3,
    ),
    "sqlite3 in memory": (
        [
            (
                "import sqlite3\ndb = sqlite3.connect(':memory:'); db.execute('create table t (n)')\n"
                "db.execute('insert into t values (5)')\nNone"
            )
        ],
        "db.execute('select n from t').fetchone()[0]",
        5,
    ),
    "an import of the step before": (
        ["import collections.abc, html.parser, xml.etree.ElementTree as ET"],
        "ET.fromstring('<a><b/></a>')[0].tag",
        "b",
    ),
    "a patched function": (["import math; math.sqrt = lambda x: 'patched'"], "math.sqrt(4)", "patched"),
    "warnings and hooks": (
        ["import sys; sys.displayhook = None; sys.setrecursionlimit(321)"],
        "sys.getrecursionlimit()",
        321,
    ),
}

JAVASCRIPT: dict[str, tuple[list[str], str, object]] = {
    "names": (
        ["let x = [1]; const y = 2; var z = 3; function f() { return x.length + y + z }", "x.push(2)"],
        "f()",
        7,
    ),
    "a closure": (["const up = (n => () => ++n)(0)", "up()"], "up()", 2),
    "a generator in the middle": (
        [
            "function* squares() { for (let i = 0; ; i++) yield i * i } const g = squares()",
            "g.next(); g.next()",
        ],
        "[g.next().value, g.next().value]",
        [4, 9],
    ),
    "a promise that waits": (
        ["let done; const p = new Promise(r => { done = r }); const q = p.then(v => v * 2); 0"],
        "done(21); q",
        42,
    ),
    "maps, sets and weak ones": (
        [
            "const k = {}; const m = new Map([[k, 1]]); const w = new WeakMap([[k, 2]]); const s = new Set([1, 2])",
            "m.set('x', 3)",
        ],
        "[m.get(k), w.get(k), m.size, s.has(2)]",
        [1, 2, 2, True],
    ),
    "a class with private fields": (
        ["class A { #n = 1; up() { return ++this.#n } } const a = new A()", "a.up()"],
        "a.up()",
        3,
    ),
    "typed arrays": (["const b = new Uint8Array(70000).fill(7)"], "b[69999]", 7),
    "files": (
        ["const fs = require('fs'); fs.mkdirSync('d'); fs.writeFileSync('d/f', 'x')"],
        "fs.readFileSync('d/f', 'utf8')",
        "x",
    ),
}


@pytest.mark.parametrize("move", MOVES, ids=lambda move: move.__name__)
@pytest.mark.parametrize("case", PYTHON)
def test_python_goes_on_where_it_was(begin: MakeSession, case: str, move: Move) -> None:
    check(begin("python"), PYTHON[case], move)


@pytest.mark.parametrize("move", MOVES, ids=lambda move: move.__name__)
@pytest.mark.parametrize("case", JAVASCRIPT)
def test_javascript_goes_on_where_it_was(begin: MakeSession, case: str, move: Move) -> None:
    check(begin("javascript"), JAVASCRIPT[case], move)


def check(session: EmbeddedSession, case: tuple[list[str], str, object], move: Move) -> None:
    steps, question, wanted = case
    for step in steps:
        result = session.evaluate(step)
        assert result.ok, result.error
    session = move(session)
    try:
        result = session.evaluate(question)
        assert result.ok, result.error
        if wanted is None:
            import random

            random.seed(7)
            own = random.Random(8)
            random.random()
            own.random()
            wanted = [random.random(), own.random()]
        assert result.value == wanted
        assert session.evaluate("1 + 1").value == 2
    finally:
        session.close()


@pytest.mark.slow
@pytest.mark.parametrize("move", MOVES, ids=lambda move: move.__name__)
def test_a_hundred_megabytes_go_on_where_they_were(begin: MakeSession, move: Move) -> None:
    session = begin("python")
    assert session.evaluate("xs = [bytes([i % 251]) * 1_000_000 for i in range(100)]").ok
    session = move(session)
    result = session.evaluate("[len(xs), sum(len(set(x)) for x in xs), xs[99][5]]")
    assert result.value == [100, 100, 99]
    session.close()


def test_typescript_goes_on_where_it_was(begin: MakeSession) -> None:
    session = begin("typescript")
    assert session.evaluate("interface P { n: number }\nlet p: P = { n: 1 }").ok
    session.hibernate()
    assert session.evaluate("p.n += 1; (p as P).n").value == 2


def test_each_step_has_its_own_lines(begin: MakeSession) -> None:
    python, javascript = begin("python"), begin("javascript")
    python.evaluate("def f(n):\n\n    return 1 / n")
    error = python.evaluate("x = 1\nf(0)").error
    assert error is not None
    assert (error.type, error.line) == ("ZeroDivisionError", 2)
    assert 'File "<step 2>", line 2' in error.traceback
    assert 'File "<step 1>", line 3, in f\n    return 1 / n\n' in error.traceback
    javascript.evaluate("function f() {\n\n  throw new Error('no')\n}")
    error = javascript.evaluate("let x = 1\nf()").error
    assert error is not None
    assert (error.message, error.line) == ("no", 2)
    assert "at f (<step 1>:3:" in error.traceback


def test_a_memory_above_the_usual_ceiling_sleeps_and_wakes() -> None:
    limits = Limits(memory_bytes=1536 * MIB)
    with Evaluator(workers=1, defaults=limits, ceilings=limits) as evaluator, evaluator.session() as session:
        assert session.evaluate("x = bytearray(1_200_000_000); x[-1] = 7; x[-1]").value == 7
        assert session.evaluate("x[-1]").value == 7
        session.hibernate()
        assert session.evaluate("x[-1]").value == 7


def test_a_folder_that_is_read_goes_on(begin: MakeSession) -> None:
    session = begin("python")
    session.evaluate(
        "import os\nfor i in range(9): open(f'/tmp/{i}', 'w').close()\n"
        "entries = os.scandir('/tmp'); first = next(entries).name"
    )
    session.hibernate()
    assert session.evaluate("sorted([first, *(entry.name for entry in entries)])").value == list("012345678")


def test_folders_that_are_read_again_and_again_are_no_bomb(begin: MakeSession, evaluator: Evaluator) -> None:
    session = begin("python")
    session.evaluate(
        "import os\nfor i in range(1000): open('/tmp/' + 'é' * 120 + str(i), 'w').close()\n"
        "reading = [os.scandir('/tmp') for _ in range(240)]; names = [next(each).name for each in reading]"
    )
    place = session._held.live.place
    assert sum(map(len, evaluator._pool.session_state(place))) < 32 * MIB
    session.hibernate()
    assert session.evaluate("[len([*each]) for each in reading] == [999] * 240").value is True


@pytest.mark.parametrize("move", MOVES)
def test_files_that_a_step_got_and_did_not_look_at_are_there(begin: MakeSession, move: Move) -> None:
    session = begin("python")
    session.evaluate("x = 1", files={"a": b"one"})
    session = move(session)
    session.evaluate("x = 2", files={"b": b"two"})
    assert session.evaluate("import os; sorted(os.listdir())").value == ["a", "b"]
