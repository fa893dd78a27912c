"""DirectoryStore: a private folder of one machine, shared by its processes.

    format            which format this is
    records/KEY       one file a record, `/` of the key written as `=`; see frames.py
    blobs/KEY         one file a blob
    new/              drafts, cleared at the next opening when their writers died
    locks/00 .. 3f    held while a record is compared and replaced; never removed

A file is written and synced as a draft, renamed over the old one, and then the folder is synced: at any instant a
reader, and whoever starts after a crash, finds the whole old or the whole new. Readers take no lock.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from wasmeval.errors import StoreUnavailable
from wasmeval.stores.drafts import clear, draft, write_frame
from wasmeval.stores.folders import PrivateFolder
from wasmeval.stores.frames import HEADER_BYTES, MalformedFrame, Piece, version_in
from wasmeval.stores.store import Record, Store, is_key, new_version

LOCK_SECONDS = 10.0
"""How long a change waits for another one of the same shard: a healthy one takes milliseconds, a stopped process
holds on for ever."""

_SHARDS = 64
_SHORTEST_PAUSE, _LONGEST_PAUSE = 0.0005, 0.02


class DirectoryStore(Store):
    """Survives kill -9 at any instant, and a crash of the machine as far as the disk keeps what it said it had.

    For a local file system: on a network one, locks and renames may promise less than this needs. Raises SetupError
    when the folder is not private or not a store's. A full or failing disk is StoreUnavailable, also a record whose
    lock another process has held for `lock_seconds`; `clock` and `sleep` measure that.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        lock_seconds: float = LOCK_SECONDS,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        path = Path(folder).absolute()
        self.name = f"dir:{path}"
        self._lock_seconds = lock_seconds
        self._clock = clock
        self._sleep = sleep
        self._folder = PrivateFolder(path)
        try:
            with self._explained():
                clear(self._folder.new)
        except BaseException:
            self.close()
            raise

    def _close(self) -> None:
        self._folder.close()

    # --- records -------------------------------------------------------------------------------------------------

    def _get(self, key: str) -> Record | None:
        with self._explained():
            found = self._read(self._folder.records, key)
        return found and Record(data=found[1], version=found[0])

    def _create(self, key: str, data: bytes) -> str:
        version = new_version()
        with self._explained():
            if self._is_there(key):
                raise self._exists(key)
            # Synced before the lock is taken, so that nobody waits for this disk but for a rename.
            with self._draft(version, [data]) as name, self._locked(key):
                if self._is_there(key):
                    raise self._exists(key)
                self._place(name, self._folder.records, key)
        return version

    def _swap(self, key: str, data: bytes, version: str) -> str:
        new = new_version()
        with self._explained():
            self._check(key, version)
            with self._draft(new, [data]) as name, self._locked(key):
                self._check(key, version)
                self._place(name, self._folder.records, key)
        return new

    def _remove(self, key: str, version: str) -> None:
        with self._explained(), self._locked(key):
            self._check(key, version)
            os.unlink(_file_of(key), dir_fd=self._folder.records)
            os.fsync(self._folder.records)

    def _keys(self, prefix: str) -> Iterator[str]:
        return self._listed(lambda: self._folder.records, prefix)

    def _check(self, key: str, version: str) -> None:
        """Raises Conflict unless `version` is the current one. A version never comes back, so what is wrong without
        the lock stays wrong."""
        found = self._read(self._folder.records, key)
        if found is None or found[0] != version:
            raise self._changed(key)

    def _is_there(self, key: str) -> bool:
        try:
            os.stat(_file_of(key), dir_fd=self._folder.records, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return True

    # --- blobs ---------------------------------------------------------------------------------------------------

    def _put_blob(self, key: str, data: Iterable[Piece]) -> None:
        with self._explained(), self._draft(new_version(), data) as name:
            self._place(name, self._folder.blobs, key)

    def _get_blob(self, key: str) -> bytes | None:
        with self._explained():
            found = self._read(self._folder.blobs, key)
        return found and found[1]

    def _remove_blob(self, key: str) -> None:
        # Not synced: what a power failure brings back no record names.
        with self._explained(), contextlib.suppress(FileNotFoundError):
            os.unlink(_file_of(key), dir_fd=self._folder.blobs)

    def _blobs(self, prefix: str) -> Iterator[str]:
        return self._listed(lambda: self._folder.blobs, prefix)

    # --- files ---------------------------------------------------------------------------------------------------

    def _read(self, folder: int, key: str) -> tuple[str, bytes] | None:
        """Version and data. Raises StoreDamaged when something else has the key's name."""
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            fd = os.open(_file_of(key), flags, dir_fd=folder)
        except FileNotFoundError:
            if not os.fstat(folder).st_nlink:
                raise StoreUnavailable(f"{self.name} was removed while it was open; put it back") from None
            return None
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.ENXIO):
                raise self._damaged(key, "not a regular file") from error
            raise
        with contextlib.ExitStack() as stack:
            stack.callback(os.close, fd)
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise self._damaged(key, "not a regular file")
            with open(fd, "rb", buffering=0, closefd=False) as file:
                header, data = file.read(HEADER_BYTES), file.readall()
        try:
            return version_in(header, data), data
        except MalformedFrame as error:
            raise self._damaged(key, error) from error

    def _draft(self, version: str, data: Iterable[Piece]) -> contextlib.AbstractContextManager[str]:
        return draft(self._folder.new, lambda fd: write_frame(fd, version, data))

    def _place(self, name: str, folder: int, key: str) -> None:
        """Make the draft `name` what `key` means, for good."""
        os.rename(name, _file_of(key), src_dir_fd=self._folder.new, dst_dir_fd=folder)
        os.fsync(folder)

    def _listed(self, folder: Callable[[], int], prefix: str) -> Iterator[str]:
        start = prefix.replace("/", "=")
        with self._explained():
            # Opened anew: listings through one descriptor would take names from each other.
            fd = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=folder())
            try:
                with os.scandir(fd) as entries:
                    names = [
                        entry.name
                        for entry in entries
                        if entry.name.startswith(start) and entry.is_file(follow_symlinks=False)
                    ]
            finally:
                os.close(fd)
        yield from sorted(filter(is_key, map(_key_of, names)))

    @contextlib.contextmanager
    def _locked(self, key: str) -> Iterator[None]:
        """Alone among all threads and processes that change this key, or another of its shard."""
        shard = f"{zlib.crc32(key.encode()) % _SHARDS:02x}"
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        # A descriptor for each call: flock keeps apart what was opened apart, threads of one process too.
        fd = os.open(shard, flags, 0o600, dir_fd=self._folder.locks)
        try:
            self._wait_for(fd, key)
            try:
                yield
            finally:
                # Closing is not enough: a process forked meanwhile has a copy of the descriptor, and the lock with it.
                fcntl.flock(fd, fcntl.LOCK_UN)
        finally:
            os.close(fd)

    def _wait_for(self, fd: int, key: str) -> None:
        deadline, pause = self._clock() + self._lock_seconds, _SHORTEST_PAUSE
        while True:
            try:
                return fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if self._clock() >= deadline:
                    raise StoreUnavailable(
                        f"{self.name}: another process has held the lock of {key!r} for {self._lock_seconds:g} s; "
                        f"nothing was changed"
                    ) from None
            self._sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        """What the file system refuses, as StoreUnavailable."""
        try:
            yield
        except OSError as error:
            raise StoreUnavailable(
                f"{self.name}: {error.strerror}; get the record again to know whether it was changed"
            ) from error


def _file_of(key: str) -> str:
    """The file name of `key`; `=` is in no key."""
    return key.replace("/", "=")


def _key_of(name: str) -> str:
    """What `_file_of` made `name` of."""
    return name.replace("=", "/")
