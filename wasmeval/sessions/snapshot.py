"""Snapshots: a session's state, packed and sealed, so that it can lie where others may write. See docs/snapshots.md.

    magic     8 bytes, "wasmsnap"
    version   u16, little-endian like all numbers here
    reserved  u16, zero
    length    u32, of the head
    head      JSON: what the snapshot is of, and how long the state is
    body      the state, in parts of at most 1 MiB: u32 length as packed, u32 length, and the bytes, a Zstandard frame
              unless both lengths are the same
    seal      32 bytes, HMAC-SHA-256 of everything before it

In version 1, which is still read, the body is one Zstandard frame.

Nothing of a snapshot is looked at before its seal holds, and nothing is unpacked that its head does not announce.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import struct
from collections import deque
from collections.abc import Iterator
from dataclasses import asdict, dataclass

import zstandard

from wasmeval.errors import SnapshotRefused
from wasmeval.session import StatePieces
from wasmeval.stores.ahead import Ahead

MAGIC = b"wasmsnap"
VERSION = 2
_ONE_FRAME = 1
"""The version whose body is one frame."""

_FIXED = struct.Struct("<8sHHI")
_PART = struct.Struct("<II")
_PART_BYTES = 1 << 20
_SEAL_BYTES = 32
_MOST_HEAD_BYTES = 4096
# Higher levels take longer than the disk does. The quick one takes two thirds of the time, and a quarter more bytes.
_LEVEL, _QUICK_LEVEL = 1, -3
_THREADS = 2
_SAMPLED_BYTES, _SAMPLE_BYTES = 1 << 19, 1 << 15
_WORTH_PACKING = 0.9
"""A large part of whose middle less than a tenth would be saved stays as it is: packing takes longer than the disk."""


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
        self._packers: dict[int, deque[zstandard.ZstdCompressor]] = {_LEVEL: deque(), _QUICK_LEVEL: deque()}
        """Those that nobody uses just now, by level: what one works in takes its time to get."""

    def seal(
        self, state: StatePieces, bound: Bound, *, is_brief: bool = False
    ) -> Iterator[bytes | memoryview]:
        """`state` as a snapshot: its pieces, made as they are asked for, some of them of `state` itself. One that
        `is_brief` will soon be replaced, and is packed less."""
        size = sum(map(len, state))
        head = json.dumps({**asdict(bound), "state_bytes": size}, separators=(",", ":")).encode()
        fixed = _FIXED.pack(MAGIC, VERSION, 0, len(head)) + head
        seal = hmac.new(self._key, fixed, hashlib.sha256)
        yield fixed
        for piece in self._packed(list(_parts(state)), _QUICK_LEVEL if is_brief else _LEVEL):
            seal.update(piece)
            yield piece
        yield seal.digest()

    def _packed(self, parts: list[memoryview], level: int) -> Iterator[bytes | memoryview]:
        """The body. Of a large state the next parts are packed while the last ones are sealed."""
        if len(parts) < 2:
            for part in parts:
                yield from self._packed_part(part, level)
            return
        with Ahead(_THREADS) as ahead:
            for packed in [ahead.submit(self._packed_part, part, level) for part in parts]:
                yield from packed.result()

    def _packed_part(self, part: memoryview, level: int) -> tuple[bytes, bytes | memoryview]:
        try:
            packer = self._packers[level].pop()
        except IndexError:
            packer = zstandard.ZstdCompressor(level=level)
        packed: bytes | memoryview = part
        if len(part) < _SAMPLED_BYTES or _is_worth_packing(packer, part):
            packed = packer.compress(part)
            if len(packed) >= len(part):
                packed = part
        self._packers[level].append(packer)
        return _PART.pack(len(packed), len(part)), packed

    def open(self, snapshot: bytes, bound: Bound, most_bytes: int) -> list[bytes | memoryview]:
        """The state in `snapshot`, in pieces, some of them of `snapshot` itself.

        Raises SnapshotRefused unless it was sealed with this key, of `bound`, whole, and is at most `most_bytes` large.
        """
        sealed, seal = memoryview(snapshot)[:-_SEAL_BYTES], snapshot[-_SEAL_BYTES:]
        if len(sealed) < _FIXED.size:
            raise SnapshotRefused("the snapshot is cut short")
        magic, version, _, length = _FIXED.unpack_from(sealed)
        if magic != MAGIC:
            raise SnapshotRefused("this is no snapshot")
        if version not in (VERSION, _ONE_FRAME):
            raise SnapshotRefused(f"the snapshot is of version {version}; this is version {VERSION}")
        if not hmac.compare_digest(seal, hmac.digest(self._key, sealed, hashlib.sha256)):
            raise SnapshotRefused(
                "the snapshot's seal is wrong: it is damaged, or was sealed with another key"
            )
        head = json.loads(bytes(sealed[_FIXED.size : _FIXED.size + min(length, _MOST_HEAD_BYTES)]))
        size = head.pop("state_bytes")
        for name, value in asdict(bound).items():
            if head.get(name) != value:
                raise SnapshotRefused(f"the snapshot is of another {name}")
        if size > most_bytes:
            raise SnapshotRefused(f"the snapshot's state has {size} bytes, more than {most_bytes}")
        body = sealed[_FIXED.size + length :]
        state: list[bytes | memoryview]
        try:
            if version == _ONE_FRAME:
                state = [zstandard.ZstdDecompressor().decompress(body, max_output_size=size)]
            else:
                state = list(_unpacked(body))
        except (zstandard.ZstdError, struct.error):
            raise SnapshotRefused("the snapshot cannot be unpacked") from None
        if sum(map(len, state)) != size:
            raise SnapshotRefused("the snapshot's state is not as long as it says")
        return state


def _parts(state: StatePieces) -> Iterator[memoryview]:
    for piece in state:
        view = memoryview(piece)
        for start in range(0, len(view), _PART_BYTES):
            yield view[start : start + _PART_BYTES]


def _is_worth_packing(packer: zstandard.ZstdCompressor, part: memoryview) -> bool:
    middle = (len(part) - _SAMPLE_BYTES) // 2
    sample = packer.compress(part[middle : middle + _SAMPLE_BYTES])
    return len(sample) < _WORTH_PACKING * _SAMPLE_BYTES


def _unpacked(body: memoryview) -> Iterator[bytes | memoryview]:
    unpacker = zstandard.ZstdDecompressor()
    at = 0
    while at < len(body):
        packed, size = _PART.unpack_from(body, at)
        at += _PART.size
        part = body[at : at + packed]
        at += packed
        if size > _PART_BYTES:
            raise SnapshotRefused(f"a part of the snapshot has {size} bytes, more than {_PART_BYTES}")
        yield part if packed == size else unpacker.decompress(part, max_output_size=size)
