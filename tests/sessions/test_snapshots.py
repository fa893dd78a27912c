"""Snapshots: what was changed, cut, taken from elsewhere or sealed with another key is refused before it is opened."""

from __future__ import annotations

import json
import random
import struct
from base64 import b64decode
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wasmeval.errors import SnapshotRefused
from wasmeval.limits import MIB
from wasmeval.sessions.snapshot import Bound, Sealer

BOUND = Bound("ab" * 32, "tenant", "session", "1-ff", 7)
SEALER = Sealer(b"the operator's own key")
STATE = bytes(range(256)) * 50
SNAPSHOT = b"".join(SEALER.seal([STATE], BOUND))
# Made by the first version, of the same state.
SNAPSHOT_1 = b64decode(
    "d2FzbXNuYXABAAAAnQAAAHsiaW1hZ2UiOiJhYmFiYWJhYmFiYWJhYmFiYWJhYmFiYWJhYmFiYWJhYmFiYWJhYmFiYWJhYmFiYWJhYmFiYWJhYmFi"
    "YWJhYmFiIiwidGVuYW50IjoidGVuYW50Iiwic2Vzc2lvbiI6InNlc3Npb24iLCJuYW1lIjoiMS1mZiIsInN0ZXAiOjcsInN0YXRlX2J5dGVzIjox"
    "MjgwMH0otS/9ZAAxVQgABBAAAQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0eHyAhIiMkJSYnKCkqKywtLi8wMTIzNDU2Nzg5Ojs8PT4/QEFC"
    "Q0RFRkdISUpLTE1OT1BRUlNUVVZXWFlaW1xdXl9gYWJjZGVmZ2hpamtsbW5vcHFyc3R1dnd4eXp7fH1+f4CBgoOEhYaHiImKi4yNjo+QkZKTlJWW"
    "l5iZmpucnZ6foKGio6SlpqeoqaqrrK2ur7CxsrO0tba3uLm6u7y9vr/AwcLDxMXGx8jJysvMzc7P0NHS09TV1tfY2drb3N3e3+Dh4uPk5ebn6Onq"
    "6+zt7u/w8fLz9PX29/j5+vv8/f7/AQAA/XCAX1PhcDB6w8Qs8G9lwcR+S0se8vcrc9JHOClu7UoeTn77jkihtYo="
)


def test_what_was_sealed_opens() -> None:
    assert SEALER.open(SNAPSHOT, BOUND, len(STATE)) == [STATE]
    assert Sealer(b"the operator's own key").open(SNAPSHOT, BOUND, len(STATE)) == [STATE]
    assert SEALER.open(b"".join(SEALER.seal([], BOUND)), BOUND, 0) == []
    assert len(SNAPSHOT) < len(STATE) // 4


def test_a_brief_one_is_a_snapshot_like_any_other() -> None:
    snapshot = b"".join(SEALER.seal([STATE], BOUND, is_brief=True))
    assert SEALER.open(snapshot, BOUND, len(STATE)) == [STATE]
    assert len(snapshot) < len(STATE) // 4


def test_a_snapshot_of_the_first_version_opens() -> None:
    assert SNAPSHOT_1[8] == 1
    assert SEALER.open(SNAPSHOT_1, BOUND, len(STATE)) == [STATE]
    with pytest.raises(SnapshotRefused, match="seal is wrong"):
        SEALER.open(SNAPSHOT_1[:8] + b"\2" + SNAPSHOT_1[9:], BOUND, len(STATE))


@pytest.mark.parametrize("size", [MIB - 1, MIB, MIB + 1, 5 * MIB + 3])
def test_large_states_come_back(size: int) -> None:
    dense, sparse = random.Random(size).randbytes(size), bytes(size)
    half = dense[: size // 2] + sparse[: size // 2]
    for state in ([dense], [sparse], [half], [b"", b"few", bytearray(dense), memoryview(sparse), b"x"]):
        whole = b"".join(state)
        snapshot = b"".join(SEALER.seal(state, BOUND))
        assert b"".join(SEALER.open(snapshot, BOUND, len(whole))) == whole
        assert len(snapshot) < len(whole) + 1000
        if dense not in state:
            assert len(snapshot) < size // 2 + 1000


def test_snapshots_of_many_threads_do_not_meet() -> None:
    states = [[random.Random(number).randbytes(1000) * 3000] for number in range(6)]
    with ThreadPoolExecutor(6) as threads:
        for state, snapshot in zip(
            states, threads.map(lambda state: list(SEALER.seal(state, BOUND)), states), strict=True
        ):
            assert b"".join(SEALER.open(b"".join(snapshot), BOUND, 4 * MIB)) == state[0]


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
    with pytest.raises(SnapshotRefused, match="version 3; this is version 2"):
        SEALER.open(SNAPSHOT[:8] + b"\3" + SNAPSHOT[9:], BOUND, len(STATE))
    with pytest.raises(SnapshotRefused, match="no snapshot"):
        SEALER.open(b"w" + SNAPSHOT, BOUND, len(STATE))
    with pytest.raises(SnapshotRefused, match="a key of 3 bytes"):
        Sealer(b"key")


def test_a_state_is_never_larger_than_it_may_be() -> None:
    with pytest.raises(SnapshotRefused, match=f"{len(STATE)} bytes, more than 100"):
        SEALER.open(SNAPSHOT, BOUND, 100)


def test_the_page_says_how_a_snapshot_begins() -> None:
    magic, version, reserved, length = struct.unpack_from("<8sHHI", SNAPSHOT)
    assert (magic, version, reserved) == (b"wasmsnap", 2, 0)
    head = json.loads(SNAPSHOT[16 : 16 + length])
    assert head == {
        "image": "ab" * 32, "tenant": "tenant", "session": "session", "name": "1-ff", "step": 7,
        "state_bytes": len(STATE),
    }  # fmt: skip
    packed, size = struct.unpack_from("<II", SNAPSHOT, 16 + length)
    assert (packed, size) == (len(SNAPSHOT) - 16 - length - 8 - 32, len(STATE))
