"""Tracebacks without the harness in them, and with the suggestions that the interpreter itself would print."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any

import _wasmeval

_OUR_FILES = frozenset([_wasmeval.TOOL_FILE, *map(str, Path(__file__).parent.glob("*.py"))])


def leave_out_our_frames(error: BaseException) -> None:
    """Takes the harness's frames out of the tracebacks of `error` and of all that led to it."""
    waiting: list[BaseException | None] = [error]
    seen: set[int] = set()
    while waiting:
        one = waiting.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        one.__traceback__ = _without_our_frames(one.__traceback__)
        waiting += (one.__cause__, one.__context__, *getattr(one, "exceptions", ()))


def _without_our_frames(step: Any) -> Any:
    first = last = None
    while step is not None:
        following = step.tb_next
        if step.tb_frame.f_code.co_filename not in _OUR_FILES:
            if last is None:
                first = step
            elif last.tb_next is not step:
                last.tb_next = step
            last = step
        step = following
    if last is not None and last.tb_next is not None:
        last.tb_next = None
    return first


def with_suggestion(error: BaseException, text: str) -> str:
    """`text`, the traceback of `error`, with its "Did you mean": before 3.12 only what prints an error knows it."""
    if not isinstance(error, (NameError, AttributeError)):
        return text
    printed, sys.stderr = sys.stderr, io.StringIO()
    try:
        sys.__excepthook__(type(error), error, error.__traceback__)
        hint = sys.stderr.getvalue().rstrip("\n").rpartition("\n")[2]
    finally:
        sys.stderr = printed
    plain = text.rstrip("\n").rpartition("\n")[2]
    return text[: -len(plain) - 1] + hint + "\n" if hint.startswith(plain) else text
