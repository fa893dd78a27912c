"""What runs in a machine, through the same call and the same Result."""

from __future__ import annotations

import pytest

import wasmeval
from wasmeval import Evaluation, Limits


def test_python_gives_its_value(vms: wasmeval.Evaluator) -> None:
    result = vms.evaluate("import math\nmath.factorial(30)", tier="vm")
    assert (result.status, result.value, result.tier) == ("ok", 265252859812191058636308480000000, "vm")
    assert result.runtime == "vm-python"
    assert "qemu" in result.tier_detail
    assert result.moved == ""


def test_inputs_are_variables(vms: wasmeval.Evaluator) -> None:
    assert vms.evaluate("sum(xs) + n", tier="vm", inputs={"xs": [1, 2], "n": 0.5}).value == 3.5


def test_an_error_is_data(vms: wasmeval.Evaluator) -> None:
    result = vms.evaluate("print('before')\n1 / 0", tier="vm")
    assert result.status == "error"
    assert result.error is not None
    assert (result.error.type, result.error.message, result.error.line) == (
        "ZeroDivisionError",
        "division by zero",
        2,
    )
    assert result.stdout == "before\n"


def test_javascript_gives_its_completion_value(vms: wasmeval.Evaluator) -> None:
    code = "const os = require('os'); await Promise.resolve([os.platform(), 2n ** 70n])"
    assert vms.evaluate(code, language="javascript", tier="vm").value == ["linux", 2**70]


def test_bash_gives_its_output_and_status(vms: wasmeval.Evaluator) -> None:
    result = vms.evaluate(
        "echo out; echo $WHO $N >&2; exit 3", language="bash", inputs={"WHO": "you", "N": [1]}
    )
    assert (result.stdout, result.stderr, result.exit_status) == ("out\n", "you [1]\n", 3)
    assert result.status == "error"
    assert result.error is not None
    assert (result.error.type, result.error.message) == ("ExitStatus", "exit status 3")


def test_a_script_longer_than_an_argument(vms: wasmeval.Evaluator) -> None:
    code = "# " + "x" * 200_000 + "\necho here"
    assert vms.evaluate(code, language="bash").stdout == "here\n"


def test_a_command(vms: wasmeval.Evaluator) -> None:
    result = vms.run_command(["git", "--version"])
    assert (result.status, result.exit_status) == ("ok", 0)
    assert result.stdout.startswith("git version ")


def test_a_command_that_is_not_there(vms: wasmeval.Evaluator) -> None:
    result = vms.run_command(["no-such-program", "x"])
    assert (result.status, result.exit_status) == ("error", 127)
    assert "no-such-program" in result.stderr


def test_a_command_that_is_killed(vms: wasmeval.Evaluator) -> None:
    result = vms.run_command(["bash", "-c", "kill -SEGV $$"])
    assert result.exit_status == -11
    assert result.error is not None
    assert result.error.message == "killed by SIGSEGV"


def test_what_is_left_in_the_background_does_not_hold_the_result(vms: wasmeval.Evaluator) -> None:
    result = vms.evaluate("sleep 1000 & echo done", language="bash", limits=Limits(deadline_seconds=30))
    assert (result.status, result.stdout) == ("ok", "done\n")


def test_files_go_both_ways(vms: wasmeval.Evaluator) -> None:
    code = (
        "import os, pathlib\n"
        "text = pathlib.Path('in/a.txt').read_text()\n"
        "os.makedirs('out/deep')\n"
        "pathlib.Path('out/b.bin').write_bytes(bytes(300_000))\n"
        "pathlib.Path('out/deep/c.txt').write_text(text.upper())\n"
        "os.symlink('/etc/passwd', 'out/link.txt')\n"
        "os.mkfifo('out/fifo.txt')\n"
        "os.getcwd()"
    )
    result = vms.evaluate(code, tier="vm", files={"in/a.txt": b"text"}, outputs=["out/**/*.txt", "out/*.bin"])
    assert result.value == "/workspace"
    assert {path: file.size for path, file in result.files.items()} == {
        "out/b.bin": 300_000,
        "out/deep/c.txt": 4,
    }
    assert result.files["out/deep/c.txt"].data == b"TEXT"


def test_a_large_file_goes_both_ways(vms: wasmeval.Evaluator) -> None:
    data = bytes(range(256)) * 20_000
    result = vms.evaluate("mv in out; sha256sum out", language="bash", files={"in": data}, outputs=["out"])
    assert result.files["out"].data == data


def test_tools_are_called(vms: wasmeval.Evaluator) -> None:
    def search(query: str, limit: int = 2) -> list[str]:
        return [query] * limit

    code = (
        "import asyncio\n"
        "async def main():\n"
        "    return await asyncio.gather(search.aio('a'), search.aio('b', limit=1))\n"
        "[search('x'), asyncio.run(main())]"
    )
    result = vms.evaluate(code, tier="vm", tools={"search": search})
    assert result.value == [["x", "x"], [["a", "a"], ["b"]]]
    assert result.usage.tool_calls == 3


def test_output_is_seen_while_it_runs_and_input_is_read(vms: wasmeval.Evaluator) -> None:
    seen: list[tuple[str, str]] = []
    result = vms.evaluate(
        "print('name?')\nprint('hello', input())\nimport sys\nsys.stdin.read()",
        tier="vm",
        stdin=["you\n", "and ", "more"],
        on_output=lambda stream, text: seen.append((stream, text)),
    )
    assert result.value == "and more"
    assert "".join(text for _, text in seen) == result.stdout == "name?\nhello you\n"


def test_input_ends_at_once_where_there_is_none(vms: wasmeval.Evaluator) -> None:
    assert vms.evaluate("cat; echo end", language="bash").stdout == "end\n"


def test_a_batch(vms: wasmeval.Evaluator) -> None:
    jobs = [Evaluation(f"{n} * 2", tier="vm") for n in range(3)] + [Evaluation("echo x", language="bash")]
    results = vms.evaluate_batch(jobs)
    assert [result.value for result in results] == [0, 2, 4, None]
    assert results[3].stdout == "x\n"


THERE = {
    "threads": """
import threading
found = []
t = threading.Thread(target=lambda: found.append(1))
t.start(); t.join()
found == [1]""",
    "executors": """
from concurrent.futures import ProcessPoolExecutor
with ProcessPoolExecutor(2) as pool:
    r = list(pool.map(abs, [-1, -2]))
r == [1, 2]""",
    "multiprocessing": """
import multiprocessing
def f(x):
    return x + 1
with multiprocessing.Pool(2) as pool:
    r = pool.map(f, [1, 2])
r == [2, 3]""",
    "sockets": """
import socket
a, b = socket.socketpair()
a.send(b'x')
b.recv(1) == b'x'""",
    "ctypes": "import ctypes\nctypes.CDLL(None).getpid() > 0",
    "modules": "import sqlite3, tempfile, mmap, resource, fcntl, pwd\npwd.getpwuid(1000).pw_name == 'user'",
    "packages": "import numpy, pandas, matplotlib\nmatplotlib.get_backend().lower() == 'agg'",
    "subprocess": "import subprocess, sys\nsubprocess.check_output([sys.executable, '-c', 'print(1)']) == b'1\\n'",
    "asyncio": """
import asyncio
async def f():
    p = await asyncio.create_subprocess_exec('true')
    return await p.wait()
asyncio.run(f()) == 0""",
}


@pytest.mark.parametrize("code", THERE.values(), ids=THERE)
def test_what_wasm_lacks_is_there(vms: wasmeval.Evaluator, code: str) -> None:
    result = vms.evaluate(code, tier="vm")
    assert (result.status, result.value) == ("ok", True), result.error


def test_a_plot_is_drawn(vms: wasmeval.Evaluator) -> None:
    code = "import matplotlib.pyplot as plt\nplt.plot([1, 3, 2])\nplt.savefig('plot.png')"
    result = vms.evaluate(code, tier="vm", outputs=["*.png"])
    assert result.files["plot.png"].data.startswith(b"\x89PNG")
    assert result.files["plot.png"].media_type == "image/png"


def test_pytest_runs(vms: wasmeval.Evaluator) -> None:
    files = {"test_it.py": b"def test_one():\n    assert 1 + 1 == 2\n"}
    result = vms.run_command(["python3", "-m", "pytest", "-q"], files=files)
    assert (result.exit_status, "1 passed" in result.stdout) == (0, True), result.stdout + result.stderr


def test_git_works(vms: wasmeval.Evaluator) -> None:
    script = (
        "git init -q repo && cd repo && git config user.email a@b.c && git config user.name me && "
        "echo x > f && git add f && git commit -qm first && git log --oneline | wc -l"
    )
    result = vms.evaluate(script, language="bash")
    assert (result.status, result.stdout.strip()) == ("ok", "1"), result.stderr


def test_a_virtual_environment_is_made(vms: wasmeval.Evaluator) -> None:
    result = vms.evaluate(
        "python3 -m venv --without-pip env && env/bin/python -c 'print(1)'", language="bash"
    )
    assert result.stdout == "1\n", result.stderr
