"""Order: an evaluation as it arrives in a worker."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

from wasmeval.determinism import World
from wasmeval.grants import Grants
from wasmeval.limits import Limits

FILE_PIECE_BYTES = 1 << 20
"""Files come and leave in pieces of this size, one a turn, so that neither a frame nor a file keeps others waiting."""


class Order(NamedTuple):
    """An evaluation as it arrives. `translator` is empty, or the runtime that makes `code` what `runtime` runs."""

    number: int
    runtime: str
    code: bytes
    inputs: bytes
    limits: Limits
    grants: Grants | None = None
    translator: str = ""
    session: int = 0
    """The session whose next step it is; 0 for an evaluation of its own."""
    world: World | None = None
    """What it sees of time and chance; None for the world as it is."""
    arrays: bytes | memoryview = b""

    @property
    def tool_time_counts(self) -> bool:
        """Whether the deadline's clock goes on while the guest waits for tools alone."""
        return self.grants is None or self.grants.tool_time_counts

    def taken(self) -> Order:
        """The same without what the guest has by now."""
        grants = self.grants
        if grants is not None and grants.files:
            grants = replace(grants, files={})
        world = self.world._replace(transcript=None) if self.world else None
        return Order(
            self.number, self.runtime, b"", b"", self.limits, grants, session=self.session, world=world
        )
