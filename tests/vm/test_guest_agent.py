"""What the agent in a guest does with files and streams, as far as it takes no root and no machine."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.vm.guests import module
from wasmeval.vm.frames import Order, Word
from wasmeval.vm.task import _expressions
from wasmeval.wasm.globs import Globs
from wasmeval.wasm.nodes import File, Folder, Quota
from wasmeval.wasm.output import Output

files = module("_agent_files")
processes = module("_agent_processes")
streams = module("_agent_streams")


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(files, "WORKSPACE", str(tmp_path / "workspace"))
    monkeypatch.setattr(files, "AsUser", contextlib.nullcontext)
    (tmp_path / "workspace").mkdir()
    return tmp_path / "workspace"


# --- the same frames on both sides -------------------------------------------------------------------------------


def test_both_sides_number_what_they_say_alike() -> None:
    assert {name: getattr(streams, name) for name in Order.__members__} == dict(Order.__members__)
    assert {name: getattr(streams, name) for name in Word.__members__} == dict(Word.__members__)


# --- patterns ----------------------------------------------------------------------------------------------------

NAMES = st.text("ab.[]*é-", min_size=1, max_size=4).filter(lambda name: name not in (".", ".."))
PARTS = st.one_of(st.just("**"), st.text("ab*?[]!-.é", min_size=1, max_size=4))
PATTERNS = st.lists(PARTS, min_size=1, max_size=4).map("/".join)
PATHS = st.lists(NAMES, min_size=1, max_size=4).map(tuple)


def planted(root: Path, paths: set[tuple[str, ...]]) -> Folder:
    """Files at those paths on disk, and the same as nodes of a workspace in Wasm."""
    top, quota = Folder(0), Quota()
    quota.max_bytes = quota.max_files = 1 << 30
    for path in sorted(paths):
        *folders, name = path
        here, node = root, top
        for folder in folders:
            here = here / folder
            there = node.names.setdefault(folder.encode(), Folder(0))
            if not isinstance(there, Folder):
                break
            node = there
            here.mkdir(exist_ok=True)
        else:
            if name.encode() not in node.names:
                node.names[name.encode()] = File(0, quota)
                (here / name).write_bytes(b"")
    return top


def matching(root: Path, patterns: list[str]) -> list[str]:
    compiled = [
        tuple(None if part is None else files.re.compile(part) for part in _expressions(pattern))
        for pattern in patterns
    ]
    return list(files.matching(str(root), compiled))


def globbed(top: Folder, patterns: list[str]) -> list[str]:
    return [found[0] for found in Globs(patterns).files(top) if found is not None]


@settings(deadline=None, max_examples=250, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sets(PATHS, max_size=12), st.lists(PATTERNS, min_size=1, max_size=4))
def test_patterns_match_in_a_machine_what_they_match_in_wasm(
    tmp_path_factory: pytest.TempPathFactory, paths: set[tuple[str, ...]], patterns: list[str]
) -> None:
    root = tmp_path_factory.mktemp("root")
    top = planted(root, paths)
    assert matching(root, patterns) == globbed(top, patterns)


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("**", [".h", "a.txt", "a/b.txt", "a/c/d.txt", "x[1]"]),
        ("*.txt", ["a.txt"]),
        ("**/*.txt", ["a.txt", "a/b.txt", "a/c/d.txt"]),
        ("a/**", ["a/b.txt", "a/c/d.txt"]),
        ("a", []),
        ("?h", [".h"]),
        ("x[1]", []),
        ("x[[]1]", ["x[1]"]),
        ("a.txt/**", ["a.txt"]),
        ("a.txt/**/**", ["a.txt"]),
        ("a.+t", []),
    ],
)
def test_what_patterns_mean(tmp_path: Path, pattern: str, found: list[str]) -> None:
    top = planted(tmp_path, {(".h",), ("a.txt",), ("a", "b.txt"), ("a", "c", "d.txt"), ("x[1]",)})
    assert matching(tmp_path, [pattern]) == globbed(top, [pattern]) == found


def test_folders_deeper_than_a_result_may_have_are_left_out(tmp_path: Path) -> None:
    here = os.open(tmp_path, os.O_RDONLY)
    for depth in range(1500):
        if depth in (64, 65):
            os.close(os.open("f", os.O_CREAT, dir_fd=here))
        os.mkdir("d", dir_fd=here)
        below = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    assert matching(tmp_path, ["**"]) == ["d/" * 64 + "f"]
    # What pytest removes it with does not go so deep.
    subprocess.run(["rm", "-rf", tmp_path / "d"], check=True)


def test_an_expression_for_each_name() -> None:
    assert _expressions("**/a.b/*.txt") == [None, r"a\.b\Z", r"(?s:.*\.txt)\Z"]
    assert [part for part in _expressions("a\n") if part and files.re.match(part, "a")] == []


# --- files in ----------------------------------------------------------------------------------------------------


def piece(path: str, content: bytes) -> bytes:
    return struct.pack("<H", len(path.encode())) + path.encode() + content


def test_pieces_make_a_file_and_its_folders(workspace: Path) -> None:
    files.write_piece(1, piece("a/b/c", b"one"))
    files.write_piece(0, piece("a/b/c", b"two"))
    files.write_piece(1, piece("e", b""))
    assert (workspace / "a/b/c").read_bytes() == b"onetwo"
    assert (workspace / "e").read_bytes() == b""
    files.write_piece(1, piece("a/b/c", b"new"))
    assert (workspace / "a/b/c").read_bytes() == b"new"


def test_a_link_is_not_written_through(workspace: Path, tmp_path: Path) -> None:
    (tmp_path / "victim").write_bytes(b"mine")
    (workspace / "link").symlink_to(tmp_path / "victim")
    for begins in (0, 1):
        with pytest.raises(OSError, match="symbolic link"):
            files.write_piece(begins, piece("link", b"yours"))
    assert (tmp_path / "victim").read_bytes() == b"mine"


# --- files out ---------------------------------------------------------------------------------------------------


def read(pattern: str = "**", most_bytes: int = 1 << 30, most_files: int = 1000) -> list[Any]:
    return [
        None if each is None else (each[0], each[1][2:])
        for each in files.read_pieces([_expressions(pattern)], most_bytes, most_files)
    ]


def test_plain_files_are_read_in_pieces_and_nothing_else(workspace: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"secret")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/secret").write_bytes(b"secret")
    (workspace / "a").write_bytes(b"x" * 70_000)
    (workspace / "empty").write_bytes(b"")
    (workspace / "link").symlink_to(tmp_path / "secret")
    (workspace / "folder").symlink_to(tmp_path / "folder")
    os.mkfifo(workspace / "fifo")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(workspace / "socket"))
        assert read() == [(1, b"a" + b"x" * 65_536), (0, b"a" + b"x" * 4464), (1, b"empty")]


def test_what_became_a_link_since_it_was_found_is_not_read(workspace: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"secret")
    (workspace / "a").symlink_to(tmp_path / "secret")
    assert list(files._content(str(workspace / "a"))) == []
    os.mkfifo(workspace / "fifo")
    assert list(files._content(str(workspace / "fifo"))) == []
    assert list(files._content(str(workspace))) == []


def test_too_many_and_too_large_files_end_it(workspace: Path) -> None:
    for name in "abc":
        (workspace / name).write_bytes(b"12345")
    assert read(most_files=3)[-1] is not None
    assert read(most_files=2) == [(1, b"a12345"), (1, b"b12345"), None]
    assert read(most_bytes=15)[-1] is not None
    assert read(most_bytes=14) == [(1, b"a12345"), (1, b"b12345"), None]


def test_names_that_are_no_text_are_told_as_they_are(workspace: Path) -> None:
    with open(os.fsencode(workspace) + b"/\xff", "wb"):
        pass
    assert read() == [(1, b"\xff")]


# --- output ------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def stream(limit: int) -> Iterator[tuple[Any, int]]:
    """An agent's output, and where a process writes it."""
    ours, theirs = os.pipe2(os.O_NONBLOCK)
    output = processes.Output(1, ours)
    output.limit = limit
    try:
        yield output, theirs
    finally:
        os.close(ours)
        with contextlib.suppress(OSError):
            os.close(theirs)


def through(limit: int, writes: list[bytes]) -> tuple[bytes, bytes | None, Output]:
    """What goes to the host of `writes`, and what it makes of it."""
    sent, host = b"", Output(limit)
    with stream(limit) as (output, end):
        for data in writes:
            os.write(end, data)
            while True:
                passed = output.read()
                if passed is None:
                    break
                sent += passed
                host.write(passed)
        rest = output.rest()
        if rest is not None:
            host.skip(*struct.unpack_from("<Q", rest))
            host.write(rest[8:])
        assert output.rest() is None
    return sent, rest, host


@settings(deadline=None)
@given(st.integers(1, 60), st.lists(st.binary(min_size=1, max_size=40), max_size=8))
def test_the_host_shows_what_it_would_of_all_of_it(limit: int, writes: list[bytes]) -> None:
    whole = Output(limit)
    for data in writes:
        whole.write(data)
    sent, rest, host = through(limit, writes)
    assert (host.text(), host.written, host.truncated) == (whole.text(), whole.written, whole.truncated)
    # As task.Task has it: all that may be shown, then one tail that is within the limit.
    assert len(sent) <= limit
    if rest is not None:
        assert len(sent) == limit
        assert 8 < len(rest) <= 8 + limit


def test_a_long_output_keeps_little_in_the_guest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "_TRIM_BYTES", 100)
    sent, rest, host = through(10, [bytes([n % 256]) * 60 for n in range(50)])
    assert (len(sent), host.written) == (10, 3000)
    assert rest is not None
    assert len(rest) == 8 + 5
    assert host.text().endswith("\x31" * 5)


def test_output_begins_anew_after_its_rest() -> None:
    with stream(5) as (output, end):
        os.write(end, b"1234567")
        assert output.read() == b"12345"
        assert output.rest() == struct.pack("<Q", 0) + b"67"
        os.write(end, b"abc")
        assert output.read() == b"abc"
        assert output.rest() is None
        os.close(end)
        assert output.read() is None
        assert not output.is_open


# --- frames ------------------------------------------------------------------------------------------------------


def test_frames_go_both_ways_however_they_are_cut() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        for end in (ours, theirs):
            end.setblocking(False)
        stream = streams.Stream(ours.fileno(), streams.HEADER)
        data = struct.pack("<IBI", 3, 4, 5) + b"abc"
        got = []
        for each in data * 3:
            theirs.send(bytes([each]))
            got += list(stream.frames())
        assert got == [((3, 4, 5), b"abc")] * 3
        stream.put(bytes(1 << 20))
        assert stream.pending > 0
        received = 0
        while received < 1 << 20:
            received += len(theirs.recv(1 << 16))
            stream.flush()
        assert stream.pending == 0
        theirs.send(struct.pack("<IBI", 0xFFFFFFFF, 4, 5))
        with pytest.raises(EOFError):
            list(stream.frames())
