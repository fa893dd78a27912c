"""Meter: what one evaluation's requests have spent, and the list of them for its Result."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from time import monotonic

from wasmeval.egress.failure import REFUSED, HttpFailure, limit
from wasmeval.grants import HttpPolicy, HttpUse

_SHOWN = 256
"""Characters of a path, a method or a reason that the Result tells."""

_FRAMING_BYTES = 64 * 1024


@dataclass(slots=True)
class Record:
    """One request while it is under way."""

    method: str
    host: str
    path: str
    began: float
    status: int = 0
    sent_bytes: int = 0
    received_bytes: int = 0
    ended: float | None = None
    refused: str = ""

    def use(self, now: float) -> HttpUse:
        ended = now if self.ended is None else self.ended
        return HttpUse(
            method=_cut(self.method),
            host=self.host,
            path=_cut(self.path),
            status=self.status,
            sent_bytes=self.sent_bytes,
            received_bytes=self.received_bytes,
            seconds=max(0.0, ended - self.began),
            allowed=not self.refused,
            refused=_cut(self.refused),
        )


def _cut(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


class Meter:
    """Counts what a policy bounds. Every method raises HttpFailure when its bound is passed.

    Received are headers and decoded bodies, what a guest can see. What comes over the wire is counted apart and may be
    an eighth more, so that a flood of framing does not go uncounted either.
    """

    def __init__(self, policy: HttpPolicy, clock: Callable[[], float] = monotonic) -> None:
        self.policy = policy
        self.records: list[Record] = []
        self._clock = clock
        self._sent = self._received = self._wire = 0
        self._most_wire = policy.response_bytes + policy.response_bytes // 8 + _FRAMING_BYTES

    def begin(self, method: str, host: str = "", path: str = "") -> Record:
        """One more request or hop; it counts whether or not it is then sent."""
        if len(self.records) >= self.policy.requests:
            raise limit(
                "http.requests",
                f"the evaluation may make {self.policy.requests} requests, redirects included",
            )
        record = Record(method, host, path, self._clock())
        self.records.append(record)
        return record

    @contextmanager
    def recorded(self, method: str) -> Iterator[Record]:
        """One request or hop, ended with the context; it says why when it is refused."""
        record = self.begin(method)
        try:
            yield record
        except HttpFailure as failure:
            if failure.kind == REFUSED:
                record.refused = failure.message
            raise
        finally:
            self.end(record)

    def end(self, record: Record) -> None:
        if record.ended is None:
            record.ended = self._clock()

    def send(self, record: Record, count: int) -> None:
        """`count` bytes are about to be sent."""
        if self._sent + count > self.policy.request_bytes:
            raise limit(
                "http.request_bytes",
                f"{count} more bytes would pass the {self.policy.request_bytes} that all requests together may have",
            )
        self._sent += count
        record.sent_bytes += count

    def receive(self, record: Record, count: int) -> None:
        """`count` bytes of headers or decoded body have come."""
        self._received += count
        if self._received > self.policy.response_bytes:
            raise self._too_much()
        record.received_bytes += count

    def receive_wire(self, count: int) -> None:
        """`count` bytes have come over a connection."""
        self._wire += count
        if self._wire > self._most_wire:
            raise self._too_much()

    def uses(self) -> list[HttpUse]:
        """All requests so far, in the order in which they began."""
        now = self._clock()
        return [record.use(now) for record in self.records]

    def _too_much(self) -> Exception:
        most = self.policy.response_bytes
        return limit("http.response_bytes", f"all responses together may have {most} bytes")
