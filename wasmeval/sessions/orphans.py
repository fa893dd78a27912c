"""Orphans: blobs that no record names: what a crash left between a blob and its record, or a removal that failed.

One that is not named may be just about to be, by a replica that is slow, or was stopped for hours. So before any of a
session's is removed its record is written, unchanged but for its token: a replica that put a blob and has not named
it knows an older version of the record, and can name it no more. Only then are those removed that had been seen, by
then, for long enough. There is no record to write when a session was closed, which is for good, or is being forked
to: a fork that is longer on its way than that loses what it has stored, not what it has in its worker.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Container
from dataclasses import replace

from wasmeval.errors import Conflict, StoreDamaged
from wasmeval.sessions.record import SNAPSHOTS, SessionRecord, decode, record_key
from wasmeval.stores import Store


class Orphans:
    """Those of one store, as far as this process has seen them. One sweep at a time."""

    def __init__(
        self,
        store: Store,
        *,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._clock = clock
        self._monotonic = monotonic
        self._seen: dict[str, float] = {}
        """When each was first found, and has been at each sweep since."""

    def sweep(self, age_seconds: float, held: Container[str] = ()) -> int:
        """Remove those that were found `age_seconds` ago, of sessions that nobody has had for as long, and not of those
        `held`; how many they were. Walks through the whole store: takes its time."""
        # Before any record is looked at: what is put later is nobody's orphan yet.
        blobs: dict[str, list[str]] = defaultdict(list)
        for key in self._store.blobs(SNAPSHOTS):
            blobs[key.removeprefix(SNAPSHOTS).partition("/")[0]].append(key)
        seen, self._seen = self._seen, {}
        removed = 0
        for session_id, keys in blobs.items():
            if session_id not in held:
                removed += self._sweep(session_id, keys, seen, age_seconds)
        return removed

    def _sweep(self, session_id: str, keys: list[str], seen: dict[str, float], age_seconds: float) -> int:
        try:
            found = self._store.get(record_key(session_id))
            record = decode(found.data) if found else None
        except StoreDamaged:
            return 0  # Of another version, it may be, and names them.
        named = {record.blob_key(name) for name in record.blobs_named} if record else set()
        now = self._monotonic()
        orphans = {key: seen.get(key, now) for key in keys if key not in named}
        self._seen |= orphans
        old = [key for key, since in orphans.items() if now - since >= age_seconds]
        if not old or (found and record and not self._fence(record, found.version, age_seconds)):
            return 0
        for key in old:
            self._store.remove_blob(key)
            del self._seen[key]
        return len(old)

    def _fence(self, record: SessionRecord, version: str, age_seconds: float) -> bool:
        """See to it that nobody can name a blob that was put by now; False when somebody has the session."""
        if record.lease > self._clock() - age_seconds:
            return False
        try:
            self._store.swap(record.key, replace(record, token=record.token + 1).encode(), version)
        except Conflict:
            return False
        return True
