"""Translation: what a translator image replied, checked: the code it made, and where each of its lines came from."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

from wasmeval.wasm.abi import MalformedReply

_LINE = re.compile(r"(<snippet>:)(\d{1,9})")


@dataclass(frozen=True, slots=True)
class Translation:
    """`lines[n]` is the original line, from 1, of the code's line `n + 1`; None where no line has moved."""

    code: bytes
    lines: tuple[int, ...] | None

    def original(self, line: int) -> int:
        """The line that `line` of the code came from."""
        return line if self.lines is None else original_line(self.lines, line)


def largest_translation(size: int) -> int:
    """The most bytes that a translator's reply may have for code of `size` bytes."""
    return 16 * size + (1 << 18)


def decode(value: bytes) -> Translation:
    """The translation in a translator's reply. Raises MalformedReply for what is none."""
    try:
        told = json.loads(value)
        code, lines = told["code"].encode(), told["lines"]
        if lines is not None and not all(isinstance(line, int) and 0 <= line < 1 << 31 for line in lines):
            raise ValueError("a line that cannot be")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise MalformedReply(f"no translation: {type(error).__name__}") from None
    return Translation(code.replace(b"\0", b""), None if lines is None else tuple(lines))


def original_line(lines: tuple[int, ...], line: int) -> int:
    """The original of `line`; 0, for none, stays 0, and so does what is beyond the code."""
    return lines[line - 1] if 0 < line <= len(lines) else 0


def map_traceback(text: str, lines: tuple[int, ...]) -> str:
    """A traceback whose `<snippet>:LINE` say the original lines."""
    return _LINE.sub(lambda match: f"{match[1]}{original_line(lines, int(match[2])) or match[2]}", text)
