"""Conversation: what a caller sees of an evaluation while it runs, and what he may say to it.

Three ways lead to the same events: a service by `Client` and `AsyncClient`, and workers of one's own by `Evaluator`.
"""

from __future__ import annotations

import codecs
import contextlib
import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import IO, Any, Protocol

from wasmeval.errors import InvalidArgument, WasmevalError
from wasmeval.events import Answer, Called, Collected, Dropped, Event, Piece, Printed, Wanted
from wasmeval.model import Result
from wasmeval.tools import Toolbox, ToolThread, decode_arguments, encode_answer, in_thread, is_async, told

OnOutput = Callable[[str, str], object]
"""(stream, text): `stdout` or `stderr`, and what was printed."""

Stdin = str | bytes | IO[bytes] | IO[str] | Iterable[bytes] | Iterable[str]

_STREAMS = {1: "stdout", 2: "stderr"}
_READ_BYTES = 65536
_Bytes = bytes | bytearray | memoryview


@dataclass(frozen=True, slots=True)
class Output:
    """The snippet printed `text` to `stream`, which is `stdout` or `stderr`."""

    stream: str
    text: str


@dataclass(frozen=True, slots=True)
class ToolCall:
    """The snippet calls a tool and waits: `reply` or `fail`, once, from any thread.

    `args` and `kwargs` are JSON values that the snippet wrote: do not trust them.
    """

    id: int
    name: str
    args: list[Any]
    kwargs: dict[str, Any]
    _answer: Callable[[Answer], None] = field(repr=False, compare=False)

    def reply(self, value: Any) -> None:
        """What the call returns in the snippet. Raises InvalidArgument for what JSON does not have, and for more than
        8 MiB of it or 262,144 arrays and objects."""
        self.answer(encode_answer(value), None)

    def fail(self, error: BaseException | str) -> None:
        """The call raises in the snippet: an exception of the same name where there is one, with its message."""
        self.answer(b"", told(error))

    def answer(self, value_json: bytes, error: tuple[str, str] | None) -> None:
        """The same with JSON text, or the class and message of an exception."""
        self._answer(Answer(self.id, value_json, error))


@dataclass(frozen=True, slots=True)
class ToolCallCancelled:
    """The answer to the call of that `id` is not needed any more."""

    id: int


@dataclass(frozen=True, slots=True)
class InputWanted:
    """The snippet waits for standard input: `send_input`, or `end_input`."""


ConversationEvent = Output | ToolCall | ToolCallCancelled | InputWanted | Result


class EventReader:
    """Turns what comes from the other side into events for the caller; one for each conversation."""

    def __init__(
        self, answer: Callable[[Answer], None], finish: Callable[[Result], Result] | None = None
    ) -> None:
        """`finish` is given the Result, and gives the one that the caller sees."""
        self._answer = answer
        self._finish = finish
        self._collected = Collected({})
        decoder = codecs.getincrementaldecoder("utf-8")
        self._decoders = {stream: decoder("replace") for stream in _STREAMS}

    def read(self, event: Event | None) -> Iterator[ConversationEvent]:
        """The events that `event` means: none for a part of one."""
        match event:
            case Printed():
                if event.stream in _STREAMS and (text := self._decoders[event.stream].decode(event.data)):
                    yield Output(_STREAMS[event.stream], text)
            case Called():
                yield from self._called(event)
            case Wanted():
                yield InputWanted()
            case Dropped():
                yield ToolCallCancelled(event.call)
            case Piece():
                self._collected.add(event)
            case Result():
                for stream, name in _STREAMS.items():
                    if text := self._decoders[stream].decode(b"", final=True):
                        yield Output(name, text)
                if event.cached:
                    yield from known_output(event)
                result = self._collected.complete(event)
                yield self._finish(result) if self._finish else result

    def _called(self, event: Called) -> Iterator[ConversationEvent]:
        try:
            args, kwargs = decode_arguments(event.arguments)
        except (ValueError, AttributeError, RecursionError):
            # Only a guest that broke its interpreter sends such a thing.
            self._answer(Answer(event.call, b"", ("ValueError", "the call's arguments are not JSON")))
            return
        yield ToolCall(event.call, event.name, args, kwargs, self._answer)


class Conversation(ABC):
    """An evaluation that runs: iterate over its events, the last of which is its Result.

    Leaving the `with` block, or `close`, stops what still runs.
    """

    def __iter__(self) -> Iterator[ConversationEvent]:
        return self

    @abstractmethod
    def __next__(self) -> ConversationEvent:
        """The next event. Raises as `evaluate` does."""

    @abstractmethod
    def send_input(self, data: bytes | str) -> None:
        """More standard input for the snippet."""

    @abstractmethod
    def end_input(self) -> None:
        """There is no more standard input."""

    @abstractmethod
    def cancel(self) -> None:
        """End the snippet; its Result, with the status `cancelled`, still comes."""

    @abstractmethod
    def close(self) -> None:
        """Stop the snippet, if it runs; there are no further events. Safe to call twice."""

    def __enter__(self) -> Conversation:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def drive(
    conversation: Conversation, toolbox: Toolbox, on_output: OnOutput | None, stdin: Stdin | None
) -> Result:
    """Follow a conversation to its Result: run the tools that are called, each in a thread; pass on the output here.

    What `on_output` or `stdin` raises ends the conversation and is raised. Tools that still run at the end are
    cancelled when they are async, and waited for by nobody.
    """
    calls: dict[int, ToolThread] = {}
    try:
        with conversation:
            check_callbacks(on_output, stdin)
            feeder = Feeder(conversation, stdin)
            with feeder.raising():
                for event in conversation:
                    match event:
                        case Result():
                            return event
                        case Output():
                            if on_output is not None:
                                _show(on_output, event)
                        case ToolCall():
                            reply = partial(_answer, calls, event)
                            calls[event.id] = ToolThread(toolbox, event.name, event.args, event.kwargs, reply)
                        case ToolCallCancelled():
                            if call := calls.pop(event.id, None):
                                call.cancel()
                        case InputWanted():
                            feeder.wanted()
        raise AssertionError("a conversation ends with its Result")
    finally:
        for call in list(calls.values()):
            call.cancel()


def known_output(result: Result) -> Iterator[Output]:
    """What a snippet printed that was known, and did not run."""
    for stream, text in (("stdout", result.stdout), ("stderr", result.stderr)):
        if text:
            yield Output(stream, text)


def _answer(
    calls: dict[int, ToolThread], call: ToolCall, value_json: bytes, error: tuple[str, str] | None
) -> None:
    calls.pop(call.id, None)
    call.answer(value_json, error)


def check_callbacks(on_output: object, stdin: object, *, can_await: bool = False) -> None:
    """Raises InvalidArgument for an `on_output` or a `stdin` that cannot be."""
    if on_output is not None and not callable(on_output):
        raise InvalidArgument("on_output", f"must be a function, not {type(on_output).__name__}")
    if is_async(on_output) and not can_await:
        raise _unawaited()
    if isinstance(stdin, str):
        _encoded(stdin)
    elif stdin is not None and not _reader(stdin) and not isinstance(stdin, Iterable | _Bytes):
        raise InvalidArgument(
            "stdin", f"must be text, bytes, a file or an iterable of them, not {type(stdin).__name__}"
        )


def _show(on_output: OnOutput, event: Output) -> None:
    given = on_output(event.stream, event.text)
    if inspect.isawaitable(given):
        if inspect.iscoroutine(given):
            given.close()
        raise _unawaited()


def _unawaited() -> InvalidArgument:
    return InvalidArgument("on_output", "is async, which only AsyncClient can await; pass a plain function")


class Fed(Protocol):
    """What takes input: a `Conversation` or an `AsyncConversation`, from any thread."""

    def send_input(self, data: bytes | str) -> None: ...
    def end_input(self) -> None: ...
    def cancel(self) -> None: ...


class Feeder:
    """Reads the caller's input when the snippet wants some, in a daemon thread: reading may block for ever, and the
    evaluation ends without it."""

    def __init__(self, conversation: Fed, stdin: object) -> None:
        self._conversation = conversation
        self._chunks = input_chunks(stdin)
        # Written by the thread that reads, before it sends: one that wants more has got what was read.
        self._reading = False
        self._over = False
        self._failure: BaseException | None = None

    def wanted(self) -> None:
        """Read a chunk and send it, or the end. A second wish while one is read is none."""
        if not self._reading:
            self._reading = True
            in_thread(self._feed)

    @contextlib.contextmanager
    def raising(self) -> Iterator[None]:
        """However the block ends: what the caller's iterator raised is raised instead."""
        try:
            yield
        finally:
            self._over = True
            if self._failure is not None:
                raise self._failure

    def _feed(self) -> None:
        chunk: bytes | str | None = None
        try:
            chunk = self._next()
        except BaseException as error:
            self._failure = error
        self._reading = False
        # The conversation, or its event loop, may be over by now.
        with contextlib.suppress(WasmevalError, RuntimeError):
            if self._failure is not None:
                self._conversation.cancel()
            elif chunk is None:
                self._conversation.end_input()
            else:
                self._conversation.send_input(chunk)

    def _next(self) -> bytes | str | None:
        for chunk in self._chunks:
            if not isinstance(chunk, str | _Bytes):
                raise InvalidArgument("stdin", f"must give bytes or str, not {type(chunk).__name__}")
            if self._over:
                break
            if chunk:
                return _encoded(chunk) if isinstance(chunk, str) else bytes(chunk)
        return None


def input_chunks(stdin: object) -> Iterator[object]:
    """What text, bytes, a file or an iterable of them holds, as it comes; nothing for None."""
    if stdin is None:
        return iter(())
    if isinstance(stdin, str | _Bytes):
        data = _encoded(stdin) if isinstance(stdin, str) else bytes(stdin)
        return iter([data[start : start + _READ_BYTES] for start in range(0, len(data), _READ_BYTES)])
    if read := _reader(stdin):
        return _read(read)
    assert isinstance(stdin, Iterable)
    return iter(stdin)


def _reader(stdin: object) -> Callable[[int], object] | None:
    return getattr(stdin, "read1", None) or getattr(stdin, "read", None)


def _read(read: Callable[[int], object]) -> Iterator[object]:
    # Closed, or not open for reading: no more input.
    with contextlib.suppress(OSError, ValueError):
        while chunk := read(_READ_BYTES):
            yield chunk


def _encoded(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise InvalidArgument("stdin", "not valid Unicode: it cannot be written as UTF-8") from None
