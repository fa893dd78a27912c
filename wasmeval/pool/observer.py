"""Observer: what telemetry wants to know of a pool."""

from __future__ import annotations

from typing import Protocol


class Observer(Protocol):
    """What telemetry wants to know of a pool."""

    def queue_wait(self, runtime: str, seconds: float) -> None:
        """An evaluation went to a worker after waiting this long."""

    def worker_restarted(self, reason: str) -> None:
        """A worker was replaced; `reason` is `died`, `hung`, `malformed_frame` or `start_failed`."""


class Silent:
    """An observer that does not look."""

    def queue_wait(self, runtime: str, seconds: float) -> None:
        """Nothing."""

    def worker_restarted(self, reason: str) -> None:
        """Nothing."""
