"""Workspace: what one guest sees below `/`: its library, `/workspace` and `/tmp` in memory, and the host's folders.

/                  read-only
├── usr ...        the library, shared by all guests, read-only
├── workspace      the guest's own; where it starts
├── tmp            the guest's own, of the same quota
└── mnt            read-only
    └── NAME       a folder of the host's; see mounts.py
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from fnmatch import translate
from typing import Protocol

from wasmeval.wasm.errno import EXIST, INVAL, ISDIR, NAMETOOLONG, NOENT, NOTDIR, NOTEMPTY, XDEV, Errno
from wasmeval.wasm.library import Library
from wasmeval.wasm.lookup import MOST_PATH_BYTES, Place
from wasmeval.wasm.nodes import MOST_DEPTH, NODE_BYTES, File, Folder, Link, MountPoint, Node, Quota

_FIRST_OWN_NUMBER = 1 << 32
"""Higher than any inode of a library."""

_Parts = tuple[re.Pattern[str] | None, ...]
"""A glob pattern, name by name; None is `**`."""
_State = tuple[_Parts, int]


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

    __slots__ = ("_folder", "_last", "_mnt", "quota", "root")

    def __init__(self, library: Library) -> None:
        self._last = _FIRST_OWN_NUMBER
        self.quota = Quota()
        self._folder = Folder(self._number(), self.quota)
        self._mnt = Folder(self._number())
        self.root = Folder(1)
        own = {b"workspace": self._folder, b"tmp": Folder(self._number(), self.quota), b"mnt": self._mnt}
        self.root.names = library.root.names | own

    def put(self, files: Mapping[str, bytes]) -> None:
        """Files that are there before the guest starts. They count, but are never too many.

        Their paths are those that `paths.check_files` lets through; another would be left out.
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
            if isinstance(folder, Folder) and name not in folder.names:
                self._put(folder, name, File(self._number(), self.quota, content))

    def mount(self, mounts: Sequence[Mounted]) -> None:
        """Hang the host's folders into `/mnt`. Their handles are their places in the sequence, from 1 on."""
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

    def collect(self, patterns: Iterable[str]) -> Iterator[tuple[str, memoryview]]:
        """The files of `/workspace` whose paths match one of the `patterns`, with their contents, sorted by path.

        `*`, `?` and `[...]` stand for characters of one name, hidden names too, `**` for any number of folders. Links
        are neither followed nor given. The contents must be let go before the guest goes on.
        """
        states = frozenset((_compiled(pattern), 0) for pattern in patterns)
        found = list(_matching(self._folder, b"", states))
        for path, file in sorted(found, key=lambda pair: pair[0]):
            yield path.decode(), memoryview(file.data)

    # --- inside --------------------------------------------------------------------------------------------------

    def _put(self, folder: Folder, name: bytes, node: Node) -> Node:
        self.quota.bytes += NODE_BYTES + node.size
        self.quota.files += 1
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


# --- glob patterns: a state is a pattern and how many of its parts are used up -------------------------------------


def _compiled(pattern: str) -> _Parts:
    return tuple(None if part == "**" else re.compile(translate(part)) for part in pattern.split("/"))


def _matching(folder: Folder, prefix: bytes, states: frozenset[_State]) -> Iterator[tuple[bytes, File]]:
    """Files below `folder`, with their paths behind `prefix`, that bring a state to its end."""
    states = _beyond_any_depth(states)
    for name, node in folder.names.items():
        path = prefix + name
        if len(path) > MOST_PATH_BYTES or isinstance(node, Link):
            continue
        after = frozenset(_after(states, name.decode()))
        if isinstance(node, Folder) and after:
            yield from _matching(node, path + b"/", after)
        elif isinstance(node, File) and any(
            at == len(parts) or (at == len(parts) - 1 and parts[at] is None) for parts, at in after
        ):
            yield path, node


def _after(states: frozenset[_State], name: str) -> Iterator[_State]:
    for parts, at in states:
        if at == len(parts):
            continue
        part = parts[at]
        if part is None:
            yield parts, at
        elif part.match(name):
            yield parts, at + 1


def _beyond_any_depth(states: frozenset[_State]) -> frozenset[_State]:
    """The states, and those where `**` stands for no folder at all."""
    found, todo = set(states), list(states)
    while todo:
        parts, at = todo.pop()
        if at < len(parts) and parts[at] is None and (parts, at + 1) not in found:
            found.add((parts, at + 1))
            todo.append((parts, at + 1))
    return frozenset(found)
