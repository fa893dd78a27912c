"""The names of instrumented functions are found, compressed or not."""

from __future__ import annotations

import hashlib
import zlib

from runtimes.llvm import function_names
from runtimes.snapshot import unsigned_leb


def key(name: bytes) -> int:
    return int.from_bytes(hashlib.md5(name).digest()[:8], "little")


def test_names_are_found_in_plain_and_in_compressed_blocks() -> None:
    plain, packed = b"main\1other", zlib.compress(b"x" * 200 + b"\1last")
    section = unsigned_leb(len(plain)) + b"\0" + plain + bytes(3)
    section += unsigned_leb(205) + unsigned_leb(len(packed)) + packed + bytes(2)
    names = function_names(section)
    assert names == {key(name): name for name in (b"main", b"other", b"x" * 200, b"last")}


def test_a_section_without_names_has_none() -> None:
    assert function_names(b"") == {}
