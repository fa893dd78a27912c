"""Snapshots: a session's state, packed and sealed, so that it can lie where others may write. See docs/snapshots.md.

    magic     8 bytes, "wasmsnap"
    version   u16, little-endian like all numbers here
    reserved  u16, zero
    length    u32, of the head
    head      JSON: what the snapshot is of, and how long the state is
    body      the state, as one Zstandard frame
    seal      32 bytes, HMAC-SHA-256 of everything before it

Nothing of a snapshot is looked at before its seal holds, and nothing is unpacked that its head does not announce.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import struct
from dataclasses import asdict, dataclass

import zstandard

from wasmeval.errors import SnapshotRefused

MAGIC = b"wasmsnap"
VERSION = 1

_FIXED = struct.Struct("<8sHHI")
_SEAL_BYTES = 32
_MOST_HEAD_BYTES = 4096
# Higher levels take longer than the disk does.
_LEVEL = 1


@dataclass(frozen=True, slots=True)
class Bound:
    """What a snapshot is bound to: it is of this and of nothing else. `image` is the digest of the runtime's image."""

    image: str
    tenant: str
    session: str
    name: str
    """The blob's, within the session."""
    step: int


class Sealer:
    """Seals and opens snapshots with the operator's `key`, of 16 bytes or more."""

    def __init__(self, key: bytes) -> None:
        if len(key) < 16:
            raise SnapshotRefused(f"a key of {len(key)} bytes; snapshots want 16 or more")
        # A key of its own for this use, whatever else the operator's is for.
        self._key = hmac.digest(key, b"wasmeval snapshot 1", hashlib.sha256)

    def seal(self, state: bytes, bound: Bound) -> bytes:
        """`state` as a snapshot."""
        head = json.dumps({**asdict(bound), "state_bytes": len(state)}, separators=(",", ":")).encode()
        body = zstandard.ZstdCompressor(level=_LEVEL, write_checksum=True).compress(state)
        sealed = _FIXED.pack(MAGIC, VERSION, 0, len(head)) + head + body
        return sealed + hmac.digest(self._key, sealed, hashlib.sha256)

    def open(self, snapshot: bytes, bound: Bound, most_bytes: int) -> bytes:
        """The state in `snapshot`. Raises SnapshotRefused unless it was sealed with this key, of `bound`, whole, and
        is at most `most_bytes` large."""
        sealed, seal = snapshot[:-_SEAL_BYTES], snapshot[-_SEAL_BYTES:]
        if len(sealed) < _FIXED.size:
            raise SnapshotRefused("the snapshot is cut short")
        magic, version, _, length = _FIXED.unpack_from(sealed)
        if magic != MAGIC:
            raise SnapshotRefused("this is no snapshot")
        if version != VERSION:
            raise SnapshotRefused(f"the snapshot is of version {version}; this is version {VERSION}")
        if not hmac.compare_digest(seal, hmac.digest(self._key, sealed, hashlib.sha256)):
            raise SnapshotRefused(
                "the snapshot's seal is wrong: it is damaged, or was sealed with another key"
            )
        head = json.loads(sealed[_FIXED.size : _FIXED.size + min(length, _MOST_HEAD_BYTES)])
        size = head.pop("state_bytes")
        for name, value in asdict(bound).items():
            if head.get(name) != value:
                raise SnapshotRefused(f"the snapshot is of another {name}")
        if size > most_bytes:
            raise SnapshotRefused(f"the snapshot's state has {size} bytes, more than {most_bytes}")
        try:
            state = zstandard.ZstdDecompressor().decompress(
                sealed[_FIXED.size + length :], max_output_size=size
            )
        except zstandard.ZstdError:
            raise SnapshotRefused("the snapshot cannot be unpacked") from None
        if len(state) != size:
            raise SnapshotRefused("the snapshot's state is not as long as it says")
        return state
