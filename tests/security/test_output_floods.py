"""Promise: whatever a guest prints or returns, the host holds a bounded part of it."""

from __future__ import annotations

import pytest

from tests.guests import worker_pids
from tests.security.test_memory_bombs import status_bytes
from wasmeval import Evaluator, Limits, Status
from wasmeval.limits import MIB

FLOODS = {
    "python": {
        "print": "while True: print('x' * 1000)",
        "stderr": "import sys\nwhile True: print('x' * 1000, file=sys.stderr)",
        "both": "import sys\nwhile True:\n print('x' * 100)\n print('y' * 100, file=sys.stderr)",
        "bytes": "import os\nb = bytes(1 << 20)\nwhile True: os.write(1, b)",
        "invalid": "import sys\nb = b'\\xff' * (1 << 16)\nwhile True: sys.stdout.buffer.write(b)",
        "warnings": "import warnings\nwarnings.simplefilter('always')\nwhile True: warnings.warn('x' * 1000)",
        "empty": "import os\nwhile True: os.write(1, b'')",
        "single": "import os\nwhile True: os.write(2, b'x')",
    },
    "javascript": {
        "log": "while (1) console.log('x'.repeat(1000))",
        "error": "while (1) console.error('x'.repeat(1000))",
        "both": "while (1) { console.log('x'.repeat(100)); console.error('y'.repeat(100)) }",
        "single": "while (1) console.log('')",
    },
}


@pytest.mark.parametrize(
    ("language", "code"),
    [
        pytest.param(language, code, id=f"{language}-{name}")
        for language, all in FLOODS.items()
        for name, code in all.items()
    ],
)
def test_an_output_flood_is_kept_in_part(evaluator: Evaluator, language: str, code: str) -> None:
    (pid,) = worker_pids(evaluator._pool)
    before, parent = status_bytes(pid, "VmRSS"), status_bytes("self", "VmRSS")
    limits = Limits(fuel=3_000_000_000, deadline_seconds=2, output_bytes=1 * MIB)
    result = evaluator.evaluate(code, language=language, limits=limits)
    # Small writes take longer than their fuel says: either stop is right.
    assert result.status in (Status.FUEL_EXHAUSTED, Status.DEADLINE_EXCEEDED)
    for text in (result.stdout, result.stderr):
        assert len(text) <= 1 * MIB + 64
    assert status_bytes(pid, "VmRSS") < before + 48 * MIB
    assert status_bytes("self", "VmRSS") < parent + 48 * MIB


def test_one_write_of_200_megabytes(evaluator: Evaluator) -> None:
    parent = status_bytes("self", "VmRSS")
    limits = Limits(memory_bytes=512 * MIB, deadline_seconds=60, output_bytes=1000)
    code = "import os\nb = bytearray(b'x') * 200_001_000\nb[:500] = b'a' * 500\nb[-500:] = b'z' * 500\n"
    code += "v = memoryview(b)\nn = 0\nwhile n < len(b): n += os.write(1, v[n:])\nn"
    result = evaluator.evaluate(code, limits=limits)
    assert (result.status, result.value) == (Status.OK, 200_001_000)
    assert result.stdout == "a" * 500 + "\n[... 200000000 bytes left out ...]\n" + "z" * 500
    assert result.stdout_truncated
    assert not result.stderr_truncated
    assert status_bytes("self", "VmRSS") < parent + 32 * MIB


@pytest.mark.parametrize(
    ("language", "code"),
    [
        ("python", "'x' * 30_000_000"),
        ("python", "[0] * 10_000_000"),
        ("python", "{i: 'x' * 1000 for i in range(30_000)} and {str(i): 'x' * 1000 for i in range(30_000)}"),
        ("python", "'\\x00' * 1_000_000"),
        ("javascript", "'x'.repeat(5_000_000)"),
        ("javascript", "new Array(1_000_000).fill(1)"),
    ],
)
def test_a_value_over_the_limit_is_output_exceeded(evaluator: Evaluator, language: str, code: str) -> None:
    limits = Limits(output_bytes=1 * MIB, deadline_seconds=60)
    result = evaluator.evaluate(code, language=language, limits=limits)
    assert result.status is Status.OUTPUT_EXCEEDED
    assert result.value_json == b""
    assert result.error


def test_error_texts_are_cut(evaluator: Evaluator) -> None:
    for language, code in (
        ("python", "raise Exception('x' * 10**7)"),
        ("python", "class E(Exception): pass\nE.__name__ = E.__qualname__ = 'x' * 10**6\nraise E('y')"),
        ("python", "raise ExceptionGroup('g', [Exception('z' * 10000) for _ in range(1000)])"),
        ("javascript", "throw new Error('x'.repeat(1e6))"),
        ("javascript", "let e = new Error('m'); e.name = 'x'.repeat(1e6); throw e"),
    ):
        result = evaluator.evaluate(code, language=language)
        assert result.error
        assert result.status is Status.ERROR
        assert len(result.error.type.encode()) <= 256
        assert len(result.error.message.encode()) <= 8192
        assert len(result.error.traceback.encode()) <= 32768
