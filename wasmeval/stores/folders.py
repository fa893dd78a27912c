"""Folders: a private folder that holds one store, and nothing else."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from wasmeval.errors import SetupError
from wasmeval.stores.drafts import draft, write

MARKER = "format"
FORMAT = b"wasmeval store 1\n"
ROOMS = ("records", "blobs", "new", "locks")

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class PrivateFolder:
    """The open folder at `path`, made with mode 0700 when it is not there, and its rooms `records`, `blobs`, `new` and
    `locks`, as descriptors.

    Raises SetupError when it is a link, belongs to somebody else, could be written by others, holds something that no
    store put there, or is of another format.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._open: list[int] = []
        try:
            with _explained(path):
                self.root = self._opened(_made(path), None)
                names = set(os.listdir(self.root))
                if MARKER not in names and names - set(ROOMS):
                    raise SetupError(f"{path} holds something else than a store; name a folder of its own")
                for room in ROOMS:
                    with contextlib.suppress(FileExistsError):
                        os.mkdir(room, 0o700, dir_fd=self.root)
                self.records, self.blobs, self.new, self.locks = (
                    self._opened(Path(room), self.root) for room in ROOMS
                )
                self._mark()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the descriptors. Calls that use them afterwards fail with EBADF."""
        self.root = self.records = self.blobs = self.new = self.locks = -1
        while self._open:
            os.close(self._open.pop())

    def _opened(self, path: Path, within: int | None) -> int:
        fd = os.open(path, _FOLDER, dir_fd=within)
        self._open.append(fd)
        status = os.fstat(fd)
        if status.st_uid != os.geteuid() or status.st_mode & 0o022:
            where = path if within is None else self.path / path
            # What lies there by now may be theirs, so closing the folder would not be enough.
            raise SetupError(
                f"{where} belongs to another user or could be written by others; use another folder"
            )
        return fd

    def _mark(self) -> None:
        """Write which format this is, unless it says so already. Two that do it at once write the same."""
        try:
            fd = os.open(MARKER, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=self.root)
        except FileNotFoundError:
            with draft(self.new, lambda fd: write(fd, FORMAT)) as name:
                os.rename(name, MARKER, src_dir_fd=self.new, dst_dir_fd=self.root)
            os.fsync(self.root)
            return
        try:
            found = os.read(fd, 80)
        finally:
            os.close(fd)
        if found != FORMAT:
            raise SetupError(
                f"{self.path} has a store of another format ({found!r}); use the version that made it"
            )


def _made(path: Path) -> Path:
    """`path`, a folder by now, whose name survives a crash of the machine."""
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    for folder in missing:
        fd = os.open(folder.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
    return path


@contextlib.contextmanager
def _explained(path: Path) -> Iterator[None]:
    """What the file system refuses, as a SetupError."""
    try:
        yield
    except (OSError, ValueError) as error:
        raise SetupError(f"cannot keep a store in {path}: {error}") from error
