"""Workspace: what one guest sees below `/`: its library, `/workspace` and `/tmp` in memory, and the host's folders.

/                  read-only
├── usr ...        the library, shared by all guests, read-only
├── workspace      the guest's own; where it starts
├── tmp            the guest's own, of the same quota
└── mnt            read-only
    └── NAME       a folder of the host's; see mounts.py
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from time import time_ns
from typing import Protocol

from wasmeval.wasm.errno import EXIST, INVAL, ISDIR, NAMETOOLONG, NOENT, NOTDIR, NOTEMPTY, XDEV, Errno
from wasmeval.wasm.globs import Found, Globs
from wasmeval.wasm.library import Library
from wasmeval.wasm.lookup import Place
from wasmeval.wasm.nodes import MOST_DEPTH, NODE_BYTES, File, Folder, Link, MountPoint, Node, Quota

_FIRST_OWN_NUMBER = 1 << 32
"""Higher than any inode of a library."""


class Mounted(Protocol):
    """A folder of the host's; see grants.Mount."""

    @property
    def name(self) -> str:
        """It hangs at `/mnt/NAME`."""

    @property
    def read_only(self) -> bool:
        """Whether it cannot be written."""


class Workspace:
    """One guest's tree. Its writable part holds nothing, and takes nothing, until it gets a quota."""

    __slots__ = ("_folder", "_is_in_use", "_last", "_library", "_mnt", "_tmp", "quota", "root")

    def __init__(self, library: Library, now_ns: Callable[[], int] = time_ns) -> None:
        """`now_ns`: see Quota."""
        self._library = library
        self._is_in_use = False
        """Whether the guest has had it already: what is put into it from then on may be too much."""
        self._last = _FIRST_OWN_NUMBER
        self.quota = Quota()
        self.quota.now_ns = now_ns
        self._folder = Folder(self._number(), self.quota)
        self._mnt = Folder(self._number())
        self._tmp = Folder(self._number(), self.quota)
        self._root()

    def _root(self) -> None:
        self.root = Folder(1)
        own = {b"workspace": self._folder, b"tmp": self._tmp, b"mnt": self._mnt}
        self.root.names = self._library.root.names | own

    @property
    def trees(self) -> tuple[Folder, Folder]:
        """Its writable trees: `/workspace` and `/tmp`."""
        return self._folder, self._tmp

    @property
    def mnt(self) -> Folder:
        """Where the host's folders hang."""
        return self._mnt

    @property
    def last_number(self) -> int:
        """The highest number that a node of it has, or had."""
        return self._last

    def twin(self, unlinked: Iterable[Node] = ()) -> tuple[Workspace, dict[Node, Node]]:
        """The same tree in nodes of its own, without what is mounted, and which node became which.

        `unlinked` are nodes that are in no folder any more, and yet open.
        """
        twins: dict[Node, Node] = {}
        twin = Workspace(self._library)
        quota, mine = twin.quota, self.quota
        quota.max_bytes, quota.max_files = mine.max_bytes, mine.max_files
        quota.bytes, quota.files, quota.changes = mine.bytes, mine.files, mine.changes
        twin._last = self._last
        twin._is_in_use = True
        todo: list[Node] = [*self.trees, *unlinked]
        for node in todo:
            if node in twins:
                continue
            twins[node] = node.twin(quota)
            if isinstance(node, Folder):
                todo += node.names.values()
        for node, other in twins.items():
            if isinstance(node, Folder) and isinstance(other, Folder):
                other.names = {name: twins[child] for name, child in node.names.items()}
        folder, tmp = (twins[node] for node in self.trees)
        assert isinstance(folder, Folder)
        assert isinstance(tmp, Folder)
        twin._folder, twin._tmp = folder, tmp
        twin._root()
        return twin, twins | {self.root: twin.root, self._mnt: twin._mnt}

    def restored(self, folder: Folder, tmp: Folder, last: int) -> None:
        """Let its writable trees be these; `last` is the highest number of a node in them."""
        self._folder, self._tmp, self._last = folder, tmp, max(last, self._last)
        self._is_in_use = True
        self._root()

    def put(self, files: Mapping[str, bytes]) -> None:
        """Files that are there before the guest starts, or a session's next step: over what was there. Raises
        Errno(NOSPC) when they are too many for what is left; of a fresh guest they never are.

        Their paths are those that `paths.check_files` lets through; another would be left out, as is one whose folder
        is a file.
        """
        for path, content in files.items():
            *folders, name = path.encode().split(b"/")
            folder: Node | None = self._folder
            for part in folders:
                assert isinstance(folder, Folder)
                folder = folder.names.get(part) or self._put(
                    folder, part, Folder(self._number(), self.quota, folder.depth + 1)
                )
                if not isinstance(folder, Folder):
                    break
            if isinstance(folder, Folder) and not isinstance(folder.names.get(name), Folder):
                if name in folder.names:
                    folder.remove(name)
                self._put(folder, name, File(self._number(), self.quota, content))
        self._is_in_use = True

    def mount(self, mounts: Sequence[Mounted]) -> None:
        """Hang the host's folders into `/mnt`, in place of others. Their handles are their places in the sequence, from
        1 on."""
        self._mnt.names.clear()
        for handle, mounted in enumerate(mounts, 1):
            self._mnt.names[mounted.name.encode()] = MountPoint(self._number(), handle, mounted.read_only)

    # --- changing it ---------------------------------------------------------------------------------------------

    def make_file(self, place: Place) -> File:
        """A new, empty file where `find` found nothing."""
        if place.slash:
            raise Errno(ISDIR)
        file = File(self._number(), place.folder.writable())
        place.folder.add(place.name, file)
        return file

    def make_folder(self, place: Place) -> None:
        """path_create_directory"""
        if place.node is not None:
            raise Errno(EXIST)
        folder = place.folder
        folder.add(place.name, Folder(self._number(), folder.writable(), folder.depth + 1))

    def make_link(self, place: Place, target: bytes) -> None:
        """path_symlink"""
        if place.node is not None:
            raise Errno(EXIST)
        if place.slash:
            raise Errno(NOENT)
        place.folder.add(place.name, Link(self._number(), place.folder.writable(), target))

    def remove_file(self, place: Place) -> None:
        """path_unlink_file"""
        if place.node is None:
            raise Errno(NOENT)
        if place.node.kind == Folder.kind:
            raise Errno(ISDIR)
        if place.slash:
            raise Errno(NOTDIR)
        place.folder.remove(place.name)

    def remove_folder(self, place: Place) -> None:
        """path_remove_directory"""
        node = place.node
        if node is None:
            raise Errno(NOENT)
        if node.kind != Folder.kind:
            raise Errno(NOTDIR)
        if not place.name:
            raise Errno(INVAL)
        place.folder.writable()
        if not isinstance(node, Folder) or node.names:
            raise Errno(NOTEMPTY)
        place.folder.remove(place.name)

    def rename(self, old: Place, new: Place) -> None:
        """path_rename, over what is there already if it is of the same kind and, of a folder, empty."""
        node, there = old.node, new.node
        if node is None:
            raise Errno(NOENT)
        if not old.name or (there is not None and not new.name):
            raise Errno(INVAL)
        if old.folder.quota is not new.folder.quota:
            raise Errno(XDEV)
        old.folder.writable()
        if isinstance(node, Folder):
            self._check_move(node, new)
        elif old.slash or new.slash:
            raise Errno(NOTDIR)
        elif isinstance(there, Folder):
            raise Errno(ISDIR)
        if there is node:
            return
        if not new.folder.is_linked:
            raise Errno(NOENT)
        if there is not None:
            new.folder.remove(new.name)
        new.folder.names[new.name] = node
        del old.folder.names[old.name]
        old.folder.touch()
        new.folder.touch()

    # --- what is in it -------------------------------------------------------------------------------------------

    def collect(self, patterns: Iterable[str]) -> Iterator[Found]:
        """The files of `/workspace` that match one of the `patterns`, bit by bit; see Globs. For when the guest has
        ended."""
        return Globs(patterns).files(self._folder)

    # --- inside --------------------------------------------------------------------------------------------------

    def _put(self, folder: Folder, name: bytes, node: Node) -> Node:
        if self._is_in_use:
            self.quota.take(NODE_BYTES + node.size, 1)
        else:
            self.quota.bytes += NODE_BYTES + node.size
            self.quota.files += 1
        self.quota.changes += 1
        folder.names[name] = node
        return node

    def _check_move(self, node: Folder, new: Place) -> None:
        """Whether the folder `node` may go to `new`: not over what is there, not into itself, not too deep. It then has
        its new depth."""
        there = new.node
        if there is node:
            return
        if there is not None and not isinstance(there, Folder):
            raise Errno(NOTDIR)
        below = list(_folders(node))
        if any(each is new.folder for each in below):
            raise Errno(INVAL)
        if there is not None and there.names:
            raise Errno(NOTEMPTY)
        down = new.folder.depth + 1 - node.depth
        if any(each.depth + down > MOST_DEPTH for each in below):
            raise Errno(NAMETOOLONG)
        for each in below:
            each.depth += down

    def _number(self) -> int:
        self._last += 1
        return self._last


def _folders(folder: Folder) -> Iterator[Folder]:
    """`folder` and all below it."""
    todo = [folder]
    while todo:
        each = todo.pop()
        yield each
        todo += [child for child in each.names.values() if isinstance(child, Folder)]
