"""Effects: what plans about sessions yield, for whoever drives them to do."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any, TypeVar

from wasmeval.session import StatePieces

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Do:
    """Call it where it may take its time; what it gives is the answer."""

    call: Callable[[], Any]


@dataclass(frozen=True, slots=True)
class Open:
    """A place for a session of `runtime`, with `state` or anew. The answer is the place."""

    runtime: str
    state: StatePieces


@dataclass(frozen=True, slots=True)
class Fork:
    """A place for a copy of the session at `place`."""

    place: Any


@dataclass(frozen=True, slots=True)
class Mark:
    """What the session at `place` is now may be wanted again; of one session only what was marked last."""

    place: Any


@dataclass(frozen=True, slots=True)
class Revert:
    """A place for what the session at `place` was when it was marked; it is marked so, too."""

    place: Any


@dataclass(frozen=True, slots=True)
class State:
    """What the session at `place` was after its last good step: StatePieces. `use` is called with them where it may
    take its time, and what that gives is the answer. They are asked for when `Keeper.room` has `size` bytes left,
    which are taken until `use` has returned."""

    place: Any
    size: int = 0
    use: Callable[[StatePieces], Any] = len


@dataclass(frozen=True, slots=True)
class Hear:
    """Wait until the worker has told the ends of the steps of `place` that were given up, or is lost."""

    place: Any


@dataclass(frozen=True, slots=True)
class Closing:
    """The place is not needed any more."""

    place: Any


Effect = Do | Open | Fork | Mark | Revert | State | Hear | Closing
Plan = Generator[Effect, Any, T]
