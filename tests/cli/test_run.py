"""`wasmeval run` as a shell sees it: a real process, real guests, no service."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import Command
from tests.running import running_service


@pytest.mark.parametrize(
    ("arguments", "stdout"),
    [
        (["-c", "1 + 1"], b"2\n"),
        (["-c", "sum(xs)", "--input", "xs=[1, 2, 3]"], b"6\n"),
        (["-c", "print('hi')"], b"hi\n"),
        (["-c", "print('hi')\nanswer = {'a': [1, None]}"], None),
        (["-c", "-1"], b"-1\n"),
        (["-l", "javascript", "-c", "[3, 1, 2].toSorted()"], None),
        (["-l", "javascript", "-c", "console.log('hi')"], b"hi\n"),
    ],
)
def test_output_then_value(wasmeval: Command, arguments: list[str], stdout: bytes | None) -> None:
    done = wasmeval("run", *arguments)
    assert (done.returncode, done.stderr) == (0, b"")
    if stdout is not None:
        assert done.stdout == stdout
    else:
        assert json.loads(done.stdout.splitlines()[-1]) in ({"a": [1, None]}, [1, 2, 3])


@pytest.mark.parametrize("size", [1 << 20, 3 << 19, (1 << 20) + (1 << 19) + 5])
def test_output_beyond_its_limit_is_printed_once(wasmeval: Command, size: int) -> None:
    """The limit is 1 MiB: half of it again is in the result's tail."""
    done = wasmeval(
        "run", "-c", f"import sys\nfor i in range({size} // 8): sys.stdout.write(f'{{i:7}} ')\nNone"
    )
    numbers = " ".join(f"{i:7}" for i in range(size // 8)).encode() + b" "
    assert done.returncode == 0
    assert done.stdout == numbers


def test_a_file_tells_its_language(wasmeval: Command, tmp_path: Path) -> None:
    (tmp_path / "a.js").write_text("typeof globalThis")
    (tmp_path / "a.py").write_text("type(globals()).__name__")
    assert wasmeval("run", "a.js", cwd=tmp_path).stdout == b'"object"\n'
    assert wasmeval("run", "a.py", cwd=tmp_path).stdout == b'"dict"\n'


def test_a_dash_reads_standard_input(wasmeval: Command) -> None:
    assert wasmeval("run", "-", stdin="'grüße'.upper()".encode()).stdout == '"GRÜSSE"\n'.encode()


def test_a_failed_snippet_exits_with_1_and_shows_its_traceback(wasmeval: Command) -> None:
    done = wasmeval("run", "-c", "print('before')\n1 / 0")
    assert (done.returncode, done.stdout) == (1, b"before\n")
    assert b'File "<snippet>", line 2' in done.stderr
    assert done.stderr.endswith(b"ZeroDivisionError: division by zero\n")


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (["--fuel", "1e8", "-c", "while True: pass"], b"fuel_exhausted"),
        (["--deadline", "0.2", "-c", "import time; time.sleep(60)"], b"deadline_exceeded"),
        (["--memory", "64", "-c", "x = bytearray(1 << 30)"], b"memory_exceeded"),
        (["-c", "'x' * (1 << 21)"], b"output_exceeded"),
        (["-l", "javascript", "--fuel", "1e8", "-c", "for (;;);"], b"fuel_exhausted"),
    ],
)
def test_a_limit_exits_with_3_and_is_named(wasmeval: Command, arguments: list[str], status: bytes) -> None:
    done = wasmeval("run", *arguments)
    assert done.returncode == 3
    assert done.stderr.splitlines()[-1].startswith(b"wasmeval: " + status + b": ")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-l", "cobol", "-c", "1"], "language: unknown language 'cobol'; known: javascript, "),
        (["-c", ""], "code: empty"),
        (["-c", "1", "--input", "class=1"], "inputs.class: "),
        (["-c", "1", "--fuel", "0"], "limits.fuel: must be between 1"),
        (["-c", "1", "--deadline", "-1"], "limits.deadline_seconds: must be a positive"),
        (["missing.py"], "code: cannot read missing.py: No such file or directory"),
        (["-c", "1", "--input", "x=1", "--input", "x=2"], "inputs.x: is given twice"),
    ],
)
def test_wrong_usage_exits_with_2_and_one_line(wasmeval: Command, arguments: list[str], message: str) -> None:
    done = wasmeval("run", *arguments)
    assert done.returncode == 2
    assert done.stderr.decode().startswith(f"wasmeval: {message}")
    assert done.stderr.count(b"\n") == 1


def test_a_file_that_is_not_text_is_refused(wasmeval: Command, tmp_path: Path) -> None:
    (tmp_path / "a.py").write_bytes(b"'\xff'")
    done = wasmeval("run", "a.py", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (
        2,
        b"wasmeval: code: a.py is not UTF-8: invalid start byte at byte 1\n",
    )


@pytest.mark.parametrize("content", [b"#" * (4 << 20) + b"#", b"#" + "ä".encode() * (2 << 20)])
def test_a_file_that_is_too_large_is_refused_as_such(
    wasmeval: Command, tmp_path: Path, content: bytes
) -> None:
    (tmp_path / "a.py").write_bytes(content)
    for name in ("a.py", "-"):
        done = wasmeval("run", name, cwd=tmp_path, stdin=content)
        message = f"wasmeval: code: {name} is larger than 4 MiB; pass data as inputs\n"
        assert (done.returncode, done.stderr.decode()) == (2, message)


@pytest.mark.parametrize(
    ("redirection", "message"),
    [
        (">/dev/full", "wasmeval: cannot write the output: No space left on device\n"),
        (">&-", "wasmeval: standard output is closed\n"),
    ],
)
@pytest.mark.parametrize("arguments", ["run -c 1", "run --json -c 1", "runtimes", "doctor"])
def test_an_output_that_takes_nothing_exits_with_4(redirection: str, message: str, arguments: str) -> None:
    command = f"{sys.executable} -m wasmeval {arguments} {redirection}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, check=False, timeout=60)
    assert (done.returncode, done.stderr.decode()) == (4, message)


@pytest.mark.parametrize(
    ("redirection", "code"), [("2>&-", 1), ("<&-", 1), ("<&- 2>&-", 1), ("2>/dev/full", 4)]
)
def test_other_closed_streams_harm_nothing(redirection: str, code: int) -> None:
    command = f"{sys.executable} -m wasmeval run -c 'print(1)\n1 / 0' {redirection}"
    done = subprocess.run(
        ["bash", "-c", command.replace("\n", "; ")], capture_output=True, check=False, timeout=60
    )
    assert (done.returncode, done.stdout) == (code, b"1\n")


def test_ctrl_c_is_not_what_a_stopping_service_is() -> None:
    with running_service() as service:
        command = [sys.executable, "-m", "wasmeval", "run", "--server", service.target, "--deadline", "60"]
        command += ["-c", "import time\ntime.sleep(60)"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            time.sleep(1.5)
            # The second one ends what still runs.
            service.process.send_signal(signal.SIGTERM)
            time.sleep(0.2)
            service.process.send_signal(signal.SIGTERM)
            _, err = process.communicate(timeout=30)
    assert process.returncode == 4
    assert err.startswith(b"wasmeval: ")


def test_json_is_the_result(wasmeval: Command) -> None:
    done = wasmeval("run", "--json", "--deadline", "3", "-c", "print('x'); 2 ** 70")
    result = json.loads(done.stdout)
    assert (result["status"], result["value"], result["stdout"]) == ("ok", 2**70, "x\n")
    assert result["limits"]["deadline_seconds"] == 3
    assert result["usage"]["fuel"] > 0
    assert (result["runtime"], result["tier"], result["error"]) == ("python", "wasm", None)


def test_a_service_gives_what_the_embedded_evaluator_gives(wasmeval: Command) -> None:
    with running_service() as service:
        arguments = ["run", "-c", "print(n); n * 2", "--input", "n=21"]
        there = wasmeval(*arguments, "--server", service.target)
        assert (there.returncode, there.stdout, there.stderr) == (0, b"21\n42\n", b"")
        assert wasmeval(*arguments).stdout == there.stdout


def test_processes_end_after_a_conversation() -> None:
    """Several at once: what hangs in an interpreter's end needs threads that are late."""
    with running_service() as service:
        command = [sys.executable, "-m", "wasmeval", "run", "--server", service.target, "-c", "input()"]
        for _ in range(5):
            processes = [
                subprocess.Popen(
                    command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
                )
                for _ in range(6)
            ]
            try:
                for process in processes:
                    _, err = process.communicate(timeout=60)
                    assert (process.returncode, b"EOFError" in err) == (1, True), err
            finally:
                for process in processes:
                    process.kill()
                    process.wait()


def test_no_service_there_exits_with_4(wasmeval: Command) -> None:
    started = time.monotonic()
    done = wasmeval("run", "--server", "127.0.0.1:1", "-c", "1")
    assert done.returncode == 4
    assert done.stderr.startswith(b"wasmeval: ")
    assert time.monotonic() - started < 60


def test_ctrl_c_ends_the_guest_quietly() -> None:
    command = [
        sys.executable,
        "-m",
        "wasmeval",
        "run",
        "-c",
        "import time\nprint('on')\ntime.sleep(60)",
        "--deadline",
        "60",
    ]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
    ) as process:
        assert process.stdout
        # While it runs: what it printed is here before it ends.
        assert process.stdout.readline() == b"on\n"
        os.killpg(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=10)
    assert (process.returncode, out, err) == (130, b"", b"")


def test_a_reader_that_goes_away_is_no_error() -> None:
    command = f"{sys.executable} -m wasmeval run -c \"print('x' * 900_000)\" | head -c 1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, check=False, timeout=60)
    assert (done.stdout, done.stderr) == (b"x", b"")
