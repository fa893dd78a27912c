"""Snapshots: what was changed, cut, taken from elsewhere or sealed with another key is refused before it is opened."""

from __future__ import annotations

import json
import struct
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wasmeval.errors import SnapshotRefused
from wasmeval.sessions.snapshot import Bound, Sealer

BOUND = Bound("ab" * 32, "tenant", "session", "1-ff", 7)
SEALER = Sealer(b"the operator's own key")
STATE = bytes(range(256)) * 50
SNAPSHOT = SEALER.seal(STATE, BOUND)


def test_what_was_sealed_opens() -> None:
    assert SEALER.open(SNAPSHOT, BOUND, len(STATE)) == STATE
    assert Sealer(b"the operator's own key").open(SNAPSHOT, BOUND, len(STATE)) == STATE
    assert SEALER.open(SEALER.seal(b"", BOUND), BOUND, 0) == b""
    assert len(SNAPSHOT) < len(STATE) // 4


@given(st.integers(0, 8 * len(SNAPSHOT) - 1))
def test_a_changed_bit_is_refused(bit: int) -> None:
    changed = bytearray(SNAPSHOT)
    changed[bit // 8] ^= 1 << bit % 8
    with pytest.raises(SnapshotRefused):
        SEALER.open(bytes(changed), BOUND, len(STATE))


@given(st.integers(0, len(SNAPSHOT) - 1))
def test_a_cut_is_refused(length: int) -> None:
    with pytest.raises(SnapshotRefused):
        SEALER.open(SNAPSHOT[:length], BOUND, len(STATE))


@given(st.binary(max_size=500))
def test_what_is_no_snapshot_is_refused(data: bytes) -> None:
    with pytest.raises(SnapshotRefused):
        SEALER.open(data, BOUND, len(STATE))


@pytest.mark.parametrize(
    "change", [{"image": "cd" * 32}, {"tenant": "other"}, {"session": "other"}, {"name": "2-ff"}, {"step": 8}]
)
def test_a_snapshot_of_something_else_is_refused(change: dict[str, object]) -> None:
    [name] = change
    with pytest.raises(SnapshotRefused, match=f"of another {name}"):
        SEALER.open(SNAPSHOT, replace(BOUND, **change), len(STATE))  # type: ignore[arg-type]


def test_other_keys_and_versions_are_refused() -> None:
    with pytest.raises(SnapshotRefused, match="sealed with another key"):
        Sealer(b"another key, as long").open(SNAPSHOT, BOUND, len(STATE))
    with pytest.raises(SnapshotRefused, match="version 2"):
        SEALER.open(SNAPSHOT[:8] + b"\2" + SNAPSHOT[9:], BOUND, len(STATE))
    with pytest.raises(SnapshotRefused, match="no snapshot"):
        SEALER.open(b"w" + SNAPSHOT, BOUND, len(STATE))
    with pytest.raises(SnapshotRefused, match="a key of 3 bytes"):
        Sealer(b"key")


def test_a_state_is_never_larger_than_it_may_be() -> None:
    with pytest.raises(SnapshotRefused, match=f"{len(STATE)} bytes, more than 100"):
        SEALER.open(SNAPSHOT, BOUND, 100)


def test_the_page_says_how_a_snapshot_begins() -> None:
    magic, version, reserved, length = struct.unpack_from("<8sHHI", SNAPSHOT)
    assert (magic, version, reserved) == (b"wasmsnap", 1, 0)
    head = json.loads(SNAPSHOT[16 : 16 + length])
    assert head == {
        "image": "ab" * 32, "tenant": "tenant", "session": "session", "name": "1-ff", "step": 7,
        "state_bytes": len(STATE),
    }  # fmt: skip
