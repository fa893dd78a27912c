"""Calls: what a guest has begun with its host, and how it waits for outcomes. The operations of `abi.md`.

The image's module of this name serves one thread and an event loop that does nothing but wait for the host. Here the
snippet's threads, sockets and processes are real, and the host takes one request at a time. So whoever is alone waits
in the host for as long as it takes; whoever is not waits there for moments, and lets the others ask in between.
"""

from __future__ import annotations

import asyncio
import struct
import threading
import time
from collections.abc import Callable
from typing import Any

import _wasmeval

CONTEXT, CALL, HTTP, READ, DROP, WAIT = (bytes([number]) for number in range(6))
DONE, RAISED, LIMIT, REFUSED, FAILED = range(5)

_NUMBER, _WAIT, _OUTCOME = struct.Struct("<I"), struct.Struct("<qI"), struct.Struct("<IB3x")
_GONE = FAILED, b'{"type": "gone", "message": "nobody answers this call any more"}'

# The host counts nanoseconds in 64 bits: some 290 years.
_LONGEST_SECONDS = 9e9
# How long one thread keeps the channel when others may want it, and between two looks of a busy event loop.
# Guesses: a moment is some ten round trips of an emulated guest.
_SHORTEST_SECONDS, _MOMENT_SECONDS = 0.0005, 0.01

context: Any = None
"""What the evaluation was given, as `abi.md` has it; None when that is nothing."""

_arrived: dict[int, tuple[int, bytes]] = {}
"""Outcomes that an event loop was handed while a thread waits for them."""


def allows_http() -> bool:
    """Whether the evaluation has a policy that allows some requests."""
    return context is not None and bool(context["http"])


def begin(operation: bytes, body: bytes) -> int:
    """The number of a call that is now under way. NotImplementedError when the host does not take it."""
    answer = _wasmeval.call_host(operation + body)
    assert answer is not None
    number: int = _NUMBER.unpack(answer)[0]
    return number


def drop(number: int) -> None:
    """Nobody waits for this call, or reads this stream, any more."""
    _wasmeval.call_host(DROP + _NUMBER.pack(number))


def outcome(number: int) -> tuple[int, bytes]:
    """Kind and outcome of one call; blocks until it has ended."""
    seconds: float | None = _SHORTEST_SECONDS
    while True:
        alone = _is_alone()
        answer = _wait(None if alone else seconds, number)
        if number in _arrived:
            return _arrived.pop(number)
        if answer is None:
            return _GONE
        if answer:
            return _OUTCOME.unpack_from(answer)[1], answer[_OUTCOME.size :]
        if not alone:
            # A lock is not fair: without this the others would not get it.
            time.sleep(_SHORTEST_SECONDS)
            seconds = min((seconds or 0) * 2, _MOMENT_SECONDS)


def _is_alone() -> bool:
    """Whether nobody else can want the channel while this thread waits in the host."""
    return threading.active_count() == 1


def _wait(seconds: float | None, number: int) -> bytes | None:
    timeout = -1 if seconds is None else int(min(seconds, _LONGEST_SECONDS) * 1e9)
    answer: bytes | None = _wasmeval.call_host(WAIT + _WAIT.pack(timeout, number))
    return answer


# ---- event loops -------------------------------------------------------------------------------------------------


class _Pending(dict[int, Any]):
    """Number of a call that an event loop waits for -> (that loop, function of its kind and outcome).

    Who puts one in runs in the loop; as long as calls of its are in here, the loop looks after them.
    """

    def __setitem__(self, number: int, settle: Callable[[int, bytes], None]) -> None:
        loop = asyncio.get_running_loop()
        watched = any(other is loop for other, _ in self.values())
        super().__setitem__(number, (loop, settle))
        if not watched:
            loop.call_soon(_look, loop, _SHORTEST_SECONDS)


pending = _Pending()


def _look(loop: Any, seconds: float) -> None:
    """Hands on what has ended. Waits in the host when the loop has nothing else to do, else looks again in a moment."""
    if not any(other is loop for other, _ in pending.values()):
        return
    idle, until_timer = _idleness(loop)
    came = _settle_one(until_timer if idle else 0)
    while came and _settle_one(0):
        pass
    if came or idle:
        loop.call_soon(_look, loop, _SHORTEST_SECONDS)
    else:
        loop.call_later(seconds, _look, loop, min(seconds * 2, _MOMENT_SECONDS))


def _idleness(loop: Any) -> tuple[bool, float | None]:
    """Whether `loop` can only be woken by the host or a timer, and the seconds until its next timer (None: no timer).

    Looks at what loops of the standard library keep for themselves; any other loop is taken for a busy one.
    """
    try:
        files = len(loop._selector.get_map())
        if loop._ready or files > 1 or loop._stopping or loop._signal_handlers or not _is_alone():
            return False, 0
        timers = loop._scheduled
        return True, max(timers[0].when() - loop.time(), 0) if timers else None
    except AttributeError:
        return False, 0


def _settle_one(seconds: float | None) -> bool:
    """Waits until a call has ended, `seconds` at most (None: for ever), and hands its outcome on. Whether one had."""
    answer = _wait(seconds, 0)
    if answer is None:
        waiting = list(pending.values())
        pending.clear()
        for loop, settle in waiting:
            _hand_on(loop, settle, *_GONE)
        return False
    if not answer:
        return False
    number, kind = _OUTCOME.unpack_from(answer)
    entry = pending.pop(number, None)
    if entry is None:
        _arrived[number] = kind, answer[_OUTCOME.size :]
    else:
        loop, settle = entry
        _hand_on(loop, settle, kind, answer[_OUTCOME.size :])
    return True


def _hand_on(loop: Any, settle: Callable[[int, bytes], None], kind: int, told: bytes) -> None:
    try:
        running: Any = asyncio.get_running_loop()
    except RuntimeError:
        running = None
    if loop is running:
        settle(kind, told)
        return
    try:
        loop.call_soon_threadsafe(settle, kind, told)
    except RuntimeError:
        pass  # closed meanwhile: nobody waits there any more
