"""Place: where a session lives: one worker, until that worker is gone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from wasmeval.model import Job, Result
from wasmeval.pool.process import WorkerProcess
from wasmeval.session import StatePieces
from wasmeval.worker.frames import MalformedFrame

_SMALL_BYTES = 1 << 16


@dataclass(slots=True, eq=False)
class Place:
    """A live session as the pool knows it. `worker` is None once it is lost: closed, or its worker died."""

    number: int
    runtime: str
    worker: WorkerProcess | None
    given_up: int = 0
    """Steps that nobody waits for any more, and whose end its worker has not told yet."""
    unheard_fuel: int = 0
    """What such steps have spent, once it has, and which have not been. It only grows."""
    ended: tuple[Job, Result] | None = None
    """Its last step, and how that ended, until the session's keeper has recorded it: whoever waited for it may be
    gone."""
    counted_fuel: int = 0
    """How much of that the session's keeper has counted."""

    @property
    def is_lost(self) -> bool:
        """Whether nothing can be done with it any more."""
        return self.worker is None


@dataclass(slots=True, eq=False)
class Asked:
    """Somebody wants a session's state; it comes in pieces. `settle` is called once."""

    place: Place
    settle: Callable[[StatePieces | Exception], None]
    most_bytes: int
    heard: float
    """When it was asked, or the last piece came, by the monotonic clock."""
    pieces: list[Any] = field(default_factory=list)
    size: int = 0
    """Of all pieces, in bytes."""
    _gathers: bool = False

    def add(self, piece: bytes) -> None:
        """Another piece. Raises MalformedFrame when they are more than any state can be."""
        self.size += len(piece)
        if self.size > self.most_bytes:
            raise MalformedFrame("a session's state that is larger than it can be")
        is_small = len(piece) < _SMALL_BYTES
        if is_small and self._gathers and len(self.pieces[-1]) < _SMALL_BYTES:
            # Put together, for each takes memory beside its bytes.
            self.pieces[-1] += piece
        else:
            self._gathers = is_small
            self.pieces.append(bytearray(piece) if is_small else piece)
