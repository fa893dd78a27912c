"""Translation: what a translator image replied, checked: the code it made, and where each part of it came from.

`lines` has a text for each line of the code: segments `COLUMN,LINE,COLUMN` with semicolons between them, from left to
right, all numbers from 1. A segment says that what begins at the first column comes from that line and column of the
snippet. It is read only when an error has to be placed, and then only the lines that the error names; what cannot be
read says nothing. A text is at most as long as the reply, and every one is read once.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_right
from typing import NamedTuple

from wasmeval.wasm.abi import MalformedReply

Lines = tuple[str, ...]

_PLACE = re.compile(r"<snippet>:(\d{1,9})(?::(\d{1,9}))?")
_SEGMENT = re.compile(r"(\d{1,9}),(\d{1,9}),(\d{1,9})(?:;|\Z)")


class Translation(NamedTuple):
    """`lines` is None where everything is where it was."""

    code: bytes
    lines: Lines | None

    def original(self, line: int, column: int = 0) -> int:
        """The line of the snippet that `line` of the code came from."""
        return line if self.lines is None else original_line(self.lines, line, column)


def largest_translation(size: int) -> int:
    """The most bytes that a translator's reply may have for code of `size` bytes."""
    return 16 * size + (1 << 18)


def decode(value: bytes) -> Translation:
    """The translation in a translator's reply. Raises MalformedReply for what is none."""
    try:
        told = json.loads(value)
        code, lines = told["code"].encode(), told["lines"]
        if lines is not None and not (
            isinstance(lines, list) and all(isinstance(line, str) for line in lines)
        ):
            raise TypeError
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise MalformedReply(f"no translation: {type(error).__name__}") from None
    return Translation(code.replace(b"\0", b""), None if lines is None else tuple(lines))


def original_place(lines: Lines, line: int, column: int = 0) -> tuple[int, int]:
    """Line and column of the snippet for a place in the code; without a column, for the line's beginning.

    (0, 0) for a line that is not in the code or came from nowhere, as it is for an error without a place.
    """
    return _Places(lines).find(line, column)


def original_line(lines: Lines, line: int, column: int = 0) -> int:
    """The line of `original_place`."""
    return original_place(lines, line, column)[0]


def map_traceback(text: str, lines: Lines) -> str:
    """A traceback whose `<snippet>:LINE:COLUMN` say the places in the snippet.

    `<snippet>:LINE` alone is the heading of the error's own place: the first with a column on that line says it better.
    """
    places = _Places(lines)
    columns: dict[str, str] = {}
    for found in _PLACE.finditer(text):
        if found[2]:
            columns.setdefault(found[1], found[2])

    def replace(found: re.Match[str]) -> str:
        column = found[2] or columns.get(found[1], "0")
        line, original = places.find(int(found[1]), int(column))
        if not line:
            return found[0]
        return f"<snippet>:{line}:{original}" if found[2] else f"<snippet>:{line}"

    return _PLACE.sub(replace, text)


class _Places:
    """The segments of lines that were asked for, read once."""

    def __init__(self, lines: Lines) -> None:
        self._lines = lines
        self._read: dict[int, tuple[list[int], list[tuple[int, int]]]] = {}

    def find(self, line: int, column: int) -> tuple[int, int]:
        if not 0 < line <= len(self._lines):
            return 0, 0
        if line not in self._read:
            self._read[line] = _segments(self._lines[line - 1])
        starts, origins = self._read[line]
        return origins[max(0, bisect_right(starts, column) - 1)] if origins else (0, 0)


def _segments(text: str) -> tuple[list[int], list[tuple[int, int]]]:
    """Where each segment of a line begins, and where it came from."""
    segments = sorted((int(at), int(line), int(column)) for at, line, column in _SEGMENT.findall(text))
    return [at for at, _, _ in segments], [(line, column) for _, line, column in segments]
