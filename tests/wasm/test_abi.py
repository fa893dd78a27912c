"""Replies are decoded from hostile bytes: a Reply within its limits, or MalformedReply."""

from __future__ import annotations

import struct

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from wasmeval.arrays import Array
from wasmeval.wasm import abi

LIMIT = 1000
_WORD = st.one_of(st.integers(0, 5), st.integers(0, 40_000), st.integers(2**32 - 9, 2**32 - 1))
RECORD = struct.pack("<4IQ3s5x", 0, 3, 1, 8, 1, b"<f8")
"""Of an array of one element, up to that."""
_HEADERS = st.tuples(*[_WORD] * 8)


def reply(
    outcome: int, value: bytes = b"", kind: bytes = b"", message: bytes = b"", traceback: bytes = b"", flags: int = 0,
    line: int = 0, column: int = 0,
) -> bytes:  # fmt: skip
    lengths = (len(value), len(kind), len(message), len(traceback))
    return struct.pack("<8I", outcome, flags, *lengths, line, column) + value + kind + message + traceback


@given(st.binary(max_size=200))
def test_any_bytes(frame: bytes) -> None:
    check(frame)


@given(_HEADERS, st.binary(max_size=300))
@example((0, 0, 4, 0, 0, 0, 0, 0), b"null")
def test_any_header(header: tuple[int, ...], rest: bytes) -> None:
    check(struct.pack("<8I", *header) + rest)


@given(
    st.integers(0, 6), st.binary(max_size=1100), st.binary(max_size=300), st.binary(max_size=9000),
    st.binary(max_size=99), st.integers(0, 3), st.integers(0, 2**32 - 1),
)  # fmt: skip
def test_any_lengths_that_add_up(
    outcome: int, value: bytes, kind: bytes, message: bytes, traceback: bytes, flags: int, line: int
) -> None:
    check(reply(outcome, value, kind, message, traceback, flags, line))


def check(frame: bytes) -> None:
    try:
        decoded = abi.decode_reply(frame, LIMIT)
    except abi.MalformedReply:
        return
    assert (decoded.outcome is abi.Outcome.VALUE) == bool(decoded.value)
    assert len(decoded.value) <= LIMIT
    # A byte that is no UTF-8 becomes one character.
    assert len(decoded.type) <= abi.TYPE_BYTES
    assert len(decoded.message) <= abi.MESSAGE_BYTES
    assert len(decoded.traceback) <= abi.TRACEBACK_BYTES
    assert len(frame) <= abi.largest_reply(LIMIT)
    for text in (decoded.type, decoded.message, decoded.traceback):
        text.encode()  # no surrogates


def test_a_value() -> None:
    decoded = abi.decode_reply(reply(0, b"[1]", flags=1, line=3, column=4), LIMIT)
    assert decoded == abi.Reply(abi.Outcome.VALUE, b"[1]", False, "", "", "", 3, 4)


def test_an_error() -> None:
    decoded = abi.decode_reply(reply(1, b"", b"E", b"m\xff", b"t", line=7), LIMIT)
    assert decoded == abi.Reply(abi.Outcome.RAISED, b"", True, "E", "m\ufffd", "t", 7, 0)


@given(_HEADERS, st.binary(max_size=300), st.integers(0, 1000), st.integers(0, 6))
@example((0, 6, 4, 0, 0, 0, 0, 0), b"null" + RECORD + b"\x07\0\0\0", 8, 0)
def test_any_array(header: tuple[int, ...], rest: bytes, size: int, flags: int) -> None:
    frame = struct.pack("<8I", header[0], 2 | flags, *header[2:]) + rest
    try:
        decoded = abi.decode_reply(frame, LIMIT, lambda address, length: bytes(length))
    except abi.MalformedReply:
        return
    assert decoded.array is not None
    assert decoded.outcome is abi.Outcome.VALUE
    assert len(decoded.array.data) + len(decoded.value) <= LIMIT


def test_an_array_behind_its_value() -> None:
    frame = reply(0, b"[1.0]", flags=2) + RECORD + struct.pack("<d", 1) + bytes(8)
    assert abi.decode_reply(frame, LIMIT).array == Array("float64", (1,), struct.pack("<d", 1))
    for cut in range(1, 57):
        with pytest.raises(abi.MalformedReply):
            abi.decode_reply(frame[:-cut], LIMIT)
    with pytest.raises(abi.MalformedReply, match="over the limit"):
        abi.decode_reply(frame, 12)


def test_an_array_elsewhere_is_read_only_when_it_may_be() -> None:
    asked = []

    def read(address: int, length: int) -> bytes:
        asked.append((address, length))
        return bytes(length)

    frame = reply(0, b"[0.0]", flags=6) + RECORD + struct.pack("<I", 1234)
    decoded = abi.decode_reply(frame, LIMIT, read)
    assert (decoded.array, asked) == (Array("<f8", (1,), bytes(8)), [(1234, 8)])
    for limit, reading in ((12, read), (LIMIT, None)):
        with pytest.raises(abi.MalformedReply):
            abi.decode_reply(frame, limit, reading)
    assert len(asked) == 1


@pytest.mark.parametrize("cut", range(1, 36))
def test_a_cut_reply(cut: int) -> None:
    with pytest.raises(abi.MalformedReply):
        abi.decode_reply(reply(0, b"null")[:-cut], LIMIT)


def test_a_byte_too_many() -> None:
    with pytest.raises(abi.MalformedReply, match="the lengths do not add up"):
        abi.decode_reply(reply(0, b"null") + b"x", LIMIT)


@given(st.binary(max_size=50), st.binary(max_size=50), st.integers(1, 2**63 - 1))
def test_a_request_is_what_the_page_says(code: bytes, inputs: bytes, limit: int) -> None:
    frame = abi.encode_request(code, inputs, limit)
    version, flags, value_limit, code_length, inputs_length = struct.unpack_from("<HHIII", frame)
    assert (version, flags, value_limit) == (1, 0, min(limit, 2**32 - 1))
    assert frame[16:] == code + inputs
    assert (code_length, inputs_length) == (len(code), len(inputs))


@given(st.binary(max_size=50), st.binary(max_size=50))
def test_arrays_begin_at_a_multiple_of_16(code: bytes, inputs: bytes) -> None:
    frame = abi.encode_request(code, inputs, 9, has_arrays=True)
    assert struct.unpack_from("<HH", frame) == (1, 8)
    assert len(frame) % 16 == 0
    assert frame[16:] == (code + inputs).ljust(len(frame) - 16, b"\0")
    assert len(frame) - 16 - len(code) - len(inputs) < 16
