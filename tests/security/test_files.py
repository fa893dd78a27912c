"""Promise: a guest sees a read-only library and nothing else: no file of the host, no environment, no arguments."""

from __future__ import annotations

import pytest

from wasmeval import Evaluator, Status

NOT_THERE = [
    "/etc/passwd", "/etc/shadow", "/proc/self/maps", "/proc/1/environ", "/sys/kernel", "/dev/null", "/dev/random",
    "/root", "/home", "/tmp", "/var/tmp", "/work", "etc/passwd", "../etc/passwd", "/../../../../../etc/passwd",
    "/usr/../etc/passwd", "/usr/lib/python3.13/../../../etc/passwd", "//etc//passwd", "/./etc/./passwd",
    "/usr/lib/python3.13/../../../../../../../../proc/self/environ", "~/.ssh/id_rsa", "/proc/self/fd/0", "/dev/fd/0",
    "C:\\\\windows", "/%2e%2e/etc/passwd", "\\x2e\\x2e/etc/passwd", "/usr/lib/python3.13\\\\..\\\\..\\\\etc",
]  # fmt: skip


@pytest.mark.parametrize("path", NOT_THERE)
def test_no_file_of_the_host_can_be_opened(evaluator: Evaluator, path: str) -> None:
    for code in (
        f"open('{path}')",
        f"import os\nos.stat('{path}')",
        f"import os\nos.listdir('{path}')",
        f"import os\nos.open('{path}', os.O_RDONLY)",
        f"import pathlib\npathlib.Path('{path}').resolve(strict=True)",
    ):
        result = evaluator.evaluate(code)
        assert result.error
        assert (result.status, result.error.type) == (Status.ERROR, "FileNotFoundError"), (code, result.error)


WRITES = [
    "open('/x', 'w')",
    "open('x', 'x')",
    "open(L, 'w')",
    "open(L, 'a')",
    "open(L, 'r+')",
    "open(L, 'w+b')",
    "os.open(L, os.O_WRONLY)",
    "os.open(L, os.O_RDWR)",
    "os.open(L, os.O_RDONLY | os.O_TRUNC)",
    "os.open('/x', os.O_CREAT | os.O_WRONLY)",
    "os.mkdir('/tmp')",
    "os.makedirs('/a/b/c')",
    "os.rmdir('/usr')",
    "os.remove(L)",
    "os.rename('/usr', '/x')",
    "os.symlink('/etc/passwd', '/x')",
    "os.link(L, '/x')",
    "os.truncate(L, 0)",
    "os.utime(L)",
    "pathlib.Path('/x').touch()",
    "pathlib.Path('/x').write_text('x')",
]


@pytest.mark.parametrize("code", WRITES)
def test_nothing_can_be_written(evaluator: Evaluator, code: str) -> None:
    result = evaluator.evaluate(f"import os, pathlib\nL = '/usr/lib/python3.13/os.py'\n{code}")
    assert result.error
    assert (result.status, result.error.type) == (Status.ERROR, "OSError"), result.error
    assert result.error.message.startswith("[Errno 69] Read-only file system"), result.error
    assert evaluator.evaluate("import os\nos.listdir('/')").value == ["usr"]


PATHS = {
    "open('a\\0b')": ("ValueError", "embedded null byte"),
    "open('/' + 'a/' * 5000)": ("OSError", "[Errno 37] Filename too long: '/a/a"),
    "open('x' * 10**6)": ("OSError", "[Errno 37] Filename too long: 'xxx"),
    "open(b'/\\xff\\xfe')": ("FileNotFoundError", "[Errno 44] No such file or directory: b'/\\xff\\xfe'"),
    # wasi-libc takes the empty path for the current folder.
    "open('')": ("IsADirectoryError", "[Errno 31] Is a directory: ''"),
    "open('/usr')": ("IsADirectoryError", "[Errno 31] Is a directory: '/usr'"),
    "open('/usr/lib/python3.13/os.py/x')": ("NotADirectoryError", "[Errno 54] Not a directory"),
    "open(3)": ("IsADirectoryError", "[Errno 31] Is a directory: 3"),
    "open(99)": ("OSError", "[Errno 8] Bad file descriptor"),
}


@pytest.mark.parametrize(("code", "expected"), PATHS.items(), ids=PATHS)
def test_odd_paths(evaluator: Evaluator, code: str, expected: tuple[str, str]) -> None:
    result = evaluator.evaluate(code)
    assert result.error
    assert result.status is Status.ERROR
    assert result.error.type == expected[0]
    assert result.error.message.startswith(expected[1]), result.error.message


def test_the_world_is_empty(evaluator: Evaluator) -> None:
    code = "import os, sys\n[dict(os.environ), sys.argv, os.getcwd(), os.listdir('/'), sys.stdin.read()]"
    assert evaluator.evaluate(code).value == [{}, [""], "/", ["usr"], ""]


def test_descriptors_run_out_and_come_back(evaluator: Evaluator) -> None:
    code = """
import os
fds = []
try:
    while True: fds.append(os.open('/usr', os.O_RDONLY))
except OSError as error:
    first = error.errno
n = len(fds)
for fd in fds: os.close(fd)
again = os.open('/usr', os.O_RDONLY)
[first, n, again]"""
    assert evaluator.evaluate(code).value == [33, 255, 4]


def test_floods_of_file_calls_end(evaluator: Evaluator) -> None:
    from wasmeval import Limits

    for code in (
        "import os\nwhile True: os.listdir('/usr/lib/python3.13')",
        "import os\nwhile True: os.close(os.open('/usr/lib/python3.13/os.py', os.O_RDONLY))",
        "import os\nwhile True: os.stat('/' + 'usr/../' * 500)",
        "while True: open('/usr/lib/python3.13/os.py').read()",
        "import os\nwhile True: os.urandom(1 << 16)",
        "import time\nwhile True: time.time()",
    ):
        result = evaluator.evaluate(code, limits=Limits(fuel=200_000_000, deadline_seconds=1.0))
        assert result.status in (Status.FUEL_EXHAUSTED, Status.DEADLINE_EXCEEDED), (code, result.error)
