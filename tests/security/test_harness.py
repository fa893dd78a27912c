"""Promise: the snippet runs as `<snippet>` alone: no frame, name or hook of the harness is in its reach or its way."""

from __future__ import annotations

import pytest

from wasmeval import Evaluator, Limits, Status


def test_no_frame_is_above_the_snippet(evaluator: Evaluator) -> None:
    code = """
import sys, inspect, traceback
frames = []
frame = sys._getframe()
while frame:
    frames.append(frame.f_code.co_filename)
    frame = frame.f_back
[frames, [each.filename for each in inspect.stack()], len(traceback.extract_stack())]"""
    assert evaluator.evaluate(code).value == [["<snippet>"], ["<snippet>"], 1]


def test_a_traceback_shows_the_snippet_only(evaluator: Evaluator) -> None:
    for code in (
        "def f():\n    return 1 / 0\nf()",
        "import json\njson.loads('{')",
        "exec('1/0')",
        "class E(Exception): pass\ntry: 1 / 0\nexcept Exception as e: raise E from e",
    ):
        result = evaluator.evaluate(code)
        assert result.error
        assert "wasmeval" not in result.error.traceback
        assert 'File "<snippet>", line ' in result.error.traceback
    code = "throw new Error('x')"
    result = evaluator.evaluate(code, language="javascript")
    assert result.error
    assert "wasmeval" not in result.error.traceback


def test_no_name_of_the_harness_is_a_global(evaluator: Evaluator) -> None:
    names = evaluator.evaluate("sorted(globals())").value
    assert set(names) <= {
        "__annotations__",
        "__builtins__",
        "__doc__",
        "__loader__",
        "__name__",
        "__package__",
        "__spec__",
    }
    names = evaluator.evaluate("Object.getOwnPropertyNames(globalThis)", language="javascript").value
    assert not [
        name for name in names if "wasmeval" in name.lower() or name in ("std", "os", "scriptArgs", "bjs")
    ]


HOST_MODULE_MISUSE = [
    (
        "import _wasmeval\nfor name in dir(_wasmeval):\n f = getattr(_wasmeval, name)\n if callable(f):\n"
        "  for args in ((), (b'',), (b'x' * 10**6,), (-1,), (2**31,), (2**64,), (None,),"
        " ('x',), (b'x', b'y'), ([],)):\n"
        "   try: f(*args)\n   except (Exception, SystemExit): pass\n5"
    ),
    "import _wasmeval, sys\nfor f in list(vars(_wasmeval)): delattr(_wasmeval, f)\n5",
    "import sys\nsys.modules['_wasmeval'] = None\n5",
    "import sys\nfor name in list(sys.modules): sys.modules[name] = None\n5",
    "import builtins\nfor name in dir(builtins):\n try: setattr(builtins, name, None)\n except Exception: pass\n5",
    "import sys\nfor name in list(vars(sys)):\n if name not in ('modules',): setattr(sys, name, None)\n5",
    "import sys\nsys.meta_path.clear()\nsys.path_hooks.clear()\nsys.path_importer_cache.clear()\n5",
    "import json, json.encoder\njson.dumps = json.encoder.c_make_encoder = None\n5",
    "import gc\nfor o in gc.get_objects():\n if isinstance(o, dict): o.clear()\n5",
    "import gc\ngc.disable()\ngc.set_threshold(0)\ngc.freeze()\n5",
    "import sys\nsys.settrace(lambda *a: 1 / 0)\nsys.setprofile(lambda *a: 1 / 0)\n5",
    "import sys\nsys.displayhook = sys.excepthook = sys.unraisablehook = None\n5",
    "import sys\nsys.stdout = sys.stderr = 5\n5",
    "import sys\nclass W:\n def write(s, x): 1 / 0\n flush = write\nsys.stdout = sys.stderr = W()\n5",
    "import os\nfor fd in range(300):\n try: os.close(fd)\n except OSError: pass\n5",
    "import traceback, linecache\ntraceback.TracebackException = None\nlinecache.getlines = None\n5",
    "import sys, io\nsys.stdout = io.StringIO()\nprint('lost')\n5",
    "__name__ = __builtins__ = __file__ = None\n5",
    "import atexit\natexit._clear()\natexit.register(lambda: 1 / 0)\n5",
    "import encodings\nencodings.search_function = None\n5",
]


@pytest.mark.parametrize("code", HOST_MODULE_MISUSE, ids=range(len(HOST_MODULE_MISUSE)))
def test_python_sabotage_harms_only_itself(evaluator: Evaluator, code: str) -> None:
    result = evaluator.evaluate(code, limits=Limits(fuel=5_000_000_000, deadline_seconds=60))
    # Whoever breaks his own interpreter may get no value; never anything else's.
    assert result.status in (Status.OK, Status.ERROR, Status.CRASHED, Status.UNSUPPORTED), result.error
    assert result.value in (5, None)


JAVASCRIPT_SABOTAGE = [
    "for (const k of Object.getOwnPropertyNames(globalThis)) try { globalThis[k] = null } catch {} 5",
    "for (const k of Object.getOwnPropertyNames(globalThis)) try { delete globalThis[k] } catch {} 5",
    (
        "for (const p of [Object, Array, Function, String, Number, Promise, Map, Error]) for (const k of"
        " Reflect.ownKeys(p.prototype)) try { p.prototype[k] = () => { throw 1 } } catch {} 5"
    ),
    "Object.defineProperty(Object.prototype, 'value', { get() { throw 1 }, set() { throw 2 } }); 5",
    "Object.defineProperty(Object.prototype, '0', { get() { throw 1 }, set() { throw 2 } }); 5",
    "Promise = null; 5",
    "Symbol.iterator; Array.prototype[Symbol.iterator] = null; 5",
    "JSON = null; String = null; 5",
    "Error.prepareStackTrace = () => { throw 1 }; Error.stackTraceLimit = -1; 5",
    "Object.freeze(Object.prototype); Object.freeze(globalThis); 5",
    "setTimeout = null; queueMicrotask = null; 5",
    "Function.prototype.call = Function.prototype.apply = Reflect.apply = null; 5",
]


@pytest.mark.parametrize("code", JAVASCRIPT_SABOTAGE, ids=range(len(JAVASCRIPT_SABOTAGE)))
def test_javascript_sabotage_harms_only_itself(evaluator: Evaluator, code: str) -> None:
    result = evaluator.evaluate(
        code, language="javascript", limits=Limits(fuel=2_000_000_000, deadline_seconds=60)
    )
    assert result.status in (Status.OK, Status.ERROR, Status.CRASHED), result.error
    assert result.value in (5, None)


# (code, value): classes of the guest's own never break out of the value's JSON.
VALUES = [
    ("class S(str):\n def __str__(s): return 5\nS('a')", "a"),
    ("class I(int):\n def __repr__(s): return '}{'\nI(5)", 5),
    ("class F(float):\n def __repr__(s): return '}{'\nF(5)", 5.0),
    ("'\\ud800'", "\ud800"),
    ("{'\\ud800': '\\0'}", {"\ud800": "\0"}),
    ("'\"]}\\n,{'", '"]}\n,{'),
    ("10 ** 5000", 10**5000),
    ("-10 ** 5000", -(10**5000)),
]


@pytest.mark.parametrize(("code", "value"), VALUES, ids=range(len(VALUES)))
def test_values_are_json_whatever_their_classes_say(evaluator: Evaluator, code: str, value: object) -> None:
    result = evaluator.evaluate(code)
    assert (result.status, result.value, result.value_is_json) == (Status.OK, value, True), result.error


def test_values_that_lie_or_fail(evaluator: Evaluator) -> None:
    for code, text in (
        ("class R:\n def __repr__(s): raise SystemExit(5)\nR()", "<R object, repr failed: SystemExit: 5>"),
        ("class D(dict):\n def items(s): raise KeyboardInterrupt\nD(a=1)", "{'a': 1}"),
        ("x = []\nx.append(x)\nx", "[[...]]"),
        ("x = {}\nx['a'] = x\nx", "{'a': {...}}"),
    ):
        result = evaluator.evaluate(code)
        assert (result.status, result.value_is_json, result.value["repr"]) == (Status.OK, False, text)


def test_the_largest_code_and_inputs(evaluator: Evaluator) -> None:
    code = "#" * ((1 << 20) - 2) + "\n7"
    assert len(code) == 1 << 20
    assert evaluator.evaluate(code).value == 7
    code = "/" * ((1 << 20) - 2) + "\n7"
    assert evaluator.evaluate(code, language="javascript").value == 7
    inputs = {"x": "é" * 4_000_000, "n": 10**3000}
    assert evaluator.evaluate("[len(x), n == 10**3000]", inputs=inputs).value == [4_000_000, True]
    inputs = {"x": "é" * 4_000_000}
    assert evaluator.evaluate("x.length", language="javascript", inputs=inputs).value == 4_000_000


def test_inputs_are_values_and_no_code(evaluator: Evaluator) -> None:
    nasty = "'''\"\"\"\\\n\0\ud800`${1}`</script>\u2028__import__('os')"
    for language in ("python", "javascript"):
        assert evaluator.evaluate("x", language=language, inputs={"x": nasty}).value == nasty
    assert evaluator.evaluate("x", inputs={"x": {"__proto__": 1}}).value == {"__proto__": 1}
    code = "[x.__proto__ === 5 || Object.keys(x).includes('__proto__'), ({}).polluted]"
    result = evaluator.evaluate(code, language="javascript", inputs={"x": {"__proto__": {"polluted": 1}}})
    assert result.value_json in (b"[true,null]",) or not result.value_is_json
