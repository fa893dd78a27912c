"""Mounted folders: what the parent's side does with requests, through the calls of a guest, and with those of a worker
that was taken over."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.guest_files import (
    APPEND,
    CREAT,
    DIRECTORY,
    EXCL,
    FILE,
    FOLDER,
    LINK,
    READ,
    TRUNC,
    WRITE,
    GuestFiles,
)
from wasmeval.errors import SetupError
from wasmeval.grants import Folder, Mount
from wasmeval.limits import MIB
from wasmeval.preopens import OpenFolders, folders
from wasmeval.preopens.folders import MOST_OPEN
from wasmeval.wasm import errno
from wasmeval.wasm.mounts import AHEAD_BYTES, FileOperation, FileRequest, Flag
from wasmeval.wasm.nodes import UNKNOWN


@pytest.fixture
def host(tmp_path: Path) -> Path:
    """A folder `shared` to be mounted, beside what nobody may see."""
    shared = tmp_path / "shared"
    (shared / "sub" / "deep").mkdir(parents=True)
    (shared / "a.txt").write_bytes(b"hello")
    (shared / "sub" / "b.txt").write_bytes(b"world")
    (tmp_path / "secret.txt").write_bytes(b"SECRET")
    return shared


@pytest.fixture
def guest(host: Path) -> Iterator[GuestFiles]:
    """With the folder at /mnt/rw, to be written, and at /mnt/ro, to be read."""
    folders = {"rw": Folder(host, read_only=False, max_bytes=10_000, max_files=5), "ro": Folder(host)}
    with GuestFiles(folders=folders) as guest:
        yield guest


# --- reading and writing ---------------------------------------------------------------------------------------------


def test_what_is_there_is_read(guest: GuestFiles, host: Path) -> None:
    for mount in ("mnt/ro", "mnt/rw"):
        assert guest.get(f"{mount}/a.txt") == b"hello"
        assert guest.get(f"{mount}/sub/../sub/./b.txt") == b"world"
        assert guest.names(mount) == [b"a.txt", b"sub"]
        assert guest.stat(f"{mount}/a.txt")["size"] == 5
        assert guest.stat(f"{mount}/a.txt")["modified"] == (host / "a.txt").stat().st_mtime_ns
        assert guest.stat(mount)["kind"] == guest.stat(f"{mount}/")["kind"] == FOLDER
    assert guest.names("mnt") == [b"ro", b"rw"]
    assert guest.names("mnt/ro/..") == [b"ro", b"rw"]
    assert guest.names("mnt/ro/sub/../../rw/sub") == [b"b.txt", b"deep"]


def test_what_is_written_is_there(guest: GuestFiles, host: Path) -> None:
    guest.put("mnt/rw/new", b"contents")
    assert (host / "new").read_bytes() == b"contents"
    assert stat.S_IMODE((host / "new").stat().st_mode) & ~0o644 == 0
    fd = guest.open("mnt/rw/new", 0, READ | WRITE)
    assert guest.seek(fd, 0, 2) == 8
    assert guest.write(fd, b"!") == 1
    assert guest.write(fd, b"C", at=0) == 1
    assert guest.read(fd, at=0) == b"Contents!"
    guest.resize(fd, 4)
    guest.allocate(fd, 0, 6)
    assert (host / "new").read_bytes() == b"Cont\0\0"
    log = guest.open("mnt/rw/new", 0, WRITE, APPEND)
    guest.write(log, b"end")
    assert (host / "new").read_bytes() == b"Cont\0\0end"
    guest.call("fd_filestat_set_times", fd, 10**18, 2 * 10**18, 5)
    assert (host / "new").stat().st_mtime_ns == 2 * 10**18
    guest.call("path_filestat_set_times", 3, 1, *guest._path("mnt/rw/new"), 0, 3 * 10**18, 4)
    found = guest.stat("mnt/rw/new")
    assert (found["accessed"], found["modified"]) == (10**18, 3 * 10**18)


def test_names_are_made_moved_and_removed(guest: GuestFiles, host: Path) -> None:
    guest.mkdir("mnt/rw/made")
    assert guest.code("mkdir", "mnt/rw/made") == errno.EXIST
    guest.put("mnt/rw/made/x", b"x")
    assert guest.code("rmdir", "mnt/rw/made") == errno.NOTEMPTY
    guest.rename("mnt/rw/made/x", "mnt/rw/y")
    guest.rename("mnt/rw/y", "mnt/rw/a.txt")
    assert (host / "a.txt").read_bytes() == b"x"
    guest.rmdir("mnt/rw/made/")
    guest.unlink("mnt/rw/a.txt")
    assert sorted(os.listdir(host)) == ["sub"]
    assert guest.code("unlink", "mnt/rw/sub") == errno.ISDIR
    assert guest.code("unlink", "mnt/rw/sub/b.txt/") == errno.NOTDIR
    assert guest.code("rmdir", "mnt/rw/sub/b.txt") == errno.NOTDIR
    assert guest.code("rename", "mnt/rw/sub", "mnt/rw/sub/deep/x") == errno.INVAL
    assert guest.code("rename", "mnt/rw/sub/b.txt", "mnt/ro/x") == errno.XDEV
    assert guest.code("rename", "mnt/rw/sub/b.txt", "workspace/x") == errno.XDEV
    assert guest.code("rename", "workspace/x", "mnt/rw/x") == errno.NOENT
    for path in ("mnt/rw", "mnt/rw/.", "mnt/rw/sub/.."):
        assert guest.code("rmdir", path) in (errno.BUSY, errno.INVAL), path


@pytest.mark.parametrize(
    ("path", "how", "expected"),
    [
        ("none", 0, errno.NOENT),
        ("a.txt", CREAT | EXCL, errno.EXIST),
        ("a.txt", DIRECTORY, errno.NOTDIR),
        ("a.txt/", 0, errno.NOTDIR),
        ("a.txt/x", CREAT, errno.NOTDIR),
        ("sub", 0, errno.ISDIR),
        ("sub", TRUNC, errno.ISDIR),
        ("sub", DIRECTORY, errno.ISDIR),
        ("sub/new", CREAT, errno.SUCCESS),
        ("new/", CREAT, errno.ISDIR),
        ("none/new", CREAT, errno.NOENT),
        ("x" * 256, CREAT, errno.NAMETOOLONG),
        (b"\xff", CREAT, errno.ILSEQ),
        ("a\0b", CREAT, errno.INVAL),
    ],
)
def test_opening(guest: GuestFiles, path: str | bytes, how: int, expected: int) -> None:
    data = path.encode() if isinstance(path, str) else path
    assert guest.code("open", b"mnt/rw/" + data, how, READ | WRITE) == expected


def test_an_open_folder_is_a_place_to_start_from(guest: GuestFiles, host: Path) -> None:
    fd = guest.open("mnt/rw/sub", DIRECTORY)
    assert guest.read(guest.open("b.txt", fd=fd)) == b"world"
    guest.mkdir("new", fd=fd)
    assert (host / "sub" / "new").is_dir()
    for path in ("../a.txt", "deep/../../a.txt", "/a.txt"):
        assert guest.code("open", path, fd=fd) == errno.PERM, path
    entries = {name: kind for _, name, kind in guest.entries(fd)}
    assert entries == {b".": FOLDER, b"..": FOLDER, b"b.txt": FILE, b"deep": FOLDER, b"new": FOLDER}


def test_small_reads_do_not_ask_each_time(host: Path) -> None:
    content = os.urandom(AHEAD_BYTES * 2 + 100)
    (host / "big").write_bytes(content)
    with GuestFiles(folders={"ro": Folder(host)}) as guest:
        fd, parts = guest.open("mnt/ro/big"), []
        before = guest.asked
        while part := guest.read(fd, 1000):
            parts.append(part)
        assert b"".join(parts) == content
        assert guest.asked - before <= 5
        assert guest.read(fd, 10, at=AHEAD_BYTES) == content[AHEAD_BYTES : AHEAD_BYTES + 10]
        guest.close(fd)
        assert guest.wasi.workspace_bytes == 0


def test_what_was_read_ahead_is_not_read_after_a_write(guest: GuestFiles) -> None:
    fd = guest.open("mnt/rw/a.txt", 0, READ | WRITE)
    assert guest.read(fd, 2) == b"he"
    other = guest.open("mnt/rw/a.txt", 0, WRITE)
    guest.write(other, b"HELLO")
    assert guest.read(fd, 2) == b"LL"


# --- only this -------------------------------------------------------------------------------------------------------


def test_read_only_is_read_only(guest: GuestFiles, host: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in host.rglob("*")}
    fd = guest.open("mnt/ro/a.txt", 0, READ)
    times = (0, 0, 10)
    for method, arguments in [
        ("open", ("mnt/ro/a.txt", 0, READ | WRITE)),
        ("open", ("mnt/ro/a.txt", TRUNC, READ)),
        ("open", ("mnt/ro/new", CREAT, READ)),
        ("mkdir", ("mnt/ro/new",)),
        ("rmdir", ("mnt/ro/sub/deep",)),
        ("unlink", ("mnt/ro/a.txt",)),
        ("rename", ("mnt/ro/a.txt", "mnt/ro/b.txt")),
        ("symlink", ("a.txt", "mnt/ro/link")),
        ("call", ("fd_filestat_set_times", fd, *times)),
        ("call", ("path_filestat_set_times", 3, 1, *guest._path("mnt/ro/a.txt"), *times)),
    ]:
        if method == "call" and arguments[0] == "path_filestat_set_times":
            guest._path("mnt/ro/a.txt")
        assert guest.code(method, *arguments) == errno.ROFS, (method, arguments)
    assert guest.code("write", fd, b"x") == errno.BADF
    assert guest.code("resize", fd, 0) == errno.BADF
    assert {path: path.stat().st_mtime_ns for path in host.rglob("*")} == before


def test_no_link_is_made(guest: GuestFiles, host: Path) -> None:
    assert guest.code("symlink", "a.txt", "mnt/rw/link") == errno.PERM
    assert guest.code("link", "mnt/rw/a.txt", "mnt/rw/hard") == errno.NOTSUP
    assert guest.code("link", "mnt/rw/a.txt", "workspace/hard") == errno.NOTSUP
    assert sorted(os.listdir(host)) == ["a.txt", "sub"]


def test_links_are_followed_inside_and_never_out(guest: GuestFiles, host: Path) -> None:
    (host / "inside").symlink_to("sub/b.txt")
    (host / "sub" / "up").symlink_to("../a.txt")
    (host / "out").symlink_to("../secret.txt")
    (host / "absolute").symlink_to(host.parent / "secret.txt")
    (host / "outer").symlink_to("..")
    (host / "proc").symlink_to("/proc/self/fd/0")
    (host / "loop").symlink_to("loop")
    (host / "nowhere").symlink_to("../created.txt")
    assert guest.get("mnt/rw/inside") == b"world"
    assert guest.get("mnt/rw/sub/up") == b"hello"
    assert guest.readlink("mnt/rw/sub/up") == b"../a.txt"
    for name in ("out", "absolute", "outer/secret.txt", "outer", "proc", "nowhere"):
        for mount in ("mnt/rw", "mnt/ro"):
            path = f"{mount}/{name}"
            assert guest.code("open", path) == errno.PERM, path
            assert guest.code("stat", path) == errno.PERM, path
        assert guest.code("open", f"mnt/rw/{name}", CREAT | TRUNC, WRITE) == errno.PERM
        assert guest.code("mkdir", f"mnt/rw/{name}/x") in (errno.PERM, errno.NOTDIR), name
    for name in ("out", "absolute", "outer", "proc", "nowhere"):
        # Where it leads is nobody's business; that it is there, is.
        assert guest.stat(f"mnt/rw/{name}", follow=0)["kind"] == LINK
        assert guest.code("readlink", f"mnt/rw/{name}") == errno.PERM
    assert guest.code("open", "mnt/rw/loop") == errno.LOOP
    assert guest.code("open", "mnt/rw/inside", follow=0) == errno.LOOP
    guest.unlink("mnt/rw/out")
    assert (host.parent / "secret.txt").read_bytes() == b"SECRET"
    assert not (host.parent / "created.txt").exists()


def test_a_link_to_nothing_is_nothing(guest: GuestFiles, host: Path) -> None:
    (host / "dangling").symlink_to("new")
    assert guest.code("open", "mnt/rw/dangling", CREAT, WRITE) == errno.NOENT
    assert guest.code("open", "mnt/rw/dangling", CREAT | EXCL, WRITE, follow=0) == errno.EXIST
    assert guest.readlink("mnt/rw/dangling") == b"new"


def test_pipes_sockets_and_devices_are_seen_and_not_opened(guest: GuestFiles, host: Path) -> None:
    os.mkfifo(host / "pipe")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(host / "socket"))
        for name in ("pipe", "socket"):
            assert guest.stat(f"mnt/rw/{name}")["kind"] == UNKNOWN
            for how in (0, CREAT, TRUNC):
                assert guest.code("open", f"mnt/rw/{name}", how, READ | WRITE) == errno.ACCES
            assert guest.code(
                "call", "path_filestat_set_times", 3, 1, *guest._path(f"mnt/rw/{name}"), 0, 0, 2
            ) == (errno.ACCES)
    if os.getuid() == 0:
        os.mknod(host / "zero", stat.S_IFCHR | 0o666, os.makedev(1, 5))
        assert guest.code("open", "mnt/ro/zero") == errno.ACCES


def test_nothing_of_the_host_is_told(guest: GuestFiles, host: Path) -> None:
    found = guest.stat("mnt/rw/a.txt")
    real = (host / "a.txt").stat()
    assert found["number"] != real.st_ino
    assert found["device"] != real.st_dev
    assert found["links"] == 1
    with GuestFiles(folders={"rw": Folder(host)}) as other:
        assert other.stat("mnt/rw/a.txt")["number"] != found["number"]
    assert guest.stat("mnt/rw/a.txt")["number"] == found["number"]


# --- quotas ----------------------------------------------------------------------------------------------------------


def test_a_quota_counts_what_is_added(guest: GuestFiles, host: Path) -> None:
    (host / "old").write_bytes(b"x" * 50_000)
    fd = guest.open("mnt/rw/new", CREAT, READ | WRITE)
    assert guest.write(fd, b"x" * 9_000) == 9_000
    for method, arguments in [
        ("write", (fd, b"x" * 2000)),
        ("write", (fd, b"x", 2**40)),
        ("write", (fd, b"x", 2**62)),
        ("resize", (fd, 10_001)),
        ("resize", (fd, 2**62)),
        ("allocate", (fd, 0, 2**62)),
    ]:
        assert guest.code(method, *arguments) == errno.NOSPC, (method, arguments)
    assert (host / "new").stat().st_size == 9_000
    guest.resize(fd, 0)
    assert guest.write(fd, b"x" * 10_000, at=0) == 10_000
    # What others had is no room: neither cut, nor removed.
    old = guest.open("mnt/rw/old", 0, READ | WRITE)
    assert guest.write(old, b"y" * 50_000, at=0) == 50_000
    guest.resize(old, 0)
    assert guest.code("write", old, b"x", 0) == errno.NOSPC
    guest.unlink("mnt/rw/old")
    guest.close(old)
    assert guest.code("write", fd, b"x", 10_000) == errno.NOSPC


def test_a_removed_file_counts_until_it_is_closed(guest: GuestFiles) -> None:
    fd = guest.open("mnt/rw/new", CREAT, READ | WRITE)
    guest.write(fd, b"x" * 10_000)
    guest.unlink("mnt/rw/new")
    other = guest.open("mnt/rw/other", CREAT, READ | WRITE)
    assert guest.code("write", other, b"x") == errno.NOSPC
    guest.close(fd)
    assert guest.write(other, b"x" * 10_000) == 10_000
    guest.put("mnt/rw/third")
    guest.rename("mnt/rw/third", "mnt/rw/other")
    guest.close(other)
    guest.put("mnt/rw/fourth", b"x" * 10_000)


def test_files_and_folders_are_counted(guest: GuestFiles, host: Path) -> None:
    for name in "abc":
        guest.put(f"mnt/rw/{name}")
    guest.mkdir("mnt/rw/d")
    guest.mkdir("mnt/rw/e")
    assert guest.code("mkdir", "mnt/rw/f") == errno.NOSPC
    assert guest.code("open", "mnt/rw/f", CREAT, WRITE) == errno.NOSPC
    guest.unlink("mnt/rw/a.txt")
    assert guest.code("mkdir", "mnt/rw/f") == errno.NOSPC
    guest.rename("mnt/rw/a", "mnt/rw/b")
    guest.mkdir("mnt/rw/f")
    guest.rmdir("mnt/rw/f")
    guest.put("mnt/rw/g")
    assert guest.code("mkdir", "mnt/rw/f") == errno.NOSPC
    assert sorted(os.listdir(host)) == ["b", "c", "d", "e", "g", "sub"]


# --- the process -----------------------------------------------------------------------------------------------------


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_only_so_much_is_open_and_all_of_it_is_closed(host: Path) -> None:
    before = open_descriptors()
    with GuestFiles(folders={"ro": Folder(host)}) as guest:
        for _ in range(MOST_OPEN):
            guest.open("mnt/ro/a.txt")
        assert guest.code("open", "mnt/ro/a.txt") == errno.MFILE
        for fd in range(4, 4 + MOST_OPEN):
            guest.close(fd)
        for _ in range(MOST_OPEN):
            guest.open("mnt/ro/a.txt")
        assert open_descriptors() <= before + MOST_OPEN + 1
    assert open_descriptors() == before
    guest.folders.close()
    assert guest.code("stat", "mnt/ro/a.txt") == errno.BADF


def test_an_evaluation_asks_only_so_often(host: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folders, "MOST_OPERATIONS", 20)
    with GuestFiles(folders={"ro": Folder(host)}) as guest:
        fd = guest.open("mnt/ro/a.txt")
        for _ in range(17):
            assert guest.stat("mnt/ro/a.txt")["size"] == 5
        assert guest.code("stat", "mnt/ro/none") == errno.NOENT
        assert guest.code("stat", "mnt/ro/a.txt") == errno.SUCCESS
        for _ in range(2):
            assert guest.code("stat", "mnt/ro/a.txt") == errno.IO
            assert guest.code("read", fd) == errno.IO
        guest.put("workspace/a", b"x")
        assert guest.get("workspace/a") == b"x"
        guest.close(fd)
        assert guest.code("stat", "mnt/ro/a.txt") == errno.IO
        assert len(guest.folders._open) == 1
    with GuestFiles(folders={"ro": Folder(host)}) as another:
        assert another.get("mnt/ro/a.txt") == b"hello"


def test_failed_requests_leave_nothing_open(guest: GuestFiles, host: Path) -> None:
    (host / "out").symlink_to("..")
    guest.stat("mnt/rw")
    before = open_descriptors()
    for path in ("none", "out", "a.txt/x", "a.txt/", "out/x", "sub/none/x"):
        for method in ("open", "stat", "mkdir", "rmdir", "unlink", "readlink"):
            guest.code(method, f"mnt/rw/{path}")
        guest.code("rename", f"mnt/rw/{path}", "mnt/rw/none/none")
        guest.code("rename", "mnt/rw/a.txt", f"mnt/rw/{path}/x")
    assert open_descriptors() == before


def test_a_folder_that_is_not_there_is_a_set_up_error(tmp_path: Path) -> None:
    with pytest.raises(
        SetupError, match=r"folder 'data': .*/none cannot be opened: No such file or directory"
    ):
        OpenFolders({"data": Folder(tmp_path / "none")})


_PATHS = st.one_of(
    st.sampled_from(
        [
            b".",
            b"..",
            b"a.txt",
            b"../secret.txt",
            b"/etc/passwd",
            b"sub/../../secret.txt",
            b"out",
            b"",
            b"a\0b",
        ]
    ),
    st.binary(max_size=40),
)
_NUMBERS = st.one_of(st.integers(0, 5), st.sampled_from([2**31, 2**32 - 1, 2**63 - 1, 2**63, 2**64 - 1]))


@settings(max_examples=300, deadline=None)
@given(
    requests=st.lists(
        st.builds(
            FileRequest,
            operation=st.sampled_from(FileOperation),
            handle=st.integers(0, 8),
            path=_PATHS,
            flags=st.one_of(st.integers(0, 255), st.integers(0, 2**32 - 1)),
            first=_NUMBERS,
            second=_NUMBERS,
            data=_PATHS,
            other=st.integers(0, 8),
            closed=st.lists(st.integers(0, 9), max_size=3).map(tuple),
        ),
        max_size=15,
    )
)
def test_a_worker_that_was_taken_over_gets_errnos(
    requests: list[FileRequest], tmp_path_factory: pytest.TempPathFactory
) -> None:
    outer = tmp_path_factory.mktemp("outer")
    shared = outer / "shared"
    (shared / "sub").mkdir(parents=True)
    (shared / "a.txt").write_bytes(b"hello")
    (shared / "out").symlink_to("..")
    (outer / "secret.txt").write_bytes(b"SECRET")
    folders = OpenFolders({"ro": Folder(shared), "rw": Folder(shared, False, MIB, 10)})
    try:
        for request in requests:
            answer = folders.handle(request.encode())
            assert answer
            assert b"SECRET" not in answer
    finally:
        folders.close()
    assert sorted(os.listdir(outer)) == ["secret.txt", "shared"]
    assert (outer / "secret.txt").read_bytes() == b"SECRET"


@given(st.binary(max_size=200))
def test_bytes_that_are_no_request_are_invalid(frame: bytes) -> None:
    folders = OpenFolders({})
    assert folders.handle(frame)[0] in (errno.INVAL, errno.BADF)
    folders.close()


def test_lengths_that_lie_are_invalid(host: Path) -> None:
    folders = OpenFolders({"rw": Folder(host)})
    whole = FileRequest(FileOperation.PATH_STATUS, 1, b"a.txt", Flag.FOLLOW).encode()
    assert folders.handle(whole)[0] == errno.SUCCESS
    for end in range(len(whole)):
        assert folders.handle(whole[:end])[0] == errno.INVAL
    assert folders.handle(whole + bytes(MIB + 1))[0] == errno.INVAL
    folders.close()


def test_the_parent_does_not_believe_what_a_mount_says_of_itself(host: Path) -> None:
    with GuestFiles(folders={"ro": Folder(host)}, mounts=[Mount("ro", read_only=False)]) as guest:
        assert guest.code("mkdir", "mnt/ro/new") == errno.ROFS
        assert guest.code("open", "mnt/ro/new", CREAT, WRITE) == errno.ROFS
