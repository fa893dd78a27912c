"""Lookup: from a path to the node it names. The one place where names of a guest's are followed.

A look-up never leaves the folder it starts from, unless that is the root, where `..` leads nowhere else. It follows
links by itself, so no link that a guest makes is ever one of the host's; and where a folder of the host's hangs it
stops, and gives what is left of the path to be looked up there.
"""

from __future__ import annotations

from typing import NamedTuple

from wasmeval.wasm.errno import ILSEQ, LOOP, NAMETOOLONG, NOENT, NOTDIR, PERM, Errno
from wasmeval.wasm.nodes import Folder, Link, MountPoint, Node

MOST_LINKS = 40
MOST_NAME_BYTES = 255
MOST_PATH_BYTES = 4096

ENTRY = -1
"""For `find`: what the last name itself is, even where a slash follows; for what makes, removes and renames."""


class Place(NamedTuple):
    """Where a path leads: `node` is `name` in `folder`. The node is None when there is none yet; the name is empty
    when the path ends in `.`, `..` or the start itself. `slash`: the path demands a folder."""

    folder: Folder
    name: bytes
    node: Node | None
    slash: bool


class HostPlace(NamedTuple):
    """What is left of a path from a folder of the host's on: `path` from `handle`, never empty."""

    mount: MountPoint
    handle: int
    path: bytes


def find(root: Folder, start: Folder, path: bytes, follow: int) -> Place | HostPlace:
    """Where `path` leads from `start`. `follow`: 1, a link at its end is followed; 0, it is not; or ENTRY.

    Raises Errno: NOENT and NOTDIR on the way, PERM where the path would leave `start`, LOOP after MOST_LINKS links,
    and ILSEQ or NAMETOOLONG for names that cannot be.
    """
    if path[:1] == b"/" and start is not root:
        raise Errno(PERM)
    pending = path.split(b"/")
    pending.reverse()
    trail, last, links = [start], b"", 0
    while pending:
        name = pending.pop()
        if not name or name == b".":
            last = last if not name else b""
            continue
        if name == b"..":
            last = b""
            if len(trail) > 1:
                trail.pop()
            elif start is not root:
                raise Errno(PERM)
            continue
        folder = trail[-1]
        node = folder.names.get(name)
        if type(node) is Folder:
            trail.append(node)
            last = name
            continue
        ends = not pending or not any(pending)
        if node is None:
            check_name(name)
            if not ends:
                raise Errno(NOENT)
            return Place(folder, name, None, bool(pending))
        if isinstance(node, Link):
            if ends and (follow == ENTRY or (not follow and not pending)):
                return Place(folder, name, node, bool(pending))
            links += 1
            if links > MOST_LINKS:
                raise Errno(LOOP)
            target = node.target
            if target[:1] == b"/":
                if start is not root:
                    raise Errno(PERM)
                trail = [root]
            pending += reversed(target.split(b"/"))
            continue
        if isinstance(node, MountPoint):
            inside = _inside(pending)
            if inside is not None:
                return HostPlace(node, node.handle, inside)
            last = b""
            continue
        if pending:
            raise Errno(NOTDIR)
        return Place(folder, name, node, False)
    if last and len(trail) > 1:
        return Place(trail[-2], last, trail[-1], path[-1:] == b"/")
    return Place(trail[-1], b"", trail[-1], path[-1:] == b"/")


def find_inside(mount: MountPoint, handle: int, path: bytes) -> HostPlace:
    """Where `path` leads from a folder of the host's that is open as `handle`. Raises Errno(PERM) where it is
    absolute; whether it stays inside is seen by who looks it up."""
    if path[:1] == b"/":
        raise Errno(PERM)
    return HostPlace(mount, handle, path)


def check_name(name: bytes) -> None:
    """Raises Errno for a name that no file can have: ILSEQ when it is not UTF-8, NAMETOOLONG."""
    if len(name) > MOST_NAME_BYTES:
        raise Errno(NAMETOOLONG)
    try:
        name.decode()
    except UnicodeDecodeError:
        raise Errno(ILSEQ) from None


def _inside(pending: list[bytes]) -> bytes | None:
    """The path in `pending`, which is reversed, as one from a mounted folder. None when it leads out of it by its names
    alone: those that do are taken off `pending`, `..` included."""
    depth = 0
    for at in range(len(pending) - 1, -1, -1):
        name = pending[at]
        if name == b"..":
            depth -= 1
            if depth < 0:
                del pending[at:]
                return None
        elif name and name != b".":
            depth += 1
    return b"/".join(reversed(pending)) or b"."
