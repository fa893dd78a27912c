"""Output keeps head and tail of what is written, bounded, and counts the rest."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from wasmeval.wasm.output import Output

_MARKER = re.compile("\n\\[\\.\\.\\. (\\d+) bytes left out \\.\\.\\.\\]\n")


def write(limit: int, chunks: list[bytes]) -> Output:
    output = Output(limit)
    for chunk in chunks:
        output.write(chunk)
    return output


@given(st.integers(1, 60), st.lists(st.binary(max_size=50), max_size=20))
def test_any_bytes(limit: int, chunks: list[bytes]) -> None:
    output, data = write(limit, chunks), b"".join(chunks)
    assert output.written == len(data)
    assert output.truncated == (len(data) > limit)
    text = output.text()
    assert text == output.text(), "reading changes nothing"
    if not output.truncated:
        assert text == data.decode("utf-8", "replace")
        return
    assert len(text.encode()) <= 3 * limit + 128


@given(
    st.integers(1, 60), st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=30), max_size=20)
)
def test_any_text(limit: int, chunks: list[str]) -> None:
    """However it is cut into writes, no character is cut in two, and head, tail and count add up."""
    data = "".join(chunks).encode()
    pieces = [piece for chunk in chunks for piece in (chunk.encode()[:3], chunk.encode()[3:])]
    output = write(limit, pieces)
    text = output.text()
    if len(data) <= limit:
        assert text == data.decode()
        return
    assert "\ufffd" not in text or "\ufffd" in data.decode()
    for marker in _MARKER.finditer(text):
        head, tail = text[: marker.start()].encode(), text[marker.end() :].encode()
        if (
            data.startswith(head)
            and data.endswith(tail)
            and int(marker[1]) == len(data) - len(head) - len(tail)
        ):
            break
    else:
        raise AssertionError("head, tail and count do not add up")
    assert len(head) <= limit // 2
    assert len(tail) <= limit - limit // 2
    # Less than a character is missing at either cut.
    assert len(head) > limit // 2 - 4
    assert len(tail) > limit - limit // 2 - 4


@given(st.integers(1, 40), st.binary(max_size=200), st.integers(1, 30))
def test_the_cuts_do_not_depend_on_the_writes(limit: int, data: bytes, size: int) -> None:
    whole = write(limit, [data]).text()
    assert write(limit, [data[i : i + size] for i in range(0, len(data), size)]).text() == whole


def test_what_is_held_is_bounded() -> None:
    output = Output(1000)
    for _ in range(500):
        output.write(bytes(10_000))
        assert len(output._head) + len(output._tail or b"") <= 2000 + 10_000
    assert output.written == 5_000_000
    assert len(output._head) + len(output._tail or b"") <= 2000


def test_garbage_that_looks_like_characters() -> None:
    for byte in (0x80, 0xBF, 0xC0, 0xE0, 0xF0, 0xF8, 0xFF):
        text = write(10, [bytes([byte]) * 100]).text()
        assert _MARKER.search(text)
        assert len(text.encode()) <= 158
