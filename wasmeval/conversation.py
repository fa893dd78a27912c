"""Conversation: what a caller sees of an evaluation while it runs, and what he may say to it.

Three ways lead to the same events: a service by `Client` and `AsyncClient`, and workers of one's own by `Evaluator`.
"""

from __future__ import annotations

import codecs
import contextlib
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import IO, Any

from wasmeval.errors import InvalidArgument, WasmevalError
from wasmeval.events import Answer, Called, Collected, Dropped, Event, Piece, Printed, Wanted
from wasmeval.inputs import encode_value
from wasmeval.model import Result
from wasmeval.tools import Toolbox, decode_arguments, told

OnOutput = Callable[[str, str], object]
"""(stream, text): `stdout` or `stderr`, and what was printed."""

Stdin = str | bytes | IO[bytes] | IO[str] | Iterable[bytes]

_STREAMS = {1: "stdout", 2: "stderr"}
_READ_BYTES = 65536
_MOST_TOOLS_AT_ONCE = 16


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
    arguments_json: bytes = field(repr=False)
    _answer: Callable[[Answer], None] = field(repr=False, compare=False)

    def reply(self, value: Any) -> None:
        """What the call returns in the snippet. Raises InvalidArgument for what JSON does not have."""
        self.answer(encode_value("value", value), None)

    def fail(self, error: BaseException | str) -> None:
        """The call raises in the snippet: an exception of the same name where there is one, with its message."""
        self.answer(b"", ("RuntimeError", error) if isinstance(error, str) else told(error))

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

    def __init__(self, answer: Callable[[Answer], None]) -> None:
        self._answer = answer
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
                yield self._collected.complete(event)

    def _called(self, event: Called) -> Iterator[ConversationEvent]:
        try:
            args, kwargs = decode_arguments(event.arguments)
        except (ValueError, AttributeError, RecursionError):
            # Only a guest that broke its interpreter sends such a thing.
            self._answer(Answer(event.call, b"", ("ValueError", "the call's arguments are not JSON")))
            return
        yield ToolCall(event.call, event.name, args, kwargs, event.arguments, self._answer)


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

    What `on_output` raises ends the conversation and is raised. A tool that still runs at the end is waited for
    by nobody.
    """
    with conversation, _Threads() as threads:
        chunks = input_chunks(stdin)
        for event in conversation:
            match event:
                case Result():
                    return event
                case Output():
                    if on_output is not None:
                        on_output(event.stream, event.text)
                case ToolCall():
                    threads.submit(_run_tool, toolbox, event)
                case InputWanted():
                    # In a daemon thread: reading may block for ever, and the evaluation ends without it.
                    threading.Thread(target=_feed, args=(conversation, chunks), daemon=True).start()
    raise AssertionError("a conversation ends with its Result")


class _Threads:
    """An executor that is made when it is needed, and waited for by nobody."""

    def __init__(self) -> None:
        self._executor: ThreadPoolExecutor | None = None

    def submit(self, function: Callable[..., None], *arguments: object) -> None:
        """Call `function` in a thread."""
        if self._executor is None:
            self._executor = ThreadPoolExecutor(_MOST_TOOLS_AT_ONCE, thread_name_prefix="wasmeval-tool")
        self._executor.submit(function, *arguments)

    def __enter__(self) -> _Threads:
        return self

    def __exit__(self, *_: object) -> None:
        if self._executor is not None:
            self._executor.shutdown(wait=False, cancel_futures=True)


def _run_tool(toolbox: Toolbox, call: ToolCall) -> None:
    value, error = toolbox.run(call.name, call.arguments_json)
    # The conversation may be over by now.
    with contextlib.suppress(WasmevalError):
        call.answer(value, error)


def _feed(conversation: Conversation, chunks: Iterator[bytes | str]) -> None:
    """Read one chunk and send it."""
    try:
        chunk = next(chunks, None)
    except (OSError, ValueError):
        chunk = None  # Closed, or no file to read from: no more input.
    # The conversation may be over by now.
    with contextlib.suppress(WasmevalError):
        if chunk is None:
            conversation.end_input()
        else:
            conversation.send_input(chunk)


def input_chunks(stdin: Stdin | None) -> Iterator[bytes | str]:
    """What text, bytes, a file or an iterable of bytes holds, as it comes. Raises InvalidArgument for anything else."""
    if stdin is None:
        return iter(())
    if isinstance(stdin, str | bytes):
        data = stdin.encode() if isinstance(stdin, str) else stdin
        return iter([data[start : start + _READ_BYTES] for start in range(0, len(data), _READ_BYTES)])
    read = getattr(stdin, "read1", None) or getattr(stdin, "read", None)
    if read is not None:
        return iter(lambda: read(_READ_BYTES) or b"", b"")
    if isinstance(stdin, Iterable):
        return iter(stdin)
    raise InvalidArgument(
        "stdin", f"must be text, bytes, a file or an iterable of bytes, not {type(stdin).__name__}"
    )
