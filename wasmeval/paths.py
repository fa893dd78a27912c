"""Paths: what names of files in a workspace may be, for callers and the service alike."""

from __future__ import annotations

from collections.abc import Iterable

from wasmeval.errors import InvalidArgument

MOST_PATH_BYTES = 4096
MOST_NAME_BYTES = 255
MOST_FOLDERS = 64
"""One below the other, below `/workspace`."""

_Names = dict[str, "_Names | None"]
"""What is in a folder; None is a file."""


def check_path(field: str, path: str) -> None:
    """Raises InvalidArgument unless `path` is relative and names a file below a folder, whatever is in it.

    Names are separated by single slashes, are not `.` or `..`, have at most 255 bytes and no NUL; a backslash is a
    character like others.
    """
    _check_names(field, path)
    names = path.split("/")
    if len(names) > MOST_FOLDERS + 1:
        raise InvalidArgument(
            field, f"{_short(path)} is in {len(names) - 1} folders, more than {MOST_FOLDERS}"
        )


def check_files(field: str, paths: Iterable[str], most_nodes: int | None = None) -> int:
    """How many files and folders `paths` make, at most `most_nodes`.

    Raises InvalidArgument unless each is a path that can be, and all of them can be at once: none is a file and a
    folder of another; and as soon as there are too many, so that a flood of paths costs little.
    """
    root: _Names = {}
    nodes = 0
    for path in paths:
        check_path(field, path)
        nodes += _add(field, root, path)
        if most_nodes is not None and nodes > most_nodes:
            raise InvalidArgument(
                field,
                f"at least {nodes} files and folders, more than limits.workspace_files ({most_nodes}); raise it",
            )
    return nodes


def check_pattern(field: str, pattern: str) -> None:
    """Raises InvalidArgument unless `pattern` is a relative path whose names may have `*`, `?`, `[...]` or be `**`,
    and no longer than a path can be."""
    _check_names(field, pattern)
    parts = pattern.count("/") + 1
    if parts > MOST_FOLDERS + 1:
        raise InvalidArgument(field, f"{_short(pattern)} has {parts} parts, more than {MOST_FOLDERS + 1}")


def _add(field: str, root: _Names, path: str) -> int:
    """Put the names of `path` below `root`. How many are new."""
    *folders, name = path.split("/")
    here, new = root, 0
    for depth, folder in enumerate(folders, 1):
        there = here.get(folder, here)
        if there is here:
            there = here[folder] = {}
            new += 1
        if there is None:
            raise _both(field, "/".join(folders[:depth]))
        here = there
    if here.get(name) is not None:
        raise _both(field, path)
    new += name not in here
    here[name] = None
    return new


def _both(field: str, path: str) -> InvalidArgument:
    return InvalidArgument(field, f"{_short(path)} is a file and also a folder of another file; rename one")


def _check_names(field: str, path: str) -> None:
    try:
        encoded = path.encode()
    except UnicodeEncodeError:
        raise InvalidArgument(field, f"{_short(path)} cannot be written as UTF-8") from None
    if len(encoded) > MOST_PATH_BYTES:
        raise InvalidArgument(field, f"a path of {len(encoded)} bytes, more than {MOST_PATH_BYTES}")
    if "\0" in path:
        raise InvalidArgument(field, f"{_short(path)} has a NUL in it")
    if path.startswith("/"):
        raise InvalidArgument(field, f"{_short(path)} must be relative; it is taken below /workspace")
    for name in encoded.split(b"/"):
        if name in (b"", b".", b".."):
            what = f"the name {name.decode()!r}" if name else "an empty name"
            raise InvalidArgument(field, f"{_short(path)} has {what} in it; write the path without")
        if len(name) > MOST_NAME_BYTES:
            raise InvalidArgument(
                field, f"{_short(path)} has a name of {len(name)} bytes, more than {MOST_NAME_BYTES}"
            )


def _short(path: str) -> str:
    return repr(path if len(path) <= 80 else path[:77] + "...")
