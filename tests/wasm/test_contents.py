"""The bytes of one file in memory: what bytes would be, and holes that cost nothing."""

from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wasmeval.limits import MIB
from wasmeval.wasm.contents import CHUNK_BYTES, Contents

# Around the edges of chunks.
POSITIONS = st.builds(
    lambda chunk, near: max(0, chunk * CHUNK_BYTES + near), st.integers(0, 5), st.integers(-3, 3)
)
STEPS = st.one_of(
    st.tuples(st.just("write"), POSITIONS, st.integers(1, 3 * CHUNK_BYTES)),
    st.tuples(st.just("resize"), POSITIONS, st.just(0)),
    st.tuples(st.just("read"), POSITIONS, st.integers(0, 3 * CHUNK_BYTES)),
)


@settings(max_examples=150, deadline=None)
@given(POSITIONS, st.booleans(), st.lists(STEPS, max_size=12))
def test_it_is_what_bytes_would_be(size: int, is_bytes: bool, steps: list[tuple[str, int, int]]) -> None:
    expected = bytearray(b"g" * size)
    contents = Contents(bytes(expected) if is_bytes else expected[:])
    for number, (what, position, length) in enumerate(steps):
        if what == "write":
            data = bytes((number + 1,)) * length
            contents.write(position, data)
            expected.extend(bytes(max(0, position - len(expected))))
            expected[position : position + length] = data
        elif what == "resize":
            contents.resize(position)
            expected = (expected + bytes(max(0, position - len(expected))))[:position]
        else:
            assert contents.read(position, length) == expected[position : position + length]
        assert contents.length == len(expected)
    assert contents.read(0, len(expected) + 1) == expected


def test_a_hole_takes_no_memory() -> None:
    contents = Contents()
    tracemalloc.start()
    try:
        for _ in range(100):
            contents.resize(1024 * MIB)
            contents.write(1000 * MIB, b"x")
            assert contents.read(999 * MIB, MIB + 1) == bytes(MIB) + b"x"
            contents.resize(0)
            contents.resize(1024 * MIB)
            assert contents.read(1000 * MIB, 1) == b"\0"
        assert tracemalloc.get_traced_memory()[1] < 4 * MIB
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("backwards", [False, True])
def test_what_was_given_goes_as_it_is_written_over(backwards: bool) -> None:
    tracemalloc.start()
    try:
        contents = Contents(bytearray(16 * MIB))
        positions = range(0, 16 * MIB, CHUNK_BYTES)
        for position in reversed(positions) if backwards else positions:
            contents.write(position, b"x" * CHUNK_BYTES)
        assert tracemalloc.get_traced_memory()[0] < 20 * MIB
        contents.resize(10)
        assert tracemalloc.get_traced_memory()[0] < 2 * MIB
    finally:
        tracemalloc.stop()
    assert contents.read(0, 20) == b"x" * 10


def test_what_was_given_goes_when_it_is_cut() -> None:
    tracemalloc.start()
    try:
        contents = Contents(bytearray(b"x" * (16 * MIB)))
        contents.resize(10)
        assert tracemalloc.get_traced_memory()[0] < MIB
    finally:
        tracemalloc.stop()
    contents.resize(12)
    assert contents.read(0, 20) == b"x" * 10 + b"\0\0"
