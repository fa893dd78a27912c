"""What `wasmeval run` prints for each Result, and how it exits: with results that are written here."""

from __future__ import annotations

import json
from dataclasses import fields
from typing import Any

import pytest

from wasmeval.cli import main, run
from wasmeval.errors import Internal, SetupError, Unavailable
from wasmeval.limits import Limits, Usage
from wasmeval.model import ErrorInfo, Result, Status

Captured = pytest.CaptureFixture[str]


@pytest.fixture
def answer(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Make every evaluation end with a given Result, or raise."""

    def set_answer(result: Result | BaseException) -> None:
        def evaluate(_code: str, given: dict[str, Any], _server: str | None) -> Result:
            if isinstance(result, BaseException):
                raise result
            if show := given.get("on_output"):
                for stream, text in (("stdout", result.stdout), ("stderr", result.stderr)):
                    for start in range(0, len(text), 4):
                        show(stream, text[start : start + 4])
            return result

        monkeypatch.setattr(run, "_evaluate", evaluate)

    return set_answer


@pytest.mark.parametrize(
    ("stdout", "value", "printed"),
    [
        ("", b"6", "6\n"),
        ("", b"", ""),
        ("", b"null", ""),
        ("", b"false", "false\n"),
        ("", b'"a\xc3\xa4"', '"aä"\n'),
        ("hello\n", b"[1, NaN]", "hello\n[1, NaN]\n"),
        ("no newline", b"1", "no newline\n1\n"),
        ("no newline", b"null", "no newline"),
        ("\x1b[31mred\r\n", b"", "\x1b[31mred\r\n"),
    ],
)
def test_output_is_printed_as_it_is_and_then_the_value(
    answer: Any, capfdbinary: pytest.CaptureFixture[bytes], stdout: str, value: bytes, printed: str
) -> None:
    answer(Result(Status.OK, value_json=value, stdout=stdout, stderr="warned"))
    assert main(["run", "-c", "..."]) == 0
    assert capfdbinary.readouterr() == (printed.encode(), b"warned")


def test_an_error_prints_its_traceback_and_nothing_else(answer: Any, capfd: Captured) -> None:
    traceback = 'Traceback (most recent call last):\n  File "<snippet>", line 1\nZeroDivisionError: division by zero\n'
    answer(
        Result(
            Status.ERROR,
            stdout="before\n",
            error=ErrorInfo("ZeroDivisionError", "division by zero", traceback, 1),
        )
    )
    assert main(["run", "-c", "1/0"]) == 1
    assert capfd.readouterr() == ("before\n", traceback)


def test_an_error_without_a_traceback_still_says_what_it_was(answer: Any, capfd: Captured) -> None:
    answer(Result(Status.ERROR, error=ErrorInfo("SystemExit", "3")))
    assert main(["run", "-c", "exit(3)"]) == 1
    assert capfd.readouterr().err == "wasmeval: SystemExit: 3\n"


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (Status.OK, 0),
        (Status.ERROR, 1),
        (Status.UNSUPPORTED, 1),
        (Status.FUEL_EXHAUSTED, 3),
        (Status.DEADLINE_EXCEEDED, 3),
        (Status.MEMORY_EXCEEDED, 3),
        (Status.OUTPUT_EXCEEDED, 3),
        (Status.CRASHED, 4),
        (Status.CANCELLED, 4),
    ],
)
def test_the_exit_code_tells_the_status(answer: Any, capfd: Captured, status: Status, code: int) -> None:
    error = None if status is Status.OK else ErrorInfo("Kind", "what happened")
    answer(Result(status, error=error))
    assert main(["run", "-c", "..."]) == code
    if status not in {Status.OK, Status.ERROR}:
        assert capfd.readouterr().err == f"wasmeval: {status.value}: what happened\n"


def test_every_status_has_an_exit_code() -> None:
    assert set(run._EXIT_CODES) == set(Status)


@pytest.mark.parametrize("error", [Unavailable("no one there"), Internal("a bug"), SetupError("no image")])
def test_a_service_failure_exits_with_4(answer: Any, capfd: Captured, error: Exception) -> None:
    answer(error)
    assert main(["run", "-c", "..."]) == 4
    assert capfd.readouterr() == ("", f"wasmeval: {error}\n")


def test_ctrl_c_prints_nothing(answer: Any, capfd: Captured) -> None:
    answer(KeyboardInterrupt())
    assert main(["run", "-c", "..."]) == 130
    assert capfd.readouterr() == ("", "")


def test_json_is_the_whole_result_in_one_line(answer: Any, capfd: Captured) -> None:
    result = Result(
        Status.OK,
        value_json=b'{"n": 12345678901234567890123, "x": Infinity}',
        stdout='"\\u0000value"',
        usage=Usage(7, 0.5, 1024),
        limits=Limits(1, 2.0, 3, 4),
        runtime="python",
    )
    answer(result)
    assert main(["run", "--json", "-c", "..."]) == 0
    printed = capfd.readouterr().out
    assert printed.count("\n") == 1
    decoded = json.loads(printed)
    assert decoded["value"] == {"n": 12345678901234567890123, "x": float("inf")}
    assert decoded["usage"] == {"fuel": 7, "wall_seconds": 0.5, "peak_memory_bytes": 1024, "tool_calls": 0}
    assert decoded["limits"]["deadline_seconds"] == 2.0
    assert decoded["stdout"] == '"\\u0000value"'
    assert list(decoded) == ["value" if f.name == "value_json" else f.name for f in fields(Result)]


@pytest.mark.parametrize("value", [b"\xff", b"{", b"[" * 100_000, b"1\x00", b"1, 2"])
def test_a_value_that_is_not_json_exits_with_4(answer: Any, capfd: Captured, value: bytes) -> None:
    answer(Result(Status.OK, value_json=value))
    assert main(["run", "--json", "-c", "..."]) == 4
    out, err = capfd.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err.startswith("wasmeval: the value is not JSON: its guest broke")
    # As text it is shown as far as it is text.
    assert main(["run", "-c", "..."]) == 0
    assert capfd.readouterr().err == ""


def test_json_stays_one_line_whatever_the_value(answer: Any, capfd: Captured) -> None:
    answer(Result(Status.OK, value_json=b'[1,\n\r"\\n"]'))
    assert main(["run", "--json", "-c", "..."]) == 0
    printed = capfd.readouterr().out
    assert printed.count("\n") == 1
    assert json.loads(printed)["value"] == [1, "\n"]


def test_what_the_machine_refuses_exits_with_4(answer: Any, capfd: Captured) -> None:
    answer(OSError(11, "Resource temporarily unavailable"))
    assert main(["run", "-c", "..."]) == 4
    assert capfd.readouterr() == ("", "wasmeval: [Errno 11] Resource temporarily unavailable\n")
    answer(PermissionError(13, "Permission denied", "/dev/shm"))
    assert main(["run", "-c", "..."]) == 4
    assert capfd.readouterr() == ("", "wasmeval: /dev/shm: Permission denied\n")


def test_json_of_a_failure_has_a_null_value(answer: Any, capfd: Captured) -> None:
    answer(Result(Status.ERROR, error=ErrorInfo("KeyError", "'x'", "Traceback", 2, 3)))
    assert main(["run", "--json", "-c", "..."]) == 1
    decoded = json.loads(capfd.readouterr().out)
    assert decoded["value"] is None
    assert decoded["error"] == {
        "type": "KeyError",
        "message": "'x'",
        "traceback": "Traceback",
        "line": 2,
        "column": 3,
    }
