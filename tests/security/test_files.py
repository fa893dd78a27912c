"""Promise: a guest sees its library, its own workspace and the folders it was given, and nothing outside of them can be
read, written, named or probed; quotas hold whatever it does."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from wasmeval import Evaluator, InvalidArgument, Limits, Status
from wasmeval.grants import Folder
from wasmeval.limits import MIB

LIBRARY = "/usr/lib/python3.13"
ROOM = 4 * MIB


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`shared`, which is mounted as `data` and as `drop`, beside a file that nobody may see."""
    outer = tmp_path_factory.mktemp("outer")
    shared = outer / "shared"
    (shared / "sub").mkdir(parents=True)
    (shared / "a.txt").write_text("hello")
    (shared / "sub" / "b.txt").write_text("world")
    (outer / "secret.txt").write_text("SECRET")
    (shared / "out").symlink_to("../secret.txt")
    (shared / "absolute").symlink_to(outer / "secret.txt")
    (shared / "outer").symlink_to("..")
    (shared / "passwd").symlink_to("/etc/passwd")
    (shared / "fd").symlink_to("/proc/self/fd/0")
    os.mkfifo(shared / "pipe")
    return shared


@pytest.fixture(scope="module")
def shared_evaluator(host: Path) -> Iterator[Evaluator]:
    """In the place of the other tests': with two mounts."""
    folders = {"data": Folder(host), "drop": Folder(host, read_only=False, max_bytes=ROOM, max_files=20)}
    with Evaluator(workers=1, require_jail=True, folders=folders) as evaluator:
        yield evaluator


NOT_THERE = [
    "/etc/passwd", "/etc/shadow", "/proc/self/maps", "/proc/1/environ", "/sys/kernel", "/dev/null", "/dev/random",
    "/root", "/home", "/var/tmp", "/work", "etc/passwd", "../etc/passwd", "/../../../../../etc/passwd",
    "/usr/../etc/passwd", "/usr/lib/python3.13/../../../etc/passwd", "//etc//passwd", "/./etc/./passwd",
    "/usr/lib/python3.13/../../../../../../../../proc/self/environ", "~/.ssh/id_rsa", "/proc/self/fd/0", "/dev/fd/0",
    "C:\\\\windows", "/%2e%2e/etc/passwd", "\\x2e\\x2e/etc/passwd", "/usr/lib/python3.13\\\\..\\\\..\\\\etc",
    "/mnt/../etc/passwd", "/mnt/data/../../etc/passwd", "/mnt/other", "/mnt/data/../../../secret.txt",
    "/tmp/../../etc/passwd", "/workspace/../../etc/passwd", "/mnt/data/sub/../../../secret.txt",
]  # fmt: skip


@pytest.mark.parametrize("path", NOT_THERE)
def test_no_file_of_the_host_can_be_opened(evaluator: Evaluator, path: str) -> None:
    for code in (
        f"open('{path}')",
        f"import os\nos.stat('{path}')",
        f"import os\nos.listdir('{path}')",
        f"import os\nos.open('{path}', os.O_RDONLY)",
        f"import pathlib\npathlib.Path('{path}').resolve(strict=True)",
        f"import os\nos.symlink('{path}', '/workspace/link')\nopen('/workspace/link')",
        f"import os\nos.chdir('/usr/lib')\nopen('{path}')",
    ):
        result = evaluator.evaluate(code, mounts=["data"])
        assert result.error
        assert (result.status, result.error.type) == (Status.ERROR, "FileNotFoundError"), (code, result.error)


WRITES = [
    "open('/x', 'w')",
    "open('/usr/x', 'x')",
    "open('/mnt/x', 'x')",
    "open(L, 'w')",
    "open(L, 'a')",
    "open(L, 'r+')",
    "open(L, 'w+b')",
    "os.open(L, os.O_WRONLY)",
    "os.open(L, os.O_RDWR)",
    "os.open(L, os.O_RDONLY | os.O_TRUNC)",
    "os.open('/x', os.O_CREAT | os.O_WRONLY)",
    "os.mkdir('/x')",
    "os.mkdir('/mnt/x')",
    "os.makedirs('/a/b/c')",
    "os.rmdir('/usr')",
    "os.rmdir('/workspace')",
    "os.remove(L)",
    "os.rename('/usr', '/x')",
    "os.rename('/workspace', '/x')",
    "os.symlink('/etc/passwd', '/x')",
    "os.truncate(L, 0)",
    "os.utime(L)",
    "os.utime('/')",
    "pathlib.Path('/x').touch()",
    "pathlib.Path('/x').write_text('x')",
    "open('/mnt/data/a.txt', 'w')",
    "open('/mnt/data/a.txt', 'r+')",
    "open('/mnt/data/new', 'w')",
    "os.mkdir('/mnt/data/new')",
    "os.remove('/mnt/data/a.txt')",
    "os.rename('/mnt/data/a.txt', '/mnt/data/b.txt')",
    "os.symlink('a.txt', '/mnt/data/link')",
    "os.utime('/mnt/data/a.txt')",
    "os.truncate('/mnt/data/a.txt', 0)",
]


@pytest.mark.parametrize("code", WRITES)
def test_nothing_read_only_can_be_written(evaluator: Evaluator, host: Path, code: str) -> None:
    result = evaluator.evaluate(f"import os, pathlib\nL = '{LIBRARY}/os.py'\n{code}", mounts=["data"])
    assert result.error
    assert (result.status, result.error.type) == (Status.ERROR, "OSError"), result.error
    assert result.error.message.startswith("[Errno 69] Read-only file system"), result.error
    listing = evaluator.evaluate("import os\n[os.listdir('/'), os.listdir('/mnt')]", mounts=["data"]).value
    assert listing == [["usr", "workspace", "tmp", "mnt"], ["data"]]
    assert (host / "a.txt").read_text() == "hello"


PATHS = {
    "open('a\\0b')": ("ValueError", "embedded null byte"),
    "open('/' + 'a/' * 5000)": ("OSError", "[Errno 37] Filename too long: '/a/a"),
    "open('x' * 10**6)": ("OSError", "[Errno 37] Filename too long: 'xxx"),
    "open('x' * 256, 'w')": ("OSError", "[Errno 37] Filename too long: 'xxx"),
    "open(b'/\\xff\\xfe')": ("OSError", "[Errno 25] Illegal byte sequence: b'/\\xff\\xfe'"),
    "open(b'/workspace/\\xff', 'w')": ("OSError", "[Errno 25] Illegal byte sequence: b'/workspace/\\xff'"),
    "open(b'/mnt/drop/\\xff', 'w')": ("OSError", "[Errno 25] Illegal byte sequence: b'/mnt/drop/\\xff'"),
    "open('/mnt/drop/' + 'x' * 256, 'w')": ("OSError", "[Errno 37] Filename too long: '/mnt/drop/xxx"),
    # wasi-libc takes the empty path for the current folder.
    "open('')": ("IsADirectoryError", "[Errno 31] Is a directory: ''"),
    "open('/usr')": ("IsADirectoryError", "[Errno 31] Is a directory: '/usr'"),
    "open('/usr/lib/python3.13/os.py/x')": ("NotADirectoryError", "[Errno 54] Not a directory"),
    "open(3)": ("IsADirectoryError", "[Errno 31] Is a directory: 3"),
    "open(99)": ("OSError", "[Errno 8] Bad file descriptor"),
}


@pytest.mark.parametrize(("code", "expected"), PATHS.items(), ids=PATHS)
def test_odd_paths(evaluator: Evaluator, code: str, expected: tuple[str, str]) -> None:
    result = evaluator.evaluate(code, mounts=["drop"])
    assert result.error
    assert result.status is Status.ERROR
    assert result.error.type == expected[0]
    assert result.error.message.startswith(expected[1]), result.error.message


@pytest.mark.parametrize("mount", ["data", "drop"])
@pytest.mark.parametrize("name", ["out", "absolute", "outer/secret.txt", "passwd", "fd", "pipe"])
def test_links_and_pipes_in_a_folder_lead_nowhere(
    evaluator: Evaluator, host: Path, mount: str, name: str
) -> None:
    for code in (
        "open(path).read()",
        "open(path, 'w')",
        "import os\nos.open(path, os.O_RDONLY)",
        "import shutil\nshutil.copy(path, '/workspace/copy')",
        "import os\nos.symlink(path, '/workspace/link')\nopen('/workspace/link').read()",
    ):
        result = evaluator.evaluate(f"path = '/mnt/{mount}/{name}'\n{code}", mounts=[mount])
        assert result.error, (code, result.value)
        assert result.status is Status.ERROR
        assert (
            result.error.type == "PermissionError" or "[Errno 69]" in result.error.message or name == "pipe"
        ), (
            code,
            result.error,
        )
        assert "SECRET" not in str(result)
    assert (host.parent / "secret.txt").read_text() == "SECRET"


def test_where_a_link_of_the_host_leads_is_not_told(evaluator: Evaluator, host: Path) -> None:
    code = """
import os
told = []
for name in ("out", "absolute", "outer", "passwd", "fd"):
    try:
        told.append(os.readlink(f"/mnt/data/{name}"))
    except PermissionError:
        pass
[told, os.path.realpath("/mnt/data/a.txt"), os.stat("/mnt/data/a.txt").st_uid]"""
    result = evaluator.evaluate(code, mounts=["data"])
    assert result.value == [[], "/mnt/data/a.txt", 0]
    assert evaluator.evaluate("import os\nos.stat('/mnt/data/a.txt').st_ino", mounts=["data"]).value != (
        (host / "a.txt").stat().st_ino
    )


@pytest.mark.parametrize(
    "code", ["os.symlink('/etc/passwd', '/mnt/drop/x')", "os.symlink('a.txt', '/mnt/drop/x')"]
)
def test_no_link_is_made_that_the_host_could_follow(evaluator: Evaluator, host: Path, code: str) -> None:
    result = evaluator.evaluate(f"import os\n{code}", mounts=["drop"])
    assert result.error
    assert result.error.type == "PermissionError", result.error
    assert not os.path.lexists(host / "x")


def test_a_race_of_renames_leads_nowhere(evaluator: Evaluator, host: Path) -> None:
    """While the guest opens `swap/secret.txt`, `swap` is by turns a folder without it and a link to where it is."""
    swap, folder, link = host / "swap", host / "swap.folder", host / "swap.link"
    folder.mkdir()
    (folder / "secret.txt").write_text("harmless")
    link.symlink_to("..")
    stop = threading.Event()

    def turn() -> None:
        while not stop.is_set():
            for kind in (folder, link):
                kind.rename(swap)
                swap.rename(kind)

    thread = threading.Thread(target=turn)
    thread.start()
    try:
        code = """
seen = {}
for _ in range(1500):
    try:
        outcome = open("/mnt/drop/swap/secret.txt").read()
    except OSError as error:
        outcome = type(error).__name__
    seen[outcome] = seen.get(outcome, 0) + 1
sorted(seen)"""
        result = evaluator.evaluate(code, mounts=["drop"], limits=Limits(deadline_seconds=60.0))
    finally:
        stop.set()
        thread.join()
    assert result.status is Status.OK, result.error
    assert set(result.value) <= {"harmless", "FileNotFoundError", "PermissionError"}
    assert len(result.value) > 1
    link.unlink()
    (folder / "secret.txt").unlink()
    folder.rmdir()


def test_only_what_was_asked_for_is_mounted(evaluator: Evaluator) -> None:
    assert evaluator.evaluate("import os\nos.listdir('/mnt')").value == []
    assert evaluator.evaluate("import os\nos.path.exists('/mnt/data/a.txt')").value is False
    assert evaluator.evaluate("import os\nos.listdir('/mnt')", mounts=["drop"]).value == ["drop"]
    with pytest.raises(InvalidArgument, match="mounts"):
        evaluator.evaluate("1", mounts=["other"])


def test_nothing_stays_in_a_workspace(evaluator: Evaluator) -> None:
    code = "import os\nopen('/workspace/a', 'w').write('x')\nopen('/tmp/b', 'w').write('x')"
    assert evaluator.evaluate(code).status is Status.OK
    assert evaluator.evaluate("import os\n[os.listdir('/workspace'), os.listdir('/tmp')]").value == [[], []]


def test_only_the_workspace_comes_back(evaluator: Evaluator) -> None:
    code = f"""
import os
os.symlink('{LIBRARY}/os.py', 'library.txt')
os.symlink('/mnt/data/a.txt', 'mounted.txt')
os.symlink('/tmp', 'folder')
open('/tmp/other.txt', 'w').write('other')
open('mine.txt', 'w').write('mine')"""
    result = evaluator.evaluate(code, mounts=["data"], outputs=["**/*.txt", "folder/*"])
    assert {path: file.data for path, file in result.files.items()} == {"mine.txt": b"mine"}
    for pattern in ("../tmp/*", "/tmp/*", "/etc/passwd", "a/../../x", "", "a\0b"):
        with pytest.raises(InvalidArgument, match="outputs"):
            evaluator.evaluate("1", outputs=[pattern])


@pytest.mark.parametrize(
    "path", ["../a", "/a", "a/../../b", "", "a//b", "a/", "./a", "a\0b", "x" * 256, "\ud800", "a/" * 2100]
)
def test_files_are_put_into_the_workspace_alone(evaluator: Evaluator, path: str) -> None:
    with pytest.raises(InvalidArgument, match="files"):
        evaluator.evaluate("1", files={path: b""})


# Each fills a folder as far as it can in some way of its own, and leaves the last error in `error`.
FILLS = {
    "one file": "f = open(top + '/big', 'wb')\nwhile True: f.write(bytes(100_000)); f.flush()",
    "a hole": "f = open(top + '/sparse', 'wb')\nf.seek(2**40); f.write(b'x'); f.flush()",
    "a truncation": "f = open(top + '/long', 'wb')\nf.truncate(2**40)",
    "holes": "for i in range(100): f = open(f'{top}/{i}', 'wb'); f.truncate(2**20)",
    "small files": "for i in range(10**5): open(f'{top}/{i}', 'wb').close()",
    "folders": "for i in range(10**5): os.mkdir(f'{top}/{i}')",
    "files that are open and have no name": (
        "kept = []\nwhile True: f = open(top + '/x', 'wb'); f.write(bytes(500_000)); f.flush(); kept.append(f); "
        "os.remove(top + '/x')"
    ),
    "renames over one another": (
        "kept = []\nwhile True:\n f = open(top + '/x', 'wb'); f.write(bytes(500_000)); f.flush(); kept.append(f)\n"
        " os.rename(top + '/x', top + '/y')"
    ),
    "appends": "f = open(top + '/log', 'ab')\nwhile True: f.write(bytes(70_000)); f.flush()",
}


@pytest.mark.parametrize("top", ["/workspace", "/tmp", "/mnt/drop/fill"])
@pytest.mark.parametrize("fill", FILLS)
def test_a_quota_holds_and_is_an_error_of_the_guest(
    evaluator: Evaluator, host: Path, fill: str, top: str
) -> None:
    body = "\n    ".join(FILLS[fill].splitlines())
    code = f"""
import os, shutil
top = {top!r}
os.makedirs(top, exist_ok=True)
error = None
try:
    {body}
except OSError as caught:
    error = caught.errno
kept = f = None
total = sum(os.path.getsize(os.path.join(at, name)) for at, _, names in os.walk(top) for name in names)
count = sum(len(names) + len(folders) for _, folders, names in os.walk(top))
shutil.rmtree(top, ignore_errors=True)
os.makedirs(top, exist_ok=True)
open(top + '/after', 'w').write('there is room again')
[error, total, count, open(top + '/after').read()]"""
    limits = Limits(workspace_bytes=ROOM, workspace_files=50, deadline_seconds=60.0)
    result = evaluator.evaluate(code, mounts=["drop"], limits=limits)
    assert result.status is Status.OK, result.error
    error, total, count, after = result.value
    assert (error, after) == (51, "there is room again")
    assert total <= ROOM
    assert count <= 50
    for path in sorted((host / "fill").rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    if (host / "fill").exists():
        (host / "fill").rmdir()


def test_the_world_is_empty(evaluator: Evaluator) -> None:
    code = "import os, sys\n[dict(os.environ), sys.argv, os.getcwd(), os.listdir('.'), sys.stdin.read()]"
    assert evaluator.evaluate(code).value == [{}, [""], "/workspace", [], ""]


@pytest.mark.parametrize(("path", "most"), [("/usr", 255), ("/mnt/data", 128)])
def test_descriptors_run_out_and_come_back(evaluator: Evaluator, path: str, most: int) -> None:
    code = f"""
import os
fds = []
try:
    while True: fds.append(os.open('{path}', os.O_RDONLY))
except OSError as error:
    first = error.errno
n = len(fds)
for fd in fds: os.close(fd)
again = os.open('{path}', os.O_RDONLY)
[first, n, again]"""
    assert evaluator.evaluate(code, mounts=["data"]).value == [33, most, 4]


def test_floods_of_file_calls_end(evaluator: Evaluator) -> None:
    for code in (
        "import os\nwhile True: os.listdir('/usr/lib/python3.13')",
        "import os\nwhile True: os.close(os.open('/usr/lib/python3.13/os.py', os.O_RDONLY))",
        "import os\nwhile True: os.stat('/' + 'usr/../' * 500)",
        "while True: open('/usr/lib/python3.13/os.py').read()",
        "import os\nwhile True: os.urandom(1 << 16)",
        "import time\nwhile True: time.time()",
        "while True: open('/tmp/a', 'w').write('x' * 10**6)",
        "f = open('/tmp/a', 'wb')\nwhile True: f.truncate(60 * 10**6); f.truncate(0)",
        "f = open('/tmp/a', 'wb')\nwhile True: f.seek(60 * 10**6); f.write(b'x'); f.flush(); f.truncate(0)",
        "f = open('/tmp/a', 'w+b')\nf.truncate(60 * 10**6)\nwhile True: f.seek(0); f.read()",
        "import os\nos.mkdir('a')\nwhile True: os.rename('a', 'b'); os.rename('b', 'a')",
        "import os\nos.symlink('b', 'a'); os.symlink('a', 'b')\nwhile True: os.path.exists('a')",
        "while True: open('/mnt/data/a.txt').read()",
        "import os\nwhile True: os.listdir('/mnt/data')",
    ):
        result = evaluator.evaluate(
            code, mounts=["data"], limits=Limits(fuel=200_000_000, deadline_seconds=1.0)
        )
        assert result.status in (Status.FUEL_EXHAUSTED, Status.DEADLINE_EXCEEDED), (code, result.error)


def test_files_that_come_back_leave_the_worker_to_others(evaluator: Evaluator) -> None:
    """60 MB of a hole, and patterns that match nothing of a thousand names: all of it ends, and is right."""
    hole = evaluator.evaluate("f = open('hole', 'wb')\nf.truncate(60 * 10**6)\nf.close()", outputs=["hole"])
    assert hole.status is Status.OK
    assert hole.files["hole"].data == bytes(60 * 10**6)
    code = "import os\nos.mkdir('a')\nfor at in range(1000): open(f'a/{at}', 'w').close()"
    patterns = [f"**/*{at}*/**/*[b-y]z?" for at in range(64)]
    result = evaluator.evaluate(code, outputs=patterns)
    assert (result.status, result.files) == (Status.OK, {})
    with pytest.raises(InvalidArgument, match=r"outputs\[0\]: .* has 600 parts, more than 65"):
        evaluator.evaluate("1", outputs=["/".join("*" * 600)])
