"""Calls: what a guest has begun with its host, and how it waits for outcomes. The operations of `abi.md`.

Outcomes wait in the host until they are asked for. A blocking call asks for its own; an event loop asks for any,
and hands it to whoever has put himself down in `pending`.
"""

import struct

import _wasmeval

CONTEXT, CALL, HTTP, READ, DROP, WAIT = (bytes([number]) for number in range(6))
DONE, RAISED, LIMIT, REFUSED, FAILED = range(5)

_NUMBER, _WAIT, _OUTCOME = struct.Struct("<I"), struct.Struct("<qI"), struct.Struct("<IB3x")
# The host counts nanoseconds in 64 bits: some 290 years.
_LONGEST_SECONDS = 9e9

context = None
"""What the evaluation was given, as `abi.md` has it; None when that is nothing."""

pending = {}
"""Number of a call that an event loop waits for -> function of its kind and outcome."""


def allows_http():
    return context is not None and context["http"]


def begin(operation, body):
    """The number of a call that is now under way. NotImplementedError when the host does not take it."""
    return _NUMBER.unpack(_wasmeval.call_host(operation + body))[0]


def drop(number):
    """Nobody waits for this call, or reads this stream, any more."""
    _wasmeval.call_host(DROP + _NUMBER.pack(number))


def outcome(number):
    """Kind and outcome of one call; blocks until it has ended."""
    answer = _wasmeval.call_host(WAIT + _WAIT.pack(-1, number))
    if not answer:
        return FAILED, b'{"type": "gone", "message": "nobody answers this call any more"}'
    return _OUTCOME.unpack_from(answer)[1], answer[_OUTCOME.size :]


def settle_one(seconds):
    """Waits until a call has ended, `seconds` at most (None: for ever), and hands its outcome on."""
    timeout = -1 if seconds is None else int(min(seconds, _LONGEST_SECONDS) * 1e9)
    answer = _wasmeval.call_host(WAIT + _WAIT.pack(timeout, 0))
    if answer is None:
        waiting = list(pending.values())
        pending.clear()
        for settle in waiting:
            settle(FAILED, b'{"type": "gone", "message": "nobody answers this call any more"}')
    elif answer:
        number, kind = _OUTCOME.unpack_from(answer)
        settle = pending.pop(number, None)
        if settle is not None:
            settle(kind, answer[_OUTCOME.size :])
