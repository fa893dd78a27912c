"""Values as JSON and as tables, for people and for other programs."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from wasmeval.arrays import Array
from wasmeval.errors import Internal
from wasmeval.model import Result

_PLACE_OF_VALUE = '"\\u0000value"'


def result_json(result: Result) -> str:
    """`result` as one line of JSON, with the fields of `Result` in their order and `value` decoded.

    The value is embedded as the guest's runtime wrote it, so its numbers have all their digits, and may be the
    tokens NaN, Infinity and -Infinity, which Python's json reads. Raises Internal when what the guest sent is not
    JSON.
    """
    fields: dict[str, Any] = {
        "status": result.status.value,
        "value": "\0value",
        "value_is_json": result.value_is_json,
        "stdout": result.stdout,
        "stderr": result.stderr,
        "stdout_truncated": result.stdout_truncated,
        "stderr_truncated": result.stderr_truncated,
        "error": asdict(result.error) if result.error else None,
        "usage": asdict(result.usage),
        "limits": asdict(result.limits),
        "tier": result.tier,
        "runtime": result.runtime,
        "files": {
            path: {"size": file.size, "media_type": file.media_type} for path, file in result.files.items()
        },
        "http": [asdict(use) for use in result.http],
        "rolled_back": result.rolled_back,
        "receipt": result.receipt.told() if result.receipt else None,
        "unrepeatable": result.unrepeatable,
        "cached": result.cached,
        "tier_detail": result.tier_detail,
        "moved": result.moved,
        "exit_status": result.exit_status,
        "array": _described(result.array) if result.array is not None else None,
    }
    return json.dumps(fields).replace(_PLACE_OF_VALUE, _checked(result.value_json) or "null", 1)


def _described(array: Array) -> dict[str, Any]:
    """With its elements in base64, in C order."""
    return {
        "dtype": array.dtype,
        "shape": list(array.shape),
        "data": base64.b64encode(array.elements).decode(),
    }


def _checked(value_json: bytes) -> str:
    """A value as text, once it is known to be JSON: a guest that broke its interpreter may send anything."""
    try:
        text = value_json.decode()
        if text:
            json.loads(text, parse_int=str)
    except (ValueError, RecursionError) as error:
        raise Internal("the value is not JSON: its guest broke the interpreter it ran in") from error
    # Between tokens; inside a string JSON has none.
    return text.replace("\n", " ").replace("\r", " ")


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """`rows` in columns as wide as they need, under `heads`."""
    widths = [max(len(cell) for cell in column) for column in zip(heads, *rows, strict=True)]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        for row in [heads, *rows]
    ]
    return "\n".join(line.rstrip() for line in lines)
