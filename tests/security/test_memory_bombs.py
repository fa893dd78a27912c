"""Promise: a guest takes no more memory than its limit, and its host holds no more for it."""

from __future__ import annotations

import pytest

from tests.guests import worker_pids
from wasmeval import Evaluator, Limits, Status
from wasmeval.limits import MIB

LIMITS = Limits(fuel=20_000_000_000, deadline_seconds=60, memory_bytes=64 * MIB)
REMEDY = f" ({LIMITS.memory_bytes} bytes); raise limits.memory_bytes or use less"

BOMBS = {
    "python": {
        "string": "'x' * 10**9",
        "doubling": "x = 'x'\nwhile True: x += x",
        "bytes": "bytes(10**9)",
        "bytearray": "b = bytearray()\nwhile True: b += b'x' * 10**6",
        "list": "[0] * 10**9",
        "append": "x = []\nwhile True: x.append(bytes(1000))",
        "dict": "d = {}\nwhile True: d[len(d)] = bytes(1000)",
        "set": "{bytes([i % 256]) * (i % 5000) for i in range(10**7)}",
        "integer": "1 << 10**10",
        "itertools": "import itertools\nlist(itertools.repeat(0))",
        "product": "import itertools\nlist(itertools.product(range(1000), repeat=3))",
        "regex": "import re\nre.compile('|'.join(str(i) * 200 for i in range(10**6)))",
        "format": "'%1000000000d' % 1",
        "f-string": "f'{1:>1000000000}'",
        "join": "'x'.join(['y' * 10**6] * 10**3)",
        "replace": "('a' * 10**4).replace('a', 'b' * 10**5)",
        "zip-bomb": "import zlib\nd = zlib.decompressobj()\nc = zlib.compress(bytes(10**7))\n"
        "[zlib.decompress(c) for _ in range(100)]",
        "generators": "def g():\n yield from g()\nx = []\nwhile True: x.append([bytes(10**5)])",
        "code": "exec('x = ' + '[' + '1.5,' * 10**8 + ']')",
        "caught": "x = []\nwhile True:\n try: x.append(bytes(10**6))\n except MemoryError: raise",
        "attributes": "class O: pass\no = O()\nfor i in range(10**8): setattr(o, 'a%d' % i, bytes(1000))",
    },
    "javascript": {
        "buffer": "new ArrayBuffer(1e9)",
        "buffers": "let a = []; while (1) a.push(new Uint8Array(1 << 20))",
        "floats": "let a = []; while (1) a.push(new Float64Array(1e5))",
        "strings": "let a = []; while (1) a.push('x'.repeat(1e6) + a.length)",
        "fill": "new Array(2 ** 32 - 1).fill(0)",
        "map": "let m = new Map(); while (1) m.set(m.size, new Uint8Array(1000))",
        "set": "let m = new Set(); while (1) m.add('x'.repeat(1000) + m.size)",
        "objects": "let o = {}; for (let i = 0; ; i++) o['k' + i] = { a: new Uint8Array(1000) }",
        "resize": "new ArrayBuffer(8, { maxByteLength: 2e9 }).resize(1e9)",
        "closures": "let f = () => 0; while (1) { let g = f, b = new Uint8Array(1e4); f = () => g() + b[0] }",
    },
}


@pytest.mark.parametrize(
    ("language", "code"),
    [
        pytest.param(language, code, id=f"{language}-{name}")
        for language, all in BOMBS.items()
        for name, code in all.items()
    ],
)
def test_a_memory_bomb_ends_at_the_limit(evaluator: Evaluator, language: str, code: str) -> None:
    result = evaluator.evaluate(code, language=language, limits=LIMITS)
    assert result.error
    assert result.status is Status.MEMORY_EXCEEDED, result.error
    expected = {
        "python": ("MemoryError", f"memory ran out{REMEDY}"),
        "javascript": ("OutOfMemory", f"the snippet needs more memory than it may have{REMEDY}"),
    }
    if "zlib" not in code:  # which has a text of its own
        assert (result.error.type, result.error.message) == expected[language]
    assert result.usage.peak_memory_bytes <= 64 * MIB


def test_a_guest_may_handle_it_and_go_on(evaluator: Evaluator) -> None:
    code = "try: bytes(10**9)\nexcept MemoryError: x = 'less'\nx"
    assert evaluator.evaluate(code, limits=LIMITS).value == "less"
    code = "let r; try { new ArrayBuffer(1e9) } catch { r = 'less' } r"
    assert evaluator.evaluate(code, language="javascript", limits=LIMITS).value == "less"


def status_bytes(pid: int | str, name: str) -> int:
    """A field of /proc/PID/status that is in kB."""
    with open(f"/proc/{pid}/status") as lines:
        return next(int(line.split()[1]) << 10 for line in lines if line.startswith(f"{name}:"))


def test_the_worker_gives_the_memory_back(evaluator: Evaluator) -> None:
    (pid,) = worker_pids(evaluator._pool)
    code = "x = b'x' * (200 << 20)\nlen(x)"
    limits = Limits(memory_bytes=300 * MIB, deadline_seconds=60)

    def run() -> None:
        assert evaluator.evaluate(code, limits=limits).value == 200 << 20

    run()
    evaluator.evaluate("1")
    before = status_bytes(pid, "VmRSS")
    for _ in range(5):
        run()
    evaluator.evaluate("1")
    # One of them is 200 MiB; slots keep at most a few MiB each.
    assert status_bytes(pid, "VmRSS") < before + 100 * MIB
