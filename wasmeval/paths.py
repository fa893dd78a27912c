"""Paths: what names of files in a workspace may be, for callers and the service alike."""

from __future__ import annotations

from collections.abc import Iterable

from wasmeval.errors import InvalidArgument

MOST_PATH_BYTES = 4096
MOST_NAME_BYTES = 255
MOST_FOLDERS = 64
"""One below the other, below `/workspace`."""


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


def check_files(field: str, paths: Iterable[str]) -> None:
    """Raises InvalidArgument unless each is a path that can be, and all of them can be at once: none is a file and a
    folder of another."""
    files: set[str] = set()
    folders: set[str] = set()
    for path in paths:
        check_path(field, path)
        files.add(path)
        names = path.split("/")
        folders.update("/".join(names[:end]) for end in range(1, len(names)))
    both = min(files & folders, default=None)
    if both is not None:
        raise InvalidArgument(
            field, f"{_short(both)} is a file and also a folder of another file; rename one"
        )


def check_pattern(field: str, pattern: str) -> None:
    """Raises InvalidArgument unless `pattern` is a relative path whose names may have `*`, `?`, `[...]` or be `**`."""
    _check_names(field, pattern)


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
