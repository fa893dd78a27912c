"""What a caller says and is told of sessions: plain frozen values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Any

from wasmeval.determinism import Deterministic, deterministic_of
from wasmeval.errors import InvalidArgument
from wasmeval.limits import Limits

StatePieces = Sequence[bytes | bytearray | memoryview]
"""A session's state as bytes, in pieces that follow each other; none before its first step."""


class Durability(StrEnum):
    """What of a session survives its worker and its replica."""

    NONE = "none"
    """What was stored when it was put to sleep, and its checkpoints."""
    STEP = "step"
    """Every step that was answered."""


@dataclass(frozen=True, slots=True)
class SessionOptions:
    """What a session may be and spend. `None` takes the service's default; above its ceiling a value is clamped.

    `limits` are those of each step that sets none of its own, and the most that any step gets; `total_fuel` is what all
    steps together may spend. After `idle_seconds` without a step the session is put to sleep; after `life_seconds` it
    ends, asleep or not. `deterministic` makes its steps repeatable: see docs/determinism.md. `tier` is where it lives,
    for good: "vm", or "wasm", which "auto" means here but for bash. One in a VM ends where others are put to sleep; it
    has no `total_fuel`, no other `durability` than the default, and is never deterministic.
    """

    limits: Limits = Limits()
    total_fuel: int | None = None
    idle_seconds: float | None = None
    life_seconds: float | None = None
    durability: Durability = Durability.NONE
    deterministic: Deterministic | None = None
    tier: str = "auto"

    def __post_init__(self) -> None:
        for name in ("idle_seconds", "life_seconds"):
            value = getattr(self, name)
            if value is not None and (
                isinstance(value, bool) or not isinstance(value, int | float) or not value > 0
            ):
                raise InvalidArgument(name, f"must be a positive number of seconds, not {value!r}")
        fuel = self.total_fuel
        if fuel is not None and (type(fuel) is not int or not 0 < fuel < 1 << 63):
            raise InvalidArgument("total_fuel", f"must be between 1 and 2**63 - 1, not {fuel!r}")
        try:
            object.__setattr__(self, "durability", Durability(self.durability))
        except ValueError:
            raise InvalidArgument(
                "durability", f"must be 'none' or 'step', not {self.durability!r}"
            ) from None
        deterministic = deterministic_of(self.deterministic)
        if deterministic is not None and deterministic.transcript is not None:
            raise InvalidArgument("deterministic.transcript", "is a step's, not a session's")
        object.__setattr__(self, "deterministic", deterministic)
        if self.tier not in ("auto", "wasm", "vm"):
            raise InvalidArgument("tier", f"must be 'auto', 'wasm' or 'vm', not {self.tier!r}")
        if self.tier == "vm" and deterministic is not None:
            raise InvalidArgument("deterministic", "a VM repeats nothing exactly; leave it out, or the tier")
        if not isinstance(self.limits, Limits):
            raise InvalidArgument("limits", f"must be wasmeval.Limits, not {type(self.limits).__name__}")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A moment that a session can go back to: after its step number `step`, at `created` (seconds since 1970).
    `digest` is, of a deterministic session, the SHA-256 of its state, in hexadecimal."""

    id: str
    session_id: str
    step: int
    created: float
    digest: str = ""


@dataclass(frozen=True, slots=True)
class SessionInfo:
    """A session as it is now. `steps` have been evaluated, `fuel` was spent by them; times are seconds since 1970."""

    id: str
    language: str
    runtime: str
    is_live: bool
    steps: int
    fuel: int
    created: float
    used: float
    expires: float
    options: SessionOptions = SessionOptions()


def options_of(**given: Any) -> SessionOptions:
    """The options that the arguments of a `session()` mean; only None stands for none."""
    known = {field.name for field in fields(SessionOptions)}
    return SessionOptions(
        **{name: value for name, value in given.items() if name in known and value is not None}
    )
