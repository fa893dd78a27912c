"""Answers: what deterministic evaluations gave, kept in the store where sessions sleep, to be given again.

An answer lies under the digest of all that it is a function of, sealed: whoever can write to the store cannot change
what a snippet is said to give. Answers are put into one folder for each period of time, and whole folders are
dropped.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import replace

from wasmeval.errors import NotFound, SnapshotRefused, StoreDamaged, StoreUnavailable
from wasmeval.model import Job, Result
from wasmeval.receipts import Notary
from wasmeval.sessions import Bound, Sealer
from wasmeval.stores import Store
from wasmeval.wire import MAX_REPLY_BYTES, decode_reply, encode_reply

logger = logging.getLogger(__name__)

SECONDS = 86_400.0
MOST_BYTES = 256 << 20
_PREFIX = "answers/"


class Answers:
    """Those in `store`. Each is found for `seconds` at least, and twice as long at most. In so long a time no more
    than `most_bytes` are stored by this object: beyond, answers are given, and not kept. Threads may share it; its
    methods take their time."""

    def __init__(
        self,
        store: Store,
        sealer: Sealer,
        notary: Notary,
        *,
        seconds: float = SECONDS,
        most_bytes: int = MOST_BYTES,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._sealer = sealer
        self._notary = notary
        self._seconds = seconds
        self._most_bytes = most_bytes
        self._clock = clock
        self._lock = threading.Lock()
        self._period = -1
        self._kept_bytes = 0

    def find(self, job: Job) -> Result | None:
        """The answer to `job`, if it is known. A store that fails, or holds what is no answer, knows none."""
        question = self._notary.question(job)
        for period in (self._now(), self._now() - 1):
            with contextlib.suppress(NotFound):
                try:
                    sealed = self._store.get_blob(_key(period, question))
                    answer = self._sealer.open(sealed, _bound(question), MAX_REPLY_BYTES)
                except (StoreUnavailable, StoreDamaged, SnapshotRefused) as error:
                    logger.warning("an answer cannot be looked up: %s", type(error).__name__)
                    return None
                return replace(decode_reply(answer), cached=True)
        return None

    def keep(self, job: Job, result: Result) -> None:
        """Store what `job` gave, if it has a receipt and there is room."""
        if result.receipt is None:
            return
        question = self._notary.question(job)
        data = self._sealer.seal(encode_reply(result), _bound(question))
        period = self._now()
        with self._lock:
            if period != self._period:
                self._period, self._kept_bytes = period, 0
            if self._kept_bytes + len(data) > self._most_bytes:
                return
            self._kept_bytes += len(data)
        try:
            self._store.put_blob(_key(period, question), data)
        except StoreUnavailable as error:
            logger.warning("an answer cannot be stored: %s", type(error).__name__)

    def sweep(self, most: int = 10_000) -> None:
        """Remove at most so many answers that are too old to be found. Raises StoreUnavailable."""
        now = self._now()
        for key in self._store.blobs(_PREFIX):
            period = key.removeprefix(_PREFIX).partition("/")[0]
            if not period.isdecimal() or int(period) < now - 1:
                self._store.remove_blob(key)
                most -= 1
                if not most:
                    return

    def _now(self) -> int:
        return int(self._clock() // self._seconds)


def _key(period: int, question: str) -> str:
    return f"{_PREFIX}{period}/{question}"


def _bound(question: str) -> Bound:
    return Bound(image="", tenant="", session="answer", name=question, step=0)
