"""SessionRecord: what a store knows of a session, beside its snapshots."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from wasmeval.determinism import Deterministic, World
from wasmeval.errors import StoreDamaged
from wasmeval.limits import ABSENT, Limits
from wasmeval.session import Checkpoint, Durability, SessionInfo, SessionOptions

VERSION = 1
SNAPSHOTS = "snapshots/"
"""What the keys of all sessions' blobs begin with."""


@dataclass(frozen=True, slots=True)
class Course:
    """How far a deterministic session has come. `key` is what its randomness is made of, in hexadecimal; `elapsed_ns`
    how far its clock went; `receipt` the digest of its last step's receipt."""

    key: str
    elapsed_ns: int = 0
    receipt: str = ""
    forks: int = 0
    """How many were made of it."""
    forked_at: int = -1
    """After which step it was made of another; -1 when it was not."""
    is_forked: bool = False
    """Whether its history began elsewhere."""
    is_replay: bool = False
    """Whether a step of it was a repetition."""
    moments: tuple[tuple[str, int, str], ...] = ()
    """(id, elapsed_ns, receipt) of its checkpoints."""

    @classmethod
    def begin(cls, seed: int) -> Course:
        """Of a new session."""
        return cls(hashlib.sha256(b"wasmeval session 1" + seed.to_bytes(8, "little")).hexdigest())

    def world(self, deterministic: Deterministic, steps: int, given: World | None) -> World:
        """What the step after `steps` others sees of time and chance; `given` says what it repeats."""
        entropy = hashlib.sha256(b"wasmeval step 1" + bytes.fromhex(self.key) + steps.to_bytes(8, "little"))
        start_ns = int(deterministic.start_time * 1e9)
        world = World(entropy.digest(), start_ns, self.elapsed_ns, self.forked_at == steps)
        return world._replace(transcript=given.transcript, seal=given.seal) if given else world

    def advanced(self, virtual_ns: int, receipt: str, *, is_replay: bool = False) -> Course:
        """After one more step."""
        return replace(
            self,
            elapsed_ns=self.elapsed_ns + virtual_ns,
            receipt=receipt,
            is_replay=self.is_replay or is_replay,
        )

    def forked(self, steps: int) -> tuple[Course, Course]:
        """(this one, the other one's) when another session is made of it."""
        forks = self.forks + 1
        key = hashlib.sha256(b"wasmeval fork 1" + bytes.fromhex(self.key) + forks.to_bytes(8, "little"))
        other = replace(self, key=key.hexdigest(), forks=0, forked_at=steps, is_forked=True, moments=())
        return replace(self, forks=forks), other

    def marked(self, checkpoint_id: str) -> Course:
        """With a checkpoint made of it as it is."""
        return replace(self, moments=(*self.moments, (checkpoint_id, self.elapsed_ns, self.receipt)))

    def back(self, checkpoint_id: str) -> Course:
        """As it was when that checkpoint was made."""
        for name, elapsed_ns, receipt in self.moments:
            if name == checkpoint_id:
                return replace(self, elapsed_ns=elapsed_ns, receipt=receipt)
        raise StoreDamaged("a session's record lacks the moment of a checkpoint")


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
    course: Course | None = None
    """Of a deterministic session."""

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
        return f"{SNAPSHOTS}{self.id}/{name}"

    @property
    def blobs_named(self) -> tuple[str, ...]:
        """The names of all blobs that it needs."""
        names = tuple(checkpoint.id for checkpoint in self.checkpoints)
        return (self.snapshot, *names) if self.snapshot else names

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
        told["options"]["limits"] = {
            name: value
            for name in _LIMITS
            if (value := getattr(options.limits, name)) is not None or name not in ABSENT["wasm"]
        }
        if options.tier == "auto":
            # As before there was another: a replica of an older version can read it.
            del told["options"]["tier"]
        told["version"] = VERSION
        told["checkpoints"] = [
            [each.id, each.step, each.created, *([each.digest] if each.digest else [])]
            for each in self.checkpoints
        ]
        if self.course is None or options.deterministic is None:
            # As before there were any: a replica of an older version can read it.
            del told["course"], told["options"]["deterministic"]
        else:
            told["course"] = asdict(self.course)
            told["options"]["deterministic"] = asdict(options.deterministic)
        return json.dumps(told, separators=(",", ":")).encode()


def _course_of(told: dict[str, Any]) -> Course:
    moments = tuple((name, elapsed_ns, receipt) for name, elapsed_ns, receipt in told.pop("moments"))
    return Course(**told, moments=moments)


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
        deterministic = options.pop("deterministic", None)
        course = told.pop("course", None)
        checkpoints = tuple(
            Checkpoint(name, told["id"], step, created, *digest)
            for name, step, created, *digest in told.pop("checkpoints")
        )
        return SessionRecord(
            **told,
            options=SessionOptions(
                limits=limits,
                durability=durability,
                deterministic=Deterministic(**deterministic) if deterministic else None,
                **options,
            ),
            checkpoints=checkpoints,
            course=_course_of(course) if course else None,
        )
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise StoreDamaged(f"a session's record cannot be read: {type(error).__name__}") from None
