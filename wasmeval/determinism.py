"""Determinism: what makes an evaluation repeatable, and the receipt that says what it was. See docs/determinism.md."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass, field, fields, replace
from typing import Any, NamedTuple

from wasmeval.errors import InvalidArgument
from wasmeval.limits import ABSENT, Limits

DEFAULT_START_TIME = 946_684_800.0
"""2000-01-01, UTC."""
MOST_START_TIME = float(1 << 32)
"""In 2106: beyond it some interpreters' dates go wrong."""

MOST_TRANSCRIPT_BYTES = 4 << 20
"""One that would be longer is not kept, and the evaluation has no receipt."""

ANSWER_SECONDS = 86_400.0
ANSWER_BYTES = 256 << 20
"""How long answers are kept at least, and how much of them is stored in so long a time, unless somebody says
otherwise."""

RECEIPT_VERSION = 1


@dataclass(frozen=True, slots=True)
class Deterministic:
    """What a repeatable evaluation's randomness (`seed`, 0 to 2**64 - 1) and clocks (`start_time`, seconds since 1970)
    begin with. With `transcript`, of a former evaluation, nobody is asked: it is answered what that one was, and its
    receipt has no seal; `seal` is the former one's, and `Result.seal_holds` says whether it is of this receipt.

    Raises InvalidArgument for what they cannot be.
    """

    seed: int = 0
    start_time: float = DEFAULT_START_TIME
    transcript: bytes | None = field(default=None, repr=False)
    seal: str = field(default="", repr=False)

    def __post_init__(self) -> None:
        seed: object = self.seed
        if type(seed) is not int or not 0 <= seed < 1 << 64:
            raise InvalidArgument("deterministic.seed", f"must be between 0 and 2**64 - 1, not {seed!r}")
        start: object = self.start_time
        if (
            isinstance(start, bool)
            or not isinstance(start, int | float)
            or not math.isfinite(start)
            or not 0 <= start <= MOST_START_TIME
        ):
            raise InvalidArgument(
                "deterministic.start_time", f"must be between 0 and 2**32 seconds since 1970, not {start!r}"
            )
        object.__setattr__(self, "start_time", float(start))
        if not isinstance(self.seal, str):
            raise InvalidArgument("deterministic.seal", f"must be a str, not {type(self.seal).__name__}")
        if self.seal and self.transcript is None:
            raise InvalidArgument("deterministic.seal", "is of a repetition; give its transcript, too")
        if self.transcript is not None:
            if not isinstance(self.transcript, bytes):
                raise InvalidArgument(
                    "deterministic.transcript", f"must be bytes, not {type(self.transcript).__name__}"
                )
            if len(self.transcript) > MOST_TRANSCRIPT_BYTES:
                raise InvalidArgument(
                    "deterministic.transcript",
                    f"{len(self.transcript)} bytes, more than {MOST_TRANSCRIPT_BYTES}",
                )

    def world(self) -> World:
        """What an evaluation of its own sees of the world."""
        entropy = hashlib.sha256(b"wasmeval entropy 1" + self.seed.to_bytes(8, "little")).digest()
        return World(entropy, int(self.start_time * 1e9), transcript=self.transcript, seal=self.seal)


def deterministic_of(given: object) -> Deterministic | None:
    """What the argument `deterministic` means. Raises InvalidArgument."""
    if given is None or given is False:
        return None
    if given is True:
        return Deterministic()
    if isinstance(given, Deterministic):
        return given
    raise InvalidArgument(
        "deterministic", f"must be True, False or wasmeval.Deterministic, not {type(given).__name__}"
    )


class World(NamedTuple):
    """What a deterministic guest sees of the world. `entropy` is the key of its randomness; its wall clock begins at
    `start_ns` (since 1970), and goes on `before_ns` later in a session that has come so far. `renews`: it is the first
    step of a fork. `transcript` and `seal`: see Deterministic."""

    entropy: bytes
    start_ns: int
    before_ns: int = 0
    renews: bool = False
    transcript: bytes | None = None
    seal: str = ""


@dataclass(frozen=True, slots=True)
class Receipt:
    """What a deterministic evaluation was, and what came of it. Digests are SHA-256, in hexadecimal.

    `runtime` and `image` name what ran it, `translator` the image that translated the code (empty for none), `engine`
    the version of Wasmtime. `grants` is the digest of all it was given beside code, inputs and limits. In a session
    `step` is its number, and `previous` the digest of the receipt before, empty for the first; `forked` says that its
    history began elsewhere. `output` is the digest of value, output, error and files. `virtual_ns` is how far its
    clock went. `seal` is an HMAC-SHA-256 of the rest with the operator's key; empty for a repetition, whose answers
    were its asker's.
    """

    runtime: str
    image: str
    translator: str
    engine: str
    code: str
    inputs: str
    grants: str
    limits: Limits
    seed: int
    start_time: float
    step: int
    previous: str
    forked: bool
    transcript: str
    status: str
    output: str
    fuel: int
    virtual_ns: int
    version: int = RECEIPT_VERSION
    seal: str = field(default="", repr=False)

    @property
    def payload(self) -> bytes:
        """What is sealed."""
        told = self.told()
        del told["seal"]
        return json.dumps(told, sort_keys=True, separators=(",", ":")).encode()

    @property
    def digest(self) -> str:
        """Its own, for the `previous` of the next step's."""
        return hashlib.sha256(self.payload).hexdigest()

    def sealed(self, seal: str) -> Receipt:
        """The same with that seal."""
        return replace(self, seal=seal)

    def told(self) -> dict[str, Any]:
        """As JSON has it."""
        # Not by `asdict`, which takes ten times as long.
        limits = {name: getattr(self.limits, name) for name in _LIMITS}
        return {name: getattr(self, name) for name in _FIELDS} | {"limits": limits}


_FIELDS = tuple(each.name for each in fields(Receipt))
# What a VM alone has is in no receipt: those of before there were any hold.
_LIMITS = tuple(each.name for each in fields(Limits) if each.name not in ABSENT["wasm"])


def receipt_of(told: Any) -> Receipt:
    """The receipt that `told` gives. Raises InvalidArgument for what is none, or of another version."""
    try:
        version = told["version"]
        if version != RECEIPT_VERSION:
            raise InvalidArgument(
                "receipt", f"of version {version!r}; this is wasmeval's version {RECEIPT_VERSION}"
            )
        receipt = Receipt(**{**told, "limits": Limits(**told["limits"])})
        if any(getattr(receipt.limits, name) is None for name in _LIMITS):
            raise TypeError("a limit is missing")
        for name in _FIELDS:
            if name != "limits" and type(getattr(receipt, name)) is not _TYPES[name]:
                raise TypeError(name)
        return receipt
    except (KeyError, TypeError) as error:
        raise InvalidArgument("receipt", f"not a receipt: {error}") from None


_TYPES: dict[str, type] = {
    **dict.fromkeys(
        (
            "runtime", "image", "translator", "engine", "code", "inputs", "grants", "previous", "transcript", "status",
            "output", "seal",
        ),
        str,
    ),
    **dict.fromkeys(("seed", "step", "fuel", "virtual_ns", "version"), int),
    "start_time": float,
    "forked": bool,
}  # fmt: skip
