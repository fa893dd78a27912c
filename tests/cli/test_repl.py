"""`wasmeval repl` as a shell and a terminal see it: real processes, real sessions."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from tests.conftest import Command
from tests.running import running_service


@pytest.fixture(autouse=True)
def _own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The images that were compiled for this machine stay where they are.
    monkeypatch.setenv("XDG_CACHE_HOME", os.environ.get("XDG_CACHE_HOME", str(Path("~/.cache").expanduser())))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("HOME", str(tmp_path))


def test_steps_from_standard_input(wasmeval: Command) -> None:
    lines = b"x = 1\nx + 1\ndef f(n):\n    return n * x\n\nf(3)\nNone\n'a'\nprint('hi')\n[f]\n1 / 0\nx\n"
    done = wasmeval("repl", stdin=lines)
    assert done.returncode == 0
    out = re.sub(rb"0x[0-9a-f]+", b"0x", done.stdout)
    assert out == b"2\n3\n'a'\nhi\n[<function f at 0x>]\n1\n"
    assert b'File "<step 9>", line 1' in done.stderr
    assert b"ZeroDivisionError: division by zero" in done.stderr


def test_javascript_from_standard_input(wasmeval: Command) -> None:
    done = wasmeval(
        "repl",
        "-l",
        "javascript",
        stdin=b"let x = [1,\n2]\nx.push(3)\nfunction f() {\n return x }\nf()\nnope\n",
    )
    assert (done.returncode, done.stdout) == (0, b"3\n[1,2,3]\n")
    assert b"ReferenceError: nope is not defined" in done.stderr


def test_a_session_goes_on_another_day(wasmeval: Command) -> None:
    done = wasmeval("repl", stdin=b"x = 41\n")
    match = re.search(rb"go on with: wasmeval repl --session (\w{32})\n", done.stderr)
    assert match
    session = match[1].decode()
    assert wasmeval("repl", "--session", session, stdin=b"x += 1\nx\n").stdout == b"42\n"
    assert wasmeval("repl", "--session", session, stdin=b"x\n").stdout == b"42\n"
    wrong = wasmeval("repl", "--session", "a" * 32, stdin=b"x\n")
    assert (wrong.returncode, wrong.stdout) == (4, b"")
    assert b"there is no session" in wrong.stderr


def test_a_session_of_a_service(wasmeval: Command) -> None:
    with running_service() as service:
        done = wasmeval("repl", "--server", service.target, stdin=b"x = 1\nx\n")
        match = re.search(rb"wasmeval repl --server \S+ --session (\w{32})\n", done.stderr)
        assert match
        again = wasmeval("repl", "--server", service.target, "--session", match[1].decode(), stdin=b"x + 1\n")
        assert (done.stdout, again.stdout) == (b"1\n", b"2\n")


def test_a_limit_leaves_the_session_as_it_was(wasmeval: Command) -> None:
    done = wasmeval("repl", "--fuel", "1e8", stdin=b"x = 1\nx = 2; exec('while True: pass')\nx\n")
    assert done.stdout == b"1\n"
    assert b"the session is as it was before this step" in done.stderr


def test_nothing_is_kept_of_a_session_without_a_step(wasmeval: Command) -> None:
    done = wasmeval("repl", stdin=b"\n")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def at_the_terminal() -> None:
    """As a shell begins a program: the terminal is its own, and Ctrl-C means something, whatever began the tests."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_a_terminal_has_completion_and_ctrl_c_ends_the_step_alone() -> None:
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "wasmeval", "repl"],
        stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True, env={**os.environ, "TERM": "dumb"},
        preexec_fn=at_the_terminal,
    )  # fmt: skip
    os.close(theirs)
    seen = b""

    def until(wanted: bytes) -> None:
        nonlocal seen
        while wanted not in seen:
            assert select.select([ours], [], [], 30)[0], seen
            seen += os.read(ours, 4096)
        seen = seen.partition(wanted)[2]

    try:
        until(b">>> ")
        os.write(ours, b"answer_of_all = 42\n")
        until(b">>> ")
        os.write(ours, b"answer_of\t + 0\n")
        until(b"\n42")
        until(b">>> ")
        os.write(ours, b"answer_of_all = 1; print('o' + 'n', flush=True); import time; time.sleep(8)\n")
        until(b"\non")
        os.write(ours, b"\x03")
        until(b"KeyboardInterrupt: the step was stopped")
        until(b">>> ")
        os.write(ours, b"half a li")
        until(b"half a li")
        # Python sees a signal that comes between two looks at the terminal with the next one, or with the next key.
        for _ in range(20):
            os.write(ours, b"\x03")
            if select.select([ours], [], [], 2)[0]:
                break
        until(b"KeyboardInterrupt")
        until(b">>> ")
        os.write(ours, b"answer_of_all\n")
        until(b"\n42")
        until(b">>> ")
        os.write(ours, b"\x04")
        until(b"--session ")
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait()
        os.close(ours)
