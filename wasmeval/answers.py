"""Answers: what deterministic evaluations gave, kept in the store where sessions sleep, to be given again.

An answer lies under the digest of all that it is a function of, sealed: whoever can write to the store cannot change
what a snippet is said to give. The key names the period of time, and those of old periods are removed.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import replace

from wasmeval.determinism import ANSWER_BYTES, ANSWER_SECONDS
from wasmeval.errors import NotFound, SnapshotRefused, StoreDamaged, StoreUnavailable
from wasmeval.model import Job, Result
from wasmeval.receipts import Notary
from wasmeval.sessions import Bound, Sealer
from wasmeval.stores import Store
from wasmeval.wire import MAX_REPLY_BYTES, decode_reply, encode_reply

logger = logging.getLogger(__name__)

_PREFIX = "answers/"
_LEAST_BYTES = 4096
"""What an answer counts at least: a file takes a block, and a name."""


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
        seconds: float = ANSWER_SECONDS,
        most_bytes: int = ANSWER_BYTES,
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
                return replace(decode_reply(b"".join(answer)), cached=True)
        return None

    def keep(self, job: Job, result: Result) -> None:
        """Store what `job` gave, if it has a receipt and there is room."""
        if result.receipt is None:
            return
        reply = encode_reply(result)
        if len(reply) > MAX_REPLY_BYTES:
            return
        question = self._notary.question(job)
        data = b"".join(self._sealer.seal([reply], _bound(question)))
        period, size = self._now(), max(len(data), _LEAST_BYTES)
        try:
            if self._begins(period):
                # Others may have stored some before this process began. Whoever comes meanwhile does not wait for it.
                found = self.sweep()
                with self._lock:
                    self._kept_bytes += _LEAST_BYTES * found
            if not self._count(size):
                return
            try:
                self._store.put_blob(_key(period, question), data)
            except BaseException:
                self._count(-size)
                raise
        except StoreUnavailable as error:
            logger.warning("an answer cannot be stored: %s", type(error).__name__)

    def _begins(self, period: int) -> bool:
        """Whether this is the first answer of a period."""
        with self._lock:
            if period == self._period:
                return False
            self._period, self._kept_bytes = period, 0
            return True

    def _count(self, size: int) -> bool:
        """Count `size` more bytes; False when there is no room for them."""
        with self._lock:
            if size > 0 and self._kept_bytes + size > self._most_bytes:
                return False
            self._kept_bytes += size
            return True

    def sweep(self) -> int:
        """Remove the answers that are too old to be found; how many there are of this time. Raises StoreUnavailable."""
        now, current = self._now(), 0
        for key in list(self._store.blobs(_PREFIX)):
            period = key.removeprefix(_PREFIX).partition("/")[0]
            if not period.isdecimal() or int(period) < now - 1:
                self._store.remove_blob(key)
            else:
                current += int(period) == now
        return current

    def _now(self) -> int:
        return int(self._clock() // self._seconds)


def _key(period: int, question: str) -> str:
    return f"{_PREFIX}{period}/{question}"


def _bound(question: str) -> Bound:
    return Bound(image="", tenant="", session="answer", name=question, step=0)
