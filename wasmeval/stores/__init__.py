"""Stores: where records of sessions and their snapshots lie, in memory, in a folder, in Redis or in S3.

with open_store("dir:/var/lib/wasmeval") as store:
    version = store.create("sessions/1", b"{}")
"""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import unquote, urlsplit

from wasmeval.errors import InvalidArgument, SetupError
from wasmeval.stores.locations import options_of
from wasmeval.stores.store import Record, Store

__all__ = ["Record", "Store", "open_store"]


def open_store(url: str) -> Store:
    """The store at `url`: `memory:`, `dir:/PATH`, `redis://`, `rediss://`, `unix://`, `s3://`; see docs/stores.md.

    Raises InvalidArgument for a URL that is none, SetupError when a package is missing or the store is not as it must
    be, StoreUnavailable when it is not reachable. No message repeats the URL, for it may have a password in it.
    """
    try:
        parts = urlsplit(url)
    except ValueError:
        raise InvalidArgument("store", "not a URL") from None
    opener = _OPENERS.get(parts.scheme)
    if opener is None:
        raise InvalidArgument(
            "store", f"no store is named {parts.scheme[:40]!r}: write {', '.join(_OPENERS)}:..."
        )
    return opener(url)


def _open_memory(url: str) -> Store:
    from wasmeval.stores.memory import MemoryStore

    parts = urlsplit(url)
    options_of(parts, frozenset())
    if parts.netloc or parts.path:
        raise InvalidArgument("store", "memory: has no name or path")
    return MemoryStore()


def _open_directory(url: str) -> Store:
    from wasmeval.stores.directory import DirectoryStore

    parts = urlsplit(url)
    options_of(parts, frozenset())
    path = unquote(parts.path)
    if parts.netloc or not path.startswith("/") or "\0" in path:
        raise InvalidArgument("store", "write dir:/PATH, with an absolute path")
    return DirectoryStore(path)


def _open_redis(url: str) -> Store:
    try:
        from wasmeval.stores.redis import RedisStore
    except ImportError as error:
        raise _missing("redis", error) from error
    return RedisStore.open(url)


def _open_s3(url: str) -> Store:
    try:
        from wasmeval.stores.s3 import S3Store
    except ImportError as error:
        raise _missing("s3", error) from error
    return S3Store.open(url)


def _missing(extra: str, error: ImportError) -> SetupError:
    return SetupError(f"{error.name or extra} is not installed: pip install 'wasmeval[{extra}]'")


_OPENERS: dict[str, Callable[[str], Store]] = {
    "memory": _open_memory,
    "dir": _open_directory,
    "redis": _open_redis,
    "rediss": _open_redis,
    "unix": _open_redis,
    "s3": _open_s3,
}
