"""Folders: one evaluation's mounted folders, and what it has open in them.

Requests come from a worker and are trusted in nothing: every handle, path and number is checked, every path is resolved
by the kernel below the folder it belongs to (beneath.py), and only regular files and folders are ever opened. Answers
have no path, owner, inode or device of the host in them.
"""

from __future__ import annotations

import errno
import os
import resource
import secrets
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from threading import BoundedSemaphore, Lock

from wasmeval.errors import SetupError
from wasmeval.grants import Folder
from wasmeval.preopens.beneath import looked_at, open_beneath, parent_of
from wasmeval.preopens.errors import code_of
from wasmeval.preopens.growth import Growth, Key
from wasmeval.wasm.errno import (
    ACCES,
    BADF,
    BUSY,
    EXIST,
    INVAL,
    IO,
    ISDIR,
    LOOP,
    MFILE,
    NOENT,
    NOTDIR,
    OVERFLOW,
    PERM,
    ROFS,
    SUCCESS,
    XDEV,
    Errno,
)
from wasmeval.wasm.mounts import (
    ENTRY,
    KEEP,
    MOST_IO_BYTES,
    OPENED,
    SIZE,
    STAT,
    WRITTEN,
    FileOperation,
    FileRequest,
    Flag,
    MalformedRequest,
)
from wasmeval.wasm.nodes import FILE, FOLDER, LINK, UNKNOWN

MOST_OPEN = 128
"""Files and folders that one evaluation may have open in all its mounted folders."""

MOST_OPERATIONS = 1 << 18
"""Requests of one evaluation: beyond, `EIO`. They are work of the trusted process that no fuel of the guest's shows."""

MOST_LISTING_BYTES = 4 << 20
"""A folder whose names, and 10 bytes for each, are more cannot be listed: `EOVERFLOW`."""

_room = BoundedSemaphore(max(MOST_OPEN, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 4))
"""Descriptors of this process that all evaluations together may hold: the others are for sockets and workers."""

_LARGEST = (1 << 63) - 1
_KINDS = {stat.S_IFREG: FILE, stat.S_IFDIR: FOLDER, stat.S_IFLNK: LINK}


@dataclass(frozen=True, slots=True)
class _Mount:
    is_read_only: bool
    growth: Growth

    def check_writable(self) -> None:
        if self.is_read_only:
            raise Errno(ROFS)


@dataclass(frozen=True, slots=True)
class _Open:
    fd: int
    mount: _Mount
    key: Key
    is_folder: bool
    is_writable: bool = False


class OpenFolders:
    """One evaluation's folders. Close it when the evaluation is over.

    Raises SetupError when a folder cannot be opened, or the kernel cannot keep a path inside one (before Linux 5.6).
    `handle` and `close` may be called from any thread; they take turns.
    """

    def __init__(self, folders: Mapping[str, Folder]) -> None:
        self._lock = Lock()
        self._open: dict[int, _Open] = {}
        self._secret = secrets.token_bytes(16)
        self._last = 0
        self._roots = len(folders)
        self._asked = 0
        try:
            for name, folder in folders.items():
                self._last += 1
                self._open[self._last] = _opened(name, folder)
        except BaseException:
            self.close()
            raise
        self._operations: dict[FileOperation, Callable[[FileRequest], bytes]] = {
            FileOperation.OPEN: self._open_path,
            FileOperation.READ: self._read,
            FileOperation.WRITE: self._write,
            FileOperation.STATUS: lambda request: self._stat(os.fstat(self._get(request.handle).fd)),
            FileOperation.RESIZE: self._resize,
            FileOperation.TIMES: self._set_times,
            FileOperation.LIST: self._list,
            FileOperation.PATH_STATUS: self._path_status,
            FileOperation.PATH_TIMES: self._set_path_times,
            FileOperation.MAKE_FOLDER: self._make_folder,
            FileOperation.REMOVE_FOLDER: self._remove,
            FileOperation.REMOVE_FILE: self._remove,
            FileOperation.RENAME: self._rename,
            FileOperation.READ_LINK: self._read_link,
        }

    def handle(self, request: bytes) -> bytes:
        """The answer to one request of a worker; see wasm/mounts.py. Blocks while the disk does; never raises."""
        with self._lock:
            try:
                decoded = FileRequest.decode(request)
                for handle in decoded.closed:
                    if handle > self._roots:
                        self._close(handle)
                self._asked += 1
                if self._asked > MOST_OPERATIONS:
                    raise Errno(IO)
                if any(b"\0" in path for path in (decoded.path, _new_path(decoded))):
                    raise Errno(INVAL)
                return bytes((SUCCESS,)) + self._operations[decoded.operation](decoded)
            except MalformedRequest:
                return bytes((INVAL,))
            except Errno as error:
                return bytes((error.code,))
            except OSError as error:
                return bytes((code_of(error),))

    def close(self) -> None:
        """Close everything that is open. Safe to call twice; requests after it find nothing."""
        with self._lock:
            for handle in list(self._open):
                self._close(handle)

    # --- files ---------------------------------------------------------------------------------------------------

    def _open_path(self, request: FileRequest) -> bytes:
        folder = self._folder(request)
        if len(self._open) - self._roots >= MOST_OPEN:
            raise Errno(MFILE)
        if not _room.acquire(blocking=False):
            raise Errno(MFILE)
        try:
            opened = self._find_or_make(folder, request)
        except BaseException:
            _room.release()
            raise
        self._last += 1
        self._open[self._last] = opened
        opened.mount.growth.opened(opened.key)
        return OPENED.pack(self._last) + self._stat(os.fstat(opened.fd))

    def _find_or_make(self, folder: _Open, request: FileRequest) -> _Open:
        try:
            with looked_at(folder.fd, request.path, bool(request.flags & Flag.FOLLOW)) as fd:
                return self._open_found(folder, request, os.fstat(fd))
        except FileNotFoundError:
            if not request.flags & Flag.CREATE:
                raise
            return self._create(folder, request)

    def _open_found(self, folder: _Open, request: FileRequest, found: os.stat_result) -> _Open:
        """Open what is there, as far as `request` may."""
        flags, is_folder = request.flags, stat.S_ISDIR(found.st_mode)
        if flags & Flag.CREATE and flags & Flag.EXCLUSIVE:
            raise Errno(EXIST)
        if stat.S_ISLNK(found.st_mode):
            raise Errno(LOOP)
        if is_folder and (flags & (Flag.TRUNCATE | Flag.CREATE) or flags & Flag.WRITE):
            raise Errno(ISDIR)
        if not is_folder and flags & Flag.FOLDER:
            raise Errno(NOTDIR)
        if not is_folder and not stat.S_ISREG(found.st_mode):
            raise Errno(ACCES)
        writes = bool(flags & (Flag.WRITE | Flag.TRUNCATE)) and not is_folder
        if writes:
            folder.mount.check_writable()
        how = os.O_DIRECTORY if is_folder else os.O_RDWR if writes else os.O_RDONLY
        nofollow = 0 if flags & Flag.FOLLOW else os.O_NOFOLLOW
        # Not blocking: should somebody put a pipe there meanwhile, it is seen below and closed again.
        fd = open_beneath(folder.fd, request.path, how | nofollow | os.O_NONBLOCK)
        try:
            now = os.fstat(fd)
            if stat.S_IFMT(now.st_mode) != stat.S_IFMT(found.st_mode):
                raise Errno(ACCES)
            if flags & Flag.TRUNCATE:
                os.ftruncate(fd, 0)
                folder.mount.growth.shrink(_key(now), now.st_size)
        except BaseException:
            os.close(fd)
            raise
        return _Open(fd, folder.mount, _key(now), is_folder, writes)

    def _create(self, folder: _Open, request: FileRequest) -> _Open:
        """A new file; where a link that leads to nothing has the name, there is none."""
        folder.mount.check_writable()
        if request.flags & Flag.FOLDER:
            raise Errno(INVAL)
        folder.mount.growth.check_file()
        how = os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_NOFOLLOW
        try:
            fd = open_beneath(folder.fd, request.path, how, 0o644)
        except FileExistsError:
            raise Errno(EXIST if request.flags & Flag.EXCLUSIVE else NOENT) from None
        key = _key(os.fstat(fd))
        folder.mount.growth.made(key)
        return _Open(fd, folder.mount, key, False, True)

    def _read(self, request: FileRequest) -> bytes:
        file = self._get(request.handle)
        if file.is_folder:
            raise Errno(ISDIR)
        data = os.pread(file.fd, min(request.second, MOST_IO_BYTES), _position(request.first))
        return SIZE.pack(os.fstat(file.fd).st_size) + data

    def _write(self, request: FileRequest) -> bytes:
        file = self._writable(request)
        size, data = os.fstat(file.fd).st_size, request.data
        start = size if request.flags & Flag.APPEND else _position(request.first)
        if not data:
            return WRITTEN.pack(0, start, size)
        grown = max(start + len(data) - size, 0)
        growth = file.mount.growth
        growth.grow(file.key, grown)
        written = 0
        try:
            written = os.pwrite(file.fd, data, start)
        finally:
            growth.shrink(file.key, grown - max(start + written - size if written else 0, 0))
        return WRITTEN.pack(written, start + written, max(size, start + written))

    def _resize(self, request: FileRequest) -> bytes:
        file = self._writable(request)
        old, new = os.fstat(file.fd).st_size, _position(request.first)
        if request.flags & Flag.GROW:
            new = max(old, new)
        growth = file.mount.growth
        growth.grow(file.key, max(new - old, 0))
        try:
            os.ftruncate(file.fd, new)
        except OSError:
            growth.shrink(file.key, max(new - old, 0))
            raise
        growth.shrink(file.key, max(old - new, 0))
        return SIZE.pack(new)

    def _set_times(self, request: FileRequest) -> bytes:
        file = self._get(request.handle)
        file.mount.check_writable()
        os.utime(file.fd, ns=_times(request, os.fstat(file.fd)))
        return b""

    # --- folders and names ---------------------------------------------------------------------------------------

    def _list(self, request: FileRequest) -> bytes:
        folder = self._get(request.handle)
        if not folder.is_folder:
            raise Errno(NOTDIR)
        device, parts = folder.key[0], bytearray()
        with os.scandir(folder.fd) as entries:
            for entry in entries:
                name = os.fsencode(entry.name)
                if not _is_utf8(name):
                    continue  # a guest could not name it either
                if len(parts) >= MOST_LISTING_BYTES:
                    raise Errno(OVERFLOW)
                kind = (
                    LINK
                    if entry.is_symlink()
                    else FOLDER
                    if entry.is_dir(follow_symlinks=False)
                    else FILE
                    if entry.is_file(follow_symlinks=False)
                    else UNKNOWN
                )
                parts += ENTRY.pack(self._number((device, entry.inode())), kind, len(name)) + name
        return bytes(parts)

    def _path_status(self, request: FileRequest) -> bytes:
        folder = self._folder(request)
        with looked_at(folder.fd, request.path, bool(request.flags & Flag.FOLLOW)) as fd:
            return self._stat(os.fstat(fd))

    def _set_path_times(self, request: FileRequest) -> bytes:
        folder = self._folder(request)
        folder.mount.check_writable()
        with looked_at(folder.fd, request.path, bool(request.flags & Flag.FOLLOW)) as fd:
            found = os.fstat(fd)
        if stat.S_ISLNK(found.st_mode):
            with parent_of(folder.fd, request.path) as (parent, name):
                os.utime(name, ns=_times(request, found), dir_fd=parent, follow_symlinks=False)
            return b""
        if not (stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode)):
            raise Errno(ACCES)
        fd = open_beneath(folder.fd, request.path, os.O_RDONLY | os.O_NONBLOCK)
        try:
            os.utime(fd, ns=_times(request, found))
        finally:
            os.close(fd)
        return b""

    def _make_folder(self, request: FileRequest) -> bytes:
        folder = self._folder(request)
        folder.mount.check_writable()
        with parent_of(folder.fd, request.path) as (parent, name):
            if name in (b"", b".", b".."):
                raise Errno(EXIST)
            folder.mount.growth.check_file()
            os.mkdir(name, 0o755, dir_fd=parent)
            folder.mount.growth.made(_key(os.stat(name, dir_fd=parent, follow_symlinks=False)))
        return b""

    def _remove(self, request: FileRequest) -> bytes:
        """An empty folder, or anything else, by its name."""
        folder = self._folder(request)
        folder.mount.check_writable()
        with parent_of(folder.fd, request.path) as (parent, name):
            _check_entry(name)
            with looked_at(parent, name) as fd:
                is_folder = stat.S_ISDIR(os.fstat(fd).st_mode)
                if request.operation is FileOperation.REMOVE_FOLDER:
                    os.rmdir(name, dir_fd=parent)
                elif is_folder:
                    raise Errno(ISDIR)
                elif request.path.endswith(b"/"):
                    raise Errno(NOTDIR)
                else:
                    os.unlink(name, dir_fd=parent)
                _note_gone(folder.mount, fd)
        return b""

    def _rename(self, request: FileRequest) -> bytes:
        folder, other = self._folder(request), self._get(request.other)
        if folder.mount is not other.mount:
            raise Errno(XDEV)
        if not other.is_folder:
            raise Errno(NOTDIR)
        folder.mount.check_writable()
        old_path, new_path = request.path, request.data
        _check_path(new_path)
        with parent_of(folder.fd, old_path) as (old, name), parent_of(other.fd, new_path) as (new, new_name):
            _check_entry(name)
            _check_entry(new_name)
            with looked_at(old, name) as fd:
                if not stat.S_ISDIR(os.fstat(fd).st_mode) and (old_path + new_path[-1:]).endswith(b"/"):
                    raise Errno(NOTDIR)
            try:
                with looked_at(new, new_name) as replaced:
                    os.rename(name, new_name, src_dir_fd=old, dst_dir_fd=new)
                    _note_gone(folder.mount, replaced)
            except FileNotFoundError:
                os.rename(name, new_name, src_dir_fd=old, dst_dir_fd=new)
        return b""

    def _read_link(self, request: FileRequest) -> bytes:
        """The text of a link that stays inside its folder; of another it would tell what is outside."""
        folder = self._folder(request)
        with looked_at(folder.fd, request.path) as fd:
            if not stat.S_ISLNK(os.fstat(fd).st_mode):
                raise Errno(INVAL)
            text = os.readlink(b"", dir_fd=fd)
        try:
            with looked_at(folder.fd, request.path, follow=True):
                pass
        except OSError as error:
            if error.errno != errno.ENOENT:
                raise
        return text

    # --- inside --------------------------------------------------------------------------------------------------

    def _get(self, handle: int) -> _Open:
        found = self._open.get(handle)
        if found is None:
            raise Errno(BADF)
        return found

    def _folder(self, request: FileRequest) -> _Open:
        """The folder that the request's path starts from."""
        found = self._get(request.handle)
        if not found.is_folder:
            raise Errno(NOTDIR)
        _check_path(request.path)
        return found

    def _writable(self, request: FileRequest) -> _Open:
        file = self._get(request.handle)
        file.mount.check_writable()
        if not file.is_writable:
            raise Errno(BADF)
        return file

    def _close(self, handle: int) -> None:
        found = self._open.pop(handle, None)
        if found is not None:
            os.close(found.fd)
            if handle > self._roots:
                _room.release()
            found.mount.growth.closed(found.key)

    def _stat(self, found: os.stat_result) -> bytes:
        kind = _KINDS.get(stat.S_IFMT(found.st_mode), UNKNOWN)
        times = (max(0, each) for each in (found.st_atime_ns, found.st_mtime_ns, found.st_ctime_ns))
        return STAT.pack(kind, self._number(_key(found)), found.st_size, *times)

    def _number(self, key: Key) -> int:
        """The guest's inode number for one of the host's: the same each time, and nothing can be learnt from it."""
        digest = blake2b(b"%d.%d" % key, key=self._secret, digest_size=8).digest()
        return int.from_bytes(digest, "little") or 1


def _opened(name: str, folder: Folder) -> _Open:
    """A mounted folder itself."""
    growth = Growth(folder.max_bytes, folder.max_files)
    try:
        outer = os.open(folder.path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fd = open_beneath(outer, b".", os.O_RDONLY | os.O_DIRECTORY)
        finally:
            os.close(outer)
    except OSError as error:
        if error.errno == errno.ENOSYS:
            raise SetupError(f"folder {name!r}: mounts need Linux 5.6 or newer (openat2)") from error
        raise SetupError(f"folder {name!r}: {folder.path} cannot be opened: {error.strerror}") from error
    return _Open(fd, _Mount(folder.read_only, growth), _key(os.fstat(fd)), True)


def _note_gone(mount: _Mount, fd: int) -> None:
    """What `fd` looks at has lost a name. Asked of the inode: another may have had the name by then."""
    now = os.fstat(fd)
    if now.st_nlink == 0:
        mount.growth.gone(_key(now))


def _new_path(request: FileRequest) -> bytes:
    return request.data if request.operation is FileOperation.RENAME else b""


def _check_path(path: bytes) -> None:
    if not path:
        raise Errno(NOENT)
    if path[:1] == b"/":
        raise Errno(PERM)


def _check_entry(name: bytes) -> None:
    if name in (b"", b"."):
        raise Errno(BUSY)
    if name == b"..":
        raise Errno(INVAL)


def _position(value: int) -> int:
    if value > _LARGEST:
        raise Errno(INVAL)
    return value


def _times(request: FileRequest, now: os.stat_result) -> tuple[int, int]:
    first, second = request.first, request.second
    return (
        now.st_atime_ns if first == KEEP else _position(first),
        now.st_mtime_ns if second == KEEP else _position(second),
    )


def _key(found: os.stat_result) -> Key:
    return found.st_dev, found.st_ino


def _is_utf8(name: bytes) -> bool:
    try:
        name.decode()
    except UnicodeDecodeError:
        return False
    return True
