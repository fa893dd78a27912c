"""Streams: conversations with a service, over gRPC, for `Client` and `AsyncClient`."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import os
import threading
import weakref
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from queue import SimpleQueue
from types import TracebackType
from typing import Any

import grpc

from wasmeval.conversation import (
    Conversation,
    ConversationEvent,
    EventReader,
    Feeder,
    InputWanted,
    OnOutput,
    Output,
    Stdin,
    ToolCall,
)
from wasmeval.errors import Unavailable, WasmevalError
from wasmeval.model import Request, Result
from wasmeval.recording import recorded
from wasmeval.tools import Toolbox
from wasmeval.wire.conversations import (
    CANCEL,
    decode_event,
    encode_answer,
    encode_input,
    encode_pieces,
    encode_start,
)

INLINE_FILES_BYTES = 4 << 20
"""Smaller files go with the start, larger ones in pieces behind it."""

_LETTING_GO_SECONDS = 5.0
_Call = Callable[[Any], Any]
Explain = Callable[[BaseException], WasmevalError]
"""What an error of gRPC's means to a caller; a CancelledError only when the client was closed."""


def opening(request: Request, session_id: str = "", waits: bool = True) -> tuple[bytes, Mapping[str, bytes]]:
    """The Start message, and the files that follow it. Raises InvalidArgument for what no message can carry."""
    grants = request.grants
    if grants is None or sum(map(len, grants.files.values())) <= INLINE_FILES_BYTES:
        return encode_start(request, 0, session_id, waits), {}
    without = request._replace(grants=replace(grants, files={}))
    return encode_start(without, len(grants.files), session_id, waits), grants.files


class _Speaker(ABC):
    """What a caller says in a conversation; nothing once it is over."""

    _over = False

    @abstractmethod
    def _put(self, message: bytes | None) -> None:
        """Queues a message for gRPC; None ends them."""

    def send_input(self, data: bytes | str) -> None:
        """As `Conversation.send_input`."""
        data = data.encode() if isinstance(data, str) else data
        for start in range(0, len(data), _INPUT_BYTES):
            self._say(encode_input(data[start : start + _INPUT_BYTES], is_last=False))

    def end_input(self) -> None:
        """As `Conversation.end_input`."""
        self._say(encode_input(b"", is_last=True))

    def cancel(self) -> None:
        """As `Conversation.cancel`."""
        self._say(CANCEL)

    def _say(self, message: bytes) -> None:
        if not self._over:
            self._put(message)


_INPUT_BYTES = 1 << 20


class ServiceConversation(_Speaker, Conversation):
    """See Conversation. `call` starts the gRPC call, given its messages; `explain` makes errors ours."""

    def __init__(
        self,
        call: _Call,
        explain: Explain,
        request: Request,
        session_id: str = "",
        waits: bool = True,
        language: str = "",
    ) -> None:
        """`language`: of the session whose next step it is."""
        start, files = opening(request, session_id, waits)
        self._explain = explain
        # Neither gRPC's thread nor an event keeps this alive: one that is dropped is closed.
        said: SimpleQueue[bytes | None] = SimpleQueue()
        self._said = said
        self._sender = _Sender(said)
        self._reader = EventReader(
            lambda answer: said.put(encode_answer(answer)), lambda result: recorded(result, request, language)
        )
        self._pending: Iterator[ConversationEvent] = iter(())
        self.heard = False
        """Whether the service has said anything yet."""
        # None once this is closed.
        self._call = call(self._sender.messages(start, files))
        self._dropped = weakref.finalize(self, _let_go, self._call, said, os.getpid())

    def __next__(self) -> ConversationEvent:
        """See Conversation."""
        while True:
            event = next(self._pending, None)
            if event is not None:
                if isinstance(event, Result):
                    self.close()
                return event
            if self._over:
                raise StopIteration
            if (data := self._receive()) is None:
                raise StopIteration
            self._pending = self._reader.read(decode_event(data))
            self.heard = True

    def close(self) -> None:
        """See Conversation.

        Returns when gRPC's threads have let go of the call. Interpreters that end kill them wherever they are, and
        with the lock of a call that still exists held, its destructor would wait for ever.
        """
        self._over = True
        self._dropped.detach()
        call, self._call = self._call, None
        if call is None:
            return
        ended = threading.Event()
        # Before its side ends: a guest whose calls fail because nobody is there any more might end well.
        call.cancel()
        self._said.put(None)
        if call.add_callback(ended.set):
            ended.wait(_LETTING_GO_SECONDS)
        if self._sender.thread is not None:
            self._sender.thread.join(_LETTING_GO_SECONDS)

    def _put(self, message: bytes | None) -> None:
        self._said.put(message)

    def _receive(self) -> bytes | None:
        """The next message; None when another thread closed this meanwhile."""
        if (call := self._call) is None:
            return None
        failure: WasmevalError
        try:
            data: bytes = next(call)
        except StopIteration:
            failure = _ended()
        except grpc.RpcError as error:
            # It is the call itself; what is raised must not keep it.
            failure = self._explain(error)
        else:
            return data
        del call
        if self._over:
            return None
        self.close()
        raise failure


class _Sender:
    """What gRPC's own thread takes of a conversation, and waits for. `thread` is that thread."""

    def __init__(self, said: SimpleQueue[bytes | None]) -> None:
        self._said = said
        self.thread: threading.Thread | None = None

    def messages(self, start: bytes, files: Mapping[str, bytes]) -> Iterator[bytes]:
        """All that is said; `files` are not held twice."""
        self.thread = threading.current_thread()
        yield start
        yield from encode_pieces(files)
        while (message := self._said.get()) is not None:
            yield message


def _let_go(call: Any, said: SimpleQueue[bytes | None], process: int) -> None:
    if process == os.getpid():
        call.cancel()
        said.put(None)


class AsyncConversation(_Speaker):
    """The same as `Conversation`, with `async for` and `async with`, in one event loop.

    `is_closed` says whether the client was closed, which cancels its calls.
    """

    def __init__(
        self,
        call: _Call,
        explain: Explain,
        request: Request,
        is_closed: Callable[[], bool],
        session_id: str = "",
        waits: bool = True,
        language: str = "",
    ) -> None:
        start, files = opening(request, session_id, waits)
        self._explain = explain
        self._is_closed = is_closed
        # As in ServiceConversation: nothing that gRPC or an event keeps knows this.
        said = self._said = _Said()
        self._reader = EventReader(
            lambda answer: said.put(encode_answer(answer)), lambda result: recorded(result, request, language)
        )
        self._pending: Iterator[ConversationEvent] = iter(())
        self.heard = False
        """Whether the service has said anything yet."""
        self._call = call(said.messages(start, files))
        weakref.finalize(self, said.let_go, self._call).atexit = False

    def __aiter__(self) -> AsyncConversation:
        return self

    async def __anext__(self) -> ConversationEvent:
        """The next event. Raises as `evaluate` does."""
        while True:
            event = next(self._pending, None)
            if event is not None:
                self._over = self._over or isinstance(event, Result)
                return event
            if self._over:
                raise StopAsyncIteration
            if (data := await self._receive()) is None:
                raise StopAsyncIteration
            self._pending = self._reader.read(decode_event(data))
            self.heard = True

    async def __aenter__(self) -> AsyncConversation:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """As `Conversation.close`."""
        self._over = True
        self._call.cancel()
        self._put(None)

    def _put(self, message: bytes | None) -> None:
        self._said.put(message)

    async def _receive(self) -> bytes | None:
        """The next message; None when another task closed this meanwhile."""
        try:
            data = await self._call.read()
            if data is grpc.aio.EOF:
                await self._fail()
        except (grpc.RpcError, Unavailable, asyncio.CancelledError) as error:
            was_over, self._over = self._over, True
            # Ends the task of gRPC's that takes our messages.
            self._put(None)
            # Closing this or the client cancels the call, from within; cancelling a task comes from without.
            task = asyncio.current_task()
            from_within = (was_over or self._is_closed()) and not (task and task.cancelling())
            if isinstance(error, asyncio.CancelledError) and not from_within:
                raise
            if was_over:
                return None
            raise (error if isinstance(error, Unavailable) else self._explain(error)) from None
        answer: bytes = data
        return answer

    async def _fail(self) -> None:
        """The status says why there was no Result."""
        code = await self._call.code()
        if code is grpc.StatusCode.OK:
            raise _ended()
        initial, trailing = await self._call.initial_metadata(), await self._call.trailing_metadata()
        raise grpc.aio.AioRpcError(code, initial, trailing, await self._call.details())


class _Said:
    """What is said in an AsyncConversation, on its way to gRPC; from any thread."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._loop = asyncio.get_running_loop()

    def put(self, message: bytes | None) -> None:
        """Another message; None ends them."""
        if _running_loop() is self._loop:
            self._queue.put_nowait(message)
        else:
            self._loop.call_soon_threadsafe(self._queue.put_nowait, message)

    async def messages(self, start: bytes, files: Mapping[str, bytes]) -> AsyncIterator[bytes]:
        """What gRPC takes."""
        yield start
        for piece in encode_pieces(files):
            yield piece
        while (message := await self._queue.get()) is not None:
            yield message

    def let_go(self, call: Any) -> None:
        """Nobody has the conversation any more. A collection may happen in any thread, and after the loop's end."""
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(call.cancel)
            self._loop.call_soon_threadsafe(self._queue.put_nowait, None)


async def drive_async(
    conversation: AsyncConversation, toolbox: Toolbox, on_output: OnOutput | None, stdin: Stdin | None
) -> Result:
    """As `conversation.drive`: async tools run on this event loop, others in threads, all of them at once."""
    calls: dict[int, asyncio.Task[None]] = {}
    try:
        async with conversation:
            feeder = Feeder(conversation, stdin)
            with feeder.raising():
                async for event in conversation:
                    if isinstance(event, Result):
                        return event
                    if isinstance(event, Output):
                        if on_output is not None:
                            given = on_output(event.stream, event.text)
                            if inspect.isawaitable(given):
                                await given
                    elif isinstance(event, ToolCall):
                        work = toolbox.run(event.name, event.args, event.kwargs, event.answer)
                        task = calls[event.id] = asyncio.get_running_loop().create_task(work)
                        task.add_done_callback(partial(_forget, calls, event.id))
                    elif isinstance(event, InputWanted):
                        feeder.wanted()
                    elif event.id in calls:
                        calls[event.id].cancel()
        raise AssertionError("a conversation ends with its Result")
    finally:
        for task in list(calls.values()):
            task.cancel()


def _forget(calls: dict[int, asyncio.Task[None]], call: int, _: object) -> None:
    calls.pop(call, None)


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def _ended() -> Unavailable:
    return Unavailable("the service ended the conversation without a result; is it wasmeval?")
