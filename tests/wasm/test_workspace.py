"""/workspace and /tmp: a file system in memory that means what POSIX means, within a quota that nothing gets around."""

from __future__ import annotations

import time
import zipfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

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
from wasmeval.limits import MIB
from wasmeval.wasm import errno, wasi
from wasmeval.wasm.library import Library
from wasmeval.wasm.nodes import MOST_DEPTH, NODE_BYTES


@pytest.fixture
def guest() -> GuestFiles:
    return GuestFiles()


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Library:
    archive = tmp_path_factory.mktemp("library") / "library.zip"
    with zipfile.ZipFile(archive, "w") as entries:
        entries.writestr("a.txt", b"hello")
    return Library(archive, "/usr/lib")


def used(guest: GuestFiles) -> tuple[int, int]:
    quota = guest.wasi._tree().quota
    return quota.bytes, quota.files


def collected(guest: GuestFiles, patterns: list[str]) -> list[tuple[str, bytes]]:
    found = filter(None, guest.wasi.collect(patterns))
    return [(path, file.read(0, file.size)) for path, file in found]


# --- files -----------------------------------------------------------------------------------------------------------


def test_what_is_written_is_read(guest: GuestFiles) -> None:
    fd = guest.open("workspace/a", CREAT | EXCL, READ | WRITE)
    assert guest.write(fd, b"hello ") == 6
    assert guest.write(fd, b"world") == 5
    assert guest.read(fd) == b""
    assert guest.seek(fd, 0) == 0
    assert guest.read(fd, 5) == b"hello"
    assert guest.seek(fd, -5, 2) == 6
    assert guest.write(fd, b"W") == 1
    assert guest.read(fd, at=0) == b"hello World"
    assert guest.seek(fd, 0, 1) == 7
    assert guest.stat(fd)["size"] == guest.stat("workspace/a")["size"] == 11
    assert guest.get("/workspace/a") == b"hello World"


def test_a_gap_reads_as_zeros(guest: GuestFiles) -> None:
    fd = guest.open("tmp/a", CREAT, READ | WRITE)
    guest.seek(fd, 1000)
    guest.write(fd, b"x")
    guest.write(fd, b"y", at=2000)
    assert guest.get("tmp/a") == bytes(1000) + b"x" + bytes(999) + b"y"
    guest.resize(fd, 1001)
    assert guest.get("tmp/a") == bytes(1000) + b"x"
    guest.resize(fd, 1003)
    assert guest.get("tmp/a") == bytes(1000) + b"x\0\0"
    guest.allocate(fd, 500, 10)
    assert guest.stat(fd)["size"] == 1003
    guest.allocate(fd, 1000, 10)
    assert guest.stat(fd)["size"] == 1010


def test_appending_goes_to_the_end_wherever_that_is(guest: GuestFiles) -> None:
    log = guest.open("workspace/log", CREAT, WRITE, APPEND)
    other = guest.open("workspace/log", 0, WRITE)
    guest.write(log, b"one")
    guest.write(other, b"THE FIRST")
    guest.write(log, b"two")
    assert guest.get("workspace/log") == b"THE FIRSTtwo"
    guest.call("fd_fdstat_set_flags", log, 0)
    guest.seek(log, 0)
    guest.write(log, b"the")
    assert guest.get("workspace/log") == b"the FIRSTtwo"


def test_a_descriptor_does_what_it_was_opened_for(guest: GuestFiles) -> None:
    guest.put("workspace/a", b"x")
    reader = guest.open("workspace/a", 0, READ)
    writer = guest.open("workspace/a", 0, WRITE)
    assert guest.code("write", reader, b"x") == errno.BADF
    assert guest.code("resize", reader, 5) == errno.BADF
    assert guest.code("allocate", reader, 0, 5) == errno.BADF
    assert guest.code("read", writer) == errno.BADF
    both = guest.open("workspace/a", 0, READ | WRITE)
    guest.call("fd_fdstat_set_rights", both, READ, 0)
    assert guest.code("write", both, b"x") == errno.BADF
    assert guest.code("call", "fd_fdstat_set_rights", both, READ | WRITE, 0) == errno.NOTCAPABLE


OPENS = [
    ("workspace/new", 0, errno.NOENT),
    ("workspace/new", CREAT, errno.SUCCESS),
    ("workspace/new/", CREAT, errno.ISDIR),
    ("workspace/new", CREAT | DIRECTORY, errno.INVAL),
    ("workspace/file", CREAT, errno.SUCCESS),
    ("workspace/file", CREAT | EXCL, errno.EXIST),
    ("workspace/file", DIRECTORY, errno.NOTDIR),
    ("workspace/file/", 0, errno.NOTDIR),
    ("workspace/file/x", CREAT, errno.NOTDIR),
    ("workspace/file/..", 0, errno.NOTDIR),
    ("workspace/folder", 0, errno.ISDIR),
    ("workspace/folder", CREAT, errno.ISDIR),
    ("workspace/folder", DIRECTORY, errno.ISDIR),
    ("workspace/folder", TRUNC, errno.ISDIR),
    ("workspace/none/new", CREAT, errno.NOENT),
    ("workspace/to-file", 0, errno.SUCCESS),
    ("workspace/to-file", CREAT | EXCL, errno.EXIST),
    ("workspace/to-none", 0, errno.NOENT),
    ("workspace/to-none", CREAT, errno.SUCCESS),
    ("workspace/to-none", CREAT | EXCL, errno.EXIST),
    ("workspace/to-folder/inside", CREAT, errno.SUCCESS),
    ("workspace/a\0b", CREAT, errno.INVAL),
    (b"workspace/\xff", CREAT, errno.ILSEQ),
    ("workspace/" + "x" * 255, CREAT, errno.SUCCESS),
    ("workspace/" + "x" * 256, CREAT, errno.NAMETOOLONG),
    ("workspace/" + "/" * 4100, 0, errno.NAMETOOLONG),
    ("new", CREAT, errno.ROFS),
    ("mnt/new", CREAT, errno.ROFS),
    ("", CREAT, errno.NOENT),
]


@pytest.mark.parametrize(("path", "how", "expected"), OPENS)
def test_opening(guest: GuestFiles, path: str | bytes, how: int, expected: int) -> None:
    guest.put("workspace/file", b"contents")
    guest.mkdir("workspace/folder")
    guest.symlink("file", "workspace/to-file")
    guest.symlink("none", "workspace/to-none")
    guest.symlink("folder", "workspace/to-folder")
    if expected == errno.EXIST and "none" in str(path):
        # EXCL looks at the link itself, as a libc asks for.
        assert guest.code("open", path, how, READ | WRITE, follow=0) == expected
    else:
        assert guest.code("open", path, how, READ | WRITE) == expected


def test_truncating_needs_no_more_than_opening(guest: GuestFiles) -> None:
    guest.put("workspace/a", b"contents")
    guest.close(guest.open("workspace/a", TRUNC, READ | WRITE))
    assert guest.stat("workspace/a")["size"] == 0


def test_a_file_lives_as_long_as_it_is_open(guest: GuestFiles) -> None:
    fd = guest.open("workspace/a", CREAT, READ | WRITE)
    guest.write(fd, b"x" * 1000)
    before = used(guest)
    guest.unlink("workspace/a")
    assert guest.code("stat", "workspace/a") == errno.NOENT
    assert guest.read(fd, at=0) == b"x" * 1000
    assert used(guest) == before
    guest.write(fd, b"y" * 1000)
    guest.close(fd)
    assert used(guest) == (0, 0)


# --- folders and names -----------------------------------------------------------------------------------------------


def test_folders_are_made_listed_and_removed(guest: GuestFiles) -> None:
    guest.mkdir("workspace/a")
    guest.mkdir("workspace/a/b/")
    guest.put("workspace/a/c")
    guest.symlink("c", "workspace/a/d")
    fd = guest.open("workspace/a", DIRECTORY)
    listed = {name: kind for _, name, kind in guest.entries(fd)}
    assert listed == {b".": FOLDER, b"..": FOLDER, b"b": FOLDER, b"c": FILE, b"d": LINK}
    assert guest.code("mkdir", "workspace/a") == errno.EXIST
    assert guest.code("mkdir", "workspace/a/d") == errno.EXIST
    assert guest.code("mkdir", "workspace/x/y") == errno.NOENT
    assert guest.code("rmdir", "workspace/a") == errno.NOTEMPTY
    assert guest.code("rmdir", "workspace/a/c") == errno.NOTDIR
    assert guest.code("rmdir", "workspace/a/d") == errno.NOTDIR
    assert guest.code("rmdir", "workspace/a/.") == errno.INVAL
    assert guest.code("unlink", "workspace/a/b") == errno.ISDIR
    assert guest.code("unlink", "workspace/a/c/") == errno.NOTDIR
    assert guest.code("unlink", "workspace/a/none") == errno.NOENT
    guest.rmdir("workspace/a/b/")
    guest.unlink("workspace/a/c")
    guest.unlink("workspace/a/d")
    guest.rmdir("workspace/a")
    # It is still open, and nothing can be put into it.
    assert [name for _, name, _ in guest.entries(fd)] == [b".", b".."]
    assert guest.code("open", "x", CREAT, WRITE, fd=fd) == errno.NOENT
    assert guest.code("mkdir", "x", fd=fd) == errno.NOENT
    guest.close(fd)
    assert used(guest) == (0, 0)


def test_a_listing_goes_on_where_it_was_while_entries_are_removed(guest: GuestFiles) -> None:
    names = [b"%03d" % number for number in range(200)]
    for name in names:
        guest.put(b"workspace/" + name)
    fd = guest.open("workspace", DIRECTORY)
    seen: list[bytes] = []
    cookie = 0
    while batch := guest.entries(fd, cookie, size=150):
        cookie = batch[-1][0]
        for _, name, _ in batch:
            if name not in (b".", b".."):
                seen.append(name)
                guest.unlink(b"workspace/" + name)
    assert seen == names
    assert guest.names("workspace") == []
    assert guest.entries(fd, 2**64 - 1) == []


def test_an_entry_that_does_not_fit_is_cut(guest: GuestFiles) -> None:
    guest.put("workspace/long-name")
    fd = guest.open("workspace", DIRECTORY)
    for size in range(100):
        guest.call("fd_readdir", fd, 65536, size, 0, 20480)
        assert int.from_bytes(guest.memory.read(20480, 4), "little") == min(size, 25 + 26 + 24 + 9)


RENAMES = [
    ("file", "new", errno.SUCCESS),
    ("file", "other", errno.SUCCESS),
    ("file", "file", errno.SUCCESS),
    ("file", "empty", errno.ISDIR),
    ("file", "new/", errno.NOTDIR),
    ("file/", "new", errno.NOTDIR),
    ("file", "none/new", errno.NOENT),
    ("none", "new", errno.NOENT),
    ("link", "new", errno.SUCCESS),
    ("file", "link", errno.SUCCESS),
    ("folder", "new", errno.SUCCESS),
    ("folder", "new/", errno.SUCCESS),
    ("folder", "empty", errno.SUCCESS),
    ("folder", "folder", errno.SUCCESS),
    ("folder", "file", errno.NOTDIR),
    ("empty", "folder", errno.NOTEMPTY),
    ("folder", "folder/sub/new", errno.INVAL),
    ("folder", "folder/new", errno.INVAL),
    ("folder", "folder/sub", errno.INVAL),
    ("folder/.", "new", errno.INVAL),
    ("folder", ".", errno.INVAL),
    ("folder", "../new", errno.XDEV),
    ("file", "../mnt/new", errno.XDEV),
    ("file", "../tmp/new", errno.SUCCESS),
    ("../usr/lib/a.txt", "new", errno.XDEV),
    ("../usr", "../new", errno.ROFS),
    ("../workspace", "../new", errno.ROFS),
    ("../tmp", "new", errno.XDEV),
]


@pytest.mark.parametrize(("old", "new", "expected"), RENAMES)
def test_renaming(library: Library, old: str, new: str, expected: int) -> None:
    guest = GuestFiles(library)
    guest.put("workspace/file", b"file")
    guest.put("workspace/other", b"other")
    guest.symlink("other", "workspace/link")
    guest.mkdir("workspace/empty")
    guest.mkdir("workspace/folder")
    guest.mkdir("workspace/folder/sub")
    before = guest.stat("workspace/" + old.rstrip("/"), follow=0) if old != "none" else {}
    assert guest.code("rename", "workspace/" + old, "workspace/" + new) == expected
    if expected == errno.SUCCESS and old != new:
        assert guest.code("stat", "workspace/" + old, follow=0) == errno.NOENT
        assert guest.stat("workspace/" + new, follow=0)["number"] == before["number"]
    assert guest.get("workspace/other") == (b"file" if (old, new) == ("file", "other") else b"other")


def test_a_folder_is_not_moved_into_itself_by_a_descriptor(guest: GuestFiles) -> None:
    guest.mkdir("workspace/a")
    guest.mkdir("workspace/a/b")
    inner = guest.open("workspace/a/b", DIRECTORY)
    assert guest.code("rename", "workspace/a", "c", new_fd=inner) == errno.INVAL
    assert guest.names("workspace/a") == [b"b"]


def test_folders_are_only_so_deep(guest: GuestFiles) -> None:
    path = "workspace"
    for _ in range(MOST_DEPTH):
        path += "/d"
        guest.mkdir(path)
    guest.put(path + "/file")
    assert guest.code("mkdir", path + "/d") == errno.NAMETOOLONG
    guest.mkdir("workspace/a")
    guest.mkdir("workspace/a/b")
    assert (
        guest.code("rename", "workspace/a", "workspace" + "/d" * (MOST_DEPTH - 1) + "/a") == errno.NAMETOOLONG
    )
    guest.rename("workspace/a", "workspace" + "/d" * (MOST_DEPTH - 2) + "/a")
    assert guest.code("mkdir", "workspace" + "/d" * (MOST_DEPTH - 2) + "/a/b/c") == errno.NAMETOOLONG
    guest.rename("workspace/d", "tmp/d")
    assert guest.code("mkdir", "tmp" + "/d" * MOST_DEPTH + "/d") == errno.NAMETOOLONG


def test_links_are_followed_by_us(guest: GuestFiles) -> None:
    guest.mkdir("workspace/folder")
    guest.put("workspace/folder/file", b"contents")
    guest.symlink("/workspace/folder", "workspace/absolute")
    guest.symlink("../workspace/./folder/", "workspace/relative")
    guest.symlink("absolute/file", "workspace/twice")
    guest.symlink("loop", "workspace/loop")
    guest.symlink("../../../../etc/passwd", "workspace/out")
    for path in ("absolute/file", "relative/file", "twice", "relative/../relative/file"):
        assert guest.get("workspace/" + path) == b"contents"
    assert guest.readlink("workspace/twice") == b"absolute/file"
    assert guest.readlink("workspace/twice", size=3) == b"abs"
    found = guest.stat("workspace/twice", follow=0)
    assert (found["kind"], found["size"]) == (LINK, 13)
    assert guest.code("get", "workspace/loop") == errno.LOOP
    assert guest.code("get", "workspace/out") == errno.NOENT
    assert guest.code("readlink", "workspace/folder") == errno.INVAL
    assert guest.code("readlink", "workspace/absolute/") == errno.INVAL
    assert guest.code("rmdir", "workspace/absolute/") == errno.NOTDIR
    assert guest.code("symlink", "x", "workspace/loop") == errno.EXIST
    assert guest.code("symlink", "", "workspace/new") == errno.NOENT
    assert guest.code("symlink", "x", "workspace/new/") == errno.NOENT
    assert guest.code("open", "workspace/twice", follow=0) == errno.LOOP
    guest.unlink("workspace/absolute")
    assert guest.get("workspace/folder/file") == b"contents"


def test_forty_links_are_followed_and_no_more(guest: GuestFiles) -> None:
    guest.put("workspace/0", b"end")
    for number in range(1, 42):
        guest.symlink(str(number - 1), f"workspace/{number}")
    assert guest.get("workspace/40") == b"end"
    assert guest.code("get", "workspace/41") == errno.LOOP


def test_a_folder_that_is_open_is_the_top_of_what_is_below_it(guest: GuestFiles) -> None:
    guest.mkdir("workspace/top")
    guest.put("workspace/secret", b"")
    guest.symlink("../secret", "workspace/top/up")
    guest.symlink("/workspace/secret", "workspace/top/absolute")
    guest.mkdir("workspace/top/sub")
    fd = guest.open("workspace/top", DIRECTORY)
    for path in ("../secret", "sub/../../secret", "/workspace/secret", "up", "absolute"):
        assert guest.code("open", path, fd=fd) == errno.PERM, path
    assert guest.code("open", "sub/../sub", DIRECTORY, fd=fd) == errno.SUCCESS


def test_there_are_no_hard_links(guest: GuestFiles) -> None:
    guest.put("workspace/a")
    assert guest.code("link", "workspace/a", "workspace/b") == errno.NOTSUP
    assert guest.code("link", "workspace/none", "workspace/b") == errno.NOENT


# --- descriptors and times -------------------------------------------------------------------------------------------


def test_renumbering_closes_what_was_there(guest: GuestFiles) -> None:
    guest.put("workspace/a", b"a")
    a, b = guest.open("workspace/a"), guest.open("workspace/b", CREAT, READ | WRITE)
    guest.unlink("workspace/b")
    assert used(guest)[1] == 2
    guest.call("fd_renumber", a, b)
    assert used(guest)[1] == 1
    assert guest.read(b) == b"a"
    assert guest.code("read", a) == errno.BADF
    assert guest.code("call", "fd_renumber", b, 99) == errno.BADF
    guest.call("fd_renumber", guest.open("workspace", DIRECTORY), 3)
    assert guest.stat("a")["size"] == 1
    assert guest.code("call", "fd_renumber", b, 1) == errno.BADF


def test_times_are_set_and_kept(guest: GuestFiles) -> None:
    before = time.time_ns()
    guest.put("workspace/a")
    made = guest.stat("workspace/a")
    assert before <= made["accessed"] <= made["modified"] <= made["changed"] <= time.time_ns()
    path = guest._path("workspace/a")
    guest.call("path_filestat_set_times", 3, 1, *path, 111, 222, 1 | 4)
    found = guest.stat("workspace/a")
    assert (found["accessed"], found["modified"]) == (111, 222)
    assert found["changed"] >= made["changed"]
    fd = guest.open("workspace/a", 0, WRITE)
    guest.call("fd_filestat_set_times", fd, 333, 444, 1)
    assert guest.stat(fd)["accessed"] == 333
    assert guest.stat(fd)["modified"] == 222
    guest.call("fd_filestat_set_times", fd, 0, 0, 2 | 8)
    assert guest.stat(fd)["accessed"] == guest.stat(fd)["modified"] >= before
    for flags in (3, 12, 16):
        assert guest.code("call", "fd_filestat_set_times", fd, 0, 0, flags) == errno.INVAL
    guest.call("path_filestat_set_times", 3, 1, *guest._path("workspace/a"), 111, 222, 1 | 4)
    guest.write(fd, b"x")
    assert guest.stat(fd)["modified"] >= before
    assert guest.code("call", "path_filestat_set_times", 3, 1, *guest._path("mnt"), 1, 2, 5) == errno.ROFS


# --- the quota -------------------------------------------------------------------------------------------------------


def test_what_is_full_is_full_and_the_rest_stays() -> None:
    guest = GuestFiles(max_bytes=10_000, max_files=5)
    fd = guest.open("workspace/a", CREAT, READ | WRITE)
    room = 10_000 - NODE_BYTES
    assert guest.write(fd, b"x" * room) == room
    for method, arguments in (
        ("write", (fd, b"x")),
        ("write", (fd, b"x" * 5000, 8000)),
        ("resize", (fd, room + 1)),
        ("resize", (fd, 2**62)),
        ("allocate", (fd, 0, 2**62)),
        ("allocate", (fd, room, 1)),
        ("write", (fd, b"x", 2**62)),
        ("mkdir", ("workspace/b",)),
        ("symlink", ("a", "workspace/c")),
        ("open", ("workspace/d", CREAT, WRITE)),
    ):
        assert guest.code(method, *arguments) == errno.NOSPC, method
    guest.seek(fd, 2**40)
    assert guest.code("write", fd, b"x") == errno.NOSPC
    assert guest.stat(fd)["size"] == room
    assert used(guest) == (10_000, 1)
    assert guest.write(fd, b"y" * 100, at=0) == 100
    guest.resize(fd, 0)
    assert used(guest) == (NODE_BYTES, 1)
    assert guest.write(fd, b"x" * room, at=0) == room


def test_nodes_are_counted_whatever_they_are() -> None:
    guest = GuestFiles(max_files=4)
    guest.put("workspace/file")
    guest.mkdir("tmp/folder")
    guest.symlink("x", "tmp/link")
    guest.put("workspace/last")
    for method, arguments in (
        ("open", ("workspace/new", CREAT, WRITE)),
        ("mkdir", ("tmp/new",)),
        ("symlink", ("x", "tmp/new")),
    ):
        assert guest.code(method, *arguments) == errno.NOSPC
    guest.rename("workspace/last", "workspace/file")
    guest.put("workspace/new")
    assert used(guest)[1] == 4


def test_a_renamed_over_file_that_is_open_still_counts() -> None:
    guest = GuestFiles(max_bytes=10_000)
    fd = guest.open("workspace/old", CREAT, READ | WRITE)
    guest.write(fd, b"x" * 5000)
    guest.put("workspace/new", b"y" * 3000)
    guest.rename("workspace/new", "workspace/old")
    assert used(guest) == (8000 + 2 * NODE_BYTES, 2)
    guest.close(fd)
    assert used(guest) == (3000 + NODE_BYTES, 1)


def test_without_a_quota_there_is_room_for_nothing(library: Library) -> None:
    from tests.guest_files import Memory

    guest = wasi.Wasi(Memory(), library)
    guest.memory.write(0, b"workspace/a")
    with pytest.raises(wasi.Errno) as caught:
        wasi.FUNCTIONS["path_open"][1](guest, 3, 0, 0, 11, CREAT, WRITE, 0, 0, 100)
    assert caught.value.code == errno.NOSPC


def test_held_memory_is_told() -> None:
    guest = GuestFiles(files={"a": b"x" * 1000})
    assert guest.wasi.workspace_bytes == 1000
    guest.put("workspace/b", b"y" * 2000)
    assert guest.wasi.workspace_bytes == 3000 + 2 * NODE_BYTES
    fd = guest.open("workspace", DIRECTORY)
    guest.entries(fd)
    assert guest.wasi.workspace_bytes > 3000 + 2 * NODE_BYTES
    guest.close(fd)
    assert guest.wasi.workspace_bytes == 3000 + 2 * NODE_BYTES


class Quota(RuleBasedStateMachine):
    """Whatever is done in whatever order: what is counted is what is there, and never more than the quota."""

    def __init__(self) -> None:
        super().__init__()
        self.guest = GuestFiles(max_bytes=20_000, max_files=12)
        self.fds: list[int] = []

    paths = st.sampled_from(
        [f"{top}/{a}{b}" for top in ("workspace", "tmp") for a in "ab" for b in ("", "/c", "/d")]
    )
    sizes = st.sampled_from([0, 1, 700, 5000, 30_000])

    @rule(path=paths, how=st.integers(0, 15))
    def open(self, path: str, how: int) -> None:
        try:
            self.fds.append(self.guest.open(path, how, READ | WRITE))
        except wasi.Errno:
            pass

    @rule(index=st.integers(0, 20), size=sizes, at=sizes)
    def write(self, index: int, size: int, at: int) -> None:
        if self.fds:
            self.guest.code("write", self.fds[index % len(self.fds)], b"x" * size, at)

    @rule(index=st.integers(0, 20), size=sizes)
    def resize(self, index: int, size: int) -> None:
        if self.fds:
            self.guest.code("resize", self.fds[index % len(self.fds)], size)

    @rule(index=st.integers(0, 20))
    def close(self, index: int) -> None:
        if self.fds:
            self.guest.close(self.fds.pop(index % len(self.fds)))

    @rule(method=st.sampled_from(["unlink", "rmdir", "mkdir"]), path=paths)
    def change(self, method: str, path: str) -> None:
        self.guest.code(method, path)

    @rule(method=st.sampled_from(["rename", "symlink"]), path=paths, new=paths)
    def change_two(self, method: str, path: str, new: str) -> None:
        self.guest.code(method, path, new)

    @invariant()
    def what_is_counted_is_what_is_there(self) -> None:
        tree = self.guest.wasi._tree()
        found: dict[int, int] = {}
        todo = [tree.root.names[b"workspace"], tree.root.names[b"tmp"]]
        while todo:
            for node in todo.pop().names.values():  # type: ignore[attr-defined]
                found[node.number] = node.size
                if node.kind == FOLDER:
                    todo.append(node)
        for descriptor in self.guest.wasi._descriptors.values():
            if descriptor.node.quota is not None and descriptor.node.number not in self.roots():
                found[descriptor.node.number] = descriptor.node.size
        assert (tree.quota.bytes, tree.quota.files) == (
            sum(found.values()) + NODE_BYTES * len(found),
            len(found),
        )
        assert tree.quota.bytes <= 20_000
        assert tree.quota.files <= 12

    def roots(self) -> set[int]:
        names = self.guest.wasi._tree().root.names
        return {names[b"workspace"].number, names[b"tmp"].number}


TestQuota = Quota.TestCase
TestQuota.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


# --- into and out of it ----------------------------------------------------------------------------------------------


def test_files_are_there_before_the_guest_is() -> None:
    given_bytes = b"x" * 1000
    guest = GuestFiles(max_bytes=3000, files={"in.csv": given_bytes, "data/deep/b.txt": b"b", "data/c": b""})
    assert guest.get("workspace/in.csv") == given_bytes
    assert guest.get("workspace/data/deep/b.txt") == b"b"
    assert guest.names("workspace/data") == [b"c", b"deep"]
    assert used(guest) == (1001 + 5 * NODE_BYTES, 5)
    # They may fill the quota, and more.
    assert guest.code("put", "workspace/new") == errno.NOSPC
    fd = guest.open("workspace/in.csv", 0, READ | WRITE)
    guest.write(fd, b"changed", at=3)
    assert guest.get("workspace/in.csv")[:12] == b"xxxchangedxx"
    assert given_bytes == b"x" * 1000


COLLECTED = [
    (["a.txt"], ["a.txt"]),
    (["*.txt"], ["a.txt"]),
    (["*"], [".hidden", "a.txt", "b.png"]),
    (["out/*.png"], ["out/1.png", "out/2.png"]),
    (["out/?.png", "out/[12].txt"], ["out/1.png", "out/1.txt", "out/2.png"]),
    (["**/*.txt"], ["a.txt", "out/1.txt", "out/deep/x.txt"]),
    (["out/**"], ["out/1.png", "out/1.txt", "out/2.png", "out/deep/x.txt"]),
    (["**/deep/*"], ["out/deep/x.txt"]),
    (["out/**/x.txt"], ["out/deep/x.txt"]),
    (["**/**"], [".hidden", "a.txt", "b.png", "out/1.png", "out/1.txt", "out/2.png", "out/deep/x.txt"]),
    (["none", "out", "a.txt/x", "link", "to-out/*", "../tmp/*", "/workspace/a.txt"], []),
    ([], []),
]


@pytest.mark.parametrize(("patterns", "expected"), COLLECTED)
def test_what_is_asked_for_comes_back(patterns: list[str], expected: list[str]) -> None:
    guest = GuestFiles()
    for folder in ("out", "out/deep", "out/empty"):
        guest.mkdir("workspace/" + folder)
    for name in ("b.png", "a.txt", ".hidden", "out/2.png", "out/1.png", "out/1.txt", "out/deep/x.txt"):
        guest.put("workspace/" + name, name.encode())
    guest.put("tmp/secret", b"")
    guest.symlink("a.txt", "workspace/link")
    guest.symlink("out", "workspace/to-out")
    assert collected(guest, patterns) == [(path, path.encode()) for path in expected]


def test_a_guest_that_touched_nothing_gives_back_what_it_was_given() -> None:
    guest = GuestFiles(files={"a": b"x"})
    assert collected(guest, ["*"]) == [("a", b"x")]


def test_a_hundred_megabytes_go_in_and_out(tmp_path: Path) -> None:
    guest = GuestFiles(max_bytes=256 * MIB)
    fd = guest.open("workspace/big", CREAT, READ | WRITE, APPEND)
    piece = b"0123456789abcdef" * (MIB // 16)
    for _ in range(100):
        assert guest.write(fd, piece) == MIB
    guest.rename("workspace/big", "workspace/out")
    ((path, content),) = collected(guest, ["out"])
    assert path == "out"
    assert content == piece * 100


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3000), st.binary(max_size=500)), max_size=10), st.integers(0, 4000))
def test_a_file_is_what_bytes_would_be(writes: list[tuple[int, bytes]], cut: int) -> None:
    guest, expected = GuestFiles(), bytearray()
    fd = guest.open("workspace/a", CREAT, READ | WRITE)
    for position, data in writes:
        guest.write(fd, data, at=position)
        if data:
            expected.extend(bytes(max(0, position - len(expected))))
            expected[position : position + len(data)] = data
    assert guest.get("workspace/a") == expected
    guest.resize(fd, cut)
    assert guest.get("workspace/a") == (expected + bytes(cut))[:cut]


# --- input -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def typed(guest: GuestFiles) -> GuestFiles:
    guest.wasi.stdin = wasi.Stdin()
    return guest


def ask_to_read(guest: GuestFiles, length: int) -> wasi.Ask | None:
    guest.memory.write(16384, (65536).to_bytes(4, "little") + length.to_bytes(4, "little"))
    ask: wasi.Ask | None = wasi.FUNCTIONS["fd_read"][1](guest.wasi, 0, 16384, 1, 20480)
    return ask


def got(guest: GuestFiles) -> bytes:
    return guest.memory.read(65536, int.from_bytes(guest.memory.read(20480, 4), "little"))


def test_without_input_it_is_at_its_end(guest: GuestFiles) -> None:
    assert guest.read(0) == b""
    assert guest.code("write", 0, b"x") == errno.BADF


def test_a_read_waits_for_input_and_then_for_its_end(typed: GuestFiles) -> None:
    assert typed.wasi.stdin
    ask = ask_to_read(typed, 100)
    assert ask is not None
    assert ask.request is None
    typed.wasi.stdin.feed(b"hello")
    ask.finish(b"")
    assert got(typed) == b"hello"
    typed.wasi.stdin.feed(b"world")
    assert ask_to_read(typed, 3) is None
    assert got(typed) == b"wor"
    typed.wasi.stdin.close()
    assert ask_to_read(typed, 100) is None
    assert got(typed) == b"ld"
    assert ask_to_read(typed, 100) is None
    assert got(typed) == b""
    assert typed.wasi.stdin.held_bytes == 0


def test_what_is_printed_is_told_as_it_is(guest: GuestFiles) -> None:
    told: list[tuple[int, bytes]] = []
    guest.wasi.on_output = lambda stream, data: told.append((stream, data))
    guest.write(1, b"out")
    guest.write(2, b"err")
    assert told == [(1, b"out"), (2, b"err")]
