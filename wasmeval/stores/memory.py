"""MemoryStore: records and blobs of this process, gone with it. For tests, and for one replica that forgets."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from threading import Lock

from wasmeval.stores.frames import Piece
from wasmeval.stores.store import Record, Store, new_version


class MemoryStore(Store):
    """Durable as long as the object: nothing is written anywhere, `close` forgets it all."""

    def __init__(self) -> None:
        self.name = "memory:"
        self._lock = Lock()
        self._records: dict[str, Record] = {}
        self._contents: dict[str, bytes] = {}

    def _close(self) -> None:
        with self._lock:
            self._records.clear()
            self._contents.clear()

    def _get(self, key: str) -> Record | None:
        return self._records.get(key)

    def _create(self, key: str, data: bytes) -> str:
        record = Record(bytes(data), new_version())
        with self._lock:
            if key in self._records:
                raise self._exists(key)
            self._records[key] = record
        return record.version

    def _swap(self, key: str, data: bytes, version: str) -> str:
        record = Record(bytes(data), new_version())
        with self._lock:
            self._check(key, version)
            self._records[key] = record
        return record.version

    def _remove(self, key: str, version: str) -> None:
        with self._lock:
            self._check(key, version)
            del self._records[key]

    def _check(self, key: str, version: str) -> None:
        found = self._records.get(key)
        if found is None or found.version != version:
            raise self._changed(key)

    def _keys(self, prefix: str) -> Iterator[str]:
        with self._lock:
            found = sorted(key for key in self._records if key.startswith(prefix))
        return iter(found)

    def _put_blob(self, key: str, data: Iterable[Piece]) -> None:
        content = b"".join(data)
        with self._lock:
            self._contents[key] = content

    def _get_blob(self, key: str) -> bytes | None:
        return self._contents.get(key)

    def _remove_blob(self, key: str) -> None:
        with self._lock:
            self._contents.pop(key, None)

    def _blobs(self, prefix: str) -> Iterator[str]:
        with self._lock:
            found = sorted(key for key in self._contents if key.startswith(prefix))
        return iter(found)
