"""Store: small records changed by compare-and-swap, and large blobs written once.

Keys are checked here and nowhere else: every public method checks, then calls the implementation's own.
"""

from __future__ import annotations

import re
import secrets
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import ClassVar, Self

from wasmeval.errors import Conflict, InvalidArgument, NotFound, StoreDamaged, StoreUnavailable
from wasmeval.stores.frames import Piece

MOST_KEY_CHARACTERS = 200
MOST_RECORD_BYTES = 1 << 20
"""What a record may have; the state of a session is far below, and its snapshot is a blob."""

_KEY = re.compile(rf"[a-z0-9_./-]{{1,{MOST_KEY_CHARACTERS}}}")
# An ETag of S3, with its quotes, or what new_version gives.
_VERSION = re.compile(r'"[\w.:/+=-]{1,200}"|[\w.:/+=-]{1,200}', re.ASCII)
_PREFIX = re.compile(rf"[a-z0-9_./-]{{0,{MOST_KEY_CHARACTERS}}}")


@dataclass(frozen=True, slots=True)
class Record:
    """What a record holds, and `version`: text that no other writing of any record ever gets, not even of the same
    data. So a version that is still current means that nothing happened in between (no ABA)."""

    data: bytes
    version: str


class Store(ABC):
    """Records and blobs that outlive the process. Methods may be called from any thread; `close` after the others.

    A change is durable when its method has returned. What durable means is the store's: see docs/stores.md.

    A lost answer: when `create`, `swap` or `remove` raises StoreUnavailable, the change may have been made. No store
    repeats such a call by itself, for the repetition would then find its own first try, and report a Conflict that
    there was not. The caller asks `get`. Versions are lost with the answer, so a record's data should tell who
    wrote it (an owner, a fencing token), or the caller cannot tell its own writing from another's. Once `get` has
    answered, a write that is still on its way can arrive after it (a slow network, a paused process): it changes
    something only while the version it names is current, so the caller swaps from what `get` said, which makes the
    straggler a Conflict, rather than taking an old record for proof that nothing will come. A straggling `create`
    finds its place only where no record is, also after a removal; so the key of a session is best never used again.

    Records and blobs have keys of their own: the same key may name one of each.
    """

    name: str
    """Which store this is, for messages and logs: never its credentials."""

    _is_closed = False

    most_blob_bytes: ClassVar[int] = (5 << 30) - 4096
    """The largest blob; beyond, InvalidArgument."""

    def get(self, key: str) -> Record | None:
        """The current record, or None. Raises StoreUnavailable, StoreDamaged."""
        return self._get(self._checked(key))

    def create(self, key: str, data: bytes) -> str:
        """Make the record, and return its version. Raises Conflict when there is one already, StoreUnavailable when
        it may have been made."""
        return self._create(self._checked(key), _checked_record(data))

    def swap(self, key: str, data: bytes, version: str) -> str:
        """Replace the record, and return its new version. Raises Conflict unless `version` is the current one,
        StoreUnavailable when it may have been replaced."""
        self._checked(key)
        return self._swap(key, _checked_record(data), self._possible(key, version))

    def remove(self, key: str, version: str) -> None:
        """Remove the record. Raises Conflict unless `version` is the current one, StoreUnavailable when it may have
        been removed."""
        self._remove(self._checked(key), self._possible(key, version))

    def keys(self, prefix: str = "") -> Iterator[str]:
        """The keys of records that begin with `prefix`, each once, fetched as they are asked for.

        What is made or removed meanwhile may or may not be among them; what was there all the time is. Sorted, but
        by S3Store, which gives them as its server does. Raises StoreUnavailable, in the middle too.
        """
        return self._keys(self._checked_prefix(prefix))

    def put_blob(self, key: str, data: Piece | Iterable[Piece]) -> None:
        """Keep `data`, whole or in pieces that follow each other; a reader finds the whole of it, or nothing. Pieces
        are asked for once.

        A key is for one content. Putting the same again is safe, and the way on after StoreUnavailable; another
        content would replace the first, whole.
        """
        pieces = (data,) if isinstance(data, bytes | bytearray | memoryview) else data
        self._put_blob(self._checked(key), self._bounded(pieces))

    def get_blob(self, key: str) -> bytes:
        """What was put. Raises NotFound when there is none, StoreDamaged, StoreUnavailable."""
        data = self._get_blob(self._checked(key))
        if data is None:
            raise NotFound(f"{self.name} has no blob {key!r}")
        return data

    def remove_blob(self, key: str) -> None:
        """Remove the blob; nothing happens when there is none. Safe to repeat."""
        self._remove_blob(self._checked(key))

    def blobs(self, prefix: str = "") -> Iterator[str]:
        """The keys of blobs that begin with `prefix`, as `keys` gives those of records."""
        return self._blobs(self._checked_prefix(prefix))

    def close(self) -> None:
        """Give back connections and descriptors. Safe to call twice, but not while another method runs; those called
        afterwards raise StoreUnavailable."""
        if not self._is_closed:
            self._is_closed = True
            self._close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @abstractmethod
    def _close(self) -> None: ...

    @abstractmethod
    def _get(self, key: str) -> Record | None: ...

    @abstractmethod
    def _create(self, key: str, data: bytes) -> str: ...

    @abstractmethod
    def _swap(self, key: str, data: bytes, version: str) -> str: ...

    @abstractmethod
    def _remove(self, key: str, version: str) -> None: ...

    @abstractmethod
    def _keys(self, prefix: str) -> Iterator[str]: ...

    @abstractmethod
    def _put_blob(self, key: str, data: Iterable[Piece]) -> None: ...

    @abstractmethod
    def _get_blob(self, key: str) -> bytes | None: ...

    @abstractmethod
    def _remove_blob(self, key: str) -> None: ...

    @abstractmethod
    def _blobs(self, prefix: str) -> Iterator[str]: ...

    def _bounded(self, pieces: Iterable[Piece]) -> Iterator[Piece]:
        size = 0
        for piece in pieces:
            size += len(piece)
            if size > self.most_blob_bytes:
                raise InvalidArgument("data", f"a blob of more than {self.most_blob_bytes} bytes")
            yield piece

    def _checked(self, key: str) -> str:
        check_key(key)
        self._check_open()
        return key

    def _checked_prefix(self, prefix: str) -> str:
        """`prefix`, when a key could begin so; it may end anywhere, also in a slash."""
        if not _PREFIX.fullmatch(prefix):
            raise InvalidArgument(
                "prefix",
                f"{prefix[:80]!r} is not at most {MOST_KEY_CHARACTERS} of a-z, 0-9, '_', '.', '/' and '-'",
            )
        self._check_open()
        return prefix

    def _check_open(self) -> None:
        if self._is_closed:
            raise StoreUnavailable(f"{self.name} is closed; open it again")

    def _possible(self, key: str, version: str) -> str:
        """`version`, when a store could have given it: others would mean `any` to S3, and `none` to Redis."""
        if not _VERSION.fullmatch(version):
            raise self._changed(key)
        return version

    def _exists(self, key: str) -> Conflict:
        return Conflict(f"{self.name} has a record {key!r} already; get it first")

    def _changed(self, key: str) -> Conflict:
        return Conflict(f"{self.name}: the record {key!r} was changed or removed by another; get it again")

    def _damaged(self, key: str, reason: object) -> StoreDamaged:
        return StoreDamaged(
            f"{self.name}: what lies under {key!r} is damaged ({reason}); restore or remove it"
        )


def new_version() -> str:
    """32 hexadecimal digits that nobody had before."""
    return secrets.token_hex(16)


def check_key(key: str) -> str:
    """`key`, when it can be one: 1 to 200 of `a-z 0-9 _ . / -`, no part between slashes empty, `.` or `..`.

    Raises InvalidArgument otherwise.
    """
    if not _KEY.fullmatch(key):
        raise InvalidArgument(
            "key", f"{key[:80]!r} is not 1 to {MOST_KEY_CHARACTERS} of a-z, 0-9, '_', '.', '/' and '-'"
        )
    if not is_key(key):
        raise InvalidArgument("key", f"{key!r} has an empty part, '.' or '..' in it")
    return key


def is_key(text: str) -> bool:
    """Whether `text` can be a key: what else lies in a store's place was not put there by a store."""
    return bool(_KEY.fullmatch(text)) and not any(part in ("", ".", "..") for part in text.split("/"))


def _checked_record(data: bytes) -> bytes:
    if len(data) > MOST_RECORD_BYTES:
        raise InvalidArgument(
            "data", f"a record of {len(data)} bytes, more than {MOST_RECORD_BYTES}; put a blob"
        )
    return data
