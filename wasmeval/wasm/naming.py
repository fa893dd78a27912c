"""Naming: WASI's calls on paths. A path is followed here, by lookup.py, up to where a folder of the host's hangs; the
parent process follows the rest."""

from __future__ import annotations

from wasmeval.wasm.descriptors import (
    ALL_RIGHTS,
    FD_WRITE,
    FILE_RIGHTS,
    FOLDER_RIGHTS,
    PATH_FILESTAT_SET_SIZE,
    Descriptor,
    filestat,
    filestat_of,
)
from wasmeval.wasm.errno import (
    EXIST,
    INVAL,
    IO,
    ISDIR,
    LOOP,
    NAMETOOLONG,
    NOENT,
    NOTCAPABLE,
    NOTDIR,
    NOTSUP,
    PERM,
    ROFS,
    XDEV,
    Errno,
)
from wasmeval.wasm.files import FileCalls, chosen_times, nothing, set_times
from wasmeval.wasm.lookup import ENTRY, MOST_PATH_BYTES, HostPlace, Place, check_name
from wasmeval.wasm.mounts import OPENED, STAT, Ask, FileOperation, Flag, HostNode, checked, mount_device
from wasmeval.wasm.nodes import FOLDER, Link, Node

_FOLLOW = 1
_O_CREAT, _O_DIRECTORY, _O_EXCL, _O_TRUNC = 1, 2, 4, 8
_HOW = (
    (_O_CREAT, Flag.CREATE),
    (_O_DIRECTORY, Flag.FOLDER),
    (_O_EXCL, Flag.EXCLUSIVE),
    (_O_TRUNC, Flag.TRUNCATE),
)


class PathCalls(FileCalls):
    """path_open and the rest. Each answers None when it is done, or an Ask."""

    __slots__ = ()

    def path_open(
        self,
        fd: int,
        follow: int,
        path: int,
        length: int,
        how: int,
        rights: int,
        inheriting: int,
        flags: int,
        out: int,
    ) -> Ask | None:
        """Open what is there, or a new file."""
        place = self._locate(fd, path, length, follow & _FOLLOW)
        self._check_room()
        folder = self._descriptor(fd)
        if how & _O_TRUNC and not folder.rights & PATH_FILESTAT_SET_SIZE:
            raise Errno(NOTCAPABLE)
        rights &= folder.inheriting
        if isinstance(place, HostPlace):
            return self._open_host(place, follow, how, rights, inheriting, flags, out)
        node = place.node
        if node is None:
            if not how & _O_CREAT:
                raise Errno(NOENT)
            if how & _O_DIRECTORY:
                raise Errno(INVAL)
            node = self._tree().make_file(place)
        else:
            _check_open(node, how, rights)
            if how & _O_TRUNC:
                node.resize(0)  # type: ignore[attr-defined]  # a file: _check_open
        self._opened(node, rights, inheriting, flags, out)
        return None

    def path_filestat_get(self, fd: int, follow: int, path: int, length: int, out: int) -> Ask | None:
        """Size, kind and times of what is at a path."""
        place = self._locate(fd, path, length, follow & _FOLLOW)
        if isinstance(place, HostPlace):
            device = mount_device(place.mount)

            def finish(answer: bytes) -> None:
                self.memory.write(out, filestat_of(device, checked(STAT, answer)))

            flags = Flag.FOLLOW if follow & _FOLLOW else 0
            return self._ask(finish, FileOperation.PATH_STATUS, place.handle, place.path, flags)
        if place.node is None:
            raise Errno(NOENT)
        self.memory.write(out, filestat(place.node))
        return None

    def path_filestat_set_times(
        self, fd: int, follow: int, path: int, length: int, accessed: int, modified: int, which: int
    ) -> Ask | None:
        """Set the times of what is at a path."""
        first, second = chosen_times(self.world.now_ns(), accessed, modified, which)
        place = self._locate(fd, path, length, follow & _FOLLOW)
        if isinstance(place, HostPlace):
            flags = Flag.FOLLOW if follow & _FOLLOW else 0
            return self._ask(
                nothing, FileOperation.PATH_TIMES, place.handle, place.path, flags, first, second
            )
        if place.node is None:
            raise Errno(NOENT)
        set_times(place.node, first, second)
        return None

    def path_create_directory(self, fd: int, path: int, length: int) -> Ask | None:
        """A new folder."""
        place = self._locate(fd, path, length, ENTRY)
        if isinstance(place, HostPlace):
            return self._change_host(FileOperation.MAKE_FOLDER, place)
        self._tree().make_folder(place)
        return None

    def path_remove_directory(self, fd: int, path: int, length: int) -> Ask | None:
        """Remove an empty folder."""
        place = self._locate(fd, path, length, ENTRY)
        if isinstance(place, HostPlace):
            return self._change_host(FileOperation.REMOVE_FOLDER, place)
        self._tree().remove_folder(place)
        return None

    def path_unlink_file(self, fd: int, path: int, length: int) -> Ask | None:
        """Remove a file or a link."""
        place = self._locate(fd, path, length, ENTRY)
        if isinstance(place, HostPlace):
            return self._change_host(FileOperation.REMOVE_FILE, place)
        self._tree().remove_file(place)
        return None

    def path_rename(
        self, fd: int, path: int, length: int, new_fd: int, new_path: int, new_length: int
    ) -> Ask | None:
        """Give a file or folder another name, within its tree."""
        old = self._locate(fd, path, length, ENTRY)
        new = self._locate(new_fd, new_path, new_length, ENTRY)
        if isinstance(old, HostPlace) and isinstance(new, HostPlace) and old.mount is new.mount:
            return self._change_host(FileOperation.RENAME, old, new.path, new.handle)
        if isinstance(old, Place) and isinstance(new, Place):
            self._tree().rename(old, new)
            return None
        if isinstance(old, Place) and old.node is None:
            raise Errno(NOENT)
        raise Errno(XDEV)

    def path_symlink(self, target: int, target_length: int, fd: int, path: int, length: int) -> None:
        """A new link, whose text is what the guest likes. There are none to be made in folders of the host's."""
        if target_length > MOST_PATH_BYTES:
            raise Errno(NAMETOOLONG)
        text = self.memory.read(target, target_length)
        if not text:
            raise Errno(NOENT)
        if b"\0" in text:
            raise Errno(INVAL)
        for name in text.split(b"/"):
            check_name(name)
        place = self._locate(fd, path, length, ENTRY)
        if isinstance(place, HostPlace):
            raise Errno(ROFS if place.mount.is_read_only else PERM)
        self._tree().make_link(place, text)

    def path_link(
        self, fd: int, _follow: int, path: int, length: int, new_fd: int, new_path: int, new_length: int
    ) -> None:
        """There are no hard links."""
        old = self._locate(fd, path, length, ENTRY)
        self._locate(new_fd, new_path, new_length, ENTRY)
        if isinstance(old, Place) and old.node is None:
            raise Errno(NOENT)
        raise Errno(NOTSUP)

    def path_readlink(self, fd: int, path: int, length: int, out: int, size: int, used: int) -> Ask | None:
        """The text of a link, as much of it as there is room for."""
        place = self._locate(fd, path, length, ENTRY)
        if isinstance(place, HostPlace):

            def finish(answer: bytes) -> None:
                self._give_text(answer, out, size, used)

            return self._ask(finish, FileOperation.READ_LINK, place.handle, place.path)
        if place.node is None:
            raise Errno(NOENT)
        if not isinstance(place.node, Link) or place.slash:
            raise Errno(INVAL)
        self._give_text(place.node.target, out, size, used)
        return None

    # --- inside --------------------------------------------------------------------------------------------------

    def _give_text(self, text: bytes, out: int, size: int, used: int) -> None:
        self.memory.write(out, text[:size])
        self.memory.write(used, min(len(text), size).to_bytes(4, "little"))

    def _opened(self, node: Node, rights: int, inheriting: int, flags: int, out: int) -> None:
        rights &= FOLDER_RIGHTS if node.kind == FOLDER else FILE_RIGHTS
        descriptor = Descriptor(node, rights, inheriting & ALL_RIGHTS, flags)
        self.memory.write(out, self._open(descriptor).to_bytes(4, "little"))

    def _open_host(
        self, place: HostPlace, follow: int, how: int, rights: int, inheriting: int, flags: int, out: int
    ) -> Ask:
        asked: int = sum(flag for bit, flag in _HOW if how & bit)
        if follow & _FOLLOW:
            asked |= Flag.FOLLOW
        if rights & FD_WRITE:
            asked |= Flag.WRITE
        if how & _O_TRUNC:
            self._generation += 1

        def finish(answer: bytes) -> None:
            (handle,) = checked(OPENED, answer)
            if not handle:
                raise Errno(IO)
            stat = checked(STAT, answer[OPENED.size :])
            node = HostNode(place.mount, handle, stat)
            try:
                self._check_room()
                self._opened(node, rights, inheriting, flags, out)
            except Errno:
                self._closed.append(handle)
                raise

        return self._ask(finish, FileOperation.OPEN, place.handle, place.path, asked)

    def _change_host(
        self, operation: FileOperation, place: HostPlace, data: bytes = b"", other: int = 0
    ) -> Ask:
        if place.mount.is_read_only:
            raise Errno(ROFS)
        return self._ask(nothing, operation, place.handle, place.path, data=data, other=other)


def _check_open(node: Node, how: int, rights: int) -> None:
    """Whether what is there may be opened so."""
    if how & _O_CREAT and how & _O_EXCL:
        raise Errno(EXIST)
    if isinstance(node, Link):
        raise Errno(LOOP)
    if node.kind == FOLDER:
        if rights & FD_WRITE or how & (_O_TRUNC | _O_CREAT):
            raise Errno(ISDIR)
        return
    if how & _O_DIRECTORY:
        raise Errno(NOTDIR)
    if how & _O_TRUNC or rights & FD_WRITE:
        node.writable()
