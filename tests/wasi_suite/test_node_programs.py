"""A third party's programs on the WASI functions that we supply: files in memory, and in folders of the host.

What fails is listed here with its reason, and must fail: whoever mends it takes it off the list.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from runtimes.toolchain import ToolchainError
from tests.wasi_suite.suite import Outcome, Sandbox, programs, run

ENVIRONMENT = {"NODE_PLATFORM": "linux"}

# What a program prints, where it prints; its exit code is 0 but for `exitcode`.
PRINTS = {
    "create_symlink": "hello from input in subdir.txt",
    "follow_symlink": "hello from input in subdir.txt",
    "freopen": "hello from input2.txt\n",
    "read_file": "hello from input.txt\n",
    "read_file_twice": "hello from input.txt\nhello from input.txt\n",
    "stdin": "hello world",
}
# The names of all programs, so that one that is missing is seen.
PROGRAMS = [
    "cant_dotdot", "clock_getres", "create_symlink", "exitcode", "fd_prestat_get_refresh", "follow_symlink", "freopen",
    "ftruncate", "getentropy", "getrusage", "gettimeofday", "link", "main_args", "notdir", "poll", "poll_win",
    "preopen_populates", "read_file", "read_file_twice", "readdir", "sock", "stat", "stdin", "symlink_escape",
    "symlink_loop", "write_file",
]  # fmt: skip

EXPECTED_FAILURES = {
    ("link", "both"): "there are no hard links: ENOTSUP",
    ("main_args", "both"): "a guest has no arguments",
    ("readdir", "both"): "`.` and `..` are listed, as Wasmtime lists them; four entries are expected",
    ("poll", "both"): "poll_oneoff gives the first event alone; a libc may not count on more",
    ("cant_dotdot", "memory"): "the preopen is `/` itself, and `..` of a folder in it is another: ENOENT",
    ("cant_dotdot", "host"): "the preopen is `/` itself, and `..` of a folder in it is another: ENOENT",
    ("symlink_escape", "memory"): "the link leads to another folder of the guest's own: ENOENT",
    ("symlink_escape", "host"): "EPERM, as Wasmtime answers it, where this asks for ENOTCAPABLE",
    ("create_symlink", "host"): "no links are made in folders of the host: EPERM",
}


@pytest.fixture(scope="module")
def suite() -> Path:
    try:
        return programs()
    except ToolchainError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"the programs could not be fetched: {error}")


@pytest.fixture
def folders(suite: Path, tmp_path: Path) -> tuple[Path, Path]:
    """`/sandbox` and `/tmp` as Node's own tests lay them."""
    sandbox, tmp = tmp_path / "sandbox", tmp_path / "tmp"
    (sandbox / "subdir").mkdir(parents=True)
    tmp.mkdir()
    for name in ("input.txt", "input2.txt", "notadir"):
        (sandbox / name).write_bytes((suite / "fixtures" / name).read_bytes())
    (sandbox / "subdir" / "input-in-subdir.txt").write_text("hello from input in subdir.txt")
    (tmp_path / "outside.txt").write_text("this should be inaccessible")
    for name, target in {
        "input_link.txt": "./input-in-subdir.txt",
        "outside.txt": "../../outside.txt",
        "loop1": "loop2",
        "loop2": "loop1",
    }.items():
        (sandbox / "subdir" / name).symlink_to(target)
    return sandbox, tmp


def test_the_list_is_whole(suite: Path) -> None:
    assert sorted(path.stem for path in (suite / "wasm").iterdir()) == PROGRAMS
    assert {name for name, _ in EXPECTED_FAILURES} <= set(PROGRAMS)


@pytest.mark.parametrize("where", ["memory", "host"])
@pytest.mark.parametrize("name", PROGRAMS)
def test_program(suite: Path, folders: tuple[Path, Path], name: str, where: str) -> None:
    if where == "host" and name in ("poll", "poll_win"):
        pytest.skip("sleeps for three seconds and opens no file")
    sandbox = Sandbox(*folders, where == "memory", ENVIRONMENT)
    outcome = run(suite / "wasm" / f"{name}.wasm", sandbox, b"hello world" if name == "stdin" else None)
    reason = EXPECTED_FAILURES.get((name, where)) or EXPECTED_FAILURES.get((name, "both"))
    if reason:
        assert not is_as_it_should_be(name, outcome), f"passes now, though it is said that {reason}"
    else:
        assert is_as_it_should_be(name, outcome), outcome


def is_as_it_should_be(name: str, outcome: Outcome) -> bool:
    return outcome.exit_code == (120 if name == "exitcode" else 0) and outcome.stdout == PRINTS.get(name, "")
