"""The guest's `_wasmeval`: what the modules of the Python image ask of the reactor that holds them, in plain Python.

The image's own modules (`guest_files()` lists them) speak to the host, write values and make tools through a C module
of this name (`runtimes/python/host.c`, `tools.c`, `values.c`). In a microVM the interpreter is the guest's own and
there is no reactor; this module has the same names with the same meaning, so that those modules run unchanged.
"""

from __future__ import annotations

import json
import os
import re
import select
import struct
import sys
import threading
import types
from collections.abc import Callable
from typing import Any

import _wasmeval_arrays as arrays

# ---- the channel -------------------------------------------------------------------------------------------------

EVALUATE, ANSWER, PRACTISE, READY, REPLY, CALL = b"E", b"A", b"P", b"W", b"R", b"H"

NOTHING_UNDER_WAY = -2

_HEAD = struct.Struct("<Ic")
_RESULT = struct.Struct("<i")
_PART_BYTES = 1 << 18


class ChannelClosed(Exception):
    """The agent is gone, or this process is a child that must not speak in its parent's name."""


class Channel:
    """Frames between this process and the agent. `ask` may be called by any thread; one request is under way at a time.

    A KeyboardInterrupt may leave an answer unread: it is counted, and thrown away when it comes.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._received = bytearray()
        self._unread_answers = 0
        self.lock = threading.Lock()
        self.practise: Callable[[], None] | None = None
        """What goes along the way of an evaluation when the agent asks for it."""

    def send(self, kind: bytes, payload: bytes) -> None:
        """One frame, whole."""
        rest = memoryview(_HEAD.pack(len(payload), kind) + payload)
        while rest:
            rest = rest[os.write(self._opened(), rest) :]

    def receive(self) -> tuple[bytes, bytes]:
        """Kind and payload of the next frame; blocks until it is there. ChannelClosed at the end of the stream."""
        received = self._received
        needed = _HEAD.size
        while True:
            if len(received) >= _HEAD.size:
                length, kind = _HEAD.unpack_from(received)
                needed = _HEAD.size + length
                if len(received) >= needed:
                    payload = bytes(received[_HEAD.size : needed])
                    del received[:needed]
                    return kind, payload
            part = os.read(self._opened(), max(_PART_BYTES, needed - len(received)))
            received += part
            if not part:
                raise ChannelClosed("the agent is gone")

    def ask(self, request: bytes) -> bytes | None:
        """The answer to one operation of `abi.md`. None when nothing is under way; NotImplementedError when refused."""
        with self.lock:
            self.send(CALL, request)
            self._unread_answers += 1
            while True:
                # An interrupt falls into this wait, where no byte can be lost by it.
                if len(self._received) < _HEAD.size:
                    _wait_for(self._opened())
                kind, payload = self.receive()
                if kind != ANSWER:
                    raise ChannelClosed(f"a frame {kind!r} came where an answer was due")
                self._unread_answers -= 1
                if not self._unread_answers:
                    break
        result = _RESULT.unpack_from(payload)[0]
        if result == NOTHING_UNDER_WAY:
            return None
        if result < 0:
            raise NotImplementedError("the host offers no such operation")
        return payload[_RESULT.size :]

    def request(self) -> bytes:
        """The payload of the next evaluation's frame. The caller holds the lock."""
        while True:
            kind, payload = self.receive()
            if kind == EVALUATE:
                self._unread_answers = 0
                return payload
            if kind == PRACTISE and self.practise is not None:
                self.practise()
                self.send(READY, b"")

    def close(self) -> None:
        """No frame goes in or out of this process any more."""
        if self._descriptor >= 0:
            descriptor, self._descriptor = self._descriptor, -1
            os.close(descriptor)
        self.lock = threading.Lock()

    def _opened(self) -> int:
        if self._descriptor < 0:
            raise ChannelClosed("a child process cannot ask the host")
        return self._descriptor


def _wait_for(descriptor: int) -> None:
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    poll.poll()


channel: Channel | None = None
"""The harness's; None before there is one."""


def call_host(request: bytes) -> bytes | None:
    """Asks for an operation of the guest ABI. None when nothing is under way that could end; NotImplementedError when
    the host offers no such operation to this evaluation.
    """
    if channel is None:
        raise NotImplementedError("there is no host yet")
    try:
        return channel.ask(request)
    except ChannelClosed as error:
        # The image's NotImplementedError would be taken for a request that is too long.
        errors: Any = sys.modules["wasmeval"]  # the guest's, which a snippet imports its errors from
        raise errors.ToolError(str(error), "gone") from None


# ---- sources -----------------------------------------------------------------------------------------------------

sources: dict[str, str] = {}
"""Name of a snippet, or of a session's step -> its text."""


def source(name: str) -> str | None:
    """The text of the snippet, or of the session's step, of that name; None when there is no such."""
    return sources.get(name)


# ---- values ------------------------------------------------------------------------------------------------------

MOST_DEPTH = 256
_ENDLESS = 1 << 62


class NotJson(Exception):
    """Something in the value is not JSON by the rules of `abi.md`."""


class TooLarge(Exception):
    """The value's JSON is longer than its limit."""


# What is written as it stands, when it is of exactly this class.
_SCALARS = frozenset((int, str, float, bool, type(None)))
_STRINGS = frozenset((str,))
_DIGITS_PER_BIT = 0.30103
_SURROGATES = re.compile("[\ud800-\udfff]")
_write = json.JSONEncoder(ensure_ascii=False, check_circular=False).encode
_parse = json.JSONDecoder().decode
_has_digit_limit = hasattr(sys, "set_int_max_str_digits")


def encode(value: Any) -> bytes | None:
    """`value` as JSON by the rules of an evaluation's value; None when it is not JSON."""
    try:
        return encode_within(value, _ENDLESS)
    except NotJson:
        return None


def encode_within(value: Any, limit: int) -> bytes:
    """`value` as JSON of at most `limit` bytes. NotJson, TooLarge, MemoryError."""
    if type(value) not in _SCALARS or type(value) is int:
        value = _Plain(limit).of(value, 0)
    text: str = _with_any_digits(_write, value)
    try:
        encoded = text.encode()
    except UnicodeEncodeError:
        encoded = _SURROGATES.sub(lambda found: f"\\u{ord(found[0]):04x}", text).encode()
    if len(encoded) > limit:
        raise TooLarge
    return encoded


def decode(text: bytes) -> Any:
    """The value of a JSON text, as an evaluation's inputs are read: integers have any number of digits."""
    return _with_any_digits(_parse, text.decode())


def _with_any_digits(convert: Callable[[Any], Any], value: Any) -> Any:
    """`convert(value)` without the interpreter's limit on digits, whatever the snippet has set."""
    if not _has_digit_limit:
        return convert(value)
    digits = sys.get_int_max_str_digits()
    if not digits:
        return convert(value)
    sys.set_int_max_str_digits(0)
    try:
        return convert(value)
    finally:
        sys.set_int_max_str_digits(digits)


class _Plain:
    """The walk over one value that makes of it what `json` writes by our rules, or says that it cannot.

    `room` is what may still be written; each member takes at least what it surely needs, so that a value that holds
    itself a thousand times is refused before it is written down.
    """

    def __init__(self, room: int) -> None:
        self._room = room
        self._elements = arrays.MOST_ELEMENTS

    def of(self, value: Any, depth: int) -> Any:
        kind = type(value)
        if kind in _SCALARS or isinstance(value, (str, int, float)):
            self._take(_least_bytes(value))
            return value
        if depth == MOST_DEPTH:
            raise NotJson
        if isinstance(value, (list, tuple)):
            # The class's own iteration is not asked: as in the image, the items are those of the array itself.
            items = value if kind is list or kind is tuple else _items_of(value)
            return self._array(items, depth + 1)
        if isinstance(value, dict):
            return self._object(value if kind is dict else _pairs_of(value), depth + 1)
        plain = arrays.plain(value, self._elements)
        if plain is None:
            raise NotJson
        self._elements -= plain[1]
        return self.of(plain[0], depth)

    def _array(self, items: Any, depth: int) -> Any:
        self._take(2 * len(items))
        if self._take_scalars(items):
            return items
        return [self.of(item, depth) for item in items]

    def _object(self, mapping: dict[Any, Any], depth: int) -> dict[Any, Any]:
        self._take(4 * len(mapping))
        if not set(map(type, mapping)) <= _STRINGS and not all(isinstance(key, str) for key in mapping):
            raise NotJson
        self._take(sum(map(len, mapping)))
        values = mapping.values()
        if self._take_scalars(values):
            return mapping
        return {key: self.of(item, depth) for key, item in mapping.items()}

    def _take_scalars(self, items: Any) -> bool:
        """Whether nothing but scalars is in `items`; if so, their room is taken."""
        kinds = set(map(type, items))
        if not kinds <= _SCALARS:
            return False
        if kinds == {str}:
            self._take(sum(map(len, items)))
        elif kinds == {int}:
            self._take(int(sum(map(int.bit_length, items)) * _DIGITS_PER_BIT) - len(items))
        elif int in kinds or str in kinds:
            self._take(sum(map(_least_bytes, items)))
        return True

    def _take(self, count: int) -> None:
        self._room -= count
        if self._room < 0:
            raise TooLarge


def _least_bytes(value: Any) -> int:
    if isinstance(value, str):
        return str.__len__(value)
    if isinstance(value, int):
        return max(int(int.bit_length(value) * _DIGITS_PER_BIT) - 1, 0)
    return 0


def _items_of(array: Any) -> list[Any]:
    return list((list if isinstance(array, list) else tuple).__iter__(array))


def _pairs_of(mapping: Any) -> dict[Any, Any]:
    """The items that a subclass of dict says it has, in its order."""
    try:
        pairs = list(mapping.items())
    except MemoryError:
        raise
    except BaseException:
        raise NotJson from None
    if not all(isinstance(pair, tuple) and len(pair) == 2 for pair in pairs):
        raise NotJson
    return dict(pairs)


def encode_repr(value: Any, limit: int) -> bytes:
    """`{"repr": ..., "type": ...}` of what is not JSON. TooLarge, MemoryError."""
    name = type.__dict__["__name__"].__get__(type(value))
    try:
        text = repr(value)
    except BaseException as error:
        text = _failed_repr(name, error)
    return encode_within({"repr": text, "type": name}, limit)


def _failed_repr(name: str, error: BaseException) -> str:
    try:
        return f"<{name} object, repr failed: {type(error).__name__}: {error}>"
    except BaseException:
        return f"<{name} object, repr failed: {type(error).__name__}>"


# ---- tools -------------------------------------------------------------------------------------------------------

TOOL_FILE = "<tool>"
"""The file of the one frame that a tool has in a traceback the snippet prints; the report leaves it out."""

_caller: Any = None
_beginner: Any = None


def set_tool_handlers(call: Any, begin: Any) -> None:
    """Who is called, with (function, positional, named), for every call of a tool."""
    global _caller, _beginner
    _caller, _beginner = call, begin


def hide(function: Any) -> Any:
    """The same function. The image's has no frame in tracebacks; here the report leaves such frames out."""
    return function


def _delegate(*positional: Any, **named: Any) -> Any:
    return "handler".__call__(positional, named)  # type: ignore[operator]


def make_tool(function: types.FunctionType, begins: bool) -> None:
    """Makes `function`, whose body is empty, one that the handler of calls (or of beginnings) answers.

    A copy with the empty body checks the arguments, so that their errors are the interpreter's own. The function itself
    gets code that takes any arguments and hands them on; what it hands them to is a constant of that code, because its
    globals are the snippet's.
    """
    checked = types.FunctionType(
        function.__code__, function.__globals__, function.__name__, function.__defaults__
    )
    checked.__kwdefaults__ = function.__kwdefaults__
    checked.__annotations__ = function.__annotations__
    checked.__qualname__ = function.__qualname__

    def handle(positional: tuple[Any, ...], named: dict[str, Any]) -> Any:
        try:
            checked(*positional, **named)
            return (_beginner if begins else _caller)(checked, positional, named)
        except BaseException as error:
            # Whatever was raised, it was raised where the snippet called.
            error.__traceback__ = None
            raise

    code = _delegate.__code__
    constants = tuple([handle if each == "handler" else each for each in code.co_consts])
    function.__wrapped__ = checked  # type: ignore[attr-defined]
    function.__code__ = code.replace(
        co_name=function.__code__.co_name, co_filename=TOOL_FILE, co_firstlineno=1, co_consts=constants
    )
    function.__defaults__ = None
    function.__kwdefaults__ = None
