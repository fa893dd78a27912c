"""DirectoryStore: who may write its folder, what lies in it, and what becomes of leftovers and foreign files."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import threading
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from wasmeval.errors import Conflict, NotFound, SetupError, StoreDamaged, StoreUnavailable
from wasmeval.stores import Record, drafts
from wasmeval.stores.directory import DirectoryStore


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "a" / "store"


@pytest.fixture
def store(folder: Path) -> Iterator[DirectoryStore]:
    with DirectoryStore(folder) as store:
        yield store


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def test_everything_is_made_for_its_owner_alone(folder: Path) -> None:
    before = os.umask(0)
    try:
        with DirectoryStore(folder) as store:
            store.create("a/b", b"1")
            store.put_blob("c", b"2")
    finally:
        os.umask(before)
    folders = {path.name: mode(path) for path in [folder, *folder.iterdir()] if path.is_dir()}
    assert folders == dict.fromkeys(("store", "records", "blobs", "new", "locks"), 0o700)
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert {mode(path) for path in files} == {0o600}
    assert {path.name for path in files} >= {"format", "a=b", "c"}


@pytest.mark.parametrize("where", [".", "records", "blobs", "new", "locks"])
@pytest.mark.parametrize("bits", [0o720, 0o702])
def test_a_folder_that_others_can_write_is_refused(folder: Path, where: str, bits: int) -> None:
    DirectoryStore(folder).close()
    (folder / where).chmod(bits)
    with pytest.raises(
        SetupError, match="belongs to another user or could be written by others; use another folder"
    ):
        DirectoryStore(folder)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_a_folder_of_somebody_else_is_refused(folder: Path) -> None:
    DirectoryStore(folder).close()
    os.chown(folder, 65534, 65534)
    with pytest.raises(SetupError, match="belongs to another user"):
        DirectoryStore(folder)


def test_a_link_is_refused(folder: Path, tmp_path: Path) -> None:
    DirectoryStore(folder).close()
    (tmp_path / "link").symlink_to(folder)
    with pytest.raises(SetupError, match=r"cannot keep a store in .*link"):
        DirectoryStore(tmp_path / "link")


def test_a_folder_with_something_else_in_it_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("chapter one")
    with pytest.raises(SetupError, match="holds something else than a store; name a folder of its own"):
        DirectoryStore(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_another_format_is_refused(folder: Path) -> None:
    DirectoryStore(folder).close()
    (folder / "format").write_text("wasmeval store 2\n")
    with pytest.raises(SetupError, match="of another format"):
        DirectoryStore(folder)


def test_a_path_through_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SetupError, match="cannot keep a store in"):
        DirectoryStore(tmp_path / "file" / "store")


def test_an_opening_that_was_cut_short_is_finished_by_the_next(folder: Path) -> None:
    (folder / "records").mkdir(parents=True, mode=0o700)
    folder.chmod(0o700)
    with DirectoryStore(folder) as store:
        store.create("a", b"1")
    assert (folder / "format").read_bytes() == b"wasmeval store 1\n"


def test_many_may_open_a_new_folder_at_once(folder: Path) -> None:
    failures: list[BaseException] = []

    def use(number: int) -> None:
        try:
            with DirectoryStore(folder) as store:
                store.create(f"k{number}", b"")
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=use, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not failures
    with DirectoryStore(folder) as store:
        assert len(list(store.keys())) == 8


# --- leftovers ---------------------------------------------------------------------------------------------------


def test_leftovers_of_dead_writers_are_cleared_and_those_of_live_ones_kept(
    store: DirectoryStore, folder: Path
) -> None:
    (folder / "new" / "0123").write_bytes(b"half of a")
    descriptor = os.open(folder / "new", os.O_RDONLY)
    try:
        with drafts.draft(descriptor, lambda fd: drafts.write(fd, b"whole")) as name:
            DirectoryStore(folder).close()
            assert [path.name for path in (folder / "new").iterdir()] == [name]
            assert (folder / "new" / name).read_bytes() == b"whole"
    finally:
        os.close(descriptor)
    assert list((folder / "new").iterdir()) == []


def test_a_writer_whose_draft_is_cleared_before_it_is_locked_makes_another(
    folder: Path, store: DirectoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, cleared = fcntl.flock, []

    def flock(fd: int, operation: int) -> None:
        # The instant between open and flock: another process opens the store.
        if operation == fcntl.LOCK_EX and not cleared:
            cleared.append(True)
            monkeypatch.setattr(drafts.fcntl, "flock", real)
            DirectoryStore(folder).close()
            assert list((folder / "new").iterdir()) == []
        real(fd, operation)

    monkeypatch.setattr(drafts.fcntl, "flock", flock)
    version = store.create("a", b"1")
    assert cleared
    assert store.get("a") == Record(b"1", version)


def test_what_no_writer_made_is_neither_cleared_nor_in_the_way(folder: Path) -> None:
    DirectoryStore(folder).close()
    (folder / "new" / "folder").mkdir()
    (folder / "new" / "link").symlink_to("/etc/passwd")
    os.mkfifo(folder / "new" / "pipe")
    with DirectoryStore(folder) as store:
        store.create("a", b"1")
    assert {path.name for path in (folder / "new").iterdir()} == {"folder", "link", "pipe"}


def test_a_conflict_leaves_no_draft(store: DirectoryStore, folder: Path) -> None:
    version = store.create("a", b"1")
    store.swap("a", b"2", version)
    for call in (lambda: store.create("a", b"3"), lambda: store.swap("a", b"3", version)):
        with pytest.raises(Conflict):
            call()
    assert list((folder / "new").iterdir()) == []


# --- damaged and foreign files -----------------------------------------------------------------------------------


def test_foreign_files_are_not_listed(store: DirectoryStore, folder: Path) -> None:
    store.create("a", b"1")
    for name in ("Foreign", "x~", "==", "=a", "a=..=b", "lost+found", "å"):
        (folder / "records" / name).touch()
    (folder / "records" / "sub").mkdir()
    (folder / "records" / "link").symlink_to("a")
    assert list(store.keys()) == ["a"]


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


def change_a_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def change_the_version(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[20] = ord("0") if data[20] != ord("0") else ord("1")
    path.write_bytes(data)


def become_a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def become_a_link(path: Path) -> None:
    path.unlink()
    path.symlink_to("/etc/passwd")


def become_a_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize(
    "damage",
    [
        truncate,
        change_a_byte,
        change_the_version,
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"somebody's notes"),
        lambda path: path.write_bytes(path.read_bytes() + b"x"),
        become_a_folder,
        become_a_link,
        become_a_pipe,
    ],
)
def test_what_is_damaged_is_said_and_not_returned(
    store: DirectoryStore, folder: Path, damage: Callable[[Path], object]
) -> None:
    version = store.create("a", b"record")
    store.put_blob("b", b"blob")
    store.create("c", b"whole")
    damage(folder / "records" / "a")
    damage(folder / "blobs" / "b")
    with pytest.raises(StoreDamaged, match="what lies under 'a' is damaged"):
        store.get("a")
    with pytest.raises(StoreDamaged):
        store.swap("a", b"new", version)
    with pytest.raises(StoreDamaged):
        store.remove("a", version)
    with pytest.raises(Conflict):
        store.create("a", b"new")
    with pytest.raises(StoreDamaged, match="what lies under 'b' is damaged"):
        store.get_blob("b")
    record = store.get("c")
    assert record is not None and record.data == b"whole"


def test_what_was_damaged_works_once_it_is_removed_by_hand(store: DirectoryStore, folder: Path) -> None:
    store.create("a", b"record")
    truncate(folder / "records" / "a")
    (folder / "records" / "a").unlink()
    assert store.get("a") is None
    store.create("a", b"again")


# --- failures ----------------------------------------------------------------------------------------------------


def test_a_full_disk_changes_nothing(
    store: DirectoryStore, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = store.create("a", b"1")

    def full(fd: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(drafts.os, "write", full)
        for call in (
            lambda: store.swap("a", b"2", version),
            lambda: store.create("b", b"2"),
            lambda: store.put_blob("c", b"2"),
        ):
            with pytest.raises(StoreUnavailable, match="No space left on device"):
                call()
    assert store.get("a") == Record(b"1", version)
    assert store.get("b") is None
    with pytest.raises(NotFound):
        store.get_blob("c")
    assert list((folder / "new").iterdir()) == []
    store.swap("a", b"2", version)


def test_a_folder_that_was_removed_is_not_an_empty_store(store: DirectoryStore, folder: Path) -> None:
    store.create("a", b"1")
    for path in sorted(folder.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    folder.rmdir()
    with pytest.raises(StoreUnavailable, match="was removed while it was open"):
        store.get("a")
    with pytest.raises(StoreUnavailable):
        store.create("b", b"")


def test_a_lock_that_is_never_given_back_is_waited_for_in_bounds(folder: Path) -> None:
    DirectoryStore(folder).close()
    passed = [0.0]

    def sleep(seconds: float) -> None:
        passed[0] += seconds

    with DirectoryStore(folder, lock_seconds=5, clock=lambda: passed[0], sleep=sleep) as store:
        version = store.create("a", b"1")
        with open(folder / "locks" / f"{zlib.crc32(b'a') % 64:02x}", "rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            with pytest.raises(StoreUnavailable, match="held the lock of 'a' for 5 s; nothing was changed"):
                store.swap("a", b"2", version)
        assert 5 <= passed[0] < 6
        assert store.get("a") == Record(b"1", version)
        store.swap("a", b"2", version)


def test_a_process_forked_in_the_middle_keeps_no_lock(store: DirectoryStore, folder: Path) -> None:
    # A fork copies descriptors as dup does: the copy outlives the call, and shares its lock.
    lock = str(folder / "locks" / f"{zlib.crc32(b'a') % 64:02x}")
    with store._locked("a"):
        copies = [os.dup(fd) for fd in open_descriptors() if os.readlink(f"/proc/self/fd/{fd}") == lock]
    try:
        assert copies
        store.remove("a", store.create("a", b"1"))
    finally:
        for copy in copies:
            os.close(copy)


def open_descriptors() -> list[int]:
    """Those of this process that are still open once they are listed."""
    return [int(name) for name in os.listdir("/proc/self/fd") if os.path.lexists(f"/proc/self/fd/{name}")]


# --- size --------------------------------------------------------------------------------------------------------


def test_twenty_thousand_keys_are_listed(store: DirectoryStore, folder: Path) -> None:
    for number in range(20_000):
        (folder / "records" / f"sessions={number:05}").touch()
    (folder / "records" / "other").touch()
    listed = list(store.keys("sessions/"))
    assert listed == [f"sessions/{number:05}" for number in range(20_000)]


def test_two_listings_at_once_take_nothing_from_each_other(store: DirectoryStore, folder: Path) -> None:
    for number in range(3000):
        (folder / "blobs" / f"b{number:04}").touch()
    found: list[int] = []
    threads = [threading.Thread(target=lambda: found.append(len(list(store.blobs())))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert found == [3000] * 6
