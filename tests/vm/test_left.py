"""Files that a guest gives back are those that a folder can hold, within their limits; anything else ends it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.vm.machines import left
from wasmeval.limits import Limits
from wasmeval.vm.frames import MalformedFrame
from wasmeval.vm.left import Left, Room

LIMITS = Limits(workspace_bytes=1000, workspace_files=5)


def taken(*pieces: tuple[str | bytes, bytes, bool]) -> dict[str, bytes]:
    one = Left(LIMITS, Room(1 << 30))
    for path, content, begins in pieces:
        one.take(begins, left(path, content))
    return {path: bytes(data) for path, data in one.files.items()}


def test_pieces_become_files() -> None:
    pieces = (("a/b", b"one", True), ("a/b", b"two", False), ("c", b"", True), ("a/d/e", b"x", True))
    assert taken(*pieces) == {"a/b": b"onetwo", "c": b"", "a/d/e": b"x"}


HOSTILE = [
    "",
    "/etc/passwd",
    "../up",
    "a/../../up",
    "a//b",
    "a/.",
    "a\0b",
    "x" * 256,
    "a/" * 70 + "b",
    b"\xff\xfe",
]


@pytest.mark.parametrize("path", HOSTILE)
def test_a_path_that_no_result_can_have_is_left_out_and_counted(path: str | bytes) -> None:
    assert taken((path, b"data", True), (path, b"more", False), ("fine", b"x", True)) == {"fine": b"x"}
    with pytest.raises(MalformedFrame, match="more files than their limit"):
        taken(*[(path, b"", True)] * 6)
    with pytest.raises(MalformedFrame, match="more files than their limit"):
        taken((path, bytes(1001), True))


@pytest.mark.parametrize(
    ("pieces", "why"),
    [
        ([("a", b"1", False)], "begins twice, or not at all"),
        ([("a", b"1", True), ("a", b"2", True)], "begins twice, or not at all"),
        ([("a", b"1", True), ("a", b"", False)], "holds nothing"),
        ([("a", b"1", True), ("a/b", b"2", True)], "a file in a file"),
        ([("a/b", b"1", True), ("a", b"2", True)], "a file where a folder is"),
        ([("a", bytes(600), True), ("b", bytes(401), True)], "more files than their limit"),
        ([(f"f{n}", b"", True) for n in range(6)], "more files than their limit"),
        ([(f"{n}/{n}/f", b"", True) for n in range(3)], "more folders than there can be files"),
    ],
)
def test_what_cannot_be_is_malformed(pieces: list[tuple[str, bytes, bool]], why: str) -> None:
    with pytest.raises(MalformedFrame, match=why):
        taken(*pieces)


@given(st.lists(st.tuples(st.booleans(), st.binary(max_size=40)), max_size=20))
def test_random_pieces_keep_the_limits_or_are_malformed(pieces: list[tuple[bool, bytes]]) -> None:
    one = Left(LIMITS, Room(1 << 30))
    try:
        for begins, payload in pieces:
            one.take(begins, payload)
    except MalformedFrame:
        return
    finally:
        assert len(one.files) <= 5
        assert sum(map(len, one.files.values())) <= 1000


def test_all_jobs_together_have_so_much_room() -> None:
    room = Room(10)
    first, second = Left(LIMITS, room), Left(LIMITS, room)
    first.take(True, left("a", b"123456"))
    second.take(True, left("b", b"1234"))
    second.take(False, left("b", b"5"))
    assert second.is_refused
    assert not second.files
    assert room.held_bytes == 6
    second.take(True, left("c", b"1"))
    assert not second.files
    first.release()
    first.release()
    assert room.held_bytes == 0
    assert bytes(first.files["a"]) == b"123456"
