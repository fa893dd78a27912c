"""What `wasmeval run` prints for each Result, and how it exits: with results that are written here."""

from __future__ import annotations

import codecs
import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wasmeval.arrays import Array
from wasmeval.cli import main, run
from wasmeval.errors import Internal, SetupError, Unavailable
from wasmeval.limits import Limits, Usage
from wasmeval.model import ErrorInfo, OutputFile, Result, Status
from wasmeval.wasm.output import Output

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
    assert decoded["usage"] == {
        "fuel": 7,
        "wall_seconds": 0.5,
        "peak_memory_bytes": 1024,
        "tool_calls": 0,
        "virtual_ns": 0,
        "cpu_seconds": 0.0,
    }
    assert decoded["limits"]["deadline_seconds"] == 2.0
    assert decoded["stdout"] == '"\\u0000value"'
    # Those are what --receipt writes.
    shown = [f.name for f in fields(Result) if f.name not in ("transcript", "seal_holds", "recording")]
    assert list(decoded) == ["value" if name == "value_json" else name for name in shown]


def test_json_has_an_array_as_its_bytes(answer: Any, capfd: Captured) -> None:
    answer(Result(Status.OK, value_json=b"[1, 2]", array=Array("<i2", (2,), b"\1\0\2\0")))
    assert main(["run", "--json", "-c", "..."]) == 0
    decoded = json.loads(capfd.readouterr().out)
    assert decoded["array"] == {"dtype": "<i2", "shape": [2], "data": "AQACAA=="}


def test_an_evaluation_that_moved_says_so_on_stderr(answer: Any, capfd: Captured) -> None:
    answer(Result(Status.OK, b"7", stdout="hi\n", tier="vm", moved="No module named 'pandas'"))
    assert main(["run", "-c", "..."]) == 0
    assert capfd.readouterr() == ("hi\n7\n", "wasmeval: ran in a microVM: No module named 'pandas'\n")
    assert main(["run", "--json", "-c", "..."]) == 0
    out, err = capfd.readouterr()
    assert (json.loads(out)["moved"], err) == ("No module named 'pandas'", "")


def test_a_script_that_fails_exits_with_1(answer: Any, capfd: Captured) -> None:
    error = ErrorInfo("ExitStatus", "exit status 3")
    answer(Result(Status.ERROR, stderr="no such file\n", error=error, tier="vm", exit_status=3))
    assert main(["run", "-l", "bash", "-c", "..."]) == 1
    assert capfd.readouterr() == ("", "no such file\nwasmeval: ExitStatus: exit status 3\n")
    assert main(["run", "--json", "-c", "..."]) == 1
    assert json.loads(capfd.readouterr().out)["exit_status"] == 3


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


# Output beyond its limit: what went out live is the beginning, the result has head and tail.


def printed_of(data: bytes, limit: int) -> str:
    """What is shown in all of `data`, written by a snippet with that limit."""
    output = Output(limit)
    output.write(data)
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    live = decoder.decode(data[:limit]) + decoder.decode(b"", final=True)
    if not output.truncated:
        return live
    return live + run._unseen(output.text(), len(live.encode()), limit)


@settings(max_examples=300)
@given(st.binary(max_size=300).map(lambda data: bytes(byte % 128 for byte in data)), st.integers(1, 200))
def test_no_output_is_printed_twice_and_none_is_lost_unsaid(data: bytes, limit: int) -> None:
    printed = printed_of(data, limit)
    tail = data[-(limit - limit // 2) :]
    missing = len(data) - limit - len(tail)
    if missing <= 0:
        assert printed == data.decode()
    else:
        notice = f"\n[... {missing} bytes left out ...]\n".encode()
        assert printed.encode() == data[:limit] + notice + tail


@pytest.mark.parametrize("size", range(40, 140))
def test_characters_of_several_bytes_are_counted_as_bytes(size: int) -> None:
    text = ("aä\N{SNOWMAN}\N{PILE OF POO}" * 20).encode()[:size].decode("utf-8", "ignore")
    printed = printed_of(text.encode(), 60)
    assert ("bytes left out" in printed) == (len(text.encode()) > 90)
    assert printed.startswith(text[:20])
    assert printed.endswith(text[-5:])
    if len(text.encode()) <= 90:
        # One that is cut by the limit cannot be shown whole.
        assert len(printed.replace("\ufffd", "")) >= len(text) - 1


def test_a_notice_that_the_snippet_prints_is_its_own() -> None:
    fake = b"\n[... 7 bytes left out ...]\n"
    data = (fake * 10)[:200]
    assert (
        printed_of(data, 100) == data[:100].decode() + "\n[... 50 bytes left out ...]\n" + data[150:].decode()
    )
    assert printed_of(data, 150) == data.decode()


@settings(max_examples=300)
@given(st.binary(max_size=300), st.integers(1, 200), st.binary(max_size=300))
def test_any_output_and_any_answer_of_a_service_is_printed(data: bytes, limit: int, text: bytes) -> None:
    assert printed_of(data, limit) or not data
    run._unseen(text.decode("utf-8", "replace"), len(data), limit)


@pytest.mark.parametrize("name", ["../up", "/etc/absolute", "a/../../up", "", "a//b", "nul\0"])
def test_a_file_that_would_lead_elsewhere_is_not_written(
    answer: Any, capfd: Captured, tmp_path: Path, name: str
) -> None:
    answer(Result(Status.OK, files={"first": OutputFile(b"1"), name: OutputFile(b"2")}))
    assert main(["run", "--output-dir", str(tmp_path / "out"), "-c", "..."]) == 4
    assert capfd.readouterr().err.startswith("wasmeval: the service sent a file that cannot be: ")
    assert list(tmp_path.iterdir()) == []


def test_files_are_written_below_the_folder(answer: Any, tmp_path: Path) -> None:
    answer(Result(Status.OK, files={"a/b.txt": OutputFile(b"1"), "c": OutputFile(b"2")}))
    assert main(["run", "--output-dir", str(tmp_path), "-c", "..."]) == 0
    assert (tmp_path / "a" / "b.txt").read_bytes() == b"1"
    assert (tmp_path / "c").read_bytes() == b"2"
