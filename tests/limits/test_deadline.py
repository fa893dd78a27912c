"""Deadline: wall-clock time from the guest's start; it counts sleep and ends whatever the guest does."""

from __future__ import annotations

import pytest

from wasmeval import Evaluation, Evaluator, Limits, Status

BUSY = {
    "python": {
        "computing": "while True: pass",
        "sleeping": "import time\ntime.sleep(100)",
        "sleeping-often": "import time\nwhile True: time.sleep(0.0005)",
        "sleeping-never": "import time\nwhile True: time.sleep(0)",
        "clock-flood": "import time\nwhile True: time.time()",
        "random-flood": "import os\nwhile True: os.urandom(256)",
        "output-flood": "import os\nwhile True: os.write(1, b'x')",
        "file-flood": "import os\nwhile True: os.stat('/')",
        "select-flood": "import select\nwhile True:\n try: select.select([0], [], [], 100)\n except OSError: pass",
        "big-copies": "b = bytes(50_000_000)\nwhile True: bytearray(b)",
        "catching": "import time\nwhile True:\n try:\n  while True: time.sleep(0.01)\n except BaseException: pass",
    },
    "javascript": {
        "computing": "while (1);",
        "sleeping": "await new Promise(r => setTimeout(r, 100000))",
        "interval": "setInterval(() => {}, 1)",
        "clock-flood": "while (1) Date.now()",
        "random-flood": "while (1) crypto.getRandomValues(new Uint8Array(256))",
        "output-flood": "while (1) console.log('')",
        "big-copies": "let b = new Uint8Array(2e7); while (1) b.slice()",
    },
}
CASES = [
    pytest.param(language, code, id=f"{language}-{name}")
    for language, all in BUSY.items()
    for name, code in all.items()
]
LIMITS = Limits(fuel=10**12, deadline_seconds=0.15, memory_bytes=256 << 20)


@pytest.mark.parametrize(("language", "code"), CASES)
def test_the_deadline_ends_it(evaluator: Evaluator, language: str, code: str) -> None:
    result = evaluator.evaluate(code, language=language, limits=LIMITS)
    assert result.error
    assert (result.status, result.error.type, result.error.message) == (
        Status.DEADLINE_EXCEEDED,
        "DeadlineExceeded",
        "the deadline of 0.15 s passed; raise limits.deadline_seconds or do less",
    )
    assert result.usage.wall_seconds >= 0.15
    assert result.value_json == b""


@pytest.mark.parametrize("language", BUSY)
def test_all_of_them_together_meet_their_deadlines_and_let_others_by(
    evaluator: Evaluator, language: str
) -> None:
    busy = [Evaluation(code, language, limits=LIMITS) for code in BUSY[language].values()]
    small = [Evaluation("1 + 1", language) for _ in range(20)]
    results = evaluator.evaluate_batch(busy + small)
    assert {result.status for result in results[: len(busy)]} == {Status.DEADLINE_EXCEEDED}
    assert [result.value for result in results[len(busy) :]] == [2] * 20


@pytest.mark.parametrize("language", BUSY)
def test_the_shortest_deadline(evaluator: Evaluator, language: str) -> None:
    result = evaluator.evaluate("1 + 1", language=language, limits=Limits(deadline_seconds=1e-9))
    assert result.error
    assert (result.status, result.error.message) == (
        Status.DEADLINE_EXCEEDED,
        "the deadline of 1e-09 s passed; raise limits.deadline_seconds or do less",
    )


def test_output_until_the_deadline_is_kept(evaluator: Evaluator) -> None:
    result = evaluator.evaluate("import time\nprint('a', flush=True)\ntime.sleep(99)", limits=LIMITS)
    assert (result.status, result.stdout) == (Status.DEADLINE_EXCEEDED, "a\n")
    code = "console.log('a'); await new Promise(r => setTimeout(r, 99999))"
    result = evaluator.evaluate(code, language="javascript", limits=LIMITS)
    assert (result.status, result.stdout) == (Status.DEADLINE_EXCEEDED, "a\n")


def test_many_long_ones_end_one_after_the_other(evaluator: Evaluator) -> None:
    """Together they need many times their deadline; each alone is well within it."""
    code = "s = 0\nfor i in range(200_000): s += i\ns"
    alone = evaluator.evaluate(code)
    assert alone.ok
    # What one needs on this machine now, with room for eight that take turns on each of two CPUs.
    limits = Limits(deadline_seconds=max(2.0, 40 * alone.usage.wall_seconds), fuel=10**11)
    results = evaluator.evaluate_batch([Evaluation(code, limits=limits) for _ in range(200)])
    assert {result.status for result in results} == {Status.OK}


def test_a_sleep_within_the_deadline_is_as_long_as_asked(evaluator: Evaluator) -> None:
    for language, code in (
        ("python", "import time\na = time.monotonic()\ntime.sleep(0.05)\ntime.monotonic() - a"),
        (
            "python",
            "import asyncio, time\na = time.monotonic()\nasyncio.run(asyncio.sleep(0.05))\ntime.monotonic() - a",
        ),
        (
            "javascript",
            "let a = performance.now(); await new Promise(r => setTimeout(r, 50)); (performance.now() - a) / 1e3",
        ),
    ):
        result = evaluator.evaluate(code, language=language)
        assert result.status is Status.OK
        assert result.value >= 0.0499
        assert result.usage.wall_seconds >= 0.0499
