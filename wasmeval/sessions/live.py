"""Live: a session that this process looks after."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from wasmeval.session import SessionInfo
from wasmeval.sessions.record import SessionRecord

IMAGE_BYTES = 24 << 20
"""About what an interpreter's memory is before it has done anything."""


@dataclass(slots=True, eq=False)
class Live:
    """A session that this process looks after: its record as it stands in the store, with the store's `version`, and
    its place in a worker, or None while it sleeps."""

    record: SessionRecord
    version: str
    place: Any = None
    attempts: set[bytes] = field(default_factory=set)
    """Digests of what may have been written since `version`: the store took it, or did not, and no answer came."""
    is_opening: bool = False
    """Whether this process has said in the record that it has the session, and no worker has got it yet."""
    memory_bytes: int = 0
    """What it took in its worker after its last step, nearly."""
    most_file_bytes: int = 0
    """What its files may take: as much as any of its steps was allowed, or what it was when it woke."""
    marked: tuple[Any, str] = (None, "")
    """The place that was marked last, and the checkpoint that it then was at."""

    def is_marked(self, checkpoint_id: str) -> bool:
        """Whether its worker still knows what it was at that checkpoint."""
        return self.is_live and self.marked == (self.place, checkpoint_id)

    @property
    def is_live(self) -> bool:
        """Whether a worker has it."""
        return self.place is not None and not self.place.is_lost

    @property
    def most_state_bytes(self) -> int:
        """What its state may take: its memory and its files."""
        return IMAGE_BYTES + self.memory_bytes // 2 + self.most_file_bytes

    @property
    def uncounted_fuel(self) -> int:
        """What steps have spent that nobody waited for to their end, as far as it is known and not in the record."""
        return 0 if self.place is None else self.place.unheard_fuel - self.place.counted_fuel

    def count_fuel(self) -> None:
        """Put that into the record; not in the middle of a plan, which has a record in hand."""
        if fuel := self.uncounted_fuel:
            self.place.counted_fuel += fuel
            self.record = replace(self.record, fuel=self.record.fuel + fuel)

    def info(self) -> SessionInfo:
        """As callers are told it."""
        info = self.record.info(is_live=self.is_live)
        return replace(info, fuel=info.fuel + fuel) if (fuel := self.uncounted_fuel) else info
