"""SessionRecord: what a store knows of a session, beside its snapshots."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, fields
from typing import Any

from wasmeval.errors import StoreDamaged
from wasmeval.limits import Limits
from wasmeval.session import Checkpoint, Durability, SessionInfo, SessionOptions

VERSION = 1


@dataclass(frozen=True, slots=True)
class SessionRecord:
    """`snapshot` is the name of the blob with what the session was after step `stored`; empty for none. `owner` is the
    replica that has it, until `lease` (seconds since 1970); `token` counts its owners. `is_out`: it has been live
    since it was stored, and its steps are not: whoever has no such process finds it lost."""

    id: str
    tenant: str
    language: str
    runtime: str
    image: str
    options: SessionOptions
    created: float
    used: float
    steps: int = 0
    fuel: int = 0
    snapshot: str = ""
    stored: int = 0
    blobs: int = 0
    """How many blobs were ever made of it: the next one's number."""
    checkpoints: tuple[Checkpoint, ...] = field(default=())
    owner: str = ""
    lease: float = 0.0
    token: int = 0
    is_out: bool = False

    @property
    def key(self) -> str:
        """Of the record in the store."""
        return record_key(self.id)

    @property
    def expires(self) -> float:
        """When its life ends."""
        return self.created + (self.options.life_seconds or 0.0)

    @property
    def is_stored(self) -> bool:
        """Whether its snapshot is of its last step; before the first there is nothing to store."""
        return self.stored == self.steps

    def blob_key(self, name: str) -> str:
        """Of a blob of this session in the store."""
        return f"snapshots/{self.id}/{name}"

    def info(self, *, is_live: bool) -> SessionInfo:
        """As callers are told it."""
        return SessionInfo(
            self.id, self.language, self.runtime, is_live, self.steps, self.fuel, self.created, self.used, self.expires,
            self.options,
        )  # fmt: skip

    def encode(self) -> bytes:
        """As JSON."""
        # By hand: `asdict` copies every value, which takes five times as long as all the rest.
        told = {name: getattr(self, name) for name in _NAMES}
        options = self.options
        told["options"] = {name: getattr(options, name) for name in _OPTIONS}
        told["options"]["limits"] = {name: getattr(options.limits, name) for name in _LIMITS}
        told["version"] = VERSION
        told["checkpoints"] = [[each.id, each.step, each.created] for each in self.checkpoints]
        return json.dumps(told, separators=(",", ":")).encode()


_NAMES, _OPTIONS, _LIMITS = (
    tuple(each.name for each in fields(kind)) for kind in (SessionRecord, SessionOptions, Limits)
)


def record_key(session_id: str) -> str:
    """The key of a session's record."""
    return f"sessions/{session_id}"


def decode(data: bytes) -> SessionRecord:
    """The record in `data`. Raises StoreDamaged."""
    try:
        told: dict[str, Any] = json.loads(data)
        if (version := told.pop("version")) != VERSION:
            raise StoreDamaged(f"a session's record is of version {version}; this is version {VERSION}")
        options = told.pop("options")
        limits = Limits(**options.pop("limits"))
        durability = Durability(options.pop("durability"))
        checkpoints = tuple(
            Checkpoint(name, told["id"], step, created) for name, step, created in told.pop("checkpoints")
        )
        return SessionRecord(
            **told,
            options=SessionOptions(limits=limits, durability=durability, **options),
            checkpoints=checkpoints,
        )
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise StoreDamaged(f"a session's record cannot be read: {type(error).__name__}") from None
