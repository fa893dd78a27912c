"""Promise: however a guest ends itself, it ends only itself, and the result says how."""

from __future__ import annotations

import pytest

from wasmeval import Evaluator, Status

TRAP = "the instance ended by a trap: unreachable executed"

ENDINGS = {
    "_exit-0": ("import os\nos._exit(0)", Status.OK, None),
    "_exit-1": ("import os\nos._exit(1)", Status.ERROR, "1"),
    "_exit-255": ("import os\nos._exit(255)", Status.ERROR, "255"),
    "_exit-negative": ("import os\nos._exit(-1)", Status.ERROR, "-1"),
    "_exit-in-finally": ("import os\ntry: 1 / 0\nfinally: os._exit(4)", Status.ERROR, "4"),
    "exit": ("import sys\nsys.exit()", Status.OK, None),
    "exit-0": ("import sys\nsys.exit(0)", Status.OK, None),
    "exit-3": ("import sys\nsys.exit(3)", Status.ERROR, "3"),
    "exit-text": ("import sys\nsys.exit('bye')", Status.ERROR, "bye"),
    "SystemExit": ("raise SystemExit", Status.OK, None),
    "SystemExit-object": ("raise SystemExit([1, 2])", Status.ERROR, "[1, 2]"),
    "quit": ("quit(2)", Status.ERROR, "2"),
    "KeyboardInterrupt": ("raise KeyboardInterrupt", Status.ERROR, ""),
    "GeneratorExit": ("raise GeneratorExit", Status.ERROR, ""),
    "abort": ("import os\nos.abort()", Status.CRASHED, TRAP),
    "raise_signal": ("import signal\nsignal.raise_signal(signal.SIGSEGV)", Status.CRASHED, TRAP),
    "sigabrt": ("import signal\nsignal.raise_signal(signal.SIGABRT)", Status.CRASHED, TRAP),
    "sigsegv": ("import faulthandler\nfaulthandler._sigsegv()", Status.CRASHED, TRAP),
    "bytecode": ("exec((lambda: 0).__code__.replace(co_code=b'\\x64\\xff' * 100))", Status.CRASHED, TRAP),
}


@pytest.mark.parametrize(("code", "status", "message"), ENDINGS.values(), ids=ENDINGS)
def test_a_guest_ends_only_itself(
    evaluator: Evaluator, code: str, status: Status, message: str | None
) -> None:
    result = evaluator.evaluate(code)
    assert (result.status, result.error and result.error.message) == (status, message)
    assert result.value is None


@pytest.mark.parametrize("number", [0, 1, 2, 6, 8, 9, 11, 15, 64, -1, 10**6])
def test_a_signal_to_oneself(evaluator: Evaluator, number: int) -> None:
    result = evaluator.evaluate(f"import signal\nsignal.raise_signal({number})\n5")
    assert result.status in (Status.OK, Status.ERROR, Status.CRASHED)


# Bytes that are no code, code that is not the compiler's: the interpreter may break, its host may not.
BROKEN_CODE = [
    f"exec((lambda: 0).__code__.replace(co_code=bytes([{opcode}, 255] * 50), co_stacksize={stack}))"
    for opcode in range(1, 256, 7)
    for stack in (0, 10**6)
]


def test_bytecode_that_no_compiler_made(evaluator: Evaluator) -> None:
    from wasmeval import Evaluation, Limits

    limits = Limits(fuel=500_000_000, deadline_seconds=60)
    results = evaluator.evaluate_batch([Evaluation(code, limits=limits) for code in BROKEN_CODE])
    assert {result.status for result in results} <= {
        Status.OK,
        Status.ERROR,
        Status.CRASHED,
        Status.FUEL_EXHAUSTED,
        Status.MEMORY_EXCEEDED,
        Status.UNSUPPORTED,
    }


def test_output_before_the_end_is_kept(evaluator: Evaluator) -> None:
    for ending in ("os._exit(3)", "os.abort()"):
        result = evaluator.evaluate(f"import os\nprint('before', flush=True)\n{ending}")
        assert not result.ok
        assert result.stdout == "before\n"


def test_output_and_exit_leave_no_memory_behind(evaluator: Evaluator) -> None:
    """What ends by a host function's trap is dropped with its output, as everything else is."""
    from tests.guests import worker_pids
    from tests.security.test_memory_bombs import status_bytes

    (pid,) = worker_pids(evaluator._pool)
    code = "import os, sys\nsys.stdout.write('x' * 900_000)\nsys.stdout.flush()\nos._exit(3)"

    def run(times: int) -> int:
        for _ in range(times):
            assert evaluator.evaluate(code).status is Status.ERROR
        return status_bytes(pid, "RssAnon")

    before = run(20)
    assert run(60) < before + (20 << 20)
