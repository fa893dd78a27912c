"""What comes from a guest becomes frames, or the guest is not heard any more; whatever it sends, little is held."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.vm.machines import frame
from wasmeval.vm.frames import HEADER, Decoder, Frame, MalformedFrame, Order, Word, encode

NUMBERS = st.integers(0, 0xFFFFFFFF)
FRAMES = st.lists(st.tuples(st.sampled_from(Word), st.binary(max_size=300), NUMBERS), max_size=12)


def cut(data: bytes, places: list[int]) -> list[bytes]:
    """`data` in pieces."""
    ends = sorted({place % (len(data) + 1) for place in places} | {0, len(data)})
    return [data[start:end] for start, end in pairwise(ends)]


@given(FRAMES, st.lists(st.integers(0, 1 << 20), max_size=20))
def test_frames_come_out_as_they_went_in_however_they_are_cut(
    sent: list[tuple[Word, bytes, int]], places: list[int]
) -> None:
    data = b"".join(frame(*each) for each in sent)
    decoder = Decoder()
    got = [each for piece in cut(data, places) for each in decoder.feed(piece)]
    assert got == [Frame(word, number, payload) for word, payload, number in sent]
    assert not decoder.held_bytes


@given(st.lists(st.binary(max_size=400), max_size=30))
def test_random_bytes_are_frames_or_malformed_and_never_held_for_long(pieces: list[bytes]) -> None:
    decoder = Decoder()
    said = ""
    try:
        for piece in pieces:
            for got in decoder.feed(piece):
                assert got.word in Word
            assert decoder.held_bytes <= sum(map(len, pieces))
    except MalformedFrame as malformed:
        said = str(malformed)
    assert len(said) < 100


@given(FRAMES.filter(len), st.data())
def test_a_changed_byte_is_a_frame_or_malformed(
    sent: list[tuple[Word, bytes, int]], draw: st.DataObject
) -> None:
    data = bytearray(b"".join(frame(*each) for each in sent))
    data[draw.draw(st.integers(0, len(data) - 1))] ^= draw.draw(st.integers(1, 255))
    try:
        got = Decoder().feed(bytes(data))
    except MalformedFrame:
        return
    assert sum(HEADER.size + len(each.payload) for each in got) <= len(data)


@pytest.mark.parametrize("word", Word)
def test_what_is_too_long_is_refused_by_its_header_alone(word: Word) -> None:
    decoder = Decoder()
    with pytest.raises(MalformedFrame, match=rf"^4294967295 bytes of {word.name}$"):
        decoder.feed(HEADER.pack(0xFFFFFFFF, word, 0))


@pytest.mark.parametrize("kind", [0, *Order, 32, 44, 255])
def test_an_unknown_kind_is_refused_by_its_header_alone(kind: int) -> None:
    with pytest.raises(MalformedFrame, match=rf"^a frame of the unknown kind {kind}$"):
        Decoder().feed(HEADER.pack(10, kind, 0))


def test_orders_have_the_same_shape() -> None:
    assert encode(Order.FEED, b"abc", 7) == frame(Order.FEED, b"abc", 7)
